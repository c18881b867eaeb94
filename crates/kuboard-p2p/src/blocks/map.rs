//! The list of a blob's block hashes: grows at its end while the cache still downloads, and is
//! believed only as far as a cache's signature reaches.
//!
//! Signed is a [`Statement`]: digest, size, block size, how many hashes, and one hash over them.
//! So a reader that holds the first hashes needs only the further ones and a new signature.

use kuboard_oci::Digest;
use thiserror::Error;

use crate::{
    blocks::{BlockHash, Extension, Geometry},
    keys::{SigningKey, TrustedKeys},
};

/// Separates these signatures from all others made with the same key.
const CONTEXT: &[u8] = b"kuboard block map 1\0";

/// What a cache says of a blob with its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// The blob.
    pub digest: Digest,
    /// Its size and its cut.
    pub geometry: Geometry,
    /// How many blocks the statement covers, from the first on.
    pub blocks: u32,
    /// BLAKE3-256 over their hashes, one after the other.
    pub root: BlockHash,
    /// The blob turned out not to have its digest: nothing of it may be used.
    pub revoked: bool,
}

impl Statement {
    /// The bytes that are signed.
    fn message(&self) -> Vec<u8> {
        let mut message = CONTEXT.to_vec();
        message.extend(self.digest.to_string().as_bytes());
        message.push(0);
        message.extend(self.geometry.size().to_be_bytes());
        message.extend(self.geometry.block_size().to_be_bytes());
        message.extend(self.blocks.to_be_bytes());
        message.extend(self.root);
        message.push(u8::from(self.revoked));
        message
    }
}

/// Why an extension was not taken. Nothing changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MapError {
    /// It speaks of another blob, another size or another cut.
    #[error("this block map is of another blob, size or block size")]
    Other,
    /// Hashes are missing between what is known and what it brings.
    #[error(
        "this block map continues at block {from}, only {known} are known; hint: ask from {known}"
    )]
    Gap {
        /// First block that it brings.
        from: u32,
        /// Blocks that are known.
        known: u32,
    },
    /// It brings more hashes than the blob has blocks.
    #[error("this block map is longer than its blob")]
    TooLong,
    /// No trusted key signed it.
    #[error(
        "no trusted key signed this block map; hint: does the agent have the caches' present keys?"
    )]
    Signature,
    /// A cache took the blob back.
    #[error("the blob was taken back by its cache: its bytes did not have its digest")]
    Revoked,
}

/// The hashes of a blob's first blocks.
#[derive(Debug, Clone)]
pub struct BlockMap {
    digest: Digest,
    geometry: Geometry,
    hashes: Vec<BlockHash>,
    /// Over `hashes`.
    root: blake3::Hasher,
    revoked: bool,
}

impl BlockMap {
    /// The map of a blob of which no block is known yet.
    #[must_use]
    pub fn new(digest: Digest, geometry: Geometry) -> BlockMap {
        let root = blake3::Hasher::new();
        BlockMap { digest, geometry, hashes: Vec::new(), root, revoked: false }
    }

    /// The blob.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its size and its cut.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How many blocks are known, from the first on.
    #[must_use]
    pub fn known(&self) -> u32 {
        // At most MAX_BLOCKS.
        self.hashes.len() as u32
    }

    /// Whether all blocks are known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.known() == self.geometry.blocks()
    }

    /// Whether the blob was taken back.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// The hash of a block, if it is known.
    #[must_use]
    pub fn hash(&self, block: u32) -> Option<&BlockHash> {
        self.hashes.get(block as usize)
    }

    /// Whether these are the bytes of a block. `false` too for a block that is not known.
    #[must_use]
    pub fn verifies(&self, block: u32, bytes: &[u8]) -> bool {
        let expected = self.geometry.len(block);
        bytes.len() as u64 == expected
            && self.hash(block).is_some_and(|hash| *hash == super::hash_block(bytes))
    }

    /// Adds the hash of the next block; on the cache, which computed it. Whether there was room.
    pub fn push(&mut self, hash: BlockHash) -> bool {
        let room = !self.is_complete();
        if room {
            self.root.update(&hash);
            self.hashes.push(hash);
        }
        room
    }

    /// Takes the blob back; on the cache, when the whole did not have its digest.
    pub fn revoke(&mut self) {
        self.revoked = true;
    }

    /// All hashes from `from` on, signed: what a reader that knows `from` hashes is sent.
    #[must_use]
    pub fn extension(&self, from: u32, key: &SigningKey) -> Extension {
        let from = from.min(self.known());
        let statement = self.statement(self.known(), self.root.finalize().into());
        Extension {
            statement,
            from,
            hashes: self.hashes[from as usize..].to_vec(),
            signature: key.sign(&statement.message()),
        }
    }

    fn statement(&self, blocks: u32, root: BlockHash) -> Statement {
        let (digest, geometry) = (self.digest, self.geometry);
        Statement { digest, geometry, blocks, root, revoked: self.revoked }
    }

    /// Takes in what a cache or a peer sent; how many blocks are known now. What is known already
    /// is not read again. A revocation empties the map.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn extend(&mut self, extension: &Extension, keys: &TrustedKeys) -> Result<u32, MapError> {
        let statement = &extension.statement;
        let known = self.known();
        if statement.digest != self.digest || statement.geometry != self.geometry {
            return Err(MapError::Other);
        }
        if self.revoked {
            return Err(MapError::Revoked);
        }
        if statement.blocks > self.geometry.blocks() {
            return Err(MapError::TooLong);
        }
        if !keys.verifies(&statement.message(), &extension.signature) {
            return Err(MapError::Signature);
        }
        if statement.revoked {
            *self = BlockMap::new(self.digest, self.geometry);
            self.revoked = true;
            return Err(MapError::Revoked);
        }
        if statement.blocks <= known {
            return Ok(known);
        }
        if extension.from > known {
            return Err(MapError::Gap { from: extension.from, known });
        }
        let new = extension.hashes.get((known - extension.from) as usize..).unwrap_or_default();
        let mut root = self.root.clone();
        for hash in new {
            root.update(hash);
        }
        let all = known as usize + new.len() == statement.blocks as usize;
        if !all || *root.finalize().as_bytes() != statement.root {
            return Err(MapError::Signature);
        }
        self.hashes.extend_from_slice(new);
        self.root = root;
        Ok(self.known())
    }
}

#[cfg(test)]
mod tests {
    use super::{BlockMap, MapError};
    use crate::{
        blocks::{Extension, Geometry, hash_block},
        keys::{SigningKey, TrustedKeys},
    };
    use kuboard_oci::Digest;

    fn block(at: u32) -> Vec<u8> {
        vec![at as u8; if at == 3 { 100 } else { 512 }]
    }

    fn empty() -> BlockMap {
        BlockMap::new(Digest::sha256(b"x"), Geometry::with_block(3 * 512 + 100, 512).unwrap())
    }

    #[test]
    fn grows_by_signed_extensions() {
        let (key, _) = SigningKey::generate().unwrap();
        let trusted = TrustedKeys::new(vec![key.public()]);
        let (mut cache, mut reader) = (empty(), empty());
        assert_eq!(reader.extend(&cache.extension(0, &key), &trusted), Ok(0));
        for at in 0..4 {
            assert!(cache.push(hash_block(&block(at))));
            let extension = Extension::parse(&cache.extension(at, &key).encode()).unwrap();
            assert_eq!(reader.extend(&extension, &trusted), Ok(at + 1));
            assert!(reader.verifies(at, &block(at)) && !reader.verifies(at, &block(at + 1)));
        }
        assert!(reader.is_complete() && !cache.push(hash_block(b"")));
        // A late reader takes all at once, and overlaps do no harm.
        let mut late = empty();
        assert_eq!(late.extend(&cache.extension(0, &key), &trusted), Ok(4));
        assert_eq!(late.extend(&cache.extension(2, &key), &trusted), Ok(4));
    }

    #[test]
    fn what_is_not_signed_is_not_taken() {
        let (key, _) = SigningKey::generate().unwrap();
        let (other, _) = SigningKey::generate().unwrap();
        let trusted = TrustedKeys::new(vec![key.public()]);
        let mut cache = empty();
        (0..4).for_each(|at| assert!(cache.push(hash_block(&block(at)))));
        let good = cache.extension(0, &key);
        let check = |change: &dyn Fn(&mut Extension), expected: MapError| {
            let mut bad = good.clone();
            change(&mut bad);
            let mut reader = empty();
            assert_eq!(reader.extend(&bad, &trusted), Err(expected));
            assert_eq!(reader.known(), 0);
        };
        check(&|bad| bad.hashes[1][0] ^= 1, MapError::Signature);
        check(&|bad| bad.hashes.truncate(3), MapError::Signature);
        check(&|bad| bad.hashes.push([0; 32]), MapError::Signature);
        check(&|bad| bad.statement.blocks = 3, MapError::Signature);
        check(&|bad| bad.statement.revoked = true, MapError::Signature);
        check(&|bad| bad.statement.blocks = 5, MapError::TooLong);
        check(&|bad| bad.statement.digest = Digest::sha256(b"y"), MapError::Other);
        check(&|bad| *bad = cache.extension(0, &other), MapError::Signature);
        check(&|bad| *bad = cache.extension(2, &key), MapError::Gap { from: 2, known: 0 });
    }

    #[test]
    fn a_revocation_empties_and_stays() {
        let (key, _) = SigningKey::generate().unwrap();
        let trusted = TrustedKeys::new(vec![key.public()]);
        let (mut cache, mut reader) = (empty(), empty());
        assert!(cache.push([1; 32]));
        let before = cache.extension(0, &key);
        assert_eq!(reader.extend(&before, &trusted), Ok(1));
        cache.revoke();
        assert_eq!(reader.extend(&cache.extension(1, &key), &trusted), Err(MapError::Revoked));
        assert!(reader.is_revoked() && reader.known() == 0);
        assert_eq!(reader.extend(&before, &trusted), Err(MapError::Revoked));
    }
}
