//! Indexing of one layer while its bytes stream by.
//!
//! A [`LayerIndex`] is pushed the bytes of a layer's blob. Every regular file is offered to all
//! indexers; what none of them wants is passed over, and what some want is held in memory, or if
//! it is large in one unnamed temporary file, until they have read it. The outcome depends on
//! nothing but the layer's bytes and the versions of the indexers, so it is shared by all images,
//! with one exception: see [`is_lasting`].
//!
//! Whatever is wrong with a layer becomes a [`Problem`] of its inventory, also an indexer that panics: then the file that it was reading is not read, and nothing else
//! is disturbed.
//!
//! **Hard links.** The content of a hard link stands where its target stands. If an indexer that
//! wants the link has read the target, the link gets the same records; if the target was kept to
//! the layer's end for any indexer, it is read again under the link's name. Links to files that
//! nobody wanted under their own names, as package managers with a content-addressed store make
//! them, can't be read in one pass: such a layer has a problem that counts them. Only a link that
//! would have been looked at for its first bytes, a program, is passed over in silence.

mod collect;
mod config;
mod folder;
mod hard_links;
mod keep;
mod notes;
#[cfg(test)]
mod tests;

use std::{fmt, io::Read, path::PathBuf, sync::Arc};

use kuboard_oci::{
    Digest,
    layer::{End, Limits, Unpacker},
};
use kuboard_vuln::{LayerInventory, Problem};

use crate::Indexer;
use collect::Collector;
pub use config::{ConfigError, ImageConfig, MAX_CONFIG_BYTES, layer_references};
pub use folder::index_folder;

/// Counts up when the same bytes and the same indexers may give another inventory.
const PIPELINE_VERSION: u32 = 1;

/// The name that problems of the archive itself carry.
pub const ARCHIVE: &str = "archive";
/// The name of problems that are this machine's and not the layer's: see [`is_lasting`].
pub const MACHINE: &str = "machine";

/// How much a layer may cost.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits of the archive.
    pub limits: Limits,
    /// Bytes of a file that is held in memory; larger ones go to the temporary file.
    pub memory_per_file: u64,
    /// Bytes of files that are held in memory until the layer's end.
    pub memory: u64,
    /// Folder for the unnamed temporary file.
    pub spill: PathBuf,
    /// Bytes of the temporary file. A file that doesn't fit is not read.
    pub max_spill: u64,
    /// Bytes of paths that are noted: of removed paths, opaque folders, hard links, and files kept
    /// to the end.
    pub max_names: u64,
    /// Files that are noted, each with what is in it.
    pub max_records: usize,
    /// Packages that are noted.
    pub max_packages: usize,
    /// Problems that are noted; what is beyond is counted.
    pub max_problems: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            memory_per_file: 4 << 20,
            memory: 16 << 20,
            spill: std::env::temp_dir(),
            max_spill: 2 << 30,
            max_names: 16 << 20,
            max_records: 250_000,
            max_packages: 500_000,
            max_problems: 1000,
        }
    }
}

/// A set of indexers, shared by threads.
#[derive(Clone)]
pub struct Indexers(Arc<[Box<dyn Indexer>]>);

impl Indexers {
    /// These indexers, in this order.
    #[must_use]
    pub fn new(indexers: Vec<Box<dyn Indexer>>) -> Self {
        Self(indexers.into())
    }

    /// All there are.
    #[must_use]
    pub fn all() -> Self {
        Self::new(crate::indexers::all())
    }

    /// A short text that changes when the same layer may give another inventory; the order of the
    /// indexers doesn't count.
    #[must_use]
    pub fn version(&self) -> String {
        let mut parts: Vec<String> = self
            .iter()
            .map(|indexer| format!("{} {}\n", indexer.name(), indexer.version()))
            .collect();
        parts.sort();
        let all = format!("pipeline {PIPELINE_VERSION}\n{}", parts.concat());
        let mut version = Digest::sha256(all.as_bytes()).hex();
        version.truncate(16);
        version
    }

    /// The indexers.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Indexer> {
        self.0.iter().map(AsRef::as_ref)
    }

    fn get(&self, index: u16) -> Option<&dyn Indexer> {
        self.0.get(usize::from(index)).map(AsRef::as_ref)
    }

    /// The indexers with their places, of which there are fewer than 65,536.
    fn places(&self) -> impl Iterator<Item = (u16, &dyn Indexer)> {
        (0..=u16::MAX).zip(self.iter())
    }
}

impl fmt::Debug for Indexers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(Indexer::name)).finish()
    }
}

/// The index of one layer in the making.
pub struct LayerIndex {
    unpacker: Unpacker<Collector>,
}

impl LayerIndex {
    /// An index that has seen nothing.
    #[must_use]
    pub fn new(indexers: &Indexers, settings: &Settings) -> Self {
        let collector = Collector::new(indexers.clone(), settings.clone());
        Self { unpacker: Unpacker::new(collector, &settings.limits) }
    }

    /// Takes the next bytes of the layer's blob, as it is stored. Indexers run in here: call it
    /// off the async threads.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unpacker.push(bytes);
    }

    /// Whether the rest of the blob makes no difference any more, because it can't be read.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.unpacker.has_failed()
    }

    /// What the layer holds. A blob that was not pushed to its end gives an inventory with a
    /// problem, by [`ARCHIVE`], that must not be kept as the layer's.
    #[must_use]
    pub fn finish(self) -> LayerInventory {
        let (collector, summary) = self.unpacker.finish();
        collector.finish(&summary)
    }
}

/// Indexes a layer's blob. Indexers run in here: call it off the async threads. If the reader
/// fails, the inventory is empty with a problem by [`MACHINE`].
pub fn index_reader(indexers: &Indexers, settings: &Settings, reader: impl Read) -> LayerInventory {
    let collector = Collector::new(indexers.clone(), settings.clone());
    match kuboard_oci::layer::unpack(reader, collector, &settings.limits) {
        Ok((collector, summary)) => collector.finish(&summary),
        Err(error) => LayerInventory {
            problems: vec![Problem {
                path: String::new(),
                by: MACHINE.to_owned(),
                why: format!("its bytes can't be read: {error}"),
            }],
            ..LayerInventory::default()
        },
    }
}

/// Whether an inventory depends on nothing but the layer. One that doesn't, because the blob or the
/// temporary file could not be read or written, may be shown but must not be stored.
#[must_use]
pub fn is_lasting(inventory: &LayerInventory) -> bool {
    inventory.problems.iter().all(|problem| problem.by != MACHINE)
}

/// What is wrong with the archive as a whole.
fn archive_problem(end: &End) -> Option<String> {
    match end {
        End::Complete => None,
        End::Truncated(why) | End::Broken(why) | End::Limit(why) => Some(why.clone()),
    }
}
