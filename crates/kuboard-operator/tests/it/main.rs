//! The operator against a real API server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

mod certificates;
mod ground;
mod lease;
mod outage;
mod webhook;
