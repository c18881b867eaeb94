//! A cluster for the tests, a webhook that judges by the image's name, a judge that knows nothing.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use kube::Client;
use kuboard_api::{crd::ImageReportSpec, names, policy::Scope};
use kuboard_oci::Digest;
use kuboard_operator::{
    Judge, Judged, Outcome, PolicyKey, Said,
    client::Cluster as Where,
    watch::{Runners, RunningImage},
};
use kuboard_rt::{
    BoxFuture, Scope as Tasks,
    http::{Body, Handler, Limits, Request, Response, bind},
    tls::Certificates,
};
use kuboard_testkit::cluster::{Cluster, Level};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Long enough for anything on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The cluster that tests share which do not break it.
pub(crate) fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        Cluster::builder(Level::ApiServer)
            .user("ada", &["dev"])
            .start()
            .unwrap_or_else(|error| panic!("{error:#}"))
    })
}

pub(crate) async fn client(cluster: &Cluster) -> Client {
    let place = Where { kubeconfig: Some(cluster.kubeconfig()), context: None };
    place.client().await.unwrap()
}

/// Makes a namespace with labels.
pub(crate) fn namespace(cluster: &Cluster, name: &str, labels: Value) {
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
    });
    cluster.apply(&object.to_string()).unwrap();
}

/// A pod as YAML.
pub(crate) fn pod(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": image}]},
    })
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = tokio::time::Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "{what} never came");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Refuses pods with an image of the name `bad…`, and answers probes.
#[derive(Default)]
pub(crate) struct Webhook {
    /// It answers at all.
    pub(crate) answers: AtomicBool,
    /// How often it was asked for a pod that is no probe.
    pub(crate) asked: AtomicUsize,
}

impl Webhook {
    /// Serves it on loopback until the scope ends; its URL.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        certificates: Arc<Certificates>,
        scope: &mut Tasks,
    ) -> String {
        let bound = bind(([127, 0, 0, 1], 0).into(), Some(certificates), Limits::default());
        let bound = bound.await.unwrap();
        let address = bound.local_addr().unwrap();
        let handler = self.clone();
        scope.spawn("webhook", move |stop| bound.serve(handler, stop, Duration::from_millis(200)));
        format!("https://{address}")
    }

    fn answer(&self, review: &Value) -> Value {
        let request = &review["request"];
        let probe = request["object"]["metadata"]["labels"][names::PROBE].as_str();
        let mut response = json!({"uid": request["uid"], "allowed": true});
        if let Some(probe) = probe {
            response["warnings"] = json!([format!("{}={probe}", names::PROBE)]);
            return response;
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let lists = ["containers", "initContainers", "ephemeralContainers"];
        let is_bad = lists.iter().any(|list| {
            let containers = request["object"]["spec"][list].as_array();
            containers
                .into_iter()
                .flatten()
                .any(|it| it["image"].as_str().is_some_and(|image| image.starts_with("bad")))
        });
        if is_bad {
            response["allowed"] = json!(false);
            response["status"] = json!({"code": 403, "message": "that image is bad"});
        }
        response
    }
}

impl Handler for Webhook {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let bytes = request.into_body().collect(1 << 20).await.unwrap();
            let response = http::Response::builder();
            if !self.answers.load(Ordering::SeqCst) {
                return response.status(503).body(Body::empty()).unwrap();
            }
            let review: Value = serde_json::from_slice(&bytes).unwrap();
            let answer = json!({
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "response": self.answer(&review),
            });
            let body = Body::full(answer.to_string());
            response.header("content-type", "application/json").body(body).unwrap()
        })
    }
}

/// Judges by the image's name: `bad…` is refused by the policy `shop/scan`.
pub(crate) struct Knows {
    changes: watch::Sender<u64>,
}

impl Knows {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { changes: watch::Sender::new(0) })
    }
}

impl Judge for Knows {
    fn judge<'a>(&'a self, image: &'a RunningImage, _: &'a Runners) -> BoxFuture<'a, Judged> {
        let outcome = if image.image.starts_with("bad") { Outcome::Deny } else { Outcome::Allow };
        let policy = PolicyKey {
            scope: Scope::Namespace,
            namespace: image.namespace.to_string(),
            name: "production-scan".to_owned(),
        };
        Box::pin(async move {
            Judged {
                outcome,
                said: vec![Said { policy, outcome, unscanned: false }],
                reason: (outcome == Outcome::Deny).then(|| "it is bad".to_owned()),
                manifests: vec![Digest::sha256(image.image.as_bytes())],
            }
        })
    }

    fn report<'a>(
        &'a self,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<ImageReportSpec>, String>> {
        let spec = ImageReportSpec {
            digest: digest.to_string(),
            outcome: "Complete".to_owned(),
            scanned_at: "2026-01-01T00:00:00Z".to_owned(),
            ..ImageReportSpec::default()
        };
        Box::pin(async move { Ok(Some(spec)) })
    }

    fn is_stored<'a>(&'a self, _: &'a Digest) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async { Ok(false) })
    }

    fn last_scan_ms<'a>(&'a self, _: &'a PolicyKey) -> BoxFuture<'a, Option<i64>> {
        Box::pin(async { None })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The article's sample, as it stands there.
pub(crate) const ARTICLE: &str = r#"
apiVersion: kuboard.cn/v1alpha1
kind: ImageScanPolicy
metadata:
  name: production-scan
spec:
  severityThreshold: HIGH
  excludeRegistries:
    - "*.internal.corp"
  schedule: "0 */6 * * *"
"#;
