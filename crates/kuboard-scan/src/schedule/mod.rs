//! Scans by the clock: a policy's schedule asks for all images that are in use, spread over a
//! while, and passes over those whose report is current. Advisories that change are matched at
//! once by other means; what a schedule adds are images that were never scanned and those that
//! newer indexers have to read again.
//!
//! Which run was the last stands in the catalogue, so that runs survive restarts: what was missed
//! while nobody ran is made up once. Several engines may run the same schedules: the same job is
//! in the queue only once.

#[cfg(test)]
pub(crate) mod ground;
mod plan;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use kuboard_catalog::{ImageName, NamedImage};
use kuboard_oci::Digest;
use kuboard_rt::Shutdown;
use serde::{Deserialize, Serialize};

pub use plan::{Planned, due, images_of, spread};

use crate::engine::{Engine, ScanError, ScanJob};

/// Times of a schedule, in milliseconds since 1970.
pub trait Times: Send + Sync + 'static {
    /// The first time after `ms`.
    fn next_after(&self, ms: i64) -> Option<i64>;

    /// The last time before `ms`.
    fn last_before(&self, ms: i64) -> Option<i64>;
}

/// A policy with a schedule.
#[derive(Clone)]
pub struct PolicySpec {
    /// Its name, unlike any other's.
    pub name: String,
    /// The schedule's text. When it changes, runs are counted from then on.
    pub schedule: String,
    /// When it is due.
    pub times: Arc<dyn Times>,
    /// Whether it is about an image.
    pub covers: Arc<dyn Fn(&ImageName) -> bool + Send + Sync>,
}

impl fmt::Debug for PolicySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySpec")
            .field("name", &self.name)
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}

/// What is kept of a policy's runs, and what [`last_run`] tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Run {
    /// The schedule it was due by.
    pub schedule: String,
    /// When it was due.
    pub due_ms: i64,
    /// When it ran; 0: the policy is known and did not run yet.
    pub ran_ms: i64,
    /// Images the policy is about.
    pub images: usize,
    /// Those of them that were queued.
    pub queued: usize,
    /// Those whose report was current.
    pub current: usize,
    /// Those of registries that are left alone altogether.
    pub excluded: usize,
}

/// Images that nobody asked for since then are not scanned again.
const IN_USE_MS: i64 = 30 * 86_400_000;
/// Scans of one run are spread over this time at most.
const WINDOW_MS: i64 = 600_000;
/// Behind everything that somebody waits for.
const PRIORITY: i64 = 10;
/// How often the clock is looked at, at least: it may be set.
const LOOK: Duration = Duration::from_secs(30);
const SHORTEST: Duration = Duration::from_millis(200);

/// Gives the policies of the moment.
pub type Policies = Arc<dyn Fn() -> Vec<PolicySpec> + Send + Sync>;

/// Runs the schedules until stop. `policies` is asked each time, because they change while this
/// runs.
///
/// # Errors
/// None; the return type is that of a role.
pub async fn run(engine: Arc<Engine>, policies: Policies, stop: Shutdown) -> anyhow::Result<()> {
    loop {
        let now_ms = engine.now_ms();
        let policies = policies();
        match run_due(&engine, &policies, now_ms).await {
            Ok(runs) => {
                for (name, run) in runs {
                    tracing::info!(
                        policy = name,
                        images = run.images,
                        queued = run.queued,
                        current = run.current,
                        "scheduled scans"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "schedules not run; they are tried again"),
        }
        let next_ms = policies.iter().filter_map(|policy| policy.times.next_after(now_ms)).min();
        let wait = next_ms.map_or(LOOK, |next_ms| {
            let until = next_ms.saturating_sub(engine.now_ms()).max(0).unsigned_abs();
            Duration::from_millis(until).clamp(SHORTEST, LOOK)
        });
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.begun() => return Ok(()),
        }
    }
}

/// Runs what is due at `now_ms`: by policy, what it came to.
///
/// # Errors
/// The catalogue failed. What was not run is still due.
pub async fn run_due(
    engine: &Engine,
    policies: &[PolicySpec],
    now_ms: i64,
) -> Result<Vec<(String, Run)>, ScanError> {
    let mut marks = HashMap::new();
    for policy in policies {
        if let Some(run) = last_run(engine, &policy.name).await? {
            marks.insert(policy.name.clone(), run);
        }
    }
    let planned = due(policies, &marks, now_ms);
    if planned.is_empty() {
        return Ok(Vec::new());
    }
    // Only runs need the list of images; policies that are new do not.
    let mut seen = None;
    let mut current = HashMap::new();
    let mut runs = Vec::new();
    for Planned { policy, due_ms, window_ms } in planned {
        let mut run = Run { schedule: policy.schedule.clone(), due_ms, ..Run::default() };
        if let Some(window_ms) = window_ms {
            if seen.is_none() {
                seen = Some(engine.catalog().images_seen_since(now_ms - IN_USE_MS).await?);
            }
            let images = images_of(policy, seen.as_deref().unwrap_or_default());
            run.images = images.len();
            run.ran_ms = now_ms;
            for image in images {
                if engine.excludes(&image.name.registry) {
                    run.excluded += 1;
                } else if is_current(engine, &image.image, &mut current).await? {
                    run.current += 1;
                } else {
                    engine
                        .ask(&job(image), PRIORITY, now_ms + spread(&image.image, window_ms))
                        .await?;
                    run.queued += 1;
                }
            }
            runs.push((policy.name.clone(), run.clone()));
        }
        let mark = serde_json::to_string(&run).unwrap_or_default();
        engine.catalog().set_mark(&mark_name(&policy.name), &mark).await?;
    }
    Ok(runs)
}

/// The last run of a policy.
///
/// # Errors
/// The catalogue failed.
pub async fn last_run(engine: &Engine, policy: &str) -> Result<Option<Run>, ScanError> {
    let mark = engine.catalog().mark(&mark_name(policy)).await?;
    Ok(mark.and_then(|mark| serde_json::from_str(&mark).ok()))
}

fn mark_name(policy: &str) -> String {
    format!("schedule {policy}")
}

fn job(image: &NamedImage) -> ScanJob {
    ScanJob {
        registry: image.name.registry.clone(),
        repository: image.name.repository.clone(),
        tag: image.name.tag.clone(),
        image: image.image,
        fetch: true,
        layers: Vec::new(),
    }
}

/// Whether an image's report says what a scan would say now.
async fn is_current(
    engine: &Engine,
    image: &Digest,
    known: &mut HashMap<Digest, bool>,
) -> Result<bool, ScanError> {
    if let Some(is_current) = known.get(image) {
        return Ok(*is_current);
    }
    let generation = engine.generation();
    let report = engine.catalog().report(image).await?;
    let mut is_current = report.is_some_and(|report| report.generation == generation);
    if is_current {
        let inventory = engine.catalog().image_inventory(image).await?;
        is_current = inventory.is_some_and(|row| row.indexer == engine.state());
    }
    known.insert(*image, is_current);
    Ok(is_current)
}
