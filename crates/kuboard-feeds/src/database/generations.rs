//! The folder of database generations: `gen-NNNNNN.kbdb`, and `current`, a file that names the one
//! in use and is replaced by rename. The one before is kept, for the day the newest is damaged.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bundle::{Unpacked, unpack};
use super::{Database, DatabaseError};

/// How many generations stay.
const KEPT: usize = 2;

/// The folder.
#[derive(Clone, Debug)]
pub struct Generations {
    folder: PathBuf,
}

impl Generations {
    /// Opens the folder, makes it if need be. Others may be using it, or building in it.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(folder: &Path) -> Result<Self, DatabaseError> {
        let io = |err| DatabaseError::io(folder, err);
        fs::create_dir_all(folder).map_err(io)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Removes what a killed update left. Only for whoever holds the lock of updates: what is
    /// being built looks the same.
    pub(crate) fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".building-") {
                // It takes room and does no other harm.
                let _gone = fs::remove_file(entry.path());
            }
        }
    }

    /// The folder, also for scratch files of a [`super::Builder`].
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a generation is, or is to be written by [`super::Builder::finish`].
    #[must_use]
    pub fn path(&self, generation: u64) -> PathBuf {
        self.folder.join(format!("gen-{generation:06}.kbdb"))
    }

    /// Numbers of the generations that are there, the newest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn numbers(&self) -> Result<Vec<u64>, DatabaseError> {
        let io = |err| DatabaseError::io(&self.folder, err);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            numbers.extend(name.to_str().and_then(number_of));
        }
        numbers.sort_unstable_by(|one, two| two.cmp(one));
        Ok(numbers)
    }

    /// The number for the next generation.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn next(&self) -> Result<u64, DatabaseError> {
        Ok(self.numbers()?.first().map_or(1, |newest| newest.saturating_add(1)))
    }

    /// The database in use; where `current` names none that can be opened, the newest that can.
    /// `None` if there is none at all.
    ///
    /// # Errors
    /// When the folder cannot be read, or there are files and not one can be opened: then the
    /// error of the newest.
    pub fn current(&self) -> Result<Option<Arc<Database>>, DatabaseError> {
        let mut numbers = self.numbers()?;
        if let Some(named) = self.named() {
            numbers.retain(|one| *one != named);
            numbers.insert(0, named);
        }
        let mut first_error = None;
        for number in numbers {
            match Database::open(&self.path(number)) {
                Ok(database) => return Ok(Some(database)),
                Err(err) => {
                    tracing::warn!("generation {number} of the advisories is not used: {err}");
                    first_error.get_or_insert(err);
                }
            }
        }
        first_error.map_or(Ok(None), Err)
    }

    fn named(&self) -> Option<u64> {
        let mut name = String::new();
        let file = File::open(self.folder.join("current")).ok()?;
        file.take(256).read_to_string(&mut name).ok()?;
        number_of(name.trim())
    }

    /// Makes a generation the one in use, and removes all but the newest others. A process that
    /// has one of those mapped goes on reading it.
    ///
    /// # Errors
    /// When it cannot be opened, or the folder cannot be written.
    pub fn install(&self, generation: u64) -> Result<Arc<Database>, DatabaseError> {
        let io = |err| DatabaseError::io(&self.folder, err);
        let database = Database::open(&self.path(generation))?;
        let mut pointer =
            tempfile::Builder::new().prefix(".current-").tempfile_in(&self.folder).map_err(io)?;
        writeln!(pointer, "gen-{generation:06}.kbdb").map_err(io)?;
        pointer.as_file().sync_all().map_err(io)?;
        pointer.persist(self.folder.join("current")).map_err(|err| io(err.error))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        let others = self.numbers()?.into_iter().filter(|one| *one != generation);
        for old in others.skip(KEPT - 1) {
            remove(&self.path(old))?;
        }
        Ok(database)
    }

    /// Takes a bundle of at most `max_bytes` unpacked, verifies it, and makes it the generation in
    /// use. One that is older than the current one is refused unless `force`d; forced, the newer
    /// files stay until they are the ones to go.
    ///
    /// # Errors
    /// When it is no whole bundle, of a newer format, too long, or older.
    pub fn import(
        &self,
        from: impl Read,
        max_bytes: u64,
        force: bool,
    ) -> Result<Arc<Database>, DatabaseError> {
        let Unpacked { file, database } = unpack(from, &self.folder, max_bytes)?;
        let bundle = database.generation();
        let current = self.current().ok().flatten().map(|current| current.generation());
        if let Some(current) = current.filter(|current| *current > bundle && !force) {
            return Err(DatabaseError::Older { bundle, current });
        }
        let to = self.path(bundle);
        file.persist(&to).map_err(|err| DatabaseError::io(&to, err.error))?;
        self.install(bundle)
    }
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("gen-")?.strip_suffix(".kbdb")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn remove(path: &Path) -> Result<(), DatabaseError> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(DatabaseError::io(path, err)),
        _ => Ok(()),
    }
}
