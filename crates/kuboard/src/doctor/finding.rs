//! What the doctor says: a symptom somebody sees, what proves it, what causes it, what mends it.

use std::cmp::Reverse;

use serde::Serialize;

use crate::output;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// It will become a problem.
    Warning,
    /// Something does not work.
    Problem,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finding {
    /// Names the cause for machines: `pull.secret-missing`.
    pub(crate) code: &'static str,
    /// How bad it is.
    pub(crate) level: Level,
    /// What it is about: `pod shop/web-1`, `webhook kuboard-admission`.
    pub(crate) subject: String,
    /// What somebody sees.
    pub(crate) symptom: String,
    /// What was looked at and found.
    pub(crate) evidence: Vec<String>,
    /// Why.
    pub(crate) cause: String,
    /// Commands or changes that mend it.
    pub(crate) fix: Vec<String>,
}

impl Finding {
    /// A problem, to be filled in.
    pub(crate) fn problem(code: &'static str, subject: impl Into<String>) -> Self {
        Self {
            code,
            level: Level::Problem,
            subject: subject.into(),
            symptom: String::new(),
            evidence: Vec::new(),
            cause: String::new(),
            fix: Vec::new(),
        }
    }

    /// The same as a warning.
    pub(crate) fn warning(code: &'static str, subject: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::problem(code, subject) }
    }

    pub(crate) fn symptom(mut self, text: impl Into<String>) -> Self {
        self.symptom = shortened(text.into());
        self
    }

    pub(crate) fn evidence(mut self, text: impl Into<String>) -> Self {
        self.evidence.push(shortened(text.into()));
        self
    }

    pub(crate) fn cause(mut self, text: impl Into<String>) -> Self {
        self.cause = text.into();
        self
    }

    pub(crate) fn fix(mut self, text: impl Into<String>) -> Self {
        self.fix.push(text.into());
        self
    }
}

/// Text of a cluster for a terminal: one line, bounded, without control characters.
fn shortened(text: String) -> String {
    const MOST: usize = 400;
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", clean.get(..end).unwrap_or_default()),
        None => clean,
    }
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Diagnosis {
    /// What was looked at, each with how it went: `ok`, or why it could not be looked at.
    pub(crate) looked_at: Vec<(String, String)>,
    /// The worst first.
    pub(crate) findings: Vec<Finding>,
}

impl Diagnosis {
    /// Notes that something was looked at.
    pub(crate) fn looked(&mut self, what: &str) {
        self.looked_at.push((what.to_owned(), "ok".to_owned()));
    }

    /// Notes that something could not be looked at. That is never "nothing found".
    pub(crate) fn blind(&mut self, what: &str, why: impl std::fmt::Display) {
        self.looked_at.push((what.to_owned(), format!("not looked at: {why:#}")));
    }

    pub(crate) fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }

    /// Puts the worst first, and says each thing once.
    pub(crate) fn settle(&mut self) {
        self.findings.sort_by(|one, two| {
            (Reverse(one.level), one.code, &one.subject).cmp(&(
                Reverse(two.level),
                two.code,
                &two.subject,
            ))
        });
        self.findings.dedup();
    }

    /// Whether something does not work.
    pub(crate) fn has_problems(&self) -> bool {
        self.findings.iter().any(|it| it.level == Level::Problem)
    }

    /// Whether something could not be looked at.
    pub(crate) fn is_blind(&self) -> bool {
        self.looked_at.iter().any(|(_, how)| how != "ok")
    }

    /// Prints it for people.
    pub(crate) fn print(&self) {
        for finding in &self.findings {
            let level = match finding.level {
                Level::Problem => "PROBLEM",
                Level::Warning => "warning",
            };
            output::line(&format!("{level}  {}  [{}]", finding.subject, finding.code));
            output::line(&format!("  seen:   {}", finding.symptom));
            for evidence in &finding.evidence {
                output::line(&format!("  found:  {evidence}"));
            }
            output::line(&format!("  cause:  {}", finding.cause));
            for fix in &finding.fix {
                output::line(&format!("  fix:    {fix}"));
            }
            output::line("");
        }
        let mut ok = Vec::new();
        for (what, how) in &self.looked_at {
            match how.as_str() {
                "ok" => ok.push(what.as_str()),
                how => output::line(&format!("{what}: {how}")),
            }
        }
        if !ok.is_empty() {
            output::line(&format!("looked at: {}", ok.join(", ")));
        }
        let count = |level| self.findings.iter().filter(|it| it.level == level).count();
        let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
        output::line(&format!("{problems} problems, {warnings} warnings"));
    }
}
