//! The server side of the distribution protocol: what a request asks for, who asks, and how a
//! refusal reads. What is answered is decided elsewhere.
//!
//! A request goes [`route`] → [`Query`] → [`Access::caller`] → the handler; whatever refuses it on
//! the way is an [`ApiError`], and its one way out is [`ApiError::into_response`].
//!
//! Who asks is settled like this: a bearer token of ours names repositories and actions for five
//! minutes; a user and a password (or an access key in its place) are accepted directly as well,
//! and by the token service at `/token`. Whoever sends nothing is what [`Anonymous`] says. Bodies of
//! users that know rights only when asked for each ([`Rights`]) are asked by [`Access::allows`].

mod access;
mod audit;
mod authorizer;
mod caller;
mod credentials;
mod error;
mod glob;
mod htpasswd;
mod keys;
mod memory;
mod own_token;
mod query;
mod route;
mod scope;
mod throttle;
mod token;
mod token_service;
mod visitor;

pub use access::{Access, AccessConfig, AccessError};
pub use audit::TARGET as AUDIT;
pub use authorizer::{Authorizer, Grant, Judge, Rights, Rule, Workload};
pub use caller::{Action, Anonymous, Caller};
pub use error::{ApiError, ErrorCode};
pub use keys::{KeySource, NewKey, NoKeys, StoredKey};
pub use memory::{Fingerprint, Memory};
pub use query::Query;
pub use route::{Route, route};
