//! Users whose rights must be asked for, one repository at a time.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, StatusCode};
use kuboard_registry::server::{
    Access, AccessConfig, Action, Anonymous, ApiError, Authorizer, ErrorCode, Grant, Judge, NoKeys,
    Rights, Workload,
};
use kuboard_rt::BoxFuture;
use kuboard_rt::http::{Peer, Request};
use parking_lot::Mutex;
use serde_json::Value;

const NOW: i64 = 1_800_000_000_000;
const TOKEN: &str = "cluster.token";

/// Knows one token; whoever has it may pull what lies below `team/`, and list.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    away: bool,
    asked: Vec<String>,
}

impl Cluster {
    fn is_away(&self) -> Result<(), ApiError> {
        if self.0.lock().away {
            return Err(ApiError::new(ErrorCode::Unavailable, "away"));
        }
        Ok(())
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().asked)
    }
}

impl Authorizer for Cluster {
    fn remembered(&self, _user: &str, _secret: &str, _now_ms: i64) -> Option<Arc<Grant>> {
        None
    }

    fn knows_token(&self, token: &str) -> bool {
        token.starts_with("cluster.")
    }

    fn authenticate<'a>(
        &'a self,
        _user: &'a str,
        secret: &'a str,
        _now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Arc<Grant>>, ApiError>> {
        Box::pin(async move {
            self.is_away()?;
            if secret != TOKEN {
                return Ok(None);
            }
            let workload =
                Workload { pod: "web-0".into(), node: "n1".into(), ..Workload::default() };
            Ok(Some(Arc::new(Grant {
                judge: Some(Judge::new(Arc::new(self.clone()))),
                expires_ms: Some(NOW + 60_000),
                workload: Some(Arc::new(workload)),
                ..Grant::by_rules("system:serviceaccount:team:web".into(), vec![], String::new())
            })))
        })
    }

    fn renew<'a>(
        &'a self,
        _name: &'a str,
        _stamp: &'a str,
        _now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Arc<Grant>>, ApiError>> {
        Box::pin(async { Ok(None) })
    }
}

impl Rights for Cluster {
    fn allows<'a>(
        &'a self,
        action: Action,
        repository: &'a str,
        _now_ms: i64,
    ) -> BoxFuture<'a, Result<bool, ApiError>> {
        Box::pin(async move {
            self.is_away()?;
            self.0.lock().asked.push(format!("{} {repository}", action.as_str()));
            Ok(match action {
                Action::Pull => repository.starts_with("team/"),
                Action::Catalog => true,
                Action::Push | Action::Delete => false,
            })
        })
    }
}

struct House {
    access: Access,
    cluster: Cluster,
    _folder: tempfile::TempDir,
}

fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    let config = AccessConfig {
        anonymous: Anonymous::None,
        htpasswd: None,
        token_key: folder.path().join("token.pem"),
        service: "registry.example.com".to_owned(),
        external_url: None,
    };
    let cluster = Cluster::default();
    let access = Access::new(config, Arc::new(NoKeys)).unwrap();
    let access = access.with_authorizer(Arc::new(cluster.clone()));
    House { access, cluster, _folder: folder }
}

fn request(method: Method, uri: &str, authorization: &str, body: &str) -> Request {
    let mut request = http::Request::new(Bytes::from(body.to_owned()).into());
    *request.method_mut() = method;
    *request.uri_mut() = uri.parse().unwrap();
    request.headers_mut().insert(HOST, "registry.example.com".parse().unwrap());
    if !authorization.is_empty() {
        request.headers_mut().insert(AUTHORIZATION, authorization.parse().unwrap());
    }
    let addr: SocketAddr = "192.0.2.7:40000".parse().unwrap();
    request.extensions_mut().insert(Peer { addr: Some(addr), tls: true });
    request
}

fn basic(secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("team/web:{secret}")))
}

impl House {
    /// `ok`, or the status of the refusal.
    async fn permit(&self, authorization: &str, action: Action, repository: &str) -> String {
        let uri = format!("/v2/{repository}/manifests/v1");
        let request = request(Method::GET, &uri, authorization, "");
        match self.access.permit(&request, action, repository, NOW).await {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.status.as_u16().to_string(),
        }
    }

    async fn token(&self, request: Request) -> (StatusCode, Value) {
        let response = self.access.token(request, NOW).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

#[tokio::test]
async fn rights_are_asked_for_as_they_are_needed() {
    let house = house();
    for authorization in [basic(TOKEN), format!("Bearer {TOKEN}")] {
        assert_eq!(house.permit(&authorization, Action::Pull, "team/app").await, "ok");
        assert_eq!(house.permit(&authorization, Action::Push, "team/app").await, "403");
        assert_eq!(house.permit(&authorization, Action::Pull, "other/app").await, "403");
        let expected = ["pull team/app", "push team/app", "pull other/app"];
        assert_eq!(house.cluster.asked(), expected);
    }
    assert_eq!(house.permit("Bearer cluster.other", Action::Pull, "team/app").await, "401");
    assert_eq!(house.permit("Bearer unknown", Action::Pull, "team/app").await, "401");
}

#[tokio::test]
async fn tokens_hold_what_was_asked_for_and_granted_and_name_the_pod() {
    let house = house();
    let scope = "scope=repository:team/app:pull,push&scope=repository:other/app:pull";
    let uri = format!("/token?{scope}");
    let form = |grant: &str| format!("grant_type={grant}&{scope}&access_type=offline");
    for request in [
        request(Method::GET, &uri, &basic(TOKEN), ""),
        request(Method::GET, &uri, &format!("Bearer {TOKEN}"), ""),
        request(Method::POST, "/token", "", &form(&format!("refresh_token&refresh_token={TOKEN}"))),
        request(
            Method::POST,
            "/token",
            "",
            &form(&format!("password&username=x&password={TOKEN}")),
        ),
    ] {
        let (status, reply) = house.token(request).await;
        assert_eq!(status, 200, "{reply}");
        assert_eq!(reply["expires_in"], 60, "no longer than the credentials live");
        assert!(reply["refresh_token"].is_null(), "nothing could renew it");
        assert_eq!(house.cluster.asked(), ["pull team/app", "push team/app", "pull other/app"]);
        let token = reply["access_token"].as_str().unwrap();
        let bearer = format!("Bearer {token}");
        assert_eq!(house.permit(&bearer, Action::Pull, "team/app").await, "ok");
        assert_eq!(house.permit(&bearer, Action::Push, "team/app").await, "401");
        assert!(house.cluster.asked().is_empty(), "the token says it all");
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["sub"], "system:serviceaccount:team:web");
        assert_eq!(claims["kubernetes.io"]["pod"], "web-0");
        assert_eq!(claims["kubernetes.io"]["node"], "n1");
    }
}

#[tokio::test]
async fn a_list_shows_what_a_namespace_holds() {
    let house = house();
    let request = request(Method::GET, "/v2/_catalog", &basic(TOKEN), "");
    let caller = house.access.permit(&request, Action::Catalog, "", NOW).await.unwrap();
    house.cluster.asked();
    let mut names: Vec<String> =
        ["team/a", "team/b/c", "other/a", "other/b", "app"].map(str::to_owned).into();
    house.access.retain_visible(&caller, &mut names, NOW).await.unwrap();
    assert_eq!(names, ["team/a", "team/b/c"]);
    assert_eq!(house.cluster.asked(), ["pull team/*", "pull other/*"]);
}

#[tokio::test]
async fn nobody_is_locked_out_because_the_cluster_is_away() {
    let house = house();
    house.cluster.0.lock().away = true;
    for _ in 0..50 {
        assert_eq!(house.permit(&basic(TOKEN), Action::Pull, "team/app").await, "503");
    }
    house.cluster.0.lock().away = false;
    assert_eq!(house.permit(&basic(TOKEN), Action::Pull, "team/app").await, "ok");
}
