//! The few places where SQLite and PostgreSQL want other words.

use crate::repositories::Hold;

/// Which database the catalogue lives in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// One file on a local disk.
    Sqlite,
    /// A server, possibly shared by several processes of ours.
    Postgres,
}

impl Dialect {
    /// `sqlite` or `postgresql`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgresql",
        }
    }

    /// Begins a transaction that writes. SQLite: with the lock taken at once, since a transaction
    /// that first reads and then writes fails when another process wrote in between. PostgreSQL:
    /// at the level that all reasoning about races here assumes, namely that each statement sees
    /// what was committed before it began.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// A row source `item` with one column `value`: the strings of the JSON array bound there.
    pub(crate) fn each(self, placeholder: &str) -> String {
        match self {
            Self::Sqlite => format!("json_each({placeholder}) AS item"),
            Self::Postgres => {
                format!("json_array_elements_text(CAST({placeholder} AS json)) AS item(value)")
            }
        }
    }

    /// Takes the lock named by $1 until the transaction ends. SQLite needs none: one transaction
    /// writes at a time.
    pub(crate) fn hold(self, hold: Hold) -> Option<&'static str> {
        // The seed keeps these apart from advisory locks that others take in the same database.
        match (self, hold) {
            (Self::Sqlite, _) => None,
            (Self::Postgres, Hold::Shared) => {
                Some("SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 7164820039))")
            }
            (Self::Postgres, Hold::Exclusive) => {
                Some("SELECT pg_advisory_xact_lock(hashtextextended($1, 7164820039))")
            }
        }
    }

    /// Lets a transaction wait for somebody else (the blob store) longer than usual.
    pub(crate) fn patience(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("SET LOCAL idle_in_transaction_session_timeout = '30min'"),
        }
    }
}
