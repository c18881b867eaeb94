//! How a blob is cut into blocks, and the signed list of their hashes.

mod hasher;
mod map;
mod wire;

use thiserror::Error;

pub use hasher::{BlockHash, BlockHasher, hash_block};
pub use map::{BlockMap, MapError, Statement};
pub use wire::{Extension, MAX_EXTENSION_BYTES, WireError};

/// Smallest block, in bytes.
pub const MIN_BLOCK: u32 = 256 << 10;
/// Largest block, in bytes.
pub const MAX_BLOCK: u32 = 4 << 20;
/// Blocks that a blob may have: 1 TiB in the largest blocks.
pub const MAX_BLOCKS: u32 = 1 << 18;

/// Size of a blob and of its blocks, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    size: u64,
    block_size: u32,
}

/// A blob that can't be cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a blob of {size} bytes in blocks of {block_size} has no block or more than {MAX_BLOCKS}; hint: fetch it whole"
)]
pub struct GeometryError {
    /// Size of the blob.
    pub size: u64,
    /// Size of the blocks.
    pub block_size: u32,
}

impl Geometry {
    /// The cut of a blob of `size` bytes: blocks of a power of two near a 512th of it, between
    /// [`MIN_BLOCK`] and [`MAX_BLOCK`].
    ///
    /// # Errors
    /// Of an empty blob, and of one of more than [`MAX_BLOCKS`] blocks.
    pub fn of(size: u64) -> Result<Geometry, GeometryError> {
        Geometry::with_block(size, block_size(size))
    }

    /// The cut into blocks of `block_size` bytes, for those who read it from a signed map.
    ///
    /// # Errors
    /// As [`Geometry::of`], and if the block size is not a power of two up to [`MAX_BLOCK`].
    pub fn with_block(size: u64, block_size: u32) -> Result<Geometry, GeometryError> {
        let fits = block_size.is_power_of_two()
            && block_size <= MAX_BLOCK
            && (1..=u64::from(MAX_BLOCKS)).contains(&size.div_ceil(u64::from(block_size)));
        if fits {
            Ok(Geometry { size, block_size })
        } else {
            Err(GeometryError { size, block_size })
        }
    }

    /// Bytes of the blob.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of each block but the last.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Number of blocks.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        // Bounded by MAX_BLOCKS when it was made.
        self.size.div_ceil(u64::from(self.block_size)) as u32
    }

    /// First byte of a block, and the byte after its last. Beyond the blob: an empty range at its end.
    #[must_use]
    pub fn range(&self, block: u32) -> std::ops::Range<u64> {
        let start = (u64::from(block) * u64::from(self.block_size)).min(self.size);
        start..(start + u64::from(self.block_size)).min(self.size)
    }

    /// Bytes of a block.
    #[must_use]
    pub fn len(&self, block: u32) -> u64 {
        let range = self.range(block);
        range.end - range.start
    }

    /// Never: a blob of no bytes has no geometry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

fn block_size(size: u64) -> u32 {
    let part = (size / 512).clamp(u64::from(MIN_BLOCK), u64::from(MAX_BLOCK));
    // Between the bounds, which are powers of two themselves.
    1 << part.ilog2()
}

#[cfg(test)]
mod tests {
    use super::{Geometry, MAX_BLOCK, MAX_BLOCKS};

    #[test]
    fn block_sizes_by_size() {
        let check = |size: u64, block: u32, blocks: u32| {
            let geometry = Geometry::of(size).unwrap();
            assert_eq!((geometry.block_size(), geometry.blocks()), (block, blocks), "{size}");
            let last = geometry.range(blocks - 1);
            assert_eq!(last.end, size);
            assert!(!last.is_empty() && geometry.range(blocks).is_empty());
            assert_eq!((0..blocks).map(|block| geometry.len(block)).sum::<u64>(), size);
        };
        check(1, 256 << 10, 1);
        check(256 << 10, 256 << 10, 1);
        check((256 << 10) + 1, 256 << 10, 2);
        check(100 << 20, 256 << 10, 400);
        check(300 << 20, 512 << 10, 600);
        check(1 << 30, 2 << 20, 512);
        check(10 << 30, 4 << 20, 2560);
    }

    #[test]
    fn what_cannot_be_cut() {
        for (size, block) in [
            (0, MAX_BLOCK),
            (u64::from(MAX_BLOCKS) * u64::from(MAX_BLOCK) + 1, MAX_BLOCK),
            (1 << 30, 0),
            (1 << 30, 3 << 20),
            (1 << 40, MAX_BLOCK * 2),
            (1 << 30, 1024),
        ] {
            assert!(Geometry::with_block(size, block).is_err(), "{size} {block}");
        }
    }
}
