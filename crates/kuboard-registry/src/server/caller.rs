//! Who asks, and what they may do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::authorizer::{Grant, Judge, Workload};
use super::scope::Granted;

/// What is done to a repository, or to the registry.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Read manifests, blobs, tags and referrers.
    Pull,
    /// Write manifests, blobs and tags.
    Push,
    /// Remove manifests, blobs and tags.
    Delete,
    /// List the repositories.
    Catalog,
}

impl Action {
    /// The word that tokens and scopes use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Catalog => "catalog",
        }
    }
}

/// What callers without credentials may do; everybody else may do it too.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Nothing.
    None,
    /// Pull and list.
    Pull,
    /// Everything, deleting included.
    Push,
}

impl Anonymous {
    fn may(self, action: Action) -> bool {
        match self {
            Self::None => false,
            Self::Pull => matches!(action, Action::Pull | Action::Catalog),
            Self::Push => true,
        }
    }
}

/// Whoever sent a request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name behind the credentials; `None` for a caller without.
    pub name: Option<Arc<str>>,
    /// The workload of a cluster that asks, where the credentials say.
    pub workload: Option<Arc<Workload>>,
    floor: Anonymous,
    rights: Rights,
}

#[derive(Clone, Debug)]
enum Rights {
    None,
    /// What the user or key was given.
    Grant(Arc<Grant>),
    /// What a token lists.
    Token(Arc<[Granted]>),
}

impl Caller {
    /// Somebody without name and rights.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::without_credentials(Anonymous::None)
    }

    pub(crate) fn without_credentials(floor: Anonymous) -> Self {
        Self { name: None, workload: None, floor, rights: Rights::None }
    }

    pub(crate) fn granted(grant: Arc<Grant>, floor: Anonymous) -> Self {
        let (name, workload) = (Some(grant.name.as_str().into()), grant.workload.clone());
        Self { name, workload, floor, rights: Rights::Grant(grant) }
    }

    pub(crate) fn bearing(name: Option<Arc<str>>, access: Vec<Granted>, floor: Anonymous) -> Self {
        Self { name, workload: None, floor, rights: Rights::Token(access.into()) }
    }

    pub(crate) fn with_workload(mut self, workload: Option<Arc<Workload>>) -> Self {
        self.workload = workload;
        self
    }

    /// True if the caller may do this to the repository, as far as that is known without asking
    /// anybody; [`Access::allows`](super::Access::allows) asks. [`Action::Catalog`] is about the
    /// registry; the name is not looked at.
    pub fn may(&self, action: Action, repository: &str) -> bool {
        self.floor.may(action)
            || match &self.rights {
                Rights::None => false,
                Rights::Grant(grant) => grant.may(action, repository),
                Rights::Token(access) => {
                    access.iter().any(|granted| granted.covers(action, repository))
                }
            }
    }

    /// Whom to ask for what the caller is not known to have.
    pub(crate) fn judge(&self) -> Option<&Judge> {
        match &self.rights {
            Rights::Grant(grant) => grant.judge.as_ref(),
            _ => None,
        }
    }

    /// True if credentials were sent and accepted.
    pub fn is_authenticated(&self) -> bool {
        self.name.is_some()
    }

    /// True if the caller came with a token, whose rights a new token may exceed.
    pub(crate) fn bears_token(&self) -> bool {
        matches!(self.rights, Rights::Token(_))
    }
}
