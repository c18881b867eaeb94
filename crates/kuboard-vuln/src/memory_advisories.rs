//! Advisories held in memory: for tests, and for sets too small for a file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::lookup::{Advisories, LookupError, Refused, Row, Until, build_rows, name_key};
use crate::{Advisory, Conditions, DatabaseStamp, Epss, SeverityScore, Status};

/// A set of advisories in memory, the reference of what the compiled database must answer.
#[derive(Clone, Debug, Default)]
pub struct MemoryAdvisories {
    advisories: Vec<Option<Arc<Advisory>>>,
    rows: BTreeMap<(String, String), Vec<OwnedRow>>,
    scores: BTreeMap<String, Vec<SeverityScore>>,
    epss: BTreeMap<String, Epss>,
    known_exploited: BTreeMap<String, String>,
    end_of_life: BTreeMap<String, String>,
    refused: Refused,
    /// What [`Advisories::stamp`] answers.
    pub stamp: DatabaseStamp,
}

#[derive(Clone, Debug)]
struct OwnedRow {
    advisory: u32,
    status: Status,
    by_source: bool,
    of_module: bool,
    from: Vec<u8>,
    until: OwnedUntil,
    fixed_in: String,
    conditions: Vec<u8>,
}

#[derive(Clone, Debug)]
enum OwnedUntil {
    Open,
    Before(Vec<u8>),
    Through(Vec<u8>),
    Exactly(Vec<u8>),
    Text(String),
}

impl OwnedRow {
    fn of(row: Row<'_>) -> Self {
        Self {
            advisory: row.advisory,
            status: row.status,
            by_source: row.by_source,
            of_module: row.of_module,
            from: row.from.to_vec(),
            until: match row.until {
                Until::Open => OwnedUntil::Open,
                Until::Before(key) => OwnedUntil::Before(key.to_vec()),
                Until::Through(key) => OwnedUntil::Through(key.to_vec()),
                Until::Exactly(key) => OwnedUntil::Exactly(key.to_vec()),
                Until::Text(text) => OwnedUntil::Text(text.to_owned()),
            },
            fixed_in: row.fixed_in.to_owned(),
            conditions: row.conditions.map(|all| all.bytes().to_vec()).unwrap_or_default(),
        }
    }

    fn row(&self) -> Row<'_> {
        Row {
            advisory: self.advisory,
            status: self.status,
            by_source: self.by_source,
            of_module: self.of_module,
            from: &self.from,
            until: match &self.until {
                OwnedUntil::Open => Until::Open,
                OwnedUntil::Before(key) => Until::Before(key),
                OwnedUntil::Through(key) => Until::Through(key),
                OwnedUntil::Exactly(key) => Until::Exactly(key),
                OwnedUntil::Text(text) => Until::Text(text),
            },
            fixed_in: &self.fixed_in,
            conditions: (!self.conditions.is_empty())
                .then(|| Conditions::from_bytes(&self.conditions)),
        }
    }
}

impl MemoryAdvisories {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an advisory in place of the one with its (source, id), if there is one.
    pub fn add(&mut self, advisory: Advisory) {
        self.remove(&advisory.source, &advisory.id);
        let Ok(index) = u32::try_from(self.advisories.len()) else { return };
        if advisory.withdrawn_ms.is_none() {
            for affected in &advisory.affected {
                let name = name_key(affected.ecosystem, &affected.package).into_owned();
                let mut new = Vec::new();
                let refused = build_rows(affected, index, &mut |row| new.push(OwnedRow::of(row)));
                if !new.is_empty() {
                    let rows = self.rows.entry((affected.namespace.clone(), name)).or_default();
                    rows.append(&mut new);
                    rows.sort_by(|one, two| one.row().order(&two.row()));
                    rows.dedup_by(|one, two| one.row() == two.row());
                }
                self.refused.ranges += refused.ranges;
                self.refused.versions += refused.versions;
            }
        }
        self.advisories.push(Some(Arc::new(advisory)));
    }

    /// Removes an advisory.
    pub fn remove(&mut self, source: &str, id: &str) {
        let of = |one: &Option<Arc<Advisory>>| {
            one.as_ref().is_some_and(|one| one.source == source && one.id == id)
        };
        let Some(index) = self.advisories.iter().position(of) else { return };
        if let Some(slot) = self.advisories.get_mut(index) {
            *slot = None;
        }
        for rows in self.rows.values_mut() {
            rows.retain(|row| row.advisory as usize != index);
        }
        self.rows.retain(|_, rows| !rows.is_empty());
    }

    /// Adds a judgement of a CVE, in place of the same rater's in the same words.
    pub fn add_score(&mut self, cve: &str, score: SeverityScore) {
        let scores = self.scores.entry(cve.to_owned()).or_default();
        scores.retain(|old| (&old.source, old.rating) != (&score.source, score.rating));
        scores.push(score);
        scores.sort();
    }

    /// Sets EPSS of a CVE.
    pub fn add_epss(&mut self, cve: &str, epss: Epss) {
        self.epss.insert(cve.to_owned(), epss);
    }

    /// Sets the day on which a CVE was listed as exploited.
    pub fn add_known_exploited(&mut self, cve: &str, listed: &str) {
        self.known_exploited.insert(cve.to_owned(), listed.to_owned());
    }

    /// Sets the last day of a namespace's support.
    pub fn add_end_of_life(&mut self, namespace: &str, day: &str) {
        self.end_of_life.insert(namespace.to_owned(), day.to_owned());
    }

    /// What schemes refused so far.
    #[must_use]
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// All (namespace, package) that have rows.
    pub fn packages(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rows.keys().map(|(namespace, package)| (namespace.as_str(), package.as_str()))
    }

    /// All namespaces that have rows.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<&str> {
        self.rows.keys().map(|(namespace, _)| namespace.as_str()).collect()
    }

    fn at(&self, index: u32) -> Result<&Arc<Advisory>, LookupError> {
        let found = self.advisories.get(index as usize).and_then(Option::as_ref);
        found.ok_or(LookupError::NoSuchAdvisory(index))
    }
}

impl Advisories for MemoryAdvisories {
    fn rows(
        &self,
        namespace: &str,
        package: &str,
        visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) {
        // A map of pairs of texts cannot be asked with borrowed ones; this one is not the fast one.
        let rows = self.rows.get(&(namespace.to_owned(), package.to_owned()));
        for row in rows.into_iter().flatten() {
            if visit(row.row()).is_break() {
                return;
            }
        }
    }

    fn head(&self, index: u32) -> Result<Arc<Advisory>, LookupError> {
        let mut head = Advisory::clone(self.at(index)?);
        head.affected = Vec::new();
        Ok(Arc::new(head))
    }

    fn advisory(&self, index: u32) -> Result<Advisory, LookupError> {
        Ok(Advisory::clone(self.at(index)?))
    }

    fn scores(&self, cve: &str) -> Vec<SeverityScore> {
        self.scores.get(cve).cloned().unwrap_or_default()
    }

    fn epss(&self, cve: &str) -> Option<Epss> {
        self.epss.get(cve).copied()
    }

    fn known_exploited(&self, cve: &str) -> Option<String> {
        self.known_exploited.get(cve).cloned()
    }

    fn end_of_life(&self, namespace: &str) -> Option<String> {
        self.end_of_life.get(namespace).cloned()
    }

    fn covers(&self, namespace: &str) -> bool {
        let from = (namespace.to_owned(), String::new());
        self.rows.range(from..).next().is_some_and(|((found, _), _)| found == namespace)
    }

    fn stamp(&self) -> DatabaseStamp {
        self.stamp.clone()
    }
}
