//! VEX documents of users: statements that a vulnerability does not count in a product.
//!
//! [`parse`] reads OpenVEX and CSAF-VEX (JSON). A statement applies to a finding if it names the
//! vulnerability by one of its ids and, as a product, the package itself (by package URL), or the
//! image (by digest, `pkg:oci` URL or name) with the package, or nothing, as subcomponent. Of
//! several that apply the latest counts: by time where stated, then by order. `not_affected` and
//! `fixed` suppress; `affected` and `under_investigation` leave the finding as it is.
//!
//! Products that say nothing which an image could be checked against (a platform's CPE) match
//! nothing; they are counted in [`Document::unread`].

mod csaf;
mod openvex;
mod purl;

pub use purl::Purl;

use std::collections::{BTreeMap, BTreeSet};

use crate::{Finding, ImageIdentity, Suppression};

/// The longest document that is read.
pub const MAX_BYTES: usize = 32 << 20;
/// Statements of a document that are read.
pub const MAX_STATEMENTS: usize = 100_000;
/// Products of a document that are read.
pub const MAX_PRODUCTS: usize = 200_000;

/// A document.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Document {
    /// Its id.
    pub id: String,
    /// Who made it.
    pub author: String,
    /// Its statements in order; [`Document::push`] adds one.
    statements: Vec<Statement>,
    /// Products, or statements without any, that could not be used.
    pub unread: u64,
    /// Positions of the statements by vulnerability.
    by_id: BTreeMap<String, Vec<usize>>,
}

impl Document {
    /// Adds a statement.
    pub fn push(&mut self, statement: Statement) {
        for id in &statement.vulnerabilities {
            self.by_id.entry(id.clone()).or_default().push(self.statements.len());
        }
        self.statements.push(statement);
    }

    /// The statements on a vulnerability in order, by any of its ids.
    fn on<'a>(&'a self, finding: &'a Finding) -> impl Iterator<Item = &'a Statement> {
        let ids = [&finding.id].into_iter().chain(&finding.aliases);
        let all = ids.filter_map(|id| self.by_id.get(id)).flatten().copied();
        let positions: BTreeSet<usize> = all.collect();
        positions.into_iter().filter_map(|position| self.statements.get(position))
    }
}

/// A statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Ids of the vulnerability, any of them.
    pub vulnerabilities: Vec<String>,
    /// Products, any of them.
    pub products: Vec<Product>,
    /// What it says.
    pub status: VexStatus,
    /// Why: the label or the text.
    pub justification: String,
    /// When, milliseconds since 1970.
    pub at_ms: Option<i64>,
}

/// What a statement says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VexStatus {
    /// The product is not affected.
    NotAffected,
    /// The product is affected.
    Affected,
    /// The product has the fix.
    Fixed,
    /// It is not known yet.
    UnderInvestigation,
}

impl VexStatus {
    /// OpenVEX's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            VexStatus::NotAffected => "not_affected",
            VexStatus::Affected => "affected",
            VexStatus::Fixed => "fixed",
            VexStatus::UnderInvestigation => "under_investigation",
        }
    }
}

/// A product, by everything that identifies it; any one is enough.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Product {
    /// Package URLs.
    pub purls: Vec<Purl>,
    /// Digests, `sha256:…`.
    pub digests: Vec<String>,
    /// Other names, compared with the image's name.
    pub names: Vec<String>,
    /// Parts of the product that the statement is about; empty for the whole.
    pub subcomponents: Vec<Purl>,
}

impl Product {
    fn is_empty(&self) -> bool {
        self.purls.is_empty() && self.digests.is_empty() && self.names.is_empty()
    }
}

/// A document that is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VexError {
    /// Longer than [`MAX_BYTES`].
    #[error("the VEX document has {0} bytes; hint: split it, at most 32 MiB are read")]
    TooLong(usize),
    /// No JSON.
    #[error("the VEX document is not JSON: {0}")]
    Json(String),
    /// Neither OpenVEX nor CSAF.
    #[error("the document is neither OpenVEX nor CSAF; hint: those two, as JSON, are read")]
    Unknown,
    /// More than the limits allow.
    #[error("the VEX document has too many {0}")]
    TooMany(&'static str),
}

/// Reads an OpenVEX or a CSAF document.
///
/// # Errors
/// When it is neither, or larger than the limits of this module.
pub fn parse(json: &[u8]) -> Result<Document, VexError> {
    if json.len() > MAX_BYTES {
        return Err(VexError::TooLong(json.len()));
    }
    let value: serde_json::Value =
        serde_json::from_slice(json).map_err(|err| VexError::Json(err.to_string()))?;
    if value.get("document").is_some_and(serde_json::Value::is_object) {
        csaf::read(&value)
    } else if value.get("statements").is_some_and(serde_json::Value::is_array) {
        openvex::read(&value)
    } else {
        Err(VexError::Unknown)
    }
}

/// What the documents say of a finding, if that takes it away.
#[must_use]
pub fn apply(
    documents: &[Document],
    finding: &Finding,
    image: Option<&ImageIdentity>,
) -> Option<Suppression> {
    let all = documents
        .iter()
        .flat_map(|document| document.on(finding).map(move |statement| (document, statement)));
    let applying = all.filter(|(_, statement)| {
        statement.products.iter().any(|product| speaks_of(product, finding, image))
    });
    // `max_by_key` gives the last of equals: the later document, the later statement.
    let (document, statement) = applying.max_by_key(|(_, statement)| statement.at_ms)?;
    match statement.status {
        VexStatus::Affected | VexStatus::UnderInvestigation => None,
        VexStatus::NotAffected | VexStatus::Fixed => Some(Suppression::Vex {
            author: if document.author.is_empty() { &document.id } else { &document.author }
                .clone(),
            status: statement.status.as_str().to_owned(),
            justification: statement.justification.clone(),
        }),
    }
}

fn speaks_of(product: &Product, finding: &Finding, image: Option<&ImageIdentity>) -> bool {
    let is_package = product.purls.iter().any(|purl| purl.is_package(finding));
    if is_package && product.subcomponents.is_empty() {
        return true;
    }
    let is_part = product.subcomponents.is_empty()
        || product.subcomponents.iter().any(|purl| purl.is_package(finding));
    is_part && (is_package || image.is_some_and(|image| is_image(product, image)))
}

fn is_image(product: &Product, image: &ImageIdentity) -> bool {
    let digests = [&image.digest, &image.config].map(|d| d.as_ref().map(ToString::to_string));
    let has_digest = |digest: &str| digests.iter().flatten().any(|own| own == digest);
    product.digests.iter().any(|digest| has_digest(digest))
        || product.purls.iter().any(|purl| purl.is_image(image, &has_digest))
        || product.names.iter().any(|name| is_name(name, image))
}

/// `registry/repository`, with or without `:tag`, or the name the image was asked for by.
fn is_name(name: &str, image: &ImageIdentity) -> bool {
    if name.is_empty() {
        return false;
    }
    if name == image.name {
        return true;
    }
    let full = format!("{}/{}", image.registry, image.repository);
    !image.repository.is_empty()
        && (name == full
            || name.strip_prefix(&full).and_then(|rest| rest.strip_prefix(':'))
                == Some(image.tag.as_str()))
}

fn text(value: &serde_json::Value, key: &str) -> String {
    value.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a serde_json::Value, key: &str) -> &'a [serde_json::Value] {
    value.get(key).and_then(serde_json::Value::as_array).map_or(&[], Vec::as_slice)
}

fn time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests;
