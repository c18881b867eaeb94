//! The one place where a key is declared: [`section!`] makes of it the field, its default, its
//! reading and its line in the reference, so that the four cannot drift apart.

use std::path::PathBuf;

/// A key of a table, as the reference prints it and the parser checks it.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) doc: String,
    pub(crate) shape: Shape,
    /// The default in TOML, `None` when the key is unset by default.
    pub(crate) default: Option<String>,
}

/// What may stand behind a key.
pub(crate) enum Shape {
    /// A value; the words that describe its type.
    Value(String),
    /// A table with these keys, and what it is for.
    Table(&'static str, Vec<Key>),
    /// A list of tables.
    Tables(&'static str, Vec<Key>),
}

/// A type that can stand in kuboard.toml.
pub(crate) trait Described {
    fn shape() -> Shape;
}

macro_rules! described_as {
    ($($type:ty => $words:literal,)*) => {$(
        impl Described for $type {
            fn shape() -> Shape {
                Shape::Value($words.to_owned())
            }
        }
    )*};
}

described_as! {
    bool => "boolean",
    u32 => "integer",
    usize => "integer",
    String => "string",
    PathBuf => "path",
}

impl<T: Described> Described for Option<T> {
    fn shape() -> Shape {
        T::shape()
    }
}

impl<T: Described> Described for Vec<T> {
    fn shape() -> Shape {
        match T::shape() {
            Shape::Value(words) => Shape::Value(format!("list of {words}")),
            Shape::Table(about, keys) | Shape::Tables(about, keys) => Shape::Tables(about, keys),
        }
    }
}

/// The default as TOML text; `None` for what TOML cannot say, an unset option.
pub(crate) fn default_text<T: serde::Serialize>(value: &T) -> Option<String> {
    toml::Value::try_from(value).ok().map(|value| value.to_string())
}

/// Declares a table of kuboard.toml: `"key" => field: Type = default,` under its documentation.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:literal => $field:ident: $type:ty = $default:expr,
            )*
        }
        $(hidden $hidden:ident: $hidden_type:ty)?
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[doc = $doc])*
                #[serde(rename = $key)]
                pub $field: $type,
            )*
            $(
                #[serde(skip)]
                pub(crate) $hidden: $hidden_type,
            )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($hidden: <$hidden_type>::default(),)?
                }
            }
        }

        impl crate::schema::Described for $name {
            fn shape() -> crate::schema::Shape {
                let default = Self::default();
                crate::schema::Shape::Table(
                    concat!($($about, "\n"),*),
                    vec![$(crate::schema::Key {
                        name: $key,
                        doc: concat!($($doc, "\n"),*).to_owned(),
                        shape: <$type as crate::schema::Described>::shape(),
                        default: crate::schema::default_text(&default.$field),
                    }),*],
                )
            }
        }
    };
}

/// Declares a choice between words: `Variant = "word",` under its documentation.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $variant:ident = $word:literal,
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $doc])* $variant,)*
        }

        impl $name {
            /// The word that stands for it in kuboard.toml.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(crate::schema::not_a_choice(text, &[$($word),*])),
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                crate::text::from_text(from)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl crate::schema::Described for $name {
            fn shape() -> crate::schema::Shape {
                let words: &[&str] = &[$(concat!("`\"", $word, "\"`")),*];
                crate::schema::Shape::Value(words.join(", "))
            }
        }
    };
}

/// The message for a word that is none of `words`.
pub(crate) fn not_a_choice(text: &str, words: &[&str]) -> String {
    let all = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    match nearest(text, words.iter().copied()) {
        Some(word) => {
            format!("unknown value \"{text}\"\nhint: did you mean \"{word}\"? known: {all}")
        }
        None => format!("unknown value \"{text}\"\nhint: write one of {all}"),
    }
}

/// The candidate that a typing error most likely meant, if one is near enough.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = |word: &str| word.to_ascii_lowercase().replace(['_', '-'], "");
    let wanted = plain(text);
    candidates
        .map(|candidate| {
            let known = plain(candidate);
            // `interval` for `intervalSeconds` is a slip of memory, not of the fingers.
            let begins = wanted.len() > 3 && known.starts_with(&wanted);
            let distance = strsim::damerau_levenshtein(&wanted, &known);
            (if begins { 1 } else { distance }, candidate)
        })
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
