//! Access to the registry by the cluster's own identities and RBAC.
//!
//! Whoever shows a service-account token for our audience is who the API server says it is
//! (TokenReview), and may do what RBAC says of `repositories.registry.kuboard.cn`
//! (SubjectAccessReview): `get` to pull, `create` to push, `delete`, and `list` for the list of
//! repositories. A repository lies in the namespace of its first path component
//! ([`questions`] is the whole rule).
//!
//! The API server is asked only for what is not remembered: a yes for 30 seconds, a no for 5, a
//! failure never. While it is away, who is remembered goes on for that time; others are told to
//! come back (503), never that they may not.

mod authorizer;
mod claims;
mod metrics;
mod questions;
mod subject;

#[cfg(test)]
mod tests;

pub use authorizer::{KubernetesAuthorizer, Settings};
pub use claims::Claims;
pub use metrics::Metrics;
pub use questions::{Question, questions};
pub use subject::Subject;
