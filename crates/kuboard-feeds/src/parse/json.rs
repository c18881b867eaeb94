//! Walks big JSON documents without holding them: the members of one object or the values of one
//! list are handed out one by one, as raw text, so that a bad one can be skipped.

use std::fmt;
use std::io::Read;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::compressed::{Allowance, Metered};
use super::{MAX_FEED, MAX_ITEM, ParseError, compressed};

/// Takes one item: its key (empty in lists) and its text. An error ends the walk.
pub(super) type Take<'a> = dyn FnMut(&str, &str) -> Result<(), ParseError> + 'a;

/// Calls `take` for each member of the document, which must be an object.
pub(super) fn members(
    input: impl Read,
    format: &'static str,
    take: &mut Take<'_>,
) -> Result<(), ParseError> {
    walk(input, format, Shape::Members, take)
}

/// Calls `take` for each value of the list that the document is.
pub(super) fn values(
    input: impl Read,
    format: &'static str,
    take: &mut Take<'_>,
) -> Result<(), ParseError> {
    walk(input, format, Shape::Values, take)
}

/// The document is an object, and one of its members, `list`, is a list: calls `take` with an empty
/// key for each value of it, and with the member's name for every other member whose value is short.
pub(super) fn list(
    input: impl Read,
    format: &'static str,
    list: &'static str,
    take: &mut Take<'_>,
) -> Result<(), ParseError> {
    walk(input, format, Shape::List(list), take)
}

#[derive(Clone, Copy)]
enum Shape {
    Members,
    Values,
    List(&'static str),
}

fn walk(
    input: impl Read,
    format: &'static str,
    shape: Shape,
    take: &mut Take<'_>,
) -> Result<(), ParseError> {
    let plain = compressed::open(input, MAX_FEED)?;
    let (metered, allowance) = Metered::new(plain, MAX_ITEM);
    let mut failure = None;
    let mut found = false;
    let walker =
        Walker { shape, take, allowance: &allowance, failure: &mut failure, found: &mut found };
    let mut reader = serde_json::Deserializer::from_reader(std::io::BufReader::new(metered));
    let walked = walker.deserialize(&mut reader).and_then(|()| reader.end());
    if let Some(failure) = failure {
        return Err(failure);
    }
    walked.map_err(|error| json_error(format, error))?;
    match shape {
        Shape::List(name) if !found => {
            Err(ParseError::format(format, format!("it has no list `{name}`")))
        }
        _ => Ok(()),
    }
}

/// A failure to read stays one: it can be tried again.
pub(super) fn json_error(format: &'static str, error: serde_json::Error) -> ParseError {
    match error.classify() {
        serde_json::error::Category::Io => ParseError::Read(error.into()),
        serde_json::error::Category::Eof => ParseError::Read(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "the JSON document is cut off",
        )),
        _ => ParseError::format(format, error),
    }
}

struct Walker<'a, 'b> {
    shape: Shape,
    take: &'a mut Take<'b>,
    allowance: &'a Allowance,
    failure: &'a mut Option<ParseError>,
    found: &'a mut bool,
}

impl Walker<'_, '_> {
    fn give<E: serde::de::Error>(&mut self, key: &str, value: &str) -> Result<(), E> {
        let taken = (self.take)(key, value);
        self.allowance.renew();
        taken.map_err(|error| {
            *self.failure = Some(error);
            E::custom("stopped")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Walker<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        match self.shape {
            Shape::Members | Shape::List(_) => reader.deserialize_map(self),
            Shape::Values => reader.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Walker<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.shape {
            Shape::Members | Shape::List(_) => "an object",
            Shape::Values => "a list",
        })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match self.shape {
                Shape::List(name) if key == name => {
                    *self.found = true;
                    map.next_value_seed(Inner(&mut self))?;
                }
                Shape::List(_) => {
                    // Other members are small; a large one costs its allowance, no more.
                    let value = map.next_value::<Box<RawValue>>()?;
                    self.give(&key, value.get())?;
                }
                _ => {
                    let value = map.next_value::<Box<RawValue>>()?;
                    self.give(&key, value.get())?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element::<Box<RawValue>>()? {
            self.give("", value.get())?;
        }
        Ok(())
    }
}

/// The list inside the object.
struct Inner<'w, 'a, 'b>(&'w mut Walker<'a, 'b>);

impl<'de> DeserializeSeed<'de> for Inner<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inner<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // So that the error says what is wrong rather than "trailing characters".
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Err(A::Error::custom("an object where a list should be"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element::<Box<RawValue>>()? {
            self.0.give("", value.get())?;
        }
        Ok(())
    }
}
