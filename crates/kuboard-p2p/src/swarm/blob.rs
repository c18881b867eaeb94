//! One blob in the eyes of one node: what it has, what is on its way, who else has what.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    bits::Bits,
    blocks::Geometry,
    random::Random,
    swarm::{BlobId, neighbour::Neighbour},
};

#[derive(Debug)]
pub(super) struct Blob {
    pub(super) id: BlobId,
    pub(super) geometry: Geometry,
    pub(super) order: u32,
    pub(super) wanted: bool,
    /// Blocks below this have a known hash.
    pub(super) mapped: u32,
    pub(super) have: Bits,
    pub(super) in_flight: Bits,
    /// How many connected agents have each block.
    copies: Vec<u16>,
    /// Of those, how many in this zone.
    near_copies: Vec<u16>,
    /// Blocks that somebody in this zone has.
    pub(super) near: Bits,
    /// How often this node gave each block away, to agents and to caches.
    served: [Vec<u16>; 2],
    /// First missing block, and since when it is.
    pub(super) prefix: u32,
    pub(super) prefix_since_ms: u64,
    pub(super) ended_short: bool,
    pub(super) told_complete: bool,
    unannounced: Vec<u32>,
    /// When somebody was last known to have something for us.
    pub(super) sourced_ms: u64,
    pub(super) source: Source,
}

/// How far the fetch from the upstream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Not needed, or not asked for before that time.
    Idle { not_before_ms: u64 },
    /// The tracker was asked.
    Asked { since_ms: u64 },
    /// Allowed until then.
    Granted { until_ms: u64 },
}

impl Blob {
    pub(super) fn new(id: BlobId, geometry: Geometry, have: Bits, now: u64) -> Blob {
        let blocks = geometry.blocks();
        let have = if have.len() == blocks { have } else { Bits::new(blocks) };
        Blob {
            id,
            geometry,
            order: 0,
            wanted: false,
            mapped: 0,
            in_flight: Bits::new(blocks),
            copies: vec![0; blocks as usize],
            near_copies: vec![0; blocks as usize],
            near: Bits::new(blocks),
            served: [Vec::new(), Vec::new()],
            prefix: have.first_gap(0),
            have,
            prefix_since_ms: now,
            ended_short: false,
            told_complete: false,
            unannounced: Vec::new(),
            sourced_ms: now,
            source: Source::Idle { not_before_ms: 0 },
        }
    }

    pub(super) fn missing(&self) -> u32 {
        self.geometry.blocks() - self.have.count()
    }

    /// Whether there is anything left to fetch.
    pub(super) fn is_hungry(&self) -> bool {
        self.wanted && self.prefix < self.geometry.blocks()
    }

    pub(super) fn copies(&self, block: u32) -> u16 {
        self.copies.get(block as usize).copied().unwrap_or(0)
    }

    /// Forgets how many neighbours have which block.
    pub(super) fn clear_counts(&mut self) {
        self.copies.fill(0);
        self.near_copies.fill(0);
        self.near = Bits::new(self.geometry.blocks());
    }

    /// Books that a neighbour has these blocks, or has not any more.
    pub(super) fn count(&mut self, blocks: impl Iterator<Item = u32>, near: bool, more: bool) {
        for block in blocks {
            let at = block as usize;
            let (Some(all), Some(close)) = (self.copies.get_mut(at), self.near_copies.get_mut(at))
            else {
                continue;
            };
            let step = |count: &mut u16| {
                *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
            };
            step(all);
            if near {
                step(close);
                if *close > 0 {
                    self.near.put(block);
                } else {
                    self.near.take(block);
                }
            }
        }
    }

    /// Enters a block; whether it is new.
    pub(super) fn put(&mut self, block: u32, now: u64) -> bool {
        self.in_flight.take(block);
        if !self.have.put(block) {
            return false;
        }
        self.sourced_ms = now;
        self.unannounced.push(block);
        if block == self.prefix {
            self.prefix = self.have.first_gap(block);
            self.prefix_since_ms = now;
            self.ended_short = false;
        }
        true
    }

    pub(super) fn take_unannounced(&mut self) -> Option<Arc<[u32]>> {
        if self.unannounced.is_empty() {
            return None;
        }
        Some(std::mem::take(&mut self.unannounced).into())
    }

    pub(super) fn has_unannounced(&self) -> bool {
        !self.unannounced.is_empty()
    }

    /// The rarest block that `theirs` has and that is neither here nor on its way; `far`: only
    /// what nobody in this zone has.
    pub(super) fn rarest(&self, theirs: &Bits, far: bool, random: &mut Random) -> Option<u32> {
        let none = Bits::default();
        let near = if far { &self.near } else { &none };
        let (mut best, mut least, mut ties) = (None, u16::MAX, 0);
        for block in theirs.without([&self.have, &self.in_flight, near], self.mapped) {
            let copies = self.copies(block);
            if copies < least {
                (best, least, ties) = (Some(block), copies, 1);
            } else if copies == least {
                ties += 1;
                if random.below(ties) == 0 {
                    best = Some(block);
                }
            }
        }
        best
    }

    /// Whether [`Blob::rarest`] would find one.
    pub(super) fn is_interesting(&self, theirs: &Bits, far: bool) -> bool {
        let none = Bits::default();
        let near = if far { &self.near } else { &none };
        theirs.without([&self.have, &self.in_flight, near], self.mapped).next().is_some()
    }

    /// The first of the missing blocks that are not on their way, the rarest among the neighbours.
    pub(super) fn rarest_missing(&self, random: &mut Random) -> Option<u32> {
        self.rarest(&Bits::full(self.geometry.blocks()), false, random)
    }

    /// Books that a block was given away.
    pub(super) fn serve(&mut self, block: u32, upper: bool) {
        let blocks = self.geometry.blocks() as usize;
        let served = &mut self.served[usize::from(upper)];
        served.resize(blocks, 0);
        if let Some(count) = served.get_mut(block as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// A block that is here, that nobody was given yet or is known to have, and that `theirs` lacks.
    pub(super) fn unserved(&self, theirs: &Bits, upper: bool, random: &mut Random) -> Option<u32> {
        let served = &self.served[usize::from(upper)];
        let (mut best, mut ties) = (None, 0);
        for block in self.have.without([theirs], self.geometry.blocks()) {
            let given = served.get(block as usize).copied().unwrap_or(0) > 0;
            if !given && (upper || self.copies(block) == 0) {
                ties += 1;
                if random.below(ties) == 0 {
                    best = Some(block);
                }
            }
        }
        best
    }

    /// Whether some agent is connected that shares it and is not known to be useless.
    pub(super) fn has_source(
        &self,
        neighbours: &BTreeMap<super::PeerId, Neighbour>,
        now: u64,
    ) -> bool {
        neighbours.values().any(|neighbour| {
            neighbour.is_usable(now)
                && neighbour
                    .share(self.id)
                    .is_some_and(|share| self.is_interesting(&share.have, false))
        })
    }
}
