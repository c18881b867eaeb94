//! Bills of materials, out and in.
//!
//! Written: CycloneDX 1.6 and SPDX 2.3, both JSON, the same bytes for the same report. Read:
//! CycloneDX 1.2 to 1.7 as JSON and XML, SPDX 2.2 and 2.3 as JSON, either inside of an in-toto
//! statement too, signed or not (the signature is not checked), and our own JSON. A document's
//! packages are matched like those of an image, so what is in it and cannot be matched is a
//! [`Problem`](kuboard_vuln::Problem): the report is "partly read" then.

mod collect;
mod cyclonedx;
mod identifier;
mod licenses;
mod properties;
pub mod purl;
mod read;
mod read_cyclonedx;
mod read_spdx;
mod read_xml;
mod seeds;
mod spdx;

#[cfg(test)]
mod tests;

use std::io;

use kuboard_vuln::Report;

pub use self::cyclonedx::write_cyclonedx;
pub use self::purl::{PackageUrl, purl};
pub use self::read::{MAX_BYTES, MAX_COMPONENTS, SbomDocument, SbomError, SbomFormat, read};
pub use self::spdx::write_spdx;
use crate::report::text::{Layout, write_json};

/// Media type of CycloneDX as JSON.
pub const CYCLONEDX_MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";
/// Media type of SPDX as JSON.
pub const SPDX_MEDIA_TYPE: &str = "application/spdx+json";

/// Writes our own form: the report without findings.
///
/// # Errors
/// Those of the writer.
pub fn write_json_inventory(report: &Report, to: &mut dyn io::Write) -> io::Result<()> {
    write_json(&without_findings(report), Layout::Pretty, to)
}

/// A report's packages: what a bill of materials is made of.
#[must_use]
pub fn without_findings(report: &Report) -> Report {
    Report {
        schema: report.schema,
        image: report.image.clone(),
        outcome: report.outcome.clone(),
        distribution: report.distribution.clone(),
        end_of_life: report.end_of_life.clone(),
        layers: report.layers.clone(),
        packages: report.packages.clone(),
        findings: Vec::new(),
        suppressed: Vec::new(),
        database: report.database.clone(),
        scanned_ms: report.scanned_ms,
    }
}
