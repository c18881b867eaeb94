//! Asking for blobs: how long they are, and their bytes from an offset on.

use std::{fmt, io};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{Method, StatusCode, header};
use kuboard_oci::{ContentRange, Digest};

use super::{
    body::BlobBody,
    endpoint::Order,
    error::Failure,
    exchange::{Answer, Ask},
    shared::{Ground, Lane, Operation},
};

/// A blob on its way. Its digest is not checked: that is for whoever has all of it.
pub struct BlobStream {
    /// Where the first byte of the stream stands in the blob: the offset asked for, or 0 where
    /// the upstream ignores ranges.
    pub offset: u64,
    /// Length of the whole blob, if the upstream says it.
    pub total: Option<u64>,
    /// The bytes. Ends without an error only after all that was promised.
    pub stream: BoxStream<'static, io::Result<Bytes>>,
    /// Who serves it, for [`Upstream::blame`](super::Upstream::blame).
    pub source: Source,
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStream")
            .field("offset", &self.offset)
            .field("total", &self.total)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// One endpoint of an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Source(pub(super) usize);

/// Asks for the length of a blob.
pub(super) struct HeadBlob<'a> {
    pub(super) digest: &'a Digest,
}

impl Operation for HeadBlob<'_> {
    type Output = u64;
    const LANE: Lane = Lane::Small;

    fn order(&self) -> Order {
        Order::Configured
    }

    fn ask(&self) -> Ask {
        Ask::new(Method::HEAD, tail(self.digest))
    }

    /// One byte by GET where HEAD is not supported, gives no length, was redirected to an
    /// address that is signed for GET only, or is not found: caching registries know some blobs
    /// only when they are fetched.
    fn again(&self, answer: &Answer) -> Option<Ask> {
        let unsure = match answer.status() {
            StatusCode::OK => answer.length().is_none(),
            StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED
            | StatusCode::NOT_FOUND => true,
            status => answer.elsewhere && status.is_client_error(),
        };
        unsure.then(|| {
            let mut ask = Ask::new(Method::GET, tail(self.digest));
            ask.range = Some(String::from("bytes=0-0"));
            ask
        })
    }

    /// An empty blob has no first byte.
    fn takes(&self, answer: &Answer) -> bool {
        answer.status() == StatusCode::RANGE_NOT_SATISFIABLE
    }

    async fn read(&self, answer: Answer, _ground: Ground) -> Result<u64, Failure> {
        let range = answer.header(header::CONTENT_RANGE);
        let length = match answer.status() {
            StatusCode::OK => answer.length(),
            StatusCode::PARTIAL_CONTENT => {
                range.and_then(|range| range.parse::<ContentRange>().ok()?.total)
            }
            _ => range.and_then(|range| range.trim().strip_prefix("bytes */")?.parse().ok()),
        };
        length.ok_or_else(|| Failure::invalid("it does not say how long the blob is"))
    }
}

/// Fetches a blob or a part of it.
pub(super) struct GetBlob<'a> {
    pub(super) digest: &'a Digest,
    pub(super) from: u64,
    pub(super) to_inclusive: Option<u64>,
}

impl Operation for GetBlob<'_> {
    type Output = BlobStream;
    const LANE: Lane = Lane::Blobs;

    fn order(&self) -> Order {
        Order::Configured
    }

    fn ask(&self) -> Ask {
        let mut ask = Ask::new(Method::GET, tail(self.digest));
        ask.range = match (self.from, self.to_inclusive) {
            (0, None) => None,
            (from, None) => Some(format!("bytes={from}-")),
            (from, Some(to)) => Some(format!("bytes={from}-{to}")),
        };
        ask
    }

    async fn read(&self, answer: Answer, ground: Ground) -> Result<BlobStream, Failure> {
        let range = answer.header(header::CONTENT_RANGE);
        let ranged = self.from > 0 || self.to_inclusive.is_some();
        let place = match answer.status() {
            StatusCode::PARTIAL_CONTENT if ranged => {
                place(range, answer.length(), self.from, self.to_inclusive)
                    .map_err(Failure::wrong)?
            }
            StatusCode::PARTIAL_CONTENT => {
                return Err(Failure::wrong("it answered with a part of the blob"));
            }
            _ => Place { offset: 0, total: answer.length(), length: answer.length() },
        };
        let Ground { shared, endpoint, permit } = ground;
        let read_timeout = shared.transport.read_timeout();
        let on_break = Box::new(move || {
            let now = shared.clock.monotonic();
            shared.healths.lock().failed(endpoint, now);
        });
        let body = BlobBody::new(answer.response, place.length, read_timeout, permit, on_break);
        Ok(BlobStream {
            offset: place.offset,
            total: place.total,
            stream: Box::pin(body),
            source: Source(endpoint),
        })
    }
}

fn tail(digest: &Digest) -> String {
    format!("blobs/{digest}")
}

/// What part of a blob an answer holds.
#[derive(Debug, Eq, PartialEq)]
struct Place {
    offset: u64,
    total: Option<u64>,
    /// Bytes in the answer.
    length: Option<u64>,
}

/// Reads the head of a 206. The upstream may give less than was asked for, but nothing else.
fn place(
    range: Option<&str>,
    content_length: Option<u64>,
    from: u64,
    to_inclusive: Option<u64>,
) -> Result<Place, String> {
    let range: ContentRange = range
        .ok_or("it answered with a part of the blob and does not say which")?
        .parse()
        .map_err(|error| format!("its Content-Range is malformed: {error}"))?;
    if range.start != from || to_inclusive.is_some_and(|to| range.end_inclusive > to) {
        return Err(format!("it answered with the range {range}, asked from {from} on"));
    }
    if content_length.is_some_and(|length| length != range.len()) {
        return Err(format!("its Content-Length contradicts its range {range}"));
    }
    Ok(Place { offset: range.start, total: range.total, length: Some(range.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        range: Option<&str>,
        length: Option<u64>,
        asked: (u64, Option<u64>),
        expected: Result<(u64, Option<u64>, u64), &str>,
    ) {
        let seen = place(range, length, asked.0, asked.1);
        match (seen, expected) {
            (Ok(seen), Ok((offset, total, length))) => {
                assert_eq!(seen, Place { offset, total, length: Some(length) });
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (seen, expected) => panic!("{seen:?}, not {expected:?}"),
        }
    }

    #[test]
    fn parts_of_blobs() {
        check(Some("bytes 5-9/10"), Some(5), (5, None), Ok((5, Some(10), 5)));
        check(Some("bytes 5-9/10"), None, (5, None), Ok((5, Some(10), 5)));
        check(Some("bytes 5-9/*"), None, (5, Some(9)), Ok((5, None, 5)));
        check(Some("bytes 5-7/10"), None, (5, Some(9)), Ok((5, Some(10), 3)));
        check(Some("bytes 0-9/10"), None, (5, None), Err("from 5 on"));
        check(Some("bytes 6-9/10"), None, (5, None), Err("from 5 on"));
        check(Some("bytes 5-9/10"), None, (5, Some(8)), Err("from 5 on"));
        check(Some("bytes 5-9/10"), Some(4), (5, None), Err("Content-Length"));
        check(Some("bytes 5-9/7"), None, (5, None), Err("malformed"));
        check(Some("pages 5-9/10"), None, (5, None), Err("malformed"));
        check(None, Some(5), (5, None), Err("which"));
    }
}
