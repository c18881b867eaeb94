//! Where the listener's certificate comes from, as the settings say.

use std::sync::Arc;

use anyhow::{Context, bail};
use kuboard_api::{AcmeChallenge as Said, Config, TlsMode};
use kuboard_rt::{
    Clock, Shutdown, SystemClock,
    tls::{AcmeChallenge, AcmeConfig, Certificates},
};

/// The certificates of the listener; none for plain HTTP.
pub(crate) fn certificates(config: &Config) -> anyhow::Result<Option<Arc<Certificates>>> {
    let tls = &config.server.tls;
    let dir = config.data_dir.join("tls");
    Ok(Some(match tls.mode {
        TlsMode::Off => return Ok(None),
        TlsMode::Files => {
            let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
                bail!("server.tls.mode = \"files\" needs server.tls.cert and server.tls.key");
            };
            Certificates::from_files(cert, key)?
        }
        TlsMode::SelfMade => {
            let names = if tls.names.is_empty() {
                vec!["localhost".to_owned(), config.server.listen.0.ip().to_string()]
            } else {
                tls.names.clone()
            };
            let certificates = Certificates::self_made(&dir, &names, SystemClock.now_ms())?;
            tracing::info!(ca = %dir.join("ca.pem").display(), "clients must trust this authority");
            certificates
        }
        TlsMode::Acme => {
            let acme = &tls.acme;
            let directory =
                acme.directory.as_ref().context("server.tls.acme.directory is empty")?;
            Certificates::acme(AcmeConfig {
                directory_url: directory.to_string(),
                contacts: acme.contacts.clone(),
                domains: acme.domains.clone(),
                cache_dir: dir,
                ca_file: acme.ca_file.clone(),
                challenge: match acme.challenge {
                    Said::Http01 => AcmeChallenge::Http01,
                    Said::TlsAlpn01 => AcmeChallenge::TlsAlpn01,
                },
            })?
        }
    }))
}

/// Reloads, remakes or renews the certificates as their time comes.
pub(crate) async fn keep_fresh(
    certificates: Arc<Certificates>,
    stop: Shutdown,
) -> anyhow::Result<()> {
    certificates.keep_fresh(Arc::new(SystemClock), stop).await
}
