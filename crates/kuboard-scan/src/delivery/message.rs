//! What an event tells, as far as messages need it.

use kuboard_catalog::DeliveryRow;
use kuboard_vuln::{Severity, life_cycle::Event};
use serde::Deserialize;
use serde_json::Value;

use crate::engine::Summary;

/// An event's body. What is not as expected is left out: the event is told all the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// The image's name.
    pub(super) subject: String,
    /// What its report counts.
    pub(super) summary: Summary,
    /// Changes, the most severe first.
    pub(super) changes: Vec<Change>,
    /// How many there are, with those that were left out.
    pub(super) total: usize,
    /// Where the report can be read.
    pub(super) link: Option<String>,
    /// The whole body.
    pub(super) data: Value,
}

/// One finding's change.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Change {
    pub(super) change: Event,
    pub(super) id: String,
    pub(super) package: String,
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) severity: Severity,
    #[serde(default, alias = "fixedIn")]
    pub(super) fixed_in: Vec<String>,
}

impl Change {
    /// Whether it makes things worse.
    pub(super) fn is_bad(&self) -> bool {
        matches!(self.change, Event::Opened | Event::Reopened | Event::ExemptionEnded)
    }
}

impl Told {
    pub(super) fn read(row: &DeliveryRow) -> Self {
        let data: Value =
            serde_json::from_str(&row.body).unwrap_or_else(|_| Value::String(row.body.clone()));
        let mut changes: Vec<Change> = data["changes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|change| Change::deserialize(change).ok())
            .collect();
        changes.sort_by_key(|it| (!it.is_bad(), std::cmp::Reverse(it.severity)));
        let total = data["changesTotal"].as_u64().and_then(|total| usize::try_from(total).ok());
        let is_link = |link: &&str| link.starts_with("https://") || link.starts_with("http://");
        Self {
            subject: data["subject"].as_str().unwrap_or(&row.kind).to_owned(),
            summary: Summary::deserialize(&data["summary"]).unwrap_or_default(),
            total: total.unwrap_or_default().max(changes.len()),
            link: data["link"].as_str().filter(is_link).map(str::to_owned),
            changes,
            data,
        }
    }

    /// The severest change. Where changes were left out, the severest finding instead.
    pub(super) fn severest(&self) -> Option<Severity> {
        let told = self.changes.iter().map(|change| change.severity).max();
        if self.total <= self.changes.len() {
            return told;
        }
        let found = self.summary.findings.iter().filter(|(_, count)| **count > 0);
        let found = found
            .filter_map(|(name, _)| Severity::deserialize(Value::String(name.clone())).ok())
            .max();
        told.max(found)
    }

    /// Whether something in it is worth telling who asks for that much.
    pub(super) fn reaches(&self, threshold: Severity) -> bool {
        self.severest().is_some_and(|severest| severest >= threshold)
    }
}
