//! Takes the advisories of all sources, one by one, and makes a database file of them.
//!
//! Documents go to a scratch file at once; rows, as small as in the file, and the ids stay in
//! memory. What a source did not feed again is carried over from the previous database without
//! being parsed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kuboard_vuln::conditions::{put_severities, read_severities};
use kuboard_vuln::lookup::{build_rows, name_key};
use kuboard_vuln::{Advisory, Epss, Row, SeverityScore};
use rustc_hash::{FxHashMap, FxHashSet};

use super::blocks::MAX_BLOCK;
use super::format::{hash, sha256, u64_at};
use super::intern::Intern;
use super::meta::SourceInfo;
use super::rows::{Arenas, Packed};
use super::{Database, DatabaseError, cves};
use crate::Sink;

/// Names of packages, namespaces, sources and advisories are at most this long.
const MAX_NAME: usize = 1024;
/// Ids by which one advisory can be found.
const MAX_IDS: usize = 256;

/// Source name under which EPSS figures are carried over.
pub const EPSS: &str = "epss";
/// Source name under which known exploited CVEs are carried over.
pub const KNOWN_EXPLOITED: &str = "kev";
/// Source name under which ends of life are carried over.
pub const END_OF_LIFE: &str = "eol";

/// An advisory that was taken in.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) source: u16,
    /// Offset in the strings.
    pub(super) id: u32,
    pub(super) alive: bool,
    /// Where it is in the scratch file: head, then body.
    pub(super) at: u64,
    pub(super) head: u32,
    pub(super) body: u32,
    pub(super) hash: u64,
}

/// A row and its package: offset in `packages`.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    pub(super) package: u32,
    pub(super) row: Packed,
}

pub(super) struct Rated {
    pub(super) epss: Option<Epss>,
    pub(super) scores: Vec<SeverityScore>,
    pub(super) known_exploited: String,
}

/// Builds a database. Feed it as a [`Sink`], then [`Builder::finish`].
pub struct Builder {
    folder: PathBuf,
    pub(super) previous: Option<Arc<Database>>,
    scratch: BufWriter<File>,
    pub(super) written: u64,
    pub(super) arenas: Arenas,
    /// `NAMESPACE NUL NAME`.
    pub(super) packages: Intern,
    pub(super) entries: Vec<Entry>,
    numbers: FxHashMap<(u16, u32), u32>,
    /// (source, id) that must not be carried over.
    retracted: FxHashSet<(u16, u32)>,
    pub(super) rows: Vec<Placed>,
    /// (hash of the id, number of the entry).
    pub(super) ids: Vec<(u32, u32)>,
    pub(super) sources: Vec<SourceInfo>,
    source_numbers: FxHashMap<String, u16>,
    pub(super) cves: BTreeMap<u64, Rated>,
    pub(super) end_of_life: BTreeMap<String, String>,
    /// The first thing that went wrong; nothing is taken in after it.
    failed: Option<DatabaseError>,
}

impl Builder {
    /// A builder with nothing in it. Scratch files lie in `folder`. The new generation is compared
    /// with `previous`.
    ///
    /// # Errors
    /// When no file can be made in the folder.
    pub fn new(folder: &Path, previous: Option<Arc<Database>>) -> Result<Self, DatabaseError> {
        let scratch =
            tempfile::tempfile_in(folder).map_err(|err| DatabaseError::io(folder, err))?;
        Ok(Self {
            folder: folder.to_owned(),
            previous,
            scratch: BufWriter::with_capacity(1 << 18, scratch),
            written: 0,
            arenas: Arenas::new(),
            packages: Intern::new("packages", 1),
            entries: Vec::new(),
            numbers: FxHashMap::default(),
            retracted: FxHashSet::default(),
            rows: Vec::new(),
            ids: Vec::new(),
            sources: Vec::new(),
            source_numbers: FxHashMap::default(),
            cves: BTreeMap::new(),
            end_of_life: BTreeMap::new(),
            failed: None,
        })
    }

    /// Notes when a source was fetched, and what its fetcher wants to be told next time.
    pub fn source(&mut self, name: &str, fetched_ms: i64, fingerprint: &str) {
        let Some(number) = self.source_number(name) else { return };
        if let Some(source) = self.sources.get_mut(usize::from(number)) {
            source.fetched_ms = fetched_ms;
            fingerprint.clone_into(&mut source.fingerprint);
        }
    }

    /// Takes over everything of the previous database whose source is to be kept. An advisory
    /// that was fed or retracted before is not brought back; one that is fed later replaces. EPSS,
    /// KEV and ends of life go by [`EPSS`], [`KNOWN_EXPLOITED`], [`END_OF_LIFE`], scores by their
    /// source.
    ///
    /// # Errors
    /// When the previous database is damaged: build anew without it.
    pub fn carry(&mut self, keep: &dyn Fn(&str) -> bool) -> Result<(), DatabaseError> {
        if let Some(previous) = self.previous.clone() {
            self.carry_sources(&previous, keep);
            let numbers = self.carry_documents(&previous, keep)?;
            self.carry_rows(&previous, &numbers)?;
            self.carry_figures(&previous, keep);
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    fn carry_sources(&mut self, from: &Database, keep: &dyn Fn(&str) -> bool) {
        for old in from.sources().iter().filter(|old| keep(&old.name)) {
            let Some(number) = self.source_number(&old.name) else { return };
            if let Some(new) = self.sources.get_mut(usize::from(number))
                && new.fetched_ms == 0
            {
                *new = SourceInfo { advisories: 0, ..old.clone() };
            }
        }
    }

    /// Numbers of the entries by the previous numbers; `u32::MAX` for what stays behind.
    fn carry_documents(
        &mut self,
        from: &Database,
        keep: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<u32>, DatabaseError> {
        let mut numbers = vec![u32::MAX; from.len()];
        let mut heads = from.head_cursor();
        let mut bodies = from.body_cursor();
        for index in 0..from.len() as u32 {
            let (source, id, content) = from.identity(index)?;
            let head = heads.next()?;
            let body = bodies.next()?;
            if !keep(source) {
                continue;
            }
            let Some(source) = self.source_number(source) else { break };
            let id = self.arenas.strings.add(id.as_bytes())?;
            if self.retracted.contains(&(source, id)) || self.numbers.contains_key(&(source, id)) {
                continue;
            }
            let number = self.store(source, id, [&head, &body], content)?;
            if let Some(slot) = numbers.get_mut(index as usize) {
                *slot = number;
            }
        }
        for (tag, index) in from.ids() {
            if let Some(&number) = numbers.get(index as usize).filter(|one| **one != u32::MAX) {
                self.ids.push((tag, number));
            }
        }
        Ok(numbers)
    }

    fn carry_rows(&mut self, from: &Database, numbers: &[u32]) -> Result<(), DatabaseError> {
        let mut failed = None;
        from.each_row(&mut |namespace, package, row| {
            let number = numbers.get(row.advisory as usize).copied().unwrap_or(u32::MAX);
            if number != u32::MAX && failed.is_none() {
                let row = Row { advisory: number, ..row };
                failed = self.row(namespace, package, &row).err();
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn carry_figures(&mut self, from: &Database, keep: &dyn Fn(&str) -> bool) {
        let (epss, listed) = (keep(EPSS), keep(KNOWN_EXPLOITED));
        from.each_cve(&mut |key, old, scores, day| {
            let mut scores = read_severities(scores);
            scores.retain(|score| keep(&score.source));
            let epss = old.epss.filter(|_| epss);
            let day = if listed { day } else { "" };
            if epss.is_none() && day.is_empty() && scores.is_empty() {
                return;
            }
            let new = self.rated(key);
            new.epss = new.epss.or(epss);
            if new.known_exploited.is_empty() {
                day.clone_into(&mut new.known_exploited);
            }
            for score in scores {
                let same = |one: &SeverityScore| {
                    (&one.source, one.rating) == (&score.source, score.rating)
                };
                if !new.scores.iter().any(same) {
                    new.scores.push(score);
                }
            }
        });
        if keep(END_OF_LIFE) {
            for (namespace, day) in from.ends_of_life() {
                self.end_of_life.entry(namespace.clone()).or_insert_with(|| day.clone());
            }
        }
    }

    pub(super) fn rated(&mut self, key: u64) -> &mut Rated {
        self.cves.entry(key).or_insert_with(|| Rated {
            epss: None,
            scores: Vec::new(),
            known_exploited: String::new(),
        })
    }

    fn source_number(&mut self, name: &str) -> Option<u16> {
        if let Some(number) = self.source_numbers.get(name) {
            return Some(*number);
        }
        let number = u16::try_from(self.sources.len()).ok().filter(|_| name.len() <= MAX_NAME);
        let Some(number) = number else {
            self.failed.get_or_insert(DatabaseError::TooLarge("sources"));
            return None;
        };
        self.sources.push(SourceInfo { name: name.to_owned(), ..SourceInfo::default() });
        self.source_numbers.insert(name.to_owned(), number);
        Some(number)
    }

    fn counts(&mut self, source: u16, count: impl FnOnce(&mut SourceInfo)) {
        if let Some(source) = self.sources.get_mut(usize::from(source)) {
            count(source);
        }
    }

    /// Appends a document, in place of the one with the same (source, id).
    fn store(
        &mut self,
        source: u16,
        id: u32,
        [head, body]: [&[u8]; 2],
        hash: u64,
    ) -> Result<u32, DatabaseError> {
        let number = u32::try_from(self.entries.len()).ok().filter(|one| *one < u32::MAX);
        let number = number.ok_or(DatabaseError::TooLarge("advisories"))?;
        let written = self.scratch.write_all(head).and_then(|()| self.scratch.write_all(body));
        written.map_err(|err| DatabaseError::io(&self.folder, err))?;
        self.kill(source, id);
        self.numbers.insert((source, id), number);
        let (at, len) = (self.written, [head.len() as u32, body.len() as u32]);
        let [head, body] = len;
        self.entries.push(Entry { source, id, alive: true, at, head, body, hash });
        self.written += u64::from(head) + u64::from(body);
        Ok(number)
    }

    fn kill(&mut self, source: u16, id: u32) {
        if let Some(old) = self.numbers.remove(&(source, id))
            && let Some(entry) = self.entries.get_mut(old as usize)
        {
            entry.alive = false;
        }
    }

    fn row(&mut self, namespace: &str, name: &str, row: &Row<'_>) -> Result<(), DatabaseError> {
        let mut package = Vec::with_capacity(namespace.len() + 1 + name.len());
        package.extend_from_slice(namespace.as_bytes());
        package.push(0);
        package.extend_from_slice(name.as_bytes());
        let package = self.packages.add(&package)?;
        let row = self.arenas.pack(row)?;
        self.rows.push(Placed { package, row });
        Ok(())
    }

    fn take(&mut self, mut advisory: Advisory) -> Result<(), DatabaseError> {
        let Some(source) = self.source_number(&advisory.source) else { return Ok(()) };
        let affected = std::mem::take(&mut advisory.affected);
        let head = serde_json::to_vec(&advisory).unwrap_or_default();
        let body = serde_json::to_vec(&affected).unwrap_or_default();
        let is_kept = is_name(&advisory.id) && head.len().max(body.len()) < MAX_BLOCK / 2;
        if !is_kept || head.is_empty() || body.is_empty() {
            self.counts(source, |source| source.refused_advisories += 1);
            return Ok(());
        }
        let id = self.arenas.strings.add(advisory.id.as_bytes())?;
        let content = u64_at(&sha256(&head), 0).unwrap_or_default();
        let content = hash(content, &sha256(&body));
        let number = self.store(source, id, [&head, &body], content)?;
        for tag in tags(&advisory) {
            self.ids.push((tag, number));
        }
        if advisory.withdrawn_ms.is_some() {
            return Ok(());
        }
        for one in &affected {
            if !is_name(&one.namespace) || !is_name(&one.package) {
                self.counts(source, |source| source.refused_advisories += 1);
                continue;
            }
            let name = name_key(one.ecosystem, &one.package);
            let mut failed = None;
            let refused = build_rows(one, number, &mut |row| {
                if failed.is_none() {
                    failed = self.row(&one.namespace, &name, &row).err();
                }
            });
            if let Some(err) = failed {
                return Err(err);
            }
            self.counts(source, |source| {
                source.refused_ranges += refused.ranges;
                source.refused_versions += refused.versions;
            });
        }
        Ok(())
    }

    /// The scratch file, with everything written, or what went wrong before.
    pub(super) fn scratch(&mut self) -> Result<File, DatabaseError> {
        if let Some(err) = self.failed.take() {
            return Err(err);
        }
        let file = self.scratch.flush().and_then(|()| self.scratch.get_ref().try_clone());
        file.map_err(|err: io::Error| DatabaseError::io(&self.folder, err))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains('\0')
}

/// Hashes of the ids under which an advisory is found: its own, its aliases, what it treats, and
/// what it calls related where it names nothing else.
fn tags(advisory: &Advisory) -> Vec<u32> {
    let mut ids: Vec<&String> = vec![&advisory.id];
    ids.extend(advisory.aliases.iter().chain(&advisory.upstream).take(MAX_IDS));
    if !ids.iter().any(|id| id.starts_with("CVE-")) {
        ids.extend(advisory.related.iter().take(MAX_IDS));
    }
    let mut tags: Vec<u32> = ids.into_iter().map(|id| tag(id)).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// The hash of an id, without regard to case.
pub(super) fn tag(id: &str) -> u32 {
    hash(0, id.to_ascii_uppercase().as_bytes()) as u32
}

impl Sink for Builder {
    fn advisory(&mut self, advisory: Advisory) {
        if self.failed.is_none()
            && let Err(err) = self.take(advisory)
        {
            self.failed = Some(err);
        }
    }

    fn score(&mut self, cve: &str, score: SeverityScore) {
        let Some(key) = cves::key(cve) else { return };
        let rated = self.rated(key);
        rated.scores.retain(|old| (&old.source, old.rating) != (&score.source, score.rating));
        if rated.scores.len() < 64 && score.value.len() <= MAX_NAME {
            rated.scores.push(score);
        }
    }

    fn epss(&mut self, cve: &str, epss: Epss) {
        if let Some(key) = cves::key(cve) {
            self.rated(key).epss = Some(epss);
        }
    }

    fn known_exploited(&mut self, cve: &str, listed: &str) {
        if let Some(key) = cves::key(cve) {
            listed.clone_into(&mut self.rated(key).known_exploited);
        }
    }

    fn end_of_life(&mut self, namespace: &str, day: &str) {
        if self.end_of_life.len() < 10_000 && is_name(namespace) && day.len() <= 64 {
            self.end_of_life.insert(namespace.to_owned(), day.to_owned());
        }
    }

    fn retract(&mut self, source: &str, id: &str) {
        let Some(source) = self.source_number(source) else { return };
        match self.arenas.strings.add(id.as_bytes()) {
            Ok(id) => {
                self.kill(source, id);
                self.retracted.insert((source, id));
            }
            Err(err) => {
                self.failed.get_or_insert(err);
            }
        }
    }
}

/// A list of scores as it is kept.
pub(super) fn encoded(scores: &mut [SeverityScore]) -> Vec<u8> {
    scores.sort();
    let mut out = Vec::new();
    put_severities(&mut out, scores);
    out
}
