//! The body of a client that reads a blob while it is still being filled.
//!
//! The last byte of a blob is held back until the digest is checked (see `kuboard_store::Tail`):
//! content that turns out wrong ends short of its Content-Length, so that no client takes it for
//! complete.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use kuboard_oci::{Digest, Hasher};
use kuboard_registry::client::{UpstreamError, UpstreamErrorKind};
use tokio::sync::watch;

use super::fill::{Fill, Source, State};

/// Most bytes handed to the connection at once.
const CHUNK: usize = 256 << 10;

/// What a new follower learns before it answers its client.
pub(crate) enum Start {
    /// The fill is under way or done; `size` is known unless the upstream did not say.
    Follow { size: Option<u64> },
    /// It is in the cache.
    Cached,
    /// The content is not kept: read the upstream directly.
    Aside,
    /// The upstream refused or failed before the first byte.
    Failed(Arc<UpstreamError>),
}

/// Waits until the fill's upstream has answered.
pub(crate) async fn start(fill: &Fill) -> Start {
    let mut state = fill.watch();
    let settled = state.wait_for(|state| !matches!(state, State::Starting)).await;
    match settled.as_deref() {
        Ok(State::Running { size, .. }) => Start::Follow { size: *size },
        Ok(State::Whole { size, .. }) => Start::Follow { size: Some(*size) },
        Ok(State::Cached) => Start::Cached,
        Ok(State::Failed(error)) => Start::Failed(error.clone()),
        Ok(State::Aside | State::Starting) | Err(_) => Start::Aside,
    }
}

/// The bytes from `offset` up to `end` (exclusive; `None` = to the end of a blob of unknown
/// length), as they arrive.
pub(crate) fn bytes(
    fill: &Fill,
    source: Source,
    offset: u64,
    end: Option<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let follower = Follower {
        digest: fill.digest,
        state: fill.watch(),
        foreign: !fill.source.is_same(&source),
        source,
        offset,
        end,
        relay: None,
        failed: false,
    };
    futures_util::stream::unfold(follower, |mut follower| async move {
        if follower.failed {
            return None;
        }
        match follower.next().await {
            Ok(None) => None,
            Ok(Some(chunk)) => Some((Ok(chunk), follower)),
            Err(error) => {
                follower.failed = true;
                Some((Err(error), follower))
            }
        }
    })
}

struct Follower {
    digest: Digest,
    state: watch::Receiver<State>,
    /// The fill asks another repository than this follower would.
    foreign: bool,
    source: Source,
    offset: u64,
    end: Option<u64>,
    relay: Option<BoxStream<'static, io::Result<Bytes>>>,
    failed: bool,
}

impl Follower {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.end.is_some_and(|end| self.offset >= end) {
                return Ok(None);
            }
            if self.relay.is_some() {
                return self.relayed().await;
            }
            let state = self.state.borrow_and_update().clone();
            match state {
                State::Whole { tail, size } => {
                    let end = self.end.map_or(size, |end| end.min(size));
                    if self.offset >= end {
                        return Ok(None);
                    }
                    let most = (end - self.offset).min(CHUNK as u64) as usize;
                    let chunk = tail.read(self.offset, most).await.map_err(io::Error::other)?;
                    if chunk.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    return Ok(Some(self.advance(chunk)));
                }
                State::Running { tail, .. } => {
                    let left = self.end.map_or(u64::MAX, |end| end - self.offset);
                    let most = left.min(CHUNK as u64) as usize;
                    // The tail keeps the last byte back until the digest is checked, and fails
                    // when it is wrong; the fill's state then says what to do.
                    let read = tokio::select! {
                        read = tail.read(self.offset, most) => read.ok(),
                        _ = self.state.changed() => continue,
                    };
                    match read {
                        Some(chunk) if !chunk.is_empty() => return Ok(Some(self.advance(chunk))),
                        _ => self.changed().await?,
                    }
                }
                State::Aside | State::Cached => self.turn_to_upstream().await?,
                // Somebody else's road broke, not ours; but what was sent of wrong bytes stays wrong.
                State::Failed(error)
                    if self.foreign && error.kind != UpstreamErrorKind::Invalid =>
                {
                    self.turn_to_upstream().await?;
                }
                State::Failed(error) => return Err(io::Error::other(error.to_string())),
                State::Starting => self.changed().await?,
            }
        }
    }

    async fn changed(&mut self) -> io::Result<()> {
        self.state.changed().await.map_err(|_| io::ErrorKind::UnexpectedEof.into())
    }

    async fn turn_to_upstream(&mut self) -> io::Result<()> {
        let last = self.end.map(|end| end - 1);
        let answer = self
            .source
            .upstream
            .get_blob(&self.source.repository, &self.digest, self.offset, last)
            .await
            .map_err(|error| io::Error::other(error.to_string()))?;
        self.relay = Some(relay(answer, self.offset, self.end)?);
        Ok(())
    }

    async fn relayed(&mut self) -> io::Result<Option<Bytes>> {
        let Some(stream) = self.relay.as_mut() else { return Ok(None) };
        match stream.next().await {
            Some(Ok(chunk)) => Ok(Some(self.advance(chunk))),
            Some(Err(error)) => Err(error),
            None if self.end.is_none() => Ok(None),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn advance(&mut self, chunk: Bytes) -> Bytes {
        self.offset += chunk.len() as u64;
        chunk
    }
}

/// Just the bytes from `offset` up to `end` out of an upstream's answer, which may begin earlier
/// and go on longer than asked.
pub(crate) fn relay(
    answer: kuboard_registry::client::BlobStream,
    offset: u64,
    end: Option<u64>,
) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
    if answer.offset > offset {
        return Err(io::Error::other("the upstream answered a later range than asked"));
    }
    let skip = offset - answer.offset;
    let take = end.map_or(u64::MAX, |end| end - offset);
    let cut = answer.stream.scan((skip, take), |(skip, take), chunk| {
        let item = chunk.map(|mut chunk: Bytes| {
            let skipped = (*skip).min(chunk.len() as u64);
            *skip -= skipped;
            let mut chunk = chunk.split_off(skipped as usize);
            chunk.truncate((*take).min(chunk.len() as u64) as usize);
            *take -= chunk.len() as u64;
            chunk
        });
        let done = *take == 0 && item.as_ref().is_ok_and(Bytes::is_empty);
        futures_util::future::ready((!done).then_some(item))
    });
    Ok(cut
        .filter(|item| futures_util::future::ready(!matches!(item, Ok(c) if c.is_empty())))
        .boxed())
}

/// A whole blob that is passed through without being kept, checked all the same: the last piece
/// goes out only when the digest is right.
pub(crate) fn checked(
    pieces: BoxStream<'static, io::Result<Bytes>>,
    expected: Digest,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let relayed = Relayed { pieces, hasher: Some(Hasher::new(expected.algorithm())), held: None };
    futures_util::stream::unfold(relayed, move |mut relayed| async move {
        let hasher = relayed.hasher.as_mut()?;
        match relayed.pieces.next().await {
            Some(Ok(piece)) => {
                hasher.update(&piece);
                let ready = relayed.held.replace(piece).unwrap_or_default();
                Some((Ok(ready), relayed))
            }
            Some(Err(error)) => {
                relayed.hasher = None;
                Some((Err(error), relayed))
            }
            None => {
                let actual = relayed.hasher.take()?.finish();
                if actual == expected {
                    Some((Ok(relayed.held.take()?), relayed))
                } else {
                    let message = format!("the upstream sent {actual} instead of {expected}");
                    Some((Err(io::Error::new(io::ErrorKind::InvalidData, message)), relayed))
                }
            }
        }
    })
    .filter(|piece| futures_util::future::ready(!matches!(piece, Ok(p) if p.is_empty())))
}

struct Relayed {
    pieces: BoxStream<'static, io::Result<Bytes>>,
    /// None once it has ended.
    hasher: Option<Hasher>,
    held: Option<Bytes>,
}
