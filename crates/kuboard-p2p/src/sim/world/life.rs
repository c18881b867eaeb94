//! Coming, meeting, leaving and failing of simulated nodes, and what the tracker does for them.

use std::sync::Arc;

use super::{
    Announcement, BlobId, BlockId, Conduct, Event, FLOOD_US, Fault, Input, Ipv4Addr, Kind, NodeId,
    Peer, PeerId, Place, Scenario, SocketAddr, SourceAnswer, TRACKER_US, Tracker, TrackerLimits,
    World,
};
use crate::swarm::Node;

/// The tracker of a region, in its so-manieth life.
pub(super) fn tracker(scenario: &Scenario, region: usize, life: u64) -> Tracker {
    let seed = scenario.seed ^ (region as u64) << 8 ^ life << 32;
    Tracker::new(TrackerLimits::default(), life, seed)
}

impl World<'_> {
    pub(super) fn arrive(&mut self, who: u32) {
        let scenario = self.scenario;
        let warm = self.random.percent(scenario.warm_percent);
        let host = &mut self.hosts[who as usize];
        host.arrived = true;
        host.began_us = self.now_us;
        let life = host.life;
        for layer in 0..self.digests.len() as u32 {
            let input = self.blob(layer, warm, true);
            self.give(who, input);
        }
        let cache = (scenario.nodes as u32) + self.hosts[who as usize].region;
        if self.hosts[cache as usize].up {
            self.push(self.now_us + 2 * TRACKER_US, Event::Meet { who, life, whom: cache });
        }
        self.push(self.now_us, Event::Announce { who, life });
        if self.hosts[who as usize].conduct == Conduct::Floods {
            self.push(self.now_us, Event::Flood(who));
        }
    }

    /// Connects two nodes, if both are there and the second one lets it.
    pub(super) fn meet(&mut self, who: u32, whom: u32) {
        let (one, other) = (&self.hosts[who as usize], &self.hosts[whom as usize]);
        let able = other.up && other.arrived && !other.stopped && !one.stopped;
        if who == whom || !able || one.peers.contains(&whom) || self.are_cut(who, whom) {
            return;
        }
        let near = one.region == other.region && one.zone == other.zone;
        let (mine, theirs) = (one.kind, other.kind);
        self.hosts[who as usize].peers.insert(whom);
        self.hosts[whom as usize].peers.insert(who);
        let peer = Peer { id: PeerId(who), kind: mine, near, incoming: true, rate: None };
        self.give(whom, Input::PeerUp(peer));
        if self.hosts[who as usize].peers.contains(&whom) {
            let peer = Peer { id: PeerId(whom), kind: theirs, near, incoming: false, rate: None };
            self.give(who, Input::PeerUp(peer));
            let blocks = self.geometry.blocks();
            if theirs == Kind::Cache && self.scenario.upstream_rate.is_some() {
                let known = self.upstream_known();
                for layer in 0..self.digests.len() as u32 {
                    let blocks = known.saturating_sub(layer * blocks).min(blocks);
                    self.give(who, Input::MapGrew { blob: BlobId(layer), blocks });
                }
            }
        }
    }

    /// Ends the connection of two nodes; the second one learns of it.
    pub(super) fn part(&mut self, who: u32, whom: u32) {
        self.hosts[who as usize].peers.remove(&whom);
        if self.hosts[whom as usize].peers.remove(&who) {
            let at = self.now_us + self.way_us(who, whom);
            self.tell(whom, at, Input::PeerGone(PeerId(who)));
        }
        for (one, other) in [(who, whom), (whom, who)] {
            let between =
                |id: &u32| self.links.get(*id).is_some_and(|of| of.from == one && of.to == other);
            let ids: Vec<u32> = self.links.of(one).into_iter().filter(between).collect();
            ids.into_iter().for_each(|id| self.break_off(id));
            self.hosts[other as usize].waits.retain(|(from, _)| *from != one);
        }
    }

    /// Delivers an announcement of blocks to all who are to have it.
    pub(super) fn spread(
        &mut self,
        from: u32,
        life: u32,
        blob: BlobId,
        blocks: &Arc<[u32]>,
        far: bool,
    ) {
        if !self.is_life(from, life) {
            return;
        }
        let host = &self.hosts[from as usize];
        let (kind, zone, region) = (host.kind, host.zone, host.region);
        let to: Vec<u32> = host
            .peers
            .iter()
            .copied()
            .filter(|id| {
                let other = &self.hosts[*id as usize];
                let away = other.zone != zone || other.region != region;
                other.kind == kind && away == far && !self.are_cut(from, *id)
            })
            .collect();
        for who in to {
            let input = Input::Have { peer: PeerId(from), blob, blocks: blocks.clone() };
            let host = &mut self.hosts[who as usize];
            if host.stopped {
                host.inbox.push((from, input));
            } else {
                self.give(who, input);
            }
        }
    }

    pub(super) fn announce(&mut self, who: u32) {
        let host = &self.hosts[who as usize];
        if host.kind == Kind::Cache || host.stopped {
            return;
        }
        let region = host.region;
        let cache = self.scenario.nodes as u32 + region;
        let layer = host.done.min(self.digests.len() as u32 - 1);
        let have = host.machine.have(BlobId(layer)).map_or(0, crate::bits::Bits::count);
        let have = if host.conduct == Conduct::Lies { self.geometry.blocks() } else { have };
        let announcement = Announcement {
            node: NodeId(u64::from(who)),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            zone: Place(host.zone),
            have,
            blocks: self.geometry.blocks(),
            leaves: false,
        };
        let rates: Vec<(NodeId, u64)> = host
            .machine
            .rates()
            .into_iter()
            .filter(|(peer, _)| (peer.0 as usize) < self.scenario.nodes)
            .map(|(peer, rate)| (NodeId(u64::from(peer.0)), rate))
            .collect();
        let (wants, life) = (host.done_us.is_none(), host.life);
        if self.are_cut(who, cache) {
            return;
        }
        let now = self.now_us / 1000;
        // One image has one swarm here: the layers are shared by the same neighbours.
        let digest = self.digests[0];
        let Some(tracker) = self.trackers[region as usize].as_mut() else { return };
        let answer = tracker.announce(now, &digest, &announcement);
        tracker.measured(&digest, rates);
        self.report.tracked = self.report.tracked.max(tracker.members(&digest).0);
        let linked = &self.hosts[who as usize].peers;
        let full = TrackerLimits::default().peers.1;
        let room = full.saturating_sub(linked.len().saturating_sub(1));
        let mut room = room.max(usize::from(wants) * 2);
        let mut meet = Vec::new();
        for peer in answer.peers {
            let whom = peer.node.0 as u32;
            if room > 0 && !linked.contains(&whom) {
                room -= 1;
                meet.push(whom);
            }
        }
        for whom in meet {
            self.push(self.now_us + 2 * TRACKER_US, Event::Meet { who, life, whom });
        }
    }

    pub(super) fn ask_source(&mut self, who: u32, blob: BlobId) {
        let host = &self.hosts[who as usize];
        let (region, node) = (host.region as usize, NodeId(u64::from(who)));
        let now = self.now_us / 1000;
        let cache = self.scenario.nodes as u32 + host.region;
        let cut = self.are_cut(who, cache);
        let answer = match self.trackers[region].as_mut().filter(|_| !cut) {
            None => SourceAnswer::NoTracker,
            Some(tracker) => match tracker.ask_source(now, &self.digests[0], node) {
                Some(until_ms) => SourceAnswer::Granted { until_ms },
                None => SourceAnswer::Denied,
            },
        };
        self.tell(who, self.now_us + 2 * TRACKER_US, Input::Source(blob, answer));
    }

    /// Blocks that the first cache has from the upstream by now.
    fn upstream_known(&self) -> u32 {
        let cache = &self.hosts[self.scenario.nodes].machine;
        let layers = 0..self.digests.len() as u32;
        layers.filter_map(|layer| cache.have(BlobId(layer))).map(|have| have.first_gap(0)).sum()
    }

    pub(super) fn upstream(&mut self, at: u32) {
        let cache = self.scenario.nodes as u32;
        if !self.hosts[cache as usize].up {
            return;
        }
        let blocks = self.geometry.blocks();
        let (blob, block) = (BlobId(at / blocks), at % blocks);
        self.give(cache, Input::Stored(BlockId { blob, block }));
        for who in 0..self.hosts.len() as u32 {
            if self.hosts[who as usize].arrived {
                let life = self.hosts[who as usize].life;
                let input = Input::MapGrew { blob, blocks: block + 1 };
                let way = self.way_us(cache, who);
                self.push(self.now_us + way, Event::Own { who, life, input });
            }
        }
    }

    pub(super) fn complete(&mut self, who: u32) {
        let layers = self.digests.len() as u32;
        let leaves = self.scenario.half_leave && who % 2 == 1;
        let host = &mut self.hosts[who as usize];
        host.done += 1;
        if host.done < layers || host.kind == Kind::Cache || host.done_us.is_some() {
            return;
        }
        host.done_us = Some(self.now_us);
        if matches!(host.conduct, Conduct::Honest | Conduct::Poisons) {
            self.left = self.left.saturating_sub(1);
        }
        if leaves {
            self.kill(who);
        }
    }

    /// A process is gone; its connections break at once.
    pub(super) fn kill(&mut self, who: u32) {
        let host = &mut self.hosts[who as usize];
        host.up = false;
        host.life += 1;
        host.waits.clear();
        host.inbox.clear();
        let peers = std::mem::take(&mut host.peers);
        for id in self.links.of(who) {
            self.break_off(id);
        }
        for peer in peers {
            if self.hosts[peer as usize].peers.remove(&who) {
                self.hosts[peer as usize].waits.retain(|(from, _)| *from != who);
                let at = self.now_us + self.way_us(who, peer);
                self.tell(peer, at, Input::PeerGone(PeerId(who)));
            }
        }
    }

    fn revive(&mut self, who: u32) {
        let seed = self.random.next_u64();
        let limits = self.scenario.agent.clone();
        let now = self.now_us / 1000;
        let host = &mut self.hosts[who as usize];
        host.machine = Node::new(Kind::Agent, limits, seed, now);
        host.up = true;
        host.stopped = false;
        host.done = 0;
        let began = host.began_us;
        self.arrive(who);
        self.hosts[who as usize].began_us = began;
    }

    /// Ends the caches once the first has sent as much as the scenario says.
    pub(super) fn watch_cache(&mut self, from: u32) {
        if self.cache_gone || from as usize != self.scenario.nodes {
            return;
        }
        let sent = self.report.cache_bytes * 100.0 / self.report.size as f64;
        let is_due = |fault: &Fault| matches!(fault, Fault::CacheLost { sent_percent } if sent >= *sent_percent as f64);
        if self.scenario.faults.iter().any(is_due) {
            self.cache_gone = true;
            for cache in self.scenario.nodes as u32..self.hosts.len() as u32 {
                self.kill(cache);
            }
        }
    }

    pub(super) fn flood(&mut self, who: u32) {
        if !self.hosts[who as usize].up || self.left == 0 {
            return;
        }
        let peers: Vec<u32> = self.hosts[who as usize].peers.iter().copied().collect();
        for peer in peers {
            let block = self.random.below(self.geometry.blocks() as usize) as u32;
            let block = BlockId { blob: BlobId(0), block };
            self.send(who, peer, Input::Asked { peer: PeerId(who), block, more: true });
        }
        self.push(self.now_us + FLOOD_US, Event::Flood(who));
    }

    /// A request will stall: its node learns that after the time that a driver waits.
    pub(super) fn expect_stall(&mut self, who: u32, from: u32, block: BlockId) {
        let life = self.hosts[who as usize].life;
        let at = self.now_us + self.scenario.agent.stall_ms * 1000;
        self.push(at, Event::Stalled { who, life, from, block });
    }

    fn some_agents(&mut self, percent: u8) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.scenario.nodes as u32)
            .filter(|who| {
                let host = &self.hosts[*who as usize];
                host.up && host.arrived && host.conduct == Conduct::Honest
            })
            .collect();
        self.random.shuffle(&mut order);
        order.truncate((self.scenario.nodes * usize::from(percent) / 100).max(1));
        order
    }

    pub(super) fn begin(&mut self, at: usize) {
        match self.scenario.faults[at] {
            Fault::TrackerRestart { .. } => {
                for region in 0..self.trackers.len() {
                    self.trackers[region] = Some(tracker(self.scenario, region, 1));
                }
            }
            Fault::TrackerLost { .. } => self.trackers.iter_mut().for_each(|of| *of = None),
            Fault::Kill { percent, back_ms, .. } => {
                let chosen = self.some_agents(percent);
                for who in &chosen {
                    if back_ms == 0 && self.hosts[*who as usize].done_us.is_none() {
                        self.left = self.left.saturating_sub(1);
                    }
                    self.kill(*who);
                }
                if back_ms > 0 {
                    self.push(self.now_us + back_ms * 1000, Event::Over(at));
                }
            }
            Fault::Stop { percent, for_ms, .. } => {
                for who in self.some_agents(percent) {
                    self.stop(who);
                }
                self.push(self.now_us + for_ms * 1000, Event::Over(at));
            }
            Fault::Partition { for_ms, .. } => {
                self.is_cut = true;
                self.cut_all();
                self.push(self.now_us + for_ms * 1000, Event::Over(at));
            }
            Fault::CacheLost { .. } | Fault::Rogue { .. } => {}
        }
    }

    fn stop(&mut self, who: u32) {
        self.hosts[who as usize].stopped = true;
        for id in self.links.of(who) {
            self.links.freeze(self.now_us, id, true);
        }
        let peers: Vec<u32> = self.hosts[who as usize].peers.iter().copied().collect();
        for peer in peers {
            for (from, block) in self.hosts[peer as usize].waits.clone() {
                if from == who {
                    self.expect_stall(peer, who, block);
                }
            }
        }
    }

    /// Everything between the two sides stands still, and is given up after a while.
    fn cut_all(&mut self) {
        for who in 0..self.hosts.len() as u32 {
            let peers: Vec<u32> = self.hosts[who as usize].peers.iter().copied().collect();
            for peer in peers {
                if !self.are_cut(who, peer) {
                    continue;
                }
                for (from, block) in self.hosts[who as usize].waits.clone() {
                    if from == peer {
                        self.expect_stall(who, peer, block);
                    }
                }
                let ids = self.links.of(who);
                for id in ids {
                    let cut = self.links.get(id).is_some_and(|of| self.are_cut(of.from, of.to));
                    if cut {
                        self.links.freeze(self.now_us, id, true);
                    }
                }
                // Keep-alives go unanswered.
                let at = self.now_us + 2 * self.scenario.agent.stall_ms * 1000;
                self.hosts[who as usize].peers.remove(&peer);
                self.tell(who, at, Input::PeerGone(PeerId(peer)));
            }
        }
    }

    pub(super) fn over(&mut self, at: usize) {
        match self.scenario.faults[at] {
            Fault::Kill { .. } => {
                let gone: Vec<u32> = (0..self.scenario.nodes as u32)
                    .filter(|who| !self.hosts[*who as usize].up)
                    .collect();
                for who in gone {
                    if self.hosts[who as usize].done_us.is_none() {
                        self.revive(who);
                    }
                }
            }
            Fault::Stop { .. } => {
                for who in 0..self.scenario.nodes as u32 {
                    if self.hosts[who as usize].stopped {
                        self.go_on(who);
                    }
                }
            }
            Fault::Partition { .. } => {
                self.is_cut = false;
                for who in 0..self.scenario.nodes as u32 {
                    let cache = self.scenario.nodes as u32 + self.hosts[who as usize].region;
                    let life = self.hosts[who as usize].life;
                    self.push(self.now_us + TRACKER_US, Event::Meet { who, life, whom: cache });
                }
            }
            _ => {}
        }
    }

    fn go_on(&mut self, who: u32) {
        let host = &mut self.hosts[who as usize];
        host.stopped = false;
        let inbox = std::mem::take(&mut host.inbox);
        for id in self.links.of(who) {
            let other_stopped = self.links.get(id).is_some_and(|of| {
                self.hosts[of.from as usize].stopped || self.hosts[of.to as usize].stopped
            });
            if !other_stopped {
                self.links.freeze(self.now_us, id, false);
            }
        }
        self.give(who, Input::Tick);
        let life = self.hosts[who as usize].life;
        for (from, input) in inbox {
            if from == who {
                self.push(self.now_us, Event::Own { who, life, input });
            } else {
                self.push(self.now_us, Event::Input { to: who, life, from, input });
            }
        }
    }
}
