//! The authorizer against a scripted API server.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use kuboard_registry::server::{Action, Authorizer, Grant};
use kuboard_rt::Tasks;
use kuboard_rt::http::{Body, Limits, Request, Response, handler_fn};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{KubernetesAuthorizer, Metrics, Settings};

const NOW: i64 = 1_800_000_000_000;

/// What the API server says, and what it was asked.
#[derive(Default)]
struct Script {
    /// Tokens that it accepts: the user behind each.
    tokens: HashMap<String, Value>,
    /// What RBAC allows: `verb namespace:name`.
    allowed: Vec<String>,
    /// Answered with this status instead.
    broken: Option<StatusCode>,
    asked: Vec<String>,
}

struct Cluster {
    script: Arc<Mutex<Script>>,
    authorizer: KubernetesAuthorizer,
    _tasks: Tasks,
}

async fn cluster() -> Cluster {
    let script = Arc::new(Mutex::new(Script::default()));
    let told = script.clone();
    let handler = handler_fn(move |request| answer(told.clone(), request));
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let bound = kuboard_rt::http::bind(any, None, Limits::default()).await.unwrap();
    let address = bound.local_addr().unwrap();
    let scope = kuboard_rt::Scope::default();
    let stop = scope.shutdown();
    let tasks = scope.tasks();
    tasks.spawn("api server", async move {
        let _ = bound.serve(handler, stop, Duration::ZERO).await;
    });
    let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    let client = kube::Client::try_from(config).unwrap();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let authorizer = KubernetesAuthorizer::new(client, Settings::default(), metrics).unwrap();
    Cluster { script, authorizer, _tasks: tasks }
}

async fn answer(script: Arc<Mutex<Script>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect(1 << 20).await.unwrap();
    let mut question: Value = serde_json::from_slice(&body).unwrap();
    let mut script = script.lock();
    let spec = question["spec"].clone();
    if let Some(status) = script.broken {
        script.asked.push("broken".to_owned());
        let text = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no",
            "reason": status.canonical_reason().unwrap_or_default().replace(' ', ""),
            "code": status.as_u16(),
        });
        let mut response = Response::new(Body::full(text.to_string()));
        *response.status_mut() = status;
        return response;
    }
    if path.ends_with("/tokenreviews") {
        let token = spec["token"].as_str().unwrap_or_default();
        script.asked.push("token".to_owned());
        question["status"] = match script.tokens.get(token) {
            Some(user) => {
                json!({"authenticated": true, "audiences": spec["audiences"], "user": user})
            }
            None => json!({"authenticated": false, "error": "pod is gone"}),
        };
    } else {
        let about = &spec["resourceAttributes"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        assert_eq!(about["group"], "registry.kuboard.cn");
        assert_eq!(about["resource"], "repositories");
        let asked = format!(
            "{} {}:{}",
            text(&about["verb"]),
            text(&about["namespace"]),
            text(&about["name"])
        );
        question["status"] = json!({"allowed": script.allowed.contains(&asked)});
        script.asked.push(format!("{} {asked}", text(&spec["user"])));
    }
    let mut response = Response::new(Body::full(question.to_string()));
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

fn token(name: &str, audience: &str, ends_ms: i64) -> String {
    let claims = json!({
        "sub": format!("system:serviceaccount:team:{name}"), "aud": [audience],
        "exp": ends_ms / 1000,
    });
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn ours(name: &str) -> String {
    token(name, "registry.kuboard.cn", NOW + 3_600_000)
}

impl Cluster {
    fn accept(&self, token: &str, user: &str) {
        let user = json!({
            "username": format!("system:serviceaccount:team:{user}"),
            "uid": "u",
            "groups": ["system:serviceaccounts"],
            "extra": {
                "authentication.kubernetes.io/pod-name": [format!("{user}-0")],
                "authentication.kubernetes.io/node-name": ["node-1"],
            },
        });
        self.script.lock().tokens.insert(token.to_owned(), user);
    }

    fn allow(&self, what: &str) {
        self.script.lock().allowed.push(what.to_owned());
    }

    fn break_with(&self, status: Option<StatusCode>) {
        self.script.lock().broken = status;
    }

    /// What was asked since the last look.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().asked)
    }

    async fn grant(&self, token: &str, now_ms: i64) -> Result<Option<Arc<Grant>>, StatusCode> {
        if let Some(grant) = self.authorizer.remembered("x", token, now_ms) {
            return Ok(Some(grant));
        }
        self.authorizer.authenticate("x", token, now_ms).await.map_err(|error| error.status)
    }

    async fn may(
        &self,
        grant: &Grant,
        action: Action,
        repository: &str,
        now_ms: i64,
    ) -> Result<bool, StatusCode> {
        let judge = grant.judge.as_ref().unwrap();
        judge.rights().allows(action, repository, now_ms).await.map_err(|error| error.status)
    }
}

#[tokio::test]
async fn a_token_is_reviewed_once_and_names_its_pod() {
    let cluster = cluster().await;
    let token = ours("web");
    cluster.accept(&token, "web");
    assert!(cluster.authorizer.knows_token(&token));
    let grant = cluster.grant(&token, NOW).await.unwrap().unwrap();
    assert_eq!(grant.name, "system:serviceaccount:team:web");
    let workload = grant.workload.clone().unwrap();
    assert_eq!((workload.pod.as_str(), workload.node.as_str()), ("web-0", "node-1"));
    assert_eq!(grant.expires_ms, Some(NOW + 3_600_000));
    assert!(grant.stamp.is_empty(), "no refresh token stands for it");
    assert!(cluster.grant(&token, NOW + 29_999).await.unwrap().is_some());
    assert_eq!(cluster.asked(), ["token"]);
    assert!(cluster.grant(&token, NOW + 30_000).await.unwrap().is_some());
    assert_eq!(cluster.asked(), ["token"], "after half a minute it is reviewed again");
}

#[tokio::test]
async fn only_tokens_for_our_audience_reach_the_api_server() {
    let cluster = cluster().await;
    for text in ["", "password", "kbk_0123456789abcdef_00", "a.b.c"] {
        assert_eq!(cluster.grant(text, NOW).await, Ok(None), "{text}");
        assert!(!cluster.authorizer.knows_token(text));
    }
    let foreign = token("web", "https://kubernetes.default.svc", NOW + 60_000);
    assert_eq!(cluster.grant(&foreign, NOW).await, Err(StatusCode::UNAUTHORIZED));
    let over = token("web", "registry.kuboard.cn", NOW);
    assert_eq!(cluster.grant(&over, NOW).await, Ok(None));
    assert!(cluster.asked().is_empty());
}

#[tokio::test]
async fn a_refused_token_is_remembered_for_five_seconds_only() {
    let cluster = cluster().await;
    let token = ours("late");
    assert_eq!(cluster.grant(&token, NOW).await, Ok(None));
    cluster.accept(&token, "late");
    assert_eq!(cluster.grant(&token, NOW + 4_999).await, Ok(None));
    assert!(cluster.grant(&token, NOW + 5_000).await.unwrap().is_some());
    assert_eq!(cluster.asked(), ["token", "token"]);
}

#[tokio::test]
async fn a_token_is_never_remembered_beyond_its_end() {
    let cluster = cluster().await;
    let token = token("web", "registry.kuboard.cn", NOW + 10_000);
    cluster.accept(&token, "web");
    assert!(cluster.grant(&token, NOW).await.unwrap().is_some());
    assert_eq!(cluster.grant(&token, NOW + 10_000).await, Ok(None));
}

#[tokio::test]
async fn rbac_is_asked_from_the_repository_to_its_namespace() {
    let cluster = cluster().await;
    let token = ours("web");
    cluster.accept(&token, "web");
    cluster.allow("get team:team/base/*");
    cluster.allow("get team:team/app");
    let grant = cluster.grant(&token, NOW).await.unwrap().unwrap();
    cluster.asked();
    let user = "system:serviceaccount:team:web";
    assert_eq!(cluster.may(&grant, Action::Pull, "team/app", NOW).await, Ok(true));
    assert_eq!(cluster.asked(), [format!("{user} get team:team/app")]);
    assert_eq!(cluster.may(&grant, Action::Pull, "team/base/java", NOW).await, Ok(true));
    assert_eq!(cluster.asked().len(), 3);
    assert_eq!(cluster.may(&grant, Action::Push, "team/app", NOW).await, Ok(false));
    assert_eq!(
        cluster.asked(),
        [format!("{user} create team:team/app"), format!("{user} create team:team/*")]
    );
    assert_eq!(cluster.may(&grant, Action::Pull, "other/app", NOW).await, Ok(false));
}

#[tokio::test]
async fn a_yes_is_remembered_for_half_a_minute_and_a_no_for_five_seconds() {
    let cluster = cluster().await;
    let token = ours("web");
    cluster.accept(&token, "web");
    cluster.allow("get team:team/app");
    let grant = cluster.grant(&token, NOW).await.unwrap().unwrap();
    let may =
        |repository: &'static str, at: i64| cluster.may(&grant, Action::Pull, repository, NOW + at);
    assert_eq!(may("team/app", 0).await, Ok(true));
    assert_eq!(may("team/b", 0).await, Ok(false));
    cluster.asked();
    cluster.script.lock().allowed = vec!["get team:team/b".to_owned()];
    assert_eq!(may("team/app", 29_999).await, Ok(true));
    assert_eq!(may("team/b", 4_999).await, Ok(false));
    assert!(cluster.asked().is_empty());
    assert_eq!(may("team/app", 30_000).await, Ok(false));
    assert_eq!(may("team/b", 5_000).await, Ok(true));
}

#[tokio::test]
async fn while_the_api_server_is_away_the_known_go_on_and_others_are_told_to_come_back() {
    let cluster = cluster().await;
    let (known, new) = (ours("web"), ours("new"));
    cluster.accept(&known, "web");
    cluster.accept(&new, "new");
    cluster.allow("get team:team/app");
    let grant = cluster.grant(&known, NOW).await.unwrap().unwrap();
    assert_eq!(cluster.may(&grant, Action::Pull, "team/app", NOW).await, Ok(true));
    cluster.asked();
    cluster.break_with(Some(StatusCode::SERVICE_UNAVAILABLE));
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let now = NOW + 10_000;
    assert_eq!(cluster.grant(&new, now).await, Err(unavailable));
    assert_eq!(cluster.may(&grant, Action::Pull, "team/app", now).await, Ok(true));
    assert_eq!(cluster.may(&grant, Action::Pull, "team/b", now).await, Err(unavailable));
    assert!(cluster.grant(&known, now).await.unwrap().is_some());
    assert_eq!(cluster.asked(), ["broken"], "a pause follows a failure");
    // No failure is taken for a no, nor remembered.
    cluster.break_with(None);
    cluster.allow("get team:team/b");
    let later = now + 1_000;
    assert!(cluster.grant(&new, later).await.unwrap().is_some());
    assert_eq!(cluster.may(&grant, Action::Pull, "team/b", later).await, Ok(true));
}

#[tokio::test]
async fn a_server_that_may_not_review_says_so_and_is_asked_again_at_once() {
    let cluster = cluster().await;
    let token = ours("web");
    cluster.accept(&token, "web");
    cluster.break_with(Some(StatusCode::FORBIDDEN));
    assert_eq!(cluster.grant(&token, NOW).await, Err(StatusCode::SERVICE_UNAVAILABLE));
    cluster.break_with(None);
    assert!(cluster.grant(&token, NOW).await.unwrap().is_some());
}

#[tokio::test]
async fn rights_of_one_subject_are_not_those_of_another() {
    let cluster = cluster().await;
    let (one, two) = (ours("one"), ours("two"));
    cluster.accept(&one, "one");
    cluster.accept(&two, "two");
    cluster.allow("get team:team/app");
    let first = cluster.grant(&one, NOW).await.unwrap().unwrap();
    let second = cluster.grant(&two, NOW).await.unwrap().unwrap();
    cluster.asked();
    assert_eq!(cluster.may(&first, Action::Pull, "team/app", NOW).await, Ok(true));
    assert_eq!(cluster.may(&second, Action::Pull, "team/app", NOW).await, Ok(true));
    assert_eq!(cluster.asked().len(), 2, "each subject is asked about");
}
