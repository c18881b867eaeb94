//! Which release a platform of Red Hat belongs to, by its CPE.

/// Where packages of a platform are at home.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Platform {
    /// The major release, if the CPE tells it.
    pub major: Option<u16>,
    /// The CPE that a package's repository must have; `None` for the release as a whole.
    pub repository: Option<String>,
}

impl Platform {
    /// Reads `cpe:/a:redhat:enterprise_linux:9::appstream` or the 2.3 form of it.
    pub(super) fn of(cpe: &str) -> Option<Self> {
        let rest = cpe.strip_prefix("cpe:/").or_else(|| cpe.strip_prefix("cpe:2.3:"))?;
        if cpe.len() > 512 || cpe.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return None;
        }
        let mut parts = rest.split(':').map(|part| if part == "*" { "" } else { part });
        let kind = parts.next()?;
        let vendor = parts.next()?;
        let product = parts.next()?;
        let version = parts.next().unwrap_or_default();
        let edition = parts.nth(1).unwrap_or_default();
        if vendor != "redhat" {
            return None;
        }
        let by_edition = edition.strip_prefix("el").and_then(|number| number.parse().ok());
        let major = by_edition.or_else(|| {
            is_release(product).then(|| version.split('.').next()?.parse().ok()).flatten()
        });
        let whole = kind == "o" && product == "enterprise_linux" && edition.is_empty();
        // `9.2` of the plain release is as narrow as an edition.
        let whole = whole && !version.contains('.');
        Some(Self { major, repository: (!whole).then(|| cpe.to_owned()) })
    }
}

/// Whether the version of a product is that of the release: the release itself, and its channels of
/// extended support, but not what is only built for it.
fn is_release(product: &str) -> bool {
    product.starts_with("enterprise_linux")
        || [
            "rhel_eus",
            "rhel_aus",
            "rhel_tus",
            "rhel_e4s",
            "rhel_els",
            "rhel_extras",
            "rhel_mission",
        ]
        .iter()
        .any(|channel| product.starts_with(channel))
}

/// The major release in a package's version: `1.2-3.el9_2`, `1.2-3.module+el8.6.0+…`.
pub(super) fn major_of_version(version: &str) -> Option<u16> {
    let mut rest = version;
    while let Some(at) = rest.find("el") {
        let before = rest.get(..at)?.chars().next_back();
        rest = rest.get(at + 2..)?;
        let figures = rest.bytes().take_while(u8::is_ascii_digit).count();
        if matches!(before, Some('.' | '+' | '_')) && (1..=2).contains(&figures) {
            return rest.get(..figures)?.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Platform, major_of_version};

    #[test]
    fn cpes_tell_releases() {
        for (cpe, major, whole) in [
            ("cpe:/o:redhat:enterprise_linux:9", Some(9), true),
            ("cpe:/o:redhat:enterprise_linux:9::baseos", Some(9), false),
            ("cpe:/a:redhat:enterprise_linux:10::appstream", Some(10), false),
            ("cpe:/o:redhat:enterprise_linux:10.0", Some(10), false),
            ("cpe:/a:redhat:rhel_eus:9.2::appstream", Some(9), false),
            ("cpe:/a:redhat:rhel_satellite_client:6::el8", Some(8), false),
            ("cpe:/a:redhat:rhel_software_collections:3::el7", Some(7), false),
            ("cpe:/a:redhat:rhel_software_collections:3", None, false),
            ("cpe:/a:redhat:openshift:4.12::el8", Some(8), false),
            ("cpe:/a:redhat:openshift:4", None, false),
        ] {
            let platform = Platform::of(cpe).unwrap();
            assert_eq!((platform.major, platform.repository.is_none()), (major, whole), "{cpe}");
        }
        assert_eq!(Platform::of("cpe:/o:suse:sles:15"), None);
        assert_eq!(Platform::of("redhat"), None);
    }

    #[test]
    fn versions_tell_releases() {
        for (version, major) in [
            ("7.76.1-14.el9_0.9", Some(9)),
            ("15.8-1.module+el9.4.0+22208+cd6b92ff", Some(9)),
            ("1.33.0-2.SP1_redhat_00001.1.el7eap", Some(7)),
            ("1.0-model3", None),
            ("el8", None),
        ] {
            assert_eq!(major_of_version(version), major, "{version}");
        }
    }
}
