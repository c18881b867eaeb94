//! The folder of files being written.
//!
//! A blob grows here under a name nobody can guess (a uuid; a crash leaves no file that somebody
//! would wait for), is checked here, and leaves by a rename. So the folder must be on the file
//! system of the store it feeds. One process owns it, by a lock that dies with the process: that
//! is what makes it safe to sweep away what nobody is writing.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use kuboard_oci::{Algorithm, Hasher};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{Error, ErrorKind, Ingest, Result, blocking, page};

/// Name of the lock file; no ingest can be called so.
const LOCK: &str = ".lock";
/// Longest name of an ingest.
const MAX_NAME: usize = 128;

/// A folder on local disk for blobs being written. Cheap to clone; all clones are one spool.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    /// Names with a writer in this process.
    active: Mutex<HashSet<String>>,
    _lock: File,
}

/// A file found in a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolEntry {
    /// The name for [`Spool::resume`] and [`Spool::remove`].
    pub name: String,
    /// Bytes on file.
    pub size: u64,
    /// Unix milliseconds of the last write.
    pub modified_ms: i64,
    /// Whether somebody in this process is writing it.
    pub active: bool,
}

/// What a [`Spool::sweep`] has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Files removed.
    pub removed: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the limit was reached, so that another sweep may find more.
    pub more: bool,
}

impl Spool {
    /// Opens the spool in `dir`, making the folder when it is missing, and locks it.
    ///
    /// Fails with [`ErrorKind::Busy`] when another process, or another spool of this one, has it.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Spool> {
        let dir = dir.into();
        let doing = |what: &str| format!("{what} spool folder {}", dir.display());
        fs::create_dir_all(&dir).map_err(|e| Error::io(doing("making"), e))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(LOCK))
            .map_err(|e| Error::io(doing("locking"), e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let hint = "hint: stop the other process, or give this one its own data directory";
                let text = format!("{} is in use by another process\n{hint}", doing("the"));
                return Err(Error::new(ErrorKind::Busy, text));
            }
            Err(TryLockError::Error(error)) => return Err(Error::io(doing("locking"), error)),
        }
        Ok(Spool { inner: Arc::new(Inner { dir, active: Mutex::default(), _lock: lock }) })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Begins a blob under a fresh name.
    ///
    /// `size_hint` is refused with [`ErrorKind::NoSpace`] at once when the disk has not that much,
    /// rather than after having written what fits.
    pub async fn create(&self, algorithm: Algorithm, size_hint: Option<u64>) -> Result<Ingest> {
        self.begin(Uuid::new_v4().simple().to_string(), algorithm, size_hint).await
    }

    /// Begins a blob under a name of the caller's, say an upload's id, that can be resumed.
    ///
    /// Fails with [`ErrorKind::Busy`] when there is a file of that name, [`ErrorKind::Invalid`]
    /// when the name is not 1 to 128 ASCII letters, digits, `-` and `_`.
    pub async fn create_named(&self, name: &str, algorithm: Algorithm) -> Result<Ingest> {
        self.begin(name.to_owned(), algorithm, None).await
    }

    async fn begin(
        &self,
        name: String,
        algorithm: Algorithm,
        size_hint: Option<u64>,
    ) -> Result<Ingest> {
        let slot = self.claim(name, algorithm)?;
        let dir = self.inner.dir.clone();
        blocking("beginning a blob", move || {
            if let Some(wanted) = size_hint {
                let free = fs4::available_space(&dir)
                    .map_err(|e| Error::io(format!("asking the space of {}", dir.display()), e))?;
                if free < wanted {
                    let text = format!("beginning a blob of {wanted} bytes with {free} free");
                    return Err(Error::new(ErrorKind::NoSpace, text));
                }
            }
            let (slot, file) = slot.create()?;
            Ok(Ingest::start(slot, file, Hasher::new(algorithm), 0))
        })
        .await
    }

    /// Goes on with a file that was kept, or left by a crash, hashing what is there. `None`: there
    /// is none. Fails with [`ErrorKind::Busy`] while somebody is writing it.
    pub async fn resume(&self, name: &str) -> Result<Option<Ingest>> {
        check_name(name)?;
        for algorithm in Algorithm::ALL {
            let mut slot = self.claim(name.to_owned(), algorithm)?;
            slot.keep();
            let found = blocking("resuming a blob", move || {
                let Some(mut file) = slot.reopen()? else { return Ok(None) };
                let doing = |e| Error::io(format!("reading {}", slot.path.display()), e);
                let (hasher, length) = page::hash_file(&file, algorithm).map_err(doing)?;
                // The next bytes go to the end.
                file.seek(SeekFrom::Start(length)).map_err(doing)?;
                slot.keep_not();
                Ok(Some(Ingest::start(slot, file, hasher, length)))
            })
            .await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// What lies in the spool, by name. Foreign files are left out.
    pub async fn names(&self) -> Result<Vec<SpoolEntry>> {
        let inner = self.inner.clone();
        blocking("listing the spool", move || {
            let doing = |e| Error::io(format!("listing spool folder {}", inner.dir.display()), e);
            let mut found = Vec::new();
            for item in fs::read_dir(&inner.dir).map_err(doing)? {
                let item = item.map_err(doing)?;
                let file_name = item.file_name();
                let Some((name, _)) = file_name.to_str().and_then(parse_file_name) else {
                    continue;
                };
                let meta = match item.metadata() {
                    Ok(meta) if meta.is_file() => meta,
                    Ok(_) => continue,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(doing(e)),
                };
                found.push(SpoolEntry {
                    active: inner.active.lock().contains(name),
                    name: name.to_owned(),
                    size: meta.len(),
                    modified_ms: modified_ms(&meta),
                });
            }
            found.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(found)
        })
        .await
    }

    /// Removes a file nobody is writing; whether there was one.
    pub async fn remove(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        let mut removed = false;
        for algorithm in Algorithm::ALL {
            let mut slot = self.claim(name.to_owned(), algorithm)?;
            slot.keep();
            removed |= blocking("removing a spool file", move || slot.unlink()).await?;
        }
        Ok(removed)
    }

    /// Removes at most `limit` files whose last write is before `before_ms` (Unix milliseconds),
    /// that nobody in this process is writing and that `keep` does not want.
    pub async fn sweep(
        &self,
        before_ms: i64,
        keep: impl Fn(&str) -> bool,
        limit: usize,
    ) -> Result<SweepReport> {
        let mut report = SweepReport::default();
        for entry in self.names().await? {
            if entry.active || entry.modified_ms >= before_ms || keep(&entry.name) {
                continue;
            }
            if report.removed == limit {
                report.more = true;
                break;
            }
            match self.remove(&entry.name).await {
                Ok(true) => {
                    report.removed += 1;
                    report.bytes += entry.size;
                }
                Ok(false) => {}
                // Somebody resumed it since the listing.
                Err(error) if *error.kind() == ErrorKind::Busy => {}
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    pub(crate) fn claim(&self, name: String, algorithm: Algorithm) -> Result<Slot> {
        check_name(&name)?;
        if !self.inner.active.lock().insert(name.clone()) {
            let text = format!("spool file {name} is being written by somebody else");
            return Err(Error::new(ErrorKind::Busy, text));
        }
        let path = self.inner.dir.join(format!("{name}.{}", algorithm.as_str()));
        Ok(Slot { spool: self.inner.clone(), name, path, discard: true })
    }
}

/// The right to one name in the spool. Dropping it removes the file, unless it is to be kept.
pub(crate) struct Slot {
    spool: Arc<Inner>,
    name: String,
    path: PathBuf,
    discard: bool,
}

impl Slot {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on a drop leaves the file alone: it is to be resumed, or has moved away.
    pub(crate) fn keep(&mut self) {
        self.discard = false;
    }

    fn keep_not(&mut self) {
        self.discard = true;
    }

    fn create(mut self) -> Result<(Slot, File)> {
        match OpenOptions::new().read(true).write(true).create_new(true).open(&self.path) {
            Ok(file) => Ok((self, file)),
            Err(error) => {
                // Whatever lies there is not ours to remove.
                self.keep();
                if error.kind() == io::ErrorKind::AlreadyExists {
                    let text = format!("spool file {} exists already", self.name);
                    return Err(Error::new(ErrorKind::Busy, text));
                }
                Err(Error::io(format!("creating {}", self.path.display()), error))
            }
        }
    }

    fn reopen(&self) -> Result<Option<File>> {
        match OpenOptions::new().read(true).write(true).open(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("opening {}", self.path.display()), error)),
        }
    }

    fn unlink(&self) -> Result<bool> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(format!("removing {}", self.path.display()), error)),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.discard
            && let Err(error) = self.unlink()
        {
            tracing::warn!(%error, source = ?std::error::Error::source(&error), "spool");
        }
        // Only now may the name be claimed again.
        self.spool.active.lock().remove(&self.name);
    }
}

fn check_name(name: &str) -> Result<()> {
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(good) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, format!("{name:?} cannot name a file of the spool")))
}

fn parse_file_name(file_name: &str) -> Option<(&str, Algorithm)> {
    let (name, suffix) = file_name.split_once('.')?;
    check_name(name).ok()?;
    Some((name, suffix.parse().ok()?))
}

/// Unix milliseconds of the last write to a file; 0 where the file system keeps none.
pub(crate) fn modified_ms(meta: &fs::Metadata) -> i64 {
    let since = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}
