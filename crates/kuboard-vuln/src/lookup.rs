//! The door to a set of advisories, as the matcher needs it: rows by (namespace, package), the
//! heads of advisories, and what raters say of a CVE. Two tenants: the compiled database, and
//! [`MemoryAdvisories`] for tests and small jobs. Both make their rows by [`build_rows`].
//!
//! What a scheme refuses is kept as far as it can mean something: a refused version of
//! `Affected::versions` becomes a row that compares text ([`Until::Text`]); a range with a refused
//! end has no place in the order, so it makes no row and is counted, for the caller to report.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::version::{self, Scheme};
use crate::{
    Advisory, Affected, Bound, Conditions, DatabaseStamp, Ecosystem, Epss, SeverityScore, Status,
};

/// Where a row's versions end. Bytes are sort keys of the namespace's scheme.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until<'a> {
    /// No version is known that is free of it.
    Open,
    /// Versions below the key.
    Before(&'a [u8]),
    /// Versions up to the key.
    Through(&'a [u8]),
    /// The very version of the key.
    Exactly(&'a [u8]),
    /// The version with this text, which the scheme does not order.
    Text(&'a str),
}

impl<'a> Until<'a> {
    /// The key of an upper bound.
    #[must_use]
    pub fn bound(&self) -> Option<&'a [u8]> {
        match *self {
            Until::Before(key) | Until::Through(key) => Some(key),
            Until::Open | Until::Exactly(_) | Until::Text(_) => None,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Until::Open => 0,
            Until::Exactly(_) => 1,
            Until::Text(_) => 2,
            Until::Through(_) => 3,
            Until::Before(_) => 4,
        }
    }

    fn bytes(&self) -> &'a [u8] {
        match *self {
            Until::Open => b"",
            Until::Before(key) | Until::Through(key) | Until::Exactly(key) => key,
            Until::Text(text) => text.as_bytes(),
        }
    }
}

/// One range of one advisory for one package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row<'a> {
    /// Number of the advisory in its set.
    pub advisory: u32,
    /// What the source decided for this range: `Fixed` exactly where `fixed_in` is not empty,
    /// except for the words that say more (`WillNotFix`, `NotAffected`, …).
    pub status: Status,
    /// The package is a source package.
    pub by_source: bool,
    /// The fix is a build of a module, by its release: `.module_el8`, `.module+el8`.
    pub of_module: bool,
    /// Key of the first affected version; empty: from the first.
    pub from: &'a [u8],
    /// The end.
    pub until: Until<'a>,
    /// The version that fixes it, as the source wrote it; empty if none.
    pub fixed_in: &'a str,
    /// Further conditions and the severities for this package, if any.
    pub conditions: Option<Conditions<'a>>,
}

impl Row<'_> {
    /// The order of the rows of one package, which [`Advisories::rows`] promises: rows without an
    /// upper bound, then the others from the greatest bound down. A visitor whose version lies
    /// above a bound may stop there.
    #[must_use]
    pub fn order(&self, other: &Row<'_>) -> Ordering {
        let bound = match (self.until.bound(), other.until.bound()) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(one), Some(two)) => two.cmp(one),
        };
        bound
            .then(self.until.rank().cmp(&other.until.rank()))
            .then_with(|| self.advisory.cmp(&other.advisory))
            .then_with(|| self.by_source.cmp(&other.by_source))
            .then_with(|| self.from.cmp(other.from))
            .then_with(|| self.until.bytes().cmp(other.until.bytes()))
            .then_with(|| self.status.cmp(&other.status))
            .then_with(|| self.fixed_in.cmp(other.fixed_in))
            .then_with(|| {
                let bytes = |all: Conditions<'_>| all.bytes().to_vec();
                self.conditions.map(bytes).cmp(&other.conditions.map(bytes))
            })
    }
}

/// An advisory that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The set has fewer advisories.
    #[error("there is no advisory number {0}")]
    NoSuchAdvisory(u32),
    /// The file is damaged.
    #[error("the advisory database is damaged: {0}; hint: run `kuboard db update`")]
    Damaged(String),
}

/// A set of advisories. Reading never waits for the network and never panics on damaged data.
pub trait Advisories: Send + Sync {
    /// Visits the rows of a package in [`Row::order`] until the visitor breaks. The name is one
    /// that [`name_key`] gave.
    fn rows(
        &self,
        namespace: &str,
        package: &str,
        visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    );
    /// An advisory without its `affected`, which rows already told. Cheap for hits.
    ///
    /// # Errors
    /// When there is none of that number, or the data is damaged.
    fn head(&self, index: u32) -> Result<Arc<Advisory>, LookupError>;
    /// A whole advisory.
    ///
    /// # Errors
    /// As [`Advisories::head`].
    fn advisory(&self, index: u32) -> Result<Advisory, LookupError>;
    /// What raters say of a CVE.
    fn scores(&self, cve: &str) -> Vec<SeverityScore>;
    /// EPSS of a CVE.
    fn epss(&self, cve: &str) -> Option<Epss>;
    /// The day (`YYYY-MM-DD`) a CVE was listed as exploited.
    fn known_exploited(&self, cve: &str) -> Option<String>;
    /// The last day (`YYYY-MM-DD`) of a namespace's security support.
    fn end_of_life(&self, namespace: &str) -> Option<String>;
    /// Whether there are advisories of a namespace at all.
    fn covers(&self, namespace: &str) -> bool;
    /// What this set is.
    fn stamp(&self) -> DatabaseStamp;
}

/// The name under which rows are kept: Python's by PEP 503, NuGet's and Composer's without case,
/// all others as they are. Allocates only where it must change something.
#[must_use]
pub fn name_key(ecosystem: Ecosystem, name: &str) -> Cow<'_, str> {
    match ecosystem {
        Ecosystem::Pypi if !is_pep503(name) => Cow::Owned(pep503(name)),
        Ecosystem::Nuget | Ecosystem::Composer if name.bytes().any(|b| b.is_ascii_uppercase()) => {
            Cow::Owned(name.to_ascii_lowercase())
        }
        _ => Cow::Borrowed(name),
    }
}

fn is_pep503(name: &str) -> bool {
    let mut dash = false;
    name.bytes().all(|byte| {
        let twice = dash && byte == b'-';
        dash = byte == b'-';
        !twice && !byte.is_ascii_uppercase() && byte != b'_' && byte != b'.'
    })
}

fn pep503(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for char in name.chars() {
        match char {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            other => out.push(other.to_ascii_lowercase()),
        }
    }
    out
}

/// How many bounds or versions a scheme refused while rows were made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refused {
    /// Ranges that made no row.
    pub ranges: u64,
    /// Versions that are kept as text.
    pub versions: u64,
}

/// Gives the rows of one [`Affected`] of advisory number `advisory`. Versions named one by one
/// that a range covers already make no row of their own.
pub fn build_rows(affected: &Affected, advisory: u32, emit: &mut dyn FnMut(Row<'_>)) -> Refused {
    let scheme = affected.ecosystem.scheme();
    let conditions = Conditions::encode(&affected.qualifiers, &affected.severities);
    let row = Row {
        advisory,
        status: affected.status,
        by_source: affected.by_source,
        of_module: false,
        from: b"",
        until: Until::Open,
        fixed_in: "",
        conditions: (!conditions.is_empty()).then(|| Conditions::from_bytes(&conditions)),
    };
    let mut refused = Refused::default();
    if affected.ranges.is_empty() && affected.versions.is_empty() {
        emit(with_status(row));
        return refused;
    }
    let mut ranges = Vec::with_capacity(affected.ranges.len().min(64));
    for range in &affected.ranges {
        let Some(keys) = RangeKeys::read(scheme, range) else {
            refused.ranges += 1;
            continue;
        };
        let fixed_in = match &range.until {
            Bound::Fixed(version) => version.as_str(),
            _ => "",
        };
        emit(with_status(Row { from: &keys.from, until: keys.until(), fixed_in, ..row }));
        ranges.push(keys);
    }
    let mut key = Vec::new();
    for version in &affected.versions {
        key.clear();
        if version::sort_key(scheme, version, &mut key).is_err() {
            refused.versions += 1;
            emit(with_status(Row { until: Until::Text(version), ..row }));
        } else if !ranges.iter().any(|range| range.holds(&key)) {
            emit(with_status(Row { until: Until::Exactly(&key), ..row }));
        }
    }
    refused
}

/// A fix and the status `Fixed` go together.
fn with_status(mut row: Row<'_>) -> Row<'_> {
    row.of_module = is_of_module(row.fixed_in);
    row.status = match row.status {
        Status::Fixed if row.fixed_in.is_empty() => Status::Affected,
        Status::Affected if !row.fixed_in.is_empty() => Status::Fixed,
        other => other,
    };
    row
}

/// Whether a version is one of a module's builds: `1.2-3.module_el8.4`, `1.2-3.module+el8`.
#[must_use]
pub fn is_of_module(version: &str) -> bool {
    version.contains(".module_") || version.contains(".module+")
}

struct RangeKeys {
    from: Vec<u8>,
    until: Vec<u8>,
    kind: u8,
}

impl RangeKeys {
    fn read(scheme: Scheme, range: &crate::Range) -> Option<Self> {
        let mut keys = Self { from: Vec::new(), until: Vec::new(), kind: 0 };
        // `0` is OSV's word for "from the first", also below any pre-release of 0.
        if let Some(first) = range.introduced.as_deref().filter(|v| !matches!(*v, "" | "0")) {
            version::sort_key(scheme, first, &mut keys.from).ok()?;
        }
        let (kind, end) = match &range.until {
            Bound::None => return Some(keys),
            Bound::Fixed(end) => (1, end),
            Bound::LastAffected(end) => (2, end),
        };
        keys.kind = kind;
        version::sort_key(scheme, end, &mut keys.until).ok()?;
        Some(keys)
    }

    fn until(&self) -> Until<'_> {
        match self.kind {
            0 => Until::Open,
            1 => Until::Before(&self.until),
            _ => Until::Through(&self.until),
        }
    }

    fn holds(&self, key: &[u8]) -> bool {
        key >= self.from.as_slice() && self.until().holds(key)
    }
}

impl Until<'_> {
    /// Whether a version with this key lies at or below the end. Text rows hold no key.
    #[must_use]
    pub fn holds(&self, key: &[u8]) -> bool {
        match *self {
            Until::Open => true,
            Until::Before(end) => key < end,
            Until::Through(end) => key <= end,
            Until::Exactly(one) => key == one,
            Until::Text(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Until, build_rows, name_key};
    use crate::{Affected, Bound, Ecosystem, Qualifiers, Range, Status};

    fn affected(ranges: Vec<Range>, versions: &[&str]) -> Affected {
        Affected {
            namespace: "npm".to_owned(),
            ecosystem: Ecosystem::Npm,
            package: "a".to_owned(),
            by_source: false,
            status: Status::Fixed,
            ranges,
            versions: versions.iter().map(|v| (*v).to_owned()).collect(),
            qualifiers: Qualifiers::default(),
            severities: Vec::new(),
            symbols: Vec::new(),
        }
    }

    fn check(affected: &Affected, want: &[(&str, Status, &str)], refused: (u64, u64)) {
        let mut got = Vec::new();
        let count = build_rows(affected, 7, &mut |row| {
            let kind = match row.until {
                Until::Open => "open",
                Until::Before(_) => "before",
                Until::Through(_) => "through",
                Until::Exactly(_) => "exactly",
                Until::Text(text) => text,
            };
            got.push((kind.to_owned(), row.status, row.fixed_in.to_owned()));
        });
        let got: Vec<_> = got.iter().map(|(a, b, c)| (a.as_str(), *b, c.as_str())).collect();
        assert_eq!(got, want);
        assert_eq!((count.ranges, count.versions), refused);
    }

    fn range(from: Option<&str>, until: Bound) -> Range {
        Range { introduced: from.map(str::to_owned), until }
    }

    #[test]
    fn ranges_and_versions_become_rows() {
        check(&affected(vec![], &[]), &[("open", Status::Affected, "")], (0, 0));
        let fixed = range(None, Bound::Fixed("1.2.0".to_owned()));
        check(
            &affected(vec![fixed.clone()], &["1.1.0", "1.2.0", "not a version"]),
            &[
                ("before", Status::Fixed, "1.2.0"),
                ("exactly", Status::Affected, ""),
                ("not a version", Status::Affected, ""),
            ],
            (0, 1),
        );
        let last = range(Some("2.0.0"), Bound::LastAffected("2.1.0".to_owned()));
        let bad = range(None, Bound::Fixed("???".to_owned()));
        check(
            &affected(vec![bad, last, range(Some("3.0.0"), Bound::None)], &[]),
            &[("through", Status::Affected, ""), ("open", Status::Affected, "")],
            (1, 0),
        );
    }

    #[test]
    fn names_are_found_as_their_registries_find_them() {
        for (ecosystem, name, want) in [
            (Ecosystem::Pypi, "Zope.Interface", "zope-interface"),
            (Ecosystem::Pypi, "a-_.b", "a-b"),
            (Ecosystem::Pypi, "a--b", "a-b"),
            (Ecosystem::Pypi, "flask", "flask"),
            (Ecosystem::Npm, "JSONStream", "JSONStream"),
            (Ecosystem::Nuget, "Newtonsoft.Json", "newtonsoft.json"),
            (Ecosystem::Composer, "Symfony/Http", "symfony/http"),
            (Ecosystem::Golang, "github.com/Azure/x", "github.com/Azure/x"),
        ] {
            assert_eq!(name_key(ecosystem, name), want, "{name}");
        }
    }
}
