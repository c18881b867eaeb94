//! From what a builder holds to a file: numbers in the final order, sections one after another,
//! written aside, verified, then renamed.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use kuboard_oci::{Algorithm, Hasher};
use kuboard_vuln::DatabaseStamp;
use rustc_hash::FxHashMap;

use super::blocks::BlockWriter;
use super::builder::{Entry, Placed, encoded};
use super::changes::{self, NewAdvisory, NewPackage};
use super::cves::{self, Record};
use super::format::{HEADER, Section, Sections, hash, sha256, sum_of, u64_at};
use super::meta::Meta;
use super::rows::Packed;
use super::{Builder, Database, DatabaseError};

/// Heads are read for each hit: small blocks.
const HEAD_BLOCK: usize = 16 << 10;
/// Bodies are read for one advisory at a time.
const BODY_BLOCK: usize = 128 << 10;
const DICTIONARY: usize = 96 << 10;
/// Changes longer than this are not listed one by one.
const MAX_CHANGES: usize = 1_000_000;

/// Packages in order: offset of their key, first row, rows.
type Packages = Vec<(u32, u32, u32)>;

impl Builder {
    /// Writes the database to `to`: aside first, verified by reading it back, then renamed.
    ///
    /// # Errors
    /// When something could not be taken in, read or written.
    pub fn finish(
        mut self,
        to: &Path,
        generation: u64,
        built_ms: i64,
    ) -> Result<DatabaseStamp, DatabaseError> {
        let scratch = self.scratch()?;
        let order = self.order();
        let packages = self.sort_rows(&order)?;
        let mut meta = self.meta(generation, built_ms, &order);
        let folder = to.parent().unwrap_or(Path::new("."));
        let io = |err| DatabaseError::io(to, err);
        let aside = tempfile::Builder::new()
            .prefix(".building-")
            .suffix(".kbdb")
            .tempfile_in(folder)
            .map_err(io)?;
        let mut file = Writer::new(aside.reopen().map_err(io)?, to)?;
        let documents = Documents { scratch, entries: &self.entries, order: &order, to };
        documents.write(&mut file)?;
        self.write_tables(&mut file, &order, &packages, &mut meta)?;
        file.finish()?;
        let stamp = {
            let written = Database::open(aside.path())?;
            written.verify()?;
            written.stamp_of()
        };
        let persisted = aside.persist(to).map_err(|err| io(err.error))?;
        persisted.sync_all().map_err(io)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok(stamp)
    }

    /// Numbers of the living entries, by (source, id).
    fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> =
            (0_u32..).zip(&self.entries).filter(|(_, one)| one.alive).map(|(at, _)| at).collect();
        order.sort_unstable_by(|one, two| self.place(*one).cmp(&self.place(*two)));
        order
    }

    fn place(&self, number: u32) -> (&str, &[u8]) {
        self.entries.get(number as usize).map_or(("", &[]), |entry| {
            let source = self.sources.get(usize::from(entry.source));
            (source.map_or("", |source| &source.name), self.arenas.strings.get(entry.id))
        })
    }

    /// Gives rows their final numbers and order, and drops those of replaced advisories.
    fn sort_rows(&mut self, order: &[u32]) -> Result<Packages, DatabaseError> {
        let mut finals = vec![u32::MAX; self.entries.len()];
        for (new, old) in (0_u32..).zip(order) {
            if let Some(slot) = finals.get_mut(*old as usize) {
                *slot = new;
            }
        }
        let number = |old: u32| finals.get(old as usize).copied().unwrap_or(u32::MAX);
        let mut rows = std::mem::take(&mut self.rows);
        rows.retain_mut(|placed| {
            placed.row.advisory = number(placed.row.advisory);
            placed.row.advisory != u32::MAX
        });
        self.ids.retain_mut(|(_, advisory)| {
            *advisory = number(*advisory);
            *advisory != u32::MAX
        });
        self.ids.sort_unstable();
        self.ids.dedup();
        let mut keys: Vec<u32> = rows.iter().map(|placed| placed.package).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.sort_unstable_by(|one, two| self.packages.get(*one).cmp(self.packages.get(*two)));
        let ranks: FxHashMap<u32, u32> = keys.iter().copied().zip(0_u32..).collect();
        rows.sort_unstable_by_key(|placed| ranks.get(&placed.package).copied());
        let view = self.arenas.view();
        let mut sorted: Vec<Placed> = Vec::with_capacity(rows.len());
        let mut packages = Vec::with_capacity(keys.len());
        for group in rows.chunk_by_mut(|one, two| one.package == two.package) {
            group.sort_unstable_by(|one, two| in_order(view.unpack(one.row), view.unpack(two.row)));
            let first = sorted.len();
            let package = group.first().map_or(0, |placed| placed.package);
            for placed in group {
                if sorted.get(first..).and_then(<[Placed]>::last).map(|last| last.row)
                    != Some(placed.row)
                {
                    sorted.push(*placed);
                }
            }
            packages.push((package, first as u32, (sorted.len() - first) as u32));
        }
        if u32::try_from(sorted.len()).is_err() {
            return Err(DatabaseError::TooLarge("rows"));
        }
        self.rows = sorted;
        Ok(packages)
    }

    fn meta(&mut self, generation: u64, built_ms: i64, order: &[u32]) -> Meta {
        for number in order {
            let source = self.entries.get(*number as usize).map(|entry| entry.source);
            if let Some(source) = source.and_then(|at| self.sources.get_mut(usize::from(at))) {
                source.advisories += 1;
            }
        }
        let seed = format!("{generation} {built_ms} {} {}", order.len(), self.written);
        let mut sources = self.sources.clone();
        sources.sort_by(|one, two| one.name.cmp(&two.name));
        Meta {
            generation,
            built_ms,
            salt: u64_at(&sha256(seed.as_bytes()), 0).unwrap_or_default(),
            sources,
            namespaces: std::collections::BTreeSet::new(),
            end_of_life: self.end_of_life.clone(),
        }
    }

    fn write_tables(
        &mut self,
        file: &mut Writer<'_>,
        order: &[u32],
        packages: &Packages,
        meta: &mut Meta,
    ) -> Result<(), DatabaseError> {
        file.begin()?;
        for placed in &self.rows {
            file.write(&placed.row.to_bytes())?;
        }
        file.end(Section::Rows);
        self.write_packages(file, packages, meta)?;
        let by_name: FxHashMap<&str, u16> =
            meta.sources.iter().map(|source| source.name.as_str()).zip(0..).collect();
        file.begin()?;
        for number in order {
            let Some(entry) = self.entries.get(*number as usize) else { continue };
            let name = self.sources.get(usize::from(entry.source)).map(|one| one.name.as_str());
            let source = name.and_then(|name| by_name.get(name)).copied().unwrap_or_default();
            file.write(&entry.id.to_le_bytes())?;
            file.write(&u32::from(source).to_le_bytes())?;
            file.write(&entry.hash.to_le_bytes())?;
        }
        file.end(Section::Advisories);
        file.begin()?;
        for (tag, advisory) in &self.ids {
            file.write(&tag.to_le_bytes())?;
            file.write(&advisory.to_le_bytes())?;
        }
        file.end(Section::Ids);
        let mut table = Vec::with_capacity(self.cves.len() * cves::CVE);
        for (key, mut rated) in std::mem::take(&mut self.cves) {
            let record = Record {
                epss: rated.epss,
                scores: self.arenas.conditions.add(&encoded(&mut rated.scores))?,
                known_exploited: self.arenas.strings.add(rated.known_exploited.as_bytes())?,
            };
            table.extend_from_slice(&cves::to_bytes(key, &record));
        }
        file.section(Section::Cves, &table)?;
        file.section(Section::Changes, &self.changes(order, packages)?)?;
        file.section(Section::Strings, self.arenas.strings.arena())?;
        file.section(Section::Keys, self.arenas.keys.arena())?;
        file.section(Section::Conditions, self.arenas.conditions.arena())?;
        file.section(Section::Meta, &serde_json::to_vec(meta).unwrap_or_default())
    }

    /// The table of packages and its hash table.
    fn write_packages(
        &mut self,
        file: &mut Writer<'_>,
        packages: &Packages,
        meta: &mut Meta,
    ) -> Result<(), DatabaseError> {
        let slots = (packages.len() * 2).next_power_of_two().max(2);
        let mut table: Vec<(u32, u32)> = vec![(0, 0); slots];
        file.begin()?;
        for (number, (key, first, rows)) in (1_u32..).zip(packages) {
            let (namespace, name) = split(self.packages.get(*key));
            let at = hash(hash(meta.salt, namespace), name);
            let mut slot = at as usize & (slots - 1);
            while table.get(slot).is_some_and(|(_, taken)| *taken != 0) {
                slot = (slot + 1) & (slots - 1);
            }
            if let Some(free) = table.get_mut(slot) {
                *free = ((at >> 32) as u32, number);
            }
            let namespace_text = String::from_utf8_lossy(namespace);
            if !meta.namespaces.contains(namespace_text.as_ref()) {
                meta.namespaces.insert(namespace_text.into_owned());
            }
            let namespace = self.arenas.strings.add(namespace)?;
            let name = self.arenas.strings.add(name)?;
            for word in [namespace, name, *first, *rows] {
                file.write(&word.to_le_bytes())?;
            }
        }
        file.end(Section::Packages);
        file.begin()?;
        for (tag, number) in table {
            file.write(&tag.to_le_bytes())?;
            file.write(&number.to_le_bytes())?;
        }
        file.end(Section::Slots);
        Ok(())
    }

    fn changes(&self, order: &[u32], packages: &Packages) -> Result<Vec<u8>, DatabaseError> {
        let advisories: Vec<NewAdvisory<'_>> = order
            .iter()
            .map(|number| {
                let (source, id) = self.place(*number);
                let hash = self.entries.get(*number as usize).map_or(0, |entry| entry.hash);
                NewAdvisory { source, id: std::str::from_utf8(id).unwrap_or_default(), hash }
            })
            .collect();
        let mut changes = match &self.previous {
            None => super::Changes::default(),
            Some(previous) => {
                let identities: Vec<u64> =
                    advisories.iter().map(|one| changes::identity(one.source, one.id)).collect();
                let view = self.arenas.view();
                let rows = |first: u32, count: u32| {
                    let all = self.rows.get(first as usize..).unwrap_or_default();
                    let rows = all.iter().take(count as usize);
                    changes::fingerprint(rows.filter_map(|one| view.unpack(one.row)), &identities)
                };
                let packages = packages.iter().map(|(key, first, count)| {
                    let (namespace, name) = split(self.packages.get(*key));
                    NewPackage { namespace, name, fingerprint: rows(*first, *count) }
                });
                changes::compare(previous, packages, &advisories)?
            }
        };
        let listed = changes.packages.len() + changes.changed.len() + changes.added.len();
        if listed + changes.removed.len() > MAX_CHANGES {
            changes = super::Changes::default();
        }
        let json = serde_json::to_vec(&changes).unwrap_or_default();
        zstd::bulk::compress(&json, 9).map_err(|_| DatabaseError::TooLarge("changes"))
    }
}

fn in_order(one: Option<kuboard_vuln::Row<'_>>, two: Option<kuboard_vuln::Row<'_>>) -> Ordering {
    match (one, two) {
        (Some(one), Some(two)) => one.order(&two),
        (one, two) => one.is_some().cmp(&two.is_some()),
    }
}

fn split(key: &[u8]) -> (&[u8], &[u8]) {
    let nul = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
    (key.get(..nul).unwrap_or_default(), key.get(nul + 1..).unwrap_or_default())
}

/// The documents of the scratch file, in the final order.
struct Documents<'a> {
    scratch: File,
    entries: &'a [Entry],
    order: &'a [u32],
    to: &'a Path,
}

impl Documents<'_> {
    fn read(&self, number: u32, is_head: bool) -> Result<Vec<u8>, DatabaseError> {
        let Some(entry) = self.entries.get(number as usize) else { return Ok(Vec::new()) };
        let (at, len) = if is_head {
            (entry.at, entry.head)
        } else {
            (entry.at + u64::from(entry.head), entry.body)
        };
        let mut document = vec![0; len as usize];
        let read = self.scratch.read_exact_at(&mut document, at);
        read.map_err(|err| DatabaseError::io(self.to, err))?;
        Ok(document)
    }

    fn write(&self, file: &mut Writer<'_>) -> Result<(), DatabaseError> {
        let heads = [Section::HeadDictionary, Section::Heads, Section::HeadTable];
        self.write_blocks(file, true, HEAD_BLOCK, heads)?;
        let bodies = [Section::BodyDictionary, Section::Bodies, Section::BodyTable];
        self.write_blocks(file, false, BODY_BLOCK, bodies)
    }

    fn write_blocks(
        &self,
        file: &mut Writer<'_>,
        is_head: bool,
        size: usize,
        [dictionary_section, data_section, table_section]: [Section; 3],
    ) -> Result<(), DatabaseError> {
        let io = |err| DatabaseError::io(self.to, err);
        let dictionary = self.dictionary(is_head)?;
        file.section(dictionary_section, &dictionary)?;
        let mut blocks = BlockWriter::new(&dictionary, size).map_err(io)?;
        file.begin()?;
        for number in self.order {
            if let Some(block) = blocks.add(&self.read(*number, is_head)?).map_err(io)? {
                file.write(&block)?;
            }
        }
        let (last, table) = blocks.finish().map_err(io)?;
        file.write(&last)?;
        file.end(data_section);
        file.section(table_section, &table)
    }

    /// Samples spread over all sources, one after another: a dictionary of raw content.
    fn dictionary(&self, is_head: bool) -> Result<Vec<u8>, DatabaseError> {
        const SAMPLES: usize = 96;
        let mut out = Vec::with_capacity(DICTIONARY);
        for sample in 0..SAMPLES.min(self.order.len()) {
            let at = sample * self.order.len() / SAMPLES.min(self.order.len());
            let Some(number) = self.order.get(at) else { continue };
            let document = self.read(*number, is_head)?;
            out.extend(document.iter().take(DICTIONARY / SAMPLES));
        }
        Ok(out)
    }
}

/// Writes sections one after another, each at a multiple of 8, and the header at the end.
struct Writer<'a> {
    file: BufWriter<File>,
    to: &'a Path,
    at: u64,
    begun: u64,
    hasher: Hasher,
    sections: Sections,
}

impl<'a> Writer<'a> {
    fn new(file: File, to: &'a Path) -> Result<Self, DatabaseError> {
        let mut file = BufWriter::with_capacity(1 << 18, file);
        file.write_all(&[0; HEADER]).map_err(|err| DatabaseError::io(to, err))?;
        let (at, hasher) = (HEADER as u64, Hasher::new(Algorithm::Sha256));
        Ok(Self { file, to, at, begun: at, hasher, sections: Sections::default() })
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), DatabaseError> {
        self.file.write_all(bytes).map_err(|err| DatabaseError::io(self.to, err))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn begin(&mut self) -> Result<(), DatabaseError> {
        let padding = self.at.next_multiple_of(8) - self.at;
        self.raw([0; 8].get(..padding as usize).unwrap_or_default())?;
        self.begun = self.at;
        self.hasher = Hasher::new(Algorithm::Sha256);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DatabaseError> {
        self.hasher.update(bytes);
        self.raw(bytes)
    }

    fn end(&mut self, section: Section) {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256));
        self.sections.set(section, self.begun as usize..self.at as usize, sum_of(hasher));
    }

    fn section(&mut self, section: Section, bytes: &[u8]) -> Result<(), DatabaseError> {
        self.begin()?;
        self.write(bytes)?;
        self.end(section);
        Ok(())
    }

    fn finish(mut self) -> Result<(), DatabaseError> {
        let (header, _) = self.sections.header(self.at);
        let written = self
            .file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&header))
            .and_then(|()| self.file.flush())
            .and_then(|()| self.file.get_ref().sync_all());
        written.map_err(|err| DatabaseError::io(self.to, err))
    }
}

const _: () = assert!(std::mem::size_of::<Packed>() == 20);
