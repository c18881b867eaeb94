//! What the end-to-end tests share: the real clients with the switches they need on loopback, the
//! conformance suite, and the book of figures.
//!
//! The tests in `tests/` start the binary as a user would, and nothing of it is linked in. They
//! need the programs that `cargo xtask tools` installs; a missing one is a failure, never a skip.

use std::env;
use std::fs::File;
use std::io::Write;

use anyhow::Result;
use serde_json::Value;

pub mod command;
pub mod conformance;
pub mod guarded;
pub mod packed;
pub mod programs;
pub mod service;

/// Notes a figure of this run: printed, and appended to `$KUBOARD_FIGURES` if that is set, from
/// where `cargo xtask test` shows it again at its end.
#[expect(clippy::print_stdout, reason = "a figure is what the reader of a run wants to see")]
pub fn figure(figure: Value) -> Result<()> {
    println!("figure {figure}");
    if let Some(book) = env::var_os("KUBOARD_FIGURES") {
        let mut book = File::options().create(true).append(true).open(book)?;
        // One write, since test programs may note figures at the same time.
        book.write_all(format!("{figure}\n").as_bytes())?;
    }
    Ok(())
}
