//! Notifications: made when advisories change, delivered until somebody takes them, read in pages.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use kuboard_oci::Digest;
use kuboard_rt::http::{Body, Request, Response, handler_fn};
use kuboard_scan::{
    api::{ClairApi, Settings},
    clair_engine::Psk,
};
use kuboard_vuln::Advisory;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    ground::{Ground, Layers, advisory, ask, debian_layer, manifest, node_layer, settings},
    schema,
};

/// A target that refuses the first posts.
fn target(refused: usize) -> (Arc<dyn kuboard_rt::http::Handler>, mpsc::Receiver<(String, Value)>) {
    let (sender, receiver) = mpsc::channel(16);
    let posts = Arc::new(AtomicUsize::new(0));
    let handler = handler_fn(move |request: Request| {
        let (sender, posts) = (sender.clone(), posts.clone());
        async move {
            let (head, body) = request.into_parts();
            let mut response = Response::new(Body::empty());
            if posts.fetch_add(1, Ordering::SeqCst) < refused {
                *response.status_mut() = http::StatusCode::BAD_GATEWAY;
                return response;
            }
            *response.status_mut() = http::StatusCode::ACCEPTED;
            let token = head.headers.get("authorization").map(|value| value.to_str().unwrap());
            let body = body.collect(1 << 20).await.unwrap();
            let body = serde_json::from_slice(&body).unwrap();
            sender.send((token.unwrap_or_default().to_owned(), body)).await.unwrap();
            response
        }
    });
    (handler, receiver)
}

fn old() -> [Advisory; 1] {
    [advisory("debian", "CVE-2024-0001", "openssl", "high")]
}

fn new() -> [Advisory; 4] {
    [
        advisory("debian", "CVE-2024-0001", "openssl", "high"),
        advisory("debian", "CVE-2024-0002", "openssl", "medium"),
        advisory("debian", "CVE-2024-0003", "openssl", "low"),
        advisory("osv:npm", "CVE-2024-0004", "koa", "critical"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn new_advisories_become_one_notification() {
    let ground = Ground::new().await;
    let layers = Arc::new(Layers::default());
    let (debian, node) = (layers.add(&debian_layer()), layers.add(&node_layer()));
    let source = ground.serve(layers.handler()).await;
    let (target, mut posted) = target(1);
    let target = ground.serve(target).await;
    let key = b"key".to_vec();
    let api = ClairApi::new(
        Settings {
            psk: Some(key.clone()),
            notifier_target: Some(target.parse().unwrap()),
            notifier_callback: Some("http://scan.example".parse().unwrap()),
            ..settings()
        },
        ground.engine.clone(),
    )
    .unwrap();
    let base = ground.serve(api.clone()).await;
    let token =
        format!("Bearer {}", Psk::new(&key).sign("quay", ground.engine.now_ms(), 300).unwrap());
    let auth = ("authorization", token.as_str());
    let mut images = Vec::new();
    for (name, layers) in
        [("debian", vec![debian]), ("node", vec![node]), ("both", vec![debian, node])]
    {
        let hash = Digest::sha256(name.as_bytes());
        let asked = manifest(&source, &hash, &layers);
        let post = format!("POST {base}/indexer/api/v1/index_report");
        assert_eq!(ask(&post, &[auth], Some(&asked)).await.status, 201);
        images.push(hash);
    }

    let first = ground.database(None, 1, &old());
    ground.engine.use_database(first.clone());
    assert_eq!(api.advisories_changed(&first).await.unwrap(), 0, "the first tells nothing");
    let second = ground.database(Some(&first), 2, &new());
    ground.engine.use_database(second.clone());
    assert_eq!(api.advisories_changed(&second).await.unwrap(), 2);
    assert_eq!(api.advisories_changed(&second).await.unwrap(), 0, "it is told once");

    let notifying = api.clone().notify(ground.tasks.shutdown());
    ground.tasks.spawn("notifier", async move { notifying.await.unwrap() });
    let (token, body) = posted.recv().await.unwrap();
    schema::check("notification_webhook", &body);
    let token = token.strip_prefix("Bearer ").unwrap();
    let issuers = ["clair-intraservice".to_owned()];
    assert!(Psk::new(&key).admits(token, &issuers, ground.engine.now_ms()));
    let id = body["notification_id"].as_str().unwrap();
    let path = format!("/notifier/api/v1/notification/{id}");
    assert_eq!(body["callback"], format!("http://scan.example{path}"));

    let page = format!("GET {base}{path}");
    let whole = ask(&page, &[auth], None).await;
    assert_eq!(whole.header("content-type"), "application/vnd.clair.notification_page.v1+json");
    let whole = whole.json();
    assert_eq!(whole["page"], json!({"size": 500}));
    let mut told = Vec::new();
    for item in whole["notifications"].as_array().unwrap() {
        let vulnerability = &item["vulnerability"];
        assert_eq!(
            (&item["reason"], &vulnerability["severity"]),
            (&json!("added"), &json!("Medium"))
        );
        assert_eq!(vulnerability["name"], "CVE-2024-0002");
        assert_eq!(vulnerability["package"]["name"], "openssl");
        assert_eq!(vulnerability["distribution"]["did"], "debian");
        told.push(item["manifest"].clone());
    }
    told.sort_by_key(ToString::to_string);
    let mut want = vec![json!(images[0]), json!(images[2])];
    want.sort_by_key(ToString::to_string);
    assert_eq!(told, want);

    // The same in pages of one.
    let mut items = Vec::new();
    let mut next = String::new();
    for _ in 0..2 {
        let got = ask(&format!("{page}?page_size=1&next={next}"), &[auth], None).await.json();
        items.extend(got["notifications"].as_array().unwrap().clone());
        next = got["page"]["next"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!((json!(items), next.as_str()), (whole["notifications"].clone(), ""));

    let remove = format!("DELETE {base}{path}");
    assert_eq!(ask(&remove, &[auth], None).await.status, 200);
    assert_eq!(ask(&page, &[auth], None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_before_is_no_news_and_what_is_gone_is() {
    let ground = Ground::new().await;
    let layers = Arc::new(Layers::default());
    let debian = layers.add(&debian_layer());
    let source = ground.serve(layers.handler()).await;
    let api = ClairApi::new(settings(), ground.engine.clone()).unwrap();
    let base = ground.serve(api.clone()).await;
    let hash = Digest::sha256(b"image");
    let post = format!("POST {base}/indexer/api/v1/index_report");
    let asked = manifest(&source, &hash, &[debian]);
    assert_eq!(ask(&post, &[], Some(&asked)).await.status, 201);
    let word = |word: &str| [advisory("debian", "CVE-2024-0001", "openssl", word)];
    let mut last = ground.database(None, 1, &word("medium"));
    api.advisories_changed(&last).await.unwrap();
    ground.engine.use_database(last.clone());
    ground.engine.rematch(&hash).await.unwrap();
    let steps: [(&[Advisory], usize); 4] =
        [(&word("medium"), 0), (&word("low"), 0), (&word("high"), 1), (&[], 1)];
    for (generation, (advisories, told)) in (2..).zip(steps) {
        let next = ground.database(Some(&last), generation, advisories);
        assert_eq!(api.advisories_changed(&next).await.unwrap(), told, "generation {generation}");
        ground.engine.use_database(next.clone());
        ground.engine.rematch(&hash).await.unwrap();
        last = next;
    }
}
