//! Red Hat's CSAF-VEX.

use std::io::Read as _;

use super::{Kept, data, head, rows};
use crate::parse::redhat::{Parsed, apply_document, parse_archive, parse_document};

#[track_caller]
fn check(name: &str, document: &[u8]) {
    let Parsed::Advisory(advisory) = parse_document(document).unwrap() else {
        panic!("{name} is no advisory")
    };
    insta::assert_snapshot!(name, format!("{}\n{}", head(&advisory), rows(&advisory)));
}

#[test]
fn documents_become_advisories() {
    for name in
        ["cve-2024-24786-simple", "cve-2024-24786-bad-rpmmod", "cve-2024-24786-illegal-module"]
    {
        check(name, &data(&format!("redhat/{name}.json")));
    }
    let packed = data("redhat/cve-2023-38545.json.zst");
    let mut document = Vec::new();
    crate::parse::compressed::open(&*packed, 1 << 20).unwrap().read_to_end(&mut document).unwrap();
    check("cve-2023-38545", &document);
}

#[test]
fn the_archive_is_read() {
    let mut kept = Kept::default();
    let archive = data("redhat/csaf_vex_2023-10-31.tar.zst");
    let summary = parse_archive(&*archive, &mut kept).unwrap();
    assert_eq!((summary.advisories + summary.ignored, summary.skipped_count), (5, 0));
    kept.advisories.sort();
    let shown: Vec<_> =
        kept.advisories.iter().map(|one| format!("{}\n{}", head(one), rows(one))).collect();
    insta::assert_snapshot!("redhat-archive", shown.join("\n\n"));
}

#[test]
fn deleted_documents_are_retracted() {
    let mut kept = Kept::default();
    apply_document(&data("redhat/delete_CVE-2023-0030.json"), &mut kept).unwrap();
    assert_eq!(kept.lines, ["-redhat CVE-2023-0030"]);
    assert!(kept.advisories.is_empty());
}

/// A document with one product of each kind of status.
fn document(remediation: &str, status: &str, purl: &str) -> String {
    format!(
        r#"{{"document":{{"tracking":{{"id":"CVE-2024-1"}}}},
        "product_tree":{{"branches":[
          {{"product":{{"product_id":"P","name":"RHEL 9","product_identification_helper":{{"cpe":"cpe:/o:redhat:enterprise_linux:9"}}}}}},
          {{"product":{{"product_id":"c","name":"c","product_identification_helper":{{"purl":"{purl}"}}}}}}],
          "relationships":[{{"full_product_name":{{"product_id":"P:c","name":"x"}},"product_reference":"c","relates_to_product_reference":"P"}}]}},
        "vulnerabilities":[{{"cve":"CVE-2024-1","product_status":{{"{status}":["P:c"]}},
          "remediations":[{remediation}]}}]}}"#
    )
}

#[test]
fn statuses_and_remedies() {
    let remedy = |category: &str, details: &str| {
        format!(r#"{{"category":"{category}","details":"{details}","product_ids":["P:c"]}}"#)
    };
    let source = "pkg:rpm/redhat/c?arch=src";
    for (remediation, status, purl, want) in [
        (String::new(), "known_affected", source, "rhel:9 src:c affected"),
        (remedy("none_available", "Affected"), "known_affected", source, "rhel:9 src:c affected"),
        (
            remedy("none_available", "Fix deferred"),
            "known_affected",
            source,
            "rhel:9 src:c fix-deferred",
        ),
        (
            remedy("no_fix_planned", "Will not fix"),
            "known_affected",
            source,
            "rhel:9 src:c will-not-fix",
        ),
        (
            remedy("no_fix_planned", "Out of support scope"),
            "known_affected",
            source,
            "rhel:9 src:c end-of-life",
        ),
        (String::new(), "under_investigation", source, "rhel:9 src:c under-investigation"),
        (String::new(), "known_not_affected", source, "rhel:9 src:c not-affected"),
        (String::new(), "known_affected", "pkg:rpm/redhat/c", "rhel:9 c affected"),
        (String::new(), "known_affected", "pkg:oci/c", ""),
        (
            String::new(),
            "fixed",
            "pkg:rpm/redhat/c@1-2.el9?arch=x86_64&epoch=3",
            "rhel:9 c fixed [,3:1-2.el9) arch=x86_64",
        ),
        (
            String::new(),
            "fixed",
            "pkg:rpm/redhat/c@1-2.el9?arch=noarch",
            "rhel:9 c fixed [,1-2.el9)",
        ),
        (
            String::new(),
            "fixed",
            "pkg:rpm/redhat/c@1-2.el9?arch=src",
            "rhel:9 src:c fixed [,1-2.el9)",
        ),
        (String::new(), "fixed", "pkg:rpm/redhat/c-debuginfo@1-2.el9?arch=x86_64", ""),
    ] {
        let text = document(&remediation, status, purl);
        let got = match parse_document(text.as_bytes()).unwrap() {
            Parsed::Advisory(advisory) => rows(&advisory),
            _ => String::new(),
        };
        assert_eq!(got, want, "{remediation} {status} {purl}");
    }
}
