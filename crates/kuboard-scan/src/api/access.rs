//! Who may call: Clair's pre-shared key, and what Harbor can send of it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use kuboard_oci::Digest;

use super::Settings;
use crate::clair_engine::{INTRASERVICE, Psk};

const API_KEY: HeaderName = HeaderName::from_static("x-scanneradapter-api-key");

/// Lets callers in.
pub(super) struct Access {
    psk: Option<Psk>,
    /// What the Base64 of the key hashes to: compared in place of the text, so that the time of
    /// the comparison tells nothing.
    text: Option<Digest>,
    issuers: Vec<String>,
    open: bool,
}

impl Access {
    pub(super) fn new(settings: &Settings) -> Self {
        let text = |key: &Vec<u8>| Digest::sha256(STANDARD.encode(key).as_bytes());
        let mut issuers = settings.issuers.clone();
        if !issuers.is_empty() {
            issuers.push(INTRASERVICE.to_owned());
        }
        Self {
            psk: settings.psk.as_deref().map(Psk::new),
            text: settings.psk.as_ref().map(text),
            issuers,
            open: settings.open,
        }
    }

    /// The key, to sign what is sent.
    pub(super) fn psk(&self) -> Option<&Psk> {
        self.psk.as_ref()
    }

    /// Whether a token signed with the key came along, or none is needed.
    pub(super) fn admits(&self, headers: &HeaderMap, now_ms: i64) -> bool {
        let Some(psk) = &self.psk else { return self.open };
        let tokens = headers.get_all(AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
        let mut tokens = tokens.filter_map(|value| value.strip_prefix("Bearer "));
        tokens.next().is_some_and(|token| psk.admits(token, &self.issuers, now_ms))
    }

    /// As [`Access::admits`]; the key itself will do too, since Harbor can't sign.
    pub(super) fn admits_harbor(&self, headers: &HeaderMap, now_ms: i64) -> bool {
        self.admits(headers, now_ms) || secrets(headers).any(|secret| self.is_key(&secret))
    }

    fn is_key(&self, secret: &str) -> bool {
        self.text == Some(Digest::sha256(secret.trim().as_bytes()))
    }
}

/// What may be the key: an API key, a bearer token, the password of `Basic`.
fn secrets(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let plain = headers.get_all(API_KEY).iter().filter_map(|value| value.to_str().ok());
    let given = headers.get_all(AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
    let given = given.filter_map(|value| {
        if let Some(token) = value.strip_prefix("Bearer ") {
            return Some(token.to_owned());
        }
        let basic = STANDARD.decode(value.strip_prefix("Basic ")?.trim()).ok()?;
        let basic = String::from_utf8(basic).ok()?;
        basic.split_once(':').map(|(_, password)| password.to_owned())
    });
    plain.map(str::to_owned).chain(given).take(8)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use http::{HeaderMap, HeaderName};

    use super::Access;
    use crate::{api::Settings, clair_engine::Psk};

    const NOW: i64 = 1_790_000_000_000;

    fn access(key: Option<&[u8]>, issuers: &[&str], open: bool) -> Access {
        Access::new(&Settings {
            psk: key.map(<[u8]>::to_vec),
            issuers: issuers.iter().map(|&one| one.to_owned()).collect(),
            open,
            ..Settings::default()
        })
    }

    fn header(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        headers
    }

    fn bearer(key: &[u8], issuer: &str, at_ms: i64, seconds: i64) -> HeaderMap {
        let token = Psk::new(key).sign(issuer, at_ms, seconds).unwrap();
        header("authorization", &format!("Bearer {token}"))
    }

    #[test]
    fn tokens_are_checked() {
        let none = HeaderMap::new();
        assert!(!access(None, &[], false).admits(&none, NOW));
        assert!(access(None, &[], true).admits(&none, NOW));
        let (key, other) = (&b"a key of some length"[..], &b"another key"[..]);
        assert!(!access(Some(key), &[], true).admits(&none, NOW), "the key is asked for");
        for (given, issuers, admitted) in [
            (bearer(key, "quay", NOW, 300), &[][..], true),
            (bearer(key, "quay", NOW, 300), &["quay"], true),
            (bearer(key, "clair-intraservice", NOW, 300), &["quay"], true),
            (bearer(key, "clairctl", NOW, 300), &["quay"], false),
            (bearer(other, "quay", NOW, 300), &["quay"], false),
            (bearer(key, "quay", NOW - 310_000, 300), &[], true),
            (bearer(key, "quay", NOW - 320_000, 300), &[], false),
            (bearer(key, "quay", NOW + 100_000, 300), &[], false),
            (header("authorization", "Bearer x.y.z"), &[], false),
            (header("authorization", "Basic eDp5"), &[], false),
        ] {
            assert_eq!(
                access(Some(key), issuers, false).admits(&given, NOW),
                admitted,
                "{given:?}"
            );
        }
    }

    #[test]
    fn harbor_may_send_the_key_itself() {
        let access = access(Some(b"a key"), &[], false);
        let text = STANDARD.encode(b"a key");
        let basic = STANDARD.encode(format!("harbor:{text}"));
        for (given, admitted) in [
            (header("x-scanneradapter-api-key", &text), true),
            (header("authorization", &format!("Bearer {text}")), true),
            (header("authorization", &format!("Basic {basic}")), true),
            (bearer(b"a key", "harbor", NOW, 60), true),
            (header("x-scanneradapter-api-key", "a key"), false),
            (header("authorization", "Basic ???"), false),
        ] {
            assert_eq!(access.admits_harbor(&given, NOW), admitted, "{given:?}");
        }
        assert!(!access.admits(&header("authorization", &format!("Bearer {text}")), NOW));
    }
}
