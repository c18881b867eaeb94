//! Which form a document has, and what wraps it.

use base64::{Engine, engine::general_purpose::STANDARD};
use kuboard_oci::Digest;
use kuboard_vuln::{ImageIdentity, ImageInventory, Outcome, Problem, Report};
use serde::{Deserialize, de::DeserializeSeed};

use super::{
    collect::Collector,
    read_cyclonedx, read_spdx, read_xml,
    seeds::{At, Few, Text},
};

/// The longest document.
pub const MAX_BYTES: usize = 256 << 20;
/// Components of a document, of any kind, nested ones too.
pub const MAX_COMPONENTS: usize = 500_000;
/// Envelopes around a document.
const MAX_ENVELOPES: u32 = 2;

/// The form that a document had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SbomFormat {
    /// CycloneDX as JSON.
    CycloneDxJson,
    /// CycloneDX as XML.
    CycloneDxXml,
    /// SPDX 2 as JSON.
    SpdxJson,
    /// Our own report.
    Kuboard,
}

/// What a bill of materials says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SbomDocument {
    /// The image that it is about, as far as it says.
    pub identity: ImageIdentity,
    /// Packages, distribution, layers; and as problems what can't be matched.
    pub inventory: ImageInventory,
    /// Its form.
    pub format: SbomFormat,
}

/// Why a document can't be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SbomError {
    /// It is too long.
    #[error("the bill of materials has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
    /// It has too many components.
    #[error("the bill of materials has more than {MAX_COMPONENTS} components")]
    TooManyComponents,
    /// It is something else.
    #[error("not a bill of materials; hint: CycloneDX as JSON or XML and SPDX 2 as JSON are read")]
    NotRecognised,
    /// It is one of a form that is not read.
    #[error("{0} is not read; hint: convert it to CycloneDX as JSON")]
    Unsupported(&'static str),
    /// It is damaged.
    #[error("the bill of materials is damaged: {0}")]
    Invalid(String),
}

/// What tells the forms apart.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Probe {
    #[serde(rename = "bomFormat")]
    bom_format: Text,
    #[serde(rename = "spdxVersion")]
    spdx_version: Text,
    predicate: Option<Inner>,
    subject: Few<Subject, 4>,
    payload: Option<String>,
    schema: Option<serde::de::IgnoredAny>,
    outcome: Text,
    artifacts: Option<serde::de::IgnoredAny>,
    #[serde(rename = "@context")]
    context: Option<serde::de::IgnoredAny>,
}

/// What may be in a statement; older tools wrap it once more.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Inner {
    #[serde(rename = "bomFormat")]
    bom_format: Text,
    #[serde(rename = "spdxVersion")]
    spdx_version: Text,
    #[serde(rename = "Data")]
    data: Option<Data>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Data {
    #[serde(rename = "bomFormat")]
    bom_format: Text,
    #[serde(rename = "spdxVersion")]
    spdx_version: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Subject {
    name: Text,
    digest: SubjectDigest,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SubjectDigest {
    sha256: Text,
}

/// Reads a document.
///
/// # Errors
/// It is too large, damaged, or of no form that is read. What can't be used in a document that can
/// be read is a problem of its inventory.
pub fn read(bytes: &[u8]) -> Result<SbomDocument, SbomError> {
    if bytes.len() > MAX_BYTES {
        return Err(SbomError::TooLarge(bytes.len()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'<') => {
            let mut collector = Collector::default();
            let result = read_xml::read(bytes, &mut collector);
            finish(collector, result, SbomFormat::CycloneDxXml)
        }
        Some(b'{') => read_json(bytes, 0),
        _ if bytes.starts_with(b"SPDXVersion:") => Err(SbomError::Unsupported("SPDX as tag-value")),
        _ => Err(SbomError::NotRecognised),
    }
}

fn read_json(bytes: &[u8], envelopes: u32) -> Result<SbomDocument, SbomError> {
    let probe: Probe = serde_json::from_slice(bytes).map_err(invalid)?;
    if let Some(payload) = &probe.payload {
        if envelopes >= MAX_ENVELOPES {
            return Err(SbomError::NotRecognised);
        }
        let payload = STANDARD.decode(payload.as_bytes());
        let payload = payload.map_err(|error| SbomError::Invalid(error.to_string()))?;
        return read_json(&payload, envelopes + 1);
    }
    let mut collector = Collector::default();
    subject(&probe, &mut collector);
    let none = Inner::default();
    let inner = probe.predicate.as_ref().unwrap_or(&none);
    let no_data = Data::default();
    let data = inner.data.as_ref().unwrap_or(&no_data);
    let (bom, spdx, path): (_, _, &[&str]) = if probe.predicate.is_none() {
        (&probe.bom_format, &probe.spdx_version, &[])
    } else if inner.data.is_some() {
        (&data.bom_format, &data.spdx_version, &["predicate", "Data"])
    } else {
        (&inner.bom_format, &inner.spdx_version, &["predicate"])
    };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    if bom.0 == "CycloneDX" {
        let seed = read_cyclonedx::Bom(&mut collector);
        let result = At { path, seed }.deserialize(&mut json).map_err(|error| error.to_string());
        return finish(collector, result, SbomFormat::CycloneDxJson);
    }
    if spdx.0.starts_with("SPDX-2.") {
        let mut spdx = read_spdx::Spdx::new(&mut collector);
        let result = At { path, seed: &mut spdx }.deserialize(&mut json);
        let result = result.map_err(|error| error.to_string());
        spdx.finish();
        return finish(collector, result, SbomFormat::SpdxJson);
    }
    if probe.schema.is_some() && !probe.outcome.0.is_empty() {
        return own(bytes);
    }
    Err(if !spdx.0.is_empty() {
        SbomError::Unsupported("this version of SPDX")
    } else if probe.artifacts.is_some() {
        SbomError::Unsupported("Syft's own JSON")
    } else if probe.context.is_some() {
        SbomError::Unsupported("SPDX 3")
    } else {
        SbomError::NotRecognised
    })
}

fn invalid(error: serde_json::Error) -> SbomError {
    SbomError::Invalid(error.to_string())
}

fn subject(probe: &Probe, collector: &mut Collector) {
    // A statement about several images says nothing of the one.
    if let [subject] = probe.subject.0.as_slice() {
        collector.identity.name.clone_from(&subject.name.0);
        let digest = format!("sha256:{}", subject.digest.sha256.0);
        collector.identity.digest = digest.parse::<Digest>().ok();
    }
}

fn finish(
    collector: Collector,
    result: Result<(), String>,
    format: SbomFormat,
) -> Result<SbomDocument, SbomError> {
    match result {
        Ok(()) => Ok(collector.finish(format)),
        Err(_) if collector.too_many => Err(SbomError::TooManyComponents),
        Err(error) => Err(SbomError::Invalid(error)),
    }
}

/// Our own report: its packages, and its problems.
fn own(bytes: &[u8]) -> Result<SbomDocument, SbomError> {
    let report: Report = serde_json::from_slice(bytes).map_err(invalid)?;
    if report.packages.len() > MAX_COMPONENTS {
        return Err(SbomError::TooManyComponents);
    }
    let problems = match report.outcome {
        Outcome::Complete => Vec::new(),
        Outcome::Partial { problems } => problems,
        Outcome::Unsupported { reason } => {
            vec![Problem { path: String::new(), by: "sbom".to_owned(), why: reason }]
        }
    };
    Ok(SbomDocument {
        identity: report.image,
        inventory: ImageInventory {
            layers: report.layers,
            distribution: report.distribution,
            packages: report.packages,
            problems,
        },
        format: SbomFormat::Kuboard,
    })
}
