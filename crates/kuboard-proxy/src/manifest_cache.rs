//! Manifests kept in memory with their response headers ready, within a bound of bytes.
//!
//! A manifest is held once per digest with the set of repositories that show it, since the bytes
//! of a popular base image stand in many repositories. Eviction is second chance (clock): a hit
//! only sets a flag under a read lock.
//!
//! Invalidation is exact. A reader takes a [`Ticket`] before it asks the catalogue and hands it
//! back with what it found; whatever was forgotten in between voids the ticket, so an answer that
//! was overtaken by a write is never remembered.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::HeaderValue;
use kuboard_oci::Digest;
use parking_lot::RwLock;

/// What a held manifest costs beside its bytes: headers, table entries, allocations.
const OVERHEAD: u64 = 512;

/// A manifest ready to be answered.
pub(crate) struct CachedManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    /// Verbatim as pushed or as the upstream served it.
    pub(crate) bytes: Bytes,
    pub(crate) content_type: HeaderValue,
    pub(crate) content_digest: HeaderValue,
    pub(crate) content_length: HeaderValue,
    pub(crate) etag: HeaderValue,
}

impl CachedManifest {
    /// Prepares the headers of a manifest. A media type that can't stand in a header is answered
    /// as `application/octet-stream`.
    pub(crate) fn new(digest: Digest, media_type: impl Into<String>, bytes: Bytes) -> Self {
        let header = |text: &str| {
            HeaderValue::from_str(text)
                .unwrap_or(HeaderValue::from_static("application/octet-stream"))
        };
        let media_type = media_type.into();
        let text = digest.to_string();
        Self {
            digest,
            content_type: header(&media_type),
            content_digest: header(&text),
            content_length: HeaderValue::from(bytes.len() as u64),
            etag: header(&format!("\"{text}\"")),
            media_type,
            bytes,
        }
    }
}

/// The manifests this process serves most.
pub(crate) struct ManifestCache {
    held: Bounded<Digest, Held>,
}

struct Held {
    manifest: Arc<CachedManifest>,
    repositories: HashSet<Box<str>>,
}

impl Held {
    fn weight(&self) -> u64 {
        let names: usize = self.repositories.iter().map(|name| name.len() + 32).sum();
        self.manifest.bytes.len() as u64 + names as u64 + OVERHEAD
    }
}

impl ManifestCache {
    /// A cache of at most `max_bytes`; 0 keeps nothing.
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { held: Bounded::new(max_bytes) }
    }

    /// The manifest, if it is held for this repository.
    pub(crate) fn get(&self, repository: &str, digest: &Digest) -> Option<Arc<CachedManifest>> {
        self.held.get_with(digest, |held| {
            held.repositories.contains(repository).then(|| held.manifest.clone())
        })
    }

    /// To be taken before the catalogue is asked, see the head of this file.
    pub(crate) fn ticket(&self) -> Ticket {
        self.held.ticket()
    }

    /// Remembers that `repository` shows `manifest`, unless something was forgotten since
    /// `ticket` was taken. Returns it for the answer either way.
    pub(crate) fn insert_unless_overtaken(
        &self,
        ticket: Ticket,
        repository: &str,
        manifest: CachedManifest,
    ) -> Arc<CachedManifest> {
        let manifest = Arc::new(manifest);
        let answer = manifest.clone();
        self.held.update(ticket, manifest.digest, Held::weight, |before| {
            let mut repositories = match before {
                // The same bytes under another media type are another answer.
                Some(held) if held.manifest.media_type == manifest.media_type => held.repositories,
                _ => HashSet::new(),
            };
            repositories.insert(repository.into());
            Held { manifest, repositories }
        });
        answer
    }

    /// Forgets a manifest, for all repositories.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.held.remove(digest);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.held.clear();
    }

    /// Forgets what a repository shows.
    pub(crate) fn forget_repository(&self, repository: &str) {
        self.held.retain(|held| {
            held.repositories.remove(repository);
            !held.repositories.is_empty()
        });
    }
}

/// The state of a [`Bounded`] at one moment; void once anything was removed on purpose.
#[derive(Clone, Copy)]
pub(crate) struct Ticket(u64);

/// A map bounded by weight, with second-chance eviction.
pub(crate) struct Bounded<K, V> {
    inner: RwLock<Inner<K, V>>,
    generation: AtomicU64,
    max: u64,
}

struct Inner<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// In order of arrival; an entry whose number is not its slot's is stale.
    ring: VecDeque<(K, u64)>,
    used: u64,
    next: u64,
}

struct Slot<V> {
    value: V,
    weight: u64,
    number: u64,
    touched: AtomicBool,
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    pub(crate) fn new(max: u64) -> Self {
        let inner = Inner { slots: HashMap::new(), ring: VecDeque::new(), used: 0, next: 0 };
        Self { inner: RwLock::new(inner), generation: AtomicU64::new(0), max }
    }

    /// What `read` makes of the value under `key`.
    pub(crate) fn get_with<Q, R>(&self, key: &Q, read: impl FnOnce(&V) -> Option<R>) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let inner = self.inner.read();
        let slot = inner.slots.get(key)?;
        // Written only when it changes, so that hits on one key don't fight for its cache line.
        if !slot.touched.load(Ordering::Relaxed) {
            slot.touched.store(true, Ordering::Relaxed);
        }
        read(&slot.value)
    }

    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.generation.load(Ordering::Acquire))
    }

    /// Puts what `make` makes of the value before, unless something was removed since `ticket`.
    pub(crate) fn update(
        &self,
        ticket: Ticket,
        key: K,
        weigh: impl FnOnce(&V) -> u64,
        make: impl FnOnce(Option<V>) -> V,
    ) {
        let mut inner = self.inner.write();
        if self.generation.load(Ordering::Acquire) != ticket.0 {
            return;
        }
        let before = inner.take(&key);
        let value = make(before);
        let weight = weigh(&value);
        if weight > self.max {
            return;
        }
        inner.put(key, value, weight);
        inner.shrink(self.max);
    }

    /// Removes `key` and voids all tickets.
    pub(crate) fn remove(&self, key: &K) {
        let mut inner = self.inner.write();
        self.generation.fetch_add(1, Ordering::Release);
        inner.take(key);
    }

    /// Removes the values that `keep` refuses and voids all tickets. Weights stay as they were
    /// when the value was put.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&mut V) -> bool) {
        let mut inner = self.inner.write();
        self.generation.fetch_add(1, Ordering::Release);
        let mut freed = 0;
        inner.slots.retain(|_, slot| {
            let kept = keep(&mut slot.value);
            if !kept {
                freed += slot.weight;
            }
            kept
        });
        inner.used -= freed;
    }

    /// Removes all and voids all tickets.
    pub(crate) fn clear(&self) {
        let mut inner = self.inner.write();
        self.generation.fetch_add(1, Ordering::Release);
        inner.slots.clear();
        inner.ring.clear();
        inner.used = 0;
    }
}

impl<K: Hash + Eq + Clone, V> Inner<K, V> {
    fn take(&mut self, key: &K) -> Option<V> {
        let slot = self.slots.remove(key)?;
        self.used -= slot.weight;
        Some(slot.value)
    }

    fn put(&mut self, key: K, value: V, weight: u64) {
        let number = self.next;
        self.next += 1;
        self.ring.push_back((key.clone(), number));
        let slot = Slot { value, weight, number, touched: AtomicBool::new(false) };
        self.slots.insert(key, slot);
        self.used += weight;
        // Removals leave stale entries behind; half of the ring may be stale, not more.
        if self.ring.len() > 2 * self.slots.len() + 64 {
            let slots = &self.slots;
            self.ring
                .retain(|(key, number)| slots.get(key).is_some_and(|slot| slot.number == *number));
        }
    }

    fn shrink(&mut self, max: u64) {
        while self.used > max {
            let Some((key, number)) = self.ring.pop_front() else { return };
            match self.slots.get_mut(&key) {
                Some(slot) if slot.number == number => {
                    if std::mem::take(slot.touched.get_mut()) {
                        self.ring.push_back((key, number));
                    } else {
                        self.take(&key);
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &ManifestCache, repository: &str, text: &str) -> Arc<CachedManifest> {
        cache.insert_unless_overtaken(cache.ticket(), repository, manifest(text))
    }

    fn used(cache: &ManifestCache) -> u64 {
        cache.held.inner.read().used
    }

    fn manifest(text: &str) -> CachedManifest {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        CachedManifest::new(Digest::sha256(text.as_bytes()), "application/json", bytes)
    }

    #[test]
    fn held_for_the_repositories_that_show_it() {
        let cache = ManifestCache::new(1 << 20);
        let digest = manifest("one").digest;
        for repository in ["a", "b"] {
            put(&cache, repository, "one");
        }
        let shown = |repository| cache.get(repository, &digest).is_some();
        assert_eq!((shown("a"), shown("b"), shown("c")), (true, true, false));
        cache.forget_repository("a");
        assert_eq!((shown("a"), shown("b"), shown("c")), (false, true, false));
        cache.forget(&digest);
        assert_eq!((shown("a"), shown("b"), shown("c")), (false, false, false));
        assert_eq!(used(&cache), 0);
    }

    #[test]
    fn overtaken_answers_are_not_remembered() {
        let cache = ManifestCache::new(1 << 20);
        let digest = manifest("one").digest;
        let ticket = cache.ticket();
        cache.forget(&digest);
        cache.insert_unless_overtaken(ticket, "a", manifest("one"));
        assert!(cache.get("a", &digest).is_none());
    }

    #[test]
    fn another_media_type_is_another_answer() {
        let cache = ManifestCache::new(1 << 20);
        let one = put(&cache, "a", "one");
        let other = CachedManifest::new(one.digest, "text/plain", one.bytes.clone());
        cache.insert_unless_overtaken(cache.ticket(), "b", other);
        assert!(cache.get("a", &one.digest).is_none());
        assert_eq!(cache.get("b", &one.digest).unwrap().content_type, "text/plain");
    }

    #[test]
    fn stays_within_its_bound_and_spares_what_is_asked_for() {
        let max = 20 * (OVERHEAD + 64);
        let cache = ManifestCache::new(max);
        let favourite = put(&cache, "a", "favourite");
        for n in 0..1000 {
            assert!(cache.get("a", &favourite.digest).is_some(), "evicted at {n}");
            put(&cache, "a", &n.to_string());
            assert!(used(&cache) <= max);
        }
    }

    #[test]
    fn no_room_at_all_keeps_nothing() {
        let cache = ManifestCache::new(0);
        let one = put(&cache, "a", "one");
        assert!(cache.get("a", &one.digest).is_none());
        assert_eq!(used(&cache), 0);
    }

    #[test]
    fn removals_do_not_grow_the_ring() {
        let map: Bounded<u32, ()> = Bounded::new(1000);
        for _ in 0..10_000 {
            map.update(map.ticket(), 7, |()| 1, |_| ());
            map.remove(&7);
        }
        assert!(map.inner.read().ring.len() <= 64 + 2);
    }
}
