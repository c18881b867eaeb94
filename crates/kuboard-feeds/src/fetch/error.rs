//! Why a feed could not be fetched.

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchErrorKind {
    /// The server said that there is no such thing.
    NotFound,
    /// The server refused: credentials, a closed mirror.
    Denied,
    /// The server asked to come later, and later was not soon enough.
    Throttled,
    /// No connection, no answer, or the answer broke off too often.
    Unreachable,
    /// The server sent more than a feed may have.
    TooLarge,
    /// The disk here failed.
    Disk,
}

/// Why a feed could not be fetched.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{url}: {message}")]
pub struct FetchError {
    /// Whose fault it is.
    pub kind: FetchErrorKind,
    /// What was asked for, without credentials.
    pub url: String,
    /// What is wrong.
    pub message: String,
}

impl FetchError {
    pub(crate) fn new(kind: FetchErrorKind, url: &str, message: impl Into<String>) -> Self {
        Self { kind, url: without_credentials(url), message: message.into() }
    }
}

/// Mirrors may need a password in their address; it belongs in no log.
pub(super) fn without_credentials(text: &str) -> String {
    match url::Url::parse(text) {
        Ok(mut url) if !url.username().is_empty() || url.password().is_some() => {
            // An address that can have a user can be without one.
            let _cleared = (url.set_username(""), url.set_password(None));
            url.to_string()
        }
        _ => text.to_owned(),
    }
}
