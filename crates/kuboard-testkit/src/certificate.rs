//! Certificates for servers on loopback, signed by an authority that the test made itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// An authority whose certificate is in a file.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one, with its certificate in `folder/ca.pem`.
    pub fn new(folder: &Path) -> Result<Authority> {
        fs::create_dir_all(folder)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        fs::write(folder.join("ca.pem"), params.self_signed(&key)?.pem())?;
        Ok(Authority { folder: folder.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// The authority's certificate, PEM.
    pub fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Signs a certificate for these names and addresses, kept in files called after `label`.
    /// Issuing the same label again replaces the files.
    pub fn issue(&self, label: &str, names: &[&str]) -> Result<Certificate> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, label);
        let signed = params.signed_by(&key, &self.issuer)?;
        let certificate = Certificate {
            certificate: self.folder.join(format!("{label}.pem")),
            key: self.folder.join(format!("{label}-key.pem")),
        };
        fs::write(&certificate.certificate, signed.pem())?;
        fs::write(&certificate.key, key.serialize_pem())?;
        Ok(certificate)
    }
}

/// A certificate and its key, in files.
#[derive(Clone, Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// The certificate, PEM.
    pub fn certificate_file(&self) -> &Path {
        &self.certificate
    }

    /// Its key, PKCS#8 PEM.
    pub fn key_file(&self) -> &Path {
        &self.key
    }
}
