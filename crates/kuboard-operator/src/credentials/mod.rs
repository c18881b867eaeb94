//! What registries are asked with on behalf of a cluster's pods: the Secrets that kubelet would
//! use, chosen as kubelet chooses them, then Kuboard's RegistryCredentials.
//!
//! [`choose`] is the whole decision, without waiting and without a cluster: `doctor` prints what it
//! says, the scanner pulls with it. [`Watch`] keeps what it reads fresh. [`ClusterCredentials`] is
//! the same knowledge behind the door that the proxy and the scanner ask for an upstream's
//! credentials.

mod choose;
mod cluster;
mod known;
mod matching;
mod secret;
mod watch;

pub use choose::{Choice, Considered, Found, Outcome, PodPull, Source, choose};
pub use cluster::ClusterCredentials;
pub use known::{Known, ServiceAccountPull};
pub use matching::Key;
pub use secret::{Entry, PullSecret, SecretFault};
pub use watch::{Namespaces, Watch};
