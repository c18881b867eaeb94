//! R packages: the `DESCRIPTION` of each folder of a library (Debian control syntax).

use kuboard_vuln::Ecosystem;

use super::{Parsed, license, package};
use crate::Candidate;

/// The most bytes that are read.
const MAX_DESCRIPTION: usize = 1 << 20;

/// Descriptions of packages of a library: `library/NAME`, `site-library/NAME`.
#[must_use]
pub(super) fn wants(candidate: &Candidate<'_>) -> bool {
    let mut folders = candidate.path.rsplit('/').skip(2);
    candidate.name() == "DESCRIPTION"
        && matches!(folders.next(), Some("library" | "site-library" | "local-library"))
}

/// The package of a description.
#[must_use]
pub fn parse(_path: &str, bytes: &[u8]) -> Parsed {
    let text = String::from_utf8_lossy(bytes.get(..MAX_DESCRIPTION).unwrap_or(bytes));
    let field = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
    };
    let (Some(name), Some(version)) = (field("Package"), field("Version")) else {
        return Parsed::failed("it states no package and version");
    };
    let Some(mut package) = package(Ecosystem::Cran, name, version) else {
        return Parsed::failed("its name or version is none");
    };
    package.licenses.extend(field("License").and_then(license));
    Parsed::one(Some(package))
}

#[cfg(test)]
mod tests {
    use super::{super::tests, *};

    #[test]
    fn descriptions() {
        fn check(text: &str, expected: &str) {
            assert_eq!(tests::shown(&parse("", text.as_bytes())), expected, "{text}");
        }
        check(
            "Package: dplyr\nTitle: A\n Version: 9\nVersion: 1.0.10\nLicense: MIT + file LICENSE\nPackageX: y\n",
            "dplyr 1.0.10 [MIT + file LICENSE]",
        );
        check("Package: a\r\nVersion: 1.0-2\r\n", "a 1.0-2");
        check("Package: a\n", "! it states no package and version");
        check("Package:\nVersion:\n", "! its name or version is none");
    }

    #[test]
    fn paths() {
        tests::check_wants(
            wants,
            &[
                ("usr/lib/R/library/base/DESCRIPTION", true),
                ("usr/local/lib/R/site-library/dplyr/DESCRIPTION", true),
                ("src/dplyr/DESCRIPTION", false),
                ("library/DESCRIPTION", false),
                ("DESCRIPTION", false),
            ],
        );
    }
}
