//! The media types of manifests, configurations and layers.
//!
//! Types compare without regard to case, and parameters (`; charset=utf-8`) do not count.

/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI index of manifests.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A Docker list of manifests.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A Docker image manifest, version 2 schema 1: refused everywhere.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// The signed form of [`DOCKER_SCHEMA1`].
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The configuration of an OCI image.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The configuration of a Docker image.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The two bytes `{}`, where an artifact has no configuration or no content.
pub const EMPTY_JSON: &str = "application/vnd.oci.empty.v1+json";

/// An OCI layer, uncompressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// An OCI layer, compressed with gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// An OCI layer, compressed with zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// A Docker layer, compressed with gzip.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// A Docker layer that is fetched from its own URLs and not kept in registries.
pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// An OCI layer that is fetched from its own URLs and not kept in registries.
pub const OCI_NONDISTRIBUTABLE_LAYER: &str =
    "application/vnd.oci.image.layer.nondistributable.v1.tar";

/// Bytes of any kind; what blobs are served as.
pub const OCTET_STREAM: &str = "application/octet-stream";
/// JSON of any kind.
pub const JSON: &str = "application/json";

/// The value of an `Accept` header that takes every manifest [`Manifest`](crate::Manifest) can
/// read, the more general first.
pub const ACCEPT_ALL: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// The manifest types that can be read.
const READABLE: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
/// What the non-distributable types of OCI begin with, whatever their compression.
const NONDISTRIBUTABLE_PREFIX: &str = "application/vnd.oci.image.layer.nondistributable.";
/// What the foreign layer types of Docker begin with.
const FOREIGN_PREFIX: &str = "application/vnd.docker.image.rootfs.foreign.";

/// The type without its parameters and without blanks around it.
#[must_use]
pub fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim_ascii()
}

/// Whether two types are the same.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    essence(one).eq_ignore_ascii_case(essence(other))
}

/// The constant of this module that a manifest or index type equals, if it is one that can be
/// read.
#[must_use]
pub fn readable(media_type: &str) -> Option<&'static str> {
    READABLE.into_iter().find(|known| same(known, media_type))
}

/// Whether it is the type of one image (or artifact) manifest; false for an index.
#[must_use]
pub fn is_manifest(media_type: &str) -> bool {
    same(media_type, OCI_MANIFEST) || same(media_type, DOCKER_MANIFEST)
}

/// Whether it is the type of an index or manifest list.
#[must_use]
pub fn is_index(media_type: &str) -> bool {
    same(media_type, OCI_INDEX) || same(media_type, DOCKER_LIST)
}

/// Whether it is one of the two types of Docker's schema 1.
#[must_use]
pub fn is_schema1(media_type: &str) -> bool {
    same(media_type, DOCKER_SCHEMA1) || same(media_type, DOCKER_SCHEMA1_SIGNED)
}

/// Whether it is the type of a layer that registries need not have: it is fetched from the URLs
/// of its descriptor.
#[must_use]
pub fn is_nondistributable(media_type: &str) -> bool {
    let media_type = essence(media_type);
    [NONDISTRIBUTABLE_PREFIX, FOREIGN_PREFIX].iter().any(|prefix| {
        media_type.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
    })
}

/// Whether it says nothing about what the content is, so that the content may say it: empty,
/// JSON, plain text or bytes.
#[must_use]
pub fn is_generic(media_type: &str) -> bool {
    ["", JSON, "text/plain", "text/json", OCTET_STREAM, "binary/octet-stream"]
        .iter()
        .any(|generic| same(generic, media_type))
}
