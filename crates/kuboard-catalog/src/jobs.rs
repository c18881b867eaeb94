//! The durable job queue: leases, priorities, retries, and jobs set aside with their reason.
//!
//! At most one job of a kind and subject is open (waiting or running). Asking again while it waits
//! can only make it more urgent; asking again while it runs makes it run once more afterwards, since
//! what it read may be older than the question. A worker holds a job by a lease that it renews;
//! when the lease is over the job is anybody's again. A job that used up its attempts, also by
//! workers that died under it, is set aside as failed and stays to be looked at.

use crate::{
    database::Catalog,
    dialect::Dialect,
    error::{Error, ErrorKind, Result, attempt},
};

/// A job to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewJob {
    /// What is to be done: `scan`, `rematch`, …
    pub kind: String,
    /// To what: one open job a kind and subject.
    pub subject: String,
    /// JSON for the worker.
    pub payload: String,
    /// Higher ones first.
    pub priority: i64,
    /// Not before, milliseconds since 1970.
    pub run_after_ms: i64,
    /// Runs, the first one included, before it is set aside.
    pub max_attempts: u32,
}

/// A job that a worker holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeasedJob {
    /// Its number.
    pub id: i64,
    /// What is to be done.
    pub kind: String,
    /// To what.
    pub subject: String,
    /// JSON.
    pub payload: String,
    /// Which run this is, from 1.
    pub attempt: u32,
    /// Of how many.
    pub max_attempts: u32,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum JobState {
    /// Waits for a worker.
    Waiting,
    /// A worker holds it.
    Running,
    /// Done.
    Done,
    /// Set aside.
    Failed,
}

impl JobState {
    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        [Self::Waiting, Self::Running, Self::Done, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the database holds a bad job state"))
    }
}

/// A job as it is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JobRow {
    /// Its number.
    pub id: i64,
    /// What is to be done.
    pub kind: String,
    /// To what.
    pub subject: String,
    /// JSON.
    pub payload: String,
    /// Higher ones first.
    pub priority: i64,
    /// Where it stands.
    pub state: JobState,
    /// Runs so far.
    pub attempts: u32,
    /// When it was asked for.
    pub created_ms: i64,
    /// Not before.
    pub run_after_ms: i64,
    /// Who holds it.
    pub worker: String,
    /// Until when.
    pub lease_until_ms: i64,
    /// When it ended.
    pub finished_ms: i64,
    /// Why it failed last.
    pub reason: String,
}

/// How long the queue is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueDepth {
    /// Kind of jobs.
    pub kind: String,
    /// Where they stand: waiting, running or failed.
    pub state: JobState,
    /// How many.
    pub count: u64,
    /// When the oldest was asked for.
    pub oldest_ms: i64,
}

/// What to do with a job that did not succeed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AfterFailure {
    /// Try again not before, unless its attempts are used up.
    RetryAt(i64),
    /// Set it aside.
    SetAside,
}

pub(crate) const ENQUEUE: &str = "INSERT INTO jobs \
     (kind, subject, payload, priority, state, max_attempts, created_ms, run_after_ms) \
     VALUES ($1, $2, $3, $4, 'waiting', $5, $6, $7) \
     ON CONFLICT (kind, subject) WHERE state IN ('waiting', 'running') DO UPDATE SET \
     payload = excluded.payload, \
     priority = CASE WHEN jobs.priority > excluded.priority THEN jobs.priority ELSE excluded.priority END, \
     run_after_ms = CASE WHEN jobs.state = 'waiting' AND jobs.run_after_ms < excluded.run_after_ms \
       THEN jobs.run_after_ms ELSE excluded.run_after_ms END, \
     again = CASE WHEN jobs.state = 'running' THEN 1 ELSE jobs.again END \
     RETURNING id";
const RENEW: &str = "UPDATE jobs SET lease_until_ms = $3 \
     WHERE id = $1 AND state = 'running' AND worker = $2";
const COMPLETE: &str = "UPDATE jobs SET \
     state = CASE WHEN again = 1 THEN 'waiting' ELSE 'done' END, \
     attempts = CASE WHEN again = 1 THEN 0 ELSE attempts END, \
     again = 0, worker = '', lease_until_ms = 0, finished_ms = $3, reason = '' \
     WHERE id = $1 AND state = 'running' AND worker = $2";
/// Asked for again while it ran, it was asked for anew, perhaps with another payload: that is not
/// what failed.
const FAIL: &str = "UPDATE jobs SET \
     state = CASE WHEN again = 0 AND ($5 = 1 OR attempts >= max_attempts) \
       THEN 'failed' ELSE 'waiting' END, \
     run_after_ms = CASE WHEN again = 1 THEN run_after_ms ELSE $4 END, \
     attempts = CASE WHEN again = 1 THEN 0 ELSE attempts END, \
     again = 0, worker = '', lease_until_ms = 0, finished_ms = $3, reason = $6 \
     WHERE id = $1 AND state = 'running' AND worker = $2";
const POSTPONE: &str = "UPDATE jobs SET state = 'waiting', run_after_ms = $3, \
     attempts = CASE WHEN again = 1 OR attempts < 1 THEN 0 ELSE attempts - 1 END, \
     again = 0, worker = '', lease_until_ms = 0 \
     WHERE id = $1 AND state = 'running' AND worker = $2";
/// What a dead worker took down with it for the last time.
const ABANDONED: &str = "UPDATE jobs SET \
     state = CASE WHEN again = 1 THEN 'waiting' ELSE 'failed' END, \
     attempts = CASE WHEN again = 1 THEN 0 ELSE attempts END, \
     again = 0, worker = '', lease_until_ms = 0, \
     finished_ms = $1, reason = 'its worker ' || worker || ' vanished in the last attempt' \
     WHERE state = 'running' AND lease_until_ms < $1 AND attempts >= max_attempts";
const DEPTHS: &str = "SELECT kind, state, COUNT(*), MIN(created_ms) FROM jobs \
     WHERE state IN ('waiting', 'running', 'failed') GROUP BY kind, state ORDER BY kind, state";
const LIST: &str = "SELECT id, kind, subject, payload, priority, state, attempts, created_ms, \
     run_after_ms, worker, lease_until_ms, finished_ms, reason FROM jobs \
     WHERE state = $1 AND ($2 = '' OR kind = $2) ORDER BY id DESC LIMIT $3";
const FIND: &str = "SELECT id, kind, subject, payload, priority, state, attempts, created_ms, \
     run_after_ms, worker, lease_until_ms, finished_ms, reason FROM jobs \
     WHERE kind = $1 AND subject = $2 ORDER BY id DESC LIMIT 1";
const REVIVE: &str = "UPDATE jobs SET state = 'waiting', attempts = 0, run_after_ms = $2 \
     WHERE id = $1 AND state = 'failed' AND NOT EXISTS (SELECT 1 FROM jobs AS other \
     WHERE other.kind = jobs.kind AND other.subject = jobs.subject \
     AND other.state IN ('waiting', 'running'))";
const FORGET: &str = "DELETE FROM jobs WHERE state IN ('done', 'failed') AND finished_ms < $1";

/// The next job: one held by a worker whose lease is over, or else one that waits and is due. Each
/// has an index of its own, which an OR of the two would not walk in order.
fn lease_statement(dialect: Dialect) -> String {
    let skip = match dialect {
        Dialect::Sqlite => "",
        Dialect::Postgres => " FOR UPDATE SKIP LOCKED",
    };
    let kinds = dialect.each("$1");
    format!(
        "UPDATE jobs SET state = 'running', worker = $2, lease_until_ms = $3, \
         attempts = attempts + 1 WHERE id = COALESCE(\
         (SELECT id FROM jobs WHERE state = 'running' AND lease_until_ms < $4 \
         AND kind IN (SELECT value FROM {kinds}) ORDER BY lease_until_ms LIMIT 1{skip}), \
         (SELECT id FROM jobs WHERE state = 'waiting' AND run_after_ms <= $4 \
         AND kind IN (SELECT value FROM {kinds}) \
         ORDER BY priority DESC, run_after_ms, id LIMIT 1{skip})) \
         RETURNING id, kind, subject, payload, attempts, max_attempts"
    )
}

type Listed = (i64, String, String, String, i64, String, i64, i64, i64, String, i64, i64, String);

fn row(listed: Listed) -> Result<JobRow> {
    Ok(JobRow {
        id: listed.0,
        kind: listed.1,
        subject: listed.2,
        payload: listed.3,
        priority: listed.4,
        state: JobState::parse(&listed.5)?,
        attempts: u32::try_from(listed.6).unwrap_or(u32::MAX),
        created_ms: listed.7,
        run_after_ms: listed.8,
        worker: listed.9,
        lease_until_ms: listed.10,
        finished_ms: listed.11,
        reason: listed.12,
    })
}

impl Catalog {
    /// Adds a job, or joins it to the open one of the same kind and subject. Its number.
    ///
    /// # Errors
    /// The database failed.
    pub async fn enqueue(&self, job: &NewJob, now_ms: i64) -> Result<i64> {
        attempt(|| format!("queue {} of {}", job.kind, job.subject), async {
            let (id,): (i64,) = sqlx::query_as(ENQUEUE)
                .bind(&job.kind)
                .bind(&job.subject)
                .bind(&job.payload)
                .bind(job.priority)
                .bind(i64::from(job.max_attempts.max(1)))
                .bind(now_ms)
                .bind(job.run_after_ms)
                .fetch_one(self.writer())
                .await?;
            Ok(id)
        })
        .await
    }

    /// Takes the next job of these kinds for `worker`, until `lease_until_ms`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn lease_job(
        &self,
        kinds: &[&str],
        worker: &str,
        lease_until_ms: i64,
        now_ms: i64,
    ) -> Result<Option<LeasedJob>> {
        attempt(|| "take a job".to_owned(), async {
            let kinds = serde_json::Value::from_iter(kinds.iter().copied()).to_string();
            sqlx::query(ABANDONED).bind(now_ms).execute(self.writer()).await?;
            let taken: Option<(i64, String, String, String, i64, i64)> =
                sqlx::query_as(sqlx::AssertSqlSafe(lease_statement(self.dialect())))
                    .bind(kinds)
                    .bind(worker)
                    .bind(lease_until_ms)
                    .bind(now_ms)
                    .fetch_optional(self.writer())
                    .await?;
            Ok(taken.map(|(id, kind, subject, payload, attempts, max_attempts)| LeasedJob {
                id,
                kind,
                subject,
                payload,
                attempt: u32::try_from(attempts).unwrap_or(u32::MAX),
                max_attempts: u32::try_from(max_attempts).unwrap_or(u32::MAX),
            }))
        })
        .await
    }

    /// Holds a job for longer. False: it is no longer this worker's, stop working on it.
    ///
    /// # Errors
    /// The database failed.
    pub async fn renew_job(&self, id: i64, worker: &str, lease_until_ms: i64) -> Result<bool> {
        attempt(|| format!("renew job {id}"), async {
            let renewed = sqlx::query(RENEW)
                .bind(id)
                .bind(worker)
                .bind(lease_until_ms)
                .execute(self.writer())
                .await?;
            Ok(renewed.rows_affected() > 0)
        })
        .await
    }

    /// Ends a job well. False: it was no longer this worker's.
    ///
    /// # Errors
    /// The database failed.
    pub async fn complete_job(&self, id: i64, worker: &str, now_ms: i64) -> Result<bool> {
        attempt(|| format!("complete job {id}"), async {
            let done = sqlx::query(COMPLETE)
                .bind(id)
                .bind(worker)
                .bind(now_ms)
                .execute(self.writer())
                .await?;
            Ok(done.rows_affected() > 0)
        })
        .await
    }

    /// Ends a run that did not succeed. False: the job was no longer this worker's.
    ///
    /// # Errors
    /// The database failed.
    pub async fn fail_job(
        &self,
        id: i64,
        worker: &str,
        reason: &str,
        after: AfterFailure,
        now_ms: i64,
    ) -> Result<bool> {
        attempt(|| format!("end job {id}"), async {
            let (run_after_ms, aside) = match after {
                AfterFailure::RetryAt(time) => (time, 0_i64),
                AfterFailure::SetAside => (now_ms, 1),
            };
            let reason: String =
                reason.chars().filter(|character| *character != '\0').take(2000).collect();
            let failed = sqlx::query(FAIL)
                .bind(id)
                .bind(worker)
                .bind(now_ms)
                .bind(run_after_ms)
                .bind(aside)
                .bind(reason)
                .execute(self.writer())
                .await?;
            Ok(failed.rows_affected() > 0)
        })
        .await
    }

    /// Gives a job back unfinished, for any worker from then on. This run counts as none: the
    /// worker stops, or has not yet what the job needs. False: it was no longer this worker's.
    ///
    /// # Errors
    /// The database failed.
    pub async fn postpone_job(&self, id: i64, worker: &str, run_after_ms: i64) -> Result<bool> {
        attempt(|| format!("give back job {id}"), async {
            let given = sqlx::query(POSTPONE)
                .bind(id)
                .bind(worker)
                .bind(run_after_ms)
                .execute(self.writer())
                .await?;
            Ok(given.rows_affected() > 0)
        })
        .await
    }

    /// How many jobs wait, run or were set aside.
    ///
    /// # Errors
    /// The database failed.
    pub async fn queue_depths(&self) -> Result<Vec<QueueDepth>> {
        attempt(|| "measure the queue".to_owned(), async {
            let found: Vec<(String, String, i64, i64)> =
                sqlx::query_as(DEPTHS).fetch_all(&self.reader).await?;
            let depth = |(kind, state, count, oldest_ms): (String, String, i64, i64)| {
                let state = JobState::parse(&state)?;
                Ok(QueueDepth { kind, state, count: count.try_into().unwrap_or(0), oldest_ms })
            };
            found.into_iter().map(depth).collect()
        })
        .await
    }

    /// The newest jobs of a state, of one kind or all (`""`).
    ///
    /// # Errors
    /// The database failed.
    pub async fn jobs(&self, state: JobState, kind: &str, limit: u32) -> Result<Vec<JobRow>> {
        attempt(|| "list jobs".to_owned(), async {
            let found: Vec<Listed> = sqlx::query_as(LIST)
                .bind(state.as_str())
                .bind(kind)
                .bind(i64::from(limit))
                .fetch_all(&self.reader)
                .await?;
            found.into_iter().map(row).collect()
        })
        .await
    }

    /// The last job of a kind and subject.
    ///
    /// # Errors
    /// The database failed.
    pub async fn last_job(&self, kind: &str, subject: &str) -> Result<Option<JobRow>> {
        attempt(|| format!("find the last {kind} of {subject}"), async {
            let found: Option<Listed> =
                sqlx::query_as(FIND).bind(kind).bind(subject).fetch_optional(&self.reader).await?;
            found.map(row).transpose()
        })
        .await
    }

    /// Gives a job that was set aside all its attempts again. False: there is none, or the same
    /// is asked for anew already.
    ///
    /// # Errors
    /// The database failed.
    pub async fn revive_job(&self, id: i64, now_ms: i64) -> Result<bool> {
        attempt(|| format!("revive job {id}"), async {
            let revived = sqlx::query(REVIVE).bind(id).bind(now_ms).execute(self.writer()).await?;
            Ok(revived.rows_affected() > 0)
        })
        .await
    }

    /// Forgets jobs that ended before. How many.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_jobs(&self, before_ms: i64) -> Result<u64> {
        attempt(|| "forget old jobs".to_owned(), async {
            Ok(sqlx::query(FORGET).bind(before_ms).execute(self.writer()).await?.rows_affected())
        })
        .await
    }
}
