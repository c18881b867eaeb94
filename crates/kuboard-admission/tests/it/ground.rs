//! A webhook with doors that a test controls.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use kuboard_admission::{
    Admission, Decision, Digests, Doors, Event, Events, FactsIndex, FactsSource, Knowledge, Puller,
    Recorder, Resolved, ScanRequest, Settings, Unresolved,
};
use kuboard_api::{
    desired::{Desired, Namespace, Running},
    policy,
};
use kuboard_oci::{Digest, ImageReference};
use kuboard_rt::{
    BoxFuture, ManualClock, Tasks,
    http::{Handler as _, RequestBody},
    metrics::Metrics,
};
use kuboard_vuln::{Fact, ImageFacts, Known, Severity};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// 2026-11-23.
pub(crate) const NOW: i64 = 1_795_392_000_000;

/// Everything behind the webhook.
#[derive(Default)]
pub(crate) struct World {
    /// By reference with a tag or a digest, in full form.
    pub(crate) images: Mutex<HashMap<String, Result<Arc<Resolved>, Unresolved>>>,
    /// Names are not known at once but have to be asked for.
    pub(crate) cold: AtomicBool,
    /// Nobody answers.
    pub(crate) hangs: AtomicBool,
    pub(crate) resolutions: AtomicUsize,
    pub(crate) stored: Mutex<HashMap<Digest, ImageFacts>>,
    pub(crate) reads: AtomicUsize,
    pub(crate) scans: Mutex<Vec<ScanRequest>>,
    pub(crate) decisions: Mutex<Vec<Decision>>,
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) pullers: Mutex<Vec<Puller>>,
}

/// The webhook with its world.
pub(crate) struct Ground {
    pub(crate) world: Arc<World>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) desired: Arc<ArcSwap<Desired>>,
    pub(crate) running: Arc<ArcSwap<Running>>,
    pub(crate) facts: Arc<FactsIndex>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) metrics: Metrics,
    #[expect(dead_code, reason = "lookups run in it")]
    tasks: Tasks,
}

fn key(image: &ImageReference) -> String {
    match (&image.digest, &image.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(_)) => image.to_string(),
        (None, None) => format!("{image}:latest"),
    }
}

impl World {
    fn find(&self, image: &ImageReference) -> Result<Arc<Resolved>, Unresolved> {
        let missing = || Err(Unresolved::NotFound(format!("{image} is not there")));
        self.images.lock().get(&key(image)).cloned().unwrap_or_else(missing)
    }

    /// An image by name, with the manifests behind it.
    pub(crate) fn put(&self, name: &str, digest: Digest, manifests: &[Digest]) {
        let resolved = Arc::new(Resolved { digest, manifests: manifests.into() });
        let mut images = self.images.lock();
        images.insert(name.to_owned(), Ok(resolved.clone()));
        images.insert(digest.to_string(), Ok(resolved));
        for manifest in manifests {
            let itself = Resolved { digest: *manifest, manifests: [*manifest].into() };
            images.entry(manifest.to_string()).or_insert(Ok(Arc::new(itself)));
        }
    }
}

impl Digests for World {
    fn known(&self, image: &ImageReference) -> Option<Arc<Resolved>> {
        if self.cold.load(Ordering::SeqCst) { None } else { self.find(image).ok() }
    }

    fn resolve<'a>(
        &'a self,
        image: &'a ImageReference,
        puller: &'a Puller,
    ) -> BoxFuture<'a, Result<Arc<Resolved>, Unresolved>> {
        Box::pin(async move {
            self.resolutions.fetch_add(1, Ordering::SeqCst);
            self.pullers.lock().push(puller.clone());
            tokio::time::sleep(Duration::from_millis(1)).await;
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            self.find(image)
        })
    }
}

impl FactsSource for World {
    fn facts<'a>(
        &'a self,
        manifest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<ImageFacts>, String>> {
        Box::pin(async move {
            self.reads.fetch_add(1, Ordering::SeqCst);
            Ok(self.stored.lock().get(manifest).cloned())
        })
    }

    fn scan(&self, request: ScanRequest) {
        self.scans.lock().push(request);
    }
}

impl Recorder for World {
    fn record(&self, decision: Decision) {
        self.decisions.lock().push(decision);
    }
}

impl Events for World {
    fn tell(&self, event: Event) {
        self.events.lock().push(event);
    }
}

impl Ground {
    pub(crate) fn new(settings: Settings) -> Self {
        let world = Arc::new(World::default());
        let (desired, running) = (Arc::<ArcSwap<Desired>>::default(), Arc::default());
        let facts = Arc::new(FactsIndex::new(1000));
        let (clock, metrics, tasks) =
            (Arc::new(ManualClock::new(NOW)), Metrics::new(), Tasks::default());
        let knowledge = Knowledge {
            desired: desired.clone(),
            running: Arc::clone(&running),
            facts: facts.clone(),
        };
        let doors = Doors {
            digests: world.clone(),
            facts: world.clone(),
            recorder: world.clone(),
            events: world.clone(),
        };
        let admission =
            Admission::new(settings, knowledge, doors, clock.clone(), &tasks, metrics.registry());
        let admission = admission.unwrap();
        Self { world, admission, desired, running, facts, clock, metrics, tasks }
    }

    /// The policies of a text, in these namespaces (with their labels).
    pub(crate) fn want(&self, text: &str, namespaces: BTreeMap<String, Namespace>) {
        let folder = policy::parse(Path::new("p.yaml"), text).unwrap();
        self.desired.store(Arc::new(Desired {
            policies: folder.policies.into_iter().map(|it| Arc::new(it.policy)).collect(),
            exemptions: folder.exemptions.into_iter().map(|it| Arc::new(it.exemption)).collect(),
            namespaces,
            synced: true,
        }));
        let running = Running { synced: true, ..Running::default() };
        self.running.store(Arc::new(running));
    }

    /// The text that a path answers with.
    pub(crate) async fn post(&self, path: &str, body: Vec<u8>) -> (u16, String) {
        let request = http::Request::post(path).body(RequestBody::from(bytes::Bytes::from(body)));
        let response = self.admission.handle(request.unwrap()).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The `response` of a review.
    pub(crate) async fn ask(&self, path: &str, review: &Value) -> Value {
        let (status, text) = self.post(path, review.to_string().into_bytes()).await;
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].clone()
    }
}

/// A question about a new pod with these images.
pub(crate) fn pod(namespace: &str, images: &[&str]) -> Value {
    let containers: Vec<Value> = images
        .iter()
        .enumerate()
        .map(|(number, image)| json!({"name": format!("c{number}"), "image": image}))
        .collect();
    review(namespace, json!({"spec": {"containers": containers}}))
}

/// A question about a new pod.
pub(crate) fn review(namespace: &str, object: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "web-0",
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {"username": "alice", "groups": ["system:authenticated"]},
            "object": object,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

/// A finding of an image.
pub(crate) fn fact(id: &str, severity: Severity) -> Fact {
    Fact {
        id: id.into(),
        aliases: ["GHSA-aaaa".into()].into(),
        package: "openssl".into(),
        version: "1.1.1d".into(),
        fixed_in: Some("1.1.1n".into()),
        severity,
        exploited: false,
        epss: Some(500),
        first_seen_ms: NOW - 1_000_000,
    }
}

/// What is known of an image with these findings.
pub(crate) fn facts(findings: Vec<Fact>) -> ImageFacts {
    let first_scanned_ms = NOW - 1_000_000;
    ImageFacts { known: Known::All, findings, first_scanned_ms, scanned_ms: NOW - 1000 }
}
