//! One digest for all pods of an owner: what the image of its first pod was, the next ones get
//! too, until the owner is replaced by another one.

use std::collections::VecDeque;

use kuboard_oci::Digest;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Pins that are remembered; the oldest goes first. What runs is known from the cluster anyway, so
/// this bridges the time until a pod that was just created shows there.
const MAX_PINS: usize = 20_000;

/// Digests by owner and image.
#[derive(Default)]
pub(crate) struct Pins(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    pins: FxHashMap<(String, String), Digest>,
    order: VecDeque<(String, String)>,
}

impl Pins {
    pub(crate) fn get(&self, owner: &str, image: &str) -> Option<Digest> {
        self.0.lock().pins.get(&(owner.to_owned(), image.to_owned())).copied()
    }

    /// Keeps a digest, and gives the one that counts: two pods may be created at once.
    pub(crate) fn keep(&self, owner: &str, image: &str, digest: Digest) -> Digest {
        let mut inner = self.0.lock();
        let key = (owner.to_owned(), image.to_owned());
        if let Some(first) = inner.pins.get(&key) {
            return *first;
        }
        while inner.order.len() >= MAX_PINS {
            if let Some(oldest) = inner.order.pop_front() {
                inner.pins.remove(&oldest);
            }
        }
        inner.order.push_back(key.clone());
        inner.pins.insert(key, digest);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_PINS, Pins};
    use kuboard_oci::Digest;

    #[test]
    fn the_first_digest_stays_and_the_number_is_bounded() {
        let pins = Pins::default();
        let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        assert_eq!(pins.keep("uid", "nginx", one), one);
        assert_eq!(pins.keep("uid", "nginx", two), one);
        assert_eq!(pins.keep("other", "nginx", two), two);
        for number in 0..MAX_PINS {
            pins.keep(&number.to_string(), "nginx", one);
        }
        assert_eq!(pins.get("uid", "nginx"), None);
        assert_eq!(pins.get("19999", "nginx"), Some(one));
    }
}
