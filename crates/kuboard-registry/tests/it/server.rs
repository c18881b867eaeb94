//! Access as clients meet it: credentials in, callers, challenges and tokens out.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use kuboard_registry::server::{
    Access, AccessConfig, Action, Anonymous, ApiError, Caller, KeySource, NewKey, NoKeys, Query,
    Rule, StoredKey, route,
};
use kuboard_rt::BoxFuture;
use kuboard_rt::http::{Peer, Request};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::Value;

const NOW: i64 = 1_800_000_000_000;
const MINUTE: i64 = 60_000;

/// A registry's access with its files in a folder of its own.
struct House {
    folder: tempfile::TempDir,
    access: Access,
}

#[derive(Default)]
struct SomeKeys(Mutex<HashMap<String, StoredKey>>);

impl KeySource for SomeKeys {
    fn key<'a>(
        &'a self,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredKey>, Box<dyn Error + Send + Sync>>> {
        Box::pin(async move { Ok(self.0.lock().get(id).cloned()) })
    }
}

/// A catalogue that is down.
struct NoAnswer;

impl KeySource for NoAnswer {
    fn key<'a>(
        &'a self,
        _id: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredKey>, Box<dyn Error + Send + Sync>>> {
        Box::pin(async { Err("connection refused".into()) })
    }
}

fn line(user: &str, password: &str) -> String {
    format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap())
}

fn config(folder: &Path, anonymous: Anonymous) -> AccessConfig {
    AccessConfig {
        anonymous,
        htpasswd: folder.join("users").exists().then(|| folder.join("users")),
        token_key: folder.join("keys/token.pem"),
        service: "registry.example.com".to_owned(),
        external_url: None,
    }
}

fn house_with(users: &str, anonymous: Anonymous, keys: Arc<dyn KeySource>) -> House {
    let folder = tempfile::tempdir().unwrap();
    if !users.is_empty() {
        std::fs::write(folder.path().join("users"), users).unwrap();
    }
    let access = Access::new(config(folder.path(), anonymous), keys).unwrap();
    House { folder, access }
}

fn house(anonymous: Anonymous) -> House {
    house_with(&line("ann", "right"), anonymous, Arc::new(NoKeys))
}

fn request(method: Method, uri: &str, authorization: &str, body: &str) -> Request {
    let mut request = http::Request::new(Bytes::from(body.to_owned()).into());
    *request.method_mut() = method;
    *request.uri_mut() = uri.parse().unwrap();
    request.headers_mut().insert(HOST, "registry.example.com:5000".parse().unwrap());
    if !authorization.is_empty() {
        request.headers_mut().insert(AUTHORIZATION, authorization.parse().unwrap());
    }
    let addr: SocketAddr = "192.0.2.7:40000".parse().unwrap();
    request.extensions_mut().insert(Peer { addr: Some(addr), tls: true });
    request
}

fn basic(user: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")))
}

impl House {
    async fn caller_at(&self, authorization: &str, now_ms: i64) -> Result<Caller, ApiError> {
        let request = request(Method::GET, "/v2/", authorization, "");
        let peer = request.extensions().get::<Peer>().copied();
        self.access.caller(request.headers(), peer, now_ms).await
    }

    async fn caller(&self, authorization: &str) -> Result<Caller, ApiError> {
        self.caller_at(authorization, NOW).await
    }

    async fn ask(&self, request: Request, now_ms: i64) -> (StatusCode, Value) {
        let response = self.access.token(request, now_ms).await;
        assert_eq!(response.headers()["cache-control"], "no-store");
        let status = response.status();
        let body = response.into_body().collect().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn get_token(&self, query: &str, authorization: &str) -> (StatusCode, Value) {
        self.ask(request(Method::GET, &format!("/token?{query}"), authorization, ""), NOW).await
    }

    async fn post_token(&self, form: &str, now_ms: i64) -> (StatusCode, Value) {
        self.ask(request(Method::POST, "/token", "", form), now_ms).await
    }
}

/// Who it is and what they may do to a repository: `ann: pull push delete catalog`.
fn say(caller: &Caller, repository: &str) -> String {
    let mut said = format!("{}:", caller.name.as_deref().unwrap_or("nobody"));
    for action in [Action::Pull, Action::Push, Action::Delete, Action::Catalog] {
        if caller.may(action, repository) {
            said.push(' ');
            said.push_str(action.as_str());
        }
    }
    said
}

#[tokio::test]
async fn callers_without_credentials_may_what_is_said() {
    for (anonymous, expected) in [
        (Anonymous::None, "nobody:"),
        (Anonymous::Pull, "nobody: pull catalog"),
        (Anonymous::Push, "nobody: pull push delete catalog"),
    ] {
        let house = house(anonymous);
        let caller = house.caller("").await.unwrap();
        assert_eq!(say(&caller, "team/app"), expected);
        assert!(!caller.is_authenticated());
        assert_eq!(house.access.allows_anonymous(), anonymous == Anonymous::Push);
    }
    assert_eq!(say(&Caller::anonymous(), "team/app"), "nobody:");
}

#[tokio::test]
async fn users_come_in_by_their_password() {
    let house = house(Anonymous::None);
    for _ in 0..2 {
        let caller = house.caller(&basic("ann", "right")).await.unwrap();
        assert_eq!(say(&caller, "any/thing"), "ann: pull push delete catalog");
        assert!(caller.is_authenticated());
    }
    for wrong in [
        basic("ann", "wrong"),
        basic("ann", ""),
        basic("bob", "right"),
        basic("", "right"),
        basic("ann", "right\0"),
        "Basic ???".to_owned(),
        "Bearer".to_owned(),
        "Bearer abc".to_owned(),
        "Bearer a.b.c".to_owned(),
        "Digest abc".to_owned(),
    ] {
        let error = house.caller(&wrong).await.unwrap_err();
        assert_eq!(error.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
}

#[tokio::test]
async fn a_changed_file_counts_within_a_second() {
    let house = house(Anonymous::None);
    let file = house.folder.path().join("users");
    assert!(house.caller(&basic("ann", "right")).await.is_ok());
    std::fs::write(&file, line("ann", "other") + &line("bob", "new")).unwrap();
    assert!(house.caller_at(&basic("ann", "right"), NOW + 1000).await.is_err(), "remembered");
    assert!(house.caller_at(&basic("bob", "new"), NOW + 1000).await.is_ok());
    // What cannot be read changes nothing.
    std::fs::write(&file, "bob:plain\nann:plain\n").unwrap();
    assert!(house.caller_at(&basic("bob", "new"), NOW + 2000).await.is_ok());
    std::fs::remove_file(&file).unwrap();
    assert!(house.caller_at(&basic("bob", "new"), NOW + 3000).await.is_ok());
    std::fs::write(&file, line("ann", "right")).unwrap();
    assert!(house.caller_at(&basic("bob", "new"), NOW + 4000).await.is_err());
}

#[tokio::test]
async fn failed_logins_are_bounded_and_the_known_stay_in() {
    let house = house(Anonymous::None);
    assert!(house.caller(&basic("ann", "right")).await.is_ok());
    for _ in 0..10 {
        let error = house.caller(&basic("ann", "guess")).await.unwrap_err();
        assert_eq!(error.status, StatusCode::UNAUTHORIZED);
    }
    let error = house.caller(&basic("ann", "guess")).await.unwrap_err();
    assert_eq!(error.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(error.headers["retry-after"], "6");
    assert!(house.caller(&basic("ann", "right")).await.is_ok(), "accepted a short while ago");
    assert!(house.caller_at(&basic("ann", "right"), NOW + 6 * MINUTE).await.is_ok());
}

/// Fifty pods with the same pull secret start at once: none is taken for an attack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_equal_logins_at_once_succeed() {
    let house = house(Anonymous::None);
    let authorization = basic("ann", "right");
    let all = (0..50).map(|_| house.caller(&authorization));
    for caller in futures_util::future::join_all(all).await {
        assert!(caller.is_ok());
    }
}

#[tokio::test]
async fn access_keys_are_scoped_and_end() {
    let keys = Arc::new(SomeKeys::default());
    let key = NewKey::generate().unwrap();
    let stored = StoredKey {
        owner: "ci".to_owned(),
        secret_hash: key.secret_hash.clone(),
        rules: vec![
            Rule { pattern: "team/**".to_owned(), actions: vec![Action::Pull, Action::Push] },
            Rule { pattern: "base/*".to_owned(), actions: vec![Action::Pull] },
        ],
        expires_ms: Some(NOW + MINUTE),
    };
    keys.0.lock().insert(key.id.clone(), stored);
    let house = house_with("", Anonymous::None, keys.clone());
    for authorization in [basic("whoever", key.expose()), format!("Bearer {}", key.expose())] {
        let caller = house.caller(&authorization).await.unwrap();
        assert_eq!(say(&caller, "team/app/web"), "ci: pull push");
        assert_eq!(say(&caller, "base/debian"), "ci: pull");
        assert_eq!(say(&caller, "base/debian/slim"), "ci:");
        assert_eq!(say(&caller, "other"), "ci:");
    }
    let (_, reply) =
        house.get_token("scope=repository:team/app:pull", &basic("x", key.expose())).await;
    assert_eq!(reply["expires_in"], 60, "a token ends with its key");
    let authorization = basic("x", key.expose());
    assert!(house.caller_at(&authorization, NOW + MINUTE).await.is_err());
    let mut other = key.expose().to_owned();
    let last = if other.ends_with('0') { "1" } else { "0" };
    other.replace_range(other.len() - 1.., last);
    assert!(house.caller(&basic("x", &other)).await.is_err());
    let removed = NewKey::generate().unwrap();
    assert!(house.caller(&basic("x", removed.expose())).await.is_err());
}

#[tokio::test]
async fn an_outage_is_not_a_wrong_key() {
    let house = house_with("", Anonymous::Pull, Arc::new(NoAnswer));
    let key = NewKey::generate().unwrap();
    let error = house.caller(&basic("x", key.expose())).await.unwrap_err();
    assert_eq!(error.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(error.headers.contains_key("retry-after"));
    assert!(!error.message.contains("refused"), "the cause is not for the client");
}

#[tokio::test]
async fn refusals_say_how_to_come_back() {
    let house = house(Anonymous::None);
    let asked = request(Method::GET, "/v2/team/app/tags/list", "", "");
    let challenge = |error: &ApiError| {
        let value = error.headers.get(WWW_AUTHENTICATE);
        value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let nobody = house.caller("").await.unwrap();
    let start = "Bearer realm=\"https://registry.example.com:5000/token\",\
                 service=\"registry.example.com\"";
    for (action, scope) in [
        (Action::Pull, "repository:team/app:pull"),
        (Action::Push, "repository:team/app:pull,push"),
        (Action::Delete, "repository:team/app:delete"),
        (Action::Catalog, "registry:catalog:*"),
    ] {
        let error = house.access.refusal(&nobody, &asked, action, "team/app");
        assert_eq!(error.status, StatusCode::UNAUTHORIZED);
        assert_eq!(challenge(&error), format!("{start},scope=\"{scope}\""));
    }
    assert_eq!(challenge(&house.access.challenge_base(&asked)), start);

    let wrong = request(Method::GET, "/v2/team/app/tags/list", &basic("ann", "wrong"), "");
    let error = house.caller(&basic("ann", "wrong")).await.unwrap_err();
    let error = house.access.with_challenge(error, &wrong, Action::Pull, "team/app");
    let scope = "repository:team/app:pull";
    assert_eq!(challenge(&error), format!("{start},scope=\"{scope}\",error=\"invalid_token\""));
    let other = ApiError::no_endpoint();
    let other = house.access.with_challenge(other, &wrong, Action::Pull, "team/app");
    assert_eq!(challenge(&other), "");
}

#[tokio::test]
async fn realms_follow_the_way_clients_come() {
    let realm = |house: &House, change: &dyn Fn(&mut Request)| {
        let mut asked = request(Method::GET, "/v2/", "", "");
        change(&mut asked);
        let error = house.access.challenge_base(&asked);
        let value = error.headers[WWW_AUTHENTICATE].to_str().unwrap().to_owned();
        value.split('"').nth(1).unwrap().to_owned()
    };
    let house = house(Anonymous::None);
    let plain = |request: &mut Request| {
        request.extensions_mut().insert(Peer { addr: None, tls: false });
    };
    assert_eq!(realm(&house, &plain), "http://registry.example.com:5000/token");
    let behind = |request: &mut Request| {
        plain(request);
        request.headers_mut().insert("x-forwarded-proto", "https".parse().unwrap());
    };
    assert_eq!(realm(&house, &behind), "https://registry.example.com:5000/token");
    let h2 = |request: &mut Request| {
        request.headers_mut().remove(HOST);
        *request.uri_mut() = "https://other.example.com/v2/".parse().unwrap();
    };
    assert_eq!(realm(&house, &h2), "https://other.example.com/token");
    let evil = |request: &mut Request| {
        request.headers_mut().insert(HOST, "a\",realm=\"http://evil".parse().unwrap());
    };
    assert_eq!(realm(&house, &evil), "/token");
    let mut config = config(house.folder.path(), Anonymous::None);
    config.external_url = Some("https://registry.example.org/".to_owned());
    let folder = tempfile::tempdir().unwrap();
    let external = House { folder, access: Access::new(config, Arc::new(NoKeys)).unwrap() };
    assert_eq!(realm(&external, &plain), "https://registry.example.org/token");
}

#[tokio::test]
async fn a_token_opens_what_it_lists_for_five_minutes() {
    let house = house(Anonymous::Pull);
    let query = "service=x&scope=repository:team/app:pull,push&scope=registry:catalog:*";
    let (status, reply) = house.get_token(query, &basic("ann", "right")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(reply["token"], reply["access_token"]);
    assert_eq!(reply["expires_in"], 300);
    assert_eq!(reply["issued_at"], "2027-01-15T08:00:00Z");
    assert!(reply.get("refresh_token").is_none());
    let bearer = format!("Bearer {}", reply["token"].as_str().unwrap());
    for _ in 0..2 {
        let caller = house.caller(&bearer).await.unwrap();
        assert_eq!(say(&caller, "team/app"), "ann: pull push catalog");
        assert_eq!(say(&caller, "team/other"), "ann: pull catalog", "as everybody");
    }
    assert!(house.caller_at(&bearer, NOW + 5 * MINUTE - 1).await.is_ok());
    assert!(house.caller_at(&bearer, NOW + 5 * MINUTE).await.is_err());
    assert!(house.caller_at(&bearer, NOW - 2 * MINUTE).await.is_ok(), "remembered");

    // Rights that a token does not list are had by another token, so it is a challenge, not a no.
    let caller = house.caller(&bearer).await.unwrap();
    let asked = request(Method::PUT, "/v2/team/other/manifests/x", &bearer, "");
    let error = house.access.refusal(&caller, &asked, Action::Push, "team/other");
    assert_eq!(error.status, StatusCode::UNAUTHORIZED);
    assert!(error.headers[WWW_AUTHENTICATE].to_str().unwrap().contains("insufficient_scope"));

    let stranger = house_with("", Anonymous::Pull, Arc::new(NoKeys));
    assert!(stranger.caller(&bearer).await.is_err(), "signed by another key");
    let (head, tail) = bearer.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", tail.replace(['A', 'B', 'C'], "D"));
    assert!(house.caller(&forged).await.is_err());
    let unsigned = format!("Bearer eyJhbGciOiJub25lIn0.{}.", head.rsplit_once('.').unwrap().1);
    assert!(house.caller(&unsigned).await.is_err());
}

#[tokio::test]
async fn tokens_without_credentials_are_for_everybody_if_anybody() {
    let query = "scope=repository:team/app:pull,push";
    let house = house(Anonymous::Pull);
    let (status, reply) = house.get_token(query, "").await;
    assert_eq!(status, StatusCode::OK);
    let caller = house.caller(&format!("Bearer {}", reply["token"].as_str().unwrap())).await;
    let caller = caller.unwrap();
    assert_eq!(say(&caller, "team/app"), "nobody: pull catalog");
    assert!(!caller.is_authenticated());

    let closed = self::house(Anonymous::None);
    for authorization in [String::new(), basic("ann", "wrong"), "Bearer x".to_owned()] {
        let asked = request(Method::GET, &format!("/token?{query}"), &authorization, "");
        let response = closed.access.token(asked, NOW).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{authorization}");
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Basic realm=\"registry.example.com\"");
    }
    // Not more than the grant, and nothing for what is not understood.
    let (status, reply) =
        closed.get_token("scope=repository:a:fly&scope=nonsense", &basic("ann", "right")).await;
    assert_eq!(status, StatusCode::OK);
    let caller = closed.caller(&format!("Bearer {}", reply["token"].as_str().unwrap())).await;
    assert_eq!(say(&caller.unwrap(), "a"), "ann:");
}

#[tokio::test]
async fn oauth_forms_are_understood() {
    let house = house(Anonymous::None);
    let form = "grant_type=password&username=ann&password=right&service=s&client_id=c\
                &access_type=offline&scope=repository%3Aa%3Apull+repository%3Ab%3Apush";
    let (status, reply) = house.post_token(form, NOW).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(reply["scope"], "repository:a:pull repository:b:push");
    assert!(reply.get("token").is_none());
    let refresh = reply["refresh_token"].as_str().unwrap().to_owned();

    let again = format!("grant_type=refresh_token&refresh_token={refresh}&scope=repository:a:pull");
    let (status, reply) = house.post_token(&again, NOW + 200 * 24 * 60 * MINUTE).await;
    assert_eq!(status, StatusCode::OK, "{reply}");
    let token = format!("Bearer {}", reply["access_token"].as_str().unwrap());
    let caller = house.caller_at(&token, NOW + 200 * 24 * 60 * MINUTE).await.unwrap();
    assert_eq!(say(&caller, "a"), "ann: pull");
    assert!(house.caller(&format!("Bearer {refresh}")).await.is_err(), "it opens nothing itself");

    // A new password ends it.
    std::fs::write(house.folder.path().join("users"), line("ann", "right")).unwrap();
    let _ = house.caller_at(&basic("ann", "right"), NOW + 5000).await;
    let (status, _) = house.post_token(&again, NOW + 5000).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);

    for (form, status) in [
        ("", StatusCode::BAD_REQUEST),
        ("grant_type=password&username=ann", StatusCode::BAD_REQUEST),
        ("grant_type=client_credentials", StatusCode::BAD_REQUEST),
        ("grant_type=password&username=ann&password=wrong", StatusCode::UNAUTHORIZED),
        ("grant_type=refresh_token&refresh_token=abc", StatusCode::UNAUTHORIZED),
        (&"a".repeat(20_000), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(house.post_token(form, NOW + 5000).await.0, status, "{form:.60}");
    }
    let asked = request(Method::DELETE, "/token", "", "");
    assert_eq!(house.ask(asked, NOW).await.0, StatusCode::METHOD_NOT_ALLOWED);
}

/// Names that clients spell short, or that a host stands for, are granted by what they mean.
#[tokio::test]
async fn tokens_are_granted_by_what_names_mean() {
    let mut house = house(Anonymous::None);
    house.access = house.access.with_naming(|host, name| match host {
        Some("registry.example.com:5000") => vec![format!("docker.io/{name}")],
        _ => vec![],
    });
    let (_, reply) =
        house.get_token("scope=repository:library/alpine:pull", &basic("ann", "right")).await;
    let caller =
        house.caller(&format!("Bearer {}", reply["token"].as_str().unwrap())).await.unwrap();
    assert!(caller.may(Action::Pull, "docker.io/library/alpine"));
    assert!(!caller.may(Action::Pull, "library/alpine"));
}

#[test]
fn the_signing_key_is_made_once_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let make = || Access::new(config(folder.path(), Anonymous::None), Arc::new(NoKeys));
    make().unwrap();
    let path = folder.path().join("keys/token.pem");
    let first = std::fs::read(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    make().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    assert_eq!(std::fs::read_dir(folder.path().join("keys")).unwrap().count(), 1, "no draft left");
    std::fs::write(&path, "not a key").unwrap();
    let message = make().err().unwrap().to_string();
    assert!(message.contains("hint: ") && message.contains("token.pem"), "{message}");
}

/// Replicas that start at once end up with one key.
#[test]
fn starts_at_once_agree_on_the_key() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                Access::new(config(folder.path(), Anonymous::None), Arc::new(NoKeys)).unwrap();
            });
        }
    });
    assert_eq!(std::fs::read_dir(folder.path().join("keys")).unwrap().count(), 1);
}

#[test]
fn a_key_made_by_openssl_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("keys")).unwrap();
    // openssl genpkey -algorithm ed25519
    let pem = "-----BEGIN PRIVATE KEY-----\n\
               MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
               -----END PRIVATE KEY-----\n";
    std::fs::write(folder.path().join("keys/token.pem"), pem).unwrap();
    Access::new(config(folder.path(), Anonymous::None), Arc::new(NoKeys)).unwrap();
}

#[test]
fn a_bad_user_file_is_named_by_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users"), "# users\nann:{SHA}abc=\n").unwrap();
    let made = Access::new(config(folder.path(), Anonymous::None), Arc::new(NoKeys));
    let message = made.err().unwrap().to_string();
    assert!(message.contains("users: line 2: not a bcrypt hash; hint: "), "{message}");
}

proptest! {
    #[test]
    fn any_path_is_read_or_refused(path in "(/v2)?(/|[a-z]{1,5}|\\.|%[0-9a-f]{2}|blobs|uploads|manifests|tags|list|\\PC){0,12}") {
        if let Err(error) = route(&path) {
            prop_assert!(error.status.is_client_error());
        }
    }

    #[test]
    fn any_query_is_read_or_refused(query in "\\PC{0,100}") {
        let _ = Query::parse(Some(&query));
    }
}
