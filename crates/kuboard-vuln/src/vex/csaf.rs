//! CSAF 2.0, profile VEX: a product tree, and for each vulnerability lists of product ids.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Document, MAX_PRODUCTS, MAX_STATEMENTS, Product, Purl, Statement, VexError, VexStatus, list,
    text, time,
};

/// How deep branches may nest.
const MAX_DEPTH: usize = 64;

/// Lists of `product_status` and what they mean.
const LISTS: [(&str, VexStatus); 8] = [
    ("known_affected", VexStatus::Affected),
    ("first_affected", VexStatus::Affected),
    ("last_affected", VexStatus::Affected),
    ("under_investigation", VexStatus::UnderInvestigation),
    ("fixed", VexStatus::Fixed),
    ("first_fixed", VexStatus::Fixed),
    ("recommended", VexStatus::Fixed),
    ("known_not_affected", VexStatus::NotAffected),
];

pub(super) fn read(value: &Value) -> Result<Document, VexError> {
    let head = value.get("document").unwrap_or(&Value::Null);
    let tracking = head.get("tracking").unwrap_or(&Value::Null);
    let author = head.get("publisher").map(|one| text(one, "name")).unwrap_or_default();
    let mut document = Document { id: text(tracking, "id"), author, ..Document::default() };
    let at_ms = time(&text(tracking, "current_release_date"));
    let products = products(value.get("product_tree").unwrap_or(&Value::Null))?;
    let mut mentions = 0_usize;
    for vulnerability in list(value, "vulnerabilities") {
        let ids = ids(vulnerability);
        let status = vulnerability.get("product_status").unwrap_or(&Value::Null);
        for (key, status_word) in LISTS {
            let named = list(status, key);
            if ids.is_empty() || named.is_empty() {
                continue;
            }
            mentions = mentions.saturating_add(named.len());
            if mentions > MAX_PRODUCTS || document.statements.len() > MAX_STATEMENTS {
                return Err(VexError::TooMany("products or statements"));
            }
            statements(&mut document, named, &products, |found| Statement {
                vulnerabilities: ids.clone(),
                products: found.1,
                status: status_word,
                justification: justification(vulnerability, &found.0),
                at_ms,
            });
        }
    }
    Ok(document)
}

/// One statement for all products of a list; its justification is that of the first product.
fn statements(
    document: &mut Document,
    named: &[Value],
    products: &BTreeMap<String, Product>,
    make: impl FnOnce((String, Vec<Product>)) -> Statement,
) {
    let mut found = Vec::new();
    let mut first = String::new();
    for id in named.iter().filter_map(Value::as_str) {
        match products.get(id) {
            Some(product) if !product.is_empty() => {
                if first.is_empty() {
                    id.clone_into(&mut first);
                }
                found.push(product.clone());
            }
            _ => document.unread += 1,
        }
    }
    if !found.is_empty() {
        document.push(make((first, found)));
    }
}

fn ids(vulnerability: &Value) -> Vec<String> {
    let other = list(vulnerability, "ids").iter().take(64).map(|id| text(id, "text"));
    let mut ids: Vec<String> = [text(vulnerability, "cve")].into_iter().chain(other).collect();
    ids.retain(|id| !id.is_empty());
    ids
}

/// The flag of a product, else the impact that is described for it, else for all.
fn justification(vulnerability: &Value, product: &str) -> String {
    let names = |value: &&Value| {
        let ids = list(value, "product_ids");
        ids.is_empty() || ids.iter().any(|id| id.as_str() == Some(product))
    };
    let flag = list(vulnerability, "flags").iter().find(names).map(|flag| text(flag, "label"));
    flag.or_else(|| {
        let is_impact = |threat: &&Value| text(threat, "category") == "impact";
        let mut impacts = list(vulnerability, "threats").iter().filter(is_impact);
        impacts.find(names).map(|threat| text(threat, "details"))
    })
    .unwrap_or_default()
}

fn products(tree: &Value) -> Result<BTreeMap<String, Product>, VexError> {
    let mut products = BTreeMap::new();
    for one in list(tree, "full_product_names") {
        add(&mut products, one)?;
    }
    let mut open: Vec<(&Value, usize)> =
        list(tree, "branches").iter().map(|branch| (branch, 0)).collect();
    while let Some((branch, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(VexError::TooMany("nested branches"));
        }
        if let Some(product) = branch.get("product") {
            add(&mut products, product)?;
        }
        open.extend(list(branch, "branches").iter().map(|branch| (branch, depth + 1)));
    }
    let mut joined = Vec::new();
    for relation in list(tree, "relationships") {
        let id = relation.get("full_product_name").map(|name| text(name, "product_id"));
        let whole = products.get(&text(relation, "relates_to_product_reference"));
        let part = products.get(&text(relation, "product_reference"));
        if let (Some(id), Some(whole), Some(part)) = (id, whole, part) {
            // Without an image or a package that identifies the whole, the part alone would say
            // too much: it holds on that platform only.
            let mut product = whole.clone();
            product.subcomponents.clone_from(&part.purls);
            if !product.is_empty() && !product.subcomponents.is_empty() {
                joined.push((id, product));
            }
        }
        if joined.len() > MAX_PRODUCTS {
            return Err(VexError::TooMany("relationships"));
        }
    }
    products.extend(joined);
    Ok(products)
}

fn add(products: &mut BTreeMap<String, Product>, value: &Value) -> Result<(), VexError> {
    if products.len() >= MAX_PRODUCTS {
        return Err(VexError::TooMany("products"));
    }
    let mut product = Product::default();
    if let Some(helper) = value.get("product_identification_helper") {
        product.purls.extend(Purl::parse(&text(helper, "purl")));
        let more = list(helper, "purls").iter().take(64).filter_map(Value::as_str);
        product.purls.extend(more.filter_map(Purl::parse));
        for hashes in list(helper, "hashes").iter().take(16) {
            for hash in list(hashes, "file_hashes").iter().take(16) {
                if matches!(text(hash, "algorithm").as_str(), "sha256" | "sha-256") {
                    let hex = text(hash, "value").to_ascii_lowercase();
                    product.digests.push(format!("sha256:{hex}"));
                }
            }
        }
    }
    products.insert(text(value, "product_id"), product);
    Ok(())
}
