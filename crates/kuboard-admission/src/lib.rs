//! Decides at admission: a review of a pod becomes the images it wants to run, these become
//! digests, facts are looked up by digest, and a pure verdict over facts, policies, exemptions
//! and the time becomes the answer.
//!
//! Nothing here scans, and nothing here talks to the Kubernetes API: what is wanted and what runs
//! arrives as snapshots, facts and digests through doors.
//!
//! * `review.rs` reads what the API server asks, `images.rs` brings images into their one form;
//!   both depend on nothing else here.
//! * `facts.rs` keeps what is known of images; `judging.rs` looks up what a verdict needs, through
//!   `lookup.rs` if others must be asked; `waiting.rs` knows since when images wait for a scan.
//! * `verdict.rs` is the pure function, and says what it means; `explain.rs` puts it into words.
//! * `service.rs` is the webhook, `answer.rs` and `image_policy.rs` what it answers, `pins.rs` the
//!   digests that it puts in place of tags, `metrics.rs` what it counts.
//! * `doors.rs` is what others must bring.

mod answer;
mod doors;
mod explain;
pub mod facts;
mod image_policy;
pub mod images;
mod judging;
mod lookup;
mod metrics;
mod pins;
pub mod review;
mod service;
pub mod verdict;
mod waiting;

pub use doors::{
    Decision, Digests, Event, Events, FactsSource, JudgedFacts, JudgedImage, Puller, Recorder,
    Regarding, Resolved, ScanRequest, Unresolved,
};
pub use explain::{policy, sentence, summary};
pub use facts::FactsIndex;
pub use images::Name;
pub use service::{Admission, Doors, Knowledge, Pod, PodVerdict, Settings};
pub use verdict::{Cause, Outcome, Reason, Verdict, Worst, judge};

/// Registers all metrics of admission, each with a series, for a page that lists them.
///
/// # Errors
/// A name is taken.
pub fn register_metrics(registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
    metrics::Metrics::new(registry)?.touch();
    Ok(())
}
