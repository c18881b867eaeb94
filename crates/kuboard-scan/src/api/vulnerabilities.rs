//! Advisories to Clair's vulnerabilities: one for each package that an advisory speaks of.

use kuboard_vuln::{Advisory, Affected, Bound, Ecosystem, Severity, severity_rule};

use crate::report::{
    clair::{Distribution, Package, Repository, Vulnerability},
    dates, text,
};

/// What Go writes for a time that is not known.
pub(super) const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// Clair's name of a severity.
pub(super) const fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Unknown => "Unknown",
        Severity::Negligible => "Negligible",
        Severity::Low => "Low",
        Severity::Medium => "Medium",
        Severity::High => "High",
        Severity::Critical => "Critical",
    }
}

/// The severity that a name of Clair's means.
pub(super) fn severity_of(name: &str) -> Severity {
    let all =
        [Severity::Negligible, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    let named = all.into_iter().find(|one| severity_name(*one).eq_ignore_ascii_case(name));
    named.unwrap_or(Severity::Unknown)
}

/// All vulnerabilities of an advisory.
pub(super) fn of_advisory(advisory: &Advisory) -> Vec<Vulnerability> {
    let all = advisory.affected.iter().enumerate();
    all.map(|(number, affected)| of_affected(advisory, number, affected)).collect()
}

/// What is left to say of an advisory that is gone.
pub(super) fn of_id(source: &str, id: &str) -> Vulnerability {
    Vulnerability {
        id: format!("{source}/{id}"),
        updater: source.to_owned(),
        name: id.to_owned(),
        issued: NO_TIME.to_owned(),
        normalized_severity: severity_name(Severity::Unknown).to_owned(),
        ..Vulnerability::default()
    }
}

fn of_affected(advisory: &Advisory, number: usize, affected: &Affected) -> Vulnerability {
    let own =
        if affected.severities.is_empty() { &advisory.severities } else { &affected.severities };
    let is_os = affected.ecosystem.is_os();
    let (severity, source) = severity_rule::decide(is_os, own, &[]);
    let decided = own.iter().find(|score| score.source == source);
    let fixed = affected.ranges.iter().find_map(|range| match &range.until {
        Bound::Fixed(version) => Some(version.clone()),
        Bound::None | Bound::LastAffected(_) => None,
    });
    let links = advisory.references.iter().filter_map(|one| text::link(&one.url));
    let details = if advisory.details.is_empty() { &advisory.summary } else { &advisory.details };
    Vulnerability {
        id: format!("{}/{}/{number}", advisory.source, advisory.id),
        updater: advisory.source.clone(),
        name: name_of(advisory).to_owned(),
        description: details.clone(),
        issued: advisory.published_ms.map_or_else(|| NO_TIME.to_owned(), dates::rfc3339),
        links: links.collect::<Vec<_>>().join(" "),
        severity: decided.map(|score| score.value.clone()).unwrap_or_default(),
        normalized_severity: severity_name(severity).to_owned(),
        package: Some(Package {
            name: affected.package.clone(),
            kind: if affected.by_source { "source" } else { "binary" }.to_owned(),
            module: affected.qualifiers.module.clone(),
            ..Package::default()
        }),
        distribution: is_os.then(|| distribution_of(&affected.namespace)),
        repository: repository_name(affected.ecosystem)
            .map(|name| Repository { name: name.to_owned(), ..Repository::default() }),
        fixed_in_version: fixed.unwrap_or_default(),
        arch_op: "equals".to_owned(),
    }
}

/// The CVE that an advisory is about, if it is about one; else its own id.
fn name_of(advisory: &Advisory) -> &str {
    let is_cve = |id: &&String| id.starts_with("CVE-");
    if is_cve(&&advisory.id) {
        return &advisory.id;
    }
    advisory.aliases.iter().chain(&advisory.upstream).find(is_cve).unwrap_or(&advisory.id)
}

/// `debian:12` to Debian 12.
fn distribution_of(namespace: &str) -> Distribution {
    let (family, version) = namespace.split_once(':').unwrap_or((namespace, ""));
    let id = match family {
        "alma" => "almalinux",
        "oracle" => "ol",
        "amazon" => "amzn",
        "ubuntu-pro" => "ubuntu",
        other => other,
    };
    Distribution {
        did: id.to_owned(),
        name: id.to_owned(),
        version: version.to_owned(),
        version_id: version.to_owned(),
        ..Distribution::default()
    }
}

/// Clair's name for the home of a language's packages.
pub(super) const fn repository_name(ecosystem: Ecosystem) -> Option<&'static str> {
    Some(match ecosystem {
        Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Rpm => return None,
        Ecosystem::Golang => "go",
        Ecosystem::Cargo => "crates.io",
        Ecosystem::Pypi => "pypi",
        Ecosystem::Npm => "npm",
        Ecosystem::Maven => "maven",
        Ecosystem::Gem => "rubygems",
        Ecosystem::Nuget => "nuget",
        Ecosystem::Composer => "packagist",
        Ecosystem::Cran => "cran",
    })
}
