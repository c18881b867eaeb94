//! Who has to leave when space is needed: S3-FIFO, weighted by size. Pure: no clock, no disk.
//!
//! New keys enter a small queue of a tenth of the space. Who was asked for again by the time they
//! come to its front moves on to the main queue; who was not leaves, and is remembered for a while
//! as a ghost; a ghost that comes back goes straight to the main queue. The main queue gives a
//! second (third, fourth) chance to whoever was asked for since. So a scan of things used once
//! passes through the small queue and pushes nothing out of the main one, and a use costs one
//! counter. (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.)
//!
//! Keys that are pinned or leased are never victims. They stay in their queue until they come to
//! its front, are set aside there, and come back at the main queue's end when nobody holds them
//! any more; so holding costs nothing and eviction never walks over what is held.
//!
//! `used + reserved` never exceeds the bound by anything this module does; it may at the start,
//! when more is restored than the bound allows, and then the next reservation evicts down to it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
};

/// Part of the space that is for new keys: one in so many bytes.
const SMALL_SHARE: u64 = 10;
/// Uses beyond this number do not count.
const MAX_USES: u8 = 3;
/// Uses in the small queue after which a key moves on to the main queue. The first use after a
/// blob was fetched is often the same pull retried.
const USES_TO_STAY: u8 = 2;
/// Ghosts remembered at most, whatever their sizes.
const MAX_GHOSTS: usize = 1 << 16;

/// The books of a cache: what is in it, who holds it, who leaves next.
#[derive(Debug)]
pub struct Policy<K> {
    max: u64,
    used: u64,
    reserved: u64,
    /// Bytes of keys that are pinned or leased.
    held: u64,
    entries: HashMap<K, Slot>,
    pins: HashSet<K>,
    small: Queue<K>,
    main: Queue<K>,
    ghosts: Ghosts<K>,
    stamp: u64,
}

#[derive(Debug)]
struct Slot {
    size: u64,
    place: Place,
    /// Of the queue item that stands for it, so that older ones are known to be stale.
    stamp: u64,
    /// Of its admission, so that a lease on an earlier one is known to be.
    born: u64,
    uses: u8,
    hits: u64,
    last_used_ms: i64,
    leases: u32,
    pinned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Small,
    Main,
    /// Held, and in no queue.
    Aside,
}

/// Proof of a lease, to give it back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    born: u64,
}

/// A key as the books show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a, K> {
    /// The key.
    pub key: &'a K,
    /// Its bytes.
    pub size: u64,
    /// Times it was leased since it came or was restored.
    pub hits: u64,
    /// Unix milliseconds of the last lease, or what the restorer said.
    pub last_used_ms: i64,
    /// Whether it is pinned.
    pub pinned: bool,
    /// How many lease it now.
    pub leases: u32,
}

/// Sums over the books, in bytes and keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bound of `used + reserved`.
    pub max: u64,
    /// Bytes of the keys.
    pub used: u64,
    /// Bytes promised to keys that are on their way.
    pub reserved: u64,
    /// Bytes of keys that are pinned or leased now.
    pub held: u64,
    /// Number of keys.
    pub entries: usize,
}

impl<K: Copy + Eq + Hash> Policy<K> {
    /// Empty books of a cache of at most `max` bytes.
    pub fn new(max: u64) -> Policy<K> {
        Policy {
            max,
            used: 0,
            reserved: 0,
            held: 0,
            entries: HashMap::new(),
            pins: HashSet::new(),
            small: Queue::default(),
            main: Queue::default(),
            ghosts: Ghosts::default(),
            stamp: 0,
        }
    }

    /// Takes in what was there before the books were opened; to be called with the oldest first.
    pub fn restore(&mut self, key: K, size: u64, last_used_ms: i64) {
        self.enter(key, size, last_used_ms, Place::Main);
    }

    /// Sets `bytes` aside for a key on its way: who has to leave for it, in order. They are out of
    /// the books already. `None`: there is not so much that may leave; then nobody does.
    pub fn reserve(&mut self, bytes: u64) -> Option<Vec<(K, u64)>> {
        let room = self.max.checked_sub(bytes)?;
        let taken = self.held.saturating_add(self.reserved);
        if taken > room {
            return None;
        }
        let mut victims = Vec::new();
        while self.used.saturating_add(self.reserved) > room {
            // Cannot fail: what is not held is in a queue, and all of it would be enough.
            let Some(victim) = self.evict() else { break };
            victims.push(victim);
        }
        self.reserved += bytes;
        Some(victims)
    }

    /// Gives back bytes that were reserved.
    pub fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// Enters a key that has arrived, right after its bytes were released from a reservation.
    /// A key that is there already stays as it is.
    pub fn admit(&mut self, key: K, size: u64, now_ms: i64) {
        let place = if self.ghosts.forget(&key) { Place::Main } else { Place::Small };
        self.enter(key, size, now_ms, place);
    }

    fn enter(&mut self, key: K, size: u64, last_used_ms: i64, place: Place) {
        if self.entries.contains_key(&key) {
            return;
        }
        self.stamp += 1;
        let pinned = self.pins.contains(&key);
        let slot = Slot {
            size,
            place,
            stamp: self.stamp,
            born: self.stamp,
            uses: 0,
            hits: 0,
            last_used_ms,
            leases: 0,
            pinned,
        };
        self.used = self.used.saturating_add(size);
        if pinned {
            self.held = self.held.saturating_add(size);
        }
        self.entries.insert(key, slot);
        let queue = if place == Place::Small { &mut self.small } else { &mut self.main };
        queue.push(key, size, self.stamp);
    }

    /// The bytes of a key, if it is there. Not a use.
    pub fn size(&self, key: &K) -> Option<u64> {
        self.entries.get(key).map(|slot| slot.size)
    }

    /// Uses a key and keeps it from leaving until [`Policy::unlease`]. `None`: not there.
    pub fn lease(&mut self, key: &K, now_ms: i64) -> Option<Ticket> {
        let slot = self.entries.get_mut(key)?;
        if !slot.is_held() {
            self.held = self.held.saturating_add(slot.size);
        }
        slot.leases += 1;
        slot.uses = (slot.uses + 1).min(MAX_USES);
        slot.hits += 1;
        slot.last_used_ms = slot.last_used_ms.max(now_ms);
        Some(Ticket { born: slot.born })
    }

    /// Whether the key is still the one that was leased, not removed since.
    pub fn is_same(&self, key: &K, ticket: Ticket) -> bool {
        self.entries.get(key).is_some_and(|slot| slot.born == ticket.born)
    }

    /// Gives back a lease. One on a key that was removed since, even if it is back, does nothing.
    pub fn unlease(&mut self, key: &K, ticket: Ticket) {
        let Some(slot) = self.entries.get_mut(key) else { return };
        if slot.born == ticket.born && slot.leases > 0 {
            slot.leases -= 1;
            self.let_go(key);
        }
    }

    /// Keeps a key from leaving until [`Policy::unpin`], whether it is there yet or not.
    pub fn pin(&mut self, key: K) {
        self.pins.insert(key);
        if let Some(slot) = self.entries.get_mut(&key)
            && !slot.pinned
        {
            if !slot.is_held() {
                self.held = self.held.saturating_add(slot.size);
            }
            slot.pinned = true;
        }
    }

    /// Takes back a pin; whether there was one.
    pub fn unpin(&mut self, key: &K) -> bool {
        if !self.pins.remove(key) {
            return false;
        }
        if let Some(slot) = self.entries.get_mut(key) {
            slot.pinned = false;
            self.let_go(key);
        }
        true
    }

    /// After a hold was taken back: books it, and puts the key back in line if it was set aside.
    fn let_go(&mut self, key: &K) {
        let Some(slot) = self.entries.get_mut(key) else { return };
        if slot.is_held() {
            return;
        }
        self.held = self.held.saturating_sub(slot.size);
        if slot.place == Place::Aside {
            self.stamp += 1;
            slot.place = Place::Main;
            slot.stamp = self.stamp;
            self.main.push(*key, slot.size, self.stamp);
        }
    }

    /// Strikes a key out, held or not; its bytes if it was there. A pin stays for when it is back.
    pub fn remove(&mut self, key: &K) -> Option<u64> {
        let slot = self.entries.remove(key)?;
        self.used = self.used.saturating_sub(slot.size);
        if slot.is_held() {
            self.held = self.held.saturating_sub(slot.size);
        }
        match slot.place {
            Place::Small => self.small.forget(slot.size),
            Place::Main => self.main.forget(slot.size),
            Place::Aside => {}
        }
        self.small.compact(&self.entries);
        self.main.compact(&self.entries);
        Some(slot.size)
    }

    /// Sums over the books.
    pub fn totals(&self) -> Totals {
        Totals {
            max: self.max,
            used: self.used,
            reserved: self.reserved,
            held: self.held,
            entries: self.entries.len(),
        }
    }

    /// All pins, of keys that are there or not.
    pub fn pins(&self) -> impl Iterator<Item = &K> {
        self.pins.iter()
    }

    /// All keys, in no order.
    pub fn records(&self) -> impl Iterator<Item = Record<'_, K>> {
        self.entries.iter().map(|(key, slot)| Record {
            key,
            size: slot.size,
            hits: slot.hits,
            last_used_ms: slot.last_used_ms,
            pinned: slot.pinned,
            leases: slot.leases,
        })
    }

    /// Strikes out who leaves next; its bytes.
    fn evict(&mut self) -> Option<(K, u64)> {
        loop {
            let from_small = self.small.live > 0
                && (self.main.live == 0 || self.small.bytes >= self.max / SMALL_SHARE);
            let from = if from_small { &mut self.small } else { &mut self.main };
            let key = from.pop(&self.entries)?;
            let slot = self.entries.get_mut(&key)?;
            if slot.is_held() {
                slot.place = Place::Aside;
            } else if from_small && slot.uses >= USES_TO_STAY {
                slot.uses = 0;
                self.line_up_again(key);
            } else if !from_small && slot.uses > 0 {
                slot.uses -= 1;
                self.line_up_again(key);
            } else {
                let size = slot.size;
                self.entries.remove(&key);
                self.used = self.used.saturating_sub(size);
                if from_small {
                    let room = self.max - self.max / SMALL_SHARE;
                    self.stamp += 1;
                    self.ghosts.remember(key, size, self.stamp, room);
                }
                return Some((key, size));
            }
        }
    }

    fn line_up_again(&mut self, key: K) {
        let Some(slot) = self.entries.get_mut(&key) else { return };
        self.stamp += 1;
        slot.place = Place::Main;
        slot.stamp = self.stamp;
        self.main.push(key, slot.size, self.stamp);
    }
}

impl Slot {
    fn is_held(&self) -> bool {
        self.pinned || self.leases > 0
    }
}

/// A line of keys, oldest first. Items whose stamp is not their key's are stale and skipped.
#[derive(Debug)]
struct Queue<K> {
    items: VecDeque<(K, u64)>,
    live: usize,
    bytes: u64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Queue { items: VecDeque::new(), live: 0, bytes: 0 }
    }
}

impl<K: Copy + Eq + Hash> Queue<K> {
    fn push(&mut self, key: K, size: u64, stamp: u64) {
        self.items.push_back((key, stamp));
        self.live += 1;
        self.bytes = self.bytes.saturating_add(size);
    }

    fn pop(&mut self, entries: &HashMap<K, Slot>) -> Option<K> {
        loop {
            let (key, stamp) = self.items.pop_front()?;
            if let Some(slot) = entries.get(&key)
                && slot.stamp == stamp
            {
                self.forget(slot.size);
                return Some(key);
            }
        }
    }

    fn forget(&mut self, size: u64) {
        self.live = self.live.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
    }

    fn compact(&mut self, entries: &HashMap<K, Slot>) {
        if self.items.len() > 2 * self.live + 64 {
            self.items
                .retain(|(key, stamp)| entries.get(key).is_some_and(|slot| slot.stamp == *stamp));
        }
    }
}

/// Who has left the small queue lately, by as many bytes as the main queue holds.
#[derive(Debug)]
struct Ghosts<K> {
    line: VecDeque<(K, u64)>,
    known: HashMap<K, (u64, u64)>,
    bytes: u64,
}

impl<K> Default for Ghosts<K> {
    fn default() -> Self {
        Ghosts { line: VecDeque::new(), known: HashMap::new(), bytes: 0 }
    }
}

impl<K: Copy + Eq + Hash> Ghosts<K> {
    fn remember(&mut self, key: K, size: u64, stamp: u64, room: u64) {
        self.forget(&key);
        self.line.push_back((key, stamp));
        self.known.insert(key, (stamp, size));
        self.bytes = self.bytes.saturating_add(size);
        // Also bounds the stale items, of ghosts that came back.
        while self.bytes > room || self.line.len() > MAX_GHOSTS {
            let Some((oldest, stamp)) = self.line.pop_front() else { break };
            if self.known.get(&oldest).is_some_and(|(known, _)| *known == stamp) {
                self.forget(&oldest);
            }
        }
    }

    fn forget(&mut self, key: &K) -> bool {
        let Some((_, size)) = self.known.remove(key) else { return false };
        self.bytes = self.bytes.saturating_sub(size);
        true
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
