//! The real cluster that the Kubernetes tests stand on: a Deployment's pods, of an image that the
//! product brings from an upstream, run on the real kubelet, and the cluster leaves nothing behind.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::figure;
use kuboard_testkit::cluster::{Cluster, Component, Level, busybox};
use kuboard_testkit::distribution::DistributionRegistry;
use kuboard_testkit::{Kuboard, RegistryClient, tool};
use serde_json::{Value, json};

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 2
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: app, image: "IMAGE"}]
"#;

#[test]
fn a_deployments_pods_run_through_the_product() -> Result<()> {
    let upstream = DistributionRegistry::start()?;
    let image = busybox("cluster")?;
    RegistryClient::new(upstream.address()).push("team/app", "v1", &image)?;
    let kuboard = Kuboard::builder().upstream("registry.test", &upstream.url()).start()?;
    let started = std::time::Instant::now();
    let cluster = Cluster::start(Level::Node)?;
    figure(json!({"clusterReadySeconds": started.elapsed().as_secs()}))?;
    // By a name that only the node's hosts.toml and the product's rules can find.
    cluster.mirror("registry.test", &format!("http://{}", kuboard.address()))?;
    cluster.apply(&DEPLOYMENT.replace("IMAGE", "registry.test/team/app:v1"))?;
    let running = |replicas: u64| {
        cluster.wait("the Deployment", || {
            let app = cluster.get_json("/apis/apps/v1/namespaces/default/deployments/app")?;
            Ok(app["status"]["readyReplicas"] == replicas)
        })
    };
    running(2)?;
    let pods = cluster.get_json("/api/v1/namespaces/default/pods?labelSelector=app%3Dapp")?;
    let pods = pods["items"].as_array().context("no pods")?;
    ensure!(pods.len() == 2);
    for pod in pods {
        let id = pod["status"]["containerStatuses"][0]["imageID"].as_str().unwrap_or_default();
        ensure!(id.ends_with(&image.digest.to_string()), "{id} is not {}", image.digest);
    }
    // What runs stays when its keepers end, and they find it again.
    for component in [Component::ApiServer, Component::Kubelet, Component::Containerd] {
        cluster.kill_component(component)?;
    }
    for component in [Component::ApiServer, Component::Containerd, Component::Kubelet] {
        cluster.start_component(component)?;
    }
    cluster.wait_node_ready()?;
    running(2)?;
    cluster.kubectl(&["scale", "deployment/app", "--replicas=3"])?;
    running(3)?;
    // A pod reaches the API server as its environment says, and the machine reaches the pod.
    let ask = r#"printf 'GET /version HTTP/1.0\r\n\r\n' |
        nc "$KUBERNETES_SERVICE_HOST" "$KUBERNETES_SERVICE_PORT""#;
    let said = cluster.kubectl(&["exec", "deployment/app", "--", "/bin/sh", "-c", ask])?;
    ensure!(said.contains("HTTP request to an HTTPS server"), "{said}");
    Ok(())
}

#[test]
fn two_nodes_at_once_leave_nothing_behind() -> Result<()> {
    let start = || Cluster::start(Level::Node);
    let (one, two) = std::thread::scope(|scope| {
        let (one, two) = (scope.spawn(start), scope.spawn(start));
        (one.join(), two.join())
    });
    let wrong = |_| anyhow::anyhow!("a start panicked");
    let clusters = [one.map_err(wrong)??, two.map_err(wrong)??];
    for cluster in &clusters {
        cluster.import("app.test/app:1", &busybox("left")?)?;
        cluster.apply(
            r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": {
            "containers": [{"name": "c", "image": "app.test/app:1", "imagePullPolicy": "Never"}]}}"#,
        )?;
    }
    let mut folders = Vec::new();
    let mut groups = Vec::new();
    for cluster in &clusters {
        cluster.wait_pod_ready("default", "one")?;
        folders.push(cluster.folder().to_owned());
        let kubelet = std::fs::read(cluster.folder().join("node/kubelet.json"))?;
        let kubelet: Value = serde_json::from_slice(&kubelet)?;
        groups.push(kubelet["cgroupRoot"].as_str().context("no cgroupRoot")?.to_owned());
    }
    let mine = |folder: &Path| processes_of(folder);
    ensure!(folders.iter().all(|folder| mine(folder).is_ok_and(|found| !found.is_empty())));
    drop(clusters);
    for folder in &folders {
        tool::wait_until("the processes to end", std::time::Duration::from_secs(60), || {
            Ok(mine(folder)?.is_empty())
        })?;
        ensure!(!folder.exists(), "{} is left", folder.display());
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        ensure!(!mounts.contains(&folder.display().to_string()), "a mount is left: {mounts}");
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        for group in &groups {
            let group = hierarchy.path().join(group.trim_start_matches('/'));
            ensure!(!group.exists(), "{} is left", group.display());
        }
    }
    Ok(())
}

/// The processes whose command line names the folder.
fn processes_of(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&folder) {
            found.push(line);
        }
    }
    Ok(found)
}
