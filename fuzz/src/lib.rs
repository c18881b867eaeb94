//! What must hold of the parsers for every input whatsoever. Each function takes raw bytes and
//! panics where a promise is broken; the programs in `targets/` only hand them inputs.

mod admission;
mod scanning;

pub use admission::review;
pub use scanning::{database, documents, feeds, layer, packages, version};

use kuboard_oci::{
    ByteRange, ContentRange, Descriptor, Digest, ImageReference, Manifest, Reference,
    RepositoryName, Tag, challenge, media_type, referrers_index, referrers_tag,
};

/// Longest message of an error. Messages go to logs and to clients, whoever wrote the input.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Names, tags, digests and image references: what is taken is written back as it came, fits the
/// limits, and cannot leave a folder when used as a path.
pub fn reference(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(name) = short(text.parse::<RepositoryName>()) {
        assert_eq!(name.to_string(), text);
        assert!(text.len() <= RepositoryName::MAX_BYTES && text.is_ascii());
        assert!(text.split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '-', '_'])));
    }
    let tag = short(text.parse::<Tag>());
    if let Some(tag) = &tag {
        assert_eq!(tag.to_string(), text);
        assert!(text.len() <= Tag::MAX_BYTES && text.is_ascii());
        assert!(!text.starts_with('.') && !text.contains(['/', ':', '@']));
    }
    let digest = short(text.parse::<Digest>());
    if let Some(digest) = &digest {
        assert_eq!(digest.to_string(), text);
        assert_eq!(digest.hex().len(), digest.algorithm().len() * 2);
        assert!(referrers_tag(digest).as_str().len() <= "sha512-".len() + 64);
    }
    let either = tag.map(Reference::from).or(digest.map(Reference::from));
    assert_eq!(short(text.parse::<Reference>()), either);
    if let Some(image) = short(text.parse::<ImageReference>()) {
        let full = image.to_string();
        assert!(full.len() <= text.len() + "docker.io/library/".len());
        assert_eq!(full.parse(), Ok(image));
    }
}

/// Byte ranges: a resolved range is not empty and inside the content, whatever its length.
pub fn range(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(Some(range)) = short(ByteRange::parse(text)) {
        assert_eq!(ByteRange::parse(&range.to_string()), Ok(Some(range)));
        for len in [0, 1, 99, 100, 1000, 1 << 40, i64::MAX as u64, u64::MAX] {
            match range.resolve(len) {
                Ok(bytes) => {
                    assert!(bytes.start < bytes.end && bytes.end <= len);
                    assert!(range.first().is_none_or(|first| first == bytes.start));
                    if let Some(answer) = ContentRange::of(&bytes, Some(len)) {
                        assert_eq!(answer.len(), bytes.end - bytes.start);
                        assert_eq!(answer.to_string().parse(), Ok(answer));
                    }
                }
                Err(error) => assert_eq!(error.content_range(), format!("bytes */{len}")),
            }
        }
    }
    if let Some(range) = short(text.parse::<ContentRange>()) {
        assert!(range.start <= range.end_inclusive);
        assert!(range.total.is_none_or(|total| range.end_inclusive < total));
        assert_eq!(range.len(), range.end_inclusive - range.start + 1);
        assert_eq!(range.to_string().parse(), Ok(range));
        assert_eq!(range.to_upload().parse(), Ok(ContentRange { total: None, ..range }));
    }
}

/// Manifests: a view is an image or an index and never both, and says the same with its own type
/// as content type; under the other type it is refused.
pub fn manifest(input: &[u8]) {
    for generic in [media_type::JSON, media_type::DOCKER_LIST, media_type::DOCKER_MANIFEST] {
        short(Manifest::parse(input, Some(generic)));
    }
    let Some(view) = short(Manifest::parse(input, None)) else { return };
    assert_eq!(media_type::readable(&view.media_type), Some(view.media_type.as_str()));
    if view.is_index() {
        assert!(view.blobs().next().is_none() && view.config.is_none());
    } else {
        assert!(view.children().next().is_none() && view.config.is_some());
        assert!(view.referrer_type().is_some_and(|named| !named.is_empty()));
    }
    let pointers: Vec<Descriptor> =
        view.blobs().chain(view.children()).chain(&view.subject).cloned().collect();
    for pointer in &pointers {
        assert!(pointer.size <= i64::MAX as u64 && !pointer.media_type.is_empty());
    }
    check_against_plain_json(input, &view);
    // The shortest descriptor takes more than its digest.
    assert!(pointers.len() * 64 <= input.len());
    assert_eq!(Manifest::parse(input, Some(&view.media_type)).as_ref(), Ok(&view));
    let other = if view.is_index() { media_type::OCI_MANIFEST } else { media_type::OCI_INDEX };
    assert!(Manifest::parse(input, Some(other)).is_err());
    match Manifest::parse(&referrers_index(&pointers), Some(media_type::OCI_INDEX)) {
        Ok(index) => assert_eq!(index.manifests, pointers),
        Err(error) => panic!("an index of what was read is refused: {error}"),
    }
}

/// A second reading of the same document, by way of a tree of values.
fn check_against_plain_json(input: &[u8], view: &Manifest) {
    // The tree is pickier in places that a view skips: numbers beyond its range.
    let Ok(tree) = serde_json::from_slice::<serde_json::Value>(input) else { return };
    let is_there = |field: &str| !tree[field].is_null();
    assert_eq!(view.is_index(), !is_there("config") && !is_there("layers"));
    assert!(view.is_index() || !is_there("manifests"));
    for (field, list) in [("layers", &view.layers), ("manifests", &view.manifests)] {
        let digests =
            tree[field].as_array().into_iter().flatten().map(|item| item["digest"].as_str());
        let read: Vec<String> = list.iter().map(|item| item.digest.to_string()).collect();
        assert!(digests.eq(read.iter().map(|digest| Some(digest.as_str()))));
    }
    assert_eq!(view.subject.is_some(), is_there("subject"));
    assert_eq!(view.annotations.len(), tree["annotations"].as_object().map_or(0, |all| all.len()));
}

/// Authentication challenges: what is taken stays within the limits and, written in full, reads
/// as itself.
pub fn challenge(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some(list) = short(challenge::parse(text)) else { return };
    assert!(!list.is_empty() && list.len() <= challenge::MAX_CHALLENGES);
    for one in &list {
        assert!(!one.scheme.is_empty() && one.params.len() <= challenge::MAX_PARAMS);
        assert!(one.token68.is_none() || one.params.is_empty());
        let visible = |text: &str| text.chars().all(|c| !c.is_control() || c == '\t');
        assert!(one.params.iter().all(|(name, value)| visible(name) && visible(value)));
    }
    let written = list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if written.len() <= challenge::MAX_BYTES {
        assert_eq!(challenge::parse(&written), Ok(list));
    }
}

/// The value, or nothing after a look at the error's message.
fn short<T, E: std::error::Error>(read: Result<T, E>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() <= MAX_MESSAGE_BYTES, "{} bytes", message.len());
            assert!(!message.contains(char::is_control));
            None
        }
    }
}
