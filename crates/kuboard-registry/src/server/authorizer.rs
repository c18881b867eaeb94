//! The door for whoever knows users: given a name and a secret, what may be done with them.

use std::sync::Arc;

use kuboard_rt::BoxFuture;
use serde::{Deserialize, Serialize};

use super::caller::Action;
use super::error::ApiError;
use super::glob;

/// What somebody may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who it is, for logs and for the token's subject.
    pub name: String,
    /// What is allowed; what no rule allows is not.
    pub rules: Vec<Rule>,
    /// Stands for the credentials as they were stored. It changes with them, so that a refresh
    /// token made for the old ones ends; it must not tell anything about the secret.
    pub stamp: String,
    /// When the credentials end, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

impl Grant {
    /// True if a rule allows it.
    pub fn may(&self, action: Action, repository: &str) -> bool {
        self.rules.iter().any(|rule| rule.allows(action, repository))
    }
}

/// Actions on the repositories that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `*` stands for a part of one path component, `**` for any number of components.
    pub pattern: String,
    /// What is allowed on them. [`Action::Catalog`] is allowed whatever the pattern.
    pub actions: Vec<Action>,
}

impl Rule {
    /// Everything.
    pub fn all() -> Self {
        let actions = vec![Action::Pull, Action::Push, Action::Delete, Action::Catalog];
        Self { pattern: "**".to_owned(), actions }
    }

    fn allows(&self, action: Action, repository: &str) -> bool {
        self.actions.contains(&action)
            && (action == Action::Catalog || glob::matches(&self.pattern, repository))
    }
}

/// A body of users.
pub trait Authorizer: Send + Sync + 'static {
    /// The grant of credentials that were accepted a short while ago, from memory alone. Asked
    /// before any limit on failed attempts, so that a limit never locks out who is known.
    fn remembered(&self, user: &str, secret: &str, now_ms: i64) -> Option<Arc<Grant>>;

    /// Checks credentials; `None` if they are not of this body or wrong. Takes the same time for
    /// unknown users as for wrong secrets.
    ///
    /// # Errors
    /// When it cannot be known now. That is never taken for wrong credentials.
    fn authenticate<'a>(
        &'a self,
        user: &'a str,
        secret: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Arc<Grant>>, ApiError>>;

    /// The grant of credentials that were accepted once, if they are still the same: `name` and
    /// `stamp` are those of the grant of then.
    ///
    /// # Errors
    /// When it cannot be known now.
    fn renew<'a>(
        &'a self,
        name: &'a str,
        stamp: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Arc<Grant>>, ApiError>>;
}
