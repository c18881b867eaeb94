//! What the hosted half counts.

use http::StatusCode;
use kuboard_registry::server::ApiError;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The counters of the hosted repositories; handed in, never global.
pub(crate) struct HostedMetrics {
    pub(super) manifest_pulls: Pulls,
    pub(super) blob_pulls: Pulls,
    pub(super) pushed_manifests: IntCounter,
    pub(super) pushed_blobs: IntCounter,
    pub(super) mounted_blobs: IntCounter,
    pub(super) pushed_bytes: IntCounter,
    pub(super) gc_runs: IntCounter,
    pub(super) gc_failures: IntCounter,
    pub(super) gc_unlinked: IntCounter,
    pub(super) gc_removed: IntCounter,
    pub(super) gc_removed_bytes: IntCounter,
    pub(super) gc_expired_uploads: IntCounter,
    pub(super) gc_last_success: IntGauge,
}

/// The answers to pulls of one kind of content.
pub(super) struct Pulls {
    hit: IntCounter,
    not_found: IntCounter,
    error: IntCounter,
}

impl Pulls {
    fn new(pulls: &IntCounterVec, kind: &str) -> Self {
        let counter = |result| pulls.with_label_values(&["hosted", kind, result]);
        Self { hit: counter("hit"), not_found: counter("not_found"), error: counter("error") }
    }

    pub(super) fn count<T>(&self, answer: &Result<T, ApiError>) {
        match answer {
            Ok(_) => self.hit.inc(),
            Err(error) if error.status == StatusCode::NOT_FOUND => self.not_found.inc(),
            Err(_) => self.error.inc(),
        }
    }
}

impl HostedMetrics {
    /// Registers the counters. `pulls` is `registry_pull_requests_total{registry,kind,result}`,
    /// which both halves of the registry count into.
    pub(crate) fn new(
        registry: &Registry,
        pulls: &IntCounterVec,
    ) -> Result<Self, prometheus::Error> {
        let pushes = IntCounterVec::new(
            Opts::new(
                "registry_push_requests_total",
                "Content taken into hosted repositories, by kind (manifest, blob, mount).",
            ),
            &["kind"],
        )?;
        registry.register(Box::new(pushes.clone()))?;
        let counter = |name: &str, help: &str| {
            let made = IntCounter::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let last = IntGauge::new(
            "registry_gc_last_success_timestamp_seconds",
            "When the last collection of hosted content ended well, in Unix time.",
        )?;
        registry.register(Box::new(last.clone()))?;
        Ok(Self {
            manifest_pulls: Pulls::new(pulls, "manifest"),
            blob_pulls: Pulls::new(pulls, "blob"),
            pushed_manifests: pushes.with_label_values(&["manifest"]),
            pushed_blobs: pushes.with_label_values(&["blob"]),
            mounted_blobs: pushes.with_label_values(&["mount"]),
            pushed_bytes: counter(
                "registry_push_bytes_total",
                "Bytes of blobs and manifests received for hosted repositories.",
            )?,
            gc_runs: counter("registry_gc_runs_total", "Collections of hosted content.")?,
            gc_failures: counter("registry_gc_failures_total", "Collections that failed.")?,
            gc_unlinked: counter(
                "registry_gc_unlinked_total",
                "Blobs and manifests taken out of a repository by collections.",
            )?,
            gc_removed: counter(
                "registry_gc_removed_total",
                "Blobs and manifests whose bytes collections removed.",
            )?,
            gc_removed_bytes: counter(
                "registry_gc_removed_bytes_total",
                "Bytes that collections removed.",
            )?,
            gc_expired_uploads: counter(
                "registry_gc_expired_uploads_total",
                "Unfinished uploads thrown away because of their age.",
            )?,
            gc_last_success: last,
        })
    }
}
