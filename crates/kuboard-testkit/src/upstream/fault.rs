//! What the fake upstream does wrong, and on which requests.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::http::Headers;
use crate::server::{Received, Reply};
use crate::upstream::{Noted, Planned, pause};

/// Which requests are meant: by method (any, if none is said) and by a part of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct On {
    method: Option<&'static str>,
    part: String,
}

impl On {
    /// Every request.
    pub fn any() -> On {
        On::path("")
    }

    /// Requests for manifests, by tag or digest.
    pub fn manifests() -> On {
        On::path("/manifests/")
    }

    /// Requests for blobs.
    pub fn blobs() -> On {
        On::path("/blobs/")
    }

    /// Requests for tokens.
    pub fn token() -> On {
        On::path("/token")
    }

    /// Requests whose path contains this.
    pub fn path(part: impl ToString) -> On {
        On { method: None, part: part.to_string() }
    }

    /// Only with this method.
    pub fn method(mut self, method: &'static str) -> On {
        self.method = Some(method);
        self
    }

    pub(crate) fn fits(&self, method: &str, path: &str) -> bool {
        self.method.is_none_or(|wanted| wanted == method) && path.contains(&self.part)
    }
}

/// One way to fail.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers this status instead, with these header fields and an error body.
    Status(u16, Headers),
    /// Sends as many bytes as it should, but one of them is wrong.
    WrongBytes,
    /// Promises the whole body and hangs up after this many bytes of it.
    Cut {
        /// Bytes before the end.
        after: usize,
    },
    /// Hangs up without an answer.
    Drop,
    /// Sends the body in pieces with pauses between them.
    Drip {
        /// Bytes a piece.
        piece: usize,
        /// Time between two pieces.
        pause: Duration,
    },
    /// Waits before it answers as it should.
    Delay(Duration),
    /// Ignores `Range`: answers 200 with the whole blob.
    NoRange,
    /// Sends the caller to `base` followed by the path.
    Redirect {
        /// Scheme, host and port, perhaps a prefix of the path.
        base: String,
    },
    /// Leaves out this header field.
    Without(String),
    /// `Content-Length` is wrong by this much; the connection ends after the true body.
    Length(i64),
    /// This many bytes too many at the end of the body, `Content-Length` fitting.
    Oversize(usize),
}

impl Fault {
    /// This status, and no header field but the type of the error body.
    pub fn status(code: u16) -> Fault {
        Fault::Status(code, Headers::default())
    }

    /// 429, asking to wait this many seconds.
    pub fn throttled(seconds: u64) -> Fault {
        let mut headers = Headers::default();
        headers.add("Retry-After", seconds.to_string());
        Fault::Status(429, headers)
    }

    /// 307 to `base` followed by the path. With the upstream's own URL it never ends.
    pub fn redirect(base: impl Into<String>) -> Fault {
        Fault::Redirect { base: base.into() }
    }
}

/// Sends what was planned, spoilt by the fault.
pub(crate) fn apply(
    fault: Option<&Fault>,
    planned: Planned,
    request: &Received,
    reply: &mut Reply,
    noted: &Noted,
) -> Result<()> {
    if let Some(Fault::Drop) = fault {
        bail!("dropped as told");
    }
    let planned = match fault {
        Some(fault) => spoil(fault, planned, request),
        None => planned,
    };
    let mut length = planned.bytes().len() as u64;
    if let Some(Fault::Length(difference)) = fault {
        length = length.saturating_add_signed(*difference);
        reply.close();
    }
    noted.status.store(planned.status, Ordering::SeqCst);
    reply.head(planned.status, &planned.headers, Some(length))?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let send = |piece: &[u8], reply: &mut Reply| -> Result<()> {
        noted.bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
        reply.body(piece).map(drop)
    };
    let bytes = planned.bytes();
    match fault {
        Some(Fault::Cut { after }) => {
            send(&bytes[..bytes.len().min(*after)], reply)?;
            bail!("cut as told");
        }
        Some(Fault::Drip { piece, pause: time }) => {
            for piece in bytes.chunks((*piece).max(1)) {
                send(piece, reply)?;
                pause(*time, reply);
                if reply.stopping() {
                    bail!("the server stops");
                }
            }
            Ok(())
        }
        // In pieces, so that about what a client took before it hung up is counted.
        _ => bytes.chunks(64 * 1024).try_for_each(|piece| send(piece, reply)),
    }
}

/// The answer that the fault makes of the right one; faults of the connection change nothing here.
fn spoil(fault: &Fault, mut planned: Planned, request: &Received) -> Planned {
    match fault {
        Fault::Status(code, headers) => {
            planned = Planned::error(*code, "UNKNOWN", "as scripted by the test");
            for (name, value) in headers.iter() {
                planned.headers.add(name, value);
            }
        }
        Fault::Redirect { base } => {
            planned = Planned::whole(307, Headers::default(), Vec::new().into());
            planned.headers.add("Location", format!("{base}{}", request.path));
        }
        Fault::WrongBytes if !planned.bytes().is_empty() => {
            let mut bytes = planned.body.to_vec();
            let middle = planned.range.start + planned.bytes().len() / 2;
            bytes[middle] ^= 0xff;
            planned.body = bytes.into();
        }
        Fault::Oversize(extra) => {
            let mut bytes = planned.bytes().to_vec();
            bytes.resize(bytes.len() + extra, b' ');
            planned.range = 0..bytes.len();
            planned.body = bytes.into();
        }
        Fault::Without(name) => {
            let mut headers = Headers::default();
            for (other, value) in planned.headers.iter() {
                if !other.eq_ignore_ascii_case(name) {
                    headers.add(other, value);
                }
            }
            planned.headers = headers;
        }
        _ => {}
    }
    planned
}
