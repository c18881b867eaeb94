//! What access by RBAC counts.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

/// Counters of questions to the API server and of answers from memory.
#[derive(Clone)]
pub struct Metrics {
    /// `kuboard_access_reviews_total{kind,outcome}`.
    pub(super) reviews: IntCounterVec,
    /// `kuboard_access_review_seconds`.
    pub(super) seconds: Histogram,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// The registry has some of that name already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reviews = IntCounterVec::new(
            Opts::new(
                "kuboard_access_reviews_total",
                "Questions to the API server about callers of the registry, by kind (token, \
                 access) and outcome (yes, no, remembered, failed).",
            ),
            &["kind", "outcome"],
        )?;
        let seconds = Histogram::with_opts(
            HistogramOpts::new(
                "kuboard_access_review_seconds",
                "Time that the API server took to answer such a question.",
            )
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0]),
        )?;
        registry.register(Box::new(reviews.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        for kind in ["token", "access"] {
            for outcome in ["yes", "no", "remembered", "failed"] {
                let _ = reviews.with_label_values(&[kind, outcome]);
            }
        }
        Ok(Self { reviews, seconds })
    }

    pub(super) fn count(&self, kind: &str, outcome: &str) {
        self.reviews.with_label_values(&[kind, outcome]).inc();
    }
}
