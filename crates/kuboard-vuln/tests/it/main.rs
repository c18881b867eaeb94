//! Everything the crate promises, through its public face.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the functions that tests share fail by panicking, as tests do"
)]

mod versions;
