//! Putting content: blobs in one piece, and manifests. Only the upstream itself is asked, never a
//! mirror, and the credentials go to no other address than its own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use kuboard_oci::{Digest, Reference, RepositoryName, media_type};
use url::Url;

use super::{
    auth::{Errand, Pass, Who},
    endpoint::{Endpoint, Order},
    error::{Failure, UpstreamError, UpstreamErrorKind},
    exchange::{Answer, Ask},
    redirect::{Trail, same_origin},
    shared::{Ground, Lane, Operation, Shared},
    transport::drain,
};

/// Slower ones are taken for stuck, in bytes a second.
const SLOWEST: u64 = 32 << 10;
/// Requests of one exchange: without credentials, with a token that is too weak or stale, and with
/// a fresh one.
const ATTEMPTS: usize = 3;

/// A manifest that was put.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stored {
    /// Its digest.
    pub digest: Digest,
    /// The upstream listed it with the referrers of its subject. Otherwise that is for the client,
    /// by the tag of [`kuboard_oci::referrers_tag`].
    pub is_listed: bool,
}

/// Asks whether a blob is there already.
struct HasBlob<'a> {
    digest: &'a Digest,
    size: u64,
}

impl Operation for HasBlob<'_> {
    type Output = bool;
    const LANE: Lane = Lane::Small;

    fn order(&self) -> Order {
        Order::OwnOnly
    }

    fn ask(&self) -> Ask {
        Ask::new(Method::HEAD, format!("blobs/{}", self.digest))
    }

    /// Whatever it says but "not you" and "not now": sending it once more does no harm.
    fn takes(&self, answer: &Answer) -> bool {
        let status = answer.status();
        let serious =
            [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];
        status.is_client_error() && (answer.elsewhere || !serious.contains(&status))
            || status == StatusCode::NOT_IMPLEMENTED
    }

    async fn read(&self, answer: Answer, _ground: Ground) -> Result<bool, Failure> {
        Ok(answer.status() == StatusCode::OK && answer.length() == Some(self.size))
    }
}

/// Asks for a place to put a blob.
struct BeginUpload;

impl Operation for BeginUpload {
    type Output = (Url, usize);
    const LANE: Lane = Lane::Small;

    fn order(&self) -> Order {
        Order::OwnOnly
    }

    fn ask(&self) -> Ask {
        Ask::new(Method::POST, String::from("blobs/uploads/"))
    }

    fn takes(&self, answer: &Answer) -> bool {
        answer.status() == StatusCode::ACCEPTED
    }

    async fn read(&self, answer: Answer, ground: Ground) -> Result<(Url, usize), Failure> {
        if answer.status() != StatusCode::ACCEPTED {
            return Err(Failure::invalid(format!("it answered {}, not 202", answer.status())));
        }
        let location = answer.header(header::LOCATION);
        let location =
            location.ok_or_else(|| Failure::invalid("it names no place for the upload"))?;
        let mut trail = Trail::new(answer.response.url().clone());
        trail.follow(location).map_err(|why| {
            Failure::new(UpstreamErrorKind::Refused, format!("it answered with {why}"))
        })?;
        Ok((trail.at().clone(), ground.endpoint))
    }
}

/// What is put where.
struct Put<'a> {
    url: Url,
    media_type: &'a str,
    body: Bytes,
}

impl Shared {
    /// Puts a blob, if it is not there yet.
    pub(super) async fn put_blob(
        self: &Arc<Self>,
        repository: &RepositoryName,
        bytes: Bytes,
    ) -> Result<Digest, UpstreamError> {
        let digest = Digest::sha256(&bytes);
        let has = HasBlob { digest: &digest, size: bytes.len() as u64 };
        if self.run(repository, &has, Who::Upstream).await? {
            return Ok(digest);
        }
        let (mut url, endpoint) = self.run(repository, &BeginUpload, Who::Upstream).await?;
        // What the location carries already is the registry's own affair and stays as it is.
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let what = format!("PUT blob {digest} of {repository}");
        let put = Put { url, media_type: media_type::OCTET_STREAM, body: bytes };
        let endpoint = self.endpoints.get(endpoint);
        self.put_at(repository, endpoint, &put, &what, &digest).await?;
        Ok(digest)
    }

    /// Puts a manifest.
    pub(super) async fn put_manifest(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Stored, UpstreamError> {
        let what = format!("PUT manifests/{reference} of {repository}");
        let digest = match reference.digest() {
            Some(named) => Digest::of(named.algorithm(), &bytes),
            None => Digest::sha256(&bytes),
        };
        if reference.digest().is_some_and(|named| *named != digest) {
            let failure = Failure::invalid(format!("the manifest has the digest {digest}"));
            return Err(failure.at(&self.name, &what));
        }
        let own = self.endpoints.iter().find(|endpoint| endpoint.own);
        let url = own.map(|own| own.url(repository, &format!("manifests/{reference}")));
        let put = url.map(|url| Put { url, media_type, body: bytes });
        let put = put.ok_or_else(|| nobody().at(&self.name, &what))?;
        let is_listed = self.put_at(repository, own, &put, &what, &digest).await?;
        Ok(Stored { digest, is_listed })
    }

    async fn put_at(
        &self,
        repository: &RepositoryName,
        endpoint: Option<&Endpoint>,
        put: &Put<'_>,
        what: &str,
        digest: &Digest,
    ) -> Result<bool, UpstreamError> {
        let endpoint = endpoint.ok_or_else(|| nobody().at(&self.name, what))?;
        let errand = Errand { endpoint, repository, who: Who::Upstream };
        let stored = async {
            let answer = self.put(errand, put).await?;
            if answer.status() != StatusCode::CREATED {
                let answer = self.checked(answer).await?;
                return Err(Failure::invalid(format!("it answered {}, not 201", answer.status())));
            }
            let named = answer.header("docker-content-digest");
            let named = named.and_then(|named| named.trim().parse::<Digest>().ok());
            if let Some(named) = named
                && named.algorithm() == digest.algorithm()
                && named != *digest
            {
                return Err(Failure::invalid(format!("it stored {named} instead of {digest}")));
            }
            let is_listed = answer.header("oci-subject").is_some();
            drain(answer.response).await;
            Ok(is_listed)
        };
        let at = format!("{what} at {}", endpoint.authority());
        stored.await.map_err(|failure| failure.at(&self.name, &at))
    }

    /// Sends it until it is answered by something else than a 401 that credentials could answer.
    async fn put(&self, errand: Errand<'_>, put: &Put<'_>) -> Result<Answer, Failure> {
        let mut pass = self.auth.before(errand, &self.transport, &self.metrics).await?;
        let mut attempt = 1;
        loop {
            let answer = self.put_once(errand.endpoint, put, &pass).await?;
            if answer.status() != StatusCode::UNAUTHORIZED || answer.elsewhere {
                self.auth.accepted(errand.endpoint, &pass);
                return Ok(answer);
            }
            let headers = answer.response.headers();
            let next =
                self.auth.after_401(errand, &pass, headers, &self.transport, &self.metrics).await?;
            match next {
                Some(next) if attempt < ATTEMPTS => pass = next,
                _ => return Ok(answer),
            }
            drain(answer.response).await;
            attempt += 1;
        }
    }

    /// Sends it once, and to where it is redirected with its method kept.
    async fn put_once(
        &self,
        endpoint: &Endpoint,
        put: &Put<'_>,
        pass: &Pass,
    ) -> Result<Answer, Failure> {
        let mut trail = Trail::new(put.url.clone());
        loop {
            let is_home = trail.is_home() && same_origin(&endpoint.base, trail.at());
            let mut headers = HeaderMap::new();
            let media_type = HeaderValue::from_str(put.media_type)
                .map_err(|error| Failure::invalid("the media type is malformed").because(error))?;
            headers.insert(header::CONTENT_TYPE, media_type);
            if let Some(pass) = pass.header.as_ref().filter(|_| is_home) {
                headers.insert(header::AUTHORIZATION, pass.clone());
            }
            let extra = Duration::from_secs(put.body.len() as u64 / SLOWEST);
            let url = trail.at().clone();
            let sent = self.transport.put(url, headers, put.body.clone(), extra).await;
            let count = |code: &str| self.metrics.requests.with_label_values(&[code]).inc();
            let response = sent.inspect_err(|failure| count(failure.kind.as_str()))?;
            count(response.status().as_str());
            let location = match response.status() {
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {
                    response.headers().get(header::LOCATION)
                }
                _ => return Ok(Answer { response, method: Method::PUT, elsewhere: !is_home }),
            };
            let location = location
                .and_then(|location| location.to_str().ok())
                .ok_or_else(|| Failure::invalid("it redirects to nowhere"))?
                .to_owned();
            drain(response).await;
            trail.follow(&location).map_err(|why| {
                Failure::new(UpstreamErrorKind::Refused, format!("it answered with {why}"))
            })?;
        }
    }
}

fn nobody() -> Failure {
    let message = "no endpoint is the upstream itself; hint: content is never put to mirrors";
    Failure::new(UpstreamErrorKind::Refused, message)
}
