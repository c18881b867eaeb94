//! HTTP/1.1 in the open, for tests that must see or spoil single bytes: a message head reader that
//! both the scripted servers and the blocking client use, and that client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kuboard_oci::{Algorithm, Digest, Hasher};

/// How long an answer may take in all if the request does not say.
const PATIENCE: Duration = Duration::from_secs(300);

/// Header fields in the order received; names compare without case.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Adds a field.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Headers {
    fn from(fields: [(&str, &str); N]) -> Headers {
        Headers(fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }
}

/// Reads a start line and the header fields up to the empty line. None at a clean end.
pub(crate) fn read_head(reader: &mut impl BufRead) -> Result<Option<(String, Headers)>> {
    let mut start = String::new();
    if reader.read_line(&mut start)? == 0 {
        return Ok(None);
    }
    let mut headers = Headers::default();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            bail!("the connection ended inside a message head");
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(Some((start.trim_end().to_owned(), headers)));
        }
        let (name, value) = line.split_once(':').context("a header line without a colon")?;
        headers.add(name, value.trim());
    }
}

/// A request to send. The connection is closed after its answer.
#[derive(Clone, Default, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Headers,
    body: Vec<u8>,
    within: Option<Duration>,
}

impl Request {
    /// A request for `target` (path and query) with this method.
    pub fn new(method: &str, target: impl Into<String>) -> Request {
        Request { method: method.to_owned(), target: target.into(), ..Request::default() }
    }

    /// GET `target`.
    pub fn get(target: impl Into<String>) -> Request {
        Request::new("GET", target)
    }

    /// With one more header field. A `Host` given here replaces the address.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Request {
        self.headers.add(name, value);
        self
    }

    /// With a body of known length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    /// Fails when the answer has not come to its end by then.
    pub fn within(mut self, time: Duration) -> Request {
        self.within = Some(time);
        self
    }

    /// Sends it to `address` (host:port) and reads the answer's head; the body is read from the
    /// value.
    pub fn open(self, address: &str) -> Result<Incoming> {
        let started = Instant::now();
        let within = self.within.unwrap_or(PATIENCE);
        let mut stream = TcpStream::connect(address).with_context(|| format!("reach {address}"))?;
        stream.set_read_timeout(Some(within))?;
        stream.set_write_timeout(Some(within))?;
        stream.set_nodelay(true)?;
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if self.headers.get("host").is_none() {
            head.push_str(&format!("Host: {address}\r\n"));
        }
        for (name, value) in self.headers.iter() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let sends = matches!(self.method.as_str(), "POST" | "PUT" | "PATCH");
        if (sends || !self.body.is_empty()) && self.headers.get("content-length").is_none() {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        // A server may answer (413, 401) and close before it has read everything.
        let sent = stream.write_all(&self.body);
        Incoming::read(stream, (started, within), self.method == "HEAD").or_else(|error| match sent
        {
            Ok(()) => Err(error),
            Err(cause) => Err(cause).context("send the request's body"),
        })
    }

    /// Sends it and reads the whole answer.
    pub fn send(self, address: &str) -> Result<Answer> {
        let line = format!("{} {}", self.method, self.target);
        let mut incoming = self.open(address).with_context(|| line.clone())?;
        let mut body = Vec::new();
        incoming.read_to_end(&mut body).with_context(|| format!("{line}: read the body"))?;
        Ok(Answer { status: incoming.status, headers: incoming.headers, body })
    }
}

/// An answer read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// An answer whose body is still being read. Dropping it hangs up.
pub struct Incoming {
    /// Status code.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    started: Instant,
    within: Duration,
    reader: BufReader<TcpStream>,
    left: Left,
}

/// What is left of a body.
enum Left {
    /// This many bytes.
    Bytes(u64),
    /// This many bytes of the present chunk, and more chunks.
    Chunk(u64),
    /// Everything until the connection ends.
    ToEnd,
}

impl Incoming {
    fn read(
        stream: TcpStream,
        (started, within): (Instant, Duration),
        head_only: bool,
    ) -> Result<Incoming> {
        let mut reader = BufReader::with_capacity(256 * 1024, stream);
        let (start, headers) = read_head(&mut reader)?.context("closed without an answer")?;
        let status: u16 = start
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .with_context(|| format!("not a status line: {start:?}"))?;
        let chunked = headers.get("transfer-encoding").is_some_and(|it| it.contains("chunked"));
        let left = match headers.get("content-length") {
            _ if head_only || status == 204 || status == 304 => Left::Bytes(0),
            _ if chunked => Left::Chunk(0),
            Some(length) => Left::Bytes(length.parse()?),
            None => Left::ToEnd,
        };
        Ok(Incoming { status, headers, started, within, reader, left })
    }

    /// Time since the request was begun.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Reads the body to its end, keeping only its length and digest.
    pub fn digest(mut self) -> Result<(u64, Digest)> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut piece = vec![0; 256 * 1024];
        let mut length = 0;
        loop {
            let count = self.read(&mut piece)?;
            if count == 0 {
                return Ok((length, hasher.finish()));
            }
            hasher.update(&piece[..count]);
            length += count as u64;
        }
    }

    fn next_chunk(&mut self) -> std::io::Result<u64> {
        let bad = || std::io::Error::other("malformed chunk");
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            line.clear();
            self.reader.read_line(&mut line)?;
        }
        let digits = line.trim().split(';').next().unwrap_or_default();
        u64::from_str_radix(digits, 16).map_err(|_| bad())
    }
}

impl Read for Incoming {
    /// An early end of a body of known length is an error, and so is one that comes too late.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.started.elapsed() > self.within {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let left = match self.left {
            Left::ToEnd => return self.reader.read(buffer),
            Left::Chunk(0) => match self.next_chunk()? {
                0 => {
                    self.left = Left::Bytes(0);
                    return Ok(0);
                }
                size => size,
            },
            Left::Bytes(left) | Left::Chunk(left) => left,
        };
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.reader.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!("the body ended {left} bytes early"),
            ));
        }
        let left = left - count as u64;
        self.left = match self.left {
            Left::Chunk(_) => Left::Chunk(left),
            _ => Left::Bytes(left),
        };
        Ok(count)
    }
}
