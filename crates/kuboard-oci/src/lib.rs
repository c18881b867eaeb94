//! The values of the OCI distribution specification: names, digests, manifests, byte ranges and
//! authentication challenges; and, in [`layer`], the reading of layers as they stream by.
//!
//! Everything here is pure. Text from the network goes in, a checked value or an error that says
//! what is wrong comes out; nothing waits, nothing is read from the machine, and the work and the
//! memory of each parser are bounded by the length of its input. No error carries the refused text
//! whole, so all of them may be logged.

pub mod challenge;
mod descriptor;
mod digest;
mod error;
mod image_reference;
pub mod layer;
mod manifest;
pub mod media_type;
mod range;
mod reference;
mod referrers;
mod text;

pub use descriptor::{Descriptor, Platform};
pub use digest::{Algorithm, Digest, Hasher};
pub use error::{
    ContentRangeError, DigestError, ImageReferenceError, ManifestError, NameError, RangeError,
    ReferenceError, TagError, Unsatisfiable,
};
pub use image_reference::ImageReference;
pub use manifest::{MAX_MANIFEST_BYTES, MAX_MANIFEST_DEPTH, MAX_MANIFEST_ITEMS, Manifest};
pub use range::{ByteRange, ContentRange};
pub use reference::{Reference, RepositoryName, Tag};
pub use referrers::{empty_index, referrers_index, referrers_tag};
