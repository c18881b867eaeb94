//! One CSAF-VEX document of Red Hat to an advisory.
//!
//! A product of it is a component (an rpm by its package URL, a module's rpm, a container image) of
//! a platform (a repository of a release, by its CPE). Rows that differ only in architecture or
//! repository are joined.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use kuboard_vuln::{Affected, Bound, Ecosystem, Qualifiers, Range, SeverityScore, Status};

use super::super::csaf::{
    self, Component, Document, DocumentError, Parsed, Products, Vulnerability,
};
use super::super::purl::Purl;
use super::SOURCE;
use super::platform::{Platform, major_of_version};
use crate::parse::{MAX_AFFECTED, text};

/// A package named for all of these is named for all there are.
const ARCHES: [&str; 3] = ["x86_64", "aarch64", "s390x"];

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, DocumentError> {
    let document: Document = serde_json::from_slice(bytes)?;
    let id = document.document.tracking.id.as_str();
    if !text::is_id(id) {
        return Err(DocumentError::Id);
    }
    if document.document.tracking.status == "deleted" {
        return Ok(Parsed::Deleted(id.to_owned()));
    }
    let products = Products::of(&document.product_tree);
    let mut rows = Rows::default();
    for one in &document.vulnerabilities {
        rows.read(one, &products);
    }
    let affected = rows.finish();
    if affected.is_empty() {
        return Ok(Parsed::Nothing(id.to_owned()));
    }
    if affected.len() > MAX_AFFECTED {
        return Err(DocumentError::TooMany);
    }
    let mut advisory = csaf::advisory(&document, SOURCE);
    let cves = document.vulnerabilities.iter().filter_map(|one| one.cve.as_deref());
    for cve in cves.filter(|cve| text::is_cve(cve) && *cve != id).take(text::MAX_IDS) {
        advisory.upstream.push(cve.to_owned());
    }
    advisory.affected = affected;
    Ok(Parsed::Advisory(advisory))
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    namespace: String,
    package: String,
    by_source: bool,
    module: String,
    status: Status,
    fixed: String,
    severities: Vec<SeverityScore>,
}

#[derive(Default)]
struct Where {
    arches: BTreeSet<String>,
    every_arch: bool,
    repositories: BTreeSet<String>,
    every_repository: bool,
}

#[derive(Default)]
struct Rows {
    rows: BTreeMap<Key, Where>,
}

impl Rows {
    fn read(&mut self, one: &Vulnerability, products: &Products<'_>) {
        let refused = refusals(one, products);
        let impacts = csaf::impacts(one, products);
        for (status, ids) in &one.product_status {
            let status = match status.as_str() {
                "fixed" | "first_fixed" => Status::Fixed,
                "known_affected" | "first_affected" | "last_affected" => Status::Affected,
                "known_not_affected" => Status::NotAffected,
                "under_investigation" => Status::UnderInvestigation,
                _ => continue,
            };
            for id in ids {
                let status = match status {
                    Status::Affected => refused.get(id.as_str()).copied().unwrap_or(status),
                    other => other,
                };
                let word = impacts.get(id.as_str()).copied().unwrap_or_default();
                if let Some(component) = products.component(id) {
                    self.add(&component, status, word);
                }
            }
        }
    }

    /// What is no rpm, or of no release, is left out.
    fn add(&mut self, component: &Component<'_>, status: Status, word: &str) -> Option<()> {
        let platform = Platform::of(component.cpe?)?;
        let package = Package::of(component, &platform)?;
        let major = platform.major.or_else(|| major_of_version(&package.version))?;
        let fixed = status == Status::Fixed;
        if fixed && (package.version.is_empty() || package.is_debug()) {
            return None;
        }
        if status == Status::NotAffected && !package.version.is_empty() {
            // A build of it is not affected: shipped in an erratum beside others that are. Of
            // earlier builds this says nothing.
            return None;
        }
        let key = Key {
            namespace: format!("rhel:{major}"),
            package: package.name,
            by_source: package.by_source,
            module: package.module,
            status,
            fixed: if fixed { package.version } else { String::new() },
            severities: text::word(SOURCE, word).into_iter().collect(),
        };
        let place = self.rows.entry(key).or_default();
        match package.arch {
            Some(arch) if arch != "noarch" && arch != "src" => {
                place.arches.insert(arch);
            }
            _ => place.every_arch = true,
        }
        match platform.repository {
            Some(repository) => {
                place.repositories.insert(repository);
            }
            None => place.every_repository = true,
        }
        Some(())
    }

    fn finish(self) -> Vec<Affected> {
        let binaries: HashSet<(String, String)> = self
            .rows
            .keys()
            .filter(|key| !key.by_source && key.status == Status::Fixed)
            .map(|key| (key.namespace.clone(), release_of(&key.fixed).to_owned()))
            .collect();
        let sources: HashSet<String> = self
            .rows
            .keys()
            .filter(|key| key.by_source && key.status == Status::NotAffected)
            .map(|key| key.namespace.clone())
            .collect();
        let affected_somewhere: HashSet<(String, String)> = self
            .rows
            .keys()
            .filter(|key| key.status != Status::NotAffected)
            .map(|key| (key.namespace.clone(), key.package.clone()))
            .collect();
        let needed = |key: &Key| match key.status {
            Status::NotAffected
                if affected_somewhere.contains(&(key.namespace.clone(), key.package.clone())) =>
            {
                false
            }
            // A fix lists the binary packages, whose versions can differ from the source's.
            Status::Fixed if key.by_source => {
                !binaries.contains(&(key.namespace.clone(), release_of(&key.fixed).to_owned()))
            }
            // The source package stands for its binary ones.
            Status::NotAffected if !key.by_source => !sources.contains(&key.namespace),
            _ => true,
        };
        self.rows.into_iter().filter(|(key, _)| needed(key)).map(affected).collect()
    }
}

/// Version and release without the epoch.
fn release_of(version: &str) -> &str {
    version.split_once(':').map_or(version, |(_, rest)| rest)
}

fn affected((key, place): (Key, Where)) -> Affected {
    let all = place.every_arch || ARCHES.iter().all(|arch| place.arches.contains(*arch));
    let ranges = if key.fixed.is_empty() {
        Vec::new()
    } else {
        vec![Range { introduced: None, until: Bound::Fixed(key.fixed) }]
    };
    let repositories =
        if place.every_repository { Vec::new() } else { place.repositories.into_iter().collect() };
    Affected {
        namespace: key.namespace,
        ecosystem: Ecosystem::Rpm,
        package: key.package,
        by_source: key.by_source,
        status: key.status,
        ranges,
        versions: Vec::new(),
        qualifiers: Qualifiers {
            arches: if all { Vec::new() } else { place.arches.into_iter().collect() },
            module: key.module,
            repositories,
        },
        severities: key.severities,
        symbols: Vec::new(),
    }
}

/// Products for which there is no fix to come, and why.
fn refusals<'a>(one: &'a Vulnerability, products: &'a Products<'_>) -> HashMap<&'a str, Status> {
    let mut out = HashMap::new();
    for remedy in &one.remediations {
        let details = remedy.details.trim().to_ascii_lowercase();
        let status = match (remedy.category.as_str(), details.as_str()) {
            (_, "out of support scope") => Status::EndOfLife,
            ("no_fix_planned", _) | (_, "will not fix") => Status::WillNotFix,
            (_, "fix deferred") => Status::FixDeferred,
            (_, "under investigation") => Status::UnderInvestigation,
            _ => continue,
        };
        for id in products.about(&remedy.product_ids, &remedy.group_ids) {
            out.insert(id, status);
        }
    }
    out
}

/// An rpm that a product id names.
struct Package {
    name: String,
    /// `epoch:version-release`, the epoch only if it is not 0; empty if none is named.
    version: String,
    arch: Option<String>,
    by_source: bool,
    module: String,
}

impl Package {
    fn of(component: &Component<'_>, platform: &Platform) -> Option<Self> {
        let Some(purl) = component.purl else {
            return Self::by_name(component.id, platform);
        };
        let purl = Purl::parse(purl)?;
        if purl.kind != "rpm" {
            return None;
        }
        let arch = purl.qualifier("arch").map(str::to_owned);
        let module = match purl.qualifier("rpmmod") {
            Some(module) => stream(module)?,
            None => component.module_purl.and_then(module_of_purl).unwrap_or_default(),
        };
        let epoch = purl.qualifier("epoch").or_else(|| epoch_of_nevra(component.id, &purl.name));
        let version = match epoch {
            Some(epoch) if epoch != "0" && !purl.version.is_empty() => {
                let figures = epoch.len() <= 10 && epoch.bytes().all(|byte| byte.is_ascii_digit());
                figures.then(|| format!("{epoch}:{}", purl.version))?
            }
            _ => purl.version,
        };
        let by_source = arch.as_deref() == Some("src");
        Some(Self { name: purl.name, version, arch, by_source, module })
    }

    /// A component that is a name alone is one of a source package, if the platform is a release.
    fn by_name(id: &str, platform: &Platform) -> Option<Self> {
        let name = id.strip_suffix(".src").unwrap_or(id);
        let plain = text::is_name(name) && !name.contains(['/', '@', ':', ' ']);
        (plain && platform.repository.is_none()).then(|| Self {
            name: name.to_owned(),
            version: String::new(),
            arch: None,
            by_source: true,
            module: String::new(),
        })
    }

    fn is_debug(&self) -> bool {
        self.name.ends_with("-debuginfo")
            || self.name.ends_with("-debugsource")
            || self.name.contains("-debuginfo-common")
    }
}

/// `curl-0:7.76.1-14.el9_0.9.aarch64` to `0`.
fn epoch_of_nevra<'a>(nevra: &'a str, name: &str) -> Option<&'a str> {
    nevra.strip_prefix(name)?.strip_prefix('-')?.split_once(':').map(|(epoch, _)| epoch)
}

/// `postgresql:15:9040020240812115436:rhel9` to `postgresql:15`. Something that is no stream (a
/// flatpak's `rhel10`) names no rpm of a release.
fn stream(module: &str) -> Option<String> {
    let mut parts = module.split(':');
    let (name, stream) = (parts.next()?, parts.next()?);
    (text::is_name(name) && text::is_name(stream)).then(|| format!("{name}:{stream}"))
}

/// `pkg:rpmmod/redhat/postgresql@13:8060020240903094008:ad008a3a` to `postgresql:13`.
fn module_of_purl(purl: &str) -> Option<String> {
    let purl = Purl::parse(purl)?;
    (purl.kind == "rpmmod").then(|| stream(&format!("{}:{}", purl.name, purl.version)))?
}

#[cfg(test)]
mod tests {
    use super::{epoch_of_nevra, module_of_purl, stream};

    #[test]
    fn modules_and_epochs() {
        for (module, want) in [
            ("postgresql:15:9040020240812115436:rhel9", Some("postgresql:15")),
            ("go-toolset:rhel8", Some("go-toolset:rhel8")),
            ("rhel10", None),
            (":", None),
        ] {
            assert_eq!(stream(module).as_deref(), want, "{module}");
        }
        let purl = "pkg:rpmmod/redhat/postgresql@13:8060020240903094008:ad008a3a";
        assert_eq!(module_of_purl(purl).as_deref(), Some("postgresql:13"));
        assert_eq!(epoch_of_nevra("bind-32:9.16-1.el8.src", "bind"), Some("32"));
        assert_eq!(epoch_of_nevra("bind", "bind"), None);
    }
}
