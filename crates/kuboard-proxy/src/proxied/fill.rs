//! One download per digest, whatever the number of clients.
//!
//! A [`Fill`] is a task that belongs to no client: it reads the upstream from byte 0, resumes by
//! range when the connection breaks, writes through the spool while hashing, and publishes into
//! the cache once the digest is checked. Clients follow the spool file (see `follow.rs`). When
//! the content can't be kept (cache full of what can't be evicted, disk full), the fill steps
//! aside and each client reads the upstream by itself: a pull never fails for want of space.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt;
use kuboard_oci::{Digest, RepositoryName};
use kuboard_registry::client::{
    BlobStream, Source as Server, Upstream, UpstreamError, UpstreamErrorKind,
};
use kuboard_rt::{Tasks, retry::Backoff};
use kuboard_store::{BlobObserver, Cache, ErrorKind, Ingest, Reservation, Spool, Tail};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// Breaks in a row, without progress between them, after which a fill gives up.
const MAX_BREAKS: u32 = 4;

/// Bytes of one connection that count as progress: an upstream that hangs up after each hundred
/// would else be asked without end.
const PROGRESS: u64 = 256 << 10;

/// Where a blob comes from: the repository of an upstream that holds it.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) upstream: Upstream,
    pub(crate) repository: RepositoryName,
}

impl Source {
    /// The same repository of the same upstream.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.upstream.name() == other.upstream.name() && self.repository == other.repository
    }

    fn error(&self, kind: UpstreamErrorKind, message: String) -> UpstreamError {
        UpstreamError::new(kind, self.upstream.name(), message)
    }
}

/// How far a fill is.
#[derive(Clone)]
pub(crate) enum State {
    /// The upstream has not answered yet.
    Starting,
    /// Bytes come in; `size` is what the upstream promised.
    Running { tail: Tail, size: Option<u64> },
    /// All bytes are there and the digest is right.
    Whole { tail: Tail, size: u64 },
    /// The cache had it all along: somebody else's fill ended just before this one began.
    Cached,
    /// The content is not kept here: ask the upstream for what you still need.
    Aside,
    /// The upstream failed, or sent bytes that are not this digest.
    Failed(Arc<UpstreamError>),
}

/// A download under way, or just ended.
pub(crate) struct Fill {
    pub(crate) digest: Digest,
    /// Who is asked for it.
    pub(crate) source: Source,
    state: watch::Sender<State>,
    started: Instant,
}

impl Fill {
    /// Follows the fill's state.
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Time since the upstream was first asked.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Bytes that have come in.
    pub(crate) fn written(&self) -> u64 {
        match &*self.state.borrow() {
            State::Running { tail, .. } | State::Whole { tail, .. } => tail.written(),
            State::Starting | State::Cached | State::Aside | State::Failed(_) => 0,
        }
    }

    fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

/// All fills under way.
pub(crate) struct Fills {
    running: Mutex<HashMap<Digest, Arc<Fill>>>,
    cache: Arc<Cache>,
    spool: Spool,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    observers: Vec<Arc<dyn BlobObserver>>,
}

/// What [`Fills::new`] is made of.
pub(crate) struct FillParts {
    pub(crate) cache: Arc<Cache>,
    pub(crate) spool: Spool,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) observers: Vec<Arc<dyn BlobObserver>>,
}

impl Fills {
    pub(crate) fn new(parts: FillParts) -> Arc<Self> {
        let FillParts { cache, spool, tasks, metrics, observers } = parts;
        Arc::new(Self { running: Mutex::default(), cache, spool, tasks, metrics, observers })
    }

    /// Digests being filled, for the stop report and the readiness page.
    pub(crate) fn count(&self) -> usize {
        self.running.lock().len()
    }

    /// Joins the fill of `digest`, starting it from `source` if none is under way.
    pub(crate) fn join(self: &Arc<Self>, digest: &Digest, source: &Source) -> Arc<Fill> {
        let mut running = self.running.lock();
        if let Some(fill) = running.get(digest) {
            self.metrics.coalesced.inc();
            return fill.clone();
        }
        let fill = Arc::new(Fill {
            digest: *digest,
            source: source.clone(),
            state: watch::Sender::new(State::Starting),
            started: Instant::now(),
        });
        running.insert(*digest, fill.clone());
        drop(running);
        let (fills, source, task) = (self.clone(), source.clone(), fill.clone());
        self.tasks.spawn("fill", async move {
            let mut landing =
                Landing { fills: fills.clone(), fill: task.clone(), end: State::Aside };
            let timer = fills.metrics.fill_seconds.start_timer();
            landing.end = fills.run(&task, &source).await;
            timer.observe_duration();
        });
        fill
    }

    /// Runs the fill to its end state.
    async fn run(&self, fill: &Fill, source: &Source) -> State {
        match self.attempt(fill, source).await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(digest = %fill.digest, upstream = source.upstream.name(),
                    repository = %source.repository, error = %error, "blob not filled");
                State::Failed(Arc::new(error))
            }
        }
    }

    async fn attempt(&self, fill: &Fill, source: &Source) -> Result<State, UpstreamError> {
        if self.cache.stat(&fill.digest).await.is_some() {
            return Ok(State::Cached);
        }
        let first = source.upstream.get_blob(&source.repository, &fill.digest, 0, None).await?;
        let size = first.total;
        let Some(mut reservation) = self.cache.reserve(size.unwrap_or(0)) else {
            self.metrics.uncached.with_label_values(&["cache_full"]).inc();
            return Ok(State::Aside);
        };
        reservation.ready().await;
        let ingest = match self.spool.create(fill.digest.algorithm(), size).await {
            Ok(ingest) => ingest,
            Err(error) => return Ok(self.step_aside(fill, &error)),
        };
        for observer in &self.observers {
            observer.filling(&fill.digest, size, ingest.tail());
        }
        fill.set(State::Running { tail: ingest.tail(), size });
        let mut download = Download {
            fill,
            source,
            server: first.source,
            ingest,
            reservation,
            size,
            breaks: 0,
            metrics: &self.metrics,
        };
        match download.pump(first).await? {
            Pumped::All => {}
            Pumped::Refused(error) => return Ok(self.step_aside(fill, &error)),
            Pumped::NoRoom => {
                self.metrics.uncached.with_label_values(&["cache_full"]).inc();
                return Ok(State::Aside);
            }
        }
        let Download { ingest, reservation, server, .. } = download;
        let published = self.publish(fill, source, ingest, reservation, size).await;
        if published.is_err() {
            // Bytes that are not the digest: another endpoint may have the right ones.
            source.upstream.blame(server);
        }
        published
    }

    async fn publish(
        &self,
        fill: &Fill,
        source: &Source,
        ingest: Ingest,
        reservation: Reservation,
        size: Option<u64>,
    ) -> Result<State, UpstreamError> {
        let tail = ingest.tail();
        let verified = match ingest.finish(&fill.digest, size).await {
            Ok(verified) => verified,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::Mismatch { .. } | ErrorKind::Length { .. } => {
                        self.metrics.rejected.inc();
                        Err(source.error(UpstreamErrorKind::Invalid, error.to_string()))
                    }
                    _ => Ok(self.step_aside(fill, &error)),
                };
            }
        };
        let size = verified.size();
        if let Err(error) = self.cache.insert(verified, reservation).await {
            // The bytes are right and the followers hold the open file: serve them, keep nothing.
            tracing::warn!(digest = %fill.digest, error = %error, "blob verified but not kept");
            self.metrics.uncached.with_label_values(&[aside_reason(error.kind())]).inc();
        }
        Ok(State::Whole { tail, size })
    }

    fn step_aside(&self, fill: &Fill, error: &kuboard_store::Error) -> State {
        tracing::warn!(digest = %fill.digest, error = %error,
            "blob can't be kept; clients read the upstream directly");
        self.metrics.uncached.with_label_values(&[aside_reason(error.kind())]).inc();
        State::Aside
    }
}

fn aside_reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NoSpace => "no_space",
        _ => "storage_error",
    }
}

/// Ends the fill when its task ends, also by panic or shutdown: then the followers, told to step
/// aside, read on by themselves.
struct Landing {
    fills: Arc<Fills>,
    fill: Arc<Fill>,
    end: State,
}

impl Drop for Landing {
    fn drop(&mut self) {
        // Off the list first: whoever comes after the end asks the cache again.
        self.fills.running.lock().remove(&self.fill.digest);
        self.fill.state.send_replace(std::mem::replace(&mut self.end, State::Aside));
    }
}

enum Pumped {
    All,
    /// The spool did not take the bytes.
    Refused(kuboard_store::Error),
    /// Content of unknown length outgrew what the cache can hold.
    NoRoom,
}

struct Download<'a> {
    fill: &'a Fill,
    source: &'a Source,
    /// Which endpoint the bytes come from at present.
    server: Server,
    ingest: Ingest,
    reservation: Reservation,
    size: Option<u64>,
    breaks: u32,
    metrics: &'a Metrics,
}

impl Download<'_> {
    /// Moves all bytes of the upstream into the spool, over as many connections as it takes.
    async fn pump(&mut self, first: BlobStream) -> Result<Pumped, UpstreamError> {
        let mut stream = first;
        loop {
            let before = self.ingest.written();
            let outcome = self.drain(stream).await?;
            if let Some(refused) = outcome {
                return Ok(refused);
            }
            if self.size.is_none_or(|size| self.ingest.written() == size) {
                return match self.ingest.flush().await {
                    Ok(()) => Ok(Pumped::All),
                    Err(error) => Ok(Pumped::Refused(error)),
                };
            }
            if self.ingest.written() - before >= PROGRESS {
                self.breaks = 0;
            }
            stream = self.resume().await?;
            self.server = stream.source;
        }
    }

    /// Writes one connection's bytes; returns at its end, broken or not.
    async fn drain(&mut self, stream: BlobStream) -> Result<Option<Pumped>, UpstreamError> {
        // An upstream that ignores Range starts again from 0: what we have is skipped.
        let mut skip = self.ingest.written().saturating_sub(stream.offset);
        let mut chunks = stream.stream;
        while let Some(chunk) = chunks.next().await {
            let mut chunk: Bytes = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    tracing::debug!(digest = %self.fill.digest, error = %error, "upstream broke off");
                    if self.size.is_none() {
                        // Without a promised length a break can't be told from the end.
                        return Err(self.source.error(
                            UpstreamErrorKind::Unavailable,
                            format!("the upstream broke off: {error}"),
                        ));
                    }
                    return Ok(None);
                }
            };
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            let chunk = chunk.split_off(skipped as usize);
            if chunk.is_empty() {
                continue;
            }
            let length = chunk.len() as u64;
            let after = self.ingest.written() + length;
            if self.size.is_some_and(|size| after > size) {
                return Err(self.source.error(
                    UpstreamErrorKind::Invalid,
                    format!("the upstream sent more than the {} bytes it promised", after - length),
                ));
            }
            if self.size.is_none() && !self.reservation.grow(length) {
                return Ok(Some(Pumped::NoRoom));
            }
            if let Err(error) = self.ingest.write(chunk).await {
                return Ok(Some(Pumped::Refused(error)));
            }
            self.metrics.pulled_blob_bytes.inc_by(length);
        }
        Ok(None)
    }

    /// Asks for the rest, with a pause that grows while nothing comes.
    async fn resume(&mut self) -> Result<BlobStream, UpstreamError> {
        const PAUSE: Backoff =
            Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(3) };
        loop {
            self.breaks += 1;
            if self.breaks > MAX_BREAKS {
                return Err(self.source.error(
                    UpstreamErrorKind::Unavailable,
                    format!(
                        "the upstream broke off {MAX_BREAKS} times without getting ahead, at \
                         byte {}",
                        self.ingest.written()
                    ),
                ));
            }
            self.metrics.resumed.inc();
            tokio::time::sleep(PAUSE.delay(self.breaks - 1, 0.5)).await;
            let from = self.ingest.written();
            let again = self.source.upstream.get_blob(
                &self.source.repository,
                &self.fill.digest,
                from,
                None,
            );
            match again.await {
                Ok(stream) if stream.offset > from => {
                    return Err(self.source.error(
                        UpstreamErrorKind::Invalid,
                        format!("asked for bytes from {from}, got them from {}", stream.offset),
                    ));
                }
                Ok(stream) if stream.total.is_some() && stream.total != self.size => {
                    return Err(self.source.error(
                        UpstreamErrorKind::Invalid,
                        "the upstream changed its mind about the size".to_owned(),
                    ));
                }
                Ok(stream) => return Ok(stream),
                Err(error) if error.is_retryable() => {}
                Err(error) => return Err(error),
            }
        }
    }
}
