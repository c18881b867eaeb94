//! Who shares which blob: the tracker's memory and its choice of peers.
//!
//! It keeps nothing that the nodes could not tell it again. After a restart its epoch is another
//! one; nodes see that in the next answer and announce what they have anew. Blobs are spread over
//! the trackers of a region by [`rendezvous`], so that all nodes ask the same one without asking
//! who it is.

mod grants;
mod rendezvous;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use kuboard_oci::Digest;

pub use grants::{Grant, GrantError, Grants, SignedGrant};
pub use rendezvous::rendezvous;

use crate::random::Random;

/// Bounds and times of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackerLimits {
    /// Blobs that are known at one time; the one that was silent longest makes room.
    pub blobs: usize,
    /// Nodes per blob; further ones get peers and are not remembered.
    pub members: usize,
    /// Fewest and most peers in an answer.
    pub peers: (usize, usize),
    /// Of a hundred peers in an answer, how many of the asker's own zone.
    pub near_percent: usize,
    /// Nodes are to announce again after so long.
    pub interval_ms: u64,
    /// Who did not for so long is forgotten.
    pub silence_ms: u64,
    /// How long the right to fetch from the upstream lasts.
    pub source_ms: u64,
    /// One node in so many may fetch a blob from the upstream at one time.
    pub source_one_in: usize,
}

impl Default for TrackerLimits {
    fn default() -> TrackerLimits {
        TrackerLimits {
            blobs: 20_000,
            members: 8192,
            peers: (12, 16),
            near_percent: 70,
            interval_ms: 5_000,
            silence_ms: 30_000,
            source_ms: 60_000,
            source_one_in: 50,
        }
    }
}

/// A node, by a number that its certificate's name is mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A zone or a region, by a number that its name is mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u32);

/// What a node says of itself and of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// Who.
    pub node: NodeId,
    /// Where it serves blocks.
    pub address: SocketAddr,
    /// Its zone.
    pub zone: Place,
    /// Blocks that it has.
    pub have: u32,
    /// Blocks of the blob.
    pub blocks: u32,
    /// Whether it leaves the swarm with this.
    pub leaves: bool,
}

/// A peer in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suggested {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub address: SocketAddr,
    /// Whether it is in the asker's zone.
    pub near: bool,
    /// What others measured of its uploads, in bytes per second.
    pub rate: Option<u64>,
}

/// What an announcement is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Of this run of the tracker. Another one than last time: announce all blobs again.
    pub epoch: u64,
    /// Peers to connect to.
    pub peers: Vec<Suggested>,
    /// Announce again after so long.
    pub interval_ms: u64,
}

#[derive(Debug)]
struct Member {
    address: SocketAddr,
    zone: Place,
    is_complete: bool,
    seen_ms: u64,
}

#[derive(Debug, Default)]
struct Swarm {
    members: BTreeMap<NodeId, Member>,
    /// The members again, by zone, for random choice without a walk over all.
    zones: BTreeMap<Place, Vec<NodeId>>,
    /// Who may fetch from the upstream, until when.
    sources: BTreeMap<NodeId, u64>,
    heard_ms: u64,
    swept_ms: u64,
}

/// The memory of one tracker: the nodes of one region.
#[derive(Debug)]
pub struct Tracker {
    epoch: u64,
    limits: TrackerLimits,
    random: Random,
    swarms: BTreeMap<Digest, Swarm>,
    /// Bytes per second of a node's uploads, as its peers measured.
    rates: BTreeMap<NodeId, u64>,
}

impl Tracker {
    /// A tracker that knows nobody. `epoch` is to differ from that of the run before; `seed`
    /// decides its random choices.
    #[must_use]
    pub fn new(limits: TrackerLimits, epoch: u64, seed: u64) -> Tracker {
        let random = Random::new(seed);
        Tracker { epoch, limits, random, swarms: BTreeMap::new(), rates: BTreeMap::new() }
    }

    /// This run's number.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Blobs and their members, summed up.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.swarms.len(), self.swarms.values().map(|swarm| swarm.members.len()).sum())
    }

    /// How many share a blob, and how many of those have all of it.
    #[must_use]
    pub fn members(&self, digest: &Digest) -> (usize, usize) {
        self.swarms.get(digest).map_or((0, 0), |swarm| {
            let complete = swarm.members.values().filter(|member| member.is_complete).count();
            (swarm.members.len(), complete)
        })
    }

    /// Takes an announcement, and says whom to connect to.
    pub fn announce(&mut self, now: u64, digest: &Digest, from: &Announcement) -> Answer {
        let mut answer =
            Answer { epoch: self.epoch, peers: Vec::new(), interval_ms: self.limits.interval_ms };
        if from.leaves {
            if let Some(swarm) = self.swarms.get_mut(digest) {
                swarm.remove(from.node);
                if swarm.members.is_empty() {
                    self.swarms.remove(digest);
                }
            }
            return answer;
        }
        self.make_room(digest);
        let limits = self.limits;
        let swarm = self.swarms.entry(*digest).or_default();
        swarm.heard_ms = now;
        if now >= swarm.swept_ms + limits.silence_ms / 4 {
            swarm.sweep(now, limits.silence_ms);
        }
        if swarm.members.len() < limits.members || swarm.members.contains_key(&from.node) {
            swarm.insert(now, from);
        }
        answer.peers = swarm.choose(&limits, from, &self.rates, &mut self.random);
        answer
    }

    /// Takes what a node measured of its peers, in bytes per second. Only members count.
    pub fn measured(&mut self, digest: &Digest, rates: impl IntoIterator<Item = (NodeId, u64)>) {
        let Some(swarm) = self.swarms.get(digest) else { return };
        for (node, rate) in rates {
            if swarm.members.contains_key(&node) && self.rates.len() < self.limits.members * 2 {
                // A single liar moves it by a quarter.
                let known = self.rates.entry(node).or_insert(rate);
                *known = *known / 4 * 3 + rate / 4;
            }
        }
    }

    /// Upload rates of a node, if anybody measured any.
    #[must_use]
    pub fn rate(&self, node: NodeId) -> Option<u64> {
        self.rates.get(&node).copied()
    }

    /// Whether a node may fetch a blob from the upstream, and until when: at most one in so many
    /// of those who share it, rounded up.
    pub fn ask_source(&mut self, now: u64, digest: &Digest, node: NodeId) -> Option<u64> {
        let until = now + self.limits.source_ms;
        let one_in = self.limits.source_one_in.max(1);
        let swarm = self.swarms.get_mut(digest)?;
        if !swarm.members.contains_key(&node) {
            return None;
        }
        swarm.sources.retain(|_, until| now < *until);
        let most = swarm.members.len().div_ceil(one_in);
        if !swarm.sources.contains_key(&node) && swarm.sources.len() >= most {
            return None;
        }
        swarm.sources.insert(node, until);
        Some(until)
    }

    /// Forgets a node that was found to be bad, everywhere.
    pub fn expel(&mut self, node: NodeId) {
        for swarm in self.swarms.values_mut() {
            swarm.remove(node);
        }
        self.rates.remove(&node);
        self.swarms.retain(|_, swarm| !swarm.members.is_empty());
    }

    /// Forgets blobs and rates of nodes that were silent too long; to be called now and then.
    pub fn sweep(&mut self, now: u64) {
        for swarm in self.swarms.values_mut() {
            swarm.sweep(now, self.limits.silence_ms);
        }
        self.swarms.retain(|_, swarm| !swarm.members.is_empty());
        let swarms = &self.swarms;
        self.rates.retain(|node, _| swarms.values().any(|of| of.members.contains_key(node)));
    }

    fn make_room(&mut self, digest: &Digest) {
        if self.swarms.contains_key(digest) || self.swarms.len() < self.limits.blobs {
            return;
        }
        let silent = self.swarms.iter().min_by_key(|(_, swarm)| swarm.heard_ms).map(|(of, _)| *of);
        if let Some(silent) = silent {
            self.swarms.remove(&silent);
        }
    }
}

/// A choice of peers that is being made.
struct Draw<'a> {
    asker: NodeId,
    rates: &'a BTreeMap<NodeId, u64>,
    random: &'a mut Random,
    chosen: Vec<NodeId>,
}

impl Swarm {
    fn insert(&mut self, now: u64, from: &Announcement) {
        let member = Member {
            address: from.address,
            zone: from.zone,
            is_complete: from.have >= from.blocks,
            seen_ms: now,
        };
        let zone_before = self.members.insert(from.node, member).map(|member| member.zone);
        if zone_before != Some(from.zone) {
            if let Some(list) = zone_before.and_then(|zone| self.zones.get_mut(&zone)) {
                list.retain(|node| *node != from.node);
            }
            self.zones.entry(from.zone).or_default().push(from.node);
        }
    }

    fn remove(&mut self, node: NodeId) {
        self.sources.remove(&node);
        if let Some(member) = self.members.remove(&node)
            && let Some(list) = self.zones.get_mut(&member.zone)
        {
            list.retain(|other| *other != node);
        }
    }

    fn sweep(&mut self, now: u64, silence_ms: u64) {
        self.swept_ms = now;
        let silent = |member: &Member| now.saturating_sub(member.seen_ms) > silence_ms;
        if self.members.values().any(silent) {
            self.members.retain(|_, member| !silent(member));
            let members = &self.members;
            self.zones.values_mut().for_each(|list| list.retain(|of| members.contains_key(of)));
            self.zones.retain(|_, list| !list.is_empty());
        }
    }

    fn choose(
        &self,
        limits: &TrackerLimits,
        from: &Announcement,
        rates: &BTreeMap<NodeId, u64>,
        random: &mut Random,
    ) -> Vec<Suggested> {
        let most = limits.peers.1;
        let near_most = (most * limits.near_percent).div_ceil(100);
        let mut draw = Draw { asker: from.node, rates, random, chosen: Vec::new() };
        if let Some(near) = self.zones.get(&from.zone) {
            self.sample(near, near_most, &mut draw);
        }
        let near_count = draw.chosen.len();
        let mut far: Vec<Place> =
            self.zones.keys().copied().filter(|zone| *zone != from.zone).collect();
        draw.random.shuffle(&mut far);
        for (at, zone) in far.iter().enumerate() {
            let share = (most - draw.chosen.len()).div_ceil(far.len() - at);
            self.sample(&self.zones[zone], share, &mut draw);
        }
        // Not enough elsewhere: more of the own zone.
        if draw.chosen.len() < limits.peers.0
            && near_count == near_most
            && let Some(near) = self.zones.get(&from.zone)
        {
            let lack = limits.peers.0 - draw.chosen.len();
            self.sample(near, lack, &mut draw);
        }
        // Who takes only the first ones gets a mix too.
        let Draw { mut chosen, random, .. } = draw;
        random.shuffle(&mut chosen);
        let suggest = |node: NodeId| {
            let member = self.members.get(&node)?;
            let (address, near) = (member.address, member.zone == from.zone);
            Some(Suggested { node, address, near, rate: rates.get(&node).copied() })
        };
        chosen.into_iter().filter_map(suggest).collect()
    }

    /// Adds up to `count` of `list`: twice as many are drawn, and the slower half of those is left
    /// out; of complete ones at most half are taken while there are others.
    fn sample(&self, list: &[NodeId], count: usize, draw: &mut Draw<'_>) {
        let Draw { asker, rates, random, chosen } = draw;
        let mut drawn: Vec<NodeId> = Vec::new();
        if list.len() <= count * 3 {
            drawn.extend(list);
            random.shuffle(&mut drawn);
        } else {
            for _ in 0..count * 6 {
                let node = list[random.below(list.len())];
                if !drawn.contains(&node) {
                    drawn.push(node);
                }
            }
        }
        drawn.retain(|node| node != asker && !chosen.contains(node));
        drawn.truncate(count * 2);
        // Nobody measured is taken for fast: new nodes are to be tried.
        drawn
            .sort_by_key(|node| std::cmp::Reverse(rates.get(node).map_or(63, |rate| rate.ilog2())));
        let is_complete =
            |node: &NodeId| self.members.get(node).is_some_and(|member| member.is_complete);
        let (complete, partial): (Vec<NodeId>, Vec<NodeId>) =
            drawn.into_iter().partition(is_complete);
        let full = complete.len().min((count / 2).max(count.saturating_sub(partial.len())));
        chosen.extend(complete.into_iter().take(full));
        chosen.extend(partial.into_iter().take(count - full));
    }
}

#[cfg(test)]
mod tests;
