//! A token service as the distribution project specifies it, for real registries: users with
//! passwords, tokens signed with ES256 that the registry checks against our published key.

use anyhow::{Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::http::Headers;
use crate::server::{Received, Server};
use crate::tool;
use crate::upstream::basic;

/// The `service` that the registry behind names in its challenges.
pub const SERVICE: &str = "test-registry";
/// The `iss` of the tokens.
pub const ISSUER: &str = "test-issuer";

const KEY_ID: &str = "test-key";

/// The running service. It grants its users everything they ask for, and strangers nothing.
pub struct TokenIssuer {
    server: Server,
    public_key: Value,
}

impl TokenIssuer {
    /// Starts with one user on a free port of loopback.
    pub fn start(user: &str, password: &str) -> Result<TokenIssuer> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let point = key.public_key().as_ref();
        // An uncompressed point: 4, then 32 bytes of x and 32 of y.
        let coordinate = |at: usize| BASE64_URL_SAFE_NO_PAD.encode(&point[at..at + 32]);
        let public_key = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID,
            "x": coordinate(1), "y": coordinate(33),
        }]});
        let credentials = basic(user, password);
        let user = user.to_owned();
        let server = Server::start("127.0.0.1:0", move |request, reply| {
            let headers = Headers::from([("Content-Type", "application/json")]);
            if request.headers.get("authorization") != Some(&credentials) {
                return reply.send(401, &headers, b"{}").map(drop);
            }
            let body = json!({"token": sign(&key, &user, request)?, "expires_in": 300});
            reply.send(200, &headers, body.to_string().as_bytes()).map(drop)
        })?;
        Ok(TokenIssuer { server, public_key })
    }

    /// Where tokens are asked for.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.server.address())
    }

    /// `host:port` of the service.
    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// The public key as a JSON web key set, for the registry's `jwks` option.
    pub fn key_set(&self) -> &Value {
        &self.public_key
    }
}

fn sign(key: &EcdsaKeyPair, user: &str, request: &Received) -> Result<String> {
    let access: Vec<Value> = request
        .parameters("scope")
        .iter()
        .flat_map(|scopes| scopes.split(' '))
        .filter_map(|scope| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            let actions: Vec<&str> = actions.split(',').collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect();
    let now = tool::unix_seconds();
    let header = json!({"typ": "JWT", "alg": "ES256", "kid": KEY_ID});
    let claims = json!({
        "iss": ISSUER, "sub": user, "aud": SERVICE, "access": access,
        "iat": now, "nbf": now.saturating_sub(10), "exp": now + 300,
    });
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = key
        .sign(&SystemRandom::new(), signed.as_bytes())
        .map_err(|_| anyhow!("signing a token failed"))?;
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}
