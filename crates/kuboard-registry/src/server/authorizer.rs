//! The door for whoever knows users: given a name and a secret, what may be done with them.
//!
//! Rights come in two forms. Most bodies of users know them by heart ([`Rule`]); where they can
//! only be asked for, one repository at a time, the grant holds whom to ask ([`Rights`]).

use std::fmt;
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
    /// token made for the old ones ends; it must not tell anything about the secret. Empty for
    /// credentials that no refresh token can stand for.
    pub stamp: String,
    /// When the credentials end, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// Whom to ask for what no rule allows.
    pub judge: Option<Judge>,
    /// What runs with these credentials, where that is known.
    pub workload: Option<Arc<Workload>>,
}

impl Grant {
    /// A grant by rules alone.
    #[must_use]
    pub fn by_rules(name: String, rules: Vec<Rule>, stamp: String) -> Self {
        Self { name, rules, stamp, expires_ms: None, judge: None, workload: None }
    }

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

/// The workload of a cluster behind a caller, for the audit and for tokens. Texts as the cluster
/// spells them; empty where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// Namespace of the service account.
    pub namespace: String,
    /// Name of the service account.
    pub service_account: String,
    /// Name of the pod that the credentials are bound to.
    pub pod: String,
    /// Its uid.
    pub pod_uid: String,
    /// The node it runs on.
    pub node: String,
}

/// Rights that are asked for one at a time, because nobody can list them.
pub trait Rights: Send + Sync + 'static {
    /// Whether this may be done to the repository. For [`Action::Catalog`] the name is empty. A
    /// name that ends in `/*` means all repositories below.
    ///
    /// # Errors
    /// When it cannot be known now. That is never taken for a no.
    fn allows<'a>(
        &'a self,
        action: Action,
        repository: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<bool, ApiError>>;
}

/// Whom to ask for a caller's rights.
#[derive(Clone)]
pub struct Judge(Arc<dyn Rights>);

impl Judge {
    /// Rights that are asked for.
    #[must_use]
    pub fn new(rights: Arc<dyn Rights>) -> Self {
        Self(rights)
    }

    /// Whoever is asked.
    #[must_use]
    pub fn rights(&self) -> &dyn Rights {
        &*self.0
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge(..)")
    }
}

impl PartialEq for Judge {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Judge {}

/// A body of users.
pub trait Authorizer: Send + Sync + 'static {
    /// The grant of credentials that were accepted a short while ago, from memory alone. Asked
    /// before any limit on failed attempts, so that a limit never locks out who is known.
    fn remembered(&self, user: &str, secret: &str, now_ms: i64) -> Option<Arc<Grant>>;

    /// Whether the text looks like a token of this body: then it is taken as a bearer token too,
    /// and in place of a refresh token. Decided by its form alone; nothing is checked.
    fn knows_token(&self, _token: &str) -> bool {
        false
    }

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
