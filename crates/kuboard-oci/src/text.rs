//! Serde through text, and cutting foreign text to a length that may be printed.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::de::{Deserializer, Error, Visitor};

/// Longest piece of foreign text that an error repeats, in characters.
const PRINTABLE: usize = 80;

/// The begin of `text` with control characters replaced, fit for an error message.
pub(crate) fn printable(text: &str) -> String {
    cut(text, PRINTABLE)
}

/// [`printable`] with a limit of its own.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut out: String = text.chars().take(limit).map(clean).collect();
    if text.chars().nth(limit).is_some() {
        out.push('…');
    }
    out
}

/// Deserialises a value that is written as text.
pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct Text<T>(PhantomData<T>);
    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(PhantomData))
}

/// Gives a type with `Display` and `FromStr` the matching serde implementations.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                $crate::text::deserialize(d)
            }
        }
    };
}
pub(crate) use serde_as_text;
