//! Byte ranges: the `Range` and `Content-Range` headers of RFC 9110, and the bare form that the
//! distribution specification has for uploads.

use std::{fmt, ops::Range, str::FromStr};

use crate::error::{ContentRangeError, RangeError, Unsatisfiable};

/// Largest offset in a `Content-Range`: lengths are signed 64-bit integers elsewhere.
const MAX_OFFSET: u64 = i64::MAX as u64 - 1;

/// One range of bytes that a client asks for, not yet held against the content.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub struct ByteRange(Kind);

#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
enum Kind {
    /// `first-last`, both included; `first <= last`.
    Span { first: u64, last: u64 },
    /// `first-`, up to the end.
    From { first: u64 },
    /// `-count`, the last bytes.
    Suffix { count: u64 },
}

impl ByteRange {
    /// Reads the value of a `Range` header.
    ///
    /// `None` means that the header is to be ignored and the whole content served: a unit other
    /// than bytes, or several ranges at once. Numbers beyond 64 bits count as the largest number.
    ///
    /// # Errors
    /// Malformed, or ending before it begins: the answer is 416.
    pub fn parse(header: &str) -> Result<Option<ByteRange>, RangeError> {
        let (unit, ranges) = header.trim_ascii().split_once('=').ok_or(RangeError::Malformed)?;
        let unit = unit.trim_ascii();
        if unit.is_empty() || unit.contains(|c: char| c.is_ascii_whitespace()) {
            return Err(RangeError::Malformed);
        }
        if !unit.eq_ignore_ascii_case("bytes") || ranges.contains(',') {
            return Ok(None);
        }
        let (first, last) = ranges.trim_ascii().split_once('-').ok_or(RangeError::Malformed)?;
        let kind = match (first.trim_ascii(), last.trim_ascii()) {
            ("", count) => Kind::Suffix { count: saturating(count)? },
            (first, "") => Kind::From { first: saturating(first)? },
            (first, last) => {
                let (first, last) = (saturating(first)?, saturating(last)?);
                if last < first {
                    return Err(RangeError::Backwards { first, last });
                }
                Kind::Span { first, last }
            }
        };
        Ok(Some(ByteRange(kind)))
    }

    /// The range of a request for `first` up to and including `last`, or up to the end.
    ///
    /// # Errors
    /// `last` lies before `first`.
    pub fn new(first: u64, last: Option<u64>) -> Result<ByteRange, RangeError> {
        match last {
            None => Ok(ByteRange(Kind::From { first })),
            Some(last) if last < first => Err(RangeError::Backwards { first, last }),
            Some(last) => Ok(ByteRange(Kind::Span { first, last })),
        }
    }

    /// The bytes it means in a content of `len` bytes: never empty, never beyond the end. A range
    /// that goes past the end is cut there.
    ///
    /// # Errors
    /// It begins at or beyond the end, or asks for the last zero bytes: the answer is 416.
    pub fn resolve(&self, len: u64) -> Result<Range<u64>, Unsatisfiable> {
        let range = match self.0 {
            Kind::Span { first, last } => first..last.saturating_add(1).min(len),
            Kind::From { first } => first..len,
            Kind::Suffix { count } => len.saturating_sub(count)..len,
        };
        if range.is_empty() { Err(Unsatisfiable { len }) } else { Ok(range) }
    }

    /// The first byte it asks for; `None` if that depends on the length of the content.
    #[must_use]
    pub const fn first(&self) -> Option<u64> {
        match self.0 {
            Kind::Span { first, .. } | Kind::From { first } => Some(first),
            Kind::Suffix { .. } => None,
        }
    }
}

impl fmt::Display for ByteRange {
    /// The value of a `Range` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Span { first, last } => write!(f, "bytes={first}-{last}"),
            Kind::From { first } => write!(f, "bytes={first}-"),
            Kind::Suffix { count } => write!(f, "bytes=-{count}"),
        }
    }
}

/// A number of any length; what does not fit into 64 bits is the largest that does.
fn saturating(digits: &str) -> Result<u64, RangeError> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(RangeError::Malformed);
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}

/// A range of bytes that a message carries.
///
/// `start <= end_inclusive < total`, and all of them fit into a signed 64-bit integer, so that
/// [`len`](ContentRange::len) cannot overflow.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub struct ContentRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset of the last byte.
    pub end_inclusive: u64,
    /// Length of the whole content, if the message says it.
    pub total: Option<u64>,
}

impl ContentRange {
    /// The header for `range` of a content of `total` bytes; `None` for an empty range or one
    /// beyond the total.
    #[must_use]
    pub fn of(range: &Range<u64>, total: Option<u64>) -> Option<ContentRange> {
        let end_inclusive = range.end.checked_sub(1)?;
        ContentRange { start: range.start, end_inclusive, total }.checked().ok()
    }

    /// Bytes in the range, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a content range is never empty")]
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end_inclusive.saturating_sub(self.start).saturating_add(1)
    }

    /// The form of uploads, without unit and total: `0-99`.
    #[must_use]
    pub fn to_upload(&self) -> String {
        format!("{}-{}", self.start, self.end_inclusive)
    }

    fn checked(self) -> Result<ContentRange, ContentRangeError> {
        let past_total = self.total.is_some_and(|total| self.end_inclusive >= total);
        let past_limit =
            self.end_inclusive > MAX_OFFSET || self.total.is_some_and(|t| t > MAX_OFFSET + 1);
        if self.start > self.end_inclusive || past_total || past_limit {
            return Err(ContentRangeError::Contradiction);
        }
        Ok(self)
    }
}

impl FromStr for ContentRange {
    type Err = ContentRangeError;

    /// Reads `0-99` as in uploads, `bytes 0-99/1234`, or `bytes 0-99/*`.
    ///
    /// # Errors
    /// See [`ContentRangeError`].
    fn from_str(header: &str) -> Result<Self, ContentRangeError> {
        let header = header.trim_ascii();
        let (span, total) = match header.split_once(|c: char| c.is_ascii_whitespace()) {
            None => (header, None),
            Some((unit, rest)) if unit.eq_ignore_ascii_case("bytes") => {
                let (span, total) =
                    rest.trim_ascii().split_once('/').ok_or(ContentRangeError::Malformed)?;
                (span, if total == "*" { None } else { Some(exact(total)?) })
            }
            Some(_) => return Err(ContentRangeError::Malformed),
        };
        let (start, end) = span.split_once('-').ok_or(ContentRangeError::Malformed)?;
        ContentRange { start: exact(start)?, end_inclusive: exact(end)?, total }.checked()
    }
}

impl fmt::Display for ContentRange {
    /// The form of answers: `bytes 0-99/1234`, or `bytes 0-99/*` without a total.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}/", self.start, self.end_inclusive)?;
        match self.total {
            Some(total) => write!(f, "{total}"),
            None => f.write_str("*"),
        }
    }
}

fn exact(digits: &str) -> Result<u64, ContentRangeError> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ContentRangeError::Malformed);
    }
    digits.parse().map_err(|_| ContentRangeError::Contradiction)
}
