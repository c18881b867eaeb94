//! A package as its package database states it.

use serde::{Deserialize, Serialize};

use crate::version::Scheme;

/// What kind of package database or manifest a package was found in. The names are those of the
/// package URL specification.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ecosystem {
    /// dpkg.
    Deb,
    /// Alpine's apk.
    Apk,
    /// RPM.
    Rpm,
    /// Go modules, the standard library (`stdlib`) among them.
    Golang,
    /// Rust crates.
    Cargo,
    /// Python distributions.
    Pypi,
    /// Node packages.
    Npm,
    /// Java artifacts; the name is `group:artifact`, or the artifact alone where no group is known.
    Maven,
    /// RubyGems.
    Gem,
    /// .NET packages.
    Nuget,
    /// PHP packages.
    Composer,
    /// R packages.
    Cran,
}

impl Ecosystem {
    /// All of them.
    pub const ALL: [Ecosystem; 12] = [
        Ecosystem::Deb,
        Ecosystem::Apk,
        Ecosystem::Rpm,
        Ecosystem::Golang,
        Ecosystem::Cargo,
        Ecosystem::Pypi,
        Ecosystem::Npm,
        Ecosystem::Maven,
        Ecosystem::Gem,
        Ecosystem::Nuget,
        Ecosystem::Composer,
        Ecosystem::Cran,
    ];

    /// The package URL type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Ecosystem::Deb => "deb",
            Ecosystem::Apk => "apk",
            Ecosystem::Rpm => "rpm",
            Ecosystem::Golang => "golang",
            Ecosystem::Cargo => "cargo",
            Ecosystem::Pypi => "pypi",
            Ecosystem::Npm => "npm",
            Ecosystem::Maven => "maven",
            Ecosystem::Gem => "gem",
            Ecosystem::Nuget => "nuget",
            Ecosystem::Composer => "composer",
            Ecosystem::Cran => "cran",
        }
    }

    /// Whether the distribution's vendor speaks for its packages.
    #[must_use]
    pub fn is_os(self) -> bool {
        matches!(self, Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Rpm)
    }

    /// The order of its versions; R's is the generic one of Semantic Versioning's core.
    #[must_use]
    pub fn scheme(self) -> Scheme {
        match self {
            Ecosystem::Deb => Scheme::Dpkg,
            Ecosystem::Apk => Scheme::Apk,
            Ecosystem::Rpm => Scheme::Rpm,
            Ecosystem::Golang => Scheme::Go,
            Ecosystem::Cargo => Scheme::Semver,
            Ecosystem::Pypi => Scheme::Pep440,
            Ecosystem::Npm => Scheme::Npm,
            Ecosystem::Maven => Scheme::Maven,
            Ecosystem::Gem | Ecosystem::Cran => Scheme::Gem,
            Ecosystem::Nuget => Scheme::Nuget,
            Ecosystem::Composer => Scheme::Composer,
        }
    }
}

/// The source package that a binary package was built from.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// Its name (`Source:` of dpkg, `o:` of apk, the first part of `SOURCERPM`).
    pub name: String,
    /// Its version, in the same notation as the package's.
    pub version: String,
}

/// A package that is installed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Where its versions and its advisories are at home.
    pub ecosystem: Ecosystem,
    /// Name as the ecosystem writes it. Python names are normalised (PEP 503), Maven's are
    /// `group:artifact`, Go's are module paths.
    pub name: String,
    /// Whole version: rpm's is `epoch:version-release` with the epoch only if it is not 0.
    pub version: String,
    /// Architecture as the database writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Source package; absent where it would repeat name and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The module stream of a modular rpm, `name:stream` of `MODULARITYLABEL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Licences as the package states them, SPDX expressions or free text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
    /// The repositories (RHEL content sets, as CPE or repository ids) that it may come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
    /// What the package itself says of its kind, if not a plain library: `toolchain`, `dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

impl Package {
    /// A package with the three things that every database states.
    #[must_use]
    pub fn new(ecosystem: Ecosystem, name: &str, version: &str) -> Self {
        Self {
            ecosystem,
            name: name.to_owned(),
            version: version.to_owned(),
            arch: None,
            source: None,
            module: None,
            licenses: Vec::new(),
            repositories: Vec::new(),
            role: None,
        }
    }

    /// Name and version of the source package, which are the package's own where none is stated.
    #[must_use]
    pub fn source_or_self(&self) -> (&str, &str) {
        match &self.source {
            Some(source) => (&source.name, &source.version),
            None => (&self.name, &self.version),
        }
    }
}
