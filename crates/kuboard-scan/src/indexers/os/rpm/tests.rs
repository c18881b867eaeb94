//! Real databases in every format, whole and damaged.

use proptest::prelude::{ProptestConfig, any, proptest};

use super::Rpm;
use crate::{
    Candidate, Found, Indexer, Want,
    indexers::os::tests::{index, lines, reasons, sample},
};

const SQLITE: &str = "var/lib/rpm/rpmdb.sqlite";
const LOG: &str = "var/lib/rpm/rpmdb.sqlite-wal";
const NDB: &str = "usr/lib/sysimage/rpm/Packages.db";
const BERKELEY: &str = "var/lib/rpm/Packages";

/// The listing of rpm itself, as lines of [`lines`] up to the source.
fn listed() -> Vec<String> {
    let listing = String::from_utf8(sample("almalinux.tsv.zst")).unwrap();
    let mut lines: Vec<_> = listing
        .lines()
        .map(|line| {
            let [name, epoch, version, release, arch, _] = line.split('\t').collect::<Vec<_>>()[..]
            else {
                panic!("{line}")
            };
            let epoch = if epoch == "0" { String::new() } else { format!("{epoch}:") };
            format!("{name}|{epoch}{version}-{release}|{arch}")
        })
        .collect();
    lines.sort();
    lines
}

#[track_caller]
fn check_listed(path: &str, bytes: &[u8]) {
    let found = index(&Rpm, &[(path, bytes)]);
    assert_eq!(reasons(&found), Vec::<&str>::new());
    let mut found: Vec<_> = lines(&found)
        .iter()
        .map(|line| line.split('|').take(3).collect::<Vec<_>>().join("|"))
        .collect();
    found.sort();
    assert_eq!(found, listed());
}

#[test]
fn every_format_agrees_with_rpm() {
    check_listed(SQLITE, &sample("almalinux.rpmdb.sqlite.zst"));
    check_listed(NDB, &sample("almalinux.Packages.db.zst"));
    check_listed(BERKELEY, &sample("almalinux.Packages.zst"));
    check_listed(BERKELEY, &big_endian(&sample("almalinux.Packages.zst")));
    // The format is told by the bytes.
    check_listed(BERKELEY, &sample("almalinux.Packages.db.zst"));
}

/// A Berkeley database as a machine of the other byte order writes it.
fn big_endian(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let page_size = u32::from_le_bytes(bytes[20..24].try_into().unwrap()) as usize;
    let flip = |page: &mut [u8], at: usize, length: usize| page[at..at + length].reverse();
    for page in bytes.chunks_exact_mut(page_size) {
        let kind = page[25];
        if kind == 8 {
            (8..24).step_by(4).chain((28..224).step_by(4)).for_each(|at| flip(page, at, 4));
            continue;
        }
        let entries = u16::from_le_bytes([page[20], page[21]]) as usize;
        (8..20).step_by(4).for_each(|at| flip(page, at, 4));
        (20..24).step_by(2).for_each(|at| flip(page, at, 2));
        if kind != 13 {
            continue;
        }
        for number in 0..entries {
            let at = 26 + number * 2;
            let item = u16::from_le_bytes([page[at], page[at + 1]]) as usize;
            flip(page, at, 2);
            if page[item] == 3 {
                flip(page, item + 4, 4);
                flip(page, item + 8, 4);
            }
        }
    }
    bytes
}

#[test]
fn headers_are_read_whole() {
    let found = index(&Rpm, &[(NDB, &sample("small.Packages.db.zst"))]);
    insta::assert_snapshot!(lines(&found).join("\n"), @r"
    kubo-tool|2:1.2.3-4.el9|noarch||tools:1|MIT AND Apache-2.0
    kubo-tool-libs|2:1.2.3-4.el9|noarch|kubo-tool 2:1.2.3-4.el9|tools:1|LGPL-2.1-or-later
    kubo-tool-many|1.2.3-4.el9|noarch|kubo-tool 1.2.3-4.el9|tools:1|MIT AND Apache-2.0
    ");
    insta::assert_snapshot!(found.files[0].owns.join("\n"), @r"
    usr/bin/kubo
    usr/lib/python3/site-packages/kubo-1.2.3.dist-info/METADATA
    usr/lib/python3/site-packages/kubo-1.2.3.dist-info/RECORD
    usr/share/java/kubo.jar
    ");
    assert_eq!(reasons(&found), Vec::<&str>::new());
}

#[test]
fn a_log_is_merged() {
    let names = |found: &Found| -> Vec<String> {
        found.files.iter().flat_map(|f| &f.packages).map(|p| p.name.clone()).collect()
    };
    let (database, log) = (sample("small.rpmdb.sqlite.zst"), sample("small.rpmdb.sqlite-wal.zst"));
    let alone = index(&Rpm, &[(SQLITE, &database)]);
    assert_eq!(names(&alone), ["kubo-gone", "kubo-tool-libs"]);
    let merged = index(&Rpm, &[(SQLITE, &database), (LOG, &log)]);
    assert_eq!(names(&merged), ["kubo-tool-libs", "kubo-tool", "kubo-tool-many"]);
    assert_eq!((merged.files.len(), reasons(&merged)), (1, vec![]));
    assert_eq!(names(&index(&Rpm, &[(SQLITE, &database), (LOG, b"")])), names(&alone));

    // The last transaction was not committed whole: what was before it counts.
    let torn = index(&Rpm, &[(SQLITE, &database), (LOG, &log[..log.len() - 1])]);
    assert_eq!(names(&torn), ["kubo-tool-libs", "kubo-tool"]);
    assert_eq!(reasons(&torn), Vec::<&str>::new());

    let mut salted = log.clone();
    salted[17] ^= 1;
    let broken = index(&Rpm, &[(SQLITE, &database), (LOG, &salted)]);
    assert_eq!(names(&broken), names(&alone));
    assert_eq!(reasons(&broken), ["partly read: its log is left out: its checksum is wrong"]);

    let lonely = index(&Rpm, &[(LOG, &log)]);
    assert_eq!(reasons(&lonely), ["it is a log without its database"]);
}

#[test]
fn listings_are_read() {
    let text = "glibc\t2.35-2.cm2\t1\t2\tMicrosoft Corporation\t(none)\t10\tx86_64\t0\t\
                glibc-2.35-2.cm2.src.rpm\n\
                libs\t1.2-3\t1\t2\tv\t4\t10\t(none)\t4\ttool-1.2-3.src.rpm\n\nshort\t1\n";
    let found = index(&Rpm, &[("var/lib/rpmmanifest/container-manifest-2", text.as_bytes())]);
    assert_eq!(lines(&found), ["glibc|2.35-2.cm2|x86_64", "libs|4:1.2-3||tool 4:1.2-3"]);
    assert_eq!(reasons(&found), ["partly read: a line has fewer fields than a package needs"]);
}

#[test]
fn damage_is_reported_and_the_rest_is_read() {
    for (path, name) in [
        (SQLITE, "almalinux.rpmdb.sqlite.zst"),
        (NDB, "almalinux.Packages.db.zst"),
        (BERKELEY, "almalinux.Packages.zst"),
    ] {
        let bytes = sample(name);
        let length = if path == SQLITE { 1 << 18 } else { bytes.len() * 2 / 3 };
        let found = index(&Rpm, &[(path, &bytes[..length])]);
        let packages = found.files[0].packages.len();
        assert!(packages > 0 && packages < 60, "{name}: {packages}");
        assert!(reasons(&found)[0].starts_with("partly read: "), "{name}: {found:?}");
        for length in [0, 1, 15, 16, 31, 99, 100, 4095, 4096, 4097] {
            let found = index(&Rpm, &[(path, &bytes[..length])]);
            assert_eq!(found.files.len(), 1);
            assert_eq!(found.problems.is_empty(), length == 0, "{name} {length} {found:?}");
        }
    }
}

/// Changes one number of a database and looks at what is said of it.
#[track_caller]
fn check_damage(name: &str, at: usize, put: &[u8], why: &str) {
    let mut bytes = sample(name);
    bytes[at..at + put.len()].copy_from_slice(put);
    let found = index(&Rpm, &[(BERKELEY, &bytes)]);
    assert_eq!(reasons(&found).join(" "), why);
}

#[test]
fn hostile_numbers_are_refused() {
    let (sqlite, ndb, berkeley) =
        ("almalinux.rpmdb.sqlite.zst", "almalinux.Packages.db.zst", "almalinux.Packages.zst");
    check_damage(sqlite, 16, &[0, 3], "partly read: its pages have an impossible size");
    check_damage(sqlite, 18, &[3], "partly read: this version of SQLite's format is not supported");
    check_damage(sqlite, 59, &[2], "partly read: a database with text in UTF-16 is not supported");
    check_damage(
        sqlite,
        100,
        &[9],
        "partly read: a page is not of a table; it has no table of packages",
    );
    check_damage(ndb, 4, &[1], "partly read: this version of an ndb database is not supported");
    check_damage(ndb, 12, &[0; 4], "partly read: its table of slots has an impossible size");
    check_damage(ndb, 12, &[255; 4], "partly read: its table of slots has an impossible size");
    check_damage(ndb, 32, b"slot", "partly read: a slot is broken");
    // The second slot is where the first is.
    check_damage(ndb, 56, &[0, 1, 0, 0], "partly read: two slots overlap");
    check_damage(ndb, 40, &[0; 4], "");
    check_damage(
        berkeley,
        12,
        &[0x62, 0x31, 5, 0],
        "partly read: a tree of Berkeley DB is not supported",
    );
    check_damage(berkeley, 12, &[0; 4], "partly read: it is no database of a known format");
    check_damage(berkeley, 20, &[0; 4], "partly read: its pages have an impossible size");
    check_damage(berkeley, 32, &[255; 4], "partly read: it is cut short");
    check_damage(
        berkeley,
        24,
        &[1],
        "partly read: an encrypted or checksummed database is not supported",
    );
    check_damage(berkeley, 4096 + 26, &[255; 2], "partly read: a page of the hash is broken");
}

#[test]
fn loops_of_pages_end() {
    // An interior page of SQLite whose children are itself.
    let mut bytes = sample("almalinux.rpmdb.sqlite.zst");
    let page = &mut bytes[4096..8192];
    page.fill(0);
    page[0] = 5;
    page[3..5].copy_from_slice(&2000u16.to_be_bytes());
    page[8..12].copy_from_slice(&2u32.to_be_bytes());
    let found = index(&Rpm, &[(SQLITE, &bytes)]);
    assert_eq!(found.files[0].packages.len(), 0);
    assert!(reasons(&found)[0].contains("a page is missing"), "{found:?}");
    assert!(reasons(&found)[0].contains("a page is used twice"), "{found:?}");

    // A leaf whose cells are all the same one.
    let page = &mut bytes[4096..8192];
    page[0] = 13;
    for number in 0..2000 {
        page[8 + number * 2..][..2].copy_from_slice(&4090u16.to_be_bytes());
    }
    page[4090..4096].copy_from_slice(&[1, 1, 1, 0, 0, 0]);
    let found = index(&Rpm, &[(SQLITE, &bytes)]);
    assert!(reasons(&found)[0].contains("the rows of a page overlap"), "{found:?}");

    // Overflow pages of Berkeley DB that follow each other in a ring.
    let mut bytes = sample("almalinux.Packages.zst");
    for page in bytes.chunks_exact_mut(4096).skip(1).filter(|page| page[25] == 7) {
        page[16..20].copy_from_slice(&3u32.to_le_bytes());
        page[22..24].copy_from_slice(&1u16.to_le_bytes());
    }
    let found = index(&Rpm, &[(BERKELEY, &bytes)]);
    assert!(reasons(&found)[0].contains("a chain of pages"), "{found:?}");
}

/// A header of these texts and numbers: tag, type, values.
fn header(entries: &[(u32, u32, &[&[u8]])]) -> Vec<u8> {
    let (mut table, mut store) = (Vec::<u8>::new(), Vec::<u8>::new());
    for (tag, kind, values) in entries {
        for number in [*tag, *kind, store.len() as u32, values.len() as u32] {
            table.extend(number.to_be_bytes());
        }
        values.iter().for_each(|value| store.extend(*value));
    }
    let mut blob = Vec::new();
    blob.extend((entries.len() as u32).to_be_bytes());
    blob.extend((store.len() as u32).to_be_bytes());
    blob.extend(table);
    blob.extend(store);
    blob
}

#[track_caller]
fn check_header(blob: &[u8], package: &[&str], owns: &[&str], why: &str) {
    let mut found = Found::default();
    let mut draft = crate::indexers::os::draft::Draft::new("rpm", "x");
    super::header::add(blob, &mut draft);
    draft.store(&mut found);
    assert_eq!(lines(&found), package);
    assert_eq!(found.files[0].owns, owns);
    assert_eq!(reasons(&found).join(" "), why);
}

#[test]
fn headers() {
    let name: (u32, u32, &[&[u8]]) = (1000, 6, &[b"a\0"]);
    let version: (u32, u32, &[&[u8]]) = (1001, 6, &[b"1\0"]);
    let release: (u32, u32, &[&[u8]]) = (1002, 6, &[b"2\0"]);
    let source: (u32, u32, &[&[u8]]) = (1044, 6, &[b"b-c-1-2.nosrc.rpm\0"]);
    check_header(&header(&[name, version, release, source]), &["a|1-2||b-c 1-2"], &[], "");
    check_header(&header(&[name, version]), &["a|1"], &[], "");
    check_header(&header(&[(1000, 6, &[b"gpg-pubkey\0"]), version]), &[], &[], "");
    check_header(&header(&[version]), &[], &[], "partly read: a header has no name");
    check_header(
        &header(&[name]),
        &[],
        &[],
        "partly read: a package has no usable name, version or architecture",
    );
    check_header(&[0, 0, 0, 1, 0], &[], &[], "partly read: a header is broken");
    check_header(&[255; 64], &[], &[], "partly read: a header is broken");
    let files: [(u32, u32, &[&[u8]]); 3] = [
        (1116, 4, &[&[0, 0, 0, 1], &[0, 0, 0, 0], &[0, 0, 0, 9]]),
        (1117, 8, &[b"x.jar\0", b"y\0", b"z\0"]),
        (1118, 8, &[b"/usr/bin/\0", b"/opt/\0"]),
    ];
    check_header(
        &header(&[name, version, files[0], files[1], files[2]]),
        &["a|1"],
        &["opt/x.jar", "usr/bin/y"],
        "partly read: a file is in a folder that its header does not name",
    );
    let old: (u32, u32, &[&[u8]]) = (1027, 8, &[b"/usr/bin/a\0", b"/etc/a.conf\0"]);
    check_header(&header(&[name, version, old]), &["a|1"], &["usr/bin/a"], "");
}

#[test]
fn wants_databases_only() {
    let want = |path: &str| Rpm.wants(&Candidate { path, size: 1, mode: 0o644 });
    for path in [SQLITE, LOG, NDB, BERKELEY, "usr/share/rpm/Packages"] {
        assert!(want(path) == Want::AtEnd, "{path}");
    }
    for path in ["var/lib/rpm/Name", "var/lib/rpm/rpmdb.sqlite-shm", "srv/Packages", "Packages"] {
        assert!(want(path) == Want::No, "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever is changed in a database, reading it ends.
    #[test]
    fn never_panics(
        changes in proptest::collection::vec((any::<u32>(), any::<u8>()), 1..60),
        near in any::<bool>(),
    ) {
        for (path, name) in [
            (SQLITE, "almalinux.rpmdb.sqlite.zst"),
            (SQLITE, "small.rpmdb.sqlite.zst"),
            (NDB, "small.Packages.db.zst"),
            (BERKELEY, "almalinux.Packages.zst"),
        ] {
            let mut bytes = sample(name);
            let within = if near { 9000.min(bytes.len()) } else { bytes.len() };
            for &(at, byte) in &changes {
                bytes[at as usize % within] = byte;
            }
            index(&Rpm, &[(path, &bytes), (LOG, &sample("small.rpmdb.sqlite-wal.zst"))]);
        }
        let (database, mut log) =
            (sample("small.rpmdb.sqlite.zst"), sample("small.rpmdb.sqlite-wal.zst"));
        for &(at, byte) in &changes {
            let at = at as usize % log.len();
            log[at] = byte;
        }
        index(&Rpm, &[(SQLITE, &database), (LOG, &log)]);
    }

    #[test]
    fn no_header_panics(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..30)) {
        let mut blob = sample("small.Packages.db.zst")[4096 + 16..].to_vec();
        for (at, byte) in changes {
            let at = usize::from(at) % blob.len();
            blob[at] = byte;
        }
        super::read_header(&blob);
    }
}
