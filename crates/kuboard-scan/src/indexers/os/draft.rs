//! A record while it is being filled, with the limits that hold for every package database.

use std::borrow::Cow;

use kuboard_vuln::{FileRecord, Package, Source};

use crate::{Content, ContentExt, Found, indexers::may_hold_language_packages};

/// Packages of one file.
const MAX_PACKAGES: usize = 200_000;
/// Bytes of all paths of one file that are looked at, wanted or not.
const MAX_PATH_BYTES: usize = 256 << 20;
/// Bytes of all paths of one file that are kept.
const MAX_OWNED_BYTES: usize = 32 << 20;
/// Bytes of one path, as Linux limits it.
const MAX_PATH: usize = 4096;
/// Bytes of a name, a version or an architecture.
const MAX_WORD: usize = 512;
/// Bytes of a line of free text.
const MAX_LINE: usize = 1024;
/// Different reasons that one problem names.
const MAX_REASONS: usize = 4;

/// Folders that are links into `usr` on a merged system. A package may list its files under
/// either name; archives have the one behind the link.
const MERGED: [&str; 6] = ["bin/", "sbin/", "lib/", "lib32/", "lib64/", "libx32/"];

/// A record while it is being filled.
pub(super) struct Draft {
    record: FileRecord,
    reasons: Vec<String>,
    looked_at: usize,
    kept: usize,
}

impl Draft {
    pub(super) fn new(by: &str, path: &str) -> Self {
        let record =
            FileRecord { path: path.to_owned(), by: by.to_owned(), ..FileRecord::default() };
        Self { record, reasons: Vec::new(), looked_at: 0, kept: 0 }
    }

    /// The record so far.
    pub(super) fn record(&mut self) -> &mut FileRecord {
        &mut self.record
    }

    /// Whether no more packages are taken.
    pub(super) fn is_full(&self) -> bool {
        self.record.packages.len() >= MAX_PACKAGES
    }

    /// Adds a package. One whose name, version or architecture can't be one is a problem.
    pub(super) fn package(&mut self, package: Package) {
        if self.is_full() {
            return self.partly(format!("it names more than {MAX_PACKAGES} packages"));
        }
        let arch = package.arch.as_deref().unwrap_or("-");
        if [&package.name, &package.version, arch].into_iter().all(is_word) {
            self.record.packages.push(package);
        } else {
            self.partly("a package has no usable name, version or architecture");
        }
    }

    /// Notes that a package owns a file, if that may matter. Returns whether more are wanted.
    pub(super) fn owns(&mut self, path: &str) -> bool {
        self.looked_at = self.looked_at.saturating_add(path.len()).saturating_add(1);
        if self.looked_at > MAX_PATH_BYTES || self.kept > MAX_OWNED_BYTES {
            self.partly("it names too many files");
            return false;
        }
        let path = path.strip_prefix("./").unwrap_or(path).trim_start_matches('/');
        if path.is_empty() || path.len() > MAX_PATH || path.ends_with('/') {
            return true;
        }
        if MERGED.iter().any(|folder| path.starts_with(folder)) {
            self.keep(format!("usr/{path}"));
        }
        if may_hold_language_packages(path) {
            self.keep(path.to_owned());
        }
        true
    }

    fn keep(&mut self, path: String) {
        if may_hold_language_packages(&path) {
            self.kept += path.len();
            self.record.owns.push(path);
        }
    }

    /// Notes why the file was read only in part.
    pub(super) fn partly(&mut self, why: impl Into<String>) {
        let why = why.into();
        if self.reasons.len() < MAX_REASONS && !self.reasons.contains(&why) {
            self.reasons.push(why);
        }
    }

    /// The bytes of a file, the first `max` of them if there are more.
    pub(super) fn bytes<'a>(&mut self, content: &'a dyn Content, max: u64) -> Cow<'a, [u8]> {
        if content.size() > max {
            self.partly(format!("it has {} bytes, more than {max}", content.size()));
        }
        let max = usize::try_from(max.min(content.size())).unwrap_or(usize::MAX);
        if let Some(bytes) = content.in_memory() {
            return Cow::Borrowed(bytes.get(..max).unwrap_or(bytes));
        }
        let read = if content.size() <= max as u64 {
            content.whole(max as u64)
        } else {
            let mut bytes = vec![0; max];
            content.read_at(0, &mut bytes).map(|read| {
                bytes.truncate(read);
                Cow::Owned(bytes)
            })
        };
        read.unwrap_or_else(|error| {
            self.partly(format!("it can't be read: {error}"));
            Cow::Owned(Vec::new())
        })
    }

    /// Hands the record over, and its problem if there is one.
    pub(super) fn store(self, found: &mut Found) {
        if !self.reasons.is_empty() {
            let why = format!("partly read: {}", self.reasons.join("; "));
            found.problem(&self.record.by, &self.record.path, why);
        }
        found.files.push(self.record);
    }

    /// The same, but a record that says nothing is dropped.
    pub(super) fn store_if_it_owns(self, found: &mut Found) {
        if !self.record.owns.is_empty() || !self.reasons.is_empty() {
            self.store(found);
        }
    }
}

/// Whether a text can be a name, a version or an architecture.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_WORD
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// One line of free text, cut if it is long; nothing if there is none.
pub(super) fn line(text: &str) -> Option<String> {
    let text = text.trim();
    let cut = &text[..text.floor_char_boundary(MAX_LINE)];
    let clean: String = cut.chars().filter(|c| !c.is_control()).collect();
    (!clean.is_empty()).then_some(clean)
}

/// A source package, unless it says no more than the package.
pub(super) fn source(package: &Package, name: &str, version: &str) -> Option<Source> {
    let differs = package.name != name || package.version != version;
    (differs && is_word(name) && is_word(version))
        .then(|| Source { name: name.to_owned(), version: version.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{Draft, MAX_LINE, MAX_PACKAGES, is_word, line};
    use crate::Found;
    use kuboard_vuln::{Ecosystem, Package};

    #[track_caller]
    fn check_owned(paths: &[&str], owned: &[&str]) {
        let mut draft = Draft::new("x", "y");
        for path in paths {
            assert!(draft.owns(path));
        }
        assert_eq!(draft.record().owns, owned);
    }

    #[test]
    fn paths_are_normalised_and_filtered() {
        check_owned(
            &["/usr/bin/python3", "./usr/bin/go", "usr/share/man/a.gz"],
            &["usr/bin/python3", "usr/bin/go"],
        );
        check_owned(
            &["/bin/busybox", "/lib/a/package.json"],
            &["usr/bin/busybox", "bin/busybox", "usr/lib/a/package.json", "lib/a/package.json"],
        );
        check_owned(&["", "/", "/usr/bin/", "usr/share/doc/a/b.json"], &[]);
        check_owned(&[&format!("/usr/bin/{}", "a".repeat(5000))], &[]);
    }

    #[test]
    fn packages_are_counted_and_checked() {
        let mut draft = Draft::new("x", "y");
        draft.package(Package::new(Ecosystem::Deb, "a b", "1"));
        draft.package(Package::new(Ecosystem::Deb, "a", ""));
        for _ in 0..=MAX_PACKAGES {
            draft.package(Package::new(Ecosystem::Deb, "a", "1"));
        }
        let mut found = Found::default();
        draft.store(&mut found);
        assert_eq!(found.files[0].packages.len(), MAX_PACKAGES);
        assert_eq!(
            found.problems[0].why,
            "partly read: a package has no usable name, version or architecture; \
             it names more than 200000 packages"
        );
    }

    #[test]
    fn paths_have_a_budget() {
        let mut draft = Draft::new("x", "y");
        let path = format!("usr/bin/{}", "a".repeat(4000));
        let taken = (0..1_000_000).take_while(|_| draft.owns(&path)).count();
        assert!(taken < 10_000, "{taken}");
    }

    #[test]
    fn texts_are_cut() {
        assert_eq!(line(" GPL-2\u{7}+ \n").as_deref(), Some("GPL-2+"));
        assert_eq!(line("  "), None);
        assert_eq!(line(&"ä".repeat(2000)).unwrap().len(), MAX_LINE);
        assert!(is_word("1:2.3~4+b1") && !is_word("1 2") && !is_word("") && !is_word("a\0"));
    }
}
