//! The simulated cluster: it does for the state machines what sockets, disks and clocks would do.

mod life;

use std::{
    cmp::Ordering,
    collections::{BTreeSet, BinaryHeap},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use kuboard_oci::Digest;

use crate::{
    bits::Bits,
    blocks::Geometry,
    random::Random,
    sim::{
        links::{End, Links, Transfer, TransferId},
        report::Report,
        scenario::{Conduct, Fault, Scenario},
    },
    swarm::{Action, BlobId, BlockId, Failure, Input, Kind, Node, Peer, PeerId, SourceAnswer},
    tracker::{Announcement, NodeId, Place, Tracker, TrackerLimits},
};

/// How long the tracker takes to answer.
const TRACKER_US: u64 = 1_000;
/// A block from the upstream takes so long.
const UPSTREAM_BLOCK_US: u64 = 500_000;
/// How often a flooding agent asks.
const FLOOD_US: u64 = 1_000;

/// One simulated node.
struct Host {
    machine: Node,
    kind: Kind,
    region: u32,
    zone: u32,
    conduct: Conduct,
    up: bool,
    arrived: bool,
    stopped: bool,
    /// Counts lives, so that messages to an earlier one are lost.
    life: u32,
    peers: BTreeSet<u32>,
    /// Requests that were sent and not answered.
    waits: Vec<(u32, BlockId)>,
    /// What came while it stood still.
    inbox: Vec<(u32, Input)>,
    began_us: u64,
    done: u32,
    done_us: Option<u64>,
    wake_at: u64,
}

enum Event {
    Arrive(u32),
    Wake(u32),
    Input {
        to: u32,
        life: u32,
        from: u32,
        input: Input,
    },
    /// What a node learns by itself.
    Own {
        who: u32,
        life: u32,
        input: Input,
    },
    Haves {
        from: u32,
        life: u32,
        blob: BlobId,
        blocks: Arc<[u32]>,
        far: bool,
    },
    End(End),
    Arrived {
        to: u32,
        life: u32,
        from: u32,
        block: BlockId,
        bad: bool,
    },
    Meet {
        who: u32,
        life: u32,
        whom: u32,
    },
    Announce {
        who: u32,
        life: u32,
    },
    Upstream(u32),
    Flood(u32),
    Stalled {
        who: u32,
        life: u32,
        from: u32,
        block: BlockId,
    },
    Begin(usize),
    Over(usize),
}

struct Queued {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Queued) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    /// The earliest is the greatest, for the heap gives the greatest first.
    fn cmp(&self, other: &Queued) -> Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

pub(super) struct World<'a> {
    scenario: &'a Scenario,
    geometry: Geometry,
    hosts: Vec<Host>,
    links: Links<BlockId>,
    trackers: Vec<Option<Tracker>>,
    digests: Vec<Digest>,
    queue: BinaryHeap<Queued>,
    number: u64,
    now_us: u64,
    random: Random,
    /// Zones 0 of the regions can't reach the others.
    is_cut: bool,
    cache_gone: bool,
    left: usize,
    actions: Vec<Action>,
    report: Report,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> World<'a> {
        let layer = (scenario.size / u64::from(scenario.layers.max(1))).max(1);
        // The sizes of scenarios are far from the bounds.
        let geometry = Geometry::of(layer).unwrap_or_else(|_| unreachable!());
        let digests: Vec<Digest> =
            (0..scenario.layers.max(1)).map(|layer| Digest::sha256(&layer.to_be_bytes())).collect();
        let trackers =
            (0..scenario.regions).map(|of| Some(life::tracker(scenario, of, 0))).collect();
        let mut world = World {
            scenario,
            geometry,
            hosts: Vec::new(),
            links: Links::new(),
            trackers,
            digests,
            queue: BinaryHeap::new(),
            number: 0,
            now_us: 0,
            random: Random::new(scenario.seed),
            is_cut: false,
            cache_gone: false,
            left: scenario.nodes,
            actions: Vec::new(),
            report: Report::default(),
        };
        world.report.bound_s = scenario.bound_s();
        world.report.size = layer * u64::from(scenario.layers.max(1));
        world.report.regions = scenario.regions;
        world.populate();
        world
    }

    fn populate(&mut self) {
        let scenario = self.scenario;
        let regions = scenario.regions.max(1);
        for at in 0..scenario.nodes {
            let slow = self.random.percent(scenario.slow_percent);
            let up = scenario.node_rate / if slow { scenario.slow_factor.max(1) } else { 1 };
            self.links.add(up, scenario.node_rate);
            let region = (at % regions) as u32;
            let zone = (at / regions % scenario.zones.max(1)) as u32;
            self.add_host(Kind::Agent, region, zone);
            let arrival = self.random.below_ms(scenario.arrivals_ms.max(1) * 1000);
            self.push(arrival, Event::Arrive(at as u32));
        }
        for region in 0..regions {
            self.links.add(scenario.cache_rate, scenario.cache_rate);
            self.add_host(Kind::Cache, region as u32, 0);
            let who = (scenario.nodes + region) as u32;
            self.hosts[who as usize].arrived = true;
            for layer in 0..self.digests.len() as u32 {
                let has = region == 0 && scenario.upstream_rate.is_none();
                let input = self.blob(layer, has, region != 0);
                self.give(who, input);
            }
            for other in scenario.nodes as u32..who {
                self.meet(who, other);
            }
        }
        if let Some(rate) = scenario.upstream_rate {
            let each = self.geometry.block_size() as u64 * 1_000_000 / rate.max(1);
            let blocks = u64::from(self.geometry.blocks()) * self.digests.len() as u64;
            for block in 0..blocks {
                self.push((block + 1) * each, Event::Upstream(block as u32));
            }
        }
        for at in 0..scenario.faults.len() {
            match scenario.faults[at] {
                Fault::CacheLost { .. } => {}
                Fault::Rogue { percent, conduct } => self.corrupt(percent, conduct),
                Fault::TrackerRestart { at_ms }
                | Fault::TrackerLost { at_ms }
                | Fault::Kill { at_ms, .. }
                | Fault::Stop { at_ms, .. }
                | Fault::Partition { at_ms, .. } => self.push(at_ms * 1000, Event::Begin(at)),
            }
        }
    }

    fn add_host(&mut self, kind: Kind, region: u32, zone: u32) {
        let limits = match kind {
            Kind::Agent => self.scenario.agent.clone(),
            Kind::Cache => self.scenario.cache.clone(),
        };
        let seed = self.random.next_u64();
        self.hosts.push(Host {
            machine: Node::new(kind, limits, seed, 0),
            kind,
            region,
            zone,
            conduct: Conduct::Honest,
            up: true,
            arrived: false,
            stopped: false,
            life: 0,
            peers: BTreeSet::new(),
            waits: Vec::new(),
            inbox: Vec::new(),
            began_us: 0,
            done: 0,
            done_us: None,
            wake_at: u64::MAX,
        });
    }

    fn blob(&self, layer: u32, full: bool, wanted: bool) -> Input {
        let blocks = self.geometry.blocks();
        let have = if full { Bits::full(blocks) } else { Bits::new(blocks) };
        let mapped = if self.scenario.upstream_rate.is_some() { 0 } else { blocks };
        let (blob, geometry) = (BlobId(layer), self.geometry);
        Input::Blob { blob, geometry, order: layer, have, mapped, wanted }
    }

    fn corrupt(&mut self, percent: u8, conduct: Conduct) {
        let count = (self.scenario.nodes * usize::from(percent) / 100).max(1);
        let mut order: Vec<usize> = (0..self.scenario.nodes).collect();
        self.random.shuffle(&mut order);
        for at in order.into_iter().take(count) {
            if self.hosts[at].conduct == Conduct::Honest {
                self.hosts[at].conduct = conduct;
                self.left -= usize::from(conduct != Conduct::Poisons);
            }
        }
    }

    fn push(&mut self, at_us: u64, event: Event) {
        self.number += 1;
        self.queue.push(Queued { at_us, number: self.number, event });
    }

    pub(super) fn run(mut self) -> Report {
        while self.left > 0
            && let Some(Queued { at_us, event, .. }) = self.queue.pop()
        {
            if at_us > self.scenario.end_ms * 1000 {
                break;
            }
            self.now_us = self.now_us.max(at_us);
            self.report.steps += 1;
            self.step(event);
            self.take_ends();
        }
        self.sum_up();
        self.report
    }

    fn sum_up(&mut self) {
        let agents = self.hosts.iter().filter(|host| {
            let counted = matches!(host.conduct, Conduct::Honest | Conduct::Poisons);
            host.kind == Kind::Agent && counted && (host.up || host.done_us.is_some())
        });
        let times: Vec<Option<f64>> = agents
            .map(|host| host.done_us.map(|done| (done - host.began_us) as f64 / 1e6))
            .collect();
        self.report.nodes = times.len();
        self.report.times_s = times.into_iter().flatten().collect();
        self.report.times_s.sort_by(f64::total_cmp);
        self.report.done = self.report.times_s.len();
    }

    fn note(&mut self, tag: u64, one: u64, other: u64) {
        let word = self.now_us ^ tag << 56 ^ one << 28 ^ other;
        let mixed = (self.report.trace ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.report.trace = mixed ^ mixed >> 29;
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Arrive(who) => self.arrive(who),
            Event::Wake(who) => {
                self.hosts[who as usize].wake_at = u64::MAX;
                self.give(who, Input::Tick);
            }
            Event::Input { to, life, from, input } => self.deliver(to, life, from, input),
            Event::Own { who, life, input } => {
                if self.is_life(who, life) {
                    if self.hosts[who as usize].stopped {
                        self.hosts[who as usize].inbox.push((who, input));
                    } else {
                        self.give(who, input);
                    }
                }
            }
            Event::Haves { from, life, blob, blocks, far } => {
                self.spread(from, life, blob, &blocks, far);
            }
            Event::End(end) => {
                if let Some(transfer) = self.links.end(self.now_us, end) {
                    self.ended(&transfer);
                }
            }
            Event::Arrived { to, life, from, block, bad } => {
                self.received(to, life, from, block, bad)
            }
            Event::Meet { who, life, whom } => {
                if self.is_life(who, life) {
                    self.meet(who, whom);
                }
            }
            Event::Announce { who, life } => {
                if self.is_life(who, life) {
                    self.announce(who);
                    let interval = TrackerLimits::default().interval_ms * 1000;
                    self.push(self.now_us + interval, Event::Announce { who, life });
                }
            }
            Event::Upstream(block) => self.upstream(block),
            Event::Flood(who) => self.flood(who),
            Event::Stalled { who, life, from, block } => {
                if self.is_life(who, life) {
                    self.stalled(who, from, block);
                }
            }
            Event::Begin(fault) => self.begin(fault),
            Event::Over(fault) => self.over(fault),
        }
    }

    fn is_life(&self, who: u32, life: u32) -> bool {
        let host = &self.hosts[who as usize];
        host.up && host.life == life
    }

    fn way_us(&self, from: u32, to: u32) -> u64 {
        let (one, other) = (&self.hosts[from as usize], &self.hosts[to as usize]);
        let at = if one.region != other.region { 2 } else { usize::from(one.zone != other.zone) };
        self.scenario.ways_us[at]
    }

    fn are_cut(&self, one: u32, other: u32) -> bool {
        let (one, other) = (&self.hosts[one as usize], &self.hosts[other as usize]);
        self.is_cut && one.region == other.region && (one.zone == 0) != (other.zone == 0)
    }

    fn send(&mut self, from: u32, to: u32, input: Input) {
        let at = self.now_us + self.way_us(from, to);
        let life = self.hosts[to as usize].life;
        self.push(at, Event::Input { to, life, from, input });
    }

    fn deliver(&mut self, to: u32, life: u32, from: u32, input: Input) {
        if self.are_cut(from, to) {
            return;
        }
        let host = &mut self.hosts[to as usize];
        if !host.up || host.life != life || !host.peers.contains(&from) {
            if let Input::Asked { block, .. } = input {
                self.fail(from, to, block, Failure::Broken);
            }
            return;
        }
        if host.stopped {
            host.inbox.push((from, input));
            return;
        }
        match input {
            Input::Refused { block, .. } => {
                let waits = &mut host.waits;
                let Some(at) = waits.iter().position(|wait| *wait == (from, block)) else { return };
                waits.swap_remove(at);
            }
            Input::Asked { block, .. } if host.conduct == Conduct::Lies => {
                let refusal = Input::Refused { peer: PeerId(to), block, retry_after_ms: Some(50) };
                self.send(to, from, refusal);
                return;
            }
            _ => {}
        }
        self.give(to, input);
    }

    /// A request comes to nothing, if it is still waited for.
    fn fail(&mut self, who: u32, from: u32, block: BlockId, failure: Failure) {
        let waits = &mut self.hosts[who as usize].waits;
        if let Some(at) = waits.iter().position(|wait| *wait == (from, block)) {
            waits.swap_remove(at);
            self.give(who, Input::Failed { peer: PeerId(from), block, failure });
        }
    }

    fn stalled(&mut self, who: u32, from: u32, block: BlockId) {
        let is_waited = self.hosts[who as usize].waits.contains(&(from, block));
        if !is_waited || !(self.hosts[from as usize].stopped || self.are_cut(who, from)) {
            return;
        }
        if let Some(id) = self.links.find(from, who, |note| *note == block) {
            self.break_off(id);
        }
        self.fail(who, from, block, Failure::Stalled);
    }

    /// Hands an input to a node's machine and does what it says.
    fn give(&mut self, who: u32, input: Input) {
        let host = &mut self.hosts[who as usize];
        if !host.up || host.stopped {
            return;
        }
        let mut actions = std::mem::take(&mut self.actions);
        host.machine.handle(self.now_us / 1000, input, &mut actions);
        for action in actions.drain(..) {
            self.act(who, action);
        }
        self.actions = actions;
        let host = &mut self.hosts[who as usize];
        let wake = host.machine.wake_at();
        if wake < host.wake_at {
            host.wake_at = wake;
            self.push((wake * 1000).max(self.now_us), Event::Wake(who));
        }
    }

    fn act(&mut self, who: u32, action: Action) {
        let me = PeerId(who);
        match action {
            Action::Share { peer, blob, mut have, wanted } => {
                if self.hosts[who as usize].conduct == Conduct::Lies {
                    have = Arc::new(Bits::full(self.geometry.blocks()));
                }
                self.send(who, peer.0, Input::Share { peer: me, blob, have, wanted });
            }
            Action::Announce { blob, blocks } => {
                let delay = self.scenario.have_delay_ms * 1000;
                let life = self.hosts[who as usize].life;
                let (near, far) = match self.hosts[who as usize].kind {
                    Kind::Agent => (self.scenario.ways_us[0], self.scenario.ways_us[1]),
                    Kind::Cache => (0, self.scenario.ways_us[2]),
                };
                let all = [(near, false), (far, true)];
                for (way, far) in all {
                    if far && self.scenario.zones < 2 && self.scenario.regions < 2 {
                        continue;
                    }
                    let blocks = blocks.clone();
                    let event = Event::Haves { from: who, life, blob, blocks, far };
                    self.push(self.now_us + delay + way, event);
                }
            }
            Action::Want(peer) => self.send(who, peer.0, Input::Want(me)),
            Action::Offer { peer, proposal } => {
                self.report.offers.0 += 1;
                self.send(who, peer.0, Input::Offer { peer: me, proposal });
            }
            Action::Decline(peer) => {
                self.report.offers.1 += 1;
                self.send(who, peer.0, Input::Decline(me));
            }
            Action::Request { peer, block, more } => {
                self.hosts[who as usize].waits.push((peer.0, block));
                if self.hosts[peer.0 as usize].stopped || self.are_cut(who, peer.0) {
                    self.expect_stall(who, peer.0, block);
                }
                self.send(who, peer.0, Input::Asked { peer: me, block, more });
            }
            Action::Cancel { peer, block } => self.cancel(who, peer.0, block),
            Action::Serve { peer, block } => self.serve(who, peer.0, block),
            Action::Refuse { peer, block, retry_after_ms } => {
                self.report.refused += 1;
                self.send(who, peer.0, Input::Refused { peer: me, block, retry_after_ms });
            }
            Action::Drop(peer) => self.part(who, peer.0),
            Action::Ban { peer, .. } => {
                self.report.bans += 1;
                let honest = self.hosts[peer.0 as usize].conduct == Conduct::Honest;
                self.report.wrong_bans += u64::from(honest);
                self.part(who, peer.0);
            }
            Action::AskPeers(_) => self.announce(who),
            Action::AskSource(blob) => self.ask_source(who, blob),
            Action::Fetch(block) => {
                self.report.upstream_blocks += 1;
                self.tell(who, self.now_us + UPSTREAM_BLOCK_US, Input::Stored(block));
            }
            Action::Complete(_) => self.complete(who),
            Action::EndShort(_) => self.report.ended_short += 1,
        }
    }

    fn serve(&mut self, who: u32, to: u32, block: BlockId) {
        let host = &self.hosts[to as usize];
        if !host.up || !host.waits.contains(&(who, block)) {
            self.tell(who, self.now_us, Input::Sent { peer: PeerId(to), block });
            return;
        }
        let bytes = self.geometry.len(block.block);
        self.links.start(self.now_us, who, to, bytes, block);
        self.note(1, u64::from(who), u64::from(to) << 14 ^ u64::from(block.block));
        if self.hosts[who as usize].kind == Kind::Agent {
            let sends = self.links.sends(who);
            self.report.most_uploads = self.report.most_uploads.max(sends);
        }
        let frozen = self.hosts[to as usize].stopped || self.are_cut(who, to);
        if frozen && let Some(id) = self.links.find(who, to, |note| *note == block) {
            self.links.freeze(self.now_us, id, true);
        }
    }

    fn take_ends(&mut self) {
        let mut ends = std::mem::take(&mut self.links.ends);
        for end in ends.drain(..) {
            self.push(end.at_us, Event::End(end));
        }
        self.links.ends = ends;
    }

    /// Counts what a transfer moved.
    fn count(&mut self, transfer: &Transfer<BlockId>, bytes: f64) {
        let (from, to) = (&self.hosts[transfer.from as usize], &self.hosts[transfer.to as usize]);
        let report = &mut self.report;
        if from.region == to.region && from.zone != to.zone {
            report.zone_bytes += bytes;
        }
        if from.kind == Kind::Cache {
            if to.kind == Kind::Cache {
                report.region_bytes += bytes;
            } else {
                report.caches_bytes += bytes;
                report.cache_bytes += if from.region == 0 { bytes } else { 0.0 };
            }
        }
    }

    fn ended(&mut self, transfer: &Transfer<BlockId>) {
        self.count(transfer, transfer.bytes);
        let (from, to, block) = (transfer.from, transfer.to, transfer.note);
        let bad = self.hosts[from as usize].conduct == Conduct::Poisons;
        let at = self.now_us + self.way_us(from, to);
        let life = self.hosts[to as usize].life;
        self.push(at, Event::Arrived { to, life, from, block, bad });
        self.give(from, Input::Sent { peer: PeerId(to), block });
        self.watch_cache(from);
    }

    fn received(&mut self, to: u32, life: u32, from: u32, block: BlockId, bad: bool) {
        let bytes = self.geometry.len(block.block) as f64;
        let host = &mut self.hosts[to as usize];
        let waited = host.waits.iter().position(|wait| *wait == (from, block));
        let (Some(at), true) = (waited, host.up && host.life == life) else {
            self.report.twice_bytes += bytes;
            return;
        };
        host.waits.swap_remove(at);
        let peer = PeerId(from);
        if bad {
            self.report.bad_bytes += bytes;
            self.give(to, Input::Failed { peer, block, failure: Failure::Bad });
            return;
        }
        if host.machine.have(block.blob).is_none_or(|have| have.has(block.block)) {
            self.report.twice_bytes += bytes;
        }
        self.note(2, u64::from(to), u64::from(from) << 14 ^ u64::from(block.block));
        self.give(to, Input::Arrived { peer, block });
    }

    /// Stops a transfer where it is; the sender's slot is free.
    fn break_off(&mut self, id: TransferId) {
        let Some(transfer) = self.links.remove(self.now_us, id) else { return };
        let moved = Links::moved(&transfer, self.now_us);
        self.count(&transfer, moved);
        self.report.twice_bytes += moved;
        let input = Input::Sent { peer: PeerId(transfer.to), block: transfer.note };
        self.tell(transfer.from, self.now_us, input);
    }

    /// What a node learns by itself, at that time.
    fn tell(&mut self, who: u32, at_us: u64, input: Input) {
        let life = self.hosts[who as usize].life;
        self.push(at_us, Event::Own { who, life, input });
    }

    fn cancel(&mut self, who: u32, from: u32, block: BlockId) {
        self.hosts[who as usize].waits.retain(|wait| *wait != (from, block));
        match self.links.find(from, who, |note| *note == block) {
            Some(id) => self.break_off(id),
            None => {
                // It may still be held, or be on its way.
                let at = self.now_us + self.way_us(who, from);
                self.tell(from, at, Input::Sent { peer: PeerId(who), block });
            }
        }
    }
}
