//! The feeds of distributions.

use super::{Kept, data, head, rows};
use crate::parse::secdb::{self, Family};
use crate::parse::{ParseError, Summary, amazon, azure, debian, oracle, photon, suse};

fn shown(kept: &Kept) -> String {
    let mut all: Vec<String> =
        kept.advisories.iter().map(|one| format!("{}\n{}", head(one), rows(one))).collect();
    all.sort();
    all.join("\n\n")
}

#[test]
fn debian_tracker() {
    let mut kept = Kept::default();
    let summary = debian::parse(&*data("debian.json"), &mut kept).unwrap();
    assert_eq!((summary.advisories, summary.skipped_count, summary.ignored), (6, 0, 1));
    insta::assert_snapshot!("debian", shown(&kept));
}

#[test]
fn debian_states() {
    let release =
        |body: &str| format!(r#"{{"p":{{"CVE-2024-1":{{"releases":{{"bookworm":{body}}}}}}}}}"#);
    for (body, want) in [
        (
            r#"{"status":"resolved","fixed_version":"1.2-3","urgency":"low**"}"#,
            "fixed [,1.2-3) debian=low",
        ),
        (
            r#"{"status":"resolved","fixed_version":"0","urgency":"unimportant"}"#,
            "not-affected debian=unimportant",
        ),
        (r#"{"status":"open","urgency":"not yet assigned"}"#, "affected"),
        (r#"{"status":"open","urgency":"unimportant"}"#, "affected debian=unimportant"),
        (
            r#"{"status":"open","urgency":"medium","nodsa":"Minor issue","nodsa_reason":""}"#,
            "affected debian=medium",
        ),
        (
            r#"{"status":"open","urgency":"low","nodsa":"x","nodsa_reason":"ignored"}"#,
            "will-not-fix debian=low",
        ),
        (
            r#"{"status":"open","urgency":"low","nodsa":"x","nodsa_reason":"postponed"}"#,
            "fix-deferred debian=low",
        ),
        (r#"{"status":"open","urgency":"end-of-life"}"#, "end-of-life"),
        (r#"{"status":"undetermined","urgency":"not yet assigned"}"#, "under-investigation"),
    ] {
        let mut kept = Kept::default();
        debian::parse(release(body).as_bytes(), &mut kept).unwrap();
        assert_eq!(rows(&kept.advisories[0]), format!("debian:12 src:p {want}"), "{body}");
    }
    let mut kept = Kept::default();
    let bad = debian::parse(release(r#"{"status":"new"}"#).as_bytes(), &mut kept).unwrap_err();
    assert!(matches!(bad, ParseError::MostlyBad { bad: 1, all: 1, .. }), "{bad}");
}

fn secdb(family: Family, files: &[&str]) -> (Kept, Summary) {
    let mut kept = Kept::default();
    let mut reader = secdb::Reader::new(family);
    for file in files {
        reader.read(&*data(file)).unwrap();
    }
    let summary = reader.finish(&mut kept).unwrap();
    (kept, summary)
}

#[test]
fn alpine_secdb() {
    let files = ["secdb-alpine-3.15-main.json", "secdb-alpine-3.15-community.json"];
    let (kept, summary) = secdb(Family::Alpine, &files);
    assert_eq!((summary.advisories, summary.skipped_count), (16, 0));
    insta::assert_snapshot!("alpine", shown(&kept));
}

#[test]
fn wolfi_secdb() {
    let (kept, summary) = secdb(Family::Wolfi, &["secdb-wolfi.json"]);
    assert_eq!(summary.skipped_count, 0);
    insta::assert_snapshot!("wolfi", shown(&kept));
}

#[test]
fn secdb_entries_hold_many_things() {
    let file = r#"{"packages":[{"pkg":{"name":"p","secfixes":{
        "1-r0":["CVE-2017-2616 (+ regression fix)"], "2-r0":["CVE-2018-1 CVE-2018-2"],
        "3-r0":["XSA-123","CVE-2019-1 XSA-200"], "0":["CVE-2020-1?","CVE-2018-2"], "4-r0":null}}}],
        "distroversion":"v3.20"}"#;
    let mut reader = secdb::Reader::new(Family::Alpine);
    reader.read(file.as_bytes()).unwrap();
    let mut kept = Kept::default();
    reader.finish(&mut kept).unwrap();
    insta::assert_snapshot!(shown(&kept), @r"
    alpine CVE-2017-2616
    alpine:3.20 src:p fixed [,1-r0)

    alpine CVE-2018-1
    alpine:3.20 src:p fixed [,2-r0)

    alpine CVE-2018-2
    alpine:3.20 src:p fixed [,2-r0)

    alpine CVE-2019-1 aliases=XSA-200
    alpine:3.20 src:p fixed [,3-r0)

    alpine CVE-2020-1
    alpine:3.20 src:p not-affected

    alpine XSA-123
    alpine:3.20 src:p fixed [,3-r0)
    ");
    for bad in [r#"{"packages":[]}"#, r#"{"distroversion":"../x","packages":[]}"#, "{}", "[]"] {
        assert!(secdb::Reader::new(Family::Alpine).read(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn amazon_updateinfo() {
    let mut kept = Kept::default();
    let file = data("updateinfo-amazon-2.xml");
    let summary = amazon::parse(&*file, "amazon:2", &mut kept).unwrap();
    assert_eq!((summary.advisories, summary.ignored), (1, 1));
    assert_eq!(summary.newest_modified_ms, Some(1_515_445_200_000));
    assert!(kept.advisories[0].details.ends_with("An industry-wide issue & more."));
    insta::assert_snapshot!("amazon", shown(&kept));
}

#[test]
fn oracle_oval() {
    for (name, advisories) in [("data", 2), ("ksplice_data", 1), ("per_arch_data", 3)] {
        let mut kept = Kept::default();
        let file = data(&format!("oracle-{name}.xml.bz2"));
        let summary = oracle::parse(&*file, &mut kept).unwrap();
        assert_eq!(summary.skipped_count, 0, "{name}");
        assert_eq!(summary.advisories + summary.ignored, advisories, "{name}");
        insta::assert_snapshot!(format!("oracle-{name}"), shown(&kept));
    }
}

#[test]
fn azure_oval() {
    for (source, release) in [("azurelinux", "3.0"), ("mariner", "2.0")] {
        let mut kept = Kept::default();
        let mut reader = azure::Reader::new(source);
        let file = data(&format!("{source}-{release}-oval.xml"));
        reader.read(&*file, &format!("{source}:{release}")).unwrap();
        let summary = reader.finish(&mut kept).unwrap();
        assert_eq!(summary.skipped_count, 0, "{source}");
        insta::assert_snapshot!(source, shown(&kept));
    }
}

#[test]
fn photon_lists() {
    let mut kept = Kept::default();
    let mut reader = photon::Reader::new();
    for release in ["1.0", "4.0"] {
        let file = data(&format!("cve_data_photon{release}.json"));
        reader.read(&*file, &format!("photon:{release}")).unwrap();
    }
    let summary = reader.finish(&mut kept).unwrap();
    assert_eq!((summary.skipped_count, summary.ignored), (0, 1));
    insta::assert_snapshot!("photon", shown(&kept));
}

#[test]
fn suse_documents() {
    let mut kept = Kept::default();
    suse::apply_document(&data("suse/cve-2023-9999.json"), &mut kept).unwrap();
    insta::assert_snapshot!(shown(&kept), @r"
    suse CVE-2023-9999 suse=CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H suse=important
    opensuse-leap:15.5 curl-mini not-affected
    opensuse-leap:15.5 libcurl4 fixed [,8.0.1-150400.5.32.1)
    sles:12.5 curl-mini affected
    sles:15.5 curl fixed [,8.0.1-150400.5.32.1)
    ");
}
