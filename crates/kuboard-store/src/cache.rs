//! A store kept within a size.
//!
//! The index is in memory: it is read from the store's listing at the start, oldest first, and a
//! GET changes only counters in it. Space is reserved before the first byte of a blob is fetched,
//! and evicted for then; when nothing may be evicted the caller is told and streams the blob
//! through without storing it. Who has to leave is the [`Policy`]'s word; this module acts on it.
//!
//! A victim is out of the index at once and out of the store a little later; until then it is
//! *leaving*. Only one at a time changes the store and the index about a digest (it is *busy*), and
//! a victim that was published again before its turn came is let stay. So an entry of the index
//! always has its blob, unless somebody else removed the file: then the entry is dropped when it is
//! opened, and that is a miss.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::TryStreamExt as _;
use kuboard_oci::Digest;
use kuboard_rt::{Clock, Tasks};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::{
    BlobStore, CacheConfig, Entry, Error, ErrorKind, Metrics, Result, Verified,
    lease::{Lease, Leased, Reservation},
    policy::{Policy, Ticket},
};

/// A size-bounded cache over a [`BlobStore`]. Cheap to clone; all clones are one cache.
///
/// Nobody else may publish to or remove from the store.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    store: Arc<dyn BlobStore>,
    tasks: Tasks,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Something is not leaving or not busy any more.
    changed: Notify,
    metrics: Metrics,
}

struct State {
    policy: Policy<Digest>,
    /// Out of the index, and still in the store.
    leaving: HashSet<Digest>,
    /// Being published or removed.
    busy: HashSet<Digest>,
    /// Leases whose guards are gone while the store says that the bytes are still being read.
    reading: HashMap<Digest, Ticket>,
    hits: u64,
    misses: u64,
}

/// A blob of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheEntry {
    /// Its digest.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// Times it was opened since this process started or the blob came.
    pub hits: u64,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Whether it is being read.
    pub leased: bool,
    /// Unix milliseconds of the last opening; of its writing when it was not opened since start.
    pub last_used: i64,
}

/// Sums over a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Bytes of its blobs.
    pub used: u64,
    /// Bytes set aside for blobs that are coming.
    pub reserved: u64,
    /// Bytes that `used` and `reserved` together may reach.
    pub max: u64,
    /// Blobs.
    pub entries: usize,
    /// Blobs that are pinned.
    pub pinned: usize,
    /// Bytes of blobs that are pinned.
    pub pinned_bytes: u64,
    /// Blobs that are being read.
    pub leased: usize,
    /// Openings that found a blob.
    pub hits: u64,
    /// Openings that found none.
    pub misses: u64,
    /// Blobs that were evicted.
    pub evicted: u64,
    /// Bytes of blobs that were evicted.
    pub evicted_bytes: u64,
    /// Reservations that were refused because nothing could be evicted.
    pub refused: u64,
}

impl Cache {
    /// Opens a cache over what `store` lists. Evicts nothing yet, even when there is too much:
    /// pin first what must stay, then see [`Cache::trim`].
    pub async fn open(
        store: Arc<dyn BlobStore>,
        config: CacheConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Cache> {
        let mut entries: Vec<Entry> = store.list().try_collect().await?;
        entries.sort_unstable_by_key(|entry| (entry.modified_ms, entry.digest));
        let mut policy = Policy::new(config.max_bytes);
        for entry in entries {
            policy.restore(entry.digest, entry.size, entry.modified_ms);
        }
        let metrics = Metrics::new().map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("making the cache's metrics: {error}"))
        })?;
        metrics.show(&policy.totals());
        let state = State {
            policy,
            leaving: HashSet::new(),
            busy: HashSet::new(),
            reading: HashMap::new(),
            hits: 0,
            misses: 0,
        };
        let inner = Inner {
            store,
            tasks: config.tasks,
            clock,
            state: Mutex::new(state),
            changed: Notify::new(),
            metrics,
        };
        Ok(Cache { inner: Arc::new(inner) })
    }

    /// The metrics, for the owner to register.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The store below, for checking it. See the type's note on writing to it.
    pub fn store(&self) -> &Arc<dyn BlobStore> {
        &self.inner.store
    }

    /// Opens a blob, which counts as a use, and keeps it from eviction while the guard or a body
    /// made from it is alive. `None`: not here.
    pub async fn open_blob(&self, digest: &Digest) -> Result<Option<Leased>> {
        let now = self.inner.clock.now_ms();
        let ticket = {
            let mut state = self.inner.state.lock();
            let ticket = state.policy.lease(digest, now);
            *(if ticket.is_some() { &mut state.hits } else { &mut state.misses }) += 1;
            ticket
        };
        let Some(ticket) = ticket else { return Ok(None) };
        let lease = Lease::new(self.inner.clone(), *digest, ticket);
        let Some(blob) = self.inner.store.open(digest).await? else {
            self.inner.forget(digest, lease.ticket());
            return Ok(None);
        };
        Ok(Some(Leased::new(blob, lease)))
    }

    /// The length of a blob, from memory; not a use. `None`: not here.
    pub async fn stat(&self, digest: &Digest) -> Option<u64> {
        self.inner.state.lock().policy.size(digest)
    }

    /// Sets `bytes` aside, evicting for them; see [`Reservation::ready`]. `None`: not so much can
    /// be evicted, so the caller streams the blob without storing it.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let leaving = self.inner.take_space(bytes)?;
        Some(Reservation::new(self.inner.clone(), bytes, leaving))
    }

    /// Publishes a blob into space that was reserved for it. When the blob turned out longer, more
    /// space is reserved; if that cannot be, this fails with [`ErrorKind::NoSpace`] and the file
    /// is gone. Giving up the wait does not stop it halfway.
    pub async fn insert(&self, verified: Verified, mut reservation: Reservation) -> Result<()> {
        let (digest, size) = (verified.digest(), verified.size());
        let missing = size.saturating_sub(reservation.bytes());
        if missing > 0 && !reservation.grow(missing) {
            let text = format!("caching {digest} of {size} bytes");
            return Err(Error::new(ErrorKind::NoSpace, text));
        }
        let inner = self.inner.clone();
        self.owned("cache-insert", async move {
            reservation.ready().await;
            let _turn = inner.turn(digest).await;
            inner.store.publish(verified).await?;
            let now = inner.clock.now_ms();
            let mut state = inner.state.lock();
            state.policy.release(reservation.hand_over());
            state.policy.admit(digest, size, now);
            inner.metrics.show(&state.policy.totals());
            Ok(())
        })
        .await
    }

    /// Keeps a digest from eviction, whether it is there yet or not.
    pub fn pin(&self, digest: &Digest) {
        let mut state = self.inner.state.lock();
        state.policy.pin(*digest);
        self.inner.metrics.show(&state.policy.totals());
    }

    /// Takes back a pin; whether there was one.
    pub fn unpin(&self, digest: &Digest) -> bool {
        let mut state = self.inner.state.lock();
        let was = state.policy.unpin(digest);
        self.inner.metrics.show(&state.policy.totals());
        was
    }

    /// Removes a blob, pinned or being read or not; readers go on. Whether there was one.
    pub async fn remove(&self, digest: &Digest) -> Result<bool> {
        let (inner, digest) = (self.inner.clone(), *digest);
        self.owned("cache-remove", async move {
            let _turn = inner.turn(digest).await;
            let size = inner.state.lock().policy.remove(&digest);
            let removed = inner.store.remove(&digest).await;
            let mut state = inner.state.lock();
            if let (Err(_), Some(size)) = (&removed, size) {
                state.policy.restore(digest, size, inner.clock.now_ms());
            }
            inner.metrics.show(&state.policy.totals());
            removed
        })
        .await
    }

    /// Evicts until there is no more than the bound allows, as after it was lowered. False: what
    /// is pinned or being read alone is more.
    pub async fn trim(&self) -> bool {
        match self.reserve(0) {
            Some(mut nothing) => {
                nothing.ready().await;
                true
            }
            None => false,
        }
    }

    /// What is in the cache, the latest used first.
    pub fn entries(&self) -> Vec<CacheEntry> {
        let mut state = self.inner.state.lock();
        state.end_reads(&*self.inner.store);
        let records = state.policy.records();
        let mut entries: Vec<_> = records
            .map(|record| CacheEntry {
                digest: *record.key,
                size: record.size,
                hits: record.hits,
                pinned: record.pinned,
                leased: record.leases > 0,
                last_used: record.last_used_ms,
            })
            .collect();
        drop(state);
        entries.sort_unstable_by_key(|entry| (std::cmp::Reverse(entry.last_used), entry.digest));
        entries
    }

    /// Sums over the cache.
    pub fn stats(&self) -> CacheStats {
        let mut state = self.inner.state.lock();
        state.end_reads(&*self.inner.store);
        let totals = state.policy.totals();
        let mut stats = CacheStats {
            used: totals.used,
            reserved: totals.reserved,
            max: totals.max,
            entries: totals.entries,
            hits: state.hits,
            misses: state.misses,
            evicted: self.inner.metrics.evictions.get(),
            evicted_bytes: self.inner.metrics.evicted_bytes.get(),
            refused: self.inner.metrics.refused.get(),
            ..CacheStats::default()
        };
        for record in state.policy.records() {
            if record.pinned {
                stats.pinned += 1;
                stats.pinned_bytes += record.size;
            }
            stats.leased += usize::from(record.leases > 0);
        }
        stats
    }

    /// Runs `work` to its end, whether the caller waits for it or not.
    async fn owned<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        self.inner.tasks.spawn(name, async move {
            // Nobody may be left to be told.
            let _ = tell.send(work.await);
        });
        told.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed, name)))
    }
}

impl Inner {
    /// Reserves `bytes` and sends off who has to leave for them.
    pub(crate) fn take_space(self: &Arc<Self>, bytes: u64) -> Option<Vec<Digest>> {
        let victims = {
            let mut state = self.state.lock();
            state.end_reads(&*self.store);
            let Some(victims) = state.policy.reserve(bytes) else {
                self.metrics.refused.inc();
                return None;
            };
            state.leaving.extend(victims.iter().map(|(digest, _)| *digest));
            self.metrics.show(&state.policy.totals());
            victims
        };
        let leaving = victims.iter().map(|(digest, _)| *digest).collect();
        if !victims.is_empty() {
            let inner = self.clone();
            self.tasks.spawn("cache-evict", async move {
                for (digest, size) in victims {
                    inner.evict(digest, size).await;
                }
            });
        }
        Some(leaving)
    }

    pub(crate) fn give_space(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.policy.release(bytes);
        self.metrics.show(&state.policy.totals());
    }

    /// Removes a victim from the store. If that fails it goes back into the index.
    async fn evict(self: &Arc<Self>, digest: Digest, size: u64) {
        let turn = self.turn(digest).await;
        let back = self.state.lock().policy.size(&digest).is_some();
        if !back {
            match self.store.remove(&digest).await {
                Ok(_) => {
                    self.metrics.evictions.inc();
                    self.metrics.evicted_bytes.inc_by(size);
                }
                Err(error) => {
                    let source = std::error::Error::source(&error);
                    tracing::warn!(%digest, %error, ?source, "cannot evict a blob; it stays");
                    let mut state = self.state.lock();
                    state.policy.restore(digest, size, 0);
                    self.metrics.show(&state.policy.totals());
                }
            }
        }
        self.state.lock().leaving.remove(&digest);
        drop(turn);
    }

    /// Waits until `digest` is not leaving.
    pub(crate) async fn gone(&self, digest: &Digest) {
        self.until(|state| !state.leaving.contains(digest)).await;
    }

    /// Waits for the turn to change what the store and the index say about `digest`.
    async fn turn(self: &Arc<Self>, digest: Digest) -> Turn {
        self.until(|state| state.busy.insert(digest)).await;
        Turn { cache: self.clone(), digest }
    }

    async fn until(&self, mut ready: impl FnMut(&mut State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on a notification is not missed.
            changed.as_mut().enable();
            if ready(&mut self.state.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// The store has no such blob although the books say so.
    fn forget(&self, digest: &Digest, ticket: Ticket) {
        let mut state = self.state.lock();
        if state.policy.is_same(digest, ticket) {
            state.policy.remove(digest);
            self.metrics.show(&state.policy.totals());
            tracing::warn!(%digest, "a cached blob has vanished from the store");
        }
    }

    pub(crate) fn end_lease(&self, digest: Digest, ticket: Ticket) {
        let reading = self.store.in_use(&digest);
        let mut state = self.state.lock();
        if reading {
            // One lease a digest is enough to hold it.
            if let Some(other) = state.reading.insert(digest, ticket) {
                state.policy.unlease(&digest, other);
            }
        } else {
            state.policy.unlease(&digest, ticket);
        }
    }
}

/// The right to change what the store and the index say about a digest.
struct Turn {
    cache: Arc<Inner>,
    digest: Digest,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.cache.state.lock().busy.remove(&self.digest);
        self.cache.changed.notify_waiters();
    }
}

impl State {
    /// Gives back the leases of bytes that nobody reads any more.
    fn end_reads(&mut self, store: &dyn BlobStore) {
        let policy = &mut self.policy;
        self.reading.retain(|digest, ticket| {
            let reading = store.in_use(digest);
            if !reading {
                policy.unlease(digest, *ticket);
            }
            reading
        });
    }
}
