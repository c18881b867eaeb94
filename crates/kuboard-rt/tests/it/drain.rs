//! Stopping loses nothing that was begun, and does not wait for ever.

use crate::server::{MOMENT, PATIENCE, Server, pattern};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use kuboard_rt::Tasks;
use kuboard_rt::http::{Body, Handler, Limits, Response, bind, handler_fn};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

/// A response that sends one piece for each permit.
fn paced(permits: &Arc<Semaphore>, pieces: usize) -> Arc<dyn Handler> {
    let permits = permits.clone();
    handler_fn(move |_| {
        let permits = permits.clone();
        let stream = stream::unfold(0, move |at| {
            let permits = permits.clone();
            async move {
                permits.acquire().await.unwrap().forget();
                (at < pieces).then(|| (Ok(Bytes::from(pattern(100_000))), at + 1))
            }
        });
        async { Response::new(Body::stream(stream)) }
    })
}

#[tokio::test]
async fn a_running_response_is_finished_while_new_connections_are_refused() {
    let permits = Arc::new(Semaphore::new(1));
    let server = Server::plain(paced(&permits, 3)).await;
    let (addr, tasks) = (server.addr, server.tasks.clone());
    let mut http2 = server.http2().await;
    let mut idle = server.connect().await;
    let mut busy = server.connect().await;
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let slow = http2.send(http::Request::get("http://localhost/"), b"").await.unwrap();

    let (stopped, mut is_stopped) = watch::channel(false);
    let stopping = Tasks::default();
    stopping.spawn("stops", async move {
        server.stop().await;
        let _ = stopped.send(true);
    });
    tasks.shutdown().begun().await;
    assert_eq!(idle.rest().await, b"", "an idle connection ends at once");
    while TcpStream::connect(addr).await.is_ok() {
        tokio::time::sleep(MOMENT).await;
    }
    assert!(!*is_stopped.borrow());
    permits.add_permits(7);
    let answer = busy.answer(true).await;
    assert_eq!((answer.status, answer.body.len()), (200, 300_000));
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes().len(), 300_000);
    // Dropped because our client's task is one of the server's; it ends with its connection.
    drop(http2);
    is_stopped.wait_for(|stopped| *stopped).await.unwrap();
}

#[tokio::test]
async fn what_outstays_the_grace_is_cut() {
    let never = Arc::new(Semaphore::new(1));
    let loopback = ([127, 0, 0, 1], 0).into();
    let bound = bind(loopback, None, Limits::default()).await.unwrap();
    let addr = bound.local_addr().unwrap();
    let tasks = Tasks::default();
    let (stop, handler) = (tasks.shutdown(), paced(&never, 3));
    tasks.spawn("server", async move {
        bound.serve(handler, stop, Duration::from_millis(50)).await.unwrap();
    });
    let mut client = crate::server::Raw(TcpStream::connect(addr).await.unwrap());
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    while never.available_permits() > 0 {
        tokio::time::sleep(MOMENT).await;
    }
    tasks.drain(PATIENCE).await;
    assert_eq!(tasks.running(), 0);
    let got = client.rest().await;
    assert!(!got.ends_with(b"0\r\n\r\n"));
}
