use kuboard_oci::Digest;
use serde_json::{Value, json};

use super::{Purl, VexError, apply, parse};
use crate::matching::tests::finding;
use crate::{Ecosystem, Finding, ImageIdentity, Package, Source, Suppression};

fn image() -> ImageIdentity {
    ImageIdentity {
        name: "registry.example/team/app:1".to_owned(),
        registry: "registry.example".to_owned(),
        repository: "team/app".to_owned(),
        tag: "1".to_owned(),
        digest: Some(Digest::sha256(b"image")),
        ..ImageIdentity::default()
    }
}

fn curl() -> Finding {
    let mut package = Package::new(Ecosystem::Deb, "libcurl4", "7.88.1-10");
    package.arch = Some("amd64".to_owned());
    package.source = Some(Source { name: "curl".to_owned(), version: "7.88.1-10".to_owned() });
    finding("CVE-2024-1", package, "debian:12")
}

fn check(document: &Value, want: Option<&str>) {
    let parsed = parse(document.to_string().as_bytes()).unwrap();
    let got = apply(&[parsed], &curl(), Some(&image()));
    let got = got.map(|suppression| match suppression {
        Suppression::Vex { author, status, justification } => {
            format!("{author}: {status}: {justification}")
        }
        other => format!("{other:?}"),
    });
    assert_eq!(got.as_deref(), want, "{document}");
}

fn openvex(vulnerability: &Value, products: &Value, status: &str) -> Value {
    json!({
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "doc", "author": "us", "timestamp": "2026-01-01T00:00:00Z",
        "statements": [{
            "vulnerability": vulnerability, "products": products, "status": status,
            "justification": "component_not_present",
        }],
    })
}

#[test]
fn openvex_products() {
    let yes = Some("us: not_affected: component_not_present");
    let digest = Digest::sha256(b"image").to_string();
    let oci = format!("pkg:oci/app@{digest}?repository_url=registry.example/team/app");
    let other = "pkg:oci/app@sha256:00?repository_url=registry.example/team/app";
    for (products, want) in [
        (json!([{"@id": "pkg:deb/debian/libcurl4@7.88.1-10?arch=amd64"}]), yes),
        (json!(["pkg:deb/debian/curl?arch=source"]), yes),
        (json!(["pkg:deb/ubuntu/curl"]), None),
        (json!(["pkg:deb/debian/curl@7.88.1-9"]), None),
        (json!(["pkg:deb/debian/libcurl4?arch=arm64"]), None),
        (json!([{"@id": oci}]), yes),
        (json!([{"@id": other}]), None),
        (json!([{"@id": oci, "subcomponents": [{"@id": "pkg:deb/debian/curl"}]}]), yes),
        (json!([{"@id": oci, "subcomponents": [{"@id": "pkg:deb/debian/wget"}]}]), None),
        (json!([{"@id": oci, "subcomponents": [{"@id": "not a purl"}]}]), None),
        (json!([{"@id": "pkg:oci/app?repository_url=registry.example/team"}]), yes),
        (json!([{"@id": "pkg:oci/app?repository_url=registry.example&tag=2"}]), None),
        (json!([{"@id": "pkg:oci/app"}]), None),
        (json!(["registry.example/team/app:1"]), yes),
        (json!(["registry.example/team/app"]), yes),
        (json!(["registry.example/team/ap"]), None),
        (json!([{"@id": "x", "hashes": {"sha-256": &digest[7..]}}]), yes),
        (json!([]), None),
    ] {
        check(&openvex(&json!({"name": "CVE-2024-1"}), &products, "not_affected"), want);
    }
}

#[test]
fn openvex_vulnerabilities_and_status() {
    let product = json!(["pkg:deb/debian/curl"]);
    for (vulnerability, status, want) in [
        (json!("CVE-2024-1"), "fixed", Some("us: fixed: component_not_present")),
        (json!({"name": "X", "aliases": ["CVE-2024-1"]}), "fixed", {
            Some("us: fixed: component_not_present")
        }),
        (json!("CVE-2024-2"), "fixed", None),
        (json!("CVE-2024-1"), "affected", None),
        (json!("CVE-2024-1"), "under_investigation", None),
        (json!("CVE-2024-1"), "sorted", None),
    ] {
        check(&openvex(&vulnerability, &product, status), want);
    }
}

#[test]
fn the_latest_statement_counts() {
    let at = |time: &str, status: &str| {
        json!({"vulnerability": "CVE-2024-1", "products": ["pkg:deb/debian/curl"],
            "status": status, "timestamp": time})
    };
    for (statements, want) in [
        (
            json!([at("2026-01-02T00:00:00Z", "affected"), at("2026-01-01T00:00:00Z", "fixed")]),
            None,
        ),
        (
            json!([at("2026-01-01T00:00:00Z", "affected"), at("2026-01-02T00:00:00Z", "fixed")]),
            Some("us: fixed: "),
        ),
        (json!([at("", "fixed"), at("", "affected")]), None),
    ] {
        check(&json!({"author": "us", "statements": statements}), want);
    }
}

#[test]
fn csaf_products_and_relationships() {
    let digest = Digest::sha256(b"image").to_string();
    let document = |ids: &Value, list: &str| {
        json!({
            "document": {"category": "csaf_vex", "publisher": {"name": "us"},
                "tracking": {"id": "1", "current_release_date": "2026-01-01T00:00:00Z"}},
            "product_tree": {
                "branches": [{"branches": [
                    {"product": {"product_id": "curl", "product_identification_helper":
                        {"purl": "pkg:deb/debian/curl"}}},
                    {"product": {"product_id": "image", "product_identification_helper":
                        {"purl": format!("pkg:oci/app@{digest}")}}},
                    {"product": {"product_id": "platform", "product_identification_helper":
                        {"cpe": "cpe:/o:debian:debian_linux:12"}}},
                ]}],
                "relationships": [
                    {"product_reference": "curl", "relates_to_product_reference": "image",
                        "full_product_name": {"product_id": "image:curl"}},
                    {"product_reference": "curl", "relates_to_product_reference": "platform",
                        "full_product_name": {"product_id": "platform:curl"}},
                ],
            },
            "vulnerabilities": [{
                "cve": "CVE-2024-1", "product_status": {list: ids},
                "flags": [{"label": "component_not_present", "product_ids": ids}],
            }],
        })
    };
    let yes = Some("us: not_affected: component_not_present");
    for (ids, list, want) in [
        (json!(["curl"]), "known_not_affected", yes),
        (json!(["image"]), "known_not_affected", yes),
        (json!(["image:curl"]), "known_not_affected", yes),
        (json!(["platform:curl"]), "known_not_affected", None),
        (json!(["nothing"]), "known_not_affected", None),
        (json!(["curl"]), "fixed", Some("us: fixed: component_not_present")),
        (json!(["curl"]), "known_affected", None),
    ] {
        check(&document(&ids, list), want);
    }
    let read = parse(document(&json!(["platform:curl"]), "fixed").to_string().as_bytes()).unwrap();
    assert_eq!(read.unread, 1);
}

#[test]
fn what_is_no_vex_is_refused() {
    assert!(matches!(parse(b"{"), Err(VexError::Json(_))));
    assert_eq!(parse(b"{}"), Err(VexError::Unknown));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(parse(deep.as_bytes()), Err(VexError::Json(_))));
}

#[test]
fn package_urls_mean_packages() {
    let of = |ecosystem, name: &str, version: &str, namespace: &str| {
        finding("CVE-2024-1", Package::new(ecosystem, name, version), namespace)
    };
    for (purl, finding, want) in [
        ("pkg:npm/%40scope/a@1.0.0", of(Ecosystem::Npm, "@scope/a", "1.0.0", "npm"), true),
        ("pkg:npm/@scope/a", of(Ecosystem::Npm, "@scope/a", "1.0.0", "npm"), true),
        ("pkg:npm/a", of(Ecosystem::Npm, "@scope/a", "1.0.0", "npm"), false),
        ("pkg:maven/org.x/y@1", of(Ecosystem::Maven, "org.x:y", "1", "maven"), true),
        (
            "pkg:golang/github.com/a/b@v1.2.3",
            of(Ecosystem::Golang, "github.com/a/b", "v1.2.3", "go"),
            true,
        ),
        (
            "pkg:golang/github.com/a/b@v1.2.3",
            of(Ecosystem::Golang, "github.com/a/b", "1.2.3", "go"),
            true,
        ),
        ("pkg:pypi/Zope_Interface@1", of(Ecosystem::Pypi, "zope-interface", "1", "pypi"), true),
        ("pkg:rpm/redhat/bash@5.1-6?epoch=0", of(Ecosystem::Rpm, "bash", "5.1-6", "rhel:9"), true),
        ("pkg:rpm/redhat/vim@8-1?epoch=2", of(Ecosystem::Rpm, "vim", "2:8-1", "rhel:9"), true),
        ("pkg:rpm/redhat/vim@8-1?epoch=1", of(Ecosystem::Rpm, "vim", "2:8-1", "rhel:9"), false),
        ("pkg:rpm/suse/vim", of(Ecosystem::Rpm, "vim", "2:8-1", "rhel:9"), false),
    ] {
        assert_eq!(Purl::parse(purl).unwrap().is_package(&finding), want, "{purl}");
    }
    for bad in ["", "npm/a", "pkg:npm", "pkg:npm/", "pkg:npm/%zz", "pkg:/a"] {
        assert_eq!(Purl::parse(bad), None, "{bad}");
    }
}
