//! The compiled advisory database: one immutable file, mapped, with version keys that are compared
//! as bytes. A new one is written aside and swapped; the last good one is kept.
//!
//! * `builder.rs` takes advisories in, `compile.rs` writes the file, `changes.rs` compares it with
//!   the generation before.
//! * `format.rs` is the file's layout; `intern.rs`, `rows.rs`, `blocks.rs`, `cves.rs` and `meta.rs`
//!   are its parts.
//! * `open.rs` reads it, `generations.rs` keeps the folder, `bundle.rs` carries it elsewhere.

mod blocks;
mod builder;
mod bundle;
mod changes;
mod compile;
mod cves;
mod error;
mod format;
mod generations;
mod intern;
mod meta;
mod open;
mod rows;
#[cfg(test)]
mod tests;

pub use builder::{Builder, END_OF_LIFE, EPSS, KNOWN_EXPLOITED};
pub use bundle::{Unpacked, export, unpack};
pub use error::DatabaseError;
pub use generations::Generations;
pub use meta::{Changes, SourceInfo};
pub use open::Database;

use kuboard_vuln::{Advisory, Epss, MemoryAdvisories, SeverityScore};

use crate::Sink;

impl Sink for MemoryAdvisories {
    fn advisory(&mut self, advisory: Advisory) {
        self.add(advisory);
    }

    fn score(&mut self, cve: &str, score: SeverityScore) {
        self.add_score(cve, score);
    }

    fn epss(&mut self, cve: &str, epss: Epss) {
        self.add_epss(cve, epss);
    }

    fn known_exploited(&mut self, cve: &str, listed: &str) {
        self.add_known_exploited(cve, listed);
    }

    fn end_of_life(&mut self, namespace: &str, day: &str) {
        self.add_end_of_life(namespace, day);
    }

    fn retract(&mut self, source: &str, id: &str) {
        self.remove(source, id);
    }
}
