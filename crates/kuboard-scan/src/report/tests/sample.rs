//! Reports to be written: an ordinary one, and one full of what attackers write.

use kuboard_oci::Digest;
use kuboard_vuln::{
    DatabaseStamp, Distribution, Ecosystem, Epss, Finding, ImageIdentity, LayerReference, Outcome,
    Package, PlacedPackage, Problem, Rating, Reference, Report, Severity, SeverityScore, Source,
    Status, Suppressed, Suppression,
};

/// 2026-08-21 12:00 UTC.
pub(crate) const NOW: i64 = 1_787_313_600_000;
const HOUR: i64 = 3_600_000;

/// Characters that mean something to a terminal, a page, XML, Markdown or JSON.
pub(crate) const HOSTILE: &str =
    "\u{1b}[31m\u{9b}2J\0]]></failure><script>alert(1)</script>\" ' & \u{202e}|`*\r\n中文";

pub(crate) fn layer(number: u8) -> LayerReference {
    LayerReference {
        digest: Digest::sha256(&[number]),
        diff_id: Some(Digest::sha256(&[number, number])),
        created_by: "COPY . /".to_owned(),
        size: 1000,
    }
}

pub(crate) fn placed(package: Package, path: &str, by: &str, layer: u32) -> PlacedPackage {
    PlacedPackage { package, path: path.to_owned(), by: by.to_owned(), layer, owned: false }
}

pub(crate) fn glibc(name: &str) -> Package {
    Package {
        arch: Some("amd64".to_owned()),
        source: Some(Source { name: "glibc".to_owned(), version: "2.36-9+deb12u4".to_owned() }),
        licenses: vec!["LGPL-2.1+".to_owned(), "MIT".to_owned()],
        ..Package::new(Ecosystem::Deb, name, "2.36-9+deb12u4")
    }
}

pub(crate) fn finding(id: &str, package: &Package, path: &str, severity: Severity) -> Finding {
    Finding {
        id: id.to_owned(),
        aliases: Vec::new(),
        source: "debian".to_owned(),
        advisory: id.to_owned(),
        namespace: "debian:12".to_owned(),
        package: package.clone(),
        path: path.to_owned(),
        layer: 0,
        fixed_in: Vec::new(),
        status: Status::Affected,
        severity,
        severity_source: "debian".to_owned(),
        scores: Vec::new(),
        epss: None,
        known_exploited: None,
        summary: String::new(),
        details: String::new(),
        cwes: Vec::new(),
        references: Vec::new(),
        published_ms: None,
        modified_ms: None,
        first_seen_ms: None,
    }
}

fn image() -> ImageIdentity {
    ImageIdentity {
        name: "registry.example.org/team/app:1.2".to_owned(),
        registry: "registry.example.org".to_owned(),
        repository: "team/app".to_owned(),
        tag: "1.2".to_owned(),
        digest: Some(Digest::sha256(b"manifest")),
        config: Some(Digest::sha256(b"configuration")),
        platform: "linux/amd64".to_owned(),
        created_ms: Some(NOW - 48 * HOUR),
        size: 2000,
        labels: Vec::new(),
    }
}

fn debian() -> Distribution {
    Distribution {
        id: "debian".to_owned(),
        version_id: "12".to_owned(),
        version: "12 (bookworm)".to_owned(),
        codename: "bookworm".to_owned(),
        name: "Debian GNU/Linux".to_owned(),
        pretty_name: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        cpe: "cpe:/o:debian:debian_linux:12".to_owned(),
        id_like: Vec::new(),
        variant: String::new(),
    }
}

fn score(source: &str, rating: Rating, value: &str) -> SeverityScore {
    SeverityScore { source: source.to_owned(), rating, value: value.to_owned() }
}

fn link(url: &str) -> Reference {
    Reference { kind: "advisory".to_owned(), url: url.to_owned() }
}

/// Debian with a Go program and a Python package; three packages are vulnerable.
pub(crate) fn ordinary() -> Report {
    let dpkg = "var/lib/dpkg/status";
    let (libc6, libc_bin) = (glibc("libc6"), glibc("libc-bin"));
    let module = Package::new(Ecosystem::Golang, "golang.org/x/net", "v0.22.0");
    let stdlib = Package::new(Ecosystem::Golang, "stdlib", "1.22.1");
    let requests = Package {
        licenses: vec!["Apache-2.0".to_owned()],
        ..Package::new(Ecosystem::Pypi, "requests", "2.31.0")
    };
    let python = "usr/lib/python3/dist-packages/requests-2.31.0.dist-info/METADATA";
    let iconv = Finding {
        fixed_in: vec!["2.36-9+deb12u7".to_owned()],
        status: Status::Fixed,
        severity_source: "nvd".to_owned(),
        scores: vec![score("nvd", Rating::CvssV3, "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H")],
        epss: Some(Epss { probability: 93_456, percentile: 99_800 }),
        known_exploited: Some("2024-06-01".to_owned()),
        summary: "The iconv() function may overflow the output buffer".to_owned(),
        details: "Out-of-bounds write when converting to ISO-2022-CN-EXT.".to_owned(),
        cwes: vec!["CWE-787".to_owned()],
        references: vec![link("https://security-tracker.debian.org/tracker/CVE-2024-2961")],
        published_ms: Some(1_713_376_000_000),
        ..finding("CVE-2024-2961", &libc6, dpkg, Severity::Critical)
    };
    let same = Finding { package: libc_bin.clone(), ..iconv.clone() };
    let http2 = Finding {
        aliases: vec!["GHSA-4v7x-pqxf-cx7m".to_owned(), "GO-2024-2687".to_owned()],
        source: "osv:go".to_owned(),
        advisory: "GO-2024-2687".to_owned(),
        namespace: "go".to_owned(),
        layer: 1,
        fixed_in: vec!["v0.23.0".to_owned()],
        status: Status::Fixed,
        severity_source: "ghsa".to_owned(),
        scores: vec![score("ghsa", Rating::Word, "MODERATE")],
        summary: "HTTP/2 CONTINUATION flood".to_owned(),
        ..finding("CVE-2023-45288", &module, "usr/bin/app", Severity::Medium)
    };
    let old = Finding {
        status: Status::WillNotFix,
        ..finding("CVE-2010-4756", &libc6, dpkg, Severity::Negligible)
    };
    let ignored = Finding {
        namespace: "pypi".to_owned(),
        source: "osv:pypi".to_owned(),
        layer: 1,
        ..finding("CVE-2024-35195", &requests, python, Severity::Medium)
    };
    Report {
        schema: 1,
        image: image(),
        outcome: Outcome::Complete,
        distribution: Some(debian()),
        end_of_life: Some("2028-06-30".to_owned()),
        layers: vec![layer(1), layer(2)],
        packages: vec![
            placed(libc_bin, dpkg, "dpkg", 0),
            placed(libc6, dpkg, "dpkg", 0),
            placed(module, "usr/bin/app", "go", 1),
            placed(stdlib, "usr/bin/app", "go", 1),
            placed(requests, python, "python", 1),
        ],
        findings: vec![iconv, same, http2, old],
        suppressed: vec![Suppressed {
            finding: ignored,
            suppression: Suppression::Vex {
                author: "security@example.org".to_owned(),
                status: "not_affected".to_owned(),
                justification: "vulnerable_code_not_in_execute_path".to_owned(),
            },
        }],
        database: DatabaseStamp {
            generation: 12,
            checksum: "00".to_owned(),
            built_ms: NOW - 3 * HOUR,
            sources: vec![("debian".to_owned(), NOW - 4 * HOUR), ("epss".to_owned(), NOW)],
        },
        scanned_ms: NOW - 60_000,
    }
}

/// The same without findings.
pub(crate) fn clean() -> Report {
    Report { findings: Vec::new(), suppressed: Vec::new(), ..ordinary() }
}

/// The same, partly read.
pub(crate) fn partial() -> Report {
    let problems = (0..12).map(|number| Problem {
        path: format!("opt/app/lib{number}.jar"),
        by: "java".to_owned(),
        why: "partly read: it is cut off".to_owned(),
    });
    Report { outcome: Outcome::Partial { problems: problems.collect() }, ..clean() }
}

/// Every text that comes from an image or an advisory is hostile.
pub(crate) fn hostile() -> Report {
    let mut report = ordinary();
    let text = || HOSTILE.to_owned();
    report.image.name = text();
    report.image.repository = text();
    report.image.tag = text();
    report.image.platform = text();
    report.outcome =
        Outcome::Partial { problems: vec![Problem { path: text(), by: text(), why: text() }] };
    if let Some(distribution) = &mut report.distribution {
        distribution.id = text();
        distribution.version_id = text();
        distribution.pretty_name = text();
        distribution.cpe = text();
    }
    let soil = |package: &mut Package| {
        package.name = text();
        package.version = text();
        package.arch = Some(text());
        package.licenses = vec![text()];
        package.source = Some(Source { name: text(), version: text() });
    };
    for placed in &mut report.packages {
        soil(&mut placed.package);
        placed.path = text();
        placed.by = text();
    }
    let dirty = |finding: &mut Finding| {
        soil(&mut finding.package);
        finding.id = text();
        finding.aliases = vec![text()];
        finding.source = text();
        finding.path = text();
        finding.fixed_in = vec![text()];
        finding.severity_source = text();
        finding.scores = vec![score(HOSTILE, Rating::Word, HOSTILE)];
        finding.known_exploited = Some(text());
        finding.summary = text();
        finding.details = text();
        finding.cwes = vec![text()];
        finding.references = vec![
            link("javascript:alert(1)"),
            link(HOSTILE),
            link("https://example.org/?a=1&b=<script>"),
            link("https://example.org/good?a=1&b=2"),
        ];
    };
    report.findings.iter_mut().for_each(dirty);
    for one in &mut report.suppressed {
        dirty(&mut one.finding);
        one.suppression = Suppression::Rule { reason: text(), expires_ms: Some(NOW) };
    }
    report
}
