//! A bounded memory of what was accepted. Secrets are never kept: an entry is found by a hash
//! under a key that lives as long as the process.

use std::collections::HashMap;

use aws_lc_rs::hmac;
use aws_lc_rs::rand;
use parking_lot::Mutex;

/// Finds an entry; says nothing about the secrets it was made from.
pub type Fingerprint = [u8; 32];

/// Remembers values for a while.
pub struct Memory<V> {
    key: hmac::Key,
    entries: Mutex<HashMap<Fingerprint, Entry<V>>>,
    capacity: usize,
}

struct Entry<V> {
    value: V,
    until_ms: i64,
}

impl<V: Clone> Memory<V> {
    /// A memory of at most `capacity` values. Fails only if the machine has no randomness.
    pub fn new(capacity: usize) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        Ok(Self { key, entries: Mutex::new(HashMap::new()), capacity })
    }

    /// A fingerprint of parts; which text belongs to which part counts too.
    #[must_use]
    pub fn fingerprint(&self, parts: &[&str]) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.sign().as_ref());
        fingerprint
    }

    /// The value, if it was put and has not ended.
    pub fn get(&self, fingerprint: &Fingerprint, now_ms: i64) -> Option<V> {
        let entries = self.entries.lock();
        entries
            .get(fingerprint)
            .filter(|entry| now_ms < entry.until_ms)
            .map(|entry| entry.value.clone())
    }

    /// Remembers a value; when there is no room, what has ended goes, then anything.
    pub fn put(&self, fingerprint: Fingerprint, value: V, until_ms: i64, now_ms: i64) {
        let mut entries = self.entries.lock();
        if entries.len() >= self.capacity {
            entries.retain(|_, entry| now_ms < entry.until_ms);
        }
        if entries.len() >= self.capacity
            && let Some(any) = entries.keys().next().copied()
        {
            entries.remove(&any);
        }
        entries.insert(fingerprint, Entry { value, until_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::Memory;

    #[test]
    fn it_forgets_in_time_and_never_grows() {
        let memory = Memory::new(4).unwrap();
        let print = |text: &str| memory.fingerprint(&[text]);
        memory.put(print("a"), 1, 100, 0);
        assert_eq!(memory.get(&print("a"), 99), Some(1));
        assert_eq!(memory.get(&print("a"), 100), None);
        for n in 0..100 {
            memory.put(print(&n.to_string()), n, 100, 50);
            assert!(memory.entries.lock().len() <= 4);
            assert_eq!(memory.get(&print(&n.to_string()), 50), Some(n));
        }
    }

    #[test]
    fn a_fingerprint_tells_its_parts_apart() {
        let memory = Memory::<()>::new(1).unwrap();
        assert_ne!(memory.fingerprint(&["ab", "c"]), memory.fingerprint(&["a", "bc"]));
        let other = Memory::<()>::new(1).unwrap();
        assert_ne!(memory.fingerprint(&["a"]), other.fingerprint(&["a"]));
    }
}
