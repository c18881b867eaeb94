//! What an upstream is made from.

use std::{path::PathBuf, time::Duration};

use url::Url;

/// One upstream registry.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// The name that images use, such as `docker.io`. Credentials are looked up by it.
    pub name: String,
    /// Where it is asked, in order, mirrors first: `https://host`, `https://host/path` for a
    /// registry below a path, or `https://host/v2/project` where a mirror keeps the upstream's
    /// repositories in a project of its own.
    pub endpoints: Vec<Url>,
    /// Blobs downloaded at once. The small requests have a quarter as many places of their own
    /// (at least 2), so that downloads cannot starve them.
    pub concurrency: usize,
    /// Longest wait for one of these places.
    pub queue_timeout: Duration,
    /// The same for a blob, which may have to wait for as many downloads as there are places;
    /// `None` means the same.
    pub blob_queue_timeout: Option<Duration>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait without progress: for the head of an answer, and between pieces of a body.
    pub read_timeout: Duration,
    /// PEM certificates that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Takes any certificate. Whoever is in between can then read the credentials.
    pub insecure_skip_verify: bool,
    /// Token services, and endpoints, that may see the upstream's credentials although their
    /// host does not belong to it: `host`, `host:port`, `*.domain` or an address.
    pub trusted_realms: Vec<String>,
}

impl UpstreamConfig {
    /// The defaults for a name and its endpoints.
    #[must_use]
    pub fn new(name: impl Into<String>, endpoints: Vec<Url>) -> UpstreamConfig {
        UpstreamConfig {
            name: name.into(),
            endpoints,
            concurrency: 16,
            queue_timeout: Duration::from_secs(30),
            blob_queue_timeout: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            ca_file: None,
            insecure_skip_verify: false,
            trusted_realms: Vec::new(),
        }
    }
}

/// Why an upstream cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUpstream {
    /// Nobody to ask.
    #[error("the upstream {upstream} has no endpoint; hint: give at least one address")]
    NoEndpoint {
        /// Its name.
        upstream: String,
    },
    /// An address that no registry can have.
    #[error(
        "the upstream {upstream} has an endpoint that is not http://host or https://host \
         (number {number}); hint: credentials and queries do not belong there"
    )]
    Endpoint {
        /// Its name.
        upstream: String,
        /// Counted from 1.
        number: usize,
    },
    /// No downloads at all.
    #[error("the upstream {upstream} has a concurrency of 0; hint: 16 is the default")]
    Concurrency {
        /// Its name.
        upstream: String,
    },
    /// An entry of `trusted_realms` that names nothing.
    #[error(
        "the upstream {upstream} trusts {entry:?}, which is no realm; hint: write \"host\", \
         \"host:port\", \"*.domain\" or \"https://host/path\""
    )]
    TrustedRealm {
        /// Its name.
        upstream: String,
        /// As configured.
        entry: String,
    },
    /// The certificates cannot be read.
    #[error("the certificates of the upstream {upstream} in {} cannot be read", path.display())]
    CaFile {
        /// Its name.
        upstream: String,
        /// As configured.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The metrics registry already has something else under our names.
    #[error("the metrics of the upstream {upstream} cannot be registered")]
    Metrics {
        /// Its name.
        upstream: String,
        /// Why.
        #[source]
        source: prometheus::Error,
    },
}
