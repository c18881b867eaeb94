//! A scripted upstream registry on loopback. It serves images from memory, misbehaves exactly as
//! told, and remembers every request with the bytes that it sent for it.
//!
//! A fault applies to the requests that its [`On`] describes, either for good or a given number of
//! times; the first fitting fault wins.

mod content;
mod fault;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kuboard_oci::Digest;

pub use fault::{Fault, On};

use crate::http::Headers;
use crate::image::{Blob, Image};
use crate::server::{Received, Reply, Server, lock};
use content::{Content, Found};

/// A request that came in, and what went out for it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path, without the query.
    pub path: String,
    /// Query string.
    pub query: String,
    /// All header fields of the request.
    pub headers: Headers,
    /// Status that was answered; 0 for a connection dropped without one.
    pub status: u16,
    /// Body bytes that were handed to the connection.
    pub bytes: u64,
}

/// A request that is being answered; its counters grow with the answer, ahead of the bytes, so
/// that a client who has read them finds them counted.
pub(crate) struct Noted {
    request: Seen,
    status: AtomicU16,
    bytes: AtomicU64,
}

impl Noted {
    fn seen(&self) -> Seen {
        Seen {
            status: self.status.load(Ordering::SeqCst),
            bytes: self.bytes.load(Ordering::SeqCst),
            ..self.request.clone()
        }
    }
}

/// What the upstream asks of its callers.
#[derive(Clone, Debug)]
pub enum Login {
    /// HTTP Basic on every request.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// A Bearer token of its token endpoint, which asks for HTTP Basic when a user is named.
    Token(TokenLogin),
}

/// How the token endpoint behaves.
#[derive(Clone, Debug, Default)]
pub struct TokenLogin {
    /// User and password that it wants; None hands tokens to anybody.
    pub user: Option<(String, String)>,
    /// The realm that challenges name; None is this server's own `/token`.
    pub realm: Option<String>,
    /// Answers `access_token` instead of `token`.
    pub access_token_field: bool,
    /// Seconds in `expires_in`; None leaves it out, as it does `issued_at`.
    pub expires_in: Option<u64>,
}

/// The registry. Dropping it closes its port and connections.
pub struct FakeUpstream {
    state: Arc<State>,
    server: Option<Server>,
    address: SocketAddr,
}

#[derive(Default)]
struct State {
    content: Mutex<Content>,
    faults: Mutex<Vec<(On, Fault, Option<u32>)>>,
    seen: Mutex<Vec<Arc<Noted>>>,
    login: Mutex<Option<Login>>,
    tokens: Mutex<Vec<(String, String)>>,
    headers: Mutex<Headers>,
    refuse_authorization: Mutex<bool>,
}

impl FakeUpstream {
    /// Starts on a free port of 127.0.0.1, empty and without faults.
    pub fn start() -> Result<FakeUpstream> {
        FakeUpstream::start_on("127.0.0.1:0")
    }

    /// Starts on this address; another loopback address (127.0.0.2) is another host to a client.
    pub fn start_on(address: &str) -> Result<FakeUpstream> {
        let state = Arc::new(State::default());
        let server = serve(&state, address)?;
        Ok(FakeUpstream { address: server.address(), state, server: Some(server) })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes the port and every connection, as a dead machine would.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Listens again where it did before.
    pub fn revive(&mut self) -> Result<()> {
        if self.server.is_none() {
            self.server = Some(serve(&self.state, &self.address())?);
        }
        Ok(())
    }

    /// Serves the image, its children and its blobs in `repository`, and under `tag`.
    pub fn put(&self, repository: &str, tag: &str, image: &Image) {
        let mut content = lock(&self.state.content);
        content.put_image(repository, image);
        content.tag(repository, tag, &image.digest);
    }

    /// Serves these bytes as the manifest that `reference` names, whatever they are.
    pub fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) {
        lock(&self.state.content).put_manifest(repository, reference, media_type, bytes);
    }

    /// Serves a blob that no manifest names, in every repository.
    pub fn put_blob(&self, blob: &Blob) {
        lock(&self.state.content).put_blob(blob);
    }

    /// Forgets a tag; what it named stays.
    pub fn delete_tag(&self, repository: &str, tag: &str) {
        lock(&self.state.content).delete_tag(repository, tag);
    }

    /// From now on (`times` None: for good) does this on these requests. The first fitting fault
    /// that was added wins.
    pub fn fault(&self, on: On, fault: Fault, times: Option<u32>) {
        lock(&self.state.faults).push((on, fault, times));
    }

    /// Behaves again.
    pub fn heal(&self) {
        lock(&self.state.faults).clear();
    }

    /// Asks for this of every caller; tokens given out before are no longer taken.
    pub fn require(&self, login: Login) {
        *lock(&self.state.login) = Some(login);
        self.revoke_tokens();
    }

    /// No token given out so far is taken any longer.
    pub fn revoke_tokens(&self) {
        lock(&self.state.tokens).clear();
    }

    /// Refuses every request that carries credentials, as blob stores behind a redirect do.
    pub fn refuse_authorization(&self) {
        *lock(&self.state.refuse_authorization) = true;
    }

    /// Adds a header field to every answer (`ratelimit-remaining`, for example).
    pub fn answer_with(&self, name: &str, value: &str) {
        let mut headers = lock(&self.state.headers);
        let kept: Vec<(String, String)> = headers
            .iter()
            .filter(|(other, _)| !other.eq_ignore_ascii_case(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        *headers = Headers::default();
        for (name, value) in kept {
            headers.add(name, value);
        }
        headers.add(name, value);
    }

    /// Every request so far, in the order of their arrival.
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.state.seen).iter().map(|noted| noted.seen()).collect()
    }

    fn requests_on(&self, on: &On) -> Vec<Seen> {
        self.requests().into_iter().filter(|seen| on.fits(&seen.method, &seen.path)).collect()
    }

    /// How many requests that `on` describes came in.
    pub fn count(&self, on: &On) -> usize {
        self.requests_on(on).len()
    }

    /// Body bytes sent for the requests that `on` describes.
    pub fn bytes(&self, on: &On) -> u64 {
        self.requests_on(on).iter().map(|seen| seen.bytes).sum()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        lock(&self.state.seen).clear();
    }
}

fn serve(state: &Arc<State>, address: &str) -> Result<Server> {
    let state = Arc::clone(state);
    Server::start(address, move |request, reply| {
        let noted = Arc::new(Noted {
            request: Seen {
                method: request.method.clone(),
                path: request.path.clone(),
                query: request.query.clone(),
                headers: request.headers.clone(),
                status: 0,
                bytes: 0,
            },
            status: AtomicU16::default(),
            bytes: AtomicU64::default(),
        });
        lock(&state.seen).push(Arc::clone(&noted));
        state.answer(request, reply, &noted)
    })
}

/// What will be answered, before a fault has its way with it.
pub(crate) struct Planned {
    status: u16,
    headers: Headers,
    body: Arc<[u8]>,
    range: std::ops::Range<usize>,
}

impl Planned {
    fn error(status: u16, code: &str, message: &str) -> Planned {
        let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
        Planned::whole(
            status,
            [("Content-Type", "application/json")].into(),
            body.to_string().into_bytes().into(),
        )
    }

    fn whole(status: u16, headers: Headers, body: Arc<[u8]>) -> Planned {
        Planned { status, headers, range: 0..body.len(), body }
    }

    fn bytes(&self) -> &[u8] {
        &self.body[self.range.clone()]
    }
}

impl State {
    fn answer(&self, request: &Received, reply: &mut Reply, noted: &Noted) -> Result<()> {
        let fault = self.take_fault(request);
        if let Some(Fault::Delay(time)) = &fault {
            pause(*time, reply);
        }
        let mut planned = match self.refusal(request) {
            Some(refusal) => refusal,
            None => self.plan(request, matches!(fault, Some(Fault::NoRange)))?,
        };
        for (name, value) in lock(&self.headers).iter() {
            planned.headers.add(name, value);
        }
        fault::apply(fault.as_ref(), planned, request, reply, noted)
    }

    fn take_fault(&self, request: &Received) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let found = faults
            .iter_mut()
            .find(|(on, _, times)| *times != Some(0) && on.fits(&request.method, &request.path))?;
        if let Some(times) = &mut found.2 {
            *times -= 1;
        }
        Some(found.1.clone())
    }

    /// The answer to a caller who lacks what `require` asked for, or has what it must not have.
    fn refusal(&self, request: &Received) -> Option<Planned> {
        let given = request.headers.get("authorization");
        if *lock(&self.refuse_authorization) && given.is_some() {
            return Some(Planned::error(400, "DENIED", "credentials are not wanted here"));
        }
        if request.path == "/token" {
            return None;
        }
        let login = lock(&self.login).clone()?;
        let challenge = match login {
            Login::Basic { user, password } => {
                if given == Some(&basic(&user, &password)) {
                    return None;
                }
                r#"Basic realm="scripted""#.to_owned()
            }
            Login::Token(token) => {
                let scope = content::repository(&request.path)
                    .map(|repository| format!("repository:{repository}:pull"));
                if self.token_fits(given, scope.as_deref()) {
                    return None;
                }
                let own =
                    || format!("http://{}/token", request.headers.get("host").unwrap_or_default());
                let realm = token.realm.unwrap_or_else(own);
                let scope = scope.map(|it| format!(r#",scope="{it}""#)).unwrap_or_default();
                format!(r#"Bearer realm="{realm}",service="scripted"{scope}"#)
            }
        };
        let mut refusal = Planned::error(401, "UNAUTHORIZED", "authentication required");
        refusal.headers.add("WWW-Authenticate", challenge);
        Some(refusal)
    }

    fn token_fits(&self, given: Option<&str>, scope: Option<&str>) -> bool {
        let Some(token) = given.and_then(|given| given.strip_prefix("Bearer ")) else {
            return false;
        };
        let tokens = lock(&self.tokens);
        let Some((_, scopes)) = tokens.iter().find(|(known, _)| known == token) else {
            return false;
        };
        scope.is_none_or(|scope| scopes.split(' ').any(|one| one == scope))
    }

    fn plan(&self, request: &Received, no_range: bool) -> Result<Planned> {
        if request.path == "/token" {
            return Ok(self.token(request));
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Ok(Planned::error(405, "UNSUPPORTED", "this registry is read only"));
        }
        let found = lock(&self.content).find(request);
        Ok(match found {
            Found::Nothing(code) => Planned::error(404, code, "not here"),
            Found::Answer { headers, body } => Planned::whole(200, headers, body),
            Found::Blob { headers, body } => {
                let range = request.headers.get("range").filter(|_| !no_range);
                ranged(headers, body, range)?
            }
        })
    }

    fn token(&self, request: &Received) -> Planned {
        let Some(Login::Token(login)) = lock(&self.login).clone() else {
            return Planned::error(404, "UNKNOWN", "no token service here");
        };
        let given = request.headers.get("authorization");
        if let Some((user, password)) = &login.user
            && given != Some(&basic(user, password))
        {
            return Planned::error(401, "UNAUTHORIZED", "wrong user or password");
        }
        let mut tokens = lock(&self.tokens);
        let token = format!("token-{}-{}", tokens.len(), request.parameters("scope").join("+"));
        tokens.push((token.clone(), request.parameters("scope").join(" ")));
        let field = if login.access_token_field { "access_token" } else { "token" };
        let mut body = serde_json::json!({field: token});
        if let Some(seconds) = login.expires_in {
            body["expires_in"] = seconds.into();
        }
        Planned::whole(
            200,
            [("Content-Type", "application/json")].into(),
            body.to_string().into_bytes().into(),
        )
    }
}

/// The value of an `Authorization` header for HTTP Basic.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// One range `bytes=A-B`, `bytes=A-` or `bytes=-N`; 416 when it lies beyond the end.
fn ranged(mut headers: Headers, body: Arc<[u8]>, range: Option<&str>) -> Result<Planned> {
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        headers.add("Accept-Ranges", "bytes");
        return Ok(Planned::whole(200, headers, body));
    };
    let (first, last) = range.split_once('-').context("a range without a dash")?;
    let length = body.len();
    let (start, end) = match (first, last) {
        ("", suffix) => (length.saturating_sub(suffix.parse()?), length),
        (first, "") => (first.parse()?, length),
        (first, last) => (first.parse()?, last.parse::<usize>()?.saturating_add(1).min(length)),
    };
    if start >= end {
        let mut refusal = Planned::error(416, "RANGE_INVALID", "beyond the end");
        refusal.headers.add("Content-Range", format!("bytes */{length}"));
        return Ok(refusal);
    }
    headers.add("Content-Range", format!("bytes {start}-{}/{length}", end - 1));
    Ok(Planned { status: 206, headers, body, range: start..end })
}

/// Sleeps in short steps, so that stopping the server does not wait for the end.
pub(crate) fn pause(time: Duration, reply: &Reply) {
    let mut left = time;
    while !left.is_zero() && !reply.stopping() {
        let step = left.min(Duration::from_millis(20));
        std::thread::sleep(step);
        left -= step;
    }
}

/// The digest in the last part of a path, if there is one.
pub(crate) fn last_digest(path: &str) -> Option<Digest> {
    path.rsplit('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{FakeUpstream, Fault, Login, On, TokenLogin, basic};
    use crate::http::Request;
    use crate::image::Image;
    use std::time::{Duration, Instant};

    const BLOB: usize = 100_000;

    fn upstream() -> (FakeUpstream, Image) {
        let upstream = FakeUpstream::start().unwrap();
        let image = Image::oci(1, &[BLOB]).unwrap();
        upstream.put("team/app", "v1", &image);
        (upstream, image)
    }

    #[test]
    fn it_serves_manifests_blobs_ranges_tags_and_referrers() {
        let (upstream, image) = upstream();
        let signature = Image::builder(2).layers(&[5]).artifact_type("application/x");
        upstream.put("team/app", "sig", &signature.subject(&image).build().unwrap());
        let layer = &image.layers()[0];
        let get = |path: String| Request::get(path).send(&upstream.address()).unwrap();
        let manifest = get("/v2/team/app/manifests/v1".into());
        assert_eq!(manifest.body, image.manifest.to_vec());
        assert_eq!(manifest.headers.get("content-type"), Some(image.media_type.as_str()));
        let digest = image.digest.to_string();
        assert_eq!(manifest.headers.get("docker-content-digest"), Some(digest.as_str()));
        assert_eq!(get(format!("/v2/team/app/manifests/{digest}")).status, 200);
        let path = format!("/v2/team/app/blobs/{}", layer.digest);
        assert_eq!(get(path.clone()).body, layer.bytes.to_vec());
        let part = Request::get(&path).header("Range", "bytes=10-19").send(&upstream.address());
        let part = part.unwrap();
        assert_eq!((part.status, part.body), (206, layer.bytes[10..20].to_vec()));
        let past = Request::get(&path).header("Range", "bytes=999999-").send(&upstream.address());
        let past = past.unwrap();
        assert_eq!(past.status, 416);
        let tags = get("/v2/team/app/tags/list".into()).json().unwrap();
        assert_eq!(tags["tags"], serde_json::json!(["sig", "v1"]));
        let referrers = get(format!("/v2/team/app/referrers/{digest}")).json().unwrap();
        assert_eq!(referrers["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(get("/v2/team/app/manifests/none".into()).status, 404);
        assert_eq!(get("/v2/other/manifests/v1".into()).status, 404);
        let head = Request::new("HEAD", &path).send(&upstream.address()).unwrap();
        assert_eq!(
            head.headers.get("content-length"),
            Some(layer.bytes.len().to_string().as_str())
        );
        assert!(head.body.is_empty());
        let refusal = past.body.len() as u64;
        assert_eq!(upstream.bytes(&On::blobs()), layer.bytes.len() as u64 + 10 + refusal);
    }

    #[test]
    fn each_fault_shows() {
        let (upstream, image) = upstream();
        let layer = &image.layers()[0];
        let length = layer.bytes.len();
        let path = format!("/v2/team/app/blobs/{}", layer.digest);
        // What a client sees: the right bytes, other bytes, a refusal or a broken answer.
        let fetch = |path: &str| match Request::get(path).send(&upstream.address()) {
            Ok(answer) if answer.body == layer.bytes.to_vec() => format!("{} right", answer.status),
            Ok(answer) if answer.status == 200 => format!("200 {}", answer.body.len()),
            Ok(answer) => answer.status.to_string(),
            Err(_) => "broken".to_owned(),
        };
        let check = |fault: Fault, expected: &str| {
            let shown = format!("{fault:?}");
            upstream.heal();
            upstream.fault(On::blobs(), fault, Some(1));
            assert_eq!(fetch(&path), expected, "{shown}");
            assert_eq!(fetch(&path), "200 right", "after {shown}");
        };
        check(Fault::status(429), "429");
        check(Fault::status(503), "503");
        check(Fault::WrongBytes, &format!("200 {length}"));
        check(Fault::Cut { after: 1000 }, "broken");
        check(Fault::Cut { after: 0 }, "broken");
        check(Fault::Drop, "broken");
        check(Fault::Drip { piece: 50_000, pause: Duration::from_millis(1) }, "200 right");
        check(Fault::Delay(Duration::from_millis(1)), "200 right");
        check(Fault::Length(-10), &format!("200 {}", length - 10));
        check(Fault::Length(10), "broken");
        check(Fault::Oversize(10), &format!("200 {}", length + 10));
        check(Fault::redirect("http://127.0.0.2:1"), "307");
        upstream.heal();
        upstream.fault(On::blobs(), Fault::NoRange, None);
        let whole = Request::get(&path).header("Range", "bytes=5-9").send(&upstream.address());
        assert_eq!(whole.unwrap().status, 200);
        upstream.fault(On::manifests(), Fault::Without("docker-content-digest".into()), None);
        let bare = Request::get("/v2/team/app/manifests/v1").send(&upstream.address()).unwrap();
        assert_eq!(bare.headers.get("docker-content-digest"), None);
    }

    #[test]
    fn tokens_are_asked_for_by_scope_and_can_be_revoked() {
        let (upstream, _) = upstream();
        upstream.require(Login::Token(TokenLogin {
            user: Some(("user".into(), "secret".into())),
            expires_in: Some(60),
            ..TokenLogin::default()
        }));
        let pull = |authorization: &str| {
            let request = Request::get("/v2/team/app/manifests/v1");
            request.header("Authorization", authorization).send(&upstream.address()).unwrap()
        };
        let refused = Request::get("/v2/team/app/manifests/v1").send(&upstream.address()).unwrap();
        let challenge = refused.headers.get("www-authenticate").unwrap().to_owned();
        assert!(challenge.contains(r#"scope="repository:team/app:pull""#), "{challenge}");
        let ask = |user: &str, password: &str| {
            Request::get("/token?service=scripted&scope=repository%3Ateam%2Fapp%3Apull")
                .header("Authorization", basic(user, password))
                .send(&upstream.address())
                .unwrap()
        };
        assert_eq!(ask("user", "wrong").status, 401);
        let token = ask("user", "secret").json().unwrap()["token"].as_str().unwrap().to_owned();
        assert_eq!(pull(&format!("Bearer {token}")).status, 200);
        assert_eq!(pull("Bearer other").status, 401);
        upstream.revoke_tokens();
        assert_eq!(pull(&format!("Bearer {token}")).status, 401);
    }

    #[test]
    fn a_killed_upstream_refuses_connections_until_it_is_revived() {
        let (mut upstream, _) = upstream();
        let address = upstream.address();
        upstream.fault(On::any(), Fault::Delay(Duration::from_secs(60)), None);
        let waiting = std::thread::spawn({
            let address = address.clone();
            move || Request::get("/v2/").send(&address).is_err()
        });
        let started = Instant::now();
        upstream.kill();
        assert!(Request::get("/v2/").send(&address).is_err());
        assert!(waiting.join().unwrap());
        assert!(started.elapsed() < Duration::from_secs(30));
        upstream.heal();
        upstream.revive().unwrap();
        assert_eq!(Request::get("/v2/").send(&address).unwrap().status, 200);
    }
}
