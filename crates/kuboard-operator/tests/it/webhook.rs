//! The whole operator: kinds, snapshots, the webhook armed only when it answers, statuses,
//! reports; and what a real API server makes of the expressions that it is told.

use std::sync::{Arc, atomic::Ordering};

use kube::{Client, api::Api};
use kuboard_api::{names, policy::Threshold};
use kuboard_operator::{
    Config, OperatorMetrics, Parts, Told,
    certificates::WebhookCertificates,
    watch::Watch,
    webhook::{self, Address, Armed, Keeper, Settings},
};
use kuboard_rt::{Clock, Scope, SystemClock};
use kuboard_testkit::cluster::Cluster;
use serde_json::{Value, json};

use crate::ground::{self, ARTICLE, Knows, Webhook, pod, until};

/// A running operator and what it is made of.
struct Running {
    client: Client,
    settings: Settings,
    webhook: Arc<Webhook>,
    certificates: Arc<WebhookCertificates>,
    watch: Arc<Watch>,
    teller: kuboard_operator::Teller,
}

/// Starts an operator whose webhook is on loopback.
async fn start(cluster: &Cluster, scope: &mut Scope) -> Running {
    let client = ground::client(cluster).await;
    ground::namespace(cluster, names::NAMESPACE, json!({}));
    // The address of the webhook is known only when it is bound, and the certificate needs no
    // port.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let settings = Settings {
        address: Address::Url(format!("https://127.0.0.1:{port}")),
        ..Settings::default()
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = Config {
        identity: format!("test-{port}"),
        webhook: Some(settings.clone()),
        ..Config::default()
    };
    let operator = config.build(client.clone(), clock, &prometheus::Registry::new()).unwrap();
    let certificates = operator.certificates().unwrap();
    let webhook = Arc::new(Webhook::default());
    let bound = kuboard_rt::http::bind(
        ([127, 0, 0, 1], port).into(),
        Some(certificates.listener()),
        kuboard_rt::http::Limits::default(),
    );
    let (bound, handler) = (bound.await.unwrap(), webhook.clone());
    scope.spawn("webhook", move |stop| {
        bound.serve(handler, stop, std::time::Duration::from_millis(200))
    });
    let (watch, teller) = (operator.watch(), operator.teller());
    operator.start(Parts { judge: Knows::new(), is_ready: Arc::new(|| true) }, scope);
    Running { client, settings, webhook, certificates, watch, teller }
}

fn ask(
    cluster: &Cluster,
    user: Option<&str>,
    arguments: &[&str],
    object: &Value,
) -> (bool, String) {
    let kubectl = user.map_or_else(|| cluster.admin(), |user| cluster.user(user).unwrap());
    let answered = kubectl.ask(arguments, Some(&object.to_string())).unwrap();
    (answered.success, format!("{}{}", answered.stdout, answered.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_way() {
    let cluster = ground::shared();
    let mut scope = Scope::default();
    let running = start(cluster, &mut scope).await;
    let test = async {
        ada_may_write_pods_and_namespaces(cluster).await;
        armed_only_when_it_answers(&running).await;
        policies_become_what_is_desired(cluster, &running).await;
        pods_are_judged(cluster, &running).await;
        labels_are_guarded(cluster);
        what_runs_is_reported(cluster, &running).await;
        refusals_become_events(cluster, &running).await;
        strict_namespaces_wait(cluster, &running).await;
        disarmed_it_stays(&running).await;
        uninstalled_it_is_gone(cluster, &running).await;
    };
    scope.run(test, std::time::Duration::from_secs(10)).await.unwrap();
    // Whoever comes next need not wait for a lease that nobody holds.
    let lease: Value = cluster
        .get_json("/apis/coordination.k8s.io/v1/namespaces/kuboard/leases/kuboard-operator")
        .unwrap();
    assert_eq!(lease["spec"]["holderIdentity"].as_str().unwrap_or_default(), "");
}

/// An ordinary user: she may write, and not bypass.
async fn ada_may_write_pods_and_namespaces(cluster: &Cluster) {
    let rule = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "writer"},
        "rules": [{"apiGroups": [""], "resources": ["namespaces", "pods"],
                   "verbs": ["get", "create", "update", "patch"]}],
    });
    cluster.apply(&rule.to_string()).unwrap();
    let bind = ["create", "clusterrolebinding", "ada", "--clusterrole=writer", "--user=ada"];
    cluster.kubectl(&bind).unwrap();
    let ada = cluster.user("ada").unwrap();
    let may = |verb: &str, what: &str| {
        ada.ask(&["auth", "can-i", verb, what, "-n", "shop"], None).unwrap().success
    };
    until("ada's rights", async || may("create", "pods") && may("patch", "namespaces")).await;
    assert!(!may("bypass", "admission.kuboard.cn"));
}

async fn armed_only_when_it_answers(running: &Running) {
    let client = &running.client;
    until("word of why it is not armed", async || {
        let status = webhook::status(client, names::NAMESPACE).await.unwrap();
        assert!(!status.armed, "armed though the webhook does not answer");
        status.problem.is_some_and(|it| it.contains("did not answer"))
    })
    .await;
    running.webhook.answers.store(true, Ordering::SeqCst);
    until("the webhook", async || webhook::status(client, names::NAMESPACE).await.unwrap().armed)
        .await;
    until("an end of the problem", async || {
        webhook::status(client, names::NAMESPACE).await.unwrap().problem.is_none()
    })
    .await;
    let status = webhook::status(client, names::NAMESPACE).await.unwrap();
    assert_eq!(status.webhooks["pods-strict.enforce.kuboard.cn"], "Fail");
    assert_eq!(status.webhooks["pods.enforce.kuboard.cn"], "Ignore");
    assert_eq!(status.bundle, running.certificates.bundle());
    let probe: Api<k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration> =
        Api::all(client.clone());
    until("the probe's end", async || {
        probe.get_opt("kuboard-admission-probe").await.unwrap().is_none()
    })
    .await;
    let armed = probe.get(names::WEBHOOK).await.unwrap();
    assert_eq!(armed.metadata.owner_references.unwrap()[0].kind, "Namespace");
}

async fn policies_become_what_is_desired(cluster: &Cluster, running: &Running) {
    ground::namespace(cluster, "shop", json!({}));
    cluster.admin().ask(&["apply", "-n", "shop", "-f", "-"], Some(ARTICLE)).unwrap();
    let threshold = || {
        let desired = running.watch.desired().load_full();
        let policy = desired.policies.iter().find(|it| it.name() == "shop/production-scan");
        policy.and_then(|it| it.threshold)
    };
    until("the policy", async || threshold() == Some(Threshold::High)).await;
    assert!(running.watch.is_synced(), "{:?}", running.watch.unread());
    assert!(running.watch.desired().load().namespaces.contains_key("shop"));
    let path = "/apis/kuboard.cn/v1alpha1/namespaces/shop/imagescanpolicies/production-scan";
    let condition = |kind: &str| -> Option<(String, String)> {
        let status = cluster.get_json(path).unwrap()["status"].clone();
        let all = status["conditions"].as_array()?.clone();
        let found = all.into_iter().find(|it| it["type"] == kind)?;
        Some((found["status"].as_str()?.to_owned(), found["reason"].as_str()?.to_owned()))
    };
    let is = |found: Option<(String, String)>, status: &str, reason: &str| {
        found.is_some_and(|it| it == (status.to_owned(), reason.to_owned()))
    };
    until("Ready", async || is(condition("Ready"), "True", "Valid")).await;
    until("Enforcing", async || is(condition("Enforcing"), "True", "Armed")).await;
    assert!(cluster.get_json(path).unwrap()["status"]["nextScanTime"].is_string());
    // What the schema lets through and is still no policy.
    let broken = ARTICLE.replace("HIGH", "LOW").replace("*.internal.corp", "[");
    cluster.admin().ask(&["apply", "-n", "shop", "-f", "-"], Some(&broken)).unwrap();
    until("word of what is wrong", async || is(condition("Ready"), "False", "Invalid")).await;
    assert_eq!(threshold(), Some(Threshold::High), "the last good form holds");
    let version = |json: Value| json["metadata"]["resourceVersion"].clone();
    let before = version(cluster.get_json(path).unwrap());
    let mended = ARTICLE.replace("HIGH", "CRITICAL");
    cluster.admin().ask(&["apply", "-n", "shop", "-f", "-"], Some(&mended)).unwrap();
    until("the mended policy", async || threshold() == Some(Threshold::Critical)).await;
    until("Ready again", async || is(condition("Ready"), "True", "Valid")).await;
    assert_ne!(before, version(cluster.get_json(path).unwrap()));
}

async fn pods_are_judged(cluster: &Cluster, running: &Running) {
    let create: &[&str] = &["create", "-n", "shop", "-f", "-"];
    let (made, said) = ask(cluster, None, create, &pod("good", "good:1"));
    assert!(made, "{said}");
    let (made, said) = ask(cluster, None, create, &pod("bad", "bad:1"));
    assert!(!made && said.contains("that image is bad"), "{said}");
    let mut init = pod("init", "good:1");
    init["spec"]["initContainers"] = json!([{"name": "i", "image": "bad:1"}]);
    assert!(!ask(cluster, None, create, &init).0);
    // What changes no image is not asked about; what does is.
    let asked = || running.webhook.asked.load(Ordering::SeqCst);
    let before = asked();
    cluster.kubectl(&["label", "-n", "shop", "pod/good", "a=b"]).unwrap();
    assert_eq!(asked(), before);
    let patch = r#"{"spec":{"containers":[{"name":"c","image":"bad:2"}]}}"#;
    let refused = cluster.kubectl(&["patch", "-n", "shop", "pod/good", "-p", patch]);
    assert!(format!("{:#}", refused.unwrap_err()).contains("that image is bad"));
    let debug = json!({"spec": {"ephemeralContainers": [
        {"name": "d", "image": "bad:3", "targetContainerName": "c"}]}});
    let refused = cluster.kubectl(&[
        "patch",
        "-n",
        "shop",
        "pod/good",
        "--subresource=ephemeralcontainers",
        "-p",
        &debug.to_string(),
    ]);
    assert!(format!("{:#}", refused.unwrap_err()).contains("that image is bad"));
    // The system and we ourselves are not asked about.
    for namespace in ["kube-system", names::NAMESPACE] {
        let create = ["create", "-n", namespace, "-f", "-"];
        let (made, said) = ask(cluster, None, &create, &pod("bad", "bad:1"));
        assert!(made, "{namespace}: {said}");
    }
    // An annotation opens the door only for who may.
    let mut bypass = pod("bypass", "bad:1");
    bypass["metadata"]["annotations"] = json!({names::BYPASS: "the shop is on fire"});
    let (made, said) = ask(cluster, Some("ada"), create, &bypass);
    assert!(!made && said.contains("that image is bad"), "{said}");
    let (made, said) = ask(cluster, None, create, &bypass);
    assert!(made, "{said}");
    // The shadow of a static pod, as somebody who is no kubelet would forge it.
    let mut mirror = pod("mirror", "bad:1");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "abc"});
    assert!(!ask(cluster, Some("ada"), create, &mirror).0);
    // A pod without an image is the API server's to refuse, not an error of ours.
    let mut nothing = pod("nothing", "x");
    nothing["spec"]["containers"] = json!([{"name": "c"}]);
    let (made, said) = ask(cluster, None, create, &nothing);
    assert!(!made && !said.contains("no such key"), "{said}");
}

fn labels_are_guarded(cluster: &Cluster) {
    ground::namespace(cluster, "bank", json!({"kuboard.cn/enforce": "strict"}));
    let ada = cluster.user("ada").unwrap();
    let label = |label: &str| {
        let answered = ada.ask(&["label", "--overwrite", "ns/bank", label], None).unwrap();
        (answered.success, answered.stderr)
    };
    let check = |change: &str, may: bool| {
        let (made, said) = label(change);
        assert_eq!(made, may, "{change}: {said}");
        assert!(may || said.contains("only who may \"bypass\""), "{said}");
    };
    check("team=a", true);
    check("kuboard.cn/admission=disabled", false);
    check("kuboard.cn/admission=x", false);
    check("kuboard.cn/enforce-", false);
    check("kuboard.cn/enforce=open", false);
    ground::namespace(cluster, "park", json!({}));
    let (made, said) =
        ask(cluster, Some("ada"), &["label", "ns/park", "kuboard.cn/enforce=strict"], &json!({}));
    assert!(made, "whoever may change a namespace may make it stricter: {said}");
    let out = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "hole", "labels": {"kuboard.cn/admission": "disabled"}},
    });
    let (made, said) = ask(cluster, Some("ada"), &["create", "-f", "-"], &out);
    assert!(!made && said.contains("only who may"), "{said}");
    let (made, said) = ask(cluster, None, &["create", "-f", "-"], &out);
    assert!(made, "an administrator may: {said}");
    let create = ["create", "-n", "hole", "-f", "-"];
    let (made, said) = ask(cluster, None, &create, &pod("bad", "bad:1"));
    assert!(made, "a namespace that is out is not judged: {said}");
}

async fn what_runs_is_reported(cluster: &Cluster, running: &Running) {
    let good = kuboard_api::crd::report_name(&kuboard_oci::Digest::sha256(b"good:1"));
    let path = format!("/apis/kuboard.cn/v1alpha1/imagereports/{good}");
    until("a report", async || {
        let Ok(report) = cluster.get_json(&path) else { return false };
        report["status"]["namespaces"][0]["verdict"] == "Allow"
    })
    .await;
    let report = cluster.get_json(&path).unwrap();
    assert_eq!(report["spec"]["names"], json!(["good:1"]));
    assert_eq!(report["status"]["conditions"][0]["status"], "True");
    let path = "/apis/kuboard.cn/v1alpha1/namespaces/shop/imagescanpolicies/production-scan";
    until("counts", async || {
        let counts = cluster.get_json(path).unwrap()["status"]["images"].clone();
        // The pod that was let past us is counted.
        counts["matched"] == 2 && counts["blocked"] == 1
    })
    .await;
    assert!(running.watch.fleet().keys().any(|it| &*it.image == "good:1"));
    until("word of what runs and should not", async || {
        let events = cluster.get_json("/api/v1/namespaces/shop/events").unwrap();
        let all = events["items"].as_array().unwrap().clone();
        all.iter().any(|it| it["reason"] == "ImageRefusedNow")
    })
    .await;
}

async fn refusals_become_events(cluster: &Cluster, running: &Running) {
    running.teller.tell(Told {
        namespace: "shop".to_owned(),
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: "web".to_owned(),
        uid: String::new(),
        reason: "ImageDenied".to_owned(),
        message: "bad:1 has CVE-2026-0001".to_owned(),
    });
    until("an event", async || {
        let events = cluster.get_json("/api/v1/namespaces/shop/events").unwrap();
        let all = events["items"].as_array().unwrap().clone();
        all.iter().any(|it| it["reason"] == "ImageDenied" && it["involvedObject"]["name"] == "web")
    })
    .await;
}

async fn strict_namespaces_wait(cluster: &Cluster, running: &Running) {
    running.webhook.answers.store(false, Ordering::SeqCst);
    let refused = ask(cluster, None, &["create", "-n", "bank", "-f", "-"], &pod("good", "good:1"));
    assert!(!refused.0 && refused.1.contains("failed calling webhook"), "{}", refused.1);
    let (made, said) =
        ask(cluster, None, &["create", "-n", "shop", "-f", "-"], &pod("late", "bad:1"));
    assert!(made, "an open namespace waits for nobody: {said}");
    running.webhook.answers.store(true, Ordering::SeqCst);
    let (made, said) =
        ask(cluster, None, &["create", "-n", "bank", "-f", "-"], &pod("good", "good:1"));
    assert!(made, "{said}");
    let (made, _) = ask(cluster, None, &["create", "-n", "bank", "-f", "-"], &pod("b", "bad:1"));
    assert!(!made);
}

async fn disarmed_it_stays(running: &Running) {
    let client = &running.client;
    let status = async || webhook::status(client, names::NAMESPACE).await.unwrap();
    webhook::disarm(client, names::NAMESPACE, "ada", SystemClock.now_ms()).await.unwrap();
    assert!(!status().await.armed);
    assert!(status().await.disarmed.unwrap().starts_with("ada, 20"));
    let keeper = Keeper {
        client: client.clone(),
        settings: running.settings.clone(),
        certificates: running.certificates.clone(),
        clock: Arc::new(SystemClock),
        metrics: Arc::new(OperatorMetrics::new(&prometheus::Registry::new()).unwrap()),
        is_ready: Arc::new(|| true),
    };
    let mut tested_ms = i64::MIN;
    assert_eq!(keeper.look(&mut tested_ms).await.unwrap(), Armed::Disarmed);
    assert!(!status().await.armed);
    webhook::allow(client, names::NAMESPACE).await.unwrap();
    assert_eq!(keeper.look(&mut tested_ms).await.unwrap(), Armed::Yes);
    assert!(status().await.armed);
    // Somebody's edit is mended.
    let kept: Api<k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration> =
        Api::all(client.clone());
    let mut edited = kept.get(names::WEBHOOK).await.unwrap();
    edited.webhooks.as_mut().unwrap().remove(0);
    kept.replace(names::WEBHOOK, &kube::api::PostParams::default(), &edited).await.unwrap();
    assert_eq!(keeper.look(&mut tested_ms).await.unwrap(), Armed::Yes);
    let mended = kept.get(names::WEBHOOK).await.unwrap();
    assert_eq!(mended.webhooks.as_ref().unwrap().len(), 3);
    keeper.look(&mut tested_ms).await.unwrap();
    let version =
        |it: &k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration| {
            it.metadata.resource_version.clone()
        };
    let again = kept.get(names::WEBHOOK).await.unwrap();
    assert_eq!(version(&mended), version(&again), "what is so is not written");
}

async fn uninstalled_it_is_gone(cluster: &Cluster, running: &Running) {
    // The chart's role: what is left goes with it.
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "kuboard-operator"}, "rules": [],
    });
    cluster.apply(&role.to_string()).unwrap();
    webhook::uninstall(&running.client, names::NAMESPACE).await.unwrap();
    let status = webhook::status(&running.client, names::NAMESPACE).await.unwrap();
    assert!(!status.armed);
    assert_eq!(status.disarmed.as_deref(), Some("uninstalled"), "a running operator leaves it so");
    let word =
        cluster.get_json("/api/v1/namespaces/kuboard/configmaps/kuboard-admission-state").unwrap();
    assert_eq!(word["metadata"]["ownerReferences"][0]["kind"], "ClusterRole");
    let floor = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/\
                 kuboard-namespace-labels";
    assert!(cluster.get_json(floor).is_err());
}
