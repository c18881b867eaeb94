//! Following a blob while it is being written.
//!
//! Any number of followers read the file that the writer fills, each from where it wants and at
//! its own pace; none slows the writer. What is behind the writer is almost always in the page
//! cache, so it is read on the spot without waiting; what is not is read on a blocking thread.
//!
//! The last byte is held back until the digest is checked. So a follower of known length cannot
//! be made to believe that it has a whole blob which then turns out to be another.

use std::{fs::File, io, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use kuboard_rt::http::Body;
use tokio::sync::watch;

use crate::{Error, ErrorKind, Result, blocking, page};

/// Most bytes that one read answers.
pub const MAX_READ: usize = 1 << 20;
/// What [`Tail::body`] reads at a time: enough to make a system call cheap, little enough that a
/// hundred followers fit into memory.
const BODY_READ: usize = 256 << 10;

/// Where a blob being written stands.
#[derive(Debug, Clone)]
pub enum State {
    /// More bytes may come.
    Writing,
    /// All bytes are there and are those of the digest.
    Complete,
    /// No more bytes will come; what is there is worth nothing.
    Failed(Error),
}

/// What the writer tells its followers.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// Bytes on file.
    pub(crate) written: u64,
    pub(crate) state: State,
}

impl Progress {
    /// How many bytes a follower may see.
    fn readable(&self) -> u64 {
        match self.state {
            State::Complete => self.written,
            State::Writing | State::Failed(_) => self.written.saturating_sub(1),
        }
    }
}

/// A follower of an [`crate::Ingest`]. Holds the open file, so it goes on reading when the blob
/// has been published, and even when it has been removed again.
#[derive(Clone)]
pub struct Tail {
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
}

impl Tail {
    pub(crate) fn new(file: Arc<File>, progress: watch::Receiver<Progress>) -> Tail {
        Tail { file, progress }
    }

    /// Bytes on file so far.
    pub fn written(&self) -> u64 {
        self.progress.borrow().written
    }

    /// Where the blob stands.
    pub fn state(&self) -> State {
        self.progress.borrow().state.clone()
    }

    /// Waits until there are bytes beyond `offset` or the blob is complete; the number of bytes
    /// that can be read. Fails when the writer fails.
    pub async fn wait_beyond(&self, offset: u64) -> Result<u64> {
        {
            let now = self.progress.borrow();
            if let Some(answer) = beyond(&now, offset) {
                return answer;
            }
        }
        let mut progress = self.progress.clone();
        let ready = progress.wait_for(|now| beyond(now, offset).is_some()).await;
        let Ok(now) = ready else { return Err(closed()) };
        beyond(&now, offset).unwrap_or_else(|| Err(closed()))
    }

    /// Reads up to `max` bytes (at most [`MAX_READ`]) at `offset`, waiting until there are some.
    ///
    /// Empty means that the blob is complete and `offset` at or beyond its end.
    pub async fn read(&self, offset: u64, max: usize) -> Result<Bytes> {
        let readable = self.wait_beyond(offset).await?;
        let left = usize::try_from(readable.saturating_sub(offset)).unwrap_or(MAX_READ);
        let length = left.min(max.clamp(1, MAX_READ));
        if length == 0 {
            return Ok(Bytes::new());
        }
        if let Some(read) = page::read_cached(&self.file, offset, length) {
            return Ok(read.into());
        }
        let file = self.file.clone();
        let read = blocking("following a blob", move || {
            page::read_waiting(&file, offset, length)
                .map_err(|e| Error::io("reading a blob being written", e))
        })
        .await?;
        if read.is_empty() {
            // Readable bytes that are not in the file: somebody else has cut it.
            return Err(Error::new(ErrorKind::Io, "a blob being written has become shorter"));
        }
        Ok(read.into())
    }

    /// A body of exactly the bytes of `range`, sent as they come.
    pub fn body(self, range: Range<u64>) -> Body {
        let length = range.end.saturating_sub(range.start);
        let bytes = stream::unfold(Some((self, range.start)), move |state| async move {
            let (tail, offset) = state?;
            let left = range.end.saturating_sub(offset);
            if left == 0 {
                return None;
            }
            let max = usize::try_from(left).unwrap_or(BODY_READ).min(BODY_READ);
            match tail.read(offset, max).await {
                Ok(read) if read.is_empty() => {
                    let short = "the blob is shorter than announced";
                    Some((Err(io::Error::new(io::ErrorKind::UnexpectedEof, short)), None))
                }
                Ok(read) => {
                    let next = offset + read.len() as u64;
                    Some((Ok(read), Some((tail, next))))
                }
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Body::sized_stream(length, bytes)
    }
}

fn beyond(now: &Progress, offset: u64) -> Option<Result<u64>> {
    match &now.state {
        State::Failed(error) => Some(Err(error.clone())),
        State::Complete => Some(Ok(now.readable())),
        State::Writing => (now.readable() > offset).then(|| Ok(now.readable())),
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "following a blob")
}
