//! CSAF 2.0 (<https://docs.oasis-open.org/csaf/csaf/v2.0/>), the profile `csaf_vex`, as the vendors
//! of distributions write it: which product (platform and component) has which status for a CVE.

use std::collections::HashMap;

use kuboard_vuln::Advisory;
use serde::Deserialize;

use super::{Summary, text};
use crate::Sink;

/// A relationship leads from a component over a module to a platform: never further than this.
const MAX_STEPS: usize = 8;
/// Branches are nested no deeper; the JSON reader bounds them at 128 already.
const MAX_BRANCHES: usize = 2_000_000;

#[derive(Deserialize)]
pub(super) struct Document {
    pub document: Head,
    #[serde(default)]
    pub product_tree: Tree,
    #[serde(default)]
    pub vulnerabilities: Vec<Vulnerability>,
}

#[derive(Deserialize)]
pub(super) struct Head {
    pub tracking: Tracking,
    #[serde(default)]
    pub title: String,
    pub aggregate_severity: Option<Text>,
    #[serde(default)]
    pub references: Vec<Link>,
}

#[derive(Deserialize)]
pub(super) struct Tracking {
    pub id: String,
    #[serde(default)]
    pub status: String,
    pub current_release_date: Option<String>,
    pub initial_release_date: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Text {
    #[serde(default)]
    pub text: String,
}

#[derive(Deserialize)]
pub(super) struct Link {
    #[serde(default)]
    pub category: String,
    #[serde(default)]
    pub url: String,
}

#[derive(Deserialize, Default)]
pub(super) struct Tree {
    #[serde(default)]
    branches: Vec<Branch>,
    #[serde(default)]
    full_product_names: Vec<ProductName>,
    #[serde(default)]
    relationships: Vec<Relationship>,
    #[serde(default)]
    product_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Branch {
    #[serde(default)]
    branches: Vec<Branch>,
    product: Option<ProductName>,
}

#[derive(Deserialize)]
struct ProductName {
    product_id: String,
    #[serde(default)]
    name: String,
    product_identification_helper: Option<Helper>,
}

#[derive(Deserialize, Default)]
struct Helper {
    cpe: Option<String>,
    purl: Option<String>,
}

#[derive(Deserialize)]
struct Relationship {
    full_product_name: ProductName,
    product_reference: String,
    relates_to_product_reference: String,
}

#[derive(Deserialize)]
struct Group {
    group_id: String,
    #[serde(default)]
    product_ids: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Vulnerability {
    pub cve: Option<String>,
    #[serde(default)]
    pub title: String,
    pub cwe: Option<Weakness>,
    #[serde(default)]
    pub notes: Vec<Note>,
    pub release_date: Option<String>,
    #[serde(default)]
    pub product_status: HashMap<String, Vec<String>>,
    #[serde(default)]
    pub remediations: Vec<Remediation>,
    #[serde(default)]
    pub threats: Vec<Threat>,
    #[serde(default)]
    pub scores: Vec<Score>,
    #[serde(default)]
    pub references: Vec<Link>,
}

#[derive(Deserialize)]
pub(super) struct Weakness {
    #[serde(default)]
    pub id: String,
}

#[derive(Deserialize)]
pub(super) struct Note {
    #[serde(default)]
    pub category: String,
    #[serde(default)]
    pub text: String,
}

#[derive(Deserialize)]
pub(super) struct Remediation {
    #[serde(default)]
    pub category: String,
    #[serde(default)]
    pub details: String,
    #[serde(default)]
    pub product_ids: Vec<String>,
    #[serde(default)]
    pub group_ids: Vec<String>,
    #[serde(default)]
    pub url: String,
}

#[derive(Deserialize)]
pub(super) struct Threat {
    #[serde(default)]
    pub category: String,
    #[serde(default)]
    pub details: String,
    #[serde(default)]
    pub product_ids: Vec<String>,
    #[serde(default)]
    pub group_ids: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Score {
    pub cvss_v2: Option<Cvss>,
    pub cvss_v3: Option<Cvss>,
    pub cvss_v4: Option<Cvss>,
}

#[derive(Deserialize)]
pub(super) struct Cvss {
    #[serde(rename = "vectorString", default)]
    pub vector: String,
}

impl Score {
    pub(super) fn vectors(&self) -> impl Iterator<Item = &str> {
        [&self.cvss_v4, &self.cvss_v3, &self.cvss_v2]
            .into_iter()
            .flatten()
            .map(|score| score.vector.as_str())
    }
}

/// The product tree, looked up by id.
pub(super) struct Products<'a> {
    names: HashMap<&'a str, &'a ProductName>,
    relations: HashMap<&'a str, (&'a str, &'a str)>,
    groups: HashMap<&'a str, &'a [String]>,
}

/// A product that is a component of a platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Component<'a> {
    /// Product id of the component itself: `curl-0:7.76.1-14.el9.x86_64`, `curl`.
    pub id: &'a str,
    pub purl: Option<&'a str>,
    /// Package URL of the module in between, if there is one.
    pub module_purl: Option<&'a str>,
    /// The platform's name and CPE.
    pub platform: &'a str,
    pub cpe: Option<&'a str>,
}

impl<'a> Products<'a> {
    pub(super) fn of(tree: &'a Tree) -> Self {
        let mut names = HashMap::new();
        let mut todo: Vec<&Branch> = tree.branches.iter().collect();
        let mut seen = 0_usize;
        while let Some(branch) = todo.pop() {
            seen += 1;
            if seen > MAX_BRANCHES {
                break;
            }
            if let Some(product) = &branch.product {
                names.insert(product.product_id.as_str(), product);
            }
            todo.extend(&branch.branches);
        }
        for product in &tree.full_product_names {
            names.insert(product.product_id.as_str(), product);
        }
        let relations = tree
            .relationships
            .iter()
            .map(|one| {
                let ends =
                    (one.product_reference.as_str(), one.relates_to_product_reference.as_str());
                (one.full_product_name.product_id.as_str(), ends)
            })
            .collect();
        let groups = tree
            .product_groups
            .iter()
            .map(|group| (group.group_id.as_str(), group.product_ids.as_slice()))
            .collect();
        Self { names, relations, groups }
    }

    /// What a product id of a status means; `None` where it is not a component of a platform.
    pub(super) fn component(&self, id: &str) -> Option<Component<'a>> {
        let (mut component, mut platform) = *self.relations.get(id)?;
        let mut module = None;
        for _ in 0..MAX_STEPS {
            if let Some((inner, _)) = self.relations.get(component) {
                component = inner;
            } else if let Some((middle, outer)) = self.relations.get(platform) {
                module = self.names.get(middle).copied();
                platform = outer;
            } else {
                break;
            }
        }
        let product = self.names.get(component);
        let home = self.names.get(platform)?;
        Some(Component {
            id: product.map_or(component, |product| product.product_id.as_str()),
            purl: product.and_then(|product| helper(product).purl.as_deref()),
            module_purl: module.and_then(|module| helper(module).purl.as_deref()),
            platform: &home.name,
            cpe: helper(home).cpe.as_deref(),
        })
    }

    /// The products that a remediation or a threat is about.
    pub(super) fn about<'b>(
        &'b self,
        ids: &'b [String],
        groups: &'b [String],
    ) -> impl Iterator<Item = &'b str> {
        let grouped = groups.iter().filter_map(|group| self.groups.get(group.as_str())).copied();
        ids.iter().chain(grouped.flatten()).map(String::as_str)
    }
}

fn helper(product: &ProductName) -> &Helper {
    static NONE: Helper = Helper { cpe: None, purl: None };
    product.product_identification_helper.as_ref().unwrap_or(&NONE)
}

/// Why a document is skipped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Not a CSAF document.
    #[error("not a CSAF document: {0}")]
    Json(#[from] serde_json::Error),
    /// The id cannot be one.
    #[error("it has no usable id")]
    Id,
    /// Too many products.
    #[error("it names too many products")]
    TooMany,
}

/// What a document says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// An advisory, with all packages that an image can hold.
    Advisory(Advisory),
    /// Nothing of that vulnerability concerns packages of images.
    Nothing(String),
    /// The vulnerability is gone: deleted by the vendor.
    Deleted(String),
}

impl Parsed {
    /// Gives it to the sink.
    pub(super) fn give(self, source: &str, summary: &mut Summary, sink: &mut dyn Sink) {
        match self {
            Parsed::Advisory(advisory) => {
                summary.read(advisory.modified_ms);
                sink.advisory(advisory);
            }
            Parsed::Nothing(id) | Parsed::Deleted(id) => {
                summary.ignored += 1;
                sink.retract(source, &id);
            }
        }
    }
}

/// Everything of an advisory but its packages.
pub(super) fn advisory(document: &Document, source: &str) -> Advisory {
    let head = &document.document;
    let mut advisory = Advisory {
        source: source.to_owned(),
        id: head.tracking.id.clone(),
        summary: text::line(&head.title),
        modified_ms: head.tracking.current_release_date.as_deref().and_then(text::time_ms),
        published_ms: head.tracking.initial_release_date.as_deref().and_then(text::time_ms),
        ..Advisory::default()
    };
    let mut links: Vec<(&str, &str)> = Vec::new();
    let kind = |category: &str| if category == "self" { "advisory" } else { "web" };
    for one in &document.vulnerabilities {
        if !one.title.is_empty() {
            advisory.summary = text::line(&one.title);
        }
        if let Some(note) = one.notes.iter().find(|note| note.category == "description")
            && advisory.details.is_empty()
        {
            advisory.details = text::cut(&note.text, text::MAX_DETAILS);
        }
        if let Some(published) = one.release_date.as_deref().and_then(text::time_ms) {
            advisory.published_ms = Some(published);
        }
        advisory
            .cwes
            .extend(one.cwe.iter().map(|cwe| cwe.id.clone()).filter(|id| text::is_cwe(id)));
        links.extend(one.references.iter().map(|link| (kind(&link.category), link.url.as_str())));
        for remedy in one.remediations.iter().filter(|remedy| remedy.category == "vendor_fix") {
            links.push(("fix", &remedy.url));
            let erratum = remedy.url.rsplit('/').next().unwrap_or_default();
            let known = advisory.related.iter().any(|id| id == erratum);
            if text::is_id(erratum) && !known && advisory.related.len() < text::MAX_IDS {
                advisory.related.push(erratum.to_owned());
            }
        }
        let vectors = one.scores.iter().flat_map(Score::vectors).take(64);
        for score in vectors.filter_map(|vector| text::vector(source, vector)) {
            if !advisory.severities.contains(&score) {
                advisory.severities.push(score);
            }
        }
    }
    let references = head.references.iter();
    links.extend(references.map(|link| (kind(&link.category), link.url.as_str())));
    advisory.references = text::references(links.into_iter());
    let word = head.aggregate_severity.as_ref().and_then(|word| text::word(source, &word.text));
    let word = word.or_else(|| {
        let mut threats = document.vulnerabilities.iter().flat_map(|one| &one.threats);
        let impact = threats.find(|threat| threat.category == "impact")?;
        text::word(source, &impact.details)
    });
    advisory.severities.extend(word);
    advisory
}

/// The words of severity that products have for themselves, where they differ.
pub(super) fn impacts<'a>(
    one: &'a Vulnerability,
    products: &'a Products<'_>,
) -> HashMap<&'a str, &'a str> {
    let threats = || one.threats.iter().filter(|threat| threat.category == "impact");
    let mut words = threats().map(|threat| threat.details.as_str());
    let first = words.next();
    if words.all(|word| Some(word) == first) {
        return HashMap::new();
    }
    let of = |threat: &'a Threat| {
        let about = products.about(&threat.product_ids, &threat.group_ids);
        about.map(move |id| (id, threat.details.as_str()))
    };
    threats().flat_map(of).collect()
}
