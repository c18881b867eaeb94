//! What a cache shows of itself.

use prometheus::{IntCounter, IntGauge, Registry};

use crate::policy::Totals;

/// Figures of one cache, always up to date; the room that owns the cache registers them.
#[derive(Clone)]
pub struct Metrics {
    used: IntGauge,
    limit: IntGauge,
    reserved: IntGauge,
    held: IntGauge,
    blobs: IntGauge,
    pub(crate) evictions: IntCounter,
    pub(crate) evicted_bytes: IntCounter,
    pub(crate) refused: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Metrics> {
        let gauge = IntGauge::new::<&str, &str>;
        let counter = IntCounter::new::<&str, &str>;
        Ok(Metrics {
            used: gauge("registry_storage_used_bytes", "Bytes of the blobs that are stored.")?,
            limit: gauge("registry_storage_limit_bytes", "Bytes that may be stored.")?,
            reserved: gauge(
                "registry_storage_reserved_bytes",
                "Bytes set aside for blobs that are being fetched.",
            )?,
            held: gauge(
                "registry_storage_held_bytes",
                "Bytes of blobs that are pinned or being read, so that they cannot be evicted.",
            )?,
            blobs: gauge("registry_storage_blobs", "Blobs that are stored.")?,
            evictions: counter(
                "registry_storage_evictions_total",
                "Blobs that were evicted to make room.",
            )?,
            evicted_bytes: counter(
                "registry_storage_evicted_bytes_total",
                "Bytes of the blobs that were evicted to make room.",
            )?,
            refused: counter(
                "registry_storage_refusals_total",
                "Blobs that were not stored because nothing could be evicted for them.",
            )?,
        })
    }

    /// Fails when the names are taken, as by another cache.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        for gauge in [&self.used, &self.limit, &self.reserved, &self.held, &self.blobs] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for counter in [&self.evictions, &self.evicted_bytes, &self.refused] {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(())
    }

    pub(crate) fn show(&self, totals: &Totals) {
        let value = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.used.set(value(totals.used));
        self.limit.set(value(totals.max));
        self.reserved.set(value(totals.reserved));
        self.held.set(value(totals.held));
        self.blobs.set(value(totals.entries as u64));
    }
}
