//! What can go wrong with certificates.

use std::io;
use std::path::PathBuf;

/// Why there is no (new) certificate. The certificate in use is not affected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{} is not usable: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do about it.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// The configuration does not allow a certificate to be had.
    #[error("{0}")]
    Config(String),
    /// The ACME authority refused or could not be reached.
    #[error("no certificate from {directory}: {reason}")]
    Acme {
        /// Whom we asked.
        directory: String,
        /// What happened.
        reason: String,
    },
    /// The TLS library refused.
    #[error("the tls library refused")]
    Tls(#[from] rustls::Error),
    /// A blocking step did not run.
    #[error("interrupted")]
    Interrupted(#[source] io::Error),
}
