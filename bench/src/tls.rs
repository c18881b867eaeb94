//! A TLS 1.3 client that decrypts no more than the answer's head; the rest of the records is
//! thrown away inside the kernel, since the server's cost is what is measured.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kuboard_oci::{Algorithm, Digest, Hasher};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

use crate::plan::MIB;
use crate::wire;

/// A client that trusts one authority.
pub(crate) struct Client {
    config: Arc<ClientConfig>,
}

/// A socket that counts what comes in.
struct Counted {
    stream: TcpStream,
    received: u64,
}

impl Client {
    /// Trusts the authority whose certificate is in this PEM file.
    ///
    /// AES-128-GCM is the only suite offered: the registries' usual clients are Go programs, which
    /// put it first, and every contender shall use the same.
    pub(crate) fn new(authority: &Path) -> Result<Client> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).context("the authority")?)?;
        let mut crypto = provider::default_provider();
        crypto.cipher_suites = vec![provider::cipher_suite::TLS13_AES_128_GCM_SHA256];
        let config = ClientConfig::builder_with_provider(Arc::new(crypto))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client { config: Arc::new(config) })
    }

    fn connect(&self, address: &str) -> Result<(ClientConnection, Counted)> {
        let name = ServerName::try_from("127.0.0.1")?;
        let connection = ClientConnection::new(self.config.clone(), name)?;
        Ok((connection, Counted { stream: wire::connect(address)?, received: 0 }))
    }

    /// GET with the body dropped, until its end or `until`; the bytes received on the wire.
    pub(crate) fn pull(&self, address: &str, target: &str, until: Option<Instant>) -> Result<u64> {
        let (mut connection, mut socket) = self.connect(address)?;
        let mut stream = Stream::new(&mut connection, &mut socket);
        stream.write_all(wire::request(address, target).as_bytes())?;
        let (length, _) =
            wire::read_head(&mut stream).with_context(|| format!("GET {target} over TLS"))?;
        while until.is_none_or(|until| Instant::now() < until) {
            match wire::drop_bytes(&socket.stream, u64::MAX)? {
                0 => {
                    ensure!(socket.received >= length, "{target}: the body ended early");
                    break;
                }
                count => socket.received += count,
            }
        }
        Ok(socket.received)
    }

    /// GET with the body decrypted and hashed.
    pub(crate) fn digest(&self, address: &str, target: &str) -> Result<Digest> {
        let (mut connection, mut socket) = self.connect(address)?;
        let mut stream = Stream::new(&mut connection, &mut socket);
        stream.write_all(wire::request(address, target).as_bytes())?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut piece = vec![0; MIB as usize];
        // The head is read byte by byte, so that no byte of the body is lost with it.
        let mut single = Single(&mut stream);
        let (length, _) = wire::read_head(&mut single)?;
        let mut left = length;
        while left > 0 {
            let most = piece.len().min(usize::try_from(left)?);
            let count = stream.read(&mut piece[..most])?;
            ensure!(count > 0, "{target}: the body ended {left} bytes early");
            hasher.update(&piece[..count]);
            left -= count as u64;
        }
        Ok(hasher.finish())
    }
}

/// Gives one byte at a time.
struct Single<R>(R);

impl<R: Read> Read for Single<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.received += count as u64;
        Ok(count)
    }
}

impl Write for Counted {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}
