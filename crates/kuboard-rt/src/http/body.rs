//! What a response carries.

use crate::mapping::{Mapping, read_ahead};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Pieces of a map for connections that read its bytes (TLS, HTTP/2). Each such connection
/// has about one piece in memory, so this bounds memory: 100 pulls touch 25 MiB.
pub(crate) const COPIED_PIECE: u64 = 256 << 10;

/// Pieces of a map for connections that only pass on its addresses (`sendfile`).
pub(crate) const SENDFILE_PIECE: u64 = 1 << 20;

/// The page cache is asked once for this many bytes.
const WINDOW: u64 = 4 << 20;

/// The body of a response: nothing, bytes, a stream or a part of a mapped file.
pub struct Body(Kind);

enum Kind {
    Empty,
    Full(Option<Bytes>),
    Stream(Streamed),
    Mapped(Mapped),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::empty() } else { Self(Kind::Full(Some(bytes))) }
    }

    /// Bytes as they come, of unknown number (chunked on HTTP/1.1). An error cuts the
    /// connection, so that the client cannot take the body for complete.
    pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(Kind::Stream(Streamed { stream: Box::pin(stream), left: None }))
    }

    /// Exactly `len` bytes as they come. A stream that yields fewer or more is an error.
    pub fn sized_stream(
        len: u64,
        stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Self {
        Self(Kind::Stream(Streamed { stream: Box::pin(stream), left: Some(len) }))
    }

    /// A part of a mapped file, cut to the file's length. Nothing is copied; bytes that are
    /// not in the page cache are read on the pool of blocking threads first.
    pub fn mapped(mapping: Arc<Mapping>, range: Range<u64>) -> Self {
        let end = range.end.min(mapping.len());
        let offset = range.start.min(end);
        if offset == end {
            return Self::empty();
        }
        let piece = COPIED_PIECE;
        Self(Kind::Mapped(Mapped { mapping, offset, end, piece, warm_to: offset, warming: None }))
    }

    /// The whole body in memory. For tests and small bodies: it has no bound of its own.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn collect(self) -> io::Result<Bytes> {
        let mut body = self;
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame?.into_data() {
                all.extend_from_slice(&bytes);
            }
        }
        Ok(all.freeze())
    }

    /// The map behind this body, if there is one.
    pub(crate) fn mapping(&self) -> Option<&Arc<Mapping>> {
        match &self.0 {
            Kind::Mapped(mapped) => Some(&mapped.mapping),
            _ => None,
        }
    }

    /// Sets how many bytes of a map one piece has.
    pub(crate) fn set_piece(&mut self, bytes: u64) {
        if let Kind::Mapped(mapped) = &mut self.0 {
            mapped.piece = bytes;
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Stream(_) => "stream",
            Kind::Mapped(_) => "mapped",
        };
        f.debug_struct("Body").field("kind", &kind).field("size", &self.size_hint()).finish()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match &mut self.0 {
            Kind::Empty => None,
            Kind::Full(bytes) => bytes.take().map(Ok),
            Kind::Stream(stream) => ready!(stream.poll_piece(cx)),
            Kind::Mapped(mapped) => ready!(mapped.poll_piece(cx)),
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty | Kind::Full(None) => true,
            Kind::Full(Some(_)) => false,
            // A sized stream is asked once more after its last byte, to find one too many.
            Kind::Stream(_) => false,
            Kind::Mapped(mapped) => mapped.offset == mapped.end,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty | Kind::Full(None) => SizeHint::with_exact(0),
            Kind::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(Streamed { left: Some(left), .. }) => SizeHint::with_exact(*left),
            Kind::Stream(Streamed { left: None, .. }) => SizeHint::default(),
            Kind::Mapped(mapped) => SizeHint::with_exact(mapped.end - mapped.offset),
        }
    }
}

struct Streamed {
    stream: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    left: Option<u64>,
}

impl Streamed {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            let piece = ready!(self.stream.poll_next_unpin(cx));
            let Some(left) = &mut self.left else { return Poll::Ready(piece) };
            return Poll::Ready(match piece {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Ok(bytes)) => match left.checked_sub(bytes.len() as u64) {
                    Some(rest) => {
                        *left = rest;
                        Some(Ok(bytes))
                    }
                    None => Some(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("body is longer than announced, by {} bytes or more", {
                            bytes.len() as u64 - *left
                        }),
                    ))),
                },
                Some(Err(err)) => Some(Err(err)),
                None if *left == 0 => None,
                None => {
                    let missing = std::mem::take(left);
                    Some(Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("body is {missing} bytes shorter than announced"),
                    )))
                }
            });
        }
    }
}

struct Mapped {
    mapping: Arc<Mapping>,
    offset: u64,
    end: u64,
    /// Bytes of one piece.
    piece: u64,
    /// Bytes before this offset were found, or put, in the page cache.
    warm_to: u64,
    warming: Option<Warming>,
}

type Warming = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

impl Mapped {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.offset == self.end {
            return Poll::Ready(None);
        }
        if self.offset >= self.warm_to
            && let Err(err) = ready!(self.poll_warm(cx))
        {
            self.offset = self.end;
            return Poll::Ready(Some(Err(err)));
        }
        let end = (self.offset + self.piece).min(self.warm_to);
        let bytes = self.mapping.slice(self.offset..end);
        self.offset = end;
        Poll::Ready(Some(Ok(bytes)))
    }

    /// Makes sure that the next window can be read without waiting for the disk. Its last byte
    /// stands for all of it: what fell out of the cache usually fell out together.
    fn poll_warm(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let window = self.offset..(self.offset + WINDOW).min(self.end);
        if self.warming.is_none() && !self.mapping.is_resident(window.end - 1) {
            self.warming = Some(Box::pin(read_ahead(self.mapping.clone(), window.clone())));
        }
        if let Some(warming) = &mut self.warming {
            let outcome = ready!(warming.as_mut().poll(cx));
            self.warming = None;
            outcome?;
        }
        self.warm_to = window.end;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn pieces(texts: &[&'static str]) -> impl Stream<Item = io::Result<Bytes>> + use<> {
        let pieces: Vec<_> =
            texts.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()))).collect();
        stream::iter(pieces)
    }

    async fn check(body: Body, size: Option<u64>, expected: Result<&[u8], &str>) {
        assert_eq!(body.size_hint().exact(), size);
        let got = body.collect().await.map_err(|err| err.to_string());
        assert_eq!(got.as_deref().map_err(String::as_str), expected);
    }

    #[tokio::test]
    async fn bodies_say_their_size_and_yield_their_bytes() {
        check(Body::empty(), Some(0), Ok(b"")).await;
        check(Body::full(""), Some(0), Ok(b"")).await;
        check(Body::full("abc"), Some(3), Ok(b"abc")).await;
        check(Body::stream(pieces(&["ab", "", "c"])), None, Ok(b"abc")).await;
        check(Body::sized_stream(3, pieces(&["ab", "", "c"])), Some(3), Ok(b"abc")).await;
        check(Body::sized_stream(0, pieces(&[])), Some(0), Ok(b"")).await;
    }

    #[tokio::test]
    async fn a_stream_must_keep_its_word() {
        let short = Err("body is 2 bytes shorter than announced");
        check(Body::sized_stream(5, pieces(&["abc"])), Some(5), short).await;
        let long = Err("body is longer than announced, by 1 bytes or more");
        check(Body::sized_stream(2, pieces(&["abc"])), Some(2), long).await;
        let failing = stream::iter([Ok(Bytes::from_static(b"a")), Err(io::Error::other("cut"))]);
        check(Body::sized_stream(2, failing), Some(2), Err("cut")).await;
    }

    #[tokio::test]
    async fn a_mapped_part_is_the_files_part_whatever_the_piece() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..9_500_000_u32).map(|i| (i / 7) as u8).collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        let mapping = Mapping::from_file(file).unwrap();
        for (range, piece) in [
            (0..9_500_000, SENDFILE_PIECE),
            (0..9_500_000, COPIED_PIECE),
            (4_194_303..4_194_305, COPIED_PIECE),
            (17..8_000_000, 3_000_000),
            (9_499_999..99_000_000, COPIED_PIECE),
            (9_500_000..99_000_000, COPIED_PIECE),
        ] {
            let expected = &bytes[range.start as usize..(range.end as usize).min(bytes.len())];
            mapping.make_cold();
            let mut body = Body::mapped(mapping.clone(), range);
            body.set_piece(piece);
            check(body, Some(expected.len() as u64), Ok(expected)).await;
        }
    }
}
