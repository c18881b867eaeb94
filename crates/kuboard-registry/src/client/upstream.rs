//! The door: one upstream registry.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use kuboard_oci::{Digest, Reference, RepositoryName};
use kuboard_rt::{Clock, SystemClock};
use parking_lot::Mutex;
use url::Url;

use super::{
    auth::{Authenticator, Who},
    blobs::{BlobStream, GetBlob, HeadBlob, Source},
    boundary::{Boundary, TrustedRealm},
    config::{InvalidUpstream, UpstreamConfig},
    endpoint::{Healths, Order, endpoints, host_in},
    error::{Failure, UpstreamError},
    lists::{self, GetPage, MAX_PAGES},
    manifests::{Fetched, GetManifest, Head, HeadManifest},
    metrics::Metrics,
    push::Stored,
    rate::RateLimit,
    shared::{Lanes, Shared},
    transport::Transport,
};
use crate::credentials::{Credential, Credentials, Secret};

/// A registry that images are pulled from, with its mirrors. Cloning is cheap; clones share
/// connections, tokens and limits.
///
/// Each question is put to the endpoints in turn until one gives an answer that counts: a mirror
/// may fail in any way, the upstream's own "not found", "unauthorized" and "denied" are final.
#[derive(Clone)]
pub struct Upstream(Arc<Shared>);

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upstream").field(&self.0.name).finish()
    }
}

impl Upstream {
    /// Reads the certificates and registers the metrics; nobody is asked yet. Metrics of an
    /// upstream of the same name are replaced.
    ///
    /// # Errors
    /// See [`InvalidUpstream`].
    pub fn new(
        config: UpstreamConfig,
        credentials: Arc<dyn Credentials>,
        metrics: &prometheus::Registry,
    ) -> Result<Upstream, InvalidUpstream> {
        Upstream::with_clock(config, credentials, metrics, Arc::new(SystemClock))
    }

    /// The same by another clock, which decides when tokens end and who is left alone how long.
    ///
    /// # Errors
    /// See [`InvalidUpstream`].
    pub fn with_clock(
        config: UpstreamConfig,
        credentials: Arc<dyn Credentials>,
        metrics: &prometheus::Registry,
        clock: Arc<dyn Clock>,
    ) -> Result<Upstream, InvalidUpstream> {
        let upstream = || config.name.clone();
        if config.endpoints.is_empty() {
            return Err(InvalidUpstream::NoEndpoint { upstream: upstream() });
        }
        if config.concurrency == 0 {
            return Err(InvalidUpstream::Concurrency { upstream: upstream() });
        }
        if let Some(position) = config.endpoints.iter().position(|url| !is_base(url)) {
            let number = position + 1;
            return Err(InvalidUpstream::Endpoint { upstream: upstream(), number });
        }
        let trusted = config
            .trusted_realms
            .iter()
            .map(|entry| {
                TrustedRealm::parse(entry).ok_or_else(|| InvalidUpstream::TrustedRealm {
                    upstream: upstream(),
                    entry: entry.clone(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let endpoints = endpoints(&config.name, &config.endpoints, &trusted);
        let own = endpoints.iter().filter(|e| e.own).map(|e| e.host().to_owned());
        let hosts = host_in(&config.name).into_iter().chain(own).collect();
        let name: Arc<str> = config.name.as_str().into();
        let auth = Authenticator::new(
            Arc::clone(&name),
            credentials,
            Boundary { trusted, hosts },
            Arc::clone(&clock),
            endpoints.len(),
        );
        let transport = Transport::new(&config)?;
        let metrics = Metrics::new(&name, metrics)
            .map_err(|source| InvalidUpstream::Metrics { upstream: upstream(), source })?;
        Ok(Upstream(Arc::new(Shared {
            name,
            healths: Mutex::new(Healths::new(endpoints.len())),
            endpoints,
            auth,
            transport,
            metrics,
            clock,
            rate: Mutex::default(),
            lanes: Lanes::new(&config),
        })))
    }

    /// The name it was configured by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What a reference stands for, by HEAD (which Docker Hub does not count), or by GET where
    /// HEAD is not supported.
    ///
    /// # Errors
    /// See [`UpstreamError`]. Also another digest than the one asked for.
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Head, UpstreamError> {
        let operation = HeadManifest { reference, order: Order::Configured };
        self.0.run(repository, &operation, Who::Upstream).await
    }

    /// A manifest, as it is and checked against the digest that was asked for and the one that
    /// the upstream names.
    ///
    /// # Errors
    /// See [`UpstreamError`]. Above 4 MiB or of a wrong digest it is `Invalid`.
    pub async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Fetched, UpstreamError> {
        self.0.run(repository, &GetManifest { reference }, Who::Upstream).await
    }

    /// The length of a blob in bytes.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn head_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<u64, UpstreamError> {
        self.0.run(repository, &HeadBlob { digest }, Who::Upstream).await
    }

    /// A blob from an offset on, to its end or up to and including `to_inclusive`. An upstream
    /// that ignores ranges gives it from the beginning: look at [`BlobStream::offset`].
    ///
    /// The stream holds one of the upstream's places until it ends or is dropped. It breaks with
    /// `UnexpectedEof` if it is shorter than promised, `TimedOut` without progress, and
    /// `InvalidData` if it is longer; the next request then prefers another endpoint.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn get_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: u64,
        to_inclusive: Option<u64>,
    ) -> Result<BlobStream, UpstreamError> {
        let operation = GetBlob { digest, from, to_inclusive };
        self.0.run(repository, &operation, Who::Upstream).await
    }

    /// A blob from there had a wrong digest: others are preferred for some minutes.
    pub fn blame(&self, source: Source) {
        let now = self.0.clock.monotonic();
        self.0.healths.lock().blamed(source.0, now);
    }

    /// The index of manifests that refer to one, all pages of it. Filtered by artifact type, here
    /// if the upstream did not. `NotFound` means that the upstream has no referrers API.
    ///
    /// # Errors
    /// See [`UpstreamError`]. More than 32 pages, or no index, is `Invalid`.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Bytes, UpstreamError> {
        let invalid = |why: String| {
            Failure::invalid(why).at(&self.0.name, &format!("GET referrers/{subject}"))
        };
        let mut page = GetPage::referrers(subject, artifact_type);
        let mut pages = Vec::new();
        loop {
            if pages.len() == MAX_PAGES {
                return Err(invalid(format!("more than {MAX_PAGES} pages of referrers")));
            }
            let got = self.0.run(repository, &page, Who::Upstream).await?;
            let next = lists::next_query(got.link.as_deref());
            pages.push(got);
            match next {
                Some(query) => page = page.next(query),
                None => break,
            }
        }
        lists::referrers(pages, artifact_type).map_err(invalid)
    }

    /// One page of tags as the upstream lists them, and its `Link` header. `query` is passed on
    /// (`n=100&last=x`, or empty).
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        query: &str,
    ) -> Result<(Bytes, Option<String>), UpstreamError> {
        let page = self.0.run(repository, &GetPage::tags(query), Who::Upstream).await?;
        Ok((page.bytes, page.link))
    }

    /// Puts a blob into a repository of the upstream itself, in one piece, unless it is there
    /// already. Its digest, sha256.
    ///
    /// # Errors
    /// See [`UpstreamError`]. `Unauthorized` and `Denied` where the credentials may not push.
    pub async fn put_blob(
        &self,
        repository: &RepositoryName,
        bytes: Bytes,
    ) -> Result<Digest, UpstreamError> {
        self.0.put_blob(repository, bytes).await
    }

    /// Puts a manifest into a repository of the upstream itself, under a tag or its digest. What it
    /// names must be there; a subject need not.
    ///
    /// # Errors
    /// See [`UpstreamError`]. `Invalid` where it is not the digest that it is put under.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Stored, UpstreamError> {
        self.0.put_manifest(repository, reference, media_type, bytes).await
    }

    /// Whether the upstream itself lets a caller see a manifest, judging by the `Authorization`
    /// header that the caller sent us. Basic goes where the upstream's own credentials would go,
    /// Bearer to the registry only. False too where it does not exist. Mirrors are not asked.
    ///
    /// # Errors
    /// It could not be found out.
    pub async fn verify_caller(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        authorization: &str,
    ) -> Result<bool, UpstreamError> {
        let Some(credential) = credential_of(authorization) else { return Ok(false) };
        let operation = HeadManifest { reference, order: Order::OwnOnly };
        match self.0.run(repository, &operation, Who::Caller(&credential)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind.is_verdict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the upstream still lets us ask, if it says so. When it [is low](RateLimit::is_low),
    /// revalidate nothing.
    #[must_use]
    pub fn rate_limit(&self) -> Option<RateLimit> {
        let (seen, at) = (*self.0.rate.lock())?;
        Some(seen.aged(self.0.clock.monotonic().saturating_sub(at)))
    }
}

fn is_base(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

/// The credential in a caller's `Authorization` header.
fn credential_of(authorization: &str) -> Option<Credential> {
    let (scheme, rest) = authorization.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() {
        return Some(Credential::Bearer(Secret::new(rest)));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Credential::Basic { user: user.to_owned(), password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_bring_basic_or_bearer() {
        let basic = Credential::Basic { user: "u".into(), password: Secret::new("p:q") };
        let cases = [
            ("Basic dTpwOnE=", Some(basic.clone())),
            ("basic  dTpwOnE=", Some(basic)),
            ("Bearer abc", Some(Credential::Bearer(Secret::new("abc")))),
            ("Bearer ", None),
            ("Basic dQ==", None),
            ("Basic %%%", None),
            ("Digest x", None),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(credential_of(header), expected, "{header:?}");
        }
    }

    #[test]
    fn endpoints_are_bare_addresses() {
        for (url, expected) in [
            ("https://a.test", true),
            ("http://a.test:5000/v2/x", true),
            ("ftp://a.test", false),
            ("https://u@a.test", false),
            ("https://a.test?x", false),
            ("https://a.test#x", false),
        ] {
            assert_eq!(is_base(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
