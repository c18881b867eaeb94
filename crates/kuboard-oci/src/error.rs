//! What can be wrong with a value. Each of these is the fault of whoever sent it, and sending the
//! same again never helps: none is worth a retry.

use thiserror::Error;

/// Why a text is not a digest.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum DigestError {
    /// Not of the shape `<algorithm>:<encoded>` at all.
    #[error("malformed digest; hint: a digest reads sha256:<64 lower-case hex digits>")]
    Malformed,
    /// Well formed, but of an algorithm that is not implemented.
    #[error("digest algorithm {algorithm} is not supported; hint: use sha256 or sha512")]
    Unsupported {
        /// The name of the algorithm, cut to a printable length.
        algorithm: String,
    },
    /// A known algorithm with the wrong number of digits.
    #[error("a {algorithm} digest has {expected} hex digits, not {actual}")]
    Length {
        /// The name of the algorithm.
        algorithm: &'static str,
        /// Digits that it has.
        expected: usize,
        /// Digits that were sent.
        actual: usize,
    },
    /// The right number of digits, but some are not in `0-9a-f`.
    #[error("malformed digest: only the hex digits 0-9 and a-f (lower case) are allowed")]
    NotLowerHex,
}

/// Why a text is not a repository name.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing there.
    #[error("the repository name is empty")]
    Empty,
    /// More than 255 characters.
    #[error("the repository name has {length} characters; hint: at most 255 are allowed")]
    TooLong {
        /// Characters that were sent, in bytes.
        length: usize,
    },
    /// Against the grammar.
    #[error(
        "the repository name is invalid at byte {at}; hint: lower-case letters and digits, \
         separated by '.', '_', '__' or dashes, in components separated by '/'"
    )]
    Grammar {
        /// Offset of the first byte that does not fit.
        at: usize,
    },
}

/// Why a text is not a tag.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum TagError {
    /// Nothing there.
    #[error("the tag is empty")]
    Empty,
    /// More than 128 characters.
    #[error("the tag has {length} characters; hint: at most 128 are allowed")]
    TooLong {
        /// Characters that were sent, in bytes.
        length: usize,
    },
    /// Against the grammar.
    #[error(
        "the tag is invalid at byte {at}; hint: letters, digits, '_', '.' and '-', \
         not beginning with '.' or '-'"
    )]
    Grammar {
        /// Offset of the first byte that does not fit.
        at: usize,
    },
}

/// Why a text is neither a tag nor a digest.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// It has no `:` and is not a tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// It has a `:` and is not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// Why a text does not name an image.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum ImageReferenceError {
    /// It begins with `https://` or the like.
    #[error("an image reference has no URL scheme; hint: leave out everything up to '://'")]
    Scheme,
    /// 64 hex digits alone, which Docker takes for the local identifier of an image.
    #[error("64 hex digits are an image id, not a name; hint: write <name>@sha256:<digits>")]
    Identifier,
    /// The part before the first `/` looks like a host and is none.
    #[error("the registry host is invalid; hint: write host[:port], IPv6 addresses in brackets")]
    Host,
    /// The repository name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The part after `:` is no tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The part after `@` is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// Why bytes are not a manifest.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Above [`MAX_MANIFEST_BYTES`](crate::MAX_MANIFEST_BYTES).
    #[error("the manifest has {actual} bytes; hint: at most {max} are accepted")]
    TooLarge {
        /// Bytes that were sent.
        actual: usize,
        /// The limit.
        max: usize,
    },
    /// Nested deeper than [`MAX_MANIFEST_DEPTH`](crate::MAX_MANIFEST_DEPTH).
    #[error("the manifest is nested deeper than {max} levels")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// More array items and object members than
    /// [`MAX_MANIFEST_ITEMS`](crate::MAX_MANIFEST_ITEMS).
    #[error("the manifest has more than {max} items")]
    TooManyItems {
        /// The limit.
        max: usize,
    },
    /// Not JSON, or a field of the wrong type, or a wrong digest or size.
    #[error("the manifest is invalid: {reason}")]
    Invalid {
        /// What does not fit, with line and column, cut to a printable length.
        reason: String,
    },
    /// Docker's image manifest version 2, schema 1.
    #[error(
        "Docker schema 1 manifests are not supported; \
         hint: push the image again with a client of 2017 or later"
    )]
    Schema1,
    /// A `schemaVersion` other than 2.
    #[error("manifest schemaVersion {version} is not supported; hint: only 2 is")]
    SchemaVersion {
        /// The version that was sent.
        version: u64,
    },
    /// A type that is neither an image manifest nor an index.
    #[error("manifest media type {media_type} is not supported")]
    MediaType {
        /// The type that was sent, cut to a printable length.
        media_type: String,
    },
    /// Content-Type and `mediaType` disagree.
    #[error("Content-Type says {header}, but the manifest's mediaType says {body}")]
    Mismatch {
        /// The type of the header, cut to a printable length.
        header: String,
        /// The type in the document, cut to a printable length.
        body: String,
    },
    /// An index with `config` or `layers`, or an image manifest with `manifests`: two readers
    /// would see two different images.
    #[error("the manifest mixes an index (manifests) with an image (config, layers)")]
    Mixed,
    /// A required field is absent.
    #[error("the manifest has no {field}")]
    Missing {
        /// The name of the field.
        field: &'static str,
    },
}

/// Why a `Range` header is refused. The answer to it is 416.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum RangeError {
    /// Not of the shape `<unit>=<first>-<last>`.
    #[error("malformed range; hint: write bytes=<first>-<last>, bytes=<first>- or bytes=-<count>")]
    Malformed,
    /// The last byte stands before the first.
    #[error("the range ends at byte {last}, before its begin at byte {first}")]
    Backwards {
        /// First byte asked for.
        first: u64,
        /// Last byte asked for.
        last: u64,
    },
}

/// The range begins beyond the end of the content, or asks for nothing. The answer to it is 416.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Error)]
#[error("the range lies outside of the content's {len} bytes")]
pub struct Unsatisfiable {
    /// Length of the content in bytes.
    pub len: u64,
}

impl Unsatisfiable {
    /// The `Content-Range` value that goes with the 416: `bytes */<len>`.
    #[must_use]
    pub fn content_range(&self) -> String {
        format!("bytes */{}", self.len)
    }
}

/// Why a `Content-Range` header is refused.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum ContentRangeError {
    /// Neither `<first>-<last>` nor `bytes <first>-<last>/<total>`.
    #[error("malformed content range; hint: write <first>-<last> or bytes <first>-<last>/<total>")]
    Malformed,
    /// The last byte stands before the first, or beyond the total.
    #[error("the content range contradicts itself")]
    Contradiction,
}
