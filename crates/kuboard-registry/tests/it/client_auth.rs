//! Credentials and tokens: what is sent to whom, how often, and what never is.

use std::{sync::Arc, time::Duration};

use kuboard_registry::{
    client::{Upstream, UpstreamConfig},
    credentials::{Chain, Credential, CredentialError, Credentials, Secret, Static},
};
use kuboard_rt::BoxFuture;
use parking_lot::Mutex;

use crate::client_script::{
    PASSWORD, Reply, Rig, Scripted, Seen, Setup, expect, manifest, reference, repository, told,
};

/// `base64("user:" + PASSWORD)`.
const USER: &str = "Basic dXNlcjpzM2NyZXQtcGE6c3M=";
/// `base64("robot$team+puller:" + PASSWORD)`.
const ROBOT: &str = "Basic cm9ib3QkdGVhbStwdWxsZXI6czNjcmV0LXBhOnNz";

/// The challenge of a token service at an address, for the repository in a path.
fn bearer(realm: &str, path: &str) -> Reply {
    let name = path.trim_start_matches("/v2/").split("/manifests/").next().unwrap();
    Reply::unauthorized(format!(
        "Bearer realm=\"{realm}\",service=\"registry.test\",scope=\"repository:{name}:pull\""
    ))
}

/// A registry with a token service at `/token` of the same host: a token is `TOKEN-SCOPE`.
/// `answer` makes the token service's answers.
async fn token_registry(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Scripted {
    Scripted::start(move |seen| {
        if seen.path.starts_with("/token") {
            return answer(seen);
        }
        if seen.authorization().starts_with("Bearer good") {
            return manifest();
        }
        bearer(&format!("http://{}/token", seen.header("host").unwrap()), &seen.path)
    })
    .await
}

fn good(_: &Seen) -> Reply {
    Reply::ok(r#"{"token":"good","expires_in":300}"#)
}

async fn head(upstream: &Upstream, name: &str) -> String {
    let outcome = upstream.head_manifest(&repository(name), &reference("latest")).await;
    told(outcome, |head| head.digest.map(|digest| digest.to_string()).unwrap_or_default())
}

#[tokio::test]
async fn a_token_is_fetched_once_for_each_repository_and_renewed_before_its_end() {
    let server = token_registry(good).await;
    let Rig { upstream, clock, .. } = &Setup::new(&[&server.url()]).build();
    for _ in 0..3 {
        expect("first", &head(upstream, "team/a").await, "ok sha256:", "");
    }
    assert_eq!((server.count("HEAD"), server.count("GET /token")), (4, 1), "one 401, one token");
    expect("other", &head(upstream, "team/b").await, "ok", "");
    assert_eq!((server.count("HEAD"), server.count("GET /token")), (5, 2), "no second 401");
    let tokens: Vec<String> = server
        .log()
        .iter()
        .filter(|seen| seen.path.contains("token"))
        .map(|s| s.path.clone())
        .collect();
    let query =
        |name| format!("/token?service=registry.test&scope=repository%3Ateam%2F{name}%3Apull");
    assert_eq!(tokens, [query("a"), query("b")]);
    clock.advance(Duration::from_secs(269));
    head(upstream, "team/a").await;
    assert_eq!(server.count("GET /token"), 2);
    clock.advance(Duration::from_secs(1));
    head(upstream, "team/a").await;
    assert_eq!((server.count("HEAD"), server.count("GET /token")), (7, 3), "renewed without a 401");
}

#[tokio::test]
async fn concurrent_requests_share_one_token_request_and_its_failure() {
    for (answer, start) in
        [(good as fn(&Seen) -> Reply, "ok"), (|_| Reply::new(500), "unavailable")]
    {
        let server = token_registry(answer).await;
        let setup = Setup::new(&[&server.url()]).configure(|config| config.concurrency = 64);
        let rig = setup.build();
        // So that all know of the token service; the failure of this one is not shared.
        head(&rig.upstream, "team/first").await;
        let before = server.count("GET /token");
        let all = (0..16).map(|_| head(&rig.upstream, "team/a"));
        for line in futures_util::future::join_all(all).await {
            expect("shared", &line, start, "");
        }
        assert_eq!(server.count("GET /token") - before, 1, "{start}");
    }
}

#[tokio::test]
async fn a_token_that_the_registry_refuses_is_replaced_once() {
    let given = Mutex::new(0);
    let server = token_registry(move |_| {
        *given.lock() += 1;
        Reply::ok(format!(
            r#"{{"access_token":"{}"}}"#,
            if *given.lock() > 1 { "good" } else { "bad" }
        ))
    })
    .await;
    let Rig { upstream, .. } = &Setup::new(&[&server.url()]).build();
    expect("fresh and refused", &head(upstream, "team/a").await, "unauthorized", "401");
    assert_eq!((server.count("HEAD"), server.count("GET /token")), (2, 1), "no token in vain");
    expect("a new one", &head(upstream, "team/a").await, "ok", "");
    assert_eq!(server.count("GET /token"), 2);
}

#[tokio::test]
async fn without_rights_no_other_token_is_asked_for() {
    let server = Scripted::start(|seen| match seen.path.starts_with("/token") {
        true => good(seen),
        false => Reply::unauthorized(format!(
            "Bearer realm=\"http://{}/token\",service=\"s\",error=\"insufficient_scope\"",
            seen.header("host").unwrap()
        )),
    })
    .await;
    let Rig { upstream, .. } = &Setup::new(&[&server.url()]).build();
    for _ in 0..5 {
        expect(
            "hub says 401 of what is not there",
            &head(upstream, "no/such").await,
            "unauthorized",
            "401",
        );
    }
    assert_eq!((server.count("HEAD"), server.count("GET /token")), (6, 1));
}

#[tokio::test]
async fn refresh_tokens_are_exchanged_by_post() {
    let server = token_registry(|seen| {
        let fits = seen.method == "POST"
            && seen.authorization().is_empty()
            && seen.header("content-type") == Some("application/x-www-form-urlencoded")
            && seen.body
                == "grant_type=refresh_token&client_id=kuboard&service=registry.test\
                    &scope=repository%3Ateam%2Fa%3Apull&refresh_token=s3cret-pa%3Ass";
        if fits { Reply::ok(r#"{"access_token":"good"}"#) } else { Reply::new(400) }
    })
    .await;
    let token = Credential::IdentityToken(Secret::new(PASSWORD));
    let rig = Setup::new(&[&server.url()]).credential(token).build();
    expect("exchanged", &head(&rig.upstream, "team/a").await, "ok", "");
}

/// One request with a credential to a registry that challenges so and takes one header.
async fn check_login(case: &str, setup: Setup, challenge: Option<&str>, takes: &str, tries: usize) {
    let (challenge, takes) = (challenge.map(str::to_owned), takes.to_owned());
    let server = Scripted::start(move |seen| {
        if seen.path.starts_with("/service/token") {
            let known = seen.authorization() == takes;
            return if known { Reply::ok(r#"{"token":"tok"}"#) } else { Reply::new(401) };
        }
        let host = seen.header("host").unwrap();
        let fits = seen.authorization() == "Bearer tok" || seen.authorization() == takes;
        match &challenge {
            _ if fits => manifest(),
            Some(challenge) => Reply::unauthorized(challenge.replace("HOST", host)),
            None => Reply::new(401),
        }
    })
    .await;
    let mut setup = setup;
    setup.config.endpoints = vec![server.url().parse().unwrap()];
    let rig = setup.build();
    expect(case, &head(&rig.upstream, "team/a").await, "ok", "");
    expect(case, &head(&rig.upstream, "team/a").await, "ok", "");
    assert_eq!(server.count("HEAD"), tries, "{case}: it remembers what to send");
}

#[tokio::test]
async fn registries_of_many_makers() {
    let user = || Setup::new(&["http://x"]).user("user");
    let robot = || Setup::new(&["http://x"]).user("robot$team+puller");
    let basic = "Basic realm=\"Registry Realm\"";
    check_login("distribution with htpasswd", user(), Some(basic), USER, 3).await;
    let nexus = "BASIC realm=\"Sonatype Nexus Repository Manager\"";
    check_login("nexus", user(), Some(nexus), USER, 3).await;
    check_login("nexus behind a proxy that drops the realm", user(), Some("Basic"), USER, 3).await;
    check_login("nexus behind a proxy that drops the challenge", user(), None, USER, 3).await;
    let harbor = "Bearer realm=\"http://HOST/service/token\",service=\"harbor-registry\"";
    check_login("harbor robot", robot(), Some(harbor), ROBOT, 3).await;
    let both = "Basic realm=\"x\", Bearer realm=\"http://HOST/service/token\"";
    check_login("both offered", user(), Some(both), USER, 3).await;
    let ecr =
        "Basic realm=\"https://1.dkr.ecr.eu-west-1.amazonaws.com\",service=\"ecr.amazonaws.com\"";
    check_login("ecr", user(), Some(ecr), USER, 3).await;
    let straight = Setup::new(&["http://x"]).credential(Credential::Bearer(Secret::new("jwt")));
    check_login("a registry token", straight, Some(harbor), "Bearer jwt", 3).await;
}

/// What comes of a challenge that no credential answers.
async fn check_refusal(case: &str, setup: Setup, challenge: &str, start: &str, part: &str) {
    let challenge = challenge.to_owned();
    let server = Scripted::start(move |seen| {
        let host = seen.header("host").unwrap();
        let port = host.rsplit(':').next().unwrap();
        Reply::unauthorized(challenge.replace("HOST", host).replace("PORT", port))
    })
    .await;
    let mut setup = setup;
    setup.config.endpoints = vec![server.url().parse().unwrap()];
    let rig = setup.build();
    expect(case, &head(&rig.upstream, "team/a").await, start, part);
    assert!(
        server.log().iter().all(|seen| !seen.path.starts_with("/token")),
        "{case}: the token service was asked"
    );
}

#[tokio::test]
async fn challenges_that_are_not_answered() {
    let setup = || Setup::new(&["http://x"]).user("user");
    let foreign = "Bearer realm=\"http://localhost:PORT/token\"";
    check_refusal("a foreign realm", setup(), foreign, "refused", "trustedRealms").await;
    let anonymous = || Setup::new(&["http://x"]);
    check_refusal("also without a credential", anonymous(), foreign, "refused", "localhost").await;
    let user = "Bearer realm=\"http://u:p@HOST/token\"";
    check_refusal("a user in the realm", setup(), user, "refused", "user name").await;
    let file = "Bearer realm=\"file:///etc/passwd\"";
    check_refusal("a realm that is a file", setup(), file, "refused", "realm").await;
    check_refusal("no address", setup(), "Bearer realm=\"/token\"", "invalid", "realm").await;
    check_refusal("another scheme", setup(), "Negotiate", "unauthorized", "401").await;
    check_refusal("nobody to answer", anonymous(), "Basic realm=\"x\"", "unauthorized", "401")
        .await;
    let token = Setup::new(&["http://x"]).credential(Credential::IdentityToken(Secret::new("t")));
    check_refusal(
        "basic for a refresh token",
        token,
        "Basic realm=\"x\"",
        "unauthorized",
        "refresh token",
    )
    .await;
    let long = format!("Bearer realm=\"http://HOST/token\",scope=\"{}\"", "x".repeat(5000));
    check_refusal("a long scope", setup(), &long, "invalid", "scope").await;
}

#[tokio::test]
async fn the_operator_may_trust_a_foreign_realm() {
    let service = Scripted::start(good).await;
    let realm = format!("http://localhost:{}/token", service.port());
    let server = Scripted::start(move |seen| match seen.authorization() {
        "Bearer good" => manifest(),
        _ => bearer(&realm, &seen.path),
    })
    .await;
    let refused = Setup::new(&[&server.url()]).user("user").build();
    expect("foreign", &head(&refused.upstream, "team/a").await, "refused", "trustedRealms");
    assert_eq!(service.hits(), 0);
    let entry = format!("localhost:{}", service.port());
    let trusting = Setup::new(&[&server.url()])
        .user("user")
        .configure(|config| config.trusted_realms = vec![entry])
        .build();
    expect("trusted", &head(&trusting.upstream, "team/a").await, "ok", "");
    assert_eq!(service.log()[0].authorization(), USER);
}

/// What comes of an answer of the token service.
async fn check_service(case: &str, answer: fn(&Seen) -> Reply, start: &str, part: &str) {
    let server = token_registry(answer).await;
    let setup = Setup::new(&[&server.url()]).user("user");
    let rig = setup.impatient_if(start == "timeout").build();
    expect(case, &head(&rig.upstream, "team/a").await, start, part);
}

#[tokio::test]
async fn token_services_that_misbehave() {
    check_service("refuses", |_| Reply::new(401), "unauthorized", "token service answered 401")
        .await;
    check_service("denies", |_| Reply::new(403), "denied", "403").await;
    check_service("throttles", |_| Reply::new(429).with("Retry-After", "7"), "throttled", "429")
        .await;
    check_service("fails", |_| Reply::new(503), "unavailable", "503").await;
    check_service("is not there", |_| Reply::new(404), "invalid", "404").await;
    check_service("has no token", |_| Reply::ok("{}"), "invalid", "usable token").await;
    check_service("talks html", |_| Reply::ok("<html>s3cret-pa:ss"), "invalid", "usable token")
        .await;
    check_service("is endless", |_| Reply::ok(vec![b' '; 200_000]), "invalid", "above").await;
    check_service("is stuck", |_| Reply::ok("{}").stall().promise(9).stall(), "timeout", "in time")
        .await;
    check_service("is cut", |_| Reply::ok("{}").promise(9), "unavailable", "broke off").await;
    check_service(
        "redirects on its host",
        |seen| match seen.path.starts_with("/token/") {
            true if seen.authorization() == USER => good(seen),
            true => Reply::new(401),
            false => Reply::redirect(seen.path.replace("/token", "/token/")),
        },
        "ok",
        "",
    )
    .await;
    check_service(
        "redirects elsewhere",
        |seen| {
            let host = seen.header("host").unwrap().replace("127.0.0.1", "localhost");
            Reply::redirect(format!("http://{host}/token/"))
        },
        "refused",
        "another host",
    )
    .await;
    check_service("redirects for ever", |seen| Reply::redirect(&seen.path), "refused", "loop")
        .await;
}

/// A secret that can be replaced.
struct Replaceable(Mutex<String>);

impl Credentials for Replaceable {
    fn for_repository<'a>(
        &'a self,
        _registry: &'a str,
        _repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialError>> {
        let password = Secret::from(self.0.lock().clone());
        let found = Credential::Basic { user: "user".into(), password };
        Box::pin(async { Ok(Some(found)) })
    }
}

/// A wrong password is not repeated until it rested or was replaced.
async fn check_lockout(case: &str, server: Scripted, attempts: &str) {
    let secret = Arc::new(Replaceable(Mutex::new("wrong".into())));
    let source: Arc<dyn Credentials> = secret.clone();
    let Rig { upstream, clock, .. } = &Setup::new(&[&server.url()]).source(source).build();
    let with_password = |server: &Scripted| {
        let carries = |seen: &&Seen| {
            format!("{} {}", seen.method, seen.path).starts_with(attempts)
                && seen.authorization().starts_with("Basic")
        };
        server.log().iter().filter(carries).count()
    };
    for (name, tries) in [("team/a", 1), ("team/a", 1), ("team/b", 1)] {
        expect(case, &head(upstream, name).await, "unauthorized", "");
        assert_eq!(with_password(&server), tries, "{case}");
    }
    expect(case, &head(upstream, "team/a").await, "unauthorized", "hint: check user name");
    for (rest, tries) in [(2, 2), (2, 2), (2, 3), (7, 3), (1, 4)] {
        clock.advance(Duration::from_secs(rest));
        expect(case, &head(upstream, "team/a").await, "unauthorized", "");
        assert_eq!(with_password(&server), tries, "{case} after {rest} s");
    }
    *secret.0.lock() = PASSWORD.to_owned();
    expect(case, &head(upstream, "team/a").await, "ok", "");
}

#[tokio::test]
async fn a_refused_password_rests() {
    let login =
        |seen: &Seen, ok: Reply, no: Reply| if seen.authorization() == USER { ok } else { no };
    let basic = Scripted::start(move |seen| {
        login(seen, manifest(), Reply::unauthorized("Basic realm=\"x\""))
    })
    .await;
    check_lockout("basic", basic, "HEAD").await;
    let token = token_registry(move |seen| login(seen, good(seen), Reply::new(401))).await;
    check_lockout("token service", token, "GET /token").await;
}

#[tokio::test]
async fn passwords_stay_on_their_host() {
    let cdn = Scripted::start(|_| manifest()).await;
    let there = format!("{}/storage?signature=abc", cdn.url());
    let server = Scripted::start(move |seen| match seen.authorization() {
        "" => Reply::unauthorized("Basic realm=\"x\""),
        _ if seen.path.ends_with("/here") => Reply::redirect("/v2/moved"),
        _ if seen.path == "/v2/moved" => manifest(),
        _ => Reply::redirect(&there),
    })
    .await;
    let rig = Setup::new(&[&server.url()]).user("user").build();
    for tag in ["here", "there"] {
        let outcome = rig.upstream.get_manifest(&repository("team/a"), &reference(tag)).await;
        expect(tag, &told(outcome, |fetched| fetched.digest.to_string()), "ok", "");
    }
    assert!(server.log().iter().any(|seen| seen.path == "/v2/moved"));
    assert_eq!(cdn.hits(), 1);
    assert_eq!(cdn.log()[0].header("authorization"), None);
    assert_eq!(cdn.log()[0].header("referer"), None);
}

#[tokio::test]
async fn mirrors_get_their_own_credentials_or_none() {
    let asks = |seen: &Seen| match seen.authorization() {
        "" => Reply::unauthorized("Basic realm=\"x\""),
        _ => manifest(),
    };
    let (mirror, server) = (Scripted::start(asks).await, Scripted::start(asks).await);
    let rig = Setup::new(&[&mirror.url(), &server.url()]).user("user").build();
    expect("the upstream's", &head(&rig.upstream, "team/a").await, "ok", "");
    assert!(mirror.hits() == 1 && mirror.log()[0].authorization().is_empty());
    assert_eq!(server.log()[1].authorization(), USER);

    let (host, password) = (format!("127.0.0.1:{}", mirror.port()), Secret::new("other"));
    let other = Credential::Basic { user: "mirror".into(), password };
    let own = Static::new(host, other);
    let rig = Setup::new(&[&mirror.url(), &server.url()]).source(Arc::new(own)).build();
    expect("its own", &head(&rig.upstream, "team/a").await, "ok", "");
    assert_eq!(mirror.log()[2].authorization(), "Basic bWlycm9yOm90aGVy");
}

#[tokio::test]
async fn a_mirror_that_names_the_upstreams_realm_gets_an_anonymous_token() {
    let hub = token_registry(good).await;
    let realm = format!("http://127.0.0.1:{}/token", hub.port());
    let mirror = Scripted::start(move |seen| match seen.authorization() {
        "Bearer good" => manifest(),
        _ => bearer(&realm, &seen.path),
    })
    .await;
    // Another host name than the upstream's own endpoint.
    let mirror_url = format!("http://localhost:{}", mirror.port());
    let host = format!("localhost:{}", mirror.port());
    let password = Secret::new(PASSWORD);
    let own = Static::new(host, Credential::Basic { user: "mirror".into(), password });
    let rig = Setup::new(&[&mirror_url, &hub.url()]).source(Arc::new(own)).build();
    expect("anonymous", &head(&rig.upstream, "team/a").await, "ok", "");
    assert_eq!(mirror.hits(), 2);
    assert_eq!(hub.log()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_callers_rights_are_the_upstreams_to_tell() {
    let mirror = Scripted::start(|_| manifest()).await;
    let server = Scripted::start(|seen| {
        let known = [USER, "Bearer theirs"].contains(&seen.authorization());
        match seen.path.rsplit('/').next().unwrap() {
            "secret" if known => Reply::new(403),
            "gone" if known => Reply::new(404),
            "broken" => Reply::new(500),
            "limited" => Reply::new(429),
            _ if known => manifest(),
            _ => Reply::unauthorized("Basic realm=\"x\""),
        }
    })
    .await;
    // Our own credential is not what counts.
    let rig = Setup::new(&[&mirror.url(), &server.url()]).user("user").build();
    let cases = [
        (USER, "latest", "ok true"),
        ("Bearer theirs", "latest", "ok true"),
        ("Basic dXNlcjp3cm9uZw==", "latest", "ok false"),
        ("Bearer other", "latest", "ok false"),
        ("Digest x", "latest", "ok false"),
        (USER, "secret", "ok false"),
        (USER, "gone", "ok false"),
        (USER, "broken", "unavailable"),
        (USER, "limited", "throttled"),
        // What was said to them does not bind us.
        (USER, "latest", "ok true"),
    ];
    for (authorization, tag, expected) in cases {
        let (name, tag) = (repository("team/a"), reference(tag));
        let outcome = rig.upstream.verify_caller(&name, &tag, authorization).await;
        expect(authorization, &told(outcome, |seen| seen.to_string()), expected, "");
    }
    assert_eq!(mirror.hits(), 0);
}

#[tokio::test]
async fn a_callers_credentials_pass_through_the_token_service() {
    let server = token_registry(|seen| match seen.authorization() {
        USER => Reply::ok(r#"{"token":"good"}"#),
        "" => Reply::ok(r#"{"token":"powerless"}"#),
        _ => Reply::new(401),
    })
    .await;
    let rig = Setup::new(&[&server.url()]).build();
    let (name, tag) = (repository("team/a"), reference("latest"));
    for (authorization, expected) in [(USER, true), ("Basic dXNlcjp3cm9uZw==", false)] {
        let seen = rig.upstream.verify_caller(&name, &tag, authorization).await.unwrap();
        assert_eq!(seen, expected);
    }
    expect("ours is another", &head(&rig.upstream, "team/a").await, "unauthorized", "");
}

#[tokio::test]
async fn without_an_endpoint_of_its_own_nobody_can_be_verified() {
    let mut config =
        UpstreamConfig::new("docker.io", vec!["https://mirror.example.org".parse().unwrap()]);
    config.connect_timeout = Duration::from_millis(1);
    let metrics = prometheus::Registry::new();
    let none: Arc<dyn Credentials> = Arc::new(Chain::default());
    let upstream = Upstream::new(config, none, &metrics).unwrap();
    let outcome = upstream.verify_caller(&repository("a"), &reference("b"), USER).await;
    expect("nobody", &told(outcome, |seen| seen.to_string()), "refused", "no endpoint");
}

#[tokio::test]
async fn token_requests_are_counted() {
    let server = token_registry(good).await;
    let rig = Setup::new(&[&server.url()]).build();
    head(&rig.upstream, "team/a").await;
    let tokens = "registry_proxy_upstream_token_requests_total";
    assert_eq!(rig.metric(&format!("{tokens}{{outcome=\"ok\",upstream=\"upstream.test\"}}")), 1);
    let requests = "registry_proxy_upstream_requests_total";
    for code in [401, 200] {
        let sample = format!("{requests}{{code=\"{code}\",upstream=\"upstream.test\"}}");
        assert_eq!(rig.metric(&sample), 1);
    }
}
