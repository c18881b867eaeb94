//! Which certificate a handshake gets.

use super::{ALPN_ACME, Error, provider};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

const HTTP01_PREFIX: &str = "/.well-known/acme-challenge/";

/// A certificate with its key, ready for handshakes.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) not_before_ms: i64,
    pub(crate) not_after_ms: i64,
}

impl Leaf {
    /// From a chain (the leaf first) and a key, both PEM. The paths name them in errors.
    pub(crate) fn from_pem(
        (chain_path, chain): (&Path, &str),
        (key_path, key): (&Path, &str),
    ) -> Result<Self, Error> {
        let content =
            |path: &Path, reason: String| Error::Content { path: path.to_owned(), reason };
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|err| content(chain_path, format!("no PEM certificates: {err}")))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|err| content(key_path, format!("no PEM private key: {err}")))?;
        let first = chain.first().ok_or_else(|| {
            content(chain_path, "no certificate in it; hint: the chain must be PEM".to_owned())
        })?;
        let (not_before_ms, not_after_ms) =
            validity_ms(first).map_err(|reason| content(chain_path, reason))?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|err| {
            let reason = format!("certificate and key do not work together: {err}");
            content(key_path, format!("{reason}; hint: {} is the chain", chain_path.display()))
        })?;
        Ok(Self { certified: Arc::new(certified), not_before_ms, not_after_ms })
    }

    /// The leaf certificate itself.
    pub(crate) fn der(&self) -> &[u8] {
        self.certified.cert.first().map_or(&[], |der| der.as_ref())
    }
}

fn validity_ms(certificate: &CertificateDer<'_>) -> Result<(i64, i64), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|err| format!("no X.509 certificate: {err}"))?;
    let ms = |time: x509_parser::time::ASN1Time| time.timestamp().saturating_mul(1_000);
    Ok((ms(parsed.validity().not_before), ms(parsed.validity().not_after)))
}

/// A moment for logs.
pub(crate) fn date(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| at.to_string())
}

/// Answers handshakes and challenges from what was last set.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    leaf: ArcSwapOption<Leaf>,
    /// Challenges that are open now, few and short-lived.
    http01: Mutex<HashMap<String, String>>,
    tls_alpn01: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl Resolver {
    pub(crate) fn set(&self, leaf: Leaf) {
        self.leaf.store(Some(Arc::new(leaf)));
    }

    pub(crate) fn leaf(&self) -> Option<Arc<Leaf>> {
        self.leaf.load_full()
    }

    pub(crate) fn http01_answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(HTTP01_PREFIX)?;
        self.http01.lock().get(token).cloned()
    }

    pub(crate) fn open_http01(&self, token: &str, answer: &str) {
        self.http01.lock().insert(token.to_owned(), answer.to_owned());
    }

    pub(crate) fn open_tls_alpn01(&self, server_name: &str, certified: Arc<CertifiedKey>) {
        self.tls_alpn01.lock().insert(server_name.to_ascii_lowercase(), certified);
    }

    pub(crate) fn close_challenges(&self) {
        self.http01.lock().clear();
        self.tls_alpn01.lock().clear();
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_challenge =
            hello.alpn().is_some_and(|mut offered| offered.any(|name| name == ALPN_ACME));
        if is_challenge {
            let name = hello.server_name()?.to_ascii_lowercase();
            return self.tls_alpn01.lock().get(name.trim_end_matches('.')).cloned();
        }
        self.leaf.load().as_ref().map(|leaf| leaf.certified.clone())
    }
}
