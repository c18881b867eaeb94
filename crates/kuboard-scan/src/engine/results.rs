//! What becomes of a report: it is stored, the lives of its findings go on, and whoever listens is
//! told. The report, the findings and the events that tell of them are stored in one transaction,
//! so that none is lost by a kill between two of them.

use std::collections::{BTreeMap, BTreeSet};

use kuboard_catalog::{FindingRow, ImageName, NewEvent, Published, ReportRow};
use kuboard_oci::Digest;
use kuboard_vuln::{
    Finding, Outcome, Report, Severity,
    life_cycle::{self, Event, Input, State},
};
use serde::{Deserialize, Serialize};

use super::{Engine, ScanError};
use crate::{
    inventories::encode,
    source::{SourceError, SourceErrorKind},
};

/// What lists show of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// The name that was scanned.
    pub name: String,
    /// Registry host; empty for hosted.
    pub registry: String,
    /// Platform.
    pub platform: String,
    /// `complete`, `partial`, `unsupported`.
    pub outcome: String,
    /// Why, where it is not complete.
    pub why: String,
    /// Findings by severity, in capitals.
    pub findings: BTreeMap<String, usize>,
    /// Those that a known version fixes.
    pub fixable: usize,
    /// Packages.
    pub packages: usize,
    /// The distribution.
    pub distribution: String,
}

impl Summary {
    /// The summary of a report.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let mut findings = BTreeMap::new();
        for finding in &report.findings {
            *findings.entry(severity_name(finding.severity)).or_default() += 1;
        }
        let (outcome, why) = match &report.outcome {
            Outcome::Complete => ("complete", String::new()),
            Outcome::Partial { problems } => {
                ("partial", problems.first().map(|first| first.why.clone()).unwrap_or_default())
            }
            Outcome::Unsupported { reason } => ("unsupported", reason.clone()),
        };
        Self {
            name: report.image.name.clone(),
            registry: report.image.registry.clone(),
            platform: report.image.platform.clone(),
            outcome: outcome.to_owned(),
            why,
            findings,
            fixable: report.findings.iter().filter(|f| !f.fixed_in.is_empty()).count(),
            packages: report.packages.len(),
            distribution: report
                .distribution
                .as_ref()
                .map(|distribution| distribution.pretty_name.clone())
                .unwrap_or_default(),
        }
    }
}

/// `CRITICAL`, as reports and metrics write it.
#[must_use]
pub(crate) fn severity_name(severity: Severity) -> String {
    format!("{severity:?}").to_uppercase()
}

/// The name under which the findings of an image live: its tag, which new images take over.
#[must_use]
pub fn subject_of(registry: &str, repository: &str, tag: &str, image: &Digest) -> String {
    let slash = if registry.is_empty() { "" } else { "/" };
    match tag {
        "" => format!("{registry}{slash}{repository}@{image}"),
        tag => format!("{registry}{slash}{repository}:{tag}"),
    }
}

pub(super) fn key_of(finding: &Finding) -> String {
    format!("{} {} {}", finding.id, finding.package.name, finding.path)
}

/// What is stored beside the state of a finding.
#[derive(Serialize, Deserialize)]
struct Body {
    #[serde(flatten)]
    state: State,
    severity: Severity,
    version: String,
    fixed_in: Vec<String>,
    image: Option<Digest>,
}

impl Body {
    /// Whether what is told of the finding is the same; when it was last seen is not.
    fn says_the_same(&self, other: &Self) -> bool {
        (self.severity, &self.version, &self.fixed_in)
            == (other.severity, &other.version, &other.fixed_in)
    }
}

/// One finding's change, for the event's body.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Change<'a> {
    change: Event,
    id: &'a str,
    package: &'a str,
    version: &'a str,
    severity: Severity,
    fixed_in: &'a [String],
}

/// Rows to store and the changes worth telling, from what was known and what a scan has. `complete`
/// is false where the scan was partly read: then nothing is taken for fixed.
fn changes(
    known: &[FindingRow],
    report: &Report,
    subject: &str,
    now_ms: i64,
) -> (Vec<FindingRow>, Vec<serde_json::Value>) {
    let complete = report.outcome == Outcome::Complete;
    let mut states: BTreeMap<&str, Body> = BTreeMap::new();
    for row in known {
        match serde_json::from_str(&row.body) {
            Ok(body) => drop(states.insert(&row.key, body)),
            Err(error) => tracing::warn!(key = %row.key, %error, "stored finding unreadable"),
        }
    }
    let mut rows = Vec::new();
    let mut told = Vec::new();
    let mut seen = BTreeSet::new();
    for finding in &report.findings {
        let key = key_of(finding);
        // The same package twice in one place, in two versions, has one life.
        if !seen.insert(key.clone()) {
            continue;
        }
        let stored = states.get(key.as_str());
        let before = stored.map(|body| &body.state);
        let (Some(state), event) = life_cycle::next(before, &Input::Seen, now_ms) else { continue };
        let body = Body {
            state,
            severity: finding.severity,
            version: finding.package.version.clone(),
            fixed_in: finding.fixed_in.clone(),
            image: report.image.digest,
        };
        if let Some(event) = event {
            told.push((finding.severity, change(event, finding)));
        }
        // A row a scan and finding would be a write a scan: it is kept when something changed.
        let is_new = stored.is_none_or(|stored| !stored.says_the_same(&body));
        if event.is_some() || is_new {
            rows.push(row(subject, &key, &body));
        }
    }
    if complete {
        for (key, body) in states {
            if seen.contains(key) {
                continue;
            }
            let (Some(state), Some(event)) =
                life_cycle::next(Some(&body.state), &Input::NotSeen, now_ms)
            else {
                continue;
            };
            let mut words = key.splitn(3, ' ');
            let change = Change {
                change: event,
                id: words.next().unwrap_or_default(),
                package: words.next().unwrap_or_default(),
                version: &body.version,
                severity: body.severity,
                fixed_in: &body.fixed_in,
            };
            told.push((body.severity, serde_json::json!(change)));
            rows.push(row(subject, key, &Body { state, ..body }));
        }
    }
    // The worst first, since an event shows a bounded number of them.
    told.sort_by_key(|(severity, _)| std::cmp::Reverse(*severity));
    (rows, told.into_iter().map(|(_, change)| change).collect())
}

fn change(event: Event, finding: &Finding) -> serde_json::Value {
    serde_json::json!(Change {
        change: event,
        id: &finding.id,
        package: &finding.package.name,
        version: &finding.package.version,
        severity: finding.severity,
        fixed_in: &finding.fixed_in,
    })
}

fn row(subject: &str, key: &str, body: &Body) -> FindingRow {
    let phase = serde_json::to_value(&body.state.phase).ok();
    let phase = phase.as_ref().and_then(|phase| phase["phase"].as_str()).unwrap_or("open");
    FindingRow {
        subject: subject.to_owned(),
        key: key.to_owned(),
        state: phase.to_owned(),
        body: serde_json::to_string(body).unwrap_or_default(),
        first_seen_ms: body.state.first_seen_ms,
        changed_ms: body.state.since_ms,
    }
}

/// Kind of the event that tells of a scan: CloudEvents' `type`.
pub(crate) const REPORTED: &str = "cn.kuboard.scan.reported";
/// Changes told in one event; a scan with more says how many there are.
const MAX_TOLD: usize = 500;

/// Tries to store what others change at the same time. Each time somebody else got on.
const TRIES: usize = 20;

impl Engine {
    /// Stores a report and what follows from it. Under a tag that means another image by now, the
    /// report is stored and nothing else: the findings of the tag are that image's.
    ///
    /// # Errors
    /// The catalogue failed. Nothing was stored or told then, and the same may be published again.
    pub async fn publish(&self, image: &Digest, report: &Report) -> Result<(), ScanError> {
        self.store(image, report, true).await
    }

    /// Takes the findings of a further name of an image whose report is stored already.
    pub(super) async fn publish_name(
        &self,
        image: &Digest,
        report: &Report,
    ) -> Result<(), ScanError> {
        self.store(image, report, false).await
    }

    async fn store(&self, image: &Digest, report: &Report, keep: bool) -> Result<(), ScanError> {
        let is_current = self.is_named(image, report).await?;
        for _ in 0..TRIES {
            if self.try_store(image, report, is_current, keep).await? {
                return Ok(());
            }
        }
        Err(ScanError::Source(SourceError::new(
            SourceErrorKind::Unreachable,
            format!("the findings of {} change all the time", report.image.name),
        )))
    }

    /// Whether the name of a report means its image.
    async fn is_named(&self, image: &Digest, report: &Report) -> Result<bool, ScanError> {
        let of = &report.image;
        if of.tag.is_empty() {
            return Ok(true);
        }
        let name = ImageName {
            registry: of.registry.clone(),
            repository: of.repository.clone(),
            tag: of.tag.clone(),
        };
        let named = self.parts.catalog.image_named(&name).await?;
        Ok(named.is_none_or(|named| named == *image))
    }

    /// False: somebody else was faster.
    async fn try_store(
        &self,
        image: &Digest,
        report: &Report,
        is_current: bool,
        keep: bool,
    ) -> Result<bool, ScanError> {
        let catalog = &self.parts.catalog;
        let now_ms = report.scanned_ms;
        let subject = report.image.name.clone();
        let known = catalog.findings(&subject).await?;
        let is_first = keep && catalog.report(image).await?.is_none();
        let (image, mut stored) = (*image, report.clone());
        let (made, known) = self
            .blocking(move || {
                let (rows, told) = match is_current {
                    true => changes(&known, &stored, &stored.image.name, now_ms),
                    false => (Vec::new(), Vec::new()),
                };
                let first_seen: BTreeMap<&str, i64> =
                    known.iter().map(|row| (row.key.as_str(), row.first_seen_ms)).collect();
                for finding in &mut stored.findings {
                    let seen = first_seen.get(key_of(finding).as_str()).copied();
                    finding.first_seen_ms = Some(seen.unwrap_or(now_ms));
                }
                let summary = Summary::of(&stored);
                let events = if told.is_empty() && !is_first {
                    Vec::new()
                } else {
                    let before = before(&known, &rows);
                    vec![event(&image, &summary, &told, &before, now_ms)]
                };
                let body = if keep { encode(&stored) } else { Ok(Vec::new()) };
                (body.map(|body| (body, rows, events, summary)), known)
            })
            .await?;
        let (body, rows, events, summary) = made.map_err(|_| ScanError::Damaged(image))?;
        let kept = ReportRow {
            image,
            body,
            summary: serde_json::to_string(&summary).unwrap_or_default(),
            generation: report.database.generation,
            reported_ms: now_ms,
            first_ms: match report.outcome {
                Outcome::Unsupported { .. } => 0,
                Outcome::Complete | Outcome::Partial { .. } => now_ms,
            },
        };
        let published = Published {
            report: keep.then_some(&kept),
            subject: &subject,
            known: &known,
            changed: &rows,
            events: &events,
            receivers: &self.parts.receivers,
        };
        if !catalog.publish(&published, now_ms).await? {
            return Ok(false);
        }
        if is_current {
            self.parts.metrics.reported(&summary);
        }
        Ok(true)
    }
}

/// What was known of the findings that change, by key: when it changed last.
fn before<'a>(known: &'a [FindingRow], changed: &[FindingRow]) -> Vec<(&'a str, i64)> {
    let changed: BTreeSet<&str> = changed.iter().map(|row| row.key.as_str()).collect();
    let known = known.iter().filter(|row| changed.contains(row.key.as_str()));
    known.map(|row| (row.key.as_str(), row.changed_ms)).collect()
}

/// One event a scan that changed something. Its key is the same when the same is told again: it is
/// made of what changed and what that was before, not of when somebody looked.
fn event(
    image: &Digest,
    summary: &Summary,
    told: &[serde_json::Value],
    before: &[(&str, i64)],
    now_ms: i64,
) -> NewEvent {
    let shown = &told[..told.len().min(MAX_TOLD)];
    let body = serde_json::json!({
        "subject": summary.name,
        "image": image,
        "summary": summary,
        "changes": shown,
        "changesTotal": told.len(),
        "time": now_ms,
    });
    let content = serde_json::json!([summary.name, image, told, before]).to_string();
    NewEvent {
        key: Digest::sha256(content.as_bytes()).hex(),
        kind: REPORTED.to_owned(),
        body: body.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use kuboard_catalog::FindingRow;
    use kuboard_oci::Digest;
    use kuboard_vuln::{
        DatabaseStamp, Ecosystem, Finding, ImageIdentity, Outcome, Package, Problem, Report,
        Severity, Status,
    };

    use super::{changes, subject_of};

    fn finding(id: &str) -> Finding {
        Finding {
            id: id.to_owned(),
            aliases: Vec::new(),
            source: "debian".into(),
            advisory: id.to_owned(),
            namespace: "debian:12".into(),
            package: Package::new(Ecosystem::Deb, "openssl", "3.0"),
            path: "var/lib/dpkg/status".into(),
            layer: 0,
            fixed_in: vec!["3.1".into()],
            status: Status::Fixed,
            severity: Severity::High,
            severity_source: "debian".into(),
            scores: Vec::new(),
            epss: None,
            known_exploited: None,
            summary: String::new(),
            details: String::new(),
            cwes: Vec::new(),
            references: Vec::new(),
            published_ms: None,
            modified_ms: None,
            first_seen_ms: None,
        }
    }

    pub(crate) fn report(ids: &[&str], outcome: Outcome) -> Report {
        Report {
            schema: 1,
            image: ImageIdentity { name: "r/a:1".into(), ..ImageIdentity::default() },
            outcome,
            distribution: None,
            end_of_life: None,
            layers: Vec::new(),
            packages: Vec::new(),
            findings: ids.iter().map(|id| finding(id)).collect(),
            suppressed: Vec::new(),
            database: DatabaseStamp::default(),
            scanned_ms: 0,
        }
    }

    /// Takes over what a scan changed, and says it in short: `CVE-1 opened`.
    fn check(known: &mut Vec<FindingRow>, ids: &[&str], outcome: Outcome, now: i64, told: &[&str]) {
        let (rows, changes) = changes(known, &report(ids, outcome), "r/a:1", now);
        let said: Vec<String> = changes
            .iter()
            .map(|one| format!("{} {}", one["id"], one["change"]).replace('"', ""))
            .collect();
        assert_eq!(said, told, "at {now}");
        for row in rows {
            known.retain(|old| old.key != row.key);
            known.push(row);
        }
    }

    #[test]
    fn a_finding_is_told_when_its_life_changes_and_only_then() {
        let partial = || Outcome::Partial {
            problems: vec![Problem { path: "x".into(), by: "rpm".into(), why: "cut".into() }],
        };
        let mut known = Vec::new();
        check(
            &mut known,
            &["CVE-1", "CVE-2"],
            Outcome::Complete,
            1,
            &["CVE-1 opened", "CVE-2 opened"],
        );
        check(&mut known, &["CVE-1", "CVE-2"], Outcome::Complete, 2, &[]);
        // What a partly read image does not show is not fixed.
        check(&mut known, &["CVE-1"], partial(), 3, &[]);
        check(&mut known, &["CVE-1"], Outcome::Complete, 4, &["CVE-2 fixed"]);
        check(&mut known, &["CVE-1"], Outcome::Complete, 5, &[]);
        check(&mut known, &["CVE-1", "CVE-2"], Outcome::Complete, 6, &["CVE-2 reopened"]);
        let states: Vec<_> = known.iter().map(|row| (row.first_seen_ms, &*row.state)).collect();
        assert_eq!(states, [(1, "open"), (1, "reopened")]);
    }

    #[test]
    fn two_versions_of_a_package_in_one_place_have_one_life() {
        let mut twice = report(&["CVE-1", "CVE-1"], Outcome::Complete);
        twice.findings[1].package.version = "2.0".into();
        let (rows, told) = changes(&[], &twice, "r/a:1", 1);
        assert_eq!((rows.len(), told.len()), (1, 1));
        let (rows, told) = changes(&rows, &twice, "r/a:1", 2);
        assert_eq!((rows.len(), told.len()), (0, 0));
        // What is told of it changes without an event.
        twice.findings[0].fixed_in = Vec::new();
        let known = changes(&[], &twice, "r/a:1", 1).0;
        twice.findings[0].fixed_in = vec!["4".into()];
        let (rows, told) = changes(&known, &twice, "r/a:1", 2);
        assert_eq!((rows.len(), told.len()), (1, 0));
    }

    #[test]
    fn findings_live_under_a_tag_or_else_a_digest() {
        let image = Digest::sha256(b"x");
        assert_eq!(subject_of("docker.io", "library/a", "1", &image), "docker.io/library/a:1");
        assert_eq!(subject_of("", "team/a", "1", &image), "team/a:1");
        assert_eq!(subject_of("", "team/a", "", &image), format!("team/a@{image}"));
    }
}
