//! Indexers of package databases of distributions, and of what names the distribution.
//!
//! All of them read bytes with their own code, whatever wrote those bytes: every length, offset
//! and count is checked, every page of a database is read at most once, and what can't be read is
//! a problem "partly read" beside what could be.

mod apk;
mod content_sets;
mod dpkg;
mod draft;
mod release;
mod rpm;

pub use apk::Apk;
pub use content_sets::ContentSets;
pub use dpkg::Dpkg;
pub use release::{OsRelease, ReleaseFiles};
pub use rpm::{Rpm, read_header as read_rpm_header};

use crate::Indexer;

/// All of them.
#[must_use]
pub fn all() -> Vec<Box<dyn Indexer>> {
    vec![
        Box::new(Apk),
        Box::new(ContentSets),
        Box::new(Dpkg),
        Box::new(OsRelease),
        Box::new(ReleaseFiles),
        Box::new(Rpm),
    ]
}

/// What the tests of these indexers share.
#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use crate::{Candidate, File, Found, Indexer, Want};

    /// A sample of `tests/data/os`, decompressed if its name says so.
    pub(super) fn sample(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/data/os/{name}", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        if !name.ends_with(".zst") {
            return bytes;
        }
        let mut inflated = Vec::new();
        zstd::Decoder::new(&bytes[..]).unwrap().read_to_end(&mut inflated).unwrap();
        inflated
    }

    /// What an indexer finds in a layer of these files, asked as the walk over a layer asks it.
    pub(super) fn index(indexer: &dyn Indexer, files: &[(&str, &[u8])]) -> Found {
        let mut found = Found::default();
        let mut at_end = Vec::new();
        let contents: Vec<_> = files.iter().map(|(path, bytes)| (*path, bytes.to_vec())).collect();
        let boxed: Vec<_> = contents.iter().map(|(path, bytes)| (*path, Bytes(bytes))).collect();
        for (path, content) in &boxed {
            let file = File { path, mode: 0o644, content };
            let size = content.0.len() as u64;
            match indexer.wants(&Candidate { path, size, mode: 0o644 }) {
                Want::No => {}
                Want::AtEnd => at_end.push(file),
                Want::Now | Want::IfStarts(_) => indexer.read(&file, &mut found),
            }
        }
        at_end.sort_by_key(|file| file.path);
        if !at_end.is_empty() {
            indexer.finish(&at_end, &mut found);
        }
        found
    }

    /// Content that is not in memory, so that the paths by pages are taken.
    struct Bytes<'a>(&'a [u8]);

    impl crate::Content for Bytes<'_> {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
            self.0.read_at(offset, into)
        }
        fn in_memory(&self) -> Option<&[u8]> {
            None
        }
    }

    /// The packages of a result as lines: name, version, architecture, source, module, licences.
    pub(super) fn lines(found: &Found) -> Vec<String> {
        let packages = found.files.iter().flat_map(|file| &file.packages);
        packages
            .map(|package| {
                let source = package.source.as_ref();
                let fields = [
                    package.name.clone(),
                    package.version.clone(),
                    package.arch.clone().unwrap_or_default(),
                    source.map(|s| format!("{} {}", s.name, s.version)).unwrap_or_default(),
                    package.module.clone().unwrap_or_default(),
                    package.licenses.join(";"),
                ];
                fields.join("|").trim_end_matches('|').to_owned()
            })
            .collect()
    }

    /// The reasons of a result's problems.
    pub(super) fn reasons(found: &Found) -> Vec<&str> {
        found.problems.iter().map(|problem| problem.why.as_str()).collect()
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = super::all().iter().map(|indexer| indexer.name()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
