//! Digests: the names of blobs and manifests, and how they are computed.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest as engine;

use crate::{
    error::DigestError,
    text::{cut, serde_as_text},
};

/// Longest name of an unsupported algorithm that an error repeats.
const ALGORITHM_PRINTABLE: usize = 32;

/// A hash function that content may be named by.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Algorithm {
    /// SHA-256, written `sha256`.
    Sha256,
    /// SHA-512, written `sha512`.
    Sha512,
}

impl Algorithm {
    /// All of them, the default first.
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    /// The name that stands before the colon of a digest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Length of the hash in bytes; its hex form has twice as many digits.
    #[expect(clippy::len_without_is_empty, reason = "a hash is never empty")]
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    fn engine(self) -> &'static engine::Algorithm {
        match self {
            Algorithm::Sha256 => &engine::SHA256,
            Algorithm::Sha512 => &engine::SHA512,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    /// # Errors
    /// `Unsupported` for the well-formed name of another algorithm, `Malformed` for anything else.
    fn from_str(name: &str) -> Result<Self, DigestError> {
        match name {
            "sha256" => Ok(Algorithm::Sha256),
            "sha512" => Ok(Algorithm::Sha512),
            _ if is_algorithm_name(name) => {
                Err(DigestError::Unsupported { algorithm: cut(name, ALGORITHM_PRINTABLE) })
            }
            _ => Err(DigestError::Malformed),
        }
    }
}

/// `component ([+._-] component)*` with components of `[a-z0-9]+`.
fn is_algorithm_name(name: &str) -> bool {
    name.split(['+', '.', '_', '-']).all(|component| {
        !component.is_empty()
            && component.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

/// The digest of some content: an algorithm and its hash, written `sha256:<lower-case hex>`.
///
/// There is exactly one text for each value; upper-case digits are refused, not folded.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// The hash, then zeros; the zeros make the derived comparisons right.
    hash: [u8; 64],
}

impl Digest {
    /// The digest of `content`, computed here and now: about a second per GiB. For content of any
    /// size use a [`Hasher`] off the async threads.
    #[must_use]
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Digest {
        Digest::from_hash(algorithm, engine::digest(algorithm.engine(), content).as_ref())
    }

    /// [`Digest::of`] with SHA-256.
    #[must_use]
    pub fn sha256(content: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, content)
    }

    /// The algorithm before the colon.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits after the colon.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.bytes())
    }

    /// The hash itself, 32 or 64 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.hash[..self.algorithm.len()]
    }

    fn from_hash(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hash = [0; 64];
        for (slot, byte) in hash.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        Digest { algorithm, hash }
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// # Errors
    /// See [`DigestError`]; `Unsupported` only if the text is a well-formed digest.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, encoded) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let is_encoded = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-');
        if encoded.is_empty() || !encoded.bytes().all(is_encoded) {
            return Err(DigestError::Malformed);
        }
        let algorithm: Algorithm = algorithm.parse()?;
        let expected = algorithm.len() * 2;
        if encoded.len() != expected {
            return Err(DigestError::Length {
                algorithm: algorithm.as_str(),
                expected,
                actual: encoded.len(),
            });
        }
        if encoded.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::NotLowerHex);
        }
        let mut hash = [0; 64];
        hex::decode_to_slice(encoded, &mut hash[..algorithm.len()])
            .map_err(|_| DigestError::NotLowerHex)?;
        Ok(Digest { algorithm, hash })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 128];
        let digits = &mut digits[..self.algorithm.len() * 2];
        hex::encode_to_slice(self.bytes(), digits).map_err(|_| fmt::Error)?;
        f.write_str(self.algorithm.as_str())?;
        f.write_str(":")?;
        f.write_str(std::str::from_utf8(digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(Digest);

/// Computes a digest piece by piece. A clone goes on from the same state.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    context: engine::Context,
}

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Hasher {
        Hasher { algorithm, context: engine::Context::new(algorithm.engine()) }
    }

    /// The algorithm it was made for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Takes in the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
    }

    /// The digest of all pieces together.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::from_hash(self.algorithm, self.context.finish().as_ref())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
