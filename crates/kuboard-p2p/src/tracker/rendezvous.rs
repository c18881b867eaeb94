//! Which of several replicas is meant for a key: the one with the highest hash of both. When a
//! replica comes or goes only its own keys move.

use kuboard_oci::Digest;

/// The replicas in the order in which `digest` is meant for them; the first is to be asked, the
/// next ones if it does not answer.
#[must_use]
pub fn rendezvous<'a>(digest: &Digest, replicas: &[&'a str]) -> Vec<&'a str> {
    let weight = |name: &str| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(digest.bytes());
        hasher.update(name.as_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut order: Vec<([u8; 32], &str)> =
        replicas.iter().map(|name| (weight(name), *name)).collect();
    order.sort_by(|one, other| other.cmp(one));
    order.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::rendezvous;
    use kuboard_oci::Digest;

    #[test]
    fn only_the_keys_of_who_left_move() {
        let all = ["cache-0", "cache-1", "cache-2"];
        let mut counts = [0; 3];
        for key in 0..600_u32 {
            let digest = Digest::sha256(&key.to_be_bytes());
            let order = rendezvous(&digest, &all);
            counts[all.iter().position(|name| *name == order[0]).unwrap()] += 1;
            assert_eq!(rendezvous(&digest, &["cache-2", "cache-0", "cache-1"]), order);
            let left = rendezvous(&digest, &["cache-0", "cache-1"]);
            let expected: Vec<_> = order.into_iter().filter(|name| *name != "cache-2").collect();
            assert_eq!(left, expected);
        }
        assert!(counts.iter().all(|count| (140..260).contains(count)), "{counts:?}");
    }
}
