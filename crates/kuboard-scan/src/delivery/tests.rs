//! Messages as they are written, and deliveries to receivers on loopback that misbehave.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use kuboard_catalog::{Catalog, DeliveryRow, NewEvent};
use kuboard_rt::{
    Clock, SystemClock, Tasks,
    http::{Body, Limits, Request, Response, bind, handler_fn},
    retry::Backoff,
};
use kuboard_vuln::Severity;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts};
use serde_json::{Value, json};

use super::{
    DeliveryParts, Language, Pace, Receiver, Template, message::Told, post::outgoing, run, sign,
};
use crate::schedule::ground::Ground;

const SECRET: &[u8] = b"a secret of both sides";

fn receiver(name: &str, address: SocketAddr) -> Receiver {
    Receiver {
        name: name.to_owned(),
        url: format!("http://{address}/hook?token=1").parse().unwrap(),
        secret: Some(SECRET.to_vec()),
        template: Template::CloudEvents,
        language: Language::English,
        severity_threshold: None,
        authority: None,
    }
}

/// An event as the engine makes it.
fn event(number: usize, severity: &str) -> NewEvent {
    let body = json!({
        "subject": format!("docker.io/library/app:{number}"),
        "image": format!("sha256:{number:064x}"),
        "summary": {
            "name": format!("docker.io/library/app:{number}"),
            "outcome": "complete",
            "findings": { severity: 1 },
            "fixable": 1,
        },
        "changes": [{
            "change": "opened", "id": "CVE-2024-0001", "package": "openssl", "version": "3.0.1",
            "severity": severity, "fixed_in": ["3.0.2"],
        }],
        "changesTotal": 1,
        "time": 1_700_000_000_000_i64,
    });
    NewEvent {
        key: format!("{number:08x}"),
        kind: "cn.kuboard.scan.reported".to_owned(),
        body: body.to_string(),
    }
}

fn row(body: &Value) -> DeliveryRow {
    DeliveryRow {
        event: 1,
        receiver: "r".to_owned(),
        key: "4f2a".to_owned(),
        kind: "cn.kuboard.scan.reported".to_owned(),
        body: body.to_string(),
        created_ms: 1_700_000_000_123,
        attempts: 1,
        reason: String::new(),
    }
}

/// An event with everything in it, also what strangers would like to see in a chat.
fn rich() -> Value {
    let change = |change: &str, id: &str, package: &str, severity: &str, fixed: &[&str]| {
        json!({ "change": change, "id": id, "package": package, "version": "1.0-1",
            "severity": severity, "fixed_in": fixed })
    };
    json!({
        "subject": "docker.io/library/app:1 <!channel> **all**",
        "image": "sha256:0",
        "summary": {
            "name": "docker.io/library/app:1", "outcome": "partial",
            "why": "layer 2: [click](https://evil.example)\nhere",
            "findings": { "CRITICAL": 1, "HIGH": 2, "LOW": 3, "UNKNOWN": 1 }, "fixable": 2,
        },
        "changes": [
            change("fixed", "CVE-2023-0003", "zlib1g", "CRITICAL", &["1.2"]),
            change("opened", "CVE-2024-0002", "lib<x>&y", "HIGH", &[]),
            change("reopened", "CVE-2024-0004", "bash", "LOW", &[]),
            change("opened", "CVE-2024-0001", "openssl", "CRITICAL", &["1.0-2", "1.1"]),
            change("exempted", "CVE-2024-0005", "tar", "LOW", &[]),
            json!({ "change": "of a later version" }),
        ],
        "changesTotal": 40,
        "link": "https://kuboard.example/reports/1",
    })
}

#[test]
fn messages_are_written_for_their_readers() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let mut shown = String::new();
    for (template, language) in [
        (Template::CloudEvents, Language::English),
        (Template::Slack, Language::English),
        (Template::DingTalk, Language::Chinese),
        (Template::Feishu, Language::Chinese),
        (Template::WeCom, Language::Chinese),
        (Template::WeCom, Language::English),
    ] {
        let receiver = Receiver { template, language, ..receiver("r", address) };
        let row = row(&rich());
        let told = Told::read(&row);
        let out = outgoing(&receiver, &told, &row, "/kuboard", 1_700_000_100_000);
        let body: Value = serde_json::from_str(&out.body).unwrap();
        shown.push_str(&format!("== {template:?} {language:?}\n{}\n", out.url));
        for (name, value) in &out.headers {
            shown.push_str(&format!("{name}: {value}\n"));
        }
        shown.push_str(&serde_json::to_string_pretty(&body).unwrap().replace("\\n", "\n"));
        shown.push('\n');
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn messages_are_bounded_and_never_fail() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let long = "𝕏".repeat(100_000);
    let many: Vec<Value> = (0..500)
        .map(|number| {
            json!({ "change": "opened", "id": format!("CVE-{number}{long}"), "package": long,
                "version": long, "severity": "HIGH", "fixed_in": [long] })
        })
        .take(20)
        .collect();
    for body in [
        json!({ "subject": long, "changes": many, "changesTotal": -1, "link": "javascript:x" }),
        json!({ "subject": 7, "summary": [], "changes": "none" }),
        json!(null),
        json!([]),
    ] {
        for template in [
            Template::CloudEvents,
            Template::Slack,
            Template::DingTalk,
            Template::Feishu,
            Template::WeCom,
        ] {
            let receiver =
                Receiver { template, language: template.language(), ..receiver("r", address) };
            let row = row(&body);
            let told = Told::read(&row);
            let out = outgoing(&receiver, &told, &row, "/kuboard", i64::MIN);
            let sent: Value = serde_json::from_str(&out.body).unwrap();
            if template == Template::WeCom {
                let content = sent["markdown"]["content"].as_str().unwrap();
                assert!(!content.is_empty() && content.len() <= 4096, "{}", content.len());
            }
        }
    }
}

#[test]
fn thresholds_hold_changes_against_severities() {
    let check = |severities: &[&str], total: usize, threshold, expected: bool| {
        let changes: Vec<Value> = severities
            .iter()
            .map(|it| json!({ "change": "opened", "id": "x", "package": "y", "severity": it }))
            .collect();
        let findings = json!({ "CRITICAL": 1, "HIGH": 0 });
        let body = json!({ "changes": changes, "changesTotal": total,
            "summary": { "findings": findings } });
        assert_eq!(Told::read(&row(&body)).reaches(threshold), expected, "{severities:?}");
    };
    check(&["LOW", "HIGH"], 2, Severity::High, true);
    check(&["LOW", "MEDIUM"], 2, Severity::High, false);
    check(&[], 0, Severity::Unknown, false);
    check(&["UNKNOWN"], 1, Severity::Unknown, true);
    // Where changes were left out, the findings decide.
    check(&["LOW"], 600, Severity::Critical, true);
}

/// What a receiver got.
#[derive(Default)]
struct Got {
    /// By event id, how often and its data.
    accepted: BTreeMap<String, (usize, Value)>,
    /// Tries by event id.
    tries: HashMap<String, usize>,
}

/// How a receiver answers a try, from 1.
type Script = fn(usize) -> Reaction;

enum Reaction {
    Status(u16),
    Header(u16, &'static str, &'static str),
    Hang,
}

struct Listener {
    address: SocketAddr,
    got: Arc<Mutex<Got>>,
    tasks: Tasks,
}

impl Listener {
    async fn start(port: u16, script: Script) -> Self {
        let bound =
            bind((Ipv4Addr::LOCALHOST, port).into(), None, Limits::default()).await.unwrap();
        let address = bound.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Got::default()));
        let tasks = Tasks::default();
        let (kept, stop) = (got.clone(), tasks.shutdown());
        let handler = handler_fn(move |request| react(request, kept.clone(), script));
        tasks.spawn("receiver", async move {
            bound.serve(handler, stop, Duration::ZERO).await.unwrap();
        });
        Self { address, got, tasks }
    }

    fn ids(&self) -> BTreeSet<String> {
        self.got.lock().accepted.keys().cloned().collect()
    }

    async fn stop(self) {
        self.tasks.drain(Duration::from_secs(1)).await;
    }
}

async fn react(request: Request, got: Arc<Mutex<Got>>, script: Script) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect(1 << 20).await.unwrap();
    let id = verified(&parts.headers, &body);
    let tried = {
        let mut got = got.lock();
        let tries = got.tries.entry(id.clone()).or_default();
        *tries += 1;
        *tries
    };
    let mut response = Response::new(Body::empty());
    match script(tried) {
        Reaction::Hang => std::future::pending().await,
        Reaction::Status(status) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
        }
        Reaction::Header(status, name, value) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert(name, value.parse().unwrap());
        }
    }
    if response.status().is_success() {
        let event: Value = serde_json::from_slice(&body).unwrap();
        let mut got = got.lock();
        let entry = got.accepted.entry(id).or_insert((0, event["data"].clone()));
        entry.0 += 1;
        assert_eq!(entry.1, event["data"], "an id stands for one event");
    }
    response
}

/// The id of a message whose signatures are right.
fn verified(headers: &HeaderMap, body: &[u8]) -> String {
    let header = |name: &str| headers[name].to_str().unwrap();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    assert_eq!(header("webhook-signature"), sign::standard(SECRET, id, timestamp, body));
    assert_eq!(header("x-kuboard-signature-256"), sign::body_only(SECRET, body));
    assert_eq!(header("content-type"), "application/cloudevents+json; charset=utf-8");
    let event: Value = serde_json::from_slice(body).unwrap();
    assert_eq!((event["specversion"].as_str(), event["id"].as_str()), (Some("1.0"), Some(id)));
    id.to_owned()
}

const PACE: Pace = Pace {
    backoff: Backoff { base: Duration::from_millis(10), cap: Duration::from_millis(80) },
    timeout: Duration::from_millis(250),
    idle: Duration::from_millis(5),
    lease: Duration::from_millis(600),
    tries: 1_000_000,
    refused_tries: 3,
};

fn counter() -> IntCounterVec {
    IntCounterVec::new(Opts::new("tries", "tries"), &["receiver", "result"]).unwrap()
}

/// Delivery as another process would run it; gone with all that was under way when it is drained
/// without grace.
fn start(catalog: &Catalog, receivers: &[Receiver], tries: &IntCounterVec) -> Tasks {
    let tasks = Tasks::default();
    let parts = DeliveryParts {
        catalog: catalog.clone(),
        receivers: receivers.to_vec(),
        clock: Arc::new(SystemClock),
        source: "/kuboard".to_owned(),
        tries: tries.clone(),
        pace: PACE,
    };
    // Not this set's stop: a kill asks for nothing.
    let never = Tasks::default().shutdown();
    tasks.spawn("delivery", async move { run(parts, never).await.unwrap() });
    tasks
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    tracing::debug!(what, "awaited");
    while !is_so().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn add(catalog: &Catalog, events: usize, names: &[&str]) -> BTreeSet<String> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut ids = BTreeSet::new();
    for number in 0..events {
        let event = event(number, if number % 2 == 0 { "CRITICAL" } else { "LOW" });
        catalog.add_event(&event, &names, SystemClock.now_ms()).await.unwrap();
        ids.insert(event.key);
    }
    ids
}

async fn state(catalog: &Catalog, receiver: &str, state: &str) -> u64 {
    let states = catalog.delivery_states().await.unwrap();
    states.iter().find(|it| it.0 == receiver && it.1 == state).map_or(0, |it| it.2)
}

/// Receivers of all tempers; delivery is killed again and again; everything arrives.
async fn everything_arrives(ground: Ground) {
    let catalog = ground.catalog.clone();
    let good = Listener::start(0, |_| Reaction::Status(204)).await;
    let moody = Listener::start(0, |tried| match tried {
        1 => Reaction::Status(503),
        2 => Reaction::Header(307, "location", "http://127.0.0.1:9/elsewhere"),
        3 => Reaction::Header(429, "retry-after", "0"),
        4 => Reaction::Hang,
        5 => Reaction::Status(404),
        _ => Reaction::Status(200),
    })
    .await;
    let picky = Listener::start(0, |_| Reaction::Status(200)).await;
    let hanging = Listener::start(0, |_| Reaction::Hang).await;
    // Its address, and nobody there.
    let away = Listener::start(0, |_| Reaction::Status(200)).await;
    let away_address = away.address;
    away.stop().await;
    let names = ["good", "moody", "picky", "away", "hanging"];
    let addresses = [good.address, moody.address, picky.address, away_address, hanging.address];
    let mut receivers: Vec<Receiver> =
        names.iter().zip(addresses).map(|(name, address)| receiver(name, address)).collect();
    receivers[2].severity_threshold = Some(Severity::High);
    let ids = add(&catalog, 40, &names).await;
    let counted = counter();
    let all_tries = || -> usize {
        let listeners = [&good, &moody, &picky, &hanging];
        listeners.iter().map(|it| it.got.lock().tries.values().sum::<usize>()).sum()
    };
    for kill in 0..20 {
        let before = all_tries();
        let tasks = start(&catalog, &receivers, &counted);
        until("some were told", async || all_tries() > before + kill % 7).await;
        tasks.drain(Duration::ZERO).await;
    }
    let tasks = start(&catalog, &receivers, &counted);
    until("the good one got all", async || good.ids() == ids).await;
    until("the moody one got all", async || moody.ids() == ids).await;
    let away = Listener::start(away_address.port(), |_| Reaction::Status(200)).await;
    until("the one that was away got all", async || away.ids() == ids).await;
    for name in ["good", "moody", "picky", "away"] {
        until("all is noted", async || state(&catalog, name, "done").await == 40).await;
    }
    assert_eq!(picky.ids().len(), 20, "what is below its threshold is not sent");
    assert_eq!(state(&catalog, "hanging", "waiting").await, 40);
    assert!(catalog.dead_letters("", 100).await.unwrap().is_empty());
    assert!(counted.with_label_values(&["moody", "retry"]).get() > 0);
    tasks.drain(Duration::ZERO).await;
}

/// What is refused is set aside after three tries, and can be sent again.
async fn refusals_are_set_aside(ground: Ground) {
    let catalog = ground.catalog.clone();
    let stubborn = Listener::start(0, |tried| match tried {
        1..=3 => Reaction::Status(400),
        _ => Reaction::Status(200),
    })
    .await;
    let receivers = [receiver("stubborn", stubborn.address)];
    let ids = add(&catalog, 5, &["stubborn", "nobody"]).await;
    let counted = counter();
    let tasks = start(&catalog, &receivers, &counted);
    until("all are set aside", async || state(&catalog, "stubborn", "dead").await == 5).await;
    let dead = catalog.dead_letters("stubborn", 10).await.unwrap();
    assert!(dead.iter().all(|row| row.reason == "try 3, refused 3: answered 400"), "{dead:?}");
    assert_eq!(state(&catalog, "nobody", "dead").await, 0, "another process may know it");
    let now_ms = SystemClock.now_ms();
    assert_eq!(catalog.replay("stubborn", None, now_ms).await.unwrap(), 5);
    until("all arrived", async || stubborn.ids() == ids).await;
    until("all is noted", async || state(&catalog, "stubborn", "done").await == 5).await;
    tasks.drain(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_arrives_from_sqlite() {
    everything_arrives(Ground::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_arrives_from_postgres() {
    everything_arrives(Ground::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn refusals_are_set_aside_in_sqlite() {
    refusals_are_set_aside(Ground::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn refusals_are_set_aside_in_postgres() {
    refusals_are_set_aside(Ground::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_long_queue_for_one_does_not_delay_another() {
    let ground = Ground::sqlite().await;
    let hanging = Listener::start(0, |_| Reaction::Hang).await;
    let good = Listener::start(0, |_| Reaction::Status(200)).await;
    let receivers = [receiver("hanging", hanging.address), receiver("good", good.address)];
    let names = ["hanging".to_owned()];
    for number in 0..600 {
        let before = NewEvent { key: format!("before {number}"), ..event(number, "LOW") };
        ground.catalog.add_event(&before, &names, 1).await.unwrap();
    }
    let ids = add(&ground.catalog, 300, &["good"]).await;
    let counted = counter();
    let tasks = start(&ground.catalog, &receivers, &counted);
    until("the good one got all", async || good.ids() == ids).await;
    assert_eq!(state(&ground.catalog, "hanging", "waiting").await, 600);
    tasks.drain(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_awaits_answers_and_ends() {
    let ground = Ground::sqlite().await;
    let good = Listener::start(0, |_| Reaction::Status(200)).await;
    let ids = add(&ground.catalog, 3, &["good"]).await;
    let tasks = Tasks::default();
    let parts = DeliveryParts {
        catalog: ground.catalog.clone(),
        receivers: vec![receiver("good", good.address)],
        clock: Arc::new(SystemClock),
        source: "/kuboard".to_owned(),
        tries: counter(),
        pace: PACE,
    };
    let stop = tasks.shutdown();
    tasks.spawn("delivery", async move { run(parts, stop).await.unwrap() });
    until("the good one got all", async || good.ids() == ids).await;
    tasks.drain(Duration::from_secs(30)).await;
    assert_eq!(state(&ground.catalog, "good", "done").await, 3);
}

#[tokio::test]
async fn a_bad_authority_is_told_at_once() {
    let ground = Ground::sqlite().await;
    let authority =
        Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let parts = DeliveryParts {
        catalog: ground.catalog.clone(),
        receivers: vec![Receiver { authority, ..receiver("r", address) }],
        clock: Arc::new(SystemClock),
        source: String::new(),
        tries: counter(),
        pace: PACE,
    };
    let error = run(parts, Tasks::default().shutdown()).await.unwrap_err().to_string();
    assert!(error.starts_with("webhook r: its authority"), "{error}");
    let shown = format!("{:?}", receiver("r", address));
    assert!(!shown.contains("token") && !shown.contains("secret"), "{shown}");
}
