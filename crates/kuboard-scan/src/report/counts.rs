//! Words for severities and statuses, and how many findings there are of each.

use std::collections::BTreeMap;

use kuboard_vuln::{Finding, Severity, Status, Suppressed, Suppression};

use super::dates;

/// All steps, the most severe first.
pub(super) const STEPS: [Severity; 6] = [
    Severity::Critical,
    Severity::High,
    Severity::Medium,
    Severity::Low,
    Severity::Negligible,
    Severity::Unknown,
];

/// `CRITICAL`.
pub(super) const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "CRITICAL",
        Severity::High => "HIGH",
        Severity::Medium => "MEDIUM",
        Severity::Low => "LOW",
        Severity::Negligible => "NEGLIGIBLE",
        Severity::Unknown => "UNKNOWN",
    }
}

/// `Critical`: the words of Clair and of Harbor.
pub(super) const fn title(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "Critical",
        Severity::High => "High",
        Severity::Medium => "Medium",
        Severity::Low => "Low",
        Severity::Negligible => "Negligible",
        Severity::Unknown => "Unknown",
    }
}

/// `will not fix`.
pub(super) const fn status(status: Status) -> &'static str {
    match status {
        Status::Fixed => "fixed",
        Status::Affected => "affected",
        Status::WillNotFix => "will not fix",
        Status::FixDeferred => "fix deferred",
        Status::EndOfLife => "end of life",
        Status::NotAffected => "not affected",
        Status::UnderInvestigation => "under investigation",
    }
}

/// How many findings there are of a severity, in the order of [`STEPS`].
pub(super) fn of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Vec<(Severity, usize)> {
    let mut counts: Vec<_> = STEPS.into_iter().map(|step| (step, 0)).collect();
    for finding in findings {
        if let Some(count) = counts.iter_mut().find(|(step, _)| *step == finding.severity) {
            count.1 += 1;
        }
    }
    counts
}

/// `3 (CRITICAL: 1, HIGH: 2)`, only the steps that occur.
pub(super) fn total<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> String {
    let counts = of(findings);
    let sum: usize = counts.iter().map(|(_, count)| count).sum();
    let parts: Vec<_> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(step, count)| format!("{}: {count}", word(*step)))
        .collect();
    if parts.is_empty() { "0".to_owned() } else { format!("{sum} ({})", parts.join(", ")) }
}

/// Why a finding does not count, in a few words.
pub(super) fn reason(suppression: &Suppression) -> String {
    match suppression {
        Suppression::Rule { reason, expires_ms } => {
            let mut text = "ignore rule".to_owned();
            if !reason.is_empty() {
                text.push_str(&format!(" \"{reason}\""));
            }
            if let Some(end) = expires_ms {
                text.push_str(&format!(" until {}", dates::day(*end)));
            }
            text
        }
        Suppression::Vex { author, status, justification } => {
            let mut text = format!("VEX {status}");
            if !justification.is_empty() {
                text.push_str(&format!(" ({justification})"));
            }
            if !author.is_empty() {
                text.push_str(&format!(" by {author}"));
            }
            text
        }
        Suppression::OwnedByPackage => "part of a package of the distribution".to_owned(),
        Suppression::Unfixed => "no fix is known".to_owned(),
    }
}

/// Reasons and how often each stands, the most frequent first.
pub(super) fn reasons(suppressed: &[Suppressed]) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for one in suppressed {
        *counts.entry(reason(&one.suppression)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// EPSS as percent, `3.14`; tenths of a percent are enough for people.
pub(super) fn percent(of_100000: u32) -> String {
    format!("{}.{}", of_100000 / 1000, of_100000 % 1000 / 100)
}

/// The step's least score, where a form wants a number and nobody gave a vector.
pub(super) const fn stand_in_score(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.0",
        Severity::High => "7.0",
        Severity::Medium => "4.0",
        Severity::Low => "2.0",
        Severity::Negligible | Severity::Unknown => "0.0",
    }
}
