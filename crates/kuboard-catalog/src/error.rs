//! What can go wrong: a kind, whether to try again, what was attempted, and the driver's own words
//! as the source.

use std::{borrow::Cow, error::Error as StdError, fmt};

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation on the catalogue.
///
/// Displays as `cannot <what was attempted>: <fact>; hint: …`, without the source.
pub struct Error {
    kind: ErrorKind,
    retryable: bool,
    attempted: String,
    fact: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorKind {
    /// The database can't be reached, is starting, full, or did not answer in time.
    Unavailable,
    /// What is stored forbids the change (or, if retryable, another change got in the way).
    Conflict,
    /// What is stored can't be read.
    Corrupt,
    /// Wrong settings, missing rights, or a defect here.
    Other,
}

impl Error {
    /// Whose fault it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later with nothing changed by anybody.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    pub(crate) fn new(kind: ErrorKind, fact: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, retryable: false, attempted: String::new(), fact: fact.into(), source: None }
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
}

/// Runs `work`; an error is told what was attempted.
pub(crate) async fn attempt<T>(
    what: impl FnOnce() -> String,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    work.await.map_err(|mut error| {
        if error.attempted.is_empty() {
            error.attempted = what();
        }
        error
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.attempted.is_empty() {
            write!(f, "cannot {}: ", self.attempted)?;
        }
        f.write_str(&self.fact)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("retryable", &self.retryable)
            .field("what", &self.to_string())
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let judged = match &error {
            E::Database(failed) => by_code(failed.code().as_deref().unwrap_or_default()),
            E::Io(_) | E::Protocol(_) | E::WorkerCrashed | E::BeginFailed => {
                Self::new(ErrorKind::Unavailable, "the connection to the database failed")
                    .retryable()
            }
            E::PoolTimedOut => {
                Self::new(ErrorKind::Unavailable, "the database is too busy or away").retryable()
            }
            E::PoolClosed => Self::new(ErrorKind::Unavailable, "the catalogue is closed"),
            E::Tls(_) => Self::new(
                ErrorKind::Other,
                "the database's TLS is refused; hint: check sslmode and sslrootcert in the URL",
            ),
            E::ColumnDecode { .. } | E::Decode(_) | E::RowNotFound => {
                Self::new(ErrorKind::Corrupt, "the database holds what this program did not write")
            }
            _ => Self::new(ErrorKind::Other, "the database driver failed"),
        };
        judged.with_source(error)
    }
}

/// SQLSTATE of PostgreSQL has five characters; SQLite's extended result code is a number.
fn by_code(code: &str) -> Error {
    if code.len() == 5 { by_sqlstate(code) } else { by_sqlite_code(code.parse().unwrap_or(1)) }
}

fn by_sqlstate(code: &str) -> Error {
    match (&code[..2], code) {
        // Serialization failure, deadlock.
        (_, "40001" | "40P01") => {
            Error::new(ErrorKind::Conflict, "another change got in the way").retryable()
        }
        // Lock timeout, statement timeout, idle in transaction.
        (_, "55P03" | "57014" | "25P03") => {
            Error::new(ErrorKind::Unavailable, "the database did not answer in time").retryable()
        }
        ("08" | "57" | "53", _) => {
            Error::new(ErrorKind::Unavailable, "the database is not ready").retryable()
        }
        ("23", _) => Error::new(ErrorKind::Conflict, "what is stored forbids it"),
        ("XX", _) => Error::new(ErrorKind::Corrupt, "the database reports damage"),
        ("28" | "3D" | "42", _) => Error::new(
            ErrorKind::Other,
            "the database refuses; hint: check user, password, database and rights",
        ),
        _ => Error::new(ErrorKind::Other, "the database refuses the statement"),
    }
}

/// <https://www.sqlite.org/rescode.html>: the primary code is the low byte.
fn by_sqlite_code(code: u32) -> Error {
    match code & 0xff {
        5 | 6 => {
            Error::new(ErrorKind::Unavailable, "another process holds the database").retryable()
        }
        13 => Error::new(ErrorKind::Unavailable, "the disk is full").retryable(),
        10 => Error::new(ErrorKind::Unavailable, "the disk failed").retryable(),
        14 => Error::new(
            ErrorKind::Unavailable,
            "the database file can't be opened; hint: check that its folder exists and is writable",
        ),
        3 | 8 | 23 => Error::new(
            ErrorKind::Other,
            "the database file is not writable; hint: check its owner and mode",
        ),
        11 => Error::new(
            ErrorKind::Corrupt,
            "the database file is damaged; hint: restore it from a backup",
        ),
        26 => Error::new(ErrorKind::Corrupt, "the file is no SQLite database"),
        19 => Error::new(ErrorKind::Conflict, "what is stored forbids it"),
        _ => Error::new(ErrorKind::Other, "the database refuses the statement"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, ErrorKind, attempt, by_code};

    #[test]
    fn codes_become_kinds() {
        for (code, kind, retryable) in [
            ("40P01", ErrorKind::Conflict, true),
            ("55P03", ErrorKind::Unavailable, true),
            ("57P03", ErrorKind::Unavailable, true),
            ("53100", ErrorKind::Unavailable, true),
            ("23505", ErrorKind::Conflict, false),
            ("28P01", ErrorKind::Other, false),
            ("XX001", ErrorKind::Corrupt, false),
            ("5", ErrorKind::Unavailable, true),
            ("517", ErrorKind::Unavailable, true),
            ("13", ErrorKind::Unavailable, true),
            ("2067", ErrorKind::Conflict, false),
            ("11", ErrorKind::Corrupt, false),
            ("26", ErrorKind::Corrupt, false),
            ("1", ErrorKind::Other, false),
            ("", ErrorKind::Other, false),
        ] {
            let error = by_code(code);
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{code}");
        }
    }

    #[tokio::test]
    async fn the_innermost_attempt_is_told_and_the_source_is_not_repeated() {
        let failing = async {
            Err::<(), _>(Error::new(ErrorKind::Other, "it broke").with_source("the cause"))
        };
        let inner = attempt(|| "read x".to_owned(), failing);
        let error = attempt(|| "do y".to_owned(), inner).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot read x: it broke");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the cause");
    }
}
