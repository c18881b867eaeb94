//! The engine behind other people's HTTP APIs: Clair v4's (indexer, matcher, notifier) and that of
//! Harbor's pluggable scanners.
//!
//! Clair's API is that of Clair 4.9's program where its published description says something else:
//! a vulnerability report comes with 200 and the media type of an index report, an index report
//! with 201, `etag` and two `link` headers. Clients were written against the program.
//!
//! * `content.rs` chooses media type and compression, `answer.rs` makes responses of outcomes.
//! * `access.rs` lets callers in; `outbound.rs` fetches what strangers name without being sent into
//!   private networks by them.
//! * `clair.rs` routes; `indexer.rs`, `affected.rs`, `matcher.rs`, `updates.rs`, `vulnerabilities.rs`
//!   and `notifications.rs` answer; `notifier.rs` tells of what new advisories concern.
//! * `harbor.rs` is Harbor's API, `harbor_scan.rs` its jobs, `harbor_pull.rs` reads its registry, and
//!   `seal.rs` hides the credentials that a job carries.
//! * `relay.rs` has an external Clair answer in place of all but Harbor's.

mod access;
mod affected;
mod answer;
mod clair;
mod content;
mod harbor;
mod harbor_pull;
mod harbor_scan;
mod indexer;
mod matcher;
mod notifications;
mod notifier;
mod outbound;
mod relay;
mod seal;
mod updates;
mod vulnerabilities;

use url::Url;

pub use clair::ClairApi;
pub use harbor::{HARBOR_SCAN, HarborApi};
pub use notifier::NOTIFY;
pub use relay::ClairRelay;

/// How the APIs behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The key that signs callers' tokens (JWT, HS256), decoded from Base64. Harbor may also send
    /// the key's Base64 itself: as a bearer token, an API key, or the password of `Basic`.
    pub psk: Option<Vec<u8>>,
    /// Issuers that tokens may name beside `clair-intraservice`; none means any.
    pub issuers: Vec<String>,
    /// Answer without a key. Without key and this, everything is refused.
    pub open: bool,
    /// Seconds that clients may keep a vulnerability report.
    pub cache_seconds: u64,
    /// Fetch from addresses of private and loopback networks.
    pub allow_private_addresses: bool,
    /// Where the notifier posts; without it notifications are only kept.
    pub notifier_target: Option<Url>,
    /// How those who are notified reach this API: its base address, or that of its notifications.
    pub notifier_callback: Option<Url>,
    /// Index requests at once; one more is answered 429.
    pub index_requests: usize,
    /// Largest layer, in bytes as it is stored.
    pub max_layer_bytes: u64,
    /// Longest time for one index request, in seconds.
    pub index_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            psk: None,
            issuers: Vec::new(),
            open: false,
            cache_seconds: 30,
            allow_private_addresses: false,
            notifier_target: None,
            notifier_callback: None,
            index_requests: 16,
            max_layer_bytes: 64 << 30,
            index_seconds: 30 * 60,
        }
    }
}
