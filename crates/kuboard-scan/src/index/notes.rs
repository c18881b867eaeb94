//! What is noted of a layer on the way, within limits.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use kuboard_vuln::{FileRecord, LayerInventory, Problem};

use super::{ARCHIVE, Settings};
use crate::{Found, Indexer};

/// Longest message of a panic that is repeated, in bytes.
const MESSAGE_PRINTABLE: usize = 200;

/// Notes of one layer.
pub(super) struct Notes {
    pub(super) found: Found,
    pub(super) removed: Vec<String>,
    pub(super) opaque: Vec<String>,
    pub(super) links: Vec<(String, String)>,
    covered: Vec<u64>,
    /// Packages in the records that were counted so far.
    packages: usize,
    counted: usize,
    problems_beyond: u64,
    names: u64,
    is_full: bool,
    settings: Settings,
}

impl Notes {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            found: Found::default(),
            removed: Vec::new(),
            opaque: Vec::new(),
            links: Vec::new(),
            covered: Vec::new(),
            packages: 0,
            counted: 0,
            problems_beyond: 0,
            names: 0,
            is_full: false,
            settings,
        }
    }

    /// Notes that something was not read.
    pub(super) fn problem(&mut self, by: &str, path: &str, why: impl Into<String>) {
        self.found.problem(by, path, why);
        self.trim();
    }

    /// Notes that an entry stands at a path without a record of what is in it.
    pub(super) fn cover(&mut self, path: &str) {
        self.covered.push(LayerInventory::path_hash(path));
    }

    /// Whether names of this many bytes may still be noted.
    pub(super) fn has_room(&mut self, bytes: usize) -> bool {
        // What a text costs beside its bytes.
        let cost = bytes as u64 + 48;
        let max = self.settings.max_names;
        let before = self.names;
        self.names = before.saturating_add(cost);
        if self.names > max && before <= max {
            let why = format!(
                "it names more than {max} bytes of paths to keep, remove and link, not all noted"
            );
            self.problem(ARCHIVE, "", why);
        }
        self.names <= max
    }

    /// Whether more files may be read.
    pub(super) fn may_read(&mut self) -> bool {
        let Settings { max_records, max_packages, .. } = self.settings;
        let is_full = self.counted >= max_records || self.packages >= max_packages;
        if is_full && !self.is_full {
            self.is_full = true;
            let why = format!(
                "it holds more than {max_records} files or {max_packages} packages, not all read"
            );
            self.problem(ARCHIVE, "", why);
        }
        !is_full
    }

    /// Lets an indexer do something, and survives it.
    pub(super) fn guard(
        &mut self,
        indexer: &dyn Indexer,
        path: &str,
        work: impl FnOnce(&mut Found),
    ) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(&mut self.found))) {
            let why = format!("the indexer failed on it: {}", message(payload.as_ref()));
            self.found.problem(indexer.name(), path, why);
        }
        self.count();
    }

    /// Asks an indexer whether it wants a file, and survives it.
    pub(super) fn guard_wants(&mut self, indexer: &dyn Indexer, path: &str, ask: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(ask)) {
            let why = format!("the indexer failed on its name: {}", message(payload.as_ref()));
            self.problem(indexer.name(), path, why);
        }
    }

    /// Adds a record.
    pub(super) fn add(&mut self, record: FileRecord) {
        self.found.files.push(record);
        self.count();
    }

    /// Counts the records that were added, and cuts off what is too much.
    fn count(&mut self) {
        let Settings { max_records, max_packages, .. } = self.settings;
        if self.found.files.len() > max_records {
            self.found.files.truncate(max_records);
        }
        for file in self.found.files.iter_mut().skip(self.counted) {
            let room = max_packages.saturating_sub(self.packages);
            file.packages.truncate(room);
            self.packages += file.packages.len();
        }
        self.counted = self.found.files.len();
        self.trim();
    }

    /// Counts the problems that are too many instead of keeping them.
    fn trim(&mut self) {
        let max = self.settings.max_problems;
        if self.found.problems.len() > max {
            self.problems_beyond += (self.found.problems.len() - max) as u64;
            self.found.problems.truncate(max);
        }
    }

    /// The inventory, but for what the archive's summary says.
    pub(super) fn finish(mut self) -> LayerInventory {
        // Asked once more, so that what was cut off above is told of.
        self.may_read();
        let Found { mut files, mut problems } = self.found;
        // Of two entries with the same path the last one counts.
        files.reverse();
        files.sort_by(|a, b| (&a.path, &a.by).cmp(&(&b.path, &b.by)));
        files.dedup_by(|a, b| a.path == b.path && a.by == b.by);
        // Most programs say nothing of what they were built of. That one was looked at matters only
        // to what lies below it, and a hash says that as well.
        files.retain(|record| {
            let says_something = !record.packages.is_empty()
                || !record.owns.is_empty()
                || !record.repositories.is_empty()
                || record.distribution.is_some();
            if !says_something {
                self.covered.push(LayerInventory::path_hash(&record.path));
            }
            says_something
        });
        for list in [&mut self.removed, &mut self.opaque] {
            list.sort_unstable();
            list.dedup();
        }
        self.covered.sort_unstable();
        self.covered.dedup();
        self.links.sort();
        if self.problems_beyond > 0 {
            let count = self.problems_beyond;
            problems.push(Problem {
                path: String::new(),
                by: ARCHIVE.to_owned(),
                why: format!("there are {count} more problems"),
            });
        }
        LayerInventory {
            files,
            removed: self.removed,
            opaque: self.opaque,
            covered: self.covered,
            links: self.links,
            problems,
            ..LayerInventory::default()
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no reason");
    let mut end = text.len().min(MESSAGE_PRINTABLE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
