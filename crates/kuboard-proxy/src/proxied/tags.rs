//! Which digest a tag of an upstream had when we last heard, kept in memory over the catalogue.

use std::collections::HashMap;

use kuboard_oci::{Digest, Tag};
use parking_lot::RwLock;

/// Tags kept in memory; past it the memory starts anew from the catalogue.
const CAPACITY: usize = 200_000;

/// What is known of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) digest: Digest,
    /// When the upstream last confirmed it, on the monotonic clock, in milliseconds. Negative
    /// for a time before this process started.
    pub(crate) confirmed_ms: i64,
    /// Why the latest question got no answer, if it got none, and when it was asked.
    pub(crate) trouble: Option<(&'static str, i64)>,
}

/// The tags that this process has seen.
#[derive(Default)]
pub(crate) struct TagMemory {
    known: RwLock<HashMap<Box<str>, Known>>,
}

fn key(repository: &str, tag: &Tag) -> String {
    let mut key = String::with_capacity(repository.len() + 1 + tag.as_str().len());
    key.push_str(repository);
    key.push(':');
    key.push_str(tag.as_str());
    key
}

impl TagMemory {
    pub(crate) fn get(&self, repository: &str, tag: &Tag) -> Option<Known> {
        self.known.read().get(key(repository, tag).as_str()).copied()
    }

    pub(crate) fn set(&self, repository: &str, tag: &Tag, known: Known) {
        let mut map = self.known.write();
        if map.len() >= CAPACITY {
            map.clear();
        }
        map.insert(key(repository, tag).into(), known);
    }

    pub(crate) fn forget(&self, repository: &str, tag: &Tag) {
        self.known.write().remove(key(repository, tag).as_str());
    }

    /// Drops all tags of a repository, after its content was removed by hand.
    pub(crate) fn forget_repository(&self, repository: &str) {
        let prefix = format!("{repository}:");
        self.known.write().retain(|key, _| !key.starts_with(prefix.as_str()));
    }
}

/// Short memory of what an upstream does not have: only for its own "not found".
#[derive(Default)]
pub(crate) struct Negative {
    until: RwLock<HashMap<Box<str>, i64>>,
}

impl Negative {
    pub(crate) fn holds(&self, key: &str, now_ms: i64) -> bool {
        self.until.read().get(key).is_some_and(|until| now_ms < *until)
    }

    pub(crate) fn note(&self, key: &str, until_ms: i64, now_ms: i64) {
        let mut map = self.until.write();
        if map.len() >= 10_000 {
            map.retain(|_, until| now_ms < *until);
            if map.len() >= 10_000 {
                map.clear();
            }
        }
        map.insert(key.into(), until_ms);
    }

    pub(crate) fn forget(&self, key: &str) {
        if !self.until.read().is_empty() {
            self.until.write().remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_one_repository_only() {
        let memory = TagMemory::default();
        let tag: Tag = "1".parse().unwrap();
        let known = Known { digest: Digest::sha256(b"x"), confirmed_ms: 5, trouble: None };
        for repository in ["r/a", "r/ab"] {
            memory.set(repository, &tag, known);
        }
        memory.forget_repository("r/a");
        assert_eq!(memory.get("r/a", &tag), None);
        assert_eq!(memory.get("r/ab", &tag), Some(known));
    }

    #[test]
    fn not_found_is_remembered_for_its_time() {
        let negative = Negative::default();
        negative.note("k", 100, 0);
        assert!(negative.holds("k", 99));
        assert!(!negative.holds("k", 100));
        negative.forget("k");
        assert!(!negative.holds("k", 50));
    }
}
