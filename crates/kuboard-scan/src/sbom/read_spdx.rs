//! SPDX 2.2 and 2.3 as JSON.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use kuboard_oci::Digest;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};

use super::{
    collect::{Collector, Component, Kind},
    licenses,
    seeds::{Each, Few, Text},
    spdx::NOT_COMPLETE,
};

/// Licences of a document that are in no list.
const MAX_EXTRACTED: usize = 100_000;
/// Images that may be the one the document is about.
const MAX_IMAGES: usize = 64;

/// A document while it is being read.
pub(super) struct Spdx<'c> {
    collector: &'c mut Collector,
    name: String,
    /// Texts of `LicenseRef-…`.
    extracted: HashMap<String, String>,
    /// What the document says it is about.
    described: BTreeSet<String>,
    /// Images by their ids, in the document's order.
    images: Vec<(String, Component)>,
}

impl<'c> Spdx<'c> {
    pub(super) fn new(collector: &'c mut Collector) -> Self {
        Self {
            collector,
            name: String::new(),
            extracted: HashMap::new(),
            described: BTreeSet::new(),
            images: Vec::new(),
        }
    }

    /// What can only be said when all was read: the image, and the texts of licences.
    pub(super) fn finish(self) {
        let described = self.images.iter().find(|(id, _)| self.described.contains(id));
        if let Some((_, image)) = described.or_else(|| self.images.first()) {
            self.collector.subject(image);
        }
        let collector = self.collector;
        if !self.name.is_empty() {
            collector.identity.name = self.name;
        }
        if collector.identity.digest.is_none() {
            let name = &collector.identity.name;
            collector.identity.digest = name.rsplit('@').next().and_then(|text| text.parse().ok());
        }
        for placed in collector.packages() {
            for license in &mut placed.package.licenses {
                if license.contains("LicenseRef-") {
                    *license = resolved(license, &self.extracted);
                }
            }
        }
    }

    fn package(&mut self, package: SpdxPackage) -> Result<(), String> {
        self.collector.count()?;
        let purls = || {
            let all = package.references.0.iter().filter(|one| one.kind.0 == "purl");
            all.map(|one| one.locator.0.as_str())
        };
        let purl = purls().next().unwrap_or_default();
        let is_image = purl.starts_with("pkg:oci/") || purl.starts_with("pkg:docker/");
        let kind = match package.purpose.0.as_str() {
            "CONTAINER" => Kind::Image,
            _ if is_image => Kind::Image,
            "OPERATING-SYSTEM" | "OPERATING_SYSTEM" => Kind::OperatingSystem,
            "FILE" | "DEVICE" | "SOURCE" => Kind::Other,
            _ => Kind::Package,
        };
        let sums = package.checksums.0.iter();
        let mut component = Component {
            kind,
            name: package.name.0,
            version: package.version.0,
            purl: purl.to_owned(),
            about: package.summary.0,
            licenses: licenses::parts(&package.declared.0),
            hash: sums.into_iter().find_map(Checksum::digest),
            properties: Vec::new(),
            path: package.file_name.0,
        };
        if component.licenses.is_empty() {
            component.licenses = licenses::parts(&package.concluded.0);
        }
        // The layer stands in the text that our own documents write.
        let layer = package.source_info.0.rsplit_once("layer ").map(|(_, layer)| layer);
        if let Some(layer) = layer.filter(|text| text.parse::<Digest>().is_ok()) {
            let name = super::properties::LAYER.to_owned();
            component.properties.push((name, layer.to_owned()));
        }
        match kind {
            Kind::Image if self.images.len() < MAX_IMAGES => {
                self.images.push((package.id.0, component));
            }
            // The application that a document describes is not installed anywhere.
            Kind::Package if component.purl.is_empty() && package.id.0.contains("DocumentRoot") => {
            }
            _ => self.collector.component(component),
        }
        Ok(())
    }

    fn relationship(&mut self, one: Relationship) {
        if one.kind.0 == "DESCRIBES" && self.described.len() < MAX_IMAGES {
            self.described.insert(one.to.0);
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Spdx<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Spdx<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an SPDX document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            match key.as_str() {
                "name" => self.name = map.next_value::<Text>()?.0,
                "comment" => {
                    let Text(comment) = map.next_value()?;
                    if comment.starts_with(NOT_COMPLETE) {
                        let why: String = comment.chars().take(1000).collect();
                        self.collector.problem("", format!("when it was made: {why}"));
                    }
                }
                "packages" => map.next_value_seed(Each::new(|one| self.package(one)))?,
                "relationships" => map.next_value_seed(Each::new(|one| {
                    self.relationship(one);
                    Ok(())
                }))?,
                "documentDescribes" => {
                    let Few(ids) = map.next_value::<Few<Text, MAX_IMAGES>>()?;
                    self.described.extend(ids.into_iter().map(|id| id.0));
                }
                "hasExtractedLicensingInfos" => {
                    let extracted = &mut self.extracted;
                    map.next_value_seed(Each::new(|one: Extracted| {
                        if extracted.len() < MAX_EXTRACTED {
                            let name = [one.name.0, one.text.0].into_iter();
                            let name = name.into_iter().find(|text| is_name(text));
                            extracted.extend(name.map(|name| (one.id.0, name)));
                        }
                        Ok(())
                    }))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a text names a licence, and is not the licence itself.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && text != "NOASSERTION" && !text.contains('\n')
}

/// An expression with its references replaced by what they stand for.
fn resolved(expression: &str, extracted: &HashMap<String, String>) -> String {
    if let Some(text) = extracted.get(expression) {
        return text.clone();
    }
    let words = licenses::tokens(expression);
    let words = words.map(|word| extracted.get(word).map_or(word, String::as_str));
    let text: String = words.take(256).collect::<Vec<_>>().join(" ");
    text.replace("( ", "(").replace(" )", ")")
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SpdxPackage {
    #[serde(rename = "SPDXID")]
    id: Text,
    name: Text,
    #[serde(rename = "versionInfo")]
    version: Text,
    summary: Text,
    #[serde(rename = "primaryPackagePurpose")]
    purpose: Text,
    #[serde(rename = "licenseDeclared")]
    declared: Text,
    #[serde(rename = "licenseConcluded")]
    concluded: Text,
    #[serde(rename = "packageFileName")]
    file_name: Text,
    #[serde(rename = "sourceInfo")]
    source_info: Text,
    #[serde(rename = "externalRefs")]
    references: Few<ExternalReference, 1024>,
    checksums: Few<Checksum, 16>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ExternalReference {
    #[serde(rename = "referenceType")]
    kind: Text,
    #[serde(rename = "referenceLocator")]
    locator: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Checksum {
    algorithm: Text,
    #[serde(rename = "checksumValue")]
    value: Text,
}

impl Checksum {
    fn digest(&self) -> Option<Digest> {
        (self.algorithm.0 == "SHA256").then(|| format!("sha256:{}", self.value.0).parse().ok())?
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Relationship {
    #[serde(rename = "relationshipType")]
    kind: Text,
    #[serde(rename = "relatedSpdxElement")]
    to: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Extracted {
    #[serde(rename = "licenseId")]
    id: Text,
    name: Text,
    #[serde(rename = "extractedText")]
    text: Text,
}
