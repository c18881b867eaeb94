//! Media types compare by their essence.

use kuboard_oci::{Manifest, media_type as m};

#[test]
fn kinds() {
    let table = [
        (m::OCI_MANIFEST, true, false, false),
        (m::DOCKER_MANIFEST, true, false, false),
        ("application/vnd.oci.image.MANIFEST.v1+json ; charset=utf-8", true, false, false),
        (m::OCI_INDEX, false, true, false),
        (m::DOCKER_LIST, false, true, false),
        (m::DOCKER_SCHEMA1, false, false, true),
        (m::DOCKER_SCHEMA1_SIGNED, false, false, true),
        (m::OCI_CONFIG, false, false, false),
        (m::JSON, false, false, false),
        ("", false, false, false),
    ];
    for (media_type, manifest, index, schema1) in table {
        assert_eq!(m::is_manifest(media_type), manifest, "{media_type}");
        assert_eq!(m::is_index(media_type), index, "{media_type}");
        assert_eq!(m::is_schema1(media_type), schema1, "{media_type}");
        assert_eq!(m::readable(media_type).is_some(), manifest || index, "{media_type}");
    }
}

#[test]
fn nondistributable() {
    for suffix in ["", "+gzip", "+zstd"] {
        assert!(m::is_nondistributable(&format!("{}{suffix}", m::OCI_NONDISTRIBUTABLE_LAYER)));
        assert!(!m::is_nondistributable(&format!("{}{suffix}", m::OCI_LAYER)));
    }
    assert!(m::is_nondistributable(m::DOCKER_FOREIGN_LAYER));
    assert!(m::is_nondistributable(&m::DOCKER_FOREIGN_LAYER.to_uppercase()));
    for media_type in ["", "é", m::DOCKER_LAYER, m::OCI_CONFIG, "application/vnd.docker.image"] {
        assert!(!m::is_nondistributable(media_type), "{media_type}");
    }
}

#[test]
fn the_accept_header_names_what_can_be_read() {
    let index = br#"{"manifests":[]}"#;
    let image = format!(
        r#"{{"config":{{"mediaType":"x/y","size":2,"digest":"{}"}}}}"#,
        kuboard_oci::Digest::sha256(b"{}")
    );
    let named: Vec<&str> = m::ACCEPT_ALL.split(", ").collect();
    assert_eq!(named.len(), 4);
    for media_type in named {
        let bytes = if m::is_index(media_type) { index.as_slice() } else { image.as_bytes() };
        assert_eq!(Manifest::parse(bytes, Some(media_type)).unwrap().media_type, media_type);
    }
}
