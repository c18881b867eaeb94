//! Alpine's secdb, which Wolfi, Chainguard and MinimOS publish too: `{distroversion, packages:
//! [{pkg: {name, secfixes: {version: [ids]}}}]}`. It knows only what is fixed (in that version), or
//! never was affected (version `0`). Names are those of source packages.

use std::collections::BTreeMap;
use std::io::Read;

use kuboard_vuln::{Ecosystem, Status};
use serde::Deserialize;

use super::merge::{Merge, Statement, Until};
use super::{ParseError, Summary, json, text};
use crate::Sink;

/// Whose secdb it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// One file a release and repository; the release is stated inside.
    Alpine,
    /// One file.
    Wolfi,
    /// One file.
    Chainguard,
    /// One file.
    Minimos,
}

impl Family {
    /// The advisories' source.
    #[must_use]
    pub fn source(self) -> &'static str {
        match self {
            Family::Alpine => "alpine",
            Family::Wolfi => "wolfi",
            Family::Chainguard => "chainguard",
            Family::Minimos => "minimos",
        }
    }
}

#[derive(Deserialize)]
struct Item {
    pkg: Package,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    secfixes: Option<BTreeMap<String, Option<Vec<String>>>>,
}

/// Bytes of packages that are kept until the release is known.
const MAX_EARLY: usize = 64 << 20;

/// Reads the files of one source (Alpine has two a release) and makes one advisory an id of them.
pub struct Reader {
    family: Family,
    merge: Merge,
    summary: Summary,
}

impl Reader {
    /// A reader that has read nothing.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self {
            family,
            merge: Merge::new(family.source(), Ecosystem::Apk, true),
            summary: Summary::default(),
        }
    }

    /// Reads one file.
    ///
    /// # Errors
    /// If it is no secdb, cut off, or (Alpine) does not state its release.
    pub fn read(&mut self, input: impl Read) -> Result<(), ParseError> {
        const FORMAT: &str = "secdb";
        let mut release: Option<String> = None;
        // Packages that come before the release is known; Alpine states it first.
        let mut early: Vec<String> = Vec::new();
        let mut held = 0_usize;
        json::list(input, FORMAT, "packages", &mut |key, raw| {
            match (key, self.namespace(release.as_deref())) {
                ("distroversion", _) => release = serde_json::from_str(raw).unwrap_or_default(),
                ("", Some(namespace)) => self.item(&namespace, raw)?,
                ("", None) if held.saturating_add(raw.len()) < MAX_EARLY => {
                    held += raw.len();
                    early.push(raw.to_owned());
                }
                ("", None) => {
                    return Err(ParseError::format(FORMAT, "it does not begin with its release"));
                }
                _ => {}
            }
            Ok(())
        })?;
        let namespace = self.namespace(release.as_deref());
        let Some(namespace) = namespace else {
            return Err(ParseError::format(FORMAT, "it does not state its release"));
        };
        for raw in early {
            self.item(&namespace, &raw)?;
        }
        Ok(())
    }

    /// Gives what was read to the sink.
    ///
    /// # Errors
    /// If most of it was bad.
    pub fn finish(self, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
        let mut summary = self.summary;
        self.merge.finish(&mut summary, sink);
        summary.judge()
    }

    fn namespace(&self, release: Option<&str>) -> Option<String> {
        if self.family != Family::Alpine {
            return Some(self.family.source().to_owned());
        }
        let release = release?;
        let version = release.strip_prefix('v').unwrap_or(release);
        let figures = version.split_once('.').is_some_and(|(major, minor)| {
            [major, minor].iter().all(|part| part.parse::<u16>().is_ok())
        });
        (figures || version == "edge").then(|| format!("alpine:{version}"))
    }

    fn item(&mut self, namespace: &str, raw: &str) -> Result<(), ParseError> {
        let package = match serde_json::from_str::<Item>(raw) {
            Ok(item) => item.pkg,
            Err(error) => {
                self.summary.skip("a package", error);
                return Ok(());
            }
        };
        if !text::is_name(&package.name) {
            self.summary.skip("a package", "its name is unusable");
            return Ok(());
        }
        let fixes = package.secfixes.iter().flatten();
        for (version, entries) in fixes {
            for entry in entries.iter().flatten() {
                self.fix(namespace, &package.name, version.trim(), entry)?;
            }
        }
        Ok(())
    }

    /// One entry: an id, several of them, or ids and remarks: `CVE-2017-2616 (+ regression fix)`.
    fn fix(
        &mut self,
        namespace: &str,
        package: &str,
        version: &str,
        entry: &str,
    ) -> Result<(), ParseError> {
        let trim = |word: &'_ str| word.trim_matches([',', ';', '(', ')', '?', '.']).to_owned();
        let words = entry.split([' ', '\t', ',']).take(64).map(trim);
        let ids: Vec<String> = words.filter(|word| looks_like_id(word)).collect();
        if ids.is_empty() || !text::is_name(version) {
            self.summary.skip(entry, format!("no id or no version, in {package} {version}"));
            return Ok(());
        }
        // Where CVEs are named, other ids beside them are other names of the same.
        let cves = ids.iter().any(|id| text::is_cve(id));
        for id in ids.iter().filter(|id| !cves || text::is_cve(id)) {
            let (status, until) = match version {
                "0" => (Status::NotAffected, Until::None),
                version => (Status::Fixed, Until::Fixed(version)),
            };
            let introduced = None;
            let word = "";
            let statement = Statement { id, namespace, package, status, introduced, until, word };
            self.merge.add(&statement)?;
            if ids.len() > 1 && ids.iter().filter(|id| text::is_cve(id)).count() == 1 {
                let others = ids.iter().filter(|other| *other != id);
                let about = self.merge.about(id);
                for other in others {
                    if about.aliases.len() < 64 && !about.aliases.contains(other) {
                        about.aliases.push(other.clone());
                    }
                }
            }
        }
        Ok(())
    }
}

fn looks_like_id(word: &str) -> bool {
    text::is_id(word)
        && word.starts_with(|first: char| first.is_ascii_uppercase())
        && word.contains(|c: char| c.is_ascii_digit())
}
