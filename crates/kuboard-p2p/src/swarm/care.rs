//! What only time brings: offers that lapse, idleness, a reader that waits, nobody who has it.

use crate::random::Random;
use crate::swarm::{
    Action, BlobId, BlockId, Kind, Node, PeerId, SourceAnswer, blob::Blob, blob::Source,
};

/// How often a node that lacks something looks around.
const PULSE_MS: u64 = 50;
/// How often the tracker is asked for more peers.
const ASK_PEERS_MS: u64 = 1_000;
/// Blocks fetched from the upstream at one time.
const FETCHES: usize = 2;
/// Spread of the moments at which nodes turn to the upstream.
const SOURCE_JITTER_MS: u64 = 2_000;
/// Without a tracker's word, one node in so many goes to the upstream on its own.
const ALONE_ONE_IN: usize = 50;
/// How long such a node may.
const ALONE_MS: u64 = 30_000;

impl Node {
    pub(super) fn set_pulse(&mut self, now: u64) {
        if self.blobs.iter().any(Blob::is_hungry) {
            self.pulse_at = self.pulse_at.min(now + PULSE_MS);
            self.wake_at = self.wake_at.min(self.pulse_at);
        }
    }

    pub(super) fn tick(&mut self, now: u64) {
        self.wake_at = u64::MAX;
        self.expire_offers(now);
        if now >= self.pulse_at {
            self.pulse_at = u64::MAX;
            self.pulse(now);
        }
        self.fill_slots(now);
        self.set_pulse(now);
        let due = self.pulse_at.min(self.next_lapse());
        self.wake_at = self.wake_at.min(due);
    }

    fn pulse(&mut self, now: u64) {
        self.consider_all(now);
        let hungry: Vec<BlobId> =
            self.blobs.iter().filter(|blob| blob.is_hungry()).map(|blob| blob.id).collect();
        if let Some(first) = hungry.first() {
            self.ask_peers(now, *first);
            self.ask_cache(now, &hungry);
            self.watch_prefix(now, *first);
        }
        if self.kind == Kind::Agent {
            for blob in hungry {
                self.seek_source(now, blob);
            }
        }
    }

    fn ask_peers(&mut self, now: u64, blob: BlobId) {
        let agents = self
            .neighbours
            .values()
            .filter(|of| of.kind == Kind::Agent && of.strikes == 0 && of.share(blob).is_some())
            .count();
        let due = self.asked_peers_ms.is_none_or(|asked| now >= asked + ASK_PEERS_MS);
        let idle = self.flights.is_empty() && now >= self.idle_since_ms + self.limits.starve_ms;
        if (agents < self.limits.neighbours_wanted || idle) && due {
            self.asked_peers_ms = Some(now);
            self.out.push(Action::AskPeers(blob));
        }
    }

    /// Idle for a while although blocks are missing, or the last ones don't come: asks the cache.
    fn ask_cache(&mut self, now: u64, hungry: &[BlobId]) {
        let patience = self.limits.starve_ms + self.random.below_ms(self.limits.starve_ms);
        for id in hungry {
            let Some(cache) = self.usable_cache(now, *id) else { continue };
            let Some(blob) = self.blob(*id) else { continue };
            let block = if self.flights.is_empty() && now >= self.idle_since_ms + patience {
                blob.rarest_missing(&mut Random::new(self.random_seed(now)))
            } else {
                self.overdue(now, *id, patience)
            };
            if let Some(block) = block {
                self.request(now, cache, BlockId { blob: *id, block });
                return;
            }
        }
    }

    fn random_seed(&self, now: u64) -> u64 {
        self.random.clone().next_u64() ^ now
    }

    /// Near the end, a block whose only request has taken too long.
    fn overdue(&self, now: u64, id: BlobId, patience: u64) -> Option<u32> {
        let blob = self.blob(id)?;
        if blob.missing() > self.limits.endgame_blocks {
            return None;
        }
        self.flights
            .iter()
            .filter(|flight| flight.block.blob == id && self.copies_in_flight(flight.block) == 1)
            .find(|flight| self.remaining_ms(now, flight, blob) > patience as f64 * 2.0)
            .map(|flight| flight.block.block)
    }

    /// The reader waits for the first missing block: fetches it at top priority, and in the end
    /// sends the reader elsewhere.
    fn watch_prefix(&mut self, now: u64, id: BlobId) {
        let Some(blob) = self.blob(id) else { return };
        let waited = now.saturating_sub(blob.prefix_since_ms);
        let block = BlockId { blob: id, block: blob.prefix };
        if waited >= self.limits.prefix_end_ms && !blob.ended_short {
            self.out.push(Action::EndShort(id));
            if let Some(blob) = self.blob_mut(id) {
                blob.ended_short = true;
            }
        }
        if waited >= self.limits.prefix_push_ms
            && waited % self.limits.prefix_push_ms.max(1) < PULSE_MS
            && self.copies_in_flight(block) < 2
            && let Some(peer) = self.best_holder(now, block)
        {
            self.request(now, peer, block);
        }
    }

    /// The fastest peer that has a block and was not asked for it; a cache before all others.
    fn best_holder(&self, now: u64, block: BlockId) -> Option<PeerId> {
        if self.blob(block.blob).is_none_or(|blob| block.block >= blob.mapped) {
            return None;
        }
        let asked = |peer: PeerId| self.flights.iter().any(|f| f.peer == peer && f.block == block);
        self.neighbours
            .iter()
            .filter(|(id, of)| of.is_usable(now) && !asked(**id))
            .filter(|(_, of)| {
                let has = of.share(block.blob).map(|share| share.have.has(block.block));
                has.is_some_and(|has| has || of.kind == Kind::Cache)
            })
            .max_by(|(_, one), (_, other)| {
                let key = |of: &super::Neighbour| {
                    (of.kind == Kind::Cache, of.hoped_rate().unwrap_or(0.0))
                };
                key(one).partial_cmp(&key(other)).unwrap_or(std::cmp::Ordering::Equal)
            })
            .map(|(id, _)| *id)
    }

    /// After a time without anybody who has something for us: turns to the upstream, if it may.
    fn seek_source(&mut self, now: u64, id: BlobId) {
        let has_source = self.usable_cache(now, id).is_some()
            || self.flights.iter().any(|flight| flight.block.blob == id)
            || self.blob(id).is_some_and(|blob| blob.has_source(&self.neighbours, now));
        let after = self.limits.source_after_ms;
        let jitter = self.random.below_ms(SOURCE_JITTER_MS);
        let Some(blob) = self.blob_mut(id) else { return };
        if has_source {
            blob.sourced_ms = now;
            return;
        }
        let granted = match blob.source {
            Source::Idle { not_before_ms } => {
                if now >= blob.sourced_ms + after && now >= not_before_ms {
                    blob.source = Source::Asked { since_ms: now };
                    self.out.push(Action::AskSource(id));
                }
                false
            }
            Source::Asked { since_ms } => {
                if now >= since_ms + after {
                    blob.source = Source::Idle { not_before_ms: now + jitter };
                }
                false
            }
            Source::Granted { until_ms } => {
                if now >= until_ms {
                    blob.source = Source::Idle { not_before_ms: 0 };
                }
                now < until_ms
            }
        };
        if granted {
            self.fetch(id);
        }
    }

    pub(super) fn source_answered(&mut self, now: u64, id: BlobId, answer: SourceAnswer) {
        let wait = self.limits.source_after_ms + self.random.below_ms(SOURCE_JITTER_MS);
        let alone = self.random.below(ALONE_ONE_IN) == 0;
        let Some(blob) = self.blob_mut(id) else { return };
        blob.source = match answer {
            SourceAnswer::Granted { until_ms } => Source::Granted { until_ms },
            SourceAnswer::NoTracker if alone => Source::Granted { until_ms: now + ALONE_MS },
            SourceAnswer::NoTracker | SourceAnswer::Denied => {
                Source::Idle { not_before_ms: now + wait }
            }
        };
        self.seek_source(now, id);
    }

    /// Starts fetches from the upstream: of blocks at random, for others may be fetching too.
    fn fetch(&mut self, id: BlobId) {
        while self.fetching.len() < FETCHES {
            let Some(blob) = self.blobs.iter_mut().find(|blob| blob.id == id) else { return };
            let Some(block) = blob.rarest_missing(&mut self.random) else { return };
            blob.in_flight.put(block);
            let block = BlockId { blob: id, block };
            self.fetching.push(block);
            self.out.push(Action::Fetch(block));
        }
    }

    /// After a block came from the upstream: the next one, if it is still allowed and needed.
    pub(super) fn go_on_fetching(&mut self, now: u64, id: BlobId) {
        let granted = self.blob(id).is_some_and(|blob| {
            blob.is_hungry()
                && matches!(blob.source, Source::Granted { until_ms } if now < until_ms)
        });
        if granted {
            self.seek_source(now, id);
        }
    }

    pub(super) fn source_failed(&mut self, now: u64, block: BlockId) {
        self.fetching.retain(|fetch| *fetch != block);
        let wait = self.limits.source_after_ms + self.random.below_ms(SOURCE_JITTER_MS);
        if let Some(blob) = self.blob_mut(block.blob) {
            blob.in_flight.take(block.block);
            blob.source = Source::Idle { not_before_ms: now + wait };
        }
    }
}
