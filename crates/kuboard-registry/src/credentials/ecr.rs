//! Credentials for Amazon ECR: one signed request (`GetAuthorizationToken`) gives a password for
//! twelve hours. A new one is fetched at half of its life.
//!
//! Signing and the credential chain (environment, web identity of a service account, Pod
//! Identity, ECS task, instance metadata) are those of `object_store`, which is in the tree for
//! S3; the AWS SDK would add more than a hundred crates for this one request.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, header};
use kuboard_rt::{BoxFuture, Clock};
use object_store::{
    StaticCredentialProvider,
    aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential, AwsCredentialProvider},
    client::{HttpRequest, HttpRequestBody},
};
use parking_lot::Mutex;
use serde::Deserialize;
use url::Url;

use super::{Credential, CredentialError, Credentials, Secret};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Life of a password whose answer does not say it; AWS documents twelve hours.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);
const MAX_LIFE: Duration = Duration::from_secs(12 * 3600);
/// How long a failed refresh is not repeated while the old password still works.
const RETRY: Duration = Duration::from_secs(30);
/// Passwords are not used for this last part of their life.
const MARGIN: Duration = Duration::from_secs(60);

/// A key of AWS.
#[derive(Clone, Debug)]
pub struct AwsKeys {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: Secret,
    /// `AWS_SESSION_TOKEN`, of temporary keys.
    pub session_token: Option<Secret>,
}

/// See the module. Knows nothing of registries that are not ECR.
pub struct EcrToken {
    keys: AwsCredentialProvider,
    endpoint: Option<Url>,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    /// By region and kind of registry.
    slots: Mutex<HashMap<Service, Arc<tokio::sync::Mutex<Option<Password>>>>>,
}

#[derive(Clone)]
struct Password {
    credential: Credential,
    /// Monotonic.
    refresh_at: Duration,
    usable_until: Duration,
}

impl EcrToken {
    /// With the keys that the process finds around itself, as the AWS tools do.
    ///
    /// # Errors
    /// The environment names only half of a key, or no TLS can be set up.
    pub fn from_environment(clock: Arc<dyn Clock>) -> Result<EcrToken, CredentialError> {
        // The bucket is required by the builder and never asked for.
        let chain = AmazonS3Builder::from_env().with_bucket_name("none").build().map_err(|e| {
            CredentialError::lasting("the AWS credentials cannot be set up").because(e)
        })?;
        EcrToken::new(Arc::clone(chain.credentials()), clock)
    }

    /// With a fixed key.
    ///
    /// # Errors
    /// No TLS can be set up.
    pub fn with_keys(keys: AwsKeys, clock: Arc<dyn Clock>) -> Result<EcrToken, CredentialError> {
        let keys = AwsCredential {
            key_id: keys.id,
            secret_key: keys.secret.expose().to_owned(),
            token: keys.session_token.map(|token| token.expose().to_owned()),
        };
        EcrToken::new(Arc::new(StaticCredentialProvider::new(keys)), clock)
    }

    fn new(keys: AwsCredentialProvider, clock: Arc<dyn Clock>) -> Result<Self, CredentialError> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(crate::client::USER_AGENT)
            .build()
            .map_err(|e| CredentialError::lasting("no TLS for AWS can be set up").because(e))?;
        Ok(EcrToken { keys, endpoint: None, http, clock, slots: Mutex::default() })
    }

    /// Asks this service instead of the public one, for example a VPC endpoint.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Url) -> EcrToken {
        self.endpoint = Some(endpoint);
        self
    }

    async fn password(&self, service: Service) -> Result<Credential, CredentialError> {
        let slot = Arc::clone(self.slots.lock().entry(service.clone()).or_default());
        // Held while AWS is asked: one request at a time for each region.
        let mut slot = slot.lock().await;
        let now = self.clock.monotonic();
        if let Some(password) = slot.as_ref()
            && now < password.refresh_at
        {
            return Ok(password.credential.clone());
        }
        match self.fetch(&service).await {
            Ok(fresh) => Ok(slot.insert(fresh).credential.clone()),
            Err(error) => match slot.as_mut().filter(|old| now < old.usable_until) {
                Some(old) => {
                    tracing::warn!(
                        region = service.region,
                        error = &error as &dyn std::error::Error,
                        "the ECR password could not be renewed; the last one is still valid"
                    );
                    old.refresh_at = now + RETRY;
                    Ok(old.credential.clone())
                }
                None => Err(error),
            },
        }
    }

    async fn fetch(&self, service: &Service) -> Result<Password, CredentialError> {
        let keys = self.keys.get_credential().await.map_err(|error| {
            CredentialError::passing(
                "no AWS credentials were found; hint: give the pod a role, or set \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
            .because(error)
        })?;
        let (url, headers, body) = self.signed(service, &keys)?;
        let response = self
            .http
            .request(Method::POST, url)
            .headers(headers)
            .body(body)
            .send()
            .await
            .map_err(|e| service.failed("cannot be reached").because(e.without_url()))?;
        let status = response.status();
        let bytes = crate::client::read_bounded(response, MAX_ANSWER)
            .await
            .map_err(|e| service.failed("broke off").because(e))?;
        if !status.is_success() {
            let error: AwsError = serde_json::from_slice(&bytes).unwrap_or_default();
            return Err(service.failed(&format!("answered {status} {}", error.kind())));
        }
        let (token, expires_at) = Answer::parse(&bytes)
            .ok_or_else(|| service.failed("did not answer with an authorization token"))?;
        let credential = decode(token.expose())
            .ok_or_else(|| service.failed("answered with a token that cannot be read"))?;
        let life = expires_at.map_or(DEFAULT_LIFE, |at| life(at, self.clock.now_ms()));
        let now = self.clock.monotonic();
        let usable_until = now + life.saturating_sub(MARGIN);
        Ok(Password { credential, refresh_at: now + life / 2, usable_until })
    }

    fn signed(
        &self,
        service: &Service,
        keys: &AwsCredential,
    ) -> Result<(Url, HeaderMap, &'static str), CredentialError> {
        const BODY: &str = "{}";
        let url = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => Url::parse(&format!("https://{}/", service.api_host()))
                .map_err(|e| service.failed("has no valid address").because(e))?,
        };
        let mut request = HttpRequest::new(HttpRequestBody::from(BODY.to_owned()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url
            .as_str()
            .parse()
            .map_err(|e: http::uri::InvalidUri| service.failed("has no valid URI").because(e))?;
        let headers = request.headers_mut();
        let json = HeaderValue::from_static("application/x-amz-json-1.1");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert("x-amz-target", HeaderValue::from_static(service.target()));
        AwsAuthorizer::new(keys, service.signing_name(), &service.region)
            .try_authorize(&mut request, None)
            .map_err(|e| service.failed("request cannot be signed").because(e))?;
        Ok((url, request.into_parts().0.headers, BODY))
    }
}

impl Credentials for EcrToken {
    fn for_repository<'a>(
        &'a self,
        registry: &'a str,
        _repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialError>> {
        Box::pin(async move {
            match Service::of(registry) {
                Some(service) => self.password(service).await.map(Some),
                None => Ok(None),
            }
        })
    }
}

/// What is left of a life that ends at `expires_at_s`.
fn life(expires_at_s: f64, now_ms: i64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this era fit 52 bits")]
    let left = expires_at_s - now_ms as f64 / 1000.0;
    Duration::try_from_secs_f64(left).unwrap_or_default().min(MAX_LIFE)
}

/// `base64("AWS:password")`.
fn decode(token: &str) -> Option<Credential> {
    let text = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Credential::Basic { user: user.to_owned(), password: Secret::new(password) })
}

/// Which API gives the password for a registry.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
struct Service {
    kind: Kind,
    region: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
enum Kind {
    Private,
    Fips,
    /// `amazonaws.com.cn`.
    China,
    /// Names under `on.aws`, reachable over IPv6.
    DualStack,
    /// `public.ecr.aws`, which exists in one region only.
    Public,
}

impl Service {
    /// Reads the registry's host name: `ACCOUNT.dkr.ecr.REGION.amazonaws.com` and its variants.
    fn of(registry: &str) -> Option<Service> {
        if registry == "public.ecr.aws" {
            return Some(Service { kind: Kind::Public, region: "us-east-1".to_owned() });
        }
        let (account, rest) = registry.split_once('.')?;
        if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let forms = [
            ("dkr.ecr.", ".amazonaws.com", Kind::Private),
            ("dkr.ecr-fips.", ".amazonaws.com", Kind::Fips),
            ("dkr.ecr.", ".amazonaws.com.cn", Kind::China),
            ("dkr-ecr.", ".on.aws", Kind::DualStack),
        ];
        forms.into_iter().find_map(|(prefix, suffix, kind)| {
            let region = rest.strip_prefix(prefix)?.strip_suffix(suffix)?;
            let is_region = !region.is_empty()
                && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            is_region.then(|| Service { kind, region: region.to_owned() })
        })
    }

    fn api_host(&self) -> String {
        let region = &self.region;
        match self.kind {
            Kind::Private => format!("api.ecr.{region}.amazonaws.com"),
            Kind::Fips => format!("ecr-fips.{region}.amazonaws.com"),
            Kind::China => format!("api.ecr.{region}.amazonaws.com.cn"),
            Kind::DualStack => format!("ecr.{region}.api.aws"),
            Kind::Public => format!("api.ecr-public.{region}.amazonaws.com"),
        }
    }

    fn signing_name(&self) -> &'static str {
        if self.kind == Kind::Public { "ecr-public" } else { "ecr" }
    }

    fn target(&self) -> &'static str {
        match self.kind {
            Kind::Public => "SpencerFrontendService.GetAuthorizationToken",
            _ => "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
        }
    }

    fn failed(&self, how: &str) -> CredentialError {
        CredentialError::passing(format!(
            "the ECR token service of {} {}",
            self.region,
            how.trim_end()
        ))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    authorization_data: OneOrList,
}

/// A list from ECR, an object from ECR Public.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrList {
    List(Vec<AuthorizationData>),
    One(AuthorizationData),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationData {
    authorization_token: String,
    /// Seconds since 1970, with a fraction.
    expires_at: Option<f64>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<(Secret, Option<f64>)> {
        let answer: Answer = serde_json::from_slice(bytes).ok()?;
        let first = match answer.authorization_data {
            OneOrList::List(list) => list.into_iter().next()?,
            OneOrList::One(one) => one,
        };
        Some((Secret::new(first.authorization_token), first.expires_at))
    }
}

#[derive(Default, Deserialize)]
struct AwsError {
    #[serde(default, rename = "__type")]
    kind: String,
}

impl AwsError {
    /// The name of the exception, if it looks like one. The message is left out: it quotes the
    /// request.
    fn kind(&self) -> &str {
        let name = self.kind.rsplit('#').next().unwrap_or_default();
        let plain = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric());
        if plain { name } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_says_region_and_service() {
        let cases = [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "api.ecr.eu-west-1.amazonaws.com"),
            (
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "api.ecr.cn-north-1.amazonaws.com.cn",
            ),
            (
                "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                "ecr-fips.us-gov-west-1.amazonaws.com",
            ),
            ("123456789012.dkr-ecr.us-east-2.on.aws", "ecr.us-east-2.api.aws"),
            ("public.ecr.aws", "api.ecr-public.us-east-1.amazonaws.com"),
            ("12345678901.dkr.ecr.eu-west-1.amazonaws.com", ""),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.org", ""),
            ("123456789012.dkr.ecr.evil.org/x.amazonaws.com", ""),
            ("evil.org", ""),
            ("docker.io", ""),
        ];
        for (registry, expected) in cases {
            let host = Service::of(registry).map(|service| service.api_host()).unwrap_or_default();
            assert_eq!(host, expected, "{registry}");
        }
    }

    #[test]
    fn answers_come_in_two_forms() {
        let list = br#"{"authorizationData":[{"authorizationToken":"QVdTOnB3",
            "expiresAt":1448875853.241,"proxyEndpoint":"https://x"}]}"#;
        let one = br#"{"authorizationData":{"authorizationToken":"QVdTOnB3"}}"#;
        for (bytes, expires) in [(&list[..], Some(1_448_875_853.241)), (&one[..], None)] {
            let (token, at) = Answer::parse(bytes).unwrap();
            assert_eq!(at, expires);
            let expected = Credential::Basic { user: "AWS".into(), password: Secret::new("pw") };
            assert_eq!(decode(token.expose()), Some(expected));
        }
        for bytes in [&b"{}"[..], br#"{"authorizationData":[]}"#, b"x"] {
            assert!(Answer::parse(bytes).is_none());
        }
    }

    #[test]
    fn a_life_is_never_negative_nor_above_twelve_hours() {
        assert_eq!(life(1_000.5, 1_000_000), Duration::from_millis(500));
        assert_eq!(life(10.0, 1_000_000), Duration::ZERO);
        assert_eq!(life(f64::NAN, 0), Duration::ZERO);
        assert_eq!(life(1e12, 0), MAX_LIFE);
    }
}
