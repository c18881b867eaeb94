//! Uploads under way.
//!
//! An upload is a file in the spool, named by its id and a fingerprint of its repository, so that
//! it survives a restart without a row in the catalogue and can't be written from another
//! repository. Between requests the open file stays here with its hash state; what rests for long,
//! or is too many, is closed and hashed again if its client comes back.
//!
//! One request at a time holds a session. Who comes second is refused; who asks how far it is gets
//! an answer.

use std::{collections::HashMap, sync::Arc};

use kuboard_oci::{Algorithm, Digest, RepositoryName};
use kuboard_store::{Error, ErrorKind, Ingest, Spool, Tail};
use parking_lot::Mutex;
use uuid::Uuid;

/// Sessions kept open between requests; each holds an open file.
const MAX_RESTING: usize = 256;
/// Hex digits of the repository's fingerprint in a file's name.
const FINGERPRINT: usize = 16;

/// All uploads this process knows of.
pub(super) struct Sessions {
    spool: Spool,
    slots: Mutex<HashMap<String, Slot>>,
}

enum Slot {
    /// No request holds it; since when (Unix milliseconds).
    Resting { open: Open, since_ms: i64 },
    /// A request holds it; it can be watched once its file is open.
    Held(Option<Tail>),
}

/// The file of an upload, with its hash state.
struct Open {
    ingest: Ingest,
    /// What it is hashed by; not known of a file that was opened again.
    algorithm: Option<Algorithm>,
}

/// Why a session can't be had.
pub(super) enum Refused {
    /// There is none of that id in that repository.
    Unknown,
    /// Another request holds it.
    Busy,
    /// The spool failed.
    Failed(Error),
}

/// A session in the hands of one request. Dropping it closes the file and keeps what is in it.
pub(super) struct Session {
    sessions: Arc<Sessions>,
    name: String,
    /// Always there until the session is ended.
    open: Option<Open>,
}

impl Sessions {
    pub(super) fn new(spool: Spool) -> Arc<Self> {
        Arc::new(Self { spool, slots: Mutex::default() })
    }

    /// Begins a session that hashes by `algorithm`; its id.
    pub(super) async fn begin(
        self: &Arc<Self>,
        repository: &RepositoryName,
        algorithm: Algorithm,
        now_ms: i64,
    ) -> Result<String, Error> {
        let id = Uuid::new_v4().to_string();
        let name = file_name(repository, &id);
        let ingest = self.spool.create_named(&name, algorithm).await?;
        self.rest(name, Open { ingest, algorithm: Some(algorithm) }, now_ms);
        Ok(id)
    }

    /// Takes the session, so that nobody else can.
    pub(super) async fn take(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<Session, Refused> {
        if !is_id(id) {
            return Err(Refused::Unknown);
        }
        let name = file_name(repository, id);
        let open = {
            let mut slots = self.slots.lock();
            match slots.insert(name.clone(), Slot::Held(None)) {
                Some(Slot::Held(tail)) => {
                    slots.insert(name, Slot::Held(tail));
                    return Err(Refused::Busy);
                }
                Some(Slot::Resting { open, .. }) => Some(open),
                None => None,
            }
        };
        // From here on the name is given back by the drop of the session, come what may.
        let mut session = Session { sessions: self.clone(), name, open };
        if session.open.is_none() {
            let ingest = match self.spool.resume(&session.name).await {
                Ok(Some(ingest)) => ingest,
                Ok(None) => return Err(Refused::Unknown),
                Err(error) if *error.kind() == ErrorKind::Busy => return Err(Refused::Busy),
                Err(error) => return Err(Refused::Failed(error)),
            };
            session.open = Some(Open { ingest, algorithm: None });
        }
        session.announce();
        Ok(session)
    }

    /// Bytes received so far, also while another request is sending more.
    pub(super) async fn progress(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &str,
        now_ms: i64,
    ) -> Result<u64, Refused> {
        if let Some(Slot::Held(tail)) = self.slots.lock().get(&file_name(repository, id)) {
            return tail.as_ref().map(Tail::written).ok_or(Refused::Busy);
        }
        let session = self.take(repository, id).await?;
        let written = session.written();
        session.rest(now_ms);
        Ok(written)
    }

    /// Closes what nobody has touched since `before_ms`; it can still be resumed.
    pub(super) fn close_resting(&self, before_ms: i64) {
        let is_old = |slot: &mut Slot| matches!(slot, Slot::Resting { since_ms, .. } if *since_ms < before_ms);
        let old: Vec<_> = self.slots.lock().extract_if(|_, slot| is_old(slot)).collect();
        for (_, slot) in old {
            close(slot);
        }
    }

    fn rest(&self, name: String, open: Open, now_ms: i64) {
        let crowded = {
            let mut slots = self.slots.lock();
            slots.insert(name, Slot::Resting { open, since_ms: now_ms });
            longest_resting(&slots).and_then(|name| slots.remove(&name))
        };
        if let Some(slot) = crowded {
            close(slot);
        }
    }
}

/// An orderly stop leaves the files of resting sessions for the next start.
impl Drop for Sessions {
    fn drop(&mut self) {
        self.slots.get_mut().drain().for_each(|(_, slot)| close(slot));
    }
}

/// The session that rests longest, if too many rest.
fn longest_resting(slots: &HashMap<String, Slot>) -> Option<String> {
    let resting = || {
        slots.iter().filter_map(|(name, slot)| match slot {
            Slot::Resting { since_ms, .. } => Some((since_ms, name)),
            Slot::Held(_) => None,
        })
    };
    let crowded = slots.len() > MAX_RESTING && resting().count() > MAX_RESTING;
    crowded.then(|| resting().min().map(|(_, name)| name.clone())).flatten()
}

fn close(slot: Slot) {
    if let Slot::Resting { open, .. } = slot {
        open.ingest.keep();
    }
}

impl Session {
    /// Bytes taken so far.
    pub(super) fn written(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.ingest.written())
    }

    /// The file to write to; there as long as the session is held.
    pub(super) fn ingest(&mut self) -> Option<&mut Ingest> {
        self.open.as_mut().map(|open| &mut open.ingest)
    }

    /// Gives the session back, for the next request.
    pub(super) fn rest(mut self, now_ms: i64) {
        if let Some(open) = self.open.take() {
            self.sessions.rest(self.name.clone(), open, now_ms);
        }
    }

    /// Ends the session and hands over its file.
    pub(super) fn end(mut self) -> Option<Ingest> {
        self.open.take().map(|open| open.ingest)
    }

    /// Hashes by this algorithm: begins the file anew if it may have another. Only while nothing
    /// has been written.
    pub(super) async fn hash_by(&mut self, algorithm: Algorithm) -> Result<(), Error> {
        if self.open.as_ref().is_some_and(|open| open.algorithm == Some(algorithm)) {
            return Ok(());
        }
        if let Some(open) = self.open.take() {
            open.ingest.abandon().await;
        }
        let ingest = self.sessions.spool.create_named(&self.name, algorithm).await?;
        self.open = Some(Open { ingest, algorithm: Some(algorithm) });
        self.announce();
        Ok(())
    }

    fn announce(&self) {
        let tail = self.open.as_ref().map(|open| open.ingest.tail());
        self.sessions.slots.lock().insert(self.name.clone(), Slot::Held(tail));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        {
            let mut slots = self.sessions.slots.lock();
            if matches!(slots.get(&self.name), Some(Slot::Held(_))) {
                slots.remove(&self.name);
            }
        }
        if let Some(open) = self.open.take() {
            open.ingest.keep();
        }
    }
}

/// The spool's name for an upload: only who knows id and repository finds it.
fn file_name(repository: &RepositoryName, id: &str) -> String {
    let mut fingerprint = Digest::sha256(repository.as_str().as_bytes()).hex();
    fingerprint.truncate(FINGERPRINT);
    format!("{id}-{fingerprint}")
}

fn is_id(id: &str) -> bool {
    id.len() == 36 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}
