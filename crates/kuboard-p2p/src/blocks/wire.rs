//! The form in which block maps travel. Version 1, all numbers big-endian:
//!
//! ```text
//! "KBM1" | flags u8 (1: revoked) | algorithm u8 (1: sha256, 2: sha512) | digest 32 or 64 bytes
//! size u64 | block size u32 | blocks u32 | root 32 bytes | signature 64 bytes
//! from u32 | hashes, 32 bytes each, (blocks - from) of them
//! ```

use kuboard_oci::{Algorithm, Digest};
use thiserror::Error;

use crate::{
    blocks::{BlockHash, Geometry, MAX_BLOCKS, Statement},
    keys::SIGNATURE_BYTES,
};

const MAGIC: &[u8; 4] = b"KBM1";
const REVOKED: u8 = 1;

/// Longest form: all hashes of the longest blob, and what stands before them.
pub const MAX_EXTENSION_BYTES: usize = MAX_BLOCKS as usize * 32 + 256;

/// A part of a block map with a signature over all of it up to the part's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// What is signed.
    pub statement: Statement,
    /// First block whose hash is here.
    pub from: u32,
    /// The hashes of blocks `from..statement.blocks`.
    pub hashes: Vec<BlockHash>,
    /// Ed25519 over the statement.
    pub signature: [u8; SIGNATURE_BYTES],
}

/// Bytes that are not an extension of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// Another version, or something else altogether.
    #[error("not a block map of version 1; hint: are agent and cache of the same release?")]
    Version,
    /// It ends too early or goes on after its end.
    #[error("this block map has the wrong length")]
    Length,
    /// A field has a value that it can't have.
    #[error("this block map has an impossible {0}")]
    Field(&'static str),
}

impl Extension {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let statement = &self.statement;
        let mut bytes = MAGIC.to_vec();
        bytes.push(if statement.revoked { REVOKED } else { 0 });
        bytes.push(match statement.digest.algorithm() {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        });
        bytes.extend(statement.digest.bytes());
        bytes.extend(statement.geometry.size().to_be_bytes());
        bytes.extend(statement.geometry.block_size().to_be_bytes());
        bytes.extend(statement.blocks.to_be_bytes());
        bytes.extend(statement.root);
        bytes.extend(self.signature);
        bytes.extend(self.from.to_be_bytes());
        bytes.extend(self.hashes.as_flattened());
        bytes
    }

    /// Reads what [`Extension::encode`] wrote. Nothing of it is believed yet.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn parse(bytes: &[u8]) -> Result<Extension, WireError> {
        let mut rest = bytes;
        if take(&mut rest, MAGIC.len()).ok() != Some(MAGIC) {
            return Err(WireError::Version);
        }
        let [flags, algorithm] = array(&mut rest)?;
        let digest = match algorithm {
            1 => digest("sha256", take(&mut rest, 32)?)?,
            2 => digest("sha512", take(&mut rest, 64)?)?,
            _ => return Err(WireError::Field("digest algorithm")),
        };
        let size = u64::from_be_bytes(array(&mut rest)?);
        let block_size = u32::from_be_bytes(array(&mut rest)?);
        let geometry = Geometry::with_block(size, block_size)
            .map_err(|_| WireError::Field("size or block size"))?;
        let blocks = u32::from_be_bytes(array(&mut rest)?);
        let root = array(&mut rest)?;
        let signature = array(&mut rest)?;
        let from = u32::from_be_bytes(array(&mut rest)?);
        if flags & !REVOKED != 0 {
            return Err(WireError::Field("flag"));
        }
        if blocks > geometry.blocks() || from > blocks {
            return Err(WireError::Field("number of blocks"));
        }
        let (hashes, tail) = rest.as_chunks::<32>();
        if !tail.is_empty() || hashes.len() != (blocks - from) as usize {
            return Err(WireError::Length);
        }
        let revoked = flags & REVOKED != 0;
        let statement = Statement { digest, geometry, blocks, root, revoked };
        Ok(Extension { statement, from, hashes: hashes.to_vec(), signature })
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], WireError> {
    let (now, later) = rest.split_at_checked(len).ok_or(WireError::Length)?;
    *rest = later;
    Ok(now)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], WireError> {
    let (now, later) = rest.split_first_chunk().ok_or(WireError::Length)?;
    *rest = later;
    Ok(*now)
}

fn digest(algorithm: &str, hash: &[u8]) -> Result<Digest, WireError> {
    let mut text = format!("{algorithm}:");
    for byte in hash {
        text.push_str(&format!("{byte:02x}"));
    }
    text.parse().map_err(|_| WireError::Field("digest"))
}

#[cfg(test)]
mod tests {
    use super::{Extension, WireError};
    use crate::{
        blocks::{BlockMap, Geometry},
        keys::SigningKey,
    };
    use kuboard_oci::{Algorithm, Digest};
    use proptest::prelude::*;

    fn sample(algorithm: Algorithm, pushed: u8, from: u32) -> Extension {
        let (key, _) = SigningKey::generate().unwrap();
        let geometry = Geometry::with_block(5000, 512).unwrap();
        let mut map = BlockMap::new(Digest::of(algorithm, b"x"), geometry);
        (0..pushed).for_each(|at| assert!(map.push([at; 32])));
        map.extension(from, &key)
    }

    #[test]
    fn is_read_as_written() {
        for algorithm in Algorithm::ALL {
            for (pushed, from) in [(0, 0), (3, 0), (10, 4), (10, 10)] {
                let extension = sample(algorithm, pushed, from);
                assert_eq!(Extension::parse(&extension.encode()), Ok(extension));
            }
        }
    }

    #[test]
    fn broken_bytes_are_refused() {
        let good = sample(Algorithm::Sha256, 5, 0).encode();
        for len in 0..good.len() {
            assert!(Extension::parse(&good[..len]).is_err(), "{len}");
        }
        let check = |at: usize, value: u8, expected: WireError| {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Extension::parse(&bad), Err(expected), "{at}");
        };
        check(3, b'2', WireError::Version);
        check(4, 2, WireError::Field("flag"));
        check(5, 3, WireError::Field("digest algorithm"));
        check(38, 0xff, WireError::Field("size or block size"));
        check(48, 3, WireError::Field("size or block size"));
        check(53, 200, WireError::Field("number of blocks"));
        check(53, 4, WireError::Length);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
            if magic && bytes.len() > 6 {
                bytes[..6].copy_from_slice(b"KBM1\0\x01");
            }
            if let Ok(read) = Extension::parse(&bytes) {
                prop_assert_eq!(read.encode(), bytes);
            }
        }
    }
}
