//! SPDX 2.3 as JSON (ISO/IEC 5962 and its successor): the image, its distribution and packages.
//!
//! Findings are links to advisories (`SECURITY`/`advisory`). The form has no word for a partly
//! read image; the document's comment says it, and the image's too.

use std::{
    collections::{BTreeSet, HashMap},
    io,
};

use kuboard_oci::Algorithm;
use kuboard_vuln::{Distribution, Outcome, PlacedPackage, Report};
use serde_json::{Map, Value, json};

use super::{cyclonedx::image_purl, identifier, licenses::References, purl::purl};
use crate::report::{WriteOptions, dates, text};

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-Image";
const DISTRIBUTION: &str = "SPDXRef-Distribution";
/// Begins the comment of a document that is not complete.
pub(super) const NOT_COMPLETE: &str = "NOT COMPLETE";
/// Problems that the comment names.
const MAX_PROBLEMS: usize = 100;
/// Advisories of a package.
const MAX_ADVISORIES: usize = 500;

/// Writes the report.
///
/// # Errors
/// Those of the writer.
pub fn write_spdx(
    report: &Report,
    options: &WriteOptions<'_>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let mut licenses = References::default();
    let mut packages = vec![image(report)];
    let mut relationships = vec![relationship(DOCUMENT, "DESCRIBES", IMAGE)];
    if let Some(distribution) = &report.distribution {
        packages.push(operating_system(distribution));
        relationships.push(relationship(IMAGE, "CONTAINS", DISTRIBUTION));
    }
    let advisories = advisories(report);
    for (number, placed) in report.packages.iter().enumerate() {
        let id = package_id(number, placed);
        relationships.push(relationship(IMAGE, "CONTAINS", &id));
        packages.push(package(report, placed, &id, &advisories, &mut licenses));
    }
    let uuid = identifier::uuid(report, "spdx");
    let name = if report.image.name.is_empty() { "image" } else { &report.image.name };
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": name,
        "documentNamespace": format!(
            "https://spdx.org/spdxdocs/{}-{uuid}",
            text::percent_encoded(&text::cut(name, 200), b"")
        ),
        "creationInfo": {
            "created": dates::rfc3339(report.scanned_ms),
            "creators": [format!("Tool: kuboard-{}", text::line(options.tool_version))],
        },
        "packages": packages,
        "relationships": relationships,
    });
    let extracted = licenses.extracted();
    if let Some(document) = document.as_object_mut() {
        if !extracted.is_empty() {
            document.insert("hasExtractedLicensingInfos".to_owned(), Value::Array(extracted));
        }
        if let Some(comment) = comment(report) {
            document.insert("comment".to_owned(), json!(comment));
        }
    }
    text::write_json(&document, text::Layout::Pretty, to)
}

fn comment(report: &Report) -> Option<String> {
    match &report.outcome {
        Outcome::Complete => None,
        Outcome::Unsupported { reason } => Some(format!("{NOT_COMPLETE}: unsupported: {reason}")),
        Outcome::Partial { problems } => {
            let texts: Vec<_> = problems
                .iter()
                .take(MAX_PROBLEMS)
                .map(|one| format!("{}: {} ({})", one.path, one.why, one.by))
                .collect();
            Some(format!("{NOT_COMPLETE}: {} problems: {}", problems.len(), texts.join("; ")))
        }
    }
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn reference(category: &str, kind: &str, locator: &str) -> Value {
    json!({ "referenceCategory": category, "referenceType": kind, "referenceLocator": locator })
}

/// What every package must say.
fn base(id: &str, name: &str, purpose: &str) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("SPDXID".to_owned(), json!(id));
    out.insert("name".to_owned(), json!(name));
    out.insert("downloadLocation".to_owned(), json!("NOASSERTION"));
    out.insert("filesAnalyzed".to_owned(), json!(false));
    out.insert("licenseConcluded".to_owned(), json!("NOASSERTION"));
    out.insert("licenseDeclared".to_owned(), json!("NOASSERTION"));
    out.insert("copyrightText".to_owned(), json!("NOASSERTION"));
    out.insert("primaryPackagePurpose".to_owned(), json!(purpose));
    out
}

fn image(report: &Report) -> Value {
    let image = &report.image;
    let name = if image.name.is_empty() { "image" } else { &image.name };
    let mut out = base(IMAGE, name, "CONTAINER");
    if let Some(digest) = &image.digest {
        let algorithm = match digest.algorithm() {
            Algorithm::Sha256 => "SHA256",
            Algorithm::Sha512 => "SHA512",
        };
        out.insert("versionInfo".to_owned(), json!(digest));
        let checksum = json!([{ "algorithm": algorithm, "checksumValue": digest.hex() }]);
        out.insert("checksums".to_owned(), checksum);
    }
    if let Some(purl) = image_purl(image) {
        let references = [reference("PACKAGE-MANAGER", "purl", &purl)];
        out.insert("externalRefs".to_owned(), json!(references));
    }
    if let Some(comment) = comment(report) {
        out.insert("comment".to_owned(), json!(comment));
    }
    Value::Object(out)
}

fn operating_system(distribution: &Distribution) -> Value {
    let name = if distribution.id.is_empty() { "unknown" } else { &distribution.id };
    let mut out = base(DISTRIBUTION, name, "OPERATING-SYSTEM");
    if !distribution.version_id.is_empty() {
        out.insert("versionInfo".to_owned(), json!(distribution.version_id));
    }
    if !distribution.pretty_name.is_empty() {
        out.insert("summary".to_owned(), json!(distribution.pretty_name));
    }
    Value::Object(out)
}

/// `SPDXRef-Package-deb-libc6-7`.
fn package_id(number: usize, placed: &PlacedPackage) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let name: String = placed.package.name.chars().take(64).map(word).collect();
    format!("SPDXRef-Package-{}-{name}-{number}", placed.package.ecosystem.as_str())
}

type Advisories<'a> = HashMap<(&'a kuboard_vuln::Package, &'a str), BTreeSet<&'a str>>;

/// The first link of each finding, by package.
fn advisories(report: &Report) -> Advisories<'_> {
    let mut out: Advisories<'_> = HashMap::new();
    for finding in &report.findings {
        if let Some(url) = finding.references.iter().find_map(|one| text::link(&one.url)) {
            out.entry((&finding.package, &finding.path)).or_default().insert(url);
        }
    }
    out
}

fn package(
    report: &Report,
    placed: &PlacedPackage,
    id: &str,
    advisories: &Advisories<'_>,
    licenses: &mut References,
) -> Value {
    let package = &placed.package;
    let mut out = base(id, &package.name, "LIBRARY");
    if !package.version.is_empty() {
        out.insert("versionInfo".to_owned(), json!(package.version));
    }
    out.insert("licenseDeclared".to_owned(), json!(licenses.declared(&package.licenses)));
    out.insert("supplier".to_owned(), json!("NOASSERTION"));
    if !placed.path.is_empty() {
        out.insert("packageFileName".to_owned(), json!(placed.path));
    }
    let layer = usize::try_from(placed.layer).ok().and_then(|index| report.layers.get(index));
    let mut found = format!("found by {} in {}", placed.by, placed.path);
    if let Some(layer) = layer {
        found.push_str(&format!(", layer {}", layer.digest));
    }
    out.insert("sourceInfo".to_owned(), json!(found));
    let url = purl(package, report.distribution.as_ref());
    let mut references = vec![reference("PACKAGE-MANAGER", "purl", &url)];
    if let Some(urls) = advisories.get(&(package, placed.path.as_str())) {
        let urls = urls.iter().take(MAX_ADVISORIES);
        references.extend(urls.map(|url| reference("SECURITY", "advisory", url)));
    }
    out.insert("externalRefs".to_owned(), Value::Array(references));
    Value::Object(out)
}
