//! A validator for as much of JSON Schema as Clair's published schemas use.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{OPTIONS, sample, written};
use crate::report::{Format, clair};
use kuboard_oci::Digest;
use kuboard_vuln::ImageInventory;

const SCHEMAS: &str = include_str!("../../../tests/data/report/clair-schemas.json");

fn schemas() -> BTreeMap<String, Value> {
    serde_json::from_str(SCHEMAS).unwrap()
}

/// Where a value is not as the schema says. `own` is the document that `#` means.
fn check(
    all: &BTreeMap<String, Value>,
    own: &Value,
    schema: &Value,
    value: &Value,
    at: &str,
) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(reference) = schema["$ref"].as_str() {
        let target = if reference == "#" { own } else { &all[reference] };
        wrong.extend(check(all, target, target, value, at));
    }
    let right = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !right {
        wrong.push(format!("{at}: {} wanted", schema["type"]));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        wrong.push(format!("{at}: {value} is none of {words:?}"));
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        if value.get(key.as_str().unwrap()).is_none() {
            wrong.push(format!("{at}: no {key}"));
        }
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let fits = |choice| check(all, own, choice, value, at).is_empty();
        if !choices.iter().any(fits) && choices.iter().all(|one| one["pattern"].is_null()) {
            wrong.push(format!("{at}: fits none of {choices:?}"));
        }
    }
    for (key, item) in value.as_object().into_iter().flatten() {
        let place = format!("{at}/{key}");
        if !schema["properties"][key].is_null() {
            wrong.extend(check(all, own, &schema["properties"][key], item, &place));
        } else if schema["additionalProperties"].is_object() {
            wrong.extend(check(all, own, &schema["additionalProperties"], item, &place));
        } else if schema["additionalProperties"] == Value::Bool(false) {
            wrong.push(format!("{place} is not allowed"));
        }
        for other in schema["dependentRequired"][key].as_array().into_iter().flatten() {
            if value.get(other.as_str().unwrap()).is_none() {
                wrong.push(format!("{place} without {other}"));
            }
        }
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        wrong.extend(check(all, own, &schema["items"], item, &format!("{at}/{number}")));
    }
    wrong
}

#[track_caller]
fn valid(name: &str, document: &Value) {
    let all = schemas();
    let wrong = check(&all, &all[name], &all[name], document, "");
    // The kinds are published in upper case and written in lower case by every Clair.
    let wrong: Vec<_> = wrong.into_iter().filter(|one| !one.contains("/kind: ")).collect();
    assert_eq!(wrong, [""; 0]);
}

/// What Quay's own schema demands beyond: these fields, as strings.
fn strings(value: &Value, names: &[&str]) {
    for name in names {
        assert!(value[name].is_string(), "{name} of {value}");
    }
}

fn all_strings(document: &Value) {
    let each =
        |name: &str| document[name].as_object().into_iter().flatten().map(|(_, one)| one.clone());
    for one in each("distributions") {
        strings(
            &one,
            &[
                "id",
                "did",
                "name",
                "version",
                "version_code_name",
                "version_id",
                "arch",
                "cpe",
                "pretty_name",
            ],
        );
    }
    for one in each("environments").flat_map(|list| list.as_array().unwrap().clone()) {
        strings(&one, &["package_db", "introduced_in", "distribution_id"]);
    }
    for (id, one) in document["packages"].as_object().unwrap() {
        strings(
            one,
            &["id", "name", "version", "kind", "normalized_version", "module", "arch", "cpe"],
        );
        assert_eq!(one["id"], *id);
        assert!(one.get("source").is_none_or(Value::is_object));
        assert!(document["environments"].get(id).is_some());
    }
    for one in each("vulnerabilities") {
        strings(
            &one,
            &[
                "id",
                "updater",
                "name",
                "description",
                "links",
                "severity",
                "normalized_severity",
                "fixed_in_version",
                "issued",
            ],
        );
    }
}

#[test]
fn clairs_vulnerability_report_is_valid() {
    for report in [sample::ordinary(), sample::clean(), sample::hostile(), sample::partial()] {
        let text = written(&report, Format::Clair, &OPTIONS);
        let document: Value = serde_json::from_str(&text).unwrap();
        valid("vulnerability_report.schema.json", &document);
        all_strings(&document);
    }
}

#[test]
fn clairs_index_report_is_valid() {
    let report = sample::ordinary();
    let inventory = ImageInventory {
        layers: report.layers.clone(),
        distribution: report.distribution.clone(),
        packages: report.packages.clone(),
        problems: Vec::new(),
    };
    let digest = Digest::sha256(b"manifest");
    let index = clair::index_report(&digest, &inventory, clair::IndexOutcome::Finished);
    let document = serde_json::to_value(&index).unwrap();
    valid("index_report.schema.json", &document);
    all_strings(&document);
    assert_eq!(document["state"], "IndexFinished");
    assert_eq!(serde_json::from_value::<clair::IndexReport>(document).unwrap(), index);
    // Both documents give a package the same id.
    assert_eq!(clair::vulnerability_report(&report).packages, index.packages);

    let failed = clair::index_report(&digest, &inventory, clair::IndexOutcome::Failed("why"));
    assert_eq!(
        (failed.state.as_str(), failed.success, failed.err.as_str()),
        ("IndexError", false, "why")
    );
}

#[test]
fn the_schemas_are_really_asked() {
    let mut document =
        serde_json::to_value(clair::vulnerability_report(&sample::ordinary())).unwrap();
    document["vulnerabilities"]["1"]["normalized_severity"] = "Awful".into();
    document["surprise"] = true.into();
    let all = schemas();
    let name = "vulnerability_report.schema.json";
    let wrong = check(&all, &all[name], &all[name], &document, "");
    assert!(wrong.iter().any(|one| one.contains("Awful")), "{wrong:?}");
    assert!(wrong.iter().any(|one| one.contains("surprise")), "{wrong:?}");
}

#[test]
fn clairs_report_names_what_is_wrong() {
    let report = clair::vulnerability_report(&sample::ordinary());
    assert_eq!(report.vulnerabilities.len(), 3);
    let first = &report.vulnerabilities["1"];
    assert_eq!(
        (first.name.as_str(), first.fixed_in_version.as_str()),
        ("CVE-2024-2961", "2.36-9+deb12u7")
    );
    assert_eq!(first.package.as_ref().unwrap().name, "glibc");
    let both: Vec<_> = report
        .package_vulnerabilities
        .values()
        .filter(|ids| ids.contains(&"1".to_owned()))
        .collect();
    assert_eq!(both.len(), 2, "libc6 and libc-bin");
    let keys: Vec<_> = report.enrichments.keys().map(String::as_str).collect();
    assert_eq!(keys, [clair::CVSS_KEY, clair::EPSS_KEY, clair::KEV_KEY]);
    assert_eq!(report.enrichments[clair::CVSS_KEY][0]["1"][0]["baseScore"], 9.8);
    assert_eq!(report.enrichments[clair::EPSS_KEY][0]["1"][0]["date"], "2026-08-21");
    assert_eq!(report.distributions["1"].cpe, "cpe:2.3:o:debian:debian_linux:12:*:*:*:*:*:*:*");
    assert!(report.environments.values().flatten().any(|one| one.package_db == "go:usr/bin/app"));
}
