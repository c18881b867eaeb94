//! Facts for admission: from the scan engine's reports, kept at hand in memory.

use std::{collections::HashSet, sync::Arc, time::Duration};

use kuboard_admission::{FactsIndex, FactsSource, ScanRequest};
use kuboard_catalog::ImageName;
use kuboard_oci::Digest;
use kuboard_rt::{BoxFuture, Shutdown, Tasks};
use kuboard_scan::engine::{AWAITED, Engine};
use kuboard_vuln::ImageFacts;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::digests::Places;

/// How often the catalogue is asked for reports that changed.
const TICK: Duration = Duration::from_millis(500);
/// Changes that are read at a time.
const PAGE: u32 = 500;
/// Priority of a scan for a workload whose pods are to come.
const EXPECTED: i64 = 60;
/// Scans that are being asked for at a time; what comes beyond is asked for again by its pod.
const MAX_ASKING: usize = 4096;

/// Reports of the scan engine as facts.
pub(crate) struct EngineFacts {
    engine: Arc<Engine>,
    places: Places,
    tasks: Tasks,
    asking: Arc<Mutex<HashSet<Digest>>>,
}

impl EngineFacts {
    pub(crate) fn new(engine: Arc<Engine>, places: Places, tasks: Tasks) -> Self {
        Self { engine, places, tasks, asking: Arc::default() }
    }
}

impl FactsSource for EngineFacts {
    fn facts<'a>(
        &'a self,
        manifest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<ImageFacts>, String>> {
        Box::pin(async { self.engine.facts(manifest).await.map_err(|error| error.to_string()) })
    }

    fn scan(&self, request: ScanRequest) {
        let Some(place) = self.places.of(&request.image) else { return };
        {
            let mut asking = self.asking.lock();
            if asking.len() >= MAX_ASKING || !asking.insert(request.manifest) {
                return;
            }
        }
        let name = ImageName {
            registry: place.registry,
            repository: place.repository.to_string(),
            tag: match (&request.image.digest, &request.image.tag) {
                (Some(_), _) => String::new(),
                (None, Some(tag)) => tag.to_string(),
                (None, None) => "latest".to_owned(),
            },
        };
        let priority = if request.urgent { AWAITED } else { EXPECTED };
        let (engine, asking) = (self.engine.clone(), self.asking.clone());
        self.tasks.spawn("ask for a scan", async move {
            let asked = engine.ask_for(&name, &request.manifest, priority).await;
            asking.lock().remove(&request.manifest);
            if let Err(error) = asked {
                tracing::warn!(image = %request.manifest, %error, "scan not asked for yet");
            }
        });
    }
}

/// Keeps the index as the catalogue is, until stop: everything once, then what changes. `changed`
/// counts changes.
pub(crate) async fn follow(
    engine: Arc<Engine>,
    index: Arc<FactsIndex>,
    changed: watch::Sender<u64>,
    stop: Shutdown,
) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        match step(&engine, &index, after).await {
            Ok(reached) if reached != after => {
                after = reached;
                changed.send_modify(|number| *number += 1);
                continue;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "reports not looked at"),
        }
        tokio::select! {
            () = stop.begun() => return Ok(()),
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

async fn step(engine: &Engine, index: &FactsIndex, after: u64) -> anyhow::Result<u64> {
    let changes = engine.catalog().report_changes(after, PAGE).await?;
    let mut reached = after;
    for change in changes {
        match engine.facts(&change.image).await {
            Ok(Some(facts)) => _ = index.put(&change.image, &facts),
            Ok(None) => _ = index.remove(&change.image),
            Err(error) if error.is_retryable() => return Err(error.into()),
            // One damaged report must not keep all later ones from being read.
            Err(error) => {
                tracing::warn!(image = %change.image, %error, "no facts of an image");
                _ = index.remove(&change.image);
            }
        }
        reached = change.number;
    }
    Ok(reached)
}
