//! The state machine of one node: what happened goes in with the time, what to do comes out.
//!
//! It opens no socket, reads no clock and draws its random numbers from a seed, so that an agent,
//! a cache and the simulator run the very same decisions.
//!
//! Blocks move on *offers*. A node tells a neighbour once that it would like something (`Want`).
//! Whoever has an upload slot free picks among those who want, and offers it; only then does the
//! receiver choose the block: the rarest one that the other has, that it lacks and that is not on
//! its way. So slots are never idle while somebody wants, nobody waits in a queue with a block
//! that somebody else could give sooner, and nobody polls. One offer more than there are slots is
//! out, so that the next transfer begins when the last one ends.
//!
//! A cache proposes the block with its offer: one that it gave to nobody yet. When all are given
//! away it offers nothing more; who finds no block among its neighbours asks it by name.

mod blob;
mod care;
mod download;
mod io;
mod limits;
mod neighbour;
mod upload;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub use io::{Action, BlobId, BlockId, Failure, Input, Kind, Peer, PeerId, SourceAnswer};
pub use limits::Limits;

use crate::{
    bits::Bits,
    bucket::Bucket,
    random::Random,
    swarm::{
        blob::Blob,
        download::Flight,
        neighbour::{Neighbour, Share},
        upload::{Offered, Upload},
    },
};

/// Bans that are remembered.
const MAX_BANS: usize = 1024;
/// Blobs that one node shares at one time.
const MAX_BLOBS: usize = 4096;

/// The state machine of one node.
#[derive(Debug)]
pub struct Node {
    kind: Kind,
    limits: Limits,
    random: Random,
    /// In the order in which they are to be fetched.
    blobs: Vec<Blob>,
    neighbours: BTreeMap<PeerId, Neighbour>,
    flights: Vec<Flight>,
    /// Agents that were told that we want something and did not answer yet.
    wanted_agents: usize,
    /// Blocks on their way from the upstream.
    fetching: Vec<BlockId>,
    uploads: Vec<Upload>,
    held: VecDeque<Upload>,
    offers: Vec<Offered>,
    up: Bucket,
    down: Bucket,
    bans: BTreeMap<PeerId, u64>,
    /// Bytes per millisecond of one transfer, lately.
    typical_rate: Option<f64>,
    /// Milliseconds of one upload, lately.
    typical_upload_ms: f64,
    /// Since when no block has been on its way.
    idle_since_ms: u64,
    asked_peers_ms: Option<u64>,
    announced_ms: u64,
    pulse_at: u64,
    wake_at: u64,
    out: Vec<Action>,
}

/// Sums over a node, for pages and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connected peers.
    pub neighbours: usize,
    /// Requests under way.
    pub downloads: usize,
    /// Uploads under way.
    pub uploads: usize,
    /// Blobs that still lack blocks.
    pub hungry: usize,
    /// Bans in force or past.
    pub bans: usize,
}

impl Node {
    /// A node that has nothing and knows nobody.
    #[must_use]
    pub fn new(kind: Kind, limits: Limits, seed: u64, now_ms: u64) -> Node {
        Node {
            kind,
            up: Bucket::new(limits.upload_rate, now_ms),
            down: Bucket::new(limits.download_rate, now_ms),
            limits,
            random: Random::new(seed),
            blobs: Vec::new(),
            neighbours: BTreeMap::new(),
            flights: Vec::new(),
            wanted_agents: 0,
            fetching: Vec::new(),
            uploads: Vec::new(),
            held: VecDeque::new(),
            offers: Vec::new(),
            bans: BTreeMap::new(),
            typical_rate: None,
            typical_upload_ms: 0.0,
            idle_since_ms: now_ms,
            asked_peers_ms: None,
            announced_ms: 0,
            pulse_at: u64::MAX,
            wake_at: u64::MAX,
            out: Vec::new(),
        }
    }

    /// When [`Input::Tick`] is due, in milliseconds; `u64::MAX` if nothing is waited for.
    #[must_use]
    pub fn wake_at(&self) -> u64 {
        self.wake_at
    }

    /// What it has of a blob.
    #[must_use]
    pub fn have(&self, blob: BlobId) -> Option<&Bits> {
        self.blobs.iter().find(|known| known.id == blob).map(|known| &known.have)
    }

    /// What it is doing.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            neighbours: self.neighbours.len(),
            downloads: self.flights.len(),
            uploads: self.uploads.len(),
            hungry: self.blobs.iter().filter(|blob| blob.is_hungry()).count(),
            bans: self.bans.len(),
        }
    }

    /// Bytes per second that a peer's transfers were measured at; for the announcement to the
    /// tracker.
    #[must_use]
    pub fn rates(&self) -> Vec<(PeerId, u64)> {
        let rate = |neighbour: &Neighbour| neighbour.rate.map(|rate| (rate * 1000.0) as u64);
        self.neighbours.iter().filter_map(|(id, of)| Some((*id, rate(of)?))).collect()
    }

    /// Takes in what happened at `now`, in milliseconds that never fall, and appends what is to be
    /// done to `out`.
    pub fn handle(&mut self, now: u64, input: Input, out: &mut Vec<Action>) {
        std::mem::swap(&mut self.out, out);
        self.take(now, input);
        self.flush(now);
        std::mem::swap(&mut self.out, out);
    }

    fn take(&mut self, now: u64, input: Input) {
        match input {
            Input::Tick => self.tick(now),
            Input::Limits(limits) => self.set_limits(now, *limits),
            Input::Blob { blob, geometry, order, have, mapped, wanted } => {
                let mut new = Blob::new(blob, geometry, have, now);
                (new.order, new.mapped, new.wanted) = (order, mapped, wanted);
                self.add_blob(now, new);
            }
            Input::Forget(blob) => self.forget(now, blob),
            Input::MapGrew { blob, blocks } => {
                if let Some(blob) = self.blob_mut(blob) {
                    blob.mapped = blob.mapped.max(blocks);
                }
                self.consider_all(now);
            }
            Input::PeerUp(peer) => self.peer_up(now, &peer),
            Input::PeerGone(peer) => self.peer_gone(now, peer),
            Input::PeerRate(peer, rate) => {
                if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                    neighbour.told_rate = Some(rate);
                }
            }
            Input::Share { peer, blob, have, wanted } => {
                self.shared(now, peer, blob, &have, wanted);
            }
            Input::Have { peer, blob, blocks } => self.they_have(now, peer, blob, &blocks),
            Input::Want(peer) => self.they_want(now, peer),
            Input::Offer { peer, proposal } => self.offered(now, peer, proposal),
            Input::Decline(peer) => self.declined(now, peer),
            Input::Asked { peer, block, more } => self.asked(now, peer, block, more),
            Input::Sent { peer, block } => self.sent(now, peer, block),
            Input::Arrived { peer, block } => self.arrived(now, peer, block),
            Input::Stored(block) => self.stored(now, block),
            Input::Failed { peer, block, failure } => self.failed(now, peer, block, failure),
            Input::Refused { peer, block, retry_after_ms } => {
                self.refused(now, peer, block, retry_after_ms);
            }
            Input::Source(blob, answer) => self.source_answered(now, blob, answer),
            Input::SourceFailed(block) => self.source_failed(now, block),
        }
    }

    fn set_limits(&mut self, now: u64, limits: Limits) {
        self.up.set_rate(limits.upload_rate, now);
        self.down.set_rate(limits.download_rate, now);
        self.limits = limits;
        self.fill_slots(now);
        self.consider_all(now);
    }

    fn blob(&self, id: BlobId) -> Option<&Blob> {
        self.blobs.iter().find(|blob| blob.id == id)
    }

    fn blob_mut(&mut self, id: BlobId) -> Option<&mut Blob> {
        self.blobs.iter_mut().find(|blob| blob.id == id)
    }

    /// Enters a blob. One that is known already keeps its blocks, and may become wanted.
    fn add_blob(&mut self, now: u64, new: Blob) {
        let id = new.id;
        if let Some(known) = self.blob_mut(id) {
            known.wanted |= new.wanted;
            known.order = known.order.min(new.order);
            known.mapped = known.mapped.max(new.mapped);
            let blocks: Vec<u32> = new.have.without([&known.have], u32::MAX).collect();
            for block in blocks {
                self.stored(now, BlockId { blob: id, block });
            }
        } else if self.blobs.len() < MAX_BLOBS {
            self.blobs.push(new);
        } else {
            return;
        }
        self.blobs.sort_by_key(|blob| (blob.order, blob.id));
        self.idle_since_ms = now;
        self.greet_all(id);
        self.recount(id);
        self.complete_if(id);
        self.set_pulse(now);
        self.consider_all(now);
        self.fill_slots(now);
    }

    fn greet_all(&mut self, blob: BlobId) {
        let peers: Vec<PeerId> = self.neighbours.keys().copied().collect();
        for peer in peers {
            self.greet(peer, blob);
        }
    }

    fn greet(&mut self, peer: PeerId, blob: BlobId) {
        if let Some(blob) = self.blob(blob) {
            let (have, wanted) = (Arc::new(blob.have.clone()), blob.wanted);
            self.out.push(Action::Share { peer, blob: blob.id, have, wanted });
        }
    }

    /// Counts a blob's copies anew; what peers said before it was known here counts too.
    fn recount(&mut self, id: BlobId) {
        let Some(blob) = self.blobs.iter_mut().find(|blob| blob.id == id) else { return };
        blob.clear_counts();
        for neighbour in self.neighbours.values() {
            if let Some(share) = neighbour.share(id).filter(|_| neighbour.kind == Kind::Agent) {
                blob.count(share.have.iter(), neighbour.near, true);
            }
        }
    }

    fn forget(&mut self, now: u64, id: BlobId) {
        let flights: Vec<Flight> =
            self.flights.iter().filter(|flight| flight.block.blob == id).copied().collect();
        for flight in flights {
            self.out.push(Action::Cancel { peer: flight.peer, block: flight.block });
        }
        self.flights.retain(|flight| flight.block.blob != id);
        self.fetching.retain(|block| block.blob != id);
        self.blobs.retain(|blob| blob.id != id);
        for neighbour in self.neighbours.values_mut() {
            neighbour.forget(id);
        }
        self.consider_all(now);
    }

    fn peer_up(&mut self, now: u64, peer: &Peer) {
        if self.bans.get(&peer.id).is_some_and(|until| now < *until) {
            self.out.push(Action::Drop(peer.id));
            return;
        }
        let full = self.neighbours.len() >= self.limits.neighbours_max;
        if peer.incoming && full && peer.kind == Kind::Agent {
            self.out.push(Action::Drop(peer.id));
            return;
        }
        if self.neighbours.contains_key(&peer.id) {
            return;
        }
        self.neighbours.insert(peer.id, Neighbour::new(peer));
        let blobs: Vec<BlobId> = self.blobs.iter().map(|blob| blob.id).collect();
        for blob in blobs {
            self.greet(peer.id, blob);
        }
        self.consider(now, peer.id);
        self.set_pulse(now);
    }

    fn peer_gone(&mut self, now: u64, peer: PeerId) {
        self.unwant(peer);
        let Some(neighbour) = self.neighbours.remove(&peer) else { return };
        let is_agent = neighbour.kind == Kind::Agent;
        for share in neighbour.shares().filter(|_| is_agent) {
            if let Some(blob) = self.blobs.iter_mut().find(|blob| blob.id == share.blob) {
                blob.count(share.have.iter(), neighbour.near, false);
            }
        }
        let lost: Vec<BlockId> =
            self.flights.iter().filter(|flight| flight.peer == peer).map(|of| of.block).collect();
        for block in lost {
            self.drop_flight(now, peer, block);
        }
        self.drop_uploads(now, peer);
        self.consider_all(now);
    }

    fn shared(&mut self, now: u64, peer: PeerId, id: BlobId, have: &Bits, wanted: bool) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let blob = self.blobs.iter_mut().find(|blob| blob.id == id);
        if let Some(blob) = &blob
            && blob.geometry.blocks() != have.len()
        {
            neighbour.strike(now);
            return;
        }
        let old = neighbour.set_share(Share { blob: id, have: have.clone(), wanted });
        // Of caches only what they propose counts, not what they could give.
        if let Some(blob) = blob.filter(|_| neighbour.kind == Kind::Agent) {
            if let Some(old) = old {
                blob.count(old.iter(), neighbour.near, false);
            }
            blob.count(have.iter(), neighbour.near, true);
        }
        self.consider(now, peer);
        self.fill_slots(now);
    }

    fn they_have(&mut self, now: u64, peer: PeerId, id: BlobId, blocks: &[u32]) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let (near, is_agent) = (neighbour.near, neighbour.kind == Kind::Agent);
        let Some(share) = neighbour.share_mut(id) else { return };
        let blob = self.blobs.iter_mut().find(|blob| blob.id == id).filter(|_| is_agent);
        match blob {
            Some(blob) => {
                for block in blocks {
                    if share.have.put(*block) {
                        blob.count(std::iter::once(*block), near, true);
                    }
                }
            }
            None => blocks.iter().for_each(|block| {
                share.have.put(*block);
            }),
        }
        self.consider(now, peer);
    }

    fn ban(&mut self, now: u64, peer: PeerId, for_ms: u64) {
        let until_ms = now.saturating_add(for_ms);
        self.bans.retain(|_, until| now < *until);
        if self.bans.len() < MAX_BANS {
            self.bans.insert(peer, until_ms);
        }
        self.out.push(Action::Ban { peer, until_ms });
        self.peer_gone(now, peer);
    }

    fn drop_peer(&mut self, now: u64, peer: PeerId) {
        self.out.push(Action::Drop(peer));
        self.peer_gone(now, peer);
    }

    /// Announces what is new, at most once in the time of a batch.
    fn flush(&mut self, now: u64) {
        if !self.blobs.iter().any(Blob::has_unannounced) {
            return;
        }
        let due = self.announced_ms + self.limits.have_batch_ms;
        if now < due {
            self.wake_at = self.wake_at.min(due);
            return;
        }
        self.announced_ms = now;
        for blob in &mut self.blobs {
            if let Some(blocks) = blob.take_unannounced() {
                self.out.push(Action::Announce { blob: blob.id, blocks });
            }
        }
    }

    fn complete_if(&mut self, id: BlobId) {
        if let Some(blob) = self.blob_mut(id)
            && blob.wanted
            && !blob.is_hungry()
            && !blob.told_complete
        {
            blob.told_complete = true;
            self.out.push(Action::Complete(id));
        }
    }
}
