//! An authority of our own, for a machine that nobody else certifies.
//!
//! Its certificate and key stay in a folder, so that clients who were told to trust it go on
//! doing so after a restart. The leaf is short-lived and lives in memory only. Dates leave
//! room for clocks that are wrong: the authority begins long ago, the leaf began yesterday,
//! and a leaf that is not valid at the present reading of the clock is made anew, whichever
//! way the clock jumped.

use super::resolver::{Leaf, date};
use super::{Error, disk, is_due};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(20 * 365);
const LEAF_LIFE: Duration = DAY.saturating_mul(90);
/// Clients' clocks may lag behind ours by this much.
const LEAF_BEGINS_EARLIER: Duration = DAY;

pub(crate) struct SelfMade(Arc<Inner>);

struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    names: Vec<String>,
}

impl SelfMade {
    pub(crate) fn new(dir: &Path, names: &[String]) -> Self {
        let names = if names.is_empty() { vec!["localhost".to_owned()] } else { names.to_vec() };
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        Self(Arc::new(Inner { certificate, key, names }))
    }

    /// A new leaf, from an authority that is made if there is none.
    pub(crate) fn issue(&self, now_ms: i64) -> Result<Leaf, Error> {
        self.0.issue(now_ms)
    }

    /// A new leaf if it is time for one.
    pub(crate) async fn renew(
        &self,
        leaf: Option<Arc<Leaf>>,
        now_ms: i64,
    ) -> Result<Option<Leaf>, Error> {
        // Not begun yet: the clock was ahead when the leaf was made.
        let is_fine = |leaf: Arc<Leaf>| now_ms >= leaf.not_before_ms && !is_due(&leaf, now_ms);
        if leaf.is_some_and(is_fine) {
            return Ok(None);
        }
        let inner = self.0.clone();
        let issued = tokio::task::spawn_blocking(move || inner.issue(now_ms)).await;
        issued.map_err(|err| Error::Interrupted(err.into()))?.map(Some)
    }
}

impl Inner {
    fn issue(&self, now_ms: i64) -> Result<Leaf, Error> {
        let (authority, authority_pem) = self.authority(now_ms)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(self.names.clone())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Kuboard");
        let now = since_1970(now_ms);
        params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(LEAF_BEGINS_EARLIER);
        params.not_after = date_time_ymd(1970, 1, 1) + now + LEAF_LIFE;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &authority)?;
        let chain = format!("{}{authority_pem}", leaf.pem());
        Leaf::from_pem((&self.certificate, &chain), (&self.key, &key.serialize_pem()))
    }

    /// The authority in the folder, or a new one. Half an authority is an error: replacing it
    /// would silently break everyone who trusts it.
    fn authority(&self, now_ms: i64) -> Result<(Issuer<'static, KeyPair>, String), Error> {
        let found = (disk::read_if_there(&self.certificate)?, disk::read_if_there(&self.key)?);
        match found {
            (Some(certificate), Some(key)) => {
                let leaf = Leaf::from_pem((&self.certificate, &certificate), (&self.key, &key))?;
                if now_ms < leaf.not_after_ms {
                    let key = KeyPair::from_pem(&key)?;
                    return Ok((Issuer::from_ca_cert_pem(&certificate, key)?, certificate));
                }
                tracing::warn!(
                    until = %date(leaf.not_after_ms),
                    "the own authority has ended and is made anew; hint: tell clients to trust {}",
                    self.certificate.display()
                );
            }
            // The key is written first: alone it is what a crash in between leaves.
            (None, _) => {}
            (Some(_), None) => {
                return Err(Error::Content {
                    path: self.certificate.clone(),
                    reason: format!(
                        "its key {} is missing; hint: restore the key, or remove both to start \
                         with a new authority that clients must be told to trust",
                        self.key.display()
                    ),
                });
            }
        }
        self.make_authority(now_ms)
    }

    fn make_authority(&self, now_ms: i64) -> Result<(Issuer<'static, KeyPair>, String), Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Kuboard own authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970(now_ms) + AUTHORITY_LIFE;
        let certificate = params.self_signed(&key)?.pem();
        disk::write_private(&self.key, &key.serialize_pem())?;
        disk::write_public(&self.certificate, &certificate)?;
        tracing::info!("made an own authority; clients trust it by {}", self.certificate.display());
        Ok((Issuer::new(params, key), certificate))
    }
}

/// A moment as a time span, for the certificate library. Certificates hold years up to 9999, so
/// a clock that shows more than 9900 is taken for that.
fn since_1970(ms: i64) -> Duration {
    const YEAR_9900_MS: u64 = 250_246_540_800_000;
    Duration::from_millis(u64::try_from(ms).unwrap_or(0).min(YEAR_9900_MS))
}
