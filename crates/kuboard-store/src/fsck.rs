//! Proving a store whole: every blob is read and hashed, and everything that is no blob is named.
//! Nothing is repaired or removed here; the report says what the caller may remove.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use kuboard_oci::{Digest, Hasher};

use crate::{Blob, BlobStore, Content, Entry, Error, Found, Result, blocking, page};

/// Bytes of a remote blob that are hashed with one hop to a blocking thread.
const HASH_BATCH: usize = 1 << 20;

/// How to check.
#[derive(Debug, Clone, Copy)]
pub struct FsckOptions {
    /// Blobs that are read at once.
    pub parallel: usize,
}

impl Default for FsckOptions {
    fn default() -> Self {
        FsckOptions { parallel: 2 }
    }
}

/// How far a check has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsckProgress {
    /// Blobs looked at, damaged ones too.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Problems found.
    pub problems: u64,
}

/// What is wrong with a blob.
#[derive(Debug, Clone)]
pub enum Damage {
    /// The bytes are those of another digest.
    Digest {
        /// What they are.
        actual: Digest,
    },
    /// It was listed with one length and has another.
    Length {
        /// Bytes listed.
        listed: u64,
        /// Bytes there are.
        actual: u64,
    },
    /// It cannot be read.
    Unreadable(Error),
}

/// A damaged blob.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Its digest, by name.
    pub digest: Digest,
    /// What is wrong with it.
    pub damage: Damage,
}

/// What a check has found.
#[derive(Debug, Clone, Default)]
pub struct FsckReport {
    /// Blobs looked at, damaged ones too.
    pub checked: u64,
    /// Bytes of the blobs looked at.
    pub bytes: u64,
    /// Damaged blobs, by digest.
    pub corrupt: Vec<Problem>,
    /// Things that are no blobs: paths relative to the store.
    pub foreign: Vec<String>,
    /// Blobs in the wrong place: paths relative to the store, and the digests they are named by.
    pub misplaced: Vec<(String, Digest)>,
}

impl FsckReport {
    /// Whether everything is a blob in its place with its bytes.
    pub fn is_clean(&self) -> bool {
        self.corrupt.is_empty() && self.foreign.is_empty() && self.misplaced.is_empty()
    }
}

/// Checks all that lies in `store`; `progress` is told after each thing. Fails only when the store
/// cannot be listed. Blobs that are removed meanwhile count as never seen.
pub async fn fsck(
    store: &dyn BlobStore,
    options: FsckOptions,
    mut progress: impl FnMut(&FsckProgress),
) -> Result<FsckReport> {
    let mut report = FsckReport::default();
    let mut outcomes = store
        .walk()
        .map_ok(|found| async move {
            let damage = match &found {
                Found::Blob(entry) => check(store, entry).await,
                Found::Foreign { .. } | Found::Misplaced { .. } => Some(None),
            };
            Ok((found, damage))
        })
        .try_buffer_unordered(options.parallel.max(1));
    while let Some((found, outcome)) = outcomes.try_next().await? {
        let Some(damage) = outcome else { continue };
        match found {
            Found::Blob(entry) => {
                report.checked += 1;
                report.bytes += entry.size;
                let digest = entry.digest;
                report.corrupt.extend(damage.map(|damage| Problem { digest, damage }));
            }
            Found::Foreign { path, .. } => report.foreign.push(path),
            Found::Misplaced { path, digest, .. } => report.misplaced.push((path, digest)),
        }
        let problems = report.corrupt.len() + report.foreign.len() + report.misplaced.len();
        let (checked, bytes) = (report.checked, report.bytes);
        progress(&FsckProgress { checked, bytes, problems: problems as u64 });
    }
    drop(outcomes);
    report.corrupt.sort_unstable_by_key(|problem| problem.digest);
    report.foreign.sort_unstable();
    report.misplaced.sort_unstable();
    Ok(report)
}

/// `None`: gone since it was listed. `Some(None)`: whole.
async fn check(store: &dyn BlobStore, entry: &Entry) -> Option<Option<Damage>> {
    let blob = match store.open(&entry.digest).await {
        Ok(Some(blob)) => blob,
        Ok(None) => return None,
        Err(error) => return Some(Some(Damage::Unreadable(error))),
    };
    if blob.size != entry.size {
        return Some(Some(Damage::Length { listed: entry.size, actual: blob.size }));
    }
    Some(match verify(&blob).await {
        Ok(actual) if actual == entry.digest => None,
        Ok(actual) => Some(Damage::Digest { actual }),
        Err(error) => Some(Damage::Unreadable(error)),
    })
}

/// Reads a whole blob; the digest its bytes have, by the algorithm of its name.
pub async fn verify(blob: &Blob) -> Result<Digest> {
    let algorithm = blob.digest.algorithm();
    let digest = blob.digest;
    match &blob.content {
        Content::Memory(bytes) => {
            let bytes = bytes.clone();
            blocking("checking a blob", move || Ok(Digest::of(algorithm, &bytes))).await
        }
        Content::Mapped(mapping) => {
            let mapping = mapping.clone();
            // By reads, not by the map: a bad sector is then an error and not a signal.
            blocking("checking a blob", move || {
                let hashed = page::hash_file(mapping.file(), algorithm);
                let (hasher, _) = hashed.map_err(|e| Error::io(format!("reading {digest}"), e))?;
                Ok(hasher.finish())
            })
            .await
        }
        Content::Remote(remote) => {
            let mut pieces = remote.range(0..blob.size).await?;
            let mut hasher = Hasher::new(algorithm);
            let (mut batch, mut gathered) = (Vec::new(), 0);
            loop {
                let piece = pieces.try_next().await?;
                let last = piece.is_none();
                gathered += piece.as_ref().map_or(0, Bytes::len);
                batch.extend(piece);
                if last || gathered >= HASH_BATCH {
                    gathered = 0;
                    let batch = std::mem::take(&mut batch);
                    hasher = blocking("checking a blob", move || {
                        batch.iter().for_each(|piece| hasher.update(piece));
                        Ok(hasher)
                    })
                    .await?;
                }
                if last {
                    return Ok(hasher.finish());
                }
            }
        }
    }
}
