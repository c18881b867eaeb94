//! The listener and its certificates over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

mod acme;
mod bodies;
mod drain;
mod limits;
mod pebble;
mod requests;
mod server;
mod tls;
