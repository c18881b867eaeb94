//! Tokens signed with Clair's pre-shared key: JWT, HS256, with issuer and end.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// The issuer of tokens that Clair's own parts send each other.
pub const INTRASERVICE: &str = "clair-intraservice";
/// Clocks may differ by so much.
const LEEWAY_SECONDS: f64 = 15.0;
const MAX_BYTES: usize = 16 << 10;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    iss: String,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
}

/// A pre-shared key.
#[derive(Clone)]
pub struct Psk {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Psk {
    /// The key of these bytes, decoded from Base64.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self { encoding: EncodingKey::from_secret(key), decoding: DecodingKey::from_secret(key) }
    }

    /// A token that is good for so many seconds from now.
    ///
    /// # Errors
    /// The key can't sign.
    pub fn sign(
        &self,
        issuer: &str,
        now_ms: i64,
        seconds: i64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let now = now_ms.div_euclid(1000);
        let claims = Claims { iss: issuer, iat: now, nbf: now, exp: now.saturating_add(seconds) };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
    }

    /// Whether a token was signed with this key, is of this time, and names one of these issuers;
    /// none means any. A token without an end is refused.
    #[must_use]
    pub fn admits(&self, token: &str, issuers: &[String], now_ms: i64) -> bool {
        if token.len() > MAX_BYTES {
            return false;
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_aud = false;
        // The library would ask the machine's clock; the times are compared below.
        validation.validate_exp = false;
        let Ok(data) = jsonwebtoken::decode::<Given>(token, &self.decoding, &validation) else {
            return false;
        };
        let given = data.claims;
        #[expect(clippy::cast_precision_loss, reason = "seconds are compared with a leeway")]
        let now = now_ms as f64 / 1000.0;
        let has_begun = |time: Option<f64>| time.is_none_or(|time| time <= now + LEEWAY_SECONDS);
        now <= given.exp + LEEWAY_SECONDS
            && has_begun(given.nbf)
            && has_begun(given.iat)
            && (issuers.is_empty() || issuers.contains(&given.iss))
    }
}
