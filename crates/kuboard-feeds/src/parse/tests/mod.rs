//! Tests of the parsers on recorded samples, and on whole feeds where the variable `KUBOARD_FEEDS`
//! names a folder that holds them.

mod distributions;
mod feeds;
mod hostile;
mod osv;
mod packing;
mod ratings;
mod redhat;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kuboard_vuln::{Advisory, Affected, Bound, Epss, SeverityScore, Status};

use crate::Sink;

/// Keeps what it is given: advisories, and lines for all else.
#[derive(Default)]
pub(super) struct Kept {
    pub advisories: Vec<Advisory>,
    pub lines: Vec<String>,
}

impl Sink for Kept {
    fn advisory(&mut self, advisory: Advisory) {
        self.advisories.push(advisory);
    }

    fn score(&mut self, cve: &str, score: SeverityScore) {
        self.lines.push(format!("{cve} {} {}", score.source, score.value));
    }

    fn epss(&mut self, cve: &str, epss: Epss) {
        self.lines.push(format!("{cve} {} {}", epss.probability, epss.percentile));
    }

    fn known_exploited(&mut self, cve: &str, listed: &str) {
        self.lines.push(format!("{cve} {listed}"));
    }

    fn end_of_life(&mut self, namespace: &str, day: &str) {
        self.lines.push(format!("{namespace} {day}"));
    }

    fn retract(&mut self, source: &str, id: &str) {
        self.lines.push(format!("-{source} {id}"));
    }
}

pub(super) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parse").join(name)
}

pub(super) fn data(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// `debian:12 src:curl fixed [,7.88.1-10)`, one line a package.
pub(super) fn rows(advisory: &Advisory) -> String {
    let mut lines: Vec<String> = advisory.affected.iter().map(row).collect();
    lines.sort();
    lines.join("\n")
}

fn row(one: &Affected) -> String {
    let source = if one.by_source { "src:" } else { "" };
    let status = match one.status {
        Status::Fixed => "fixed",
        Status::Affected => "affected",
        Status::WillNotFix => "will-not-fix",
        Status::FixDeferred => "fix-deferred",
        Status::EndOfLife => "end-of-life",
        Status::NotAffected => "not-affected",
        Status::UnderInvestigation => "under-investigation",
    };
    let mut out = format!("{} {source}{} {status}", one.namespace, one.package);
    for range in &one.ranges {
        let from = range.introduced.as_deref().unwrap_or_default();
        let _ = match &range.until {
            Bound::None => write!(out, " [{from},)"),
            Bound::Fixed(version) => write!(out, " [{from},{version})"),
            Bound::LastAffected(version) => write!(out, " [{from},{version}]"),
        };
    }
    if !one.versions.is_empty() {
        let _ = write!(out, " {{{}}}", one.versions.join(" "));
    }
    for (name, values) in
        [("arch", &one.qualifiers.arches), ("repository", &one.qualifiers.repositories)]
    {
        if !values.is_empty() {
            let _ = write!(out, " {name}={}", values.join(","));
        }
    }
    if !one.qualifiers.module.is_empty() {
        let _ = write!(out, " module={}", one.qualifiers.module);
    }
    for severity in &one.severities {
        let _ = write!(out, " {}={}", severity.source, severity.value);
    }
    out
}

/// Everything but the packages, in one line.
pub(super) fn head(advisory: &Advisory) -> String {
    let mut out = format!("{} {}", advisory.source, advisory.id);
    for (name, values) in [
        ("aliases", &advisory.aliases),
        ("upstream", &advisory.upstream),
        ("related", &advisory.related),
        ("cwes", &advisory.cwes),
    ] {
        if !values.is_empty() {
            let _ = write!(out, " {name}={}", values.join(","));
        }
    }
    for severity in &advisory.severities {
        let _ = write!(out, " {}={}", severity.source, severity.value);
    }
    if let Some(withdrawn) = advisory.withdrawn_ms {
        let _ = write!(out, " withdrawn={withdrawn}");
    }
    out
}
