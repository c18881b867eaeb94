//! The open database: how connections are made, read from and written through.

use std::{
    fmt, fs,
    io::{self, ErrorKind as IoErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, Connection, Executor, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions},
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    config::{Location, Settings},
    dialect::Dialect,
    error::{Error, ErrorKind, Result, attempt},
    migrate,
};

/// The catalogue. A clone is another handle on the same connections.
#[derive(Clone)]
pub struct Catalog {
    dialect: Dialect,
    /// For single statements that read.
    pub(crate) reader: AnyPool,
    /// For transactions that write: on SQLite one connection, since it has one writer anyway and a
    /// queue in memory is fairer than its file lock; on PostgreSQL the same pool as `reader`.
    writer: AnyPool,
}

/// A transaction that writes. Dropped without [`Write::commit`] it never was.
pub(crate) struct Write {
    pub(crate) dialect: Dialect,
    transaction: Transaction<'static, Any>,
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Catalog {
    /// Opens `sqlite:///path/to/catalog.db` (the path percent-decoded, the file made if absent,
    /// mode 0600) or `postgres://user:password@host/database?sslmode=…`, with default settings,
    /// and brings its tables up to date.
    ///
    /// # Errors
    /// The database is away for longer than [`Settings::open_within`], refuses, or was written by
    /// a newer program.
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_with(url, &Settings::default()).await
    }

    /// [`Catalog::open`] with other settings.
    ///
    /// # Errors
    /// As [`Catalog::open`].
    pub async fn open_with(url: &str, settings: &Settings) -> Result<Self> {
        let parse = async { Location::parse(url) };
        let location = attempt(|| "open the catalogue".to_owned(), parse).await?;
        Self::open_at(&location, settings).await
    }

    /// Opens the SQLite file at `path`, whatever characters it consists of.
    ///
    /// # Errors
    /// As [`Catalog::open`].
    pub async fn open_file(path: &Path) -> Result<Self> {
        Self::open_at(&Location::sqlite(path), &Settings::default()).await
    }

    async fn open_at(location: &Location, settings: &Settings) -> Result<Self> {
        let opening = async {
            sqlx::any::install_default_drivers();
            match location {
                Location::Sqlite(path) => Self::open_sqlite(path, settings).await,
                Location::Postgres(options) => Self::open_postgres(options, settings).await,
            }
        };
        attempt(|| format!("open the catalogue in {location}"), opening).await
    }

    async fn open_sqlite(path: &Path, settings: &Settings) -> Result<Self> {
        create_private(path).map_err(|error| {
            let fact = match error.kind() {
                IoErrorKind::NotFound => "its folder does not exist; hint: create it first",
                IoErrorKind::PermissionDenied => "no right to write there; hint: check the owner",
                _ => "the file can't be created",
            };
            Error::new(ErrorKind::Unavailable, fact).with_source(error)
        })?;
        let options = sqlite_options(path)?;
        let patience = settings.answer_within.as_millis();
        let setup = format!(
            "PRAGMA busy_timeout = {patience}; PRAGMA journal_mode = WAL; \
             PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; \
             PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -16384"
        );
        first_connection(Dialect::Sqlite, &options, &setup, settings).await?;
        let pool = AnyPoolOptions::new()
            .acquire_timeout(settings.acquire_within)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false);
        let readers = set_up(pool.clone(), format!("{setup}; PRAGMA query_only = ON"));
        Ok(Self {
            dialect: Dialect::Sqlite,
            reader: readers
                .max_connections(settings.connections)
                .connect_lazy_with(options.clone()),
            writer: set_up(pool, setup).max_connections(1).connect_lazy_with(options),
        })
    }

    async fn open_postgres(options: &AnyConnectOptions, settings: &Settings) -> Result<Self> {
        let patience = settings.answer_within.as_millis();
        let setup = format!(
            "SET statement_timeout = {patience}; SET lock_timeout = {patience}; \
             SET idle_in_transaction_session_timeout = '60s'"
        );
        first_connection(Dialect::Postgres, options, &setup, settings).await?;
        let pool = AnyPoolOptions::new()
            .acquire_timeout(settings.acquire_within)
            .max_connections(settings.connections);
        let pool = set_up(pool, setup).connect_lazy_with(options.clone());
        Ok(Self { dialect: Dialect::Postgres, reader: pool.clone(), writer: pool })
    }

    /// Which database it is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Asks the database for a sign of life, for readiness probes.
    ///
    /// # Errors
    /// It can't be reached.
    pub async fn ping(&self) -> Result<()> {
        attempt(|| "reach the catalogue".to_owned(), async {
            sqlx::query("SELECT 1").execute(&self.reader).await?;
            Ok(())
        })
        .await
    }

    /// Closes all connections once their calls are done; SQLite folds its log into the file.
    /// Later calls on any clone fail.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    pub(crate) async fn write(&self) -> Result<Write> {
        let transaction = self.writer.begin_with(self.dialect.begin()).await?;
        Ok(Write { dialect: self.dialect, transaction })
    }

    /// For one statement that writes and needs no transaction around it.
    pub(crate) fn writer(&self) -> &AnyPool {
        &self.writer
    }
}

impl Write {
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    pub(crate) async fn commit(self) -> Result<()> {
        Ok(self.transaction.commit().await?)
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

/// Makes the file readable by its owner only, before SQLite would make it for everybody; SQLite
/// gives its log files the same mode.
fn create_private(path: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match file {
        Ok(file) => file.sync_all()?,
        Err(error) if error.kind() == IoErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    // The name has to survive a power cut as surely as the rows in it.
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn sqlite_options(path: &Path) -> Result<AnyConnectOptions> {
    const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
    let path = std::path::absolute(path).map_err(|error| {
        Error::new(ErrorKind::Other, "the path can't be made absolute").with_source(error)
    })?;
    let path = percent_encode(path.as_os_str().as_encoded_bytes(), &KEPT);
    Ok(format!("sqlite://{path}").parse()?)
}

/// Connects outside the pools, so that what is wrong with the database is said as it is (a pool
/// would only time out), and brings the tables up to date.
async fn first_connection(
    dialect: Dialect,
    options: &AnyConnectOptions,
    setup: &str,
    settings: &Settings,
) -> Result<()> {
    let deadline = Instant::now() + settings.open_within;
    let mut pause = FIRST_PAUSE;
    loop {
        let connect = async {
            let mut connection = AnyConnection::connect_with(options).await?;
            connection.execute(AssertSqlSafe(setup)).await?;
            migrate::run(dialect, &mut connection).await?;
            connection.close().await?;
            Ok(())
        };
        let error = match timeout_at(deadline, connect).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => Error::new(ErrorKind::Unavailable, "no answer in time"),
        };
        if !is_worth_waiting(&error) || Instant::now() + pause >= deadline {
            return Err(error);
        }
        tracing::warn!(error = %error, "catalogue not reachable yet");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn is_worth_waiting(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable && error.is_retryable()
}

fn set_up(pool: AnyPoolOptions, setup: String) -> AnyPoolOptions {
    let setup: Arc<str> = setup.into();
    pool.after_connect(move |connection, _| {
        let setup = setup.clone();
        Box::pin(async move {
            connection.execute(AssertSqlSafe(setup)).await?;
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use sqlx::AnyPool;

    use super::Catalog;

    async fn pragma(pool: &AnyPool, name: &str) -> String {
        let statement = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(pool).await.unwrap()
    }

    #[tokio::test]
    async fn sqlite_connections_are_set_up_for_durability_and_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open_file(&folder.path().join("catalog.db")).await.unwrap();
        for (name, expected) in
            [("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1")]
        {
            assert_eq!(pragma(catalog.writer(), name).await, expected, "{name}");
        }
        assert_eq!(pragma(&catalog.reader, "query_only").await, "1");
        assert_eq!(pragma(catalog.writer(), "query_only").await, "0");
        assert_eq!(catalog.writer().options().get_max_connections(), 1);
        let refused = sqlx::query("DELETE FROM pins").execute(&catalog.reader).await;
        assert!(refused.is_err(), "a reader wrote");
    }
}
