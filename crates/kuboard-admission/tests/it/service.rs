//! What is answered, recorded and told.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kuboard_admission::{Outcome, Settings};
use kuboard_api::desired::{Desired, Running};
use kuboard_oci::Digest;
use kuboard_vuln::Severity;
use serde_json::{Value, json};

use crate::ground::{Ground, fact, facts, pod, review};

const POLICY: &str = "{apiVersion: kuboard.cn/v1alpha1, kind: ImageScanPolicy, \
     metadata: {name: p, namespace: shop}, spec: {severityThreshold: HIGH}}";

fn ground(settings: Settings) -> Ground {
    let ground = Ground::new(settings);
    ground.want(POLICY, BTreeMap::from([("shop".to_owned(), Default::default())]));
    ground.world.put("docker.io/library/web:1", digest("index"), &[digest("web")]);
    ground.world.put("docker.io/library/clean:1", digest("clean"), &[digest("clean")]);
    let mut worse = fact("CVE-2026-7", Severity::Critical);
    worse.exploited = true;
    worse.fixed_in = None;
    let findings = vec![fact("CVE-2026-1", Severity::High), worse, fact("CVE-2", Severity::Low)];
    ground.facts.put(&digest("web"), &facts(findings));
    ground.facts.put(&digest("clean"), &facts(Vec::new()));
    ground
}

fn digest(of: &str) -> Digest {
    Digest::sha256(of.as_bytes())
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong_and_what_to_do() {
    let ground = ground(Settings::default());
    let answer = ground.ask("/validate", &pod("shop", &["clean:1", "web:1"])).await;
    assert_eq!(answer["allowed"], false);
    assert_eq!(answer["status"]["code"], 403);
    let expected = "image web:1 (container c1) breaks ImageScanPolicy shop/p: 2 findings at or \
         above HIGH, 1 with a fix: CVE-2026-7 CRITICAL in openssl 1.1.1d (no fix, exploited), \
         CVE-2026-1 HIGH in openssl 1.1.1d (fixed in 1.1.1n); hint: use an image with openssl \
         1.1.1n, or have somebody answer for it: kubectl apply -f - <<< \
         '{\"apiVersion\":\"kuboard.cn/v1alpha1\",\"kind\":\"ImageExemption\",\
         \"metadata\":{\"name\":\"web\",\"namespace\":\"shop\"},\
         \"spec\":{\"expiresAt\":\"2026-12-23T00:00:00Z\",\
         \"images\":[\"docker.io/library/web:1\"],\"reason\":\"why this is acceptable\",\
         \"vulnerabilities\":[\"CVE-2026-1\",\"CVE-2026-7\"]}}'";
    assert_eq!(answer["status"]["message"], expected);
    let annotations = &answer["auditAnnotations"];
    assert_eq!(annotations["outcome"], "deny");
    assert_eq!(annotations["policies"], "ImageScanPolicy shop/p");
    let images = format!("clean:1={},web:1={}", digest("clean"), digest("index"));
    assert_eq!(annotations["images"], images);

    // What it suggests works.
    let exemption = expected.split_once("<<< '").unwrap().1.trim_end_matches('\'');
    let text = format!("{POLICY}\n---\n{exemption}\n");
    ground.want(&text, BTreeMap::from([("shop".to_owned(), Default::default())]));
    let answer = ground.ask("/validate", &pod("shop", &["clean:1", "web:1"])).await;
    assert_eq!(answer["allowed"], true, "{answer}");
    assert_eq!(answer["auditAnnotations"]["exemptions"], "shop/web");
}

#[tokio::test]
async fn decisions_are_recorded_and_people_are_told() {
    let ground = ground(Settings::default());
    let mut question = pod("shop", &["web:1"]);
    question["request"]["object"]["metadata"] = json!({"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true},
    ]});
    ground.ask("/validate", &question).await;
    let decision = ground.world.decisions.lock().pop().unwrap();
    assert_eq!(
        (decision.webhook, decision.operation, decision.kind.as_str(), decision.user.as_str()),
        ("validate", "CREATE", "Pod", "alice")
    );
    assert_eq!((decision.namespace.as_str(), decision.name.as_str()), ("shop", "web-0"));
    assert_eq!(decision.verdict.outcome, Outcome::Deny);
    let image = &decision.images[0];
    assert_eq!((image.image.as_str(), image.digest), ("web:1", Some(digest("index"))));
    assert_eq!((image.facts[0].manifest, image.facts[0].findings), (digest("web"), 3));
    let event = ground.world.events.lock().pop().unwrap();
    assert_eq!((event.reason, event.namespace.as_str()), ("ImageDenied", "shop"));
    assert_eq!((event.regarding.kind.as_str(), event.regarding.uid.as_str()), ("ReplicaSet", "u"));
    assert!(event.message.starts_with("deny: image web:1"), "{}", event.message);

    ground.ask("/validate", &pod("shop", &["clean:1"])).await;
    assert_eq!(ground.world.decisions.lock().len(), 1, "those that pass are recorded too");
    assert!(ground.world.events.lock().is_empty());
}

#[tokio::test]
async fn the_probe_is_answered_before_anything_is_known() {
    let ground = Ground::new(Settings::default());
    let object = json!({"metadata": {"labels": {"kuboard.cn/probe": "n-1"}}});
    let mut question = review("kuboard", object);
    assert_eq!(ground.ask("/validate", &question).await["warnings"], Value::Null);
    question["request"]["dryRun"] = json!(true);
    let answer = ground.ask("/admission/validate", &question).await;
    assert_eq!(answer["allowed"], true);
    assert_eq!(answer["warnings"], json!(["kuboard.cn/probe=n-1"]));
}

#[tokio::test]
async fn until_anything_is_known_the_namespace_decides() {
    let ground = Ground::new(Settings::default());
    assert!(ground.admission.ready().is_err());
    let question = pod("shop", &["web:1"]).to_string().into_bytes();
    assert_eq!(ground.post("/validate", question).await.0, 503);
    ground.desired.store(Arc::new(Desired { synced: true, ..Desired::default() }));
    assert!(ground.admission.ready().is_err());
    ground.running.store(Arc::new(Running { synced: true, ..Running::default() }));
    assert_eq!(ground.admission.ready(), Ok(()));
    let answer = ground.ask("/validate", &pod("shop", &["web:1"])).await;
    assert_eq!(answer["allowed"], true, "no policy: {answer}");
}

#[tokio::test]
async fn only_reviews_that_are_posted_are_answered() {
    let ground = ground(Settings::default());
    let body = || pod("shop", &["web:1"]).to_string().into_bytes();
    assert_eq!(ground.post("/elsewhere", body()).await.0, 404);
    assert_eq!(ground.post("/admission", body()).await.0, 404);
    assert_eq!(ground.post("/validate", b"{".to_vec()).await.0, 400);
    let request = http::Request::get("/validate").body(kuboard_rt::http::RequestBody::empty());
    let handler: &dyn kuboard_rt::http::Handler = &*ground.admission;
    assert_eq!(handler.handle(request.unwrap()).await.status(), 405);
    let metrics = ground.metrics.encode();
    assert!(metrics.contains("admission_errors_total{reason=\"unread\"} 1"), "{metrics}");
}

fn changes(answer: &Value) -> Vec<(String, String)> {
    let Some(patch) = answer["patch"].as_str() else { return Vec::new() };
    assert_eq!(answer["patchType"], "JSONPatch");
    let patch: Value = serde_json::from_slice(&BASE64_STANDARD.decode(patch).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let changes = patch.as_array().unwrap().iter();
    changes
        .inspect(|it| assert_eq!(it["op"], "replace"))
        .map(|it| (text(&it["path"]), text(&it["value"])))
        .collect()
}

#[tokio::test]
async fn tags_become_digests_and_all_pods_of_an_owner_get_the_same() {
    let settings = Settings { pin_digests: true, ..Settings::default() };
    let ground = ground(settings);
    let owned = |uid: &str| {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid,
            "controller": true,
        });
        let spec = json!({
            "initContainers": [{"name": "i", "image": "clean:1"}],
            "containers": [
                {"name": "a", "image": "web:1"},
                {"name": "b", "image": format!("x@{}", digest("clean"))},
                {"name": "c", "image": "gone:1"},
            ],
            "volumes": [{"name": "e", "emptyDir": {}}, {"name": "v", "image": {"reference": "web:1"}}],
        });
        review("shop", json!({"metadata": {"ownerReferences": [owner]}, "spec": spec}))
    };
    let first = changes(&ground.ask("/mutate", &owned("one")).await);
    let web = format!("web:1@{}", digest("index"));
    let expected = [
        ("/spec/initContainers/0/image", format!("clean:1@{}", digest("clean"))),
        ("/spec/containers/0/image", web.clone()),
        ("/spec/volumes/1/image/reference", web.clone()),
    ];
    let expected: Vec<_> =
        expected.into_iter().map(|(path, image)| (path.to_owned(), image)).collect();
    assert_eq!(first, expected);

    // The tag moves; the second pod of the owner gets what the first one got, another owner not.
    ground.world.put("docker.io/library/web:1", digest("moved"), &[digest("web")]);
    assert_eq!(changes(&ground.ask("/mutate", &owned("one")).await), expected);
    let other = changes(&ground.ask("/mutate", &owned("two")).await);
    assert_eq!(other[1].1, format!("web:1@{}", digest("moved")));
    // What the cluster shows goes before what we remember.
    let mut running = (**ground.running.load()).clone();
    running.pins.insert(("two".to_owned(), "web:1".to_owned()), digest("index"));
    ground.running.store(running.into());
    assert_eq!(changes(&ground.ask("/mutate", &owned("two")).await)[1].1, web);

    // A dry run pins nothing.
    let mut dry = owned("three");
    dry["request"]["dryRun"] = json!(true);
    let seen = changes(&ground.ask("/mutate", &dry).await);
    assert_eq!(seen[1].1, format!("web:1@{}", digest("moved")));
    ground.world.put("docker.io/library/web:1", digest("again"), &[digest("web")]);
    let later = changes(&ground.ask("/mutate", &owned("three")).await);
    assert_eq!(later[1].1, format!("web:1@{}", digest("again")));

    // Templates stay as they are, and so do namespaces that are not judged.
    let mut deployment = owned("one");
    deployment["request"]["kind"] = json!({"group": "apps", "kind": "Deployment"});
    assert_eq!(changes(&ground.ask("/mutate", &deployment).await), []);
    let mut system = owned("one");
    system["request"]["namespace"] = json!("kube-system");
    assert_eq!(changes(&ground.ask("/mutate", &system).await), []);
}

#[tokio::test]
async fn digests_are_pinned_only_where_that_is_wanted() {
    let ground = ground(Settings::default());
    assert_eq!(changes(&ground.ask("/mutate", &pod("shop", &["web:1"])).await), []);
}

#[tokio::test]
async fn the_own_webhook_of_the_api_server() {
    let ground = ground(Settings::default());
    let ask = async |namespace: &str, image: &str| {
        let question = json!({
            "apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview",
            "spec": {
                "containers": [{"image": image}], "namespace": namespace,
                "annotations": {"alice.image-policy.k8s.io/ticket": "1"},
            },
        });
        let (status, text) = ground.post("/imagepolicy", question.to_string().into_bytes()).await;
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["kind"], "ImageReview");
        answer["status"].clone()
    };
    let refused = ask("shop", "web:1").await;
    assert_eq!(refused["allowed"], false);
    assert!(refused["reason"].as_str().unwrap().contains("CVE-2026-7"), "{refused}");
    assert_eq!(ask("shop", "clean:1").await["allowed"], true);
    assert_eq!(ask("kube-system", "web:1").await["allowed"], true);
    for wrong in ["", "{}", "[]", r#"{"apiVersion":"imagepolicy.k8s.io/v1alpha1","kind":"X"}"#] {
        let (status, text) = ground.post("/imagepolicy", wrong.as_bytes().to_vec()).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &answer["status"]["allowed"]), (200, &json!(false)), "{wrong}");
    }
}

#[tokio::test]
async fn metrics_have_clean_names_and_all_series_from_the_start() {
    let ground = ground(Settings::default());
    ground.ask("/validate", &pod("shop", &["web:1"])).await;
    let text = ground.metrics.encode();
    for line in [
        "admission_reviews_total{operation=\"CREATE\",outcome=\"deny\",webhook=\"validate\"} 1",
        "admission_reviews_total{operation=\"UPDATE\",outcome=\"warn\",webhook=\"workloads\"} 0",
        "admission_review_duration_seconds_count{webhook=\"validate\"} 1",
        "admission_facts_images 2",
        "# HELP admission_reviews_total ",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}
