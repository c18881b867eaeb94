//! Oracle Linux's OVAL (`com.oracle.elsa-all.xml.bz2`): one definition an erratum. What its
//! criteria test is also said by their comments, so definitions are taken one by one and the tests
//! at the end of the document (a hundred megabytes) are not read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use kuboard_vuln::{
    Advisory, Affected, Bound, Ecosystem, Qualifiers, Range, SeverityScore, Status,
};

use super::oval::{self, Definition, Node};
use super::{MAX_AFFECTED, ParseError, Summary, text};
use crate::Sink;

/// The advisories' source.
pub const SOURCE: &str = "oracle";

/// The whole document, packed or not.
///
/// # Errors
/// If it is no OVAL document, empty, cut off, or most of it is bad.
pub fn parse(input: impl Read, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
    let mut summary = Summary::default();
    oval::read(input, "Oracle OVAL", false, &mut |definition| {
        match advisory(&definition) {
            Ok(Some(advisory)) => {
                summary.read(advisory.modified_ms);
                sink.advisory(advisory);
            }
            Ok(None) => summary.ignored += 1,
            Err(why) => summary.skip(&definition.id, why),
        }
        Ok(())
    })?;
    summary.judge_full()
}

fn advisory(definition: &Definition) -> Result<Option<Advisory>, &'static str> {
    if definition.too_large {
        return Err("it names too many packages");
    }
    // `ELSA-2007-0057:  Moderate: bind security update  (MODERATE)`
    let title = text::line(&definition.title);
    let (id, summary) = title.split_once(':').ok_or("its title names no erratum")?;
    if !text::is_id(id) {
        return Err("its title names no erratum");
    }
    let summary = summary.rsplit_once('(').map_or(summary, |(summary, _)| summary).trim();
    let mut rows = Rows::default();
    rows.read(&definition.criteria, &Context::of(&definition.platforms));
    let affected = rows.finish();
    if affected.is_empty() {
        return Ok(None);
    }
    if affected.len() > MAX_AFFECTED {
        return Err("it names too many packages");
    }
    let links = definition
        .references
        .iter()
        .map(|(source, _, url)| (if source == "elsa" { "advisory" } else { "web" }, url.as_str()));
    let published_ms = text::time_ms(&definition.issued);
    Ok(Some(Advisory {
        source: SOURCE.to_owned(),
        id: id.to_owned(),
        upstream: cves(definition),
        summary: summary.to_owned(),
        details: text::cut(&definition.description, text::MAX_DETAILS),
        published_ms,
        modified_ms: text::time_ms(&definition.updated).or(published_ms),
        severities: severities(definition),
        references: text::references(links),
        affected,
        ..Advisory::default()
    }))
}

fn cves(definition: &Definition) -> Vec<String> {
    let named = definition.references.iter().map(|(_, id, _)| id);
    let mut out: Vec<String> = named
        .chain(definition.cves.iter().map(|(id, _)| id))
        .filter(|id| text::is_cve(id))
        .take(text::MAX_IDS)
        .cloned()
        .collect();
    out.sort();
    out.dedup();
    out
}

/// The erratum's word, and the vectors of its CVEs: `8.1/CVSS:3.0/AV:N/…`.
fn severities(definition: &Definition) -> Vec<SeverityScore> {
    let mut out: Vec<SeverityScore> =
        text::word(SOURCE, &definition.severity).into_iter().collect();
    // Of several CVEs none speaks for the erratum.
    if let [(_, cvss)] = definition.cves.as_slice()
        && let Some((_, vector)) = cvss.split_once('/')
    {
        out.extend(text::vector(SOURCE, vector));
    }
    out
}

/// What holds of all that stands deeper in the criteria.
#[derive(Clone, Default)]
struct Context {
    release: Option<String>,
    arch: Option<String>,
    module: String,
    /// Of a variant that is installed instead of the plain package.
    variant: bool,
}

impl Context {
    fn of(platforms: &[String]) -> Self {
        let release = match platforms {
            [one] => one.trim().strip_prefix("Oracle Linux ").map(str::to_owned),
            _ => None,
        };
        Self { release, ..Self::default() }
    }

    /// What a condition adds; true if it is one of these.
    fn learn(&mut self, comment: &str) -> bool {
        if let Some(release) = comment
            .strip_prefix("Oracle Linux ")
            .and_then(|rest| rest.strip_suffix(" is installed"))
        {
            self.release = Some(release.to_owned());
        } else if let Some(arch) = comment.strip_prefix("Oracle Linux arch is ") {
            self.arch = Some(arch.to_owned());
        } else if let Some(module) =
            comment.strip_prefix("Module ").and_then(|rest| rest.strip_suffix(" is enabled"))
        {
            module.clone_into(&mut self.module);
        } else if comment.ends_with(" is ksplice-based") {
            self.variant = true;
        } else {
            return comment.contains(" is signed with ");
        }
        true
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    namespace: String,
    package: String,
    module: String,
    fixed: String,
}

#[derive(Default)]
struct Rows {
    rows: BTreeMap<Key, BTreeSet<String>>,
}

impl Rows {
    fn read(&mut self, node: &Node, context: &Context) {
        match node {
            Node::All(nodes) => {
                let mut inner = context.clone();
                for node in nodes {
                    if let Node::Criterion(criterion) = node {
                        inner.learn(&criterion.comment);
                    }
                }
                nodes.iter().for_each(|node| self.read(node, &inner));
            }
            Node::Any(nodes) => nodes.iter().for_each(|node| self.read(node, context)),
            Node::Criterion(criterion) if !criterion.negate => {
                self.criterion(&criterion.comment, context);
            }
            Node::Criterion(_) => {}
        }
    }

    fn criterion(&mut self, comment: &str, context: &Context) -> Option<()> {
        let (package, fixed) = comment.trim().split_once(" is earlier than ")?;
        let release = context.release.as_deref()?;
        let figures = release.split('.').next()?.parse::<u16>().ok()?;
        // The FIPS and Ksplice builds have versions that only compare among themselves.
        let variant = context.variant || fixed.contains(".ksplice") || fixed.contains("_fips");
        let fixed = fixed.strip_prefix("0:").unwrap_or(fixed);
        if variant || !text::is_name(package) || !text::is_name(fixed) {
            return None;
        }
        let key = Key {
            namespace: format!("oracle:{figures}"),
            package: package.to_owned(),
            module: context.module.clone(),
            fixed: fixed.to_owned(),
        };
        self.rows.entry(key).or_default().insert(context.arch.clone().unwrap_or_default());
        Some(())
    }

    fn finish(self) -> Vec<Affected> {
        let row = |(key, arches): (Key, BTreeSet<String>)| {
            let all = arches.contains("")
                || arches.contains("noarch")
                || (arches.contains("x86_64") && arches.contains("aarch64"));
            Affected {
                namespace: key.namespace,
                ecosystem: Ecosystem::Rpm,
                package: key.package,
                by_source: false,
                status: Status::Fixed,
                ranges: vec![Range { introduced: None, until: Bound::Fixed(key.fixed) }],
                versions: Vec::new(),
                qualifiers: Qualifiers {
                    arches: if all { Vec::new() } else { arches.into_iter().collect() },
                    module: key.module,
                    repositories: Vec::new(),
                },
                severities: Vec::new(),
                symbols: Vec::new(),
            }
        };
        self.rows.into_iter().map(row).collect()
    }
}
