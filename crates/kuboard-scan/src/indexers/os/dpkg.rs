//! dpkg's database of installed packages, as a file (`var/lib/dpkg/status`), as a folder
//! (`status.d`, images without a shell) and as chisel's manifest of slices.
//!
//! A package counts if its files are on the disk: the third word of `Status` is `installed`,
//! `unpacked`, `half-configured`, `triggers-awaited` or `triggers-pending`, whatever the first
//! word wants for it. `config-files` and `not-installed` are packages that were removed, and of a
//! `half-installed` one nobody knows what is there.
//!
//! The files of a package are those of `var/lib/dpkg/info/PACKAGE.list`. The `.md5sums` beside it
//! repeat them and are read in `status.d` only, where no `.list` exists.

mod chisel;
mod control;
mod copyright;

use std::collections::BTreeMap;

use kuboard_vuln::{Ecosystem, Package};

use self::control::Stanza;
use super::draft::{Draft, source};
use crate::{Candidate, File, Found, Indexer, MAX_READ, Want};

const STATUS: &str = "var/lib/dpkg/status";
const STATUS_FOLDER: &str = "var/lib/dpkg/status.d/";
const INFO_FOLDER: &str = "var/lib/dpkg/info/";
const DOCUMENTS: &str = "usr/share/doc/";
/// Name of the file that chisel lists a root file system in; its folder is for the user to choose.
const CHISEL: &str = "manifest.wall";
/// Bytes of a copyright file. Larger ones are of packages with hundreds of licences.
const MAX_COPYRIGHT: u64 = 64 << 10;

/// Finds packages of Debian, Ubuntu and others with dpkg.
#[derive(Clone, Copy, Debug)]
pub struct Dpkg;

impl Indexer for Dpkg {
    fn name(&self) -> &'static str {
        "dpkg"
    }

    fn version(&self) -> u32 {
        1
    }

    fn wants(&self, candidate: &Candidate<'_>) -> Want {
        let path = candidate.path;
        if path == STATUS || one_level_below(path, STATUS_FOLDER).is_some() {
            return Want::AtEnd;
        }
        if documented(path).is_some() && candidate.size <= MAX_COPYRIGHT {
            return Want::AtEnd;
        }
        let is_list =
            one_level_below(path, INFO_FOLDER).is_some_and(|name| name.ends_with(".list"));
        if is_list || candidate.name() == CHISEL { Want::Now } else { Want::No }
    }

    fn read(&self, file: &File<'_>, found: &mut Found) {
        let mut draft = Draft::new(self.name(), file.path);
        let bytes = draft.bytes(file.content, MAX_READ);
        if file.path.starts_with(INFO_FOLDER) {
            own_listed(&bytes, &mut draft);
            draft.store_if_it_owns(found);
        } else {
            chisel::read(&bytes, &mut draft);
            draft.store(found);
        }
    }

    fn finish(&self, files: &[File<'_>], found: &mut Found) {
        let mut licenses = BTreeMap::new();
        for file in files {
            if let Some(package) = documented(file.path) {
                let mut unused = Draft::new(self.name(), file.path);
                let bytes = unused.bytes(file.content, MAX_COPYRIGHT);
                licenses.insert(package, copyright::licenses(&bytes));
            }
        }
        for file in files.iter().filter(|file| documented(file.path).is_none()) {
            let mut draft = Draft::new(self.name(), file.path);
            let bytes = draft.bytes(file.content, MAX_READ);
            if file.path.ends_with(".md5sums") {
                own_summed(&bytes, &mut draft);
                draft.store_if_it_owns(found);
                continue;
            }
            let needs_status = file.path == STATUS;
            control::stanzas(&bytes, |stanza| {
                if let Some(mut package) = installed(&stanza, needs_status) {
                    package
                        .licenses
                        .extend(licenses.get(&*package.name).into_iter().flatten().cloned());
                    draft.package(package);
                }
            });
            draft.store(found);
        }
    }
}

/// The rest of a path that is a file directly in a folder.
fn one_level_below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder).filter(|name| !name.is_empty() && !name.contains('/'))
}

/// The package that a copyright file is of.
fn documented(path: &str) -> Option<&str> {
    let package = path.strip_prefix(DOCUMENTS)?.strip_suffix("/copyright")?;
    (!package.is_empty() && !package.contains('/')).then_some(package)
}

/// The package of a stanza, if its files are there.
fn installed(stanza: &Stanza<'_>, needs_status: bool) -> Option<Package> {
    let there = match stanza.status.as_deref() {
        None => !needs_status,
        Some(status) => matches!(
            status.split_ascii_whitespace().nth(2),
            Some(
                "installed"
                    | "unpacked"
                    | "half-configured"
                    | "triggers-awaited"
                    | "triggers-pending"
            )
        ),
    };
    // Parts of a package (features of vcpkg, removed packages) have no version of their own.
    let (name, version) = (stanza.package.as_deref()?, stanza.version.as_deref()?);
    if !there || name.is_empty() || version.is_empty() {
        return None;
    }
    let mut package = Package::new(Ecosystem::Deb, name, version);
    package.arch = stanza.architecture.as_deref().filter(|a| !a.is_empty()).map(str::to_owned);
    if let Some(text) = stanza.source.as_deref() {
        let (source_name, source_version) = match text.split_once('(') {
            Some((name, version)) => (name.trim(), version.trim_end_matches(')').trim()),
            None => (text.trim(), version),
        };
        package.source = source(&package, source_name, source_version);
    }
    Some(package)
}

/// The paths of a `.list`: folders, too, each before what is in it.
fn own_listed(bytes: &[u8], draft: &mut Draft) {
    let mut lines = bytes.split(|&byte| byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let is_folder = lines
            .peek()
            .is_some_and(|next| next.strip_prefix(line).is_some_and(|rest| rest.starts_with(b"/")));
        if !is_folder && !draft.owns(&String::from_utf8_lossy(line)) {
            return;
        }
    }
}

/// The paths of a `.md5sums`: a sum, blanks, a path.
fn own_summed(bytes: &[u8], draft: &mut Draft) {
    for line in bytes.split(|&byte| byte == b'\n') {
        let Some(blank) = memchr::memchr(b' ', line) else { continue };
        let path = String::from_utf8_lossy(&line[blank..]);
        if !draft.owns(path.trim_start_matches([' ', '*'])) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
