//! Proves a store whole: every blob is its digest, everything that was acknowledged is there.

use kuboard_catalog::Catalog;
use kuboard_oci::Digest;
use kuboard_store::{BlobStore, Damage, FsckOptions, Problem};
use serde::{Deserialize, Serialize};

/// Digests read from the catalogue at once.
const PAGE: u32 = 1000;

/// What was looked at.
pub struct Subject<'a> {
    /// Content of upstream registries.
    pub cache: &'a dyn BlobStore,
    /// Content pushed here.
    pub hosted: &'a dyn BlobStore,
    /// What should be there.
    pub catalog: &'a Catalog,
}

/// What was found. A store is whole when `corrupt` and `missing` are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Blobs read, damaged ones too.
    pub checked_blobs: u64,
    /// Their bytes.
    pub checked_bytes: u64,
    /// Blobs whose bytes are not their digest, as `area: what is wrong`.
    pub corrupt: Vec<String>,
    /// Acknowledged hosted content whose bytes are gone.
    pub missing: Vec<Digest>,
    /// Announced but never acknowledged: an upload cut off between its row and its bytes.
    pub unfinished: u64,
    /// Files that no blob store wrote.
    pub foreign: Vec<String>,
}

impl Report {
    /// Nothing acknowledged is lost and nothing visible is wrong.
    pub fn is_whole(&self) -> bool {
        self.corrupt.is_empty() && self.missing.is_empty()
    }
}

/// Reads all blobs and checks them; `progress` hears (blobs, bytes) read so far.
pub async fn check(
    subject: &Subject<'_>,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> anyhow::Result<Report> {
    let mut report = Report::default();
    for (area, store) in [("cache", subject.cache), ("hosted", subject.hosted)] {
        let (blobs, bytes) = (report.checked_blobs, report.checked_bytes);
        let told = move |b: u64, n: u64| progress(blobs + b, bytes + n);
        let found = kuboard_store::fsck(store, FsckOptions::default(), |now| {
            told(now.checked, now.bytes);
        })
        .await?;
        report.checked_blobs += found.checked;
        report.checked_bytes += found.bytes;
        report
            .corrupt
            .extend(found.corrupt.iter().map(|problem| format!("{area}: {}", tell(problem))));
        report.foreign.extend(found.foreign);
        report.foreign.extend(found.misplaced.into_iter().map(|(path, _)| path));
    }
    check_catalogue(subject, &mut report).await?;
    Ok(report)
}

async fn check_catalogue(subject: &Subject<'_>, report: &mut Report) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let page = subject.catalog.hosted_digests(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.digest);
        for row in &page {
            if subject.hosted.stat(&row.digest).await?.is_some() {
                continue;
            }
            // An unreferenced blob may have been announced just before a crash: its push was
            // never acknowledged, and the collector will take the row.
            if row.referenced {
                report.missing.push(row.digest);
            } else {
                report.unfinished += 1;
            }
        }
    }
}

fn tell(problem: &Problem) -> String {
    let digest = problem.digest;
    match &problem.damage {
        Damage::Digest { actual } => format!("{digest} holds the bytes of {actual}"),
        Damage::Length { listed, actual } => {
            format!("{digest} has {actual} bytes where {listed} are listed")
        }
        Damage::Unreadable(error) => format!("{digest} can't be read: {error}"),
    }
}
