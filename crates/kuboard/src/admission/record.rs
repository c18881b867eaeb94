//! Decisions into the catalogue: a row for each image of each object that was judged.

use std::{sync::Arc, time::Duration};

use kuboard_admission::{Decision, Reason, Recorder};
use kuboard_catalog::{Catalog, NewDecision};
use kuboard_rt::{Clock, Shutdown};
use prometheus::IntCounter;
use serde_json::json;
use tokio::sync::mpsc;

/// Decisions that wait to be stored; what comes beyond is counted and lost.
const MAX_WAITING: usize = 4096;
/// Rows of one transaction.
const BATCH: usize = 256;
/// How long a decision may wait for others to be stored with it.
const GATHER: Duration = Duration::from_millis(200);
/// After a failure of the catalogue.
const PAUSE: Duration = Duration::from_secs(1);
/// How often old ones are forgotten.
const FORGET: Duration = Duration::from_secs(3600);
/// Rows that are kept, however young.
const MAX_ROWS: u32 = 5_000_000;

/// Takes decisions without waiting.
pub(crate) struct Record {
    send: mpsc::Sender<Decision>,
    lost: IntCounter,
}

/// Stores what [`Record`] took.
pub(crate) struct Keeper {
    receive: mpsc::Receiver<Decision>,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    keep: Duration,
}

/// Both ends. `keep`: how long decisions are kept.
pub(crate) fn record(
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    keep: Duration,
    registry: &prometheus::Registry,
) -> anyhow::Result<(Record, Keeper)> {
    let lost = decisions_lost(registry)?;
    let (send, receive) = mpsc::channel(MAX_WAITING);
    Ok((Record { send, lost }, Keeper { receive, catalog, clock, keep }))
}

/// Counts decisions that were not kept.
pub(crate) fn decisions_lost(registry: &prometheus::Registry) -> anyhow::Result<IntCounter> {
    let lost = IntCounter::new(
        "admission_decisions_lost_total",
        "Decisions that were made but not kept, because the catalogue was too slow.",
    )?;
    registry.register(Box::new(lost.clone()))?;
    Ok(lost)
}

impl Recorder for Record {
    fn record(&self, decision: Decision) {
        if self.send.try_send(decision).is_err() {
            self.lost.inc();
        }
    }
}

impl Keeper {
    /// Stores until stop, and then what still waits, in one try.
    pub(crate) async fn run(mut self, stop: Shutdown) -> anyhow::Result<()> {
        let mut forget = tokio::time::interval(FORGET);
        let mut rows = Vec::new();
        loop {
            tokio::select! {
                () = stop.begun() => break,
                _ = forget.tick() => self.forget().await,
                // What could not be stored is tried again, also if nothing new comes.
                () = tokio::time::sleep(PAUSE), if !rows.is_empty() => self.store(&mut rows).await,
                // While the catalogue is away, the channel fills and what comes beyond is counted.
                decision = self.receive.recv(), if rows.len() < BATCH => {
                    let Some(decision) = decision else { break };
                    rows.extend(rows_of(&decision));
                    tokio::time::sleep(GATHER).await;
                    self.gather(&mut rows);
                    self.store(&mut rows).await;
                }
            }
        }
        loop {
            self.gather(&mut rows);
            let waiting = rows.len();
            self.store(&mut rows).await;
            if !rows.is_empty() {
                tracing::error!(lost = rows.len(), "decisions lost: the catalogue is away");
            }
            if waiting == 0 || !rows.is_empty() {
                return Ok(());
            }
        }
    }

    fn gather(&mut self, rows: &mut Vec<NewDecision>) {
        while rows.len() < BATCH
            && let Ok(decision) = self.receive.try_recv()
        {
            rows.extend(rows_of(&decision));
        }
    }

    async fn store(&self, rows: &mut Vec<NewDecision>) {
        if rows.is_empty() {
            return;
        }
        match self.catalog.put_decisions(rows).await {
            Ok(()) => rows.clear(),
            Err(error) => {
                tracing::warn!(%error, waiting = rows.len(), "decisions not stored yet");
            }
        }
    }

    async fn forget(&self) {
        let keep_ms = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
        let before_ms = self.clock.now_ms().saturating_sub(keep_ms);
        if let Err(error) = self.catalog.prune_decisions(before_ms, MAX_ROWS).await {
            tracing::debug!(%error, "old decisions not forgotten");
        }
    }
}

/// A row for each image; without one, a row for the object.
fn rows_of(decision: &Decision) -> Vec<NewDecision> {
    let owner = decision.owner.as_ref();
    let base = NewDecision {
        at_ms: decision.at_ms,
        uid: decision.uid.clone(),
        operation: decision.operation.to_owned(),
        namespace: decision.namespace.clone(),
        pod: decision.name.clone(),
        owner: owner.map(|it| format!("{}/{}", it.kind, it.name)).unwrap_or_default(),
        user: decision.user.clone(),
        outcome: decision.verdict.outcome.as_str().to_owned(),
        ..NewDecision::default()
    };
    let mut rows: Vec<NewDecision> = Vec::new();
    for image in &decision.images {
        let reasons: Vec<&Reason> =
            decision.verdict.reasons.iter().filter(|it| it.image == image.image).collect();
        let facts: Vec<_> = image
            .facts
            .iter()
            .map(|it| {
                json!({"manifest": it.manifest.to_string(), "scannedMs": it.scanned_ms,
                    "findings": it.findings})
            })
            .collect();
        let said: Vec<_> = reasons
            .iter()
            .map(|it| {
                json!({"outcome": it.outcome.as_str(), "policy": it.policy,
                    "cause": format!("{:?}", it.cause)})
            })
            .collect();
        rows.push(NewDecision {
            policy: reasons.first().map(|it| it.policy.clone()).unwrap_or_default(),
            outcome: reasons.first().map_or("allow", |it| it.outcome.as_str()).to_owned(),
            image: image.image.clone(),
            digest: image.digest.map(|it| it.to_string()).unwrap_or_default(),
            detail: json!({"webhook": decision.webhook, "kind": decision.kind,
                "place": image.place, "facts": facts, "reasons": said,
                "verdict": decision.verdict.outcome.as_str(),
                "exemptions": decision.verdict.forgiven, "inGrace": decision.verdict.in_grace})
            .to_string(),
            ..base.clone()
        });
    }
    if rows.is_empty() {
        rows.push(base);
    }
    rows
}
