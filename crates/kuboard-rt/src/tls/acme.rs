//! Certificates from an ACME authority (RFC 8555), proved by http-01 or tls-alpn-01.
//!
//! The account and the certificate are kept on disk. A certificate is renewed when two thirds
//! of its life are over; a failure is tried again later and later, never more often than the
//! limits of public authorities allow.

use super::resolver::{Leaf, Resolver, date};
use super::{Error, disk, is_due, provider};
use crate::retry::Backoff;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use parking_lot::Mutex;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One attempt, from the first request to the certificate.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How long the authority may take to look at our proof, and then to sign.
const POLL_TIMEOUT: Duration = Duration::from_secs(120);

/// Let's Encrypt allows five failures per name and hour.
const RETRY: Backoff =
    Backoff { base: Duration::from_secs(60), cap: Duration::from_secs(4 * 60 * 60) };

/// Even if our clock says that a new certificate has ended, the next one waits this long: a
/// wrong clock must not use up what the authority allows in a week.
const AFTER_SUCCESS: Duration = Duration::from_secs(60 * 60);

/// How the authority sees that a name is ours.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AcmeChallenge {
    /// It asks the plain port 80 of the name for an answer
    /// ([`super::Certificates::http01_answer`]).
    Http01,
    /// It makes a special TLS handshake with port 443 of the name, which must be this listener.
    #[default]
    TlsAlpn01,
}

/// Where and for what to get certificates.
#[derive(Clone, Debug)]
pub struct AcmeConfig {
    /// The authority's directory, for example
    /// `https://acme-v02.api.letsencrypt.org/directory`.
    pub directory_url: String,
    /// Whom the authority may write to, for example `mailto:ops@example.com`. May be empty.
    pub contacts: Vec<String>,
    /// Host names (or IP addresses, where the authority signs them) of the certificate.
    pub domains: Vec<String>,
    /// Where the account and the certificate are kept.
    pub cache_dir: PathBuf,
    /// PEM of the authority that signs the directory's own TLS, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How names are proved.
    pub challenge: AcmeChallenge,
}

pub(crate) struct Acme {
    config: AcmeConfig,
    identifiers: Vec<Identifier>,
    resolver: Arc<Resolver>,
    pause: Mutex<Pause>,
}

/// When the authority may be asked again.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
    until_ms: i64,
}

impl Pause {
    /// A clock that jumped back must not make a pause longer than it was meant.
    fn is_over(&self, now_ms: i64) -> bool {
        let longest = i64::try_from(RETRY.cap.as_millis()).unwrap_or(i64::MAX);
        now_ms >= self.until_ms || self.until_ms - now_ms > longest
    }

    fn failed(&mut self, now_ms: i64, random: f64) {
        self.wait(now_ms, RETRY.delay(self.failures, random));
        self.failures = self.failures.saturating_add(1);
    }

    fn succeeded(&mut self, now_ms: i64) {
        self.wait(now_ms, AFTER_SUCCESS);
        self.failures = 0;
    }

    fn wait(&mut self, now_ms: i64, delay: Duration) {
        let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        self.until_ms = now_ms.saturating_add(delay);
    }
}

/// The account on disk. An account belongs to one directory.
#[derive(Serialize, Deserialize)]
struct StoredAccount {
    directory: String,
    credentials: AccountCredentials,
}

impl Acme {
    pub(crate) fn new(config: AcmeConfig, resolver: Arc<Resolver>) -> Result<Self, Error> {
        if config.domains.is_empty() {
            let hint = "hint: name at least one domain that points here";
            return Err(Error::Config(format!("acme needs the names of the certificate; {hint}")));
        }
        if !config.directory_url.starts_with("https://") {
            let url = &config.directory_url;
            return Err(Error::Config(format!("acme directory {url:?} is no https:// address")));
        }
        if let Some(name) = config.domains.iter().find(|name| name.starts_with("*.")) {
            return Err(Error::Config(format!(
                "{name} cannot be proved by http-01 or tls-alpn-01; hint: list the names instead"
            )));
        }
        let identifier = |name: &String| match name.parse::<IpAddr>() {
            Ok(addr) => Identifier::Ip(addr),
            Err(_) => Identifier::Dns(name.to_ascii_lowercase()),
        };
        let identifiers = config.domains.iter().map(identifier).collect();
        Ok(Self { config, identifiers, resolver, pause: Mutex::default() })
    }

    /// The certificate on disk, if it is for these names.
    pub(crate) fn cached(&self) -> Result<Option<Leaf>, Error> {
        let path = self.certificate_path();
        let Some(pem) = disk::read_if_there(&path)? else { return Ok(None) };
        match Leaf::from_pem((&path, &pem), (&path, &pem)) {
            Ok(leaf) if self.is_for_our_names(&leaf) => Ok(Some(leaf)),
            Ok(_) => {
                tracing::info!("the kept certificate is for other names; asking for a new one");
                Ok(None)
            }
            Err(err) => {
                tracing::warn!("asking for a new certificate: {err}");
                Ok(None)
            }
        }
    }

    /// A new certificate if it is time for one and for another try.
    pub(crate) async fn renew(
        &self,
        leaf: Option<Arc<Leaf>>,
        now_ms: i64,
    ) -> Result<Option<Leaf>, Error> {
        if leaf.is_some_and(|leaf| !is_due(&leaf, now_ms)) || !self.pause.lock().is_over(now_ms) {
            return Ok(None);
        }
        let obtained = tokio::time::timeout(ATTEMPT_TIMEOUT, self.obtain())
            .await
            .unwrap_or_else(|_| Err(self.failure(format!("not done within {ATTEMPT_TIMEOUT:?}"))));
        self.resolver.close_challenges();
        let mut pause = self.pause.lock();
        match obtained {
            Ok(leaf) => {
                pause.succeeded(now_ms);
                Ok(Some(leaf))
            }
            Err(err) => {
                pause.failed(now_ms, rand::random());
                tracing::info!("next try of acme at {}", date(pause.until_ms));
                Err(err)
            }
        }
    }

    async fn obtain(&self) -> Result<Leaf, Error> {
        let account = self.account().await?;
        let order = NewOrder::new(&self.identifiers);
        let mut order = account.new_order(&order).await.map_err(|err| self.refused(&err))?;
        self.prove(&mut order).await?;

        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(self.config.domains.clone())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&key)?;
        order.finalize_csr(request.der()).await.map_err(|err| self.refused(&err))?;
        let chain = order.poll_certificate(&patience()).await.map_err(|err| self.refused(&err))?;

        let path = self.certificate_path();
        let pem = format!("{}{chain}", key.serialize_pem());
        let leaf = Leaf::from_pem((&path, &pem), (&path, &pem))?;
        disk::write_private(&path, &pem)?;
        Ok(leaf)
    }

    /// The account on disk, or a new one.
    async fn account(&self) -> Result<Account, Error> {
        // The ACME library takes the process-wide provider. Somebody may have set it before.
        let _ = provider().install_default();
        let builder = || {
            match &self.config.ca_file {
                Some(ca_file) => Account::builder_with_root(ca_file),
                None => Account::builder(),
            }
            .map_err(|err| self.refused(&err))
        };
        let path = self.config.cache_dir.join("account.json");
        if let Some(text) = disk::read_if_there(&path)? {
            match serde_json::from_str::<StoredAccount>(&text) {
                Ok(stored) if stored.directory == self.config.directory_url => {
                    let account = builder()?.from_credentials(stored.credentials).await;
                    return account.map_err(|err| self.refused(&err));
                }
                Ok(_) => tracing::info!("the kept acme account is for another directory"),
                Err(err) => {
                    return Err(Error::Content {
                        path,
                        reason: format!("{err}; hint: remove it to get a new account"),
                    });
                }
            }
        }
        let contact: Vec<&str> = self.config.contacts.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.config.directory_url.clone();
        let made = builder()?.create(&wanted, directory.clone(), None).await;
        let (account, credentials) = made.map_err(|err| self.refused(&err))?;
        let text = serde_json::to_string(&StoredAccount { directory, credentials })
            .map_err(|err| self.failure(format!("account does not serialise: {err}")))?;
        disk::write_private(&path, &text)?;
        tracing::info!(directory = self.config.directory_url, "new acme account");
        Ok(account)
    }

    /// Shows that every name is ours.
    async fn prove(&self, order: &mut Order) -> Result<(), Error> {
        let kind = match self.config.challenge {
            AcmeChallenge::Http01 => ChallengeType::Http01,
            AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|err| self.refused(&err))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let name = authorization.identifier().to_string();
            let Some(mut challenge) = authorization.challenge(kind.clone()) else {
                return Err(self.failure(format!("no {kind:?} challenge is offered for {name}")));
            };
            self.open(&challenge)?;
            challenge.set_ready().await.map_err(|err| self.refused(&err))?;
        }
        let status = order.poll_ready(&patience()).await.map_err(|err| self.refused(&err))?;
        if matches!(status, OrderStatus::Ready | OrderStatus::Valid) {
            return Ok(());
        }
        Err(self.failure(self.explain(order).await))
    }

    /// Makes the answer to a challenge visible.
    fn open(&self, challenge: &ChallengeHandle<'_>) -> Result<(), Error> {
        let answer = challenge.key_authorization();
        if self.config.challenge == AcmeChallenge::Http01 {
            self.resolver.open_http01(&challenge.token, answer.as_str());
            return Ok(());
        }
        // RFC 8737: a self-signed certificate for the name, with the answer in an extension.
        let identifier = challenge.identifier();
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![identifier.to_string()])?;
        params.custom_extensions =
            vec![CustomExtension::new_acme_identifier(answer.digest().as_ref())];
        let chain = vec![params.self_signed(&key)?.der().clone()];
        // The library does not know that extension, so it cannot be asked whether both fit.
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let certified = CertifiedKey::new(chain, provider().key_provider.load_private_key(key)?);
        let server_name = match identifier.identifier {
            Identifier::Ip(addr) => reverse_name(*addr),
            _ => identifier.to_string(),
        };
        self.resolver.open_tls_alpn01(&server_name, Arc::new(certified));
        Ok(())
    }

    /// What the authority saw when it looked at our proofs.
    async fn explain(&self, order: &mut Order) -> String {
        let mut said = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let _ = authorization.refresh().await;
            let name = authorization.identifier().to_string();
            for challenge in &authorization.challenges {
                if let Some(problem) = &challenge.error {
                    said.push(format!("{name}: {problem}"));
                }
            }
        }
        if said.is_empty() { "the order became invalid".to_owned() } else { said.join("; ") }
    }

    fn is_for_our_names(&self, leaf: &Leaf) -> bool {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf.der()) else { return false };
        let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
        let has = |identifier: &Identifier| {
            names.value.general_names.iter().any(|name| match (name, identifier) {
                (x509_parser::prelude::GeneralName::DNSName(name), Identifier::Dns(wanted)) => {
                    name.eq_ignore_ascii_case(wanted)
                }
                (x509_parser::prelude::GeneralName::IPAddress(bytes), Identifier::Ip(wanted)) => {
                    match wanted {
                        IpAddr::V4(addr) => addr.octets() == **bytes,
                        IpAddr::V6(addr) => addr.octets() == **bytes,
                    }
                }
                _ => false,
            })
        };
        self.identifiers.iter().all(has)
    }

    fn certificate_path(&self) -> PathBuf {
        self.config.cache_dir.join("certificate.pem")
    }

    fn refused(&self, err: &instant_acme::Error) -> Error {
        let mut reason = err.to_string();
        let mut source = std::error::Error::source(err);
        while let Some(err) = source {
            reason = format!("{reason}: {err}");
            source = err.source();
        }
        self.failure(reason)
    }

    fn failure(&self, reason: String) -> Error {
        Error::Acme { directory: self.config.directory_url.clone(), reason }
    }
}

fn patience() -> RetryPolicy {
    RetryPolicy::new().timeout(POLL_TIMEOUT)
}

/// The server name that stands for an address in a challenge handshake (RFC 8738).
fn reverse_name(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(addr) => {
            let nibbles = addr.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            let labels: String = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            format!("{labels}ip6.arpa")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_named_in_reverse() {
        let cases = [
            ("127.0.0.1", "1.0.0.127.in-addr.arpa"),
            (
                "2001:db8::1",
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            ),
        ];
        for (addr, expected) in cases {
            assert_eq!(reverse_name(addr.parse().unwrap()), expected);
        }
    }

    #[test]
    fn failures_pause_longer_and_longer_but_a_clock_jump_cannot_freeze_them() {
        let mut pause = Pause::default();
        assert!(pause.is_over(0));
        pause.failed(1_000, 1.0);
        assert!(!pause.is_over(60_999) && pause.is_over(61_000));
        pause.failed(61_000, 1.0);
        assert!(!pause.is_over(180_999) && pause.is_over(181_000));
        for _ in 0..40 {
            pause.failed(0, 1.0);
        }
        assert_eq!(pause.until_ms, 4 * 60 * 60 * 1_000);
        assert!(pause.is_over(-1));
        pause.succeeded(0);
        assert!(!pause.is_over(3_599_999) && pause.is_over(3_600_000));
        pause.failed(0, 1.0);
        assert_eq!(pause.until_ms, 60_000);
    }

    #[test]
    fn configurations_that_cannot_work_are_refused_with_a_hint() {
        let config = |directory_url: &str, domains: &[&str]| AcmeConfig {
            directory_url: directory_url.to_owned(),
            contacts: vec![],
            domains: domains.iter().map(|&name| name.to_owned()).collect(),
            cache_dir: PathBuf::from("acme"),
            ca_file: None,
            challenge: AcmeChallenge::Http01,
        };
        let cases = [
            (config("https://ca.test/dir", &[]), "name at least one domain"),
            (config("http://ca.test/dir", &["a.test"]), "no https:// address"),
            (config("https://ca.test/dir", &["*.a.test"]), "list the names instead"),
        ];
        for (config, expected) in cases {
            let err = Acme::new(config, Arc::default()).err().unwrap().to_string();
            assert!(err.contains(expected), "{err}");
        }
    }
}
