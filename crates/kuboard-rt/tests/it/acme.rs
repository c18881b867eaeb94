//! Certificates from a real ACME authority: obtained, served, kept, renewed.

use crate::pebble::Pebble;
use crate::server::{MOMENT, PATIENCE, Server, tls_connect};
use kuboard_rt::http::{Body, Handler, Limits, Request, Response, bind, handler_fn};
use kuboard_rt::tls::{AcmeChallenge, AcmeConfig, Certificates};
use kuboard_rt::{Clock, ManualClock, SystemClock, Tasks};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, OnceLock};

const NAME: &str = "registry.kuboard.test";

/// Answers http-01 challenges, and everything else with 404.
fn challenges(certificates: &Arc<OnceLock<Arc<Certificates>>>) -> Arc<dyn Handler> {
    let certificates = certificates.clone();
    handler_fn(move |request: Request| {
        let answer = certificates
            .get()
            .and_then(|certificates| certificates.http01_answer(request.uri().path()));
        let found = answer.is_some();
        let mut response = Response::new(Body::full(answer.unwrap_or_default()));
        if !found {
            *response.status_mut() = http::StatusCode::NOT_FOUND;
        }
        async { response }
    })
}

async fn check(challenge: AcmeChallenge) {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::default();
    let shared = Arc::new(OnceLock::new());
    let plain = Server::plain(challenges(&shared)).await;
    // Pebble must know the TLS port and the certificates Pebble's address: bind twice.
    let reserved = bind(([127, 0, 0, 1], 0).into(), None, Limits::default()).await.unwrap();
    let tls_addr = reserved.local_addr().unwrap();
    let pebble = Pebble::start(folder.path(), plain.addr.port(), tls_addr.port(), &tasks).await;
    drop(reserved);

    let config = AcmeConfig {
        directory_url: pebble.directory_url.clone(),
        contacts: vec!["mailto:ops@kuboard.test".to_owned()],
        domains: vec![NAME.to_owned(), "127.0.0.1".to_owned()],
        cache_dir: folder.path().join("acme"),
        ca_file: Some(pebble.ca_file.clone()),
        challenge,
    };
    let certificates = Certificates::acme(config.clone()).unwrap();
    let _ = shared.set(certificates.clone());
    assert_eq!(certificates.not_after_ms(), None);
    let bound = bind(tls_addr, Some(certificates.clone()), Limits::default()).await.unwrap();
    let server = Server::serve(bound, challenges(&shared));

    // Obtained and served.
    let clock = Arc::new(ManualClock::new(SystemClock.now_ms()));
    let obtained = certificates.refresh(clock.now_ms()).await;
    assert!(matches!(obtained, Ok(true)), "{obtained:?}\n{}", pebble.log());
    let until = certificates.not_after_ms().unwrap();
    let root = pebble.root(&tasks).await;
    let first = tls_connect(server.addr, NAME, &root, b"h2").await.unwrap().leaf;
    assert_eq!(tls_connect(server.addr, "127.0.0.1", &root, b"h2").await.unwrap().leaf, first);

    // Nothing of the proofs is left open, and what is secret is ours alone.
    assert_eq!(certificates.http01_answer("/.well-known/acme-challenge/"), None);
    assert!(tls_connect(server.addr, NAME, &root, b"acme-tls/1").await.is_err());
    for file in ["account.json", "certificate.pem"] {
        let found = std::fs::metadata(config.cache_dir.join(file)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600, "{file}");
    }

    // Kept: a restart asks nobody.
    let kept = Certificates::acme(config.clone()).unwrap();
    assert_eq!(kept.not_after_ms(), Some(until));
    assert!(!kept.refresh(clock.now_ms()).await.unwrap());
    let other = AcmeConfig { domains: vec!["other.kuboard.test".to_owned()], ..config.clone() };
    assert_eq!(Certificates::acme(other).unwrap().not_after_ms(), None);

    // Renewed at two thirds of its life, by the task that keeps it fresh.
    let life = until - clock.now_ms();
    clock.set(clock.now_ms() + life / 3 * 2 + 3_600_000);
    let keeping = certificates.clone().keep_fresh(clock.clone(), tasks.shutdown());
    tasks.spawn("certificates", async move { keeping.await.unwrap() });
    within_patience(async {
        while tls_connect(server.addr, NAME, &root, b"h2").await.unwrap().leaf == first {
            tokio::time::sleep(MOMENT).await;
        }
    })
    .await;

    tasks.drain(PATIENCE).await;
    plain.stop().await;
    server.stop().await;
}

async fn within_patience<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

#[tokio::test]
async fn by_http01() {
    check(AcmeChallenge::Http01).await;
}

#[tokio::test]
async fn by_tls_alpn01() {
    check(AcmeChallenge::TlsAlpn01).await;
}

#[tokio::test]
async fn a_refusal_says_what_the_authority_saw_and_is_not_repeated_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::default();
    // Answers every challenge with 404.
    let plain = Server::plain(challenges(&Arc::default())).await;
    let pebble = Pebble::start(folder.path(), plain.addr.port(), 1, &tasks).await;
    let certificates = Certificates::acme(AcmeConfig {
        directory_url: pebble.directory_url.clone(),
        contacts: vec![],
        domains: vec![NAME.to_owned()],
        cache_dir: folder.path().join("acme"),
        ca_file: Some(pebble.ca_file.clone()),
        challenge: AcmeChallenge::Http01,
    })
    .unwrap();
    let now_ms = SystemClock.now_ms();
    let err = certificates.refresh(now_ms).await.unwrap_err().to_string();
    assert!(err.contains(NAME) && err.contains("404"), "{err}");
    assert!(!certificates.refresh(now_ms + 1_000).await.unwrap(), "pauses");
    certificates.refresh(now_ms + 60_000).await.unwrap_err();
    tasks.drain(PATIENCE).await;
    plain.stop().await;
}
