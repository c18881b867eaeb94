//! What is remembered of feeds between updates.
//!
//! What was compiled is remembered in the database itself, beside the source it belongs to: so it
//! is never told apart from the advisories, whether a file is lost, an update killed, a generation
//! damaged or a bundle brought from elsewhere. `feeds.json` holds what people ask for, and the
//! newest tags of documents whose bytes did not change.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use kuboard_vuln::Advisories;
use serde::{Deserialize, Serialize};

use super::{Feed, Fingerprint};
use crate::database::Database;

/// Changes at most so much older than the newest known one are looked at again: lists are not
/// written to the second, and a feed is not called rolled back because of a cache in between.
pub(super) const OVERLAP_MS: i64 = 24 * 3600 * 1000;
/// Changes within the overlap that are remembered one by one; the database's facts have a bound.
const MAX_SEEN: usize = 10_000;

/// What is remembered of a feed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FeedState {
    /// Of each document as it was last compiled.
    pub documents: BTreeMap<String, Fingerprint>,
    /// The newest change that is compiled in, milliseconds since 1970.
    pub newest_ms: i64,
    /// When it was last asked, whatever came of it.
    pub asked_ms: i64,
    /// When it was last good: changed and compiled, or unchanged.
    pub good_ms: i64,
    /// Advisories when it was last read as a whole.
    pub advisories: u64,
    /// What is wrong since then; empty if nothing is.
    pub error: String,
    /// Checksum of the database that `documents` and `newest_ms` speak of.
    pub database: String,
}

/// What the next update needs to know of a feed, kept in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Known {
    pub(super) documents: BTreeMap<String, Fingerprint>,
    pub(super) newest_ms: i64,
    pub(super) advisories: u64,
    /// Changes within the overlap that are compiled in: what and when.
    pub(super) seen: BTreeMap<String, i64>,
    /// Where the overlap begins, if it is shorter than usual.
    pub(super) since_ms: i64,
}

impl Known {
    /// What a database says of a feed; nothing if it does not hold it.
    pub(super) fn of(feed: &Feed, database: Option<&Database>, state: Option<&FeedState>) -> Self {
        let Some(database) = database else { return Self::default() };
        let source =
            database.sources().iter().find(|one| feed.sources.first() == Some(&&*one.name));
        let Some(source) = source else { return Self::default() };
        let mut known: Self = serde_json::from_str(&source.fingerprint).unwrap_or_default();
        let newer = state.filter(|state| state.database == checksum(database));
        if let Some(state) = newer.filter(|state| !state.documents.is_empty()) {
            known.documents.clone_from(&state.documents);
            known.newest_ms = known.newest_ms.max(state.newest_ms);
        }
        known
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From when on a list of changes is to be looked at.
    pub(super) fn since_ms(&self) -> i64 {
        self.newest_ms.saturating_sub(OVERLAP_MS).max(self.since_ms).min(self.newest_ms)
    }

    /// Remembers changes, up to one that is the newest, and forgets those before the overlap. If
    /// there are too many, as on a day on which everything changed, the overlap is shortened.
    pub(super) fn saw(&mut self, changes: impl Iterator<Item = (String, i64)>, newest_ms: i64) {
        self.newest_ms = self.newest_ms.max(newest_ms);
        self.seen.extend(changes);
        let mut from = self.since_ms();
        let mut times: Vec<i64> = self.seen.values().copied().filter(|at| *at >= from).collect();
        times.sort_unstable_by(|one, two| two.cmp(one));
        if let Some(at) = times.get(MAX_SEEN) {
            from = at.saturating_add(1);
            self.since_ms = from;
        }
        self.seen.retain(|_, at| *at >= from);
    }
}

/// By which a database is known in `feeds.json`.
pub(super) fn checksum(database: &Database) -> String {
    database.stamp().checksum
}

pub(super) type States = BTreeMap<String, FeedState>;

/// Longer ones are damaged.
const MAX_STATES: u64 = 64 << 20;

pub(super) fn load(folder: &Path) -> States {
    let path = folder.join("feeds.json");
    let read = fs::metadata(&path).and_then(|about| {
        if about.len() > MAX_STATES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long"));
        }
        fs::read(&path)
    });
    let text = match read {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return States::new(),
        Err(error) => {
            tracing::warn!(%error, "feeds.json is begun anew");
            return States::new();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(%error, "feeds.json is damaged and begun anew");
        States::new()
    })
}

pub(super) fn save(folder: &Path, states: &States) -> anyhow::Result<()> {
    let save = || -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, states)?;
        file.flush()?;
        file.as_file().sync_all()?;
        file.persist(folder.join("feeds.json"))?;
        Ok(())
    };
    save().context("the state of the feeds can't be kept")
}

/// Held as long as an update changes a folder; the system takes it back from a process that dies.
pub(super) struct Lock(#[expect(dead_code, reason = "held, not used")] fs::File);

impl Lock {
    pub(super) fn take(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("update.lock");
        let file = fs::File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("{} can't be used", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(fs::TryLockError::WouldBlock) => anyhow::bail!(
                "another update of {} is under way; hint: wait until it is done",
                folder.display()
            ),
            Err(fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("{} can't be locked", path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, MAX_SEEN, OVERLAP_MS};

    #[test]
    fn the_overlap_moves_on_and_is_bounded() {
        let mut known = Known::default();
        let at = |count: i64, from: i64| (0..count).map(move |n| (n.to_string(), from + n));
        known.saw(at(10, 100), 109);
        assert_eq!((known.seen.len(), known.since_ms(), known.newest_ms), (10, 0, 109));
        known.saw([("x".to_owned(), OVERLAP_MS + 105)].into_iter(), OVERLAP_MS + 105);
        assert_eq!((known.seen.len(), known.since_ms()), (6, 105));
        known.saw(std::iter::empty(), 0);
        assert_eq!((known.seen.len(), known.newest_ms), (6, OVERLAP_MS + 105));
        let from = 2 * OVERLAP_MS;
        let many = MAX_SEEN as i64 + 50;
        known.saw(at(many, from), from + many - 1);
        assert_eq!((known.seen.len(), known.since_ms()), (MAX_SEEN, from + 50));
        let mut same = Known::default();
        same.saw((0..many).map(|n| (n.to_string(), 7)), 7);
        assert_eq!((same.seen.len(), same.since_ms()), (0, 7));
    }
}
