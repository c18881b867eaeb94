//! What the API server tells becomes snapshots that others read: [`Desired`], [`Running`] and the
//! [`Fleet`]. An API server that is away changes nothing: what was known last stays.
//!
//! Lists are read page by page and then watched; the streaming form of lists is not used, because
//! it fails on older storage of the API server.

mod pod;
mod running;
mod wanted;

use std::{
    fmt::Debug,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::watcher::{self, Event, watcher},
};
use kuboard_api::{
    crd::{ClusterImageScanPolicy, ImageExemption, ImageScanPolicy},
    desired::{Desired, Running},
};
use kuboard_rt::{Clock, Shutdown, retry::Backoff};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

pub use running::{Fleet, Runners, RunningImage};
pub use wanted::{Kept, KeptExemption, KeptPolicy, Table};

use crate::OperatorMetrics;
use pod::PodObject;
use running::Pods;
use wanted::Wanted;

/// Changes that come together make one snapshot.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Snapshots are made at least so often: what ran a while ago is forgotten by the clock.
const TICK: Duration = Duration::from_secs(60);
/// At most a tenth of the time is spent on snapshots.
const REST: u32 = 10;
const AGAIN: Backoff = Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(5) };

/// What is watched.
pub struct Watch {
    clock: Arc<dyn Clock>,
    metrics: Arc<OperatorMetrics>,
    wanted: Mutex<Wanted>,
    pods: Mutex<Pods>,
    wanted_changed: AtomicBool,
    pods_changed: AtomicBool,
    wake: Notify,
    desired: Arc<ArcSwap<Desired>>,
    running: Arc<ArcSwap<Running>>,
    fleet: ArcSwap<Fleet>,
    /// Counts snapshots.
    published: watch::Sender<u64>,
}

impl Watch {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<OperatorMetrics>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            metrics,
            wanted: Mutex::default(),
            pods: Mutex::default(),
            wanted_changed: AtomicBool::default(),
            pods_changed: AtomicBool::default(),
            wake: Notify::new(),
            desired: Arc::default(),
            running: Arc::default(),
            fleet: ArcSwap::default(),
            published: watch::Sender::new(0),
        })
    }

    /// What is wanted, always the newest.
    #[must_use]
    pub fn desired(&self) -> Arc<ArcSwap<Desired>> {
        self.desired.clone()
    }

    /// What runs, always the newest.
    #[must_use]
    pub fn running(&self) -> Arc<ArcSwap<Running>> {
        self.running.clone()
    }

    /// Everything that runs, each image once a namespace.
    #[must_use]
    pub fn fleet(&self) -> Arc<Fleet> {
        self.fleet.load_full()
    }

    /// Hears of each new snapshot.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Whether everything has been read once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.desired.load().synced && self.running.load().synced
    }

    /// What has not been read yet, by kind, for a readiness check.
    #[must_use]
    pub fn unread(&self) -> Vec<&'static str> {
        let mut unread = self.wanted.lock().unread();
        if !self.running.load().synced {
            unread.push("Pod");
        }
        unread
    }

    /// Policies of namespaces and of the cluster, with what is wrong with them.
    #[must_use]
    pub fn policies(&self) -> PolicyTables {
        let wanted = self.wanted.lock();
        PolicyTables {
            namespaced: wanted.policies.clone(),
            cluster: wanted.cluster_policies.clone(),
            exemptions: wanted.exemptions.clone(),
        }
    }

    /// Watches until `stop` begins.
    pub async fn run(self: Arc<Self>, client: Client, stop: Shutdown) {
        let all = |client: &Client| client.clone();
        let everything = async {
            tokio::join!(
                self.follow(Api::all(all(&client)), "ImageScanPolicy", Self::policy),
                self.follow(Api::all(all(&client)), "ClusterImageScanPolicy", Self::cluster_policy),
                self.follow(Api::all(all(&client)), "ImageExemption", Self::exemption),
                self.follow(Api::all(all(&client)), "Namespace", Self::namespace),
                self.follow(Api::all(all(&client)), "Pod", Self::pod),
                self.publish(),
            );
        };
        tokio::select! {
            () = stop.begun() => {}
            () = everything => {}
        }
    }

    /// Follows a kind for ever. After a failure the watcher goes on where it was, or reads the
    /// list again.
    async fn follow<K>(&self, api: Api<K>, kind: &'static str, take: fn(&Self, Event<K>) -> bool)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let config = match kind {
            "Pod" => {
                watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed")
            }
            _ => watcher::Config::default(),
        };
        let mut events = pin!(watcher(api, config));
        let mut failures = 0_u32;
        let mut told: Option<String> = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // The beginning of a list proves nothing; what follows does.
                    if !matches!(event, Event::Init) && failures > 0 {
                        tracing::info!(kind, "watched again");
                        (failures, told) = (0, None);
                    }
                    if take(self, event) {
                        self.wake.notify_one();
                    }
                }
                Err(error) => {
                    self.metrics.watch_failures.with_label_values(&[kind]).inc();
                    let said = error.to_string();
                    if failures > 0 && told.as_ref() != Some(&said) {
                        tracing::warn!(kind, "not watched; what was known stays: {said}");
                        told = Some(said);
                    }
                    let spread = f64::from(self.clock.monotonic().subsec_millis()) / 1_000.0;
                    tokio::time::sleep(AGAIN.delay(failures, spread)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    fn note_wanted(&self, changed: bool) -> bool {
        if changed {
            self.wanted_changed.store(true, Ordering::SeqCst);
        }
        changed
    }

    fn policy(&self, event: Event<ImageScanPolicy>) -> bool {
        let mut wanted = self.wanted.lock();
        let changed = match event {
            Event::Init => {
                wanted.policies.begin_list();
                false
            }
            Event::InitApply(object) | Event::Apply(object) => wanted.put_policy(&object),
            Event::Delete(object) => wanted.policies.take(&object),
            Event::InitDone => wanted.policies.end_list(),
        };
        self.note_wanted(changed)
    }

    fn cluster_policy(&self, event: Event<ClusterImageScanPolicy>) -> bool {
        let mut wanted = self.wanted.lock();
        let changed = match event {
            Event::Init => {
                wanted.cluster_policies.begin_list();
                false
            }
            Event::InitApply(object) | Event::Apply(object) => wanted.put_cluster_policy(&object),
            Event::Delete(object) => wanted.cluster_policies.take(&object),
            Event::InitDone => wanted.cluster_policies.end_list(),
        };
        self.note_wanted(changed)
    }

    fn exemption(&self, event: Event<ImageExemption>) -> bool {
        let now_ms = self.clock.now_ms();
        let mut wanted = self.wanted.lock();
        let changed = match event {
            Event::Init => {
                wanted.exemptions.begin_list();
                false
            }
            Event::InitApply(object) | Event::Apply(object) => {
                wanted.put_exemption(&object, now_ms)
            }
            Event::Delete(object) => wanted.exemptions.take(&object),
            Event::InitDone => wanted.exemptions.end_list(),
        };
        self.note_wanted(changed)
    }

    fn namespace(&self, event: Event<PartialObjectMeta<Namespace>>) -> bool {
        let mut wanted = self.wanted.lock();
        let changed = match event {
            Event::Init => {
                wanted.begin_namespaces();
                false
            }
            Event::InitApply(object) | Event::Apply(object) => wanted.put_namespace(&object),
            Event::Delete(object) => wanted.take_namespace(&object),
            Event::InitDone => wanted.end_namespaces(),
        };
        self.note_wanted(changed)
    }

    fn pod(&self, event: Event<PodObject>) -> bool {
        let now_ms = self.clock.now_ms();
        let mut pods = self.pods.lock();
        let changed = match event {
            Event::Init => {
                pods.begin_list();
                false
            }
            Event::InitApply(object) | Event::Apply(object) => pods.put(&object, now_ms),
            Event::Delete(object) => pods.take(&object, now_ms),
            Event::InitDone => pods.end_list(now_ms),
        };
        if changed {
            self.pods_changed.store(true, Ordering::SeqCst);
        }
        changed
    }

    /// Makes snapshots of what changed, for ever.
    async fn publish(&self) {
        loop {
            let is_tick = tokio::time::timeout(TICK, self.wake.notified()).await.is_err();
            tokio::time::sleep(DEBOUNCE).await;
            let start = self.clock.monotonic();
            let wanted_changed = self.wanted_changed.swap(false, Ordering::SeqCst);
            let pods_changed = self.pods_changed.swap(false, Ordering::SeqCst);
            if wanted_changed {
                self.publish_wanted();
            }
            if pods_changed || is_tick {
                self.publish_running();
            }
            if wanted_changed || pods_changed {
                self.published.send_modify(|number| *number += 1);
            }
            let took = self.clock.monotonic().saturating_sub(start);
            self.metrics.snapshot_seconds.observe(took.as_secs_f64());
            tokio::time::sleep((took * REST).min(TICK)).await;
        }
    }

    fn publish_wanted(&self) {
        let wanted = self.wanted.lock();
        self.desired.store(Arc::new(wanted.desired()));
        let policies = &self.metrics.policies;
        let invalid = wanted.policies.invalid()
            + wanted.cluster_policies.invalid()
            + wanted.exemptions.invalid();
        let all = wanted.policies.len() + wanted.cluster_policies.len() + wanted.exemptions.len();
        policies.with_label_values(&["invalid"]).set(count(invalid));
        policies.with_label_values(&["valid"]).set(count(all.saturating_sub(invalid)));
    }

    fn publish_running(&self) {
        let now_ms = self.clock.now_ms();
        let (running, fleet, number) = {
            let mut pods = self.pods.lock();
            (pods.running(now_ms), pods.fleet(), pods.len())
        };
        self.metrics.watched.with_label_values(&["Pod"]).set(count(number));
        self.running.store(Arc::new(running));
        self.fleet.store(Arc::new(fleet));
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Policies and exemptions as they stand in the cluster, invalid ones too.
#[derive(Clone, Debug, Default)]
pub struct PolicyTables {
    /// Of namespaces.
    pub namespaced: Table<kuboard_api::policy::Policy, kuboard_api::crd::ImageScanPolicyStatus>,
    /// Of the cluster.
    pub cluster: Table<kuboard_api::policy::Policy, kuboard_api::crd::ImageScanPolicyStatus>,
    /// Exemptions.
    pub exemptions: Table<kuboard_api::policy::Exemption, kuboard_api::crd::ImageExemptionStatus>,
}
