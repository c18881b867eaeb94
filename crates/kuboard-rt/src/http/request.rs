//! What comes with a request: its body, who sent it, and its id.

use super::progress::Progress;
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// For bodies that did not come through a listener.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Who sent a request. In the request's extensions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// The other end of the TCP connection; `None` on a unix socket. Behind a reverse proxy
    /// this is the proxy.
    pub addr: Option<SocketAddr>,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// Names one request in logs, here and at whoever sent it. In the request's extensions and in
/// the `x-request-id` header of its response.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    pub(crate) const HEADER: http::HeaderName = http::HeaderName::from_static("x-request-id");

    /// The id that the client gave, if it is harmless in logs and headers; else a new one.
    pub(crate) fn of(headers: &http::HeaderMap) -> Self {
        let given = headers.get(&Self::HEADER).and_then(|value| value.to_str().ok());
        match given {
            Some(id) if Self::is_harmless(id) => Self(id.into()),
            _ => Self(format!("{:032x}", rand::random::<u128>()).into()),
        }
    }

    fn is_harmless(id: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
        (1..=128).contains(&id.len()) && id.bytes().all(allowed)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The body of a request. Reading it fails with [`io::ErrorKind::TimedOut`] when the client
/// sends nothing for the listener's idle timeout, and with [`io::ErrorKind::UnexpectedEof`]
/// when it goes away before the end.
pub struct RequestBody(Kind);

enum Kind {
    Full(Option<Bytes>),
    Incoming(Box<Received>),
}

struct Received {
    body: Incoming,
    idle_timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether `timer` runs, that is, whether the last poll found nothing.
    waiting: bool,
    ended: bool,
    progress: Option<Arc<Progress>>,
}

impl RequestBody {
    pub(crate) fn received(
        body: Incoming,
        idle_timeout: Duration,
        progress: Option<Arc<Progress>>,
    ) -> Self {
        let ended = body.is_end_stream();
        let (timer, waiting) = (None, false);
        Self(Kind::Incoming(Box::new(Received {
            body,
            idle_timeout,
            timer,
            waiting,
            ended,
            progress,
        })))
    }

    /// No bytes.
    pub fn empty() -> Self {
        Self(Kind::Full(None))
    }

    /// The next bytes, or `None` at the end.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            match self.frame().await? {
                Err(err) => return Some(Err(err)),
                Ok(frame) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => return Some(Ok(bytes)),
                    // Trailers say nothing that anyone here wants.
                    Err(_) => {}
                },
            }
        }
    }

    /// The whole body, at most `limit` bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] when there is more, else those of reading.
    pub async fn collect(mut self, limit: usize) -> io::Result<Bytes> {
        let too_large = || {
            let message = format!("request body is larger than {limit} bytes");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
        };
        if self.size_hint().lower() > limit as u64 {
            return too_large();
        }
        let mut all = BytesMut::new();
        while let Some(bytes) = self.next().await {
            let bytes = bytes?;
            if all.len() + bytes.len() > limit {
                return too_large();
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Full((!bytes.is_empty()).then_some(bytes)))
    }
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Self::received(body, DEFAULT_IDLE_TIMEOUT, None)
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("size", &self.size_hint()).finish()
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Incoming(received) => received.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Incoming(received) => received.ended || received.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Incoming(received) => received.body.size_hint(),
        }
    }
}

impl Received {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.waiting = false;
                self.ended = !matches!(frame, Some(Ok(_)));
                Poll::Ready(frame.map(|frame| frame.map_err(read_error)))
            }
            Poll::Pending => {
                let deadline = Instant::now() + self.idle_timeout;
                let timer =
                    self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                if !self.waiting {
                    timer.as_mut().reset(deadline);
                    self.waiting = true;
                }
                timer.as_mut().poll(cx).map(|()| {
                    self.waiting = false;
                    let message = format!("client sent nothing for {:?}", self.idle_timeout);
                    Some(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
                })
            }
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress
            && !self.ended
            && !self.body.is_end_stream()
        {
            progress.leaves_body_unread();
        }
    }
}

fn read_error(err: hyper::Error) -> io::Error {
    let gone = err.is_incomplete_message() || err.is_closed() || err.is_canceled();
    // The library wraps what the socket said.
    let mut source = std::error::Error::source(&err);
    let mut kind = if gone { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::Other };
    while let Some(inner) = source {
        if let Some(inner) = inner.downcast_ref::<io::Error>() {
            kind = inner.kind();
        }
        source = inner.source();
    }
    io::Error::new(kind, err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_ids_are_taken_over() {
        let long = "a".repeat(129);
        let cases = [
            ("abc-123", true),
            ("4bf92f35:77b/1+2=@x_y.z", true),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            (&long, false),
        ];
        for (given, taken) in cases {
            let mut headers = http::HeaderMap::new();
            headers.insert(RequestId::HEADER, given.parse().unwrap());
            let id = RequestId::of(&headers);
            assert_eq!(&*id.0 == given, taken, "{given:?}");
            assert!(RequestId::is_harmless(&id.0));
        }
        let none = http::HeaderMap::new();
        assert_ne!(RequestId::of(&none), RequestId::of(&none));
    }

    #[tokio::test]
    async fn collecting_is_bounded() {
        let body = || RequestBody::from(Bytes::from_static(b"12345"));
        assert_eq!(body().collect(5).await.unwrap(), "12345");
        assert_eq!(RequestBody::empty().collect(0).await.unwrap(), "");
        let err = body().collect(4).await.unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::FileTooLarge);
    }
}
