//! The table for people at a terminal.
//!
//! What was not read is said first and last, so that it is seen whatever scrolls by between.

mod grid;

use std::{collections::BTreeMap, io};

use kuboard_vuln::{Finding, Outcome, Report, Severity};

use self::grid::{Cell, Grid, Paint};
use super::{
    WriteOptions, counts, dates,
    targets::{self, Target},
    text,
};

/// Problems that are named.
const SHOWN_PROBLEMS: usize = 10;
/// Reasons of suppression that are named.
const SHOWN_REASONS: usize = 10;
/// The least EPSS that is marked, in 1/100000.
const MARKED_EPSS: u32 = 10_000;
/// Days after which the advisories are called old.
const OLD_DAYS: u64 = 7;

pub(super) fn write(
    report: &Report,
    options: &WriteOptions<'_>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let mut page = Page { to, options };
    page.header(report)?;
    page.outcome(&report.outcome)?;
    for target in targets::of(report) {
        if !target.findings.is_empty() {
            page.target(report, &target)?;
        }
    }
    page.summary(report)?;
    page.suppressed(report)?;
    if !matches!(report.outcome, Outcome::Complete) {
        page.outcome(&report.outcome)?;
    }
    Ok(())
}

struct Page<'a, 'b> {
    to: &'a mut dyn io::Write,
    options: &'a WriteOptions<'b>,
}

impl Page<'_, '_> {
    /// One paragraph, wrapped; the text may be a stranger's.
    fn line(&mut self, text: &str, paint: Paint) -> io::Result<()> {
        self.paragraph("", 0, text, paint)
    }

    /// A label and a paragraph beside it, whose further lines are indented.
    fn paragraph(
        &mut self,
        label: &str,
        indent: usize,
        text: &str,
        paint: Paint,
    ) -> io::Result<()> {
        let text = text::line(text);
        let width = self.options.width.map_or(usize::MAX, |width| usize::from(width.max(40)));
        let wrapped = grid::wrap(text.trim_end(), width.saturating_sub(indent));
        for (number, line) in wrapped.iter().enumerate() {
            let label = if number == 0 { label } else { "" };
            let label = format!("{label:<indent$}");
            let label = Paint::Faint.on(&label, self.options.color);
            writeln!(self.to, "{label}{}", paint.on(line, self.options.color))?;
        }
        if wrapped.is_empty() {
            writeln!(self.to)?;
        }
        Ok(())
    }

    fn fact(&mut self, label: &str, value: &str, paint: Paint) -> io::Result<()> {
        if value.trim().is_empty() {
            return Ok(());
        }
        self.paragraph(label, 14, value, paint)
    }

    fn header(&mut self, report: &Report) -> io::Result<()> {
        let image = &report.image;
        let platform = match image.platform.as_str() {
            "" => String::new(),
            platform => format!(" ({platform})"),
        };
        self.fact("Image", &format!("{}{platform}", image.name), Paint::Strong)?;
        let digest = image.digest.as_ref().or(image.config.as_ref());
        self.fact("Digest", &digest.map(ToString::to_string).unwrap_or_default(), Paint::Plain)?;
        self.distribution(report)?;
        self.database(report)?;
        self.fact("Packages", &report.packages.len().to_string(), Paint::Plain)?;
        let (word, paint) = match report.outcome {
            Outcome::Complete => ("complete", Paint::Plain),
            Outcome::Partial { .. } => ("PARTLY READ", Paint::Alarm),
            Outcome::Unsupported { .. } => ("UNSUPPORTED", Paint::Alarm),
        };
        self.fact("Outcome", word, paint)
    }

    fn distribution(&mut self, report: &Report) -> io::Result<()> {
        let Some(distribution) = &report.distribution else {
            return self.fact("Distribution", "none found", Paint::Plain);
        };
        let name = match distribution.pretty_name.as_str() {
            "" => format!("{} {}", distribution.id, distribution.version_id),
            pretty => pretty.to_owned(),
        };
        let today = dates::day(self.options.now_ms);
        match &report.end_of_life {
            Some(end) if *end <= today => {
                let text = format!("{name}: END OF LIFE since {end}, no more security fixes");
                self.fact("Distribution", &text, Paint::Alarm)
            }
            Some(end) => {
                self.fact("Distribution", &format!("{name}, supported until {end}"), Paint::Plain)
            }
            None => self.fact("Distribution", &name, Paint::Plain),
        }
    }

    fn database(&mut self, report: &Report) -> io::Result<()> {
        let stamp = &report.database;
        if stamp.built_ms == 0 {
            return self.fact("Advisories", "none", Paint::Alarm);
        }
        let age = dates::age(stamp.built_ms, self.options.now_ms);
        let built = dates::minute(stamp.built_ms);
        let text = format!("generation {}, of {built}, {age} old", stamp.generation);
        if dates::days(stamp.built_ms, self.options.now_ms) >= OLD_DAYS {
            return self.fact("Advisories", &format!("{text}: OUT OF DATE"), Paint::Alarm);
        }
        self.fact("Advisories", &text, Paint::Plain)
    }

    fn outcome(&mut self, outcome: &Outcome) -> io::Result<()> {
        match outcome {
            Outcome::Complete => Ok(()),
            Outcome::Unsupported { reason } => {
                self.line("", Paint::Plain)?;
                let text = format!("UNSUPPORTED: nothing can be said of this image: {reason}");
                self.paragraph("!!", 3, &text, Paint::Alarm)
            }
            Outcome::Partial { problems } => {
                self.line("", Paint::Plain)?;
                let text = "PARTLY READ: there may be more vulnerabilities than are shown";
                self.paragraph("!!", 3, text, Paint::Alarm)?;
                for problem in problems.iter().take(SHOWN_PROBLEMS) {
                    let path = match problem.path.as_str() {
                        "" => String::new(),
                        path => format!("{path}: "),
                    };
                    let text = format!("{path}{} ({})", problem.why, problem.by);
                    self.paragraph("   -", 5, &text, Paint::Plain)?;
                }
                match problems.len().saturating_sub(SHOWN_PROBLEMS) {
                    0 => Ok(()),
                    more => self.paragraph("", 5, &format!("and {more} more"), Paint::Plain),
                }
            }
        }
    }

    fn target(&mut self, report: &Report, target: &Target<'_>) -> io::Result<()> {
        self.line("", Paint::Plain)?;
        let total = counts::total(target.findings.iter().copied());
        let title = format!("{}: {total}", target.title(report));
        self.line(&title, Paint::Strong)?;
        self.line("", Paint::Plain)?;
        let mut grid = Grid::new(self.options.width, self.options.color);
        for row in rows(&target.findings) {
            grid.row(row);
        }
        grid.write(self.to)
    }

    fn summary(&mut self, report: &Report) -> io::Result<()> {
        self.line("", Paint::Plain)?;
        let packages = report.packages.len();
        if !report.findings.is_empty() {
            let text = format!("Total: {}", counts::total(&report.findings));
            return self.line(&text, Paint::Strong);
        }
        let text = match (&report.outcome, packages) {
            (Outcome::Complete, 0) => "no packages found: there is nothing to match".to_owned(),
            (Outcome::Complete, 1) => "no known vulnerabilities in 1 package".to_owned(),
            (Outcome::Complete, _) => format!("no known vulnerabilities in {packages} packages"),
            (Outcome::Partial { .. }, _) => {
                format!("no known vulnerabilities in the {packages} packages that could be read")
            }
            (Outcome::Unsupported { .. }, _) => "no vulnerabilities could be looked for".to_owned(),
        };
        self.line(&text, Paint::Strong)
    }

    fn suppressed(&mut self, report: &Report) -> io::Result<()> {
        if report.suppressed.is_empty() {
            return Ok(());
        }
        let findings = report.suppressed.iter().map(|one| &one.finding);
        self.line(&format!("Suppressed: {}", counts::total(findings)), Paint::Plain)?;
        let reasons = counts::reasons(&report.suppressed);
        for (reason, count) in reasons.iter().take(SHOWN_REASONS) {
            self.paragraph("   -", 5, &format!("{count} x {reason}"), Paint::Plain)?;
        }
        match reasons.len().saturating_sub(SHOWN_REASONS) {
            0 => Ok(()),
            more => self.paragraph("", 5, &format!("and {more} more reasons"), Paint::Plain),
        }
    }
}

/// One row for each finding; the same finding at several paths is one row.
fn rows(findings: &[&Finding]) -> Vec<[Cell; grid::COLUMNS]> {
    let mut places: BTreeMap<_, usize> = BTreeMap::new();
    let key = |finding: &Finding| (finding.id.clone(), finding.package.clone());
    for finding in findings {
        *places.entry(key(finding)).or_default() += 1;
    }
    let taken = findings.iter().filter_map(|finding| {
        let places = places.remove(&key(finding))?;
        Some(row(finding, places))
    });
    taken.collect()
}

fn row(finding: &Finding, places: usize) -> [Cell; grid::COLUMNS] {
    let package = &finding.package;
    let mut name = Cell::new(&package.name, Paint::Plain);
    if places > 1 {
        name.add(&format!("in {places} places"), Paint::Faint);
    }
    let mut id = Cell::new(&finding.id, Paint::Plain);
    if finding.known_exploited.is_some() {
        id.add("KEV: exploited", Paint::Alarm);
    }
    if let Some(epss) = finding.epss.filter(|epss| epss.probability >= MARKED_EPSS) {
        let percent = epss.probability.saturating_add(500) / 1000;
        id.add(&format!("EPSS {percent} %"), Paint::Warning);
    }
    let word = counts::word(finding.severity);
    let mut severity = Cell::new(word, of_severity(finding.severity));
    if !finding.severity_source.is_empty() {
        severity.add(&format!("by {}", finding.severity_source), Paint::Faint);
    }
    let status = counts::status(finding.status);
    let fixed = finding.fixed_in.join(", ");
    let title = if finding.summary.is_empty() { &finding.details } else { &finding.summary };
    [
        name,
        id,
        severity,
        Cell::new(status, Paint::Plain),
        Cell::new(&package.version, Paint::Plain),
        if fixed.is_empty() {
            Cell::stand_in(status, Paint::Faint)
        } else {
            Cell::new(&fixed, Paint::Good)
        },
        Cell::new(&text::cut(title, 200), Paint::Plain),
    ]
}

const fn of_severity(severity: Severity) -> Paint {
    match severity {
        Severity::Critical => Paint::Alarm,
        Severity::High => Paint::Bad,
        Severity::Medium => Paint::Warning,
        Severity::Low => Paint::Mild,
        Severity::Negligible | Severity::Unknown => Paint::Faint,
    }
}
