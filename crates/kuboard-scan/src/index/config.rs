//! An image's configuration (OCI image specification, Docker's before it): what it says of the
//! layers and of the image. It is somebody's word, so everything is bounded, and what is absent or
//! `null` is nothing.

use std::{fmt, marker::PhantomData};

use kuboard_oci::{Digest, Manifest};
use kuboard_vuln::LayerReference;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Largest configuration that is read, in bytes.
pub const MAX_CONFIG_BYTES: usize = 16 << 20;
/// Build steps and digests that are kept; runtimes take no more than a few hundred layers.
const MAX_STEPS: usize = 4096;
const MAX_LABELS: usize = 256;
/// Bytes of a text that are kept.
const MAX_TEXT: usize = 4096;
const MAX_WORD: usize = 256;

/// What manifest and configuration say of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The manifest's layers, from the lowest up.
    pub layers: Vec<LayerReference>,
    /// `linux/amd64`, `linux/arm64/v8`; empty if unknown.
    pub platform: String,
    /// When the image was made, milliseconds since 1970.
    pub created_ms: Option<i64>,
    /// Labels, sorted; at most 256, with values of at most 4 KiB.
    pub labels: Vec<(String, String)>,
}

/// A configuration that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It has too many bytes.
    #[error("the configuration has {actual} bytes, more than {MAX_CONFIG_BYTES}")]
    TooLarge {
        /// How many.
        actual: usize,
    },
    /// It is no JSON, or not of the form of a configuration.
    #[error("the configuration can't be read: {0}")]
    Invalid(#[source] serde_json::Error),
}

/// Joins the layers of a manifest with the digests and build steps of its configuration.
///
/// The steps that made no layer are passed over; the others belong to the layers in their order.
/// If their numbers differ, somebody squashed layers, and no step is given. The same holds for the
/// digests of the uncompressed archives.
///
/// # Errors
/// The configuration can't be read. Its layers are the manifest's all the same.
pub fn layer_references(manifest: &Manifest, config: &[u8]) -> Result<ImageConfig, ConfigError> {
    if config.len() > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLarge { actual: config.len() });
    }
    let document: Document = serde_json::from_slice(config).map_err(ConfigError::Invalid)?;
    let count = manifest.layers.len();
    let mut steps: Vec<String> = document
        .history
        .0
        .into_iter()
        .filter(|step| step.empty_layer != Some(true))
        .map(|step| step.created_by.0)
        .collect();
    let mut diff_ids: Vec<Option<Digest>> =
        document.rootfs.unwrap_or_default().diff_ids.0.iter().map(|id| id.0.parse().ok()).collect();
    if steps.len() != count {
        steps.clear();
    }
    if diff_ids.len() != count {
        diff_ids.clear();
    }
    steps.resize(count, String::new());
    diff_ids.resize(count, None);
    let layers = manifest
        .layers
        .iter()
        .zip(diff_ids.into_iter().zip(steps))
        .map(|(layer, (diff_id, created_by))| LayerReference {
            digest: layer.digest,
            diff_id,
            created_by,
            size: layer.size,
        })
        .collect();
    let mut platform = document.os.0;
    for part in [document.architecture.0, document.variant.0] {
        if !part.is_empty() {
            platform.push('/');
            platform.push_str(&part);
        }
    }
    let created = document.created.0.parse::<jiff::Timestamp>().ok();
    Ok(ImageConfig {
        layers,
        platform,
        // Go's zero time stands for none.
        created_ms: created.map(jiff::Timestamp::as_millisecond).filter(|ms| *ms >= 0),
        labels: document.config.unwrap_or_default().labels.0,
    })
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Document {
    created: Text<MAX_WORD>,
    os: Text<MAX_WORD>,
    architecture: Text<MAX_WORD>,
    variant: Text<MAX_WORD>,
    config: Option<Runtime>,
    rootfs: Option<RootFs>,
    history: List<Step>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Runtime {
    #[serde(rename = "Labels")]
    labels: Labels,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RootFs {
    diff_ids: List<Text<MAX_WORD>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Step {
    created_by: Text<MAX_TEXT>,
    empty_layer: Option<bool>,
}

/// A text, cut after `MAX` bytes; `null` is empty.
#[derive(Default)]
struct Text<const MAX: usize>(String);

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        if text.len() > MAX {
            text.truncate(text.floor_char_boundary(MAX));
            text.shrink_to_fit();
        }
        Ok(Self(text))
    }
}

/// The first items of an array; `null` is empty.
struct List<T>(Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_unit<E>(self) -> Result<List<T>, E> {
        Ok(List::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<List<T>, A::Error> {
        let mut items = Vec::new();
        while items.len() < MAX_STEPS {
            match array.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(List(items)),
            }
        }
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(List(items))
    }
}

/// The first labels, sorted; `null` is empty.
#[derive(Default)]
struct Labels(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LabelsVisitor)
    }
}

struct LabelsVisitor;

impl<'de> Visitor<'de> for LabelsVisitor {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels")
    }

    fn visit_unit<E>(self) -> Result<Labels, E> {
        Ok(Labels::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut labels = Vec::new();
        while labels.len() < MAX_LABELS {
            match map.next_entry::<Text<MAX_WORD>, Text<MAX_TEXT>>()? {
                Some((key, value)) => labels.push((key.0, value.0)),
                None => break,
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        labels.sort();
        Ok(Labels(labels))
    }
}

#[cfg(test)]
mod tests {
    use kuboard_oci::{Digest, Manifest};

    use super::{ImageConfig, layer_references};

    fn manifest(layers: u8) -> Manifest {
        let digest = |name: u8| Digest::sha256(&[name]);
        let layers: Vec<_> = (0..layers)
            .map(|name| serde_json::json!({"mediaType": "x", "digest": digest(name), "size": 7}))
            .collect();
        let config = serde_json::json!({"mediaType": "x", "digest": digest(99), "size": 7});
        let manifest = serde_json::json!({"config": config, "layers": layers});
        Manifest::parse(manifest.to_string().as_bytes(), None).unwrap()
    }

    fn read(layers: u8, config: &str) -> ImageConfig {
        let image = layer_references(&manifest(layers), config.as_bytes()).unwrap();
        assert_eq!(image.layers.len(), usize::from(layers));
        image
    }

    #[test]
    fn a_configuration_is_joined_with_its_manifest() {
        let (one, two) = (Digest::sha256(b"one"), Digest::sha256(b"two"));
        let config = serde_json::json!({
            "created": "2024-05-06T07:08:09.5Z", "os": "linux", "architecture": "arm64",
            "variant": "v8", "config": {"Labels": {"b": "2", "a": null}, "Env": ["x"]},
            "rootfs": {"type": "layers", "diff_ids": [one, two]},
            "history": [
                {"created_by": "ADD rootfs"}, {"created_by": "ENV", "empty_layer": true},
                {"created_by": "RUN", "empty_layer": false},
            ],
        });
        let image = read(2, &config.to_string());
        assert_eq!(image.platform, "linux/arm64/v8");
        assert_eq!(image.created_ms, Some(1_714_979_289_500));
        let labels = [("a", ""), ("b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(image.labels, labels);
        let layers: Vec<_> =
            image.layers.iter().map(|layer| (layer.diff_id, layer.created_by.as_str())).collect();
        assert_eq!(layers, [(Some(one), "ADD rootfs"), (Some(two), "RUN")]);
        assert_eq!(image.layers[1].digest, Digest::sha256(&[1]));
        // Squashed: nothing is known of the one layer.
        let image = read(1, &config.to_string());
        assert_eq!((image.layers[0].diff_id, image.layers[0].created_by.as_str()), (None, ""));
    }

    #[test]
    fn little_is_enough() {
        let nulls = r#"{"created":null,"os":null,"config":null,"rootfs":null,"history":null}"#;
        let more = r#"{"created":"0001-01-01T00:00:00Z","config":{"Labels":null},
            "rootfs":{"diff_ids":null},"history":[{"created_by":null}]}"#;
        for config in ["{}", nulls, more] {
            let image = read(1, config);
            assert_eq!((image.platform.as_str(), image.created_ms), ("", None));
        }
        let refused = |config: &[u8]| layer_references(&manifest(1), config).is_err();
        assert!(refused(b"") && refused(b"7") && refused(b"{\"history\":{}}"));
        assert!(refused(&[b' '; super::MAX_CONFIG_BYTES + 1]));
        assert!(refused(&[b'['; 100_000]));
    }

    #[test]
    fn much_is_cut() {
        let long = "\u{e9}".repeat(5000);
        let history = vec![r#"{"created_by":"x"}"#; 10_000].join(",");
        let labels: Vec<String> = (0..1000).map(|key| format!("\"{key}\":\"{long}\"")).collect();
        let labels = labels.join(",");
        let image =
            read(1, &format!("{{\"history\":[{history}],\"config\":{{\"Labels\":{{{labels}}}}}}}"));
        assert_eq!(image.labels.len(), 256);
        assert!(image.labels.iter().all(|(_, value)| value.len() == 4096));
    }
}
