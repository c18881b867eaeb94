//! A small blocking HTTP/1.1 server on loopback whose handler writes the answer's bytes itself,
//! so that it can also write them wrong. The fake upstream and the token issuer stand on it.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};

use crate::http::{Headers, read_head};

/// Largest request body that is read.
const MAX_BODY: u64 = 64 << 20;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method, upper case.
    pub method: String,
    /// Path, still percent-encoded.
    pub path: String,
    /// What follows the question mark, or nothing.
    pub query: String,
    /// Header fields.
    pub headers: Headers,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Received {
    /// The first value of a query parameter, percent-decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).into_iter().next()
    }

    /// All values of a query parameter, percent-decoded.
    pub fn parameters(&self, name: &str) -> Vec<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| percent_decode(value)).collect()
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                bytes.extend(u8::from_str_radix(digits, 16).ok());
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The way back to the client: raw bytes of one connection.
pub struct Reply {
    stream: TcpStream,
    stop: Arc<AtomicBool>,
    head_only: bool,
    closing: bool,
}

impl Reply {
    /// A whole answer with a correct `Content-Length`; the body is left out for HEAD.
    pub fn send(&mut self, status: u16, headers: &Headers, body: &[u8]) -> Result<u64> {
        self.head(status, headers, Some(body.len() as u64))?;
        self.body(body)
    }

    /// Status line and header fields. `length` None promises nothing and closes at the end.
    pub fn head(&mut self, status: u16, headers: &Headers, length: Option<u64>) -> Result<()> {
        let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
        for (name, value) in headers.iter() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match length {
            Some(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
            None => self.close(),
        }
        if self.closing {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        Ok(self.stream.write_all(head.as_bytes())?)
    }

    /// Body bytes as they are; the number that was written (none for HEAD).
    pub fn body(&mut self, bytes: &[u8]) -> Result<u64> {
        if self.head_only {
            return Ok(0);
        }
        self.stream.write_all(bytes)?;
        Ok(bytes.len() as u64)
    }

    /// The connection ends after this answer.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Whether the server is being stopped: long answers look at this between pieces.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

type Handler = dyn Fn(&Received, &mut Reply) -> Result<()> + Send + Sync;

/// The listening server. Dropping it closes the port and every connection.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    stop: Arc<AtomicBool>,
    connections: Mutex<HashMap<u64, TcpStream>>,
    next: AtomicU64,
    handler: Box<Handler>,
}

impl Server {
    /// Listens on `address` (port 0: any) and answers each request by `handler`, one thread a
    /// connection. An error of the handler closes the connection.
    pub fn start(
        address: &str,
        handler: impl Fn(&Received, &mut Reply) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Server> {
        let listener = TcpListener::bind(address).with_context(|| format!("bind {address}"))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            stop: Arc::default(),
            connections: Mutex::default(),
            next: AtomicU64::default(),
            handler: Box::new(handler),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.connection(stream));
            }
        });
        Ok(Server { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then sees the flag; a refused connection means it is gone.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for stream in lock(&self.shared.connections).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn connection(&self, stream: TcpStream) {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        if let Ok(copy) = stream.try_clone() {
            lock(&self.connections).insert(id, copy);
        }
        if self.stop.load(Ordering::SeqCst) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // A client that hangs up, or a fault that cuts the answer, is the test's own doing.
        let _ = self.answer_all(&stream);
        let _ = stream.shutdown(Shutdown::Both);
        lock(&self.connections).remove(&id);
    }

    fn answer_all(&self, stream: &TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut reply = Reply {
            stream: stream.try_clone()?,
            stop: Arc::clone(&self.stop),
            head_only: false,
            closing: false,
        };
        while let Some((line, headers)) = read_head(&mut reader)? {
            let mut words = line.split(' ');
            let (Some(method), Some(target)) = (words.next(), words.next()) else {
                bail!("not a request line: {line:?}");
            };
            let length = headers.get("content-length").map_or(Ok(0), str::parse::<u64>)?;
            if length > MAX_BODY {
                bail!("a request body of {length} bytes");
            }
            let mut body = Vec::new();
            (&mut reader).take(length).read_to_end(&mut body)?;
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let received = Received {
                method: method.to_owned(),
                path: path.to_owned(),
                query: query.to_owned(),
                headers,
                body,
            };
            reply.head_only = received.method == "HEAD";
            (self.handler)(&received, &mut reply)?;
            if reply.closing {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The guard of a lock whose holder may have panicked in a failing test.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
