use std::collections::BTreeSet;

use serde_json::Value;

use super::{OPTIONS, sample, written};
use crate::report::{Format, Language, WriteOptions, harbor};
use kuboard_vuln::{Outcome, Report};

fn json(report: &Report, format: Format) -> Value {
    serde_json::from_str(&written(report, format, &OPTIONS)).unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

#[test]
fn json_is_the_report() {
    let text = written(&sample::hostile(), Format::Json, &OPTIONS);
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), sample::hostile());
    assert!(text.starts_with("{\n  \"schema\": 1,\n  \"image\": {\n"), "{text}");
}

#[test]
fn every_form_is_the_same_for_the_same_report() {
    for format in Format::ALL {
        let report = sample::ordinary();
        assert_eq!(written(&report, format, &OPTIONS), written(&report, format, &OPTIONS));
    }
}

#[test]
fn sarif_has_a_rule_for_each_vulnerability() {
    let document = json(&sample::ordinary(), Format::Sarif);
    let run = &document["runs"][0];
    let rules = array(&run["tool"]["driver"]["rules"]);
    let ids: Vec<_> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["CVE-2024-2961", "CVE-2023-45288", "CVE-2010-4756", "CVE-2024-35195"]);
    let scores: Vec<_> =
        rules.iter().map(|rule| &rule["properties"]["security-severity"]).collect();
    assert_eq!(scores, ["9.8", "4.0", "0.0", "4.0"]);
    let results = array(&run["results"]);
    assert_eq!(results.len(), 5);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
    }
    let levels: Vec<_> = results.iter().map(|result| &result["level"]).collect();
    assert_eq!(levels, ["error", "error", "warning", "note", "warning"]);
    let place = &results[2]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(place, "team/app/usr/bin/app");
    let prints: BTreeSet<_> = results
        .iter()
        .map(|result| result["partialFingerprints"]["kuboardFinding/v1"].as_str().unwrap())
        .collect();
    assert_eq!(prints.len(), 5);
    assert_eq!(results[4]["suppressions"][0]["status"], "accepted");
    assert_eq!(run["invocations"][0]["executionSuccessful"], true);
}

#[test]
fn sarif_says_what_was_not_read() {
    let run = &json(&sample::partial(), Format::Sarif)["runs"][0];
    let invocation = &run["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false);
    assert_eq!(array(&invocation["toolExecutionNotifications"]).len(), 12);
}

#[test]
fn cyclonedx_references_what_it_has() {
    for report in [sample::ordinary(), sample::hostile(), sample::clean()] {
        let document = json(&report, Format::CycloneDx);
        let mut refs = BTreeSet::new();
        let root = &document["metadata"]["component"];
        for component in array(&document["components"]).iter().chain([root]) {
            assert!(refs.insert(component["bom-ref"].as_str().unwrap()), "{component}");
        }
        for one in array(&document["dependencies"]) {
            assert!(
                array(&one["dependsOn"]).iter().all(|one| refs.contains(one.as_str().unwrap()))
            );
        }
        let found = document["vulnerabilities"].as_array().cloned().unwrap_or_default();
        assert_eq!(found.is_empty(), report.findings.is_empty());
        for one in found.iter().flat_map(|one| array(&one["affects"])) {
            assert!(refs.contains(one["ref"].as_str().unwrap()));
        }
    }
}

#[test]
fn cyclonedx_judges_vulnerabilities() {
    let document = json(&sample::ordinary(), Format::CycloneDx);
    let found = array(&document["vulnerabilities"]);
    let states: Vec<_> = found
        .iter()
        .map(|one| {
            let state = one["analysis"]["state"].as_str().unwrap();
            (one["id"].as_str().unwrap(), state, array(&one["affects"]).len())
        })
        .collect();
    assert_eq!(
        states,
        [
            ("CVE-2024-2961", "exploitable", 2),
            ("CVE-2023-45288", "exploitable", 1),
            ("CVE-2010-4756", "exploitable", 1),
            ("CVE-2024-35195", "not_affected", 1),
        ]
    );
    let rating = &found[0]["ratings"][1];
    assert_eq!((&rating["method"], &rating["score"]), (&"CVSSv31".into(), &9.8.into()));
    assert_eq!(found[3]["analysis"]["justification"], "code_not_reachable");
    assert_eq!(document["compositions"][0]["aggregate"], "complete");
    let partial = json(&sample::partial(), Format::CycloneDx);
    assert_eq!(partial["compositions"][0]["aggregate"], "incomplete");
}

#[test]
fn spdx_relates_what_it_has() {
    for report in [sample::ordinary(), sample::hostile()] {
        let document = json(&report, Format::Spdx);
        let mut ids = BTreeSet::from(["SPDXRef-DOCUMENT"]);
        for package in array(&document["packages"]) {
            let id = package["SPDXID"].as_str().unwrap();
            assert!(ids.insert(id), "{id}");
            assert!(
                id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'),
                "{id}"
            );
        }
        for one in array(&document["relationships"]) {
            assert!(ids.contains(one["spdxElementId"].as_str().unwrap()));
            assert!(ids.contains(one["relatedSpdxElement"].as_str().unwrap()));
        }
    }
    let document = json(&sample::ordinary(), Format::Spdx);
    let libc = &array(&document["packages"])[2];
    assert_eq!(libc["licenseDeclared"], "LGPL-2.1+ AND MIT");
    assert_eq!(
        libc["externalRefs"][0]["referenceLocator"],
        "pkg:deb/debian/libc-bin@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12&upstream=glibc"
    );
    assert_eq!(libc["externalRefs"][1]["referenceType"], "advisory");
    assert!(document["comment"].is_null());
    let partial = json(&sample::partial(), Format::Spdx);
    assert!(partial["comment"].as_str().unwrap().starts_with("NOT COMPLETE: 12 problems"));
}

#[test]
fn harbors_items_are_unique() {
    let mut report = sample::ordinary();
    let mut again = report.findings[0].clone();
    again.path = "elsewhere".to_owned();
    report.findings.push(again);
    let document = json(&report, Format::Harbor);
    let found = array(&document["vulnerabilities"]);
    assert_eq!(found.len(), 4);
    assert_eq!(
        (&document["severity"], &found[0]["severity"]),
        (&"Critical".into(), &"Critical".into())
    );
    assert_eq!(found[0]["preferred_cvss"]["score_v3"], 9.8);
    assert_eq!(found[0]["vendor_attributes"]["CVSS"]["nvd"]["V3Score"], 9.8);
    assert_eq!(found[3]["status"], "will_not_fix");
    assert_eq!(document["artifact"]["repository"], "team/app");
    assert_eq!(document["scanner"]["name"], "Kuboard");
}

#[test]
fn harbor_is_never_told_that_a_partly_read_image_is_clean() {
    for (report, severity, outcome) in
        [(sample::clean(), "None", "complete"), (sample::partial(), "Unknown", "partial")]
    {
        let document = json(&report, Format::Harbor);
        assert_eq!(
            (&document["severity"], &document["outcome"]),
            (&severity.into(), &outcome.into())
        );
    }
}

#[test]
fn harbor_gets_bills_of_materials() {
    for form in [harbor::SbomForm::Spdx, harbor::SbomForm::CycloneDx] {
        let report = harbor::sbom_report(&sample::ordinary(), form, &OPTIONS).unwrap();
        assert_eq!(report.media_type, form.media_type());
        assert!(report.sbom.get("vulnerabilities").is_none());
        assert!(report.sbom.get("spdxVersion").is_some() || report.sbom.get("bomFormat").is_some());
    }
}

#[test]
fn junit_counts() {
    let text = written(&sample::ordinary(), Format::Junit, &OPTIONS);
    assert!(text.contains("tests=\"6\" failures=\"4\" errors=\"0\">"), "{text}");
    assert_eq!(text.matches("<failure ").count(), 4);
    assert_eq!(text.matches("<skipped ").count(), 1);
    assert_eq!(text.matches("<testsuite ").count(), 4);
    let text = written(&sample::partial(), Format::Junit, &OPTIONS);
    assert_eq!(text.matches("<error ").count(), 12);
    let mut report = sample::clean();
    report.outcome = Outcome::Unsupported { reason: "no advisories".to_owned() };
    let text = written(&report, Format::Junit, &OPTIONS);
    assert!(text.contains("<error message=\"unsupported: no advisories\"/>"), "{text}");
}

#[test]
fn a_page_speaks_both_languages() {
    let page = |lang| written(&sample::ordinary(), Format::Html, &WriteOptions { lang, ..OPTIONS });
    let (english, chinese) = (page(Language::En), page(Language::Zh));
    assert!(english.contains("<html lang=\"en\">") && english.contains("Vulnerability report"));
    assert!(chinese.contains("<html lang=\"zh-CN\">") && chinese.contains("漏洞报告"));
    assert_eq!(english.matches("<tr data-severity=").count(), 4);
    assert_eq!(english.matches("<circle class=\"arc").count(), 3);
    assert!(!chinese.contains("Fixed in"));
}

#[test]
fn a_page_needs_nothing_else() {
    let page = written(&sample::ordinary(), Format::Html, &OPTIONS);
    for loaded in ["<link", "<img", "<iframe", "src=", "url(", "@import", "style=\"", "onclick"] {
        assert!(!page.contains(loaded), "{loaded}");
    }
    assert!(page.contains("default-src 'none'; style-src 'sha256-"), "{page}");
}

#[test]
fn a_page_says_what_was_not_read() {
    let page = written(&sample::partial(), Format::Html, &OPTIONS);
    assert!(page.contains("role=\"alert\"><h2>Partly read</h2>"), "{page}");
    assert!(page.contains("No known vulnerabilities in what could be read."));
    assert!(!page.contains("No known vulnerabilities.</p>"));
}
