//! Events that have to reach others: stored together with what they tell of, delivered until the
//! receiver says yes, set aside as dead letters when it never does.

use crate::{
    database::{Catalog, Write},
    dialect::Dialect,
    error::{Result, attempt},
};

/// An event to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewEvent {
    /// The same happening has the same key: it is stored once, and receivers can tell repeats.
    pub key: String,
    /// What happened.
    pub kind: String,
    /// JSON.
    pub body: String,
}

/// An event on its way to one receiver.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeliveryRow {
    /// Number of the event; receivers get events in this order at first, retries come later.
    pub event: i64,
    /// The receiver's name.
    pub receiver: String,
    /// Key of the event.
    pub key: String,
    /// What happened.
    pub kind: String,
    /// JSON.
    pub body: String,
    /// When it happened.
    pub created_ms: i64,
    /// Tries so far, the present one included.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: String,
}

const ADD: &str = "INSERT INTO events (key, kind, body, created_ms) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (key) DO NOTHING RETURNING id";
const ADDRESS: &str = "INSERT INTO deliveries (event_id, receiver, state, next_ms) VALUES ($1, $2, 'waiting', $3) \
     ON CONFLICT (event_id, receiver) DO NOTHING";
const DELIVERED: &str = "UPDATE deliveries SET state = 'done', reason = '' \
     WHERE event_id = $1 AND receiver = $2";
const FAILED: &str = "UPDATE deliveries SET state = CASE WHEN $5 = 1 THEN 'dead' ELSE 'waiting' END, \
     next_ms = $3, reason = $4 WHERE event_id = $1 AND receiver = $2 AND state = 'waiting'";
const DEAD: &str = "SELECT d.event_id, d.receiver, e.key, e.kind, e.body, e.created_ms, \
     d.attempts, d.reason FROM deliveries AS d JOIN events AS e ON e.id = d.event_id \
     WHERE d.state = 'dead' AND ($1 = '' OR d.receiver = $1) ORDER BY d.event_id LIMIT $2";
const REPLAY: &str = "UPDATE deliveries SET state = 'waiting', attempts = 0, next_ms = $3 \
     WHERE state = 'dead' AND ($1 = '' OR receiver = $1) AND ($2 = 0 OR event_id = $2)";
const STATES: &str = "SELECT receiver, state, COUNT(*) FROM deliveries \
     GROUP BY receiver, state ORDER BY receiver, state";
/// Events that went everywhere they had to.
const FORGET: &str = "DELETE FROM events WHERE created_ms < $1 AND NOT EXISTS \
     (SELECT 1 FROM deliveries WHERE event_id = events.id AND state <> 'done')";

/// Takes what is due and puts it out of reach of other processes until `$2`.
fn take_statement(dialect: Dialect) -> String {
    let skip = match dialect {
        Dialect::Sqlite => "",
        Dialect::Postgres => " FOR UPDATE SKIP LOCKED",
    };
    format!(
        "UPDATE deliveries SET next_ms = $2, attempts = attempts + 1 \
         WHERE state = 'waiting' AND (event_id, receiver) IN (SELECT event_id, receiver \
         FROM deliveries WHERE state = 'waiting' AND next_ms <= $1 \
         ORDER BY next_ms, event_id LIMIT $3{skip}) \
         RETURNING event_id, receiver, attempts, reason"
    )
}

const EVENT: &str = "SELECT key, kind, body, created_ms FROM events WHERE id = $1";

type Stored = (i64, String, String, String, String, i64, i64, String);

fn row(stored: Stored) -> DeliveryRow {
    let (event, receiver, key, kind, body, created_ms, attempts, reason) = stored;
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    DeliveryRow { event, receiver, key, kind, body, created_ms, attempts, reason }
}

pub(crate) async fn add(
    write: &mut Write,
    event: &NewEvent,
    receivers: &[String],
    now_ms: i64,
) -> Result<()> {
    let added: Option<(i64,)> = sqlx::query_as(ADD)
        .bind(&event.key)
        .bind(&event.kind)
        .bind(&event.body)
        .bind(now_ms)
        .fetch_optional(write.connection())
        .await?;
    let Some((id,)) = added else { return Ok(()) };
    for receiver in receivers {
        sqlx::query(ADDRESS)
            .bind(id)
            .bind(receiver)
            .bind(now_ms)
            .execute(write.connection())
            .await?;
    }
    Ok(())
}

impl Catalog {
    /// Stores an event for each of these receivers. Known by its key already: nothing happens.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_event(
        &self,
        event: &NewEvent,
        receivers: &[String],
        now_ms: i64,
    ) -> Result<()> {
        attempt(|| format!("store the event {}", event.key), async {
            let mut write = self.write().await?;
            add(&mut write, event, receivers, now_ms).await?;
            write.commit().await
        })
        .await
    }

    /// Takes deliveries that are due, oldest first, for this process until `until_ms`: what is not
    /// ended by then is anybody's again.
    ///
    /// # Errors
    /// The database failed.
    pub async fn take_deliveries(
        &self,
        limit: u32,
        until_ms: i64,
        now_ms: i64,
    ) -> Result<Vec<DeliveryRow>> {
        attempt(|| "take deliveries".to_owned(), async {
            let mut taken: Vec<(i64, String, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(take_statement(self.dialect())))
                    .bind(now_ms)
                    .bind(until_ms)
                    .bind(i64::from(limit))
                    .fetch_all(self.writer())
                    .await?;
            taken.sort();
            let mut deliveries = Vec::with_capacity(taken.len());
            for (event, receiver, attempts, reason) in taken {
                let (key, kind, body, created_ms): (String, String, String, i64) =
                    sqlx::query_as(EVENT).bind(event).fetch_one(&self.reader).await?;
                deliveries
                    .push(row((event, receiver, key, kind, body, created_ms, attempts, reason)));
            }
            Ok(deliveries)
        })
        .await
    }

    /// The receiver said yes.
    ///
    /// # Errors
    /// The database failed.
    pub async fn delivered(&self, event: i64, receiver: &str) -> Result<()> {
        attempt(|| format!("note that {receiver} got event {event}"), async {
            sqlx::query(DELIVERED).bind(event).bind(receiver).execute(self.writer()).await?;
            Ok(())
        })
        .await
    }

    /// The receiver did not say yes: try again at `retry_ms`, or never (`None`).
    ///
    /// # Errors
    /// The database failed.
    pub async fn not_delivered(
        &self,
        event: i64,
        receiver: &str,
        reason: &str,
        retry_ms: Option<i64>,
    ) -> Result<()> {
        attempt(|| format!("note that {receiver} did not get event {event}"), async {
            let reason: String = reason.chars().filter(|c| *c != '\0').take(2000).collect();
            sqlx::query(FAILED)
                .bind(event)
                .bind(receiver)
                .bind(retry_ms.unwrap_or(0))
                .bind(reason)
                .bind(i64::from(retry_ms.is_none()))
                .execute(self.writer())
                .await?;
            Ok(())
        })
        .await
    }

    /// Dead letters of one receiver or all (`""`), oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn dead_letters(&self, receiver: &str, limit: u32) -> Result<Vec<DeliveryRow>> {
        attempt(|| "list dead letters".to_owned(), async {
            let found: Vec<Stored> = sqlx::query_as(DEAD)
                .bind(receiver)
                .bind(i64::from(limit))
                .fetch_all(&self.reader)
                .await?;
            Ok(found.into_iter().map(row).collect())
        })
        .await
    }

    /// Sends dead letters on their way again: those of one receiver or all (`""`), one event or
    /// all (`None`). How many.
    ///
    /// # Errors
    /// The database failed.
    pub async fn replay(&self, receiver: &str, event: Option<i64>, now_ms: i64) -> Result<u64> {
        attempt(|| "replay dead letters".to_owned(), async {
            let done = sqlx::query(REPLAY)
                .bind(receiver)
                .bind(event.unwrap_or(0))
                .bind(now_ms)
                .execute(self.writer())
                .await?;
            Ok(done.rows_affected())
        })
        .await
    }

    /// How many deliveries of which receiver are waiting, done or dead.
    ///
    /// # Errors
    /// The database failed.
    pub async fn delivery_states(&self) -> Result<Vec<(String, String, u64)>> {
        attempt(|| "count deliveries".to_owned(), async {
            let found: Vec<(String, String, i64)> =
                sqlx::query_as(STATES).fetch_all(&self.reader).await?;
            Ok(found.into_iter().map(|(r, s, n)| (r, s, n.try_into().unwrap_or(0))).collect())
        })
        .await
    }

    /// Forgets events from before that reached all their receivers. How many.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_events(&self, before_ms: i64) -> Result<u64> {
        attempt(|| "forget old events".to_owned(), async {
            Ok(sqlx::query(FORGET).bind(before_ms).execute(self.writer()).await?.rows_affected())
        })
        .await
    }
}
