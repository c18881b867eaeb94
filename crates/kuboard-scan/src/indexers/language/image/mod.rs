//! Programs and libraries (ELF, PE, Mach-O) as far as it takes to find a section or an address:
//! headers and tables only, read where they lie.

mod elf;
mod macho;
mod pe;

use crate::{Candidate, Content, Want};

/// The sections that indexers ask for. No other is kept.
const SECTIONS: [&str; 3] = [".go.buildinfo", "__go_buildinfo", ".dep-v0"];

/// The most bytes of one table of headers, names or commands.
const MAX_TABLE: u64 = 4 << 20;

/// The most architectures of one Mach-O file.
const MAX_SLICES: u32 = 8;

/// How files begin that may be programs. A fat Mach-O file begins like a class file of Java, but
/// for the count of its architectures, which is smaller than any version of Java's.
const STARTS: &[&[u8]] = &[
    b"\x7fELF",
    b"MZ",
    b"\xcf\xfa\xed\xfe",
    b"\xce\xfa\xed\xfe",
    b"\xfe\xed\xfa\xcf",
    b"\xfe\xed\xfa\xce",
    b"\xca\xfe\xba\xbe\x00\x00\x00\x01",
    b"\xca\xfe\xba\xbe\x00\x00\x00\x02",
    b"\xca\xfe\xba\xbe\x00\x00\x00\x03",
    b"\xca\xfe\xba\xbe\x00\x00\x00\x04",
];

/// Smaller files can't hold a runtime.
const SMALLEST: u64 = 4096;

/// Programs and shared libraries, whatever their mode says: images lose modes. Names that only
/// objects, debug symbols, kernel modules, texts and pictures have are left alone.
pub(super) fn wants(candidate: &Candidate<'_>) -> Want {
    if candidate.size < SMALLEST {
        return Want::No;
    }
    let name = candidate.name();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let other = matches!(
        extension,
        "o" | "a"
            | "ko"
            | "debug"
            | "mo"
            | "class"
            | "pyc"
            | "py"
            | "js"
            | "json"
            | "html"
            | "txt"
            | "md"
            | "xml"
            | "gz"
            | "xz"
            | "zst"
            | "bz2"
            | "zip"
            | "jar"
            | "png"
            | "svg"
            | "h"
            | "rb"
            | "pm"
            | "pl"
            | "go"
            | "rs"
            | "c"
            | "ttf"
            | "css"
            | "map"
            | "ts"
    );
    if other { Want::No } else { Want::IfStarts(STARTS) }
}

/// A named range of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    /// Bytes from the start of the file.
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// A range of the file that is loaded at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) address: u64,
    /// Bytes from the start of the file.
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Data that the program may change, not code.
    pub(super) data: bool,
}

/// A program for one architecture.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Image {
    /// Sections of the names that indexers ask for.
    pub(super) sections: Vec<Section>,
    pub(super) segments: Vec<Segment>,
    /// Whether there is a table that names sections, and it would name those that were asked for.
    pub(super) names_sections: bool,
    /// What of the headers lies outside of the file, or can't be true.
    pub(super) damage: Option<&'static str>,
}

impl Image {
    pub(super) fn section(&self, names: &[&str]) -> Option<&Section> {
        self.sections.iter().find(|section| names.contains(&section.name))
    }

    fn add_section(&mut self, name: &[u8], offset: u64, size: u64) {
        let known = SECTIONS.iter().find(|known| known.as_bytes() == name);
        if let Some(name) = known {
            self.sections.push(Section { name, offset, size });
        }
    }

    /// Where in the file the byte of an address lies.
    pub(super) fn offset_of(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let into = address.checked_sub(segment.address)?;
            if into < segment.size { segment.offset.checked_add(into) } else { None }
        })
    }
}

/// The programs in a file: none if it is something else, several for a fat Mach-O file.
pub(super) fn images(content: &dyn Content) -> Vec<Image> {
    let start = bytes(content, 0, 64);
    if start.starts_with(b"\x7fELF") {
        return elf::image(content, &start).into_iter().collect();
    }
    if start.starts_with(b"MZ") {
        return pe::image(content, &start).into_iter().collect();
    }
    if start.starts_with(b"\xca\xfe\xba\xbe") {
        return macho::slices(content);
    }
    macho::image(content, 0).into_iter().collect()
}

/// Bytes from `offset`, fewer where the file ends or can't be read.
pub(super) fn bytes(content: &dyn Content, offset: u64, length: u64) -> Vec<u8> {
    let length = length.min(content.size().saturating_sub(offset));
    let Ok(length) = usize::try_from(length) else { return Vec::new() };
    let mut into = vec![0; length];
    let read = content.read_at(offset, &mut into).unwrap_or_default();
    into.truncate(read);
    into
}

/// Numbers of a table.
#[derive(Clone, Copy)]
struct Fields<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl<'a> Fields<'a> {
    fn at(self, offset: usize, length: usize) -> Option<&'a [u8]> {
        self.bytes.get(offset..offset.checked_add(length)?)
    }

    fn from(self, offset: usize, length: usize) -> Option<Fields<'a>> {
        Some(Fields { bytes: self.at(offset, length)?, ..self })
    }

    fn number(self, offset: usize, length: usize) -> Option<u64> {
        let bytes = self.at(offset, length)?.iter();
        let join = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if self.little { bytes.rev().fold(0, join) } else { bytes.fold(0, join) })
    }

    fn u16(self, offset: usize) -> Option<u64> {
        self.number(offset, 2)
    }

    fn u32(self, offset: usize) -> Option<u64> {
        self.number(offset, 4)
    }

    fn u64(self, offset: usize) -> Option<u64> {
        self.number(offset, 8)
    }

    /// The bytes of a field before its first zero.
    fn name(self, offset: usize, length: usize) -> Option<&'a [u8]> {
        let field = self.at(offset, length)?;
        field.split(|byte| *byte == 0).next()
    }
}
