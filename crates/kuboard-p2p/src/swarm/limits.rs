//! The numbers that the decisions go by.

/// Limits and times of one node. [`Limits::agent`] and [`Limits::cache`] are the ones that the
/// simulator was tuned with.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Uploads to agents at one time.
    pub upload_slots: usize,
    /// Uploads from a cache to other caches at one time.
    pub upper_slots: usize,
    /// Requests under way at one time.
    pub download_slots: usize,
    /// The same, counted by weight: one from a peer half as fast as usual counts half. Fewer than
    /// `download_slots`, so that nobody's downlink is shared by many while others' stand idle.
    pub download_load: f64,
    /// Peers that are told at one time that we want something, for each request that we could
    /// still make.
    pub wants_per_slot: usize,
    /// Requests under way to one peer.
    pub per_peer: usize,
    /// Bytes per second for all uploads.
    pub upload_rate: Option<u64>,
    /// Bytes per second for all downloads.
    pub download_rate: Option<u64>,
    /// Longest time that a block stays unannounced.
    pub have_batch_ms: u64,
    /// Fewer agents than this, and the tracker is asked for more.
    pub neighbours_wanted: usize,
    /// More connections than this are not taken.
    pub neighbours_max: usize,
    /// Of a hundred looks at a peer in another zone, how many may become a request.
    pub far_percent: u8,
    /// With so many blocks missing, or fewer, blocks may be asked for twice.
    pub endgame_blocks: u32,
    /// An offer that is not taken by then is void.
    pub offer_ms: u64,
    /// A request may wait so long for a slot; beyond that it is refused.
    pub hold_ms: u64,
    /// A transfer without a byte for so long has failed; the driver measures it.
    pub stall_ms: u64,
    /// Idle for so long, the cache is asked for a block by its name.
    pub starve_ms: u64,
    /// The first missing block is fetched at top priority after so long.
    pub prefix_push_ms: u64,
    /// The reader is sent elsewhere after so long.
    pub prefix_end_ms: u64,
    /// Without any source for so long, the upstream is considered.
    pub source_after_ms: u64,
    /// How long who sent a bad block is banned.
    pub ban_ms: u64,
}

impl Limits {
    /// Of an agent.
    #[must_use]
    pub fn agent() -> Limits {
        Limits {
            upload_slots: 3,
            upper_slots: 0,
            download_slots: 8,
            download_load: 4.0,
            wants_per_slot: 4,
            per_peer: 2,
            upload_rate: None,
            download_rate: None,
            have_batch_ms: 20,
            neighbours_wanted: 12,
            neighbours_max: 32,
            far_percent: 30,
            endgame_blocks: 4,
            offer_ms: 300,
            hold_ms: 1000,
            stall_ms: 1500,
            starve_ms: 250,
            prefix_push_ms: 15_000,
            prefix_end_ms: 60_000,
            source_after_ms: 5_000,
            ban_ms: 600_000,
        }
    }

    /// Of a cache that serves a region of agents.
    #[must_use]
    pub fn cache() -> Limits {
        Limits {
            upload_slots: 8,
            upper_slots: 8,
            download_slots: 32,
            download_load: 32.0,
            wants_per_slot: 42,
            per_peer: 16,
            neighbours_wanted: 0,
            neighbours_max: 4096,
            ..Limits::agent()
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::agent()
    }
}
