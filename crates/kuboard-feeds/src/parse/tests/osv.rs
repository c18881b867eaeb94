//! OSV documents and their semantics.

use super::{Kept, data, head, rows};
use crate::parse::osv::{DocumentError, Feed, apply_document, parse_document};

const ALL: Feed<'static> = Feed { source: "osv", ecosystem: None };

#[track_caller]
fn check(name: &str) {
    let advisory = parse_document(&data(&format!("osv/{name}.json")), &ALL).unwrap().unwrap();
    let shown = format!("{}\n{}", head(&advisory), rows(&advisory));
    insta::assert_snapshot!(name, shown);
}

#[test]
fn documents_become_advisories() {
    for name in [
        "GO-2024-2611",
        "RUSTSEC-2021-0124",
        "GHSA-made-0001-made",
        "ALSA-2023_5259",
        "RLSA-2023_3220",
        "CGA-224q-ccj5-2p53",
        "UBUNTU-CVE-2014-9913",
        "UBUNTU-CVE-2014-2901",
        "USN-5614-1",
    ] {
        check(name);
    }
}

#[test]
fn yaml_of_pypa_says_the_same_in_another_form() {
    let yaml: serde_json::Value =
        serde_yaml_ng::from_slice(&data("osv/PYSEC-2017-11.yaml")).unwrap();
    let advisory = parse_document(&serde_json::to_vec(&yaml).unwrap(), &ALL).unwrap().unwrap();
    insta::assert_snapshot!("PYSEC-2017-11", format!("{}\n{}", head(&advisory), rows(&advisory)));
}

#[test]
fn the_rest_of_an_advisory_is_kept() {
    let advisory = parse_document(&data("osv/GHSA-made-0001-made.json"), &ALL).unwrap().unwrap();
    assert_eq!(advisory.summary, "An example");
    assert_eq!(advisory.details, "Made for a test.");
    assert_eq!(advisory.published_ms, Some(1_704_103_200_000));
    assert_eq!(advisory.modified_ms, Some(1_706_781_600_000));
    let urls: Vec<_> = advisory.references.iter().map(|link| (&*link.kind, &*link.url)).collect();
    assert_eq!(urls, [("advisory", "https://example.org/GHSA-made-0001-made")]);
    let go = parse_document(&data("osv/GO-2024-2611.json"), &ALL).unwrap().unwrap();
    let path = "google.golang.org/protobuf/encoding/protojson.Unmarshal";
    assert_eq!(go.affected[0].symbols[0], path);
}

#[test]
fn a_source_takes_its_own_ecosystem() {
    let only = |ecosystem| {
        let feed = Feed { source: "osv:x", ecosystem: Some(ecosystem) };
        parse_document(&data("osv/GHSA-made-0001-made.json"), &feed).unwrap()
    };
    assert_eq!(only("npm").unwrap().affected.len(), 1);
    assert_eq!(only("Maven").unwrap().affected.len(), 1);
    // Ranges of commits alone cannot be matched.
    assert_eq!(only("PyPI"), None);
    assert_eq!(only("Go"), None);
    let bitnami = parse_document(&data("osv/BIT-consul-2021-37219.json"), &ALL).unwrap();
    assert_eq!(bitnami, None);
}

#[test]
fn what_is_left_without_packages_is_retracted() {
    let mut kept = Kept::default();
    apply_document(&data("osv/BIT-consul-2021-37219.json"), &ALL, &mut kept).unwrap();
    apply_document(&data("osv/GO-2024-2611.json"), &ALL, &mut kept).unwrap();
    assert_eq!(kept.lines, ["-osv BIT-consul-2021-37219"]);
    assert_eq!(kept.advisories.len(), 1);
}

#[test]
fn malicious_packages_are_advisories_of_all_versions() {
    let document = br#"{"id":"MAL-2024-1","modified":"2024-01-01T00:00:00Z","affected":[{
        "package":{"ecosystem":"npm","name":"evil"},
        "ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}"#;
    let advisory = parse_document(document, &ALL).unwrap().unwrap();
    assert_eq!(rows(&advisory), "npm evil affected [,)");
}

#[test]
fn bad_documents_say_why() {
    for (document, id_is_bad) in [
        (r#"{"id":"no id"}"#, true),
        (r#"{"id":""}"#, true),
        (r#"{"modified":"2024-01-01T00:00:00Z"}"#, false),
        (
            r#"{"id":"X-1","affected":[{"package":{"ecosystem":"npm","name":"a"},"versions":[1]}]}"#,
            false,
        ),
        ("[]", false),
        ("", false),
    ] {
        let error = parse_document(document.as_bytes(), &ALL).unwrap_err();
        assert_eq!(matches!(error, DocumentError::Id), id_is_bad, "{document}: {error}");
    }
    let nameless =
        r#"{"id":"X-1","affected":[{"package":{"ecosystem":"npm","name":""},"versions":["1"]}]}"#;
    let error = parse_document(nameless.as_bytes(), &ALL).unwrap_err();
    assert!(matches!(error, DocumentError::Name), "{error}");
    // Null and absence are one.
    let sparse =
        r#"{"id":"X-1","affected":null,"aliases":null,"severity":null,"database_specific":null}"#;
    assert_eq!(parse_document(sparse.as_bytes(), &ALL).unwrap(), None);
}
