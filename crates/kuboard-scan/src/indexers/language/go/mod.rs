//! Go programs: the build information that the linker puts into them.
//!
//! The format is that of Go's `debug/buildinfo`: a header that begins with `\xff Go buildinf:`,
//! aligned to 16 bytes, in a section of its own or at the start of the data. Since Go 1.18 the
//! toolchain's version and the module list follow as length-prefixed strings; before, the header
//! held two pointers to Go strings.

mod version;

use kuboard_vuln::{Ecosystem, Package};

use super::{
    MAX_PACKAGES, Parsed,
    image::{self, Image, bytes},
    package, store,
};
use crate::{Candidate, Content, File, Found, Indexer, Want};

const MAGIC: &[u8] = b"\xff Go buildinf:";

/// The most bytes of the module list.
const MAX_LIST: u64 = 16 << 20;

/// The most bytes of data that are searched for the header.
const MAX_SEARCH: u64 = 64 << 20;

/// How many bytes are searched at once; a multiple of the alignment.
const CHUNK: u64 = 1 << 20;

/// Go's build information.
pub(super) struct Go;

impl Indexer for Go {
    fn name(&self) -> &'static str {
        "go"
    }

    fn version(&self) -> u32 {
        1
    }

    fn wants(&self, candidate: &Candidate<'_>) -> Want {
        image::wants(candidate)
    }

    fn read(&self, file: &File<'_>, found: &mut Found) {
        store(self.name(), file.path, parse(file.content), found);
    }
}

/// Modules of a program: the main one, its dependencies, the standard library as `stdlib`.
#[must_use]
pub fn parse(content: &dyn Content) -> Parsed {
    let mut parsed = Parsed::default();
    for image in image::images(content) {
        let info = find(content, &image).map(|at| read(content, &image, at));
        match info {
            Some(Some((toolchain, list))) => {
                parsed.packages.extend(modules(&toolchain, &list));
                break;
            }
            Some(None) => parsed.problems.push("its Go build information is damaged".to_owned()),
            // A table of sections that is cut off leaves open whether it is a Go program.
            None => parsed.problems.extend(image.damage.map(str::to_owned)),
        }
    }
    if parsed.packages.len() > MAX_PACKAGES {
        parsed.packages.truncate(MAX_PACKAGES);
        parsed.problems.push(format!("it states more than {MAX_PACKAGES} modules"));
    }
    parsed
}

/// Offset of the header.
fn find(content: &dyn Content, image: &Image) -> Option<u64> {
    if let Some(section) = image.section(&[".go.buildinfo", "__go_buildinfo"]) {
        return search(content, section.offset, section.size);
    }
    if image.names_sections {
        return None;
    }
    image
        .segments
        .iter()
        .filter(|segment| segment.data)
        .find_map(|segment| search(content, segment.offset, segment.size))
}

fn search(content: &dyn Content, start: u64, size: u64) -> Option<u64> {
    let finder = memchr::memmem::Finder::new(MAGIC);
    let mut into = 0;
    while into < size.min(MAX_SEARCH) {
        let offset = start.checked_add(into)?;
        // The header does not cross a chunk, for it is aligned and shorter than the overlap.
        let chunk = bytes(content, offset, CHUNK.min(size - into) + 16);
        if chunk.is_empty() {
            return None;
        }
        let hit = finder.find_iter(&chunk).find(|at| at % 16 == 0);
        if let Some(at) = hit {
            return offset.checked_add(at as u64);
        }
        into += CHUNK;
    }
    None
}

/// The toolchain's version and the module list.
fn read(content: &dyn Content, image: &Image, at: u64) -> Option<(String, String)> {
    let header = bytes(content, at, 32);
    let (pointer_size, flags) = (usize::from(*header.get(14)?), *header.get(15)?);
    let (toolchain, list) = if flags & 2 != 0 {
        let (toolchain, next) = inline(content, at.checked_add(32)?)?;
        (toolchain, inline(content, next)?.0)
    } else {
        let pointers = Pointers { content, image, size: pointer_size, big: flags & 1 != 0 };
        let first = pointers.number(&header, 16)?;
        let second = pointers.number(&header, 16 + pointer_size)?;
        (pointers.string(first)?, pointers.string(second).unwrap_or_default())
    };
    let toolchain = String::from_utf8(toolchain).ok().filter(|text| !text.is_empty())?;
    // 16 random-looking bytes stand before and after the list, to be found in memory dumps.
    let list = match list.len().checked_sub(17).and_then(|last| list.get(last)) {
        Some(b'\n') if list.len() >= 33 => list.get(16..list.len() - 16).unwrap_or_default(),
        _ => &[],
    };
    Some((toolchain, String::from_utf8_lossy(list).into_owned()))
}

/// A string behind its length as a variable-length integer, and where the next one begins.
fn inline(content: &dyn Content, at: u64) -> Option<(Vec<u8>, u64)> {
    let prefix = bytes(content, at, 10);
    let mut length = 0_u64;
    for (index, byte) in prefix.iter().enumerate() {
        length |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            let start = at.checked_add(index as u64 + 1)?;
            let end = start.checked_add(length)?;
            if length > MAX_LIST {
                return None;
            }
            let text = bytes(content, start, length);
            return (text.len() as u64 == length).then_some((text, end));
        }
    }
    None
}

/// Go strings behind pointers, as programs before Go 1.18 have them.
struct Pointers<'a> {
    content: &'a dyn Content,
    image: &'a Image,
    /// Bytes of a pointer.
    size: usize,
    big: bool,
}

impl Pointers<'_> {
    fn number(&self, bytes: &[u8], at: usize) -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(self.size)?)?;
        match (self.size, self.big) {
            (4, false) => Some(u32::from_le_bytes(bytes.try_into().ok()?).into()),
            (4, true) => Some(u32::from_be_bytes(bytes.try_into().ok()?).into()),
            (8, false) => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
            (8, true) => Some(u64::from_be_bytes(bytes.try_into().ok()?)),
            _ => None,
        }
    }

    fn string(&self, header: u64) -> Option<Vec<u8>> {
        let header = bytes(self.content, self.image.offset_of(header)?, self.size as u64 * 2);
        let length = self.number(&header, self.size)?;
        let start = self.image.offset_of(self.number(&header, 0)?)?;
        if length > MAX_LIST {
            return None;
        }
        let text = bytes(self.content, start, length);
        (text.len() as u64 == length).then_some(text)
    }
}

/// A module as a line of the list states it.
#[derive(Default)]
struct Module<'a> {
    path: &'a str,
    version: &'a str,
    replacement: Option<(&'a str, &'a str)>,
}

impl Module<'_> {
    /// What was compiled in. A folder in place of a module keeps the module's name and has the
    /// role `local`, for its version need not be what the folder holds.
    fn package(&self) -> Option<Package> {
        match self.replacement {
            Some((path, _)) if path.starts_with(['.', '/']) => {
                let mut package = package(Ecosystem::Golang, self.path, self.version)?;
                package.role = Some("local".to_owned());
                Some(package)
            }
            Some((path, version)) => package(Ecosystem::Golang, path, version),
            None => package(Ecosystem::Golang, self.path, self.version),
        }
    }
}

/// The packages of a module list: tab-separated lines `mod`, `dep` and `=>` for modules, `build`
/// for settings.
fn modules(toolchain: &str, list: &str) -> Vec<Package> {
    let mut main = None;
    let mut dependencies: Vec<Module<'_>> = Vec::new();
    let mut settings = Vec::new();
    for line in list.lines() {
        let mut fields = line.split('\t');
        let kind = fields.next().unwrap_or_default();
        let (first, second) =
            (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        match kind {
            "mod" => main = Some((first, second)),
            "dep" => dependencies.push(Module { path: first, version: second, replacement: None }),
            "=>" => {
                if let Some(last) = dependencies.last_mut() {
                    last.replacement = Some((first, second));
                }
            }
            "build" => {
                if let Some((key, value)) = first.split_once('=') {
                    settings.push((key, value));
                }
            }
            _ => {}
        }
    }
    let main = main.and_then(|(path, stated)| {
        let version = version::of_main(path, stated, &settings)?;
        let mut package = package(Ecosystem::Golang, path, &version)?;
        package.role = Some("main".to_owned());
        Some(package)
    });
    let library = version::of_toolchain(toolchain);
    let library = library.and_then(|version| package(Ecosystem::Golang, "stdlib", version));
    let dependencies = dependencies.iter().filter_map(Module::package);
    main.into_iter().chain(dependencies).chain(library).take(MAX_PACKAGES + 1).collect()
}

#[cfg(test)]
pub(super) mod tests;
