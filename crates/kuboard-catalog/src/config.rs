//! Where the catalogue lives, and how patient it is.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use percent_encoding::percent_decode_str;
use sqlx::any::AnyConnectOptions;

use crate::error::{Error, ErrorKind, Result};

/// How the catalogue treats its database; the defaults suit most.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections to PostgreSQL at most; readers of SQLite at most (it has one writer besides).
    pub connections: u32,
    /// How long opening waits for a database that is away or starting.
    pub open_within: Duration,
    /// How long a call waits for a free connection.
    pub acquire_within: Duration,
    /// How long one statement may run, and how long it may wait for a lock (PostgreSQL), or for
    /// another process (SQLite).
    pub answer_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 8,
            open_within: Duration::from_secs(30),
            acquire_within: Duration::from_secs(30),
            answer_within: Duration::from_secs(30),
        }
    }
}

/// A parsed catalogue URL. Displays without user, password and parameters.
#[derive(Clone)]
pub(crate) enum Location {
    Sqlite(PathBuf),
    Postgres(AnyConnectOptions),
}

/// What the PostgreSQL driver understands. It would warn about others with their values, and a
/// mistyped `password` is a value that must reach no log.
const PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

impl Location {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let refused = |fact| Err(Error::new(ErrorKind::Other, fact));
        if let Some(rest) = url.strip_prefix("sqlite:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.is_empty() || path.contains('?') || path == ":memory:" {
                return refused(
                    "the SQLite URL names no file; hint: sqlite:///path/to/catalog.db, with ? in \
                     a path written as %3F",
                );
            }
            let Ok(path) = percent_decode_str(path).decode_utf8() else {
                return refused("the path in the SQLite URL is not UTF-8");
            };
            return Ok(Self::Sqlite(PathBuf::from(path.as_ref())));
        }
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return refused(
                "the URL is neither sqlite nor postgres; hint: sqlite:///path/to/catalog.db or \
                 postgres://user:password@host:5432/database",
            );
        }
        let Ok(options) = url.parse::<AnyConnectOptions>() else {
            return refused(
                "the PostgreSQL URL can't be parsed; hint: percent-encode special characters in \
                 user and password",
            );
        };
        for (key, _) in options.database_url.query_pairs() {
            let known = PARAMETERS.contains(&key.as_ref()) || key.starts_with("options[");
            if !known {
                return Err(Error::new(
                    ErrorKind::Other,
                    format!("the PostgreSQL URL has the unknown parameter {key:?}"),
                ));
            }
        }
        Ok(Self::Postgres(options))
    }

    pub(crate) fn sqlite(path: &Path) -> Self {
        Self::Sqlite(path.to_owned())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(options) => {
                let url = &options.database_url;
                let named = url.query_pairs().find(|(key, _)| key == "host").map(|(_, host)| host);
                let host = named.as_deref().or(url.host_str()).unwrap_or("localhost");
                write!(f, "the PostgreSQL database {} on {host}", url.path().trim_matches('/'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Location;

    #[track_caller]
    fn check(url: &str, expected: &str) {
        let shown = match Location::parse(url) {
            Ok(location) => location.to_string(),
            Err(error) => format!("refused: {error}"),
        };
        assert!(shown.contains(expected), "{url}: {shown}");
        assert!(!shown.contains("s3cret"), "{url}: {shown}");
    }

    #[test]
    fn urls_are_understood_or_refused_and_never_tell_the_password() {
        check("sqlite:///var/lib/a b/catalog.db", "/var/lib/a b/catalog.db");
        check("sqlite:///var/lib/a%20b%3F/catalog.db", "/var/lib/a b?/catalog.db");
        check("sqlite:catalog.db", "catalog.db");
        check("sqlite://", "names no file");
        check("sqlite::memory:", "names no file");
        check("sqlite:///x?mode=memory", "names no file");
        check("sqlite:///%ff", "not UTF-8");
        check("postgres://me:s3cret@db.example:5432/kuboard", "kuboard on db.example");
        check("postgresql:///kuboard?host=/run/pg&password=s3cret", "kuboard on /run/pg");
        check("postgres://me:s3cret@db/x?pasword=s3cret", "unknown parameter \"pasword\"");
        check("postgres://me:s3cret@db:port/x", "can't be parsed");
        check("mysql://me:s3cret@db/x", "neither sqlite nor postgres");
        check("", "neither sqlite nor postgres");
    }
}
