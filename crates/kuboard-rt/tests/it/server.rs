//! A listener for one test, and clients to talk to it.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kuboard_rt::http::{Bound, Handler, Limits, bind};
use kuboard_rt::tls::Certificates;
use kuboard_rt::{Mapping, Tasks};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing in these tests takes long; this only keeps a broken one from hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at something that is about to happen.
pub(crate) const MOMENT: Duration = Duration::from_millis(5);

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) tasks: Tasks,
}

impl Server {
    pub(crate) async fn plain(handler: Arc<dyn Handler>) -> Self {
        Self::start(handler, None, Limits::default()).await
    }

    pub(crate) async fn start(
        handler: Arc<dyn Handler>,
        certificates: Option<Arc<Certificates>>,
        limits: Limits,
    ) -> Self {
        let loopback = ([127, 0, 0, 1], 0).into();
        Self::serve(bind(loopback, certificates, limits).await.unwrap(), handler)
    }

    pub(crate) fn serve(bound: Bound, handler: Arc<dyn Handler>) -> Self {
        let addr = bound.local_addr().unwrap_or(([0, 0, 0, 0], 0).into());
        let tasks = Tasks::default();
        let stop = tasks.shutdown();
        tasks.spawn("server", async move { bound.serve(handler, stop, PATIENCE).await.unwrap() });
        Self { addr, tasks }
    }

    /// Stops the server and waits until nothing of it runs.
    pub(crate) async fn stop(self) {
        self.tasks.drain(PATIENCE).await;
        assert_eq!(self.tasks.running(), 0);
    }

    pub(crate) async fn connect(&self) -> Raw<TcpStream> {
        Raw(TcpStream::connect(self.addr).await.unwrap())
    }

    /// HTTP/2 without TLS.
    pub(crate) async fn http2(&self) -> Client {
        Client::http2(TcpStream::connect(self.addr).await.unwrap(), &self.tasks).await
    }
}

/// A client that writes and reads bytes.
pub(crate) struct Raw<S>(pub S);

#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one response. `has_body` is false for the answer to HEAD.
    pub(crate) async fn answer(&mut self, has_body: bool) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = Vec::new();
        if !has_body {
        } else if let Some(len) = header(&head, "content-length") {
            body.resize(len.parse().unwrap(), 0);
            self.0.read_exact(&mut body).await.unwrap();
        } else if header(&head, "transfer-encoding") == Some("chunked") {
            body = self.chunks().await;
        }
        Answer { status, head, body }
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(self.0.read_u8().await.unwrap());
            }
            let len = std::str::from_utf8(&line).unwrap().trim();
            let mut chunk = vec![0; usize::from_str_radix(len, 16).unwrap() + 2];
            self.0.read_exact(&mut chunk).await.unwrap();
            chunk.truncate(chunk.len() - 2);
            if chunk.is_empty() {
                return body;
            }
            body.extend(chunk);
        }
    }

    /// Everything up to the end of the connection, which may be a reset.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut all)).await.unwrap();
        all
    }
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A client of the HTTP library, over one connection.
pub(crate) enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub(crate) async fn http1<S>(stream: S, tasks: &Tasks) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tasks.spawn("client", async move { drop(connection.await) });
        Self::Http1(client)
    }

    pub(crate) async fn http2<S>(stream: S, tasks: &Tasks) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let builder = builder.timer(TokioTimer::new()).initial_stream_window_size(64 << 10);
        let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tasks.spawn("client", async move { drop(connection.await) });
        Self::Http2(client)
    }

    pub(crate) async fn send(
        &mut self,
        request: http::request::Builder,
        body: &'static [u8],
    ) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        let request = request.body(Full::from(body)).unwrap();
        match self {
            Self::Http1(client) => {
                client.ready().await?;
                client.send_request(request).await
            }
            Self::Http2(client) => {
                client.ready().await?;
                client.send_request(request).await
            }
        }
    }

    /// GET, and the whole body.
    pub(crate) async fn get(&mut self, path: &str) -> (http::response::Parts, Bytes) {
        let uri = format!("http://localhost{path}");
        let request = http::Request::get(uri).header("host", "localhost");
        let (parts, body) = self.send(request, b"").await.unwrap().into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    }
}

/// What a client saw of a TLS handshake.
pub(crate) struct Handshake {
    pub(crate) stream: tokio_rustls::client::TlsStream<TcpStream>,
    /// The server's certificate.
    pub(crate) leaf: Vec<u8>,
    pub(crate) group: rustls::NamedGroup,
}

/// Connects to `addr` as `name`, trusting `ca_pem` only.
pub(crate) async fn tls_connect(
    addr: SocketAddr,
    name: &str,
    ca_pem: &str,
    alpn: &[u8],
) -> std::io::Result<Handshake> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    // As browsers and Go do, the hybrid comes first.
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.insert(0, rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768);
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = connector.connect(name, TcpStream::connect(addr).await?).await?;
    let tls = stream.get_ref().1;
    let leaf = tls.peer_certificates().unwrap()[0].to_vec();
    let group = tls.negotiated_key_exchange_group().unwrap().name();
    Ok(Handshake { stream, leaf, group })
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i ^ (i >> 8) ^ (i >> 17).wrapping_mul(7)) as u8).collect()
}

pub(crate) fn mapped(bytes: &[u8]) -> Arc<Mapping> {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    Mapping::from_file(file).unwrap()
}
