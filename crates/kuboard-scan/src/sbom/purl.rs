//! Package URLs: packages to them, and back.
//!
//! The form is that of the package URL specification (ECMA-427): `pkg:TYPE/NAMESPACE/NAME@VERSION?
//! QUALIFIERS#SUBPATH`, percent-encoded but for unreserved characters and the colon, qualifiers
//! sorted by key. Names of Go modules, npm packages and rpms keep their case, as all of their
//! registries do: the name in other letters is another package.

use kuboard_vuln::{Distribution, Ecosystem, Package, Source};

use crate::report::text::percent_encoded;

/// The longest that is read.
const MAX_LENGTH: usize = 8192;
/// Qualifiers that are read.
const MAX_QUALIFIERS: usize = 64;

/// The package's URL; the distribution says whose package one of a distribution is.
#[must_use]
pub fn purl(package: &Package, distribution: Option<&Distribution>) -> String {
    let ecosystem = package.ecosystem;
    let distribution = distribution.filter(|one| ecosystem.is_os() && !one.id.is_empty());
    let (namespace, name) = path_of(package, distribution);
    let mut out = format!("pkg:{}/", ecosystem.as_str());
    for segment in namespace.split('/').filter(|segment| !segment.is_empty()) {
        out.push_str(&encoded(segment));
        out.push('/');
    }
    out.push_str(&encoded(&name));
    let (epoch, version) = match package.version.split_once(':') {
        Some((epoch, version)) if ecosystem == Ecosystem::Rpm => (epoch, version),
        _ => ("", package.version.as_str()),
    };
    if !version.is_empty() {
        out.push('@');
        out.push_str(&encoded(version));
    }
    let distro = distribution.map(|one| match one.version_id.as_str() {
        "" => one.id.clone(),
        version => format!("{}-{version}", one.id),
    });
    let qualifiers = [
        ("arch", package.arch.clone()),
        ("distro", distro),
        ("epoch", Some(epoch.to_owned())),
        ("rpmmod", package.module.clone()),
        ("upstream", package.source.as_ref().map(|source| upstream(package, source))),
    ];
    let mut separator = '?';
    for (key, value) in qualifiers {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            out.push(separator);
            out.push_str(key);
            out.push('=');
            out.push_str(&encoded(&value));
            separator = '&';
        }
    }
    out
}

fn encoded(text: &str) -> String {
    percent_encoded(text, b":")
}

/// Namespace and name.
fn path_of(package: &Package, distribution: Option<&Distribution>) -> (String, String) {
    let name = package.name.as_str();
    let split = |by: char| {
        let (namespace, name) = name.rsplit_once(by).unwrap_or(("", name));
        (namespace.to_owned(), name.to_owned())
    };
    match package.ecosystem {
        Ecosystem::Maven => split(':'),
        Ecosystem::Golang | Ecosystem::Npm => split('/'),
        Ecosystem::Composer => {
            let (vendor, name) = split('/');
            (vendor.to_lowercase(), name.to_lowercase())
        }
        Ecosystem::Pypi => (String::new(), python_name(name)),
        Ecosystem::Deb | Ecosystem::Apk => (vendor_of(distribution), name.to_lowercase()),
        Ecosystem::Rpm => (vendor_of(distribution), name.to_owned()),
        Ecosystem::Cargo | Ecosystem::Gem | Ecosystem::Nuget | Ecosystem::Cran => {
            (String::new(), name.to_owned())
        }
    }
}

fn vendor_of(distribution: Option<&Distribution>) -> String {
    let id = distribution.map(|one| one.id.as_str()).unwrap_or_default();
    match id {
        "rhel" => "redhat",
        "opensuse-leap" | "opensuse-tumbleweed" => "opensuse",
        id => id,
    }
    .to_owned()
}

/// PEP 503: letters in lower case, runs of `-`, `_` and `.` are one `-`.
fn python_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if !matches!(c, '-' | '_' | '.') {
            out.extend(c.to_lowercase());
        } else if !out.ends_with('-') {
            out.push('-');
        }
    }
    out
}

/// The source package: the name of its file for rpm, if that says the same; else `name@version`,
/// or the name alone if the version is the package's own.
fn upstream(package: &Package, source: &Source) -> String {
    if package.ecosystem == Ecosystem::Rpm {
        let version = source.version.split_once(':').map_or(source.version.as_str(), |(_, v)| v);
        let file = format!("{}-{version}.src.rpm", source.name);
        if source_of(package, &file).as_ref() == Some(source) {
            return file;
        }
    } else if source.version == package.version && !source.name.contains('@') {
        return source.name.clone();
    }
    format!("{}@{}", source.name, source.version)
}

/// What an `upstream` says; `None` if no more than the package itself.
fn source_of(package: &Package, upstream: &str) -> Option<Source> {
    let file = upstream.strip_suffix(".src.rpm").or_else(|| upstream.strip_suffix(".nosrc.rpm"));
    let (name, version) = match file.filter(|_| package.ecosystem == Ecosystem::Rpm) {
        Some(file) => {
            let (rest, release) = file.rsplit_once('-')?;
            let (name, version) = rest.rsplit_once('-')?;
            // The name of the file has no epoch; a source's is nearly always that of its packages.
            let epoch = package.version.split_once(':').map(|(epoch, _)| format!("{epoch}:"));
            (name.to_owned(), format!("{}{version}-{release}", epoch.unwrap_or_default()))
        }
        None => match upstream.split_once('@') {
            Some((name, version)) => (name.to_owned(), version.to_owned()),
            None => (upstream.to_owned(), package.version.clone()),
        },
    };
    let differs = name != package.name || version != package.version;
    (differs && !name.is_empty() && !version.is_empty()).then_some(Source { name, version })
}

/// A package URL, decoded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PackageUrl {
    /// Type, lower case.
    pub kind: String,
    /// Namespace, or empty; its segments are separated by slashes.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Version, or empty.
    pub version: String,
    /// Qualifiers in the text's order, keys in lower case.
    pub qualifiers: Vec<(String, String)>,
    /// Path inside of the package, or empty.
    pub subpath: String,
}

/// What a package URL means here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// An installed package.
    Package(Package),
    /// An image.
    Image,
    /// A source package, which is not installed.
    Source,
    /// A type of packages for which there are no advisories.
    Other,
}

impl PackageUrl {
    /// Reads one; `None` if the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH || !text.get(..4)?.eq_ignore_ascii_case("pkg:") {
            return None;
        }
        let rest = text.get(4..)?.trim_start_matches('/');
        let (rest, subpath) = rest.rsplit_once('#').unwrap_or((rest, ""));
        let (rest, qualifiers) = rest.rsplit_once('?').unwrap_or((rest, ""));
        let (kind, path) = rest.split_once('/')?;
        // The scope of npm is often written plainly: `pkg:npm/@scope/name`.
        let (path, version) = match path.rsplit_once('@') {
            Some((before, version))
                if !before.is_empty() && !before.ends_with('/') && !version.contains('/') =>
            {
                (before, version)
            }
            _ => (path, ""),
        };
        let path = path.trim_matches('/');
        let (namespace, name) = path.rsplit_once('/').unwrap_or(("", path));
        let is_type = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-');
        if kind.is_empty() || name.is_empty() || !kind.chars().all(is_type) {
            return None;
        }
        let pairs = qualifiers.split('&').filter_map(|pair| pair.split_once('='));
        Some(Self {
            kind: kind.to_ascii_lowercase(),
            namespace: decoded(namespace.trim_matches('/'))?,
            name: decoded(name)?,
            version: decoded(version)?,
            qualifiers: pairs
                .take(MAX_QUALIFIERS)
                .map(|(key, value)| Some((key.to_ascii_lowercase(), decoded(value)?)))
                .collect::<Option<_>>()?,
            subpath: decoded(subpath.trim_matches('/'))?,
        })
    }

    /// The value of a qualifier that is not empty.
    #[must_use]
    pub fn qualifier(&self, key: &str) -> Option<&str> {
        let mut found = self.qualifiers.iter().filter(|(name, _)| name == key);
        found.next().map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// What it means. The name that stands beside it, if any, tells how letters were written and
    /// where a Go module ends.
    #[must_use]
    pub fn meaning(&self, stated_name: &str) -> Meaning {
        if matches!(self.kind.as_str(), "oci" | "docker") {
            return Meaning::Image;
        }
        let Some(ecosystem) = Ecosystem::ALL.into_iter().find(|one| one.as_str() == self.kind)
        else {
            return Meaning::Other;
        };
        let arch = self.qualifier("arch");
        if ecosystem.is_os() && matches!(arch, Some("source" | "src" | "nosrc")) {
            return Meaning::Source;
        }
        let name = self.full_name(ecosystem, stated_name);
        let mut package = Package::new(ecosystem, &name, &self.full_version(ecosystem));
        if ecosystem.is_os() {
            package.arch = arch.map(str::to_owned);
            package.module = self.qualifier("rpmmod").map(str::to_owned);
            package.repositories.extend(self.qualifier("repository_id").map(str::to_owned));
            let upstream = self.qualifier("upstream");
            package.source = upstream.and_then(|upstream| source_of(&package, upstream));
        }
        Meaning::Package(package)
    }

    fn full_name(&self, ecosystem: Ecosystem, stated: &str) -> String {
        let joined = |by: char| match self.namespace.as_str() {
            "" => self.name.clone(),
            namespace => format!("{namespace}{by}{}", self.name),
        };
        let name = match ecosystem {
            Ecosystem::Maven => return joined(':'),
            Ecosystem::Pypi => return python_name(&self.name),
            Ecosystem::Golang => return self.module(&joined('/'), stated),
            Ecosystem::Npm => return joined('/'),
            Ecosystem::Composer => joined('/'),
            _ => self.name.clone(),
        };
        if stated.eq_ignore_ascii_case(&name) { stated.to_owned() } else { name }
    }

    /// Some tools put the end of a long module path into the subpath.
    fn module(&self, path: &str, stated: &str) -> String {
        if self.subpath.is_empty() {
            return path.to_owned();
        }
        let whole = format!("{path}/{}", self.subpath);
        let first = self.subpath.split('/').next().unwrap_or_default();
        let is_major = first.strip_prefix('v').is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        });
        match () {
            () if stated == whole => whole,
            () if is_major && stated != path => format!("{path}/{first}"),
            () => path.to_owned(),
        }
    }

    fn full_version(&self, ecosystem: Ecosystem) -> String {
        let version = self.version.as_str();
        match ecosystem {
            Ecosystem::Golang if self.namespace.is_empty() && self.name == "stdlib" => {
                version.trim_start_matches("go").trim_start_matches('v').to_owned()
            }
            Ecosystem::Golang if version.starts_with(|c: char| c.is_ascii_digit()) => {
                format!("v{version}")
            }
            Ecosystem::Rpm | Ecosystem::Deb => {
                let epoch = self.qualifier("epoch").filter(|epoch| *epoch != "0");
                match epoch.filter(|_| !version.contains(':') && !version.is_empty()) {
                    Some(epoch) => format!("{epoch}:{version}"),
                    None => version.to_owned(),
                }
            }
            _ => version.to_owned(),
        }
    }

    /// The distribution that it names, if it names its release too.
    #[must_use]
    pub fn distribution(&self) -> Option<Distribution> {
        if !matches!(self.kind.as_str(), "deb" | "apk" | "rpm") {
            return None;
        }
        let text = self.qualifier("distro")?;
        let (id, version) = match text.rsplit_once('-') {
            Some((id, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => {
                (id, version)
            }
            // `distro=3.20.1` beside the namespace `alpine`.
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => (self.namespace.as_str(), text),
            _ => {
                let word = text.rsplit_once('-').map_or(text, |(_, word)| word);
                return of_codename(word).or_else(|| rolling(text));
            }
        };
        let id = canonical_id(id, version);
        (!id.is_empty()).then(|| Distribution {
            id,
            version_id: version.to_owned(),
            ..Distribution::default()
        })
    }
}

/// The `ID` of `os-release` for the names that tools use.
pub(super) fn canonical_id(name: &str, version: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "redhat" | "red hat" | "red hat enterprise linux" | "red hat enterprise linux server" => {
            "rhel"
        }
        "debian gnu/linux" => "debian",
        "alpine linux" => "alpine",
        "amazon" | "amazonlinux" | "amazon linux" => "amzn",
        "oracle" | "oraclelinux" | "oracle linux server" => "ol",
        "alma" => "almalinux",
        "rockylinux" | "rocky linux" => "rocky",
        "suse" | "suse linux enterprise server" => "sles",
        "opensuse.leap" => "opensuse-leap",
        "opensuse.tumbleweed" => "opensuse-tumbleweed",
        "opensuse" if version.contains('.') => "opensuse-leap",
        "opensuse" => "opensuse-tumbleweed",
        "cbl-mariner" => "mariner",
        name => name,
    }
    .to_owned()
}

/// Distributions without releases.
fn rolling(id: &str) -> Option<Distribution> {
    matches!(id, "wolfi" | "chainguard" | "minimos" | "echo" | "opensuse-tumbleweed")
        .then(|| Distribution { id: id.to_owned(), ..Distribution::default() })
}

fn of_codename(word: &str) -> Option<Distribution> {
    let (id, version) = match word {
        "wheezy" => ("debian", "7"),
        "jessie" => ("debian", "8"),
        "stretch" => ("debian", "9"),
        "buster" => ("debian", "10"),
        "bullseye" => ("debian", "11"),
        "bookworm" => ("debian", "12"),
        "trixie" => ("debian", "13"),
        "forky" => ("debian", "14"),
        "sid" | "unstable" => ("debian", ""),
        "trusty" => ("ubuntu", "14.04"),
        "xenial" => ("ubuntu", "16.04"),
        "bionic" => ("ubuntu", "18.04"),
        "focal" => ("ubuntu", "20.04"),
        "jammy" => ("ubuntu", "22.04"),
        "noble" => ("ubuntu", "24.04"),
        _ => return None,
    };
    Some(Distribution {
        id: id.to_owned(),
        version_id: version.to_owned(),
        codename: word.to_owned(),
        ..Distribution::default()
    })
}

/// Percent-decoding; `None` if the result is no UTF-8 or has control characters.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
#[path = "tests/purl.rs"]
mod tests;
