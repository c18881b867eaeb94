//! What a user wants of reports: ignore rules, a threshold, and the verdict that follows.
//!
//! The same values stand in a file beside the image, in the engine's configuration and in an
//! admission policy; whoever reads the file gives it here through serde.

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use crate::{Finding, Outcome, Report, Severity, Suppression};

/// An ignore rule as it is written. What is left out holds for all; `reason` may not be left out,
/// and at least one of the conditions must be there.
///
/// ```toml
/// [[ignore]]
/// id = "CVE-2024-*"
/// package = "curl"
/// path = "usr/lib/**"
/// namespaces = ["debian:12"]
/// reason = "only reachable from the build"
/// expires = "2026-12-31"
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleText {
    /// Id of the vulnerability or any alias, exactly or as a glob; without regard to case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name of the package or its source package, as a glob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Path of the file that states the package, as a glob; `*` stops at slashes, `**` does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Namespaces, any of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Why. It is shown with every finding that the rule takes away.
    pub reason: String,
    /// When the rule ends: an RFC 3339 time, or a day that is its last (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// A rule that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No reason is given.
    #[error("an ignore rule has no reason; hint: write `reason`, it is shown in reports")]
    NoReason,
    /// The rule would take away everything.
    #[error("an ignore rule has no condition; hint: give one of id, package, path, namespaces")]
    NoCondition,
    /// A glob cannot be read.
    #[error("the glob `{glob}` cannot be read: {why}")]
    Glob {
        /// The glob.
        glob: String,
        /// What is wrong.
        why: String,
    },
    /// The end cannot be read.
    #[error("`{0}` is no time; hint: write 2026-12-31 or 2026-12-31T12:00:00Z")]
    Expires(String),
}

/// An ignore rule, ready to be applied.
#[derive(Clone, Debug)]
pub struct Rule {
    text: RuleText,
    id: Option<GlobMatcher>,
    package: Option<GlobMatcher>,
    path: Option<GlobMatcher>,
    expires_ms: Option<i64>,
}

impl TryFrom<RuleText> for Rule {
    type Error = RuleError;

    fn try_from(text: RuleText) -> Result<Self, RuleError> {
        if text.reason.trim().is_empty() {
            return Err(RuleError::NoReason);
        }
        let conditions = [&text.id, &text.package, &text.path];
        if conditions.iter().all(|one| one.is_none()) && text.namespaces.is_empty() {
            return Err(RuleError::NoCondition);
        }
        let glob = |glob: &Option<String>, of: Of| {
            glob.as_deref().map(|glob| compiled(glob, of)).transpose()
        };
        Ok(Rule {
            id: glob(&text.id, Of::Ids)?,
            package: glob(&text.package, Of::Names)?,
            path: glob(&text.path, Of::Paths)?,
            expires_ms: text.expires.as_deref().map(end_of).transpose()?,
            text,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Ids,
    Names,
    Paths,
}

fn compiled(glob: &str, of: Of) -> Result<GlobMatcher, RuleError> {
    let bad = |why: String| RuleError::Glob { glob: glob.to_owned(), why };
    if glob.len() > 1024 {
        return Err(bad("longer than 1024 bytes".to_owned()));
    }
    let built = GlobBuilder::new(glob)
        .case_insensitive(of == Of::Ids)
        .literal_separator(of == Of::Paths)
        .build()
        .map_err(|err| bad(err.kind().to_string()))?;
    Ok(built.compile_matcher())
}

/// The first millisecond at which a rule with this end holds no more.
fn end_of(text: &str) -> Result<i64, RuleError> {
    let bad = || RuleError::Expires(text.to_owned());
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    if text.len() != "2026-12-31".len() {
        return Err(bad());
    }
    let day: jiff::civil::Date = text.parse().map_err(|_| bad())?;
    let next = day.tomorrow().map_err(|_| bad())?;
    let start = next.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| bad())?;
    Ok(start.timestamp().as_millisecond())
}

impl Rule {
    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &RuleText {
        &self.text
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|end| end <= now_ms)
    }

    /// Whether it takes a finding away.
    #[must_use]
    pub fn applies(&self, finding: &Finding, now_ms: i64) -> bool {
        let id = |glob: &GlobMatcher| {
            glob.is_match(&finding.id) || finding.aliases.iter().any(|id| glob.is_match(id))
        };
        let package = |glob: &GlobMatcher| {
            let (source, _) = finding.package.source_or_self();

            glob.is_match(&finding.package.name) || glob.is_match(source)
        };
        !self.is_over(now_ms)
            && self.id.as_ref().is_none_or(id)
            && self.package.as_ref().is_none_or(package)
            && self.path.as_ref().is_none_or(|glob| glob.is_match(&finding.path))
            && (self.text.namespaces.is_empty()
                || self.text.namespaces.contains(&finding.namespace))
    }

    /// What is noted with a finding that it takes away.
    #[must_use]
    pub fn suppression(&self) -> Suppression {
        Suppression::Rule { reason: self.text.reason.clone(), expires_ms: self.expires_ms }
    }
}

/// When a report is not good enough.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Findings of this severity and above reach it; `None`: none does.
    pub threshold: Option<Severity>,
    /// Findings without a fix do not count.
    pub ignore_unfixed: bool,
    /// Further rules, beside those that were applied when the report was made.
    pub rules: Vec<Rule>,
    /// What was read of a partly read image is enough.
    pub accept_partial: bool,
}

/// A finding that reached the threshold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReachedBy {
    /// Id of the vulnerability.
    pub id: String,
    /// Name of the package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The file that states it.
    pub path: String,
    /// The severity.
    pub severity: Severity,
    /// The lowest version that fixes it.
    pub fixed_in: Option<String>,
}

impl ReachedBy {
    fn of(finding: &Finding) -> Self {
        Self {
            id: finding.id.clone(),
            package: finding.package.name.clone(),
            version: finding.package.version.clone(),
            path: finding.path.clone(),
            severity: finding.severity,
            fixed_in: finding.fixed_in.first().cloned(),
        }
    }
}

/// What a policy says of a report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Everything was read, nothing reaches the threshold.
    Pass,
    /// Findings reach the threshold; the most severe first.
    Reached {
        /// They.
        findings: Vec<ReachedBy>,
    },
    /// Nothing reaches it, but not everything was read, so nobody knows.
    NotKnown {
        /// What is missing.
        why: String,
    },
}

/// Judges a report at `now_ms`. Exemptions of the report whose time is over count again; findings
/// that the report left out as unfixed count unless this policy leaves them out too.
#[must_use]
pub fn verdict(report: &Report, policy: &Policy, now_ms: i64) -> Verdict {
    let back = report.suppressed.iter().filter(|one| match &one.suppression {
        Suppression::Rule { expires_ms, .. } => expires_ms.is_some_and(|end| end <= now_ms),
        Suppression::Unfixed => !policy.ignore_unfixed,
        Suppression::Vex { .. } | Suppression::OwnedByPackage => false,
    });
    let all = report.findings.iter().chain(back.map(|one| &one.finding));
    let reaches = |finding: &&Finding| {
        policy.threshold.is_some_and(|threshold| finding.severity >= threshold)
            && !(policy.ignore_unfixed && finding.fixed_in.is_empty())
            && !policy.rules.iter().any(|rule| rule.applies(finding, now_ms))
    };
    let mut findings: Vec<ReachedBy> = all.filter(reaches).map(ReachedBy::of).collect();
    if !findings.is_empty() {
        findings.sort_by(|one, two| {
            (two.severity.cmp(&one.severity))
                .then_with(|| one.package.cmp(&two.package))
                .then_with(|| one.id.cmp(&two.id))
        });
        return Verdict::Reached { findings };
    }
    match &report.outcome {
        Outcome::Complete => Verdict::Pass,
        Outcome::Partial { .. } if policy.accept_partial => Verdict::Pass,
        Outcome::Partial { problems } => Verdict::NotKnown {
            why: problems.first().map_or_else(
                || "the image was partly read".to_owned(),
                |first| match (first.path.as_str(), problems.len()) {
                    ("", 1) => first.why.clone(),
                    ("", count) => format!("{} (and {} more)", first.why, count - 1),
                    (path, 1) => format!("{path}: {}", first.why),
                    (path, count) => format!("{path}: {} (and {} more)", first.why, count - 1),
                },
            ),
        },
        Outcome::Unsupported { reason } => Verdict::NotKnown { why: reason.clone() },
    }
}

#[cfg(test)]
mod tests;
