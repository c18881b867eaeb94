//! Inventories and findings to Clair's tables.

use std::collections::{BTreeMap, HashMap, HashSet};

use kuboard_vuln::{Ecosystem, Finding, LayerReference, PlacedPackage, Report, Severity};

use super::{Distribution, Environment, Package, Repository, Vulnerability, cpe};
use crate::report::{counts, dates, text};

/// What Go writes for a time that is not known.
const NO_TIME: &str = "0001-01-01T00:00:00Z";
/// The only distribution's id.
const DISTRIBUTION: &str = "1";
/// Red Hat's repositories.
const CPE_REPOSITORY: &str = "rhel-cpe-repository";

/// What both documents have in common.
#[derive(Default)]
pub(super) struct Contents {
    pub packages: BTreeMap<String, Package>,
    pub distributions: BTreeMap<String, Distribution>,
    pub repositories: BTreeMap<String, Repository>,
    pub environments: BTreeMap<String, Vec<Environment>>,
    ids: HashMap<kuboard_vuln::Package, String>,
    repository_ids: HashMap<String, String>,
}

impl Contents {
    pub(super) fn of(
        distribution: Option<&kuboard_vuln::Distribution>,
        layers: &[LayerReference],
        placed: &[PlacedPackage],
    ) -> Self {
        let mut contents = Self::default();
        if let Some(distribution) = distribution {
            contents
                .distributions
                .insert(DISTRIBUTION.to_owned(), self::distribution(distribution));
        }
        let mut sources = HashMap::new();
        for one in placed {
            let id = contents.package(&one.package, &mut sources);
            let layer = usize::try_from(one.layer).ok().and_then(|index| layers.get(index));
            let is_os = one.package.ecosystem.is_os();
            let environment = Environment {
                package_db: package_db(one.package.ecosystem, &one.path),
                introduced_in: layer.map(|layer| layer.digest.to_string()).unwrap_or_default(),
                distribution_id: if is_os && distribution.is_some() {
                    DISTRIBUTION.to_owned()
                } else {
                    String::new()
                },
                repository_ids: contents.repositories_of(&one.package),
            };
            contents.environments.entry(id).or_default().push(environment);
        }
        contents
    }

    /// The id of a package; all ids of packages and their sources are of one row of numbers.
    fn package(
        &mut self,
        package: &kuboard_vuln::Package,
        sources: &mut HashMap<(Ecosystem, String, String), String>,
    ) -> String {
        if let Some(id) = self.ids.get(package) {
            return id.clone();
        }
        let id = (self.ids.len() + sources.len() + 1).to_string();
        self.ids.insert(package.clone(), id.clone());
        let source = package.ecosystem.is_os().then(|| {
            let (name, version) = package.source_or_self();
            let next = (self.ids.len() + sources.len() + 1).to_string();
            let key = (package.ecosystem, name.to_owned(), version.to_owned());
            let id = sources.entry(key).or_insert(next).clone();
            Box::new(Package {
                id,
                name: name.to_owned(),
                version: version.to_owned(),
                kind: "source".to_owned(),
                ..Package::default()
            })
        });
        let row = Package {
            id: id.clone(),
            name: package.name.clone(),
            version: package.version.clone(),
            kind: "binary".to_owned(),
            source,
            module: package.module.clone().unwrap_or_default(),
            arch: package.arch.clone().unwrap_or_default(),
            ..Package::default()
        };
        self.packages.insert(id.clone(), row);
        id
    }

    fn repositories_of(&mut self, package: &kuboard_vuln::Package) -> Vec<String> {
        let mut ids = Vec::new();
        if let Some(repository) = of_language(package.ecosystem) {
            ids.push(self.repository(repository));
        }
        for name in &package.repositories {
            let cpe = cpe::normalised(name);
            let key = if cpe.is_empty() { String::new() } else { CPE_REPOSITORY.to_owned() };
            let name = name.clone();
            ids.push(self.repository(Repository { name, key, cpe, ..Repository::default() }));
        }
        ids
    }

    fn repository(&mut self, mut repository: Repository) -> String {
        if let Some(id) = self.repository_ids.get(&repository.name) {
            return id.clone();
        }
        let id = (self.repositories.len() + 1).to_string();
        self.repository_ids.insert(repository.name.clone(), id.clone());
        repository.id.clone_from(&id);
        self.repositories.insert(id.clone(), repository);
        id
    }

    /// Vulnerabilities by id, their ids by package, and the id for each finding, in order.
    pub(super) fn vulnerabilities(&self, report: &Report) -> Vulnerabilities {
        let mut rows = BTreeMap::new();
        let mut by_package: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut known = HashMap::new();
        let mut paired = HashSet::new();
        let mut ids = Vec::with_capacity(report.findings.len());
        for finding in &report.findings {
            let next = known.len() + 1;
            let number = *known.entry(judgement(finding)).or_insert(next);
            let id = number.to_string();
            if number == next {
                let row = Vulnerability { id: id.clone(), ..self.vulnerability(finding) };
                rows.insert(id.clone(), row);
            }
            // A report that was made by hand may name packages that it does not list.
            if let Some(package) = self.ids.get(&finding.package)
                && paired.insert((package.clone(), id.clone()))
            {
                by_package.entry(package.clone()).or_default().push(id.clone());
            }
            ids.push(id);
        }
        (rows, by_package, ids)
    }

    /// The row without its id.
    fn vulnerability(&self, finding: &Finding) -> Vulnerability {
        let is_os = finding.package.ecosystem.is_os();
        let name = affected(finding);
        let links = finding.references.iter().filter_map(|one| text::link(&one.url));
        let own = finding.scores.iter().find(|score| score.source == finding.severity_source);
        let normalized = counts::title(finding.severity);
        let description =
            if finding.details.is_empty() { &finding.summary } else { &finding.details };
        let distribution = self.distributions.get(DISTRIBUTION).filter(|_| is_os);
        Vulnerability {
            id: String::new(),
            updater: finding.source.clone(),
            name: finding.id.clone(),
            description: description.clone(),
            issued: finding.published_ms.map_or_else(|| NO_TIME.to_owned(), dates::rfc3339),
            links: links.collect::<Vec<_>>().join(" "),
            severity: own.map_or_else(|| normalized.to_owned(), |score| score.value.clone()),
            normalized_severity: normalized.to_owned(),
            package: Some(Package {
                name: name.to_owned(),
                kind: if is_os { "source" } else { "binary" }.to_owned(),
                ..Package::default()
            }),
            distribution: distribution.cloned(),
            repository: of_language(finding.package.ecosystem).map(|mut repository| {
                if let Some(id) = self.repository_ids.get(&repository.name) {
                    repository.id.clone_from(id);
                }
                repository
            }),
            fixed_in_version: finding.fixed_in.first().cloned().unwrap_or_default(),
            arch_op: "equals".to_owned(),
        }
    }
}

/// The package that the advisory is about: of a distribution, the source package.
fn affected(finding: &Finding) -> &str {
    let package = &finding.package;
    if package.ecosystem.is_os() { package.source_or_self().0 } else { &package.name }
}

/// What findings that share a row have in common: the advisory's word on the affected package.
fn judgement(finding: &Finding) -> (Severity, [&str; 7]) {
    let fixed = finding.fixed_in.first().map(String::as_str).unwrap_or_default();
    let texts = [
        &finding.id,
        &finding.source,
        &finding.advisory,
        &finding.namespace,
        &finding.severity_source,
        affected(finding),
        fixed,
    ];
    (finding.severity, texts)
}

/// What [`Contents::vulnerabilities`] gives.
pub(super) type Vulnerabilities =
    (BTreeMap<String, Vulnerability>, BTreeMap<String, Vec<String>>, Vec<String>);

fn distribution(distribution: &kuboard_vuln::Distribution) -> Distribution {
    Distribution {
        id: DISTRIBUTION.to_owned(),
        did: distribution.id.clone(),
        name: distribution.name.clone(),
        version: distribution.version.clone(),
        version_code_name: distribution.codename.clone(),
        version_id: distribution.version_id.clone(),
        arch: String::new(),
        cpe: cpe::normalised(&distribution.cpe),
        pretty_name: distribution.pretty_name.clone(),
    }
}

/// The name and address that Clair gives the home of a language's packages.
fn of_language(ecosystem: Ecosystem) -> Option<Repository> {
    let (name, uri) = match ecosystem {
        Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Rpm => return None,
        Ecosystem::Golang => ("go", "https://pkg.go.dev/"),
        Ecosystem::Cargo => ("crates.io", "https://crates.io/"),
        Ecosystem::Pypi => ("pypi", "https://pypi.org/simple"),
        Ecosystem::Npm => ("npm", "https://www.npmjs.com/"),
        Ecosystem::Maven => ("maven", "https://repo1.maven.apache.org/maven2"),
        Ecosystem::Gem => ("rubygems", "https://rubygems.org/gems/"),
        Ecosystem::Nuget => ("nuget", "https://www.nuget.org/"),
        Ecosystem::Composer => ("packagist", "https://packagist.org/"),
        Ecosystem::Cran => ("cran", "https://cran.r-project.org/"),
    };
    Some(Repository { name: name.to_owned(), uri: uri.to_owned(), ..Repository::default() })
}

/// How Clair names the place of a package: rpm's by kind and folder, languages' by language.
fn package_db(ecosystem: Ecosystem, path: &str) -> String {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    match ecosystem {
        Ecosystem::Rpm => match file {
            "rpmdb.sqlite" => format!("sqlite:{folder}"),
            "Packages.db" => format!("ndb:{folder}"),
            "Packages" => format!("bdb:{folder}"),
            _ => path.to_owned(),
        },
        Ecosystem::Deb | Ecosystem::Apk => path.to_owned(),
        Ecosystem::Golang => format!("go:{path}"),
        Ecosystem::Pypi => format!("python:{path}"),
        Ecosystem::Npm => format!("nodejs:{path}"),
        Ecosystem::Maven => format!("maven:{path}"),
        Ecosystem::Gem => format!("ruby:{path}"),
        other => format!("{}:{path}", other.as_str()),
    }
}
