//! The taking side: whom to tell that something is wanted, which block to take of an offer.

use crate::swarm::{
    Action, BlobId, BlockId, Failure, Kind, Node, PeerId, blob::Blob, neighbour::MAX_STRIKES,
    neighbour::Neighbour,
};

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) peer: PeerId,
    pub(super) block: BlockId,
    pub(super) since_ms: u64,
}

/// Requests beyond the download slots that a cache's proposals may use: what it proposes nobody
/// else has.
const PROPOSAL_SLOTS: usize = 2;
/// A peer so many times slower than usual is slow.
const SLOW: f64 = 3.0;
/// What a request to such a peer counts.
const SLOW_WEIGHT: f64 = 0.25;
/// Requests under way to slow peers.
const SLOW_SLOTS: usize = 2;

impl Node {
    /// Tells a peer that we would like an offer, if it has something for us.
    pub(super) fn consider(&mut self, now: u64, peer: PeerId) {
        let Some(neighbour) = self.neighbours.get(&peer) else { return };
        if neighbour.wanted || !neighbour.is_usable(now) {
            return;
        }
        let is_agent = neighbour.kind == Kind::Agent;
        if is_agent && self.wanted_agents >= self.free_slots() * self.limits.wants_per_slot {
            return;
        }
        if self.down.wait_ms(now) > 0 || self.is_slow(peer) && self.slow_flights() >= SLOW_SLOTS {
            return;
        }
        let Some(neighbour) = self.neighbours.get(&peer) else { return };
        if !self.is_interesting(now, neighbour) {
            return;
        }
        let far = self.is_far(neighbour);
        if far && !self.random.percent(self.limits.far_percent) {
            return;
        }
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.wanted = true;
            self.wanted_agents += usize::from(is_agent);
            self.out.push(Action::Want(peer));
        }
    }

    /// Requests that could be made now.
    fn free_slots(&self) -> usize {
        let load = (self.limits.download_load - self.load()).ceil().max(0.0) as usize;
        load.min(self.limits.download_slots.saturating_sub(self.flights.len()))
    }

    /// Whether a peer is known to be much slower than others.
    fn is_slow(&self, peer: PeerId) -> bool {
        let rate = self.neighbours.get(&peer).and_then(Neighbour::hoped_rate);
        matches!((rate, self.typical_rate), (Some(rate), Some(typical)) if rate * SLOW < typical)
    }

    fn slow_flights(&self) -> usize {
        self.flights.iter().filter(|flight| self.is_slow(flight.peer)).count()
    }

    /// The requests under way, weighted by how fast their peers are.
    fn load(&self) -> f64 {
        let weight = |flight: &Flight| if self.is_slow(flight.peer) { SLOW_WEIGHT } else { 1.0 };
        self.flights.iter().map(weight).sum()
    }

    pub(super) fn consider_all(&mut self, now: u64) {
        if self.free_slots() == 0 {
            return;
        }
        let open = self.neighbours.iter().filter(|(_, of)| !of.wanted && of.is_usable(now));
        let mut open: Vec<PeerId> = open.map(|(id, _)| *id).collect();
        self.random.shuffle(&mut open);
        for peer in open {
            self.consider(now, peer);
        }
    }

    /// Notes that a peer answered our wish, or is gone.
    pub(super) fn unwant(&mut self, peer: PeerId) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer)
            && std::mem::take(&mut neighbour.wanted)
        {
            let is_agent = neighbour.kind == Kind::Agent;
            self.wanted_agents = self.wanted_agents.saturating_sub(usize::from(is_agent));
        }
    }

    /// Whether only what this zone lacks is taken from there.
    fn is_far(&self, neighbour: &Neighbour) -> bool {
        self.kind == Kind::Agent && neighbour.kind == Kind::Agent && !neighbour.near
    }

    fn is_interesting(&self, now: u64, neighbour: &Neighbour) -> bool {
        let far = self.is_far(neighbour);
        self.blobs.iter().filter(|blob| blob.is_hungry()).any(|blob| {
            let Some(share) = neighbour.share(blob.id) else { return false };
            if self.kind == Kind::Agent && neighbour.kind == Kind::Cache {
                // It does not tell agents what comes in; it proposes.
                return true;
            }
            if neighbour.kind == Kind::Agent && self.kind == Kind::Cache {
                return false;
            }
            blob.is_interesting(&share.have, far)
                || self.duplicate_of(now, blob, neighbour).is_some()
        })
    }

    pub(super) fn offered(&mut self, now: u64, peer: PeerId, proposal: Option<BlockId>) {
        self.unwant(peer);
        let slots = match proposal {
            Some(_) => self.free_slots() + PROPOSAL_SLOTS,
            None => self.free_slots(),
        };
        let own = self.flights.iter().filter(|flight| flight.peer == peer).count();
        let clogs = self.is_slow(peer) && self.slow_flights() >= SLOW_SLOTS;
        let room = slots > 0 && !clogs && own < self.limits.per_peer && self.down.wait_ms(now) == 0;
        match self.choose(now, peer, proposal).filter(|_| room) {
            Some(block) => self.request(now, peer, block),
            None => self.out.push(Action::Decline(peer)),
        }
    }

    fn choose(&mut self, now: u64, peer: PeerId, proposal: Option<BlockId>) -> Option<BlockId> {
        let lacks = |blob: &Blob, block: u32| {
            blob.is_hungry()
                && block < blob.mapped
                && !blob.have.has(block)
                && !blob.in_flight.has(block)
        };
        if let Some(wish) = proposal
            && self.blob(wish.blob).is_some_and(|blob| lacks(blob, wish.block))
        {
            return Some(wish);
        }
        let neighbour = self.neighbours.get(&peer)?;
        let far = self.is_far(neighbour);
        for blob in self.blobs.iter().filter(|blob| blob.is_hungry()) {
            let Some(share) = neighbour.share(blob.id) else { continue };
            if let Some(block) = blob.rarest(&share.have, far, &mut self.random) {
                return Some(BlockId { blob: blob.id, block });
            }
        }
        self.blobs
            .iter()
            .filter(|blob| blob.is_hungry())
            .find_map(|blob| self.duplicate_of(now, blob, neighbour))
    }

    /// Near the end, a block that is on its way from somebody slow, if this neighbour would be done
    /// in half the time that is left.
    fn duplicate_of(&self, now: u64, blob: &Blob, neighbour: &Neighbour) -> Option<BlockId> {
        if blob.missing() > self.limits.endgame_blocks {
            return None;
        }
        let share = neighbour.share(blob.id)?;
        let rate = neighbour.hoped_rate().or(self.typical_rate)?;
        let worth = |flight: &&Flight| {
            let eta = blob.geometry.len(flight.block.block) as f64 / rate.max(0.001);
            self.remaining_ms(now, flight, blob) >= eta * 2.0
        };
        self.flights
            .iter()
            .filter(|flight| flight.block.blob == blob.id && share.have.has(flight.block.block))
            .filter(|flight| self.copies_in_flight(flight.block) == 1)
            .find(worth)
            .map(|flight| flight.block)
    }

    pub(super) fn copies_in_flight(&self, block: BlockId) -> usize {
        self.flights.iter().filter(|flight| flight.block == block).count()
    }

    /// How much longer a request may take; one that is overdue, as long again as it has taken.
    pub(super) fn remaining_ms(&self, now: u64, flight: &Flight, blob: &Blob) -> f64 {
        let elapsed = now.saturating_sub(flight.since_ms) as f64;
        let hoped = self.neighbours.get(&flight.peer).and_then(Neighbour::hoped_rate);
        let Some(rate) = hoped.or(self.typical_rate) else { return elapsed };
        let expected = blob.geometry.len(flight.block.block) as f64 / rate.max(0.001);
        if elapsed < expected { expected - elapsed } else { elapsed }
    }

    /// Asks a peer for a block.
    pub(super) fn request(&mut self, now: u64, peer: PeerId, block: BlockId) {
        let Some(blob) = self.blobs.iter_mut().find(|blob| blob.id == block.blob) else { return };
        blob.in_flight.put(block.block);
        blob.sourced_ms = now;
        self.down.take(blob.geometry.len(block.block), now);
        self.flights.push(Flight { peer, block, since_ms: now });
        let Some(neighbour) = self.neighbours.get(&peer) else { return };
        let is_agent = neighbour.kind == Kind::Agent;
        let wishes = self.free_slots() * self.limits.wants_per_slot;
        let more = !neighbour.wanted
            && (!is_agent || self.wanted_agents < wishes)
            && !self.is_far(neighbour)
            && self.is_interesting(now, neighbour);
        if let Some(neighbour) = self.neighbours.get_mut(&peer)
            && more
        {
            neighbour.wanted = true;
            self.wanted_agents += usize::from(is_agent);
        }
        self.out.push(Action::Request { peer, block, more });
    }

    /// Takes a request off the books; when it was sent.
    pub(super) fn drop_flight(&mut self, now: u64, peer: PeerId, block: BlockId) -> Option<u64> {
        let is_it = |flight: &Flight| flight.peer == peer && flight.block == block;
        let at = self.flights.iter().position(is_it)?;
        let flight = self.flights.swap_remove(at);
        if self.flights.is_empty() {
            self.idle_since_ms = now;
        }
        if self.copies_in_flight(block) == 0
            && let Some(blob) = self.blob_mut(block.blob)
        {
            blob.in_flight.take(block.block);
        }
        Some(flight.since_ms)
    }

    pub(super) fn arrived(&mut self, now: u64, peer: PeerId, block: BlockId) {
        let since = self.drop_flight(now, peer, block);
        let Some(geometry) = self.blob(block.blob).map(|blob| blob.geometry) else { return };
        if let Some(since) = since {
            let (bytes, ms) = (geometry.len(block.block), now.saturating_sub(since).max(1));
            let rate = bytes as f64 / ms as f64;
            self.typical_rate = Some(self.typical_rate.map_or(rate, |old| old * 0.9 + rate * 0.1));
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.measure(bytes, ms);
            }
        }
        self.stored(now, block);
    }

    /// Enters a block that is on the disk now.
    pub(super) fn stored(&mut self, now: u64, block: BlockId) {
        self.fetching.retain(|fetch| *fetch != block);
        let beaten: Vec<PeerId> =
            self.flights.iter().filter(|of| of.block == block).map(|of| of.peer).collect();
        for peer in beaten {
            self.drop_flight(now, peer, block);
            self.out.push(Action::Cancel { peer, block });
        }
        if self.blob_mut(block.blob).is_some_and(|blob| blob.put(block.block, now)) {
            self.complete_if(block.blob);
            if self.kind == Kind::Cache {
                self.fill_slots(now);
            }
        }
        self.go_on_fetching(now, block.blob);
        self.consider_all(now);
    }

    pub(super) fn failed(&mut self, now: u64, peer: PeerId, block: BlockId, failure: Failure) {
        let known = self.drop_flight(now, peer, block).is_some();
        match failure {
            Failure::Bad => self.ban(now, peer, self.limits.ban_ms),
            Failure::Broken | Failure::Stalled if known => self.strike(now, peer),
            Failure::Broken | Failure::Stalled => {}
        }
        self.consider_all(now);
    }

    pub(super) fn refused(
        &mut self,
        now: u64,
        peer: PeerId,
        block: BlockId,
        retry_after_ms: Option<u64>,
    ) {
        self.drop_flight(now, peer, block);
        match retry_after_ms {
            Some(wait) => {
                let pause = wait.clamp(1, 10_000) + self.random.below_ms(wait.clamp(1, 10_000));
                if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                    neighbour.paused_until_ms = neighbour.paused_until_ms.max(now + pause);
                }
            }
            None => {
                self.disbelieve(peer, block);
                self.strike(now, peer);
            }
        }
        self.consider_all(now);
    }

    /// A peer does not have what it said it had.
    fn disbelieve(&mut self, peer: PeerId, block: BlockId) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let (near, is_agent) = (neighbour.near, neighbour.kind == Kind::Agent);
        let took =
            neighbour.share_mut(block.blob).is_some_and(|share| share.have.take(block.block));
        if took
            && is_agent
            && let Some(blob) = self.blob_mut(block.blob)
        {
            blob.count(std::iter::once(block.block), near, false);
        }
    }

    fn strike(&mut self, now: u64, peer: PeerId) {
        self.unwant(peer);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.strike(now);
        // The cache is asked again and again, with pauses: without it there may be nobody.
        if neighbour.strikes >= MAX_STRIKES && neighbour.kind == Kind::Agent {
            self.drop_peer(now, peer);
        }
    }

    /// The connected cache that may be asked by name, if there is one.
    pub(super) fn usable_cache(&self, now: u64, blob: BlobId) -> Option<PeerId> {
        let is_cache = |of: &Neighbour| of.kind == Kind::Cache && of.is_usable(now);
        self.neighbours
            .iter()
            .find(|(_, of)| is_cache(of) && of.share(blob).is_some())
            .map(|(id, _)| *id)
    }
}
