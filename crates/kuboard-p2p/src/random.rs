//! Random numbers of a seed, so that the same inputs always lead to the same decisions.
//! Not for secrets.

/// A generator (xorshift64*, seeded through SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Random((z ^ (z >> 31)) | 1)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`; 0 of a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A time below `bound` milliseconds.
    pub fn below_ms(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Whether one of `percent` in a hundred.
    pub fn percent(&mut self, percent: u8) -> bool {
        self.below(100) < usize::from(percent)
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn is_even_enough_and_repeats() {
        let mut random = Random::new(7);
        let mut hits = [0_u32; 10];
        for _ in 0..10_000 {
            hits[random.below(10)] += 1;
        }
        assert!(hits.iter().all(|hits| (850..1150).contains(hits)), "{hits:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(Random::new(3).next_u64(), Random::new(3).next_u64());
        assert_ne!(Random::new(3).next_u64(), Random::new(4).next_u64());
    }
}
