//! Maps of hot files, shared: opening a blob that is being read, or was a moment ago, costs
//! no system call.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use kuboard_oci::Digest;
use kuboard_rt::Mapping;
use parking_lot::Mutex;

/// Maps that stay open though nobody reads them. Each costs a descriptor and address space, and
/// keeps its bytes on disk should somebody else unlink the file.
const KEPT: usize = 64;

#[derive(Default)]
pub(crate) struct Mappings(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    kept: HashMap<Digest, Kept>,
    /// Fell out of `kept` while they were read.
    read: HashMap<Digest, Weak<Mapping>>,
    clock: u64,
    epoch: u64,
}

struct Kept {
    mapping: Arc<Mapping>,
    used: u64,
}

/// What had happened before a file was opened; see [`Mappings::keep`].
#[derive(Clone, Copy)]
pub(crate) struct Epoch(u64);

impl Mappings {
    /// The map of a blob, or when the caller begins to open its file.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Arc<Mapping>, Epoch> {
        let mut inner = self.0.lock();
        inner.clock += 1;
        let now = inner.clock;
        if let Some(kept) = inner.kept.get_mut(digest) {
            kept.used = now;
            return Ok(kept.mapping.clone());
        }
        match inner.read.get(digest).and_then(Weak::upgrade) {
            Some(mapping) => {
                inner.insert(*digest, mapping.clone());
                Ok(mapping)
            }
            None => Err(Epoch(inner.epoch)),
        }
    }

    /// Shares a map that was opened since `epoch`; the one to use, for another caller may have
    /// been faster. When a blob was forgotten since, the map may be of a removed file: it is good
    /// for the caller, who asked before, but not for later ones.
    pub(crate) fn keep(
        &self,
        digest: &Digest,
        mapping: Arc<Mapping>,
        epoch: Epoch,
    ) -> Arc<Mapping> {
        let mut inner = self.0.lock();
        if inner.epoch != epoch.0 {
            return mapping;
        }
        if let Some(kept) = inner.kept.get(digest) {
            return kept.mapping.clone();
        }
        inner.insert(*digest, mapping.clone());
        mapping
    }

    /// Drops a map; to be called after the file was unlinked or replaced.
    pub(crate) fn forget(&self, digest: &Digest) {
        let mut inner = self.0.lock();
        inner.epoch += 1;
        let kept = inner.kept.remove(digest);
        inner.read.remove(digest);
        drop(inner);
        // Unmapping a big file takes a while: not under the lock.
        drop(kept);
    }

    /// Whether anybody but this table holds the map of a blob.
    pub(crate) fn in_use(&self, digest: &Digest) -> bool {
        let inner = self.0.lock();
        match inner.kept.get(digest) {
            Some(kept) => Arc::strong_count(&kept.mapping) > 1,
            None => inner.read.get(digest).is_some_and(|weak| weak.strong_count() > 0),
        }
    }
}

impl Inner {
    fn insert(&mut self, digest: Digest, mapping: Arc<Mapping>) {
        self.read.remove(&digest);
        if self.kept.len() >= KEPT
            && let Some(oldest) =
                self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(d, _)| *d)
            && let Some(out) = self.kept.remove(&oldest)
            && Arc::strong_count(&out.mapping) > 1
        {
            self.read.retain(|_, weak| weak.strong_count() > 0);
            self.read.insert(oldest, Arc::downgrade(&out.mapping));
        }
        self.clock += 1;
        self.kept.insert(digest, Kept { mapping, used: self.clock });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn map() -> Arc<Mapping> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"bytes").unwrap();
        Mapping::from_file(file).unwrap()
    }

    fn digest(number: usize) -> Digest {
        Digest::sha256(&number.to_le_bytes())
    }

    fn open(mappings: &Mappings, number: usize) -> Arc<Mapping> {
        let digest = digest(number);
        mappings.get(&digest).unwrap_or_else(|epoch| mappings.keep(&digest, map(), epoch))
    }

    #[test]
    fn is_shared_while_hot_and_while_read() {
        let mappings = Mappings::default();
        let first = open(&mappings, 0);
        assert!(Arc::ptr_eq(&first, &open(&mappings, 0)));
        for number in 1..=KEPT {
            assert!(!mappings.in_use(&digest(number)));
            drop(open(&mappings, number));
        }
        assert!(mappings.in_use(&digest(0)), "fell out, but is still read");
        assert!(Arc::ptr_eq(&first, &open(&mappings, 0)));
        drop(first);
        assert!(!mappings.in_use(&digest(0)));
        assert_eq!(mappings.0.lock().kept.len(), KEPT);
    }

    #[test]
    fn what_was_removed_while_it_was_opened_is_not_shared() {
        let mappings = Mappings::default();
        let digest = digest(0);
        let epoch = mappings.get(&digest).unwrap_err();
        mappings.forget(&digest);
        drop(mappings.keep(&digest, map(), epoch));
        assert!(mappings.get(&digest).is_err());
    }
}
