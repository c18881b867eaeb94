//! What a handler is told about a request, and what happens when it fails.

use crate::server::{Answer, Server, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use kuboard_rt::http::{Body, Peer, Request, RequestId, Response, handler_fn};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn each_request_has_an_id_and_a_peer() {
    let server = Server::plain(handler_fn(|request: Request| async move {
        let id = request.extensions().get::<RequestId>().unwrap().to_string();
        let peer = request.extensions().get::<Peer>().unwrap();
        assert!(peer.addr.unwrap().ip().is_loopback() && !peer.tls);
        Response::new(Body::full(id))
    }))
    .await;
    let mut raw = server.connect().await;
    let mut ask = async |given: &str| {
        raw.send(&format!("GET / HTTP/1.1\r\nhost: a\r\n{given}\r\n")).await;
        let Answer { head, body, .. } = raw.answer(true).await;
        let id = header(&head, "x-request-id").unwrap().to_owned();
        assert_eq!(String::from_utf8(body).unwrap().to_ascii_lowercase(), id);
        id
    };
    assert_eq!(ask("x-request-id: trace-7\r\n").await, "trace-7");
    let (one, two) = (ask("").await, ask("x-request-id: <b>\r\n").await);
    assert!(one != two && two.len() == 32, "{one} {two}");
    server.stop().await;
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_connection_goes_on() {
    let server = Server::plain(handler_fn(|request: Request| {
        assert!(request.uri().path() != "/at-once", "before the future");
        async move {
            assert!(request.uri().path() != "/later", "inside the future");
            Response::new(Body::full("fine"))
        }
    }))
    .await;
    let mut raw = server.connect().await;
    for (path, status) in [("/at-once", 500), ("/", 200), ("/later", 500), ("/", 200)] {
        raw.send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let answer = raw.answer(true).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(header(&answer.head, "x-request-id").is_some());
    }
    let mut http2 = server.http2().await;
    for (path, status) in [("/later", 500), ("/", 200)] {
        assert_eq!(http2.get(path).await.0.status.as_u16(), status);
    }
    drop((raw, http2));
    server.stop().await;
}

#[tokio::test]
async fn request_bodies_arrive_whole_and_bounded() {
    let server = Server::plain(handler_fn(|request: Request| async move {
        match request.into_body().collect(100_000).await {
            Ok(bytes) => Response::new(Body::full(bytes)),
            Err(err) => {
                let mut response = Response::new(Body::full(err.to_string()));
                *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
                response
            }
        }
    }))
    .await;
    static LARGE: [u8; 100_001] = [b'x'; 100_001];
    let mut http2 = server.http2().await;
    for (len, status) in [(0, 200), (5, 200), (100_000, 200), (100_001, 413)] {
        let request = http::Request::put("http://localhost/");
        let response = http2.send(request, &LARGE[..len]).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{len}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status == 413 || body == Bytes::from_static(&LARGE[..len]));
    }
    let mut raw = server.connect().await;
    raw.send("PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    raw.send("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await;
    assert_eq!(raw.answer(true).await.body, b"abcde");
    drop((raw, http2));
    server.stop().await;
}

/// A client that first sends all of a large body and then looks at the answer must not find a
/// reset connection instead.
#[tokio::test]
async fn an_answer_before_the_end_of_the_body_still_arrives() {
    let server = Server::plain(handler_fn(|_| async {
        let mut response = Response::new(Body::full("who are you?"));
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        response
    }))
    .await;
    let body = vec![b'x'; 16 << 20];
    let mut raw = server.connect().await;
    let head = format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    raw.send(&head).await;
    raw.0.write_all(&body).await.unwrap();
    let answer = raw.answer(true).await;
    assert_eq!((answer.status, &answer.body[..]), (401, &b"who are you?"[..]));
    server.stop().await;
}
