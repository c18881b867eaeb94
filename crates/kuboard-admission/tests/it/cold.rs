//! What memory does not know: it is asked for once, for all who want it, and nobody waits longer
//! than the deadline.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use kuboard_admission::{Pod, Puller, Settings};
use kuboard_oci::Digest;
use kuboard_vuln::Severity;
use serde_json::{Value, json};

use crate::ground::{Ground, NOW, fact, facts, pod, review};

const POLICY: &str = "{apiVersion: kuboard.cn/v1alpha1, kind: ImageScanPolicy, \
     metadata: {name: p, namespace: shop}, \
     spec: {severityThreshold: HIGH, onUnscanned: Wait, maxWait: 5m, onError: Warn}}";

fn ground() -> Ground {
    let ground = Ground::new(Settings::default());
    ground.want(POLICY, BTreeMap::from([("shop".to_owned(), Default::default())]));
    ground.world.cold.store(true, Ordering::SeqCst);
    ground
}

fn digest(of: &str) -> Digest {
    Digest::sha256(of.as_bytes())
}

#[tokio::test]
async fn one_lookup_for_a_rollout() {
    let ground = ground();
    ground.world.put("reg.test/web:1", digest("index"), &[digest("web")]);
    let bad = facts(vec![fact("CVE-1", Severity::High)]);
    ground.world.stored.lock().insert(digest("web"), bad);
    let question = pod("shop", &["reg.test/web:1", "reg.test/web:1", "reg.test/web:1"]);
    let answers = join_all((0..50).map(|_| ground.ask("/validate", &question))).await;
    assert!(answers.iter().all(|it| it["allowed"] == false), "{:?}", answers[0]);
    assert_eq!(ground.world.resolutions.load(Ordering::SeqCst), 1);
    assert_eq!(ground.world.reads.load(Ordering::SeqCst), 1);
    assert!(ground.facts.contains(&digest("web")), "what was read is kept");
    let metrics = ground.metrics.encode();
    let line = "admission_cold_lookups_total{kind=\"digest\",result=\"found\"} 50";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn credentials_come_from_the_pod_and_are_not_shared() {
    let ground = ground();
    ground.world.put("reg.test/web:1", digest("web"), &[digest("web")]);
    let ask = |account: &str| {
        let spec = json!({
            "serviceAccountName": account, "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "a", "image": "reg.test/web:1"}],
        });
        review("shop", json!({"spec": spec}))
    };
    let (one, two) = (ask("one"), ask("two"));
    tokio::join!(ground.ask("/validate", &one), ground.ask("/validate", &two));
    let mut pullers = ground.world.pullers.lock().clone();
    pullers.sort_by(|a, b| a.service_account.cmp(&b.service_account));
    let puller = |account: &str| Puller {
        namespace: "shop".to_owned(),
        service_account: account.to_owned(),
        pull_secrets: vec!["pull".to_owned()],
    };
    assert_eq!(pullers, [puller("one"), puller("two")]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_deadline() {
    let ground = ground();
    ground.world.hangs.store(true, Ordering::SeqCst);
    let started = tokio::time::Instant::now();
    let answer = ground.ask("/validate", &pod("shop", &["reg.test/slow:1", "b", "c"])).await;
    // The clock of this test jumps from one timer to the next.
    assert_eq!(started.elapsed(), Duration::from_millis(2500));
    assert_eq!(answer["allowed"], true);
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.contains("has not answered in time"), "{warning}");
}

#[tokio::test]
async fn an_unscanned_image_is_scanned_first_and_waited_for_no_longer_than_agreed() {
    let ground = ground();
    ground.world.put("reg.test/new:1", digest("new"), &[digest("new")]);
    let question = pod("shop", &["reg.test/new:1"]);
    let ask = async || ground.ask("/validate", &question).await;
    let dry = {
        let mut dry = question.clone();
        dry["request"]["dryRun"] = json!(true);
        dry
    };
    assert_eq!(ground.ask("/validate", &dry).await["allowed"], false);
    assert!(ground.world.scans.lock().is_empty(), "a dry run leaves nothing behind");
    assert!(ground.world.decisions.lock().is_empty() && ground.world.events.lock().is_empty());
    ground.clock.advance(Duration::from_secs(600));

    let answer = ask().await;
    let message = answer["status"]["message"].as_str().unwrap();
    assert!(message.contains("was not scanned yet"), "{message}");
    assert!(message.contains("2026-11-23T00:15:00Z"), "the dry run began no wait: {message}");
    ask().await;
    let scans = ground.world.scans.lock().clone();
    assert_eq!(scans.len(), 1, "one wish is enough");
    assert_eq!((scans[0].manifest, scans[0].urgent), (digest("new"), true));
    ground.clock.advance(Duration::from_secs(299));
    assert_eq!(ask().await["allowed"], false);
    ground.clock.advance(Duration::from_secs(1));
    let answer = ask().await;
    assert_eq!(answer["allowed"], true);
    assert!(answer["warnings"][0].as_str().unwrap().contains("was not scanned yet"));

    // The scan ends.
    ground.facts.put(&digest("new"), &facts(vec![fact("CVE-1", Severity::Critical)]));
    assert_eq!(ask().await["allowed"], false);
    ground.facts.put(&digest("new"), &facts(Vec::new()));
    let answer = ask().await;
    assert_eq!((&answer["allowed"], &answer["warnings"]), (&json!(true), &Value::Null));
}

#[tokio::test]
async fn what_runs_may_start_again_and_is_judged_in_the_background() {
    let ground = ground();
    ground.world.put("reg.test/web:1", digest("index"), &[digest("web")]);
    let question = pod("shop", &["reg.test/web:1"]);
    ground.facts.put(&digest("web"), &facts(vec![fact("CVE-1", Severity::High)]));
    let mut running = (**ground.running.load()).clone();
    running.digests.entry("shop".to_owned()).or_default().insert(digest("index"));
    ground.running.store(running.into());
    let answer = ground.ask("/validate", &question).await;
    assert_eq!(answer["allowed"], true);
    assert!(answer["warnings"][0].as_str().unwrap().contains("it already runs"), "{answer}");

    let pod = Pod {
        namespace: "shop".to_owned(),
        images: vec![
            ("reg.test/web:1".to_owned(), None),
            ("reg.test/web:1".to_owned(), Some(digest("index"))),
        ],
        ..Pod::default()
    };
    let recorded = ground.world.decisions.lock().len();
    let as_it_is = ground.admission.judge_pod(&pod, false).await;
    assert_eq!(as_it_is.verdict.outcome, kuboard_admission::Outcome::Warn);
    let afresh = ground.admission.judge_pod(&pod, true).await;
    assert_eq!(afresh.verdict.outcome, kuboard_admission::Outcome::Deny);
    assert_eq!(afresh.images.len(), 1);
    assert_eq!(afresh.images[0].digest, Some(digest("index")));
    assert_eq!(ground.world.decisions.lock().len(), recorded, "nobody asked");
    let elsewhere = Pod { namespace: "kube-system".to_owned(), ..pod };
    let outcome = ground.admission.judge_pod(&elsewhere, true).await.verdict.outcome;
    assert_eq!(outcome, kuboard_admission::Outcome::Allow);
}

#[tokio::test]
async fn a_new_advisory_has_its_grace_and_then_counts() {
    let ground = ground();
    ground.world.put("reg.test/web:1", digest("web"), &[digest("web")]);
    let mut late = fact("CVE-2026-9", Severity::Critical);
    late.first_seen_ms = NOW - 1000;
    ground.facts.put(&digest("web"), &facts(vec![late]));
    let question = pod("shop", &["reg.test/web:1"]);
    assert_eq!(ground.ask("/validate", &question).await["allowed"], true);
    ground.clock.advance(Duration::from_secs(24 * 3600 - 2));
    assert_eq!(ground.ask("/validate", &question).await["allowed"], true);
    ground.clock.advance(Duration::from_secs(1));
    assert_eq!(ground.ask("/validate", &question).await["allowed"], false);
}
