//! The feeds that are known: what each covers, where it is, and in which form.

use crate::parse::secdb::Family;

/// The form of a feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// An ecosystem of OSV: `all.zip` and `modified_id.csv`. The name as OSV writes it.
    Osv(&'static str),
    /// Debian's tracker.
    Debian,
    /// Alpine's secdb and its like.
    Secdb(Family),
    /// Ubuntu's OSV archive.
    Ubuntu,
    /// Red Hat's CSAF-VEX archive and its lists of changes.
    RedHat,
    /// SUSE's CSAF-VEX archive.
    Suse,
    /// Amazon's updateinfo, found through lists of mirrors.
    Amazon,
    /// Oracle's OVAL.
    Oracle,
    /// Azure Linux's OVAL.
    Azure,
    /// Photon's CVE data.
    Photon,
    /// NVD's scores.
    Nvd,
    /// EPSS.
    Epss,
    /// CISA's list of exploited vulnerabilities.
    Kev,
    /// Ends of life of distributions.
    EndOfLife,
}

/// A feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feed {
    /// Its name, in `advisories.feeds` and on the command line.
    pub name: &'static str,
    /// Its form.
    pub form: Form,
    /// Under which names its advisories and figures stand in the database.
    pub sources: &'static [&'static str],
    /// What it covers, for people.
    pub covers: &'static str,
}

/// A document of a feed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Document {
    /// Its name under a mirror, below the feed's folder.
    pub(crate) name: String,
    /// Its own address.
    pub(crate) url: String,
    /// The namespace that it speaks of, where its content does not say.
    pub(crate) namespace: &'static str,
    /// A server without it is no failure.
    pub(crate) optional: bool,
}

const fn osv(
    name: &'static str,
    ecosystem: &'static str,
    sources: &'static [&'static str],
) -> Feed {
    Feed { name, form: Form::Osv(ecosystem), sources, covers: ecosystem }
}

/// All of them.
pub const FEEDS: &[Feed] = &[
    Feed {
        name: "debian",
        form: Form::Debian,
        sources: &["debian"],
        covers: "Debian, unfixed ones too",
    },
    Feed { name: "ubuntu", form: Form::Ubuntu, sources: &["ubuntu"], covers: "Ubuntu" },
    Feed {
        name: "alpine",
        form: Form::Secdb(Family::Alpine),
        sources: &["alpine"],
        covers: "Alpine",
    },
    Feed { name: "wolfi", form: Form::Secdb(Family::Wolfi), sources: &["wolfi"], covers: "Wolfi" },
    Feed {
        name: "chainguard",
        form: Form::Secdb(Family::Chainguard),
        sources: &["chainguard"],
        covers: "Chainguard",
    },
    Feed {
        name: "minimos",
        form: Form::Secdb(Family::Minimos),
        sources: &["minimos"],
        covers: "MinimOS",
    },
    Feed {
        name: "redhat",
        form: Form::RedHat,
        sources: &["redhat"],
        covers: "Red Hat Enterprise Linux, UBI, CentOS",
    },
    Feed { name: "amazon", form: Form::Amazon, sources: &["amazon"], covers: "Amazon Linux" },
    Feed { name: "suse", form: Form::Suse, sources: &["suse"], covers: "SUSE Linux Enterprise" },
    Feed { name: "oracle", form: Form::Oracle, sources: &["oracle"], covers: "Oracle Linux" },
    Feed {
        name: "azure",
        form: Form::Azure,
        sources: &["mariner", "azurelinux"],
        covers: "Azure Linux, CBL-Mariner",
    },
    Feed { name: "photon", form: Form::Photon, sources: &["photon"], covers: "Photon OS" },
    osv("osv:go", "Go", &["osv:go"]),
    osv("osv:npm", "npm", &["osv:npm"]),
    osv("osv:pypi", "PyPI", &["osv:pypi"]),
    osv("osv:maven", "Maven", &["osv:maven"]),
    osv("osv:nuget", "NuGet", &["osv:nuget"]),
    osv("osv:rubygems", "RubyGems", &["osv:rubygems"]),
    osv("osv:crates.io", "crates.io", &["osv:crates.io"]),
    osv("osv:packagist", "Packagist", &["osv:packagist"]),
    osv("osv:cran", "CRAN", &["osv:cran"]),
    osv("osv:almalinux", "AlmaLinux", &["osv:almalinux"]),
    osv("osv:rocky", "Rocky Linux", &["osv:rocky"]),
    osv("osv:opensuse", "openSUSE", &["osv:opensuse"]),
    Feed { name: "nvd", form: Form::Nvd, sources: &["nvd"], covers: "CVSS scores of all CVEs" },
    Feed {
        name: "epss",
        form: Form::Epss,
        sources: &["epss"],
        covers: "probability of exploitation",
    },
    Feed { name: "kev", form: Form::Kev, sources: &["kev"], covers: "known exploited" },
    Feed {
        name: "eol",
        form: Form::EndOfLife,
        sources: &["eol"],
        covers: "ends of life of distributions",
    },
];

/// The feed of that name.
#[must_use]
pub fn feed(name: &str) -> Option<&'static Feed> {
    FEEDS.iter().find(|feed| feed.name == name)
}

/// Where OSV exports live.
pub(crate) const OSV: &str = "https://osv-vulnerabilities.storage.googleapis.com";
/// Where Red Hat's CSAF-VEX documents live.
pub(crate) const RED_HAT: &str = "https://security.access.redhat.com/data/csaf/v2/vex";

/// Alpine's releases that are asked for; what does not exist yet, or any more, is passed over.
const ALPINE: std::ops::RangeInclusive<u32> = 10..=30;
/// The first year of NVD's feeds.
const NVD_FROM: i16 = 2002;

fn document(name: &str, url: impl Into<String>) -> Document {
    Document { name: name.to_owned(), url: url.into(), namespace: "", optional: false }
}

/// The documents of a feed whose addresses are known beforehand. `year` is today's.
pub(crate) fn documents(form: Form, year: i16) -> Vec<Document> {
    match form {
        Form::Debian => {
            vec![document("data.json", "https://security-tracker.debian.org/tracker/data/json")]
        }
        Form::Secdb(Family::Alpine) => alpine(),
        Form::Secdb(Family::Wolfi) => {
            vec![document("security.json", "https://packages.wolfi.dev/os/security.json")]
        }
        Form::Secdb(Family::Chainguard) => {
            vec![document("security.json", "https://packages.cgr.dev/chainguard/security.json")]
        }
        Form::Secdb(Family::Minimos) => vec![document(
            "security.json",
            "https://packages.mini.dev/advisories/secdb/security.json",
        )],
        Form::Ubuntu => vec![document(
            "osv-all.tar.xz",
            "https://security-metadata.canonical.com/osv/osv-all.tar.xz",
        )],
        Form::Suse => vec![document(
            "csaf-vex.tar.bz2",
            "https://ftp.suse.com/pub/projects/security/csaf-vex.tar.bz2",
        )],
        Form::Oracle => vec![document(
            "com.oracle.elsa-all.xml.bz2",
            "https://linux.oracle.com/security/oval/com.oracle.elsa-all.xml.bz2",
        )],
        Form::Azure => azure(),
        Form::Photon => photon(),
        Form::Nvd => (NVD_FROM..=year)
            .map(|year| {
                let name = format!("nvdcve-2.0-{year}.json.gz");
                // At the turn of a year the new file may come a little late.
                let url = format!("https://nvd.nist.gov/feeds/json/cve/2.0/{name}");
                Document { optional: true, ..document(&name, url) }
            })
            .collect(),
        Form::Epss => vec![document(
            "epss_scores-current.csv.gz",
            "https://epss.empiricalsecurity.com/epss_scores-current.csv.gz",
        )],
        Form::Kev => vec![document(
            "known_exploited_vulnerabilities.json",
            "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json",
        )],
        Form::EndOfLife => {
            vec![document("full.json", "https://endoflife.date/api/v1/products/full")]
        }
        Form::Osv(_) | Form::RedHat | Form::Amazon => Vec::new(),
    }
}

fn alpine() -> Vec<Document> {
    let releases = ALPINE.map(|minor| format!("v3.{minor}")).chain(["edge".to_owned()]);
    releases
        .flat_map(|release| {
            ["main", "community"].map(|repository| {
                let name = format!("{release}/{repository}.json");
                let url = format!("https://secdb.alpinelinux.org/{name}");
                Document { optional: true, ..document(&name, url) }
            })
        })
        .collect()
}

fn azure() -> Vec<Document> {
    const BASE: &str =
        "https://raw.githubusercontent.com/microsoft/AzureLinuxVulnerabilityData/main";
    [("cbl-mariner-2.0-oval.xml", "mariner:2.0"), ("azurelinux-3.0-oval.xml", "azurelinux:3.0")]
        .into_iter()
        .map(|(name, namespace)| Document { namespace, ..document(name, format!("{BASE}/{name}")) })
        .collect()
}

fn photon() -> Vec<Document> {
    const BASE: &str = "https://packages.broadcom.com/photon/photon_cve_metadata";
    [("3.0", "photon:3.0"), ("4.0", "photon:4.0"), ("5.0", "photon:5.0")]
        .into_iter()
        .map(|(release, namespace)| {
            let name = format!("cve_data_photon{release}.json");
            let url = format!("{BASE}/{name}");
            Document { namespace, optional: true, ..document(&name, url) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{FEEDS, documents};

    #[test]
    fn names_and_documents_are_unique() {
        let mut names: Vec<_> = FEEDS.iter().map(|feed| feed.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for feed in FEEDS {
            let mut all: Vec<_> =
                documents(feed.form, 2026).into_iter().map(|one| one.name).collect();
            all.sort();
            let count = all.len();
            all.dedup();
            assert_eq!(all.len(), count, "{}", feed.name);
        }
    }
}
