//! SUSE's CSAF-VEX documents, one a CVE (`cve-….json`), singly or as an archive.
//!
//! Products are `PLATFORM:NAME-VERSION-RELEASE[.ARCH]`, or without a version where there is no fix;
//! package URLs are rare. `first_fixed` names the builds that fixed it, `recommended` newer ones.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use kuboard_vuln::version::{self, Scheme};
use kuboard_vuln::{Affected, Bound, Ecosystem, Qualifiers, Range, Status, namespace};

use super::csaf::{self, Component, Document, Products, Vulnerability};
pub use super::csaf::{DocumentError, Parsed};
use super::purl::Purl;
use super::{MAX_AFFECTED, MAX_ARCHIVE, ParseError, Summary, compressed, tar, text};
use crate::Sink;

/// The advisories' source.
pub const SOURCE: &str = "suse";

/// One document.
///
/// # Errors
/// If it is no CSAF document, or beyond the limits.
pub fn parse_document(bytes: &[u8]) -> Result<Parsed, DocumentError> {
    let document: Document = serde_json::from_slice(bytes)?;
    let head = &document.document.tracking;
    if !text::is_id(&head.id) {
        return Err(DocumentError::Id);
    }
    // SUSE names its documents `CVE-2023-0001` as well as `cve-2023-0001`.
    let id = document.vulnerabilities.iter().find_map(|one| one.cve.clone());
    let id = id.filter(|cve| text::is_cve(cve)).unwrap_or_else(|| head.id.clone());
    if head.status == "deleted" || head.status == "withdrawn" {
        return Ok(Parsed::Deleted(id));
    }
    let products = Products::of(&document.product_tree);
    let mut rows = Rows::default();
    for one in &document.vulnerabilities {
        rows.read(one, &products);
    }
    let affected = rows.finish();
    if affected.is_empty() {
        return Ok(Parsed::Nothing(id));
    }
    if affected.len() > MAX_AFFECTED {
        return Err(DocumentError::TooMany);
    }
    let mut advisory = csaf::advisory(&document, SOURCE);
    advisory.id = id;
    advisory.affected = affected;
    Ok(Parsed::Advisory(advisory))
}

/// Gives a changed document to the sink: its advisory, or a retraction where nothing is left of it.
///
/// # Errors
/// If it is no CSAF document, or beyond the limits.
pub fn apply_document(bytes: &[u8], sink: &mut dyn Sink) -> Result<(), DocumentError> {
    parse_document(bytes)?.give(SOURCE, &mut Summary::default(), sink);
    Ok(())
}

/// An archive (`csaf-vex.tar.bz2`) of documents.
///
/// # Errors
/// If it is no tar archive, cut off, empty, or most documents are bad.
pub fn parse_archive(input: impl Read, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
    let mut summary = Summary::default();
    let plain = compressed::open(input, MAX_ARCHIVE)?;
    tar::files(plain, &|path| path.ends_with(".json"), &mut |path, content| {
        match content.map(parse_document) {
            Ok(Ok(parsed)) => parsed.give(SOURCE, &mut summary, sink),
            Ok(Err(error)) => summary.skip(path, error),
            Err(why) => summary.skip(path, why),
        }
        Ok(())
    })?;
    summary.judge_full()
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Home {
    namespace: String,
    package: String,
}

#[derive(Default)]
struct Rows {
    fixed: BTreeMap<Home, String>,
    /// Only taken where no first fix is named.
    recommended: BTreeMap<Home, String>,
    unfixed: BTreeMap<Home, Status>,
}

impl Rows {
    fn read(&mut self, one: &Vulnerability, products: &Products<'_>) {
        let refused: HashSet<&str> = one
            .remediations
            .iter()
            .filter(|remedy| remedy.category == "no_fix_planned")
            .flat_map(|remedy| products.about(&remedy.product_ids, &remedy.group_ids))
            .collect();
        for (status, ids) in &one.product_status {
            for id in ids {
                let Some((home, version)) = products.component(id).and_then(|one| package(&one))
                else {
                    continue;
                };
                match status.as_str() {
                    "first_fixed" => earliest(&mut self.fixed, home, version),
                    "fixed" | "recommended" => earliest(&mut self.recommended, home, version),
                    "known_affected" if refused.contains(id.as_str()) => {
                        self.unfixed(home, Status::WillNotFix);
                    }
                    "known_affected" => self.unfixed(home, Status::Affected),
                    "under_investigation" => self.unfixed(home, Status::UnderInvestigation),
                    "known_not_affected" if version.is_empty() => {
                        self.unfixed(home, Status::NotAffected);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Modules of a service pack share its namespace: of what they say the worst holds.
    fn unfixed(&mut self, home: Home, status: Status) {
        let rank = |status: Status| match status {
            Status::NotAffected => 0,
            Status::UnderInvestigation => 1,
            Status::WillNotFix => 2,
            _ => 3,
        };
        let known = self.unfixed.entry(home).or_insert(status);
        if rank(status) > rank(*known) {
            *known = status;
        }
    }

    fn finish(mut self) -> Vec<Affected> {
        for (home, version) in std::mem::take(&mut self.recommended) {
            self.fixed.entry(home).or_insert(version);
        }
        let fixed: HashSet<Home> = self.fixed.keys().cloned().collect();
        let until =
            |version: String| vec![Range { introduced: None, until: Bound::Fixed(version) }];
        let fixes =
            self.fixed.into_iter().map(|(home, version)| row(home, Status::Fixed, until(version)));
        // Modules of a service pack share its namespace, and one of them may have the fix.
        let unfixed = self.unfixed.into_iter().filter(|(home, _)| !fixed.contains(home));
        fixes.chain(unfixed.map(|(home, status)| row(home, status, Vec::new()))).collect()
    }
}

fn row(home: Home, status: Status, ranges: Vec<Range>) -> Affected {
    Affected {
        namespace: home.namespace,
        ecosystem: Ecosystem::Rpm,
        package: home.package,
        by_source: false,
        status,
        ranges,
        versions: Vec::new(),
        qualifiers: Qualifiers::default(),
        severities: Vec::new(),
        symbols: Vec::new(),
    }
}

fn earliest(rows: &mut BTreeMap<Home, String>, home: Home, version: String) {
    if version.is_empty() {
        return;
    }
    let known = rows.entry(home).or_insert_with(|| version.clone());
    if version::compare(Scheme::Rpm, &version, known).is_ok_and(std::cmp::Ordering::is_lt) {
        *known = version;
    }
}

/// Where the package is at home, and its version if the product names one.
fn package(component: &Component<'_>) -> Option<(Home, String)> {
    let namespace = release(component)?;
    let id = component.id;
    if let Some(purl) = component.purl.and_then(Purl::parse) {
        let source = purl.qualifier("arch").is_some_and(|arch| matches!(arch, "src" | "nosrc"));
        let version = match purl.qualifier("epoch") {
            Some(epoch) if epoch != "0" => format!("{epoch}:{}", purl.version),
            _ => purl.version.clone(),
        };
        let rpm = purl.kind == "rpm" && !source;
        return rpm.then_some((Home { namespace, package: purl.name }, version));
    }
    let arches = ["x86_64", "aarch64", "ppc64le", "s390x", "i586", "i686", "noarch"];
    let bare = id.rsplit_once('.').filter(|(_, arch)| arches.contains(arch));
    let bare = bare.map_or(id, |(bare, _)| bare);
    if bare.ends_with(".src") || bare.ends_with(".nosrc") || bare.contains([' ', '/', ':']) {
        return None;
    }
    let (name, version) = split(bare);
    let sound = text::is_name(name) && (version.is_empty() || text::is_name(version));
    sound.then(|| (Home { namespace, package: name.to_owned() }, version.to_owned()))
}

/// `kernel-default-6.4.0-150700.53.34.1` to name and version; `kernel-default` is a name alone.
fn split(nevra: &str) -> (&str, &str) {
    let begins = |part: &str| part.starts_with(|first: char| first.is_ascii_digit());
    let mut dashes = nevra.rmatch_indices('-').map(|(at, _)| at);
    if let (Some(release), Some(version)) = (dashes.next(), dashes.next())
        && let (Some(name), Some(rest)) = (nevra.get(..version), nevra.get(version + 1..))
        && begins(rest)
        && nevra.get(release + 1..).is_some_and(begins)
    {
        return (name, rest);
    }
    (nevra, "")
}

/// By the platform's CPE (`cpe:/o:suse:sles:15:sp5`, `cpe:/o:opensuse:leap:15.5`), else its name.
fn release(component: &Component<'_>) -> Option<String> {
    if let Some(cpe) = component.cpe {
        let rest = cpe.strip_prefix("cpe:/").or_else(|| cpe.strip_prefix("cpe:2.3:"))?;
        let parts: Vec<&str> = rest.split(':').take(8).collect();
        let part = |at: usize| parts.get(at).copied().unwrap_or_default();
        let (vendor, product, version, update) = (part(1), part(2), part(3), part(4));
        let figures = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_digit())
                && text.len() <= 16
                && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        };
        return match (vendor, product) {
            ("opensuse", "leap") if figures(version) => Some(format!("opensuse-leap:{version}")),
            ("opensuse", "tumbleweed") => Some("opensuse-tumbleweed".to_owned()),
            ("suse", product) if is_server(product) && figures(version) => {
                let pack = update.strip_prefix("sp").filter(|pack| figures(pack));
                Some(match pack {
                    Some(pack) => format!("sles:{version}.{pack}"),
                    None if update.contains('.') && figures(update) => format!("sles:{update}"),
                    None => format!("sles:{version}"),
                })
            }
            _ => None,
        };
    }
    let name = component.platform;
    let ecosystem = match name.strip_prefix("SUSE ") {
        Some(rest) if !rest.contains("Micro") => format!("SUSE:{rest}"),
        _ => format!("openSUSE:{}", name.strip_prefix("openSUSE ")?),
    };
    namespace::of_osv(&ecosystem).map(|(namespace, ..)| namespace)
}

/// Server, desktop, their modules and extensions: one installed system. The Micro family is not.
fn is_server(product: &str) -> bool {
    let product = product.strip_prefix("suse_").unwrap_or(product);
    (product.starts_with("sle") || product.starts_with("suse-linux-enterprise"))
        && !product.contains("micro")
        && !product.contains("live-patching")
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn names_are_split_from_versions() {
        for (nevra, name, version) in [
            ("kernel-default-6.4.0-150700.53.34.1", "kernel-default", "6.4.0-150700.53.34.1"),
            ("kernel-default", "kernel-default", ""),
            ("curl-7.79.1-150400.5.3.1", "curl", "7.79.1-150400.5.3.1"),
            ("libpython3_6m1_0-3.6.15-1", "libpython3_6m1_0", "3.6.15-1"),
            ("java-11-openjdk", "java-11-openjdk", ""),
            ("curl", "curl", ""),
            ("-1-", "-1-", ""),
        ] {
            assert_eq!(split(nevra), (name, version), "{nevra}");
        }
    }
}
