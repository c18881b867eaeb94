//! Clusters with one fault each, as the API server would tell of them.

use serde_json::{Value, json};

use super::{judge, observed::Observed};

const NOW: i64 = 1_800_000_000_000;

fn healthy() -> Value {
    let crds: serde_json::Map<String, Value> = [
        "imagescanpolicies",
        "clusterimagescanpolicies",
        "imageexemptions",
        "imagereports",
        "registrycredentials",
        "registryfederations",
    ]
    .into_iter()
    .map(|plural| (format!("{plural}.kuboard.cn"), json!(true)))
    .collect();
    json!({
        "home": "kuboard", "nowMs": NOW, "serverMs": NOW, "secretsKnown": true, "crds": crds,
        "namespaces": [{"metadata": {"name": "kuboard",
            "labels": {"kubernetes.io/metadata.name": "kuboard"}}}],
        "nodes": [{"metadata": {"name": "n1"}, "status": {
            "nodeInfo": {"operatingSystem": "linux", "architecture": "amd64", "bootID": "",
                "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
                "kubeletVersion": "", "machineID": "", "osImage": "", "systemUUID": ""},
            "conditions": [{"type": "Ready", "status": "True"}]}}],
        "deployments": [{"metadata": {"name": "operator", "namespace": "kuboard"},
            "spec": {"replicas": 1, "selector": {}, "template": {}},
            "status": {"readyReplicas": 1}}],
        "endpoints": [{"metadata": {"name": "a", "namespace": "kuboard",
            "labels": {"kubernetes.io/service-name": "kuboard-admission"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"],
            "conditions": {"ready": true}}]}],
        "webhooks": [webhook("kuboard-admission", "kuboard", "kuboard-admission")],
        "leases": [{"metadata": {"name": "kuboard-operator", "namespace": "kuboard"},
            "spec": {"holderIdentity": "a", "renewTime": "2027-01-15T08:00:00.000000Z"}}],
    })
}

fn webhook(name: &str, namespace: &str, service: &str) -> Value {
    json!({"metadata": {"name": name}, "webhooks": [{
        "name": format!("{name}.test"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "failurePolicy": "Fail",
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["pods"]}],
        "clientConfig": {"service": {"namespace": namespace, "name": service}}}]})
}

/// A pod of namespace shop that waits for an image, with the kubelet's words.
fn pod(image: &str, message: &str, secrets: &[&str]) -> Value {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u1"},
        "spec": {"nodeName": "n1", "imagePullSecrets": secrets,
            "containers": [{"name": "web", "image": image}]},
        "status": {"containerStatuses": [{"name": "web", "image": image, "imageID": "",
            "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ErrImagePull", "message": message}}}]}})
}

fn secret(kind: &str, text: &str) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    json!({"metadata": {"name": "s", "namespace": "shop"}, "type": kind,
        "data": {".dockerconfigjson": STANDARD.encode(text)}})
}

const DOCKER: &str = "kubernetes.io/dockerconfigjson";
const REFUSED: &str = "failed to authorize: 401 Unauthorized";

fn check(changes: &Value, want: &[&str]) {
    let mut cluster = healthy();
    for (key, value) in changes.as_object().unwrap() {
        cluster[key] = value.clone();
    }
    let seen: Observed = serde_json::from_value(cluster).unwrap();
    let found = judge(&seen, None);
    let codes: Vec<&str> = found.iter().map(|it| it.code).collect();
    assert_eq!(codes, want, "{changes:#}");
    for finding in found {
        assert!(!finding.symptom.is_empty(), "{finding:?}");
        assert!(!finding.cause.is_empty() && !finding.fix.is_empty(), "{finding:?}");
    }
}

#[test]
fn a_healthy_cluster_has_no_findings() {
    check(&json!({}), &[]);
}

#[test]
fn faults_of_pulls_are_named() {
    let one = |message: &str, code: &str| {
        check(&json!({"pods": [pod("r.test/team/app:1", message, &[])]}), &[code]);
    };
    one("dial tcp: lookup r.test: no such host", "pull.dns");
    one("x509: certificate signed by unknown authority", "pull.tls-authority");
    one("x509: certificate has expired or is not yet valid", "pull.tls-expired");
    one("x509: certificate is valid for a, not b", "pull.tls-name");
    one("http: server gave HTTP response to HTTPS client", "pull.plain-http");
    one("toomanyrequests: slow down", "pull.throttled");
    one("no match for platform in manifest", "pull.platform");
    one("connect: connection refused", "pull.network");
    one("no space left on device", "pull.disk");
    one("503 Service Unavailable", "pull.server-error");
    one("412 Precondition Failed: denied by policy", "pull.policy");
    one("r.test/team/app:1: not found", "pull.not-found");
    one(REFUSED, "pull.no-credentials");
    one("something nobody knows", "pull.unknown");
    check(&json!({"pods": [pod("R.test/Team/App", "InvalidImageName", &[])]}), &["pull.name"]);
}

#[test]
fn faults_of_credentials_are_named() {
    let image = "r.test/team/app:1";
    let auths = |host: &str, password: &str| {
        json!({"auths": {host: {"username": "u", "password": password}}}).to_string()
    };
    let with = |secret: Value, code: &str| {
        check(&json!({"pods": [pod(image, REFUSED, &["s"])], "secrets": [secret]}), &[code]);
    };
    with(secret(DOCKER, &auths("r.test", "p")), "pull.unauthorized");
    with(secret(DOCKER, &auths("other.test", "p")), "pull.secret-host");
    with(secret("Opaque", &auths("r.test", "p")), "pull.secret-type");
    with(secret(DOCKER, "{"), "pull.secret-malformed");
    with(secret(DOCKER, &auths("r.test", "e30.eyJleHAiOjF9.x")), "pull.secret-expired");
    check(&json!({"pods": [pod(image, REFUSED, &["gone"])]}), &["pull.secret-missing"]);
    // Who may not list secrets can't say that one is missing.
    check(
        &json!({"pods": [pod(image, REFUSED, &["gone"])], "secretsKnown": false}),
        &["pull.no-credentials"],
    );
    let good = secret(DOCKER, &auths("r.test", "p"));
    check(
        &json!({"pods": [pod(image, REFUSED, &[])], "secrets": [good.clone()]}),
        &["pull.account-unwired"],
    );
    let account = json!({"metadata": {"name": "default", "namespace": "shop"},
        "imagePullSecrets": [{"name": "s"}]});
    check(
        &json!({"pods": [pod(image, REFUSED, &[])], "secrets": [good], "serviceAccounts": [account]}),
        &["pull.pod-before-secret"],
    );
    // A registry that hides what one may not see.
    check(&json!({"pods": [pod(image, "not found", &["gone"])]}), &["pull.secret-missing"]);
}

#[test]
fn an_event_tells_what_a_back_off_does_not() {
    let mut waiting = pod("r.test/team/app:1", "Back-off pulling image", &[]);
    waiting["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] =
        json!("ImagePullBackOff");
    let event = json!({"metadata": {}, "involvedObject": {"uid": "u1"},
        "message": "Failed to pull image \"r.test/team/app:1\": no such host"});
    check(&json!({"pods": [waiting], "events": [event]}), &["pull.dns"]);
}

#[test]
fn faults_of_the_platform_are_named() {
    check(&json!({"webhooks": []}), &["webhook.disarmed"]);
    check(&json!({"endpoints": []}), &["webhook.no-endpoints"]);
    check(&json!({"crds": {}}), &["crds"]);
    check(&json!({"serverMs": NOW + 600_000}), &["clock", "operator.no-leader"]);
    check(
        &json!({"webhooks": [webhook("kuboard-admission", "kuboard", "kuboard-admission"),
            webhook("other", "elsewhere", "gone")]}),
        &["webhook.foreign"],
    );
    let deployment = |name: &str, wanted: i32, ready: i32| {
        json!([{"metadata": {"name": name, "namespace": "kuboard"},
            "spec": {"replicas": wanted, "selector": {}, "template": {}},
            "status": {"readyReplicas": ready}}])
    };
    check(&json!({"deployments": deployment("scan-worker", 0, 0)}), &["scan.no-workers"]);
    check(&json!({"deployments": deployment("registry-proxy", 2, 0)}), &["platform.not-ready"]);
    check(&json!({"deployments": deployment("registry-proxy", 2, 1)}), &["platform.partly-ready"]);
    let node = |kind: &str, status: &str| {
        json!([{"metadata": {"name": "n1"}, "status": {"conditions":
            [{"type": kind, "status": status, "message": "m"}]}}])
    };
    check(&json!({"nodes": node("DiskPressure", "True")}), &["node.disk"]);
    check(&json!({"nodes": node("Ready", "Unknown")}), &["node.not-ready"]);
    let lease = json!([{"metadata": {"name": "kuboard-operator", "namespace": "kuboard"},
        "spec": {"holderIdentity": "a", "renewTime": "2027-01-15T07:00:00.000000Z"}}]);
    check(&json!({"leases": lease}), &["operator.no-leader"]);
    let claim = json!([{"metadata": {"name": "data", "namespace": "kuboard",
        "creationTimestamp": "2027-01-15T07:00:00Z"}, "spec": {}, "status": {"phase": "Pending"}}]);
    let user = json!([{"metadata": {"name": "p", "namespace": "kuboard"},
        "spec": {"containers": [], "volumes": [{"name": "v",
            "persistentVolumeClaim": {"claimName": "data"}}]}}]);
    check(&json!({"claims": claim, "pods": user}), &["storage.claim-pending"]);
    check(&json!({"claims": claim}), &[]);
    let crash = |reason: &str, message: &str| {
        json!([{"metadata": {"name": "p", "namespace": "kuboard"}, "spec": {"containers": []},
            "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "",
                "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": reason,
                    "message": message}}}]}}])
    };
    check(
        &json!({"pods": crash("Error", "error: the catalog can't be opened")}),
        &["scan.database"],
    );
    check(&json!({"pods": crash("Error", "panic")}), &["platform.crashes"]);
    check(&json!({"pods": crash("OOMKilled", "")}), &["platform.memory"]);
}

#[test]
fn certificates_of_the_webhook_are_looked_at() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let secret = |tls: &str, authority: &str| {
        json!([{"metadata": {"name": "kuboard-webhook-tls", "namespace": "kuboard"},
            "data": {"tls.crt": STANDARD.encode(tls), "ca.crt": STANDARD.encode(authority)}}])
    };
    check(&json!({"secrets": secret("none", "")}), &["certificate.unreadable"]);
    let other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    check(
        &json!({"secrets": secret("none", other)}),
        &["webhook.authority", "certificate.unreadable"],
    );
}
