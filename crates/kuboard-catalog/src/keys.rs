//! Access keys: who may do what with which secret. Only hashes of secrets are kept.

use std::fmt;

use crate::{
    database::Catalog,
    error::{Error, ErrorKind, Result, attempt},
};

/// An access key. Its `Debug` leaves the hash out.
#[derive(Clone, Eq, PartialEq)]
pub struct KeyRow {
    /// Public part of the key.
    pub id: String,
    /// Hash of the secret part, in a form that only the issuer understands.
    pub secret_hash: String,
    /// Whose key it is.
    pub owner: String,
    /// What it allows, in a form that only the issuer understands.
    pub scopes_json: String,
    /// When it was made.
    pub created_ms: i64,
    /// When it ceases to be valid; never, if none.
    pub expires_ms: Option<i64>,
}

impl fmt::Debug for KeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRow")
            .field("id", &self.id)
            .field("owner", &self.owner)
            .field("scopes_json", &self.scopes_json)
            .field("created_ms", &self.created_ms)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

pub(crate) const ADD: &str = "INSERT INTO access_keys \
     (id, secret_hash, owner, scopes_json, created_ms, expires_ms) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING";
pub(crate) const KEY: &str = "SELECT id, secret_hash, owner, scopes_json, created_ms, expires_ms \
     FROM access_keys WHERE id = $1";
pub(crate) const KEYS: &str = "SELECT id, secret_hash, owner, scopes_json, created_ms, expires_ms \
     FROM access_keys ORDER BY id";
pub(crate) const REMOVE: &str = "DELETE FROM access_keys WHERE id = $1";

type Stored = (String, String, String, String, i64, Option<i64>);

fn key((id, secret_hash, owner, scopes_json, created_ms, expires_ms): Stored) -> KeyRow {
    KeyRow { id, secret_hash, owner, scopes_json, created_ms, expires_ms }
}

impl Catalog {
    /// Records a new key.
    ///
    /// # Errors
    /// Conflict if the id is taken; otherwise the database failed.
    pub async fn add_key(&self, row: &KeyRow) -> Result<()> {
        attempt(|| format!("add access key {}", row.id), async {
            let added = sqlx::query(ADD)
                .bind(row.id.as_str())
                .bind(row.secret_hash.as_str())
                .bind(row.owner.as_str())
                .bind(row.scopes_json.as_str())
                .bind(row.created_ms)
                .bind(row.expires_ms)
                .execute(self.writer())
                .await?;
            if added.rows_affected() == 0 {
                return Err(Error::new(ErrorKind::Conflict, "the id is taken"));
            }
            Ok(())
        })
        .await
    }

    /// The key with this id, expired or not.
    ///
    /// # Errors
    /// The database failed.
    pub async fn key(&self, id: &str) -> Result<Option<KeyRow>> {
        // Ids come from clients, and PostgreSQL refuses text with NUL instead of not finding it.
        if id.contains('\0') {
            return Ok(None);
        }
        attempt(|| "look up an access key".to_owned(), async {
            let found: Option<Stored> =
                sqlx::query_as(KEY).bind(id).fetch_optional(&self.reader).await?;
            Ok(found.map(key))
        })
        .await
    }

    /// All keys, by id.
    ///
    /// # Errors
    /// The database failed.
    pub async fn keys(&self) -> Result<Vec<KeyRow>> {
        attempt(|| "list access keys".to_owned(), async {
            let found: Vec<Stored> = sqlx::query_as(KEYS).fetch_all(&self.reader).await?;
            Ok(found.into_iter().map(key).collect())
        })
        .await
    }

    /// Removes a key. False if there was none.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_key(&self, id: &str) -> Result<bool> {
        attempt(|| format!("remove access key {id}"), async {
            let gone = sqlx::query(REMOVE).bind(id).execute(self.writer()).await?;
            Ok(gone.rows_affected() > 0)
        })
        .await
    }
}
