//! Indexers of packages of programming languages.
//!
//! Programs are read through their headers and the one section that matters; archives through
//! their directory; everything else is a small text that is parsed whole. All of it is hostile:
//! lengths, depths, counts and inflated bytes are bounded, and what is cut off is a problem.

pub mod composer;
pub mod dotnet;
pub mod gem;
pub mod go;
mod image;
pub mod java;
pub mod npm;
pub mod npm_lock;
pub mod python;
pub mod r;
pub mod rust;

use kuboard_vuln::{Ecosystem, FileRecord, Package};

use crate::{Candidate, ContentExt, File, Found, Indexer, Want};

/// The most bytes of a text (JSON, headers, lockfile) that are read.
pub const MAX_TEXT: u64 = 32 << 20;

/// The most packages that one file may state.
pub const MAX_PACKAGES: usize = 100_000;

/// What the bytes of one file say.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Parsed {
    /// Packages, in the file's order.
    pub packages: Vec<Package>,
    /// What could not be read; the packages are then those that could.
    pub problems: Vec<String>,
}

impl Parsed {
    fn failed(why: impl Into<String>) -> Self {
        Self { packages: Vec::new(), problems: vec![why.into()] }
    }

    fn one(package: Option<Package>) -> Self {
        Self { packages: package.into_iter().collect(), problems: Vec::new() }
    }

    /// Keeps at most [`MAX_PACKAGES`]; says so if there are more.
    fn bounded(packages: impl IntoIterator<Item = Package>) -> Self {
        let mut packages = packages.into_iter();
        let kept = packages.by_ref().take(MAX_PACKAGES).collect();
        let mut parsed = Self { packages: kept, problems: Vec::new() };
        if packages.next().is_some() {
            parsed.problems.push(format!("it states more than {MAX_PACKAGES} packages"));
        }
        parsed
    }
}

/// A package, if name and version are such that a package may have them.
fn package(ecosystem: Ecosystem, name: &str, version: &str) -> Option<Package> {
    let (name, version) = (name.trim(), version.trim());
    let plausible = |text: &str, longest: usize| {
        !text.is_empty() && text.len() <= longest && !text.contains(char::is_control)
    };
    (plausible(name, 512) && plausible(version, 256))
        .then(|| Package::new(ecosystem, name, version))
}

/// A licence as a package states it, if it is a name and not a whole text.
fn license(text: &str) -> Option<String> {
    let text = text.trim();
    let is_name = !text.is_empty()
        && text.len() <= 200
        && !text.contains(char::is_control)
        && !text.eq_ignore_ascii_case("unknown")
        && !text.eq_ignore_ascii_case("none");
    is_name.then(|| text.to_owned())
}

/// Text that starts at its first character, also if a byte order mark stands before it.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn store(by: &str, path: &str, parsed: Parsed, found: &mut Found) {
    for why in parsed.problems {
        found.problem(by, path, why);
    }
    found.files.push(FileRecord {
        path: path.to_owned(),
        by: by.to_owned(),
        packages: parsed.packages,
        ..FileRecord::default()
    });
}

/// An indexer of texts that are parsed whole.
struct Text {
    name: &'static str,
    version: u32,
    wants: fn(&Candidate<'_>) -> bool,
    parse: fn(&str, &[u8]) -> Parsed,
}

impl Indexer for Text {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn wants(&self, candidate: &Candidate<'_>) -> Want {
        if (self.wants)(candidate) { Want::Now } else { Want::No }
    }

    fn read(&self, file: &File<'_>, found: &mut Found) {
        let parsed = match file.content.whole(MAX_TEXT) {
            Ok(bytes) if bytes.len() as u64 > MAX_TEXT => {
                Parsed::failed(format!("it has {} bytes, more than {MAX_TEXT}", bytes.len()))
            }
            Ok(bytes) => (self.parse)(file.path, &bytes),
            Err(error) => Parsed::failed(error.to_string()),
        };
        store(self.name, file.path, parsed, found);
    }
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Box<dyn Indexer>> {
    let text = |name, wants, parse| Box::new(Text { name, version: 1, wants, parse });
    vec![
        Box::new(go::Go),
        Box::new(rust::Rust),
        Box::new(java::Java),
        text("python", python::wants, python::parse),
        text("npm", npm::wants, npm::parse),
        text("npm-lock", npm_lock::wants, npm_lock::parse),
        text("gem", gem::wants, gem::parse),
        text("dotnet", dotnet::wants, dotnet::parse),
        text("composer", composer::wants, composer::parse),
        text("r", r::wants, r::parse),
    ]
}

#[cfg(test)]
mod tests;
