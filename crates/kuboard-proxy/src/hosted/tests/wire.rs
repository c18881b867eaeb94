//! Clients that stop in the middle, over a real socket.

use std::{sync::Arc, time::Duration};

use kuboard_registry::server::{ApiError, Query, route};
use kuboard_rt::{
    BoxFuture, Tasks,
    http::{Handler, Limits, Request, Response, bind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Bench, Mounts, script::run};
use crate::hosted::Hosted;

struct Served(Arc<Hosted>);

impl Handler for Served {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let answer = async {
                let route = route(request.uri().path())?;
                let query = Query::parse(request.uri().query())?;
                self.0.handle(&route, &query, request, &Mounts::default()).await
            };
            answer.await.unwrap_or_else(ApiError::into_response)
        })
    }
}

/// Serves a bench on loopback until the tasks are drained.
async fn serve(bench: &Bench, tasks: &Tasks) -> std::net::SocketAddr {
    let bound = bind(([127, 0, 0, 1], 0).into(), None, Limits::default()).await.unwrap();
    let address = bound.local_addr().unwrap();
    let handler = Arc::new(Served(bench.hosted.clone()));
    let stop = tasks.shutdown();
    tasks.spawn("server", async move {
        bound.serve(handler, stop, Duration::from_secs(5)).await.unwrap();
    });
    address
}

/// Asks how far an upload is until it is as far as it should be.
async fn wait_for(bench: &Bench, location: &str, range: &str) {
    for _ in 0..1000 {
        let answer = bench.ask("GET", location, &[], b"").await;
        if answer.header("range") == range {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{location} never got to {range}");
}

#[tokio::test]
async fn an_aborted_chunk_leaves_what_was_written() {
    let bench = Bench::new().await;
    let tasks = Tasks::default();
    let address = serve(&bench, &tasks).await;
    for method in ["PATCH", "PUT"] {
        let location = run(&bench, "POST /v2/a/blobs/uploads/ => 202").await;
        let digest = kuboard_oci::Digest::sha256(b"hello world");
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{method} {location}?digest={digest} HTTP/1.1\r\nhost: x\r\ncontent-length: 11\r\n\r\nhello"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        // Who looks on while the request runs is told how far it is.
        wait_for(&bench, &location, "0-4").await;
        let second = bench.ask("PATCH", &location, &[], b"x").await;
        assert_eq!((second.status, second.code().as_str()), (409, "BLOB_UPLOAD_INVALID"));
        let cancel = bench.ask("DELETE", &location, &[], b"").await;
        assert_eq!(cancel.status, 409);
        drop(client);
        // The session comes free when the server has noticed.
        let mut answer =
            bench.ask("PATCH", &location, &[("content-range", "5-10")], b" world").await;
        for _ in 0..1000 {
            if answer.status != 409 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer = bench.ask("PATCH", &location, &[("content-range", "5-10")], b" world").await;
        }
        assert_eq!(answer.status, 202, "{:?}", answer.body);
        let answer = bench.ask("PUT", &format!("{location}?digest={digest}"), &[], b"").await;
        assert_eq!(answer.status, 201);
    }
    tasks.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_pushed_and_pulled_blob_over_the_wire() {
    let bench = Bench::new().await;
    let tasks = Tasks::default();
    let address = serve(&bench, &tasks).await;
    let digest = kuboard_oci::Digest::sha256(b"hello");
    let mut client = TcpStream::connect(address).await.unwrap();
    let requests = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: x\r\n\
         transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n\
         HEAD /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n\
         GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    );
    client.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert!(answers.starts_with("HTTP/1.1 201 Created\r\n"), "{answers}");
    assert!(answers.ends_with("\r\n\r\nhello"), "{answers}");
    // HEAD and GET say the same length.
    assert_eq!(
        answers.to_ascii_lowercase().matches("content-length: 5\r\n").count(),
        2,
        "{answers}"
    );
    tasks.drain(Duration::from_secs(5)).await;
}
