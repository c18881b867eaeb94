//! A bounded memory of what was found when. Half of it is thrown away when it is full: the half
//! that was not put lately.

use std::{collections::HashMap, hash::Hash, mem};

/// Values with the time they were put, milliseconds since 1970.
pub(crate) struct Recent<K, V> {
    young: HashMap<K, (V, i64)>,
    old: HashMap<K, (V, i64)>,
    half: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// Holds at most `most` values.
    pub(crate) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (most / 2).max(1) }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&(V, i64)> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(crate) fn put(&mut self, key: K, value: V, at_ms: i64) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, (value, at_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn it_stays_bounded_and_keeps_what_is_new() {
        let mut recent = Recent::new(4);
        for number in 0..100 {
            recent.put(number, number, 0);
            assert!(recent.young.len() + recent.old.len() <= 4);
            assert_eq!(recent.get(&number), Some(&(number, 0)));
        }
        recent.put(99, 7, 1);
        assert_eq!(recent.get(&99), Some(&(7, 1)));
        assert_eq!(recent.get(&1), None);
    }
}
