use kuboard_vuln::{Ecosystem, Report};

use super::{MAX_COMPONENTS, SbomDocument, SbomError, SbomFormat, read};
use crate::report::{
    Format,
    tests::{OPTIONS, sample, written},
};

const REDHAT: &str = include_str!("../../../tests/data/report/redhat.spdx.json");

fn again(report: &Report, format: Format) -> SbomDocument {
    read(written(report, format, &OPTIONS).as_bytes()).unwrap()
}

/// Packages without what a form has no field for.
fn bare(document: &SbomDocument) -> Vec<String> {
    let packages = document.inventory.packages.iter();
    let bare = packages.map(|placed| {
        let package = &placed.package;
        let source =
            package.source.as_ref().map(|source| format!("{} {}", source.name, source.version));
        format!(
            "{} {} {} {} {source:?} {:?}",
            package.ecosystem.as_str(),
            package.name,
            package.version,
            placed.path,
            package.licenses
        )
    });
    bare.collect()
}

#[test]
fn our_own_documents_come_back() {
    let report = sample::ordinary();
    let json = again(&report, Format::Json);
    assert_eq!(json.format, SbomFormat::Kuboard);
    assert_eq!(json.inventory.packages, report.packages);

    let cyclone = again(&report, Format::CycloneDx);
    assert_eq!(cyclone.format, SbomFormat::CycloneDxJson);
    assert_eq!(cyclone.inventory.problems, []);
    assert_eq!(cyclone.inventory.distribution, report.distribution);
    let mut sorted = report.packages.clone();
    sorted.sort_by(|one, other| {
        let key =
            |one: &kuboard_vuln::PlacedPackage| (one.package.ecosystem, one.package.name.clone());
        key(one).cmp(&key(other))
    });
    for placed in &mut sorted {
        // Several licences of which none needs an expression stay as they are.
        placed.package.licenses.sort();
    }
    assert_eq!(cyclone.inventory.packages, sorted);
    let digests = |layers: &[kuboard_vuln::LayerReference]| {
        layers.iter().map(|one| (one.digest, one.diff_id)).collect::<Vec<_>>()
    };
    assert_eq!(digests(&cyclone.inventory.layers), digests(&report.layers));
    let mut identity = report.image.clone();
    (identity.created_ms, identity.size) = (None, 0);
    assert_eq!(cyclone.identity, identity);

    let spdx = again(&report, Format::Spdx);
    assert_eq!(spdx.format, SbomFormat::SpdxJson);
    assert_eq!(bare(&spdx), bare(&cyclone));
    assert_eq!(spdx.inventory.problems, []);
    assert_eq!(spdx.inventory.distribution.as_ref().unwrap().version_id, "12");
    assert_eq!(spdx.identity.digest, report.image.digest);
    assert_eq!(spdx.identity.repository, "team/app");
    assert_eq!(spdx.inventory.layers.len(), 2);
}

#[test]
fn what_was_not_read_is_not_forgotten() {
    for format in [Format::Json, Format::CycloneDx, Format::Spdx] {
        let document = again(&sample::partial(), format);
        assert!(!document.inventory.problems.is_empty(), "{format}");
    }
}

#[test]
fn hostile_documents_are_read_or_refused() {
    for format in [Format::Json, Format::CycloneDx, Format::Spdx] {
        let document = again(&sample::hostile(), format);
        assert!(!document.inventory.problems.is_empty(), "{format}");
    }
}

#[test]
fn red_hats_document_is_read() {
    let document = read(REDHAT.as_bytes()).unwrap();
    assert_eq!(document.inventory.problems, []);
    let distribution = document.inventory.distribution.as_ref().unwrap();
    assert_eq!((distribution.id.as_str(), distribution.version_id.as_str()), ("rhel", "9.7"));
    let digest = document.identity.digest.as_ref().unwrap().to_string();
    assert_eq!(digest, "sha256:989a54762df6a21190a34dda0ffb682358fe5c29b249645536a2436b313af367");
    assert_eq!(document.identity.registry, "quay.io");
    let find = |name: &str| {
        let mut packages = document.inventory.packages.iter().map(|placed| &placed.package);
        packages.find(|package| package.name == name).unwrap().clone()
    };
    let alternatives = find("alternatives");
    assert_eq!(alternatives.version, "1.24-2.el9");
    assert_eq!(alternatives.source.unwrap().name, "chkconfig");
    assert_eq!(alternatives.licenses, ["GPL-2.0-only"]);
    assert_eq!(find("chardet").ecosystem, Ecosystem::Pypi);
    assert_eq!(find("acl").licenses, ["GPLv2+"], "the reference's text");
}

fn statement(predicate: &str) -> String {
    let digest = "ab".repeat(32);
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"x",
        "subject":[{{"name":"app","digest":{{"sha256":"{digest}"}}}}],"predicate":{predicate}}}"#
    )
}

const SMALL: &str = r#"{"bomFormat":"CycloneDX","specVersion":"1.4","components":[
    {"type":"library","group":"@a","name":"b","version":"1","purl":"pkg:npm/%40a/b@1","licenses":[{"license":{"id":"MIT"}}],
     "components":[{"type":"library","name":"inner","version":"2","purl":"pkg:npm/inner@2"}],
     "pedigree":{"ancestors":[{"type":"library","name":"old","purl":"pkg:npm/old@0"}]}},
    {"type":"file","name":"/etc/passwd"},
    {"type":"operating-system","name":"alpine","version":"3.20.1"},
    {"type":"application","name":"mystery","version":"1"},
    {"type":"library","name":"conda","version":"1","purl":"pkg:conda/x@1"},
    null
]}"#;

fn check_small(text: &str, digest: bool) {
    let document = read(text.as_bytes()).unwrap();
    let names: Vec<_> =
        document.inventory.packages.iter().map(|one| one.package.name.as_str()).collect();
    assert_eq!(names, ["@a/b", "inner"], "{text}");
    assert_eq!(document.inventory.packages[0].package.licenses, ["MIT"]);
    assert_eq!(document.inventory.distribution.as_ref().unwrap().version_id, "3.20.1");
    let problems: Vec<_> = document
        .inventory
        .problems
        .iter()
        .map(|one| (one.path.as_str(), one.why.as_str()))
        .collect();
    assert_eq!(
        problems,
        [
            ("mystery", "has no package URL and can't be matched"),
            ("conda", "there are no advisories for packages of type conda"),
        ]
    );
    assert_eq!(document.identity.digest.is_some(), digest);
}

#[test]
fn components_are_read_wherever_they_are() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    check_small(SMALL, false);
    check_small(&format!("\u{feff}\n {SMALL}"), false);
    check_small(&statement(SMALL), true);
    check_small(&statement(&format!(r#"{{"Timestamp":"","Data":{SMALL}}}"#)), true);
    let payload = STANDARD.encode(statement(SMALL));
    check_small(
        &format!(
            r#"{{"payloadType":"application/vnd.in-toto+json","payload":"{payload}","signatures":[]}}"#
        ),
        true,
    );
}

#[test]
fn xml_is_read() {
    check_small(
        r#"<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y "z">]>
<bom xmlns="http://cyclonedx.org/schema/bom/1.4" version="1">
 <metadata><tools><components><component type="application"><name>tool</name><purl>pkg:npm/tool@1</purl></component></components></tools>
  <component type="container"><name>app</name></component></metadata>
 <components>
  <component type="library"><group>@a</group><name>b&y;</name><version>1</version>
   <licenses><license><id>MIT</id></license></licenses><purl>pkg:npm/%40a/b@1</purl>
   <pedigree><ancestors><component type="library"><name>old</name><purl>pkg:npm/old@0</purl></component></ancestors></pedigree>
   <components><component type="library"><name><![CDATA[inner]]></name><purl>pkg:npm/inner@2</purl></component></components>
  </component>
  <component type="file"><name>/etc/passwd</name></component>
  <component type="operating-system"><name>alpine</name><version>3.20.1</version></component>
  <component type="application"><name>mystery</name><version>1</version></component>
  <component type="library"><name>conda</name><version>1</version><purl>pkg:conda/x@1</purl></component>
 </components>
</bom>"#,
        false,
    );
    let document = read(br#"<b:bom xmlns:b="http://cyclonedx.org/schema/bom/1.6"><b:metadata><b:component type="container"><b:name>app</b:name></b:component></b:metadata></b:bom>"#).unwrap();
    assert_eq!(
        (document.identity.name.as_str(), document.format),
        ("app", SbomFormat::CycloneDxXml)
    );
    assert_eq!(document.inventory.problems[0].why, "the bill of materials names no packages");
}

#[test]
fn other_things_are_refused() {
    let deep =
        format!(r#"{{"bomFormat":"CycloneDX","components":{}"#, r#"[{"components":"#.repeat(500));
    let xml = "<bom>".to_owned() + &"<a>".repeat(500);
    for (text, want) in [
        ("", "not a bill"),
        ("hello", "not a bill"),
        ("{}", "not a bill"),
        ("SPDXVersion: SPDX-2.3", "tag-value"),
        (r#"{"spdxVersion":"SPDX-1.2"}"#, "this version of SPDX"),
        (r#"{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld"}"#, "SPDX 3"),
        (r#"{"artifacts":[],"schema":{}}"#, "Syft"),
        (r#"{"bomFormat":"CycloneDX","components":["#, "damaged"),
        (r#"{"payload":"e30="}"#, "not a bill"),
        (&deep, "damaged"),
        ("<html></html>", "root element"),
        ("<bom><components>", "cut off"),
        (&xml, "inside of each other"),
    ] {
        let error = read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(want), "{text:.60}: {error}");
    }
}

#[test]
fn the_number_of_components_is_bounded() {
    let many = r#"{},"#.repeat(MAX_COMPONENTS + 1);
    for (begin, end) in [
        (r#"{"bomFormat":"CycloneDX","components":["#, "{}]}"),
        (r#"{"spdxVersion":"SPDX-2.3","packages":["#, "{}]}"),
    ] {
        let text = format!("{begin}{many}{end}");
        assert_eq!(read(text.as_bytes()), Err(SbomError::TooManyComponents));
    }
}

#[test]
fn incomplete_documents_say_so() {
    let text = SMALL.replacen(
        "\"components\"",
        r#""compositions":[{"aggregate":"incomplete_third_party_only"}],"components""#,
        1,
    );
    let document = read(text.as_bytes()).unwrap();
    assert!(document.inventory.problems.iter().any(|one| one.why.contains("incomplete")));
}

#[test]
fn tools_properties_are_read() {
    let text = r#"{"bomFormat":"CycloneDX","components":[{"type":"library","name":"libc6","version":"2.36",
      "purl":"pkg:deb/debian/libc6@2.36?arch=amd64&distro=debian-12.5","properties":[
      {"name":"aquasecurity:trivy:SrcName","value":"glibc"},{"name":"aquasecurity:trivy:SrcVersion","value":"2.36"},
      {"name":"aquasecurity:trivy:SrcRelease","value":"9"},{"name":"aquasecurity:trivy:SrcEpoch","value":"1"},
      {"name":"aquasecurity:trivy:LayerDigest","value":"sha256:HEX"}]}]}"#;
    let text = text.replace("HEX", &"cd".repeat(32));
    let document = read(text.as_bytes()).unwrap();
    let placed = &document.inventory.packages[0];
    let source = placed.package.source.as_ref().unwrap();
    assert_eq!((source.name.as_str(), source.version.as_str()), ("glibc", "1:2.36-9"));
    assert_eq!(document.inventory.layers.len(), 1);
    assert_eq!(document.inventory.distribution.as_ref().unwrap().version_id, "12.5");
}

proptest::proptest! {
    #[test]
    fn damaged_documents_never_panic(at in 0..SMALL.len(), byte in 0..128_u8) {
        let mut bytes = SMALL.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = read(&bytes);
        bytes.truncate(at);
        let _ = read(&bytes);
    }
}
