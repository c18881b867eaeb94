//! Descriptors: how a manifest points at content.
//!
//! Reading follows the Go clients that write most manifests: `null` counts as absent, unknown
//! fields are skipped without being kept, and of a field that stands twice the last one counts.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};

use crate::digest::Digest;

/// Largest size a descriptor may state, in bytes: what fits into a signed 64-bit integer, as in
/// the specification and in databases.
pub(crate) const MAX_SIZE: u64 = i64::MAX as u64;

/// A pointer from a manifest to content.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes; at most `i64::MAX` when read.
    pub size: u64,
    /// The machine an image in an index is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What the artifact is, where the content is a manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free notes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Where the content may be fetched from besides this registry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

impl Descriptor {
    /// A descriptor with the required fields only.
    #[must_use]
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            platform: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
            urls: Vec::new(),
        }
    }

    /// Whether it is a layer that the registry need not have.
    #[must_use]
    pub fn is_nondistributable(&self) -> bool {
        crate::media_type::is_nondistributable(&self.media_type)
    }
}

/// The machine that an image runs on; the words are those of Go (`amd64`, `linux`).
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// The processor; empty if the manifest does not say.
    pub architecture: String,
    /// The operating system; empty if the manifest does not say.
    pub os: String,
    /// The version of the operating system, used by Windows images.
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features the operating system must have.
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The variant of the processor, such as `v8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Annotations as they are read: for the map and for each value a client may write `null`.
#[derive(Default)]
pub(crate) struct Notes(pub(crate) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Notes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NotesVisitor)
    }
}

struct NotesVisitor;

impl<'de> Visitor<'de> for NotesVisitor {
    type Value = Notes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_unit<E: Error>(self) -> Result<Notes, E> {
        Ok(Notes::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Notes, A::Error> {
        let mut notes = BTreeMap::new();
        while let Some(key) = map.next_key()? {
            notes.insert(key, or_default(&mut map)?);
        }
        Ok(Notes(notes))
    }
}

/// A text that counts only when it is not empty.
pub(crate) fn filled(read: Option<String>) -> Option<String> {
    read.filter(|text| !text.is_empty())
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum DescriptorField {
    MediaType,
    Digest,
    Size,
    Platform,
    ArtifactType,
    Annotations,
    Urls,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DescriptorVisitor)
    }
}

struct DescriptorVisitor;

impl<'de> Visitor<'de> for DescriptorVisitor {
    type Value = Descriptor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a descriptor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Descriptor, A::Error> {
        let mut media_type: Option<String> = None;
        let mut digest: Option<Digest> = None;
        let mut size: Option<u64> = None;
        let mut platform: Option<Platform> = None;
        let mut artifact_type: Option<String> = None;
        let mut annotations = Notes::default();
        let mut urls: Option<Vec<String>> = None;
        while let Some(field) = map.next_key()? {
            match field {
                DescriptorField::MediaType => media_type = map.next_value()?,
                DescriptorField::Digest => digest = map.next_value()?,
                DescriptorField::Size => size = map.next_value()?,
                DescriptorField::Platform => platform = map.next_value()?,
                DescriptorField::ArtifactType => artifact_type = map.next_value()?,
                DescriptorField::Annotations => annotations = map.next_value()?,
                DescriptorField::Urls => urls = map.next_value()?,
                DescriptorField::Other => _ = map.next_value::<serde::de::IgnoredAny>()?,
            }
        }
        let size = size.ok_or_else(|| A::Error::missing_field("size"))?;
        if size > MAX_SIZE {
            return Err(A::Error::custom(format_args!("a size is at most {MAX_SIZE}")));
        }
        Ok(Descriptor {
            media_type: filled(media_type).ok_or_else(|| A::Error::missing_field("mediaType"))?,
            digest: digest.ok_or_else(|| A::Error::missing_field("digest"))?,
            size,
            platform,
            artifact_type: filled(artifact_type),
            annotations: annotations.0,
            urls: urls.unwrap_or_default(),
        })
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum PlatformField {
    Architecture,
    Os,
    #[serde(rename = "os.version")]
    OsVersion,
    #[serde(rename = "os.features")]
    OsFeatures,
    Variant,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PlatformVisitor)
    }
}

struct PlatformVisitor;

impl<'de> Visitor<'de> for PlatformVisitor {
    type Value = Platform;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a platform")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Platform, A::Error> {
        let mut platform = Platform::default();
        while let Some(field) = map.next_key()? {
            match field {
                PlatformField::Architecture => platform.architecture = or_default(&mut map)?,
                PlatformField::Os => platform.os = or_default(&mut map)?,
                PlatformField::OsVersion => platform.os_version = filled(map.next_value()?),
                PlatformField::OsFeatures => platform.os_features = or_default(&mut map)?,
                PlatformField::Variant => platform.variant = filled(map.next_value()?),
                PlatformField::Other => _ = map.next_value::<serde::de::IgnoredAny>()?,
            }
        }
        Ok(platform)
    }
}

fn or_default<'de, A, T>(map: &mut A) -> Result<T, A::Error>
where
    A: MapAccess<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(map.next_value::<Option<T>>()?.unwrap_or_default())
}
