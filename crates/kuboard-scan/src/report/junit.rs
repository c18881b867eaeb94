//! JUnit's XML: a suite for each target, a failure for each finding, a skipped test for each
//! finding that does not count, and an error for what was not read.
//!
//! The form is the one that continuous integration servers read (`testsuites`, `testsuite`,
//! `testcase`, `failure`, `error`, `skipped`); it has no standard.

use std::io;

use kuboard_vuln::{Finding, Outcome, Report};

use super::{WriteOptions, counts, dates, targets, text::markup};

pub(super) fn write(
    report: &Report,
    options: &WriteOptions<'_>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let targets = targets::of(report);
    let errors = problems(report);
    let quiet = targets.iter().filter(|target| is_quiet(target)).count();
    let tests = report.findings.len() + report.suppressed.len() + quiet + 1.max(errors.len());
    let time = dates::rfc3339(report.scanned_ms);
    let time = time.trim_end_matches('Z');
    writeln!(to, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(
        to,
        "<testsuites name=\"kuboard {}\" tests=\"{tests}\" failures=\"{}\" errors=\"{}\">",
        markup(options.tool_version),
        report.findings.len(),
        errors.len()
    )?;
    outcome(report, &errors, time, to)?;
    for target in &targets {
        let quiet = is_quiet(target);
        writeln!(
            to,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" \
             timestamp=\"{time}\">",
            markup(&format!("{}: {}", report.image.name, target.title(report))),
            target.findings.len() + target.suppressed.len() + usize::from(quiet),
            target.findings.len(),
            target.suppressed.len()
        )?;
        if quiet {
            let name = format!("no known vulnerabilities in {} packages", target.packages);
            writeln!(
                to,
                "    <testcase classname=\"{}\" name=\"{}\"/>",
                target.ecosystem.as_str(),
                markup(&name)
            )?;
        }
        for finding in &target.findings {
            failure(finding, to)?;
        }
        for one in &target.suppressed {
            open(&one.finding, to)?;
            let reason = markup(&counts::reason(&one.suppression));
            writeln!(to, "      <skipped message=\"{reason}\"/>\n    </testcase>")?;
        }
        writeln!(to, "  </testsuite>")?;
    }
    writeln!(to, "</testsuites>")
}

fn is_quiet(target: &targets::Target<'_>) -> bool {
    target.findings.is_empty() && target.suppressed.is_empty()
}

/// What was not read, one text each.
fn problems(report: &Report) -> Vec<String> {
    match &report.outcome {
        Outcome::Complete => Vec::new(),
        Outcome::Unsupported { reason } => vec![format!("unsupported: {reason}")],
        Outcome::Partial { problems } => {
            let text =
                |path: &str, by: &str, why: &str| format!("partly read: {path}: {why} ({by})");
            problems.iter().map(|one| text(&one.path, &one.by, &one.why)).collect()
        }
    }
}

fn outcome(
    report: &Report,
    errors: &[String],
    time: &str,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    writeln!(
        to,
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"0\" errors=\"{}\" skipped=\"0\" \
         timestamp=\"{time}\">",
        markup(&format!("{}: scan", report.image.name)),
        1.max(errors.len()),
        errors.len()
    )?;
    if errors.is_empty() {
        writeln!(to, "    <testcase classname=\"scan\" name=\"all was read\"/>")?;
    }
    for error in errors {
        writeln!(to, "    <testcase classname=\"scan\" name=\"all was read\">")?;
        writeln!(to, "      <error message=\"{}\"/>\n    </testcase>", attribute(error))?;
    }
    writeln!(to, "  </testsuite>")
}

/// Text of an attribute: a line end in it would be read as a blank.
fn attribute(text: &str) -> String {
    markup(&super::text::line(text))
}

fn open(finding: &Finding, to: &mut dyn io::Write) -> io::Result<()> {
    let package = &finding.package;
    writeln!(
        to,
        "    <testcase classname=\"{}\" name=\"{}\">",
        attribute(&format!("{} {}", package.name, package.version)),
        attribute(&format!("[{}] {}", counts::word(finding.severity), finding.id))
    )
}

fn failure(finding: &Finding, to: &mut dyn io::Write) -> io::Result<()> {
    open(finding, to)?;
    let package = &finding.package;
    let summary = if finding.summary.is_empty() { &finding.id } else { &finding.summary };
    writeln!(
        to,
        "      <failure message=\"{}\" type=\"{}\">",
        attribute(&format!("{} in {}: {summary}", finding.id, package.name)),
        counts::word(finding.severity)
    )?;
    let fixed = finding.fixed_in.join(", ");
    let facts = [
        ("package", format!("{} {}", package.name, package.version)),
        ("severity", counts::word(finding.severity).to_owned()),
        ("severity by", finding.severity_source.clone()),
        ("status", counts::status(finding.status).to_owned()),
        ("fixed in", fixed),
        ("path", finding.path.clone()),
        ("aliases", finding.aliases.join(", ")),
        ("known exploited", finding.known_exploited.clone().unwrap_or_default()),
        ("see", finding.references.first().map(|one| one.url.clone()).unwrap_or_default()),
    ];
    for (label, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(to, "{label}: {}", attribute(value))?;
    }
    if !finding.details.is_empty() {
        writeln!(to, "{}", markup(&finding.details))?;
    }
    writeln!(to, "</failure>\n    </testcase>")
}
