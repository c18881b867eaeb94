//! Matching: an inventory and a set of advisories in, findings out. Pure; the same input gives the
//! same findings in the same order.
//!
//! Packages of a distribution are matched in the distribution's namespace only, those of a
//! language in the language's; nothing is ever guessed by product names. What does not count
//! (owned by a package, VEX, ignore rules, unfixed) is kept beside the findings with its reason.

mod combine;
mod package;
#[cfg(test)]
pub(crate) mod tests;

pub use package::{Buffers, Compared, Hit, match_package};

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use combine::{Found, combine};

use crate::lookup::{Advisories, LookupError};
use crate::policy::Rule;
use crate::{
    Advisory, Finding, ImageIdentity, ImageInventory, Outcome, PlacedPackage, Problem, Suppressed,
    Suppression, namespace, vex,
};

/// What shapes a match beside inventory and advisories.
#[derive(Clone, Copy, Debug, Default)]
pub struct MatchOptions<'a> {
    /// The image, for VEX statements that name it.
    pub image: Option<&'a ImageIdentity>,
    /// VEX documents of users, the later ones count more.
    pub vex: &'a [vex::Document],
    /// Ignore rules, the first that applies counts.
    pub rules: &'a [Rule],
    /// Findings without a fix do not count.
    pub ignore_unfixed: bool,
    /// The namespace of the distribution's packages, in place of the one that the inventory's
    /// distribution means.
    pub namespace: Option<&'a str>,
}

/// What a match found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Matches {
    /// What counts, the most severe first, then by package and id.
    pub findings: Vec<Finding>,
    /// What does not count, in the same order.
    pub suppressed: Vec<Suppressed>,
    /// How much of the inventory could be judged.
    pub outcome: Outcome,
    /// The namespace that the distribution's packages were matched in.
    pub namespace: Option<String>,
}

/// Matches all packages of an image.
#[must_use]
pub fn match_image(
    inventory: &ImageInventory,
    db: &dyn Advisories,
    options: &MatchOptions<'_>,
    now_ms: i64,
) -> Matches {
    let of_distribution = match options.namespace {
        Some(given) => Some(given.to_owned()),
        None => inventory.distribution.as_ref().and_then(namespace::of_distribution),
    };
    let mut coverage = Coverage::new(db, of_distribution.as_deref());
    let mut heads = Heads { db, known: BTreeMap::new() };
    let mut buffers = Buffers::default();
    let mut findings = Vec::new();
    let mut suppressed = Vec::new();
    for placed in &inventory.packages {
        let Some(namespace) = coverage.namespace_of(placed) else { continue };
        let found = heads.hits(placed, namespace, &mut buffers, &mut coverage.problems);
        for finding in combine(placed, namespace, &found, db) {
            match suppression(&finding, placed.owned && coverage.os_covered, options, now_ms) {
                None => findings.push(finding),
                Some(suppression) => suppressed.push(Suppressed { finding, suppression }),
            }
        }
    }
    findings.sort_by(in_order);
    findings.dedup_by(|one, two| is_same(one, two));
    suppressed.sort_by(|one, two| in_order(&one.finding, &two.finding));
    suppressed.dedup_by(|one, two| is_same(&one.finding, &two.finding));
    let outcome = coverage.outcome(inventory);
    Matches { findings, suppressed, outcome, namespace: of_distribution }
}

fn in_order(one: &Finding, two: &Finding) -> std::cmp::Ordering {
    let key = |finding: &'_ Finding| Reverse(finding.severity);
    key(one)
        .cmp(&key(two))
        .then_with(|| one.package.cmp(&two.package))
        .then_with(|| one.id.cmp(&two.id))
        .then_with(|| one.path.cmp(&two.path))
}

fn is_same(one: &Finding, two: &Finding) -> bool {
    one.id == two.id && one.package == two.package && one.path == two.path
}

fn suppression(
    finding: &Finding,
    is_owned: bool,
    options: &MatchOptions<'_>,
    now_ms: i64,
) -> Option<Suppression> {
    if is_owned {
        return Some(Suppression::OwnedByPackage);
    }
    if let Some(by_vex) = vex::apply(options.vex, finding, options.image) {
        return Some(by_vex);
    }
    if let Some(rule) = options.rules.iter().find(|rule| rule.applies(finding, now_ms)) {
        return Some(rule.suppression());
    }
    (options.ignore_unfixed && finding.fixed_in.is_empty()).then_some(Suppression::Unfixed)
}

/// Heads of advisories, read once an image.
struct Heads<'a> {
    db: &'a dyn Advisories,
    known: BTreeMap<u32, Result<Arc<Advisory>, LookupError>>,
}

impl Heads<'_> {
    fn hits(
        &mut self,
        placed: &PlacedPackage,
        namespace: &str,
        buffers: &mut Buffers,
        problems: &mut Vec<Problem>,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        let mut unread = None;
        let compared = match_package(&placed.package, namespace, self.db, buffers, &mut |hit| {
            let head = self.known.entry(hit.advisory);
            match head.or_insert_with(|| self.db.head(hit.advisory)) {
                Ok(head) if head.withdrawn_ms.is_some() => {}
                Ok(head) => found.push(Found::new(head.clone(), &hit)),
                Err(err) => unread = Some(err.to_string()),
            }
        });
        if compared == Compared::VersionRefused {
            unread = Some(format!(
                "version `{}` of {} is not one of its ecosystem",
                placed.package.version, placed.package.name
            ));
        }
        if let Some(why) = unread {
            problems.push(Problem { path: placed.path.clone(), by: "match".to_owned(), why });
        }
        found
    }
}

/// Which packages there are advisories for.
struct Coverage<'a> {
    db: &'a dyn Advisories,
    os: Option<&'a str>,
    os_covered: bool,
    judged: bool,
    languages: BTreeMap<&'static str, bool>,
    uncovered: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Coverage<'a> {
    fn new(db: &'a dyn Advisories, os: Option<&'a str>) -> Self {
        Self {
            db,
            os,
            os_covered: os.is_some_and(|namespace| db.covers(namespace)),
            judged: false,
            languages: BTreeMap::new(),
            uncovered: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// The namespace to match a package in, if there are advisories of it.
    fn namespace_of(&mut self, placed: &PlacedPackage) -> Option<&'a str> {
        let Some(language) = namespace::of_language(placed.package.ecosystem) else {
            self.judged |= self.os_covered;
            if !self.os_covered {
                self.uncovered.insert(match self.os {
                    Some(namespace) => format!("no advisories are known for {namespace}"),
                    None => "the distribution of the packages is not known".to_owned(),
                });
            }
            return self.os.filter(|_| self.os_covered);
        };
        let db = self.db;
        let covered = *self.languages.entry(language).or_insert_with(|| db.covers(language));
        self.judged |= covered;
        if !covered {
            self.uncovered.insert(format!("no advisories are known for {language} packages"));
        }
        covered.then_some(language)
    }

    fn outcome(self, inventory: &ImageInventory) -> Outcome {
        let uncovered: Vec<String> = self.uncovered.into_iter().collect();
        if !self.judged {
            let mut reason = uncovered.join("; ");
            if inventory.packages.is_empty() {
                "no packages were found".clone_into(&mut reason);
            }
            if let Some(first) = inventory.problems.first() {
                reason = format!("{reason}; {} was not read: {}", first.path, first.why);
            }
            return Outcome::Unsupported { reason };
        }
        let mut problems = inventory.problems.clone();
        problems.extend(self.problems);
        problems.extend(uncovered.into_iter().map(|why| Problem {
            path: String::new(),
            by: "match".to_owned(),
            why,
        }));
        if problems.is_empty() { Outcome::Complete } else { Outcome::Partial { problems } }
    }
}
