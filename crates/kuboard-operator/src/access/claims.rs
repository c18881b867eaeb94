//! What a token says of itself, read without checking it: enough to tell who should check it, and
//! to send nobody else's secrets to the API server.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Longest token that is read, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// The unchecked claims of a token. Nothing may be granted because of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Whom the token names, such as `system:serviceaccount:team:default`.
    pub sub: String,
    /// Whom it is for.
    #[serde(rename = "aud")]
    pub audiences: Audiences,
    /// When it ends, in seconds since 1970.
    pub exp: Option<i64>,
    /// What Kubernetes binds it to.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
}

/// The audiences of a token: the standard allows a text in place of a list of one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Audiences {
    /// A list.
    Several(Vec<String>),
    /// One.
    One(String),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audiences {
    /// True if the token is for this audience.
    #[must_use]
    pub fn name(&self, audience: &str) -> bool {
        match self {
            Self::Several(all) => all.iter().any(|one| one == audience),
            Self::One(one) => one == audience,
        }
    }
}

/// The object behind a service-account token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Bound {
    /// Namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub serviceaccount: Named,
    /// The pod that the token dies with.
    pub pod: Named,
}

/// A name in a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Named {
    /// The name; empty if the token has none.
    pub name: String,
}

impl Claims {
    /// Reads them; `None` for what has not the form of a signed token.
    #[must_use]
    pub fn read(token: &str) -> Option<Self> {
        if token.len() > MAX_BYTES {
            return None;
        }
        let mut parts = token.split('.');
        let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || header.is_empty() || signature.is_empty() {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    /// True if the token is over.
    #[must_use]
    pub fn has_ended(&self, now_ms: i64) -> bool {
        self.exp.is_some_and(|end| end.saturating_mul(1000) <= now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn tokens_are_told_from_passwords() {
        let check = |text: &str, expected: Option<(&str, bool)>| {
            let read = Claims::read(text);
            let read = read
                .as_ref()
                .map(|claims| (claims.sub.as_str(), claims.audiences.name("registry.kuboard.cn")));
            assert_eq!(read, expected, "{text}");
        };
        check("", None);
        check("secret", None);
        check("a.b.c", None);
        check("a.b.c.d", None);
        check("kbk_0123456789abcdef_00", None);
        check(&token("[]"), Some(("", false)));
        check(&token("{"), None);
        check(&token("{}"), Some(("", false)));
        check(&token(r#"{"sub":"s","aud":"registry.kuboard.cn"}"#), Some(("s", true)));
        check(&token(r#"{"sub":"s","aud":["a","registry.kuboard.cn"]}"#), Some(("s", true)));
        check(&token(r#"{"sub":"s","aud":["https://kubernetes"]}"#), Some(("s", false)));
        check(&token(r#"{"sub":"s","aud":7}"#), None);
        check(&format!("{}{}", token("{}"), "a".repeat(20_000)), None);
    }

    #[test]
    fn what_kubernetes_binds_a_token_to_is_read() {
        let claims = Claims::read(&token(
            r#"{"sub":"system:serviceaccount:team:web","exp":100,"kubernetes.io":{
                "namespace":"team","serviceaccount":{"name":"web","uid":"1"},
                "pod":{"name":"web-0","uid":"2"},"node":{"name":"n"}}}"#,
        ))
        .unwrap();
        assert_eq!(claims.bound.namespace, "team");
        assert_eq!(claims.bound.serviceaccount.name, "web");
        assert_eq!(claims.bound.pod.name, "web-0");
        assert!(!claims.has_ended(99_999));
        assert!(claims.has_ended(100_000));
    }
}
