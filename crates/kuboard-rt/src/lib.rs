//! The ground every role stands on: owned tasks and one way to stop them, time as a value,
//! the HTTP(S) listener with certificate reload and drain, mapped files that leave by
//! `sendfile(2)`, metrics, health, logging and retry delays.
//!
//! This crate knows nothing about registries, images or configuration files.

pub mod clock;
pub mod health;
pub mod http;
pub mod log;
pub mod mapping;
pub mod metrics;
pub mod process;
pub mod retry;
pub mod scope;
pub mod signal;
pub mod tasks;
pub mod tls;

pub use clock::{Clock, ManualClock, SystemClock};
pub use mapping::{Mapping, read_ahead};
pub use scope::{Scope, Shutdown};
pub use tasks::Tasks;

/// A boxed future, for the few traits that are used through `dyn`.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
