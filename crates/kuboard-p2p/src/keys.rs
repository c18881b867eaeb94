//! Who may say which hashes a blob's blocks have: Ed25519 keys of the caches.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use thiserror::Error;

/// Bytes of a public key.
pub const PUBLIC_KEY_BYTES: usize = 32;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// A key that can't be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// Not a PKCS#8 document with an Ed25519 key.
    #[error("this is not an Ed25519 key in PKCS#8 form; hint: have a new one made")]
    Invalid,
    /// The system gave no random bytes.
    #[error("no key could be made: the system gave no random bytes")]
    NoRandom,
}

/// The key with which a cache signs block maps and grants.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new key and its PKCS#8 form, to be kept.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate() -> Result<(SigningKey, Vec<u8>), KeyError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::NoRandom)?;
        let pkcs8 = document.as_ref().to_vec();
        Ok((SigningKey::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// The key of a PKCS#8 document, version 1 or 2.
    ///
    /// # Errors
    /// If it is not one.
    pub fn from_pkcs8(document: &[u8]) -> Result<SigningKey, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(document)
            .map(SigningKey)
            .map_err(|_| KeyError::Invalid)
    }

    /// What others need to check its signatures.
    #[must_use]
    pub fn public(&self) -> [u8; PUBLIC_KEY_BYTES] {
        let mut public = [0; PUBLIC_KEY_BYTES];
        for (slot, byte) in public.iter_mut().zip(self.0.public_key().as_ref()) {
            *slot = *byte;
        }
        public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        for (slot, byte) in signature.iter_mut().zip(self.0.sign(message).as_ref()) {
            *slot = *byte;
        }
        signature
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

/// The public keys that are believed: those of the region's caches, old and new while one is
/// being exchanged.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys(Vec<[u8; PUBLIC_KEY_BYTES]>);

impl TrustedKeys {
    /// These keys and no others.
    #[must_use]
    pub fn new(keys: Vec<[u8; PUBLIC_KEY_BYTES]>) -> TrustedKeys {
        TrustedKeys(keys)
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0
            .iter()
            .any(|key| UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok())
    }
}
