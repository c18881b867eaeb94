//! `kuboard doctor --cluster` on a real API server: a healthy installation has nothing wrong, and
//! each planted fault is named with its cause. What a kubelet would report is written into the
//! status of pods, as no node is there.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::guarded::{Guarded, namespace, pod};
use kuboard_testkit::Kuboard;
use kuboard_testkit::cluster::{Cluster, Level};
use serde_json::{Value, json};

/// A fault: the code that names it, and part of what it is about.
type Wanted = Vec<(&'static str, String)>;

#[test]
fn planted_faults_are_found() -> Result<()> {
    let mut guarded = Guarded::start(Level::ApiServer)?;
    let (healthy, code) = doctor(&guarded.cluster)?;
    ensure!(problems(&healthy).is_empty() && code == Some(0), "{code:?}: {healthy}");
    drop(guarded.kuboard.take());
    let cluster = &guarded.cluster;
    cluster.kubectl(&["delete", "validatingwebhookconfiguration", "kuboard-admission"])?;
    let mut wanted = Wanted::new();
    wanted.extend(pulls(cluster)?);
    wanted.extend(network(cluster)?);
    wanted.extend(workloads(cluster)?);
    wanted.extend(platform(cluster)?);
    let mut found = check(cluster, &wanted)?;
    // Without a webhook there is nothing wrong with its Service, so this comes second.
    let wanted = webhook(cluster)?;
    found += check(cluster, &wanted)?;
    ensure!(found >= 15, "{found}");
    e2e::figure(json!({"doctorFaults": found}))
}

/// Each of these must be among the findings, with cause and cure; how many they are.
fn check(cluster: &Cluster, wanted: &[(&'static str, String)]) -> Result<usize> {
    let (said, code) = doctor(cluster)?;
    let findings = said["findings"].as_array().context("no findings")?;
    let mut wrong = Vec::new();
    for (fault, subject) in wanted {
        let found = findings.iter().find(|it| {
            it["code"] == *fault && it["subject"].as_str().is_some_and(|it| it.contains(subject))
        });
        match found {
            None => wrong.push(format!("{fault} of {subject} was not found")),
            Some(it) => {
                let told = |key: &str| it[key].as_str().is_some_and(|text| !text.is_empty());
                let cured = it["fix"].as_array().is_some_and(|all| !all.is_empty());
                if !told("cause") || !told("symptom") || !cured {
                    wrong.push(format!("{it} does not say enough"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}\n{said:#}", wrong.join("\n"));
    ensure!(code == Some(3), "{code:?}");
    Ok(wanted.len())
}

fn doctor(cluster: &Cluster) -> Result<(Value, Option<i32>)> {
    let folder = kuboard_testkit::tool::folder("doctor")?;
    let mut command: Command = Kuboard::command()?;
    command.args(["doctor", "--cluster", "-o", "json", "--data-dir"]).arg(folder.path());
    let done = command.env("KUBECONFIG", cluster.kubeconfig()).output()?;
    let text = String::from_utf8_lossy(&done.stdout);
    let said = serde_json::from_str(&text)
        .with_context(|| format!("{text}{}", String::from_utf8_lossy(&done.stderr)))?;
    Ok((said, done.status.code()))
}

fn problems(said: &Value) -> Vec<&Value> {
    let findings = said["findings"].as_array().into_iter().flatten();
    findings.filter(|it| it["level"] == "problem").collect()
}

/// Writes a status, as those do whom it belongs to.
fn status(cluster: &Cluster, kind: &str, namespace: &str, name: &str, status: Value) -> Result<()> {
    let patch = json!({"status": status}).to_string();
    let of = ["-n", namespace, "patch", kind, name, "--subresource=status", "--type=merge", "-p"];
    cluster.kubectl(&[&of[..], &[&patch]].concat())?;
    Ok(())
}

/// A pod whose image does not come.
struct Pull {
    code: &'static str,
    namespace: &'static str,
    image: &'static str,
    secret: &'static str,
    reason: &'static str,
    message: &'static str,
}

/// Pods whose images do not come, each for a reason of its own.
fn pulls(cluster: &Cluster) -> Result<Wanted> {
    let unauthorized = "failed to resolve reference: unexpected status: 401 Unauthorized";
    let pull = |code, message| Pull {
        code,
        namespace: "bare",
        image: "reg.test/team/app:1",
        secret: "",
        reason: "ErrImagePull",
        message,
    };
    let secret = |code, secret| Pull { namespace: "held", secret, ..pull(code, unauthorized) };
    let all = [
        secret("pull.secret-missing", "gone"),
        secret("pull.secret-type", "opaque"),
        secret("pull.secret-malformed", "malformed"),
        secret("pull.secret-host", "elsewhere"),
        secret("pull.secret-expired", "expired"),
        secret("pull.unauthorized", "good"),
        Pull { namespace: "unwired", ..pull("pull.account-unwired", unauthorized) },
        Pull { namespace: "late", ..pull("pull.pod-before-secret", unauthorized) },
        pull("pull.no-credentials", unauthorized),
        pull("pull.not-found", "failed to resolve reference: reg.test/team/app:1: not found"),
        pull("pull.throttled", "toomanyrequests: You have reached your pull rate limit"),
        pull("pull.dns", "dial tcp: lookup reg.test on 10.0.0.10:53: no such host"),
        pull("pull.tls-authority", "x509: certificate signed by unknown authority"),
        pull("pull.tls-expired", "x509: certificate has expired or is not yet valid"),
        pull("pull.tls-name", "x509: certificate is valid for a.test, not reg.test"),
        pull("pull.plain-http", "http: server gave HTTP response to HTTPS client"),
        pull("pull.network", "dial tcp 10.0.0.1:443: connect: connection refused"),
        pull("pull.platform", "no match for platform in manifest: not found"),
        pull("pull.disk", "write /var/lib/containerd: no space left on device"),
        pull("pull.server-error", "unexpected status: 503 Service Unavailable"),
        pull("pull.policy", "unexpected status: 412 Precondition Failed: denied by policy"),
        Pull { reason: "ErrImageNeverPull", ..pull("pull.never", "the image is not there") },
        Pull { image: "Reg/Team:1:2", reason: "InvalidImageName", ..pull("pull.name", "no name") },
    ];
    let homes = ["bare", "held", "unwired", "late"].map(|name| namespace(name, &[]));
    cluster.apply(&homes.join("\n---\n"))?;
    secrets(cluster)?;
    let mut wanted = Wanted::new();
    for pull in &all {
        let name = pull.code.replace('.', "-");
        let mut object = pod(pull.namespace, &name, pull.image);
        if !pull.secret.is_empty() {
            object["spec"]["imagePullSecrets"] = json!([{"name": pull.secret}]);
        }
        cluster.apply(&object.to_string())?;
        let waiting = json!({"reason": pull.reason, "message": pull.message});
        let container = json!({"name": "main", "image": pull.image, "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": waiting}});
        let seen = json!({"phase": "Pending", "containerStatuses": [container]});
        status(cluster, "pod", pull.namespace, &name, seen)?;
        wanted.push((pull.code, format!("{}/{name}", pull.namespace)));
    }
    Ok(wanted)
}

/// Pull secrets: good, bad, and of no use.
fn secrets(cluster: &Cluster) -> Result<()> {
    let of = |namespace: &str, name: &str, kind: &str, key: &str, text: String| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": {"name": name, "namespace": namespace}, "stringData": {key: text}})
        .to_string()
    };
    let json = |namespace: &str, name: &str, auths: Value| {
        let kind = "kubernetes.io/dockerconfigjson";
        of(namespace, name, kind, ".dockerconfigjson", auths.to_string())
    };
    let auths = |host: &str, password: &str| {
        let mut auths = json!({"auths": {}});
        auths["auths"][host] = json!({"username": "u", "password": password});
        auths
    };
    // Its time was over in 1970: the second part says `{"exp":1000}`.
    let token = "e30.eyJleHAiOjEwMDB9.x";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": "late"},
        "imagePullSecrets": [{"name": "good"}]});
    let all = [
        of("held", "opaque", "Opaque", "config.json", "{}".to_owned()),
        json("held", "malformed", json!({"auths": {"reg.test": {"auth": "%"}}})),
        json("held", "elsewhere", auths("other.test", "p")),
        json("held", "expired", auths("reg.test", token)),
        json("held", "good", auths("reg.test", "p")),
        json("unwired", "good", auths("reg.test", "p")),
        json("late", "good", auths("reg.test", "p")),
        account.to_string(),
    ];
    cluster.apply(&all.join("\n---\n"))?;
    Ok(())
}

/// A pod of the product's own.
fn own(name: &str, component: &str, port: u16) -> Value {
    let mut object = pod("kuboard", name, "reg.test/kuboard:1");
    object["metadata"]["labels"] = json!({"app.kubernetes.io/component": component});
    object["spec"]["containers"][0]["ports"] = json!([{"containerPort": port}]);
    object
}

/// A policy that closes the ways into and out of the product's pods.
fn network(cluster: &Cluster) -> Result<Wanted> {
    let closed = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": "kuboard"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"port": 9090}]}]}});
    let pods = [own("front", "registry-proxy", 5000), own("boss", "operator", 9443)];
    let all = [&closed, &pods[0], &pods[1]].map(Value::to_string);
    cluster.apply(&all.join("\n---\n"))?;
    Ok(vec![
        ("network.ingress", "registry-proxy".to_owned()),
        ("network.webhook", "operator".to_owned()),
        ("network.egress", "kuboard/front".to_owned()),
    ])
}

/// Workloads of the product without pods, and pods that end.
fn workloads(cluster: &Cluster) -> Result<Wanted> {
    let deployment = |component: &str, replicas: u32| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": component, "namespace": "kuboard",
                "labels": {"app.kubernetes.io/component": component}},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": component}},
                "template": {"metadata": {"labels": {"a": component}},
                    "spec": {"containers": [{"name": "main", "image": "reg.test/kuboard:1"}]}}}})
    };
    for (component, replicas) in
        [("scan-worker", 0), ("registry-proxy", 0), ("scan-engine", 1), ("registry-cache", 2)]
    {
        cluster.apply(&deployment(component, replicas).to_string())?;
    }
    let partly = json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 1});
    status(cluster, "deployment", "kuboard", "registry-cache", partly)?;
    let ended = [
        ("hungry", "OOMKilled", ""),
        ("cut-off", "Error", "the catalog can't be reached"),
        ("broken", "Error", "no such file"),
    ];
    for (name, reason, message) in ended {
        cluster.apply(&own(name, "scan-worker", 9090).to_string())?;
        let container = json!({"name": "main", "image": "reg.test/kuboard:1", "imageID": "",
            "ready": false, "restartCount": 7,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            "lastState": {"terminated":
                {"exitCode": 1, "reason": reason, "message": message}}});
        let seen = json!({"phase": "Running", "containerStatuses": [container]});
        status(cluster, "pod", "kuboard", name, seen)?;
    }
    let text = str::to_owned;
    Ok(vec![
        ("scan.no-workers", text("scan-worker")),
        ("platform.no-replicas", text("registry-proxy")),
        ("platform.not-ready", text("scan-engine")),
        ("platform.partly-ready", text("registry-cache")),
        ("platform.memory", text("hungry")),
        ("scan.database", text("cut-off")),
        ("platform.crashes", text("broken")),
    ])
}

/// The cluster around it: nodes, custom resources, lease, certificate, the webhook that is gone.
fn platform(cluster: &Cluster) -> Result<Wanted> {
    for name in ["full", "away"] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        cluster.apply(&node.to_string())?;
    }
    let condition = |kind: &str, is: &str, message: &str| json!({"conditions": [{"type": kind, "status": is, "reason": "Planted", "message": message}]});
    let disk = condition("DiskPressure", "True", "kubelet has disk pressure");
    status(cluster, "node", "default", "full", disk)?;
    let away = condition("Ready", "Unknown", "Kubelet stopped posting node status.");
    status(cluster, "node", "default", "away", away)?;
    cluster.kubectl(&["delete", "crd", "imageexemptions.kuboard.cn", "--wait=false"])?;
    cluster.wait("the custom resource to be gone", || {
        let left = ["get", "crd", "imageexemptions.kuboard.cn"];
        Ok(!cluster.admin().ask(&left, None)?.success)
    })?;
    let old = json!({"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}}).to_string();
    let lease = ["-n", "kuboard", "patch", "lease", "kuboard-operator", "--type=merge", "-p"];
    cluster.kubectl(&[&lease[..], &[&old]].concat())?;
    let nothing = json!({"stringData": {"tls.crt": "nothing"}}).to_string();
    let secret = ["-n", "kuboard", "patch", "secret", "kuboard-webhook-tls", "--type=merge", "-p"];
    cluster.kubectl(&[&secret[..], &[&nothing]].concat())?;
    let text = str::to_owned;
    Ok(vec![
        ("node.disk", text("full")),
        ("node.not-ready", text("away")),
        ("crds", text("custom resources")),
        ("operator.no-leader", text("operator")),
        ("certificate.unreadable", text("kuboard-webhook-tls")),
        ("webhook.disarmed", text("webhook")),
    ])
}

/// Webhooks that nobody answers for: the product's own, with an authority that is not its, and
/// one of others that stops its pods.
fn webhook(cluster: &Cluster) -> Result<Wanted> {
    // Any authority but the right one.
    let authority = std::fs::read(cluster.authority())?;
    let bundle = base64(&authority)?;
    let configuration = |name: &str, service: &str, bundle: Option<&str>| {
        let mut client =
            json!({"service": {"namespace": "kuboard", "name": service, "path": "/validate"}});
        if let Some(bundle) = bundle {
            client["caBundle"] = json!(bundle);
        }
        json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration", "metadata": {"name": name},
            "webhooks": [{"name": format!("{name}.example.test"), "sideEffects": "None",
                "admissionReviewVersions": ["v1"], "failurePolicy": "Fail", "clientConfig": client,
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
                    "operations": ["CREATE"]}]}]})
        .to_string()
    };
    cluster.apply(&configuration("kuboard-admission", "kuboard-webhook", Some(&bundle)))?;
    cluster.apply(&configuration("stranger", "stranger", None))?;
    let text = str::to_owned;
    Ok(vec![
        ("webhook.no-endpoints", text("webhook")),
        ("webhook.authority", text("webhook")),
        ("webhook.foreign", text("stranger")),
    ])
}

/// Base64, as another program makes it.
fn base64(bytes: &[u8]) -> Result<String> {
    let folder = kuboard_testkit::tool::folder("base64")?;
    let file = folder.path().join("bytes");
    std::fs::write(&file, bytes)?;
    let mut openssl = kuboard_testkit::tool::command("openssl")?;
    openssl.args(["base64", "-A", "-in"]).arg(&file);
    Ok(kuboard_testkit::tool::output(&mut openssl)?.trim().to_owned())
}
