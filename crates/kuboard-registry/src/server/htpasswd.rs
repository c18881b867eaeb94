//! Users from a file of `user:bcrypt-hash` lines, read again when it changes.
//!
//! Checking a bcrypt hash costs tens of milliseconds of one core on purpose. So it runs on the
//! blocking pool, only a few at a time, and what was accepted is remembered for five minutes
//! under a keyed hash of user, password and stored hash: a changed line ends the memory at once.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use kuboard_oci::Digest;
use kuboard_rt::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::access::AccessError;
use super::authorizer::{Authorizer, Grant, Rule};
use super::error::{ApiError, ErrorCode};
use super::keys;
use super::memory::Memory;

/// How long an accepted password is remembered.
pub(crate) const REMEMBERED_MS: i64 = 5 * 60 * 1000;
/// Accepted passwords remembered at a time.
const REMEMBERED: usize = 4096;
/// How often the file is looked at.
const LOOK_EVERY_MS: i64 = 1000;
/// Larger files are refused: they are no password files.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// A hash of a higher cost takes longer than a client waits.
const MAX_COST: u32 = 16;
/// How long a login waits for its turn on the blocking pool.
const TURN: Duration = Duration::from_secs(10);

/// The users of one file.
pub(crate) struct Htpasswd {
    path: PathBuf,
    users: Mutex<Arc<Users>>,
    seen: Mutex<Option<Identity>>,
    looked_ms: AtomicI64,
    memory: Memory<Arc<Grant>>,
    turns: Arc<Semaphore>,
}

#[derive(Default)]
struct Users {
    by_name: HashMap<String, User>,
    /// Stands in for unknown users, so that they take as long as known ones.
    nobody: String,
}

#[derive(Clone)]
struct User {
    hash: Arc<str>,
    grant: Arc<Grant>,
}

/// Changes when the file does.
#[derive(Clone, PartialEq, Eq)]
struct Identity {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self { inode: file.ino(), length: file.len(), changed: (file.mtime(), file.mtime_nsec()) }
    }
}

/// Why a file holds no users.
#[derive(Debug)]
pub(crate) enum HtpasswdError {
    Io(io::Error),
    TooLarge,
    Line(usize, &'static str),
}

impl fmt::Display for HtpasswdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(fault) => write!(f, "cannot be read: {fault}"),
            Self::TooLarge => {
                f.write_str("is larger than 4 MiB; hint: name a file of user:hash lines")
            }
            Self::Line(line, fault) => write!(f, "line {line}: {fault}"),
        }
    }
}

impl Htpasswd {
    /// Reads the file.
    pub(crate) fn open(path: &Path) -> Result<Self, AccessError> {
        let fault = |fault: HtpasswdError| AccessError::Htpasswd {
            path: path.to_owned(),
            fault: fault.to_string(),
        };
        let memory = Memory::new(REMEMBERED).map_err(|_| AccessError::Randomness)?;
        let (seen, users) = read(path).map_err(fault)?;
        let turns = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Ok(Self {
            path: path.to_owned(),
            users: Mutex::new(Arc::new(users)),
            seen: Mutex::new(Some(seen)),
            looked_ms: AtomicI64::new(i64::MIN),
            memory,
            turns: Arc::new(Semaphore::new(turns)),
        })
    }

    /// Reads the file again if it changed; looks at most once a second. What cannot be read
    /// leaves the users as they were, with a warning.
    pub(crate) async fn refresh(self: &Arc<Self>, now_ms: i64) {
        let looked = self.looked_ms.load(Ordering::Relaxed);
        if looked <= now_ms && now_ms.saturating_sub(looked) < LOOK_EVERY_MS {
            return;
        }
        let mine =
            self.looked_ms.compare_exchange(looked, now_ms, Ordering::Relaxed, Ordering::Relaxed);
        if mine.is_ok() {
            let this = Arc::clone(self);
            if let Err(fault) = tokio::task::spawn_blocking(move || this.look()).await {
                tracing::warn!(%fault, "looking at the htpasswd file failed");
            }
        }
    }

    fn look(&self) {
        let now = fs::metadata(&self.path).ok().map(|file| Identity::of(&file));
        let mut seen = self.seen.lock();
        if *seen == now {
            return;
        }
        match read(&self.path) {
            Ok((identity, users)) => {
                tracing::info!(path = %self.path.display(), users = users.by_name.len(), "users read again");
                *self.users.lock() = Arc::new(users);
                *seen = Some(identity);
            }
            Err(fault) => {
                tracing::warn!(path = %self.path.display(), %fault, "the changed htpasswd file is not used");
                *seen = now;
            }
        }
    }

    fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.lock())
    }

    /// Waits for a turn and checks the password; `true` if it is right.
    async fn verify(&self, secret: &str, hash: String) -> Result<bool, ApiError> {
        let busy = || {
            ApiError::new(ErrorCode::TooManyRequests, "too many logins at a time")
                .with_retry_after(Duration::from_secs(5))
        };
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned());
        let turn = turn.await.map_err(|_| busy())?.map_err(ApiError::internal)?;
        let secret = secret.to_owned();
        let check = move || {
            // Held by the work itself: a caller who leaves does not make room for another.
            let _turn = turn;
            bcrypt::verify(secret, &hash)
        };
        match tokio::task::spawn_blocking(check).await {
            Ok(Ok(right)) => Ok(right),
            Ok(Err(fault)) => Err(ApiError::internal(fault)),
            Err(fault) => Err(ApiError::internal(fault)),
        }
    }
}

impl Authorizer for Htpasswd {
    fn remembered(&self, user: &str, secret: &str, now_ms: i64) -> Option<Arc<Grant>> {
        let users = self.users();
        let hash = &users.by_name.get(user)?.hash;
        self.memory.get(&self.memory.fingerprint(&[user, secret, hash]), now_ms)
    }

    fn authenticate<'a>(
        &'a self,
        user: &'a str,
        secret: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Arc<Grant>>, ApiError>> {
        Box::pin(async move {
            if secret.starts_with(keys::PREFIX) {
                return Ok(None);
            }
            let users = self.users();
            let known = users.by_name.get(user).cloned();
            let hash =
                known.as_ref().map_or_else(|| users.nobody.clone(), |user| user.hash.to_string());
            let right = self.verify(secret, hash).await?;
            let Some(User { hash, grant }) = known.filter(|_| right) else { return Ok(None) };
            let print = self.memory.fingerprint(&[user, secret, &hash]);
            self.memory.put(print, Arc::clone(&grant), now_ms + REMEMBERED_MS, now_ms);
            Ok(Some(grant))
        })
    }

    fn renew<'a>(
        &'a self,
        name: &'a str,
        stamp: &'a str,
        _now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Arc<Grant>>, ApiError>> {
        Box::pin(async move {
            let users = self.users();
            let user = users.by_name.get(name).filter(|user| user.grant.stamp == stamp);
            Ok(user.map(|user| Arc::clone(&user.grant)))
        })
    }
}

fn read(path: &Path) -> Result<(Identity, Users), HtpasswdError> {
    let identity = Identity::of(&fs::metadata(path).map_err(HtpasswdError::Io)?);
    if identity.length > MAX_FILE_BYTES {
        return Err(HtpasswdError::TooLarge);
    }
    let text = fs::read_to_string(path).map_err(HtpasswdError::Io)?;
    Ok((identity, parse(&text)?))
}

fn parse(text: &str) -> Result<Users, HtpasswdError> {
    let mut users = Users::default();
    let mut highest = 4;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |fault| Err(HtpasswdError::Line(number + 1, fault));
        let Some((name, hash)) = line.split_once(':') else {
            return bad("not a user:hash line");
        };
        if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
            return bad("not a user name");
        }
        let Ok(parts) = hash.parse::<bcrypt::HashParts>() else {
            return bad("not a bcrypt hash; hint: make the line with htpasswd -B");
        };
        if parts.get_cost() > MAX_COST || parts.get_cost() < 4 {
            return bad("the cost of the hash is not 4 to 16; hint: htpasswd -B -C 12");
        }
        highest = highest.max(parts.get_cost());
        let stamp = format!("htpasswd:{:.16}", Digest::sha256(hash.as_bytes()).hex());
        let (name, rules) = (name.to_owned(), vec![Rule::all()]);
        let grant = Arc::new(Grant::by_rules(name.clone(), rules, stamp));
        if users.by_name.insert(name, User { hash: hash.into(), grant }).is_some() {
            return bad("a second line for the same user");
        }
    }
    users.nobody = format!("$2y${highest:02}${}", ".".repeat(53));
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::parse;

    const HASH: &str = "$2y$04$L6Bc/AlTQHyd9liGgGEZyOFLPHNgyxeEPfgYfBCVxJ7JIlwxyVU3u";

    #[test]
    fn lines_are_users_or_refused_by_number() {
        let check = |text: &str, expected: Result<usize, &str>| {
            let read = parse(text);
            match (&read, expected) {
                (Ok(users), Ok(count)) => assert_eq!(users.by_name.len(), count, "{text}"),
                (Err(fault), Err(part)) => {
                    assert!(fault.to_string().contains(part), "{text}: {fault}");
                    assert!(!fault.to_string().contains("secret"), "{fault}");
                }
                _ => panic!("{text}: {:?}", read.err()),
            }
        };
        check("", Ok(0));
        check(&format!("# users\n\nann:{HASH}\nbob:{HASH}\r\n"), Ok(2));
        check(&format!("ann:{HASH}\nann:{HASH}"), Err("line 2: a second line"));
        check("secret", Err("line 1: not a user:hash line"));
        check(&format!(":{HASH}"), Err("line 1: not a user name"));
        check("ann:secret", Err("line 1: not a bcrypt hash"));
        check("\nann:{SHA}c2VjcmV0", Err("line 2: not a bcrypt hash"));
        check("ann:$apr1$secret", Err("htpasswd -B"));
        check(&format!("ann:{}", HASH.replace("$04$", "$31$")), Err("cost"));
    }

    #[test]
    fn unknown_users_cost_as_much_as_known_ones() {
        let users = parse(&format!("ann:{}", HASH.replace("$04$", "$05$"))).unwrap();
        assert!(users.nobody.starts_with("$2y$05$"));
        assert!(!bcrypt::verify("x", &users.nobody).unwrap());
    }
}
