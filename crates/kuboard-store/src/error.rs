//! What can go wrong with stored bytes, as data: kind, and whether trying again may help.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use kuboard_oci::Digest;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The disk, quota or bucket is full. Callers may go on without storing.
    NoSpace,
    /// The bytes are not those of the digest.
    Mismatch {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes that came.
        actual: Digest,
    },
    /// There are more or fewer bytes than announced.
    Length {
        /// Bytes announced.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// The operating system refused a file operation.
    Io,
    /// An object store refused or could not be reached.
    Backend,
    /// The writer went away before the blob was complete.
    Closed,
    /// The spool or a file in it is in use.
    Busy,
    /// A name or a setting is not acceptable.
    Invalid,
}

/// An error of the store. Cheap to clone, since one failed download fails all its followers.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    /// What was attempted and on what, in lower case.
    doing: String,
    retryable: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, doing: impl Into<String>) -> Error {
        let retryable = matches!(kind, ErrorKind::Closed | ErrorKind::Busy);
        Error(Arc::new(Inner { kind, doing: doing.into(), retryable, source: None }))
    }

    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Error {
        let kind = if is_full(&source) { ErrorKind::NoSpace } else { ErrorKind::Io };
        let retryable = source.kind() == io::ErrorKind::Interrupted;
        let source = Some(source.into());
        Error(Arc::new(Inner { kind, doing: doing.into(), retryable, source }))
    }

    pub(crate) fn backend(doing: impl Into<String>, source: object_store::Error) -> Error {
        use object_store::Error as E;
        let kind = if is_full_backend(&source) { ErrorKind::NoSpace } else { ErrorKind::Backend };
        let retryable = kind == ErrorKind::Backend
            && matches!(source, E::Generic { .. } | E::JoinError { .. } | E::Precondition { .. });
        let source = Some(source.into());
        Error(Arc::new(Inner { kind, doing: doing.into(), retryable, source }))
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Whether the same call may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Whether the disk, quota or bucket is full.
    pub fn is_no_space(&self) -> bool {
        self.0.kind == ErrorKind::NoSpace
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Object stores say it in the answer's body only; these are the words of MinIO, Ceph, versitygw
/// (which hands on ENOSPC and EDQUOT) and of WebDAV-like 507s.
fn is_full_backend(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(now) = cause {
        if now.downcast_ref::<io::Error>().is_some_and(is_full) {
            return true;
        }
        cause = now.source();
    }
    const WORDS: [&str; 5] = [
        "XMinioStorageFull",
        "QuotaExceeded",
        "InsufficientStorage",
        "Insufficient Storage",
        "no space left",
    ];
    let text = error.to_string();
    WORDS.iter().any(|word| text.contains(word))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = &self.0.doing;
        match &self.0.kind {
            ErrorKind::NoSpace => {
                write!(f, "{doing}: no space left\nhint: free space or lower cacheSizeGB")
            }
            ErrorKind::Mismatch { expected, actual } => {
                write!(f, "{doing}: the bytes are {actual}, not {expected}")
            }
            ErrorKind::Length { expected, actual } => {
                write!(f, "{doing}: {actual} bytes where {expected} were announced")
            }
            ErrorKind::Closed => {
                write!(f, "{doing}: the writer went away before the blob was complete")
            }
            ErrorKind::Io | ErrorKind::Backend | ErrorKind::Busy | ErrorKind::Invalid => {
                f.write_str(doing)
            }
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("doing", &self.0.doing)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// Bodies of answers carry [`io::Error`].
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error.kind() {
            ErrorKind::NoSpace => io::ErrorKind::StorageFull,
            ErrorKind::Mismatch { .. } | ErrorKind::Length { .. } => io::ErrorKind::InvalidData,
            ErrorKind::Closed => io::ErrorKind::UnexpectedEof,
            ErrorKind::Busy => io::ErrorKind::ResourceBusy,
            ErrorKind::Invalid => io::ErrorKind::InvalidInput,
            ErrorKind::Io | ErrorKind::Backend => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_no_space_wherever_it_comes_from() {
        let os = |code| io::Error::from_raw_os_error(code);
        let generic = |source: Box<dyn StdError + Send + Sync>| object_store::Error::Generic {
            store: "S3",
            source,
        };
        let cases = [
            (Error::io("writing", os(libc::ENOSPC)), true),
            (Error::io("writing", os(libc::EDQUOT)), true),
            (Error::io("writing", os(libc::EIO)), false),
            (Error::backend("putting", generic(Box::new(os(libc::ENOSPC)))), true),
            (Error::backend("putting", generic("<Code>XMinioStorageFull</Code>".into())), true),
            (Error::backend("putting", generic("connection reset".into())), false),
        ];
        for (error, full) in cases {
            assert_eq!(error.is_no_space(), full, "{error:?}");
        }
    }

    #[test]
    fn says_what_failed_and_keeps_the_source_apart() {
        let error = Error::io("writing spool/x", io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(error.to_string(), "writing spool/x");
        assert!(error.source().is_some_and(|source| source.to_string().contains("os error 5")));
    }
}
