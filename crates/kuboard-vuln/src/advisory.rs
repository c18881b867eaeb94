//! Advisories: OSV's model, with an explicit status for what the vendor decided.

use serde::{Deserialize, Serialize};

use crate::{Ecosystem, SeverityScore};

/// What the source of an advisory says about a package.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Affected up to a version that fixes it.
    Fixed,
    /// Affected, no fix yet.
    #[default]
    Affected,
    /// Affected, and the vendor will not fix it.
    WillNotFix,
    /// Affected, a fix is put off.
    FixDeferred,
    /// Affected, and the release gets no fixes any more.
    EndOfLife,
    /// Not affected: silences what other sources say of this package in this namespace.
    NotAffected,
    /// The vendor does not know yet. Reported, with this status.
    UnderInvestigation,
}

/// The end of a range.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No version is known that is free of it.
    #[default]
    None,
    /// The first version that is not affected.
    Fixed(String),
    /// The last version that is affected.
    LastAffected(String),
}

/// A range of affected versions in the order of the namespace's scheme.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    /// The first affected version; `None` from the very first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introduced: Option<String>,
    /// Where it ends.
    #[serde(default)]
    pub until: Bound,
}

/// What else must hold of a package. Empty fields hold for all.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Qualifiers {
    /// Architectures, any of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arches: Vec<String>,
    /// `name:stream` of a modular rpm.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub module: String,
    /// CPEs of repositories (Red Hat); any of them, a pattern by prefix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
}

/// One package that an advisory speaks of.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Affected {
    /// Where the package is at home; see `namespace.rs`: `debian:12`, `alpine:3.20`, `npm`, `go`.
    pub namespace: String,
    /// Order of the versions, and the kind of package.
    pub ecosystem: Ecosystem,
    /// Name of the package: of the source package where `by_source` is set.
    pub package: String,
    /// The name is one of a source package (Debian, Ubuntu, Alpine, Wolfi).
    #[serde(default)]
    pub by_source: bool,
    /// What the source decided.
    pub status: Status,
    /// Affected if inside any of them or named in `versions`; both empty means all versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
    /// Affected versions, one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// Further conditions.
    #[serde(default)]
    pub qualifiers: Qualifiers,
    /// The severity for this package, if it differs from the advisory's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub severities: Vec<SeverityScore>,
    /// Affected symbols or import paths, where stated (Go).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub symbols: Vec<String>,
}

/// A link.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    /// OSV's type, lower case: `advisory`, `fix`, `web`, …; empty if not stated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Address; `http` or `https` only.
    pub url: String,
}

/// An advisory.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Advisory {
    /// Who says it: `debian`, `alpine`, `redhat`, `osv:npm`, `osv:go`, …
    pub source: String,
    /// Its id in that source.
    pub id: String,
    /// Other ids of the very same vulnerability.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Vulnerabilities that this advisory (of a vendor, for a package) treats: OSV's `upstream`.
    /// Each is reported by its own id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<String>,
    /// Ids of related ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<String>,
    /// One line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Text, at most 4 KiB; longer ones are cut at a word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// Milliseconds since 1970.
    pub published_ms: Option<i64>,
    /// Milliseconds since 1970.
    pub modified_ms: Option<i64>,
    /// When it was withdrawn: such an advisory matches nothing.
    pub withdrawn_ms: Option<i64>,
    /// All judgements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub severities: Vec<SeverityScore>,
    /// `CWE-79`, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cwes: Vec<String>,
    /// Links, at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// The packages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub affected: Vec<Affected>,
}
