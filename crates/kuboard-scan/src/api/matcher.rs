//! The matcher's vulnerability report.

use http::{HeaderName, Method, StatusCode, header::CACHE_CONTROL};
use kuboard_oci::Digest;
use kuboard_vuln::{Outcome as Extent, Report};

use super::{
    answer::{Answer, Head, Outcome, Refusal, digest_of},
    clair::ClairApi,
};
use crate::report::clair::{INDEX_REPORT_MEDIA_TYPE, vulnerability_report};

/// Says of a report that it is not about everything: `partial` or `unsupported`.
const OUTCOME: HeaderName = HeaderName::from_static("kuboard-outcome");
/// The same in the document, where Clair keeps what others add.
const OUTCOME_KEY: &str = "application/vnd.kuboard.outcome+json";

impl ClairApi {
    /// `vulnerability_report/{digest}`.
    pub(super) async fn vulnerability_report(&self, head: &Head, digest: &str) -> Outcome {
        head.expect(&[Method::GET])?;
        let digest = digest_of(digest)?;
        if self.engine.database().is_none() {
            return Ok(Answer::empty(StatusCode::ACCEPTED));
        }
        let Some(mut report) = self.report(&digest).await? else {
            let message = format!("index report for manifest {:?} not found", digest.to_string());
            return Err(Refusal::not_found(message));
        };
        report.image.digest = Some(digest);
        let mut document = vulnerability_report(&report);
        let extent = match &report.outcome {
            Extent::Complete => None,
            Extent::Partial { .. } => Some("partial"),
            Extent::Unsupported { .. } => Some("unsupported"),
        };
        if extent.is_some() {
            let value = serde_json::to_value(&report.outcome).map_err(Refusal::internal)?;
            document.enrichments.insert(OUTCOME_KEY.to_owned(), vec![value]);
        }
        // Clair says so, and clients compare.
        let answer = Answer::json(StatusCode::OK, INDEX_REPORT_MEDIA_TYPE, &document)?;
        let age = format!("max-age={}", self.settings.cache_seconds);
        let answer = answer.with(CACHE_CONTROL, &age);
        Ok(match extent {
            Some(extent) => answer.with(OUTCOME, extent),
            None => answer,
        })
    }

    /// What is known of an image today, also by an inventory that older indexers made.
    pub(super) async fn report(&self, image: &Digest) -> Result<Option<Report>, Refusal> {
        let known = self.any_inventory(image).await?;
        Ok(known.map(|(identity, inventory)| self.engine.report_on(identity, inventory)))
    }
}
