//! The small facts about a database, kept as JSON in a section of their own, and the record of
//! what changed since the generation before.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Sections of JSON longer than this are not read.
pub(super) const MAX_META: usize = 16 << 20;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) generation: u64,
    pub(super) built_ms: i64,
    /// Of the package table's hash.
    pub(super) salt: u64,
    /// By name: the position is the number that advisories hold.
    pub(super) sources: Vec<SourceInfo>,
    pub(super) namespaces: BTreeSet<String>,
    pub(super) end_of_life: BTreeMap<String, String>,
}

/// A source of a database.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Its name.
    pub name: String,
    /// When it was fetched, milliseconds since 1970; 0 if nobody said.
    pub fetched_ms: i64,
    /// What its fetcher needs to ask for news only.
    #[serde(default)]
    pub fingerprint: String,
    /// Advisories in the database.
    pub advisories: u64,
    /// Ranges whose ends the version order refuses: they match nothing. Counted for what was fed
    /// into this generation and those it was carried over from.
    #[serde(default)]
    pub refused_ranges: u64,
    /// Versions that the version order refuses: they match the same text only.
    #[serde(default)]
    pub refused_versions: u64,
    /// Advisories and packages without names, or too long to be kept.
    #[serde(default)]
    pub refused_advisories: u64,
}

/// What differs from the generation before.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// The generation compared with; `None` if there was none. Then the lists are empty and
    /// everything counts as changed.
    pub since: Option<u64>,
    /// (namespace, package) whose rows differ: images with these are matched again.
    pub packages: Vec<(String, String)>,
    /// (source, id) of new advisories.
    pub added: Vec<(String, String)>,
    /// (source, id) of advisories with other content.
    pub changed: Vec<(String, String)>,
    /// (source, id) of advisories that are gone.
    pub removed: Vec<(String, String)>,
}
