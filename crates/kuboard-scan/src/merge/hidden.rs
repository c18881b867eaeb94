//! What happened to paths: removed, covered, hidden with their folder; and the links in the root
//! that paths lead through.

use std::borrow::Cow;

use kuboard_vuln::LayerInventory;
use rustc_hash::FxHashMap;

use super::Files;

/// Links of the root that a path is led through one after the other, at most: links may turn in a
/// circle.
const MAX_TURNS: usize = 8;

/// The links that stand in the root, by name.
#[derive(Default)]
pub(super) struct Links<'a>(FxHashMap<&'a str, &'a str>);

impl<'a> Links<'a> {
    /// Puts a layer on top.
    pub(super) fn update(&mut self, inventory: &'a LayerInventory) {
        if inventory.opaque.iter().any(String::is_empty) {
            self.0.clear();
        }
        if !self.0.is_empty() {
            inventory.removed.iter().for_each(|path| _ = self.0.remove(path.as_str()));
        }
        self.0.extend(inventory.links.iter().map(|(name, to)| (name.as_str(), to.as_str())));
    }

    /// Where a path leads: its folder in the root may be a link. A path in the root itself leads
    /// nowhere else, and neither does one whose links turn in a circle.
    pub(super) fn lead<'p>(&self, path: &'p str) -> Cow<'p, str> {
        let mut led = Cow::Borrowed(path);
        for _ in 0..MAX_TURNS {
            let Some((root, rest)) = led.split_once('/') else { return led };
            let Some(target) = self.0.get(root) else { return led };
            led = Cow::Owned(format!("{target}/{rest}"));
        }
        Cow::Borrowed(path)
    }
}

/// The layers in which something happened to a path, with what is below it.
#[derive(Default)]
pub(super) struct Hidden<'a> {
    /// Paths that are removed.
    removed: FxHashMap<Cow<'a, str>, Vec<u32>>,
    /// Folders that hide what was in them.
    opaque: FxHashMap<Cow<'a, str>, Vec<u32>>,
    /// Hashes of paths that are covered by something, sorted.
    covered: Vec<(u64, u32)>,
}

impl<'a> Hidden<'a> {
    /// Notes what a layer removes and covers.
    pub(super) fn add(&mut self, layer: u32, inventory: &'a LayerInventory, links: &Links<'_>) {
        for path in &inventory.removed {
            self.removed.entry(links.lead(path)).or_default().push(layer);
        }
        for folder in &inventory.opaque {
            self.opaque.entry(links.lead(folder)).or_default().push(layer);
        }
        self.covered.extend(inventory.covered.iter().map(|hash| (*hash, layer)));
    }

    /// Sorts what was noted.
    pub(super) fn seal(&mut self) {
        self.covered.sort_unstable();
    }

    /// The layers in which the path, or a folder above it, was removed, covered or hidden, or in
    /// which a file took the place of such a folder; in no order.
    pub(super) fn events(&self, path: &str, files: &Files<'_>) -> Vec<u32> {
        let mut events = Vec::new();
        events.extend(self.removed.get(path).into_iter().flatten());
        events.extend(self.opaque.get("").into_iter().flatten());
        self.covering(path, &mut events);
        for (end, _) in path.match_indices('/') {
            let folder = path.get(..end).unwrap_or_default();
            events.extend(self.removed.get(folder).into_iter().flatten());
            events.extend(self.opaque.get(folder).into_iter().flatten());
            events.extend(files.get(folder).into_iter().flatten().map(|version| version.layer));
            self.covering(folder, &mut events);
        }
        events
    }

    fn covering(&self, path: &str, events: &mut Vec<u32>) {
        if self.covered.is_empty() {
            return;
        }
        let hash = LayerInventory::path_hash(path);
        let first = self.covered.partition_point(|(other, _)| *other < hash);
        let found = self.covered.iter().skip(first).take_while(|(other, _)| *other == hash);
        events.extend(found.map(|(_, layer)| *layer));
    }
}
