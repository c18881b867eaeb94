//! Models of how other systems spread an image, for comparison in the same links. They are models:
//! the policies as their sources describe them, without their processes, and with what they leave
//! open decided in their favour.

use std::collections::BinaryHeap;

use crate::{
    bits::Bits,
    random::Random,
    sim::{
        links::{End, Links},
        report::Report,
        scenario::Scenario,
    },
};

/// Model of Spegel: a layer is shared only once it is complete, and who finds no complete copy goes
/// to the origin. In a flash crowd all nodes ask before anybody has it, so all go to the origin;
/// its link is shared evenly.
#[must_use]
pub fn spegel_like(scenario: &Scenario) -> Report {
    let mut random = Random::new(scenario.seed);
    let nodes = scenario.nodes;
    let mut arrivals: Vec<f64> = (0..nodes)
        .map(|_| random.below_ms(scenario.arrivals_ms.max(1) * 1000) as f64 / 1e6)
        .collect();
    arrivals.sort_by(f64::total_cmp);
    // Equal shares of equal sizes: who came first is done first. `served` is what each node that
    // was there from the start has got by `now`; a node that came later lacks what was served then.
    let size = scenario.size as f64;
    let (mut now, mut served) = (0.0, 0.0);
    let (mut begun, mut ended) = (0, 0);
    let mut starts = vec![0.0; nodes];
    let mut times = Vec::with_capacity(nodes);
    while ended < nodes {
        let active = begun - ended;
        let rate = match active {
            0 => 0.0,
            active => (scenario.cache_rate as f64 / active as f64).min(scenario.node_rate as f64),
        };
        let done_at = if active == 0 {
            f64::INFINITY
        } else {
            now + (starts[ended] + size - served).max(0.0) / rate
        };
        let next = arrivals.get(begun).copied().unwrap_or(f64::INFINITY);
        let at = next.min(done_at);
        served += rate * (at - now);
        now = at;
        if next <= done_at {
            starts[begun] = served;
            begun += 1;
        } else {
            times.push(now - arrivals[ended]);
            ended += 1;
        }
    }
    times.sort_by(f64::total_cmp);
    let all = size * nodes as f64;
    Report { cache_bytes: all, caches_bytes: all, ..outline(scenario, times) }
}

fn outline(scenario: &Scenario, times_s: Vec<f64>) -> Report {
    Report {
        nodes: scenario.nodes,
        done: times_s.len(),
        times_s,
        bound_s: scenario.bound_s(),
        size: scenario.size,
        regions: 1,
        ..Report::default()
    }
}

/// Pieces of Dragonfly.
const PIECE: u64 = 4 << 20;
/// Pieces that a node fetches at one time.
const CONCURRENT: usize = 8;
/// Parents that a node is given.
const PARENTS: usize = 3;
/// Children that the scheduler gives a parent.
const CHILDREN: u32 = 50;
/// Between a piece's arrival and a child's knowledge of it.
const SYNC_US: u64 = 20_000;

struct Peer {
    parents: Vec<usize>,
    have: Bits,
    /// What children know of.
    known: Bits,
    asked: Bits,
    flying: usize,
    began_us: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Arrive(usize),
    Known(usize, u32),
    End(u64, u32, u32),
}

/// Model of Dragonfly: the scheduler gives each node at most three parents among those who came
/// before it (the seed peer is one of all), pieces of 4 MiB are fetched in order, eight at a time,
/// from the parent that has the piece and the fewest uploads.
#[must_use]
pub fn dragonfly_like(scenario: &Scenario) -> Report {
    let mut model = Dragonfly::new(scenario);
    for at in 0..scenario.nodes {
        let arrival = model.random.below_ms(scenario.arrivals_ms.max(1) * 1000);
        model.push(arrival, Step::Arrive(at));
    }
    while let Some((std::cmp::Reverse(at_us), _, step)) = model.queue.pop() {
        model.now_us = at_us;
        model.step(step.0);
        let ends: Vec<End> = model.links.ends.drain(..).collect();
        for end in ends {
            model.push(end.at_us, Step::End(end.at_us, end.transfer, end.version));
        }
    }
    model.times.sort_by(f64::total_cmp);
    let (bytes, times) = (model.seed_bytes, model.times);
    Report { cache_bytes: bytes, caches_bytes: bytes, ..outline(scenario, times) }
}

type Entry = (std::cmp::Reverse<u64>, std::cmp::Reverse<u64>, std::cmp::Reverse<Step>);

struct Dragonfly {
    pieces: u32,
    peers: Vec<Peer>,
    children: Vec<u32>,
    /// Who is there, in the order of arrival; the seed peer is the first.
    present: Vec<usize>,
    links: Links<u32>,
    queue: BinaryHeap<Entry>,
    number: u64,
    now_us: u64,
    random: Random,
    seed_bytes: f64,
    times: Vec<f64>,
}

impl Dragonfly {
    fn new(scenario: &Scenario) -> Dragonfly {
        let pieces = scenario.size.div_ceil(PIECE) as u32;
        let mut links = Links::new();
        let mut peers = Vec::new();
        for _ in 0..scenario.nodes {
            links.add(scenario.node_rate, scenario.node_rate);
            let empty = || Bits::new(pieces);
            peers.push(Peer {
                parents: Vec::new(),
                have: empty(),
                known: empty(),
                asked: empty(),
                flying: 0,
                began_us: 0,
            });
        }
        links.add(scenario.cache_rate, scenario.cache_rate);
        let full = || Bits::full(pieces);
        let (have, known, asked) = (full(), full(), full());
        peers.push(Peer { parents: Vec::new(), have, known, asked, flying: 0, began_us: 0 });
        Dragonfly {
            pieces,
            peers,
            children: vec![0; scenario.nodes + 1],
            present: vec![scenario.nodes],
            links,
            queue: BinaryHeap::new(),
            number: 0,
            now_us: 0,
            random: Random::new(scenario.seed),
            seed_bytes: 0.0,
            times: Vec::new(),
        }
    }

    fn push(&mut self, at_us: u64, step: Step) {
        use std::cmp::Reverse;
        self.number += 1;
        self.queue.push((Reverse(at_us), Reverse(self.number), Reverse(step)));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Arrive(who) => {
                self.peers[who].began_us = self.now_us;
                let mut tries = 0;
                while self.peers[who].parents.len() < PARENTS.min(self.present.len()) && tries < 50
                {
                    tries += 1;
                    let parent = self.present[self.random.below(self.present.len())];
                    let full = self.children[parent] >= CHILDREN;
                    if !full && !self.peers[who].parents.contains(&parent) {
                        self.children[parent] += 1;
                        self.peers[who].parents.push(parent);
                    }
                }
                self.present.push(who);
                self.fetch(who);
            }
            Step::Known(who, piece) => {
                self.peers[who].known.put(piece);
                for child in 0..self.peers.len() {
                    if self.peers[child].parents.contains(&who) {
                        self.fetch(child);
                    }
                }
            }
            Step::End(at_us, transfer, version) => self.end(End { at_us, transfer, version }),
        }
    }

    fn end(&mut self, end: End) {
        let Some(transfer) = self.links.end(self.now_us, end) else { return };
        let (who, piece) = (transfer.to as usize, transfer.note);
        if transfer.from as usize == self.peers.len() - 1 {
            self.seed_bytes += transfer.bytes;
        }
        let peer = &mut self.peers[who];
        peer.flying -= 1;
        peer.have.put(piece);
        if peer.have.is_full() {
            self.times.push((self.now_us - peer.began_us) as f64 / 1e6);
        }
        self.push(self.now_us + SYNC_US, Step::Known(who, piece));
        self.fetch(who);
    }

    /// Asks for the first pieces, in order, that some parent has.
    fn fetch(&mut self, who: usize) {
        while self.peers[who].flying < CONCURRENT {
            let Some((piece, parent)) = self.next(who) else { return };
            let peer = &mut self.peers[who];
            peer.flying += 1;
            peer.asked.put(piece);
            self.links.start(self.now_us, parent as u32, who as u32, PIECE, piece);
        }
    }

    fn next(&self, who: usize) -> Option<(u32, usize)> {
        let peer = &self.peers[who];
        let mut piece = peer.asked.first_gap(0);
        while piece < self.pieces {
            let holders = peer.parents.iter().filter(|of| self.peers[**of].known.has(piece));
            if let Some(parent) = holders.min_by_key(|of| self.links.sends(**of as u32)) {
                return Some((piece, *parent));
            }
            piece = peer.asked.first_gap(piece + 1);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{dragonfly_like, spegel_like};
    use crate::sim::Scenario;

    #[test]
    fn a_crowd_at_the_origin_waits_for_all_copies() {
        let report = spegel_like(&Scenario::flash_crowd(20));
        assert_eq!((report.done, report.cache_egress().round()), (20, 20.0));
        let ratio = report.last_over_bound();
        assert!((19.0..20.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn three_parents_in_order_is_between() {
        let scenario = Scenario { size: 64 << 20, ..Scenario::flash_crowd(20) };
        let report = dragonfly_like(&scenario);
        assert_eq!(report.done, 20);
        let ratio = report.last_over_bound();
        assert!((1.2..20.0).contains(&ratio), "{ratio}");
        assert_eq!(report, dragonfly_like(&scenario));
    }
}
