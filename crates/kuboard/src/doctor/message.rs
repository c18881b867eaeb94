//! What a kubelet's message says of a pull that failed: container runtimes wrap the same few causes
//! in many words.

/// Why a pull failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// The name is none.
    Name,
    /// A policy engine said no at the registry.
    Policy,
    /// The registry has no such image, or hides it.
    NotFound,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// Credentials are right, but this is not allowed.
    Forbidden,
    /// Too many pulls.
    Throttled,
    /// The image has no build for the node.
    Platform,
    /// The registry's certificate is not trusted.
    Authority,
    /// The registry's certificate is over, or not valid yet.
    Expired,
    /// The certificate is for another name.
    WrongName,
    /// HTTPS was asked of a plain HTTP port.
    PlainHttp,
    /// The name can't be resolved.
    Dns,
    /// Nobody listens.
    Refused,
    /// No answer in time, or no way.
    Unreachable,
    /// The registry is in trouble.
    ServerError,
    /// The node's disk is full.
    Disk,
    /// `imagePullPolicy: Never`, and the image is not on the node.
    Never,
}

/// Words in lower case, and what they mean; the first that is found counts, so the more telling
/// ones stand first.
const WORDS: &[(&str, Cause)] = &[
    ("errimageneverpull", Cause::Never),
    ("is not present with pull policy of never", Cause::Never),
    ("invalidimagename", Cause::Name),
    ("invalid reference format", Cause::Name),
    ("couldn't parse image", Cause::Name),
    ("no space left on device", Cause::Disk),
    ("disk quota exceeded", Cause::Disk),
    ("denied by policy", Cause::Policy),
    ("policy violation", Cause::Policy),
    ("412 precondition failed", Cause::Policy),
    ("no match for platform", Cause::Platform),
    ("no matching manifest", Cause::Platform),
    ("exec format error", Cause::Platform),
    ("toomanyrequests", Cause::Throttled),
    ("429 too many requests", Cause::Throttled),
    ("rate limit", Cause::Throttled),
    ("certificate has expired or is not yet valid", Cause::Expired),
    ("certificate is not valid for any names", Cause::WrongName),
    ("certificate is valid for", Cause::WrongName),
    ("doesn't contain any ip sans", Cause::WrongName),
    ("signed by unknown authority", Cause::Authority),
    ("failed to verify certificate", Cause::Authority),
    ("x509", Cause::Authority),
    ("server gave http response to https client", Cause::PlainHttp),
    ("no such host", Cause::Dns),
    ("server misbehaving", Cause::Dns),
    ("name resolution", Cause::Dns),
    ("connection refused", Cause::Refused),
    ("i/o timeout", Cause::Unreachable),
    ("deadline exceeded", Cause::Unreachable),
    ("no route to host", Cause::Unreachable),
    ("network is unreachable", Cause::Unreachable),
    ("connection reset", Cause::Unreachable),
    ("unauthorized", Cause::Unauthorized),
    ("authentication required", Cause::Unauthorized),
    ("authorization failed", Cause::Unauthorized),
    ("no basic auth credentials", Cause::Unauthorized),
    ("pull access denied", Cause::Unauthorized),
    ("401", Cause::Unauthorized),
    ("forbidden", Cause::Forbidden),
    ("denied", Cause::Forbidden),
    ("403", Cause::Forbidden),
    ("manifest unknown", Cause::NotFound),
    ("not found", Cause::NotFound),
    ("404", Cause::NotFound),
    ("500 internal server error", Cause::ServerError),
    ("502 bad gateway", Cause::ServerError),
    ("503 service unavailable", Cause::ServerError),
    ("504 gateway", Cause::ServerError),
];

/// Reads a message; `None` for what it does not know.
pub(crate) fn cause(message: &str) -> Option<Cause> {
    let message = message.to_lowercase();
    WORDS.iter().find(|(words, _)| message.contains(words)).map(|(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::{Cause, cause};

    #[test]
    fn messages_of_runtimes_are_understood() {
        let check = |message: &str, want: Option<Cause>| {
            assert_eq!(cause(message), want, "{message}");
        };
        let failed =
            "failed to pull and unpack image \"r.test/a/b:1\": failed to resolve reference";
        check(&format!("{failed}: r.test/a/b:1: not found"), Some(Cause::NotFound));
        check(
            &format!(
                "{failed}: unexpected status from HEAD request to https://r.test: 403 Forbidden"
            ),
            Some(Cause::Forbidden),
        );
        check(
            &format!(
                "{failed}: pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"
            ),
            Some(Cause::Unauthorized),
        );
        check(
            "rpc error: code = Unknown desc = Error response: toomanyrequests: You have reached your pull rate limit",
            Some(Cause::Throttled),
        );
        check(
            &format!(
                "{failed}: failed to do request: Head \"https://r.test/v2/\": dial tcp: lookup r.test on 10.0.0.10:53: no such host"
            ),
            Some(Cause::Dns),
        );
        check(
            &format!(
                "{failed}: Head \"https://r.test/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority"
            ),
            Some(Cause::Authority),
        );
        check(
            &format!(
                "{failed}: x509: certificate has expired or is not yet valid: current time 2026-01-01"
            ),
            Some(Cause::Expired),
        );
        check(
            &format!("{failed}: x509: certificate is valid for a.test, not r.test"),
            Some(Cause::WrongName),
        );
        check(
            &format!("{failed}: http: server gave HTTP response to HTTPS client"),
            Some(Cause::PlainHttp),
        );
        check("dial tcp 10.0.0.1:5000: connect: connection refused", Some(Cause::Refused));
        check("dial tcp 10.0.0.1:443: i/o timeout", Some(Cause::Unreachable));
        check("no match for platform in manifest: not found", Some(Cause::Platform));
        check("write /var/lib/containerd: no space left on device", Some(Cause::Disk));
        check("Failed to apply default image tag: couldn't parse image name", Some(Cause::Name));
        check("unexpected status: 503 Service Unavailable", Some(Cause::ServerError));
        check("unexpected status: 412 Precondition Failed: denied by policy", Some(Cause::Policy));
        check("Container image \"a\" is not present with pull policy of Never", Some(Cause::Never));
        check("Back-off pulling image \"r.test/a/b:1\"", None);
        check("", None);
    }
}
