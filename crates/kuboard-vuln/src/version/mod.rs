//! Version orders, one scheme an ecosystem, each as the ecosystem's own tool judges.
//!
//! Every scheme gives two things that always agree: [`compare`], and [`sort_key`], bytes whose
//! plain byte order is the scheme's order. Vulnerability databases hold keys, so that matching is
//! `memcmp`. No key of a scheme is a proper prefix of another, so more bytes may follow one. Keys
//! of different schemes mean nothing to each other.

mod apk;
mod composer;
mod digits;
mod dpkg;
mod gem;
mod go;
mod maven;
mod npm;
mod npm_range;
mod nuget;
mod pep440;
mod pep440_legacy;
mod rpm;
mod semver;
mod triple;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The longest version (and npm range) that is read, in bytes.
pub const MAX_LEN: usize = 512;

/// A way to order versions, named as in the configuration and on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Scheme {
    /// Debian and Ubuntu packages: `[epoch:]upstream[-revision]`.
    Dpkg,
    /// RPM packages: `[epoch:]version[-release]`.
    Rpm,
    /// Alpine packages, as apk-tools 3 orders them.
    Apk,
    /// Python packages (PEP 440), and older strings below all of them.
    Pep440,
    /// npm packages, as node-semver reads them loosely.
    Npm,
    /// Semantic versions (crates.io and OSV `SEMVER` ranges).
    Semver,
    /// Go modules and Go's own releases.
    Go,
    /// Maven artifacts (Maven 3.9's `ComparableVersion`).
    Maven,
    /// Ruby gems.
    Gem,
    /// NuGet packages: up to four numbers, labels without case.
    Nuget,
    /// Composer packages: PHP's order over normalised versions.
    Composer,
}

impl Scheme {
    /// Every scheme, in the order of the names' documentation.
    pub const ALL: [Scheme; 11] = [
        Scheme::Dpkg,
        Scheme::Rpm,
        Scheme::Apk,
        Scheme::Pep440,
        Scheme::Npm,
        Scheme::Semver,
        Scheme::Go,
        Scheme::Maven,
        Scheme::Gem,
        Scheme::Nuget,
        Scheme::Composer,
    ];

    /// The scheme's name: lower case, stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Dpkg => "dpkg",
            Scheme::Rpm => "rpm",
            Scheme::Apk => "apk",
            Scheme::Pep440 => "pep440",
            Scheme::Npm => "npm",
            Scheme::Semver => "semver",
            Scheme::Go => "go",
            Scheme::Maven => "maven",
            Scheme::Gem => "gem",
            Scheme::Nuget => "nuget",
            Scheme::Composer => "composer",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no scheme.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown version scheme `{0}`; hint: one of dpkg, rpm, apk, pep440, npm, semver, go, maven, \
     gem, nuget, composer"
)]
pub struct UnknownScheme(
    /// The name as given, shortened to 64 characters.
    pub String,
);

impl FromStr for Scheme {
    type Err = UnknownScheme;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Scheme::ALL
            .into_iter()
            .find(|scheme| scheme.as_str() == name)
            .ok_or_else(|| UnknownScheme(shortened(name)))
    }
}

/// A version (or an npm range) that the scheme does not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{version}` is no {scheme} version: {reason}")]
pub struct VersionError {
    /// The scheme that refused it.
    pub scheme: Scheme,
    /// What was refused, shortened to 64 characters.
    pub version: String,
    /// Why, in a few lower-case words.
    pub reason: &'static str,
}

impl VersionError {
    fn new(scheme: Scheme, version: &str, reason: &'static str) -> Self {
        Self { scheme, version: shortened(version), reason }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// What the files of the schemes answer; [`VersionError`] is made from it here.
type Read<T> = Result<T, &'static str>;

fn bounded(version: &str) -> Read<&str> {
    if version.len() > MAX_LEN {
        return Err("longer than 512 bytes");
    }
    let version = version.trim_ascii();
    if version.is_empty() { Err("it is empty") } else { Ok(version) }
}

/// Refuses blanks and control characters, for the schemes that take nearly anything else.
fn graphic(version: &str) -> Read<()> {
    if version.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return Err("a blank or a control character inside");
    }
    Ok(())
}

/// The order of `a` and `b`.
///
/// # Errors
/// When one of the two is longer than [`MAX_LEN`] or not a version of the scheme.
pub fn compare(scheme: Scheme, a: &str, b: &str) -> Result<Ordering, VersionError> {
    match scheme {
        Scheme::Dpkg => {
            let a = parsed(scheme, a, dpkg::parse)?;
            let b = parsed(scheme, b, dpkg::parse)?;
            Ok(dpkg::compare(&a, &b))
        }
        Scheme::Rpm => {
            let a = parsed(scheme, a, rpm::parse)?;
            let b = parsed(scheme, b, rpm::parse)?;
            Ok(rpm::compare(&a, &b))
        }
        _ => Ok(key(scheme, a)?.cmp(&key(scheme, b)?)),
    }
}

fn parsed<'a, T>(
    scheme: Scheme,
    version: &'a str,
    parse: impl Fn(&'a str) -> Read<T>,
) -> Result<T, VersionError> {
    bounded(version).and_then(parse).map_err(|reason| VersionError::new(scheme, version, reason))
}

/// Appends bytes whose plain order (`memcmp`, then length) is the scheme's order; equal versions
/// give equal bytes. `out` is left as it was when the version is refused.
///
/// # Errors
/// When the version is longer than [`MAX_LEN`] or not one of the scheme.
pub fn sort_key(scheme: Scheme, version: &str, out: &mut Vec<u8>) -> Result<(), VersionError> {
    let start = out.len();
    let written = bounded(version).and_then(|version| match scheme {
        Scheme::Dpkg => dpkg::parse(version).map(|parts| dpkg::sort_key(&parts, out)),
        Scheme::Rpm => rpm::parse(version).map(|parts| rpm::sort_key(&parts, out)),
        Scheme::Apk => apk::sort_key(version, out),
        Scheme::Pep440 => pep440::sort_key(version, out),
        Scheme::Npm => npm::sort_key(version, out),
        Scheme::Semver => semver::sort_key(version, out),
        Scheme::Go => go::sort_key(version, out),
        Scheme::Maven => maven::sort_key(version, out),
        Scheme::Gem => gem::sort_key(version, out),
        Scheme::Nuget => nuget::sort_key(version, out),
        Scheme::Composer => composer::sort_key(version, out),
    });
    written.map_err(|reason| {
        out.truncate(start);
        VersionError::new(scheme, version, reason)
    })
}

/// [`sort_key`] into bytes of its own.
///
/// # Errors
/// As [`sort_key`].
pub fn key(scheme: Scheme, version: &str) -> Result<Vec<u8>, VersionError> {
    let mut out = Vec::with_capacity(24);
    sort_key(scheme, version, &mut out)?;
    Ok(out)
}

/// Whether `version` lies in an npm `range` (`^1.2 || ~2 >=3 <4`), as node-semver's `satisfies`
/// answers with its default options: a pre-release matches only beside a comparator with a
/// pre-release of the same three numbers.
///
/// # Errors
/// When the version or the range is not valid; node-semver answers `false` there.
pub fn npm_satisfies(version: &str, range: &str) -> Result<bool, VersionError> {
    npm_range::satisfies(version, range)
        .map_err(|(what, reason)| VersionError::new(Scheme::Npm, what, reason))
}

/// Judges one line `a<TAB>b`: `-1`, `0`, `1`, or `error` when the line has not two fields or one
/// of them is not a version of the scheme.
pub fn compare_line(scheme: Scheme, line: &str) -> &'static str {
    let Some((a, b)) = line.trim_end_matches(['\r', '\n']).split_once('\t') else { return "error" };
    match compare(scheme, a, b) {
        Ok(Ordering::Less) => "-1",
        Ok(Ordering::Equal) => "0",
        Ok(Ordering::Greater) => "1",
        Err(_) => "error",
    }
}
