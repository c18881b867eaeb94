//! How much is measured: the sizes and counts of a full run and of a quick one.

use std::time::Duration;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// Sizes and counts.
pub(crate) struct Plan {
    pub(crate) quick: bool,
    /// Rounds of everything that is repeated.
    pub(crate) rounds: usize,
    only: Vec<String>,
    /// The blob of the download measures.
    pub(crate) blob: u64,
    /// Clients that download it side by side.
    pub(crate) readers: usize,
    /// How often each of them downloads it in one measurement.
    pub(crate) repeats: usize,
    /// Length of one manifest measurement.
    pub(crate) manifest_seconds: u64,
    /// The pushed blob.
    pub(crate) push: u64,
    /// The small blob of the memory measure; the large one is `blob`.
    pub(crate) small_blob: u64,
    /// Parallel pulls of the memory and coalescing measures.
    pub(crate) crowd: usize,
    /// Longest time of one memory measurement.
    pub(crate) crowd_time: Duration,
    /// Layers of the image that the crowd pulls cold.
    pub(crate) cold_layers: &'static [u64],
    /// The layer whose first byte is awaited.
    pub(crate) cold_blob: u64,
}

impl Plan {
    pub(crate) fn new(quick: bool, rounds: Option<usize>, only: Vec<String>) -> Plan {
        Plan {
            quick,
            rounds: rounds.unwrap_or(if quick { 3 } else { 7 }).max(1),
            only,
            blob: if quick { 128 * MIB } else { GIB },
            readers: 4,
            repeats: if quick { 4 } else { 1 },
            manifest_seconds: if quick { 1 } else { 4 },
            push: if quick { 64 * MIB } else { 512 * MIB },
            small_blob: 64 * MIB,
            crowd: 100,
            crowd_time: Duration::from_secs(if quick { 3 } else { 15 }),
            cold_layers: if quick { &[8 * MIB, 16 * MIB] } else { &[8 * MIB, 24 * MIB, 96 * MIB] },
            cold_blob: if quick { 256 * MIB } else { 2 * GIB },
        }
    }

    /// Whether the measure of this name was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    /// Whether only some measures were asked for.
    pub(crate) fn is_partial(&self) -> bool {
        !self.only.is_empty()
    }
}

/// A size as people write it.
pub(crate) fn size(bytes: u64) -> String {
    if bytes >= GIB && bytes.is_multiple_of(GIB) {
        format!("{} GiB", bytes / GIB)
    } else {
        format!("{} MiB", bytes / MIB)
    }
}
