//! The client of the distribution protocol: an [`Upstream`] answers questions about manifests
//! and blobs, whatever its endpoints want in the way of credentials, redirects and patience.
//!
//! ```text
//! upstream    what can be asked
//!  └ shared      from endpoint to endpoint, places, the error that speaks for all
//!     └ exchange    one endpoint: 401s, redirects, limits
//!        ├ auth        challenge to header ── token ── lockout ── boundary
//!        └ transport   one request: TLS, time limits
//! ```
//!
//! The decisions (boundary, endpoint, lockout, rate, redirect) are pure. Secrets go to the
//! endpoints that are the upstream itself and to token services in its trust boundary, and to
//! no log.

mod auth;
mod blobs;
mod body;
mod boundary;
mod config;
mod endpoint;
mod error;
mod exchange;
mod lists;
mod lockout;
mod manifests;
mod metrics;
mod push;
mod rate;
mod redirect;
mod shared;
mod token;
mod transport;
mod upstream;

pub use blobs::{BlobStream, Source};
pub use config::{InvalidUpstream, UpstreamConfig};
pub use error::{UpstreamError, UpstreamErrorKind};
pub use manifests::{Fetched, Head};
pub use push::Stored;
pub use rate::RateLimit;
pub use upstream::Upstream;

pub(crate) use transport::{USER_AGENT, read_bounded};
