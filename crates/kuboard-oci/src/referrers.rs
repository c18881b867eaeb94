//! Lists of referrers: their JSON, and the tag that stands in where a registry has no such API.

use serde::Serialize;

use crate::{descriptor::Descriptor, digest::Digest, media_type::OCI_INDEX, reference::Tag};

/// Most digits of the digest that the tag keeps; all of sha256, half of sha512.
const TAG_DIGITS: usize = 64;

/// The tag under which registries without a referrers API keep the list of a subject's referrers:
/// `sha256-<hex>`, the digits cut to 64 as the specification says.
#[must_use]
#[expect(clippy::expect_used, reason = "the form is within the grammar of tags for all digests")]
pub fn referrers_tag(subject: &Digest) -> Tag {
    let mut hex = subject.hex();
    hex.truncate(TAG_DIGITS);
    format!("{}-{hex}", subject.algorithm()).parse().expect("a tag")
}

/// An index without entries: the answer where nothing refers to a subject.
#[must_use]
pub fn empty_index() -> &'static [u8] {
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
}

/// The JSON of an index of `referrers`, in the order given.
#[must_use]
#[expect(clippy::expect_used, reason = "strings and numbers always have a JSON form")]
pub fn referrers_index(referrers: &[Descriptor]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u8,
        media_type: &'static str,
        manifests: &'a [Descriptor],
    }
    let index = Index { schema_version: 2, media_type: OCI_INDEX, manifests: referrers };
    serde_json::to_vec(&index).expect("JSON")
}
