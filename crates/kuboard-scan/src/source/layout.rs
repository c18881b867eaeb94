//! An OCI image layout in a folder.

use std::path::{Path, PathBuf};

use kuboard_oci::{Digest, MAX_MANIFEST_BYTES, Manifest, Reference, media_type};
use kuboard_rt::BoxFuture;

use super::{BlobBytes, Contents, Document, SourceError, SourceErrorKind, document, open_regular};

/// The annotation that names an entry of `index.json`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A layout's folder.
pub struct LayoutContents {
    folder: PathBuf,
}

impl LayoutContents {
    /// Takes a folder that has `oci-layout` and `index.json`.
    ///
    /// # Errors
    /// It is no layout.
    pub fn open(folder: &Path) -> Result<Self, SourceError> {
        if !folder.join("index.json").is_file() {
            return Err(SourceError::new(
                SourceErrorKind::NotFound,
                format!("{} has no index.json: it is no OCI layout", folder.display()),
            ));
        }
        Ok(Self { folder: folder.to_owned() })
    }
}

/// The digest that `index.json` has for a name, or the only one; `None`: take the whole as index.
pub(super) fn entry(
    index: &Manifest,
    reference: Option<&Reference>,
) -> Result<Option<(Digest, String)>, SourceError> {
    let found = match reference {
        Some(Reference::Digest(digest)) => {
            let named = index.manifests.iter().find(|entry| entry.digest == *digest);
            let kind = named.map(|entry| entry.media_type.clone()).unwrap_or_default();
            return Ok(Some((*digest, kind)));
        }
        Some(Reference::Tag(tag)) => {
            let named = index.manifests.iter().find(|entry| {
                entry.annotations.get(REF_NAME).is_some_and(|name| {
                    name == tag.as_str()
                        || name.rsplit_once(':').is_some_and(|n| n.1 == tag.as_str())
                })
            });
            Some(named.ok_or_else(|| {
                SourceError::new(SourceErrorKind::NotFound, format!("it has no image named {tag}"))
            })?)
        }
        None => match index.manifests.as_slice() {
            [] => return Err(SourceError::not_an_image("its index.json is empty")),
            [only] => Some(only),
            _ => None,
        },
    };
    Ok(found.map(|entry| (entry.digest, entry.media_type.clone())))
}

/// The path of a blob within a layout.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// What `index.json` means for a reference.
pub(super) async fn manifest_of(
    contents: &dyn Contents,
    index: &[u8],
    reference: Option<&Reference>,
) -> Result<Document, SourceError> {
    let parsed = Manifest::parse(index, Some(media_type::OCI_INDEX))
        .map_err(|error| SourceError::invalid(format!("index.json: {error}")))?;
    match entry(&parsed, reference)? {
        Some((digest, kind)) => document(contents, &digest, &kind).await,
        None => Ok(Document {
            digest: Digest::sha256(index),
            media_type: media_type::OCI_INDEX.to_owned(),
            bytes: index.to_vec().into(),
        }),
    }
}

impl Contents for LayoutContents {
    fn manifest<'a>(
        &'a self,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Document, SourceError>> {
        Box::pin(async move {
            let file = open_regular(&self.folder.join("index.json"))?;
            let index = BlobBytes::Reader(Box::new(file));
            let index = super::read_bounded(index, MAX_MANIFEST_BYTES).await?;
            manifest_of(self, &index, reference).await
        })
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<BlobBytes, SourceError>> {
        Box::pin(async move {
            let path = self.folder.join(blob_path(digest));
            Ok(BlobBytes::Reader(Box::new(open_regular(&path)?)))
        })
    }
}
