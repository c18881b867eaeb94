//! The crate's tests that need several of its parts at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

mod api;
