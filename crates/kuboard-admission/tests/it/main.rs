//! The webhook from the outside: questions of an API server in, answers out, with doors that say
//! what a test wants them to say.

#![expect(clippy::unwrap_used, reason = "what can't be unwrapped fails the test")]

mod cold;
mod facts;
mod ground;
mod oracle;
mod properties;
#[path = "../random/mod.rs"]
mod random;
mod reviews;
#[path = "../random/oracle.rs"]
mod second_opinion;
mod service;
mod table;
