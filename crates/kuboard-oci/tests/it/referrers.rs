//! Lists of referrers.

use kuboard_oci::{
    Algorithm, Descriptor, Digest, Manifest, empty_index, media_type, referrers_index,
    referrers_tag,
};

#[test]
fn fallback_tag() {
    let table = [
        (
            Algorithm::Sha256,
            "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            Algorithm::Sha512,
            "sha512-ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a",
        ),
    ];
    for (algorithm, expected) in table {
        assert_eq!(referrers_tag(&Digest::of(algorithm, b"abc")).as_str(), expected);
    }
}

#[test]
fn indexes() {
    assert_eq!(referrers_index(&[]), empty_index());
    let mut signature = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(b"s"), 1);
    signature.artifact_type = Some("application/vnd.example.signature".to_owned());
    signature.annotations.insert("by".to_owned(), "a \"quoted\" name".to_owned());
    let plain = Descriptor::new(media_type::OCI_INDEX, Digest::of(Algorithm::Sha512, b"p"), 0);
    let list = [signature, plain];
    let read = Manifest::parse(&referrers_index(&list), Some(media_type::OCI_INDEX)).unwrap();
    assert_eq!(read.manifests, list);
    let entry = serde_json::to_value(&list[1]).unwrap();
    let fields: Vec<&String> = entry.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["digest", "mediaType", "size"], "nothing empty is written");
}
