//! Rust programs built with `cargo auditable`: the list of crates in the section `.dep-v0`, JSON
//! compressed by zlib.

use std::io::Read;

use flate2::read::ZlibDecoder;
use kuboard_vuln::{Ecosystem, Package};
use serde::Deserialize;

use super::{
    Parsed,
    image::{self, bytes},
    package, store,
};
use crate::{Candidate, Content, File, Found, Indexer, Want};

/// The most bytes of the inflated list.
const MAX_LIST: u64 = 8 << 20;

/// The dependency lists of `cargo auditable`.
pub(super) struct Rust;

impl Indexer for Rust {
    fn name(&self) -> &'static str {
        "rust"
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

#[derive(Deserialize)]
struct List {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    root: bool,
}

/// Crates of a program: those that were linked, not those that only built it.
///
/// The root has the role `main`; a crate that is of no registry has the role `local` or `git`.
#[must_use]
pub fn parse(content: &dyn Content) -> Parsed {
    let mut parsed = Parsed::default();
    for image in image::images(content) {
        let Some(section) = image.section(&[".dep-v0"]) else {
            parsed.problems.extend(image.damage.map(str::to_owned));
            continue;
        };
        let compressed = bytes(content, section.offset, section.size.min(MAX_LIST));
        if (compressed.len() as u64) < section.size {
            return Parsed::failed("its list of crates lies outside of the file, or is too long");
        }
        return list(&compressed);
    }
    parsed
}

/// Crates of the section's bytes.
#[must_use]
pub fn list(compressed: &[u8]) -> Parsed {
    let mut json = Vec::new();
    match ZlibDecoder::new(compressed).take(MAX_LIST + 1).read_to_end(&mut json) {
        Ok(length) if length as u64 > MAX_LIST => {
            return Parsed::failed(format!("its list of crates has more than {MAX_LIST} bytes"));
        }
        Ok(_) => {}
        Err(error) => return Parsed::failed(format!("its list of crates is damaged: {error}")),
    }
    match serde_json::from_slice::<List>(&json) {
        Ok(list) => Parsed::bounded(list.packages.iter().filter_map(found)),
        Err(error) => Parsed::failed(format!("its list of crates is not of the format: {error}")),
    }
}

fn found(of: &Crate) -> Option<Package> {
    if of.kind.as_deref().is_some_and(|kind| kind != "runtime") {
        return None;
    }
    let mut package = package(Ecosystem::Cargo, &of.name, &of.version)?;
    let role = match of.source.as_str() {
        _ if of.root => Some("main"),
        "local" | "git" => Some(of.source.as_str()),
        _ => None,
    };
    package.role = role.map(str::to_owned);
    Some(package)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn compressed(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn lists() {
        fn check(json: &str, packages: &[(&str, &str, Option<&str>)], whole: bool) {
            let parsed = list(&compressed(json));
            let got: Vec<_> = parsed
                .packages
                .iter()
                .map(|of| (of.name.as_str(), of.version.as_str(), of.role.as_deref()))
                .collect();
            assert_eq!(got, packages, "{json}");
            assert_eq!(parsed.problems.is_empty(), whole, "{:?}", parsed.problems);
        }
        check(
            r#"{"packages":[
                {"name":"app","version":"0.1.0","source":"local","dependencies":[1,2],"root":true},
                {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"},
                {"name":"rand","version":"0.8.5","source":"crates.io"},
                {"name":"part","version":"0.1.0","source":"local"},
                {"name":"fork","version":"2.0.0","source":"git","kind":"runtime"},
                {"name":"own","version":"2.0.0","source":"registry"},
                {"name":"","version":"2.0.0","source":"registry"}],"format":1}"#,
            &[
                ("app", "0.1.0", Some("main")),
                ("rand", "0.8.5", None),
                ("part", "0.1.0", Some("local")),
                ("fork", "2.0.0", Some("git")),
                ("own", "2.0.0", None),
            ],
            true,
        );
        check(r#"{"packages":[]}"#, &[], true);
        check(r#"{"packages":{}}"#, &[], false);
        check("", &[], false);
        check(&"[".repeat(100_000), &[], false);
        check(&" ".repeat(9 << 20), &[], false);
    }

    #[test]
    fn cut_short() {
        let whole = compressed(r#"{"packages":[{"name":"a","version":"1.0.0"}]}"#);
        for length in 0..whole.len() - 4 {
            let parsed = list(&whole[..length]);
            assert!(parsed.packages.is_empty() && !parsed.problems.is_empty(), "{length}");
        }
    }
}
