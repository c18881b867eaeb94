//! Repository names, tags, and what stands after `/manifests/`: the grammar of the distribution
//! specification, section "Pulling manifests".

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::{
    digest::Digest,
    error::{NameError, ReferenceError, TagError},
    text::serde_as_text,
};

/// The name of a repository inside one registry, such as `library/alpine`; at most
/// [`MAX_BYTES`](RepositoryName::MAX_BYTES) long. Cloning is cheap.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// Longest name accepted; the specification notes that many clients stop there.
    pub const MAX_BYTES: usize = 255;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    /// # Errors
    /// Empty, longer than 255 bytes, or against the grammar
    /// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`.
    fn from_str(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > RepositoryName::MAX_BYTES {
            return Err(NameError::TooLong { length: name.len() });
        }
        let mut at = 0;
        for component in name.split('/') {
            check_component(component).map_err(|offset| NameError::Grammar { at: at + offset })?;
            at += component.len() + 1;
        }
        Ok(RepositoryName(name.into()))
    }
}

/// Checks one path component; the error is the offset of the first byte that does not fit.
fn check_component(component: &str) -> Result<(), usize> {
    let bytes = component.as_bytes();
    let is_word =
        |at: usize| bytes.get(at).is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let mut at = 0;
    loop {
        if !is_word(at) {
            return Err(at);
        }
        while is_word(at) {
            at += 1;
        }
        at += match &bytes[at..] {
            [] => return Ok(()),
            [b'_', b'_', ..] => 2,
            [b'.' | b'_', ..] => 1,
            dashes => dashes.iter().take_while(|b| **b == b'-').count(),
        };
    }
}

/// The name of a version inside a repository, such as `3.20`; at most
/// [`MAX_BYTES`](Tag::MAX_BYTES) long. Cloning is cheap.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Tag(Arc<str>);

impl Tag {
    /// Longest tag accepted.
    pub const MAX_BYTES: usize = 128;

    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = TagError;

    /// # Errors
    /// Empty, longer than 128 bytes, or against the grammar `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    fn from_str(tag: &str) -> Result<Self, TagError> {
        if tag.is_empty() {
            return Err(TagError::Empty);
        }
        if tag.len() > Tag::MAX_BYTES {
            return Err(TagError::TooLong { length: tag.len() });
        }
        let fits = |(at, b): (usize, u8)| {
            b.is_ascii_alphanumeric() || b == b'_' || (at > 0 && matches!(b, b'.' | b'-'))
        };
        match tag.bytes().enumerate().position(|byte| !fits(byte)) {
            Some(at) => Err(TagError::Grammar { at }),
            None => Ok(Tag(tag.into())),
        }
    }
}

/// What a manifest is asked by.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Reference {
    /// A name that may move.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

impl Reference {
    /// The tag, if it is one.
    #[must_use]
    pub const fn tag(&self) -> Option<&Tag> {
        match self {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        }
    }

    /// The digest, if it is one.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        match self {
            Reference::Tag(_) => None,
            Reference::Digest(digest) => Some(digest),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// A text with a `:` is a digest or refused, any other is a tag or refused.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Reference::Digest(text.parse()?))
        } else {
            Ok(Reference::Tag(text.parse()?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Reference::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Reference::Digest(digest)
    }
}

macro_rules! text_value {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        serde_as_text!($type);
    };
}
text_value!(RepositoryName);
text_value!(Tag);
serde_as_text!(Reference);
