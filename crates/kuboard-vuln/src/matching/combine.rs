//! Hits of one package become findings: one a vulnerability, however many advisories speak of it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::package::Hit;
use crate::lookup::Advisories;
use crate::{
    Advisory, Conditions, Finding, PlacedPackage, SeverityScore, Status, severity_rule, version,
};

/// Ids of one advisory that are looked at.
const MAX_IDS: usize = 256;

/// A hit with its advisory.
pub(super) struct Found {
    head: Arc<Advisory>,
    status: Status,
    by_source: bool,
    fixed_in: String,
    severities: Vec<SeverityScore>,
}

impl Found {
    pub(super) fn new(head: Arc<Advisory>, hit: &Hit<'_>) -> Self {
        let of_package = hit.conditions.map(Conditions::severities).unwrap_or_default();
        // What is said of the package goes before what the advisory says in general.
        let is_general = |score: &&SeverityScore| {
            !of_package.iter().any(|o| o.source == score.source && o.rating == score.rating)
        };
        let general: Vec<_> = head.severities.iter().filter(is_general).cloned().collect();
        let mut severities = of_package;
        severities.extend(general);
        Self {
            head,
            status: hit.status,
            by_source: hit.by_source,
            fixed_in: hit.fixed_in.to_owned(),
            severities,
        }
    }
}

/// The findings of one package.
pub(super) fn combine(
    placed: &PlacedPackage,
    namespace: &str,
    found: &[Found],
    db: &dyn Advisories,
) -> Vec<Finding> {
    let is_os = placed.package.ecosystem.is_os();
    let groups = if is_os { by_vulnerability(found) } else { by_alias(found) };
    let mut findings = Vec::with_capacity(groups.len());
    for (id, mut members) in groups {
        silence(&mut members);
        members.sort_by(|one, two| judges_first(placed, one, two));
        if let Some(deciding) = members.first().copied() {
            let id = id.unwrap_or_else(|| language_id(deciding, &members));
            let group = Group { placed, namespace, id, deciding, members };
            findings.push(group.finding(db));
        }
    }
    findings
}

type Groups<'a> = Vec<(Option<String>, Vec<&'a Found>)>;

/// Distributions: an advisory may treat several vulnerabilities, each gets its finding.
fn by_vulnerability(found: &[Found]) -> Groups<'_> {
    let mut groups: BTreeMap<String, Vec<&Found>> = BTreeMap::new();
    for one in found {
        for id in treated(&one.head) {
            groups.entry(id).or_default().push(one);
        }
    }
    groups.into_iter().map(|(id, members)| (Some(id), members)).collect()
}

/// The vulnerabilities that a distribution's advisory treats: its `upstream`; of those that name
/// none, the CVEs among their aliases, or what they call related.
fn treated(head: &Advisory) -> BTreeSet<String> {
    let cves = |ids: &[String]| -> BTreeSet<String> {
        ids.iter().filter(|id| is_cve(id)).take(MAX_IDS).cloned().collect()
    };
    let itself = || BTreeSet::from([head.id.clone()]);
    if is_cve(&head.id) {
        return itself();
    }
    let mut ids = cves(&head.upstream);
    if ids.is_empty() {
        ids.extend(head.upstream.iter().take(MAX_IDS).cloned());
    }
    if ids.is_empty() {
        ids = cves(&head.aliases);
    }
    if ids.is_empty() && is_vendor_advisory(&head.id) {
        ids = cves(&head.related);
    }
    if ids.is_empty() { itself() } else { ids }
}

fn is_cve(id: &str) -> bool {
    id.starts_with("CVE-")
}

/// Ids of updates, which are not vulnerabilities themselves.
fn is_vendor_advisory(id: &str) -> bool {
    const PREFIXES: [&str; 22] = [
        "ALSA-",
        "ALBA-",
        "ALEA-",
        "RLSA-",
        "RXSA-",
        "RHSA-",
        "RHBA-",
        "RHEA-",
        "ELSA-",
        "ELBA-",
        "ALAS-",
        "ALAS2-",
        "ALAS2023-",
        "openSUSE-",
        "SUSE-",
        "DSA-",
        "DLA-",
        "DTSA-",
        "ELA-",
        "USN-",
        "LSN-",
        "PHSA-",
    ];
    PREFIXES.iter().any(|prefix| id.starts_with(prefix))
        || (id.starts_with("ALAS") && id.contains('-'))
}

/// Languages: advisories that share an id are about the same vulnerability.
fn by_alias(found: &[Found]) -> Groups<'_> {
    let mut parents: Vec<usize> = (0..found.len()).collect();
    let mut owners: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, one) in found.iter().enumerate() {
        let ids = one.head.aliases.iter().take(MAX_IDS).chain([&one.head.id]);
        for id in ids {
            let owner = *owners.entry(id).or_insert(index);
            let (root, other) = (root_of(&mut parents, owner), root_of(&mut parents, index));
            if let Some(slot) = parents.get_mut(root.max(other)) {
                *slot = root.min(other);
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<&Found>> = BTreeMap::new();
    for (index, one) in found.iter().enumerate() {
        groups.entry(root_of(&mut parents, index)).or_default().push(one);
    }
    groups.into_values().map(|members| (None, members)).collect()
}

/// The smallest index of a group, halving the way there for the next who asks.
fn root_of(parents: &mut [usize], mut index: usize) -> usize {
    while let Some(&parent) = parents.get(index)
        && parent != index
    {
        let above = parents.get(parent).copied().unwrap_or(parent);
        if let Some(slot) = parents.get_mut(index) {
            *slot = above;
        }
        index = parent;
    }
    index
}

/// The CVE, if the group knows exactly one.
fn language_id(deciding: &Found, members: &[&Found]) -> String {
    let ids = members.iter().flat_map(|one| one.head.aliases.iter().chain([&one.head.id]));
    let cves: BTreeSet<&String> = ids.filter(|id| is_cve(id)).collect();
    match (cves.first(), cves.len()) {
        (Some(only), 1) => (*only).clone(),
        _ => deciding.head.id.clone(),
    }
}

/// A source that says "not affected" takes back what it says elsewhere of this vulnerability.
fn silence(members: &mut Vec<&Found>) {
    let silenced: BTreeSet<String> = members
        .iter()
        .filter(|one| one.status == Status::NotAffected)
        .map(|one| one.head.source.clone())
        .collect();
    members.retain(|one| !silenced.contains(&one.head.source));
}

/// Who decides: a fix before none, the lowest fix, then the more telling status; source and id
/// only to be stable.
fn judges_first(placed: &PlacedPackage, one: &Found, two: &Found) -> Ordering {
    let telling = |found: &Found| match found.status {
        Status::Fixed => 0,
        Status::WillNotFix => 1,
        Status::FixDeferred => 2,
        Status::EndOfLife => 3,
        Status::Affected => 4,
        Status::UnderInvestigation => 5,
        Status::NotAffected => 6,
    };
    one.fixed_in
        .is_empty()
        .cmp(&two.fixed_in.is_empty())
        .then_with(|| in_version_order(placed, &one.fixed_in, &two.fixed_in))
        .then_with(|| telling(one).cmp(&telling(two)))
        .then_with(|| one.head.source.cmp(&two.head.source))
        .then_with(|| one.head.id.cmp(&two.head.id))
}

/// A total order also of what the scheme refuses, which comes last.
fn in_version_order(placed: &PlacedPackage, one: &str, two: &str) -> Ordering {
    if one == two {
        return Ordering::Equal;
    }
    let rank = |version: &str| {
        let key = version::key(placed.package.ecosystem.scheme(), version).ok();
        (key.is_none(), key)
    };
    rank(one).cmp(&rank(two)).then_with(|| one.cmp(two))
}

/// All that is said of one vulnerability in one package.
struct Group<'a> {
    placed: &'a PlacedPackage,
    namespace: &'a str,
    id: String,
    deciding: &'a Found,
    members: Vec<&'a Found>,
}

impl Group<'_> {
    fn finding(&self, db: &dyn Advisories) -> Finding {
        let head = &self.deciding.head;
        let aliases = self.aliases();
        let ids = || [&self.id].into_iter().chain(&aliases).filter(|id| is_cve(id));
        let own = distinct(self.members.iter().flat_map(|one| one.severities.iter().cloned()));
        let raters = distinct(ids().flat_map(|cve| db.scores(cve)));
        let is_os = self.placed.package.ecosystem.is_os();
        let (severity, severity_source) = severity_rule::decide(is_os, &own, &raters);
        let text = |pick: fn(&Advisory) -> &String| {
            let all = self.members.iter().map(|one| pick(&one.head));
            all.into_iter().find(|text| !text.is_empty()).cloned().unwrap_or_default()
        };
        Finding {
            epss: ids().filter_map(|cve| db.epss(cve)).max_by_key(|epss| epss.probability),
            known_exploited: ids().filter_map(|cve| db.known_exploited(cve)).min(),
            id: self.id.clone(),
            source: head.source.clone(),
            advisory: head.id.clone(),
            namespace: self.namespace.to_owned(),
            package: self.placed.package.clone(),
            path: self.placed.path.clone(),
            layer: self.placed.layer,
            fixed_in: self.fixed_in(),
            status: self.deciding.status,
            severity,
            severity_source,
            scores: distinct(own.into_iter().chain(raters)),
            summary: text(|head| &head.summary),
            details: text(|head| &head.details),
            cwes: self.all(|head| &head.cwes),
            references: self.all(|head| &head.references),
            published_ms: self.members.iter().filter_map(|one| one.head.published_ms).min(),
            modified_ms: self.members.iter().filter_map(|one| one.head.modified_ms).max(),
            first_seen_ms: None,
            aliases,
        }
    }

    /// The other ids of this very vulnerability, and the advisories' own. An advisory that treats
    /// several vulnerabilities does not make them aliases of each other.
    fn aliases(&self) -> Vec<String> {
        let is_os = self.placed.package.ecosystem.is_os();
        let mut ids = BTreeSet::new();
        for one in &self.members {
            ids.insert(one.head.id.clone());
            let treats_one = !is_os || treated(&one.head).len() == 1;
            if treats_one {
                ids.extend(one.head.aliases.iter().take(MAX_IDS).cloned());
            }
        }
        ids.remove(&self.id);
        ids.into_iter().collect()
    }

    /// All versions that fix it and lie above the installed one, the lowest first.
    fn fixed_in(&self) -> Vec<String> {
        let package = &self.placed.package;
        let scheme = package.ecosystem.scheme();
        let mut versions: Vec<&str> = Vec::new();
        for one in &self.members {
            let installed =
                if one.by_source { package.source_or_self().1 } else { package.version.as_str() };
            let fixed = one.fixed_in.as_str();
            let is_above = version::compare(scheme, fixed, installed) != Ok(Ordering::Less);
            if !fixed.is_empty() && is_above && !versions.contains(&fixed) {
                versions.push(fixed);
            }
        }
        versions.sort_by(|one, two| in_version_order(self.placed, one, two));
        versions.into_iter().map(str::to_owned).collect()
    }

    fn all<T: Clone + PartialEq>(&self, pick: fn(&Advisory) -> &Vec<T>) -> Vec<T> {
        let mut out: Vec<T> = Vec::new();
        for item in self.members.iter().flat_map(|one| pick(&one.head)) {
            if out.len() < 128 && !out.contains(item) {
                out.push(item.clone());
            }
        }
        out
    }
}

fn distinct(scores: impl Iterator<Item = SeverityScore>) -> Vec<SeverityScore> {
    scores.collect::<BTreeSet<_>>().into_iter().collect()
}
