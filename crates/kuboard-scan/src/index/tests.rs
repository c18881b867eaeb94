//! Layers made on the spot, indexed by indexers that do what a test wants.

use std::{io, io::Write as _, path::Path};

use kuboard_vuln::{Ecosystem, FileRecord, LayerInventory, Package};
use proptest::prelude::*;

use super::{Indexers, LayerIndex, Settings, index_reader, is_lasting};
use crate::{Candidate, ContentExt, File, Found, Indexer, Want};

/// An indexer that makes a package of each line of what it reads.
struct Lines {
    name: &'static str,
    version: u32,
    want: fn(&Candidate<'_>) -> Want,
}

impl Lines {
    fn record(&self, file: &File<'_>, found: &mut Found) {
        let bytes = match file.content.whole(1 << 20) {
            Ok(bytes) => bytes,
            Err(error) => return found.problem(self.name, file.path, error.to_string()),
        };
        let mut again = vec![0; bytes.len() + 1];
        assert_eq!(file.content.read_at(0, &mut again).unwrap(), bytes.len());
        assert_eq!(file.content.read_at(bytes.len() as u64, &mut again).unwrap(), 0);
        assert_eq!(file.content.size(), bytes.len() as u64);
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("panic"), "the file says so");
        if text.contains("nothing") {
            return;
        }
        let packages =
            text.lines().map(|line| Package::new(Ecosystem::Deb, line.trim(), "1")).collect();
        let (path, by) = (file.path.to_owned(), self.name.to_owned());
        found.files.push(FileRecord { path, by, packages, ..FileRecord::default() });
    }
}

impl Indexer for Lines {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn wants(&self, candidate: &Candidate<'_>) -> Want {
        (self.want)(candidate)
    }

    fn read(&self, file: &File<'_>, found: &mut Found) {
        self.record(file, found);
    }

    fn finish(&self, files: &[File<'_>], found: &mut Found) {
        assert!(files.is_sorted_by(|a, b| a.path < b.path));
        files.iter().for_each(|file| self.record(file, found));
    }
}

fn by_ending(candidate: &Candidate<'_>, ending: &str, want: Want) -> Want {
    if candidate.name().ends_with(ending) { want } else { Want::No }
}

fn indexers() -> Indexers {
    let line = |name, want| Box::new(Lines { name, version: 1, want }) as Box<dyn Indexer>;
    Indexers::new(vec![
        line("now", |file| by_ending(file, ".now", Want::Now)),
        line("end", |file| by_ending(file, ".end", Want::AtEnd)),
        line("both", |file| by_ending(file, ".end", Want::Now)),
        line("elf", |file| {
            if file.mode & 0o111 == 0 {
                return Want::No;
            }
            Want::IfStarts(&[b"\x7fELF", b"MZ", b"0123456789abcdef"])
        }),
        line("bad", |file| {
            assert!(!file.path.contains("cursed"), "a cursed name");
            Want::No
        }),
    ])
}

/// A tar archive of entries: type, mode, path, and content or target.
fn tar(entries: &[(u8, u32, &str, &str)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (kind, mode, path, text) in entries {
        let mut block = [0; 512];
        let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
        let size = if *kind == b'0' { text.len() } else { 0 };
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}\0").as_bytes());
        put(124, format!("{size:011o}\0").as_bytes());
        put(156, &[*kind]);
        put(157, if *kind == b'0' { b"" } else { text.as_bytes() });
        put(257, b"ustar\x0000        ");
        put(148, b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&block);
        if *kind == b'0' {
            archive.extend_from_slice(text.as_bytes());
            archive.resize(archive.len().next_multiple_of(512), 0);
        }
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn index_in(blob: &[u8], length: usize, settings: &Settings) -> LayerInventory {
    let mut index = LayerIndex::new(&indexers(), settings);
    blob.chunks(length).for_each(|piece| index.push(piece));
    index.finish()
}

/// What is found, which must not depend on how the blob comes, nor on where files are held.
fn index(entries: &[(u8, u32, &str, &str)]) -> LayerInventory {
    let blob = tar(entries);
    let whole = index_reader(&indexers(), &Settings::default(), &blob[..]);
    let mut settings = Settings::default();
    for (memory_per_file, memory) in [(4 << 20, 16 << 20), (0, 0), (10, 20), (100, 0)] {
        (settings.memory_per_file, settings.memory) = (memory_per_file, memory);
        for length in [usize::MAX, 100, 1] {
            assert_eq!(index_in(&blob, length, &settings), whole);
        }
    }
    assert!(is_lasting(&whole));
    whole
}

/// `PATH by INDEXER: PACKAGES` of each record, then `PATH? WHY` of each problem.
fn show(inventory: &LayerInventory) -> Vec<String> {
    let record = |record: &FileRecord| {
        let names: Vec<&str> = record.packages.iter().map(|one| one.name.as_str()).collect();
        format!("{} by {}: {}", record.path, record.by, names.join(" "))
    };
    let problems = inventory.problems.iter();
    let problems = problems.map(|one| format!("{}? {}: {}", one.path, one.by, one.why));
    inventory.files.iter().map(record).chain(problems).collect()
}

fn check(entries: &[(u8, u32, &str, &str)], want: &[&str], covered: &[&str]) {
    let inventory = index(entries);
    assert_eq!(show(&inventory), want);
    let mut hashes: Vec<u64> = covered.iter().map(|path| LayerInventory::path_hash(path)).collect();
    hashes.sort_unstable();
    assert_eq!(inventory.covered, hashes, "covered");
}

#[test]
fn files_are_read_by_whoever_wants_them() {
    check(
        &[
            (b'0', 0o644, "b.end", "q\nr"),
            (b'0', 0o644, "x.now", "p"),
            (b'0', 0o644, "a.end", "s"),
            (b'0', 0o644, "empty.now", ""),
            (b'0', 0o644, "nobody", "x"),
            (b'5', 0o755, "folder.now", ""),
        ],
        &[
            "a.end by both: s",
            "a.end by end: s",
            "b.end by both: q r",
            "b.end by end: q r",
            "x.now by now: p",
        ],
        &["empty.now"],
    );
}

#[test]
fn programs_are_read_by_their_first_bytes() {
    check(
        &[
            (b'0', 0o755, "bin/elf", "\x7fELF and more than sixteen bytes"),
            (b'0', 0o755, "bin/mz", "MZ"),
            (b'0', 0o755, "bin/exact", "0123456789abcdef"),
            (b'0', 0o755, "bin/short", "0123456789abcde"),
            (b'0', 0o755, "bin/script", "#!/bin/sh and more than sixteen bytes"),
            (b'0', 0o755, "bin/empty", ""),
            (b'0', 0o644, "lib/elf", "\x7fELF"),
            (b'0', 0o755, "bin/x.now", "p"),
        ],
        &[
            "bin/elf by elf: \x7fELF and more than sixteen bytes",
            "bin/exact by elf: 0123456789abcdef",
            "bin/mz by elf: MZ",
            "bin/x.now by now: p",
        ],
        &["bin/short", "bin/script", "bin/empty"],
    );
}

#[test]
fn what_covers_is_noted() {
    let inventory = index(&[
        (b'2', 0o777, "lib", "usr/lib"),
        (b'2', 0o777, "lib64", "/usr/../usr//lib64/"),
        (b'2', 0o777, "out", "../.."),
        (b'2', 0o777, "a/b", "c"),
        (b'6', 0o644, "pipe", ""),
        (b'0', 0o644, "x.now", "nothing"),
        (b'0', 0o644, "x.end", "nothing"),
        (b'0', 0o644, "srv/.wh.gone", ""),
        (b'0', 0o644, ".wh.also", ""),
        (b'0', 0o644, "var/.wh..wh..opq", ""),
    ]);
    let links = [("lib", "usr/lib"), ("lib64", "usr/lib64")];
    assert_eq!(inventory.links, links.map(|(name, to)| (name.to_owned(), to.to_owned())));
    assert_eq!(inventory.removed, ["also", "srv/gone"]);
    assert_eq!(inventory.opaque, ["var"]);
    let covered = ["lib", "lib64", "out", "a/b", "pipe", "x.now", "x.end"];
    assert!(
        covered.iter().all(|path| {
            inventory.covered.binary_search(&LayerInventory::path_hash(path)).is_ok()
        })
    );
    assert_eq!(inventory.covered.len(), covered.len());
    assert_eq!((inventory.entries, inventory.size), (10, 10 * 512 + 1024 + 2 * 512));
    assert!(inventory.diff_id.is_some());
    assert_eq!(show(&inventory), [""; 0]);
}

#[test]
fn hard_links_get_what_their_targets_have() {
    check(
        &[
            (b'0', 0o644, "a.now", "p"),
            (b'1', 0o644, "b.now", "a.now"),
            (b'1', 0o644, "c.now", "b.now"),
            (b'0', 0o644, "d.end", "q"),
            (b'1', 0o644, "e.end", "./d.end"),
            (b'1', 0o644, "f.end", "e.end"),
            (b'1', 0o644, "g.now", "d.end"),
            (b'0', 0o755, "elf", "\x7fELF"),
            (b'1', 0o755, "elf2", "elf"),
            (b'1', 0o755, "sh2", "sh"),
            (b'1', 0o644, "plain", "a.now"),
            (b'1', 0o644, "h.now", "store/0123"),
            (b'1', 0o644, "i.end", "store/4567"),
            (b'1', 0o644, "j.now", "j.now"),
        ],
        &[
            "a.now by now: p",
            "b.now by now: p",
            "c.now by now: p",
            "d.end by both: q",
            "d.end by end: q",
            "e.end by both: q",
            "e.end by end: q",
            "elf by elf: \x7fELF",
            "elf2 by elf: \x7fELF",
            "f.end by both: q",
            "f.end by end: q",
            "g.now by now: q",
            "h.now? archive: 3 hard links to files that go by other names are not read, this one \
             first",
        ],
        &["sh2", "plain", "h.now", "i.end", "j.now"],
    );
}

#[test]
fn the_last_of_equal_paths_counts() {
    check(
        &[
            (b'0', 0o644, "a.now", "p"),
            (b'0', 0o644, "a.now", "q"),
            (b'0', 0o644, "a.end", "r"),
            (b'0', 0o644, "a.end", "s"),
        ],
        &["a.end by both: s", "a.end by end: s", "a.now by now: q"],
        &[],
    );
}

#[test]
fn a_panic_costs_its_file() {
    let problem = "the indexer failed on it: the file says so";
    check(
        &[
            (b'0', 0o644, "a.now", "panic"),
            (b'0', 0o644, "b.now", "p"),
            (b'0', 0o644, "c.end", "panic"),
            (b'0', 0o644, "cursed", "x"),
        ],
        &[
            "b.now by now: p",
            &format!("a.now? now: {problem}"),
            &format!("c.end? both: {problem}"),
            "cursed? bad: the indexer failed on its name: a cursed name",
            &format!("? end: {problem}"),
        ],
        &["a.now", "c.end"],
    );
}

#[test]
fn what_breaks_off_is_told() {
    let blob = tar(&[(b'0', 0o644, "a.end", "p"), (b'0', 0o644, "b.now", &"q".repeat(600))]);
    let cut = |length: usize| index_in(&blob[..length], usize::MAX, &Settings::default());
    let inventory = cut(512 * 3 + 500);
    let why = "the archive breaks off in the content of an entry, after 2036 bytes";
    let problem = format!("b.now? archive: {why}");
    assert_eq!(show(&inventory), ["a.end by both: p", "a.end by end: p", problem.as_str()]);
    assert_eq!(inventory.diff_id, None);
    assert!(is_lasting(&inventory));
    for length in 0..blob.len() - 512 {
        assert_eq!(cut(length).problems.len(), 1, "cut after {length}");
    }
}

#[test]
fn limits_hold() {
    let entries: Vec<(u8, u32, String, String)> =
        (0..9).map(|name| (b'0', 0o644, format!("{name}.now"), "p\nq".to_owned())).collect();
    let entries: Vec<(u8, u32, &str, &str)> = entries
        .iter()
        .map(|(kind, mode, path, text)| (*kind, *mode, &path[..], &text[..]))
        .collect();
    let check = |change: fn(&mut Settings), records: usize, why: &str| {
        let mut settings = Settings::default();
        change(&mut settings);
        let inventory = index_in(&tar(&entries), usize::MAX, &settings);
        assert_eq!(inventory.files.len(), records);
        assert_eq!(inventory.problems.last().map(|one| one.why.as_str()), Some(why));
    };
    check(
        |settings| settings.max_records = 3,
        3,
        "it holds more than 3 files or 500000 packages, not all read",
    );
    check(
        |settings| settings.max_packages = 3,
        2,
        "it holds more than 250000 files or 3 packages, not all read",
    );
    check(|settings| settings.limits.entries = 3, 3, "the archive has more than 3 entries");
    let no_room = |settings: &mut Settings| {
        (settings.memory_per_file, settings.max_spill, settings.max_problems) = (2, 2, 4);
    };
    check(no_room, 0, "there are 5 more problems");
    let mut settings = Settings { max_names: 100, ..Settings::default() };
    let blob = tar(&[(b'0', 0o644, ".wh.one", ""), (b'0', 0o644, ".wh.two", "")]);
    let inventory = index_in(&blob, 100, &settings);
    assert_eq!((inventory.removed.len(), inventory.problems.len()), (1, 1));
    // No temporary file can be made there.
    (settings.spill, settings.memory_per_file) = (Path::new("/dev/null/no").to_owned(), 0);
    let inventory = index_in(&tar(&entries[..1]), 100, &settings);
    assert!(inventory.files.is_empty() && !is_lasting(&inventory));
}

#[test]
fn a_reader_that_fails_gives_nothing_to_keep() {
    struct Failing;
    impl io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    let inventory = index_reader(&indexers(), &Settings::default(), Failing);
    assert_eq!(show(&inventory), ["? machine: its bytes can't be read: gone"]);
    assert!(!is_lasting(&inventory));
}

#[test]
fn the_version_is_that_of_the_indexers() {
    let line =
        |name, version| Box::new(Lines { name, version, want: |_| Want::No }) as Box<dyn Indexer>;
    let version = |all: Vec<Box<dyn Indexer>>| Indexers::new(all).version();
    let one = version(vec![line("a", 1), line("b", 1)]);
    assert_eq!(one.len(), 16);
    assert_eq!(one, version(vec![line("b", 1), line("a", 1)]));
    assert_ne!(one, version(vec![line("a", 1), line("b", 2)]));
    assert_ne!(one, version(vec![line("a", 1)]));
    assert!(Indexers::all().iter().count() < 64);
}

proptest! {
    #[test]
    fn anything_is_survived(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        is_gzip in any::<bool>(),
        length in 1..900_usize,
    ) {
        let mut blob = tar(&[
            (b'0', 0o644, "a.end", "p"),
            (b'0', 0o755, "b", "\x7fELF"),
            (b'1', 0o644, "c.now", "a.end"),
            (b'0', 0o644, "d.now", &"x".repeat(700)),
        ]);
        for (at, byte) in edits {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        if is_gzip {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(&blob).unwrap();
            blob = encoder.finish().unwrap();
        }
        let settings = Settings { memory_per_file: 100, ..Settings::default() };
        let inventory = index_in(&blob, length, &settings);
        prop_assert_eq!(&inventory, &index_in(&blob, usize::MAX, &settings));
        prop_assert!(inventory.files.is_sorted_by(|a, b| (&a.path, &a.by) < (&b.path, &b.by)));
    }
}
