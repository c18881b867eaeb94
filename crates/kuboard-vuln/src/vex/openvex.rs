//! OpenVEX 0.0.1 to 0.2: statements with products as texts or as objects.

use serde_json::Value;

use super::{
    Document, MAX_PRODUCTS, MAX_STATEMENTS, Product, Purl, Statement, VexError, VexStatus, list,
    text, time,
};

pub(super) fn read(value: &Value) -> Result<Document, VexError> {
    let statements = list(value, "statements");
    if statements.len() > MAX_STATEMENTS {
        return Err(VexError::TooMany("statements"));
    }
    let mut document =
        Document { id: text(value, "@id"), author: text(value, "author"), ..Document::default() };
    let written = time(&text(value, "timestamp"));
    let mut products = 0_usize;
    for one in statements {
        products = products.saturating_add(list(one, "products").len());
        if products > MAX_PRODUCTS {
            return Err(VexError::TooMany("products"));
        }
        match statement(one, written) {
            Some((statement, unread)) => {
                document.unread += unread;
                document.push(statement);
            }
            None => document.unread += 1,
        }
    }
    Ok(document)
}

/// The statement and how many of its products are of no use; `None` if nothing is left.
fn statement(value: &Value, written: Option<i64>) -> Option<(Statement, u64)> {
    let status = match value.get("status")?.as_str()? {
        "not_affected" => VexStatus::NotAffected,
        "affected" => VexStatus::Affected,
        "fixed" => VexStatus::Fixed,
        "under_investigation" => VexStatus::UnderInvestigation,
        _ => return None,
    };
    let vulnerabilities = vulnerabilities(value.get("vulnerability")?);
    let mut unread = 0;
    let mut products = Vec::new();
    // Before 0.2 subcomponents stood beside the products.
    let shared = subcomponents(list(value, "subcomponents"));
    let copies = shared.len().saturating_mul(list(value, "products").len());
    if copies > MAX_PRODUCTS {
        return None;
    }
    for one in list(value, "products") {
        let mut product = product(one);
        if product.subcomponents.is_empty() {
            product.subcomponents.clone_from(&shared);
        }
        let parts = list(one, "subcomponents").len() + list(value, "subcomponents").len();
        // Parts that cannot be read must not turn into the whole product.
        if product.is_empty() || (parts > 0 && product.subcomponents.is_empty()) {
            unread += 1;
        } else {
            products.push(product);
        }
    }
    if products.is_empty() || vulnerabilities.is_empty() {
        return None;
    }
    let reasons = ["justification", "impact_statement", "action_statement", "status_notes"];
    let justification = reasons.iter().map(|key| text(value, key)).find(|text| !text.is_empty());
    let at_ms = time(&text(value, "timestamp")).or(written);
    let justification = justification.unwrap_or_default();
    Some((Statement { vulnerabilities, products, status, justification, at_ms }, unread))
}

fn vulnerabilities(value: &Value) -> Vec<String> {
    let mut ids = Vec::new();
    match value {
        Value::String(id) => ids.push(id.clone()),
        other => {
            ids.extend([text(other, "name"), text(other, "@id")]);
            let aliases = list(other, "aliases").iter().take(64);
            ids.extend(aliases.filter_map(Value::as_str).map(str::to_owned));
        }
    }
    ids.retain(|id| !id.is_empty());
    ids
}

fn product(value: &Value) -> Product {
    let mut product = Product::default();
    if let Some(id) = value.as_str() {
        identify(&mut product, id);
        return product;
    }
    identify(&mut product, &text(value, "@id"));
    if let Some(identifiers) = value.get("identifiers") {
        product.purls.extend(Purl::parse(&text(identifiers, "purl")));
    }
    if let Some(hashes) = value.get("hashes").and_then(Value::as_object) {
        for (name, hash) in hashes.iter().take(16) {
            if let ("sha-256" | "sha256", Some(hex)) = (name.as_str(), hash.as_str()) {
                product.digests.push(format!("sha256:{}", hex.to_ascii_lowercase()));
            }
        }
    }
    product.subcomponents = subcomponents(list(value, "subcomponents"));
    product
}

fn identify(product: &mut Product, id: &str) {
    if id.starts_with("pkg:") {
        product.purls.extend(Purl::parse(id));
    } else if id.starts_with("sha256:") {
        product.digests.push(id.to_owned());
    } else if !id.is_empty() {
        product.names.push(id.to_owned());
    }
}

fn subcomponents(values: &[Value]) -> Vec<Purl> {
    let mut purls = Vec::new();
    for value in values.iter().take(10_000) {
        match value.as_str() {
            Some(id) => purls.extend(Purl::parse(id)),
            None => {
                purls.extend(Purl::parse(&text(value, "@id")));
                if let Some(identifiers) = value.get("identifiers") {
                    purls.extend(Purl::parse(&text(identifiers, "purl")));
                }
            }
        }
    }
    purls
}
