//! Repositories: names, kinds, and the lock that orders changes within one.

use crate::{
    database::{Catalog, Write},
    error::{Error, ErrorKind, Result, attempt},
    rows,
};

/// What a repository is to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Pushed to us; we are its only home. Named like `team/app`.
    Hosted,
    /// A mirror of an upstream's. Named with the upstream in front: `docker.io/library/alpine`.
    Cached,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hosted => "hosted",
            Self::Cached => "cached",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        match text {
            "hosted" => Ok(Self::Hosted),
            "cached" => Ok(Self::Cached),
            _ => Err(Error::new(
                ErrorKind::Corrupt,
                format!("the database holds the unknown kind {text:?}"),
            )),
        }
    }
}

/// How a transaction holds a repository until its end.
///
/// Shared by all that add to it, so that pushes run beside each other; exclusive for all that take
/// away. So whoever adds sees, from its checks to its commit, that what it checked stays.
///
/// Locks are taken in this order: [`SWEEP`], repositories, then rows of `contents`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hold {
    Shared,
    Exclusive,
}

/// Held (as if it were a repository; no repository has this name) by transactions that change
/// several rows of `contents`, since two of them could wait for each other.
pub(crate) const SWEEP: &str = "*";

/// A repository as stored.
pub(crate) struct Found {
    pub(crate) id: i64,
    pub(crate) kind: Kind,
}

pub(crate) const FIND: &str = "SELECT id, kind FROM repositories WHERE name = $1";
pub(crate) const INSERT: &str =
    "INSERT INTO repositories (name, kind) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
pub(crate) const LIST: &str = "SELECT name FROM repositories WHERE name > $1 \
     ORDER BY name LIMIT $2";
pub(crate) const LIST_KIND: &str = "SELECT name FROM repositories WHERE kind = $3 AND name > $1 \
     ORDER BY name LIMIT $2";

impl Catalog {
    /// Names in ASCII order, of one kind or all, after `after`, at most `limit`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn repositories(
        &self,
        kind: Option<Kind>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>> {
        attempt(|| "list repositories".to_owned(), async {
            let statement = if kind.is_some() { LIST_KIND } else { LIST };
            let mut query =
                sqlx::query_scalar(statement).bind(rows::after(after)).bind(i64::from(limit));
            if let Some(kind) = kind {
                query = query.bind(kind.as_str());
            }
            Ok(query.fetch_all(&self.reader).await?)
        })
        .await
    }

    pub(crate) async fn find(&self, name: &str) -> Result<Option<Found>> {
        let row: Option<(i64, String)> =
            sqlx::query_as(FIND).bind(name).fetch_optional(&self.reader).await?;
        row.map(found).transpose()
    }
}

fn found((id, kind): (i64, String)) -> Result<Found> {
    Ok(Found { id, kind: Kind::parse(&kind)? })
}

impl Write {
    pub(crate) async fn hold(&mut self, repository: &str, hold: Hold) -> Result<()> {
        if let Some(statement) = self.dialect.hold(hold) {
            sqlx::query(statement).bind(repository).execute(self.connection()).await?;
        }
        Ok(())
    }

    pub(crate) async fn find(&mut self, name: &str) -> Result<Option<Found>> {
        let row: Option<(i64, String)> =
            sqlx::query_as(FIND).bind(name).fetch_optional(self.connection()).await?;
        row.map(found).transpose()
    }

    /// The repository's id; it is made if absent. Conflict if it is of the other kind.
    pub(crate) async fn ensure(&mut self, name: &str, kind: Kind) -> Result<i64> {
        if self.find(name).await?.is_none() {
            sqlx::query(INSERT).bind(name).bind(kind.as_str()).execute(self.connection()).await?;
        }
        match self.find(name).await? {
            Some(found) if found.kind == kind => Ok(found.id),
            Some(found) => Err(Error::new(
                ErrorKind::Conflict,
                format!("repository {name} is {}, not {}", found.kind.as_str(), kind.as_str()),
            )),
            None => Err(Error::new(ErrorKind::Corrupt, format!("repository {name} did not stay"))),
        }
    }
}
