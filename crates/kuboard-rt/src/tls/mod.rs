//! Certificates of a listener: where they come from, how they are renewed, and how they are
//! swapped without a restart.
//!
//! Four sources, one value: files that somebody else renews ([`Certificates::from_files`]),
//! an own small authority for a single machine ([`Certificates::self_made`]), ACME
//! ([`Certificates::acme`]), and whoever hands them over ([`Certificates::handed`]). New handshakes use the newest certificate; a renewal that fails
//! keeps the old one.

mod acme;
mod disk;
mod error;
mod files;
mod resolver;
mod self_made;

pub use acme::{AcmeChallenge, AcmeConfig};
pub use error::Error;

use crate::{Clock, Shutdown};
use resolver::{Leaf, Resolver};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const ALPN_HTTP2: &[u8] = b"h2";
pub(crate) const ALPN_HTTP1: &[u8] = b"http/1.1";
pub(crate) const ALPN_ACME: &[u8] = b"acme-tls/1";

/// How often the source is asked. Asking is cheap (two `stat`s, or a look at the clock), and
/// a short pause survives clock jumps, which one long sleep would not.
const LOOK_EACH: Duration = Duration::from_secs(3);

/// The certificates of a listener.
pub struct Certificates {
    resolver: Arc<Resolver>,
    config: Arc<rustls::ServerConfig>,
    source: Source,
}

enum Source {
    Files(files::Files),
    SelfMade(self_made::SelfMade),
    Acme(Box<acme::Acme>),
    /// Somebody else calls [`Certificates::hand_over`].
    Handed,
}

impl Certificates {
    /// A chain and a key in PEM files, read again whenever either file changes. Links are
    /// followed, so a mounted Kubernetes Secret works.
    ///
    /// # Errors
    /// When the files cannot be read, do not parse or do not belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Arc<Self>, Error> {
        let files = files::Files::new(certificate, key);
        let resolver = Arc::new(Resolver::default());
        resolver.set(files.load()?);
        Self::build(resolver, Source::Files(files), false)
    }

    /// A certificate for `names` (host names and IP addresses), signed by an authority of our
    /// own that is made on first use and kept in `dir` (`ca.pem`, and `ca.key` for our eyes
    /// only). Clients must be told to trust `ca.pem`.
    ///
    /// # Errors
    /// When `dir` is not writable, or what it holds is no authority.
    pub fn self_made(dir: &Path, names: &[String], now_ms: i64) -> Result<Arc<Self>, Error> {
        let source = self_made::SelfMade::new(dir, names);
        let resolver = Arc::new(Resolver::default());
        resolver.set(source.issue(now_ms)?);
        Self::build(resolver, Source::SelfMade(source), false)
    }

    /// Certificates of an ACME authority such as Let's Encrypt. Starts with what the cache
    /// folder holds; while there is none, handshakes are refused until
    /// [`Certificates::keep_fresh`] has obtained one.
    ///
    /// # Errors
    /// When the configuration is not usable.
    pub fn acme(config: AcmeConfig) -> Result<Arc<Self>, Error> {
        let resolver = Arc::new(Resolver::default());
        let proves_by_handshake = config.challenge == AcmeChallenge::TlsAlpn01;
        let acme = acme::Acme::new(config, resolver.clone())?;
        if let Some(leaf) = acme.cached()? {
            resolver.set(leaf);
        }
        Self::build(resolver, Source::Acme(Box::new(acme)), proves_by_handshake)
    }

    /// Certificates that somebody hands over by [`Certificates::hand_over`]; until the first,
    /// handshakes are refused.
    ///
    /// # Errors
    /// When the TLS library refuses.
    pub fn handed() -> Result<Arc<Self>, Error> {
        Self::build(Arc::new(Resolver::default()), Source::Handed, false)
    }

    /// Takes over a chain (the leaf first) and its key, both PEM, whatever the source is. `name`
    /// stands for them in errors.
    ///
    /// # Errors
    /// When they do not parse or do not belong together; the old certificate stays in use.
    pub fn hand_over(&self, name: &str, chain: &str, key: &str) -> Result<(), Error> {
        let path = Path::new(name);
        self.resolver.set(Leaf::from_pem((path, chain), (path, key))?);
        Ok(())
    }

    fn build(
        resolver: Arc<Resolver>,
        source: Source,
        proves_by_handshake: bool,
    ) -> Result<Arc<Self>, Error> {
        let provider = Arc::new(provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        if proves_by_handshake {
            config.alpn_protocols.push(ALPN_ACME.to_vec());
        }
        // Sessions resume from the ticket alone; nothing is kept per client.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(Arc::new(Self { resolver, config: Arc::new(config), source }))
    }

    /// What the TLS library needs. Stays the same object; certificates change inside.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        self.config.clone()
    }

    /// When the certificate in use ends, milliseconds since 1970; `None` while there is none.
    pub fn not_after_ms(&self) -> Option<i64> {
        self.resolver.leaf().map(|leaf| leaf.not_after_ms)
    }

    /// The answer to a challenge of the http-01 kind, for requests to
    /// `/.well-known/acme-challenge/*` on the plain port 80. The body is the answer as it
    /// stands, `None` is a 404.
    pub fn http01_answer(&self, path: &str) -> Option<String> {
        self.resolver.http01_answer(path)
    }

    /// Asks the source once, and takes over what is new. True if the certificate changed.
    ///
    /// # Errors
    /// When something new is due and cannot be had. The old certificate stays in use.
    pub async fn refresh(&self, now_ms: i64) -> Result<bool, Error> {
        let fresh = match &self.source {
            Source::Files(files) => files.changed().await?,
            Source::SelfMade(source) => source.renew(self.resolver.leaf(), now_ms).await?,
            Source::Acme(acme) => acme.renew(self.resolver.leaf(), now_ms).await?,
            Source::Handed => None,
        };
        let changed = fresh.is_some();
        if let Some(leaf) = fresh {
            tracing::info!(until = %resolver::date(leaf.not_after_ms), "new certificate in use");
            self.resolver.set(leaf);
        }
        Ok(changed)
    }

    /// Keeps the certificate fresh until `stop` begins. Failures are logged, once per kind of
    /// failure, and tried again.
    ///
    /// # Errors
    /// None at present; the type suits [`crate::Scope::spawn`].
    pub async fn keep_fresh(
        self: Arc<Self>,
        clock: Arc<dyn Clock>,
        stop: Shutdown,
    ) -> anyhow::Result<()> {
        let keeping = async {
            let mut told = None;
            loop {
                match self.refresh(clock.now_ms()).await {
                    Ok(_) => told = None,
                    Err(err) => {
                        let said = format!("{:#}", anyhow::Error::from(err));
                        if told.as_ref() != Some(&said) {
                            tracing::warn!("the certificate stays as it is: {said}");
                        }
                        told = Some(said);
                    }
                }
                tokio::time::sleep(LOOK_EACH).await;
            }
        };
        stop.token().run_until_cancelled(keeping).await.unwrap_or(Ok(()))
    }
}

/// The cryptography of all our TLS: key exchange prefers the hybrid with ML-KEM, which keeps
/// recorded traffic closed to a future quantum computer.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    provider
}

/// Whether two thirds of a certificate's life are over.
pub(crate) fn is_due(leaf: &Leaf, now_ms: i64) -> bool {
    let life = leaf.not_after_ms.saturating_sub(leaf.not_before_ms);
    now_ms >= leaf.not_before_ms.saturating_add(life / 3 * 2)
}
