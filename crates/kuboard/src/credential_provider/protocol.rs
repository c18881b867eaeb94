//! Requests of kubelet and the answers to them. Pure.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use clap::ValueEnum;
use kuboard_oci::ImageReference;
use kuboard_operator::access::Claims;
use kuboard_operator::credentials::PullSecret;
use kuboard_registry::credentials::Credential;
use serde::Deserialize;
use serde_json::{Value, json};

/// The one version in which kubelet hands over tokens.
pub(super) const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

/// For which pulls kubelet may use an answer again, and the keys that the answer then needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheKey {
    /// The same image.
    Image,
    /// All images of its registry.
    Registry,
    /// All images that the provider answers for.
    Global,
}

impl CacheKey {
    /// As kubelet spells it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Image => "Image",
            Self::Registry => "Registry",
            Self::Global => "Global",
        }
    }

    /// As the command line spells it.
    pub(super) fn as_argument(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Registry => "registry",
            Self::Global => "global",
        }
    }
}

/// What kubelet asks. It holds a secret: no `Debug`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    service_account_token: String,
}

impl Request {
    pub(super) fn read(text: &[u8]) -> anyhow::Result<Self> {
        // Not with the parser's own words: they may quote the token.
        let Ok(request) = serde_json::from_slice::<Self>(text) else {
            bail!(
                "no CredentialProviderRequest came on the standard input; hint: kubelet runs this \
                 command; `kuboard credential-provider --install` sets a node up for that"
            );
        };
        if request.kind != "CredentialProviderRequest" || request.api_version != VERSION {
            bail!(
                "kubelet asks as {}, kind {}, which is not {VERSION}; hint: set apiVersion: \
                 {VERSION} for this provider in the CredentialProviderConfig",
                request.api_version,
                request.kind
            );
        }
        if request.image.is_empty() {
            bail!("kubelet's request names no image");
        }
        Ok(request)
    }

    /// The pod's token.
    pub(super) fn token(&self) -> Option<&str> {
        Some(self.service_account_token.as_str()).filter(|token| !token.is_empty())
    }
}

/// What the answer depends on beside the request.
pub(super) struct Settings<'a> {
    pub(super) audience: &'a str,
    pub(super) cache_key: CacheKey,
    pub(super) match_images: &'a [String],
    /// Content of the docker configuration for pods without a service account.
    pub(super) docker_config: Option<&'a [u8]>,
}

/// The answer as kubelet reads it. It holds secrets.
pub(super) fn answer(
    request: &Request,
    settings: &Settings<'_>,
    now_ms: i64,
) -> anyhow::Result<Value> {
    let image: ImageReference =
        request.image.parse().with_context(|| format!("the image {}", request.image))?;
    match (request.token(), settings.docker_config) {
        (Some(token), _) => {
            let user = user_of(token, &request.image, settings.audience, now_ms)?;
            let keys = match settings.cache_key {
                CacheKey::Image => vec![format!("{}/{}", image.registry, image.repository)],
                CacheKey::Registry => vec![image.registry],
                CacheKey::Global => settings.match_images.to_vec(),
            };
            let login = json!({ "username": user, "password": token });
            let auth = keys.into_iter().map(|key| (key, login.clone())).collect();
            Ok(response(settings.cache_key, &auth))
        }
        (None, Some(config)) => from_docker_config(&image, config),
        (None, None) => bail!(
            "kubelet handed over no service-account token for {}; hint: tokenAttributes of this \
             provider in the CredentialProviderConfig ask for one (Kubernetes 1.34 and later); for \
             pods without a service account name a --docker-config",
            request.image
        ),
    }
}

/// A user name that tells accounts apart; the registry goes by the token alone.
fn user_of(token: &str, image: &str, audience: &str, now_ms: i64) -> anyhow::Result<String> {
    let Some(claims) = Claims::read(token) else {
        bail!("what kubelet handed over for {image} is not a service-account token");
    };
    if !claims.audiences.name(audience) {
        bail!(
            "the token for {image} is not for the audience {audience}; hint: set \
             tokenAttributes.serviceAccountTokenAudience: {audience} for this provider in the \
             CredentialProviderConfig"
        );
    }
    if claims.has_ended(now_ms) {
        bail!("the token for {image} has ended; hint: is this node's clock right?");
    }
    let (namespace, account) = (&claims.bound.namespace, &claims.bound.serviceaccount.name);
    if namespace.is_empty() || account.is_empty() {
        return Ok("kuboard".to_owned());
    }
    Ok(format!("{namespace}/{account}"))
}

/// What a docker configuration holds for the image; an answer without credentials is a pull
/// without.
fn from_docker_config(image: &ImageReference, config: &[u8]) -> anyhow::Result<Value> {
    let config = k8s_openapi::ByteString(config.to_vec());
    let data = BTreeMap::from([(".dockerconfigjson".to_owned(), config)]);
    let secret = PullSecret::read("kubernetes.io/dockerconfigjson", &data)
        .context("the file named by --docker-config")?;
    let mut auth = BTreeMap::new();
    let mut cache_key = CacheKey::Registry;
    if let Some((entry, Credential::Basic { user, password })) =
        secret.best(&image.registry, image.repository.as_str())
    {
        // An entry for a part of a registry says nothing about its other images.
        let (key, narrow) = match entry.split_once('/') {
            Some(_) => (format!("{}/{}", image.registry, image.repository), CacheKey::Image),
            None => (image.registry.clone(), CacheKey::Registry),
        };
        cache_key = narrow;
        auth.insert(key, json!({ "username": user, "password": password.expose() }));
    }
    Ok(response(cache_key, &auth))
}

fn response(cache_key: CacheKey, auth: &BTreeMap<String, Value>) -> Value {
    json!({
        "apiVersion": VERSION,
        "kind": "CredentialProviderResponse",
        "cacheKeyType": cache_key.as_str(),
        // Kubelet keeps the token itself and renews it; an own cache could only be too old.
        "cacheDuration": "0s",
        "auth": auth,
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn token(audience: &str, ends: i64) -> String {
        let claims = json!({
            "aud": [audience], "exp": ends, "sub": "system:serviceaccount:team:web",
            "kubernetes.io": {"namespace": "team", "serviceaccount": {"name": "web"}},
        });
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn ours() -> String {
        token("registry.kuboard.cn", NOW / 1000 + 3600)
    }

    fn request(image: &str, token: &str) -> Request {
        let text = json!({
            "apiVersion": VERSION, "kind": "CredentialProviderRequest", "image": image,
            "serviceAccountToken": token, "serviceAccountAnnotations": {"a/b": "c"},
        });
        Request::read(text.to_string().as_bytes()).unwrap()
    }

    fn settings(cache_key: CacheKey) -> Settings<'static> {
        Settings {
            audience: "registry.kuboard.cn",
            cache_key,
            match_images: &[],
            docker_config: None,
        }
    }

    #[test]
    fn a_token_is_passed_through_under_the_keys_that_its_cache_needs() {
        let globs = ["reg.test:5000".to_owned(), "*.reg.test".to_owned()];
        let check = |cache_key: CacheKey, expected: &[&str]| {
            let token = ours();
            let settings = Settings { match_images: &globs, ..settings(cache_key) };
            let request = request("reg.test:5000/team/app", &token);
            let answer = answer(&request, &settings, NOW).unwrap();
            assert_eq!(answer["apiVersion"], VERSION);
            assert_eq!(answer["kind"], "CredentialProviderResponse");
            assert_eq!(answer["cacheDuration"], "0s");
            assert_eq!(answer["cacheKeyType"], cache_key.as_str());
            let auth = answer["auth"].as_object().unwrap();
            assert_eq!(auth.keys().collect::<Vec<_>>(), expected);
            for login in auth.values() {
                assert_eq!(login, &json!({"username": "team/web", "password": token}));
            }
        };
        check(CacheKey::Image, &["reg.test:5000/team/app"]);
        check(CacheKey::Registry, &["reg.test:5000"]);
        check(CacheKey::Global, &["*.reg.test", "reg.test:5000"]);
    }

    #[test]
    fn tags_digests_and_defaults_are_no_part_of_a_key() {
        let check = |image: &str, cache_key: CacheKey, expected: &str| {
            let answer = answer(&request(image, &ours()), &settings(cache_key), NOW).unwrap();
            assert_eq!(answer["auth"].as_object().unwrap().keys().next().unwrap(), expected);
        };
        check("reg.test/app:v1", CacheKey::Image, "reg.test/app");
        let digest = format!("reg.test/app@sha256:{}", "0".repeat(64));
        check(&digest, CacheKey::Image, "reg.test/app");
        check("reg.test/app:v1", CacheKey::Registry, "reg.test");
        check("alpine", CacheKey::Image, "docker.io/library/alpine");
        check("[::1]:5000/app", CacheKey::Registry, "[::1]:5000");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do_and_without_the_token() {
        let check = |token: &str, expected: &str| {
            let request = request("reg.test/app", token);
            let error = answer(&request, &settings(CacheKey::Registry), NOW).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains(expected), "{text}");
            assert!(token.is_empty() || !text.contains(token), "{text}");
        };
        check("", "tokenAttributes");
        check("opaque", "not a service-account token");
        check(&token("https://kubernetes.default.svc", NOW), "serviceAccountTokenAudience");
        check(&token("registry.kuboard.cn", NOW / 1000), "has ended");
    }

    #[test]
    fn requests_of_another_form_are_refused() {
        let check = |text: &str, expected: &str| {
            let error = Request::read(text.as_bytes()).err().unwrap().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("", "no CredentialProviderRequest");
        check("{", "no CredentialProviderRequest");
        check("{}", "is not credentialprovider");
        let old = r#"{"apiVersion":"credentialprovider.kubelet.k8s.io/v1beta1",
            "kind":"CredentialProviderRequest","image":"a"}"#;
        check(old, "set apiVersion: credentialprovider.kubelet.k8s.io/v1");
        let none = format!(r#"{{"apiVersion":"{VERSION}","kind":"CredentialProviderRequest"}}"#);
        check(&none, "names no image");
    }

    #[test]
    fn pods_without_a_service_account_get_what_the_node_has() {
        let config = r#"{"auths":{"reg.test":{"auth":"dTpw"},"other.test/team":{"auth":"YTpi"}}}"#;
        let check = |image: &str, key: &str, auth: Value| {
            let settings =
                Settings { docker_config: Some(config.as_bytes()), ..settings(CacheKey::Global) };
            let answer = answer(&request(image, ""), &settings, NOW).unwrap();
            assert_eq!((&answer["cacheKeyType"], &answer["auth"]), (&json!(key), &auth), "{image}");
        };
        check("reg.test/app", "Registry", json!({"reg.test": {"username": "u", "password": "p"}}));
        check(
            "other.test/team/app",
            "Image",
            json!({"other.test/team/app": {"username": "a", "password": "b"}}),
        );
        check("other.test/app", "Registry", json!({}));
        check("quay.io/app", "Registry", json!({}));
    }
}
