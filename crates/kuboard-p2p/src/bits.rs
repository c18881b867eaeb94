//! Sets of blocks as bits, sized once for the blob that they are about.

use std::fmt;

/// A set of block indices below a fixed length. Indices beyond it are never in it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bits {
    words: Vec<u64>,
    len: u32,
}

impl Bits {
    /// An empty set for indices `0..len`.
    #[must_use]
    pub fn new(len: u32) -> Bits {
        Bits { words: vec![0; (len as usize).div_ceil(64)], len }
    }

    /// All of `0..len`.
    #[must_use]
    pub fn full(len: u32) -> Bits {
        let mut bits = Bits { words: vec![u64::MAX; (len as usize).div_ceil(64)], len };
        bits.mask_tail();
        bits
    }

    /// Reads the form that [`Bits::bytes`] writes. `None`: of another length, or with bits beyond
    /// `len`.
    #[must_use]
    pub fn from_bytes(len: u32, bytes: &[u8]) -> Option<Bits> {
        if bytes.len() != (len as usize).div_ceil(8) {
            return None;
        }
        let mut bits = Bits::new(len);
        for (word, chunk) in bits.words.iter_mut().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(eight);
        }
        let before = bits.count();
        bits.mask_tail();
        (bits.count() == before).then_some(bits)
    }

    /// The set as `ceil(len / 8)` bytes, the lowest index in the lowest bit of the first.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate((self.len as usize).div_ceil(8));
        bytes
    }

    fn mask_tail(&mut self) {
        let used = self.len % 64;
        if used > 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << used) - 1;
        }
    }

    /// Number of indices that the set was sized for.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no index is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether every index of its length is in it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count() == self.len
    }

    /// How many indices are in it.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether `index` is in it.
    #[must_use]
    pub fn has(&self, index: u32) -> bool {
        index < self.len && self.words[index as usize / 64] >> (index % 64) & 1 == 1
    }

    /// Puts `index` in; whether it is new. An index beyond the length is not put in.
    pub fn put(&mut self, index: u32) -> bool {
        let new = index < self.len && !self.has(index);
        if new {
            self.words[index as usize / 64] |= 1 << (index % 64);
        }
        new
    }

    /// Takes `index` out; whether it was in.
    pub fn take(&mut self, index: u32) -> bool {
        let was = self.has(index);
        if was {
            self.words[index as usize / 64] &= !(1 << (index % 64));
        }
        was
    }

    /// The indices in it, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| ones(at, *word))
    }

    /// The lowest index, from `start` on, that is not in it; the length if there is none.
    #[must_use]
    pub fn first_gap(&self, start: u32) -> u32 {
        let mut index = start;
        while index < self.len {
            let rest = !self.words[index as usize / 64] >> (index % 64);
            if rest != 0 {
                return (index + rest.trailing_zeros()).min(self.len);
            }
            index = (index / 64 + 1) * 64;
        }
        self.len
    }

    /// The indices of this set that none of `others` has and that are below `end`, rising. Sets of
    /// another length count as empty beyond their own.
    pub(crate) fn without<'a, const N: usize>(
        &'a self,
        others: [&'a Bits; N],
        end: u32,
    ) -> impl Iterator<Item = u32> + 'a {
        let last = (end.min(self.len) as usize).div_ceil(64);
        self.words[..last].iter().enumerate().flat_map(move |(at, word)| {
            let mut word = *word;
            for other in others {
                word &= !other.words.get(at).copied().unwrap_or(0);
            }
            let over = (at as u32 + 1) * 64;
            if over > end && end > at as u32 * 64 {
                word &= u64::MAX >> (over - end);
            }
            ones(at, word)
        })
    }
}

fn ones(at: usize, mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.trailing_zeros();
        word &= word - 1;
        Some(at as u32 * 64 + bit)
    })
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.count(), self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set(len in 1_u32..300, puts in proptest::collection::vec(0_u32..320, 0..200), takes in proptest::collection::vec(0_u32..320, 0..50), end in 0_u32..320, start in 0_u32..320) {
            let (mut bits, mut model) = (Bits::new(len), BTreeSet::new());
            for index in puts {
                prop_assert_eq!(bits.put(index), index < len && model.insert(index));
            }
            let mut other = Bits::new(len);
            for index in takes {
                prop_assert_eq!(bits.take(index), model.remove(&index));
                other.put(index);
            }
            prop_assert_eq!(bits.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(bits.count() as usize, model.len());
            let gap = (start..len).find(|index| !model.contains(index)).unwrap_or(len);
            if start < len {
                prop_assert_eq!(bits.first_gap(start), gap);
            }
            let rest: Vec<u32> = model.iter().copied().filter(|i| *i < end && !other.has(*i)).collect();
            prop_assert_eq!(bits.without([&other], end).collect::<Vec<_>>(), rest);
            prop_assert_eq!(Bits::from_bytes(len, &bits.bytes()), Some(bits));
        }
    }

    #[test]
    fn stray_bits_are_refused() {
        assert_eq!(Bits::from_bytes(3, &[0b1000]), None);
        assert_eq!(Bits::from_bytes(3, &[1, 0]), None);
        assert_eq!(Bits::from_bytes(3, &[0b111]), Some(Bits::full(3)));
    }
}
