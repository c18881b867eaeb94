use serde_json::{Value, json};

use super::{MatchOptions, Matches, match_image};
use crate::policy::Rule;
use crate::{
    Advisory, Distribution, Ecosystem, Finding, ImageInventory, MemoryAdvisories, Outcome, Package,
    PlacedPackage, Rating, Severity, SeverityScore, Source, Status, Suppression,
};

/// A finding with nothing but these.
pub(crate) fn finding(id: &str, package: Package, namespace: &str) -> Finding {
    Finding {
        id: id.to_owned(),
        aliases: Vec::new(),
        source: "test".to_owned(),
        advisory: id.to_owned(),
        namespace: namespace.to_owned(),
        package,
        path: String::new(),
        layer: 0,
        fixed_in: Vec::new(),
        status: Status::Affected,
        severity: Severity::Unknown,
        severity_source: String::new(),
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

/// `NAMESPACE ECOSYSTEM PACKAGE STATUS FROM..UNTIL`, `FROM..=LAST`, `=VERSION`; a package with
/// `src:` before it is a source package.
fn affected(line: &str) -> Value {
    let words: Vec<&str> = line.split(' ').collect();
    let [namespace, ecosystem, package, status, versions] = words[..] else { panic!("{line}") };
    let by_source = package.starts_with("src:");
    let mut value = json!({
        "namespace": namespace, "ecosystem": ecosystem, "status": status,
        "package": package.trim_start_matches("src:"), "by_source": by_source,
    });
    if let Some(exact) = versions.strip_prefix('=') {
        value["versions"] = json!([exact]);
    } else {
        let (from, until) = versions.split_once("..").unwrap();
        let introduced = (!from.is_empty()).then_some(from);
        let until = match until.strip_prefix('=') {
            Some(last) => json!({"last_affected": last}),
            None if until.is_empty() => json!("none"),
            None => json!({"fixed": until}),
        };
        value["ranges"] = json!([{"introduced": introduced, "until": until}]);
    }
    value
}

fn advisory(source: &str, id: &str, more: &Value, lines: &[&str]) -> Advisory {
    let mut value = json!({"source": source, "id": id});
    value["affected"] = lines.iter().map(|line| affected(line)).collect();
    for (key, one) in more.as_object().into_iter().flatten() {
        value[key] = one.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn set(all: &[Advisory]) -> MemoryAdvisories {
    let mut db = MemoryAdvisories::new();
    all.iter().for_each(|one| db.add(one.clone()));
    db
}

fn inventory(distribution: &str, packages: Vec<Package>) -> ImageInventory {
    let (id, version) = distribution.split_once(' ').unwrap_or((distribution, ""));
    let distribution = Distribution {
        id: id.to_owned(),
        version_id: version.to_owned(),
        ..Distribution::default()
    };
    let place = |package| PlacedPackage {
        package,
        path: "where".to_owned(),
        by: "test".to_owned(),
        layer: 0,
        owned: false,
    };
    ImageInventory {
        distribution: (!id.is_empty()).then_some(distribution),
        packages: packages.into_iter().map(place).collect(),
        ..ImageInventory::default()
    }
}

fn matched(all: &[Advisory], distribution: &str, package: Package) -> Matches {
    let inventory = inventory(distribution, vec![package]);
    match_image(&inventory, &set(all), &MatchOptions::default(), 0)
}

/// `ID PACKAGE STATUS FIXED,FIXED (ADVISORY)` for each finding.
fn lines(findings: &[Finding]) -> Vec<String> {
    let line = |f: &Finding| {
        let fixed = f.fixed_in.join(",");
        format!("{} {:?} [{fixed}] ({})", f.id, f.status, f.advisory)
    };
    findings.iter().map(line).collect()
}

fn check(all: &[Advisory], distribution: &str, package: Package, want: &[&str]) {
    let label = format!("{} {}", package.name, package.version);
    assert_eq!(lines(&matched(all, distribution, package).findings), want, "{label}");
}

fn built_from(mut package: Package, name: &str, version: &str) -> Package {
    package.source = Some(Source { name: name.to_owned(), version: version.to_owned() });
    package
}

#[test]
fn source_packages_speak_for_what_is_built_from_them() {
    let all = [
        advisory("debian", "CVE-1", &json!({}), &["debian:12 deb src:curl fixed ..7.90-1"]),
        advisory("debian", "CVE-2", &json!({}), &["debian:11 deb src:curl fixed ..7.90-1"]),
        advisory("debian", "CVE-3", &json!({}), &["debian:12 deb libcurl4 fixed ..9"]),
    ];
    let curl =
        |version| built_from(Package::new(Ecosystem::Deb, "libcurl4", "1:8"), "curl", version);
    let by_name = "CVE-3 Fixed [9] (CVE-3)";
    check(&all, "debian 12", curl("7.88-1"), &["CVE-1 Fixed [7.90-1] (CVE-1)"]);
    check(&all, "debian 12", curl("7.90-1"), &[]);
    let plain = |name| Package::new(Ecosystem::Deb, name, "7.88-1");
    check(&all, "debian 12", plain("curl"), &["CVE-1 Fixed [7.90-1] (CVE-1)"]);
    check(&all, "debian 12", plain("libcurl4"), &[by_name]);
    check(&all, "debian 11", plain("curl"), &["CVE-2 Fixed [7.90-1] (CVE-2)"]);
}

#[test]
fn bounds_hold_as_they_say() {
    let all = [
        advisory("osv:npm", "A", &json!({}), &["npm npm a fixed 1.0.0..1.2.0"]),
        advisory("osv:npm", "B", &json!({}), &["npm npm a affected 1.1.0..=1.3.0"]),
        advisory("osv:npm", "C", &json!({}), &["npm npm a affected =1.2.5"]),
        advisory("osv:npm", "D", &json!({}), &["npm npm a affected 2.0.0.."]),
        advisory("osv:npm", "E", &json!({"withdrawn_ms": 1}), &["npm npm a affected .."]),
    ];
    for (version, want) in [
        ("0.9.0", vec![]),
        ("1.0.0", vec!["A Fixed [1.2.0] (A)"]),
        ("1.1.0", vec!["A Fixed [1.2.0] (A)", "B Affected [] (B)"]),
        ("1.2.0", vec!["B Affected [] (B)"]),
        ("1.2.5", vec!["B Affected [] (B)", "C Affected [] (C)"]),
        ("1.3.0", vec!["B Affected [] (B)"]),
        ("1.3.1", vec![]),
        ("2.0.0", vec!["D Affected [] (D)"]),
    ] {
        check(&all, "", Package::new(Ecosystem::Npm, "a", version), &want);
    }
}

#[test]
fn names_are_those_of_the_language() {
    let all = [
        advisory("osv:npm", "N", &json!({}), &["npm npm JSONStream affected .."]),
        advisory("osv:pypi", "P", &json!({}), &["pypi pypi Zope.Interface affected .."]),
        advisory("osv:nuget", "U", &json!({}), &["nuget nuget Newtonsoft.Json affected .."]),
        advisory("osv:maven", "M", &json!({}), &["maven maven org.x:core affected .."]),
        advisory("osv:maven", "X", &json!({}), &["maven maven core affected .."]),
        advisory("osv:go", "S", &json!({}), &["go golang stdlib fixed ..1.22.5"]),
        advisory("osv:go", "T", &json!({}), &["go golang toolchain fixed ..1.22.5"]),
    ];
    let of = |ecosystem, name, version| Package::new(ecosystem, name, version);
    let mut installation = of(Ecosystem::Golang, "stdlib", "go1.22.1");
    installation.role = Some("toolchain".to_owned());
    for (package, want) in [
        (of(Ecosystem::Npm, "JSONStream", "1.0.0"), vec!["N Affected [] (N)"]),
        (of(Ecosystem::Npm, "jsonstream", "1.0.0"), vec![]),
        (of(Ecosystem::Pypi, "zope-interface", "1"), vec!["P Affected [] (P)"]),
        (of(Ecosystem::Nuget, "newtonsoft.JSON", "1.0.0"), vec!["U Affected [] (U)"]),
        (of(Ecosystem::Maven, "org.x:core", "1"), vec!["M Affected [] (M)"]),
        (of(Ecosystem::Maven, "core", "1"), vec![]),
        (of(Ecosystem::Golang, "stdlib", "go1.22.1"), vec!["S Fixed [1.22.5] (S)"]),
        (of(Ecosystem::Golang, "stdlib", "1.22.5"), vec![]),
        (of(Ecosystem::Golang, "stdlib", "(devel)"), vec![]),
        (installation, vec!["S Fixed [1.22.5] (S)", "T Fixed [1.22.5] (T)"]),
        (of(Ecosystem::Cargo, "JSONStream", "1.0.0"), vec![]),
    ] {
        check(&all, "debian 12", package, &want);
    }
}

#[test]
fn advisories_of_one_vulnerability_are_one_finding() {
    let go = |id: &str, aliases: &[&str], until: &str| {
        let line = format!("go golang m affected ..{until}");
        advisory("osv:go", id, &json!({"aliases": aliases}), &[&line])
    };
    let package = || Package::new(Ecosystem::Golang, "m", "v1.0.0");
    check(
        &[go("GO-1", &["CVE-1", "GHSA-a"], "1.3.0"), go("GHSA-a", &["CVE-1"], "1.2.0")],
        "",
        package(),
        &["CVE-1 Fixed [1.2.0,1.3.0] (GHSA-a)"],
    );
    check(
        &[go("GO-1", &["GHSA-a"], ""), go("GHSA-a", &[], "")],
        "",
        package(),
        &["GHSA-a Affected [] (GHSA-a)"],
    );
    check(&[go("GO-1", &["CVE-1", "CVE-2"], "")], "", package(), &["GO-1 Affected [] (GO-1)"]);
    let all = [go("GO-1", &["CVE-1", "GHSA-a"], "1.3.0"), go("GHSA-a", &["CVE-1"], "1.2.0")];
    let found = matched(&all, "", package()).findings;
    assert_eq!(found[0].aliases, ["GHSA-a", "GO-1"]);
}

#[test]
fn an_advisory_of_a_vendor_treats_several_vulnerabilities() {
    let line = &["alma:9 rpm curl fixed ..7.76.1-20.el9"][..];
    let two = json!(["CVE-1", "CVE-2"]);
    let package = || Package::new(Ecosystem::Rpm, "curl", "7.76.1-19.el9");
    let want = ["CVE-1 Fixed [7.76.1-20.el9] (ALSA-1)", "CVE-2 Fixed [7.76.1-20.el9] (ALSA-1)"];
    for key in ["upstream", "aliases", "related"] {
        let all = [advisory("osv:alma", "ALSA-1", &json!({key: two}), line)];
        check(&all, "almalinux 9.4", package(), &want);
        let found = matched(&all, "almalinux 9.4", package()).findings;
        assert_eq!(found[0].aliases, ["ALSA-1"]);
    }
    let none = [advisory("osv:alma", "ALSA-1", &json!({}), line)];
    check(&none, "almalinux 9.4", package(), &["ALSA-1 Fixed [7.76.1-20.el9] (ALSA-1)"]);
    let own = advisory("u", "UBUNTU-CVE-1", &json!({"upstream": ["CVE-1"]}), line);
    check(&[own], "almalinux 9", package(), &["CVE-1 Fixed [7.76.1-20.el9] (UBUNTU-CVE-1)"]);
}

#[test]
fn not_affected_silences_its_own_source() {
    let yes = advisory(
        "debian",
        "CVE-1",
        &json!({}),
        &["debian:12 deb src:a affected ..", "debian:12 deb src:a not_affected ..2.0-1"],
    );
    let other = advisory("other", "CVE-1", &json!({}), &["debian:12 deb src:a affected .."]);
    let package = |version| Package::new(Ecosystem::Deb, "a", version);
    let one = std::slice::from_ref(&yes);
    check(one, "debian 12", package("1.0-1"), &[]);
    check(one, "debian 12", package("2.0-1"), &["CVE-1 Affected [] (CVE-1)"]);
    check(&[yes, other], "debian 12", package("1.0-1"), &["CVE-1 Affected [] (CVE-1)"]);
}

#[test]
fn qualifiers_hold() {
    let with = |qualifiers: Value| {
        let mut one = advisory("redhat", "CVE-1", &json!({}), &["rhel:9 rpm a affected .."]);
        one.affected[0].qualifiers = serde_json::from_value(qualifiers).unwrap();
        one
    };
    let package = |arch: &str, module: Option<&str>, repository: &str| {
        let mut package = Package::new(Ecosystem::Rpm, "a", "1-1");
        package.arch = Some(arch.to_owned());
        package.module = module.map(str::to_owned);
        if !repository.is_empty() {
            package.repositories = vec![repository.to_owned()];
        }
        package
    };
    let base = "cpe:/o:redhat:enterprise_linux:9::baseos";
    let base23 = "cpe:2.3:o:redhat:enterprise_linux:9:*:baseos:*:*:*:*:*";
    for (qualifiers, package, want) in [
        (json!({}), package("x86_64", None, base), true),
        (json!({"arches": ["x86_64"]}), package("x86_64", None, ""), true),
        (json!({"arches": ["x86_64"]}), package("aarch64", None, ""), false),
        (json!({"module": "nodejs:18"}), package("x86_64", Some("nodejs:18"), ""), true),
        (json!({"module": "nodejs:18"}), package("x86_64", Some("nodejs:18:80:x"), ""), true),
        (json!({"module": "nodejs:18"}), package("x86_64", Some("nodejs:180"), ""), false),
        (json!({"module": "nodejs:18"}), package("x86_64", None, ""), false),
        (json!({}), package("x86_64", Some("nodejs:18"), ""), false),
        (
            json!({"repositories": ["cpe:/o:redhat:enterprise_linux:9"]}),
            package("", None, base),
            true,
        ),
        (
            json!({"repositories": ["cpe:/o:redhat:enterprise_linux:8"]}),
            package("", None, base),
            false,
        ),
        (
            json!({"repositories": ["cpe:/o:redhat:enterprise_linux:8"]}),
            package("", None, ""),
            true,
        ),
        (
            json!({"repositories": ["cpe:/o:redhat:enterprise_linu"]}),
            package("", None, base),
            false,
        ),
        (
            json!({"repositories": ["cpe:2.3:o:redhat:enterprise_linux:9:*:*:*:*:*:*:*"]}),
            package("", None, base23),
            true,
        ),
    ] {
        let found = !matched(&[with(qualifiers.clone())], "rhel 9.4", package).findings.is_empty();
        assert_eq!(found, want, "{qualifiers}");
    }
}

#[test]
fn a_fix_of_a_module_is_for_packages_of_modules() {
    let all = [
        advisory("a", "CVE-1", &json!({}), &["alma:8 rpm perl fixed ..4:5.30.1-2.module_el8.3"]),
        advisory("a", "CVE-2", &json!({}), &["alma:8 rpm perl fixed ..4:5.26.3-9.el8"]),
    ];
    let package = |version, module: Option<&str>| {
        let mut package = Package::new(Ecosystem::Rpm, "perl", version);
        package.module = module.map(str::to_owned);
        package
    };
    let of_module = "CVE-1 Fixed [4:5.30.1-2.module_el8.3] (CVE-1)";
    let plain = "CVE-2 Fixed [4:5.26.3-9.el8] (CVE-2)";
    check(&all, "almalinux 8.9", package("4:5.26.3-8.el8", None), &[plain]);
    check(&all, "almalinux 8.9", package("4:5.26.3-8.x", Some("perl:5.26")), &[of_module]);
    check(&all, "almalinux 8.9", package("4:5.24.4-1.module_el8.1", None), &[of_module]);
}

#[test]
fn what_does_not_count_is_kept_with_its_reason() {
    let all = [
        advisory("osv:npm", "CVE-1", &json!({}), &["npm npm a affected .."]),
        advisory("debian", "CVE-9", &json!({}), &["debian:12 deb src:zzz affected .."]),
    ];
    let mut inventory = inventory("debian 12", vec![Package::new(Ecosystem::Npm, "a", "1.0.0")]);
    let rule = json!({"id": "CVE-1", "reason": "known", "expires": "1970-01-01"});
    let text: crate::policy::RuleText = serde_json::from_value(rule).unwrap();
    let rules = [Rule::try_from(text).unwrap()];
    let with = |inventory: &ImageInventory, options: &MatchOptions<'_>, now_ms| {
        let matches = match_image(inventory, &set(&all), options, now_ms);
        assert_eq!(matches.findings.len() + matches.suppressed.len(), 1);
        matches.suppressed.into_iter().next().map(|one| one.suppression)
    };
    let ruled = MatchOptions { rules: &rules, ..MatchOptions::default() };
    let unfixed = MatchOptions { ignore_unfixed: true, ..MatchOptions::default() };
    let by_rule = Suppression::Rule { reason: "known".to_owned(), expires_ms: Some(86_400_000) };
    assert_eq!(with(&inventory, &MatchOptions::default(), 0), None);
    assert_eq!(with(&inventory, &ruled, 0), Some(by_rule));
    assert_eq!(with(&inventory, &ruled, 86_400_000), None);
    assert_eq!(with(&inventory, &unfixed, 0), Some(Suppression::Unfixed));
    inventory.packages[0].owned = true;
    assert_eq!(with(&inventory, &ruled, 0), Some(Suppression::OwnedByPackage));
    // Nobody speaks for the packages of this distribution: the owner's vendor neither.
    inventory.distribution.as_mut().unwrap().version_id = "99".to_owned();
    assert_eq!(with(&inventory, &MatchOptions::default(), 0), None);
}

#[test]
fn what_could_not_be_judged_is_said() {
    let all = [
        advisory("osv:npm", "CVE-1", &json!({}), &["npm npm a fixed ..2.0.0"]),
        advisory("debian", "CVE-9", &json!({}), &["debian:12 deb src:zzz affected .."]),
    ];
    let npm = |version| Package::new(Ecosystem::Npm, "a", version);
    let deb = || Package::new(Ecosystem::Deb, "b", "1");
    for (distribution, packages, want) in [
        ("debian 12", vec![deb()], "complete"),
        ("debian 12", vec![npm("1.0.0")], "complete"),
        ("", vec![npm("1.0.0")], "complete"),
        ("", vec![], "no packages were found"),
        ("debian 12", vec![], "no packages were found"),
        ("debian 99", vec![deb()], "no advisories are known for debian:99"),
        ("nixos 1", vec![deb()], "the distribution of the packages is not known"),
        ("debian 99", vec![deb(), npm("1.0.0")], "partly: no advisories are known for debian:99"),
        (
            "",
            vec![npm("no version")],
            "partly: version `no version` of a is not one of its ecosystem",
        ),
        (
            "",
            vec![Package::new(Ecosystem::Gem, "a", "1")],
            "no advisories are known for gem packages",
        ),
    ] {
        let inventory = inventory(distribution, packages);
        let matches = match_image(&inventory, &set(&all), &MatchOptions::default(), 0);
        let got = match matches.outcome {
            Outcome::Complete => "complete".to_owned(),
            Outcome::Partial { problems } => format!("partly: {}", problems[0].why),
            Outcome::Unsupported { reason } => reason,
        };
        assert_eq!(got, want);
    }
}

#[test]
fn severities_and_figures_are_joined() {
    let mut db = set(&[advisory(
        "debian",
        "CVE-1",
        &json!({"severities": [{"source": "debian", "rating": "WORD", "value": "low"}]}),
        &["debian:12 deb src:a affected .."],
    )]);
    let value = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H".to_owned();
    let nvd = SeverityScore { source: "nvd".to_owned(), rating: Rating::CvssV3, value };
    db.add_score("CVE-1", nvd);
    let epss = crate::Epss { probability: 10, percentile: 20 };
    db.add_epss("CVE-1", epss);
    db.add_known_exploited("CVE-1", "2024-01-01");
    let inventory = inventory("debian 12", vec![Package::new(Ecosystem::Deb, "a", "1")]);
    let found = match_image(&inventory, &db, &MatchOptions::default(), 0).findings.remove(0);
    assert_eq!((found.severity, found.severity_source.as_str()), (Severity::Low, "debian"));
    assert_eq!(found.scores.len(), 2);
    assert_eq!(found.epss, Some(epss));
    assert_eq!(found.known_exploited.as_deref(), Some("2024-01-01"));
}
