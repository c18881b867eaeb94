//! What a layer and an image contain. A layer's inventory depends on nothing but the layer's bytes
//! and the indexer's version, so all images share it.

use kuboard_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::{Distribution, Package};

/// Something that could not be read, or only in part. It makes a report "partly read".
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Path in the layer; empty if it is about the layer as a whole.
    pub path: String,
    /// Name of the indexer, or `archive`.
    pub by: String,
    /// What is wrong, a lower-case fact.
    pub why: String,
}

/// One file of a layer that an indexer looked at, and what it found there. A file of an upper
/// layer replaces the same path below, even if nothing was found in it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path from the root, without a leading slash, normalised.
    pub path: String,
    /// Name of the indexer.
    pub by: String,
    /// Packages that it states, in the file's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// The distribution, if this file names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// Paths of files that the packages stated here own, as far as another indexer may look at
    /// such a path: language packages that a distribution's package brought.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owns: Vec<String>,
    /// Repositories (content sets, CPEs) that hold for the whole image from this layer on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
}

/// What one layer says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerInventory {
    /// sha256 of the uncompressed archive, if it was read to its end.
    pub diff_id: Option<Digest>,
    /// Files that indexers read, sorted by path, then indexer.
    pub files: Vec<FileRecord>,
    /// Paths that the layer removes (`.wh.NAME`), sorted.
    pub removed: Vec<String>,
    /// Folders whose lower content is hidden (`.wh..wh..opq`), sorted.
    pub opaque: Vec<String>,
    /// Hashes ([`LayerInventory::path_hash`]) of links and other entries that may stand where a
    /// lower layer has an indexed file or a folder above one; sorted.
    pub covered: Vec<u64>,
    /// Symbolic links in the root itself, `lib` to `usr/lib`: name, and target normalised from the
    /// root; sorted. Paths of this layer and those above may lead through them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<(String, String)>,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub size: u64,
}

impl LayerInventory {
    /// FNV-1a over the path's bytes: stable over processes and machines.
    #[must_use]
    pub fn path_hash(path: &str) -> u64 {
        path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

/// A layer of an image, as its manifest and configuration name it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayerReference {
    /// Digest of the blob as it is stored.
    pub digest: Digest,
    /// Digest of the uncompressed archive, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// The build step, from the configuration's history.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Bytes of the blob.
    #[serde(default)]
    pub size: u64,
}

/// A package and where it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlacedPackage {
    /// The package.
    pub package: Package,
    /// The file that states it.
    pub path: String,
    /// Name of the indexer.
    pub by: String,
    /// Index into [`ImageInventory::layers`] of the layer that first had this package (same name,
    /// version and architecture at this path and in all layers above).
    pub layer: u32,
    /// A language package whose file belongs to a package of the distribution: the vendor's
    /// advisories speak for it.
    #[serde(default)]
    pub owned: bool,
}

/// What an image contains: its layers, merged.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageInventory {
    /// From the lowest up.
    pub layers: Vec<LayerReference>,
    /// The distribution of the topmost layer that names one.
    pub distribution: Option<Distribution>,
    /// Sorted by ecosystem, name, version, path.
    pub packages: Vec<PlacedPackage>,
    /// Problems of all layers.
    pub problems: Vec<Problem>,
}
