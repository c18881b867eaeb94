//! Access keys: `kbk_<id>_<secret>`, given in place of a password, with rights of their own.
//!
//! The secret has 256 random bits, so a plain SHA-256 of it can be stored: nobody guesses it, and
//! checking it costs nothing. It is shown once, when it is made.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use kuboard_oci::Digest;
use kuboard_rt::BoxFuture;

use super::access::AccessError;
use super::authorizer::{Authorizer, Grant, Rule};
use super::error::{ApiError, ErrorCode};
use super::htpasswd::REMEMBERED_MS;
use super::memory::Memory;

/// How every key begins.
pub(crate) const PREFIX: &str = "kbk_";
/// Accepted keys remembered at a time.
const REMEMBERED: usize = 4096;

/// An access key as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// Whose key it is.
    pub owner: String,
    /// What [`NewKey::secret_hash`] was.
    pub secret_hash: String,
    /// What it allows.
    pub rules: Vec<Rule>,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

/// Where keys are stored.
pub trait KeySource: Send + Sync + 'static {
    /// The key of that id.
    ///
    /// # Errors
    /// When it cannot be known now; the client is told to come back.
    fn key<'a>(
        &'a self,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredKey>, Box<dyn Error + Send + Sync>>>;
}

/// A registry without access keys.
#[derive(Copy, Clone, Debug, Default)]
pub struct NoKeys;

impl KeySource for NoKeys {
    fn key<'a>(
        &'a self,
        _id: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredKey>, Box<dyn Error + Send + Sync>>> {
        Box::pin(async { Ok(None) })
    }
}

/// A key that was just made.
#[derive(Clone)]
pub struct NewKey {
    /// Names it; 16 hex digits.
    pub id: String,
    /// What to store of its secret.
    pub secret_hash: String,
    text: String,
}

impl NewKey {
    /// Makes a key.
    ///
    /// # Errors
    /// The machine has no randomness.
    pub fn generate() -> Result<Self, AccessError> {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        rand::fill(&mut id).map_err(|_| AccessError::Randomness)?;
        rand::fill(&mut secret).map_err(|_| AccessError::Randomness)?;
        let (id, secret) = (hex::encode(id), hex::encode(secret));
        let text = format!("{PREFIX}{id}_{secret}");
        Ok(Self { id, secret_hash: hash(&secret), text })
    }

    /// The key itself, to be shown once and kept nowhere.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn hash(secret: &str) -> String {
    Digest::sha256(secret.as_bytes()).to_string()
}

/// Id and secret of a key's text.
fn split(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    (hex(id, 16) && hex(secret, 64)).then_some((id, secret))
}

/// The users that come with an access key; the user name they send does not matter.
pub(crate) struct Keys {
    source: Arc<dyn KeySource>,
    memory: Memory<Arc<Grant>>,
}

impl Keys {
    pub(crate) fn new(source: Arc<dyn KeySource>) -> Result<Self, AccessError> {
        let memory = Memory::new(REMEMBERED).map_err(|_| AccessError::Randomness)?;
        Ok(Self { source, memory })
    }

    async fn stored(&self, id: &str, now_ms: i64) -> Result<Option<StoredKey>, ApiError> {
        let found = self.source.key(id).await.map_err(|fault| {
            ApiError::new(ErrorCode::Unavailable, "access keys cannot be checked now")
                .with_retry_after(Duration::from_secs(2))
                .caused_by(fault)
        })?;
        Ok(found.filter(|key| key.expires_ms.is_none_or(|end| now_ms < end)))
    }

    fn grant(id: &str, key: StoredKey) -> Arc<Grant> {
        let stored = Digest::sha256(key.secret_hash.as_bytes()).hex();
        let stamp = format!("key:{id}:{stored:.16}");
        let StoredKey { owner, rules, expires_ms, .. } = key;
        Arc::new(Grant { expires_ms, ..Grant::by_rules(owner, rules, stamp) })
    }
}

impl Authorizer for Keys {
    fn remembered(&self, _user: &str, secret: &str, now_ms: i64) -> Option<Arc<Grant>> {
        split(secret)?;
        self.memory.get(&self.memory.fingerprint(&[secret]), now_ms)
    }

    fn authenticate<'a>(
        &'a self,
        _user: &'a str,
        secret: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Arc<Grant>>, ApiError>> {
        Box::pin(async move {
            let Some((id, own)) = split(secret) else { return Ok(None) };
            let Some(key) = self.stored(id, now_ms).await? else { return Ok(None) };
            let right = verify_slices_are_equal(hash(own).as_bytes(), key.secret_hash.as_bytes());
            if right.is_err() {
                return Ok(None);
            }
            let grant = Self::grant(id, key);
            let until = (now_ms + REMEMBERED_MS).min(grant.expires_ms.unwrap_or(i64::MAX));
            self.memory.put(self.memory.fingerprint(&[secret]), Arc::clone(&grant), until, now_ms);
            Ok(Some(grant))
        })
    }

    fn renew<'a>(
        &'a self,
        name: &'a str,
        stamp: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Arc<Grant>>, ApiError>> {
        Box::pin(async move {
            let id = stamp.strip_prefix("key:").and_then(|rest| rest.split_once(':'));
            let Some((id, _)) = id else { return Ok(None) };
            let Some(key) = self.stored(id, now_ms).await? else { return Ok(None) };
            let grant = Self::grant(id, key);
            Ok((grant.name == name && grant.stamp == stamp).then_some(grant))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{NewKey, hash, split};

    #[test]
    fn a_new_key_is_read_as_it_was_made_and_not_shown() {
        let key = NewKey::generate().unwrap();
        let (id, secret) = split(key.expose()).unwrap();
        assert_eq!((id, hash(secret)), (key.id.as_str(), key.secret_hash.clone()));
        assert!(!format!("{key:?}").contains(secret));
        assert!(!key.secret_hash.contains(secret));
        assert_ne!(NewKey::generate().unwrap().id, key.id);
    }

    #[test]
    fn what_is_no_key_is_not_looked_up() {
        for text in ["", "kbk_", "kbk__", "kbk_1_2", "kbk_../../etc_00", "secret"] {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
