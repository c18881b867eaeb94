//! Orders to a running server through a socket in its data folder, which only its owner can open.
//!
//! The same orders work on the folder itself when no server runs.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use kuboard_proxy::{Admin, CachedBlob, CachedImage, Stats, Touched};
use kuboard_rt::{
    BoxFuture,
    http::{Body, Handler, Request, Response},
};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

/// Name of the socket in the data folder.
pub(crate) const SOCKET: &str = "control.sock";

/// Most bytes of an order.
const MAX_ORDER: usize = 64 << 10;

/// Most bytes of an answer: the list of a large cache.
const MAX_ANSWER: usize = 256 << 20;

/// What may be asked of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Order {
    Images,
    Blobs,
    Stats,
    Remove(String),
    Pin(String),
    Unpin(String),
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    Images(Vec<CachedImage>),
    Blobs(Vec<CachedBlob>),
    Stats(Stats),
    Touched(Touched),
    Failed(String),
}

/// Carries an order out.
pub(crate) async fn obey(admin: &Admin, order: Order) -> anyhow::Result<Answer> {
    Ok(match order {
        Order::Images => Answer::Images(admin.images().await?),
        Order::Blobs => Answer::Blobs(admin.blobs()),
        Order::Stats => Answer::Stats(admin.stats()),
        Order::Remove(target) => Answer::Touched(admin.remove(&target).await?),
        Order::Pin(target) => Answer::Touched(admin.pin(&target).await?),
        Order::Unpin(target) => Answer::Touched(admin.unpin(&target).await?),
    })
}

/// The server's side of the socket.
pub(crate) struct Control {
    pub(crate) admin: Admin,
}

impl Control {
    async fn answer(&self, request: Request) -> anyhow::Result<Answer> {
        if request.method() != Method::POST || request.uri().path() != "/order" {
            bail!("the control socket takes POST /order");
        }
        let order = request.into_body().collect(MAX_ORDER).await?;
        obey(&self.admin, serde_json::from_slice(&order)?).await
    }
}

impl Handler for Control {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let answer = self.answer(request).await;
            let answer = answer.unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
            let text = serde_json::to_vec(&answer).unwrap_or_default();
            let mut response = Response::new(Body::full(text));
            *response.status_mut() = StatusCode::OK;
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            response
        })
    }
}

/// The server that runs on this folder's socket, if one does.
pub(crate) async fn server(data_dir: &Path) -> Option<UnixStream> {
    UnixStream::connect(data_dir.join(SOCKET)).await.ok()
}

/// Gives a running server an order and waits for its answer.
pub(crate) async fn ask(server: UnixStream, order: &Order) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(server))
        .await
        .context("the server's control socket does not speak HTTP")?;
    let request = http::Request::post("/order")
        .header(header::HOST, "localhost")
        .body(Full::new(bytes::Bytes::from(serde_json::to_vec(order)?)))?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        body.map_err(|error| anyhow::anyhow!("the server's answer broke off: {error}"))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    let body = tokio::select! {
        body = &mut exchange => body?,
        closed = &mut connection => {
            closed.context("the server closed its control socket")?;
            exchange.await?
        }
    };
    match serde_json::from_slice(&body.to_bytes())? {
        Answer::Failed(why) => bail!("{why}"),
        answer => Ok(answer),
    }
}

/// Sends an order to the running server, or carries it out on the folder.
pub(crate) async fn order(
    data_dir: &Path,
    order: Order,
    offline: impl AsyncFnOnce() -> anyhow::Result<Arc<Admin>>,
) -> anyhow::Result<Answer> {
    match server(data_dir).await {
        Some(stream) => ask(stream, &order).await,
        None => obey(&*offline().await?, order).await,
    }
}
