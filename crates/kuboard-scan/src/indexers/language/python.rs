//! Python distributions: the metadata that installers leave beside them.
//!
//! `*.dist-info/METADATA` of wheels, `*.egg-info/PKG-INFO`, `EGG-INFO/PKG-INFO` and plain
//! `*.egg-info` files of older installers. All are headers in the manner of e-mail (the core
//! metadata specification), then a description that is not read. Lockfiles say what could be
//! installed, these say what is.

use kuboard_vuln::Ecosystem;

use super::{Parsed, license, package};
use crate::Candidate;

/// The most bytes of headers.
const MAX_HEADERS: usize = 4 << 20;

/// Metadata of an installed distribution.
#[must_use]
pub(super) fn wants(candidate: &Candidate<'_>) -> bool {
    let name = candidate.name();
    let folder = candidate.path.rsplit('/').nth(1).unwrap_or_default().to_ascii_lowercase();
    match name {
        "METADATA" => folder.ends_with(".dist-info"),
        "PKG-INFO" => folder.ends_with(".egg-info") || folder == "egg-info",
        _ => name.ends_with(".egg-info") && name.len() > ".egg-info".len(),
    }
}

/// The distribution that headers state.
#[must_use]
pub fn parse(_path: &str, bytes: &[u8]) -> Parsed {
    let bytes = super::without_mark(bytes);
    let cut = bytes.len() > MAX_HEADERS;
    let text = String::from_utf8_lossy(bytes.get(..MAX_HEADERS).unwrap_or(bytes));
    let (mut name, mut version) = (None, None);
    let (mut stated, mut expression, mut classifiers) = (None, None, Vec::new());
    let mut ended = false;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() {
            ended = true;
            break;
        }
        let Some((key, value)) = line.split_once(':') else { continue };
        // Lines that begin with a space go on with the header before.
        match key.to_ascii_lowercase().as_str() {
            "name" => name = name.or(Some(value.trim())),
            "version" => version = version.or(Some(value.trim())),
            // More than a line is the licence's text.
            "license" if !lines.peek().is_some_and(|next| next.starts_with([' ', '\t'])) => {
                stated = stated.or(license(value));
            }
            "license-expression" => expression = expression.or(license(value)),
            "classifier" if classifiers.len() < 16 => classifiers.extend(classified(value)),
            _ => {}
        }
    }
    let (Some(name), Some(version)) = (name, version) else {
        return Parsed::failed(if cut && !ended {
            "its headers are too long to be read"
        } else {
            "it states no name and version"
        });
    };
    let Some(mut package) = package(Ecosystem::Pypi, &normalised(name), version) else {
        return Parsed::failed("its name or version is none");
    };
    package.licenses = match expression.or(stated) {
        Some(license) => vec![license],
        None => classifiers,
    };
    Parsed::one(Some(package))
}

/// The licence of a classifier: `License :: OSI Approved :: MIT License`.
fn classified(value: &str) -> Option<String> {
    let mut parts = value.split("::").map(str::trim);
    if parts.next()? != "License" {
        return None;
    }
    parts.last().filter(|last| *last != "OSI Approved").and_then(license)
}

/// The name that compares (PEP 503): lower case, runs of `-`, `_` and `.` as one `-`.
#[must_use]
pub(super) fn normalised(name: &str) -> String {
    let mut normalised = String::with_capacity(name.len());
    for letter in name.trim().chars() {
        if !matches!(letter, '-' | '_' | '.') {
            normalised.push(letter.to_ascii_lowercase());
        } else if !normalised.ends_with('-') {
            normalised.push('-');
        }
    }
    normalised
}

#[cfg(test)]
mod tests {
    use super::{super::tests, *};

    #[test]
    fn paths() {
        tests::check_wants(
            wants,
            &[
                ("usr/lib/python3/dist-packages/six-1.16.0.egg-info", true),
                ("usr/lib/python3/dist-packages/six.egg-info/PKG-INFO", true),
                ("x/requests-2.31.0.dist-info/METADATA", true),
                ("x/foo-1.0-py3.egg/EGG-INFO/PKG-INFO", true),
                ("x/requests-2.31.0.dist-info/RECORD", false),
                ("x/METADATA", false),
                ("METADATA", false),
                ("x/PKG-INFO", false),
                ("x/.egg-info", false),
                ("x/poetry.lock", false),
            ],
        );
    }

    #[test]
    fn metadata() {
        fn check(text: &str, expected: &str) {
            assert_eq!(tests::shown(&parse("", text.as_bytes())), expected, "{text}");
        }
        check(
            "Metadata-Version: 2.1\nName: Flask_SQL.Alchemy\nVersion: 3.0\n",
            "flask-sql-alchemy 3.0",
        );
        check("\u{feff}Name: a\r\nVersion: 1\r\nLicense: MIT\r\n\r\nName: b\r\n", "a 1 [MIT]");
        check(
            "Name: a\nVersion: 1\nLicense: UNKNOWN\nClassifier: License :: OSI Approved :: BSD License\n",
            "a 1 [BSD License]",
        );
        check("Name: a\nVersion: 1\nLicense: X\nLicense-Expression: MIT OR X\n", "a 1 [MIT OR X]");
        check("Name: a\nVersion: 1\nLicense: Copyright\n  all of it\n", "a 1");
        check("Name: a\n Version: 9\nVersion: 1\n", "a 1");
        check("Name: a\n\nVersion: 1\n", "! it states no name and version");
        check("", "! it states no name and version");
        check("Name:\nVersion: 1\n", "! its name or version is none");
        check(&format!("Name: a\nVersion: {}\n", "1".repeat(300)), "! its name or version is none");
    }
}
