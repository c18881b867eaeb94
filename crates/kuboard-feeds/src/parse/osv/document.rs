//! One OSV document to an advisory.

use kuboard_vuln::{
    Advisory, Affected, Bound, Ecosystem, Qualifiers, SeverityScore, Status, namespace,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ranges::{self, Event};
use super::{DocumentError, Feed};
use crate::parse::{MAX_AFFECTED, MAX_VERSIONS, text};

/// Symbols of one package are kept up to this number.
const MAX_SYMBOLS: usize = 2000;

#[derive(Deserialize)]
struct Document<'a> {
    id: String,
    modified: Option<String>,
    published: Option<String>,
    withdrawn: Option<String>,
    aliases: Option<Vec<String>>,
    upstream: Option<Vec<String>>,
    related: Option<Vec<String>>,
    summary: Option<String>,
    details: Option<String>,
    severity: Option<Vec<Severity>>,
    affected: Option<Vec<Package<'a>>>,
    references: Option<Vec<Link>>,
    #[serde(borrow)]
    database_specific: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Severity {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    score: String,
}

#[derive(Deserialize)]
struct Link {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    url: String,
}

#[derive(Deserialize)]
struct Package<'a> {
    package: Option<Name>,
    severity: Option<Vec<Severity>>,
    ranges: Option<Vec<Span>>,
    versions: Option<Vec<String>>,
    #[serde(borrow)]
    ecosystem_specific: Option<&'a RawValue>,
    #[serde(borrow)]
    database_specific: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Name {
    #[serde(default)]
    ecosystem: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Span {
    #[serde(rename = "type", default)]
    kind: String,
    events: Option<Vec<Point>>,
}

#[derive(Deserialize)]
struct Point {
    introduced: Option<String>,
    fixed: Option<String>,
    last_affected: Option<String>,
}

/// What the sources add of their own, as far as it is used; anything else there is their affair.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Specific {
    severity: Option<String>,
    urgency: Option<String>,
    cwe_ids: Option<Vec<String>>,
    cwes: Option<Vec<Cwe>>,
    imports: Option<Vec<Import>>,
}

#[derive(Deserialize)]
struct Cwe {
    #[serde(rename = "cweId", default)]
    id: String,
}

#[derive(Deserialize)]
struct Import {
    #[serde(default)]
    path: String,
    symbols: Option<Vec<String>>,
}

impl Specific {
    /// Its shape is not laid down anywhere: what does not fit says nothing.
    fn of(raw: Option<&RawValue>) -> Self {
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }
}

pub(super) fn parse(bytes: &[u8], feed: &Feed<'_>) -> Result<Option<Advisory>, DocumentError> {
    Ok(parse_any(bytes, feed)?.1)
}

/// The id, and the advisory if anything is left of it.
pub(super) fn parse_any(
    bytes: &[u8],
    feed: &Feed<'_>,
) -> Result<(String, Option<Advisory>), DocumentError> {
    let document: Document<'_> = serde_json::from_slice(bytes)?;
    if !text::is_id(&document.id) {
        return Err(DocumentError::Id);
    }
    let rater = rater(&document.id);
    let summary = document.summary.as_deref().unwrap_or_default();
    let withdrawn_ms = document.withdrawn.as_deref().and_then(text::time_ms);
    let mut affected = Vec::new();
    for package in document.affected.iter().flatten() {
        if affected.len() >= MAX_AFFECTED {
            return Err(DocumentError::TooMany);
        }
        affected.extend(convert(package, feed, &rater, summary)?);
    }
    if affected.is_empty() && withdrawn_ms.is_none() {
        return Ok((document.id, None));
    }
    let specific = Specific::of(document.database_specific);
    let mut severities = scores(document.severity.as_deref(), &rater);
    severities.extend(specific.severity.as_deref().and_then(|word| text::word(&rater, word)));
    let of_system = affected.iter().any(|one| one.ecosystem.is_os());
    if of_system {
        severities.extend(leading_word(summary).and_then(|word| text::word(&rater, word)));
    }
    severities.dedup();
    let related = ids(document.related.as_deref());
    let links = document.references.iter().flatten();
    let mut advisory = Advisory {
        source: feed.source.to_owned(),
        aliases: ids(document.aliases.as_deref()),
        upstream: ids(document.upstream.as_deref()),
        related,
        summary: text::line(summary),
        details: text::cut(document.details.as_deref().unwrap_or_default(), text::MAX_DETAILS),
        published_ms: document.published.as_deref().and_then(text::time_ms),
        modified_ms: document.modified.as_deref().and_then(text::time_ms),
        withdrawn_ms,
        severities,
        cwes: cwes(&specific, document.affected.as_deref()),
        references: text::references(links.map(|link| (link.kind.as_str(), link.url.as_str()))),
        affected,
        id: document.id.clone(),
    };
    if of_system {
        name_the_treated(&mut advisory);
    }
    Ok((document.id, Some(advisory)))
}

/// Advisories of distributions name the vulnerabilities they treat in `upstream`; older ones do so
/// in `related`.
fn name_the_treated(advisory: &mut Advisory) {
    let known = |ids: &[String]| ids.iter().any(|id| text::is_cve(id));
    if !known(&advisory.upstream) && !known(&advisory.aliases) && !text::is_cve(&advisory.id) {
        let (cves, others) = std::mem::take(&mut advisory.related)
            .into_iter()
            .partition::<Vec<_>, _>(|id| text::is_cve(id));
        advisory.upstream.extend(cves);
        advisory.related = others;
    }
}

/// Ids of others. `UBUNTU-CVE-2021-3782` is a name of `CVE-2021-3782` in one data base, and only
/// the latter is known elsewhere.
fn ids(list: Option<&[String]>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for id in list.unwrap_or_default().iter().take(text::MAX_IDS) {
        let id = ["UBUNTU-", "DEBIAN-", "ALPINE-"]
            .iter()
            .find_map(|prefix| id.strip_prefix(prefix).filter(|rest| text::is_cve(rest)))
            .unwrap_or(id);
        if text::is_id(id) && seen.insert(id) {
            out.push(id.to_owned());
        }
    }
    out
}

fn cwes(specific: &Specific, packages: Option<&[Package<'_>]>) -> Vec<String> {
    let mut out: Vec<String> = specific.cwe_ids.iter().flatten().cloned().collect();
    out.extend(specific.cwes.iter().flatten().map(|cwe| cwe.id.clone()));
    for package in packages.unwrap_or_default().iter().take(64) {
        let specific = Specific::of(package.database_specific);
        out.extend(specific.cwe_ids.into_iter().flatten());
        out.extend(specific.cwes.into_iter().flatten().map(|cwe| cwe.id));
    }
    out.retain(|cwe| text::is_cwe(cwe));
    out.sort();
    out.dedup();
    out.truncate(64);
    out
}

/// Who speaks in a document, by its id.
fn rater(id: &str) -> String {
    let prefix = id.split('-').next().unwrap_or_default();
    let name = match prefix {
        "PYSEC" => "pypa",
        "MAL" => "ossf",
        "USN" | "UBUNTU" | "LSN" => "ubuntu",
        "DSA" | "DLA" | "DEBIAN" | "DTSA" => "debian",
        "ALSA" | "ALBA" | "ALEA" => "alma",
        "RLSA" | "RXSA" | "RLBA" | "RLEA" => "rocky",
        "CGA" => "chainguard",
        "BIT" => "bitnami",
        "RHSA" | "RHBA" | "RHEA" => "redhat",
        "openSUSE" => "suse",
        other => return text::cut(&other.to_ascii_lowercase(), 32),
    };
    name.to_owned()
}

fn scores(list: Option<&[Severity]>, rater: &str) -> Vec<SeverityScore> {
    let mut out: Vec<SeverityScore> = Vec::new();
    for severity in list.unwrap_or_default().iter().take(32) {
        let score = match severity.kind.as_str() {
            "CVSS_V2" | "CVSS_V3" | "CVSS_V4" => text::vector(rater, &severity.score),
            "Ubuntu" => text::word("ubuntu", &severity.score),
            _ => text::word(rater, &severity.score),
        };
        if let Some(score) = score
            && !out.contains(&score)
        {
            out.push(score);
        }
    }
    out
}

/// `Important: firefox security update`.
fn leading_word(summary: &str) -> Option<&str> {
    let (word, _) = summary.split_once(':')?;
    ["Low", "Moderate", "Important", "Critical"].contains(&word).then_some(word)
}

fn convert(
    package: &Package<'_>,
    feed: &Feed<'_>,
    rater: &str,
    summary: &str,
) -> Result<Option<Affected>, DocumentError> {
    let Some(name) = &package.package else { return Ok(None) };
    let family = name.ecosystem.split(':').next().unwrap_or_default();
    if feed.ecosystem.is_some_and(|only| only != family) {
        return Ok(None);
    }
    let Some((namespace, ecosystem, by_source)) = namespace::of_osv(&name.ecosystem) else {
        return Ok(None);
    };
    if !text::is_name(&name.name) || !text::is_name(&namespace) {
        return Err(DocumentError::Name);
    }
    let mut all = Vec::new();
    for span in package.ranges.iter().flatten() {
        if matches!(span.kind.as_str(), "SEMVER" | "ECOSYSTEM") {
            all.extend(ranges::pair(ecosystem.scheme(), events(span)?));
        }
    }
    let versions: Vec<String> = package.versions.iter().flatten().cloned().collect();
    if all.len() > MAX_VERSIONS || versions.len() > MAX_VERSIONS {
        return Err(DocumentError::TooMany);
    }
    if !versions.iter().all(|version| text::is_name(version)) {
        return Err(DocumentError::Version);
    }
    if all.is_empty() && versions.is_empty() {
        // Commits only, or nothing at all: neither says which versions.
        return Ok(None);
    }
    let specific = Specific::of(package.ecosystem_specific);
    let fixed = all.iter().any(|range| matches!(range.until, Bound::Fixed(_)));
    let ended = specific.urgency.as_deref() == Some("end-of-life");
    let status = match (fixed, ended) {
        (true, _) => Status::Fixed,
        (false, true) => Status::EndOfLife,
        (false, false) => Status::Affected,
    };
    let mut severities = scores(package.severity.as_deref(), rater);
    if ecosystem.is_os() && !ended {
        let words = [&specific.urgency, &specific.severity].into_iter().flatten();
        severities.extend(words.filter_map(|word| text::word(rater, word)));
    }
    let module = if ecosystem == Ecosystem::Rpm { module(summary, &all) } else { String::new() };
    Ok(Some(Affected {
        namespace,
        package: canonical(ecosystem, &name.name),
        ecosystem,
        by_source,
        status,
        ranges: all,
        versions,
        qualifiers: Qualifiers { module, ..Qualifiers::default() },
        severities,
        symbols: symbols(&specific),
    }))
}

fn events(span: &Span) -> Result<Vec<Event>, DocumentError> {
    let points = span.events.as_deref().unwrap_or_default();
    if points.len() > MAX_VERSIONS {
        return Err(DocumentError::TooMany);
    }
    let mut out = Vec::with_capacity(points.len());
    for point in points {
        // One of them each; a point with more holds more events.
        out.extend(point.introduced.clone().map(Event::Introduced));
        out.extend(point.fixed.clone().map(Event::Fixed));
        out.extend(point.last_affected.clone().map(Event::LastAffected));
    }
    let sound = |event: &Event| match event {
        Event::Introduced(version) | Event::Fixed(version) | Event::LastAffected(version) => {
            text::is_name(version)
        }
    };
    if out.iter().all(sound) { Ok(out) } else { Err(DocumentError::Version) }
}

/// As packages of an inventory are named.
fn canonical(ecosystem: Ecosystem, name: &str) -> String {
    match ecosystem {
        Ecosystem::Pypi => {
            let mut out = String::with_capacity(name.len());
            for c in name.chars() {
                if !matches!(c, '-' | '_' | '.') {
                    out.push(c.to_ascii_lowercase());
                } else if !out.ends_with('-') {
                    out.push('-');
                }
            }
            out
        }
        Ecosystem::Composer => name.to_ascii_lowercase(),
        _ => name.to_owned(),
    }
}

/// `Moderate: mariadb:10.3 security update` is of the module stream `mariadb:10.3`, if its packages
/// are modular; the document says so nowhere else.
fn module(summary: &str, ranges: &[kuboard_vuln::Range]) -> String {
    let modular = ranges
        .iter()
        .any(|range| matches!(&range.until, Bound::Fixed(version) if version.contains(".module")));
    if !modular {
        return String::new();
    }
    let stream = |word: &&str| {
        word.split_once(':').is_some_and(|(name, stream)| {
            let sound = |part: &str| {
                !part.is_empty()
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b))
            };
            sound(name) && sound(stream)
        })
    };
    let mut words =
        summary.split_whitespace().map(|word| word.trim_end_matches(',')).filter(stream);
    match (words.next(), words.next()) {
        (Some(one), None) => one.to_owned(),
        _ => String::new(),
    }
}

fn symbols(specific: &Specific) -> Vec<String> {
    let mut out = Vec::new();
    for import in specific.imports.iter().flatten() {
        match import.symbols.as_deref() {
            None | Some([]) => out.push(import.path.clone()),
            Some(symbols) => {
                out.extend(symbols.iter().map(|symbol| format!("{}.{symbol}", import.path)));
            }
        }
    }
    out.retain(|symbol| text::is_name(symbol));
    out.truncate(MAX_SYMBOLS);
    out
}

#[cfg(test)]
mod tests {
    use super::{canonical, module};
    use kuboard_vuln::{Bound, Ecosystem, Range};

    #[test]
    fn modules_are_told_by_summaries() {
        let modular =
            Range { until: Bound::Fixed("1-1.module_el8+1".to_owned()), ..Range::default() };
        let plain = Range { until: Bound::Fixed("1-1.el8".to_owned()), ..Range::default() };
        for (summary, range, want) in [
            ("Moderate: mariadb:10.3 security update", &modular, "mariadb:10.3"),
            ("Moderate: mariadb:10.3 security update", &plain, ""),
            ("Moderate: virt:rhel and virt-devel:rhel update", &modular, ""),
            ("Moderate: httpd update", &modular, ""),
        ] {
            assert_eq!(module(summary, std::slice::from_ref(range)), want, "{summary}");
        }
    }

    #[test]
    fn python_names_are_normalised() {
        assert_eq!(canonical(Ecosystem::Pypi, "Zope.Interface__x"), "zope-interface-x");
    }

    #[test]
    fn vectors_are_told_from_words() {
        let list = [super::Severity { kind: "CVSS_V3".to_owned(), score: "7.5".to_owned() }];
        assert_eq!(super::scores(Some(&list), "x"), Vec::new());
    }
}
