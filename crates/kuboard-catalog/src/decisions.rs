//! What admission decided on images of pods, and why. Rows are written once and forgotten by age or
//! by number; nothing here changes them.

use sqlx::AnyConnection;

use crate::{
    database::Catalog,
    error::{Result, attempt},
};

/// A decision on one image of an object, to be kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NewDecision {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Uid of the admission request; decisions on the images of one request share it.
    pub uid: String,
    /// `CREATE`, `UPDATE`, …
    pub operation: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the pod, or the prefix that its name will be made of.
    pub pod: String,
    /// Who owns the pod, such as `ReplicaSet/web-5d4f`; empty if nobody does.
    pub owner: String,
    /// Who asked for it.
    pub user: String,
    /// `allow`, `warn`, `audit`, `deny`, …
    pub outcome: String,
    /// The policy that decided; empty if none did.
    pub policy: String,
    /// The image as the pod names it.
    pub image: String,
    /// Digest of its manifest; empty if that is not known.
    pub digest: String,
    /// JSON with everything else.
    pub detail: String,
}

/// A decision as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DecisionRow {
    /// Its number; later ones have higher numbers.
    pub id: i64,
    /// The decision.
    pub decision: NewDecision,
}

/// Which decisions are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecisionFilter<'a> {
    /// Of this namespace; empty: of all.
    pub namespace: &'a str,
    /// With this outcome; empty: with any.
    pub outcome: &'a str,
    /// Before the one of this number; 0: from the newest on.
    pub before: i64,
    /// Made at that time or later, milliseconds since 1970.
    pub since_ms: i64,
}

pub(crate) const ADD: &str = "INSERT INTO decisions (at_ms, uid, operation, namespace, pod, \
     owner, username, outcome, policy, image, digest, detail) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
const COLUMNS: &str = "SELECT id, at_ms, uid, operation, namespace, pod, owner, username, \
     outcome, policy, image, digest, detail FROM decisions";
pub(crate) const PRUNE: &str = "DELETE FROM decisions WHERE at_ms < $1";
pub(crate) const PRUNE_MORE: &str =
    "DELETE FROM decisions WHERE id <= (SELECT MAX(id) FROM decisions) - $1";

/// Each filter has an index of its own, which one statement with alternatives would not walk.
pub(crate) fn list_statement(filter: &DecisionFilter<'_>) -> String {
    let mut conditions = vec!["id < $1", "at_ms >= $2"];
    let (mut parameter, mut made) = (3, Vec::new());
    for (column, value) in [("namespace", filter.namespace), ("outcome", filter.outcome)] {
        if !value.is_empty() {
            made.push(format!("{column} = ${parameter}"));
            parameter += 1;
        }
    }
    conditions.extend(made.iter().map(String::as_str));
    let conditions = conditions.join(" AND ");
    format!("{COLUMNS} WHERE {conditions} ORDER BY id DESC LIMIT ${parameter}")
}

type Stored = (
    i64,
    i64,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
);

fn row(stored: Stored) -> DecisionRow {
    DecisionRow {
        id: stored.0,
        decision: NewDecision {
            at_ms: stored.1,
            uid: stored.2,
            operation: stored.3,
            namespace: stored.4,
            pod: stored.5,
            owner: stored.6,
            user: stored.7,
            outcome: stored.8,
            policy: stored.9,
            image: stored.10,
            digest: stored.11,
            detail: stored.12,
        },
    }
}

async fn add(connection: &mut AnyConnection, decision: &NewDecision) -> Result<()> {
    // Names come from others' objects; PostgreSQL refuses NUL in text.
    let text = |value: &str| value.replace('\0', "");
    sqlx::query(ADD)
        .bind(decision.at_ms)
        .bind(text(&decision.uid))
        .bind(text(&decision.operation))
        .bind(text(&decision.namespace))
        .bind(text(&decision.pod))
        .bind(text(&decision.owner))
        .bind(text(&decision.user))
        .bind(text(&decision.outcome))
        .bind(text(&decision.policy))
        .bind(text(&decision.image))
        .bind(text(&decision.digest))
        .bind(text(&decision.detail))
        .execute(connection)
        .await?;
    Ok(())
}

impl Catalog {
    /// Keeps decisions, all or nothing.
    ///
    /// # Errors
    /// The database failed.
    pub async fn put_decisions(&self, decisions: &[NewDecision]) -> Result<()> {
        if decisions.is_empty() {
            return Ok(());
        }
        attempt(|| format!("keep {} decisions", decisions.len()), async {
            let mut write = self.write().await?;
            for decision in decisions {
                add(write.connection(), decision).await?;
            }
            write.commit().await
        })
        .await
    }

    /// Decisions, the newest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn decisions(
        &self,
        filter: &DecisionFilter<'_>,
        limit: u32,
    ) -> Result<Vec<DecisionRow>> {
        attempt(|| "list decisions".to_owned(), async {
            let before = if filter.before > 0 { filter.before } else { i64::MAX };
            let statement = sqlx::AssertSqlSafe(list_statement(filter));
            let mut query = sqlx::query_as(statement).bind(before).bind(filter.since_ms);
            for value in [filter.namespace, filter.outcome] {
                if !value.is_empty() {
                    query = query.bind(value.to_owned());
                }
            }
            let found: Vec<Stored> = query.bind(i64::from(limit)).fetch_all(&self.reader).await?;
            Ok(found.into_iter().map(row).collect())
        })
        .await
    }

    /// Forgets decisions from before that time, and of the others all but about the last `keep`.
    /// How many were forgotten.
    ///
    /// # Errors
    /// The database failed.
    pub async fn prune_decisions(&self, before_ms: i64, keep: u32) -> Result<u64> {
        attempt(|| "forget old decisions".to_owned(), async {
            let old = sqlx::query(PRUNE).bind(before_ms).execute(self.writer()).await?;
            let more = sqlx::query(PRUNE_MORE).bind(i64::from(keep)).execute(self.writer()).await?;
            Ok(old.rows_affected() + more.rows_affected())
        })
        .await
    }
}
