//! A cluster that is guarded comes back by itself: after the product, the API server and the
//! kubelet died at once, with all pods gone; and while the product is away, only namespaces that
//! asked for it stand still.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::guarded::{ARTICLE, CVE, Guarded, namespace, pod, says};
use kuboard_testkit::cluster::{Component, Level};
use serde_json::{Value, json};

/// Namespaces with workloads: one that fails closed, one that fails open, one that is not judged.
const HOMES: [&str; 3] = ["strict", "default", "kube-system"];
/// Pods of each.
const REPLICAS: usize = 2;

#[test]
fn a_guarded_cluster_comes_back() -> Result<()> {
    let rounds: u32 = match std::env::var_os("KUBOARD_DRILLS") {
        Some(text) => text.to_string_lossy().parse().context("KUBOARD_DRILLS")?,
        None => 2,
    };
    let mut guarded = Guarded::start(Level::Node)?;
    judged(&guarded)?;
    for home in HOMES {
        guarded.cluster.apply(&deployment(home, &guarded.image("hosted/good:1")).to_string())?;
    }
    let mut before = wait_running(&guarded, &BTreeSet::new())?;
    let mut took = Vec::new();
    for round in 1..=rounds {
        for home in HOMES {
            let delete =
                ["-n", home, "delete", "pods", "--all", "--wait=false", "--grace-period=0"];
            guarded.cluster.kubectl(&[&delete[..], &["--force"]].concat())?;
        }
        drop(guarded.kuboard.take());
        guarded.cluster.kill_component(Component::Kubelet)?;
        guarded.cluster.kill_component(Component::ApiServer)?;
        let started = Instant::now();
        guarded.cluster.start_component(Component::ApiServer)?;
        guarded.cluster.start_component(Component::Kubelet)?;
        guarded.start_product()?;
        let running = wait_running(&guarded, &before).with_context(|| format!("round {round}"))?;
        guarded.cluster.wait_node_ready()?;
        took.push(started.elapsed().as_secs());
        // It still guards, and did not become a wall.
        says(&guarded.wait_refused("strict", &guarded.image("hosted/bad:1"))?, &[CVE])?;
        before = running;
    }
    let longest = took.iter().max().copied().unwrap_or_default();
    e2e::figure(
        json!({"restartDrills": rounds, "recovered": took.len(), "longestSeconds": longest}),
    )
}

/// The product is away: who fails open goes on and is judged later, who is strict waits, and what
/// a cluster needs to come up is never asked about.
#[test]
fn away_it_stops_only_who_wants_that() -> Result<()> {
    let mut guarded = Guarded::start(Level::ApiServer)?;
    judged(&guarded)?;
    let (bad, good) = (guarded.image("hosted/bad:1"), guarded.image("hosted/good:1"));
    drop(guarded.kuboard.take());
    guarded.accepted(&pod("default", "unjudged", &bad))?;
    let said = guarded.refused(&pod("strict", "waits", &good))?;
    says(&said, &["pods-strict.enforce.kuboard.cn", "failed calling webhook"])?;
    for home in ["kube-system", "kube-public", "kuboard"] {
        guarded.accepted(&pod(home, "needed", &bad))?;
    }
    // It is back: what came meanwhile is looked at, and the strict namespace goes on.
    guarded.start_product()?;
    guarded.wait_armed()?;
    guarded.cluster.wait("the strict namespace", || {
        let object = pod("strict", "waits", &good).to_string();
        Ok(guarded.cluster.admin().ask(&["create", "-f", "-"], Some(&object))?.success)
    })?;
    let denied = || guarded.metric("operator_running_images", &["verdict=\"deny\""]);
    let mut seen = 0.0;
    let waited = guarded.cluster.wait("what came meanwhile to be judged", || {
        std::thread::sleep(Duration::from_millis(100));
        seen = denied()?;
        Ok(seen >= 1.0)
    });
    waited.with_context(|| format!("{seen} running images would be refused"))?;
    guarded.cluster.wait("its report", || {
        let reports = guarded.cluster.admin().json(&["get", "imagereports"])?;
        Ok(reports.to_string().contains(CVE))
    })?;
    says(&guarded.refused(&pod("strict", "bad", &bad))?, &[CVE])
}

/// Policies for a namespace that fails open and for one that is strict, in force.
fn judged(guarded: &Guarded) -> Result<()> {
    let name = "  name: production-scan";
    let strict = ARTICLE.replace(name, &format!("{name}\n  namespace: strict"));
    guarded.cluster.apply(&namespace("strict", &[("kuboard.cn/enforce", "strict")]))?;
    guarded.cluster.apply(ARTICLE)?;
    guarded.cluster.apply(&strict)?;
    for home in ["default", "strict"] {
        says(&guarded.wait_refused(home, &guarded.image("hosted/bad:1"))?, &[CVE])?;
    }
    Ok(())
}

fn deployment(home: &str, image: &str) -> Value {
    let template = json!({"metadata": {"labels": {"app": "drill"}},
        "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": image}]}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "drill", "namespace": home},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": {"app": "drill"}},
            "template": template}})
}

/// Waits until all workloads have all their pods ready, none of them one of `before`; their uids.
fn wait_running(guarded: &Guarded, before: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut running = BTreeSet::new();
    let mut seen = String::new();
    let waited = guarded.cluster.wait("the pods", || {
        std::thread::sleep(Duration::from_millis(200));
        running.clear();
        seen.clear();
        for home in HOMES {
            let path = format!("/api/v1/namespaces/{home}/pods?labelSelector=app%3Ddrill");
            let pods = guarded.cluster.get_json(&path)?;
            for pod in pods["items"].as_array().into_iter().flatten() {
                let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
                seen.push_str(&format!("{home} {}\n", pod["status"]));
                if is_ready(pod) && !before.contains(&uid) {
                    running.insert(uid);
                }
            }
        }
        Ok(running.len() == REPLICAS * HOMES.len())
    });
    waited.with_context(|| {
        let log = guarded.product().map(e2e::service::end_of_log).unwrap_or_default();
        format!("{seen}{log}")
    })?;
    ensure!(running.is_disjoint(before), "pods of old run");
    Ok(running)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.into_iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
}
