//! Kubernetes Events on refusals and warnings: what `kubectl describe` and `kubectl get events`
//! show to who wonders why nothing starts. A controller asks again and again, so the same is told
//! at most twice a minute, and all of it at a bounded rate; what is too much is counted.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use kuboard_rt::{Clock, Shutdown};
use tokio::sync::mpsc;

use crate::{
    Error, OperatorMetrics,
    client::{ASK, once},
    reports::Bucket,
};

/// Events that wait to be written.
const QUEUE: usize = 1_000;
const PER_SECOND: u32 = 5;
const BURST: u32 = 50;
/// The same about the same is told once in so long.
const SAME_MS: i64 = 30_000;
/// What is remembered to tell the same from what is new.
const MAX_REMEMBERED: usize = 10_000;
const MAX_NOTE: usize = 1_000;

/// Something that somebody should be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The namespace in which it happened.
    pub namespace: String,
    /// The object it is about, or the owner of one that is not there (yet).
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid; empty if it has none yet.
    pub uid: String,
    /// One word in camel case: `ImageDenied`, `ImageWarning`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Takes what is told. Never waits. Cheap to clone.
#[derive(Clone)]
pub struct Teller {
    queue: mpsc::Sender<Told>,
    metrics: Arc<OperatorMetrics>,
}

impl Teller {
    /// Tells it, or counts it as too much.
    pub fn tell(&self, told: Told) {
        if self.queue.try_send(told).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

/// Writes what is told.
pub struct Events {
    queue: mpsc::Receiver<Told>,
    client: Client,
    clock: Arc<dyn Clock>,
    metrics: Arc<OperatorMetrics>,
    reporter: Reporter,
    spoken: Spoken,
}

/// Which of many are written. Pure.
struct Spoken {
    bucket: Bucket,
    last: HashMap<(String, String, String, String), (i64, String)>,
}

impl Spoken {
    fn new() -> Self {
        Self { bucket: Bucket::new(PER_SECOND, BURST), last: HashMap::new() }
    }

    /// Whether it is written now. `now_ms` is monotonic.
    fn may(&mut self, told: &Told, now_ms: i64) -> bool {
        let key = (
            told.namespace.clone(),
            format!("{}/{}", told.kind, told.name),
            told.uid.clone(),
            told.reason.clone(),
        );
        let is_same = self.last.get(&key).is_some_and(|(at_ms, message)| {
            now_ms.saturating_sub(*at_ms) < SAME_MS && *message == told.message
        });
        if is_same || self.bucket.take(now_ms).is_err() {
            return false;
        }
        if self.last.len() >= MAX_REMEMBERED {
            self.last.retain(|_, (at_ms, _)| now_ms.saturating_sub(*at_ms) < SAME_MS);
        }
        if self.last.len() < MAX_REMEMBERED {
            self.last.insert(key, (now_ms, told.message.clone()));
        }
        true
    }
}

impl Events {
    /// A writer and what tells it. `instance` is the name of our pod.
    #[must_use]
    pub fn new(
        client: Client,
        instance: &str,
        clock: Arc<dyn Clock>,
        metrics: Arc<OperatorMetrics>,
    ) -> (Self, Teller) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let teller = Teller { queue: sender, metrics: metrics.clone() };
        let reporter = Reporter {
            controller: "kuboard.cn/admission".to_owned(),
            instance: Some(instance.chars().take(128).collect()),
        };
        (Self { queue, client, clock, metrics, reporter, spoken: Spoken::new() }, teller)
    }

    /// Writes until `stop` begins.
    pub async fn run(mut self, stop: Shutdown) {
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        loop {
            let told = tokio::select! {
                () = stop.begun() => return,
                told = self.queue.recv() => told,
            };
            let Some(told) = told else { return };
            let now_ms = i64::try_from(self.clock.monotonic().as_millis()).unwrap_or(i64::MAX);
            if !self.spoken.may(&told, now_ms) {
                self.metrics.events_dropped.inc();
                continue;
            }
            let outcome = publish(&recorder, &told).await;
            self.metrics.wrote("Event", &outcome);
            if let Err(error) = outcome {
                tracing::debug!("{error}");
                // An API server that is away needs no queue that hammers at it.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn publish(recorder: &Recorder, told: &Told) -> Result<(), Error> {
    let event = Event {
        type_: EventType::Warning,
        reason: told.reason.clone(),
        note: Some(told.message.chars().take(MAX_NOTE).collect()),
        action: "Admission".to_owned(),
        secondary: None,
    };
    let regarding = ObjectReference {
        api_version: Some(told.api_version.clone()),
        kind: Some(told.kind.clone()),
        name: Some(told.name.clone()),
        namespace: Some(told.namespace.clone()),
        uid: Some(told.uid.clone()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    };
    let what = format!("write an Event in {}", told.namespace);
    once(&what, ASK, recorder.publish(&event, &regarding)).await
}

#[cfg(test)]
mod tests {
    use super::{BURST, SAME_MS, Spoken, Told};

    fn told(name: &str, message: &str) -> Told {
        Told {
            namespace: "shop".to_owned(),
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: name.to_owned(),
            uid: "1".to_owned(),
            reason: "ImageDenied".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn the_same_is_told_once_in_a_while() {
        let mut spoken = Spoken::new();
        assert!(spoken.may(&told("web", "CVE-1"), 0));
        assert!(!spoken.may(&told("web", "CVE-1"), SAME_MS - 1));
        assert!(spoken.may(&told("web", "CVE-2"), SAME_MS - 1), "something else");
        assert!(spoken.may(&told("api", "CVE-1"), SAME_MS - 1), "about something else");
        assert!(spoken.may(&told("web", "CVE-2"), 2 * SAME_MS));
    }

    #[test]
    fn a_flood_is_cut() {
        let mut spoken = Spoken::new();
        let written =
            (0..1_000).filter(|number| spoken.may(&told(&number.to_string(), "x"), 0)).count();
        assert_eq!(written, BURST as usize);
    }
}
