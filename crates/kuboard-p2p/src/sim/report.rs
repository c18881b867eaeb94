//! What came out of a simulation.

/// The figures of one run. Bytes are counted where they moved, whole or in part.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Agents that were to get the image and were there at the end.
    pub nodes: usize,
    /// Of those, how many got it.
    pub done: usize,
    /// Seconds from each node's first moment until it was done, rising.
    pub times_s: Vec<f64>,
    /// The lower bound of Kumar and Ross.
    pub bound_s: f64,
    /// Bytes of the image.
    pub size: u64,
    /// Bytes from the first cache to agents.
    pub cache_bytes: f64,
    /// Bytes from all caches to agents.
    pub caches_bytes: f64,
    /// Bytes between caches.
    pub region_bytes: f64,
    /// Regions.
    pub regions: usize,
    /// Bytes between zones of one region, from agents and caches.
    pub zone_bytes: f64,
    /// Bytes of blocks that came twice, or were broken off.
    pub twice_bytes: f64,
    /// Blocks that agents fetched from the upstream.
    pub upstream_blocks: u64,
    /// Bytes of wrong blocks.
    pub bad_bytes: f64,
    /// Most uploads that any agent had under way at one time.
    pub most_uploads: usize,
    /// Bans that were spoken.
    pub bans: u64,
    /// Of those, against honest agents.
    pub wrong_bans: u64,
    /// Requests that were turned away.
    pub refused: u64,
    /// Offers that were made, and of those how many were not taken.
    pub offers: (u64, u64),
    /// Readers that were sent elsewhere.
    pub ended_short: u64,
    /// Most members that one tracker knew.
    pub tracked: usize,
    /// Simulated steps.
    pub steps: u64,
    /// A hash over the course of events.
    pub trace: u64,
}

impl Report {
    /// Seconds of the slowest node; infinite if one did not get it.
    #[must_use]
    pub fn last_s(&self) -> f64 {
        if self.done < self.nodes { f64::INFINITY } else { self.quantile(1.0) }
    }

    /// Seconds that this share of the nodes did not exceed.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let at = (self.times_s.len() as f64 * share).ceil() as usize;
        self.times_s.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// The slowest node's time over the bound.
    #[must_use]
    pub fn last_over_bound(&self) -> f64 {
        self.last_s() / self.bound_s
    }

    /// The 99th percentile over the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        self.quantile(0.99) / self.quantile(0.5)
    }

    /// What the first cache sent to agents, in images.
    #[must_use]
    pub fn cache_egress(&self) -> f64 {
        self.cache_bytes / self.size as f64
    }

    /// Bytes between zones, as a share of all that was received.
    #[must_use]
    pub fn zone_share(&self) -> f64 {
        self.zone_bytes / (self.size as f64 * self.nodes.max(1) as f64)
    }

    /// What each region but the first received from others, in images.
    #[must_use]
    pub fn region_ingress(&self) -> f64 {
        self.region_bytes / (self.size as f64 * self.regions.saturating_sub(1).max(1) as f64)
    }

    /// Bytes that came in vain, as a share of all that was received.
    #[must_use]
    pub fn duplicates(&self) -> f64 {
        self.twice_bytes / (self.size as f64 * self.nodes.max(1) as f64)
    }
}
