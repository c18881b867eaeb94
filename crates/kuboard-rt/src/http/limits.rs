//! What a stranger may cost us.

use std::time::Duration;

/// This many headers the HTTP library parses without allocating.
pub(crate) const FREE_HEADERS: usize = 100;

/// Bounds of one listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The TLS handshake, the head of a request, and the pause before the next request on a
    /// kept HTTP/1.1 connection may each take this long.
    pub header_timeout: Duration,
    /// A body, either way, must make progress within this time.
    pub idle_timeout: Duration,
    /// Bytes of a request's head (request line and all headers). Larger is answered 431.
    pub max_header_bytes: usize,
    /// Number of headers of a request. More is answered 431.
    pub max_headers: usize,
    /// Open connections. More wait in the kernel's backlog.
    pub max_connections: usize,
    /// Concurrent requests of one HTTP/2 connection.
    pub max_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            max_header_bytes: 64 << 10,
            max_headers: FREE_HEADERS,
            max_connections: 8192,
            max_streams: 128,
        }
    }
}
