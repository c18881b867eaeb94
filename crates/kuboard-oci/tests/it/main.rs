//! The grammar of every value, as tables and as properties.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the functions that tests share fail by panicking, as tests do"
)]

mod challenge;
mod digest;
mod image_reference;
mod manifest;
mod media_type;
mod range;
mod reference;
mod referrers;
