//! A small registry client for tests: pushes and pulls whole images over plain HTTP, follows token
//! challenges, and checks every digest. It says nothing about real clients; those are run as they
//! are by the end-to-end tests.

use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use kuboard_oci::{Digest, Manifest, challenge, media_type};

use crate::http::{Answer, Incoming, Request};
use crate::image::{Blob, Image};
use crate::server::lock;
use crate::upstream::basic;

/// A client of one registry.
pub struct RegistryClient {
    address: String,
    login: Option<String>,
    /// The `Authorization` that worked last.
    remembered: Mutex<Option<String>>,
}

impl RegistryClient {
    /// An anonymous client of the registry at `address` (host:port).
    pub fn new(address: impl Into<String>) -> RegistryClient {
        RegistryClient { address: address.into(), login: None, remembered: Mutex::default() }
    }

    /// A client with a user name and a password.
    pub fn with_login(address: impl Into<String>, user: &str, password: &str) -> RegistryClient {
        RegistryClient { login: Some(basic(user, password)), ..RegistryClient::new(address) }
    }

    /// `host:port` of the registry.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request, answering one challenge, and leaves the body to be read.
    pub fn open(&self, request: Request) -> Result<Incoming> {
        let authorized = |request: Request| match &*lock(&self.remembered) {
            Some(value) => request.header("Authorization", value.clone()),
            None => request,
        };
        let first = authorized(request.clone()).open(&self.address)?;
        if first.status != 401 {
            return Ok(first);
        }
        let Some(asked) = first.headers.get("www-authenticate") else { return Ok(first) };
        let Some(value) = self.answer_challenge(asked)? else { return Ok(first) };
        *lock(&self.remembered) = Some(value);
        authorized(request).open(&self.address)
    }

    /// Sends a request, answering one challenge, and reads the whole answer.
    pub fn send(&self, request: Request) -> Result<Answer> {
        let mut incoming = self.open(request)?;
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut incoming, &mut body)?;
        Ok(Answer { status: incoming.status, headers: incoming.headers.clone(), body })
    }

    fn answer_challenge(&self, asked: &str) -> Result<Option<String>> {
        let challenges = challenge::parse(asked)?;
        for one in challenges {
            let parameter = |name: &str| {
                one.params.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
            };
            if one.scheme == "basic" {
                return Ok(self.login.clone());
            }
            let (Some(realm), "bearer") = (parameter("realm"), one.scheme.as_str()) else {
                continue;
            };
            let (_, rest) = realm.split_once("://").context("a realm without a scheme")?;
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let mut target = format!("/{path}?service={}", parameter("service").unwrap_or("x"));
            if let Some(scope) = parameter("scope") {
                for scope in scope.split(' ') {
                    target.push_str(&format!("&scope={}", scope.replace(' ', "%20")));
                }
            }
            let mut request = Request::get(target);
            if let Some(login) = &self.login {
                request = request.header("Authorization", login.clone());
            }
            let answer = request.send(host)?;
            if answer.status != 200 {
                return Ok(None);
            }
            let body = answer.json()?;
            let token = body["token"].as_str().or(body["access_token"].as_str());
            return Ok(token.map(|token| format!("Bearer {token}")));
        }
        Ok(None)
    }

    /// Pushes an image, its children and its blobs, and names it `tag`.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> Result<()> {
        for blob in &image.blobs {
            self.push_blob(repository, blob)?;
        }
        for child in &image.children {
            self.push(repository, &child.digest.to_string(), child)?;
        }
        let put = Request::new("PUT", format!("/v2/{repository}/manifests/{tag}"))
            .header("Content-Type", &image.media_type)
            .body(image.manifest.to_vec());
        let answer = self.send(put)?;
        ensure!(answer.status == 201, "put manifest {tag}: {} {}", answer.status, answer.text());
        Ok(())
    }

    /// Uploads a blob in one PUT after opening an upload.
    pub fn push_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let location = self.begin_upload(repository)?;
        let joint = if location.contains('?') { '&' } else { '?' };
        let put = Request::new("PUT", format!("{location}{joint}digest={}", blob.digest))
            .header("Content-Type", media_type::OCTET_STREAM)
            .body(blob.bytes.to_vec());
        let answer = self.send(put)?;
        ensure!(answer.status == 201, "put blob: {} {}", answer.status, answer.text());
        Ok(())
    }

    /// Opens an upload; the path (and query) to send to.
    pub fn begin_upload(&self, repository: &str) -> Result<String> {
        let answer = self.send(Request::new("POST", format!("/v2/{repository}/blobs/uploads/")))?;
        ensure!(answer.status == 202, "open an upload: {} {}", answer.status, answer.text());
        let location = answer.headers.get("location").context("an upload without a location")?;
        Ok(match location.split_once("://") {
            Some((_, rest)) => format!("/{}", rest.split_once('/').unwrap_or((rest, "")).1),
            None => location.to_owned(),
        })
    }

    /// Pulls a manifest by tag or digest, everything below it, and checks every digest.
    pub fn pull(&self, repository: &str, reference: &str) -> Result<Pulled> {
        let (bytes, media_type) = self.manifest(repository, reference)?;
        let manifest = Manifest::parse(&bytes, Some(&media_type))?;
        let mut pulled = Pulled { digest: Digest::sha256(&bytes), bytes: bytes.len() as u64 };
        for blob in manifest.blobs() {
            let (length, digest) = self.blob(repository, &blob.digest)?.digest()?;
            ensure!(digest == blob.digest, "{} came as {digest}", blob.digest);
            ensure!(length == blob.size, "{digest}: {length} bytes instead of {}", blob.size);
            pulled.bytes += length;
        }
        for child in manifest.children() {
            let below = self.pull(repository, &child.digest.to_string())?;
            ensure!(below.digest == child.digest, "{} came as {}", child.digest, below.digest);
            pulled.bytes += below.bytes;
        }
        Ok(pulled)
    }

    /// A manifest's bytes and media type.
    pub fn manifest(&self, repository: &str, reference: &str) -> Result<(Vec<u8>, String)> {
        let get = Request::get(format!("/v2/{repository}/manifests/{reference}"))
            .header("Accept", media_type::ACCEPT_ALL);
        let answer = self.send(get)?;
        if answer.status != 200 {
            bail!("manifest {repository}:{reference}: {} {}", answer.status, answer.text());
        }
        let kind = answer.headers.get("content-type").unwrap_or_default().to_owned();
        Ok((answer.body, kind))
    }

    /// A blob, to be read.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Result<Incoming> {
        let incoming = self.open(Request::get(format!("/v2/{repository}/blobs/{digest}")))?;
        ensure!(incoming.status == 200, "blob {digest}: {}", incoming.status);
        Ok(incoming)
    }
}

/// What was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Digest of the manifest that was asked for.
    pub digest: Digest,
    /// Bytes of all manifests and blobs.
    pub bytes: u64,
}
