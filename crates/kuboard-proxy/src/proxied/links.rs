//! Which repositories were proven to hold which digests: memory over the catalogue's links.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

use kuboard_oci::Digest;
use parking_lot::RwLock;

/// Proofs kept in memory; past it the memory starts anew from the catalogue.
const CAPACITY: usize = 500_000;

#[derive(Default)]
pub(crate) struct Links {
    /// (hash of the repository's name under a random key, digest).
    proven: RwLock<HashSet<(u64, Digest)>>,
    hasher: RandomState,
}

impl Links {
    pub(crate) fn holds(&self, repository: &str, digest: &Digest) -> bool {
        self.proven.read().contains(&(self.hasher.hash_one(repository), *digest))
    }

    pub(crate) fn note(&self, repository: &str, digest: &Digest) {
        let mut proven = self.proven.write();
        if proven.len() >= CAPACITY {
            proven.clear();
        }
        proven.insert((self.hasher.hash_one(repository), *digest));
    }

    pub(crate) fn forget_repository(&self, repository: &str) {
        let hash = self.hasher.hash_one(repository);
        self.proven.write().retain(|(of, _)| *of != hash);
    }
}
