//! What strangers may not do.

use crate::server::{MOMENT, Server, mapped};
use http_body_util::BodyExt;
use kuboard_rt::http::{Body, Handler, Limits, Request, Response, handler_fn};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const SHORT: Duration = Duration::from_millis(200);

fn says_ok() -> Arc<dyn Handler> {
    handler_fn(|_| async { Response::new(Body::full("ok")) })
}

#[tokio::test]
async fn oversized_heads_are_answered_431() {
    let limits = Limits { max_header_bytes: 16 << 10, max_headers: 50, ..Limits::default() };
    let server = Server::start(says_ok(), None, limits).await;
    let long = format!("x-long: {}\r\n", "y".repeat(17 << 10));
    let many: String = (0..60).map(|i| format!("x-{i}: y\r\n")).collect();
    let fine: String = (0..40).map(|i| format!("x-{i}: {}\r\n", "y".repeat(300))).collect();
    for (headers, status) in [(long, 431), (many, 431), (fine, 200)] {
        let mut raw = server.connect().await;
        raw.send(&format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n")).await;
        assert_eq!(raw.answer(true).await.status, status, "{} bytes", headers.len());
    }
    let mut http2 = server.http2().await;
    let request = http::Request::get("http://localhost/").header("x-long", "y".repeat(17 << 10));
    // The client library may find out by itself, since the limit was announced.
    if let Ok(response) = http2.send(request, b"").await {
        assert_eq!(response.status().as_u16(), 431);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_never_finishes_its_head_is_dropped() {
    let limits = Limits { header_timeout: 5 * SHORT, ..Limits::default() };
    let server = Server::start(says_ok(), None, limits).await;
    let begun = ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost: "].map(async |begun| {
        let mut raw = server.connect().await;
        raw.send(begun).await;
        assert_eq!(raw.rest().await, b"", "{begun:?}");
    });
    // After an answer, silence is an idle connection and ends the same way.
    let answered = async {
        let mut raw = server.connect().await;
        raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(raw.answer(true).await.body, b"ok");
        assert_eq!(raw.rest().await, b"");
    };
    tokio::join!(futures_util::future::join_all(begun), answered);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_stops_sending_its_body_is_told_to_the_handler() {
    let limits = Limits { idle_timeout: SHORT, ..Limits::default() };
    let handler = handler_fn(|request: Request| async move {
        let err = request.into_body().collect(1 << 20).await.unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::TimedOut);
        let mut response = Response::new(Body::full(err.to_string()));
        *response.status_mut() = http::StatusCode::REQUEST_TIMEOUT;
        response
    });
    let server = Server::start(handler, None, limits).await;
    let mut raw = server.connect().await;
    raw.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").await;
    let answer = raw.answer(true).await;
    assert_eq!((answer.status, &answer.body[..]), (408, &b"client sent nothing for 200ms"[..]));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_in_its_body_is_told_to_the_handler() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = Server::plain(handler_fn(move |request: Request| {
        let tell = tell.clone();
        async move {
            let _ = tell.send(request.into_body().collect(1 << 20).await.unwrap_err().kind());
            Response::new(Body::empty())
        }
    }))
    .await;
    let mut raw = server.connect().await;
    raw.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").await;
    drop(raw);
    assert_eq!(told.recv().await, Some(io::ErrorKind::UnexpectedEof));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_cut() {
    // Large enough that no socket buffer takes it.
    let mapping = mapped(&vec![b'x'; 64 << 20]);
    let shared = mapping.clone();
    let handler = handler_fn(move |_| {
        let body = Body::mapped(shared.clone(), 0..u64::MAX);
        async { Response::new(body) }
    });
    let limits = Limits { idle_timeout: SHORT, ..Limits::default() };
    let server = Server::start(handler, None, limits).await;
    let idle = Arc::strong_count(&mapping);
    let mut raw = server.connect().await;
    raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut http2 = server.http2().await;
    let response = http2.send(http::Request::get("http://localhost/"), b"").await.unwrap();
    while Arc::strong_count(&mapping) < idle + 2 {
        tokio::time::sleep(MOMENT).await;
    }
    // Nobody reads, until the server lets go of both responses.
    while Arc::strong_count(&mapping) > idle {
        tokio::time::sleep(MOMENT).await;
    }
    response.into_body().collect().await.unwrap_err();
    assert!(raw.rest().await.len() < 64 << 20);
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let limits = Limits { max_connections: 1, ..Limits::default() };
    let server = Server::start(says_ok(), None, limits).await;
    let mut first = server.connect().await;
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    first.answer(true).await;
    let mut second = server.connect().await;
    second.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let early = tokio::time::timeout(SHORT, second.answer(true)).await;
    assert!(early.is_err(), "answered while the first connection was open");
    drop(first);
    // The partly read answer was dropped with the timeout, but nothing had come.
    assert_eq!(second.answer(true).await.status, 200);
    drop(second);
    server.stop().await;
}
