//! What passes the registry: layers are indexed while they fill, images are scanned as soon as
//! their last layer is indexed.
//!
//! Indexing reads along with the fill from the page cache and never slows it: when it falls behind,
//! it is only late. Few layers are indexed at once; further ones wait, and what waits too long is
//! left to the scan job, which reads it from the cache.

use std::{
    collections::{HashMap, VecDeque},
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
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, timeout},
};

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

/// An image that is asked for again and again is told of again after this time, so that it is known
/// to be in use.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);
/// How long a layer waits for its turn, and for its next bytes: a client may stop in the midst of
/// it, and others shall not wait for that.
const STALLED: Duration = Duration::from_secs(60);
/// Bytes that tell a layer from other blobs.
const HEAD: u64 = 262;

/// What is under way.
#[derive(Default)]
struct Table {
    /// Layers being indexed; true when that has ended.
    indexing: HashMap<Digest, watch::Receiver<bool>>,
    /// Names that were told lately with what they meant, and their order.
    told: HashMap<String, Told>,
    order: VecDeque<(String, u64)>,
    told_so_far: u64,
    /// By repository and image, the tag that it was lately seen under.
    tags: HashMap<String, String>,
}

struct Told {
    image: Digest,
    at: Instant,
    number: u64,
}

/// Hears of what passes.
pub struct Passing {
    table: Mutex<Table>,
    places: Arc<Semaphore>,
    tasks: Tasks,
    /// `None`: layers are only watched.
    inspector: Option<Inspector>,
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
        Self::with(Some(inspector), tasks)
    }

    /// Only notes when layers have come, for a scanner that reads them by itself.
    #[must_use]
    pub fn watching(tasks: Tasks) -> (Arc<Self>, Heard) {
        Self::with(None, tasks)
    }

    fn with(inspector: Option<Inspector>, tasks: Tasks) -> (Arc<Self>, Heard) {
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
        // Clients ask for a tag, and then for the same image by its digest: that is one pull.
        let tag = self.tag_of(name, digest);
        let (registry, repository, tag) = (name.0, name.1, tag.as_str());
        if !self.is_news(key((registry, repository, tag), digest), digest) {
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
        self.tell(seen);
    }

    /// The tag that was asked for, or the one under which this image was lately seen there.
    fn tag_of(&self, (registry, repository, tag): (&str, &str, &str), image: &Digest) -> String {
        let place = key((registry, repository, ""), image);
        let mut table = self.table.lock();
        if tag.is_empty() {
            // Only while the tag still means this image.
            let tag = table.tags.get(&place).filter(|tag| {
                let told = table.told.get(&key((registry, repository, tag.as_str()), image));
                told.is_some_and(|told| told.image == *image)
            });
            return tag.cloned().unwrap_or_default();
        }
        if table.tags.len() >= REMEMBERED {
            // Whoever is pulling just now is told of twice, and that is all.
            table.tags.clear();
        }
        table.tags.insert(place, tag.to_owned());
        tag.to_owned()
    }

    /// Tells the engine. Where that can't be, the image is news again at its next pull.
    pub(super) fn tell(&self, seen: SeenImage) {
        if let Err(error) = self.images.try_send(seen) {
            let seen = error.into_inner();
            let name = (&*seen.registry, &*seen.repository, &*seen.tag);
            self.table.lock().told.remove(&key(name, &seen.image));
            tracing::warn!(image = %seen.image, "too many images at once; left for its next pull");
        }
    }

    /// Whether a name means another image than it was last told to mean, or was not told lately.
    fn is_news(&self, name: String, image: &Digest) -> bool {
        let mut table = self.table.lock();
        let is_known = |told: &Told| told.image == *image && told.at.elapsed() < TOLD_AGAIN;
        if table.told.get(&name).is_some_and(is_known) {
            return false;
        }
        table.told_so_far += 1;
        let number = table.told_so_far;
        table.told.insert(name.clone(), Told { image: *image, at: Instant::now(), number });
        table.order.push_back((name, number));
        if table.order.len() > REMEMBERED
            && let Some((oldest, number)) = table.order.pop_front()
            && table.told.get(&oldest).is_some_and(|told| told.number == number)
        {
            table.told.remove(&oldest);
        }
        true
    }

    /// Whether a layer's inventory is kept; waits for none.
    pub(super) async fn has_inventory(&self, layer: &Digest) -> bool {
        match &self.inspector {
            Some(inspector) => inspector.inventories.has(layer).await,
            None => false,
        }
    }

    /// Waits while a layer is being indexed.
    pub async fn settled(&self, layer: &Digest) {
        let waiting = self.table.lock().indexing.get(layer).cloned();
        if let Some(mut waiting) = waiting {
            // Past that, the layer is read as if nobody had begun; a closed channel is an end too.
            let _ended = timeout(PATIENCE, waiting.wait_for(|ended| *ended)).await;
        }
    }

    /// Whether a layer is being indexed.
    #[must_use]
    pub fn is_indexing(&self, layer: &Digest) -> bool {
        self.table.lock().indexing.contains_key(layer)
    }

    /// Whether the layer was indexed and is kept, or, if layers are only watched, came whole.
    async fn index(&self, digest: &Digest, tail: Tail) -> bool {
        // The first bytes may come one by one.
        let Ok(Ok(_)) = timeout(STALLED, tail.wait_beyond(HEAD - 1)).await else { return false };
        let Ok(head) = tail.read(0, PIECE).await else { return false };
        if !is_layer_like(&head) {
            return false;
        }
        let Some(inspector) = &self.inspector else { return comes_whole(&tail).await };
        if self.has_inventory(digest).await {
            return true;
        }
        let Ok(Ok(_place)) = timeout(STALLED, self.places.acquire()).await else { return false };
        let pieces = futures_util::stream::unfold((tail, 0_u64), |(tail, at)| async move {
            match timeout(STALLED, tail.read(at, PIECE)).await {
                Ok(Ok(piece)) if piece.is_empty() => None,
                Ok(Ok(piece)) => {
                    let next = at + piece.len() as u64;
                    Some((Ok(piece), (tail, next)))
                }
                Ok(Err(error)) => Some((Err(error.into()), (tail, at))),
                Err(late) => Some((Err(late.into()), (tail, at))),
            }
        });
        // A fill that failed, or was another blob: nothing of it is kept.
        let Ok(inventory) = inspector.index_stream(pieces.boxed()).await else { return false };
        keep(&*inspector.inventories, digest, &inventory).await;
        tracing::debug!(layer = %digest, files = inventory.files.len(), "indexed");
        true
    }
}

/// Waits for a blob's last byte. False: it failed, or stopped coming.
async fn comes_whole(tail: &Tail) -> bool {
    let mut seen = HEAD - 1;
    loop {
        match timeout(STALLED, tail.wait_beyond(seen)).await {
            Ok(Ok(readable)) if readable > seen => seen = readable,
            Ok(Ok(_)) => return true,
            Ok(Err(_)) | Err(_) => return false,
        }
    }
}

/// A tag is one name whatever it means; without one, each image has its own.
fn key((registry, repository, tag): (&str, &str, &str), image: &Digest) -> String {
    match tag {
        "" => format!("{registry}/{repository}@{image}"),
        tag => format!("{registry}/{repository}:{tag}"),
    }
}

/// Ends the entry of a layer also when its task is dropped.
struct Entry {
    passing: Arc<Passing>,
    digest: Digest,
    ended: watch::Sender<bool>,
    is_indexed: bool,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.passing.table.lock().indexing.remove(&self.digest);
        self.ended.send_replace(true);
        if self.is_indexed {
            // Full: the scan job finds the inventory by itself.
            let _told = self.passing.done.try_send(self.digest);
        }
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
        let mut entry =
            Entry { passing: passing.clone(), digest: *digest, ended, is_indexed: false };
        self.0.tasks.spawn("index a passing layer", async move {
            let digest = entry.digest;
            entry.is_indexed = passing.index(&digest, tail).await;
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

    fn has<'a>(&'a self, layer: &'a Digest) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            self.passing.settled(layer).await;
            self.inner.has(layer).await
        })
    }

    fn put<'a>(&'a self, layer: &'a Digest, inventory: &'a LayerInventory) -> BoxFuture<'a, ()> {
        self.inner.put(layer, inventory)
    }
}
