//! Where a package's advisories are at home: one short name a distribution release or a language.
//!
//! `debian:12`, `debian:unstable`, `ubuntu:22.04`, `ubuntu-pro:18.04`, `alpine:3.20`,
//! `alpine:edge`, `wolfi`, `chainguard`, `minimos`, `echo`, `alma:9`, `rocky:9`, `rhel:9`,
//! `oracle:9`, `amazon:2`, `amazon:2023`, `sles:15.5`, `opensuse-leap:15.5`,
//! `opensuse-tumbleweed`, `mariner:2.0`, `azurelinux:3.0`, `photon:5.0`, `fedora:42`; and of
//! languages `go`, `cargo`, `pypi`, `npm`, `maven`, `gem`, `nuget`, `composer`, `cran`.

use crate::{Distribution, Ecosystem};

/// The namespace of a language; `None` for packages of distributions.
#[must_use]
pub fn of_language(ecosystem: Ecosystem) -> Option<&'static str> {
    Some(match ecosystem {
        Ecosystem::Golang => "go",
        Ecosystem::Cargo => "cargo",
        Ecosystem::Pypi => "pypi",
        Ecosystem::Npm => "npm",
        Ecosystem::Maven => "maven",
        Ecosystem::Gem => "gem",
        Ecosystem::Nuget => "nuget",
        Ecosystem::Composer => "composer",
        Ecosystem::Cran => "cran",
        Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Rpm => return None,
    })
}

fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or_default()
}

/// `3.20.1` to `3.20`.
fn minor(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

/// The namespace of a distribution's packages; `None` if no source of advisories covers it.
#[must_use]
pub fn of_distribution(distribution: &Distribution) -> Option<String> {
    let version = distribution.version_id.as_str();
    let name = match distribution.id.as_str() {
        "debian" if version.is_empty() => "debian:unstable".to_owned(),
        "debian" => format!("debian:{}", major(version)),
        "ubuntu" => format!("ubuntu:{}", minor(version)),
        "alpine" if version.is_empty() || version.contains("_alpha") => "alpine:edge".to_owned(),
        "alpine" => format!("alpine:{}", minor(version)),
        "wolfi" => "wolfi".to_owned(),
        "chainguard" => "chainguard".to_owned(),
        "minimos" => "minimos".to_owned(),
        "echo" => "echo".to_owned(),
        "almalinux" => format!("alma:{}", major(version)),
        "rocky" => format!("rocky:{}", major(version)),
        "rhel" | "centos" => format!("rhel:{}", major(version)),
        "ol" => format!("oracle:{}", major(version)),
        "amzn" => format!("amazon:{}", major(version)),
        "sles" | "sled" | "sle_hpc" => format!("sles:{version}"),
        "opensuse-leap" => format!("opensuse-leap:{version}"),
        "opensuse-tumbleweed" => "opensuse-tumbleweed".to_owned(),
        "mariner" => format!("mariner:{}", minor(version)),
        "azurelinux" => format!("azurelinux:{}", minor(version)),
        "photon" => format!("photon:{}", minor(version)),
        "fedora" => format!("fedora:{}", major(version)),
        _ => return None,
    };
    Some(name)
}

/// The namespace that an OSV ecosystem string means, the kind of its packages, and whether its
/// package names are those of source packages. `None` for ecosystems that no image holds.
#[must_use]
pub fn of_osv(ecosystem: &str) -> Option<(String, Ecosystem, bool)> {
    let (family, release) = ecosystem.split_once(':').unwrap_or((ecosystem, ""));
    let (name, kind, by_source) = match family {
        "Go" => ("go".to_owned(), Ecosystem::Golang, false),
        "crates.io" => ("cargo".to_owned(), Ecosystem::Cargo, false),
        "PyPI" => ("pypi".to_owned(), Ecosystem::Pypi, false),
        "npm" => ("npm".to_owned(), Ecosystem::Npm, false),
        "Maven" => ("maven".to_owned(), Ecosystem::Maven, false),
        "RubyGems" => ("gem".to_owned(), Ecosystem::Gem, false),
        "NuGet" => ("nuget".to_owned(), Ecosystem::Nuget, false),
        "Packagist" => ("composer".to_owned(), Ecosystem::Composer, false),
        "CRAN" => ("cran".to_owned(), Ecosystem::Cran, false),
        "Debian" if !release.is_empty() => (format!("debian:{release}"), Ecosystem::Deb, true),
        "Ubuntu" => (ubuntu(release)?, Ecosystem::Deb, true),
        "Alpine" => {
            let release = release.strip_prefix('v').unwrap_or(release);
            if release.is_empty() {
                return None;
            }
            (format!("alpine:{release}"), Ecosystem::Apk, true)
        }
        "Wolfi" => ("wolfi".to_owned(), Ecosystem::Apk, true),
        "Chainguard" => ("chainguard".to_owned(), Ecosystem::Apk, true),
        "MinimOS" => ("minimos".to_owned(), Ecosystem::Apk, true),
        "Echo" => ("echo".to_owned(), Ecosystem::Deb, true),
        "AlmaLinux" if !release.is_empty() => {
            (format!("alma:{}", major(release)), Ecosystem::Rpm, false)
        }
        "Rocky Linux" if !release.is_empty() => {
            (format!("rocky:{}", major(release)), Ecosystem::Rpm, false)
        }
        "openSUSE" => (opensuse(release)?, Ecosystem::Rpm, false),
        "SUSE" => (suse(release)?, Ecosystem::Rpm, false),
        _ => return None,
    };
    Some((name, kind, by_source))
}

/// `22.04:LTS`, `Pro:18.04:LTS`, `24.10`. The FIPS channels (`Pro:FIPS:18.04:LTS`) are builds of
/// their own, whose versions do not compare with those of the release.
fn ubuntu(release: &str) -> Option<String> {
    if release.to_ascii_lowercase().contains("fips") {
        return None;
    }
    let (family, rest) = match release.strip_prefix("Pro:") {
        Some(rest) => ("ubuntu-pro", rest),
        None => ("ubuntu", release),
    };
    let version =
        rest.split(':').find(|part| part.starts_with(|first: char| first.is_ascii_digit()));
    Some(format!("{family}:{}", version?))
}

/// `Leap 15.5`, `Tumbleweed`.
fn opensuse(release: &str) -> Option<String> {
    match release.split_once(' ') {
        Some(("Leap", version)) => Some(format!("opensuse-leap:{version}")),
        None if release == "Tumbleweed" => Some("opensuse-tumbleweed".to_owned()),
        _ => None,
    }
}

/// `Linux Enterprise Server 15 SP5`, `Linux Enterprise Module for Basesystem 15 SP5`: the modules
/// of a service pack are parts of the same installed system.
fn suse(release: &str) -> Option<String> {
    let rest = release.strip_prefix("Linux Enterprise ")?;
    let mut version = None;
    let mut pack = None;
    for word in rest.split([' ', '-']) {
        if let Some(number) = word.strip_prefix("SP") {
            pack = number.parse::<u8>().ok();
        } else if word.starts_with(|first: char| first.is_ascii_digit()) {
            version = Some(word);
        }
    }
    let version = version?;
    Some(match pack {
        Some(pack) => format!("sles:{version}.{pack}"),
        None => format!("sles:{version}"),
    })
}

#[cfg(test)]
mod tests {
    use super::{of_distribution, of_osv};
    use crate::Distribution;

    #[test]
    fn osv_ecosystems_mean_namespaces() {
        for (ecosystem, namespace) in [
            ("Go", Some("go")),
            ("Debian:12", Some("debian:12")),
            ("Debian", None),
            ("Ubuntu:22.04:LTS", Some("ubuntu:22.04")),
            ("Ubuntu:Pro:18.04:LTS", Some("ubuntu-pro:18.04")),
            ("Ubuntu:Pro:FIPS-updates:18.04:LTS", None),
            ("Alpine:v3.20", Some("alpine:3.20")),
            ("AlmaLinux:9", Some("alma:9")),
            ("Rocky Linux:8", Some("rocky:8")),
            ("openSUSE:Leap 15.5", Some("opensuse-leap:15.5")),
            ("openSUSE:Tumbleweed", Some("opensuse-tumbleweed")),
            ("SUSE:Linux Enterprise Server 15 SP5", Some("sles:15.5")),
            ("SUSE:Linux Enterprise Module for Basesystem 15 SP5", Some("sles:15.5")),
            ("SUSE:Linux Enterprise Server 12 SP5-LTSS", Some("sles:12.5")),
            ("OSS-Fuzz", None),
            ("Android", None),
        ] {
            let got = of_osv(ecosystem).map(|(namespace, ..)| namespace);
            assert_eq!(got.as_deref(), namespace, "{ecosystem}");
        }
    }

    #[test]
    fn distributions_mean_namespaces() {
        for (id, version, namespace) in [
            ("debian", "12", Some("debian:12")),
            ("debian", "", Some("debian:unstable")),
            ("ubuntu", "22.04", Some("ubuntu:22.04")),
            ("alpine", "3.20.1", Some("alpine:3.20")),
            ("alpine", "3.21.0_alpha20240923", Some("alpine:edge")),
            ("almalinux", "9.4", Some("alma:9")),
            ("amzn", "2023", Some("amazon:2023")),
            ("sles", "15.5", Some("sles:15.5")),
            ("photon", "5.0", Some("photon:5.0")),
            ("nixos", "24.05", None),
        ] {
            let distribution = Distribution {
                id: id.to_owned(),
                version_id: version.to_owned(),
                ..Distribution::default()
            };
            assert_eq!(of_distribution(&distribution).as_deref(), namespace, "{id} {version}");
        }
    }
}
