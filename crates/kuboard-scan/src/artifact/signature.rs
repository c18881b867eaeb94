//! Ed25519 signatures and their keys: PKCS#8 private keys and SPKI public keys, as
//! `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them, PEM or DER.

use anyhow::{Context, bail, ensure};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use base64::{Engine, prelude::BASE64_STANDARD};
use kuboard_oci::Digest;
use serde::{Deserialize, Serialize};

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// A file with a key is at most this long.
const MAX_KEY: usize = 64 << 10;

const HOW_PRIVATE: &str = "hint: `openssl genpkey -algorithm ed25519` makes one";
const HOW_PUBLIC: &str = "hint: `openssl pkey -in KEY -pubout` writes it";

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Payload {
    /// Of the artifact's manifest.
    pub(super) digest: Digest,
    pub(super) generation: u64,
    /// RFC 3339.
    pub(super) created: String,
}

/// A key that signs.
pub(super) struct Private(Ed25519KeyPair);

impl Private {
    pub(super) fn read(file: &[u8]) -> anyhow::Result<Self> {
        let der = der(file, "PRIVATE KEY", HOW_PRIVATE)?;
        match Ed25519KeyPair::from_pkcs8(&der) {
            Ok(pair) => Ok(Self(pair)),
            Err(why) => bail!("the key is no Ed25519 private key in PKCS#8 ({why}); {HOW_PRIVATE}"),
        }
    }

    /// Base64.
    pub(super) fn sign(&self, payload: &[u8]) -> String {
        BASE64_STANDARD.encode(self.0.sign(payload))
    }
}

/// A key that tells who signed.
pub(super) struct Public(Vec<u8>);

impl Public {
    pub(super) fn read(file: &[u8]) -> anyhow::Result<Self> {
        let der = der(file, "PUBLIC KEY", HOW_PUBLIC)?;
        match der.strip_prefix(&SPKI) {
            Some(key) if key.len() == 32 => Ok(Self(key.to_vec())),
            _ => bail!("the key is no Ed25519 public key; {HOW_PUBLIC}"),
        }
    }

    pub(super) fn verify(&self, payload: &[u8], signature: &str) -> anyhow::Result<()> {
        let signature = BASE64_STANDARD.decode(signature).context("its signature is no base64")?;
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        match key.verify(payload, &signature) {
            Ok(()) => Ok(()),
            Err(_) => bail!("its signature is not of that key"),
        }
    }
}

/// The DER of a file that is PEM or DER.
fn der(file: &[u8], label: &str, how: &str) -> anyhow::Result<Vec<u8>> {
    ensure!(file.len() <= MAX_KEY, "the key has {} bytes; {how}", file.len());
    let Some(text) = std::str::from_utf8(file).ok().filter(|text| text.contains("-----BEGIN "))
    else {
        return Ok(file.to_vec());
    };
    let begin = format!("-----BEGIN {label}-----");
    let body = text.split_once(begin.as_str()).map(|(_, rest)| rest);
    let body = body.and_then(|rest| rest.split_once("-----END ")).map(|(body, _)| body);
    let Some(body) = body else {
        let found = text.split("-----BEGIN ").nth(1).and_then(|rest| rest.split("-----").next());
        let found = found.unwrap_or_default().escape_debug().to_string();
        if found == "ENCRYPTED PRIVATE KEY" {
            bail!("the key is encrypted; hint: `openssl pkey -in KEY -out PLAIN` decrypts it");
        }
        bail!("the key is a {found}, not a {label}; {how}");
    };
    let plain: String = body.split_ascii_whitespace().collect();
    BASE64_STANDARD.decode(plain).with_context(|| format!("the key is no base64; {how}"))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::{Engine, prelude::BASE64_STANDARD};

    use super::{Private, Public, SPKI};

    /// The key of RFC 8410, section 10.3, as OpenSSL writes it.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    /// Its public half, section 10.1.
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";

    fn bytes(pem: &str) -> Vec<u8> {
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        BASE64_STANDARD.decode(body).unwrap()
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_payload() {
        let other = Ed25519KeyPair::generate().unwrap();
        let foreign = [&SPKI[..], other.public_key().as_ref()].concat();
        for private in [PRIVATE.as_bytes().to_vec(), bytes(PRIVATE)] {
            let signed = Private::read(&private).unwrap().sign(b"payload");
            let told = |key: &[u8], payload: &[u8], signed: &str| {
                let outcome = Public::read(key).unwrap().verify(payload, signed);
                outcome.map_err(|error| error.to_string()).err().unwrap_or_default()
            };
            assert_eq!(told(PUBLIC.as_bytes(), b"payload", &signed), "");
            assert_eq!(told(&bytes(PUBLIC), b"payload", &signed), "");
            for (key, payload, signed) in [
                (PUBLIC.as_bytes(), &b"payloae"[..], signed.as_str()),
                (PUBLIC.as_bytes(), b"payload", "AAAA"),
                (&foreign, b"payload", signed.as_str()),
            ] {
                assert_eq!(told(key, payload, signed), "its signature is not of that key");
            }
            assert_eq!(told(&foreign, b"", "%"), "its signature is no base64");
        }
    }

    #[track_caller]
    fn check(key: &[u8], private: &str, public: &str) {
        let told = |outcome: anyhow::Result<()>| outcome.unwrap_err().to_string();
        let (sign, verify) =
            (told(Private::read(key).map(drop)), told(Public::read(key).map(drop)));
        assert!(sign.contains(private) && sign.contains("hint: "), "{sign}");
        assert!(verify.contains(public) && verify.contains("hint: "), "{verify}");
    }

    #[test]
    fn other_things_are_no_keys() {
        check(b"", "no Ed25519 private key", "no Ed25519 public key");
        check(b"not a key", "no Ed25519 private key", "no Ed25519 public key");
        check(&[0; 100_000], "100000 bytes", "100000 bytes");
        let wrapped = |label: &str, body: &str| {
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
        };
        check(&wrapped("EC PRIVATE KEY", "AAAA"), "is a EC PRIVATE KEY", "is a EC PRIVATE KEY");
        check(&wrapped("ENCRYPTED PRIVATE KEY", "AAAA"), "is encrypted", "is encrypted");
        let halves = wrapped("PRIVATE KEY", "%%%%");
        check(&halves, "no base64", "is a PRIVATE KEY, not a PUBLIC KEY");
        let halves = wrapped("PUBLIC KEY", "AAAA");
        check(&halves, "is a PUBLIC KEY, not a PRIVATE KEY", "no Ed25519 public key");
        check(b"-----BEGIN PRIVATE KEY-----", "is a PRIVATE KEY", "is a PRIVATE KEY");
    }
}
