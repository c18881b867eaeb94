//! containerd's content store: blobs by digest in a folder. Which name means which digest stands in
//! a database that containerd holds locked, so images are named by digest here; `ctr images ls`
//! tells it.

use std::path::{Path, PathBuf};

use kuboard_oci::{Digest, Reference};
use kuboard_rt::BoxFuture;

use super::{
    BlobBytes, Contents, Document, SourceError, SourceErrorKind, document, layout::blob_path,
    open_regular,
};

/// Where containerd keeps content unless it is told otherwise.
pub const CONTAINERD_CONTENT: &str = "/var/lib/containerd/io.containerd.content.v1.content";

/// A content store's folder.
pub struct ContainerdContents {
    folder: PathBuf,
}

impl ContainerdContents {
    /// Takes a folder that has `blobs`.
    ///
    /// # Errors
    /// It has none.
    pub fn open(folder: &Path) -> Result<Self, SourceError> {
        if !folder.join("blobs").is_dir() {
            return Err(SourceError::new(
                SourceErrorKind::NotFound,
                format!("{} has no blobs: it is no content store of containerd", folder.display()),
            ));
        }
        Ok(Self { folder: folder.to_owned() })
    }
}

impl Contents for ContainerdContents {
    fn manifest<'a>(
        &'a self,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Document, SourceError>> {
        Box::pin(async move {
            match reference {
                Some(Reference::Digest(digest)) => document(self, digest, "").await,
                _ => Err(SourceError::invalid(
                    "an image in containerd is named by its digest; hint: `ctr images ls` tells it",
                )),
            }
        })
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<BlobBytes, SourceError>> {
        Box::pin(async move {
            let path = self.folder.join(blob_path(digest));
            Ok(BlobBytes::Reader(Box::new(open_regular(&path)?)))
        })
    }
}
