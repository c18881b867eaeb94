//! Manifests: what real clients write, and what is refused.

use kuboard_oci::{
    Descriptor, Digest, MAX_MANIFEST_BYTES, MAX_MANIFEST_DEPTH, Manifest, ManifestError,
    media_type as m,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A descriptor of `content`.
fn pointer(media_type: &str, content: &str) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

fn digest(content: &str) -> String {
    Digest::sha256(content.as_bytes()).to_string()
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": m::OCI_MANIFEST,
        "config": pointer(m::OCI_CONFIG, "config"),
        "layers": [pointer(m::OCI_LAYER_GZIP, "one"), pointer(m::OCI_LAYER_GZIP, "two")],
    })
}

fn index() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": m::OCI_INDEX,
        "manifests": [pointer(m::OCI_MANIFEST, "arm"), pointer(m::OCI_MANIFEST, "amd")],
    })
}

fn with(mut document: Value, field: &str, value: Value) -> Value {
    document[field] = value;
    document
}

fn without(mut document: Value, field: &str) -> Value {
    document.as_object_mut().unwrap().remove(field);
    document
}

fn parse(document: &Value, content_type: Option<&str>) -> Result<Manifest, ManifestError> {
    Manifest::parse(document.to_string().as_bytes(), content_type)
}

#[track_caller]
fn taken(document: &Value, content_type: Option<&str>, media_type: &str) -> Manifest {
    let read = parse(document, content_type).unwrap_or_else(|error| panic!("{document}: {error}"));
    assert_eq!(read.media_type, media_type);
    read
}

#[track_caller]
fn refused(document: &Value, content_type: Option<&str>, expected: &ManifestError) {
    assert_eq!(parse(document, content_type).as_ref(), Err(expected), "{document}");
}

#[track_caller]
fn invalid(document: &Value, reason: &str) {
    match parse(document, None) {
        Err(ManifestError::Invalid { reason: actual }) => {
            assert!(actual.contains(reason), "{document}: {actual}");
        }
        other => panic!("{document}: {other:?}"),
    }
}

#[test]
fn an_image() {
    let read = taken(&image(), Some(m::OCI_MANIFEST), m::OCI_MANIFEST);
    assert!(!read.is_index());
    let digests: Vec<String> = read.blobs().map(|blob| blob.digest.to_string()).collect();
    assert_eq!(digests, [digest("config"), digest("one"), digest("two")]);
    assert_eq!(read.children().count(), 0);
    assert_eq!(read.referrer_type(), Some(m::OCI_CONFIG));
}

#[test]
fn an_index() {
    let document = with(index(), "annotations", json!({ "a": "b", "n": null }));
    let document = with(document, "artifactType", json!("application/x"));
    let read = taken(&document, Some(m::OCI_INDEX), m::OCI_INDEX);
    assert!(read.is_index());
    let sizes: Vec<u64> = read.children().map(|child| child.size).collect();
    assert_eq!(sizes, [3, 3]);
    assert_eq!((read.blobs().count(), read.referrer_type()), (0, Some("application/x")));
    assert_eq!(read.annotations["a"], "b");
    assert_eq!(read.annotations["n"], "");
    assert_eq!(taken(&index(), None, m::OCI_INDEX).referrer_type(), None);
}

#[test]
fn an_artifact() {
    let document = with(image(), "subject", pointer(m::OCI_MANIFEST, "subject"));
    let document = with(document, "config", pointer(m::EMPTY_JSON, "{}"));
    let read = taken(&with(document.clone(), "artifactType", json!("")), None, m::OCI_MANIFEST);
    assert_eq!(read.subject.unwrap().digest.to_string(), digest("subject"));
    assert_eq!(read.artifact_type, None);
    let read = taken(&with(document, "artifactType", json!("a/b")), None, m::OCI_MANIFEST);
    assert_eq!(read.referrer_type(), Some("a/b"));
}

#[test]
fn docker_types() {
    let list = with(index(), "mediaType", json!(m::DOCKER_LIST));
    let platform = json!({
        "architecture": "arm64", "os": "windows", "os.version": "10.0.1", "variant": "v8",
        "os.features": null, "features": ["sse4"], "other": {},
    });
    let entry = with(pointer(m::DOCKER_MANIFEST, "x"), "platform", platform);
    let read =
        taken(&with(list, "manifests", json!([entry])), Some(m::DOCKER_LIST), m::DOCKER_LIST);
    let platform = read.manifests[0].platform.clone().unwrap();
    assert_eq!((platform.architecture.as_str(), platform.os.as_str()), ("arm64", "windows"));
    assert_eq!(platform.os_version.as_deref(), Some("10.0.1"));
    assert_eq!(platform.variant.as_deref(), Some("v8"));

    let foreign = with(pointer(m::DOCKER_FOREIGN_LAYER, "f"), "urls", json!(["https://a/b"]));
    let document = with(image(), "mediaType", json!(m::DOCKER_MANIFEST));
    let read = taken(&with(document, "layers", json!([foreign])), None, m::DOCKER_MANIFEST);
    assert!(read.layers[0].is_nondistributable() && !read.config.unwrap().is_nondistributable());
    assert_eq!(read.layers[0].urls, ["https://a/b"]);
}

#[test]
fn the_type_comes_from_document_header_or_shape() {
    let bare_image = without(image(), "mediaType");
    let bare_index = without(index(), "mediaType");
    taken(&image(), None, m::OCI_MANIFEST);
    taken(&image(), Some("application/vnd.oci.image.manifest.v1+JSON; v=1"), m::OCI_MANIFEST);
    for generic in ["", "application/json", "text/plain; charset=utf-8", m::OCTET_STREAM] {
        taken(&image(), Some(generic), m::OCI_MANIFEST);
        taken(&bare_index, Some(generic), m::OCI_INDEX);
    }
    taken(&bare_image, Some(m::DOCKER_MANIFEST), m::DOCKER_MANIFEST);
    taken(&bare_index, Some(m::DOCKER_LIST), m::DOCKER_LIST);
    taken(&bare_image, None, m::OCI_MANIFEST);
    taken(&bare_index, None, m::OCI_INDEX);
    taken(&with(bare_index, "mediaType", json!("")), None, m::OCI_INDEX);
}

#[test]
fn types_that_disagree_or_are_unknown() {
    let mismatch = |header: &str, body: &str| ManifestError::Mismatch {
        header: header.to_owned(),
        body: body.to_owned(),
    };
    let pairs = [(m::OCI_INDEX, image()), (m::DOCKER_MANIFEST, image()), ("a/b", index())];
    for (header, document) in pairs {
        let body = document["mediaType"].as_str().unwrap();
        refused(&document, Some(header), &mismatch(header, body));
    }
    let unknown = ManifestError::MediaType { media_type: "a/b".to_owned() };
    refused(&with(image(), "mediaType", json!("a/b")), None, &unknown);
    refused(&without(image(), "mediaType"), Some("a/b"), &unknown);
    refused(&with(image(), "mediaType", json!("a/b")), Some("a/b"), &unknown);
}

#[test]
fn an_image_is_no_index() {
    let mixed = with(image(), "manifests", json!([pointer(m::OCI_MANIFEST, "x")]));
    refused(&mixed, None, &ManifestError::Mixed);
    refused(&without(mixed, "mediaType"), None, &ManifestError::Mixed);
    refused(&with(image(), "manifests", json!([])), None, &ManifestError::Mixed);
    refused(&with(index(), "layers", json!([])), None, &ManifestError::Mixed);
    let config = pointer(m::OCI_CONFIG, "x");
    refused(&with(index(), "config", config), None, &ManifestError::Mixed);
    let relabelled = with(index(), "mediaType", json!(m::OCI_MANIFEST));
    refused(&relabelled, None, &ManifestError::Mixed);
    let relabelled = with(image(), "mediaType", json!(m::OCI_INDEX));
    refused(&relabelled, None, &ManifestError::Mixed);
    taken(&with(image(), "manifests", Value::Null), None, m::OCI_MANIFEST);
    let nulls = with(with(index(), "layers", Value::Null), "config", Value::Null);
    taken(&nulls, None, m::OCI_INDEX);
}

#[test]
fn what_is_missing() {
    let missing = |field| ManifestError::Missing { field };
    refused(&without(image(), "config"), None, &missing("config"));
    refused(&with(image(), "config", Value::Null), None, &missing("config"));
    refused(&without(index(), "manifests"), None, &missing("manifests"));
    refused(&json!({}), None, &missing("config"));
    refused(&json!({ "errors": [{ "code": "DENIED" }] }), None, &missing("config"));
    taken(&with(index(), "manifests", Value::Null), None, m::OCI_INDEX);
    taken(&with(image(), "layers", Value::Null), None, m::OCI_MANIFEST);
    taken(&without(image(), "layers"), None, m::OCI_MANIFEST);
    let nulls =
        json!({ "annotations": null, "urls": null, "platform": null, "artifactType": null });
    let mut config = pointer(m::OCI_CONFIG, "c");
    config.as_object_mut().unwrap().extend(nulls.as_object().unwrap().clone());
    taken(&with(image(), "config", config), None, m::OCI_MANIFEST);
}

#[test]
fn schema1_is_refused_clearly() {
    let old = json!({ "schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "history": [] });
    refused(&old, None, &ManifestError::Schema1);
    refused(&without(old.clone(), "schemaVersion"), None, &ManifestError::Schema1);
    refused(&image(), Some(m::DOCKER_SCHEMA1_SIGNED), &ManifestError::Schema1);
    let labelled = with(image(), "mediaType", json!(m::DOCKER_SCHEMA1));
    refused(&labelled, None, &ManifestError::Schema1);
    assert!(ManifestError::Schema1.to_string().contains("hint: push the image again"));
    let three = with(image(), "schemaVersion", json!(3));
    refused(&three, None, &ManifestError::SchemaVersion { version: 3 });
    taken(&without(image(), "schemaVersion"), None, m::OCI_MANIFEST);
}

#[test]
fn wrong_fields() {
    let config = |field: &str, value: Value| {
        with(image(), "config", with(pointer(m::OCI_CONFIG, "c"), field, value))
    };
    invalid(&config("size", json!(-1)), "integer `-1`");
    invalid(&config("size", json!(1.5)), "1.5");
    invalid(&config("size", json!("7")), "string");
    invalid(&config("size", json!(u64::MAX)), "a size is at most");
    invalid(&config("size", json!(i64::MAX as u64 + 1)), "a size is at most");
    invalid(&config("size", Value::Null), "missing field `size`");
    invalid(&config("digest", json!("sha256:00")), "64 hex digits");
    invalid(&config("digest", json!("md5:00")), "md5 is not supported");
    invalid(&config("mediaType", json!("")), "missing field `mediaType`");
    invalid(&config("urls", json!([7])), "integer `7`");
    invalid(&with(image(), "layers", json!([null])), "null");
    invalid(&with(image(), "layers", json!({})), "map");
    invalid(&with(image(), "annotations", json!({ "a": 1 })), "integer `1`");
    invalid(&with(image(), "annotations", json!(["a"])), "expected annotations");
    invalid(&json!([]), "sequence");
    invalid(&json!("text"), "string");
    parse(&config("size", json!(i64::MAX)), None).unwrap();
    let huge = image().to_string().replace("\"size\":6", "\"size\":99999999999999999999999");
    assert!(matches!(Manifest::parse(huge.as_bytes(), None), Err(ManifestError::Invalid { .. })));
}

#[test]
fn reasons_are_short_and_printable() {
    let noise = format!("\u{7}{}", "x".repeat(100_000));
    let document = with(image(), "layers", json!(noise));
    let Err(ManifestError::Invalid { reason }) = parse(&document, None) else { panic!() };
    assert!(reason.chars().count() <= 201 && !reason.contains('\u{7}'), "{reason}");
    let document = with(image(), "mediaType", json!(noise));
    let Err(ManifestError::MediaType { media_type }) = parse(&document, None) else { panic!() };
    assert!(media_type.chars().count() <= 81 && !media_type.contains('\u{7}'), "{media_type}");
}

#[test]
fn bytes_that_are_no_json() {
    let texts: [&[u8]; 8] =
        [b"", b"{", b"{}}", b"\xff\xfe", b"{\"a\":\"\xff\"}", b"nul", b"\xef\xbb\xbf{}", b"<html>"];
    for bytes in texts {
        let read = Manifest::parse(bytes, None);
        assert!(matches!(read, Err(ManifestError::Invalid { .. })), "{bytes:?}: {read:?}");
    }
}

#[test]
fn twice_and_unknown_are_harmless() {
    let text = image().to_string();
    let text = text.replacen('{', "{\"layers\":[],\"x\":{\"y\":[1,{\"z\":\"\\\"}\"}]},", 1);
    let read = Manifest::parse(text.as_bytes(), None).unwrap();
    assert_eq!(read.layers.len(), 2, "the last one counts");
    let config = pointer(m::OCI_CONFIG, "c").to_string().replacen('{', "{\"size\":7,", 1);
    let text = format!("{{\"config\":{config}}}");
    assert_eq!(Manifest::parse(text.as_bytes(), None).unwrap().config.unwrap().size, 1);
}

#[test]
fn extent_is_bounded() {
    let spaces = " ".repeat(MAX_MANIFEST_BYTES);
    let large = format!("{}{spaces}", index());
    assert_eq!(
        Manifest::parse(large.as_bytes(), None),
        Err(ManifestError::TooLarge { actual: large.len(), max: MAX_MANIFEST_BYTES })
    );
    Manifest::parse(&large.as_bytes()[..MAX_MANIFEST_BYTES], None).unwrap();

    let nested = |depth: usize| {
        let inner = depth - 1;
        format!("{{\"x\":{}{},\"manifests\":[]}}", "[".repeat(inner), "]".repeat(inner))
    };
    Manifest::parse(nested(MAX_MANIFEST_DEPTH).as_bytes(), None).unwrap();
    for depth in [MAX_MANIFEST_DEPTH + 1, 1_000_000] {
        assert_eq!(
            Manifest::parse(nested(depth).as_bytes(), None),
            Err(ManifestError::TooDeep { max: MAX_MANIFEST_DEPTH })
        );
    }
    let brackets_in_text = with(index(), "x", json!("[{\\\"[".repeat(100)));
    taken(&brackets_in_text, None, m::OCI_INDEX);

    let many = format!("{{\"manifests\":[],\"x\":[0{}]}}", ",0".repeat(300_000));
    let read = Manifest::parse(many.as_bytes(), None);
    assert!(matches!(read, Err(ManifestError::TooManyItems { .. })), "{read:?}");
}

/// As large as the conformance suite sends, and as dense as an index gets.
#[test]
fn large_manifests_are_taken() {
    let annotations: serde_json::Map<String, Value> =
        (0..390).map(|n| (format!("note-{n}"), json!("x".repeat(10_000)))).collect();
    taken(&with(image(), "annotations", annotations.into()), None, m::OCI_MANIFEST);
    let entry = pointer(m::OCI_MANIFEST, "x");
    let entries = (MAX_MANIFEST_BYTES - 200) / (entry.to_string().len() + 1);
    let read = taken(&with(index(), "manifests", vec![entry; entries].into()), None, m::OCI_INDEX);
    assert_eq!(read.manifests.len(), entries);
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        _ = Manifest::parse(&bytes, None);
    }

    #[test]
    fn a_damaged_manifest_does_not_panic(at in 0_usize..600, byte in any::<u8>()) {
        let mut bytes = image().to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        _ = Manifest::parse(&bytes, Some(m::OCI_MANIFEST));
    }

    #[test]
    fn descriptors_round_trip(
        media_type in "[a-z]{1,9}/[a-z.+]{1,20}",
        size in 0..=i64::MAX as u64,
        artifact_type in proptest::option::of("[a-z]/[a-z]"),
        annotations in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4),
        urls in proptest::collection::vec(any::<String>(), 0..3),
        os_version in proptest::option::of("[0-9.]{1,9}"),
    ) {
        let mut descriptor = Descriptor::new(media_type, Digest::sha256(b"x"), size);
        descriptor.artifact_type = artifact_type;
        descriptor.annotations = annotations;
        descriptor.urls = urls;
        descriptor.platform = Some(kuboard_oci::Platform {
            architecture: "arm64".to_owned(),
            os: "linux".to_owned(),
            os_version,
            os_features: Vec::new(),
            variant: Some("v8".to_owned()),
        });
        let json = serde_json::to_string(&descriptor).unwrap();
        prop_assert_eq!(serde_json::from_str::<Descriptor>(&json).unwrap(), descriptor);
    }
}
