//! Where credentials come from: docker's file, helpers, AWS.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use kuboard_registry::credentials::{
    AwsKeys, Chain, Credential, CredentialError, Credentials, DockerConfig, EcrToken, Secret,
    Static,
};
use kuboard_rt::{Clock, ManualClock};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::client_script::{PASSWORD, Reply, Scripted, expect};

/// One line: `user:password`, `token:…`, `none`, or the error, which holds no secret.
async fn ask(source: &dyn Credentials, registry: &str) -> String {
    shown(source.for_repository(registry, "team/app").await)
}

fn shown(outcome: Result<Option<Credential>, CredentialError>) -> String {
    match outcome {
        Ok(None) => "none".to_owned(),
        Ok(Some(Credential::Basic { user, password })) => format!("{user}:{}", password.expose()),
        Ok(Some(Credential::IdentityToken(token))) => format!("token:{}", token.expose()),
        Ok(Some(Credential::Bearer(token))) => format!("bearer:{}", token.expose()),
        Err(error) => {
            let mut line = format!("error {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                line += &format!(": {cause}");
                source = cause.source();
            }
            assert!(!line.contains(PASSWORD), "{line}");
            line
        }
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(1_700_000_000_000))
}

async fn docker(dir: &Path, file: &str) -> Result<DockerConfig, CredentialError> {
    let path = dir.join("config.json");
    fs::write(&path, file).unwrap();
    Ok(DockerConfig::open(path, clock()).await?.with_helpers_in(dir))
}

#[test]
fn secrets_are_not_shown() {
    let credential = Credential::Basic { user: "user".into(), password: Secret::new(PASSWORD) };
    assert_eq!(format!("{credential:?}"), "Basic { user: \"user\", password: Secret(..) }");
}

#[tokio::test]
async fn the_first_source_that_knows_something_is_used() {
    let of = |registry: &str, user: &str| -> Arc<dyn Credentials> {
        let password = Secret::new("p");
        Arc::new(Static::new(registry, Credential::Basic { user: user.into(), password }))
    };
    let chain = Chain::new(vec![of("a.test", "one"), of("A.test", "two"), of("b.test:5000", "b")]);
    for (registry, expected) in
        [("a.test", "one:p"), ("b.test:5000", "b:p"), ("b.test", "none"), ("c.test", "none")]
    {
        assert_eq!(ask(&chain, registry).await, expected, "{registry}");
    }
}

#[tokio::test]
async fn a_changed_docker_configuration_is_read_again() {
    let dir = TempDir::new().unwrap();
    let entry = |user: &str| format!(r#"{{"auths":{{"a.test":{{"username":"{user}"}}}}}}"#);
    let config = docker(dir.path(), &entry("one")).await.unwrap();
    assert_eq!(ask(&config, "a.test").await, "one:");
    assert_eq!(ask(&config, "b.test").await, "none");
    fs::write(dir.path().join("config.json"), entry("other")).unwrap();
    assert_eq!(ask(&config, "a.test").await, "other:");
    // As Kubernetes swaps a mounted Secret: another file of the same length and age.
    let next = dir.path().join("next");
    fs::write(&next, entry("third")).unwrap();
    fs::rename(&next, dir.path().join("config.json")).unwrap();
    assert_eq!(ask(&config, "a.test").await, "third:");
    fs::write(dir.path().join("config.json"), "{\"auths\":").unwrap();
    assert_eq!(ask(&config, "a.test").await, "third:", "half a file leaves the last good one");
    fs::remove_file(dir.path().join("config.json")).unwrap();
    expect("gone", &ask(&config, "a.test").await, "error", "cannot be read");
}

#[tokio::test]
async fn docker_configurations_that_cannot_be_used() {
    let dir = TempDir::new().unwrap();
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20));
    let cases = [
        ("{\"auths\":{\"a\":{\"auth\":\"s3cret-pa:ss", "config.json:1: not a docker configuration"),
        ("[]", "not a docker configuration"),
        (&large, "above 1 MiB"),
    ];
    for (file, part) in cases {
        let outcome = docker(dir.path(), file).await.map(|_| None);
        expect(part, &shown(outcome), "error", part);
    }
    let missing = DockerConfig::open(dir.path().join("none"), clock()).await.map(|_| None);
    expect("missing", &shown(missing), "error", "cannot be read");
    let broken = docker(dir.path(), r#"{"auths":{"a.test":{"auth":"%"}}}"#).await.unwrap();
    expect("broken entry", &ask(&broken, "a.test").await, "error", "hint: run docker login");
}

/// A helper in a folder, as a shell script.
fn helper(dir: &Path, name: &str, script: &str) {
    let path = dir.join(format!("docker-credential-{name}"));
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn helpers_are_asked_and_bounded() {
    let dir = TempDir::new().unwrap();
    let cases = [
        (
            "good",
            r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"$s\",\"Secret\":\"$1\"}""#,
            "good.test:get",
        ),
        ("token", r#"echo '{"Username":"<token>","Secret":"refresh"}'"#, "token:refresh"),
        ("unknown", "echo credentials not found in native keychain; exit 1", "none"),
        ("empty", r#"echo '{"Username":"","Secret":""}'"#, "none"),
        (
            "failing",
            "echo s3cret-pa:ss; exit 3",
            "error the credential helper docker-credential-failing failed",
        ),
        (
            "chatty",
            "echo s3cret-pa:ss",
            "error the credential helper docker-credential-chatty did not print",
        ),
        (
            "endless",
            "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
            "error the credential helper docker-credential-endless cannot be talked to",
        ),
        ("../evil", "", "error the credential helper \"../evil\" is not"),
        ("missing", "", "error the credential helper docker-credential-missing cannot be started"),
    ];
    let mut helpers = serde_json::Map::new();
    for (name, script, _) in cases {
        helpers.insert(format!("{name}.test"), name.into());
        if !["../evil", "missing"].contains(&name) {
            helper(dir.path(), name, script);
        }
    }
    helpers.insert("evil.test".into(), "../evil".into());
    let file = serde_json::json!({ "credHelpers": helpers }).to_string();
    let config = docker(dir.path(), &file).await.unwrap();
    for (name, _, expected) in cases {
        let registry = format!("{}.test", name.trim_start_matches("../"));
        expect(name, &ask(&config, &registry).await, expected, "");
    }
}

// Time is made up: it jumps to the end of the wait as soon as everybody waits.
#[tokio::test(start_paused = true)]
async fn a_helper_that_hangs_is_given_up() {
    let dir = TempDir::new().unwrap();
    helper(dir.path(), "slow", "exec sleep 600");
    let config = docker(dir.path(), r#"{"credsStore":"slow"}"#).await.unwrap();
    expect("hangs", &ask(&config, "a.test").await, "error", "within 10 seconds");
}

#[tokio::test]
async fn a_helpers_answer_is_used_for_a_minute() {
    let dir = TempDir::new().unwrap();
    helper(
        dir.path(),
        "count",
        r#"echo x >> "$(dirname "$0")/calls"; echo '{"Username":"u","Secret":"p"}'"#,
    );
    fs::write(dir.path().join("config.json"), r#"{"credsStore":"count"}"#).unwrap();
    let clock = clock();
    let at: Arc<dyn Clock> = clock.clone();
    let config = DockerConfig::open(dir.path().join("config.json"), at).await.unwrap();
    let config = config.with_helpers_in(dir.path());
    let calls = || fs::read_to_string(dir.path().join("calls")).unwrap().lines().count();
    for (rest, expected) in [(0, 1), (59, 1), (1, 2)] {
        clock.advance(Duration::from_secs(rest));
        assert_eq!(ask(&config, "a.test").await, "u:p");
        assert_eq!(calls(), expected, "after {rest} s");
    }
}

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

/// AWS as the test wants it, and a source that asks there.
async fn aws(
    reply: Arc<Mutex<Reply>>,
    token: Option<&str>,
) -> (Scripted, EcrToken, Arc<ManualClock>) {
    let server = Scripted::start(move |_| reply.lock().clone()).await;
    let keys = AwsKeys {
        id: "AKIDEXAMPLE".into(),
        secret: Secret::new(PASSWORD),
        session_token: token.map(Secret::new),
    };
    let clock = clock();
    let at: Arc<dyn Clock> = clock.clone();
    let source = EcrToken::with_keys(keys, at).unwrap();
    let source = source.with_endpoint(server.url().parse().unwrap());
    (server, source, clock)
}

/// An answer with the password `AWS:pw`, valid for twelve hours from the clock's beginning.
fn password() -> Reply {
    Reply::ok(
        r#"{"authorizationData":[{"authorizationToken":"QVdTOnB3","expiresAt":1700043200.0}]}"#,
    )
}

#[tokio::test]
async fn ecr_passwords_are_asked_for_with_a_signature() {
    let (server, source, _) = aws(Arc::new(Mutex::new(password())), Some("session")).await;
    assert_eq!(ask(&source, ECR).await, "AWS:pw");
    assert_eq!(ask(&source, "docker.io").await, "none");
    assert_eq!(ask(&source, "public.ecr.aws").await, "AWS:pw");
    let log = server.log();
    assert_eq!(log.len(), 2);
    let private = &log[0];
    assert_eq!((private.method.as_str(), private.path.as_str()), ("POST", "/"));
    assert_eq!(private.body, "{}");
    assert_eq!(private.header("content-type"), Some("application/x-amz-json-1.1"));
    let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    assert_eq!(private.header("x-amz-target"), Some(target));
    assert_eq!(private.header("x-amz-security-token"), Some("session"));
    let signature = private.authorization();
    assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{signature}");
    assert!(signature.contains("/eu-west-1/ecr/aws4_request, SignedHeaders="), "{signature}");
    for signed in ["content-type", "host", "x-amz-date", "x-amz-security-token", "x-amz-target"] {
        assert!(signature.contains(signed), "{signed} is not signed: {signature}");
    }
    let public = &log[1];
    assert_eq!(public.header("x-amz-target"), Some("SpencerFrontendService.GetAuthorizationToken"));
    assert!(public.authorization().contains("/us-east-1/ecr-public/aws4_request"));
}

#[tokio::test]
async fn ecr_passwords_are_renewed_at_half_of_their_life_and_kept_if_that_fails() {
    let reply = Arc::new(Mutex::new(password()));
    let (server, source, clock) = aws(Arc::clone(&reply), None).await;
    let hours = |count: u64| Duration::from_secs(count * 3600);
    for (rest, requests) in [(hours(0), 1), (hours(5), 1)] {
        clock.advance(rest);
        assert_eq!(ask(&source, ECR).await, "AWS:pw");
        assert_eq!(server.hits(), requests);
    }
    *reply.lock() = Reply::new(500);
    let minute = Duration::from_secs(60);
    for (rest, requests) in [(hours(1), 2), (minute / 6, 2), (minute, 3), (hours(5), 4)] {
        clock.advance(rest);
        assert_eq!(ask(&source, ECR).await, "AWS:pw", "the old one still works");
        assert_eq!(server.hits(), requests);
    }
    clock.advance(hours(1));
    expect("ran out", &ask(&source, ECR).await, "error", "500");
    *reply.lock() = password();
    assert_eq!(ask(&source, ECR).await, "AWS:pw");
}

#[tokio::test]
async fn concurrent_requests_share_one_ecr_password() {
    let (server, source, _) = aws(Arc::new(Mutex::new(password())), None).await;
    let all = (0..16).map(|_| ask(&source, ECR));
    for line in futures_util::future::join_all(all).await {
        assert_eq!(line, "AWS:pw");
    }
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn ecr_that_does_not_answer_well() {
    let denied = r#"{"__type":"com.amazon#AccessDeniedException","message":"s3cret-pa:ss"}"#;
    let cases = [
        (Reply::new(400).body(denied), "answered 400 Bad Request AccessDeniedException"),
        (Reply::new(503), "503"),
        (Reply::ok("{}"), "did not answer with an authorization token"),
        (Reply::ok(r#"{"authorizationData":[{"authorizationToken":"%"}]}"#), "cannot be read"),
        (Reply::ok(vec![b' '; 100_000]), "broke off"),
        (Reply::redirect("http://127.0.0.1:1/"), "307"),
    ];
    for (reply, part) in cases {
        let (_server, source, _) = aws(Arc::new(Mutex::new(reply)), None).await;
        let line = ask(&source, ECR).await;
        expect(part, &line, "error the ECR token service of eu-west-1", part);
    }
}
