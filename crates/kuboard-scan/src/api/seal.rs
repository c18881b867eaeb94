//! Credentials that wait in a job. A job is a row that other processes and people can read, so what
//! it carries is sealed (AES-256-GCM) with a key that is made of the pre-shared one. Without that
//! key, credentials stay in this process and are lost with it.

use std::collections::VecDeque;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kuboard_oci::{Algorithm, Hasher};
use parking_lot::Mutex;

/// Credentials that this process remembers.
const REMEMBERED: usize = 4096;

/// Seals and opens.
pub(super) struct Seal {
    key: Option<LessSafeKey>,
    remembered: Mutex<VecDeque<(String, String)>>,
}

impl Seal {
    pub(super) fn new(psk: Option<&[u8]>) -> Self {
        let key = psk.and_then(|psk| {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            hasher.update(b"kuboard harbor credentials\0");
            hasher.update(psk);
            let key = UnboundKey::new(&AES_256_GCM, hasher.finish().bytes()).ok()?;
            Some(LessSafeKey::new(key))
        });
        Self { key, remembered: Mutex::default() }
    }

    /// What to store beside `subject`; empty if there is nothing to store.
    pub(super) fn close(&self, subject: &str, secret: &str) -> String {
        if secret.is_empty() {
            return String::new();
        }
        let Some(key) = &self.key else {
            let mut remembered = self.remembered.lock();
            remembered.retain(|(known, _)| known != subject);
            remembered.push_back((subject.to_owned(), secret.to_owned()));
            if remembered.len() > REMEMBERED {
                remembered.pop_front();
            }
            return String::new();
        };
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut bytes = secret.as_bytes().to_vec();
        let aad = Aad::from(subject.as_bytes());
        let sealed =
            key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut bytes);
        match sealed {
            Ok(()) => STANDARD.encode([&nonce[..], &bytes].concat()),
            Err(_) => String::new(),
        }
    }

    /// The secret behind what was stored beside `subject`; `None` if it is lost.
    pub(super) fn open(&self, subject: &str, stored: &str) -> Option<String> {
        let Some(key) = &self.key else {
            let remembered = self.remembered.lock();
            let found = remembered.iter().find(|(known, _)| known == subject);
            return found.map(|(_, secret)| secret.clone());
        };
        let bytes = STANDARD.decode(stored).ok()?;
        let (nonce, bytes) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = bytes.to_vec();
        let aad = Aad::from(subject.as_bytes());
        let secret = key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut bytes);
        String::from_utf8(secret.ok()?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Seal;

    #[test]
    fn what_is_sealed_is_opened_by_who_has_the_key() {
        let (one, same) = (Seal::new(Some(b"key")), Seal::new(Some(b"key")));
        let stored = one.close("job", "Basic abc");
        assert!(!stored.contains("abc"));
        assert_ne!(stored, one.close("job", "Basic abc"));
        assert_eq!(same.open("job", &stored).as_deref(), Some("Basic abc"));
        assert_eq!(same.open("another job", &stored), None);
        assert_eq!(Seal::new(Some(b"other")).open("job", &stored), None);
        assert_eq!(same.open("job", "AAAA"), None);
        let none = Seal::new(None);
        assert_eq!(none.close("job", "Basic abc"), "");
        assert_eq!(none.open("job", "").as_deref(), Some("Basic abc"));
        assert_eq!(Seal::new(None).open("job", ""), None);
    }
}
