//! Gathers what a feed says of one vulnerability in many places (packages, releases, files) into
//! one advisory. Held as rows of a few words over shared strings: a million rows (all of Debian)
//! take some tens of megabytes.

use std::collections::HashMap;

use kuboard_vuln::{
    Advisory, Affected, Bound, Ecosystem, Qualifiers, Range, Reference, SeverityScore, Status,
};

use super::{MAX_AFFECTED, ParseError, Summary, text};
use crate::Sink;

/// So many rows at most.
const MAX_ROWS: usize = 16_000_000;
/// So many bytes of names, versions and texts at most.
const MAX_HELD: usize = 512 << 20;

/// One thing that is said: this vulnerability, in this package of this namespace.
pub(super) struct Statement<'a> {
    pub id: &'a str,
    pub namespace: &'a str,
    pub package: &'a str,
    pub status: Status,
    pub introduced: Option<&'a str>,
    pub until: Until<'a>,
    /// A word of severity for this package alone; empty if none.
    pub word: &'a str,
}

/// [`Bound`], borrowed.
#[derive(Clone, Copy)]
pub(super) enum Until<'a> {
    None,
    Fixed(&'a str),
    LastAffected(&'a str),
}

/// What is known of a vulnerability apart from its packages.
#[derive(Default)]
pub(super) struct About {
    pub summary: String,
    pub details: String,
    pub aliases: Vec<String>,
    pub severities: Vec<SeverityScore>,
    pub references: Vec<Reference>,
    pub published_ms: Option<i64>,
    pub modified_ms: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    id: u32,
    namespace: u32,
    package: u32,
    introduced: u32,
    until: u32,
    word: u32,
    status: Status,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    None,
    Fixed,
    LastAffected,
}

/// The gathered rows of one source.
pub(super) struct Merge {
    source: String,
    ecosystem: Ecosystem,
    by_source: bool,
    numbers: HashMap<Box<str>, u32>,
    strings: Vec<Box<str>>,
    rows: Vec<Row>,
    about: HashMap<u32, About>,
    held: usize,
}

impl Merge {
    /// `by_source`: the names are those of source packages.
    pub(super) fn new(source: &str, ecosystem: Ecosystem, by_source: bool) -> Self {
        let mut merge = Self {
            source: source.to_owned(),
            ecosystem,
            by_source,
            numbers: HashMap::new(),
            strings: Vec::new(),
            rows: Vec::new(),
            about: HashMap::new(),
            held: 0,
        };
        merge.number("");
        merge
    }

    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.strings.len()).unwrap_or(u32::MAX);
        self.strings.push(text.into());
        self.held = self.held.saturating_add(text.len());
        self.numbers.insert(text.into(), number);
        number
    }

    fn string(&self, number: u32) -> &str {
        self.strings.get(number as usize).map_or("", |text| text)
    }

    pub(super) fn add(&mut self, statement: &Statement<'_>) -> Result<(), ParseError> {
        if self.rows.len() >= MAX_ROWS {
            return Err(ParseError::TooMuch { what: "rows", limit: MAX_ROWS as u64 });
        }
        if self.held > MAX_HELD {
            return Err(ParseError::TooMuch { what: "bytes of text", limit: MAX_HELD as u64 });
        }
        let (end, until) = match statement.until {
            Until::None => (End::None, ""),
            Until::Fixed(version) => (End::Fixed, version),
            Until::LastAffected(version) => (End::LastAffected, version),
        };
        let row = Row {
            id: self.number(statement.id),
            namespace: self.number(statement.namespace),
            package: self.number(statement.package),
            introduced: self.number(statement.introduced.unwrap_or_default()),
            until: self.number(until),
            word: self.number(statement.word),
            status: statement.status,
            end,
        };
        self.rows.push(row);
        Ok(())
    }

    /// Its text and a link, unless there are some.
    pub(super) fn describe(&mut self, id: &str, details: &str, link: Option<Reference>) {
        let about = self.about(id);
        let mut added = 0;
        if about.details.is_empty() && !details.is_empty() {
            about.details = text::cut(details, text::MAX_DETAILS);
            added += about.details.len();
        }
        if about.references.is_empty() {
            added += link.as_ref().map_or(0, |link| link.url.len());
            about.references.extend(link);
        }
        self.held = self.held.saturating_add(added);
    }

    /// What else is known of it; made when first asked for. What is added is to be small.
    pub(super) fn about(&mut self, id: &str) -> &mut About {
        let number = self.number(id);
        self.about.entry(number).or_default()
    }

    /// Gives one advisory an id to the sink.
    pub(super) fn finish(mut self, summary: &mut Summary, sink: &mut dyn Sink) {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_unstable();
        rows.dedup();
        let rows = outweighed(&rows);
        for of_one in rows.chunk_by(|a, b| a.id == b.id) {
            let Some(first) = of_one.first() else { continue };
            let id = self.string(first.id).to_owned();
            if of_one.len() > MAX_AFFECTED {
                summary.skip(&id, "it names too many packages");
                continue;
            }
            let about = self.about.remove(&first.id).unwrap_or_default();
            let advisory = Advisory {
                source: self.source.clone(),
                id,
                aliases: about.aliases,
                summary: text::line(&about.summary),
                details: text::cut(&about.details, text::MAX_DETAILS),
                published_ms: about.published_ms,
                modified_ms: about.modified_ms,
                severities: about.severities,
                references: about.references,
                affected: of_one.iter().map(|row| self.affected(row)).collect(),
                ..Advisory::default()
            };
            summary.read(advisory.modified_ms);
            sink.advisory(advisory);
        }
    }

    fn affected(&self, row: &Row) -> Affected {
        let until = self.string(row.until).to_owned();
        let until = match row.end {
            End::None => Bound::None,
            End::Fixed => Bound::Fixed(until),
            End::LastAffected => Bound::LastAffected(until),
        };
        let introduced = self.string(row.introduced);
        let introduced = (!introduced.is_empty()).then(|| introduced.to_owned());
        let all = until == Bound::None && introduced.is_none();
        Affected {
            namespace: self.string(row.namespace).to_owned(),
            ecosystem: self.ecosystem,
            package: self.string(row.package).to_owned(),
            by_source: self.by_source,
            status: row.status,
            ranges: if all { Vec::new() } else { vec![Range { introduced, until }] },
            versions: Vec::new(),
            qualifiers: Qualifiers::default(),
            severities: text::word(&self.source, self.string(row.word)).into_iter().collect(),
            symbols: Vec::new(),
        }
    }
}

/// Where a package is said to be affected and not to be, at different versions, the former holds.
/// The rows are sorted.
fn outweighed(rows: &[Row]) -> Vec<Row> {
    let same = |a: &Row, b: &Row| (a.id, a.namespace, a.package) == (b.id, b.namespace, b.package);
    let mut out = Vec::with_capacity(rows.len());
    for of_one in rows.chunk_by(same) {
        let affected = of_one.iter().any(|row| row.status != Status::NotAffected);
        out.extend(of_one.iter().filter(|row| !affected || row.status != Status::NotAffected));
    }
    out
}
