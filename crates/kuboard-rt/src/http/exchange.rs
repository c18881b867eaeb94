//! One request and its response: id, panic, HEAD, and the cheapest way for the body.

use super::body::SENDFILE_PIECE;
use super::progress::Progress;
use super::wire::Slot;
use super::{Body, Handler, Limits, Peer, RequestBody, RequestId, Response};
use crate::tasks::panic_message;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Method, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tracing::Instrument;

/// How bodies leave a connection.
#[derive(Clone)]
pub(crate) enum Lane {
    /// HTTP/1.1 over TLS.
    Copied,
    /// Plain HTTP/1.1: mapped bodies by `sendfile`.
    Sendfile(Arc<Slot>),
    /// HTTP/2, where the client says when a body may go on.
    Controlled,
}

/// What all requests of a connection have in common.
pub(crate) struct Exchange {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) limits: Limits,
    pub(crate) peer: Peer,
    pub(crate) lane: Lane,
    pub(crate) progress: Arc<Progress>,
}

impl Exchange {
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: http::Request<Incoming>,
    ) -> http::Response<Outgoing> {
        let answering = Answering::new(self.progress.clone());
        let (mut parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let id = RequestId::of(&parts.headers);
        let span = tracing::info_span!(
            "request",
            id = &*id.0,
            method = parts.method.as_str(),
            path = parts.uri.path()
        );
        parts.extensions.insert(self.peer);
        parts.extensions.insert(id.clone());
        let body =
            RequestBody::received(body, self.limits.idle_timeout, Some(self.progress.clone()));
        let request = http::Request::from_parts(parts, body);
        let mut response = self.ask(request).instrument(span).await;

        if let Ok(id) = HeaderValue::from_str(&id.0) {
            response.headers_mut().insert(RequestId::HEADER, id);
        }
        if is_head {
            strip_body(&mut response);
        }
        response.map(|body| Outgoing::new(body, self.lane.clone(), answering))
    }

    async fn ask(&self, request: super::Request) -> Response {
        // The handler may also panic before it gives its future away.
        let answer = async { self.handler.handle(request).await };
        match AssertUnwindSafe(answer).catch_unwind().await {
            Ok(response) => {
                tracing::debug!(status = response.status().as_u16(), "answered");
                response
            }
            Err(panic) => {
                tracing::error!("handler panicked: {}", panic_message(&*panic));
                let mut response = Response::new(Body::full("internal error\n"));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }
}

/// The answer to HEAD has the headers of the answer to GET, its length too, and no body.
fn strip_body(response: &mut Response) {
    let body = std::mem::take(response.body_mut());
    if let Some(len) = body.size_hint().exact().filter(|len| *len > 0) {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| len.into());
    }
}

struct Answering(Arc<Progress>);

impl Answering {
    fn new(progress: Arc<Progress>) -> Self {
        progress.request_begins();
        Self(progress)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.request_ends();
    }
}

/// A body on its way out.
pub(crate) struct Outgoing {
    body: Body,
    /// A piece went out, and the client has not asked for the next one yet.
    waits: bool,
    lane: Lane,
    answering: Answering,
}

impl Outgoing {
    fn new(mut body: Body, lane: Lane, answering: Answering) -> Self {
        if let (Lane::Sendfile(slot), Some(mapping)) = (&lane, body.mapping()) {
            slot.hold(mapping.clone());
            body.set_piece(SENDFILE_PIECE);
        }
        Self { body, waits: false, lane, answering }
    }

    fn moves(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.answering.0.body_moves();
        }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.moves();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Err(err)) => tracing::debug!("body was cut: {err}"),
            Some(Ok(_)) if matches!(self.lane, Lane::Controlled) => {
                self.waits = true;
                self.answering.0.body_waits();
            }
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.moves();
        if let Lane::Sendfile(slot) = &self.lane {
            slot.end();
        }
    }
}
