//! Notifications in Clair's manner: an id under which a client reads pages of items until it
//! deletes them; and small marks of the engine.

use crate::{
    database::Catalog,
    error::{Result, attempt},
};

const ADD: &str = "INSERT INTO notifications (id, created_ms) VALUES ($1, $2) \
     ON CONFLICT (id) DO NOTHING";
const ADD_ITEM: &str = "INSERT INTO notification_items (notification, item, body) \
     VALUES ($1, $2, $3) ON CONFLICT (notification, item) DO NOTHING";
const KNOWN: &str = "SELECT created_ms FROM notifications WHERE id = $1";
const PAGE: &str = "SELECT item, body FROM notification_items \
     WHERE notification = $1 AND item > $2 ORDER BY item LIMIT $3";
const REMOVE_ITEMS: &str = "DELETE FROM notification_items WHERE notification = $1";
const REMOVE: &str = "DELETE FROM notifications WHERE id = $1";
const OLD: &str = "SELECT id FROM notifications WHERE created_ms < $1";
const MARK: &str = "SELECT value FROM marks WHERE name = $1";
const SET_MARK: &str = "INSERT INTO marks (name, value) VALUES ($1, $2) \
     ON CONFLICT (name) DO UPDATE SET value = excluded.value";

impl Catalog {
    /// Stores a notification with its items (item id, JSON), all or nothing.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_notification(
        &self,
        id: &str,
        items: &[(String, String)],
        now_ms: i64,
    ) -> Result<()> {
        attempt(|| format!("store notification {id}"), async {
            let mut write = self.write().await?;
            sqlx::query(ADD).bind(id).bind(now_ms).execute(write.connection()).await?;
            for (item, body) in items {
                sqlx::query(ADD_ITEM)
                    .bind(id)
                    .bind(item)
                    .bind(body)
                    .execute(write.connection())
                    .await?;
            }
            write.commit().await
        })
        .await
    }

    /// Items (id, JSON) of a notification by id after the given one; `None`: no such
    /// notification.
    ///
    /// # Errors
    /// The database failed.
    pub async fn notification(
        &self,
        id: &str,
        after: &str,
        limit: u32,
    ) -> Result<Option<Vec<(String, String)>>> {
        attempt(|| format!("read notification {id}"), async {
            let known: Option<(i64,)> =
                sqlx::query_as(KNOWN).bind(id).fetch_optional(&self.reader).await?;
            if known.is_none() {
                return Ok(None);
            }
            let page = sqlx::query_as(PAGE)
                .bind(id)
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(&self.reader)
                .await?;
            Ok(Some(page))
        })
        .await
    }

    /// Removes a notification. False if there was none.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_notification(&self, id: &str) -> Result<bool> {
        attempt(|| format!("remove notification {id}"), async {
            let mut write = self.write().await?;
            sqlx::query(REMOVE_ITEMS).bind(id).execute(write.connection()).await?;
            let gone = sqlx::query(REMOVE).bind(id).execute(write.connection()).await?;
            write.commit().await?;
            Ok(gone.rows_affected() > 0)
        })
        .await
    }

    /// Ids of notifications from before.
    ///
    /// # Errors
    /// The database failed.
    pub async fn old_notifications(&self, before_ms: i64) -> Result<Vec<String>> {
        attempt(|| "list old notifications".to_owned(), async {
            let found: Vec<(String,)> =
                sqlx::query_as(OLD).bind(before_ms).fetch_all(&self.reader).await?;
            Ok(found.into_iter().map(|(id,)| id).collect())
        })
        .await
    }

    /// The value of a mark.
    ///
    /// # Errors
    /// The database failed.
    pub async fn mark(&self, name: &str) -> Result<Option<String>> {
        attempt(|| format!("read the mark {name}"), async {
            let found: Option<(String,)> =
                sqlx::query_as(MARK).bind(name).fetch_optional(&self.reader).await?;
            Ok(found.map(|(value,)| value))
        })
        .await
    }

    /// Sets a mark.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_mark(&self, name: &str, value: &str) -> Result<()> {
        attempt(|| format!("set the mark {name}"), async {
            sqlx::query(SET_MARK).bind(name).bind(value).execute(self.writer()).await?;
            Ok(())
        })
        .await
    }
}
