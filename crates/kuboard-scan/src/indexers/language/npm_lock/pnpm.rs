//! Lockfiles of pnpm: the part of YAML that it writes, block mappings by indentation.
//!
//! Up to form 6 a package says whether it is needed only to develop. From form 9 on it does not,
//! and what programs need is followed from `importers` through `snapshots`.

use std::collections::{HashMap, HashSet};

use kuboard_vuln::Package;

use super::super::{MAX_PACKAGES, Parsed};
use super::{locked, yarn::split};

/// A line `KEY: VALUE` with the keys above it.
struct Line<'l, 'a> {
    keys: &'l [(usize, &'a str)],
    value: &'a str,
}

impl<'a> Line<'_, 'a> {
    fn key(&self, depth: usize) -> Option<&'a str> {
        self.keys.get(depth).map(|(_, key)| *key)
    }
}

/// How many keys may stand above a line.
const MAX_DEPTH: usize = 16;

fn lines<'a>(text: &'a str, mut each: impl FnMut(&Line<'_, 'a>)) {
    let mut keys: Vec<(usize, &'a str)> = Vec::new();
    for line in text.lines() {
        let content = line.trim_start_matches(' ');
        if content.is_empty() || content.starts_with(['#', '-']) {
            continue;
        }
        let indent = line.len() - content.len();
        while keys.last().is_some_and(|(above, _)| *above >= indent) {
            keys.pop();
        }
        let Some((key, value)) = pair(content) else { continue };
        if keys.len() == MAX_DEPTH {
            continue;
        }
        keys.push((indent, key));
        each(&Line { keys: &keys, value: value.trim().trim_matches(['\'', '"']) });
    }
}

/// Key and value of a line; a quoted key may hold colons.
fn pair(content: &str) -> Option<(&str, &str)> {
    for quote in ['\'', '"'] {
        if let Some(rest) = content.strip_prefix(quote) {
            let (key, value) = rest.split_once(quote)?;
            return Some((key, value.strip_prefix(':')?));
        }
    }
    match content.split_once(": ") {
        Some(pair) => Some(pair),
        None => Some((content.trim_end().strip_suffix(':')?, "")),
    }
}

/// Packages of a lockfile.
pub(super) fn parse(text: &str) -> Parsed {
    let mut form = None;
    let mut order: Vec<&str> = Vec::new();
    let mut lock = Lock::default();
    lines(text, |line| {
        let Some(top) = line.key(0) else { return };
        let depth = line.keys.len();
        match top {
            "lockfileVersion" => form = line.value.split('.').next().and_then(|n| n.parse().ok()),
            "packages" if depth == 2 => order.extend(line.key(1)),
            "packages" if depth == 3 && line.key(2) == Some("dev") && line.value == "true" => {
                lock.dev.extend(line.key(1));
            }
            "importers" => lock.importer(line),
            "snapshots" => lock.snapshot(line),
            _ => {}
        }
    });
    let Some(form) = form else { return Parsed::failed("it is not a lockfile of pnpm") };
    let form: u32 = form;
    if !(5..=9).contains(&form) {
        return Parsed::failed(format!("form {form} of pnpm's lockfile is not known"));
    }
    if form >= 9 {
        return Parsed::bounded(lock.reached().into_iter().filter_map(named));
    }
    let packages = order.into_iter().filter(|key| !lock.dev.contains(key));
    Parsed::bounded(packages.filter_map(|key| if form == 5 { slashed(key) } else { named(key) }))
}

/// `/NAME/VERSION_PEERS` of form 5.
fn slashed(key: &str) -> Option<Package> {
    let (name, version) = key.strip_prefix('/')?.rsplit_once('/')?;
    locked(name, version.split('_').next()?)
}

/// `/NAME@VERSION(PEERS)` of form 6, without the slash from form 9 on.
fn named(key: &str) -> Option<Package> {
    let key = key.split('(').next()?;
    let (name, version) = split(key.strip_prefix('/').unwrap_or(key))?;
    locked(name, version)
}

#[derive(Default)]
struct Lock<'a> {
    dev: HashSet<&'a str>,
    /// What programs need: name and version.
    roots: Vec<(&'a str, &'a str)>,
    /// What packages need.
    needs: HashMap<&'a str, Vec<(&'a str, &'a str)>>,
}

impl<'a> Lock<'a> {
    /// `importers: FOLDER: dependencies: NAME: version: VERSION`.
    fn importer(&mut self, line: &Line<'_, 'a>) {
        let kinds = [Some("dependencies"), Some("optionalDependencies")];
        if line.keys.len() == 5 && kinds.contains(&line.key(2)) && line.key(4) == Some("version") {
            self.roots.extend(line.key(3).map(|name| (name, line.value)));
        }
    }

    /// `snapshots: PACKAGE: dependencies: NAME: VERSION`.
    fn snapshot(&mut self, line: &Line<'_, 'a>) {
        let kinds = [Some("dependencies"), Some("optionalDependencies")];
        let Some(package) = line.key(1) else { return };
        if line.keys.len() == 2 {
            self.needs.entry(package).or_default();
        } else if line.keys.len() == 4 && kinds.contains(&line.key(2)) {
            let needs = self.needs.entry(package).or_default();
            needs.extend(line.key(3).map(|name| (name, line.value)));
        }
    }

    /// Keys of the packages that programs need, each once.
    fn reached(&self) -> Vec<&'a str> {
        let mut seen = HashSet::new();
        let mut waiting = self.roots.clone();
        while let Some((name, version)) = waiting.pop() {
            // The version alone, or another package's name with it.
            let joined = format!("{name}@{version}");
            let Some((key, needs)) = self
                .needs
                .get_key_value(joined.as_str())
                .or_else(|| self.needs.get_key_value(version))
            else {
                continue;
            };
            if seen.len() <= MAX_PACKAGES && seen.insert(*key) {
                waiting.extend(needs);
            }
        }
        let mut reached: Vec<_> = seen.into_iter().collect();
        reached.sort_unstable();
        reached
    }
}
