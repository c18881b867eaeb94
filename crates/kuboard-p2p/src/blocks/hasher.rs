//! Hashes of blocks, computed while the bytes of a blob come by.

use crate::blocks::Geometry;

/// BLAKE3-256 of one block.
pub type BlockHash = [u8; 32];

/// The hash of a whole block.
#[must_use]
pub fn hash_block(bytes: &[u8]) -> BlockHash {
    *blake3::hash(bytes).as_bytes()
}

/// Takes the bytes of a blob in order and gives the hash of each block as it is full. About 0.2
/// seconds per GiB.
#[derive(Debug, Clone)]
pub struct BlockHasher {
    geometry: Geometry,
    hasher: blake3::Hasher,
    /// The block that is being filled, and its bytes so far.
    block: u32,
    filled: u64,
}

impl BlockHasher {
    /// A hasher at the first byte of a blob.
    #[must_use]
    pub fn new(geometry: Geometry) -> BlockHasher {
        BlockHasher { geometry, hasher: blake3::Hasher::new(), block: 0, filled: 0 }
    }

    /// Takes the next bytes; the hashes of the blocks that they completed, in order. Bytes beyond
    /// the blob's size are ignored.
    pub fn update(&mut self, mut bytes: &[u8]) -> Vec<BlockHash> {
        let mut done = Vec::new();
        while !bytes.is_empty() && self.block < self.geometry.blocks() {
            let lack = self.geometry.len(self.block) - self.filled;
            let part = usize::try_from(lack).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(part);
            self.hasher.update(now);
            self.filled += part as u64;
            bytes = rest;
            if self.filled == self.geometry.len(self.block) {
                done.push(*self.hasher.finalize().as_bytes());
                self.hasher.reset();
                (self.block, self.filled) = (self.block + 1, 0);
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::{BlockHasher, hash_block};
    use crate::blocks::Geometry;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_do_not_matter(size in 1_usize..5000, cuts in proptest::collection::vec(1_usize..700, 1..40)) {
            let bytes: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
            let geometry = Geometry::with_block(size as u64, 512).unwrap();
            let (mut hasher, mut hashes, mut rest) = (BlockHasher::new(geometry), Vec::new(), bytes.as_slice());
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                hashes.extend(hasher.update(now));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let expected: Vec<_> = bytes.chunks(512).map(hash_block).collect();
            prop_assert_eq!(hashes, expected);
            prop_assert!(hasher.update(b"more").is_empty());
        }
    }
}
