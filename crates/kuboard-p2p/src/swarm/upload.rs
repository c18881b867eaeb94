//! The giving side: who is offered a slot, what is served, what is refused.

use crate::swarm::{Action, BlobId, BlockId, Kind, Node, PeerId, neighbour::MAX_STRIKES};

/// A request that is being served, or waits for its slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upload {
    peer: PeerId,
    block: BlockId,
    upper: bool,
    since_ms: u64,
}

/// An offer that was not answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offered {
    peer: PeerId,
    upper: bool,
    until_ms: u64,
    proposal: Option<BlockId>,
}

/// How many peers are looked at for one to whom something can be proposed.
const PROPOSAL_TRIES: usize = 8;
/// How long a flooding peer is kept out.
const FLOOD_BAN_MS: u64 = 60_000;

impl Node {
    pub(super) fn they_want(&mut self, now: u64, peer: PeerId) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.wanting = true;
            self.fill_slots(now);
        }
    }

    pub(super) fn declined(&mut self, now: u64, peer: PeerId) {
        // Any offer of several stands for the one that is declined.
        if let Some(at) = self.offers.iter().position(|offer| offer.peer == peer) {
            self.offers.remove(at);
        }
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.lapses = 0;
            neighbour.wanting = false;
        }
        self.fill_slots(now);
    }

    /// Whether uploads of this node to this kind of peer go from cache to cache.
    fn is_upper(&self, kind: Kind) -> bool {
        self.kind == Kind::Cache && kind == Kind::Cache
    }

    fn slots(&self, upper: bool) -> usize {
        if upper { self.limits.upper_slots } else { self.limits.upload_slots }
    }

    fn active(&self, upper: bool) -> usize {
        self.uploads.iter().filter(|upload| upload.upper == upper).count()
    }

    fn waiting(&self, upper: bool) -> usize {
        self.held.iter().filter(|upload| upload.upper == upper).count()
    }

    /// Offers that may be out beyond the slots: one, unless its taker would wait too long.
    /// Between caches, as many as there are slots, for the way is long.
    fn ahead(&self, upper: bool) -> usize {
        let prompt = self.typical_upload_ms < self.limits.hold_ms as f64;
        if upper { self.limits.upper_slots } else { usize::from(prompt) }
    }

    /// Starts what waits for a slot, and offers what is free.
    pub(super) fn fill_slots(&mut self, now: u64) {
        for upper in [false, true] {
            while self.active(upper) < self.slots(upper) && self.up.wait_ms(now) == 0 {
                let Some(at) = self.held.iter().position(|held| held.upper == upper) else { break };
                let Some(upload) = self.held.remove(at) else { break };
                self.serve(now, upload);
            }
            let wait = self.up.wait_ms(now);
            if wait > 0 {
                self.wake_at = self.wake_at.min(now.saturating_add(wait));
                continue;
            }
            loop {
                let offered = self.offers.iter().filter(|offer| offer.upper == upper).count();
                let taken = self.active(upper) + self.waiting(upper) + offered;
                if taken >= self.slots(upper) + self.ahead(upper) || !self.offer_one(now, upper) {
                    break;
                }
            }
        }
    }

    fn offer_one(&mut self, now: u64, upper: bool) -> bool {
        let mut takers: Vec<PeerId> = self
            .neighbours
            .iter()
            .filter(|(id, neighbour)| {
                neighbour.wanting
                    && neighbour.is_usable(now)
                    && self.is_upper(neighbour.kind) == upper
                    && self.offers_to(**id) < if upper { self.limits.per_peer } else { 1 }
            })
            .map(|(id, _)| *id)
            .collect();
        if self.kind == Kind::Agent {
            // Who gets nothing from us now comes first.
            let busy = |peer: &PeerId| self.uploads.iter().any(|upload| upload.peer == *peer);
            if takers.iter().any(|peer| !busy(peer)) {
                takers.retain(|peer| !busy(peer));
            }
        }
        for _ in 0..PROPOSAL_TRIES.min(takers.len()) {
            let peer = takers.swap_remove(self.random.below(takers.len()));
            let proposal = match self.kind {
                Kind::Agent => None,
                Kind::Cache => match self.propose(peer, upper) {
                    Some(block) => Some(block),
                    None => continue,
                },
            };
            let until_ms = now + self.limits.offer_ms;
            self.offers.push(Offered { peer, upper, until_ms, proposal });
            self.wake_at = self.wake_at.min(until_ms);
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                // Regions are far apart: the next offer does not wait for the answer to this one.
                neighbour.wanting = upper;
            }
            self.out.push(Action::Offer { peer, proposal });
            return true;
        }
        false
    }

    fn offers_to(&self, peer: PeerId) -> usize {
        self.offers.iter().filter(|offer| offer.peer == peer).count()
    }

    /// A block that the peer wants and that nobody was given or proposed.
    fn propose(&mut self, peer: PeerId, upper: bool) -> Option<BlockId> {
        let neighbour = self.neighbours.get(&peer)?;
        for blob in &self.blobs {
            let Some(share) = neighbour.share(blob.id).filter(|share| share.wanted) else {
                continue;
            };
            let mut taken = share.have.clone();
            let proposed = self.offers.iter().filter(|offer| offer.upper == upper);
            let waiting = self.held.iter().filter(|held| held.upper == upper);
            let blocks = proposed.filter_map(|of| of.proposal).chain(waiting.map(|of| of.block));
            for block in blocks.filter(|block| block.blob == blob.id) {
                taken.put(block.block);
            }
            if let Some(block) = blob.unserved(&taken, upper, &mut self.random) {
                return Some(BlockId { blob: blob.id, block });
            }
        }
        None
    }

    pub(super) fn asked(&mut self, now: u64, peer: PeerId, block: BlockId, more: bool) {
        let own = |offer: &Offered| offer.peer == peer;
        let same = |offer: &Offered| own(offer) && offer.proposal == Some(block);
        let offered = self.offers.iter().position(same).or(self.offers.iter().position(own));
        if let Some(at) = offered {
            self.offers.swap_remove(at);
        }
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            self.out.push(Action::Refuse { peer, block, retry_after_ms: None });
            return;
        };
        neighbour.lapses = 0;
        neighbour.wanting |= more;
        let upper = self.kind == Kind::Cache && neighbour.kind == Kind::Cache;
        if offered.is_none() && neighbour.floods(now) {
            self.ban(now, peer, FLOOD_BAN_MS);
            return;
        }
        if !self.blob(block.blob).is_some_and(|blob| blob.have.has(block.block)) {
            // A cache that is still filling will have it; nobody else promised it.
            let filling = self.kind == Kind::Cache && self.blob(block.blob).is_some();
            let retry_after_ms = filling.then_some(self.limits.starve_ms);
            self.out.push(Action::Refuse { peer, block, retry_after_ms });
            self.fill_slots(now);
            return;
        }
        let upload = Upload { peer, block, upper, since_ms: now };
        let waiting = self.waiting(upper);
        if self.active(upper) < self.slots(upper) && waiting == 0 && self.up.wait_ms(now) == 0 {
            self.serve(now, upload);
        } else if offered.is_some() || self.may_wait(waiting, upper) {
            self.held.push_back(upload);
        } else {
            let retry_after_ms = Some(self.expected_wait_ms(now, waiting + 1, upper));
            self.out.push(Action::Refuse { peer, block, retry_after_ms });
        }
        self.fill_slots(now);
    }

    /// Whether a request out of turn may wait, with `waiting` before it.
    fn may_wait(&self, waiting: usize, upper: bool) -> bool {
        let turns = (waiting + 1).div_ceil(self.slots(upper).max(1));
        let wait = self.typical_upload_ms * turns as f64;
        waiting < self.slots(upper) && wait < self.limits.hold_ms as f64
    }

    fn expected_wait_ms(&mut self, now: u64, waiting: usize, upper: bool) -> u64 {
        let turns = waiting.div_ceil(self.slots(upper).max(1));
        let wait = (self.typical_upload_ms * turns as f64) as u64;
        wait.max(self.up.wait_ms(now)).clamp(20, 5_000)
    }

    fn serve(&mut self, now: u64, upload: Upload) {
        let Upload { peer, block, upper, .. } = upload;
        let Some(blob) = self.blobs.iter_mut().find(|blob| blob.id == block.blob) else {
            self.out.push(Action::Refuse { peer, block, retry_after_ms: None });
            return;
        };
        blob.serve(block.block, upper);
        self.up.take(blob.geometry.len(block.block), now);
        self.uploads.push(Upload { since_ms: now, ..upload });
        self.out.push(Action::Serve { peer, block });
    }

    pub(super) fn sent(&mut self, now: u64, peer: PeerId, block: BlockId) {
        let is_it = |upload: &Upload| upload.peer == peer && upload.block == block;
        if let Some(at) = self.uploads.iter().position(is_it) {
            let upload = self.uploads.swap_remove(at);
            let took = now.saturating_sub(upload.since_ms) as f64;
            self.typical_upload_ms = self.typical_upload_ms * 0.8 + took * 0.2;
        } else if let Some(at) = self.held.iter().position(is_it) {
            self.held.remove(at);
        }
        self.fill_slots(now);
    }

    /// A peer is gone: its slots are free. The driver still says `Sent` of what it broke off.
    pub(super) fn drop_uploads(&mut self, now: u64, peer: PeerId) {
        self.uploads.retain(|upload| upload.peer != peer);
        self.held.retain(|upload| upload.peer != peer);
        self.offers.retain(|offer| offer.peer != peer);
        self.fill_slots(now);
    }

    /// Takes back the offers that nobody answered in time.
    pub(super) fn expire_offers(&mut self, now: u64) {
        let lapsed: Vec<PeerId> =
            self.offers.iter().filter(|of| of.until_ms <= now).map(|of| of.peer).collect();
        self.offers.retain(|offer| offer.until_ms > now);
        for peer in lapsed {
            let Some(neighbour) = self.neighbours.get_mut(&peer) else { continue };
            neighbour.lapse(now);
            // It may be stuck and come back; it still wants.
            neighbour.wanting = true;
            if neighbour.lapses > MAX_STRIKES * 4 {
                self.drop_peer(now, peer);
            }
        }
    }

    /// When the next offer lapses.
    pub(super) fn next_lapse(&self) -> u64 {
        self.offers.iter().map(|offer| offer.until_ms).min().unwrap_or(u64::MAX)
    }

    /// Whether blocks of this blob are being sent.
    #[must_use]
    pub fn is_serving(&self, blob: BlobId) -> bool {
        self.uploads.iter().chain(&self.held).any(|upload| upload.block.blob == blob)
    }
}
