//! Azure Linux's and CBL-Mariner's OVAL: one definition a vulnerability and package. The tests that
//! hold the versions come last, so the definitions are kept (compactly) until then. The names are
//! those of source packages (`ceph`, of which no package of that name is installed).

use std::io::Read;

use kuboard_vuln::{Ecosystem, Status};

use super::merge::{Merge, Statement, Until};
use super::oval::{self, Definition, Node, Parts};
use super::{ParseError, Summary, text};
use crate::Sink;

const MAX_DEFINITIONS: usize = 500_000;
/// Bytes that are kept of all definitions.
const MAX_KEPT: usize = 512 << 20;

/// Reads the files of one source and makes one advisory a CVE of them.
pub struct Reader {
    merge: Merge,
    summary: Summary,
}

/// What is kept of a definition.
struct Kept {
    id: String,
    details: String,
    severity: String,
    link: String,
    published_ms: Option<i64>,
    tests: Vec<String>,
}

impl Kept {
    fn size(&self) -> usize {
        let tests: usize = self.tests.iter().map(|test| test.len() + size_of::<String>()).sum();
        tests + self.details.len() + self.severity.len() + self.link.len()
    }
}

impl Reader {
    /// A reader that has read nothing, for a source: `mariner`, `azurelinux`.
    #[must_use]
    pub fn new(source: &str) -> Self {
        Self { merge: Merge::new(source, Ecosystem::Rpm, true), summary: Summary::default() }
    }

    /// Reads the document of a release; `namespace` is the release's: `mariner:2.0`,
    /// `azurelinux:3.0`.
    ///
    /// # Errors
    /// If it is no OVAL document or cut off.
    pub fn read(&mut self, input: impl Read, namespace: &str) -> Result<(), ParseError> {
        let mut kept = Vec::new();
        let mut held = 0_usize;
        let summary = &mut self.summary;
        let parts = oval::read(input, "Azure Linux OVAL", true, &mut |definition| {
            if kept.len() >= MAX_DEFINITIONS || held > MAX_KEPT {
                let limit = MAX_DEFINITIONS as u64;
                return Err(ParseError::TooMuch { what: "definitions", limit });
            }
            match keep(&definition) {
                Ok(one) => {
                    held = held.saturating_add(one.size());
                    kept.push(one);
                }
                Err(why) => summary.skip(&definition.id, why),
            }
            Ok(())
        })?;
        for one in kept {
            if let Err(why) = self.statement(&one, &parts, namespace)? {
                self.summary.skip(&one.id, why);
            }
        }
        Ok(())
    }

    /// Gives what was read to the sink.
    ///
    /// # Errors
    /// If it was nothing, or most of it was bad.
    pub fn finish(self, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
        let mut summary = self.summary;
        self.merge.finish(&mut summary, sink);
        summary.judge_full()
    }

    /// All tests of a definition are about one package: below a version, and maybe above another.
    fn statement(
        &mut self,
        kept: &Kept,
        parts: &Parts,
        namespace: &str,
    ) -> Result<Result<(), &'static str>, ParseError> {
        let mut package = None;
        let mut introduced = None;
        let mut until = Until::None;
        for test in &kept.tests {
            let Some((name, state)) = parts.of(test) else {
                return Ok(Err("a test is missing"));
            };
            let version = state.evr.strip_prefix("0:").unwrap_or(&state.evr);
            if !text::is_name(name) || !text::is_name(version) {
                return Ok(Err("a test names no package or version"));
            }
            if package.is_some_and(|package| package != name) {
                return Ok(Err("it is about several packages"));
            }
            package = Some(name);
            match state.operation.as_str() {
                "less than" => until = Until::Fixed(version),
                "less than or equal" => until = Until::LastAffected(version),
                // The last version before it came: the next one is unknown.
                "greater than" | "greater than or equal" if version != "0" => {
                    introduced = Some(version);
                }
                "greater than" | "greater than or equal" => {}
                _ => return Ok(Err("a test compares in an unknown way")),
            }
        }
        let Some(package) = package else { return Ok(Err("it tests nothing")) };
        let status =
            if matches!(until, Until::Fixed(_)) { Status::Fixed } else { Status::Affected };
        self.merge.add(&Statement {
            id: &kept.id,
            namespace,
            package,
            status,
            introduced,
            until,
            word: &kept.severity,
        })?;
        self.merge.describe(&kept.id, &kept.details, text::reference("web", &kept.link));
        let about = self.merge.about(&kept.id);
        about.published_ms = match (about.published_ms, kept.published_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        about.modified_ms = about.modified_ms.max(kept.published_ms);
        Ok(Ok(()))
    }
}

fn keep(definition: &Definition) -> Result<Kept, &'static str> {
    if definition.too_large {
        return Err("it is too large");
    }
    let cve = definition.references.iter().find(|(_, id, _)| text::is_cve(id));
    let title = definition.title.split_whitespace().next().unwrap_or_default();
    let (id, link) = match cve {
        Some((_, id, link)) => (id.as_str(), link.as_str()),
        None if text::is_id(title) => (title, ""),
        None => return Err("it names no vulnerability"),
    };
    let mut tests = Vec::new();
    // Criteria other than "all of these" do not occur, and would be misread.
    match &definition.criteria {
        Node::All(nodes) | Node::Any(nodes) if nodes.len() == 1 => gather(nodes, &mut tests)?,
        Node::All(nodes) => gather(nodes, &mut tests)?,
        _ => return Err("its criteria are of an unknown form"),
    }
    Ok(Kept {
        id: id.to_owned(),
        details: definition.description.trim().to_owned(),
        severity: definition.severity.trim().to_owned(),
        link: link.to_owned(),
        published_ms: text::time_ms(&definition.issued),
        tests,
    })
}

fn gather(nodes: &[Node], tests: &mut Vec<String>) -> Result<(), &'static str> {
    for node in nodes {
        match node {
            Node::Criterion(criterion) if !criterion.negate => tests.push(criterion.test.clone()),
            Node::All(inner) => gather(inner, tests)?,
            Node::Any(inner) if inner.len() == 1 => gather(inner, tests)?,
            _ => return Err("its criteria are of an unknown form"),
        }
    }
    Ok(())
}
