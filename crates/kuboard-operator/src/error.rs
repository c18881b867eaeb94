//! What can go wrong with the Kubernetes API: what was attempted, whose fault it is and whether to
//! try again, as data.

use std::{error::Error as StdError, time::Duration};

/// Why something in the cluster could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered, and said no.
    #[error("{what}: the API server said {code} {reason}: {message}{}", hint(*code))]
    Refused {
        /// What was attempted.
        what: String,
        /// The HTTP status.
        code: u16,
        /// The reason of the answer, such as `Forbidden`.
        reason: String,
        /// What it said.
        message: String,
    },
    /// No answer came in time.
    #[error("{what}: no answer from the API server within {within:?}")]
    Silent {
        /// What was attempted.
        what: String,
        /// How long we waited.
        within: Duration,
    },
    /// The API server could not be asked, or its answer not read.
    #[error("{what}: {}", chain(source))]
    Unreachable {
        /// What was attempted.
        what: String,
        /// Why, told in the message.
        source: kube::Error,
    },
    /// No way to the API server is configured.
    #[error("{0}")]
    Config(String),
    /// An object of the cluster holds something else than it should.
    #[error("{object} is not usable: {reason}")]
    Content {
        /// Which, as `Kind namespace/name`.
        object: String,
        /// What is wrong, and what to do about it.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The webhook did not answer when the API server called it.
    #[error("{0}")]
    SelfTest(String),
}

impl Error {
    /// Of a failed call.
    pub(crate) fn of(what: &str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused {
                what: what.to_owned(),
                code: status.code,
                reason: status.reason.clone(),
                message: status.message.chars().take(1_000).collect(),
            },
            source => Self::Unreachable { what: what.to_owned(), source },
        }
    }

    /// The HTTP status of the answer, if there was one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Somebody else was faster: the object exists, or is not what it was when it was read.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// We may not.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self.code(), Some(401 | 403))
    }

    /// The same may succeed a moment later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(code, 429 | 500 | 502 | 503 | 504),
            Self::Silent { .. } => true,
            // What could not be read once will not be readable next time.
            Self::Unreachable { source, .. } => !matches!(source, kube::Error::SerdeError(_)),
            _ => false,
        }
    }

    /// The cluster has no room for more: its storage is full, or a quota is.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Refused { code: 507 | 413, .. } => true,
            Self::Refused { code: 403, message, .. } => message.contains("exceeded quota"),
            Self::Refused { code: 500, message, .. } => {
                message.contains("database space exceeded")
                    || message.contains("request is too large")
            }
            _ => false,
        }
    }
}

fn hint(code: u16) -> &'static str {
    match code {
        401 => "; hint: the credentials are not known to this cluster (any more)",
        403 => "; hint: the chart's ClusterRole kuboard-operator grants what is needed",
        _ => "",
    }
}

/// An error with its causes, each once: libraries repeat them in their own texts.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn answers_are_sorted() {
        let check = |code: u16, message: &str, want: [bool; 4]| {
            let status = kube::core::Status::failure(message, "Because").with_code(code).boxed();
            let error = Error::of("write x", kube::Error::Api(status));
            let got =
                [error.is_passing(), error.is_conflict(), error.is_full(), error.is_forbidden()];
            assert_eq!(got, want, "{error}");
        };
        check(409, "the object has been modified", [false, true, false, false]);
        check(429, "slow down", [true, false, false, false]);
        check(503, "starting", [true, false, false, false]);
        check(500, "etcdserver: mvcc: database space exceeded", [true, false, true, false]);
        check(413, "too large", [false, false, true, false]);
        check(403, "exceeded quota: reports", [false, false, true, true]);
        check(403, "cannot patch", [false, false, false, true]);
        check(404, "not here", [false, false, false, false]);
    }

    #[test]
    fn messages_name_what_was_attempted() {
        let status = kube::core::Status::failure("no", "Forbidden").with_code(403).boxed();
        let error = Error::of("read Secret kuboard/x", kube::Error::Api(status));
        let said = error.to_string();
        assert!(said.starts_with("read Secret kuboard/x: the API server said 403 Forbidden"));
        assert!(said.contains("hint: "));
    }
}
