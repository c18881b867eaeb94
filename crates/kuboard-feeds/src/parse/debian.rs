//! Debian's security tracker, `data/json`: `{source package: {CVE: {description, releases:
//! {codename: {status, fixed_version, urgency, nodsa, nodsa_reason}}}}}`.

use std::collections::HashMap;
use std::io::Read;

use kuboard_vuln::{Ecosystem, Status};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::merge::{Merge, Statement, Until};
use super::{ParseError, Summary, json, text};
use crate::Sink;

const SOURCE: &str = "debian";

/// The releases and what their versions are called in `os-release`.
const RELEASES: [(&str, &str); 16] = [
    ("sarge", "debian:3"),
    ("etch", "debian:4"),
    ("lenny", "debian:5"),
    ("squeeze", "debian:6"),
    ("wheezy", "debian:7"),
    ("jessie", "debian:8"),
    ("stretch", "debian:9"),
    ("buster", "debian:10"),
    ("bullseye", "debian:11"),
    ("bookworm", "debian:12"),
    ("trixie", "debian:13"),
    ("forky", "debian:14"),
    ("duke", "debian:15"),
    ("sid", "debian:unstable"),
    ("unstable", "debian:unstable"),
    ("experimental", ""),
];

#[derive(Deserialize)]
struct Issue<'a> {
    description: Option<String>,
    /// An empty list where there are none.
    #[serde(borrow)]
    releases: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Release {
    status: Option<String>,
    fixed_version: Option<String>,
    urgency: Option<String>,
    nodsa_reason: Option<String>,
}

/// The whole tracker, one advisory a vulnerability, packages by their source's name.
///
/// # Errors
/// If it is not the tracker's document, empty, cut off, or most of it is bad.
pub fn parse(input: impl Read, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
    let mut summary = Summary::default();
    let mut merge = Merge::new(SOURCE, Ecosystem::Deb, true);
    json::members(input, "Debian security tracker", &mut |package, raw| {
        if !text::is_name(package) {
            summary.skip(package, "the package's name is unusable");
            return Ok(());
        }
        let issues: HashMap<String, &RawValue> = match serde_json::from_str(raw) {
            Ok(issues) => issues,
            Err(error) => {
                summary.skip(package, error);
                return Ok(());
            }
        };
        for (id, raw) in issues {
            match issue(&mut merge, package, &id, raw) {
                Ok(true) => {}
                Ok(false) => summary.ignored += 1,
                Err(Bad::Item(why)) => summary.skip(&id, why),
                Err(Bad::Feed(error)) => return Err(error),
            }
        }
        Ok(())
    })?;
    merge.finish(&mut summary, sink);
    summary.judge_full()
}

enum Bad {
    Item(String),
    Feed(ParseError),
}

/// False where no release is named that has a namespace.
fn issue(merge: &mut Merge, package: &str, id: &str, raw: &RawValue) -> Result<bool, Bad> {
    if !text::is_id(id) {
        return Err(Bad::Item("the id is unusable".to_owned()));
    }
    let item = |error: serde_json::Error| Bad::Item(error.to_string());
    let issue: Issue<'_> = serde_json::from_str(raw.get()).map_err(item)?;
    let releases = issue.releases.map_or("[]", RawValue::get);
    if releases.starts_with('[') {
        return Ok(false);
    }
    let releases: HashMap<String, Release> = serde_json::from_str(releases).map_err(item)?;
    let mut any = false;
    for (codename, release) in &releases {
        let base = codename.split('-').next().unwrap_or_default();
        let Some((_, namespace)) = RELEASES.iter().find(|(name, _)| *name == base) else {
            continue;
        };
        if namespace.is_empty() {
            continue;
        }
        let urgency = release.urgency.as_deref().unwrap_or_default().trim_end_matches('*');
        let (status, until) = status(release, urgency).map_err(|why| Bad::Item(why.to_owned()))?;
        let word = if urgency == "end-of-life" { "" } else { urgency };
        let statement = Statement { id, namespace, package, status, introduced: None, until, word };
        merge.add(&statement).map_err(Bad::Feed)?;
        any = true;
    }
    if any {
        let link = format!("https://security-tracker.debian.org/tracker/{id}");
        let details = issue.description.as_deref().unwrap_or_default();
        merge.describe(id, details, text::reference("advisory", &link));
    }
    Ok(any)
}

fn status<'a>(release: &'a Release, urgency: &str) -> Result<(Status, Until<'a>), &'static str> {
    let fixed = release.fixed_version.as_deref().unwrap_or_default();
    match release.status.as_deref() {
        Some("resolved") => match fixed {
            "0" => Ok((Status::NotAffected, Until::None)),
            version if text::is_name(version) => Ok((Status::Fixed, Until::Fixed(version))),
            _ => Err("it is resolved in no version"),
        },
        Some("undetermined") => Ok((Status::UnderInvestigation, Until::None)),
        Some("open") => {
            let status = match (urgency, release.nodsa_reason.as_deref()) {
                ("end-of-life", _) => Status::EndOfLife,
                (_, Some("ignored")) => Status::WillNotFix,
                (_, Some("postponed")) => Status::FixDeferred,
                _ => Status::Affected,
            };
            Ok((status, Until::None))
        }
        _ => Err("its status is unknown"),
    }
}
