//! Offers the files of a layer to the indexers, and holds the ones that they want.

use std::{mem, sync::Arc};

use kuboard_oci::layer::{Entry, Interest, Kind, Summary, Visitor};
use kuboard_vuln::LayerInventory;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    ARCHIVE, Indexers, MACHINE, Settings, archive_problem,
    hard_links::HardLinks,
    keep::{Body, Spill},
    notes::Notes,
};
use crate::{Candidate, File, Want};

/// Bytes that decide whether a file that is wanted by its beginning is wanted.
const HEAD: usize = 16;
/// Top-level links that are noted.
const MAX_LINKS: usize = 64;

/// A list of byte strings that a file may begin with.
type Beginnings = &'static [&'static [u8]];

/// The visitor that makes an inventory.
pub(super) struct Collector {
    indexers: Indexers,
    settings: Settings,
    pub(super) notes: Notes,
    spill: Spill,
    /// The file that is coming in.
    current: Current,
    is_inside: bool,
    /// Files that are kept to the end.
    pub(super) kept: Vec<Kept>,
    kept_bytes: u64,
    hard_links: HardLinks,
    /// Sizes of wanted files, by the hash of the path: a hard link doesn't tell its own.
    sizes: FxHashMap<u64, u64>,
}

/// A file that is kept to the end.
pub(super) struct Kept {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) body: Body,
    /// Places of the indexers that want it.
    pub(super) by: Vec<u16>,
}

/// The file that is coming in, and who wants it. Its parts are used again for the next one.
#[derive(Default)]
struct Current {
    path: String,
    mode: u32,
    size: u64,
    now: Vec<u16>,
    at_end: Vec<u16>,
    if_starts: Vec<(u16, Beginnings)>,
    head: [u8; HEAD],
    filled: usize,
    target: Target,
    memory: Vec<u8>,
}

/// Where the content of the file that is coming in goes.
#[derive(Clone, Copy, Default)]
enum Target {
    /// Its beginning decides.
    #[default]
    Undecided,
    Memory,
    /// Into the temporary file, from this offset.
    Spill(u64),
    /// Nobody wants it after all, or it doesn't fit.
    Nowhere,
}

impl Collector {
    pub(super) fn new(indexers: Indexers, settings: Settings) -> Self {
        Self {
            notes: Notes::new(settings.clone()),
            spill: Spill::new(&settings.spill, settings.max_spill),
            indexers,
            settings,
            current: Current::default(),
            is_inside: false,
            kept: Vec::new(),
            kept_bytes: 0,
            hard_links: HardLinks::default(),
            sizes: FxHashMap::default(),
        }
    }

    /// Asks all indexers; whether one may want the file.
    fn ask(&mut self, candidate: &Candidate<'_>) -> bool {
        let current = &mut self.current;
        current.now.clear();
        current.at_end.clear();
        current.if_starts.clear();
        let indexers = self.indexers.clone();
        for (place, indexer) in indexers.places() {
            let mut want = Want::No;
            self.notes.guard_wants(indexer, candidate.path, || want = indexer.wants(candidate));
            match want {
                Want::No => {}
                Want::Now => current.now.push(place),
                Want::AtEnd => current.at_end.push(place),
                Want::IfStarts(beginnings) => current.if_starts.push((place, beginnings)),
            }
        }
        !(current.now.is_empty() && current.at_end.is_empty() && current.if_starts.is_empty())
    }

    fn file(&mut self, entry: &Entry<'_>) -> Interest {
        let &Entry { path, size, mode, .. } = entry;
        if !self.ask(&Candidate { path, size, mode }) {
            if mode & 0o111 != 0 {
                self.notes.cover(path);
            }
            return Interest::Skip;
        }
        let is_sure = !(self.current.now.is_empty() && self.current.at_end.is_empty());
        if entry.sparse {
            if is_sure {
                self.notes.problem(ARCHIVE, path, "it is a sparse file, which is not read");
            }
            self.notes.cover(path);
            return Interest::Skip;
        }
        if !self.notes.may_read() {
            self.notes.cover(path);
            return Interest::Skip;
        }
        if !self.current.at_end.is_empty() && !self.notes.has_room(path.len()) {
            self.notes.cover(path);
            return Interest::Skip;
        }
        if self.sizes.len() < self.settings.max_records {
            self.sizes.insert(LayerInventory::path_hash(path), size);
        }
        let current = &mut self.current;
        current.path.clear();
        current.path.push_str(path);
        (current.mode, current.size, current.filled) = (mode, size, 0);
        current.target = Target::Undecided;
        self.is_inside = true;
        if self.current.if_starts.is_empty() {
            self.choose_target();
        }
        Interest::Read
    }

    /// Sees whether the file begins as it should, now that its first bytes are there.
    fn decide(&mut self) {
        let current = &mut self.current;
        let head = current.head.get(..current.filled).unwrap_or_default();
        for (place, beginnings) in current.if_starts.drain(..) {
            if beginnings.iter().any(|beginning| head.starts_with(beginning)) {
                current.now.push(place);
            }
        }
        // Indexers are asked in their order, whatever they asked for.
        current.now.sort_unstable();
        if current.now.is_empty() && current.at_end.is_empty() {
            current.target = Target::Nowhere;
            return;
        }
        self.choose_target();
        let (head, filled) = (self.current.head, self.current.filled);
        self.store(head.get(..filled).unwrap_or_default());
    }

    fn choose_target(&mut self) {
        let Current { size, at_end, .. } = &self.current;
        let (size, is_kept) = (*size, !at_end.is_empty());
        let fits_now = size <= self.settings.memory_per_file;
        let fits = self.kept_bytes.saturating_add(size) <= self.settings.memory;
        self.current.target = if fits_now && (fits || !is_kept) {
            self.current.memory.clear();
            Target::Memory
        } else if self.spill.has_room(size) {
            Target::Spill(self.spill.end())
        } else {
            let max = self.settings.max_spill;
            let why = format!("it has {size} bytes and is not read, as files are held up to {max}");
            let path = mem::take(&mut self.current.path);
            self.notes.problem(ARCHIVE, &path, why);
            self.current.path = path;
            Target::Nowhere
        };
    }

    fn store(&mut self, piece: &[u8]) {
        match self.current.target {
            Target::Memory => self.current.memory.extend_from_slice(piece),
            Target::Spill(offset) => {
                if let Err(error) = self.spill.append(piece) {
                    self.spill.release(offset);
                    self.current.target = Target::Nowhere;
                    let why = format!("it can't be held in a temporary file: {error}");
                    let path = mem::take(&mut self.current.path);
                    self.notes.problem(MACHINE, &path, why);
                    self.current.path = path;
                }
            }
            Target::Undecided | Target::Nowhere => {}
        }
    }

    /// The content of the file that is complete.
    fn body(&mut self) -> Option<Body> {
        match self.current.target {
            Target::Memory => Some(Body::Memory(Arc::new(mem::take(&mut self.current.memory)))),
            Target::Spill(offset) => self.spill.body(offset),
            Target::Undecided | Target::Nowhere => None,
        }
    }

    /// Lets indexers read a file at once; whether one made a record of it.
    pub(super) fn read(&mut self, path: &str, mode: u32, body: &Body, places: &[u16]) -> bool {
        let before = self.notes.found.files.len();
        let indexers = self.indexers.clone();
        for indexer in places.iter().filter_map(|place| indexers.get(*place)) {
            let file = File { path, mode, content: body };
            self.notes.guard(indexer, path, |found| indexer.read(&file, found));
        }
        self.notes.found.files.iter().skip(before).any(|record| record.path == path)
    }

    fn complete(&mut self) {
        let path = mem::take(&mut self.current.path);
        let (mode, now) = (self.current.mode, mem::take(&mut self.current.now));
        if let Some(body) = self.body() {
            let has_record = self.read(&path, mode, &body, &now);
            if self.current.at_end.is_empty() {
                if !has_record {
                    self.notes.cover(&path);
                }
                self.drop_body(body);
            } else {
                if matches!(body, Body::Memory(_)) {
                    self.kept_bytes = self.kept_bytes.saturating_add(self.current.size);
                }
                let by = self.current.at_end.clone();
                self.kept.push(Kept { path: path.clone(), mode, body, by });
            }
        } else {
            self.notes.cover(&path);
        }
        (self.current.path, self.current.now) = (path, now);
    }

    /// Makes the place of a content free again.
    fn drop_body(&mut self, body: Body) {
        match body {
            Body::Memory(bytes) => self.current.memory = Arc::into_inner(bytes).unwrap_or_default(),
            Body::Spilled { offset, .. } => self.spill.release(offset),
        }
    }

    fn hard_link(&mut self, entry: &Entry<'_>) {
        let Entry { path, mode, .. } = *entry;
        let target = entry.link.unwrap_or_default();
        let known = self.sizes.get(&LayerInventory::path_hash(target)).copied();
        // A target that nobody wanted is at least not empty.
        let size = known.unwrap_or(1);
        if !self.ask(&Candidate { path, size, mode }) {
            self.notes.cover(path);
            return;
        }
        if let Some(known) = known {
            self.sizes.insert(LayerInventory::path_hash(path), known);
        }
        if self.notes.has_room(path.len() + target.len()) {
            let Current { now, at_end, if_starts, .. } = &self.current;
            let if_starts = if_starts.iter().map(|(place, _)| *place).collect();
            self.hard_links.push(path, target, mode, [now.clone(), at_end.clone(), if_starts]);
        } else {
            self.notes.cover(path);
        }
    }

    fn symlink(&mut self, entry: &Entry<'_>) {
        self.notes.cover(entry.path);
        if entry.path.contains('/') || self.notes.links.len() >= MAX_LINKS {
            return;
        }
        if let Some(target) = entry.link.and_then(from_root) {
            let links = &mut self.notes.links;
            links.retain(|(name, _)| name != entry.path);
            links.push((entry.path.to_owned(), target));
        }
    }

    /// Lets indexers read what was kept, and closes the notes.
    pub(super) fn finish(mut self, summary: &Summary) -> LayerInventory {
        if let Some(why) = archive_problem(&summary.end) {
            let path =
                if self.is_inside { mem::take(&mut self.current.path) } else { String::new() };
            self.notes.problem(ARCHIVE, &path, why);
        }
        // Of two entries with the same path the last one counts.
        self.kept.reverse();
        self.kept.sort_by(|a, b| a.path.cmp(&b.path));
        self.kept.dedup_by(|a, b| a.path == b.path);
        let indexers = self.indexers.clone();
        let links = mem::take(&mut self.hard_links);
        let linked = links.keep(&mut self);
        self.kept.sort_by(|a, b| a.path.cmp(&b.path));
        let files: Vec<&Kept> = self.kept.iter().collect();
        for (place, indexer) in indexers.places() {
            let wanted: Vec<File<'_>> = files
                .iter()
                .filter(|kept| kept.by.contains(&place))
                .map(|kept| File { path: &kept.path, mode: kept.mode, content: &kept.body })
                .collect();
            if !wanted.is_empty() {
                self.notes.guard(indexer, "", |found| indexer.finish(&wanted, found));
            }
        }
        linked.copy(&indexers, &mut self.notes);
        let records: FxHashSet<&str> =
            self.notes.found.files.iter().map(|record| record.path.as_str()).collect();
        let without: Vec<String> = self
            .kept
            .iter()
            .filter(|kept| !records.contains(kept.path.as_str()))
            .map(|kept| kept.path.clone())
            .collect();
        without.iter().for_each(|path| self.notes.cover(path));
        LayerInventory {
            diff_id: summary.diff_id,
            entries: summary.entries,
            size: summary.size,
            ..self.notes.finish()
        }
    }
}

impl Visitor for Collector {
    fn entry(&mut self, entry: &Entry<'_>) -> Interest {
        match entry.kind {
            Kind::File => return self.file(entry),
            Kind::Directory => {}
            Kind::HardLink => self.hard_link(entry),
            Kind::Symlink => self.symlink(entry),
            Kind::Other(_) => self.notes.cover(entry.path),
        }
        Interest::Skip
    }

    fn content(&mut self, piece: &[u8]) {
        let mut rest = piece;
        if matches!(self.current.target, Target::Undecided) {
            let current = &mut self.current;
            let slots = current.head.iter_mut().skip(current.filled);
            let taken = slots.zip(rest).map(|(slot, byte)| *slot = *byte).count();
            current.filled += taken;
            rest = rest.get(taken..).unwrap_or_default();
            if current.filled < HEAD {
                return;
            }
            self.decide();
        }
        self.store(rest);
    }

    fn end(&mut self) {
        self.is_inside = false;
        if matches!(self.current.target, Target::Undecided) {
            self.decide();
        }
        self.complete();
    }

    fn whiteout(&mut self, path: &str) {
        if self.notes.has_room(path.len()) {
            self.notes.removed.push(path.to_owned());
        }
    }

    fn opaque(&mut self, folder: &str) {
        if self.notes.has_room(folder.len()) {
            self.notes.opaque.push(folder.to_owned());
        }
    }

    fn problem(&mut self, path: &str, why: &str) {
        self.notes.problem(ARCHIVE, path, why);
    }
}

/// Where a link in the root points, from the root; nothing if it leads nowhere below it.
fn from_root(target: &str) -> Option<String> {
    let mut path: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            // The root is its own parent.
            ".." => _ = path.pop(),
            _ => path.push(part),
        }
    }
    (!path.is_empty()).then(|| path.join("/"))
}
