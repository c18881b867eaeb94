//! A scripted upstream: a TCP server that answers each request as a function says, also in ways
//! that no proper server would.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kuboard_oci::{Digest, Reference, RepositoryName};
use kuboard_registry::{
    client::{Upstream, UpstreamConfig, UpstreamError},
    credentials::{Chain, Credential, Credentials, Secret, Static},
};
use kuboard_rt::{ManualClock, Tasks};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use url::Url;

/// The password in all tests. It must never be seen in an error.
pub(crate) const PASSWORD: &str = "s3cret-pa:ss";

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With its query; an absolute address if we are taken for a proxy.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn authorization(&self) -> &str {
        self.header("authorization").unwrap_or_default()
    }
}

/// What follows the body of a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum After {
    KeepAlive,
    Close,
    Stall,
}

/// One reply.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// `None` sends no Content-Length.
    promised: Option<usize>,
    after: After,
    /// Sent instead of everything else.
    raw: Option<&'static [u8]>,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Reply {
        let (headers, body) = (Vec::new(), Vec::new());
        Reply { status, headers, body, promised: Some(0), after: After::KeepAlive, raw: None }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Reply {
        Reply::new(200).body(body)
    }

    pub(crate) fn redirect(to: impl Into<String>) -> Reply {
        Reply::new(307).with("Location", to)
    }

    pub(crate) fn unauthorized(challenge: impl Into<String>) -> Reply {
        Reply::new(401).with("WWW-Authenticate", challenge)
    }

    /// Bytes in place of an HTTP answer.
    pub(crate) fn garbage(raw: &'static [u8]) -> Reply {
        Reply { raw: Some(raw), ..Reply::new(0) }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Reply {
        self.body = body.into();
        self.promised = Some(self.body.len());
        self
    }

    /// Another Content-Length than that of the body; the connection is closed after it.
    pub(crate) fn promise(mut self, length: usize) -> Reply {
        self.promised = Some(length);
        self.after = After::Close;
        self
    }

    /// No Content-Length: the end of the connection is the end of the body.
    pub(crate) fn unmeasured(mut self) -> Reply {
        self.promised = None;
        self.after = After::Close;
        self
    }

    /// Sends what there is and then nothing, with the connection open.
    pub(crate) fn stall(mut self) -> Reply {
        self.after = After::Stall;
        self
    }

    fn bytes(&self, head_only: bool) -> Vec<u8> {
        if let Some(raw) = self.raw {
            return raw.to_vec();
        }
        let mut text = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        if let Some(promised) = self.promised {
            text += &format!("Content-Length: {promised}\r\n");
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (text + "\r\n").into_bytes();
        if !head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// See the module. Stops when it is dropped.
pub(crate) struct Scripted {
    addr: SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
    _tasks: Tasks,
}

impl Scripted {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let log = Arc::<Mutex<Vec<Seen>>>::default();
        let tasks = Tasks::default();
        let (script, seen, connections) = (Arc::new(script), Arc::clone(&log), tasks.clone());
        tasks.spawn("scripted upstream", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                connections.spawn("scripted connection", async move {
                    // A client may hang up whenever it likes.
                    let _ = converse(stream, &*script, &seen).await;
                });
            }
        });
        Scripted { addr, log, _tasks: tasks }
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn log(&self) -> Vec<Seen> {
        self.log.lock().clone()
    }

    /// Requests whose method and path begin so.
    pub(crate) fn count(&self, start: &str) -> usize {
        let matching = |seen: &&Seen| format!("{} {}", seen.method, seen.path).starts_with(start);
        self.log.lock().iter().filter(matching).count()
    }

    pub(crate) fn hits(&self) -> usize {
        self.log.lock().len()
    }
}

async fn converse(
    stream: TcpStream,
    script: &(dyn Fn(&Seen) -> Reply + Send + Sync),
    log: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(seen) = read(&mut stream).await? else { return Ok(()) };
        log.lock().push(seen.clone());
        let reply = script(&seen);
        stream.write_all(&reply.bytes(seen.method == "HEAD")).await?;
        stream.flush().await?;
        match reply.after {
            After::KeepAlive if reply.raw.is_none() => {}
            After::KeepAlive | After::Close => return stream.shutdown().await,
            // Until the client gives up.
            After::Stall => {
                stream.read_to_end(&mut Vec::new()).await?;
            }
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Seen>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => break,
        }
    }
    let mut seen = Seen { method, path, headers, body: String::new() };
    let length = seen.header("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    seen.body = String::from_utf8(body).unwrap();
    Ok(Some(seen))
}

/// An upstream under test, its clock and its metrics.
pub(crate) struct Rig {
    pub(crate) upstream: Upstream,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) metrics: prometheus::Registry,
}

impl Rig {
    /// A sample of the metrics page, such as `name{a="b"}`; 0 if there is none.
    pub(crate) fn metric(&self, sample: &str) -> i64 {
        let mut page = String::new();
        prometheus::TextEncoder::new().encode_utf8(&self.metrics.gather(), &mut page).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

/// What an upstream under test is made of.
pub(crate) struct Setup {
    pub(crate) config: UpstreamConfig,
    pub(crate) credentials: Arc<dyn Credentials>,
}

impl Setup {
    /// The upstream `upstream.test` at these addresses, the last being its own.
    pub(crate) fn new(endpoints: &[&str]) -> Setup {
        let endpoints = endpoints.iter().map(|url| Url::parse(url).unwrap()).collect();
        let config = UpstreamConfig::new("upstream.test", endpoints);
        Setup { config, credentials: Arc::new(Chain::default()) }
    }

    /// Gives up soon: for cases that end in a timeout, and for no other, as a machine under load
    /// may be slower than this.
    pub(crate) fn impatient_if(self, ends_in_timeout: bool) -> Setup {
        self.configure(|config| {
            if ends_in_timeout {
                config.connect_timeout = Duration::from_millis(200);
                config.read_timeout = Duration::from_millis(200);
            }
        })
    }

    pub(crate) fn configure(mut self, change: impl FnOnce(&mut UpstreamConfig)) -> Setup {
        change(&mut self.config);
        self
    }

    /// With a user name and [`PASSWORD`].
    pub(crate) fn user(self, name: &str) -> Setup {
        self.credential(Credential::Basic {
            user: name.to_owned(),
            password: Secret::new(PASSWORD),
        })
    }

    pub(crate) fn credential(self, credential: Credential) -> Setup {
        self.source(Arc::new(Static::new("upstream.test", credential)))
    }

    pub(crate) fn source(self, credentials: Arc<dyn Credentials>) -> Setup {
        Setup { credentials, ..self }
    }

    pub(crate) fn build(self) -> Rig {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let clock = Arc::new(ManualClock::new(784_111_777_000));
        let metrics = prometheus::Registry::new();
        let at: Arc<ManualClock> = Arc::clone(&clock);
        let upstream = Upstream::with_clock(self.config, self.credentials, &metrics, at).unwrap();
        Rig { upstream, clock, metrics }
    }
}

pub(crate) fn repository(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

pub(crate) fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

pub(crate) const MANIFEST: &str = r#"{"schemaVersion":2,
 "mediaType":"application/vnd.oci.image.manifest.v1+json", "kept": "as it is"}"#;
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) fn manifest_digest() -> Digest {
    Digest::sha256(MANIFEST.as_bytes())
}

/// The proper answer to a question about [`MANIFEST`].
pub(crate) fn manifest() -> Reply {
    Reply::ok(MANIFEST)
        .with("Content-Type", MANIFEST_TYPE)
        .with("Docker-Content-Digest", manifest_digest().to_string())
}

/// The outcome of a request in one line: `ok …`, or the kind and the whole chain of an error,
/// which holds no secret.
#[track_caller]
pub(crate) fn told<T>(outcome: Result<T, UpstreamError>, ok: impl Fn(T) -> String) -> String {
    match outcome {
        Ok(value) => format!("ok {}", ok(value)),
        Err(error) => {
            let mut line = format!("{}: {error}", error.kind.as_str());
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                line += &format!(": {cause}");
                source = cause.source();
            }
            assert!(!line.contains(PASSWORD) && !line.contains("czNjcmV0"), "{line}");
            line
        }
    }
}

/// Asserts that a line begins with one text and holds another.
#[track_caller]
pub(crate) fn expect(case: &str, line: &str, start: &str, part: &str) {
    assert!(line.starts_with(start) && line.contains(part), "{case}: {line}");
}
