//! Certificates that somebody else puts into files and renews there.

use super::resolver::Leaf;
use super::{Error, disk};
use parking_lot::Mutex;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A chain and a key on disk.
pub(crate) struct Files(Arc<Inner>);

struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    /// Of the pair that was last taken over.
    seen: Mutex<Option<Fingerprint>>,
}

/// What changes when a file is replaced or rewritten: (inode, device, size, mtime in ns,
/// ctime in ns) of both files. Nothing is read to find out.
type Fingerprint = [FileState; 2];

type FileState = (u64, u64, u64, i128, i128);

impl Files {
    pub(crate) fn new(certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Self(Arc::new(Inner { certificate, key, seen: Mutex::new(None) }))
    }

    /// Reads the pair, whatever was seen before.
    pub(crate) fn load(&self) -> Result<Leaf, Error> {
        self.0.load()
    }

    /// The pair, if it changed since it was last taken over and is whole. A pair that is just
    /// being written may not fit together: that is an error now, and looked at again later.
    pub(crate) async fn changed(&self) -> Result<Option<Leaf>, Error> {
        let inner = self.0.clone();
        let read = tokio::task::spawn_blocking(move || inner.changed()).await;
        read.map_err(|err| Error::Interrupted(err.into()))?
    }
}

impl Inner {
    fn load(&self) -> Result<Leaf, Error> {
        // Taken before reading: a change in between shows at the next look.
        let fingerprint = self.fingerprint()?;
        let chain = disk::read(&self.certificate)?;
        let key = disk::read(&self.key)?;
        let leaf = Leaf::from_pem((&self.certificate, &chain), (&self.key, &key))?;
        *self.seen.lock() = Some(fingerprint);
        Ok(leaf)
    }

    fn changed(&self) -> Result<Option<Leaf>, Error> {
        let now = self.fingerprint()?;
        if *self.seen.lock() == Some(now) { Ok(None) } else { self.load().map(Some) }
    }

    fn fingerprint(&self) -> Result<Fingerprint, Error> {
        let of = |path: &Path| -> Result<FileState, Error> {
            let found = std::fs::metadata(path)
                .map_err(|source| Error::Read { path: path.to_owned(), source })?;
            let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
            let (mtime, ctime) =
                (ns(found.mtime(), found.mtime_nsec()), ns(found.ctime(), found.ctime_nsec()));
            Ok((found.ino(), found.dev(), found.size(), mtime, ctime))
        };
        Ok([of(&self.certificate)?, of(&self.key)?])
    }
}
