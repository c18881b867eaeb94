//! Who finds what: inventories against the ecosystems' own tools, and findings against each other,
//! on the same images and advisories.

mod clair;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use kuboard_testkit::rootfs::{self, Package};
use kuboard_testkit::tool;
use serde_json::{Value, json};

use crate::plan::Plan;
use crate::scan::{Feeds, Found, columns, normal, prepare};
use crate::{machine, registry};

/// The scanner whose findings are the measure of the others': it matches the feeds themselves.
const REFERENCE: &str = "osv-scanner";

/// What ours must find of what the ecosystems' own tools list.
const RECALL: f64 = 0.995;

/// How many differences of one side are printed; the file holds all.
const SHOWN: usize = 5;

/// Scanner, image, kind of package.
type Key = (String, String, String);

/// Compares, prints and keeps the figures.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let folder = tool::folder("bench-accuracy")?;
    let feeds = Feeds::get()?;
    let (scanners, missing) = prepare(&feeds, folder.path())?;
    let mut inventories: BTreeMap<Key, Recall> = BTreeMap::new();
    let (mut differences, mut failures) = (Vec::new(), Vec::new());
    let (review, mut clairs) = (clair::Review::read()?, Vec::new());
    for name in rootfs::names().filter(|name| plan.wants(name)) {
        let image = rootfs::image(name)?;
        let mut found: Vec<(&str, Found)> = Vec::new();
        for scanner in &scanners {
            scanner.warm_up(&image)?;
            match scanner.scan(&image).and_then(|_| scanner.found()) {
                Ok(it) => found.push((scanner.name(), it)),
                Err(error) => {
                    failures.push(format!("{} on {name}: {error:#}", scanner.name()));
                }
            }
        }
        let truth: BTreeSet<Package> = image.packages().into_iter().map(comparable).collect();
        for (who, it) in &found {
            // Grype's report holds no inventory, and nobody knows what is in some images.
            if it.packages.is_empty() && *who == "grype" || truth.is_empty() {
                continue;
            }
            for (kind, recall) in judge(&truth, &it.packages) {
                inventories.insert(((*who).to_owned(), name.to_owned(), kind), recall);
            }
        }
        differences.extend(compare(name, &found));
        clairs.extend(clair::compare(name, &found, &review));
    }
    print(&inventories, &differences);
    print_clairs(&clairs);
    for reason in &missing {
        println!("not here: {reason}");
    }
    for failure in &failures {
        println!("failed: {failure}");
    }
    let result = json!({
        "machine": machine::hardware(), "missing": missing, "failures": failures,
        "advisories": feeds.json(),
        "inventories": inventories.iter().map(|((who, image, kind), it)| {
            json!({"scanner": who, "image": image, "kind": kind, "listed": it.listed,
                "found": it.hit, "extra": it.extra, "recall": it.recall()})
        }).collect::<Vec<Value>>(),
        "differences": differences.iter().map(Difference::json).collect::<Vec<Value>>(),
        "clair": clairs.iter().map(clair::Compared::json).collect::<Vec<Value>>(),
    });
    registry::keep("accuracy", plan, &result)?;
    let mut short: Vec<String> = inventories
        .iter()
        .filter(|((who, _, _), it)| who == "kuboard" && it.recall() < RECALL)
        .map(|((_, image, kind), it)| format!("{image} {kind}: {} of {}", it.hit, it.listed))
        .collect();
    short.extend(failures.into_iter().filter(|it| it.starts_with("kuboard ")));
    if !short.is_empty() {
        bail!("too few packages found:\n  {}", short.join("\n  "));
    }
    let unexplained: usize = clairs.iter().map(|it| it.unexplained.len()).sum();
    if unexplained > 0 {
        bail!("{unexplained} differences to Clair that nobody looked into");
    }
    Ok(())
}

fn print_clairs(clairs: &[clair::Compared]) {
    let words = |line: [&str; 4]| line.map(str::to_owned).to_vec();
    let mut lines = vec![words(["image", "both", "explained", "unexplained to clair"])];
    for it in clairs {
        let counts = [it.both, it.explained, it.unexplained.len()].map(|count| count.to_string());
        lines.push([vec![it.image.clone()], counts.to_vec()].concat());
    }
    println!("{}", columns(&lines));
    for it in clairs {
        for (side, advisory, package) in &it.unexplained {
            println!("{}, {side}: {advisory} in {package}", it.image);
        }
    }
}

/// A package in the words that all scanners share.
fn comparable(package: &Package) -> Package {
    let name = if package.kind == "pypi" { normal(&package.name) } else { package.name.clone() };
    // Some write Go's versions with the letter v and some without.
    let version = match package.kind.as_str() {
        "golang" => package.version.trim_start_matches('v').to_owned(),
        _ => package.version.clone(),
    };
    Package::new(&package.kind, &name, version)
}

/// How much of a list was found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Recall {
    listed: usize,
    hit: usize,
    /// Found and not listed: the applications themselves, and mistakes.
    extra: usize,
}

impl Recall {
    fn recall(self) -> f64 {
        self.hit as f64 / (self.listed as f64).max(1.0)
    }
}

/// Recall of each kind that is listed.
fn judge(truth: &BTreeSet<Package>, found: &BTreeSet<Package>) -> BTreeMap<String, Recall> {
    let found: BTreeSet<Package> = found.iter().map(comparable).collect();
    let mut kinds: BTreeMap<String, Recall> = BTreeMap::new();
    for package in truth {
        let recall = kinds.entry(package.kind.clone()).or_default();
        recall.listed += 1;
        recall.hit += usize::from(found.contains(package));
    }
    for package in found.difference(truth) {
        if let Some(recall) = kinds.get_mut(&package.kind) {
            recall.extra += 1;
        }
    }
    kinds
}

/// Findings of one scanner that the reference has not, and the other way round.
struct Difference {
    who: String,
    image: String,
    both: usize,
    only_here: Vec<(String, String)>,
    only_there: Vec<(String, String)>,
}

impl Difference {
    fn json(&self) -> Value {
        json!({
            "scanner": self.who, "image": self.image, "both": self.both,
            "only_here": self.only_here, "only_reference": self.only_there,
        })
    }
}

fn compare(image: &str, found: &[(&str, Found)]) -> Vec<Difference> {
    let Some((_, reference)) = found.iter().find(|(who, _)| *who == REFERENCE) else {
        return Vec::new();
    };
    let others = found.iter().filter(|(who, _)| *who != REFERENCE && *who != "syft");
    others
        .map(|(who, it)| Difference {
            who: (*who).to_owned(),
            image: image.to_owned(),
            both: it.findings.intersection(&reference.findings).count(),
            only_here: it.findings.difference(&reference.findings).cloned().collect(),
            only_there: reference.findings.difference(&it.findings).cloned().collect(),
        })
        .collect()
}

fn print(inventories: &BTreeMap<Key, Recall>, differences: &[Difference]) {
    let words = |line: &[&str]| line.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let mut lines =
        vec![words(&["scanner", "image", "kind", "listed", "found", "extra", "recall"])];
    for ((who, image, kind), it) in inventories {
        let mut line = words(&[who, image, kind]);
        line.extend([it.listed, it.hit, it.extra].map(|number| number.to_string()));
        line.push(format!("{:.1} %", it.recall() * 100.0));
        lines.push(line);
    }
    println!("{}", columns(&lines));
    let mut lines = vec![words(&["scanner", "image", "both", "only here", "only osv-scanner"])];
    for it in differences {
        let mut line = words(&[&it.who, &it.image]);
        line.extend(
            [it.both, it.only_here.len(), it.only_there.len()].map(|number| number.to_string()),
        );
        lines.push(line);
    }
    println!("{}", columns(&lines));
    for it in differences {
        let sides = [("only here", &it.only_here), ("only osv-scanner", &it.only_there)];
        for (side, findings) in sides {
            for (advisory, package) in findings.iter().take(SHOWN) {
                println!("{} on {}, {side}: {advisory} in {package}", it.who, it.image);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Recall, comparable, judge};
    use kuboard_testkit::rootfs::Package;

    #[test]
    fn recall_counts_what_is_listed_by_kind() {
        let set = |packages: &[(&str, &str, &str)]| {
            packages
                .iter()
                .map(|(kind, name, version)| Package::new(kind, name, *version))
                .collect()
        };
        let truth = set(&[("deb", "a", "1"), ("deb", "b", "1"), ("golang", "c", "1.0.0")]);
        let found = set(&[("deb", "a", "1"), ("deb", "x", "1"), ("golang", "c", "v1.0.0")]);
        let kinds = judge(&truth, &found);
        assert_eq!(kinds["deb"], Recall { listed: 2, hit: 1, extra: 1 });
        assert_eq!(kinds["golang"], Recall { listed: 1, hit: 1, extra: 0 });
        assert_eq!(comparable(&Package::new("pypi", "A.b", "1")).name, "a-b");
    }
}
