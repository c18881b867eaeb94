//! Everything that talks to the Kubernetes API: what is wanted and what runs becomes snapshots
//! that others read, what is found becomes statuses, reports and events, and the webhook is armed
//! only when it answers.
//!
//! The data plane never waits for anything here.

pub mod access;
mod apply;
pub mod certificates;
pub mod client;
pub mod crds;
pub mod credentials;
mod error;
mod events;
mod judge;
pub mod lease;
mod metrics;
mod operator;
pub mod reports;
pub mod watch;
pub mod webhook;

pub use error::Error;
pub use events::{Events, Teller, Told};
pub use judge::{Judge, Judged, Outcome, PolicyKey, Said};
pub use metrics::OperatorMetrics;
pub use operator::{Config, Operator, Parts};
