//! The table of findings: a row each, with what else is known folded into it.

use std::io;

use kuboard_vuln::{Finding, Report};

use super::{charts, labels::Labels};
use crate::report::{
    counts, dates,
    text::{link, markup},
};

/// Links of a finding.
const MAX_LINKS: usize = 20;

pub(super) fn table(report: &Report, labels: &Labels, to: &mut dyn io::Write) -> io::Result<()> {
    writeln!(to, "<table id=\"findings\"><thead><tr>")?;
    for label in [
        labels.package,
        labels.vulnerability,
        labels.severity,
        labels.status,
        labels.installed,
        labels.fixed_in,
        labels.about,
    ] {
        writeln!(to, "<th scope=\"col\"><button type=\"button\">{label}</button></th>")?;
    }
    writeln!(to, "</tr></thead><tbody>")?;
    for finding in &report.findings {
        row(report, finding, labels, to)?;
    }
    writeln!(to, "</tbody></table>")
}

fn row(
    report: &Report,
    finding: &Finding,
    labels: &Labels,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let package = &finding.package;
    let word = counts::word(finding.severity);
    let rank = counts::STEPS.iter().position(|step| *step == finding.severity).unwrap_or(0);
    writeln!(to, "<tr data-severity=\"{word}\"><td>{}</td>", markup(&package.name))?;
    write!(to, "<td>{}", markup(&finding.id))?;
    if finding.known_exploited.is_some() {
        write!(to, " <b class=\"mark alarm\" title=\"{}\">KEV</b>", labels.exploited)?;
    }
    if let Some(epss) = finding.epss {
        write!(to, " <span class=\"mark\">EPSS {} %</span>", counts::percent(epss.probability))?;
    }
    writeln!(
        to,
        "</td><td class=\"{}\" data-rank=\"{rank}\">{} <span class=\"faint\">{}</span></td>",
        charts::class(finding.severity),
        labels.severities(finding.severity),
        markup(&finding.severity_source)
    )?;
    writeln!(
        to,
        "<td>{}</td><td>{}</td><td>{}</td><td><details><summary>{}</summary>",
        labels.statuses(finding.status),
        markup(&package.version),
        markup(&finding.fixed_in.join(", ")),
        markup(if finding.summary.is_empty() { labels.details } else { &finding.summary })
    )?;
    details(report, finding, labels, to)?;
    writeln!(to, "</details></td></tr>")
}

fn details(
    report: &Report,
    finding: &Finding,
    labels: &Labels,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    if !finding.details.is_empty() {
        writeln!(to, "<p class=\"text\">{}</p>", markup(&finding.details))?;
    }
    let layer = usize::try_from(finding.layer).ok().and_then(|index| report.layers.get(index));
    let layer = layer.map(|layer| layer.digest.to_string()).unwrap_or_default();
    let day = |ms: Option<i64>| ms.map(dates::day).unwrap_or_default();
    let exploited = finding.known_exploited.as_deref().unwrap_or_default();
    writeln!(to, "<dl>")?;
    for (label, value) in [
        (labels.path, finding.path.as_str()),
        (labels.layer, &layer),
        (labels.aliases, &finding.aliases.join(", ")),
        (labels.source, &format!("{} {}", finding.source, finding.advisory)),
        ("CWE", &finding.cwes.join(", ")),
        (labels.exploited, exploited),
        (labels.published, &day(finding.published_ms)),
        (labels.first_seen, &day(finding.first_seen_ms)),
    ] {
        super::fact(label, value, "", to)?;
    }
    for score in &finding.scores {
        super::fact(&markup(&score.source), &score.value, "", to)?;
    }
    writeln!(to, "</dl>")?;
    let links: Vec<_> = finding.references.iter().filter_map(|one| link(&one.url)).collect();
    if !links.is_empty() {
        writeln!(to, "<ul>")?;
        for url in links.into_iter().take(MAX_LINKS) {
            let url = markup(url);
            writeln!(
                to,
                "<li><a href=\"{url}\" rel=\"noopener noreferrer nofollow\">{url}</a></li>"
            )?;
        }
        writeln!(to, "</ul>")?;
    }
    Ok(())
}
