//! The lives of findings. What a state means and when it changes is decided elsewhere; a change of
//! findings and the events that tell of it are stored in one transaction.

use crate::{
    database::{Catalog, Write},
    error::{Result, attempt},
    inventories::{self, ReportRow},
    outbox::{self, NewEvent},
    repositories::Hold,
};

/// What a scan found out about a name.
#[derive(Clone, Copy, Debug)]
pub struct Published<'a> {
    /// The image's report, if it is to be kept.
    pub report: Option<&'a ReportRow>,
    /// The name whose findings these are.
    pub subject: &'a str,
    /// The findings of that name by key, as [`Catalog::findings`] gave them.
    pub known: &'a [FindingRow],
    /// Those that changed.
    pub changed: &'a [FindingRow],
    /// What tells of it.
    pub events: &'a [NewEvent],
    /// To whom it goes.
    pub receivers: &'a [String],
}

/// A finding under a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FindingRow {
    /// `registry/repository:tag`.
    pub subject: String,
    /// Vulnerability, package and path.
    pub key: String,
    /// `open`, `acknowledged`, `fixed`, `reopened`, `exempt`.
    pub state: String,
    /// JSON with severity, history and notes.
    pub body: String,
    /// When it was first seen.
    pub first_seen_ms: i64,
    /// When its state last changed.
    pub changed_ms: i64,
}

pub(crate) const OF_SUBJECT: &str = "SELECT subject, key, state, body, first_seen_ms, changed_ms \
     FROM findings WHERE subject = $1 ORDER BY key";
pub(crate) const PUT: &str = "INSERT INTO findings \
     (subject, key, state, body, first_seen_ms, changed_ms) VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT (subject, key) DO UPDATE SET state = excluded.state, body = excluded.body, \
     changed_ms = excluded.changed_ms";
pub(crate) const STATES: &str =
    "SELECT state, COUNT(*) FROM findings GROUP BY state ORDER BY state";

type Stored = (String, String, String, String, i64, i64);

fn row(stored: Stored) -> FindingRow {
    let (subject, key, state, body, first_seen_ms, changed_ms) = stored;
    FindingRow { subject, key, state, body, first_seen_ms, changed_ms }
}

impl Catalog {
    /// All findings ever seen under a name, by key.
    ///
    /// # Errors
    /// The database failed.
    pub async fn findings(&self, subject: &str) -> Result<Vec<FindingRow>> {
        attempt(|| format!("read the findings of {subject}"), async {
            let found: Vec<Stored> =
                sqlx::query_as(OF_SUBJECT).bind(subject).fetch_all(&self.reader).await?;
            Ok(found.into_iter().map(row).collect())
        })
        .await
    }

    /// How many findings are in which state.
    ///
    /// # Errors
    /// The database failed.
    pub async fn finding_states(&self) -> Result<Vec<(String, u64)>> {
        attempt(|| "count findings".to_owned(), async {
            let found: Vec<(String, i64)> = sqlx::query_as(STATES).fetch_all(&self.reader).await?;
            Ok(found.into_iter().map(|(state, n)| (state, n.try_into().unwrap_or(0))).collect())
        })
        .await
    }

    /// Stores changed findings and the events that tell of it, all or nothing. Each event goes to
    /// each receiver.
    ///
    /// # Errors
    /// The database failed.
    pub async fn record_findings(
        &self,
        changed: &[FindingRow],
        events: &[NewEvent],
        receivers: &[String],
        now_ms: i64,
    ) -> Result<()> {
        attempt(|| "record findings".to_owned(), async {
            if changed.is_empty() && events.is_empty() {
                return Ok(());
            }
            let mut write = self.write().await?;
            for finding in changed {
                put(&mut write, finding).await?;
            }
            for event in events {
                outbox::add(&mut write, event, receivers, now_ms).await?;
            }
            write.commit().await
        })
        .await
    }
}

impl Catalog {
    /// Stores what a scan found out, all or nothing. False: nothing was stored, since somebody
    /// changed the findings of that name in the meantime; read them again and decide anew.
    ///
    /// # Errors
    /// The database failed; nothing was stored.
    pub async fn publish(&self, published: &Published<'_>, now_ms: i64) -> Result<bool> {
        let Published { report, subject, known, changed, events, receivers } = *published;
        attempt(|| format!("publish what was found in {subject}"), async {
            let mut write = self.write().await?;
            if !changed.is_empty() || !events.is_empty() {
                write.hold(&format!("findings of {subject}"), Hold::Exclusive).await?;
                let stored: Vec<Stored> =
                    sqlx::query_as(OF_SUBJECT).bind(subject).fetch_all(write.connection()).await?;
                if !stored.into_iter().map(row).eq(known.iter().cloned()) {
                    return Ok(false);
                }
            }
            for finding in changed {
                put(&mut write, finding).await?;
            }
            for event in events {
                outbox::add(&mut write, event, receivers, now_ms).await?;
            }
            if let Some(report) = report {
                inventories::put_report(&mut write, report).await?;
            }
            write.commit().await?;
            Ok(true)
        })
        .await
    }
}

async fn put(write: &mut Write, finding: &FindingRow) -> Result<()> {
    sqlx::query(PUT)
        .bind(&finding.subject)
        .bind(&finding.key)
        .bind(&finding.state)
        .bind(&finding.body)
        .bind(finding.first_seen_ms)
        .bind(finding.changed_ms)
        .execute(write.connection())
        .await?;
    Ok(())
}
