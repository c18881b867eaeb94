//! The bytes of a blob as they come from an upstream: cut short, too long or stuck is an error
//! of the stream, never a shorter stream.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream::BoxStream};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep},
};

/// Called once when a stream breaks.
pub(super) type OnBreak = Box<dyn FnOnce() + Send>;

/// See the module.
pub(super) struct BlobBody {
    inner: BoxStream<'static, reqwest::Result<Bytes>>,
    /// Bytes still promised, if the length is known.
    left: Option<u64>,
    read_timeout: Duration,
    timer: Pin<Box<Sleep>>,
    /// The timer runs only while we wait for the upstream: a slow reader is not its fault.
    waiting: bool,
    /// `None` once the stream ended.
    open: Option<(Arc<OwnedSemaphorePermit>, OnBreak)>,
}

impl BlobBody {
    /// `length` is what the answer promised. The permit is given back at the end.
    pub(super) fn new(
        response: reqwest::Response,
        length: Option<u64>,
        read_timeout: Duration,
        permit: Arc<OwnedSemaphorePermit>,
        on_break: OnBreak,
    ) -> BlobBody {
        BlobBody {
            inner: Box::pin(response.bytes_stream()),
            left: length,
            read_timeout,
            timer: Box::pin(tokio::time::sleep(read_timeout)),
            waiting: false,
            open: Some((permit, on_break)),
        }
    }

    fn broken(&mut self, error: io::Error) -> Poll<Option<io::Result<Bytes>>> {
        if let Some((_, on_break)) = self.open.take() {
            on_break();
        }
        Poll::Ready(Some(Err(error)))
    }

    fn cut_short(&mut self, source: Option<reqwest::Error>) -> Poll<Option<io::Result<Bytes>>> {
        let error = match (source, self.left) {
            (Some(source), _) => io::Error::new(io::ErrorKind::UnexpectedEof, source.without_url()),
            (None, left) => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the upstream ended {} bytes early", left.unwrap_or(0)),
            ),
        };
        self.broken(error)
    }
}

impl Stream for BlobBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.open.is_none() {
            return Poll::Ready(None);
        }
        loop {
            let piece = match this.inner.as_mut().poll_next(cx) {
                Poll::Ready(piece) => piece,
                Poll::Pending => {
                    if !this.waiting {
                        this.waiting = true;
                        this.timer.as_mut().reset(Instant::now() + this.read_timeout);
                    }
                    return match this.timer.as_mut().poll(cx) {
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(()) => {
                            let seconds = this.read_timeout.as_secs_f32();
                            let message = format!("the upstream sent nothing for {seconds} s");
                            this.broken(io::Error::new(io::ErrorKind::TimedOut, message))
                        }
                    };
                }
            };
            this.waiting = false;
            return match piece {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => {
                    if let Some(left) = &mut this.left {
                        match left.checked_sub(piece.len() as u64) {
                            Some(rest) => *left = rest,
                            None => {
                                let message = "the upstream sent more than it promised";
                                return this
                                    .broken(io::Error::new(io::ErrorKind::InvalidData, message));
                            }
                        }
                    }
                    Poll::Ready(Some(Ok(piece)))
                }
                Some(Err(error)) => this.cut_short(Some(error)),
                None if this.left.is_some_and(|left| left > 0) => this.cut_short(None),
                None => {
                    this.open = None;
                    Poll::Ready(None)
                }
            };
        }
    }
}
