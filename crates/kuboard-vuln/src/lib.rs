//! The pure heart of the scan engine: packages and inventories, version orders, advisories,
//! matching, findings and verdicts under a policy.
//!
//! Nothing here waits, reads the machine or knows a clock: times are arguments, in milliseconds
//! since 1970.

mod advisory;
pub mod conditions;
mod distribution;
mod facts;
mod finding;
mod inventory;
pub mod life_cycle;
pub mod lookup;
pub mod matching;
mod memory_advisories;
pub mod namespace;
mod package;
pub mod policy;
mod report;
mod severity;
pub mod severity_rule;
pub mod version;
pub mod vex;

pub use advisory::{Advisory, Affected, Bound, Qualifiers, Range, Reference, Status};
pub use conditions::Conditions;
pub use distribution::Distribution;
pub use facts::{Fact, ImageFacts, Known};
pub use finding::{Epss, Finding, Suppressed, Suppression};
pub use inventory::{
    FileRecord, ImageInventory, LayerInventory, LayerReference, PlacedPackage, Problem,
};
pub use lookup::{Advisories, LookupError, Row, Until};
pub use memory_advisories::MemoryAdvisories;
pub use package::{Ecosystem, Package, Source};
pub use report::{DatabaseStamp, ImageIdentity, Outcome, Report};
pub use severity::{Rating, Severity, SeverityScore};
