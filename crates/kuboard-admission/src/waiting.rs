//! Since when images without facts are wanted: a bounded memory, the oldest goes first. Losing an
//! entry only starts its wait anew.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
};

use kuboard_oci::Digest;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Images that are remembered.
const MAX_WAITING: usize = 20_000;
/// A scan is asked for again after so long, in case the first wish was lost.
const ASK_AGAIN_MS: i64 = 30_000;

/// When each was first asked for.
#[derive(Default)]
pub(crate) struct Waiting {
    inner: Mutex<Inner>,
    /// Entries, so that nobody takes the lock for an empty list.
    len: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    asked: FxHashMap<Digest, Asked>,
    /// In the order in which they came; some are gone already.
    order: VecDeque<(i64, Digest)>,
}

#[derive(Clone, Copy)]
struct Asked {
    first_ms: i64,
    last_ms: i64,
}

impl Waiting {
    /// When it was first asked for, if it was.
    pub(crate) fn since(&self, digest: &Digest) -> Option<i64> {
        self.inner.lock().asked.get(digest).map(|it| it.first_ms)
    }

    /// Notes that it is asked for; `true` if a scan should be wished for.
    pub(crate) fn ask(&self, digest: &Digest, now_ms: i64) -> bool {
        let mut inner = self.inner.lock();
        if let Some(asked) = inner.asked.get_mut(digest) {
            // A clock that was set back must not silence it.
            let again = now_ms.saturating_sub(asked.last_ms).unsigned_abs() >= ASK_AGAIN_MS as u64;
            if again {
                asked.last_ms = now_ms;
            }
            return again;
        }
        while inner.order.len() >= MAX_WAITING {
            if let Some((first_ms, oldest)) = inner.order.pop_front()
                && inner.asked.get(&oldest).is_some_and(|it| it.first_ms == first_ms)
            {
                inner.asked.remove(&oldest);
            }
        }
        inner.asked.insert(*digest, Asked { first_ms: now_ms, last_ms: now_ms });
        inner.order.push_back((now_ms, *digest));
        self.len.store(inner.asked.len(), Ordering::Relaxed);
        true
    }

    /// Facts have come.
    pub(crate) fn done(&self, digest: &Digest) {
        if self.len.load(Ordering::Relaxed) > 0 {
            let mut inner = self.inner.lock();
            inner.asked.remove(digest);
            self.len.store(inner.asked.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ASK_AGAIN_MS, MAX_WAITING, Waiting};
    use kuboard_oci::Digest;

    #[test]
    fn the_first_time_counts_and_wishes_are_repeated() {
        let (waiting, digest) = (Waiting::default(), Digest::sha256(b"a"));
        assert_eq!(waiting.since(&digest), None);
        assert!(waiting.ask(&digest, 1000));
        assert!(!waiting.ask(&digest, 2000));
        assert!(waiting.ask(&digest, 1000 + ASK_AGAIN_MS));
        assert_eq!(waiting.since(&digest), Some(1000));
        waiting.done(&digest);
        assert_eq!(waiting.since(&digest), None);
        assert!(waiting.ask(&digest, 5000));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let waiting = Waiting::default();
        let digest = |number: usize| Digest::sha256(&number.to_be_bytes());
        for number in 0..MAX_WAITING + 10 {
            assert!(waiting.ask(&digest(number), number as i64));
        }
        assert_eq!(waiting.since(&digest(9)), None);
        assert_eq!(waiting.since(&digest(10)), Some(10));
        assert_eq!(waiting.inner.lock().asked.len(), MAX_WAITING);
    }
}
