//! A database file, mapped and asked.
//!
//! Opening verifies the header and the small facts only. Everything else is checked where it is
//! read: an offset that lies outside makes a row or an advisory unreadable, never a panic, and
//! [`Database::is_damaged`] tells that it happened.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kuboard_rt::Mapping;
use kuboard_vuln::conditions::read_severities;
use kuboard_vuln::{
    Advisories, Advisory, Affected, DatabaseStamp, Epss, LookupError, Row, SeverityScore,
};
use parking_lot::Mutex;

use super::blocks::{BlockReader, Blocks, Cursor};
use super::builder::tag;
use super::cves::{self, Record};
use super::format::{Section, Sections, hash, hex, u32_at, u64_at};
use super::intern::entry;
use super::meta::{MAX_META, Meta};
use super::rows::{Packed, ROW, View};
use super::{Changes, DatabaseError, SourceInfo};

const PACKAGE: usize = 16;
const SLOT: usize = 8;
const ADVISORY: usize = 16;
const ID: usize = 8;
/// Heads that are kept, at most one for each place.
const CACHED_HEADS: usize = 4096;
/// A longer way through the hash table means that it is damaged.
const MAX_PROBES: usize = 4096;

/// Takes key, record, scores and the day of KEV.
type CveVisitor<'a> = &'a mut dyn FnMut(u64, Record, &[u8], &str);
type HeadSlot = Mutex<Option<(u32, Arc<Advisory>)>>;

/// A compiled advisory database. Cheap to share, safe to ask from all threads.
pub struct Database {
    mapping: Arc<Mapping>,
    sections: Sections,
    checksum: String,
    meta: Meta,
    heads: BlockReader,
    bodies: BlockReader,
    known_heads: Box<[HeadSlot]>,
    damaged: AtomicBool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("generation", &self.meta.generation)
            .field("checksum", &self.checksum)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Opens and maps a file. It must never be written again; it may be renamed and unlinked.
    ///
    /// # Errors
    /// When it cannot be mapped, or is no whole database of a known format.
    pub fn open(path: &Path) -> Result<Arc<Database>, DatabaseError> {
        let mapping = Mapping::open(path).map_err(|err| DatabaseError::io(path, err))?;
        let (sections, sum) = Sections::read(mapping.as_slice())?;
        let file = mapping.as_slice();
        let meta = sections.of(file, Section::Meta);
        if meta.len() > MAX_META || !sections.is_whole(file, Section::Meta) {
            return Err(DatabaseError::Damaged("its facts cannot be read"));
        }
        let meta: Meta = serde_json::from_slice(meta)
            .map_err(|_| DatabaseError::Damaged("its facts cannot be read"))?;
        let slots = sections.of(file, Section::Slots).len() / SLOT;
        if !slots.is_power_of_two() {
            return Err(DatabaseError::Damaged("its index has no size of an index"));
        }
        Ok(Arc::new(Self {
            sections,
            checksum: hex(&sum),
            meta,
            heads: BlockReader::new(),
            bodies: BlockReader::new(),
            known_heads: (0..CACHED_HEADS).map(|_| Mutex::new(None)).collect(),
            damaged: AtomicBool::new(false),
            mapping,
        }))
    }

    /// Reads the whole file and compares all checksums.
    ///
    /// # Errors
    /// When a byte differs.
    pub fn verify(&self) -> Result<(), DatabaseError> {
        if self.sections.are_whole(self.mapping.as_slice()) {
            return Ok(());
        }
        self.damaged.store(true, Ordering::Relaxed);
        Err(DatabaseError::Damaged("the checksum of a section does not fit"))
    }

    /// Whether something was found that cannot be what was written.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// All advisories that have this id, as their own, an alias or one that they treat; without
    /// regard to case. At most 1000.
    #[must_use]
    pub fn find(&self, id: &str) -> Vec<Advisory> {
        let (table, wanted) = (self.section(Section::Ids), tag(id));
        let (mut low, mut high) = (0, table.len() / ID);
        while low < high {
            let middle = low + (high - low) / 2;
            if u32_at(table, middle * ID).unwrap_or(u32::MAX) < wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let found = table.chunks_exact(ID).skip(low).map_while(|one| {
            let (tag, advisory) = (u32_at(one, 0)?, u32_at(one, 4)?);
            (tag == wanted).then_some(advisory)
        });
        let named = |advisory: &Advisory| {
            let others = advisory.aliases.iter().chain(&advisory.upstream).chain(&advisory.related);
            others.chain([&advisory.id]).any(|one| one.eq_ignore_ascii_case(id))
        };
        found.take(1000).filter_map(|at| self.advisory(at).ok()).filter(named).collect()
    }

    /// The sources, by name.
    #[must_use]
    pub fn sources(&self) -> &[SourceInfo] {
        &self.meta.sources
    }

    /// What differs from the generation before.
    ///
    /// # Errors
    /// When that part of the file is damaged.
    pub fn changed(&self) -> Result<Changes, DatabaseError> {
        let bad = DatabaseError::Damaged("the changes cannot be read");
        let packed = self.section(Section::Changes);
        let limit = 1 << 30;
        let decoder = zstd::stream::read::Decoder::new(packed);
        let Ok(decoder) = decoder else { return Err(bad) };
        let read = std::io::Read::take(decoder, limit);
        serde_json::from_reader(std::io::BufReader::new(read)).map_err(|_| bad)
    }

    /// Number of the generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.meta.generation
    }

    /// Advisories.
    #[must_use]
    pub fn len(&self) -> usize {
        self.section(Section::Advisories).len() / ADVISORY
    }

    /// Whether there are no advisories.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Packages that have rows.
    #[must_use]
    pub fn packages(&self) -> usize {
        self.section(Section::Packages).len() / PACKAGE
    }

    /// Rows.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.section(Section::Rows).len() / ROW
    }

    /// CVEs that raters speak of.
    #[must_use]
    pub fn cve_count(&self) -> usize {
        self.section(Section::Cves).len() / cves::CVE
    }

    /// All namespaces that have rows.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.meta.namespaces.iter().map(String::as_str)
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.mapping.len()
    }

    /// Bytes of each part of the file, for who wants to know where they go.
    #[must_use]
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        [
            ("strings", Section::Strings),
            ("keys", Section::Keys),
            ("conditions", Section::Conditions),
            ("packages", Section::Packages),
            ("index", Section::Slots),
            ("rows", Section::Rows),
            ("advisories", Section::Advisories),
            ("heads", Section::Heads),
            ("bodies", Section::Bodies),
            ("cves", Section::Cves),
            ("ids", Section::Ids),
            ("changes", Section::Changes),
        ]
        .map(|(name, section)| (name, self.section(section).len()))
        .to_vec()
    }

    pub(super) fn file(&self) -> &[u8] {
        self.mapping.as_slice()
    }

    pub(super) fn checksum(&self) -> &str {
        &self.checksum
    }

    pub(super) fn stamp_of(&self) -> DatabaseStamp {
        let sources = self.meta.sources.iter();
        DatabaseStamp {
            generation: self.meta.generation,
            checksum: self.checksum.clone(),
            built_ms: self.meta.built_ms,
            sources: sources.map(|one| (one.name.clone(), one.fetched_ms)).collect(),
        }
    }

    fn section(&self, section: Section) -> &[u8] {
        self.sections.of(self.mapping.as_slice(), section)
    }

    fn view(&self) -> View<'_> {
        View {
            strings: self.section(Section::Strings),
            keys: self.section(Section::Keys),
            conditions: self.section(Section::Conditions),
        }
    }

    fn text(&self, offset: u32) -> Option<&str> {
        std::str::from_utf8(entry(self.section(Section::Strings), offset)?).ok()
    }

    fn head_blocks(&self) -> Blocks<'_> {
        Blocks {
            table: self.section(Section::HeadTable),
            data: self.section(Section::Heads),
            dictionary: self.section(Section::HeadDictionary),
        }
    }

    fn body_blocks(&self) -> Blocks<'_> {
        Blocks {
            table: self.section(Section::BodyTable),
            data: self.section(Section::Bodies),
            dictionary: self.section(Section::BodyDictionary),
        }
    }

    pub(super) fn head_cursor(&self) -> Cursor<'_> {
        Cursor::new(&self.heads, self.head_blocks())
    }

    pub(super) fn body_cursor(&self) -> Cursor<'_> {
        Cursor::new(&self.bodies, self.body_blocks())
    }

    /// Source, id and hash of the content of an advisory.
    pub(super) fn identity(&self, index: u32) -> Result<(&str, &str, u64), DatabaseError> {
        let read = || {
            let at = index as usize * ADVISORY;
            let table = self.section(Section::Advisories);
            let id = self.text(u32_at(table, at)?)?;
            let source = self.meta.sources.get(u32_at(table, at + 4)? as usize)?;
            Some((source.name.as_str(), id, u64_at(table, at + 8)?))
        };
        read().ok_or(DatabaseError::Damaged("the table of advisories"))
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let table = self.section(Section::Ids).chunks_exact(ID);
        table.filter_map(|one| Some((u32_at(one, 0)?, u32_at(one, 4)?)))
    }

    /// A package by number: namespace, name, rows.
    pub(super) fn package(
        &self,
        number: usize,
    ) -> Option<(&str, &str, impl Iterator<Item = Row<'_>>)> {
        let table = self.section(Section::Packages);
        let at = number.checked_mul(PACKAGE)?;
        let (namespace, name) = (u32_at(table, at)?, u32_at(table, at + 4)?);
        let rows = self.packed_rows(table, at)?;
        let view = self.view();
        let rows = rows.chunks_exact(ROW).filter_map(move |row| {
            let row = Packed::from_bytes(row).and_then(|row| view.unpack(row));
            if row.is_none() {
                self.note_damage();
            }
            row
        });
        Some((self.text(namespace)?, self.text(name)?, rows))
    }

    fn packed_rows(&self, table: &[u8], at: usize) -> Option<&[u8]> {
        let first = (u32_at(table, at + 8)? as usize).checked_mul(ROW)?;
        let len = (u32_at(table, at + 12)? as usize).checked_mul(ROW)?;
        self.section(Section::Rows).get(first..first.checked_add(len)?)
    }

    /// All rows; an error if any cannot be read.
    pub(super) fn each_row(
        &self,
        visit: &mut dyn FnMut(&str, &str, Row<'_>),
    ) -> Result<(), DatabaseError> {
        for number in 0..self.packages() {
            let package = self.package(number);
            let (namespace, name, rows) =
                package.ok_or(DatabaseError::Damaged("the table of packages"))?;
            rows.for_each(|row| visit(namespace, name, row));
        }
        if self.is_damaged() { Err(DatabaseError::Damaged("a row")) } else { Ok(()) }
    }

    pub(super) fn each_cve(&self, visit: CveVisitor<'_>) {
        let table = self.section(Section::Cves);
        for position in 0..table.len() / cves::CVE {
            let Some((key, record)) = cves::at(table, position) else { return };
            let scores = entry(self.section(Section::Conditions), record.scores);
            let day = self.text(record.known_exploited).unwrap_or_default();
            visit(key, record, scores.unwrap_or_default(), day);
        }
    }

    pub(super) fn ends_of_life(&self) -> impl Iterator<Item = (&String, &String)> {
        self.meta.end_of_life.iter()
    }

    fn note_damage(&self) {
        if !self.damaged.swap(true, Ordering::Relaxed) {
            tracing::error!(
                generation = self.meta.generation,
                "the advisory database is damaged; hint: run `kuboard db update`"
            );
        }
    }

    fn lookup_error(&self, what: &str) -> LookupError {
        self.note_damage();
        LookupError::Damaged(what.to_owned())
    }

    /// The number of a package.
    fn number_of(&self, namespace: &str, package: &str) -> Option<usize> {
        let slots = self.section(Section::Slots);
        let mask = (slots.len() / SLOT).checked_sub(1)?;
        let hashed = hash(hash(self.meta.salt, namespace.as_bytes()), package.as_bytes());
        let wanted = (hashed >> 32) as u32;
        let packages = self.section(Section::Packages);
        let strings = self.section(Section::Strings);
        for probe in 0..MAX_PROBES {
            let at = ((hashed as usize).wrapping_add(probe) & mask) * SLOT;
            let number = u32_at(slots, at + 4)?.checked_sub(1)? as usize;
            if u32_at(slots, at)? != wanted {
                continue;
            }
            let is_text = |at: usize, text: &str| {
                u32_at(packages, at).and_then(|offset| entry(strings, offset))
                    == Some(text.as_bytes())
            };
            let at = number.checked_mul(PACKAGE)?;
            if is_text(at + 4, package) && is_text(at, namespace) {
                return Some(number);
            }
        }
        self.note_damage();
        None
    }
}

impl Advisories for Database {
    fn rows(
        &self,
        namespace: &str,
        package: &str,
        visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) {
        let Some(number) = self.number_of(namespace, package) else { return };
        let Some(rows) = self.packed_rows(self.section(Section::Packages), number * PACKAGE) else {
            return self.note_damage();
        };
        let view = self.view();
        for row in rows.chunks_exact(ROW) {
            match Packed::from_bytes(row).and_then(|row| view.unpack(row)) {
                Some(row) if visit(row).is_break() => return,
                Some(_) => {}
                None => self.note_damage(),
            }
        }
    }

    fn head(&self, index: u32) -> Result<Arc<Advisory>, LookupError> {
        if index as usize >= self.len() {
            return Err(LookupError::NoSuchAdvisory(index));
        }
        let slot = self.known_heads.get(index as usize % CACHED_HEADS);
        if let Some(slot) = slot
            && let Some((found, head)) = &*slot.lock()
            && *found == index
        {
            return Ok(head.clone());
        }
        let json = self.heads.read(self.head_blocks(), index);
        let json = json.map_err(|what| self.lookup_error(what))?;
        let head: Advisory = serde_json::from_slice(&json)
            .map_err(|_| self.lookup_error("an advisory is no advisory"))?;
        let head = Arc::new(head);
        if let Some(slot) = slot {
            *slot.lock() = Some((index, head.clone()));
        }
        Ok(head)
    }

    fn advisory(&self, index: u32) -> Result<Advisory, LookupError> {
        let mut advisory = Advisory::clone(&*self.head(index)?);
        let json = self.bodies.read(self.body_blocks(), index);
        let json = json.map_err(|what| self.lookup_error(what))?;
        let affected: Vec<Affected> = serde_json::from_slice(&json)
            .map_err(|_| self.lookup_error("the packages of an advisory"))?;
        advisory.affected = affected;
        Ok(advisory)
    }

    fn scores(&self, cve: &str) -> Vec<SeverityScore> {
        let record = cves::find(self.section(Section::Cves), cve);
        let list = record.map(|record| record.scores).filter(|offset| *offset != 0);
        list.and_then(|offset| entry(self.section(Section::Conditions), offset))
            .map(read_severities)
            .unwrap_or_default()
    }

    fn epss(&self, cve: &str) -> Option<Epss> {
        cves::find(self.section(Section::Cves), cve)?.epss
    }

    fn known_exploited(&self, cve: &str) -> Option<String> {
        let record = cves::find(self.section(Section::Cves), cve)?;
        self.text(record.known_exploited).filter(|day| !day.is_empty()).map(str::to_owned)
    }

    fn end_of_life(&self, namespace: &str) -> Option<String> {
        self.meta.end_of_life.get(namespace).cloned()
    }

    fn covers(&self, namespace: &str) -> bool {
        self.meta.namespaces.contains(namespace)
    }

    fn stamp(&self) -> DatabaseStamp {
        self.stamp_of()
    }
}
