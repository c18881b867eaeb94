//! An rpm header as databases hold it: two counts, an index of 16-byte entries (tag, type, offset,
//! count) and a store of data, all big-endian.
//! <https://rpm-software-management.github.io/rpm/manual/format_header.html>

use std::borrow::Cow;

use kuboard_vuln::{Ecosystem, Package, Source};

use super::{
    Damage,
    number::{be32, index},
};
use crate::indexers::os::draft::{Draft, line, source};

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const LICENSE: u32 = 1014;
const ARCH: u32 = 1022;
const OLD_FILENAMES: u32 = 1027;
const SOURCE_RPM: u32 = 1044;
const DIR_INDEXES: u32 = 1116;
const BASENAMES: u32 = 1117;
const DIRNAMES: u32 = 1118;
const MODULARITY_LABEL: u32 = 5096;

const INT32: u32 = 4;
const STRING: u32 = 6;
const STRING_ARRAY: u32 = 8;
const I18N_STRING: u32 = 9;

/// Entries of one header, as rpm limits them.
const MAX_ENTRIES: u32 = 0xffff;
/// Folders of one header.
const MAX_FOLDERS: usize = 1 << 20;

/// Reads one header from untrusted bytes and forgets it: all that can go wrong with a header can
/// go wrong here. For fuzzing.
pub fn read(blob: &[u8]) {
    add(blob, &mut Draft::new("rpm", ""));
}

/// Adds the package of a header, and what it owns. A public key is a header, too, and no package.
pub(super) fn add(blob: &[u8], draft: &mut Draft) {
    let Some(header) = Header::parse(blob) else {
        return draft.partly(Damage::Broken("a header is broken").to_string());
    };
    let Some(name) = header.text(NAME) else {
        return draft.partly("a header has no name");
    };
    if name == "gpg-pubkey" {
        return;
    }
    let epoch = header.number(EPOCH);
    let version = header.text(VERSION).unwrap_or_default();
    let version = match header.text(RELEASE) {
        Some(release) => format!("{version}-{release}"),
        None => version.into_owned(),
    };
    let mut package = Package::new(Ecosystem::Rpm, &name, &with_epoch(epoch, &version));
    package.arch = header.text(ARCH).map(Cow::into_owned);
    package.licenses.extend(header.text(LICENSE).as_deref().and_then(line));
    package.module = header.text(MODULARITY_LABEL).and_then(|label| {
        // `name:stream:version:context`
        let mut parts = label.split(':');
        let (name, stream) = (parts.next()?, parts.next()?);
        (!name.is_empty()).then(|| format!("{name}:{stream}"))
    });
    package.source = header.text(SOURCE_RPM).and_then(|file| source_of(&package, &file, epoch));
    draft.package(package);
    header.own(draft);
}

/// A version as rpm compares it: an epoch of 0 is left out.
pub(super) fn with_epoch(epoch: Option<u32>, version: &str) -> String {
    match epoch {
        None | Some(0) => version.to_owned(),
        Some(epoch) => format!("{epoch}:{version}"),
    }
}

/// The source package of `NAME-VERSION-RELEASE.src.rpm`. The file's name has no epoch; it is taken
/// for the package's own.
pub(super) fn source_of(package: &Package, file: &str, epoch: Option<u32>) -> Option<Source> {
    let stem = file.strip_suffix(".rpm")?;
    let stem = stem.strip_suffix(".src").or_else(|| stem.strip_suffix(".nosrc"))?;
    let (rest, release) = stem.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    source(package, name, &with_epoch(epoch, &format!("{version}-{release}")))
}

struct Header<'a> {
    entries: &'a [u8],
    store: &'a [u8],
}

/// Where an entry's data begins, and how many values it has.
struct Values<'a> {
    kind: u32,
    data: &'a [u8],
    count: usize,
}

impl<'a> Header<'a> {
    fn parse(blob: &'a [u8]) -> Option<Self> {
        let entries = be32(blob, 0).filter(|count| *count <= MAX_ENTRIES)?;
        let (start, length) = (8, index(be32(blob, 4)?));
        let end = start + index(entries) * 16;
        Some(Self {
            entries: blob.get(start..end)?,
            store: blob.get(end..end.checked_add(length)?)?,
        })
    }

    fn find(&self, tag: u32) -> Option<Values<'a>> {
        let entry = self.entries.chunks_exact(16).find(|entry| be32(entry, 0) == Some(tag))?;
        Some(Values {
            kind: be32(entry, 4)?,
            data: self.store.get(index(be32(entry, 8)?)..)?,
            count: index(be32(entry, 12)?),
        })
    }

    fn text(&self, tag: u32) -> Option<Cow<'a, str>> {
        let text = self.texts(tag)?.next()?;
        Some(String::from_utf8_lossy(text)).filter(|text| !text.is_empty())
    }

    fn texts(&self, tag: u32) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        let values = self.find(tag)?;
        if !matches!(values.kind, STRING | STRING_ARRAY | I18N_STRING) {
            return None;
        }
        let count = if values.kind == STRING { 1 } else { values.count };
        let mut rest = values.data;
        Some(
            std::iter::from_fn(move || {
                let end = memchr::memchr(0, rest)?;
                let (text, after) = rest.split_at(end);
                rest = after.get(1..)?;
                Some(text)
            })
            .take(count),
        )
    }

    fn number(&self, tag: u32) -> Option<u32> {
        self.find(tag).filter(|values| values.kind == INT32).and_then(|v| be32(v.data, 0))
    }

    /// The paths: names of files, each with the number of its folder; whole paths before rpm 4.
    fn own(&self, draft: &mut Draft) {
        if let Some(paths) = self.texts(OLD_FILENAMES) {
            for path in paths {
                if !draft.owns(&String::from_utf8_lossy(path)) {
                    return;
                }
            }
        }
        let (Some(names), Some(folders), Some(numbers)) =
            (self.texts(BASENAMES), self.texts(DIRNAMES), self.find(DIR_INDEXES))
        else {
            return;
        };
        let folders: Vec<_> = folders.take(MAX_FOLDERS).collect();
        let numbers = numbers.data.chunks_exact(4).take(numbers.count);
        let mut path = String::new();
        for (name, number) in names.zip(numbers) {
            let folder = be32(number, 0).and_then(|number| folders.get(index(number)));
            let Some(folder) = folder else {
                return draft.partly("a file is in a folder that its header does not name");
            };
            // So that long names can't be multiplied; no path has as many bytes.
            if folder.len() > 4096 || name.len() > 4096 {
                continue;
            }
            path.clear();
            path.push_str(&String::from_utf8_lossy(folder));
            path.push_str(&String::from_utf8_lossy(name));
            if !draft.owns(&path) {
                return;
            }
        }
    }
}
