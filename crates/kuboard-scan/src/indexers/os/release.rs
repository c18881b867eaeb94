//! What names the distribution: `os-release`, and the files of distributions from before it.

mod assignments;

use kuboard_vuln::Distribution;

use self::assignments::assignments;
use super::draft::{Draft, line};
use crate::{Candidate, File, Found, Indexer, Want};

/// Bytes of such a file.
const MAX_FILE: u64 = 64 << 10;

/// Reads `os-release`, a file of shell assignments.
/// <https://www.freedesktop.org/software/systemd/man/latest/os-release.html>
#[derive(Clone, Copy, Debug)]
pub struct OsRelease;

impl Indexer for OsRelease {
    fn name(&self) -> &'static str {
        "os-release"
    }

    fn version(&self) -> u32 {
        1
    }

    fn wants(&self, candidate: &Candidate<'_>) -> Want {
        match candidate.path {
            "etc/os-release" | "usr/lib/os-release" => Want::Now,
            _ => Want::No,
        }
    }

    fn read(&self, file: &File<'_>, found: &mut Found) {
        let mut draft = Draft::new(self.name(), file.path);
        let bytes = draft.bytes(file.content, MAX_FILE);
        let mut distribution = Distribution::default();
        for (key, value) in assignments(&String::from_utf8_lossy(&bytes)) {
            let value = line(&value).unwrap_or_default();
            let field = match key {
                "ID" => &mut distribution.id,
                "VERSION_ID" => &mut distribution.version_id,
                "VERSION" => &mut distribution.version,
                "VERSION_CODENAME" => &mut distribution.codename,
                "NAME" => &mut distribution.name,
                "PRETTY_NAME" => &mut distribution.pretty_name,
                "CPE_NAME" => &mut distribution.cpe,
                "VARIANT_ID" => &mut distribution.variant,
                "ID_LIKE" => {
                    distribution.id_like =
                        value.split_whitespace().map(|word| word.to_ascii_lowercase()).collect();
                    continue;
                }
                _ => continue,
            };
            *field = value;
        }
        distribution.id.make_ascii_lowercase();
        if distribution.id.is_empty() && distribution.name.is_empty() {
            if !bytes.trim_ascii().is_empty() {
                draft.partly("it has neither an ID nor a NAME");
            }
        } else {
            draft.record().distribution = Some(distribution);
        }
        draft.store(found);
    }
}

/// Reads the files that named a distribution before `os-release`, and still do in old images. They
/// contradict each other (a clone keeps the file of what it is a clone of), so the one that is the
/// most particular names the distribution and the others name none.
#[derive(Clone, Copy, Debug)]
pub struct ReleaseFiles;

/// The files, the most particular first.
const RELEASE_FILES: [&str; 13] = [
    "etc/alpine-release",
    "etc/oracle-release",
    "etc/almalinux-release",
    "etc/rocky-release",
    "etc/centos-release",
    "etc/fedora-release",
    "etc/lsb-release",
    "etc/photon-release",
    "etc/mariner-release",
    "etc/SuSE-release",
    "etc/system-release",
    "etc/redhat-release",
    "etc/debian_version",
];

impl Indexer for ReleaseFiles {
    fn name(&self) -> &'static str {
        "release-files"
    }

    fn version(&self) -> u32 {
        1
    }

    fn wants(&self, candidate: &Candidate<'_>) -> Want {
        if RELEASE_FILES.contains(&candidate.path) { Want::AtEnd } else { Want::No }
    }

    fn read(&self, file: &File<'_>, found: &mut Found) {
        self.finish(std::slice::from_ref(file), found);
    }

    fn finish(&self, files: &[File<'_>], found: &mut Found) {
        let mut drafts: Vec<_> = files
            .iter()
            .map(|file| {
                let mut draft = Draft::new(self.name(), file.path);
                let bytes = draft.bytes(file.content, MAX_FILE);
                let distribution = distribution_of(file.path, &String::from_utf8_lossy(&bytes));
                draft.record().distribution = distribution;
                draft
            })
            .collect();
        let rank = |path: &str| RELEASE_FILES.iter().position(|file| *file == path);
        let best = drafts
            .iter_mut()
            .filter_map(|draft| {
                let record = draft.record();
                record.distribution.as_ref().and_then(|_| rank(&record.path))
            })
            .min();
        for mut draft in drafts {
            if rank(&draft.record().path) != best {
                draft.record().distribution = None;
            }
            draft.store(found);
        }
    }
}

fn distribution_of(path: &str, text: &str) -> Option<Distribution> {
    match path {
        "etc/lsb-release" => lsb_release(text),
        "etc/alpine-release" => {
            let version = line(text.lines().next()?)?;
            let named = named("alpine", "Alpine Linux", &version);
            Some(Distribution { version_id: version, ..named })
        }
        "etc/debian_version" => debian_version(text),
        _ => release_sentence(text),
    }
}

fn named(id: &str, name: &str, version: &str) -> Distribution {
    Distribution {
        id: id.to_owned(),
        name: name.to_owned(),
        pretty_name: format!("{name} {version}"),
        ..Distribution::default()
    }
}

/// `12.5`, or `trixie/sid` of one that is not released.
fn debian_version(text: &str) -> Option<Distribution> {
    let version = line(text.lines().next()?)?;
    let mut distribution = named("debian", "Debian GNU/Linux", &version);
    if version.starts_with(|c: char| c.is_ascii_digit()) {
        // `os-release` has the major number only.
        version.split('.').next().unwrap_or_default().clone_into(&mut distribution.version_id);
    } else {
        version.split('/').next().unwrap_or_default().clone_into(&mut distribution.codename);
    }
    distribution.version = version;
    Some(distribution)
}

/// The assignments of the Linux Standard Base.
fn lsb_release(text: &str) -> Option<Distribution> {
    let mut distribution = Distribution::default();
    for (key, value) in assignments(text) {
        let value = line(&value).unwrap_or_default();
        match key {
            "DISTRIB_ID" => {
                distribution.id = value.to_ascii_lowercase();
                distribution.name = value;
            }
            "DISTRIB_RELEASE" => {
                distribution.version.clone_from(&value);
                distribution.version_id = value;
            }
            "DISTRIB_CODENAME" => distribution.codename = value,
            "DISTRIB_DESCRIPTION" => distribution.pretty_name = value,
            _ => {}
        }
    }
    (!distribution.id.is_empty()).then_some(distribution)
}

/// Beginnings of the sentences, and the ids that `os-release` has for them.
const SENTENCES: [(&str, &str); 14] = [
    ("Red Hat Enterprise Linux", "rhel"),
    ("Oracle Linux", "ol"),
    ("Enterprise Linux Enterprise Linux Server", "ol"),
    ("CentOS", "centos"),
    ("AlmaLinux", "almalinux"),
    ("Rocky Linux", "rocky"),
    ("Fedora", "fedora"),
    ("Amazon Linux", "amzn"),
    ("Scientific Linux", "scientific"),
    ("VMware Photon", "photon"),
    ("CBL-Mariner", "mariner"),
    ("SUSE Linux Enterprise Server", "sles"),
    ("openSUSE", "opensuse"),
    ("Alpine", "alpine"),
];

/// `NAME release VERSION (CODENAME)`, also without the word in the middle.
fn release_sentence(text: &str) -> Option<Distribution> {
    let sentence = line(text.lines().find(|text| !text.trim().is_empty())?)?;
    let (whole, codename) = match sentence.split_once('(') {
        Some((whole, codename)) => (whole.trim(), codename.split(')').next().unwrap_or_default()),
        None => (&*sentence, ""),
    };
    let digit = whole.find(|c: char| c.is_ascii_digit()).unwrap_or(whole.len());
    let (name, version) = whole.split_at(digit);
    let name = name.trim().trim_end_matches("release").trim();
    let version = version.split_whitespace().next().unwrap_or_default();
    let id = SENTENCES.iter().find(|(start, _)| name.starts_with(start)).map(|(_, id)| *id)?;
    // As `os-release` has them: CentOS and Fedora name the major number only.
    let major_only = matches!(id, "centos" | "fedora");
    let version_id =
        if major_only { version.split('.').next().unwrap_or_default() } else { version };
    Some(Distribution {
        id: id.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        version_id: version_id.to_owned(),
        codename: codename.to_owned(),
        pretty_name: sentence,
        ..Distribution::default()
    })
}

#[cfg(test)]
mod tests;
