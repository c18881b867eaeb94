//! Certificates in a Secret of a real API server: shared by replicas, renewed while pods are
//! judged in a namespace that fails closed, mended by the clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use kuboard_api::names;
use kuboard_operator::{
    OperatorMetrics,
    certificates::{DAY_MS, WebhookCertificates},
    webhook::{Address, Settings, self_test},
};
use kuboard_rt::{Clock, ManualClock, Scope, SystemClock};
use serde_json::{Value, json};

use crate::ground::{self, Webhook};

fn metrics() -> Arc<OperatorMetrics> {
    Arc::new(OperatorMetrics::new(&prometheus::Registry::new()).unwrap())
}

fn replica(client: &Client, namespace: &str, clock: Arc<dyn Clock>) -> Arc<WebhookCertificates> {
    let names = vec!["127.0.0.1".to_owned()];
    WebhookCertificates::new(client.clone(), namespace, names, clock, metrics()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_one_secret() {
    let cluster = ground::shared();
    ground::namespace(cluster, "certs-shared", json!({}));
    let client = ground::client(cluster).await;
    let replicas: Vec<_> =
        (0..6).map(|_| replica(&client, "certs-shared", Arc::new(SystemClock))).collect();
    let refreshed =
        futures_util::future::join_all(replicas.iter().map(|replica| replica.refresh())).await;
    for outcome in refreshed {
        assert!(outcome.unwrap(), "something new came to each");
    }
    let bundle = replicas[0].bundle();
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(replicas.iter().all(|it| it.bundle() == bundle), "all have the same");
    assert!(!replicas[3].refresh().await.unwrap(), "nothing new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_by_400_days_is_mended() {
    let cluster = ground::shared();
    ground::namespace(cluster, "certs-jump", json!({}));
    let client = ground::client(cluster).await;
    let clock = Arc::new(ManualClock::new(SystemClock.now_ms() - 400 * DAY_MS));
    let certificates = replica(&client, "certs-jump", clock.clone());
    certificates.refresh().await.unwrap();
    let before = certificates.bundle();
    let webhook = Arc::new(Webhook::default());
    webhook.answers.store(true, Ordering::SeqCst);
    let mut scope = Scope::default();
    let url = webhook.serve(certificates.listener(), &mut scope).await;
    let test = async {
        let settings = Settings {
            namespace: "certs-jump".to_owned(),
            address: Address::Url(url),
            ..Settings::default()
        };
        let said = self_test(&client, &settings, &certificates.bundle(), "old", None).await;
        let said = said.unwrap_err().to_string();
        assert!(said.contains("expired"), "{said}");
        clock.set(SystemClock.now_ms());
        assert!(certificates.refresh().await.unwrap());
        assert_eq!(certificates.bundle(), before, "what the API server trusts stays");
        self_test(&client, &settings, &before, "new", None).await.unwrap();
    };
    scope.run(test, Duration::from_secs(5)).await.unwrap();
}

/// How often a new leaf is made while pods are judged; each fourth time by a new authority.
const ROTATIONS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn rotations_refuse_nobody() {
    let cluster = ground::shared();
    ground::namespace(cluster, "certs-turn", json!({}));
    ground::namespace(cluster, "certs-load", json!({}));
    let client = ground::client(cluster).await;
    let certificates = replica(&client, "certs-turn", Arc::new(SystemClock));
    certificates.refresh().await.unwrap();
    let webhook = Arc::new(Webhook::default());
    webhook.answers.store(true, Ordering::SeqCst);
    let mut scope = Scope::default();
    let url = webhook.serve(certificates.listener(), &mut scope).await;
    arm(&client, &url, &certificates.bundle()).await;
    let is_over = Arc::new(AtomicBool::default());
    let judged = Arc::new(AtomicUsize::default());
    // Ends before the webhook does.
    let mut load = Scope::default();
    for _ in 0..2 {
        let (client, is_over, judged) = (client.clone(), is_over.clone(), judged.clone());
        load.spawn("load", move |_| async move {
            while !is_over.load(Ordering::SeqCst) {
                judge_a_pod(&client).await?;
                judged.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
    }
    let turns = {
        let (is_over, judged) = (is_over.clone(), judged.clone());
        async move {
            ground::until("load", async || judged.load(Ordering::SeqCst) > 10).await;
            let mut authorities = 0;
            for turn in 0..ROTATIONS {
                let before = certificates.bundle();
                // What is gone from the Secret has to be made anew.
                let lost: &[&str] =
                    if turn % 4 == 3 { &["ca.key", "tls.crt"] } else { &["tls.crt"] };
                lose(&client, lost).await;
                assert!(certificates.refresh().await.unwrap(), "turn {turn}");
                if certificates.bundle() != before {
                    authorities += 1;
                    arm(&client, &url, &certificates.bundle()).await;
                    // Months in the field, here a few reviews: the API server learns of it.
                    let before = judged.load(Ordering::SeqCst);
                    ground::until("reviews", async || judged.load(Ordering::SeqCst) > before + 20)
                        .await;
                }
            }
            assert_eq!(authorities, ROTATIONS / 4);
            let before = judged.load(Ordering::SeqCst);
            ground::until("load after it", async || judged.load(Ordering::SeqCst) > before + 10)
                .await;
            is_over.store(true, Ordering::SeqCst);
        }
    };
    let turns = async { load.run(turns, Duration::from_secs(20)).await.unwrap() };
    scope.run(turns, Duration::from_secs(5)).await.unwrap();
    cluster.kubectl(&["delete", "validatingwebhookconfiguration", "certs-turn"]).unwrap();
}

/// A webhook for one namespace that fails closed, as strict namespaces do.
async fn arm(client: &Client, url: &str, bundle: &str) {
    use base64::Engine as _;
    let api: Api<k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration> =
        Api::all(client.clone());
    let object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "certs-turn"},
        "webhooks": [{
            "name": "pods.certs-turn.test", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 10,
            "clientConfig": {
                "url": format!("{url}/admission/validate"),
                "caBundle": base64::engine::general_purpose::STANDARD.encode(bundle),
            },
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "certs-load"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                       "resources": ["pods"]}],
        }],
    });
    let params = PatchParams::apply("test").force();
    api.patch("certs-turn", &params, &Patch::Apply(&object)).await.unwrap();
}

async fn judge_a_pod(client: &Client) -> anyhow::Result<()> {
    let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client.clone(), "certs-load");
    let pod = serde_json::from_value(ground::pod("one", "good:1"))?;
    let params = PostParams { dry_run: true, field_manager: None };
    api.create(&params, &pod).await?;
    Ok(())
}

async fn lose(client: &Client, keys: &[&str]) {
    let api: Api<Secret> = Api::namespaced(client.clone(), "certs-turn");
    let data: serde_json::Map<String, Value> =
        keys.iter().map(|key| ((*key).to_owned(), json!(""))).collect();
    let patch = json!({"data": data});
    let params = PatchParams::default();
    api.patch(names::WEBHOOK_SECRET, &params, &Patch::Merge(&patch)).await.unwrap();
}
