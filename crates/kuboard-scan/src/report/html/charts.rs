//! Charts as inline SVG. Colours come from the style sheet, by class.

use std::{collections::HashMap, io};

use kuboard_vuln::{Finding, Severity};

use super::labels::Labels;
use crate::report::{
    counts::{self, STEPS},
    text::{cut, markup},
};

/// Bars of the chart of packages.
const BARS: usize = 12;

/// The class that has a severity's colour.
pub(super) const fn class(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::High => "high",
        Severity::Medium => "medium",
        Severity::Low => "low",
        Severity::Negligible => "negligible",
        Severity::Unknown => "unknown",
    }
}

/// How large a part is, in permyriads of the whole.
fn share(part: usize, whole: usize) -> usize {
    part.saturating_mul(10_000).checked_div(whole).unwrap_or(0)
}

/// A ring whose arcs are the severities, and a legend.
pub(super) fn donut(
    counts: &[(Severity, usize)],
    labels: &Labels,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let total: usize = counts.iter().map(|(_, count)| count).sum();
    writeln!(
        to,
        "<svg viewBox=\"0 0 320 170\" role=\"img\" aria-label=\"{}\">",
        labels.by_severity
    )?;
    let mut turned = 0;
    for (severity, count) in counts.iter().filter(|(_, count)| *count > 0) {
        let share = share(*count, total);
        // The path length is set to 10000, so that shares are dashes.
        writeln!(
            to,
            "<circle class=\"arc {}\" cx=\"80\" cy=\"85\" r=\"56\" pathLength=\"10000\" \
             stroke-dasharray=\"{share} 10000\" stroke-dashoffset=\"-{turned}\" \
             transform=\"rotate(-90 80 85)\"/>",
            class(*severity)
        )?;
        turned += share;
    }
    writeln!(to, "<text class=\"sum\" x=\"80\" y=\"93\" text-anchor=\"middle\">{total}</text>")?;
    for (line, (severity, count)) in counts.iter().enumerate() {
        let y = 28 + line * 24;
        writeln!(
            to,
            "<rect class=\"{}\" x=\"170\" y=\"{}\" width=\"12\" height=\"12\" rx=\"2\"/>\
             <text x=\"190\" y=\"{y}\">{}</text>\
             <text x=\"312\" y=\"{y}\" text-anchor=\"end\">{count}</text>",
            class(*severity),
            y - 11,
            labels.severities(*severity)
        )?;
    }
    writeln!(to, "</svg>")
}

/// A bar for each of the packages with the most severe and the most findings.
pub(super) fn packages(findings: &[Finding], to: &mut dyn io::Write) -> io::Result<()> {
    let mut by_name: HashMap<&str, Vec<&Finding>> = HashMap::new();
    for finding in findings {
        by_name.entry(&finding.package.name).or_default().push(finding);
    }
    let mut bars: Vec<_> = by_name
        .into_iter()
        .map(|(name, findings)| (name, counts::of(findings.iter().copied()), findings.len()))
        .collect();
    bars.sort_by_key(|(name, counts, sum)| {
        let first: Vec<_> =
            counts.iter().take(2).map(|(_, count)| std::cmp::Reverse(*count)).collect();
        (first, std::cmp::Reverse(*sum), *name)
    });
    bars.truncate(BARS);
    let longest = bars.iter().map(|(_, _, sum)| *sum).max().unwrap_or(1);
    writeln!(to, "<svg viewBox=\"0 0 560 {}\" role=\"img\">", bars.len() * 22 + 4)?;
    for (line, (name, counts, sum)) in bars.iter().enumerate() {
        let y = line * 22 + 4;
        writeln!(
            to,
            "<text x=\"190\" y=\"{}\" text-anchor=\"end\">{}</text>",
            y + 13,
            markup(&cut(name, 26))
        )?;
        let mut x = 200;
        for step in STEPS {
            let count = counts.iter().find(|(one, _)| *one == step).map_or(0, |(_, count)| *count);
            let width = share(count, longest) * 310 / 10_000;
            if count > 0 {
                let width = width.max(2);
                writeln!(
                    to,
                    "<rect class=\"{}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"16\"/>",
                    class(step)
                )?;
                x += width;
            }
        }
        writeln!(to, "<text x=\"{}\" y=\"{}\">{sum}</text>", x + 6, y + 13)?;
    }
    writeln!(to, "</svg>")
}
