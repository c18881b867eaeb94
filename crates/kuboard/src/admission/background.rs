//! What runs, judged without anybody asking: the operator's door, with the webhook's own verdict
//! and the scan engine's reports behind it.

use std::{collections::BTreeMap, sync::Arc};

use kuboard_admission::{Admission, Cause, Outcome, Pod, PodVerdict, Reason, sentence};
use kuboard_api::{
    crd::{AdvisoryStamp, FindingCounts, ImageReportSpec, ReportedFinding, time},
    desired::Desired,
    policy::{Policy, Scope},
};
use kuboard_catalog::NamedImage;
use kuboard_oci::Digest;
use kuboard_operator::{
    Judge, Judged, Outcome as Said, PolicyKey, Said as SaidBy,
    watch::{Runners, RunningImage},
};
use kuboard_rt::BoxFuture;
use kuboard_scan::{
    engine::{Engine, subject_of},
    schedule,
};
use kuboard_vuln::{Finding, ImageFacts, Known, Report, Severity};
use tokio::sync::watch;

use crate::{cluster::Snapshots, scanning};

/// Findings that a report in the cluster names.
const MOST_FINDINGS: usize = 100;
/// Names that it tells.
const MOST_NAMES: usize = 50;

/// Judges what runs.
pub(crate) struct Background {
    pub(crate) admission: Arc<Admission>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) snapshots: Snapshots,
    /// Counts changes of facts.
    pub(crate) changes: watch::Receiver<u64>,
}

impl Judge for Background {
    fn judge<'a>(&'a self, image: &'a RunningImage, runners: &'a Runners) -> BoxFuture<'a, Judged> {
        Box::pin(async move {
            let pod = Pod {
                namespace: image.namespace.to_string(),
                images: vec![(image.image.to_string(), image.digest)],
                service_account: runners.service_account.clone(),
                pull_secrets: runners.pull_secrets.clone(),
            };
            let PodVerdict { verdict, images } = self.admission.judge_pod(&pod, true).await;
            let desired = self.snapshots.desired.load();
            Judged {
                outcome: outcome(verdict.outcome),
                said: said(&desired, &pod.namespace, &verdict.reasons),
                reason: verdict.reasons.first().map(sentence),
                manifests: images
                    .iter()
                    .flat_map(|judged| judged.facts.iter().map(|facts| facts.manifest))
                    .collect(),
            }
        })
    }

    fn report<'a>(
        &'a self,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<ImageReportSpec>, String>> {
        Box::pin(async move {
            let failed = |error: &dyn std::fmt::Display| error.to_string();
            let facts = self.engine.facts(digest).await.map_err(|error| failed(&error))?;
            let Some(facts) = facts else { return Ok(None) };
            let report = self.engine.stored_report(digest).await.map_err(|error| failed(&error))?;
            let Some(report) = report else { return Ok(None) };
            let names = self.engine.catalog().image_names(digest).await;
            let names = names.map_err(|error| failed(&error))?;
            let mut spec = written(digest, &report, &facts, names);
            spec.fit();
            Ok(Some(spec))
        })
    }

    fn is_stored<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async move {
            let known = self.engine.catalog().image_names(digest).await;
            known.map(|names| !names.is_empty()).map_err(|error| error.to_string())
        })
    }

    fn last_scan_ms<'a>(&'a self, policy: &'a PolicyKey) -> BoxFuture<'a, Option<i64>> {
        Box::pin(async move {
            let name = scanning::schedule_name(policy.scope, &policy.text());
            let run = schedule::last_run(&self.engine, &name).await.ok().flatten()?;
            (run.ran_ms > 0).then_some(run.ran_ms)
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

fn outcome(outcome: Outcome) -> Said {
    match outcome {
        Outcome::Allow => Said::Allow,
        Outcome::Audit => Said::Audit,
        Outcome::Warn => Said::Warn,
        Outcome::Deny => Said::Deny,
    }
}

fn key(policy: &Policy) -> PolicyKey {
    let namespace = match policy.scope {
        Scope::Namespace => {
            policy.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned())
        }
        Scope::Cluster => String::new(),
    };
    PolicyKey { scope: policy.scope, namespace, name: policy.metadata.name.clone() }
}

/// What every policy of a namespace says; one without a reason against the image allows it.
fn said(desired: &Desired, namespace: &str, reasons: &[Reason]) -> Vec<SaidBy> {
    let empty = BTreeMap::new();
    let labels = desired.namespaces.get(namespace).map_or(&empty, |it| &it.labels);
    let about = |policy: &Policy| match policy.scope {
        Scope::Namespace => policy.metadata.namespace.as_deref().unwrap_or("default") == namespace,
        Scope::Cluster => policy.admission.namespaces.selects(labels),
    };
    let policies = desired.policies.iter();
    policies
        .filter(|policy| !policy.suspended && policy.threshold.is_some() && about(policy))
        .map(|policy| {
            let key = key(policy);
            let against = reasons.iter().filter(|reason| {
                reason.scope == key.scope
                    && (reason.policy == key.text() || reason.policy == key.name)
            });
            let mut one = SaidBy { policy: key.clone(), outcome: Said::Allow, unscanned: false };
            for reason in against {
                one.outcome = one.outcome.max(outcome(reason.outcome));
                one.unscanned |= matches!(reason.cause, Cause::Unscanned { .. });
            }
            one
        })
        .collect()
}

/// A report as the cluster keeps it.
fn written(
    digest: &Digest,
    report: &Report,
    facts: &ImageFacts,
    names: Vec<NamedImage>,
) -> ImageReportSpec {
    let (outcome, problem) = match &facts.known {
        Known::All => ("Complete", None),
        Known::Part(why) => ("Partial", Some(why.to_string())),
        Known::Nothing(why) => ("Unsupported", Some(why.to_string())),
    };
    let stamp = &report.database;
    let built = (stamp.built_ms > 0).then(|| time(stamp.built_ms));
    let mut names: Vec<NamedImage> = names;
    names.sort_by_key(|named| std::cmp::Reverse(named.seen_ms));
    let platform = &report.image.platform;
    ImageReportSpec {
        digest: digest.to_string(),
        names: names
            .into_iter()
            .take(MOST_NAMES)
            .map(|it| subject_of(&it.name.registry, &it.name.repository, &it.name.tag, digest))
            .collect(),
        platforms: if platform.is_empty() { Vec::new() } else { vec![platform.clone()] },
        distribution: report.distribution.as_ref().map(|it| it.pretty_name.clone()),
        layers: i64::try_from(report.layers.len()).ok(),
        outcome: outcome.to_owned(),
        problem,
        summary: counts(&report.findings),
        findings: facts.findings.iter().take(MOST_FINDINGS).map(finding).collect(),
        advisories: (stamp.generation > 0).then(|| AdvisoryStamp {
            generation: i64::try_from(stamp.generation).unwrap_or(i64::MAX),
            built_at: built,
        }),
        scanned_at: time(facts.scanned_ms),
        first_scanned_at: Some(time(facts.first_scanned_ms)),
        full_report: Some(format!("/matcher/api/v1/vulnerability_report/{digest}")),
    }
}

fn finding(fact: &kuboard_vuln::Fact) -> ReportedFinding {
    ReportedFinding {
        id: fact.id.to_string(),
        package: fact.package.to_string(),
        installed: fact.version.to_string(),
        fixed: fact.fixed_in.as_ref().map(ToString::to_string),
        severity: format!("{:?}", fact.severity).to_uppercase(),
        first_seen: Some(time(fact.first_seen_ms)),
        exploited: fact.exploited,
        epss: fact.epss.map(|epss| f64::from(epss) / 100_000.0),
    }
}

fn counts(findings: &[Finding]) -> FindingCounts {
    let mut counts = FindingCounts::default();
    for finding in findings {
        *match finding.severity {
            Severity::Critical => &mut counts.critical,
            Severity::High => &mut counts.high,
            Severity::Medium => &mut counts.medium,
            Severity::Low => &mut counts.low,
            Severity::Negligible => &mut counts.negligible,
            Severity::Unknown => &mut counts.unknown,
        } += 1;
        counts.fixable += i64::from(!finding.fixed_in.is_empty());
        counts.exploited += i64::from(finding.known_exploited.is_some());
    }
    counts
}
