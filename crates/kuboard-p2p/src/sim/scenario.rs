//! What is simulated.

use crate::swarm::Limits;

/// A cluster, a blob, and what goes wrong.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Agents over all regions.
    pub nodes: usize,
    /// Regions, each with one cache; the first one's cache has the blob.
    pub regions: usize,
    /// Zones of each region.
    pub zones: usize,
    /// Bytes of the image.
    pub size: u64,
    /// Layers of equal size that it consists of.
    pub layers: u32,
    /// Bytes per second of a node's uplink and of its downlink.
    pub node_rate: u64,
    /// Bytes per second of a cache's.
    pub cache_rate: u64,
    /// Bytes per second at which the first cache gets the blob; `None`: it has it.
    pub upstream_rate: Option<u64>,
    /// Of a hundred nodes, how many have a slow uplink.
    pub slow_percent: u8,
    /// How many times slower.
    pub slow_factor: u64,
    /// The first moments of the nodes are spread over so many milliseconds.
    pub arrivals_ms: u64,
    /// Added to each announcement of blocks, beyond the batch and the way.
    pub have_delay_ms: u64,
    /// One way in microseconds: within a zone, between zones, between regions.
    pub ways_us: [u64; 3],
    /// Whether every other node leaves when it is done.
    pub half_leave: bool,
    /// Of a hundred nodes, how many have the blob before.
    pub warm_percent: u8,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Of the agents.
    pub agent: Limits,
    /// Of the caches.
    pub cache: Limits,
    /// Simulated time after which nothing more is waited for.
    pub end_ms: u64,
    /// Of all random choices.
    pub seed: u64,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caches vanish when the first has sent so many hundredths of the blob.
    CacheLost {
        /// Hundredths of the blob's size.
        sent_percent: u64,
    },
    /// The trackers forget everything.
    TrackerRestart {
        /// When.
        at_ms: u64,
    },
    /// The trackers answer nobody any more.
    TrackerLost {
        /// When.
        at_ms: u64,
    },
    /// Agents are killed; they come back empty if `back_ms` is not zero.
    Kill {
        /// Of a hundred.
        percent: u8,
        /// When.
        at_ms: u64,
        /// How much later they are back.
        back_ms: u64,
    },
    /// Agents stand still with their connections open, then go on.
    Stop {
        /// Of a hundred, but at least one.
        percent: u8,
        /// When.
        at_ms: u64,
        /// For how long.
        for_ms: u64,
    },
    /// Agents behave badly from the start.
    Rogue {
        /// Of a hundred, but at least one.
        percent: u8,
        /// How.
        conduct: Conduct,
    },
    /// The first zone of each region can't reach the others; it keeps the cache.
    Partition {
        /// When.
        at_ms: u64,
        /// For how long.
        for_ms: u64,
    },
}

/// How an agent behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// As it should.
    Honest,
    /// Every block that it sends is wrong.
    Poisons,
    /// It says that it has everything, and gives nothing.
    Lies,
    /// It asks its peers for blocks a thousand times a second.
    Floods,
}

impl Scenario {
    /// A calm flash crowd: 1 GiB in one layer, one zone, links of 1 Gbit/s, all nodes within 0.2 s.
    #[must_use]
    pub fn flash_crowd(nodes: usize) -> Scenario {
        Scenario {
            nodes,
            regions: 1,
            zones: 1,
            size: 1 << 30,
            layers: 1,
            node_rate: 125_000_000,
            cache_rate: 125_000_000,
            upstream_rate: None,
            slow_percent: 0,
            slow_factor: 10,
            arrivals_ms: 200,
            have_delay_ms: 0,
            ways_us: [200, 500, 15_000],
            half_leave: false,
            warm_percent: 0,
            faults: Vec::new(),
            agent: Limits::agent(),
            cache: Limits::cache(),
            end_ms: 600_000,
            seed: 1,
        }
    }

    /// The lower bound of Kumar and Ross for the slowest region, in seconds: no scheme can have all
    /// nodes done sooner.
    #[must_use]
    pub fn bound_s(&self) -> f64 {
        let (size, rate) = (self.size as f64, self.node_rate as f64);
        let source = self.cache_rate.min(self.upstream_rate.unwrap_or(u64::MAX)) as f64;
        let nodes = self.nodes.div_ceil(self.regions.max(1)) as f64;
        let slow = f64::from(self.slow_percent) / 100.0;
        let uplinks = nodes * rate * (1.0 - slow + slow / self.slow_factor.max(1) as f64);
        let all = nodes * size / (self.cache_rate as f64 + uplinks);
        (size / source).max(size / rate).max(all)
    }
}
