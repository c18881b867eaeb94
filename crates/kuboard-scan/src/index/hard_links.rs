//! Hard links whose names indexers want: they get what was found in, or kept of, their targets.

use rustc_hash::FxHashMap;

use super::{
    ARCHIVE, Indexers,
    collect::{Collector, Kept},
    notes::Notes,
};

/// Wanted hard links, in the archive's order.
#[derive(Default)]
pub(super) struct HardLinks(Vec<HardLink>);

struct HardLink {
    path: String,
    target: String,
    mode: u32,
    now: Vec<u16>,
    at_end: Vec<u16>,
    /// Places of the indexers that would look at its first bytes.
    if_starts: Vec<u16>,
}

impl HardLinks {
    /// Notes a link, and the indexers that want it: now, at the end, and by its beginning.
    pub(super) fn push(&mut self, path: &str, target: &str, mode: u32, by: [Vec<u16>; 3]) {
        let [now, at_end, if_starts] = by;
        let (path, target) = (path.to_owned(), target.to_owned());
        self.0.push(HardLink { path, target, mode, now, at_end, if_starts });
    }

    /// Adds the links whose targets were kept to the files that are kept, or reads them; returns
    /// the others. Kept files are sorted by path.
    pub(super) fn keep(self, collector: &mut Collector) -> Unkept {
        let mut rest = Vec::new();
        let sorted = collector.kept.len();
        // Links to links: the ones added here, by path.
        let mut added: FxHashMap<String, usize> = FxHashMap::default();
        for link in self.0 {
            let target = link.target.as_str();
            let place = added.get(target).copied().or_else(|| {
                let files = collector.kept.get(..sorted)?;
                files.binary_search_by(|kept| kept.path.as_str().cmp(target)).ok()
            });
            let Some(kept) = place.and_then(|place| collector.kept.get(place)) else {
                rest.push(link);
                continue;
            };
            let body = kept.body.clone();
            let has_record = collector.read(&link.path, link.mode, &body, &link.now);
            if link.at_end.is_empty() {
                if !has_record {
                    collector.notes.cover(&link.path);
                }
                continue;
            }
            added.insert(link.path.clone(), collector.kept.len());
            let HardLink { path, mode, at_end: by, .. } = link;
            collector.kept.push(Kept { path, mode, body, by });
        }
        Unkept(rest)
    }
}

/// Links whose targets were not kept.
pub(super) struct Unkept(Vec<HardLink>);

impl Unkept {
    /// Copies the records of their targets, and tells of those that have none.
    pub(super) fn copy(self, indexers: &Indexers, notes: &mut Notes) {
        if self.0.is_empty() {
            return;
        }
        let mut records: FxHashMap<String, Vec<usize>> = FxHashMap::default();
        for (place, record) in notes.found.files.iter().enumerate() {
            records.entry(record.path.clone()).or_default().push(place);
        }
        let mut unread: Option<(u64, String)> = None;
        for link in self.0 {
            let places = records.get(&link.target).cloned().unwrap_or_default();
            let mut copies = Vec::new();
            for indexer in [&link.now, &link.at_end, &link.if_starts]
                .into_iter()
                .flatten()
                .filter_map(|place| indexers.get(*place))
            {
                // The last of several records of a path is the one that counts.
                let mut known = places.iter().rev().filter_map(|at| notes.found.files.get(*at));
                copies.extend(known.find(|record| record.by == indexer.name()).cloned());
            }
            if copies.is_empty() {
                notes.cover(&link.path);
                if !(link.now.is_empty() && link.at_end.is_empty()) {
                    unread.get_or_insert((0, link.path.clone())).0 += 1;
                }
                continue;
            }
            for mut copy in copies {
                if !notes.may_read() {
                    break;
                }
                copy.path.clone_from(&link.path);
                records.entry(link.path.clone()).or_default().push(notes.found.files.len());
                notes.add(copy);
            }
        }
        if let Some((count, path)) = unread {
            let why = format!(
                "{count} hard links to files that go by other names are not read, this one first"
            );
            notes.problem(ARCHIVE, &path, why);
        }
    }
}
