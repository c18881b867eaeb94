//! The chart on a real API server and a real scheduler, the alert rules under promtool, and the
//! container image in a real runtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::command::finish;
use e2e::programs::Programs;
use kuboard_testkit::cluster::{Cluster, Component, Kubectl, Level, NODE};
use kuboard_testkit::http::Request;
use kuboard_testkit::process::Process;
use kuboard_testkit::{Image, Kuboard, RegistryClient, tool};
use serde_json::{Value, json};

const BOUND: Duration = Duration::from_secs(120);

/// The smallest mode cluster.
const CLUSTER: &str = "
mode: cluster
catalog: {existingSecret: kuboard-postgres}
storage: {url: 's3://images/kuboard', region: eu-central-1, accessKeyId: kuboard, existingSecret: kuboard-s3}
";

const HOST_PATH: &str = "
persistence:
  strategy: hostPath
  size: 1Gi
  hostPath:
    nodes:
      - {name: node-a, path: /data/kuboard}
      - {name: node-b, path: /data/kuboard}
";

const CLOUD: &str = "
persistence: {strategy: cloud, size: 1Gi, provisioner: ebs.csi.example.com, parameters: {type: gp3, iops: 3000}}
cache: {storageClass: ssd-zonal}
";

const DISTRIBUTED: &str = "
persistence: {strategy: distributed, size: 1Gi, provisioner: rbd.csi.example.com}
cache: {storageClass: ssd-retain}
";

/// All that can be switched on, in either mode.
const EVERYTHING: &str = "
externalUrl: https://registry.example.com
image: {registry: registry.example.com, pullSecrets: [pull]}
access: {htpasswdSecret: users, tokenKeySecret: token-key}
tls: {mode: certManager, certManager: {issuerRef: {name: letsencrypt, kind: ClusterIssuer}, dnsNames: [registry.example.com]}}
service: {type: LoadBalancer}
ingress: {enabled: true, className: nginx, host: registry.example.com, tlsSecretName: registry-tls}
secrets: [harbor, siem]
config:
  defaults: {mirrors: cn, tagTtlSeconds: 30}
  upstream:
    - {name: harbor.example.com, credentials: {kind: basic, user: robot, passwordFile: /etc/kuboard/secrets/harbor/password}}
    - {name: quay.io, deny: ['secret/**']}
  webhook:
    - {name: siem, url: 'https://siem.example.com/', secretFile: /etc/kuboard/secrets/siem/secret}
scan: {apiKeySecret: scan-api, excludeRegistries: ['*.internal.corp']}
advisories: {feeds: [debian, alpine], mirror: 'https://mirror.example.com/feeds'}
registryProxy: {autoscaling: {enabled: true}, priorityClassName: system-cluster-critical, podAnnotations: {a: b}}
registryCache: {extraEnv: [{name: TZ, value: UTC}], tolerations: [{key: storage, operator: Exists}]}
scanWorker: {autoscaling: {enabled: true}}
scanNodes: {nodeSelector: {kuboard.cn/scan: 'true'}, tolerations: [{key: kuboard.cn/scan, operator: Exists, effect: NoSchedule}]}
operator: {excludedNamespaces: [monitoring], secretNamespaces: [default]}
admission: {pinDigests: true, platforms: [linux/amd64, linux/arm64]}
serviceAccount: {annotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::1:role/kuboard'}}
rbac: {exemptionsByNamespaceAdmins: true}
networkPolicy: {enabled: true, registryFrom: [{ipBlock: {cidr: 10.0.0.0/8}}], apiServerCIDRs: [10.0.0.1/32]}
monitoring: {serviceMonitor: true, prometheusRule: true, dashboards: true, labels: {release: prometheus}}
flowSchema: {enabled: true}
";

/// Values as a user may have them, by name.
fn sets() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("default", vec![]),
        ("cluster", vec![CLUSTER]),
        ("hostPath", vec![CLUSTER, HOST_PATH]),
        ("cloud", vec![CLUSTER, CLOUD]),
        ("distributed", vec![CLUSTER, DISTRIBUTED]),
        ("everything", vec![CLUSTER, EVERYTHING]),
        ("everything standalone", vec![EVERYTHING]),
        ("without admission", vec!["admission: {enabled: false}\noperator: {enabled: false}\n"]),
        (
            "without scanner",
            vec![
                CLUSTER,
                "scan: {enable: false}\noperator: {enabled: false}\nadmission: {enabled: false}\n",
            ],
        ),
    ]
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder that all runs share: what a test program keeps to its end is never dropped.
fn kept(name: &str) -> PathBuf {
    root().join("target/tmp/chart").join(name)
}

fn chart() -> String {
    root().join("charts/kuboard").display().to_string()
}

/// Kinds of others that the chart makes objects of: any object is taken.
const FOREIGN: &[(&str, &str, &str)] = &[
    ("monitoring.coreos.com", "ServiceMonitor", "servicemonitors"),
    ("monitoring.coreos.com", "PrometheusRule", "prometheusrules"),
    ("cert-manager.io", "Certificate", "certificates"),
];

/// The control plane that the tests share, with namespace, our kinds, and those of others.
fn cluster() -> Result<&'static Cluster> {
    static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
    let started = SHARED.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    started.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn start() -> Result<Cluster> {
    // The nodes are objects without a kubelet, which would be missed after some seconds.
    let cluster = Cluster::builder(Level::ControlPlane)
        .flag(Component::ControllerManager, "--node-monitor-grace-period=2h")
        .folder(&kept("cluster"))
        .start()?;
    cluster.kubectl(&["apply", "--server-side", "-f", &format!("{}/crds", chart())])?;
    for (group, kind, plural) in FOREIGN {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        });
        cluster.apply(&definition.to_string())?;
    }
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    namespace(&cluster, "kuboard")?;
    Ok(cluster)
}

/// A namespace that takes nothing but restricted pods, and says so.
fn namespace(cluster: &Cluster, name: &str) -> Result<()> {
    let restricted = "pod-security.kubernetes.io";
    let labels = json!({
        format!("{restricted}/enforce"): "restricted", format!("{restricted}/warn"): "restricted",
    });
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
    });
    cluster.apply(&object.to_string()).map(drop)
}

/// `helm ARGUMENTS kuboard CHART` with values, which must succeed.
fn helm(kubectl: &Kubectl, arguments: &[&str], values: &[&str]) -> Result<String> {
    let folder = tool::folder("values")?;
    let mut command = kubectl.helm(arguments)?;
    for (number, text) in values.iter().enumerate() {
        let file = folder.path().join(format!("{number}.yaml"));
        fs::write(&file, text)?;
        command.arg("--values").arg(file);
    }
    let done = finish(&mut command)?;
    ensure!(done.code == Some(0), "helm {}: {}{}", arguments.join(" "), done.stdout, done.stderr);
    Ok(done.stdout)
}

fn template(kubectl: &Kubectl, namespace: &str, values: &[&str]) -> Result<String> {
    helm(kubectl, &["template", "kuboard", &chart(), "--namespace", namespace], values)
}

#[test]
fn lint_finds_nothing() -> Result<()> {
    let kubectl = cluster()?.admin();
    for (name, values) in sets() {
        let told = helm(&kubectl, &["lint", "--strict", &chart()], &values).context(name)?;
        ensure!(told.contains("0 chart(s) failed"), "{name}: {told}");
    }
    Ok(())
}

#[test]
fn the_api_server_takes_every_object() -> Result<()> {
    let kubectl = cluster()?.admin();
    for (name, values) in sets() {
        let objects = template(&kubectl, "kuboard", &values).context(name)?;
        let dry = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
        let told = kubectl.accepted(&dry, &objects).context(name)?;
        let wrong: Vec<&str> = told
            .lines()
            .filter(|it| !it.ends_with("serverside-applied (server dry run)"))
            .collect();
        ensure!(wrong.is_empty(), "{name}: {wrong:#?}");
    }
    Ok(())
}

#[test]
fn containers_have_the_names_that_guides_speak_of() -> Result<()> {
    let kubectl = cluster()?.admin();
    let all = ["operator", "registry-cache", "registry-proxy", "scan-engine", "scan-worker"];
    for values in [vec![], vec![CLUSTER]] {
        let objects = template(&kubectl, "kuboard", &values)?;
        let list = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"];
        let printed = kubectl.accepted(&list, &objects)?;
        let mut names = Vec::new();
        for object in serde_json::Deserializer::from_str(&printed).into_iter::<Value>() {
            let object = object?;
            let items = object["items"].as_array().cloned().unwrap_or_else(|| vec![object.clone()]);
            for item in items
                .iter()
                .filter(|it| matches!(it["kind"].as_str(), Some("Deployment" | "StatefulSet")))
            {
                let containers = item["spec"]["template"]["spec"]["containers"].as_array();
                for container in containers.into_iter().flatten() {
                    names.push(container["name"].as_str().unwrap_or_default().to_owned());
                    let security = &container["securityContext"];
                    ensure!(security["readOnlyRootFilesystem"] == true, "{container}");
                    ensure!(container["livenessProbe"].is_object(), "{container}");
                }
            }
        }
        names.sort();
        ensure!(names == all, "{names:?}");
    }
    Ok(())
}

#[test]
fn values_that_contradict_each_other_are_refused_with_a_hint() -> Result<()> {
    let kubectl = cluster()?.admin();
    let check = |values: &[&str], said: &str| -> Result<()> {
        let Err(error) = template(&kubectl, "kuboard", values) else { bail!("taken: {values:?}") };
        let told = format!("{error:#}");
        ensure!(told.contains(said), "{values:?}: {told}");
        Ok(())
    };
    check(&["agent: {enabled: true}\n"], "no role agent yet; hint: leave it false")?;
    check(&["mode: cluster\n"], "needs PostgreSQL; hint:")?;
    check(&["mode: cluster\ncatalog: {existingSecret: a}\n"], "needs an object store")?;
    check(&[CLUSTER, "access: {anonymous: none}\n"], "hint: set scanWorker.enabled=false")?;
    check(&["access: {anonymous: none}\n"], "hint: set scanWorker.enabled=false")?;
    check(&["operator: {enabled: false}\n"], "admission.enabled needs operator.enabled")?;
    check(&["scan: {enable: false}\n"], "hint: set scan.enable=true")?;
    check(&["tls: {mode: secret}\n"], "hint: set tls.secretName")?;
    check(&["tls: {mode: certManager}\n"], "hint: set tls.certManager.issuerRef")?;
    check(&["ingress: {enabled: true}\n"], "hint: set ingress.host")?;
    check(&["storage: {accessKeyId: a}\n"], "hint: set storage.existingSecret")?;
    check(&["operator: {hostNetwork: true}\n"], "is for mode cluster")?;
    check(&["persistence: {strategy: hostPath}\n"], "names 0 nodes for 1 volumes")?;
    check(&["persistence: {strategy: cloud}\n"], "hint: set persistence.provisioner")?;
    check(&["persistence: {strategy: distributed}\n"], "hint: set persistence.provisioner")?;
    // The schema's word.
    check(&["cache: {cacheSizeGb: 5}\n"], "cacheSizeGb")?;
    check(&["mode: big\n"], "mode")?;
    check(&["cache: {cacheSizeGB: 0}\n"], "cacheSizeGB")?;
    check(&["image: {digest: latest}\n"], "digest")
}

/// Every value is described, and what the schema knows is in values.yaml.
#[test]
fn the_schema_tells_of_every_value() -> Result<()> {
    fn look(path: &str, schema: &Value, missing: &mut Vec<String>) {
        if schema["description"].as_str().is_none_or(str::is_empty) {
            missing.push(path.to_owned());
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            look(&format!("{path}.{name}"), inner, missing);
        }
        if schema["properties"].is_object() && schema["additionalProperties"] != false {
            missing.push(format!("{path} takes unknown values"));
        }
    }
    let text = fs::read_to_string(root().join("charts/kuboard/values.schema.json"))?;
    let mut missing = Vec::new();
    look("values", &serde_json::from_str(&text)?, &mut missing);
    ensure!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

/// The files of the ConfigMap, by name.
fn files(kubectl: &Kubectl, values: &[&str]) -> Result<Vec<(String, String)>> {
    let only = [
        "template",
        "kuboard",
        &chart(),
        "--namespace",
        "kuboard",
        "--show-only",
        "templates/configmap.yaml",
    ];
    let object = helm(kubectl, &only, values)?;
    let print = ["create", "--dry-run=client", "-o", "json", "-f", "-"];
    let object: Value = serde_json::from_str(&kubectl.accepted(&print, &object)?)?;
    let data = object["data"].as_object().context("no data")?;
    Ok(data
        .iter()
        .map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().to_owned()))
        .collect())
}

#[test]
fn the_program_takes_every_configuration() -> Result<()> {
    let kubectl = cluster()?.admin();
    let folder = tool::folder("configuration")?;
    for (name, values) in sets() {
        for (file, text) in files(&kubectl, &values)? {
            let path = folder.path().join(&file);
            fs::write(&path, &text)?;
            let done = finish(Kuboard::command()?.args(["config", "check"]).arg(&path))?;
            ensure!(done.code == Some(0), "{name}, {file}: {}{}\n{text}", done.stdout, done.stderr);
        }
    }
    let everything = files(&kubectl, &[CLUSTER, EVERYTHING])?;
    let text =
        |name: &str| everything.iter().find(|(it, _)| it == name).map(|(_, text)| text.as_str());
    let cache = text("registry-cache.toml").context("no registry-cache.toml")?;
    for line in [
        "urlFile = \"/etc/kuboard/catalog/url\"",
        "tagTtlSeconds = 30",
        "cacheSizeGB = 50",
        "passwordFile = \"/etc/kuboard/secrets/harbor/password\"",
        "deny = [\"secret/**\"]",
        "excludedNamespaces = [\"monitoring\"]",
    ] {
        ensure!(cache.lines().any(|it| it == line), "{line} is not in\n{cache}");
    }
    let front = text("registry-proxy.toml").context("no registry-proxy.toml")?;
    ensure!(front.contains("mode = \"files\"") && !front.contains("harbor"), "{front}");
    Ok(())
}

/// The processes of the one pod of mode standalone, with the chart's own configuration.
#[test]
fn the_processes_of_the_small_form_share_one_file() -> Result<()> {
    let kubectl = cluster()?.admin();
    let folder = tool::folder("standalone")?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let ports: Vec<u16> = (0..4).map(|_| tool::free_port()).collect::<Result<_>>()?;
    let values = "access: {anonymous: push}\nadvisories: {update: false}\nlog: {format: text}\n";
    for (name, text) in files(&kubectl, &[values])? {
        let text = text
            .replace("/var/lib/kuboard", &folder.path().display().to_string())
            .replace("127.0.0.1:5001", &format!("127.0.0.1:{}", ports[1]));
        fs::write(at(&name), text)?;
    }
    let roles = [
        ("registry-proxy", "registry-proxy", "registry-proxy.toml"),
        ("registry-cache", "registry-cache,scan-worker", "registry-cache.toml"),
        ("scan-engine", "scan-engine", "kuboard.toml"),
        ("scan-worker", "scan-worker", "kuboard.toml"),
    ];
    let mut processes = Vec::new();
    for ((name, roles, config), port) in roles.into_iter().zip(&ports) {
        let mut command = Kuboard::command()?;
        command.args(["serve", "--role", roles, "--config", &at(config), "--data-dir", &at(name)]);
        command.args(["--listen", &format!("127.0.0.1:{port}")]).current_dir(folder.path());
        // Stands for the service account that the pod would have.
        command.env("KUBECONFIG", cluster()?.kubeconfig());
        let log = folder.path().join(format!("{name}.log"));
        processes.push((name, *port, Process::start(name, &mut command, &log)?));
    }
    for (_, port, process) in &mut processes {
        let address = format!("127.0.0.1:{port}");
        process.wait_ready(BOUND, || {
            Ok(Request::get("/readyz").send(&address).is_ok_and(|answer| answer.status == 200))
        })?;
    }
    let client = RegistryClient::new(format!("127.0.0.1:{}", ports[0]));
    for number in 0..8 {
        let image = Image::oci(number, &[50_000, 20_000])?;
        client.push(&format!("team/app-{number}"), "v1", &image)?;
        ensure!(client.pull(&format!("team/app-{number}"), "v1")?.digest == image.digest);
    }
    let done = || -> Result<f64> {
        let mut total = 0.0;
        for port in [ports[1], ports[3]] {
            let text = Request::get("/metrics").send(&format!("127.0.0.1:{port}"))?.text();
            let lines =
                text.lines().filter(|it| it.starts_with("scan_jobs_total{") && it.contains("done"));
            total += lines.filter_map(|it| it.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(total)
    };
    tool::wait_until("eight scans", BOUND, || Ok(done()? >= 8.0))?;
    for (name, _, process) in &mut processes {
        let status = process.terminate(BOUND)?;
        ensure!(status.success(), "{name}: {status}");
        let log = process.log();
        ensure!(!log.contains("locked") && !log.contains("ERROR"), "{name}: {log}");
    }
    Ok(())
}

/// Nodes that the scheduler believes in.
fn nodes(cluster: &Cluster) -> Result<()> {
    for name in ["node-a", "node-b"] {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": name,
            }},
        });
        cluster.apply(&node.to_string())?;
        let status = json!({"status": {
            "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "500Gi"},
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "500Gi"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "ready",
                "lastHeartbeatTime": "2030-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }});
        cluster.kubectl(&[
            "patch",
            "node",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status.to_string(),
        ])?;
        cluster.wait("a node without taints", || {
            Ok(cluster.get_json(&format!("/api/v1/nodes/{name}"))?["spec"]["taints"].is_null())
        })?;
    }
    Ok(())
}

fn claims(cluster: &Cluster, namespace: &str) -> Result<Vec<Value>> {
    let list =
        cluster.get_json(&format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims"))?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    Ok(items
        .into_iter()
        .filter(|it| it["metadata"]["name"].as_str().is_some_and(|it| it.starts_with("data-")))
        .collect())
}

/// Only the caches and what they need: the scheduler is asked about volumes.
const ONLY_CACHES: &str = "
registryProxy: {replicas: 1}
scan: {enable: false}
operator: {enabled: false}
admission: {enabled: false}
rbac: {userRoles: false}
access: {kubernetes: false}
";

fn install(cluster: &Cluster, namespace_name: &str, values: &[&str]) -> Result<()> {
    namespace(cluster, namespace_name)?;
    let values = [&[CLUSTER, ONLY_CACHES], values].concat();
    let arguments = ["install", "kuboard", &chart(), "--namespace", namespace_name, "--skip-crds"];
    helm(&cluster.admin(), &arguments, &values).map(drop)
}

fn uninstall(cluster: &Cluster, namespace: &str) -> Result<()> {
    let arguments = ["uninstall", "kuboard", "--namespace", namespace];
    helm(&cluster.admin(), &arguments, &[]).map(drop)
}

/// One after the other: they share the nodes, and names of the whole cluster.
#[test]
fn the_storage_strategies_bind_on_the_scheduler() -> Result<()> {
    let cluster = cluster()?;
    nodes(cluster)?;
    folders_of_nodes(cluster)?;
    disks_where_the_pod_runs(cluster)?;
    data_that_outlives_its_claim(cluster)
}

fn folders_of_nodes(cluster: &Cluster) -> Result<()> {
    install(cluster, "folders", &[HOST_PATH])?;
    cluster.wait("both claims to be bound", || {
        let claims = claims(cluster, "folders")?;
        Ok(claims.len() == 2 && claims.iter().all(|it| it["status"]["phase"] == "Bound"))
    })?;
    // A claim is bound a moment before its pod is put on the node.
    cluster.wait("both pods on their nodes", || {
        let pods = cluster.get_json("/api/v1/namespaces/folders/pods")?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let caches = pods.filter(|it| {
            it["metadata"]["name"].as_str().is_some_and(|it| it.contains("registry-cache"))
        });
        Ok(caches.filter(|it| it["spec"]["nodeName"].is_string()).count() == 2)
    })?;
    let mut used = Vec::new();
    for number in 0..2 {
        let pod = cluster.get_json(&format!(
            "/api/v1/namespaces/folders/pods/kuboard-registry-cache-{number}"
        ))?;
        let node = pod["spec"]["nodeName"].as_str().context("not scheduled")?.to_owned();
        let claim = cluster.get_json(&format!(
            "/api/v1/namespaces/folders/persistentvolumeclaims/data-kuboard-registry-cache-{number}"
        ))?;
        let volume = claim["spec"]["volumeName"].as_str().context("not bound")?;
        let volume = cluster.get_json(&format!("/api/v1/persistentvolumes/{volume}"))?;
        let term = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0];
        ensure!(term["matchExpressions"][0]["values"] == json!([node]), "{volume} and {node}");
        ensure!(volume["spec"]["hostPath"]["path"] == "/data/kuboard", "{volume}");
        used.push(node);
    }
    used.sort();
    ensure!(used == ["node-a", "node-b"], "{used:?}");
    uninstall(cluster, "folders")?;
    let volumes = cluster.get_json("/api/v1/persistentvolumes")?;
    ensure!(
        volumes["items"].as_array().is_some_and(|it| it.len() == 2),
        "the data went: {volumes}"
    );
    Ok(())
}

fn disks_where_the_pod_runs(cluster: &Cluster) -> Result<()> {
    install(cluster, "disks", &[CLOUD])?;
    let class = cluster.get_json("/apis/storage.k8s.io/v1/storageclasses/ssd-zonal")?;
    ensure!(class["volumeBindingMode"] == "WaitForFirstConsumer", "{class}");
    ensure!(class["parameters"] == json!({"type": "gp3", "iops": "3000"}), "{class}");
    // The scheduler chooses the node first, and tells the provisioner.
    cluster.wait("the chosen nodes", || {
        let claims = claims(cluster, "disks")?;
        let chosen = |it: &Value| {
            it["metadata"]["annotations"]["volume.kubernetes.io/selected-node"].is_string()
        };
        Ok(claims.len() == 2 && claims.iter().all(chosen))
    })?;
    for claim in claims(cluster, "disks")? {
        let node = claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"].clone();
        provision(cluster, &claim, &class, Some(&node))?;
    }
    cluster.wait("the pods on their nodes", || {
        let pods = cluster.get_json("/api/v1/namespaces/disks/pods")?;
        let caches = pods["items"].as_array().into_iter().flatten();
        let mut caches = caches
            .filter(|it| it["metadata"]["name"].as_str().is_some_and(|it| it.contains("cache")));
        Ok(caches.all(|it| it["spec"]["nodeName"].is_string()))
    })?;
    uninstall(cluster, "disks")
}

fn data_that_outlives_its_claim(cluster: &Cluster) -> Result<()> {
    install(cluster, "retained", &[DISTRIBUTED])?;
    let class = cluster.get_json("/apis/storage.k8s.io/v1/storageclasses/ssd-retain")?;
    ensure!(class["reclaimPolicy"] == "Retain", "{class}");
    cluster.wait("claims", || Ok(claims(cluster, "retained")?.len() == 2))?;
    for claim in claims(cluster, "retained")? {
        provision(cluster, &claim, &class, None)?;
    }
    cluster.wait("bound claims", || {
        Ok(claims(cluster, "retained")?.iter().all(|it| it["status"]["phase"] == "Bound"))
    })?;
    let volume = claims(cluster, "retained")?[0]["spec"]["volumeName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    uninstall(cluster, "retained")?;
    ensure!(claims(cluster, "retained")?.len() == 2, "claims went with the release");
    // No kubelet ends the pods.
    cluster.kubectl(&[
        "delete",
        "pods",
        "--all",
        "-n",
        "retained",
        "--force",
        "--grace-period=0",
    ])?;
    cluster.kubectl(&["delete", "pvc", "--all", "-n", "retained", "--timeout=60s"])?;
    cluster.wait("the released volume", || {
        let volume = cluster.get_json(&format!("/api/v1/persistentvolumes/{volume}"))?;
        Ok(volume["status"]["phase"] == "Released")
    })
}

/// Makes the volume of a claim as its class says, like a provisioner.
fn provision(cluster: &Cluster, claim: &Value, class: &Value, node: Option<&Value>) -> Result<()> {
    let name = claim["metadata"]["uid"].as_str().context("no uid")?;
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("pv-{name}")},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": class["reclaimPolicy"],
            "storageClassName": class["metadata"]["name"],
            "csi": {"driver": class["provisioner"], "volumeHandle": name},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim["metadata"]["namespace"], "name": claim["metadata"]["name"],
                "uid": name,
            },
        },
    });
    if let Some(node) = node {
        volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{
            "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}],
        }]}});
    }
    cluster.apply(&volume.to_string()).map(drop)
}

/// What was made once stays over an upgrade, and goes with the release.
#[test]
fn an_upgrade_keeps_the_key_and_the_operators_notes() -> Result<()> {
    let cluster = cluster()?;
    let kubectl = cluster.admin();
    namespace(cluster, "upgraded")?;
    let values = [CLUSTER, "fullnameOverride: upgraded\nrbac: {userRoles: false}\n"];
    let arguments = |verb: &'static str| {
        vec![verb, "upgraded", "CHART", "--namespace", "upgraded", "--skip-crds"]
    };
    let run = |verb: &'static str| {
        let chart = chart();
        let arguments: Vec<&str> = arguments(verb)
            .into_iter()
            .map(|it| if it == "CHART" { chart.as_str() } else { it })
            .collect();
        helm(&kubectl, &arguments, &values)
    };
    run("install")?;
    let secret = || cluster.get_json("/api/v1/namespaces/upgraded/secrets/upgraded-token-key");
    let notes =
        || cluster.get_json("/api/v1/namespaces/upgraded/configmaps/kuboard-admission-state");
    let key = secret()?["data"]["token-key.pem"].clone();
    ensure!(key.as_str().is_some_and(|it| it.len() > 50), "{key}");
    let note = r#"{"data": {"disarmed": "by somebody"}}"#;
    cluster.kubectl(&[
        "patch",
        "configmap",
        "kuboard-admission-state",
        "-n",
        "upgraded",
        "--type=merge",
        "-p",
        note,
    ])?;
    run("upgrade")?;
    ensure!(secret()?["data"]["token-key.pem"] == key, "another key");
    ensure!(notes()?["data"]["disarmed"] == "by somebody", "the note went");
    // The program takes the key that Helm makes.
    let folder = tool::folder("token-key")?;
    let file = folder.path().join("token-key.pem");
    let text = cluster.kubectl(&[
        "get",
        "secret",
        "upgraded-token-key",
        "-n",
        "upgraded",
        "-o",
        "go-template={{index .data \"token-key.pem\" | base64decode}}",
    ])?;
    fs::write(&file, text)?;
    let started = Kuboard::builder().config(&format!("[access]\ntokenKey = {file:?}\n")).start()?;
    ensure!(started.get("/v2/")?.status == 200);
    // No node runs the hook that disarms.
    helm(&kubectl, &["uninstall", "upgraded", "--namespace", "upgraded", "--no-hooks"], &[])?;
    ensure!(notes().is_err(), "the note would disarm the next installation");
    Ok(())
}

/// The operator's service account may do what it must, and not the rest.
#[test]
fn rights_are_no_more_than_needed() -> Result<()> {
    let cluster = cluster()?;
    let kubectl = cluster.admin();
    namespace(cluster, "rights")?;
    let values = [CLUSTER, "fullnameOverride: kuboard-rights\nrbac: {userRoles: false}\n"];
    let objects = template(&kubectl, "rights", &values)?;
    kubectl.accepted(&["apply", "--server-side", "-f", "-"], &objects)?;
    let check = |account: &str, may: bool, question: &[&str]| -> Result<()> {
        let who = format!("--as=system:serviceaccount:rights:kuboard-rights-{account}");
        let answer = kubectl.ask(&[&["auth", "can-i", &who], question].concat(), None)?;
        ensure!(
            (answer.stdout.trim() == "yes") == may,
            "{account} {question:?}: {}",
            answer.stdout
        );
        Ok(())
    };
    let webhook = "validatingwebhookconfigurations/kuboard-admission";
    for question in [
        &["watch", "pods", "-A"][..],
        &["watch", "clusterimagescanpolicies"],
        &["patch", "imagescanpolicies", "--subresource=status", "-A"],
        &["create", "imagereports"],
        &["patch", webhook],
        &["update", "leases/kuboard-operator", "-n", "rights"],
        &["get", "secrets/kuboard-webhook-tls", "-n", "rights"],
        &["create", "pods", "-n", "rights"],
        &["create", "events", "-n", "default"],
    ] {
        check("operator", true, question)?;
    }
    for question in [
        &["get", "secrets", "-n", "default"][..],
        &["list", "secrets", "-n", "rights"],
        &["get", "secrets/other", "-n", "rights"],
        &["create", "pods", "-n", "default"],
        &["delete", "pods", "-n", "rights"],
        &["patch", "validatingwebhookconfigurations/other"],
        &["create", "clusterrolebindings"],
        &["update", "imagescanpolicies", "-n", "default"],
        &["create", "imageexemptions", "-n", "default"],
        &["update", "namespaces"],
        &["bypass", "admission.kuboard.cn"],
    ] {
        check("operator", false, question)?;
    }
    check("registry", true, &["create", "subjectaccessreviews.authorization.k8s.io"])?;
    check("registry", false, &["get", "pods", "-A"])?;
    check("registry", false, &["get", "secrets", "-n", "rights"])
}

fn rule_files(folder: &str) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(root().join("monitoring").join(folder))?
        .flatten()
        .map(|it| it.path())
        .collect();
    files.sort();
    ensure!(!files.is_empty(), "monitoring/{folder} is empty");
    Ok(files)
}

#[test]
fn alerts_are_clean_and_each_is_tested_both_ways() -> Result<()> {
    let rules = rule_files("rules")?;
    tool::output(tool::command("promtool")?.args(["check", "rules"]).args(&rules))?;
    let tests = rule_files("tests")?;
    tool::output(tool::command("promtool")?.args(["test", "rules"]).args(&tests))?;
    let read = |files: &[PathBuf]| -> Result<String> {
        Ok(files.iter().map(fs::read_to_string).collect::<Result<Vec<_>, _>>()?.join("\n"))
    };
    let tested = read(&tests)?;
    let text = read(&rules)?;
    let alerts: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    ensure!(alerts.len() > 20, "{alerts:?}");
    for alert in alerts {
        ensure!(tested.contains(&format!("- name: {alert} fires\n")), "{alert} is not seen firing");
        ensure!(
            tested.contains(&format!("- name: {alert} does not fire\n")),
            "{alert} is not seen quiet"
        );
    }
    Ok(())
}

/// The rule that the platform is described with, word for word.
#[test]
fn the_rule_of_the_description_is_there_verbatim() -> Result<()> {
    let rule = r#"groups:
- name: registry.rules
  rules:
  - alert: HighVulnerabilityCount
    expr: sum(scan_vulnerabilities_found{severity="CRITICAL"}) by (registry) > 0
    for: 5m
    labels:
      severity: critical
    annotations:
      summary: "Critical vulnerabilities found in {{ $labels.registry }}"
"#;
    let file = root().join("monitoring/rules/registry.yaml");
    ensure!(fs::read_to_string(&file)? == rule, "{} was changed", file.display());
    let objects =
        template(&cluster()?.admin(), "kuboard", &["monitoring: {prometheusRule: true}\n"])?;
    for line in rule.lines() {
        ensure!(objects.contains(line), "{line} is not in the chart's PrometheusRule");
    }
    Ok(())
}

/// Dashboards and alerts ask for metrics that the program has.
#[test]
fn dashboards_ask_for_metrics_that_exist() -> Result<()> {
    let known = fs::read_to_string(root().join("docs/reference/metrics.md"))?;
    for file in rule_files("dashboards")? {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
        let mut asked = 0;
        for panel in dashboard["panels"].as_array().context("no panels")? {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().context("no query")?;
                let rule = json!({"groups": [{"name": "q", "rules": [{"record": "q", "expr": query.replace("$__rate_interval", "5m")}]}]});
                let folder = tool::folder("query")?;
                let rules = folder.path().join("rules.yaml");
                fs::write(&rules, rule.to_string())?;
                tool::output(tool::command("promtool")?.args(["check", "rules"]).arg(&rules))
                    .context(query.to_owned())?;
                for name in names(query) {
                    let name = ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|it| name.strip_suffix(it))
                        .unwrap_or(name);
                    let ours = ["registry_", "scan_", "process_", "admission_", "operator_"];
                    if ours.iter().any(|it| name.starts_with(it)) {
                        ensure!(known.contains(&format!("`{name}`")), "no metric {name}: {query}");
                        asked += 1;
                    }
                }
            }
        }
        ensure!(asked > 20, "{} asks for {asked} metrics", file.display());
    }
    Ok(())
}

fn names(query: &str) -> impl Iterator<Item = &str> {
    query.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').filter(|it| it.contains('_'))
}

/// The image of the program under test, made once for all tests by `cargo xtask image`.
fn image() -> Result<&'static Path> {
    static SHARED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = SHARED.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    Ok(built.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?)
}

fn build() -> Result<PathBuf> {
    let folder = kept("image");
    let program = Kuboard::command()?;
    // The program that runs all tests is there; whoever runs this one alone may not have it.
    let chores = std::env::current_exe()?.ancestors().nth(2).map(|it| it.join("xtask"));
    let mut build = match chores.filter(|it| it.exists()) {
        Some(chores) => Command::new(chores),
        None => {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["run", "--quiet", "-p", "xtask", "--"]);
            cargo
        }
    };
    build.args(["image", "--name", IMAGE, "--binary"]).arg(program.get_program());
    build.arg("--output").arg(&folder).current_dir(root());
    tool::output(&mut build)?;
    Ok(folder)
}

/// Its name, of a registry that nobody can ask.
const IMAGE: &str = "registry.test/kuboard/kuboard:0.1.0";

#[test]
fn the_image_runs_without_root_and_names_its_parts() -> Result<()> {
    let folder = image()?;
    let programs = Programs::new()?;
    let archive = format!("oci-archive:{}", folder.join("kuboard.oci.tar").display());
    let image = programs.podman(&["pull", "--quiet", &archive])?;
    let image = image.lines().last().unwrap_or_default();
    let run = ["run", "--rm", "--network=none", "--read-only", "--cap-drop=all"];
    // podman's own are more than a test machine may allow.
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", image];
    let version = programs.podman(&[&run[..], &limits, &["--version"]].concat())?;
    ensure!(version.starts_with("kuboard "), "{version}");
    let config: Value = serde_json::from_str(&programs.podman(&["image", "inspect", image])?)?;
    let config = &config[0]["Config"];
    ensure!(config["User"] == "65532:65532", "{config}");
    ensure!(config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0", "{config}");
    bill_of_materials(&folder.join("layout"))?;
    // Nothing in it that an intruder could use.
    let list = "for b in \"$1\"/blobs/sha256/*; do tar -tf \"$b\" 2>/dev/null; done; true";
    let mut sh = tool::command("sh")?;
    let files = tool::output(sh.args(["-c", list, "sh"]).arg(folder.join("layout")))?;
    ensure!(files.lines().any(|it| it.ends_with("usr/local/bin/kuboard")), "{files}");
    for shell in ["/sh", "/bash", "/dpkg", "/apt", "/busybox", "/perl"] {
        ensure!(!files.lines().any(|it| it.ends_with(shell)), "{shell} is in the image");
    }
    Ok(())
}

/// It refers to the image, and names what scanners look for.
fn bill_of_materials(layout: &Path) -> Result<()> {
    let index: Value = serde_json::from_str(&fs::read_to_string(layout.join("index.json"))?)?;
    let blob = |descriptor: &Value| -> Result<Value> {
        let digest = descriptor["digest"].as_str().context("no digest")?.replace("sha256:", "");
        Ok(serde_json::from_str(&fs::read_to_string(layout.join("blobs/sha256").join(digest))?)?)
    };
    let referrer = blob(&index["manifests"][1])?;
    ensure!(referrer["subject"]["digest"] == index["manifests"][0]["digest"], "{referrer}");
    ensure!(referrer["artifactType"] == "application/vnd.cyclonedx+json", "{referrer}");
    let bill = blob(&referrer["layers"][0])?;
    let parts = bill["components"].as_array().context("no components")?;
    for name in ["libc6", "ca-certificates", "tzdata"] {
        ensure!(
            parts.iter().any(|it| it["name"] == name),
            "{name} is not in the bill of materials"
        );
    }
    Ok(())
}

/// The image and the default form of the chart on a kubelet, in a namespace that takes restricted
/// pods only: every container becomes ready, and the registry takes and gives. The operator needs
/// the API server by a Service, which this node has not; other tests run it.
#[test]
fn the_default_installation_runs_on_a_node() -> Result<()> {
    let cluster = Cluster::start(Level::Node)?;
    let archive = image()?.join("kuboard.oci.tar");
    cluster.ctr(&["images", "import", &archive.display().to_string()])?;
    namespace(&cluster, "kuboard")?;
    let data = tool::folder("volume")?;
    std::os::unix::fs::chown(data.path(), Some(65532), Some(65532))?;
    let values = format!(
        "image: {{registry: registry.test, pullPolicy: Never}}\n\
         access: {{anonymous: push}}\n\
         advisories: {{update: false}}\n\
         operator: {{enabled: false}}\n\
         admission: {{enabled: false}}\n\
         persistence:\n  strategy: hostPath\n  size: 1Gi\n  hostPath:\n    nodes:\n      \
         - {{name: '{NODE}', path: '{}'}}\n",
        data.path().display()
    );
    let arguments = ["install", "kuboard", &chart(), "--namespace", "kuboard"];
    helm(&cluster.admin(), &arguments, &[&values])?;
    cluster
        .wait("the pod", || Ok(cluster.get("/api/v1/namespaces/kuboard/pods/kuboard-0").is_ok()))?;
    let ready = cluster.wait_pod_ready("kuboard", "kuboard-0");
    ready.with_context(|| {
        let logs = ["logs", "-n", "kuboard", "kuboard-0", "--all-containers", "--tail=20"];
        cluster.kubectl(&logs).unwrap_or_else(|error| format!("{error:#}"))
    })?;
    let pod = cluster.get_json("/api/v1/namespaces/kuboard/pods/kuboard-0")?;
    let address = pod["status"]["podIP"].as_str().context("the pod has no address")?;
    let client = RegistryClient::new(format!("{address}:5000"));
    let image = Image::oci(1, &[100_000])?;
    client.push("team/app", "v1", &image)?;
    ensure!(client.pull("team/app", "v1")?.digest == image.digest);
    helm(&cluster.admin(), &["uninstall", "kuboard", "--namespace", "kuboard"], &[]).map(drop)
}
