//! What a review costs: `handler_load [images] [reviews]`. A hundred thousand images are known, a
//! thousand policies are wanted, and pods of four containers are judged: first by calling the
//! handler, then over HTTP/2 and TLS on loopback. Prints one line of JSON.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement, not shipped"
)]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use kuboard_admission::{
    Admission, Digests, Doors, FactsIndex, FactsSource, Knowledge, Puller, Resolved, ScanRequest,
    Settings, Unresolved,
};
use kuboard_api::{
    desired::{Desired, Namespace, Running},
    policy,
};
use kuboard_oci::{Digest, ImageReference};
use kuboard_rt::{
    BoxFuture, Scope, SystemClock, Tasks,
    http::{Handler as _, Limits, RequestBody},
    metrics::Metrics,
};
use kuboard_testkit::certificate::Authority;
use kuboard_vuln::{Fact, ImageFacts, Known, Severity};
use serde_json::{Value, json};

const NAMESPACES: usize = 100;
const POLICIES: usize = 1000;
const DEFINITIONS: usize = 30_000;
const BODIES: usize = 2000;
/// Requests at once over the network.
const STREAMS: usize = 64;

/// Names mean numbers, and numbers digests: no table in memory that a real registry has on disk.
struct Numbers;

fn digest(number: usize) -> Digest {
    Digest::sha256(&number.to_le_bytes())
}

impl Digests for Numbers {
    fn known(&self, image: &ImageReference) -> Option<Arc<Resolved>> {
        let number = image.repository.as_str().rsplit('-').next()?.parse().ok()?;
        let digest = digest(number);
        Some(Arc::new(Resolved { digest, manifests: [digest].into() }))
    }

    fn resolve<'a>(
        &'a self,
        _: &'a ImageReference,
        _: &'a Puller,
    ) -> BoxFuture<'a, Result<Arc<Resolved>, Unresolved>> {
        Box::pin(async { Err(Unresolved::NotFound("everything is known".to_owned())) })
    }
}

impl FactsSource for Numbers {
    fn facts<'a>(&'a self, _: &'a Digest) -> BoxFuture<'a, Result<Option<ImageFacts>, String>> {
        Box::pin(async { Ok(None) })
    }

    fn scan(&self, _: ScanRequest) {}
}

struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

/// One of the findings that images share; one in fifty is critical.
fn definition(number: usize, first_seen_ms: i64) -> Fact {
    let severity = match number % 50 {
        0 => Severity::Critical,
        1..10 => Severity::High,
        10..30 => Severity::Medium,
        _ => Severity::Low,
    };
    Fact {
        id: format!("CVE-{}-{}", 2005 + number % 20, 1000 + number).into(),
        aliases: [format!("GHSA-{number:04x}-abcd-efgh").into()].into(),
        package: format!("package-{}", number % 3000).into(),
        version: format!("{}.{}-{}", number % 9, number % 31, number % 7).into(),
        fixed_in: (!number.is_multiple_of(3))
            .then(|| format!("{}.{}-9", number % 9, number % 31).into()),
        severity,
        exploited: number.is_multiple_of(97),
        epss: Some((number % 10_000) as u32),
        first_seen_ms,
    }
}

/// Facts of images, 40 findings on average; one image in ten has a critical one.
fn fill(index: &FactsIndex, images: usize, now_ms: i64) -> usize {
    let (mut noise, mut total) = (Noise(7), 0);
    for number in 0..images {
        let (first_scanned_ms, wanted) = (now_ms - 86_400_000, noise.below(81));
        let bad = number % 10 == 0;
        let findings = (0..wanted).map(|_| {
            let one = noise.below(DEFINITIONS);
            let one = if one % 50 == 0 && !bad { one + 30 } else { one };
            let late = if one % 20 == 0 { 3_600_000 } else { 0 };
            definition(one, first_scanned_ms + late)
        });
        let findings: Vec<Fact> = findings.collect();
        total += findings.len();
        let facts =
            ImageFacts { known: Known::All, findings, first_scanned_ms, scanned_ms: now_ms };
        assert!(index.put(&digest(number), &facts));
    }
    total
}

fn policy(number: usize) -> Arc<policy::Policy> {
    let images = match number % 4 {
        0 => json!([]),
        _ => json!(["**/team-*/**", "docker.io/**"]),
    };
    let (kind, namespace) = match number % 100 {
        0 => ("ClusterImageScanPolicy", None),
        _ => ("ImageScanPolicy", Some(format!("ns-{}", number % NAMESPACES))),
    };
    let mut metadata = json!({"name": format!("policy-{number}")});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    let policy = json!({
        "apiVersion": "kuboard.cn/v1alpha1", "kind": kind, "metadata": metadata,
        "spec": {
            "severityThreshold": "CRITICAL", "excludeRegistries": ["*.internal.corp"],
            "images": images,
        },
    });
    let folder = policy::parse(Path::new("p.yaml"), &policy.to_string()).unwrap();
    Arc::new(folder.policies.into_iter().next().unwrap().policy)
}

fn desired() -> Desired {
    Desired {
        policies: (0..POLICIES).map(policy).collect(),
        namespaces: (0..NAMESPACES).map(|it| (format!("ns-{it}"), Namespace::default())).collect(),
        synced: true,
        ..Desired::default()
    }
}

/// A pod as controllers make them: four containers with what such pods carry along.
fn body(noise: &mut Noise, images: usize) -> Bytes {
    let container = |number: usize, image: usize| {
        let env: Vec<Value> = (0..8)
            .map(|it| json!({"name": format!("SETTING_{it}"), "value": "a value of some length"}))
            .collect();
        json!({
            "name": format!("container-{number}"),
            "image": format!("registry.example.com/team-{}/app-{image}:v1.2.3", image % 40),
            "env": env, "ports": [{"containerPort": 8080, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m"}},
            "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets", "readOnly": true}],
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10},
            "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log",
        })
    };
    let containers: Vec<Value> = (0..4).map(|it| container(it, noise.below(images))).collect();
    let namespace = format!("ns-{}", noise.below(NAMESPACES));
    let pod = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "generateName": "web-5d4f7c-", "namespace": namespace,
            "labels": {"app": "web", "pod-template-hash": "5d4f7c"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f7c",
                "uid": "6d5a1a86-0000-4000-8000-000000000000", "controller": true,
            }],
        },
        "spec": {
            "containers": containers, "serviceAccountName": "web", "restartPolicy": "Always",
            "volumes": [{"name": "token", "projected": {"sources": []}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}],
        },
        "status": {},
    });
    let review = json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": namespace, "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:authenticated"],
            },
            "object": pod, "oldObject": null, "dryRun": false,
        },
    });
    review.to_string().into()
}

/// Memory of this process in MiB: `VmRSS` now, `VmHWM` at most.
fn memory(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix(field)).unwrap();
    let kib: f64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).trim().parse().unwrap();
    kib / 1024.0
}

/// CPU seconds of the thread that asks.
fn thread_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn percentiles(mut took: Vec<u32>) -> Value {
    took.sort_unstable();
    let at = |share: f64| {
        let place = ((took.len() as f64 * share) as usize).min(took.len() - 1);
        f64::from(took[place]) / 1000.0
    };
    json!({"p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": at(1.0)})
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The handler, called.
fn called(admission: &Arc<Admission>, bodies: &[Bytes], reviews: usize) -> Value {
    runtime().block_on(async {
        let mut took = Vec::with_capacity(reviews);
        let (mut denied, mut cpu, mut begun) = (0_usize, 0.0, Instant::now());
        // A tenth goes before, to warm up.
        for number in 0..reviews + reviews / 10 {
            if number == reviews / 10 {
                (took, denied, cpu, begun) =
                    (Vec::with_capacity(reviews), 0, thread_cpu(), Instant::now());
            }
            let body = RequestBody::from(bodies[number % bodies.len()].clone());
            let request = http::Request::post("/validate").body(body).unwrap();
            let started = Instant::now();
            let response = admission.handle(request).await;
            took.push(started.elapsed().as_nanos() as u32);
            let text = response.into_body().collect().await.unwrap();
            denied += usize::from(text.windows(15).any(|it| it == b"\"allowed\":false"));
        }
        let (wall, cpu) = (begun.elapsed().as_secs_f64(), thread_cpu() - cpu);
        let mut figures = percentiles(took);
        figures["reviews"] = json!(reviews);
        figures["denied"] = json!(denied);
        figures["per_second"] = json!((reviews as f64 / wall).round());
        figures["per_second_and_core"] = json!((reviews as f64 / cpu).round());
        figures
    })
}

/// The handler behind HTTP/2 and TLS, on a thread of its own whose CPU time is counted.
fn served(admission: Arc<Admission>, bodies: &[Bytes], reviews: usize) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(&folder.path().join("authority")).unwrap();
    let certificate = authority.issue("server", &["127.0.0.1", "localhost"]).unwrap();
    let files = (certificate.certificate_file(), certificate.key_file());
    let certificates = kuboard_rt::tls::Certificates::from_files(files.0, files.1).unwrap();
    let (tell, told) = std::sync::mpsc::channel::<SocketAddr>();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = thread::spawn(move || {
        runtime().block_on(async {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let bound = kuboard_rt::http::bind(any, Some(certificates), Limits::default());
            let bound = bound.await.unwrap();
            tell.send(bound.local_addr().unwrap()).unwrap();
            let mut scope = Scope::default();
            scope.spawn("webhook", |stop| async move {
                bound.serve(admission, stop, Duration::from_secs(1)).await
            });
            let ended = async { drop(stopped.await) };
            scope.run(ended, Duration::from_secs(2)).await.unwrap();
        });
        thread_cpu()
    });
    let address = told.recv().unwrap();
    let root = fs::read(authority.file()).unwrap();
    let (took, wall) = runtime().block_on(load(address, &root, bodies, reviews));
    stop.send(()).unwrap();
    let cpu = server.join().unwrap();
    let mut figures = percentiles(took);
    figures["reviews"] = json!(reviews);
    figures["streams"] = json!(STREAMS);
    figures["per_second"] = json!((reviews as f64 / wall).round());
    figures["per_second_and_core"] = json!((reviews as f64 / cpu).round());
    figures
}

async fn load(
    address: SocketAddr,
    root: &[u8],
    bodies: &[Bytes],
    reviews: usize,
) -> (Vec<u32>, f64) {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    let io = hyper_util::rt::TokioIo::new(tls.unwrap());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(executor, io).await.unwrap();
    let tasks = Tasks::default();
    tasks.spawn("connection", async move { drop(connection.await) });
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    let streams = (0..STREAMS).map(|_| {
        let (mut sender, next) = (sender.clone(), &next);
        async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= reviews {
                    return took;
                }
                let uri = format!("https://localhost:{}/validate", address.port());
                let body = Full::new(bodies[number % bodies.len()].clone());
                let request = http::Request::post(uri).body(body).unwrap();
                let started = Instant::now();
                sender.ready().await.unwrap();
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status(), 200);
                response.into_body().collect().await.unwrap();
                took.push(started.elapsed().as_nanos() as u32);
            }
        }
    });
    let took = futures_util::future::join_all(streams).await;
    (took.concat(), begun.elapsed().as_secs_f64())
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |or: usize| arguments.next().map_or(or, |it| it.parse().unwrap());
    let (images, reviews) = (number(100_000), number(200_000));
    let now_ms = 1_795_392_000_000;
    let before = memory("VmRSS");
    let facts = Arc::new(FactsIndex::new(images));
    let started = Instant::now();
    let findings = fill(&facts, images, now_ms);
    let filled = started.elapsed().as_secs_f64();
    let with_facts = memory("VmRSS");
    let knowledge = Knowledge {
        desired: Arc::new(ArcSwap::from_pointee(desired())),
        running: Arc::new(ArcSwap::from_pointee(Running { synced: true, ..Running::default() })),
        facts: facts.clone(),
    };
    let numbers = Arc::new(Numbers);
    let doors = Doors {
        digests: numbers.clone(),
        facts: numbers,
        recorder: Arc::new(()),
        events: Arc::new(()),
    };
    let (tasks, metrics) = (Tasks::default(), Metrics::new());
    let clock = Arc::new(SystemClock);
    let registry = metrics.registry();
    let admission =
        Admission::new(Settings::default(), knowledge, doors, clock, &tasks, registry).unwrap();
    let ready = memory("VmRSS");
    let mut noise = Noise(1);
    let bodies: Vec<Bytes> = (0..BODIES).map(|_| body(&mut noise, images)).collect();
    let bytes: usize = bodies.iter().map(Bytes::len).sum();
    let called = called(&admission, &bodies, reviews);
    let served = served(admission, &bodies, reviews);
    let figures = json!({
        "images": images, "findings": findings, "definitions": facts.definitions(),
        "policies": POLICIES, "body_bytes": bytes / BODIES, "fill_seconds": filled,
        "memory_mib": {
            "before": before, "with_facts": with_facts, "ready": ready, "most": memory("VmHWM"),
            "load_generator": bytes as f64 / 1048576.0,
        },
        "called": called, "served": served,
    });
    println!("{figures}");
}
