//! Where inventories of layers are kept: in a folder for one-shot commands, in the catalogue for
//! servers. Both keep the same form: JSON, compressed with zstd.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use kuboard_catalog::Catalog;
use kuboard_oci::Digest;
use kuboard_rt::{BoxFuture, Clock};
use kuboard_vuln::LayerInventory;
use serde::{Serialize, de::DeserializeOwned};

/// A stored document inflates to at most this; an inventory of a million packages is below.
const MAX_BODY: usize = 1 << 30;

/// A document as it is stored.
///
/// # Errors
/// It can't be written as JSON.
pub fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    zstd::bulk::compress(&json, 1)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// It is damaged.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    let size = zstd::zstd_safe::get_frame_content_size(body).ok().flatten().unwrap_or(0);
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_BODY);
    let size = size.ok_or_else(|| io::Error::other("it is damaged: its size is absurd"))?;
    let json = zstd::bulk::decompress(body, size)?;
    Ok(serde_json::from_slice(&json)?)
}

/// Keeps inventories of layers by a digest that was checked against what was read: the blob's, or
/// that of the uncompressed archive.
pub trait Inventories: Send + Sync + 'static {
    /// What is known of a layer. Something unreadable is as good as nothing.
    fn get<'a>(&'a self, layer: &'a Digest) -> BoxFuture<'a, Option<LayerInventory>>;

    /// Whether a layer is known; cheaper than asking for what is known.
    fn has<'a>(&'a self, layer: &'a Digest) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.get(layer).await.is_some() })
    }

    /// Keeps it. A failure is logged: the inventory is only made again then.
    fn put<'a>(&'a self, layer: &'a Digest, inventory: &'a LayerInventory) -> BoxFuture<'a, ()>;
}

/// Keeps nothing.
pub struct NoInventories;

impl Inventories for NoInventories {
    fn get<'a>(&'a self, _layer: &'a Digest) -> BoxFuture<'a, Option<LayerInventory>> {
        Box::pin(std::future::ready(None))
    }

    fn put<'a>(&'a self, _: &'a Digest, _: &'a LayerInventory) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Files in a folder, one a layer and version of the indexers.
pub struct FolderInventories {
    folder: PathBuf,
}

impl FolderInventories {
    /// Keeps inventories by indexers of that version below `folder`.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn open(folder: &Path, indexer: &str) -> io::Result<Self> {
        let folder = folder.join(indexer);
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    fn path(&self, layer: &Digest) -> PathBuf {
        self.folder.join(format!("{}-{}", layer.algorithm().as_str(), layer.hex()))
    }

    fn write(&self, layer: &Digest, inventory: &LayerInventory) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        io::Write::write_all(&mut file, &encode(inventory)?)?;
        file.persist(self.path(layer)).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Inventories for FolderInventories {
    fn get<'a>(&'a self, layer: &'a Digest) -> BoxFuture<'a, Option<LayerInventory>> {
        Box::pin(async move {
            let body = fs::read(self.path(layer)).ok()?;
            decode(&body)
                .inspect_err(|error| tracing::warn!(%layer, %error, "kept inventory unreadable"))
                .ok()
        })
    }

    fn put<'a>(&'a self, layer: &'a Digest, inventory: &'a LayerInventory) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Err(error) = self.write(layer, inventory) {
                tracing::warn!(%layer, %error, "inventory not kept");
            }
        })
    }
}

/// Rows of the catalogue.
pub struct CatalogInventories {
    /// Where they are kept.
    pub catalog: Catalog,
    /// Version of the indexers.
    pub indexer: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Inventories for CatalogInventories {
    fn get<'a>(&'a self, layer: &'a Digest) -> BoxFuture<'a, Option<LayerInventory>> {
        Box::pin(async move {
            let found = self.catalog.layer_inventory(layer, &self.indexer).await;
            let body = found
                .inspect_err(|error| tracing::warn!(%layer, %error, "inventory not read"))
                .ok()??;
            decode(&body)
                .inspect_err(|error| tracing::warn!(%layer, %error, "kept inventory unreadable"))
                .ok()
        })
    }

    fn has<'a>(&'a self, layer: &'a Digest) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let found = self.catalog.layer_inventory(layer, &self.indexer).await;
            found.is_ok_and(|found| found.is_some())
        })
    }

    fn put<'a>(&'a self, layer: &'a Digest, inventory: &'a LayerInventory) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let kept = match encode(inventory) {
                Ok(body) => self
                    .catalog
                    .put_layer_inventory(layer, &self.indexer, &body, self.clock.now_ms())
                    .await
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = kept {
                tracing::warn!(%layer, %error, "inventory not kept");
            }
        })
    }
}
