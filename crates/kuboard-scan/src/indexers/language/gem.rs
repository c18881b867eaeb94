//! RubyGems: the specifications of installed gems, `specifications/*.gemspec`.
//!
//! They are Ruby programs; what RubyGems itself writes when it installs has one assignment a line
//! with plain strings. Gems that come with Ruby (`specifications/default`) look the same.

use kuboard_vuln::Ecosystem;

use super::{Parsed, license, package};
use crate::Candidate;

/// Specifications of installed gems, not those that a gem carries in its sources.
#[must_use]
pub(super) fn wants(candidate: &Candidate<'_>) -> bool {
    let mut folders = candidate.path.rsplit('/').skip(1);
    candidate.name().ends_with(".gemspec")
        && match folders.next() {
            Some("default") => folders.next() == Some("specifications"),
            folder => folder == Some("specifications"),
        }
}

/// The gem of a specification.
#[must_use]
pub fn parse(path: &str, bytes: &[u8]) -> Parsed {
    let text = String::from_utf8_lossy(bytes);
    let (mut name, mut version, mut licenses) = (None, None, Vec::new());
    for line in text.lines() {
        let line = line.trim();
        // `s.name = "rake".freeze`, also with another variable.
        let Some((left, right)) = line.split_once('=') else { continue };
        let Some((variable, field)) = left.trim().split_once('.') else { continue };
        let is_word =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_word(variable) {
            continue;
        }
        match field {
            "name" => name = name.or_else(|| strings(right).next()),
            "version" => version = version.or_else(|| strings(right).next()),
            "license" | "licenses" if licenses.is_empty() => {
                licenses = strings(right).take(16).filter_map(license).collect();
            }
            _ => {}
        }
    }
    let (Some(name), Some(version)) = (name, version.or_else(|| version_of_file(path, name)))
    else {
        return Parsed::failed("it states no name and version in plain strings");
    };
    let Some(mut package) = package(Ecosystem::Gem, name, version) else {
        return Parsed::failed("its name or version is none");
    };
    package.licenses = licenses;
    Parsed::one(Some(package))
}

/// The version in `NAME-VERSION.gemspec`, without a platform behind it: where the version is
/// computed, the file's name still has it.
fn version_of_file<'a>(path: &'a str, name: Option<&str>) -> Option<&'a str> {
    let file = path.rsplit('/').next()?.strip_suffix(".gemspec")?;
    let version = file.strip_prefix(name?)?.strip_prefix('-')?.split('-').next()?;
    version.starts_with(|first: char| first.is_ascii_digit()).then_some(version)
}

/// The quoted strings of an expression.
fn strings(expression: &str) -> impl Iterator<Item = &str> {
    let mut rest = expression;
    std::iter::from_fn(move || {
        let start = rest.find(['"', '\''])?;
        let quote = rest.get(start..=start)?;
        let (inner, after) = rest.get(start + 1..)?.split_once(quote)?;
        rest = after;
        Some(inner)
    })
    .filter(|text| !text.contains("#{"))
}

#[cfg(test)]
mod tests {
    use super::{super::tests, *};

    #[test]
    fn paths() {
        tests::check_wants(
            wants,
            &[
                ("usr/lib/ruby/gems/3.1.0/specifications/rake-13.0.6.gemspec", true),
                ("usr/lib/ruby/gems/3.1.0/specifications/default/json-2.6.1.gemspec", true),
                ("usr/lib/ruby/gems/3.1.0/gems/rake-13.0.6/rake.gemspec", false),
                ("default/x.gemspec", false),
            ],
        );
    }

    #[test]
    fn specifications() {
        fn check(path: &str, text: &str, expected: &str) {
            assert_eq!(tests::shown(&parse(path, text.as_bytes())), expected, "{text}");
        }
        let whole = "# -*- encoding: utf-8 -*-\n# stub: rake 13.0.6 ruby lib\n\nGem::Specification.new do |s|\n  s.name = \"rake\".freeze\n  s.version = \"13.0.6\"\n\n  s.required_rubygems_version = Gem::Requirement.new(\">= 1.3.2\".freeze)\n  s.licenses = [\"MIT\".freeze, \"X\"]\n  s.add_dependency(%q<x>, [\">= 0\"])\nend\n";
        check("", whole, "rake 13.0.6 [MIT, X]");
        check(
            "",
            "s.name = 'a'\ns.version = Gem::Version.new('1.0')\ns.license = 'MIT'",
            "a 1.0 [MIT]",
        );
        check(
            "x/a-b-1.2.3-x86_64-linux.gemspec",
            "s.name='a-b'\ns.version = A::VERSION",
            "a-b 1.2.3",
        );
        check(
            "x/a.gemspec",
            "s.name='a'\ns.version = \"#{A}.1\"",
            "! it states no name and version in plain strings",
        );
        check(
            "",
            "s.name = \"a\ns.version = \"1\"",
            "! it states no name and version in plain strings",
        );
        check("", "", "! it states no name and version in plain strings");
    }
}
