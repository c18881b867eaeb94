//! `kuboard events`, `kuboard jobs`, `kuboard policies`: what waits to be told or done, what was
//! set aside, and whether policies mean what they should. They look into the catalogue beside a
//! server that may be running; it takes up what they changed by itself.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use kuboard_api::policy;
use kuboard_catalog::{Catalog, JobRow, JobState};
use kuboard_rt::{Clock, SystemClock, Tasks};
use serde_json::json;

use crate::{
    boot,
    cli::{Format, Place},
    output,
};

#[derive(Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Output format
    #[arg(long, short, value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) order: EventsOrder,
}

#[derive(Subcommand)]
pub(crate) enum EventsOrder {
    /// Count events by receiver and state, or list those that were given up
    Ls {
        /// List events that were given up, oldest first
        #[arg(long)]
        dead: bool,
        /// Only those of this receiver
        #[arg(long, value_name = "NAME")]
        receiver: Option<String>,
        /// At most so many
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: u32,
    },
    /// Send events that were given up once more
    Replay {
        /// Only those of this receiver
        #[arg(long, value_name = "NAME")]
        receiver: Option<String>,
        /// Only this event
        #[arg(long, value_name = "NUMBER")]
        id: Option<i64>,
    },
}

#[derive(Args)]
pub(crate) struct JobsArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Output format
    #[arg(long, short, value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) order: JobsOrder,
}

#[derive(Subcommand)]
pub(crate) enum JobsOrder {
    /// List jobs, newest first [default: those that run, wait or failed]
    Ls {
        /// Only jobs in this state
        #[arg(long, value_enum, value_name = "STATE")]
        state: Option<State>,
        /// Only jobs of this kind: scan, rematch
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// At most so many of each state
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: u32,
    },
    /// Give a job that failed all its attempts again
    Retry {
        /// The job's number
        id: i64,
    },
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    Waiting,
    Running,
    Done,
    Failed,
}

#[derive(Args)]
pub(crate) struct PoliciesArgs {
    /// Output format
    #[arg(long, short, value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) order: PoliciesOrder,
}

#[derive(Subcommand)]
pub(crate) enum PoliciesOrder {
    /// Check the policies in a folder's YAML files, and show what they come to
    Check {
        /// The folder
        dir: PathBuf,
    },
}

/// Runs `kuboard events`.
pub(crate) fn run(args: &EventsArgs) -> anyhow::Result<ExitCode> {
    with_catalog(&args.place, async |catalog| match &args.order {
        EventsOrder::Ls { dead: false, receiver, .. } => {
            show_states(&catalog, receiver.as_deref(), args.output).await
        }
        EventsOrder::Ls { dead: true, receiver, limit } => {
            let receiver = receiver.as_deref().unwrap_or_default();
            show_dead(&catalog, receiver, *limit, args.output).await
        }
        EventsOrder::Replay { receiver, id } => {
            let name = receiver.as_deref().unwrap_or_default();
            let count = catalog.replay(name, *id, SystemClock.now_ms()).await?;
            if let (0, Some(id)) = (count, id) {
                bail!("event {id} was not given up; hint: see `kuboard events ls --dead`");
            }
            match args.output {
                Format::Json => output::json(&json!({ "replayed": count })),
                Format::Table => {
                    output::line(&format!("{count} on their way again"));
                    Ok(())
                }
            }
        }
    })
}

/// Runs `kuboard jobs`.
pub(crate) fn jobs(args: &JobsArgs) -> anyhow::Result<ExitCode> {
    with_catalog(&args.place, async |catalog| match &args.order {
        JobsOrder::Ls { state, kind, limit } => {
            let states = match state {
                None => vec![JobState::Running, JobState::Waiting, JobState::Failed],
                Some(State::Waiting) => vec![JobState::Waiting],
                Some(State::Running) => vec![JobState::Running],
                Some(State::Done) => vec![JobState::Done],
                Some(State::Failed) => vec![JobState::Failed],
            };
            let mut rows = Vec::new();
            for state in states {
                rows.extend(
                    catalog.jobs(state, kind.as_deref().unwrap_or_default(), *limit).await?,
                );
            }
            show_jobs(&rows, args.output)
        }
        JobsOrder::Retry { id } => {
            if !catalog.revive_job(*id, SystemClock.now_ms()).await? {
                bail!(
                    "job {id} did not fail, or the same is asked for anew; hint: see `kuboard jobs \
                     ls --state failed`"
                );
            }
            output::note("queued again");
            Ok(())
        }
    })
}

/// Runs `kuboard policies`.
pub(crate) fn policies(args: &PoliciesArgs) -> anyhow::Result<ExitCode> {
    let PoliciesOrder::Check { dir } = &args.order;
    let folder = policy::load(dir)?;
    let next = |it: &policy::Loaded| {
        let schedule = it.policy.schedule.as_ref().filter(|_| !it.policy.suspended)?;
        schedule.next_after(SystemClock.now_ms())
    };
    match args.output {
        Format::Json => {
            let list: Vec<_> = folder
                .policies
                .iter()
                .map(|it| {
                    json!({
                        "kind": it.policy.scope.kind(),
                        "name": it.policy.name(),
                        "file": it.file,
                        "line": it.line,
                        "severityThreshold": it.policy.threshold.map(policy::Threshold::as_str),
                        "ignoreUnfixed": it.policy.ignore_unfixed,
                        "excludeRegistries": it.policy.exclude_registries(),
                        "images": it.policy.images(),
                        "schedule": it.policy.schedule.as_ref().map(ToString::to_string),
                        "suspended": it.policy.suspended,
                        "nextRun": next(it).map(time),
                    })
                })
                .collect();
            output::json(&list)?;
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = folder
                .policies
                .iter()
                .map(|it| {
                    let policy = &it.policy;
                    let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
                    let next = match policy.suspended {
                        true => "suspended".to_owned(),
                        false => text(next(it).map(time)),
                    };
                    vec![
                        policy.scope.kind().to_owned(),
                        policy.name(),
                        text(policy.threshold.map(|it| it.to_string())),
                        text(policy.schedule.as_ref().map(ToString::to_string)),
                        next,
                        policy.exclude_registries().join(","),
                    ]
                })
                .collect();
            output::table(
                &["KIND", "NAME", "THRESHOLD", "SCHEDULE", "NEXT RUN", "EXCLUDED"],
                &rows,
            );
        }
    }
    for skipped in &folder.skipped {
        let (file, line) = (skipped.file.display(), skipped.line);
        output::note(&format!("{file}:{line}: {} is no policy and was passed over", skipped.what));
    }
    if folder.policies.is_empty() {
        bail!("{} holds no policy; hint: its files must end in .yaml", dir.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn with_catalog(
    place: &Place,
    work: impl AsyncFnOnce(Catalog) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let config = boot::config(place)?;
    boot::require_data(&config)?;
    boot::block_on(async {
        let stores = boot::Stores::open(&config, boot::Use::Look, Tasks::default()).await?;
        work(stores.catalog.clone()).await?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn show_states(
    catalog: &Catalog,
    receiver: Option<&str>,
    format: Format,
) -> anyhow::Result<()> {
    let mut states = catalog.delivery_states().await?;
    states.retain(|(name, ..)| receiver.is_none_or(|receiver| receiver == name));
    match format {
        Format::Json => {
            let list: Vec<_> = states
                .iter()
                .map(|(receiver, state, count)| {
                    json!({ "receiver": receiver, "state": shown(state), "count": count })
                })
                .collect();
            output::json(&list)
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = states
                .iter()
                .map(|(receiver, state, count)| {
                    vec![receiver.clone(), shown(state).to_owned(), count.to_string()]
                })
                .collect();
            output::table(&["RECEIVER", "STATE", "EVENTS"], &rows);
            Ok(())
        }
    }
}

/// States of deliveries as people say them.
fn shown(state: &str) -> &str {
    match state {
        "done" => "delivered",
        other => other,
    }
}

async fn show_dead(
    catalog: &Catalog,
    receiver: &str,
    limit: u32,
    format: Format,
) -> anyhow::Result<()> {
    let dead = catalog.dead_letters(receiver, limit).await?;
    match format {
        Format::Json => {
            let list: Vec<_> = dead
                .iter()
                .map(|row| {
                    json!({
                        "id": row.event,
                        "key": row.key,
                        "receiver": row.receiver,
                        "type": row.kind,
                        "time": time(row.created_ms),
                        "reason": row.reason,
                        "data": serde_json::from_str::<serde_json::Value>(&row.body).ok(),
                    })
                })
                .collect();
            output::json(&list)
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = dead
                .iter()
                .map(|row| {
                    let body: serde_json::Value =
                        serde_json::from_str(&row.body).unwrap_or_default();
                    vec![
                        row.event.to_string(),
                        row.receiver.clone(),
                        time(row.created_ms),
                        cell(body["subject"].as_str().unwrap_or(&row.kind), 60),
                        cell(&row.reason, 100),
                    ]
                })
                .collect();
            output::table(&["ID", "RECEIVER", "TIME", "SUBJECT", "REASON"], &rows);
            Ok(())
        }
    }
}

fn show_jobs(jobs: &[JobRow], format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let list: Vec<_> = jobs
                .iter()
                .map(|job| {
                    json!({
                        "id": job.id,
                        "kind": job.kind,
                        "subject": job.subject,
                        "state": job.state.as_str(),
                        "priority": job.priority,
                        "attempts": job.attempts,
                        "created": time(job.created_ms),
                        "notBefore": time(job.run_after_ms),
                        "worker": job.worker,
                        "finished": (job.finished_ms > 0).then(|| time(job.finished_ms)),
                        "reason": job.reason,
                        "payload": serde_json::from_str::<serde_json::Value>(&job.payload).ok(),
                    })
                })
                .collect();
            output::json(&list)
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = jobs
                .iter()
                .map(|job| {
                    vec![
                        job.id.to_string(),
                        job.kind.clone(),
                        job.state.as_str().to_owned(),
                        job.priority.to_string(),
                        job.attempts.to_string(),
                        time(job.created_ms),
                        cell(&job.subject, 19),
                        cell(&job.reason, 100),
                    ]
                })
                .collect();
            let headings =
                ["ID", "KIND", "STATE", "PRIORITY", "TRIES", "ASKED FOR", "SUBJECT", "REASON"];
            output::table(&headings, &rows);
            Ok(())
        }
    }
}

/// A time as people and machines read it.
fn time(ms: i64) -> String {
    let at = Timestamp::from_second(ms.div_euclid(1000)).unwrap_or_default();
    at.to_string()
}

/// Text of others for a table: one line, not too long, nothing that moves the cursor.
fn cell(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::{cell, time};

    #[test]
    fn texts_of_others_keep_to_their_cell() {
        assert_eq!(cell("a\u{1b}[2Jb\nc", 6), "a [2Jb");
        assert_eq!(time(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert_eq!(time(i64::MAX), "1970-01-01T00:00:00Z");
    }
}
