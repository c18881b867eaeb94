//! rpm's database of installed packages, in each of its three formats: SQLite (`rpmdb.sqlite`,
//! with the log beside it), ndb (`Packages.db`) and the hash of Berkeley DB (`Packages`). All of
//! them hold one header a package; the format is told by the file's first bytes, not its name.
//!
//! Images without rpm's database (Azure Linux, "distroless") have a listing instead:
//! `var/lib/rpmmanifest/container-manifest-2`.

mod berkeley;
mod header;
mod listing;
mod ndb;
mod number;
mod sqlite;
mod wal;

pub use header::read as read_header;

use std::io;

use self::wal::Log;
use super::draft::Draft;
use crate::{Candidate, Content, File, Found, Indexer, MAX_READ, Want};

/// Folders that the database is in: the usual one, where it moved to, and rpm-ostree's.
const FOLDERS: [&str; 3] = ["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"];
const DATABASES: [&str; 3] = ["rpmdb.sqlite", "Packages.db", "Packages"];
const LOG: &str = "rpmdb.sqlite-wal";
const LISTING: &str = "var/lib/rpmmanifest/container-manifest-2";

/// Bytes of one header. rpm itself stops at four times as many.
const MAX_HEADER: usize = 64 << 20;

/// Finds packages of Red Hat, Fedora, SUSE, Amazon Linux and others with rpm.
#[derive(Clone, Copy, Debug)]
pub struct Rpm;

/// Why a database can't be read on.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("it can't be read: {0}")]
    Read(#[from] io::Error),
    #[error("it is cut short")]
    Short,
    #[error("{0}")]
    Broken(&'static str),
    #[error("{0} is not supported")]
    Unsupported(&'static str),
}

impl Indexer for Rpm {
    fn name(&self) -> &'static str {
        "rpm"
    }

    fn version(&self) -> u32 {
        1
    }

    fn wants(&self, candidate: &Candidate<'_>) -> Want {
        let Some((folder, name)) = candidate.path.rsplit_once('/') else { return Want::No };
        if candidate.path == LISTING {
            Want::Now
        } else if FOLDERS.contains(&folder) && (DATABASES.contains(&name) || name == LOG) {
            Want::AtEnd
        } else {
            Want::No
        }
    }

    fn read(&self, file: &File<'_>, found: &mut Found) {
        let mut draft = Draft::new(self.name(), file.path);
        let bytes = draft.bytes(file.content, MAX_READ);
        listing::read(&bytes, &mut draft);
        draft.store(found);
    }

    fn finish(&self, files: &[File<'_>], found: &mut Found) {
        for file in files {
            if let Some(database) = file.path.strip_suffix("-wal") {
                if file.content.size() > 0 && files.iter().all(|file| file.path != database) {
                    found.problem(self.name(), file.path, "it is a log without its database");
                }
                continue;
            }
            let mut draft = Draft::new(self.name(), file.path);
            let log = files.iter().find(|log| log.path.strip_suffix("-wal") == Some(file.path));
            let log = log.map(|log| log.content).filter(|log| log.size() > 0);
            if let Err(damage) = read_database(file.content, log, &mut draft) {
                draft.partly(damage.to_string());
            }
            draft.store(found);
        }
    }
}

/// Reads a database of any format. One without bytes, and without a log, has no packages.
fn read_database(
    content: &dyn Content,
    log: Option<&dyn Content>,
    draft: &mut Draft,
) -> Result<(), Damage> {
    let mut start = [0; 16];
    let length = content.read_at(0, &mut start)?;
    let start = start.get(..length).unwrap_or_default();
    if start == sqlite::MAGIC || log.is_some() {
        let log = match log.map(Log::open).transpose() {
            Ok(log) => log.flatten(),
            Err(damage) => {
                draft.partly(format!("its log is left out: {damage}"));
                None
            }
        };
        return sqlite::read(content, log, draft);
    }
    if start.is_empty() {
        return Ok(());
    }
    if start.starts_with(ndb::MAGIC) {
        return ndb::read(content, draft);
    }
    berkeley::read(content, draft)
}

/// Reads as many bytes as asked for.
fn read_exactly(content: &dyn Content, offset: u64, into: &mut [u8]) -> Result<(), Damage> {
    if content.read_at(offset, into)? == into.len() { Ok(()) } else { Err(Damage::Short) }
}

#[cfg(test)]
mod tests;
