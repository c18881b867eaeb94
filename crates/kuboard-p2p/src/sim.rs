//! A deterministic simulator: the same state machines, with links, delays and faults instead of
//! sockets. One seed, one course of events.
//!
//! Links are fluid: a node's uplink is shared among its uploads, its downlink among its downloads,
//! and what one receiver can't take goes to the other uploads. Loss, congestion control and
//! processor time are not simulated.

mod links;
mod models;
mod report;
mod scenario;
mod world;

pub use models::{dragonfly_like, spegel_like};
pub use report::Report;
pub use scenario::{Conduct, Fault, Scenario};

/// Plays a scenario to its end.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    world::World::new(scenario).run()
}

#[cfg(test)]
mod tests;
