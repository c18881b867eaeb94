//! Who may read a cached private image: an upstream's `visibility`, enforced before content.

use std::collections::HashMap;

use base64::Engine;
use http::header;
use kuboard_oci::{Digest, Reference, Tag};
use kuboard_registry::server::{ApiError, ErrorCode, Route};
use parking_lot::Mutex;

use super::{
    Origin, Proxied, ProxiedRequest,
    answers::{self, Missing},
};

/// How long an upstream's word on a caller is believed when a manifest is asked for.
const MANIFEST_BELIEVED_MS: i64 = 5 * 60 * 1000;

/// The same for blobs: a long pull that began with an accepted manifest may end.
const BLOB_BELIEVED_MS: i64 = 60 * 60 * 1000;

/// Callers whose own credentials an upstream accepted, by a digest of (credentials, repository).
#[derive(Default)]
pub(super) struct Gate {
    accepted: Mutex<HashMap<Digest, i64>>,
}

impl Gate {
    fn holds(&self, key: &Digest, now: i64, believed_ms: i64) -> bool {
        self.accepted.lock().get(key).is_some_and(|since| now < since + believed_ms)
    }

    fn note(&self, key: Digest, now: i64) {
        let mut accepted = self.accepted.lock();
        if accepted.len() >= 10_000 {
            accepted.retain(|_, since| now < *since + BLOB_BELIEVED_MS);
        }
        if accepted.len() < 10_000 {
            accepted.insert(key, now);
        }
    }
}

impl Proxied {
    pub(super) async fn admit(
        &self,
        origin: &Origin,
        request: &ProxiedRequest<'_>,
    ) -> Result<(), ApiError> {
        if origin.checks_callers_itself() { self.recheck(origin, request).await } else { Ok(()) }
    }

    async fn recheck(&self, origin: &Origin, request: &ProxiedRequest<'_>) -> Result<(), ApiError> {
        let authorization =
            request.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        // Only a user and a password can be the upstream's own; a token or an access key of ours
        // must never be shown to it.
        let Some(authorization) = authorization.filter(|text| is_for_the_upstream(text)) else {
            return Err(challenge(origin));
        };
        let key = Digest::sha256(format!("{authorization}\u{0}{}", origin.repository).as_bytes());
        let now = self.now();
        let believed_ms = match request.route {
            Route::Manifest(..) => MANIFEST_BELIEVED_MS,
            _ => BLOB_BELIEVED_MS,
        };
        if self.gate.holds(&key, now, believed_ms) {
            return Ok(());
        }
        let reference = match request.route {
            Route::Manifest(_, reference) => reference.clone(),
            // A blob or a list proves nothing by itself: the right to the repository is asked by
            // a manifest that need not exist.
            _ => Reference::Tag(probe_tag()),
        };
        let accepted = origin
            .member
            .upstream
            .verify_caller(&origin.upstream_repository, &reference, authorization)
            .await
            .map_err(|error| answers::upstream_error(Missing::Repository, origin, &error))?;
        if !accepted {
            return Err(challenge(origin));
        }
        self.gate.note(key, now);
        Ok(())
    }
}

fn is_for_the_upstream(authorization: &str) -> bool {
    let Some((scheme, encoded)) = authorization.split_once(' ') else { return false };
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim());
    let secret = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let password = secret.as_deref().and_then(|text| text.split_once(':')).map(|(_, word)| word);
    scheme.eq_ignore_ascii_case("basic")
        && password.is_some_and(|password| !password.starts_with("kbk_"))
}

#[expect(clippy::expect_used, reason = "a constant that the grammar accepts")]
fn probe_tag() -> Tag {
    "latest".parse().expect("latest is a tag")
}

/// The caller is to present the credentials that the upstream knows.
fn challenge(origin: &Origin) -> ApiError {
    let message = format!(
        "{} is private: your own credentials of that registry are needed; hint: log in here with \
         the user and password of {}",
        origin.repository,
        origin.registry()
    );
    let realm = format!("Basic realm=\"{}\"", origin.registry());
    ApiError::new(ErrorCode::Unauthorized, message).with_header(header::WWW_AUTHENTICATE, &realm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_secrets_are_never_shown_to_an_upstream() {
        let basic = |text: &str| {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
        };
        for (authorization, given) in [
            (basic("user:password"), true),
            (basic("robot:kbk_0123_secret"), false),
            (basic("no-colon"), false),
            ("Bearer abc.def.ghi".to_owned(), false),
            ("Basic ???".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_for_the_upstream(&authorization), given, "{authorization}");
        }
    }
}
