//! Clair's vulnerability report to ours.
//!
//! What Clair does not say stays empty. A report from Clair is about what Clair looks at: an image
//! without any package, or with packages of a distribution that it did not recognise, is not
//! called complete.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kuboard_oci::Digest;
use kuboard_vuln::{
    DatabaseStamp, Distribution, Ecosystem, Epss, Finding, ImageIdentity, LayerReference, Outcome,
    Package, PlacedPackage, Problem, Rating, Reference, Report, Severity, SeverityScore, Source,
    Status, namespace, severity_rule,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    assemble::SCHEMA,
    report::clair::{
        self, CVSS_KEY, EPSS_KEY, Environment, KEV_KEY, Vulnerability, VulnerabilityReport,
    },
};

/// Findings that are taken over.
const MAX_FINDINGS: usize = 1_000_000;
const CLAIR: &str = "clair";

/// A report that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("clair's vulnerability report can't be read: {0}")]
pub struct MapError(#[from] serde_json::Error);

/// Reads Clair's document. `layers` are the image's, from the lowest up.
///
/// # Errors
/// It has another form.
pub fn report_of(
    document: &[u8],
    identity: &ImageIdentity,
    layers: &[LayerReference],
    now_ms: i64,
) -> Result<Report, MapError> {
    let mut value: Value = serde_json::from_slice(document)?;
    drop_nulls(&mut value);
    let document = VulnerabilityReport::deserialize(&value)?;
    let others = stated_aliases(&value);
    drop(value);
    let reading = Reading::of(&document, layers, others);
    let (findings, cut) = reading.findings();
    let mut problems = reading.problems;
    if cut {
        problems.push(problem(format!("more than {MAX_FINDINGS} findings; the others are left")));
    }
    let outcome = if document.packages.is_empty() {
        Outcome::Unsupported { reason: "clair found no packages".to_owned() }
    } else if problems.is_empty() {
        Outcome::Complete
    } else {
        problems.sort();
        problems.dedup();
        Outcome::Partial { problems }
    };
    let mut packages: Vec<PlacedPackage> = reading.placed.into_values().flatten().collect();
    packages.sort_by(|one, two| (&one.package, &one.path).cmp(&(&two.package, &two.path)));
    Ok(Report {
        schema: SCHEMA,
        image: identity.clone(),
        outcome,
        distribution: reading.distribution,
        end_of_life: None,
        layers: layers.to_vec(),
        packages,
        findings,
        suppressed: Vec::new(),
        database: DatabaseStamp::default(),
        scanned_ms: now_ms,
    })
}

/// Go writes `null` for what is empty.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(drop_nulls);
        }
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

fn problem(why: String) -> Problem {
    Problem { path: String::new(), by: CLAIR.to_owned(), why }
}

/// Newer Clairs state other ids beside the described fields, by the vulnerability's id:
/// `"Aliases": [{"space": "CVE", "name": "2024-1"}]`.
fn stated_aliases(document: &Value) -> BTreeMap<String, Vec<String>> {
    let all = document["vulnerabilities"].as_object().into_iter().flatten();
    let aliases = |one: &Value| -> Vec<String> {
        let stated = one["Aliases"].as_array().into_iter().flatten();
        let named = stated.filter_map(|alias| {
            let (space, name) = (alias["space"].as_str()?, alias["name"].as_str()?);
            (!space.contains("://")).then(|| format!("{space}-{name}"))
        });
        named.take(64).collect()
    };
    let stated = all.map(|(id, one)| (id.clone(), aliases(one)));
    stated.filter(|(_, aliases)| !aliases.is_empty()).collect()
}

/// The version that fixes it: plain, or for languages in a list like a query
/// (`fixed=1.2&introduced=1.0`), in which it may be missing.
fn fixed_in(text: &str) -> Option<String> {
    if !text.contains('=') {
        return some(text);
    }
    let parts = url::form_urlencoded::parse(text.as_bytes());
    parts.into_iter().find(|(name, _)| name == "fixed").and_then(|(_, value)| some(&value))
}

struct Reading<'a> {
    document: &'a VulnerabilityReport,
    /// Other ids, by Clair's id.
    others: BTreeMap<String, Vec<String>>,
    distribution: Option<Distribution>,
    /// By Clair's id.
    placed: BTreeMap<&'a str, Vec<PlacedPackage>>,
    problems: Vec<Problem>,
}

impl<'a> Reading<'a> {
    fn of(
        document: &'a VulnerabilityReport,
        layers: &[LayerReference],
        others: BTreeMap<String, Vec<String>>,
    ) -> Self {
        let distribution = document.distributions.values().next().map(distribution);
        let mut reading =
            Self { document, others, distribution, placed: BTreeMap::new(), problems: Vec::new() };
        for (id, package) in &document.packages {
            let none = [Environment::default()];
            let environments = document.environments.get(id).map_or(&none[..], Vec::as_slice);
            for environment in environments {
                reading.place(id, package, environment, layers);
            }
        }
        reading
    }

    fn place(
        &mut self,
        id: &'a str,
        package: &clair::Package,
        environment: &Environment,
        layers: &[LayerReference],
    ) {
        let Some(ecosystem) = self.ecosystem(environment) else {
            let why = format!("the package database {:?} is unknown", environment.package_db);
            self.problems.push(problem(why));
            return;
        };
        let home = self.distribution.as_ref().and_then(namespace::of_distribution);
        if ecosystem.is_os() && home.is_none() {
            let why = "clair found packages of a distribution that it has no advisories for";
            self.problems.push(problem(why.to_owned()));
        }
        let digest: Option<Digest> = environment.introduced_in.parse().ok();
        let layer = layers.iter().position(|layer| Some(layer.digest) == digest).unwrap_or(0);
        let mut own = Package::new(ecosystem, &package.name, &package.version);
        own.arch = some(&package.arch);
        own.module = some(&package.module);
        own.source = package
            .source
            .as_ref()
            .filter(|source| !source.name.is_empty())
            .map(|source| Source { name: source.name.clone(), version: source.version.clone() })
            .filter(|source| source.name != own.name || source.version != own.version);
        let db = environment.package_db.as_str();
        let path = match db.split_once(':') {
            Some((kind, path)) if !kind.contains('/') => path,
            _ => db,
        };
        self.placed.entry(id).or_default().push(PlacedPackage {
            package: own,
            path: path.trim_start_matches('/').to_owned(),
            by: CLAIR.to_owned(),
            layer: u32::try_from(layer).unwrap_or(u32::MAX),
            owned: false,
        });
    }

    /// What kind of package it is, by where it was found, whose repository it is from, or whose
    /// distribution it belongs to.
    fn ecosystem(&self, environment: &Environment) -> Option<Ecosystem> {
        let db = environment.package_db.as_str();
        let (kind, path) = db.split_once(':').unwrap_or(("", db));
        let by_kind = match kind {
            "go" => Some(Ecosystem::Golang),
            "python" => Some(Ecosystem::Pypi),
            "nodejs" => Some(Ecosystem::Npm),
            "maven" | "java" => Some(Ecosystem::Maven),
            "ruby" => Some(Ecosystem::Gem),
            "sqlite" | "ndb" | "bdb" => Some(Ecosystem::Rpm),
            _ => None,
        };
        let by_path = || {
            [("lib/dpkg", Ecosystem::Deb), ("lib/apk", Ecosystem::Apk), ("lib/rpm", Ecosystem::Rpm)]
                .into_iter()
                .find(|(part, _)| path.contains(part))
                .map(|(_, ecosystem)| ecosystem)
        };
        let by_repository = || {
            let ids = environment.repository_ids.iter();
            let names = ids.filter_map(|id| self.document.repository.get(id));
            names.map(|one| one.name.as_str()).find_map(|name| {
                Some(match name {
                    "go" => Ecosystem::Golang,
                    "pypi" => Ecosystem::Pypi,
                    "npm" => Ecosystem::Npm,
                    "maven" => Ecosystem::Maven,
                    "rubygems" => Ecosystem::Gem,
                    "crates.io" => Ecosystem::Cargo,
                    "nuget" => Ecosystem::Nuget,
                    "packagist" => Ecosystem::Composer,
                    _ => return None,
                })
            })
        };
        let by_distribution = || {
            let did = self.document.distributions.get(&environment.distribution_id)?.did.as_str();
            Some(match did {
                "debian" | "ubuntu" => Ecosystem::Deb,
                "alpine" | "wolfi" | "chainguard" => Ecosystem::Apk,
                "" => return None,
                _ => Ecosystem::Rpm,
            })
        };
        by_kind.or_else(by_path).or_else(by_repository).or_else(by_distribution)
    }

    /// The findings in a report's order, and whether some were left.
    fn findings(&self) -> (Vec<Finding>, bool) {
        let home = self.distribution.as_ref().and_then(namespace::of_distribution);
        let mut findings = Vec::new();
        let mut cut = false;
        for (package, ids) in &self.document.package_vulnerabilities {
            let places = self.placed.get(package.as_str()).map_or(&[][..], Vec::as_slice);
            for id in ids {
                let Some(vulnerability) = self.document.vulnerabilities.get(id) else { continue };
                for placed in places {
                    if findings.len() >= MAX_FINDINGS {
                        cut = true;
                        break;
                    }
                    findings.push(self.finding(id, vulnerability, placed, home.as_deref()));
                }
            }
        }
        findings.sort_by(|one, two| {
            (two.severity.cmp(&one.severity))
                .then_with(|| one.package.cmp(&two.package))
                .then_with(|| one.id.cmp(&two.id))
                .then_with(|| one.path.cmp(&two.path))
                .then_with(|| two.fixed_in.len().cmp(&one.fixed_in.len()))
        });
        let mut seen = HashSet::new();
        let key = |one: &Finding| (one.id.clone(), one.package.clone(), one.path.clone());
        findings.retain(|finding| seen.insert(key(finding)));
        (findings, cut)
    }

    fn finding(
        &self,
        id: &str,
        vulnerability: &Vulnerability,
        placed: &PlacedPackage,
        home: Option<&str>,
    ) -> Finding {
        let ecosystem = placed.package.ecosystem;
        let space = namespace::of_language(ecosystem).or(home).unwrap_or_default();
        let mut scores = self.scores(id);
        if !vulnerability.severity.is_empty() {
            let source = vulnerability.updater.clone();
            let value = vulnerability.severity.clone();
            let rating = rating(&value).unwrap_or(Rating::Word);
            scores.insert(0, SeverityScore { source, rating, value });
        }
        let severity = severity(&vulnerability.normalized_severity);
        let mut links: Vec<&str> = vulnerability.links.split_whitespace().collect();
        links.retain(|url| url.starts_with("https://") || url.starts_with("http://"));
        let mut seen = HashSet::new();
        links.retain(|url| seen.insert(*url));
        let references = links.into_iter().take(64);
        let reference = |url: &str| Reference { kind: String::new(), url: url.to_owned() };
        let fixed = fixed_in(&vulnerability.fixed_in_version);
        let (name, aliases) = self.names(id, vulnerability);
        Finding {
            id: name,
            aliases,
            source: vulnerability.updater.clone(),
            advisory: vulnerability.name.clone(),
            namespace: space.to_owned(),
            package: placed.package.clone(),
            path: placed.path.clone(),
            layer: placed.layer,
            status: if fixed.is_some() { Status::Fixed } else { Status::Affected },
            fixed_in: fixed.into_iter().collect(),
            severity,
            severity_source: match severity {
                Severity::Unknown => String::new(),
                _ => vulnerability.updater.clone(),
            },
            scores,
            epss: self.epss(id),
            known_exploited: self.known_exploited(id),
            summary: String::new(),
            details: vulnerability.description.clone(),
            cwes: Vec::new(),
            references: references.map(reference).collect(),
            published_ms: time(&vulnerability.issued),
            modified_ms: None,
            first_seen_ms: None,
        }
    }

    /// The CVE if there is one, and all other ids: those that Clair states, and those that it only
    /// links to.
    fn names(&self, id: &str, vulnerability: &Vulnerability) -> (String, Vec<String>) {
        const OSV: &str = "https://osv.dev/vulnerability/";
        let own = &vulnerability.name;
        let linked = vulnerability.links.split_whitespace();
        let linked = linked.filter_map(|link| link.strip_prefix(OSV)).map(str::to_owned);
        let stated = self.others.get(id).into_iter().flatten().cloned();
        let mut all: BTreeSet<String> = stated.chain(linked.take(64)).collect();
        all.insert(own.clone());
        let is_cve = |id: &&String| id.starts_with("CVE-");
        let name = if is_cve(&own) { own } else { all.iter().find(is_cve).unwrap_or(own) }.clone();
        all.remove(&name);
        (name, all.into_iter().collect())
    }

    /// The objects of an enrichment for a vulnerability.
    fn enrichment(&self, key: &str, id: &str) -> impl Iterator<Item = &Value> {
        let maps = self.document.enrichments.get(key).into_iter().flatten();
        let id = id.to_owned();
        maps.filter_map(move |map| map.get(&id)?.as_array()).flatten()
    }

    fn scores(&self, id: &str) -> Vec<SeverityScore> {
        let vectors = self.enrichment(CVSS_KEY, id).filter_map(|one| {
            let value = one["vectorString"].as_str()?;
            let rating = rating(value).unwrap_or(match one["version"].as_str()? {
                "2.0" => Rating::CvssV2,
                "4.0" => Rating::CvssV4,
                _ => Rating::CvssV3,
            });
            Some(SeverityScore { source: "nvd".to_owned(), rating, value: value.to_owned() })
        });
        vectors.filter(|score| severity_rule::base_score(score).is_some()).take(16).collect()
    }

    fn epss(&self, id: &str) -> Option<Epss> {
        let figures = self.enrichment(EPSS_KEY, id).next()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let part = |name: &str| -> Option<u32> {
            Some((figures[name].as_f64()?.clamp(0.0, 1.0) * 100_000.0).round() as u32)
        };
        Some(Epss { probability: part("epss")?, percentile: part("percentile")? })
    }

    fn known_exploited(&self, id: &str) -> Option<String> {
        let entry = self.enrichment(KEV_KEY, id).next()?;
        entry["date_added"].as_str().and_then(some)
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn rating(vector: &str) -> Option<Rating> {
    match vector.split('/').next()? {
        "CVSS:3.0" | "CVSS:3.1" => Some(Rating::CvssV3),
        "CVSS:4.0" => Some(Rating::CvssV4),
        _ => None,
    }
}

fn severity(name: &str) -> Severity {
    // Clair's names are the words of our steps.
    severity_rule::of_word(name).unwrap_or(Severity::Unknown)
}

/// The year 1 stands for an unknown time.
fn time(text: &str) -> Option<i64> {
    let time = text.parse::<jiff::Timestamp>().ok()?.as_millisecond();
    (time >= 0).then_some(time)
}

fn distribution(given: &clair::Distribution) -> Distribution {
    Distribution {
        id: given.did.clone(),
        version_id: given.version_id.clone(),
        version: given.version.clone(),
        codename: given.version_code_name.clone(),
        name: given.name.clone(),
        pretty_name: given.pretty_name.clone(),
        cpe: given.cpe.clone(),
        ..Distribution::default()
    }
}
