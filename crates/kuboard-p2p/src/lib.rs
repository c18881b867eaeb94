//! Blocks between nodes: which block is fetched from whom, decided by a state machine without
//! sockets and without a clock, and the same machine in a simulator.

pub mod bits;
pub mod blocks;
mod bucket;
pub mod keys;
mod random;
pub mod sim;
pub mod swarm;
pub mod tracker;

pub use random::Random;
