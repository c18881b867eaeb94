//! Our findings against a real Clair's, by the same advisories, where Clair takes them from OSV.
//! Differences that were looked into stand in `bench/differences-clair.json` with their reason; any
//! other is an error.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::machine;
use crate::scan::{CLAIR, Found, is_comparable};

/// The reviewed differences.
const FILE: &str = "bench/differences-clair.json";

/// Who has a finding that the other has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Ours,
    Clairs,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Ours => "only kuboard",
            Side::Clairs => "only clair",
        }
    }
}

/// A difference that was looked into. `*` stands for any image, advisory or package.
struct Reviewed {
    side: String,
    image: String,
    advisory: String,
    package: String,
}

impl Reviewed {
    fn covers(&self, side: Side, image: &str, advisory: &str, package: &str) -> bool {
        let is = |pattern: &str, value: &str| pattern == "*" || pattern == value;
        self.side == side.name()
            && is(&self.image, image)
            && is(&self.advisory, advisory)
            && is(&self.package, package)
    }
}

/// Everything that was looked into.
pub(super) struct Review(Vec<Reviewed>);

impl Review {
    pub(super) fn read() -> Result<Review> {
        let file = machine::root().join(FILE);
        let text = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        Review::of(&serde_json::from_slice(&text)?)
    }

    fn of(document: &Value) -> Result<Review> {
        let entries = document["differences"].as_array().context("no differences")?;
        let entry = |entry: &Value| -> Result<Reviewed> {
            let field = |name: &str| {
                let value = entry[name].as_str().map(str::to_owned);
                value.with_context(|| format!("no {name} in {entry}"))
            };
            field("why")?;
            Ok(Reviewed {
                side: field("side")?,
                image: field("image")?,
                advisory: field("advisory")?,
                package: field("package")?,
            })
        };
        Ok(Review(entries.iter().map(entry).collect::<Result<_>>()?))
    }
}

/// What one image's comparison gave.
pub(super) struct Compared {
    pub(super) image: String,
    pub(super) both: usize,
    pub(super) explained: usize,
    /// Who has it, advisory, package.
    pub(super) unexplained: Vec<(&'static str, String, String)>,
}

impl Compared {
    pub(super) fn json(&self) -> Value {
        json!({
            "image": self.image, "both": self.both, "explained": self.explained,
            "unexplained": self.unexplained,
        })
    }
}

/// Compares ours with Clair's, if both are there.
pub(super) fn compare(image: &str, found: &[(&str, Found)], review: &Review) -> Option<Compared> {
    let of = |name: &str| found.iter().find(|(who, _)| *who == name).map(|(_, found)| found);
    let (ours, clairs) = (comparable(of("kuboard")?), comparable(of(CLAIR)?));
    let mut compared = Compared {
        image: image.to_owned(),
        both: ours.intersection(&clairs).count(),
        explained: 0,
        unexplained: Vec::new(),
    };
    let only = ours.difference(&clairs).map(|it| (Side::Ours, it));
    for (side, (advisory, package)) in
        only.chain(clairs.difference(&ours).map(|it| (Side::Clairs, it)))
    {
        match review.0.iter().any(|it| it.covers(side, image, advisory, package)) {
            true => compared.explained += 1,
            false => {
                let (advisory, package) = (advisory.clone(), package.clone());
                compared.unexplained.push((side.name(), advisory, package));
            }
        }
    }
    Some(compared)
}

fn comparable(found: &Found) -> BTreeSet<(String, String)> {
    found.findings.iter().filter(|(advisory, _)| is_comparable(advisory)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Review, compare};
    use crate::scan::Found;

    #[test]
    fn what_was_not_looked_into_is_told() {
        let found = |pairs: &[(&str, &str)]| {
            let mut found = Found::default();
            pairs.iter().for_each(|(advisory, package)| found.finding(advisory, package));
            found
        };
        let ours = found(&[("GO-1", "a"), ("GO-2", "a"), ("RUSTSEC-1", "c")]);
        let clairs = found(&[("GO-1", "a"), ("GO-3", "b"), ("GO-4", "d")]);
        let review = Review::of(&json!({"differences": [
            {"side": "only clair", "image": "*", "advisory": "GO-3", "package": "b", "why": "x"},
        ]}));
        let all = [("kuboard", ours), ("clair", clairs)];
        let compared = compare("i", &all, &review.unwrap()).unwrap();
        assert_eq!((compared.both, compared.explained), (1, 1));
        let told: Vec<&str> = compared.unexplained.iter().map(|(side, ..)| *side).collect();
        assert_eq!(told, ["only kuboard", "only clair"]);
        assert!(Review::of(&json!({"differences": [{"side": "only clair"}]})).is_err());
    }
}
