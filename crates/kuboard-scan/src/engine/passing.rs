//! What passes the registry: layers are indexed while they fill, images are scanned as soon as
//! their last layer is indexed.
//!
//! Indexing reads along with the fill from the page cache and never slows it: when it falls behind,
//! it is only late. Few layers are indexed at once; further ones wait, and what waits too long is
//! left to the scan job, which reads it from the cache.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use kuboard_oci::{Digest, Manifest};
use kuboard_rt::{BoxFuture, Tasks};
use kuboard_store::{BlobObserver, Tail};
use kuboard_vuln::LayerInventory;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::{
    inspect::{Inspector, is_layer_like, keep},
    inventories::Inventories,
    source::is_image_config,
};

/// Layers indexed at once while they pass.
const AT_ONCE: usize = 2;
/// Images and layers heard of and not yet looked at.
const QUEUE: usize = 1024;
/// Names remembered as told a short while ago.
const REMEMBERED: usize = 4096;
/// Read at a time.
const PIECE: usize = 256 << 10;
/// How long a scan waits for a layer that is being indexed.
const PATIENCE: Duration = Duration::from_secs(600);

/// An image's manifest that was pushed or handed out.
#[derive(Clone, Debug)]
pub struct SeenImage {
    /// Registry; empty for hosted.
    pub registry: String,
    /// Repository.
    pub repository: String,
    /// Tag, or empty.
    pub tag: String,
    /// Digest of the manifest.
    pub image: Digest,
    /// Digests of its layers.
    pub layers: Vec<Digest>,
}

/// What is under way.
#[derive(Default)]
struct Table {
    /// Layers being indexed; true when that has ended.
    indexing: HashMap<Digest, watch::Receiver<bool>>,
    /// Names that were told lately, and their order.
    told: HashSet<(String, Digest)>,
    order: VecDeque<(String, Digest)>,
}

/// Hears of what passes.
pub struct Passing {
    table: Mutex<Table>,
    places: Arc<Semaphore>,
    tasks: Tasks,
    inspector: Inspector,
    images: mpsc::Sender<SeenImage>,
    done: mpsc::Sender<Digest>,
}

/// What [`Passing`] tells the engine.
pub struct Heard {
    /// Images.
    pub(crate) images: mpsc::Receiver<SeenImage>,
    /// Layers that were indexed.
    pub(crate) layers: mpsc::Receiver<Digest>,
}

impl Passing {
    /// Indexes with that inspector, keeping inventories where it keeps them.
    #[must_use]
    pub fn new(inspector: Inspector, tasks: Tasks) -> (Arc<Self>, Heard) {
        let (images, seen) = mpsc::channel(QUEUE);
        let (done, layers) = mpsc::channel(QUEUE);
        let passing = Arc::new(Self {
            table: Mutex::default(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            tasks,
            inspector,
            images,
            done,
        });
        (passing, Heard { images: seen, layers })
    }

    /// A manifest was pushed or handed out. Cheap; what is no image is passed over, and what was
    /// told lately is not told again.
    pub fn manifest(
        &self,
        name: (&str, &str, &str),
        digest: &Digest,
        media_type: &str,
        bytes: &Bytes,
    ) {
        let (registry, repository, tag) = name;
        let key = (format!("{registry}/{repository}:{tag}"), *digest);
        if !self.is_news(key.clone()) {
            return;
        }
        let declared = Some(media_type).filter(|declared| !declared.is_empty());
        let Ok(manifest) = Manifest::parse(bytes, declared) else { return };
        let is_image = manifest.config.as_ref().is_some_and(|c| is_image_config(&c.media_type));
        if !is_image || manifest.is_index() {
            return;
        }
        let seen = SeenImage {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            image: *digest,
            layers: manifest.layers.iter().map(|layer| layer.digest).collect(),
        };
        if self.images.try_send(seen).is_err() {
            // Told again at the next pull.
            self.forget(&key);
            tracing::debug!(image = %digest, "too many images at once; left for its next pull");
        }
    }

    fn is_news(&self, key: (String, Digest)) -> bool {
        let mut table = self.table.lock();
        if !table.told.insert(key.clone()) {
            return false;
        }
        table.order.push_back(key);
        if table.order.len() > REMEMBERED
            && let Some(oldest) = table.order.pop_front()
        {
            table.told.remove(&oldest);
        }
        true
    }

    fn forget(&self, key: &(String, Digest)) {
        self.table.lock().told.remove(key);
    }

    /// Waits while a layer is being indexed.
    pub async fn settled(&self, layer: &Digest) {
        let waiting = self.table.lock().indexing.get(layer).cloned();
        if let Some(mut waiting) = waiting {
            // Past that, the layer is read as if nobody had begun; a closed channel is an end too.
            let _ended =
                tokio::time::timeout(PATIENCE, waiting.wait_for(|ended| *ended)).await;
        }
    }

    /// Whether a layer is being indexed.
    #[must_use]
    pub fn is_indexing(&self, layer: &Digest) -> bool {
        self.table.lock().indexing.contains_key(layer)
    }

    async fn index(&self, digest: &Digest, tail: Tail) -> Option<LayerInventory> {
        let head = tail.read(0, PIECE).await.ok()?;
        if !is_layer_like(&head) {
            return None;
        }
        if self.inspector.inventories.get(digest).await.is_some() {
            return None;
        }
        let _place = self.places.acquire().await.ok()?;
        let pieces = futures_util::stream::unfold((tail, 0_u64), |(tail, at)| async move {
            match tail.read(at, PIECE).await {
                Ok(piece) if piece.is_empty() => None,
                Ok(piece) => {
                    let next = at + piece.len() as u64;
                    Some((Ok(piece), (tail, next)))
                }
                Err(error) => Some((Err(error.into()), (tail, at))),
            }
        });
        // A fill that failed, or was another blob: nothing of it is kept.
        let inventory = self.inspector.index_stream(pieces.boxed()).await.ok()?;
        keep(&*self.inspector.inventories, digest, &inventory).await;
        Some(inventory)
    }
}

/// Ends the entry of a layer also when its task is dropped.
struct Entry {
    passing: Arc<Passing>,
    digest: Digest,
    ended: watch::Sender<bool>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.passing.table.lock().indexing.remove(&self.digest);
        self.ended.send_replace(true);
        // Full: the scan job finds the inventory by itself.
        let _told = self.passing.done.try_send(self.digest);
    }
}

/// [`Passing`] as the store's observer.
pub struct LayerObserver(pub Arc<Passing>);

impl BlobObserver for LayerObserver {
    fn filling(&self, digest: &Digest, _size: Option<u64>, tail: Tail) {
        let passing = self.0.clone();
        let (ended, waiting) = watch::channel(false);
        {
            let mut table = passing.table.lock();
            if table.indexing.contains_key(digest) {
                return;
            }
            table.indexing.insert(*digest, waiting);
        }
        let entry = Entry { passing: passing.clone(), digest: *digest, ended };
        self.0.tasks.spawn("index a passing layer", async move {
            let indexed = passing.index(&entry.digest, tail).await;
            if let Some(inventory) = indexed {
                tracing::debug!(layer = %entry.digest, files = inventory.files.len(), "indexed");
            }
            drop(entry);
        });
    }
}

/// Inventories that wait for a layer being indexed instead of having it read again.
pub struct Settled {
    /// What is under way.
    pub passing: Arc<Passing>,
    /// Where inventories are kept.
    pub inner: Arc<dyn Inventories>,
}

impl Inventories for Settled {
    fn get<'a>(&'a self, layer: &'a Digest) -> BoxFuture<'a, Option<LayerInventory>> {
        Box::pin(async move {
            self.passing.settled(layer).await;
            self.inner.get(layer).await
        })
    }

    fn put<'a>(&'a self, layer: &'a Digest, inventory: &'a LayerInventory) -> BoxFuture<'a, ()> {
        self.inner.put(layer, inventory)
    }
}
