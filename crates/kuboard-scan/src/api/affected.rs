//! Which of the indexed manifests some vulnerabilities concern.
//!
//! A vulnerability that the advisories know by name and package is judged by them, as in every
//! report; one that they don't know by the version that it says fixes it.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, HashMap, HashSet},
};

use http::{Method, StatusCode};
use kuboard_feeds::database::Database;
use kuboard_oci::Digest;
use kuboard_rt::http::RequestBody;
use kuboard_vuln::{
    Distribution, Ecosystem, Finding, Report, Severity, lookup::name_key, namespace, version,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    answer::{Answer, Head, Outcome, Refusal, read},
    clair::ClairApi,
    content::choose,
    vulnerabilities::{repository_name, severity_of},
};

const MAX_BODY: usize = 32 << 20;
const MAX_VULNERABILITIES: usize = 20_000;
const TYPE: &str = "application/vnd.clair.affected_manifests.v1+json";

#[derive(Deserialize)]
struct Asked {
    #[serde(default, deserialize_with = "or_nothing")]
    vulnerabilities: Vec<Value>,
}

/// What is read of a vulnerability; all of it is given back as it came.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Wanted {
    #[serde(deserialize_with = "or_nothing")]
    id: String,
    #[serde(deserialize_with = "or_nothing")]
    name: String,
    #[serde(deserialize_with = "or_nothing")]
    normalized_severity: String,
    #[serde(deserialize_with = "or_nothing")]
    fixed_in_version: String,
    package: Option<Named>,
    #[serde(alias = "dist")]
    distribution: Option<Release>,
    #[serde(alias = "repo")]
    repository: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    #[serde(deserialize_with = "or_nothing")]
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Release {
    #[serde(deserialize_with = "or_nothing")]
    did: String,
    #[serde(deserialize_with = "or_nothing")]
    version_id: String,
}

/// `null` is nothing.
fn or_nothing<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Serialize, Default)]
struct Affected {
    vulnerabilities: BTreeMap<String, Value>,
    vulnerable_manifests: BTreeMap<String, Vec<String>>,
}

/// A vulnerability in our words.
struct Question {
    wanted: Wanted,
    package: String,
    ecosystem: Ecosystem,
    /// As the inverted index has it.
    key: String,
    /// The advisories know it.
    is_known: bool,
}

impl ClairApi {
    /// `affected_manifest`.
    pub(super) async fn affected_manifests(&self, head: &Head, body: RequestBody) -> Outcome {
        head.expect(&[Method::POST])?;
        let media_type = choose(&head.headers, &[TYPE, "application/json"])?;
        let malformed = |error: serde_json::Error| {
            Refusal::bad(format!("failed to deserialize vulnerabilities: {error}"))
        };
        let asked: Asked =
            serde_json::from_slice(&read(body, MAX_BODY).await?).map_err(malformed)?;
        if asked.vulnerabilities.len() > MAX_VULNERABILITIES {
            return Err(Refusal::bad(format!("more than {MAX_VULNERABILITIES} vulnerabilities")));
        }
        let database = self.engine.database();
        let mut given = BTreeMap::new();
        let mut questions: HashMap<String, Vec<Question>> = HashMap::new();
        for value in asked.vulnerabilities {
            let wanted = Wanted::deserialize(&value).map_err(malformed)?;
            let Some(question) = Question::of(wanted, database.as_deref()) else { continue };
            given.insert(question.wanted.id.clone(), value);
            questions.entry(question.key.clone()).or_default().push(question);
        }
        let found = self.answer_all(&questions).await?;
        let mut affected = Affected::default();
        for (image, mut ids) in found {
            ids.sort_by_key(|(severity, _)| Reverse(*severity));
            for (_, id) in &ids {
                if let Some((id, value)) = given.remove_entry(id) {
                    affected.vulnerabilities.insert(id, value);
                }
            }
            let ids = ids.into_iter().map(|(_, id)| id).collect();
            affected.vulnerable_manifests.insert(image.to_string(), ids);
        }
        Answer::json(StatusCode::OK, media_type, &affected)
    }

    /// By image, what concerns it.
    async fn answer_all(
        &self,
        questions: &HashMap<String, Vec<Question>>,
    ) -> Result<Vec<(Digest, Vec<(Severity, String)>)>, Refusal> {
        let keys: Vec<String> = questions.keys().cloned().collect();
        let mut all = Vec::new();
        if keys.is_empty() {
            return Ok(all);
        }
        for image in self.engine.catalog().images_with(&keys).await? {
            let Some(report) = self.report(&image).await? else { continue };
            let mut seen = HashSet::new();
            let mut ids = Vec::new();
            let own = crate::assemble::keys(&inventory_of(&report));
            for question in own.iter().filter_map(|key| questions.get(key)).flatten() {
                if question.concerns(&report) && seen.insert(&question.wanted.id) {
                    let severity = severity_of(&question.wanted.normalized_severity);
                    ids.push((severity, question.wanted.id.clone()));
                }
            }
            if !ids.is_empty() {
                all.push((image, ids));
            }
        }
        Ok(all)
    }
}

/// As much of an inventory as a report has.
fn inventory_of(report: &Report) -> kuboard_vuln::ImageInventory {
    kuboard_vuln::ImageInventory {
        distribution: report.distribution.clone(),
        packages: report.packages.clone(),
        ..kuboard_vuln::ImageInventory::default()
    }
}

impl Question {
    /// `None` if it has no package, or one at no home that is known.
    fn of(wanted: Wanted, database: Option<&Database>) -> Option<Self> {
        let package = wanted.package.as_ref().map(|package| package.name.clone())?;
        let language = wanted.repository.as_ref().and_then(|repository| {
            let name = repository.name.as_str();
            Ecosystem::ALL.into_iter().find(|one| repository_name(*one) == Some(name))
        });
        let (space, ecosystem) = match (language, &wanted.distribution) {
            (Some(language), _) => (namespace::of_language(language)?.to_owned(), language),
            (None, Some(release)) => {
                let distribution = Distribution {
                    id: release.did.clone(),
                    version_id: release.version_id.clone(),
                    ..Distribution::default()
                };
                let space = namespace::of_distribution(&distribution)?;
                (space, ecosystem_of(&release.did))
            }
            (None, None) => return None,
        };
        if package.is_empty() || wanted.id.is_empty() {
            return None;
        }
        let key = format!("{space} {}", name_key(ecosystem, &package));
        let is_known = database.is_some_and(|database| {
            database.find(&wanted.name).iter().flat_map(|one| &one.affected).any(|affected| {
                affected.namespace == space
                    && name_key(ecosystem, &affected.package) == name_key(ecosystem, &package)
            })
        });
        Some(Self { wanted, package, ecosystem, key, is_known })
    }

    fn concerns(&self, report: &Report) -> bool {
        let wanted = name_key(self.ecosystem, &self.package);
        let is_named = |package: &kuboard_vuln::Package| {
            package.ecosystem == self.ecosystem
                && (name_key(self.ecosystem, &package.name) == wanted
                    || package
                        .source
                        .as_ref()
                        .is_some_and(|source| name_key(self.ecosystem, &source.name) == wanted))
        };
        if self.is_known {
            let name = &self.wanted.name;
            let is_it = |finding: &Finding| {
                finding.id == *name || finding.advisory == *name || finding.aliases.contains(name)
            };
            return report.findings.iter().any(|one| is_it(one) && is_named(&one.package));
        }
        let fixed = self.wanted.fixed_in_version.as_str();
        report.packages.iter().filter(|placed| is_named(&placed.package)).any(|placed| {
            let package = &placed.package;
            let by_source = name_key(self.ecosystem, &package.name) != wanted;
            let installed = if by_source { package.source_or_self().1 } else { &package.version };
            fixed.is_empty()
                || version::compare(self.ecosystem.scheme(), installed, fixed)
                    .is_ok_and(|order| order == Ordering::Less)
        })
    }
}

/// The kind of a distribution's packages.
pub(crate) fn ecosystem_of(distribution: &str) -> Ecosystem {
    match distribution {
        "debian" | "ubuntu" | "echo" => Ecosystem::Deb,
        "alpine" | "wolfi" | "chainguard" | "minimos" => Ecosystem::Apk,
        _ => Ecosystem::Rpm,
    }
}
