//! What can go wrong with a database file.

use std::io;
use std::path::{Path, PathBuf};

use super::format::VERSION;

/// A database that cannot be built, opened, exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else.
    #[error("this is not an advisory database; hint: `kuboard db update` fetches one")]
    NotADatabase,
    /// The file was made by a newer version.
    #[error(
        "the advisory database has format {found}, and {VERSION} is the newest known here; hint: \
         update kuboard, or take a database of an older one"
    )]
    Newer {
        /// The file's format.
        found: u32,
    },
    /// The bytes are not those that were written.
    #[error("the advisory database is damaged: {0}; hint: `kuboard db update` fetches a new one")]
    Damaged(&'static str),
    /// An import would go back in time.
    #[error(
        "the bundle has generation {bundle}, older than the current one, {current}; hint: force \
         the import to go back"
    )]
    Older {
        /// Generation of the bundle.
        bundle: u64,
        /// Generation in use.
        current: u64,
    },
    /// More than the format can hold, or than the caller allows.
    #[error("the advisory database has too many {0}")]
    TooLarge(&'static str),
}

impl DatabaseError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

impl From<&'static str> for DatabaseError {
    fn from(what: &'static str) -> Self {
        Self::Damaged(what)
    }
}
