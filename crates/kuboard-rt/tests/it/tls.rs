//! Certificates: served, swapped, renewed.

use crate::server::{Client, MOMENT, Server, mapped, pattern, tls_connect};
use kuboard_rt::http::{Body, Handler, Limits, Peer, Request, Response, handler_fn};
use kuboard_rt::tls::Certificates;
use kuboard_rt::{Clock, ManualClock, SystemClock, Tasks};
use rcgen::{CertificateParams, KeyPair};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// A self-signed pair for `localhost`, as PEM.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn put(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn answers_a_map() -> Arc<dyn Handler> {
    let mapping = mapped(&pattern(3_000_001));
    handler_fn(move |request: Request| {
        assert!(request.extensions().get::<Peer>().unwrap().tls);
        let body = Body::mapped(mapping.clone(), 1..3_000_001);
        async { Response::new(body) }
    })
}

#[tokio::test]
async fn both_protocols_by_alpn_and_a_post_quantum_key_exchange() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = SystemClock.now_ms();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificates = Certificates::self_made(folder.path(), &names, now_ms).unwrap();
    let server = Server::start(answers_a_map(), Some(certificates), Limits::default()).await;
    let ca = std::fs::read_to_string(folder.path().join("ca.pem")).unwrap();
    for (name, alpn, version) in [
        ("localhost", "http/1.1", http::Version::HTTP_11),
        ("localhost", "h2", http::Version::HTTP_2),
        ("127.0.0.1", "h2", http::Version::HTTP_2),
    ] {
        let connected = tls_connect(server.addr, name, &ca, alpn.as_bytes()).await.unwrap();
        assert_eq!(connected.group, rustls::NamedGroup::X25519MLKEM768);
        let mut client = match alpn {
            "h2" => Client::http2(connected.stream, &server.tasks).await,
            _ => Client::http1(connected.stream, &server.tasks).await,
        };
        for _ in 0..3 {
            let (parts, body) = client.get("/").await;
            assert_eq!(parts.version, version);
            assert!(body == pattern(3_000_001)[1..]);
        }
    }
    assert!(tls_connect(server.addr, "other.test", &ca, b"h2").await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn files_are_swapped_under_load_without_a_failed_request() {
    let folder = tempfile::tempdir().unwrap();
    let (chain_path, key_path) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let (first, first_key) = pair();
    put(&chain_path, &first);
    put(&key_path, &first_key);
    let certificates = Certificates::from_files(&chain_path, &key_path).unwrap();
    let limits = Limits::default();
    let server = Server::start(answers_a_map(), Some(certificates.clone()), limits).await;

    let pairs: Vec<_> = (0..20).map(|_| pair()).collect();
    let all = pairs.iter().fold(first.clone(), |all, (chain, _)| all + chain);
    let (done, served) = (AtomicBool::new(false), AtomicBool::new(false));
    let load = async |alpn: &[u8]| {
        while !done.load(Ordering::SeqCst) {
            let connected = tls_connect(server.addr, "localhost", &all, alpn).await.unwrap();
            let mut client = match alpn {
                b"h2" => Client::http2(connected.stream, &server.tasks).await,
                _ => Client::http1(connected.stream, &server.tasks).await,
            };
            assert_eq!(client.get("/").await.1.len(), 3_000_000);
            served.store(true, Ordering::SeqCst);
        }
    };
    let swap = async {
        for (chain, key) in &pairs {
            while !served.swap(false, Ordering::SeqCst) {
                tokio::time::sleep(MOMENT).await;
            }
            let before = certificates.not_after_ms();
            // Half a pair is refused, and the old one stays.
            put(&chain_path, chain);
            let err = certificates.refresh(0).await.unwrap_err().to_string();
            assert!(err.contains("do not work together") && err.contains("hint"), "{err}");
            assert_eq!(certificates.not_after_ms(), before);
            put(&key_path, key);
            assert!(certificates.refresh(0).await.unwrap());
            assert!(!certificates.refresh(0).await.unwrap(), "nothing changed since");
            let leaf = tls_connect(server.addr, "localhost", &all, b"h2").await.unwrap().leaf;
            assert_eq!(leaf, der(chain));
        }
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(swap, load(b"h2"), load(b"http/1.1"));
    server.stop().await;
}

#[tokio::test]
async fn a_mounted_secret_is_followed_through_its_links() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let write = |version: &str| {
        let (chain, key) = pair();
        std::fs::create_dir(at(version)).unwrap();
        put(&at(version).join("tls.crt"), &chain);
        put(&at(version).join("tls.key"), &key);
        let _ = std::fs::remove_file(at("..data.new"));
        std::os::unix::fs::symlink(at(version), at("..data.new")).unwrap();
        std::fs::rename(at("..data.new"), at("..data")).unwrap();
        chain
    };
    write("..1");
    std::os::unix::fs::symlink("..data/tls.crt", at("tls.crt")).unwrap();
    std::os::unix::fs::symlink("..data/tls.key", at("tls.key")).unwrap();
    let certificates = Certificates::from_files(&at("tls.crt"), &at("tls.key")).unwrap();
    let server =
        Server::start(answers_a_map(), Some(certificates.clone()), Limits::default()).await;
    let chain = write("..2");
    // Found by the task that looks every few seconds, not by being told.
    let tasks = Tasks::default();
    let keeping = certificates.keep_fresh(Arc::new(SystemClock), tasks.shutdown());
    tasks.spawn("certificates", async move { keeping.await.unwrap() });
    loop {
        match tls_connect(server.addr, "localhost", &chain, b"h2").await {
            Ok(connected) => break assert_eq!(connected.leaf, der(&chain)),
            Err(_) => tokio::time::sleep(MOMENT).await,
        }
    }
    tasks.drain(crate::server::PATIENCE).await;
    server.stop().await;
}

#[tokio::test]
async fn unusable_files_are_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (chain_path, key_path) = (folder.path().join("a.crt"), folder.path().join("a.key"));
    let (chain, key) = pair();
    let (_, other_key) = pair();
    for (chain, key, expected) in [
        ("", &key[..], "no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", &key, "no PEM certificates"),
        (&chain, "", "no PEM private key"),
        (&chain, &chain, "no PEM private key"),
        (&chain, &other_key, "do not work together"),
    ] {
        put(&chain_path, chain);
        put(&key_path, key);
        let err = Certificates::from_files(&chain_path, &key_path).err().unwrap().to_string();
        assert!(err.contains(expected) && err.contains("/a."), "{err}");
    }
    std::fs::remove_file(&chain_path).unwrap();
    let err = Certificates::from_files(&chain_path, &key_path).err().unwrap();
    assert_eq!(format!("{:#}", err), format!("cannot read {}", chain_path.display()));
}

#[tokio::test]
async fn the_own_authority_stays_and_its_leaf_follows_the_clock() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("tls");
    let names = ["localhost".to_owned()];
    let now_ms = SystemClock.now_ms();
    let certificates = Certificates::self_made(&dir, &names, now_ms).unwrap();
    let mode = |name| std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("ca.pem")), (0o600, 0o644));
    let ca = std::fs::read_to_string(dir.join("ca.pem")).unwrap();

    let clock = ManualClock::new(now_ms);
    let mut until = certificates.not_after_ms().unwrap();
    let mut refresh = async |expected: bool| {
        assert_eq!(certificates.refresh(clock.now_ms()).await.unwrap(), expected);
        let now_until = certificates.not_after_ms().unwrap();
        assert_eq!(now_until != until, expected);
        until = now_until;
    };
    refresh(false).await;
    clock.set(now_ms + 59 * DAY_MS);
    refresh(false).await;
    clock.set(now_ms + 61 * DAY_MS);
    refresh(true).await;
    clock.set(now_ms + 61 * DAY_MS);
    refresh(false).await;
    // The clock is set right again, far before the leaf's beginning.
    clock.set(now_ms);
    refresh(true).await;
    clock.set(-DAY_MS);
    refresh(true).await;
    clock.set(i64::MAX);
    let _ = certificates.refresh(clock.now_ms()).await;
    clock.set(now_ms);
    certificates.refresh(clock.now_ms()).await.unwrap();

    // Only that far jump beyond its own end has cost the authority.
    assert_ne!(std::fs::read_to_string(dir.join("ca.pem")).unwrap(), ca);
    let ca = std::fs::read_to_string(dir.join("ca.pem")).unwrap();
    let again = Certificates::self_made(&dir, &names, now_ms).unwrap();
    let server = Server::start(answers_a_map(), Some(again), Limits::default()).await;
    tls_connect(server.addr, "localhost", &ca, b"h2").await.unwrap();
    server.stop().await;

    std::fs::remove_file(dir.join("ca.key")).unwrap();
    let err = Certificates::self_made(&dir, &names, now_ms).err().unwrap().to_string();
    assert!(err.contains("hint: restore the key"), "{err}");
}

fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}
