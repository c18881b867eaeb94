//! Manifests, blobs and lists as upstreams serve them, well and badly.

use futures_util::StreamExt as _;
use kuboard_oci::{Algorithm, Digest};
use kuboard_registry::client::BlobStream;

use crate::client_script::{
    MANIFEST, MANIFEST_TYPE, Reply, Rig, Scripted, Seen, Setup, expect, manifest, manifest_digest,
    reference, repository, told,
};

const BLOB: &[u8] = b"0123456789";

/// The outcomes of HEAD and GET for a reference at a registry that answers so.
async fn manifests(
    case: &str,
    wanted: String,
    answer: fn(&Seen) -> Reply,
    head: (&str, &str),
    get: (&str, &str),
) {
    let server = Scripted::start(answer).await;
    // Two of them: what one question shows of the endpoint must not answer the next.
    let rig = || Setup::new(&[&server.url()]).build();
    let (name, wanted) = (repository("library/alpine"), reference(&wanted));
    let outcome = rig().upstream.head_manifest(&name, &wanted).await;
    let line = told(outcome, |seen| {
        let digest = seen.digest.map_or("none".to_owned(), |digest| digest.to_string());
        let media_type = seen.media_type.unwrap_or_default();
        format!("{digest} {media_type} {:?} {:?}", seen.size, seen.etag)
    });
    expect(&format!("HEAD: {case}"), &line, head.0, head.1);
    let outcome = rig().upstream.get_manifest(&name, &wanted).await;
    let line = told(outcome, |seen| {
        assert_eq!(seen.bytes, MANIFEST, "byte for byte");
        format!("{} {}", seen.digest, seen.media_type)
    });
    expect(&format!("GET: {case}"), &line, get.0, get.1);
}

fn typed() -> Reply {
    Reply::ok(MANIFEST).with("Content-Type", MANIFEST_TYPE)
}

#[tokio::test]
async fn manifests_by_tag() {
    let tag = || "latest".to_owned();
    let sha256 = "ok sha256:";
    manifests(
        "well",
        tag(),
        |seen| {
            assert!(seen.path == "/v2/library/alpine/manifests/latest");
            assert!(seen.header("accept").unwrap().contains(MANIFEST_TYPE));
            assert!(seen.header("user-agent").unwrap().starts_with("kuboard/"));
            manifest().with("ETag", "\"x\"")
        },
        (sha256, "manifest.v1+json Some(98) Some(\"\\\"x\\\"\")"),
        (sha256, MANIFEST_TYPE),
    )
    .await;
    manifests("no digest", tag(), |_| typed(), ("ok none", ""), (sha256, "")).await;
    manifests(
        "a digest that cannot be read",
        tag(),
        |_| typed().with("Docker-Content-Digest", "md5:abc"),
        ("ok none", ""),
        (sha256, ""),
    )
    .await;
    manifests(
        "another digest",
        tag(),
        |_| typed().with("Docker-Content-Digest", Digest::sha256(b"x").to_string()),
        (sha256, ""),
        ("invalid", "not sha256:"),
    )
    .await;
    manifests(
        "sha512",
        tag(),
        |_| {
            let digest = Digest::of(Algorithm::Sha512, MANIFEST.as_bytes());
            typed().with("Docker-Content-Digest", digest.to_string())
        },
        ("ok sha512:", ""),
        ("ok sha512:", ""),
    )
    .await;
    manifests(
        "no HEAD",
        tag(),
        |seen| if seen.method == "HEAD" { Reply::new(405) } else { manifest() },
        (sha256, "Some(98)"),
        (sha256, ""),
    )
    .await;
    manifests(
        "a type with parameters",
        tag(),
        |_| Reply::ok(MANIFEST).with("Content-Type", format!("{MANIFEST_TYPE}; charset=utf-8")),
        ("ok none", MANIFEST_TYPE),
        (sha256, MANIFEST_TYPE),
    )
    .await;
    manifests(
        "a type that says nothing",
        tag(),
        |_| Reply::ok(MANIFEST).with("Content-Type", "application/octet-stream"),
        ("ok none", "octet-stream"),
        (sha256, MANIFEST_TYPE),
    )
    .await;
}

#[tokio::test]
async fn manifests_by_digest() {
    let digest = || manifest_digest().to_string();
    let own = ("ok sha256:", MANIFEST_TYPE);
    manifests("well", digest(), |_| manifest(), own, own).await;
    manifests("no digest", digest(), |_| typed(), ("ok none", ""), own).await;
    manifests(
        "named by another algorithm",
        Digest::of(Algorithm::Sha512, MANIFEST.as_bytes()).to_string(),
        |_| manifest(),
        ("ok sha256:", ""),
        ("ok sha512:", ""),
    )
    .await;
    manifests(
        "other bytes under their own name",
        Digest::sha256(b"x").to_string(),
        |_| manifest(),
        ("invalid", "another manifest"),
        ("invalid", "not sha256:"),
    )
    .await;
    manifests(
        "other bytes under the name asked for",
        Digest::sha256(b"x").to_string(),
        |_| typed().with("Docker-Content-Digest", Digest::sha256(b"x").to_string()),
        ("ok sha256:", ""),
        ("invalid", "not sha256:"),
    )
    .await;
}

#[tokio::test]
async fn answers_that_are_no_manifests() {
    // A case, the answer, and the outcome of both questions.
    type Case = (&'static str, fn(&Seen) -> Reply, &'static str, &'static str);
    let cases: [Case; 19] = [
        ("not there", |_| Reply::new(404), "not_found", "404"),
        ("deleted", |_| Reply::new(410), "not_found", "410"),
        ("unauthorized", |_| Reply::new(401), "unauthorized", "401"),
        ("denied", |_| Reply::new(403), "denied", "403"),
        ("throttled", |_| Reply::new(429), "throttled", "429"),
        ("internal error", |_| Reply::new(500), "unavailable", "500"),
        ("bad gateway", |_| Reply::new(502), "unavailable", "502"),
        ("gateway timeout", |_| Reply::new(504), "timeout", "504"),
        ("nonsense", |_| Reply::new(418), "invalid", "418"),
        ("nothing", |_| Reply::new(204), "invalid", "204"),
        ("a part", |_| Reply::new(206).with("Content-Range", "bytes 0-1/2"), "", ""),
        ("too large", |_| Reply::ok("").promise(5_000_000), "invalid", "above"),
        ("no answer", |_| Reply::garbage(b""), "unavailable", "broke"),
        ("no http", |_| Reply::garbage(b"SSH-2.0-OpenSSH\r\n\r\n"), "unavailable", "broke"),
        ("half a head", |_| Reply::garbage(b"HTTP/1.1 200 OK\r\nContent-"), "unavailable", "broke"),
        ("silence", |_| Reply::garbage(b"").stall(), "timeout", "no answer"),
        ("a redirect to nowhere", |_| Reply::new(302), "invalid", "nowhere"),
        ("a redirect to itself", |seen| Reply::redirect(&seen.path), "refused", "loop"),
        (
            "redirects without end",
            |seen| Reply::redirect(format!("{}x", seen.path)),
            "refused",
            "more than 5",
        ),
    ];
    for (case, answer, start, part) in cases {
        let server = Scripted::start(answer).await;
        let rig = || Setup::new(&[&server.url()]).impatient_if(start == "timeout").build();
        let (name, tag) = (repository("team/app"), reference("latest"));
        if !start.is_empty() {
            let line = told(rig().upstream.head_manifest(&name, &tag).await, |_| String::new());
            expect(&format!("HEAD: {case}"), &line, start, part);
        }
        let line = told(rig().upstream.get_manifest(&name, &tag).await, |_| String::new());
        let start = if start.is_empty() { "invalid" } else { start };
        expect(&format!("GET: {case}"), &line, start, part);
        assert!(line.contains("upstream.test: GET manifests/latest of team/app at 127.0.0.1:"));
    }
}

#[tokio::test]
async fn bodies_that_end_badly_or_not_at_all() {
    type Case = (&'static str, fn(&Seen) -> Reply, &'static str, &'static str);
    let cases: [Case; 5] = [
        ("cut short", |_| typed().promise(4096), "unavailable", "broke off"),
        ("stuck", |_| typed().promise(4096).stall(), "timeout", "did not end"),
        ("unmeasured", |_| typed().unmeasured(), "ok", ""),
        ("endless", |_| typed().body(vec![b' '; 5_000_000]).unmeasured(), "invalid", "above"),
        (
            "with a word of the registry",
            |_| Reply::new(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#),
            "not_found",
            "(MANIFEST_UNKNOWN: no)",
        ),
    ];
    for (case, answer, start, part) in cases {
        let server = Scripted::start(answer).await;
        let rig = Setup::new(&[&server.url()]).impatient_if(start == "timeout").build();
        let outcome =
            rig.upstream.get_manifest(&repository("team/app"), &reference("latest")).await;
        expect(case, &told(outcome, |_| String::new()), start, part);
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let server = Scripted::start(|_| {
        (0..200).fold(typed(), |reply, at| reply.with(&format!("X-{at}"), "x".repeat(4096)))
    })
    .await;
    let rig = Setup::new(&[&server.url()]).build();
    let outcome = rig.upstream.get_manifest(&repository("team/app"), &reference("latest")).await;
    expect("large", &told(outcome, |_| String::new()), "unavailable", "broke");
}

/// All of a stream: its bytes, and the error that ended it.
async fn drink(mut blob: BlobStream) -> String {
    let mut bytes = Vec::new();
    let mut end = String::from("end");
    while let Some(piece) = blob.stream.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => {
                end = format!("{:?}", error.kind());
                break;
            }
        }
    }
    assert!(blob.stream.next().await.is_none(), "an error ends the stream");
    let text = String::from_utf8(bytes).unwrap();
    let total = blob.total.map_or("?".to_owned(), |total| total.to_string());
    format!("from {} of {total}: {text} {end}", blob.offset)
}

/// The proper answer to a question about [`BLOB`], with or without a range.
fn blob(seen: &Seen) -> Reply {
    let Some(range) = seen.header("range") else { return Reply::ok(BLOB) };
    let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (from, last) = (from.parse::<usize>().unwrap(), BLOB.len() - 1);
    let to = if to.is_empty() { last } else { to.parse::<usize>().unwrap().min(last) };
    Reply::new(206).with("Content-Range", format!("bytes {from}-{to}/10")).body(&BLOB[from..=to])
}

async fn check_blob(
    case: &str,
    (from, to): (u64, Option<u64>),
    answer: fn(&Seen) -> Reply,
    expected: &str,
) {
    let server = Scripted::start(answer).await;
    let stuck = expected.contains("TimedOut");
    let rig = Setup::new(&[&server.url()]).impatient_if(stuck).build();
    let digest = Digest::sha256(BLOB);
    let line = match rig.upstream.get_blob(&repository("team/app"), &digest, from, to).await {
        Ok(blob) => drink(blob).await,
        Err(error) => told::<()>(Err(error), |()| String::new()),
    };
    assert!(line.starts_with(expected), "{case}: {line}");
    assert_eq!(server.log()[0].path, format!("/v2/team/app/blobs/{digest}"));
}

#[tokio::test]
async fn blobs_and_parts_of_them() {
    let all = (0, None);
    check_blob("all", all, blob, "from 0 of 10: 0123456789 end").await;
    check_blob("the rest", (4, None), blob, "from 4 of 10: 456789 end").await;
    check_blob("a part", (4, Some(6)), blob, "from 4 of 10: 456 end").await;
    check_blob("the beginning", (0, Some(3)), blob, "from 0 of 10: 0123 end").await;
    check_blob("beyond the end", (8, Some(99)), blob, "from 8 of 10: 89 end").await;
    let ignores = |_: &Seen| Reply::ok(BLOB);
    check_blob("ranges ignored", (4, None), ignores, "from 0 of 10: 0123456789 end").await;
    check_blob("unmeasured", all, |_| Reply::ok(BLOB).unmeasured(), "from 0 of ?: 0123456789 end")
        .await;
    let silent = |_: &Seen| Reply::new(206).with("Content-Range", "bytes 4-9/*").body(&BLOB[4..]);
    check_blob("no total", (4, None), silent, "from 4 of ?: 456789 end").await;
}

#[tokio::test]
async fn blobs_that_are_not_what_was_promised() {
    let all = (0, None);
    let cut = |_: &Seen| Reply::ok(BLOB).promise(20);
    check_blob("cut short", all, cut, "from 0 of 20: 0123456789 UnexpectedEof").await;
    let stuck = |_: &Seen| Reply::ok(BLOB).promise(20).stall();
    check_blob("stuck", all, stuck, "from 0 of 20: 0123456789 TimedOut").await;
    check_blob(
        "a shorter end of the connection",
        (4, None),
        |_| {
            let part = Reply::new(206).with("Content-Range", "bytes 4-19/20").body(&BLOB[4..]);
            part.unmeasured()
        },
        "from 4 of 20: 456789 UnexpectedEof",
    )
    .await;
    check_blob(
        "more than its range",
        (4, None),
        |_| {
            let part = Reply::new(206).with("Content-Range", "bytes 4-5/20").body(&BLOB[4..]);
            part.unmeasured()
        },
        "from 4 of 20:  InvalidData",
    )
    .await;
    check_blob(
        "a length that contradicts",
        (4, None),
        |_| Reply::new(206).with("Content-Range", "bytes 4-8/20").body(&BLOB[4..]),
        "invalid",
    )
    .await;
    check_blob(
        "another range",
        (4, None),
        |_| Reply::new(206).with("Content-Range", "bytes 0-9/10").body(BLOB),
        "invalid",
    )
    .await;
    check_blob("no range", (4, None), |_| Reply::new(206).body(BLOB), "invalid").await;
    check_blob(
        "a part of what was wanted whole",
        all,
        |_| Reply::new(206).with("Content-Range", "bytes 0-4/10").body(&BLOB[..5]),
        "invalid",
    )
    .await;
    check_blob("not satisfiable", (10, None), |_| Reply::new(416), "invalid").await;
    check_blob("not there", all, |_| Reply::new(404), "not_found").await;
}

#[tokio::test]
async fn blobs_in_other_places() {
    let storage = Scripted::start(|seen| match seen.path.as_str() {
        "/expired" => Reply::new(403),
        "/lagging" => Reply::new(404),
        "/head-is-not-signed" if seen.method == "HEAD" => Reply::new(403),
        _ => blob(seen),
    })
    .await;
    let place = storage.url();
    let server = Scripted::start(move |seen| {
        let name = seen.path.split('/').nth(2).unwrap();
        Reply::redirect(format!("{place}/{name}"))
    })
    .await;
    let digest = Digest::sha256(BLOB);
    let cases = [
        ("fine", "from 4 of 10: 456789 end", "ok 10"),
        ("expired", "unavailable", "unavailable"),
        ("lagging", "unavailable", "unavailable"),
        ("head-is-not-signed", "from 4 of 10: 456789 end", "ok 10"),
    ];
    for (name, get, head) in cases {
        let Rig { upstream, .. } = Setup::new(&[&server.url()]).build();
        let line = match upstream.get_blob(&repository(name), &digest, 4, None).await {
            Ok(blob) => drink(blob).await,
            Err(error) => told::<()>(Err(error), |()| String::new()),
        };
        expect(&format!("GET: {name}"), &line, get, "");
        let outcome = upstream.head_blob(&repository(name), &digest).await;
        expect(&format!("HEAD: {name}"), &told(outcome, |size| size.to_string()), head, "");
    }
}

#[tokio::test]
async fn the_length_of_a_blob_is_found_out_somehow() {
    type Case = (&'static str, fn(&Seen) -> Reply, &'static str, usize);
    let cases: [Case; 8] = [
        ("well", |_| Reply::ok(BLOB), "ok 10", 1),
        (
            "no HEAD",
            |seen| if seen.method == "HEAD" { Reply::new(405) } else { blob(seen) },
            "ok 10",
            2,
        ),
        (
            "no HEAD and no ranges",
            |seen| if seen.method == "HEAD" { Reply::new(501) } else { Reply::ok(BLOB) },
            "ok 10",
            2,
        ),
        (
            "known only when fetched",
            |seen| if seen.method == "HEAD" { Reply::new(404) } else { blob(seen) },
            "ok 10",
            2,
        ),
        (
            "no length",
            |seen| if seen.method == "HEAD" { Reply::ok("").unmeasured() } else { blob(seen) },
            "ok 10",
            2,
        ),
        (
            "empty",
            |seen| match seen.method.as_str() {
                "HEAD" => Reply::new(405),
                _ => Reply::new(416).with("Content-Range", "bytes */0"),
            },
            "ok 0",
            2,
        ),
        ("never a length", |_| Reply::ok("").unmeasured(), "invalid", 2),
        ("not there", |_| Reply::new(404), "not_found", 2),
    ];
    for (case, answer, expected, requests) in cases {
        let server = Scripted::start(answer).await;
        let rig = Setup::new(&[&server.url()]).build();
        let outcome = rig.upstream.head_blob(&repository("a"), &Digest::sha256(BLOB)).await;
        expect(case, &told(outcome, |size| size.to_string()), expected, "");
        assert_eq!(server.hits(), requests, "{case}");
    }
}

#[tokio::test]
async fn lists_of_tags_pass_through() {
    let server = Scripted::start(|seen| match seen.path.as_str() {
        "/v2/team/app/tags/list" => Reply::ok("{\"tags\": [\"a\"]}"),
        "/v2/team/app/tags/list?n=1&last=a" => {
            Reply::ok("{}").with("Link", "</v2/team/app/tags/list?n=1&last=b>; rel=\"next\"")
        }
        _ => Reply::new(404),
    })
    .await;
    let rig = Setup::new(&[&server.url()]).build();
    let tags = async |name: &str, query: &str| {
        let outcome = rig.upstream.tags(&repository(name), query).await;
        told(outcome, |(bytes, link)| {
            format!("{} {}", String::from_utf8_lossy(&bytes), link.unwrap_or_default())
        })
    };
    expect("all", &tags("team/app", "").await, "ok {\"tags\": [\"a\"]}", "");
    expect("page", &tags("team/app", "n=1&last=a").await, "ok {}", "last=b>; rel=\"next\"");
    expect("none", &tags("other", "").await, "not_found", "");
}

#[tokio::test]
async fn referrers_come_from_all_pages() {
    let server = Scripted::start(|seen| {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        match (path.split('/').nth(2).unwrap(), query) {
            ("paged", "") => Reply::ok(r#"{"schemaVersion":2,"manifests":[{"digest":"1"}]}"#)
                .with("Link", format!("<http://evil.test{path}?page=2>; rel=\"next\"")),
            ("paged", "page=2") => Reply::ok(r#"{"manifests":[{"digest":"2"}]}"#),
            ("endless", _) => Reply::ok(r#"{"manifests":[]}"#)
                .with("Link", format!("<{path}?page=x>; rel=\"next\"")),
            ("filtered", "artifactType=application%2Fsbom") => Reply::ok(
                r#"{"manifests":[{"artifactType":"application/sbom"},{"artifactType":"x"}]}"#,
            ),
            ("start-page", _) => Reply::ok("<html>"),
            _ => Reply::new(404),
        }
    })
    .await;
    let rig = Setup::new(&[&server.url()]).build();
    let referrers = async |name: &str, wanted: Option<&str>| {
        let outcome = rig.upstream.referrers(&repository(name), &manifest_digest(), wanted).await;
        told(outcome, |bytes| String::from_utf8(bytes.to_vec()).unwrap())
    };
    let both = r#"ok {"manifests":[{"digest":"1"},{"digest":"2"}],"schemaVersion":2}"#;
    expect("paged", &referrers("paged", None).await, both, "");
    let one = r#"ok {"manifests":[{"artifactType":"application/sbom"}]}"#;
    expect("filtered", &referrers("filtered", Some("application/sbom")).await, one, "");
    expect("endless", &referrers("endless", None).await, "invalid", "32 pages");
    expect("no api", &referrers("start-page", None).await, "invalid", "not JSON");
    expect("no api", &referrers("other", None).await, "not_found", "404");
}
