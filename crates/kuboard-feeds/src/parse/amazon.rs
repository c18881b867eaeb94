//! Amazon Linux's `updateinfo.xml`: one `update` an advisory, with the fixed builds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use kuboard_vuln::{Advisory, Affected, Bound, Ecosystem, Qualifiers, Range, Status};

use super::cursor::{Cursor, Element, Step};
use super::{MAX_AFFECTED, ParseError, Summary, text};
use crate::Sink;

/// The advisories' source.
pub const SOURCE: &str = "amazon";

const FORMAT: &str = "updateinfo.xml";
/// More architectures than there are.
const MAX_ARCHES: usize = 64;

/// One file of a release, packed or not; `namespace` is the release's: `amazon:2`, `amazon:2023`.
///
/// # Errors
/// If it is no updateinfo, empty, cut off, or most of it is bad.
pub fn parse(
    input: impl Read,
    namespace: &str,
    sink: &mut dyn Sink,
) -> Result<Summary, ParseError> {
    let mut summary = Summary::default();
    let mut cursor = Cursor::new(input, FORMAT)?;
    match cursor.step()? {
        Step::Open(root) if root.name == "updates" => {}
        _ => return Err(ParseError::format(FORMAT, "it does not begin with `updates`")),
    }
    loop {
        match cursor.step()? {
            Step::Open(element) if element.name == "update" => {
                let update = Update::read(&mut cursor)?;
                match update.advisory(namespace) {
                    Ok(Some(advisory)) => {
                        summary.read(advisory.modified_ms);
                        sink.advisory(advisory);
                    }
                    Ok(None) => summary.ignored += 1,
                    Err((id, why)) => summary.skip(&id, why),
                }
            }
            Step::End => return summary.judge_full(),
            _ => {}
        }
    }
}

#[derive(Default)]
struct Update {
    id: String,
    title: String,
    severity: String,
    description: String,
    issued: String,
    updated: String,
    links: Vec<(String, String)>,
    cves: Vec<String>,
    /// (name, version) to architectures.
    builds: BTreeMap<(String, String), BTreeSet<String>>,
    too_many: bool,
}

impl Update {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let mut update = Self::default();
        let outer = cursor.depth();
        loop {
            match cursor.step()? {
                Step::Open(element) => update.open(&element),
                Step::Close(name, text) => {
                    if cursor.depth() < outer {
                        return Ok(update);
                    }
                    if cursor.depth() == outer {
                        match name.as_str() {
                            "id" => update.id = text.trim().to_owned(),
                            "title" => update.title = text,
                            "severity" => update.severity = text,
                            "description" => update.description = text,
                            _ => {}
                        }
                    }
                }
                Step::End => return Ok(update),
            }
        }
    }

    fn open(&mut self, element: &Element) {
        match element.name.as_str() {
            "issued" => self.issued = element.attribute("date").to_owned(),
            "updated" => self.updated = element.attribute("date").to_owned(),
            "reference" => {
                let (kind, id) = (element.attribute("type"), element.attribute("id"));
                if text::is_cve(id) && self.cves.len() < text::MAX_IDS {
                    self.cves.push(id.to_owned());
                }
                if self.links.len() < text::MAX_REFERENCES {
                    let kind = if kind == "self" { "advisory" } else { "web" };
                    self.links.push((kind.to_owned(), element.attribute("href").to_owned()));
                }
            }
            "package" => {
                let part = |name| element.attribute(name);
                let (arch, epoch) = (part("arch"), part("epoch"));
                let sound = [part("name"), part("version"), part("release")];
                if !sound.into_iter().all(text::is_name) || arch == "src" {
                    return;
                }
                if self.builds.len() >= MAX_AFFECTED {
                    self.too_many = true;
                    return;
                }
                let version = match epoch {
                    "" | "0" => format!("{}-{}", part("version"), part("release")),
                    epoch => format!("{epoch}:{}-{}", part("version"), part("release")),
                };
                let key = (part("name").to_owned(), version);
                let arches = self.builds.entry(key).or_default();
                if arches.len() < MAX_ARCHES && arch.len() <= 64 {
                    arches.insert(arch.to_owned());
                } else {
                    self.too_many = true;
                }
            }
            _ => {}
        }
    }

    fn advisory(self, namespace: &str) -> Result<Option<Advisory>, (String, &'static str)> {
        if !text::is_id(&self.id) {
            return Err((self.id, "it has no usable id"));
        }
        if self.too_many {
            return Err((self.id, "it names too many packages"));
        }
        if self.builds.is_empty() {
            return Ok(None);
        }
        let links = self.links.iter().map(|(kind, url)| (kind.as_str(), url.as_str()));
        let updated = text::time_ms(&self.updated);
        let published_ms = text::time_ms(&self.issued);
        Ok(Some(Advisory {
            source: SOURCE.to_owned(),
            id: self.id,
            upstream: self.cves,
            summary: text::line(&self.title),
            details: text::cut(&self.description, text::MAX_DETAILS),
            published_ms,
            modified_ms: updated.or(published_ms),
            severities: text::word(SOURCE, &self.severity).into_iter().collect(),
            references: text::references(links),
            affected: rows(self.builds, namespace),
            ..Advisory::default()
        }))
    }
}

/// A repository lists what it holds of one architecture or of all: where all architectures named
/// have the same version, the fix is not one of an architecture.
fn rows(builds: BTreeMap<(String, String), BTreeSet<String>>, namespace: &str) -> Vec<Affected> {
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, _) in builds.keys() {
        *versions.entry(name).or_default() += 1;
    }
    let one = |name: &str| versions.get(name) == Some(&1);
    let row = |((name, version), arches): (&(String, String), &BTreeSet<String>)| Affected {
        namespace: namespace.to_owned(),
        ecosystem: Ecosystem::Rpm,
        package: name.clone(),
        by_source: false,
        status: Status::Fixed,
        ranges: vec![Range { introduced: None, until: Bound::Fixed(version.clone()) }],
        versions: Vec::new(),
        qualifiers: Qualifiers {
            arches: if one(name) || arches.contains("noarch") || arches.contains("") {
                Vec::new()
            } else {
                arches.iter().cloned().collect()
            },
            ..Qualifiers::default()
        },
        severities: Vec::new(),
        symbols: Vec::new(),
    };
    builds.iter().map(row).collect()
}
