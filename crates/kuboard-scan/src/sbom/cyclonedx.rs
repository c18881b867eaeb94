//! CycloneDX 1.6 as JSON (ECMA-424): the image, its distribution and packages, and what is wrong
//! with them. What was not read makes the composition `incomplete`.

mod vulnerabilities;

use std::{collections::HashSet, io};

use kuboard_oci::Algorithm;
use kuboard_vuln::{Distribution, ImageIdentity, Outcome, PlacedPackage, Report};
use serde_json::{Map, Value, json};

use super::{identifier, licenses, properties as names, purl::purl};
use crate::report::{WriteOptions, dates, text};

/// Problems that are written.
const MAX_PROBLEMS: usize = 1000;

/// Writes the report; vulnerabilities only if it has findings.
///
/// # Errors
/// Those of the writer.
pub fn write_cyclonedx(
    report: &Report,
    options: &WriteOptions<'_>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let root = root_reference(&report.image);
    let refs = references(report);
    let mut components = Vec::with_capacity(report.packages.len() + 1);
    components.extend(report.distribution.as_ref().map(operating_system));
    for (placed, reference) in report.packages.iter().zip(&refs) {
        components.push(component(report, placed, reference));
    }
    let mut contained: Vec<&str> = refs.iter().map(String::as_str).collect();
    if report.distribution.is_some() {
        contained.insert(0, OS_REFERENCE);
    }
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", identifier::uuid(report, "cyclonedx")),
        "version": 1,
        "metadata": {
            "timestamp": dates::rfc3339(report.scanned_ms),
            "tools": { "components": [{
                "type": "application",
                "name": "kuboard",
                "version": options.tool_version,
            }]},
            "component": image(report, &root),
            "properties": outcome(report),
        },
        "components": components,
        "dependencies": [{ "ref": root, "dependsOn": contained }],
        "compositions": [{
            "aggregate": match report.outcome {
                Outcome::Complete => "complete",
                Outcome::Partial { .. } => "incomplete",
                Outcome::Unsupported { .. } => "unknown",
            },
            "assemblies": [root],
        }],
    });
    let found = vulnerabilities::of(report, &refs);
    if let (false, Some(document)) = (found.is_empty(), document.as_object_mut()) {
        document.insert("vulnerabilities".to_owned(), Value::Array(found));
    }
    text::write_json(&document, text::Layout::Pretty, to)
}

/// Reference of the distribution's component.
const OS_REFERENCE: &str = "distribution";

fn root_reference(image: &ImageIdentity) -> String {
    image_purl(image).unwrap_or_else(|| "image".to_owned())
}

/// `pkg:oci/NAME@sha256%3A…`, for images with a repository and a digest.
pub(super) fn image_purl(image: &ImageIdentity) -> Option<String> {
    let digest = image.digest.as_ref()?.to_string();
    let name = image.repository.rsplit('/').next().filter(|name| !name.is_empty())?;
    let encoded = |text: &str| text::percent_encoded(text, b":");
    let mut out = format!("pkg:oci/{}@{}", encoded(&name.to_lowercase()), encoded(&digest));
    let arch = image.platform.split('/').nth(1).unwrap_or_default();
    let url = match image.registry.as_str() {
        "" => image.repository.clone(),
        registry => format!("{registry}/{}", image.repository),
    };
    let mut separator = '?';
    for (key, value) in [("arch", arch), ("repository_url", &url), ("tag", &image.tag)] {
        if !value.is_empty() {
            out.push_str(&format!("{separator}{key}={}", encoded(value)));
            separator = '&';
        }
    }
    Some(out)
}

/// References of the packages: their URLs, made unique by a number.
fn references(report: &Report) -> Vec<String> {
    let mut taken = HashSet::new();
    let mut refs = Vec::with_capacity(report.packages.len());
    for (number, placed) in report.packages.iter().enumerate() {
        let url = purl(&placed.package, report.distribution.as_ref());
        let reference = if taken.contains(&url) { format!("{url}#{number}") } else { url };
        taken.insert(reference.clone());
        refs.push(reference);
    }
    refs
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// Properties whose values are not empty.
fn filled<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Value> {
    let filled = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    filled.map(|(name, value)| property(name, value)).collect()
}

fn outcome(report: &Report) -> Vec<Value> {
    match &report.outcome {
        Outcome::Complete => vec![property(names::OUTCOME, "complete")],
        Outcome::Unsupported { reason } => {
            vec![property(names::OUTCOME, "unsupported"), property(names::PROBLEM, reason)]
        }
        Outcome::Partial { problems } => {
            let mut out = vec![property(names::OUTCOME, "partial")];
            let texts = problems.iter().take(MAX_PROBLEMS).map(|problem| {
                property(
                    names::PROBLEM,
                    &format!("{}: {}: {}", problem.by, problem.path, problem.why),
                )
            });
            out.extend(texts);
            out
        }
    }
}

fn image(report: &Report, root: &str) -> Value {
    let image = &report.image;
    let config = image.config.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut properties = filled([
        (names::IMAGE, image.name.as_str()),
        (names::REGISTRY, &image.registry),
        (names::IMAGE_REPOSITORY, &image.repository),
        (names::TAG, &image.tag),
        (names::CONFIG, &config),
        (names::PLATFORM, &image.platform),
    ]);
    for layer in &report.layers {
        let mut value = layer.digest.to_string();
        if let Some(diff_id) = &layer.diff_id {
            value.push_str(&format!(" {diff_id}"));
        }
        properties.push(property(names::IMAGE_LAYER, &value));
    }
    let mut out = Map::new();
    out.insert("bom-ref".to_owned(), json!(root));
    out.insert("type".to_owned(), json!("container"));
    out.insert("name".to_owned(), json!(if image.name.is_empty() { "image" } else { &image.name }));
    if let Some(digest) = &image.digest {
        out.insert("version".to_owned(), json!(digest));
        let algorithm = match digest.algorithm() {
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha512 => "SHA-512",
        };
        out.insert("hashes".to_owned(), json!([{ "alg": algorithm, "content": digest.hex() }]));
    }
    if let Some(purl) = image_purl(image) {
        out.insert("purl".to_owned(), json!(purl));
    }
    out.insert("properties".to_owned(), Value::Array(properties));
    Value::Object(out)
}

fn operating_system(distribution: &Distribution) -> Value {
    let likes = distribution.id_like.join(" ");
    json!({
        "bom-ref": OS_REFERENCE,
        "type": "operating-system",
        "name": if distribution.id.is_empty() { "unknown" } else { &distribution.id },
        "version": distribution.version_id,
        "description": distribution.pretty_name,
        "properties": filled([
            (names::CODENAME, distribution.codename.as_str()),
            (names::CPE, &distribution.cpe),
            (names::ID_LIKE, &likes),
            (names::NAME, &distribution.name),
            (names::VARIANT, &distribution.variant),
            (names::VERSION, &distribution.version),
        ]),
    })
}

fn component(report: &Report, placed: &PlacedPackage, reference: &str) -> Value {
    let package = &placed.package;
    let layer = usize::try_from(placed.layer).ok().and_then(|index| report.layers.get(index));
    let digest = layer.map(|layer| layer.digest.to_string()).unwrap_or_default();
    let diff_id = layer.and_then(|layer| layer.diff_id.as_ref()).map(ToString::to_string);
    let mut properties = filled([
        (names::PATH, placed.path.as_str()),
        (names::LAYER, &digest),
        (names::DIFF_ID, diff_id.as_deref().unwrap_or_default()),
        (names::INDEXER, &placed.by),
        (names::OWNED, if placed.owned { "true" } else { "" }),
        (names::ROLE, package.role.as_deref().unwrap_or_default()),
    ]);
    properties.extend(package.repositories.iter().map(|one| property(names::REPOSITORY, one)));
    let mut out = Map::new();
    out.insert("bom-ref".to_owned(), json!(reference));
    out.insert("type".to_owned(), json!("library"));
    out.insert("name".to_owned(), json!(package.name));
    out.insert("version".to_owned(), json!(package.version));
    let licenses = licenses::cyclonedx(&package.licenses);
    if !licenses.is_empty() {
        out.insert("licenses".to_owned(), Value::Array(licenses));
    }
    out.insert("purl".to_owned(), json!(purl(package, report.distribution.as_ref())));
    out.insert("properties".to_owned(), Value::Array(properties));
    Value::Object(out)
}
