//! One connection: finds out its protocol, runs it, watches it, and ends it in good order.

use super::exchange::{Exchange, Lane, Outgoing};
use super::limits::FREE_HEADERS;
use super::progress::{Progress, Verdict, Watch};
use super::socket::Socket;
use super::wire::{Slot, Wire};
use super::{Handler, Limits, Peer};
use crate::{Shutdown, Tasks, tls};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Bytes that may wait in a connection's buffers, either way.
const BUFFER: usize = super::body::COPIED_PIECE as usize;

/// What a client may send on HTTP/2 before we have read it.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;

/// How long the rest of an unwanted body is read away, so that the client sees the answer and
/// not a reset.
const LINGER: Duration = Duration::from_secs(1);

/// The first bytes of HTTP/2 without TLS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What all connections of a listener have in common.
pub(crate) struct Listening {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) certificates: Option<Arc<tls::Certificates>>,
    pub(crate) limits: Limits,
    /// Holds the tasks of HTTP/2 streams, and says when to stop.
    pub(crate) tasks: Tasks,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protocol {
    Http1,
    Http2,
}

/// Serves one connection to its end. Errors are the client's affair and go to the debug log.
pub(crate) async fn serve(socket: Socket, addr: Option<SocketAddr>, listening: Arc<Listening>) {
    let stop = listening.tasks.shutdown();
    let serving = Serving {
        peer: Peer { addr, tls: listening.certificates.is_some() },
        progress: Arc::new(Progress::default()),
        stop: stop.clone(),
        listening,
    };
    let peer = serving.peer;
    if let Err(err) = serving.run(socket).await {
        tracing::debug!(peer = ?peer.addr, tls = peer.tls, "connection ended: {err}");
    }
}

struct Serving {
    peer: Peer,
    progress: Arc<Progress>,
    stop: Shutdown,
    listening: Arc<Listening>,
}

impl Serving {
    async fn run(self, socket: Socket) -> io::Result<()> {
        let mut wire = Wire::new(socket, self.progress.clone());
        let Some(certificates) = &self.listening.certificates else {
            let Some(protocol) = self.within_header_timeout(sniff(&mut wire)).await? else {
                return Ok(());
            };
            return match protocol {
                Protocol::Http1 => {
                    let slot = Arc::new(Slot::default());
                    wire.set_slot(slot.clone());
                    self.http1(wire, Lane::Sendfile(slot)).await
                }
                Protocol::Http2 => self.http2(wire).await,
            };
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(certificates.server_config());
        let Some(mut stream) = self.within_header_timeout(acceptor.accept(wire)).await? else {
            return Ok(());
        };
        match stream.get_ref().1.alpn_protocol() {
            Some(tls::ALPN_HTTP2) => self.http2(stream).await,
            // The handshake was all that the authority wanted to see.
            Some(tls::ALPN_ACME) => stream.shutdown().await,
            _ => self.http1(stream, Lane::Copied).await,
        }
    }

    /// `None` when the listener stops meanwhile: nothing was asked yet, so nothing is lost.
    async fn within_header_timeout<T>(
        &self,
        work: impl Future<Output = io::Result<T>>,
    ) -> io::Result<Option<T>> {
        let work = timeout(self.listening.limits.header_timeout, work);
        match self.stop.token().run_until_cancelled(work).await {
            None => Ok(None),
            Some(Ok(done)) => done.map(Some),
            Some(Err(_)) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client did not begin within the header timeout",
            )),
        }
    }

    fn exchange(&self, lane: Lane) -> Arc<Exchange> {
        Arc::new(Exchange {
            handler: self.listening.handler.clone(),
            limits: self.listening.limits,
            peer: self.peer,
            lane,
            progress: self.progress.clone(),
        })
    }

    async fn http1<I>(&self, io: I, lane: Lane) -> io::Result<()>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.listening.limits;
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_header_size(limits.max_header_bytes)
            .max_buf_size(BUFFER.max(limits.max_header_bytes));
        if limits.max_headers != FREE_HEADERS {
            builder.max_headers(limits.max_headers);
        }
        let service = service(self.exchange(lane));
        let mut connection = builder.serve_connection(TokioIo::new(io), service);
        let running = Pin::new(&mut connection);
        self.drive(running, |connection| connection.graceful_shutdown()).await?;
        if self.progress.has_unread_body() {
            let mut io = connection.into_parts().io.into_inner();
            let _ = timeout(LINGER, tokio::io::copy(&mut io, &mut tokio::io::sink())).await;
        }
        Ok(())
    }

    async fn http2<I>(&self, io: I) -> io::Result<()>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.listening.limits;
        let mut builder = http2::Builder::new(Streams(self.listening.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_streams)
            .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(BUFFER)
            // A peer that vanished without a word is found out by this.
            .keep_alive_interval(limits.idle_timeout / 2)
            .keep_alive_timeout(limits.idle_timeout);
        let service = service(self.exchange(Lane::Controlled));
        let connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        self.drive(connection, |connection| connection.graceful_shutdown()).await
    }

    /// Runs a connection until it ends, is told to stop, or its client stops taking part.
    async fn drive<C: Future<Output = hyper::Result<()>>>(
        &self,
        mut connection: Pin<&mut C>,
        finish: impl Fn(Pin<&mut C>),
    ) -> io::Result<()> {
        let idle_timeout = self.listening.limits.idle_timeout;
        let started = Instant::now();
        let mut watch = Watch::new(idle_timeout, Duration::ZERO);
        let look_each = (idle_timeout / 4).max(Duration::from_millis(1));
        let mut looks = interval_at(started + look_each, look_each);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = pin!(self.stop.begun());
        let mut finishing = false;
        loop {
            tokio::select! {
                biased;
                outcome = connection.as_mut() => return outcome.map_err(io::Error::other),
                () = &mut stop, if !finishing => {
                    finishing = true;
                    finish(connection.as_mut());
                }
                _ = looks.tick() => match watch.look(started.elapsed(), self.progress.snapshot()) {
                    Verdict::Keep => {}
                    Verdict::Finish if !finishing => {
                        finishing = true;
                        finish(connection.as_mut());
                        watch = Watch::new(idle_timeout, started.elapsed());
                    }
                    Verdict::Finish | Verdict::Cut => {
                        let message = format!("no progress for {idle_timeout:?}");
                        return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                    }
                },
            }
        }
    }
}

fn service(
    exchange: Arc<Exchange>,
) -> impl Service<
    http::Request<Incoming>,
    Response = http::Response<Outgoing>,
    Error = Infallible,
    Future: Send + 'static,
> {
    service_fn(move |request| {
        let answer = exchange.clone().answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    })
}

/// Reads just enough to tell HTTP/2 from HTTP/1.1, and puts it back.
async fn sniff(wire: &mut Wire) -> io::Result<Protocol> {
    let mut seen = [0_u8; PREFACE.len()];
    let mut len = 0;
    let protocol = loop {
        if seen[..len] != PREFACE[..len] {
            break Protocol::Http1;
        }
        if len == PREFACE.len() {
            break Protocol::Http2;
        }
        match wire.read(&mut seen[len..]).await? {
            0 if len == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => break Protocol::Http1,
            read => len += read,
        }
    };
    wire.unread(Bytes::copy_from_slice(&seen[..len]));
    Ok(protocol)
}

/// Runs the streams of HTTP/2 connections as tasks of the listener.
#[derive(Clone)]
struct Streams(Tasks);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn("http2 stream", stream);
    }
}
