//! Tokens of our own: JWTs signed with Ed25519 under a key that is made on first start.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use kuboard_oci::Digest;
use serde::{Deserialize, Serialize};

use super::access::AccessError;
use super::authorizer::Workload;
use super::caller::{Anonymous, Caller};
use super::error::ApiError;
use super::memory::Memory;
use super::scope::Granted;

/// How long a token opens doors.
pub(crate) const TOKEN_SECONDS: i64 = 300;
/// How long a refresh token can be changed for tokens, unless its credentials change first.
const REFRESH_SECONDS: i64 = 365 * 86_400;
/// How far the clocks of replicas may differ.
const LEEWAY_SECONDS: i64 = 60;
/// Longer ones are not ours.
const MAX_BYTES: usize = 16 * 1024;
/// Checked tokens remembered at a time.
const REMEMBERED: usize = 4096;
const ISSUER: &str = "kuboard";

/// Signs tokens and checks them.
pub(crate) struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    header: Header,
    service: String,
    /// Checking a signature costs more than answering a manifest, so callers are remembered.
    memory: Memory<Caller>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    access: Vec<Granted>,
    /// Of refresh tokens: the stamp of the credentials they stand for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamp: Option<String>,
    /// The workload that the token was given to.
    #[serde(default, rename = "kubernetes.io", skip_serializing_if = "Option::is_none")]
    workload: Option<Arc<Workload>>,
}

/// Whom a token is for.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) workload: Option<&'a Arc<Workload>>,
}

/// What a refresh token says.
pub(crate) struct Refresh {
    pub(crate) name: String,
    pub(crate) stamp: String,
}

impl Signer {
    /// Reads the key, or makes it when there is none.
    pub(crate) fn open(path: &Path, service: &str) -> Result<Self, AccessError> {
        let document = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => make_key(path)?,
            Err(fault) => return Err(AccessError::key(path, fault)),
        };
        let bad = || AccessError::BadKey { path: path.to_owned() };
        let der = pem_body(&document).ok_or_else(bad)?;
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| bad())?;
        let public = pair.public_key().as_ref();
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(format!("{:.16}", Digest::sha256(public).hex()));
        Ok(Self {
            encoding: EncodingKey::from_ed_der(&der),
            decoding: DecodingKey::from_ed_der(public),
            header,
            service: service.to_owned(),
            memory: Memory::new(REMEMBERED).map_err(|_| AccessError::Randomness)?,
        })
    }

    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// A token for five minutes, or until `ends_ms` if that is sooner. Returns it with the seconds
    /// it lives.
    pub(crate) fn token(
        &self,
        subject: Subject<'_>,
        access: Vec<Granted>,
        now_ms: i64,
        ends_ms: Option<i64>,
    ) -> Result<(String, i64), ApiError> {
        let now = now_ms.div_euclid(1000);
        let left = ends_ms.map_or(TOKEN_SECONDS, |ends| ends.div_euclid(1000) - now);
        let lives = left.clamp(0, TOKEN_SECONDS);
        let audience = self.service.clone();
        let claims = claims(subject.name.unwrap_or_default(), audience, now, lives);
        let workload = subject.workload.cloned();
        Ok((self.sign(&Claims { access, workload, ..claims })?, lives))
    }

    /// A token that can be changed for tokens as long as the credentials behind it stay.
    pub(crate) fn refresh_token(&self, refresh: Refresh, now_ms: i64) -> Result<String, ApiError> {
        let now = now_ms.div_euclid(1000);
        let claims = claims(&refresh.name, self.refresh_audience(), now, REFRESH_SECONDS);
        self.sign(&Claims { stamp: Some(refresh.stamp), ..claims })
    }

    /// The caller that a token stands for; `None` if it is not ours or has ended.
    pub(crate) fn caller(&self, token: &str, floor: Anonymous, now_ms: i64) -> Option<Caller> {
        let print = self.memory.fingerprint(&[token]);
        if let Some(caller) = self.memory.get(&print, now_ms) {
            return Some(caller);
        }
        let claims = self.check(token, &self.service, now_ms)?;
        let name = (!claims.sub.is_empty()).then(|| Arc::from(claims.sub.as_str()));
        let caller = Caller::bearing(name, claims.access, floor).with_workload(claims.workload);
        self.memory.put(print, caller.clone(), claims.exp.saturating_mul(1000), now_ms);
        Some(caller)
    }

    /// What a refresh token says; `None` if it is not ours or has ended.
    pub(crate) fn refresh(&self, token: &str, now_ms: i64) -> Option<Refresh> {
        let claims = self.check(token, &self.refresh_audience(), now_ms)?;
        Some(Refresh { name: claims.sub, stamp: claims.stamp? })
    }

    fn refresh_audience(&self) -> String {
        format!("{}#refresh", self.service)
    }

    fn sign(&self, claims: &Claims) -> Result<String, ApiError> {
        jsonwebtoken::encode(&self.header, claims, &self.encoding).map_err(ApiError::internal)
    }

    fn check(&self, token: &str, audience: &str, now_ms: i64) -> Option<Claims> {
        if token.len() > MAX_BYTES {
            return None;
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[audience]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["iss", "aud", "exp"]);
        // The library would ask the machine's clock; the time is compared below.
        validation.validate_exp = false;
        let claims =
            jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation).ok()?.claims;
        let now = now_ms.div_euclid(1000);
        (claims.nbf - LEEWAY_SECONDS <= now && now < claims.exp).then_some(claims)
    }
}

fn claims(name: &str, audience: String, now: i64, lives: i64) -> Claims {
    Claims {
        iss: ISSUER.to_owned(),
        sub: name.to_owned(),
        aud: audience,
        iat: now,
        nbf: now,
        exp: now + lives,
        jti: format!("{:032x}", ::rand::random::<u128>()),
        access: Vec::new(),
        stamp: None,
        workload: None,
    }
}

/// Makes a key file that only its owner reads. When several processes start at once, one file
/// wins and all use it.
fn make_key(path: &Path) -> Result<String, AccessError> {
    let fault = |fault| AccessError::key(path, fault);
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| AccessError::Randomness)?;
    let text = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(document.as_ref())
    );
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fault)?;
    }
    let draft = PathBuf::from(format!("{}.{:016x}", path.display(), ::rand::random::<u64>()));
    write_private(&draft, &text).map_err(fault)?;
    match fs::hard_link(&draft, path) {
        Ok(()) => tracing::info!(path = %path.display(), "made the key that signs tokens"),
        Err(lost) if lost.kind() == io::ErrorKind::AlreadyExists => {}
        // A file system without links: the last one wins.
        Err(_) => return fs::rename(&draft, path).map(|()| text).map_err(fault),
    }
    fs::remove_file(&draft).map_err(fault)?;
    fs::read_to_string(path).map_err(fault)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn pem_body(text: &str) -> Option<Vec<u8>> {
    let (_, after) = text.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = after.split_once("-----END PRIVATE KEY-----")?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}
