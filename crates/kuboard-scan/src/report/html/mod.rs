//! One page with the whole report: no request goes anywhere, and nothing in it runs but the few
//! lines of `page.js`, which the page's content security policy names by their hash.

mod charts;
mod labels;
mod rows;

use std::io;

use base64::{Engine, engine::general_purpose::STANDARD};
use kuboard_oci::Digest;
use kuboard_vuln::{Outcome, Report};

use self::labels::Labels;
use super::{WriteOptions, counts, dates, targets, text::markup};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Problems that are listed.
const MAX_PROBLEMS: usize = 200;
/// Days after which the advisories are called old.
const OLD_DAYS: u64 = 7;

pub(super) fn write(
    report: &Report,
    options: &WriteOptions<'_>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let labels = labels::of(options.lang);
    let page = Page { report, options, labels };
    page.head(to)?;
    page.banner(to)?;
    page.facts(to)?;
    if !report.findings.is_empty() {
        page.overview(to)?;
    }
    page.findings(to)?;
    page.suppressed(to)?;
    page.contents(to)?;
    writeln!(to, "<footer>{} {}</footer>", labels.made_by, markup(options.tool_version))?;
    writeln!(to, "</main>\n<script>{SCRIPT}</script>\n</body>\n</html>")
}

/// A content security policy's name for an inline text.
fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Digest::sha256(text.as_bytes()).bytes()))
}

struct Page<'a> {
    report: &'a Report,
    options: &'a WriteOptions<'a>,
    labels: &'static Labels,
}

impl Page<'_> {
    fn head(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let labels = self.labels;
        let name = markup(&self.report.image.name);
        writeln!(
            to,
            "<!DOCTYPE html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">",
            labels.lang
        )?;
        writeln!(
            to,
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
             {}; script-src {}; base-uri 'none'; form-action 'none'\">",
            source(STYLE),
            source(SCRIPT)
        )?;
        writeln!(to, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
        writeln!(to, "<meta name=\"referrer\" content=\"no-referrer\">")?;
        writeln!(to, "<title>{name} · {}</title>\n<style>{STYLE}</style>\n</head>", labels.title)?;
        writeln!(to, "<body>\n<main>\n<h1>{}<small>{name}</small></h1>", labels.title)
    }

    /// What was not read, before anything else.
    fn banner(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let labels = self.labels;
        match &self.report.outcome {
            Outcome::Complete => Ok(()),
            Outcome::Unsupported { reason } => writeln!(
                to,
                "<section class=\"banner\" role=\"alert\"><h2>{}</h2><p>{}</p></section>",
                labels.unsupported,
                markup(reason)
            ),
            Outcome::Partial { problems } => {
                writeln!(
                    to,
                    "<section class=\"banner\" role=\"alert\"><h2>{}</h2><p>{}</p><ul>",
                    labels.partial, labels.partial_means
                )?;
                for problem in problems.iter().take(MAX_PROBLEMS) {
                    writeln!(
                        to,
                        "<li><code>{}</code> {} <span class=\"faint\">{}</span></li>",
                        markup(&problem.path),
                        markup(&problem.why),
                        markup(&problem.by)
                    )?;
                }
                let more = problems.len().saturating_sub(MAX_PROBLEMS);
                if more > 0 {
                    writeln!(to, "<li>+ {more}</li>")?;
                }
                writeln!(to, "</ul></section>")
            }
        }
    }

    fn facts(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let (report, labels) = (self.report, self.labels);
        let image = &report.image;
        writeln!(to, "<section><dl class=\"facts\">")?;
        let digest = image.digest.as_ref().map(ToString::to_string).unwrap_or_default();
        let config = image.config.as_ref().map(ToString::to_string).unwrap_or_default();
        let outcome = match report.outcome {
            Outcome::Complete => labels.complete,
            Outcome::Partial { .. } => labels.partial,
            Outcome::Unsupported { .. } => labels.unsupported,
        };
        let created = image.created_ms.map(dates::minute).unwrap_or_default();
        for (label, value) in [
            (labels.image, image.name.as_str()),
            (labels.digest, &digest),
            (labels.config, &config),
            (labels.platform, &image.platform),
            (labels.created, &created),
            (labels.packages, &report.packages.len().to_string()),
            (labels.layers, &report.layers.len().to_string()),
            (labels.scanned, &dates::minute(report.scanned_ms)),
            (labels.outcome, outcome),
        ] {
            fact(label, value, "", to)?;
        }
        self.distribution(to)?;
        self.database(to)?;
        writeln!(to, "</dl></section>")
    }

    fn distribution(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let labels = self.labels;
        let Some(distribution) = &self.report.distribution else {
            return fact(labels.distribution, labels.none, "", to);
        };
        let name = match distribution.pretty_name.as_str() {
            "" => format!("{} {}", distribution.id, distribution.version_id),
            pretty => pretty.to_owned(),
        };
        match &self.report.end_of_life {
            Some(end) if *end <= dates::day(self.options.now_ms) => {
                let value = format!("{name} · {} {end}", labels.end_of_life);
                fact(labels.distribution, &value, "alarm", to)
            }
            Some(end) => {
                fact(labels.distribution, &format!("{name} · {} {end}", labels.supported), "", to)
            }
            None => fact(labels.distribution, &name, "", to),
        }
    }

    fn database(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let (labels, stamp) = (self.labels, &self.report.database);
        if stamp.built_ms == 0 {
            return fact(labels.database, labels.none, "alarm", to);
        }
        let days = dates::days(stamp.built_ms, self.options.now_ms);
        let built = dates::minute(stamp.built_ms);
        if days >= OLD_DAYS {
            let value = format!("#{} · {built} · {}", stamp.generation, labels.out_of_date);
            return fact(labels.database, &value, "alarm", to);
        }
        fact(labels.database, &format!("#{} · {built}", stamp.generation), "", to)
    }

    fn overview(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let (report, labels) = (self.report, self.labels);
        let by_severity = counts::of(&report.findings);
        writeln!(to, "<section class=\"overview\">")?;
        writeln!(to, "<figure><figcaption>{}</figcaption>", labels.by_severity)?;
        charts::donut(&by_severity, labels, to)?;
        writeln!(
            to,
            "</figure>\n<figure class=\"wide\"><figcaption>{}</figcaption>",
            labels.by_package
        )?;
        charts::packages(&report.findings, to)?;
        writeln!(to, "</figure>\n</section>")
    }

    fn findings(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let (report, labels) = (self.report, self.labels);
        writeln!(to, "<section><h2>{} ({})</h2>", labels.findings, report.findings.len())?;
        if report.findings.is_empty() {
            let text = match report.outcome {
                Outcome::Complete if report.packages.is_empty() => labels.no_packages,
                Outcome::Complete => labels.clean,
                Outcome::Partial { .. } => labels.clean_as_read,
                Outcome::Unsupported { .. } => labels.not_looked_for,
            };
            return writeln!(to, "<p>{text}</p></section>");
        }
        writeln!(
            to,
            "<p class=\"filter\"><input id=\"text\" type=\"search\" placeholder=\"{0}\" \
             aria-label=\"{0}\"> <select id=\"severity\" aria-label=\"{1}\"><option value=\"\">{2}\
             </option>",
            labels.filter, labels.severity, labels.all
        )?;
        for (step, count) in counts::of(&report.findings) {
            if count > 0 {
                let (word, label) = (counts::word(step), labels.severities(step));
                writeln!(to, "<option value=\"{word}\">{label} ({count})</option>")?;
            }
        }
        writeln!(to, "</select></p>")?;
        rows::table(report, labels, to)?;
        writeln!(to, "</section>")
    }

    fn suppressed(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let (report, labels) = (self.report, self.labels);
        if report.suppressed.is_empty() {
            return Ok(());
        }
        writeln!(
            to,
            "<section><h2>{} ({})</h2><table><thead><tr><th>{}</th><th>{}</th><th>{}</th>\
             <th>{}</th></tr></thead><tbody>",
            labels.suppressed,
            report.suppressed.len(),
            labels.package,
            labels.vulnerability,
            labels.severity,
            labels.reason
        )?;
        for one in &report.suppressed {
            let finding = &one.finding;
            writeln!(
                to,
                "<tr><td>{} {}</td><td>{}</td><td class=\"{}\">{}</td><td>{}</td></tr>",
                markup(&finding.package.name),
                markup(&finding.package.version),
                markup(&finding.id),
                charts::class(finding.severity),
                labels.severities(finding.severity),
                markup(&counts::reason(&one.suppression))
            )?;
        }
        writeln!(to, "</tbody></table></section>")
    }

    /// What the image contains, by target.
    fn contents(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let labels = self.labels;
        let targets = targets::of(self.report);
        if targets.is_empty() {
            return Ok(());
        }
        writeln!(
            to,
            "<section><h2>{}</h2><table><thead><tr><th>{}</th><th>{}</th><th>{}</th></tr></thead>\
             <tbody>",
            labels.contents, labels.target, labels.packages, labels.findings
        )?;
        for target in targets {
            writeln!(
                to,
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                markup(&target.title(self.report)),
                target.packages,
                target.findings.len()
            )?;
        }
        writeln!(to, "</tbody></table></section>")
    }
}

fn fact(label: &str, value: &str, class: &str, to: &mut dyn io::Write) -> io::Result<()> {
    if value.is_empty() {
        return Ok(());
    }
    writeln!(to, "<div><dt>{label}</dt><dd class=\"{class}\">{}</dd></div>", markup(value))
}
