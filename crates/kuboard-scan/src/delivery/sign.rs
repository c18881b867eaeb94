//! Signatures of messages: Standard Webhooks (<https://www.standardwebhooks.com>), and the ways of
//! DingTalk's and Feishu's robots.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};

fn mac(key: &[u8], pieces: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for piece in pieces {
        context.update(piece);
    }
    context.sign()
}

/// The key that a secret stands for.
fn key(secret: &[u8]) -> Vec<u8> {
    let encoded = secret.strip_prefix(b"whsec_").and_then(|text| STANDARD.decode(text).ok());
    encoded.unwrap_or_else(|| secret.to_vec())
}

/// `webhook-signature`: `v1,` and Base64 over `id.timestamp.body`.
pub(super) fn standard(secret: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    let tag = mac(&key(secret), &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
    format!("v1,{}", STANDARD.encode(tag))
}

/// `x-kuboard-signature-256`: `sha256=` and hexadecimal over the body.
pub(super) fn body_only(secret: &[u8], body: &[u8]) -> String {
    format!("sha256={}", hex::encode(mac(&key(secret), &[body])))
}

/// `sign` in the address of a DingTalk robot, before it is percent-encoded.
pub(super) fn dingtalk(secret: &[u8], timestamp_ms: &str) -> String {
    STANDARD.encode(mac(secret, &[timestamp_ms.as_bytes(), b"\n", secret]))
}

/// `sign` in the message to a Feishu robot: the text is the key, and nothing is signed.
pub(super) fn feishu(secret: &[u8], timestamp_s: &str) -> String {
    let text = [timestamp_s.as_bytes(), b"\n", secret].concat();
    STANDARD.encode(mac(&text, &[]))
}

#[cfg(test)]
mod tests {
    use super::{body_only, dingtalk, feishu, standard};

    #[test]
    fn signatures_are_those_that_others_make() {
        // The example of the specification.
        let secret = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        assert_eq!(
            standard(secret, id, "1614265330", br#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        // GitHub's documented example of the same scheme.
        assert_eq!(
            body_only(b"It's a Secret to Everybody", b"Hello, World!"),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
        assert_eq!(
            dingtalk(b"SECsample", "1700000000000"),
            "Mj2fZo4lFhoowyHG4iTB1phlfXoznquzWDvIseFCHFM="
        );
        assert_eq!(feishu(b"sample", "1700000000"), "CFz/OqiucB+l0VTT2gEZrW0p7Nb5RWH289Esx/V2Uvg=");
    }
}
