//! Bodies arrive byte for byte, whichever way they leave.

use crate::server::{Client, Server, header, mapped, pattern};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use kuboard_rt::http::{Body, Handler, Response, handler_fn};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

const LEN: usize = 9_500_003;

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(LEN));

/// `/map/A-B`, `/full/A-B`, `/sized/A-B` and `/stream/A-B` answer bytes A..B of the pattern.
fn parts_of_a_pattern() -> Arc<dyn Handler> {
    let bytes = Bytes::from_static(&PATTERN);
    let mapping = mapped(&bytes);
    handler_fn(move |request| {
        let (kind, range) = parse(request.uri().path());
        let whole = bytes.slice(range.start as usize..range.end as usize);
        let len = whole.len();
        let pieces = stream::iter(
            (0..len).step_by(70_001).map(move |at| Ok(whole.slice(at..(at + 70_001).min(len)))),
        );
        let body = match kind.as_str() {
            "map" => Body::mapped(mapping.clone(), range),
            "full" => Body::full(bytes.slice(range.start as usize..range.end as usize)),
            "sized" => Body::sized_stream(len as u64, pieces),
            _ => Body::stream(pieces),
        };
        async { Response::new(body) }
    })
}

fn parse(path: &str) -> (String, Range<u64>) {
    let mut parts = path.trim_start_matches('/').split('/');
    let kind = parts.next().unwrap().to_owned();
    let (start, end) = parts.next().unwrap().split_once('-').unwrap();
    (kind, start.parse().unwrap()..end.parse().unwrap())
}

const PATHS: &[&str] = &[
    "/map/0-9500003",
    "/full/0-10",
    "/map/4194303-4194305",
    "/map/17-17",
    "/stream/5-900000",
    "/map/1-65536",
    "/map/65536-131073",
    "/full/3-3000000",
    "/stream/0-0",
    "/sized/100-2000000",
    "/map/9500002-9500003",
    "/map/1000000-9000000",
];

fn check(path: &str, got: &[u8]) {
    let (_, range) = parse(path);
    let expected = &PATTERN[range.start as usize..range.end as usize];
    assert!(got == expected, "{path}: {} bytes of {}", got.len(), expected.len());
}

#[tokio::test]
async fn pipelined_requests_of_all_kinds_on_one_plain_connection() {
    let server = Server::plain(parts_of_a_pattern()).await;
    let mut client = server.connect().await;
    let wanted: Vec<&str> = PATHS.iter().chain(PATHS.iter().rev()).copied().collect();
    let asked: String =
        wanted.iter().map(|path| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
    client.send(&asked).await;
    for path in wanted {
        let answer = client.answer(true).await;
        assert_eq!(answer.status, 200);
        check(path, &answer.body);
    }
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn many_connections_at_once_each_get_their_own_part() {
    let server = Server::plain(parts_of_a_pattern()).await;
    let clients = (0..24).map(|i| {
        let server = &server;
        async move {
            let mut client = server.connect().await;
            for turn in 0..6 {
                let path = PATHS[(i * 5 + turn) % PATHS.len()];
                client.send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
                check(path, &client.answer(true).await.body);
            }
        }
    });
    futures_util::future::join_all(clients).await;
    server.stop().await;
}

#[tokio::test]
async fn http2_without_tls_by_prior_knowledge() {
    let server = Server::plain(parts_of_a_pattern()).await;
    let mut client = server.http2().await;
    for path in PATHS {
        let (parts, body) = client.get(path).await;
        assert_eq!((parts.status.as_u16(), parts.version), (200, http::Version::HTTP_2));
        check(path, &body);
    }
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_unix_socket_serves_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let bound = kuboard_rt::http::bind_unix(&path).unwrap();
    let server = Server::serve(bound, parts_of_a_pattern());
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut client = Client::http1(stream, &server.tasks).await;
    for path in PATHS {
        check(path, &client.get(path).await.1);
    }
    drop(client);
    server.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn head_has_the_length_of_get_and_no_body() {
    let mapping = mapped(&PATTERN);
    let server = Server::plain(handler_fn(move |request| {
        let mut response = Response::new(match request.uri().path() {
            "/map" => Body::mapped(mapping.clone(), 10..15),
            "/full" => Body::full("12345"),
            _ => Body::empty(),
        });
        if request.uri().path() == "/explicit" {
            response.headers_mut().insert("content-length", 5.into());
        }
        async { response }
    }))
    .await;
    let mut raw = server.connect().await;
    let mut http2 = server.http2().await;
    for path in ["/map", "/full", "/explicit"] {
        raw.send(&format!("HEAD {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let answer = raw.answer(false).await;
        assert_eq!(header(&answer.head, "content-length"), Some("5"), "{path}");
        let request = http::Request::head(format!("http://localhost{path}"));
        let (parts, body) = http2.send(request, b"").await.unwrap().into_parts();
        assert_eq!(parts.headers["content-length"], "5", "{path}");
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 0);
    }
    // Had a body followed, the connection would be out of step.
    raw.send("GET /full HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(raw.answer(true).await.body, b"12345");
    drop((raw, http2));
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_fails_is_cut_and_not_ended() {
    let server = Server::plain(handler_fn(|request| async move {
        let pieces = stream::iter([
            Ok(Bytes::from_static(b"half")),
            Err(std::io::Error::other("the upstream went away")),
        ]);
        Response::new(match request.uri().path() {
            "/sized" => Body::sized_stream(8, pieces),
            _ => Body::stream(pieces),
        })
    }))
    .await;
    for path in ["/sized", "/stream"] {
        let mut raw = server.connect().await;
        raw.send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let got = String::from_utf8(raw.rest().await).unwrap();
        // The head may or may not have left before the error, but there is no end.
        let body = got.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(["", "half", "4\r\nhalf\r\n"].contains(&body), "{got}");
        let mut http2 = server.http2().await;
        let request = http::Request::get(format!("http://localhost{path}"));
        if let Ok(response) = http2.send(request, b"").await {
            response.into_body().collect().await.unwrap_err();
        }
    }
    server.stop().await;
}
