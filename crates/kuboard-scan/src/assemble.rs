//! Inventory and advisories to the report: the one value that everything else reads.

use std::collections::BTreeSet;

use kuboard_vuln::{
    Advisories, DatabaseStamp, ImageIdentity, ImageInventory, Outcome, Report,
    lookup::name_key,
    matching::{MatchOptions, match_image},
    namespace,
};

/// Version of the report's form.
pub const SCHEMA: u32 = 1;

/// The report on an image by these advisories. Without advisories (`None`) it lists packages and
/// says that nothing was matched.
#[must_use]
pub fn assemble(
    identity: ImageIdentity,
    inventory: ImageInventory,
    advisories: Option<&dyn Advisories>,
    options: &MatchOptions<'_>,
    now_ms: i64,
) -> Report {
    let matched = advisories.map(|set| match_image(&inventory, set, options, now_ms));
    let home = inventory.distribution.as_ref().and_then(namespace::of_distribution);
    let end_of_life =
        advisories.and_then(|set| home.as_deref().and_then(|name| set.end_of_life(name)));
    let (findings, suppressed, outcome) = match matched {
        Some(matched) => (matched.findings, matched.suppressed, matched.outcome),
        None => {
            let reason = "there are no advisories; hint: run `kuboard db update`".to_owned();
            (Vec::new(), Vec::new(), Outcome::Unsupported { reason })
        }
    };
    Report {
        schema: SCHEMA,
        image: identity,
        outcome,
        distribution: inventory.distribution,
        end_of_life,
        layers: inventory.layers,
        packages: inventory.packages,
        findings,
        suppressed,
        database: advisories.map_or_else(DatabaseStamp::default, Advisories::stamp),
        scanned_ms: now_ms,
    }
}

/// The keys (`namespace name`) by which advisories find this image again: of each package its
/// name, and its source package's.
#[must_use]
pub fn keys(inventory: &ImageInventory) -> BTreeSet<String> {
    let home = inventory.distribution.as_ref().and_then(namespace::of_distribution);
    let mut keys = BTreeSet::new();
    for placed in &inventory.packages {
        let package = &placed.package;
        let space = match namespace::of_language(package.ecosystem) {
            Some(space) => space,
            None => match &home {
                Some(home) => home,
                None => continue,
            },
        };
        let mut add = |name: &str| {
            let name = name_key(package.ecosystem, name);
            keys.insert(format!("{space} {name}"));
        };
        add(&package.name);
        if let Some(source) = &package.source {
            add(&source.name);
        }
    }
    keys
}
