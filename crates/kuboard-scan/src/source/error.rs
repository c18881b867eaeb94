//! Why an image can't be read.

use std::io;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// It does not exist.
    NotFound,
    /// The source did not answer, or refused; later it may.
    Unreachable,
    /// The source refuses for good: credentials, policy.
    Denied,
    /// What is there is damaged or lies.
    Invalid,
    /// What is there is fine, but no image.
    NotAnImage,
}

/// Why an image can't be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// Whose fault it is.
    pub kind: SourceErrorKind,
    /// What is wrong.
    pub message: String,
}

impl SourceError {
    /// An error of that kind.
    pub fn new(kind: SourceErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What is there is damaged.
    pub fn invalid(message: impl ToString) -> Self {
        Self::new(SourceErrorKind::Invalid, message.to_string())
    }

    /// What is there is no image.
    pub fn not_an_image(message: impl Into<String>) -> Self {
        Self::new(SourceErrorKind::NotAnImage, message)
    }

    /// It can't be read.
    #[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
    pub fn io(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => SourceErrorKind::NotFound,
            io::ErrorKind::InvalidData => SourceErrorKind::Invalid,
            io::ErrorKind::PermissionDenied => SourceErrorKind::Denied,
            _ => SourceErrorKind::Unreachable,
        };
        Self::new(kind, error.to_string())
    }

    /// Whether the same may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind == SourceErrorKind::Unreachable
    }
}
