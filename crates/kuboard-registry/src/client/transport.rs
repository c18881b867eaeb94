//! One HTTP request, one answer: TLS, proxies of the environment, time limits. Redirects and
//! credentials are not known here.
//!
//! HTTP/1.1 only: blobs want connections of their own, and manifests are small.

use std::{io, path::Path, sync::OnceLock, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use url::Url;

use super::{
    boundary::is_local,
    config::{InvalidUpstream, UpstreamConfig},
    error::{Failure, UpstreamErrorKind},
};

/// How we call ourselves.
pub(crate) const USER_AGENT: &str = concat!("kuboard/", env!("CARGO_PKG_VERSION"));

/// How long idle connections are kept. Below the minute after which most servers close them.
const IDLE: Duration = Duration::from_secs(50);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// What is read of an unwanted body to keep its connection.
const DRAIN: usize = 8 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(super) struct Transport {
    roots: Vec<reqwest::Certificate>,
    insecure: bool,
    /// All endpoints are on this machine, where no proxy is wanted.
    direct: bool,
    connect_timeout: Duration,
    read_timeout: Duration,
    idle: usize,
    /// Made at the first use: most configured upstreams are never asked, and each client holds
    /// the certificates of the system.
    client: OnceLock<Result<reqwest::Client, Failure>>,
}

impl Transport {
    pub(super) fn new(config: &UpstreamConfig) -> Result<Transport, InvalidUpstream> {
        let roots = match &config.ca_file {
            Some(path) => certificates(path).map_err(|source| InvalidUpstream::CaFile {
                upstream: config.name.clone(),
                path: path.clone(),
                source,
            })?,
            None => Vec::new(),
        };
        let local = |url: &Url| url.host_str().is_some_and(is_local);
        Ok(Transport {
            roots,
            insecure: config.insecure_skip_verify,
            direct: config.endpoints.iter().all(local),
            connect_timeout: config.connect_timeout,
            read_timeout: config.read_timeout,
            idle: config.concurrency,
            client: OnceLock::new(),
        })
    }

    pub(super) fn read_timeout(&self) -> Duration {
        self.read_timeout
    }

    fn client(&self) -> Result<&reqwest::Client, Failure> {
        let made = self.client.get_or_init(|| {
            let mut builder = reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .http1_only()
                .tcp_keepalive(KEEP_ALIVE)
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(self.idle)
                .connect_timeout(self.connect_timeout)
                .tls_certs_merge(self.roots.iter().cloned());
            if self.insecure {
                builder = builder.tls_danger_accept_invalid_certs(true);
            }
            if self.direct {
                builder = builder.no_proxy();
            }
            builder.build().map_err(|error| {
                Failure::new(
                    UpstreamErrorKind::Refused,
                    "TLS cannot be set up; hint: install the system's ca-certificates, or give \
                     the upstream a caFile",
                )
                .because(error)
            })
        });
        made.as_ref().map_err(Failure::clone)
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        method: Method,
        url: Url,
        mut headers: HeaderMap,
        body: Option<String>,
    ) -> Result<reqwest::Response, Failure> {
        if method == Method::POST && body.is_none() {
            // Nobody sets it for a body that is not there, and some servers insist on it (411).
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = self.client()?.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        let bound = self.connect_timeout + self.read_timeout;
        match tokio::time::timeout(bound, request.send()).await {
            Ok(answer) => answer.map_err(failure),
            Err(_) => {
                let message = format!("no answer within {} s", bound.as_secs_f32());
                Err(Failure::new(UpstreamErrorKind::Timeout, message).unhealthy())
            }
        }
    }

    /// Puts content, for which there is `extra` time, and waits for the head of the answer.
    pub(super) async fn put(
        &self,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
        extra: Duration,
    ) -> Result<reqwest::Response, Failure> {
        let request = self.client()?.put(url).headers(headers).body(body);
        let bound = self.connect_timeout + self.read_timeout * 2 + extra;
        match tokio::time::timeout(bound, request.send()).await {
            Ok(answer) => answer.map_err(failure),
            Err(_) => {
                let message = format!("it took more than {} s", bound.as_secs_f32());
                Err(Failure::new(UpstreamErrorKind::Timeout, message).unhealthy())
            }
        }
    }

    /// A whole body of at most `max` bytes, within four times the read timeout.
    pub(super) async fn body(
        &self,
        response: reqwest::Response,
        max: usize,
    ) -> Result<Bytes, Failure> {
        match tokio::time::timeout(self.read_timeout * 4, read_bounded(response, max)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(Failure::invalid(error.to_string()))
            }
            Ok(Err(error)) => {
                let broken = "its answer broke off";
                Err(Failure::new(UpstreamErrorKind::Unavailable, broken).because(error).unhealthy())
            }
            Err(_) => {
                let slow = "its answer did not end in time";
                Err(Failure::new(UpstreamErrorKind::Timeout, slow).unhealthy())
            }
        }
    }
}

fn certificates(
    path: &Path,
) -> Result<Vec<reqwest::Certificate>, Box<dyn std::error::Error + Send + Sync>> {
    let pem = std::fs::read(path)?;
    let roots = reqwest::Certificate::from_pem_bundle(&pem)?;
    if roots.is_empty() {
        return Err("it holds no certificate".into());
    }
    Ok(roots)
}

/// Says what happened without the address, which may hold a signature.
fn failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let (kind, message) = if error.is_timeout() {
        (UpstreamErrorKind::Timeout, "no connection in time")
    } else if error.is_connect() {
        (UpstreamErrorKind::Unavailable, "cannot be reached")
    } else {
        (UpstreamErrorKind::Unavailable, "broke the connection")
    };
    Failure::new(kind, message).because(error).unhealthy()
}

/// A whole body of at most `max` bytes. A larger one is [`io::ErrorKind::FileTooLarge`].
pub(crate) async fn read_bounded(mut response: reqwest::Response, max: usize) -> io::Result<Bytes> {
    let too_large =
        || io::Error::new(io::ErrorKind::FileTooLarge, format!("its answer is above {max} bytes"));
    let promised = response.content_length().unwrap_or(0);
    if usize::try_from(promised).map_or(true, |promised| promised > max) {
        return Err(too_large());
    }
    let mut pieces = Vec::new();
    let mut length = 0;
    while let Some(piece) =
        response.chunk().await.map_err(|error| io::Error::other(error.without_url()))?
    {
        length += piece.len();
        if length > max {
            return Err(too_large());
        }
        pieces.push(piece);
    }
    // Most answers come in one piece.
    Ok(if pieces.len() == 1 { pieces.remove(0) } else { pieces.concat().into() })
}

/// Reads what is left of a short answer that nobody wants, so that its connection can be used
/// again.
pub(super) async fn drain(response: reqwest::Response) -> Bytes {
    let read = tokio::time::timeout(DRAIN_TIMEOUT, read_bounded(response, DRAIN));
    read.await.ok().and_then(Result::ok).unwrap_or_default()
}
