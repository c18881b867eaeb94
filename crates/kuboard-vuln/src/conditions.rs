//! Conditions of a row (architectures, module, repositories) and the severities for its package,
//! as bytes that are read without allocation. Most rows of a feed share few of them.
//!
//! Four parts, each with its length before it: architectures, module, repositories, severities.
//! Lists are texts with their lengths; a severity is its source, one byte for the rating, its
//! value. Lengths are LEB128. Damaged bytes read as shorter lists.

use crate::{Qualifiers, Rating, SeverityScore};

/// Conditions and severities, encoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Conditions<'a>(&'a [u8]);

impl<'a> Conditions<'a> {
    /// Encodes; empty if there is nothing to say.
    #[must_use]
    pub fn encode(qualifiers: &Qualifiers, severities: &[SeverityScore]) -> Vec<u8> {
        let mut out = Vec::new();
        if *qualifiers == Qualifiers::default() && severities.is_empty() {
            return out;
        }
        let mut part = Vec::new();
        qualifiers.arches.iter().for_each(|arch| put(&mut part, arch.as_bytes()));
        put(&mut out, &part);
        put(&mut out, qualifiers.module.as_bytes());
        part.clear();
        qualifiers.repositories.iter().for_each(|one| put(&mut part, one.as_bytes()));
        put(&mut out, &part);
        part.clear();
        put_severities(&mut part, severities);
        put(&mut out, &part);
        out
    }

    /// Takes bytes that [`Conditions::encode`] gave, or damaged ones.
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    fn part(self, index: usize) -> &'a [u8] {
        Pieces(self.0).nth(index).unwrap_or_default()
    }

    /// Architectures, any of them; empty for all.
    #[must_use]
    pub fn arches(self) -> Texts<'a> {
        Texts(Pieces(self.part(0)))
    }

    /// The module stream; empty if none is stated.
    #[must_use]
    pub fn module(self) -> &'a str {
        std::str::from_utf8(self.part(1)).unwrap_or_default()
    }

    /// Repositories, any of them; empty for all.
    #[must_use]
    pub fn repositories(self) -> Texts<'a> {
        Texts(Pieces(self.part(2)))
    }

    /// The severities for this package.
    #[must_use]
    pub fn severities(self) -> Vec<SeverityScore> {
        read_severities(self.part(3))
    }
}

/// Encodes severities, without a length of the whole.
pub fn put_severities(out: &mut Vec<u8>, severities: &[SeverityScore]) {
    for score in severities {
        put(out, score.source.as_bytes());
        let rating = match score.rating {
            Rating::CvssV2 => b'2',
            Rating::CvssV3 => b'3',
            Rating::CvssV4 => b'4',
            Rating::Word => b'w',
        };
        put(out, &[rating]);
        put(out, score.value.as_bytes());
    }
}

/// Reads what [`put_severities`] wrote, as far as it is whole.
#[must_use]
pub fn read_severities(bytes: &[u8]) -> Vec<SeverityScore> {
    let mut pieces = Pieces(bytes);
    let mut scores = Vec::new();
    while let (Some(source), Some(rating), Some(value)) =
        (pieces.next(), pieces.next(), pieces.next())
    {
        let rating = match rating {
            b"2" => Rating::CvssV2,
            b"3" => Rating::CvssV3,
            b"4" => Rating::CvssV4,
            b"w" => Rating::Word,
            _ => break,
        };
        let (Ok(source), Ok(value)) = (std::str::from_utf8(source), std::str::from_utf8(value))
        else {
            break;
        };
        scores.push(SeverityScore { source: source.to_owned(), rating, value: value.to_owned() });
    }
    scores
}

/// Appends a piece with its length before it.
pub fn put(out: &mut Vec<u8>, piece: &[u8]) {
    let mut length = piece.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(piece);
}

/// Takes the piece at the beginning of `bytes`; `None` if it is not whole. Gives the rest too.
#[must_use]
pub fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        return rest.split_at_checked(usize::from(first));
    }
    take_long(bytes)
}

fn take_long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (index, &byte) in bytes.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let rest = bytes.get(index + 1..)?;
            return rest.split_at_checked(length);
        }
    }
    None
}

/// Pieces with their lengths before them, until the bytes end or are damaged.
struct Pieces<'a>(&'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (piece, rest) = take(self.0)?;
        self.0 = rest;
        Some(piece)
    }
}

/// The texts of a list.
pub struct Texts<'a>(Pieces<'a>);

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.0.next()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Conditions, take};
    use crate::{Qualifiers, Rating, SeverityScore};

    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(any::<char>(), 0..200).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(
            arches in proptest::collection::vec(text(), 0..3),
            module in text(),
            repositories in proptest::collection::vec(text(), 0..3),
            words in proptest::collection::vec((text(), text()), 0..3),
        ) {
            let qualifiers = Qualifiers { arches, module, repositories };
            let severities: Vec<_> = words
                .into_iter()
                .map(|(source, value)| SeverityScore { source, rating: Rating::Word, value })
                .collect();
            let bytes = Conditions::encode(&qualifiers, &severities);
            let read = Conditions::from_bytes(&bytes);
            prop_assert_eq!(read.arches().collect::<Vec<_>>(), qualifiers.arches);
            prop_assert_eq!(read.module(), qualifiers.module);
            prop_assert_eq!(read.repositories().collect::<Vec<_>>(), qualifiers.repositories);
            prop_assert_eq!(read.severities(), severities);
        }

        #[test]
        fn damaged_bytes_read_as_something(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let read = Conditions::from_bytes(&bytes);
            let _ = (read.arches().count(), read.module(), read.repositories().count());
            let _ = (read.severities(), take(&bytes));
        }
    }
}
