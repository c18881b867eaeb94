//! Putting blobs and manifests: what is asked of whom, and how refusals are told.

use bytes::Bytes;
use kuboard_oci::Digest;

use crate::client_script::{
    MANIFEST, MANIFEST_TYPE, Reply, Scripted, Seen, Setup, expect, manifest_digest, reference,
    repository, told,
};

const BLOB: &str = "some bytes";

fn digest() -> Digest {
    Digest::sha256(BLOB.as_bytes())
}

/// A registry that has nothing and takes everything.
fn takes(seen: &Seen) -> Reply {
    match seen.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).with("Location", "/v2/a/b/blobs/uploads/7?_state=x%2By"),
        _ => Reply::new(201),
    }
}

/// What comes of putting a blob and then a manifest.
async fn put(setup: Setup) -> (String, String) {
    let upstream = setup.build().upstream;
    let blob = upstream.put_blob(&repository("a/b"), Bytes::from(BLOB)).await;
    let manifest = upstream
        .put_manifest(&repository("a/b"), &reference("v1"), MANIFEST_TYPE, Bytes::from(MANIFEST))
        .await;
    let listed = |stored: kuboard_registry::client::Stored| {
        assert_eq!(stored.digest, manifest_digest());
        format!("listed {}", stored.is_listed)
    };
    (told(blob, |digest| digest.to_string()), told(manifest, listed))
}

#[tokio::test]
async fn content_is_put_to_the_upstream_itself() {
    let (mirror, own) = (Scripted::start(takes).await, Scripted::start(takes).await);
    let (blob, manifest) = put(Setup::new(&[&mirror.url(), &own.url()])).await;
    assert_eq!((blob, manifest.as_str()), (format!("ok {}", digest()), "ok listed false"));
    assert_eq!(mirror.hits(), 0);
    let log = own.log();
    let asked: Vec<_> = log.iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    let hex = digest().hex();
    assert_eq!(
        asked,
        [
            format!("HEAD /v2/a/b/blobs/sha256:{hex}"),
            "POST /v2/a/b/blobs/uploads/".to_owned(),
            format!("PUT /v2/a/b/blobs/uploads/7?_state=x%2By&digest=sha256%3A{hex}"),
            "PUT /v2/a/b/manifests/v1".to_owned(),
        ]
    );
    assert_eq!((log[2].body.as_str(), log[3].body.as_str()), (BLOB, MANIFEST));
    assert_eq!(log[1].header("content-length"), Some("0"));
    assert_eq!(log[2].header("content-type"), Some("application/octet-stream"));
    assert_eq!(log[3].header("content-type"), Some(MANIFEST_TYPE));
}

#[tokio::test]
async fn what_is_there_is_not_sent_again() {
    let own = Scripted::start(|seen| match seen.method.as_str() {
        "HEAD" => Reply::ok(BLOB),
        _ => Reply::new(201).with("OCI-Subject", manifest_digest().to_string()),
    });
    let own = own.await;
    let (blob, manifest) = put(Setup::new(&[&own.url()])).await;
    assert_eq!((blob, manifest.as_str()), (format!("ok {}", digest()), "ok listed true"));
    assert_eq!(own.hits(), 2);
}

/// A token for reading is known when something is put; the registry then asks for another one.
#[tokio::test]
async fn a_token_that_may_push_is_fetched_when_it_is_wanted() {
    let tokens = Scripted::start(|seen| {
        let scope = if seen.path.contains("push") { "push" } else { "pull" };
        Reply::ok(format!(r#"{{"token":"{scope}"}}"#))
    })
    .await;
    let realm = format!("{}/token", tokens.url());
    let own = Scripted::start(move |seen| {
        let scope = if seen.method == "HEAD" { "pull" } else { "pull,push" };
        let challenge = format!(
            r#"Bearer realm="{realm}",service="s",scope="repository:a/b:{scope}",error="insufficient_scope""#
        );
        match (seen.method.as_str(), seen.authorization()) {
            ("HEAD", "Bearer pull" | "Bearer push") | (_, "Bearer push") => takes(seen),
            _ => Reply::unauthorized(challenge),
        }
    })
    .await;
    let (blob, manifest) = put(Setup::new(&[&own.url()]).user("robot")).await;
    assert_eq!((blob, manifest.as_str()), (format!("ok {}", digest()), "ok listed false"));
    assert_eq!((own.count("PUT"), tokens.hits()), (2, 2));
}

/// How a registry that refuses in some way is told of.
async fn check(case: &str, method: &'static str, reply: Reply, start: &str, part: &str) {
    let own = Scripted::start(
        move |seen| {
            if seen.method == method { reply.clone() } else { takes(seen) }
        },
    )
    .await;
    let (blob, manifest) = put(Setup::new(&[&own.url()])).await;
    expect(case, &blob, start, part);
    if method == "PUT" {
        expect(case, &manifest, start, part);
    }
}

#[tokio::test]
async fn refusals() {
    let denied = r#"{"errors":[{"code":"DENIED","message":"no pushes"}]}"#;
    let other = Digest::sha256(b"other").to_string();
    check("denied", "POST", Reply::new(403).body(denied), "denied: ", "DENIED: no pushes").await;
    check("unknown", "POST", Reply::unauthorized(r#"Basic realm="x""#), "unauthorized: ", "401")
        .await;
    check("read only", "POST", Reply::new(405), "invalid: ", "405").await;
    check("not begun", "POST", Reply::new(200), "invalid: ", "it answered 200 OK, not 202").await;
    check("no place", "POST", Reply::new(202), "invalid: ", "names no place").await;
    let ftp = Reply::new(202).with("Location", "ftp://x/y");
    check("a strange place", "POST", ftp, "refused: ", "scheme").await;
    check("too large", "PUT", Reply::new(413), "invalid: ", "413").await;
    check("accepted only", "PUT", Reply::new(202), "invalid: ", "202").await;
    check("a server's error", "PUT", Reply::new(500), "unavailable: ", "500").await;
    let wrong = Reply::new(201).with("Docker-Content-Digest", other);
    check("other bytes", "PUT", wrong, "invalid: ", "instead of").await;
    check("a redirect", "PUT", Reply::redirect("/v2/"), "refused: ", "redirect loop").await;
}

#[tokio::test]
async fn a_manifest_is_put_under_its_own_digest_only() {
    let own = Scripted::start(takes).await;
    let upstream = Setup::new(&[&own.url()]).build().upstream;
    for (under, hits) in [(Digest::sha256(b"other"), 0), (manifest_digest(), 1)] {
        let under = reference(&under.to_string());
        let bytes = Bytes::from(MANIFEST);
        let put = upstream.put_manifest(&repository("a"), &under, MANIFEST_TYPE, bytes).await;
        assert_eq!((put.is_ok(), own.hits()), (hits == 1, hits));
    }
}

#[tokio::test]
async fn mirrors_alone_take_nothing() {
    let mirror = Scripted::start(takes).await;
    let setup = Setup::new(&["http://192.0.2.1:1"]).configure(|config| {
        config.name = "docker.io".to_owned();
        config.endpoints = vec!["https://mirror.example.org".parse().unwrap()];
    });
    let (blob, manifest) = put(setup).await;
    expect("blob", &blob, "refused: ", "no endpoint is the upstream itself");
    expect("manifest", &manifest, "refused: ", "no endpoint is the upstream itself");
    assert_eq!(mirror.hits(), 0);
}
