//! Manifests and indexes: a checked view of what they point at.
//!
//! A view is all there is. The bytes of a manifest are its identity, so they are kept and served
//! as they came, and nothing here writes a manifest back. Sizes, depth and the number of items
//! are checked before anything is built from the document.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use crate::{
    descriptor::{Descriptor, Notes, filled},
    error::ManifestError,
    media_type,
    text::{cut, printable},
};

/// Largest manifest that is accepted, in bytes: 4 MiB, which the specification asks for.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// Deepest nesting of objects and arrays that is accepted.
pub const MAX_MANIFEST_DEPTH: usize = 64;
/// Most array items and object members that are accepted, all levels together. A dense index of
/// 4 MiB has about 100,000; without a limit a hostile one makes us hold ten times its length.
pub const MAX_MANIFEST_ITEMS: usize = 250_000;
/// Longest reason of a JSON error that is repeated.
const REASON_PRINTABLE: usize = 200;

/// What an image manifest or an index points at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// One of the four readable types of [`media_type`]: the document's own, else the header's,
    /// else what the shape of the document says.
    pub media_type: String,
    /// What the artifact is, if it says so.
    pub artifact_type: Option<String>,
    /// The configuration; always there in an image manifest, never in an index.
    pub config: Option<Descriptor>,
    /// The layers of an image manifest, in their order.
    pub layers: Vec<Descriptor>,
    /// The entries of an index, in their order.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one says something about.
    pub subject: Option<Descriptor>,
    /// Free notes.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads the view from a manifest's bytes and the `Content-Type` they came with. A type that
    /// says nothing (`application/json`, `text/plain`, bytes) counts as none.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            let (actual, max) = (bytes.len(), MAX_MANIFEST_BYTES);
            return Err(ManifestError::TooLarge { actual, max });
        }
        let header = content_type.map(media_type::essence).filter(|t| !media_type::is_generic(t));
        if header.is_some_and(media_type::is_schema1) {
            return Err(ManifestError::Schema1);
        }
        check_extent(bytes)?;
        let text = std::str::from_utf8(bytes)
            .map_err(|error| ManifestError::Invalid { reason: error.to_string() })?;
        let document: Document = serde_json::from_str(text).map_err(|error| {
            ManifestError::Invalid { reason: cut(&error.to_string(), REASON_PRINTABLE) }
        })?;
        document.view(header)
    }

    /// Whether it is an index or manifest list.
    #[must_use]
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.media_type)
    }

    /// The blobs it points at: the configuration, then the layers. Non-distributable layers are
    /// among them.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers)
    }

    /// The manifests it points at, if it is an index.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter()
    }

    /// The artifact type that a list of referrers shows for it: its own, else that of its
    /// configuration.
    #[must_use]
    pub fn referrer_type(&self) -> Option<&str> {
        let config_type = || self.config.as_ref().map(|config| config.media_type.as_str());
        self.artifact_type.as_deref().or_else(config_type)
    }
}

/// Walks the document once, without building anything, and refuses what is too deep or has too
/// many items. Whether it is JSON at all is for the parser to say.
fn check_extent(bytes: &[u8]) -> Result<(), ManifestError> {
    let (mut depth, mut items) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => items += 1,
            _ => {}
        }
        if depth > MAX_MANIFEST_DEPTH {
            return Err(ManifestError::TooDeep { max: MAX_MANIFEST_DEPTH });
        }
        if items > MAX_MANIFEST_ITEMS {
            return Err(ManifestError::TooManyItems { max: MAX_MANIFEST_ITEMS });
        }
    }
    Ok(())
}

/// The document as it is written: what is absent or `null` is `None`.
#[derive(Default)]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    /// Outer `None`: absent; inner `None`: `null`, which is an empty index of a Go client.
    manifests: Option<Option<Vec<Descriptor>>>,
    subject: Option<Descriptor>,
    annotations: Notes,
    has_schema1_fields: bool,
}

impl Document {
    fn view(self, header: Option<&str>) -> Result<Manifest, ManifestError> {
        self.check_schema()?;
        let media_type = self.media_type(header)?;
        let has_image = self.config.is_some() || self.layers.is_some();
        let has_index = self.manifests.as_ref().is_some_and(Option::is_some);
        if media_type::is_index(media_type) {
            if has_image {
                return Err(ManifestError::Mixed);
            }
            if self.manifests.is_none() {
                return Err(ManifestError::Missing { field: "manifests" });
            }
        } else {
            if has_index {
                return Err(ManifestError::Mixed);
            }
            if self.config.is_none() {
                return Err(ManifestError::Missing { field: "config" });
            }
        }
        Ok(Manifest {
            media_type: media_type.to_owned(),
            artifact_type: self.artifact_type,
            config: self.config,
            layers: self.layers.unwrap_or_default(),
            manifests: self.manifests.flatten().unwrap_or_default(),
            subject: self.subject,
            annotations: self.annotations.0,
        })
    }

    fn check_schema(&self) -> Result<(), ManifestError> {
        let says_schema1 = self.media_type.as_deref().is_some_and(media_type::is_schema1);
        match self.schema_version {
            Some(1) => Err(ManifestError::Schema1),
            _ if says_schema1 || self.has_schema1_fields => Err(ManifestError::Schema1),
            // Clients do not look at the version, so an upstream may get away without one.
            None | Some(2) => Ok(()),
            Some(version) => Err(ManifestError::SchemaVersion { version }),
        }
    }

    /// What the document is, by its own word, by the header's, or by its shape.
    fn media_type(&self, header: Option<&str>) -> Result<&'static str, ManifestError> {
        let body = self.media_type.as_deref();
        if let (Some(header), Some(body)) = (header, body)
            && !media_type::same(header, body)
        {
            let (header, body) = (printable(header), printable(body));
            return Err(ManifestError::Mismatch { header, body });
        }
        match body.or(header) {
            Some(said) => media_type::readable(said)
                .ok_or_else(|| ManifestError::MediaType { media_type: printable(said) }),
            None if self.manifests.is_some() && self.config.is_none() => Ok(media_type::OCI_INDEX),
            None => Ok(media_type::OCI_MANIFEST),
        }
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Field {
    SchemaVersion,
    MediaType,
    ArtifactType,
    Config,
    Layers,
    Manifests,
    Subject,
    Annotations,
    FsLayers,
    Signatures,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        while let Some(field) = map.next_key()? {
            match field {
                Field::SchemaVersion => document.schema_version = map.next_value()?,
                Field::MediaType => document.media_type = filled(map.next_value()?),
                Field::ArtifactType => document.artifact_type = filled(map.next_value()?),
                Field::Config => document.config = map.next_value()?,
                Field::Layers => document.layers = map.next_value()?,
                Field::Manifests => document.manifests = Some(map.next_value()?),
                Field::Subject => document.subject = map.next_value()?,
                Field::Annotations => document.annotations = map.next_value()?,
                Field::FsLayers | Field::Signatures => {
                    document.has_schema1_fields = true;
                    map.next_value::<IgnoredAny>()?;
                }
                Field::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(document)
    }
}
