//! The forms in which a report leaves the program, one file each. All of them say what was not
//! read: no form of a partly read image looks like that of a clean one, as far as it has words
//! for it.
//!
//! What a report holds comes from images and advisories, so from strangers: every form escapes it
//! for itself, and what is shown to people is freed of characters that control a terminal or
//! reorder text.

pub mod clair;
mod counts;
pub(crate) mod dates;
pub mod harbor;
mod html;
mod junit;
mod sarif;
mod table;
mod targets;
pub(crate) mod text;

#[cfg(test)]
pub(crate) mod tests;

use std::{fmt, io, str::FromStr};

use kuboard_vuln::Report;

use crate::sbom;

/// A form of a report.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Format {
    /// For people at a terminal.
    Table,
    /// The [`Report`] itself.
    Json,
    /// SARIF 2.1.0.
    Sarif,
    /// CycloneDX 1.6, JSON, with vulnerabilities.
    CycloneDx,
    /// SPDX 2.3, JSON, with links to advisories.
    Spdx,
    /// Clair v4's vulnerability report.
    Clair,
    /// Harbor's vulnerability report, version 1.1.
    Harbor,
    /// JUnit's XML: a suite for each target, a failure for each finding.
    Junit,
    /// One page that needs nothing else.
    Html,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 9] = [
        Format::Table,
        Format::Json,
        Format::Sarif,
        Format::CycloneDx,
        Format::Spdx,
        Format::Clair,
        Format::Harbor,
        Format::Junit,
        Format::Html,
    ];

    /// The name that a user gives.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Json => "json",
            Format::Sarif => "sarif",
            Format::CycloneDx => "cyclonedx",
            Format::Spdx => "spdx",
            Format::Clair => "clair",
            Format::Harbor => "harbor",
            Format::Junit => "junit",
            Format::Html => "html",
        }
    }

    /// The media type of what is written.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Format::Table => "text/plain; charset=utf-8",
            Format::Json => "application/json",
            Format::Sarif => "application/sarif+json",
            Format::CycloneDx => sbom::CYCLONEDX_MEDIA_TYPE,
            Format::Spdx => sbom::SPDX_MEDIA_TYPE,
            Format::Clair => clair::VULNERABILITY_REPORT_MEDIA_TYPE,
            Format::Harbor => harbor::VULNERABILITY_REPORT_MEDIA_TYPE,
            Format::Junit => "application/xml",
            Format::Html => "text/html; charset=utf-8",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No form has this name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "no report format is called {0:?}; hint: table, json, sarif, cyclonedx, spdx, clair, harbor, \
     junit and html are known"
)]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let found = Format::ALL.into_iter().find(|format| format.as_str() == name);
        found.ok_or_else(|| UnknownFormat(name.chars().take(32).collect()))
    }
}

/// The language of a page's labels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Simplified Chinese.
    Zh,
}

/// How to write a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteOptions<'a> {
    /// Columns of the terminal; `None` if there is none, so that lines may have any length.
    pub width: Option<u16>,
    /// Whether a table has colours.
    pub color: bool,
    /// Milliseconds since 1970, for what is said of ages.
    pub now_ms: i64,
    /// The version of this program.
    pub tool_version: &'a str,
    /// The language of the page's labels; all other forms are English.
    pub lang: Language,
}

/// Writes a report.
///
/// # Errors
/// Those of the writer.
pub fn write(
    report: &Report,
    format: Format,
    options: &WriteOptions<'_>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    match format {
        Format::Table => table::write(report, options, to),
        Format::Json => text::write_json(report, text::Layout::Pretty, to),
        Format::Sarif => sarif::write(report, options, to),
        Format::CycloneDx => sbom::write_cyclonedx(report, options, to),
        Format::Spdx => sbom::write_spdx(report, options, to),
        Format::Clair => {
            text::write_json(&clair::vulnerability_report(report), text::Layout::Compact, to)
        }
        Format::Harbor => {
            let document = harbor::vulnerability_report(report, options);
            text::write_json(&document, text::Layout::Compact, to)
        }
        Format::Junit => junit::write(report, options, to),
        Format::Html => html::write(report, options, to),
    }
}

/// Why a finding does not count, in a few words.
pub(crate) fn suppression_reason(suppression: &kuboard_vuln::Suppression) -> String {
    counts::reason(suppression)
}
