//! What must hold of everything that reads layers, package databases, feeds and documents. Most
//! promises here are the plain ones: it ends, it does not panic, and it keeps what it says.

use std::io::Cursor;

use kuboard_feeds::{Sink, database::Database, parse};
use kuboard_oci::layer::{Entry, Interest, Kind, Limits, Unpacker, Visitor};
use kuboard_scan::{Candidate, File, Found, Indexer, Want, indexers};
use kuboard_vuln::{
    Advisories, Advisory, Epss, SeverityScore, vex,
    version::{Scheme, compare, npm_satisfies, sort_key},
};

/// Versions: the order of the keys is the order of the versions, turned round it is turned round,
/// no key is the beginning of another, and a refused version leaves nothing behind.
pub fn version(input: &[u8]) {
    let Some((which, rest)) = input.split_first() else { return };
    let scheme = Scheme::ALL[usize::from(*which) % Scheme::ALL.len()];
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let Some((a, b)) = text.split_once('\t') else { return };
    let _either = npm_satisfies(a, b);
    let key = |version: &str| {
        let mut out = vec![7];
        let read = sort_key(scheme, version, &mut out);
        assert_eq!(out[0], 7);
        assert!(read.is_ok() || out.len() == 1);
        read.ok().map(|()| out.split_off(1))
    };
    let (Some(one), Some(two)) = (key(a), key(b)) else {
        assert!(compare(scheme, a, b).is_err());
        return;
    };
    let order = compare(scheme, a, b).expect("both have keys");
    assert_eq!(one.cmp(&two), order);
    assert_eq!(compare(scheme, b, a).map(std::cmp::Ordering::reverse).ok(), Some(order));
    assert!(one == two || (!one.starts_with(&two) && !two.starts_with(&one)));
}

/// Sees to it that an archive is told as promised.
#[derive(Default)]
struct Watch {
    left: Option<u64>,
}

impl Visitor for Watch {
    fn entry(&mut self, entry: &Entry<'_>) -> Interest {
        assert!(!entry.path.is_empty() && !entry.path.starts_with('/'));
        assert!(entry.path.split('/').all(|part| !matches!(part, "" | "." | "..")));
        assert!(self.left.is_none());
        if entry.kind == Kind::File && !entry.sparse {
            self.left = Some(entry.size);
        }
        Interest::Read
    }

    fn content(&mut self, piece: &[u8]) {
        let left = self.left.as_mut().expect("content belongs to an entry");
        assert!(!piece.is_empty() && piece.len() as u64 <= *left);
        *left -= piece.len() as u64;
    }

    fn end(&mut self) {
        assert_eq!(self.left.take(), Some(0));
    }

    fn whiteout(&mut self, path: &str) {
        assert!(!path.starts_with('/'));
    }

    fn opaque(&mut self, folder: &str) {
        assert!(!folder.starts_with('/'));
    }

    fn problem(&mut self, _path: &str, why: &str) {
        assert!(!why.is_empty());
    }
}

/// Layers: pushed at once or in two pieces, they end the same way.
pub fn layer(input: &[u8]) {
    let limits = Limits { inflated: 1 << 20, ..Limits::default() };
    let mut whole = Unpacker::new(Watch::default(), &limits);
    whole.push(input);
    let (_, once) = whole.finish();
    let middle = input.first().map_or(0, |byte| usize::from(*byte) % (input.len() + 1));
    let mut halves = Unpacker::new(Watch::default(), &limits);
    halves.push(&input[..middle]);
    halves.push(&input[middle..]);
    let (_, twice) = halves.finish();
    assert_eq!((once.diff_id, once.entries), (twice.diff_id, twice.entries));
}

/// Takes everything and keeps nothing.
struct Nothing;

impl Sink for Nothing {
    fn advisory(&mut self, advisory: Advisory) {
        assert!(!advisory.id.is_empty());
    }
    fn score(&mut self, _cve: &str, _score: SeverityScore) {}
    fn epss(&mut self, _cve: &str, epss: Epss) {
        assert!(epss.probability <= 100_000 && epss.percentile <= 100_000);
    }
    fn known_exploited(&mut self, _cve: &str, _listed: &str) {}
    fn end_of_life(&mut self, _namespace: &str, _day: &str) {}
    fn retract(&mut self, _source: &str, _id: &str) {}
}

/// Feeds, of the format that the first byte names.
pub fn feeds(input: &[u8]) {
    use parse::{amazon, azure, debian, eol, epss, kev, nvd, oracle, osv, photon, redhat, secdb, suse};
    let Some((which, rest)) = input.split_first() else { return };
    let sink = &mut Nothing;
    let part = osv::Feed { source: "osv:npm", ecosystem: None };
    let failed = match which % 17 {
        0 => osv::parse_zip(Cursor::new(rest), &part, sink).is_err(),
        1 => osv::apply_document(rest, &part, sink).is_err(),
        2 => osv::read_modified(rest, 0).is_err(),
        3 => debian::parse(rest, sink).is_err(),
        4 => {
            let mut reader = secdb::Reader::new(secdb::Family::Alpine);
            reader.read(rest).is_err() || reader.finish(sink).is_err()
        }
        5 => parse::ubuntu::parse(rest, sink).is_err(),
        6 => redhat::apply_document(rest, sink).is_err(),
        7 => redhat::read_changes(rest, 0).is_err(),
        8 => redhat::read_archive_name(rest).is_err(),
        9 => suse::apply_document(rest, sink).is_err(),
        10 => amazon::parse(rest, "amazon:2", sink).is_err(),
        11 => oracle::parse(rest, sink).is_err(),
        12 => {
            let mut reader = azure::Reader::new("azurelinux");
            reader.read(rest, "azurelinux:3.0").is_err() || reader.finish(sink).is_err()
        }
        13 => {
            let mut reader = photon::Reader::new();
            reader.read(rest, "photon:5.0").is_err() || reader.finish(sink).is_err()
        }
        14 => nvd::parse(rest, sink).is_err() || kev::parse(rest, sink).is_err(),
        15 => epss::parse(rest, sink).is_err(),
        _ => eol::parse(rest, sink).is_err(),
    };
    // Garbage fails, and that is all that is asked of it.
    let _ = failed;
}

/// Where files of each kind lie.
const PATHS: &[&str] = &[
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d/base",
    "var/lib/dpkg/info/base.list",
    "var/lib/chisel/manifest.wall",
    "lib/apk/db/installed",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages",
    "usr/lib/sysimage/rpm/Packages.db",
    "etc/os-release",
    "etc/redhat-release",
    "root/buildinfo/content_manifests/a.json",
    "usr/bin/program",
    "usr/lib/python3/site-packages/a-1.dist-info/METADATA",
    "usr/lib/python3/site-packages/a.egg-info/PKG-INFO",
    "app/node_modules/a/package.json",
    "app/package-lock.json",
    "app/a.jar",
    "usr/lib/ruby/gems/3/specifications/a-1.gemspec",
    "app/a.deps.json",
    "app/vendor/composer/installed.json",
    "usr/lib/R/library/a/DESCRIPTION",
];

/// Package databases and manifests, at the path that the first byte names.
pub fn packages(input: &[u8]) {
    let Some((which, rest)) = input.split_first() else { return };
    let path = PATHS[usize::from(*which) % PATHS.len()];
    let candidate = Candidate { path, size: rest.len() as u64, mode: 0o755 };
    let content: &[u8] = rest;
    let content: &dyn kuboard_scan::Content = &Slice(content);
    let file = File { path, mode: 0o755, content };
    for indexer in indexers::all() {
        let indexer: &dyn Indexer = &*indexer;
        let mut found = Found::default();
        match indexer.wants(&candidate) {
            Want::No => continue,
            Want::IfStarts(heads) if !heads.iter().any(|head| rest.starts_with(head)) => continue,
            Want::AtEnd => indexer.finish(&[file], &mut found),
            Want::Now | Want::IfStarts(_) => indexer.read(&file, &mut found),
        }
        for record in &found.files {
            assert!(!record.by.is_empty());
            assert!(record.packages.iter().all(|package| !package.name.is_empty()));
        }
    }
}

/// Content that is not in memory, so that readers by offset are tried too.
struct Slice<'a>(&'a [u8]);

impl kuboard_scan::Content for Slice<'_> {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
        kuboard_scan::Content::read_at(self.0, offset, into)
    }

    fn in_memory(&self) -> Option<&[u8]> {
        None
    }
}

/// A database file that is damaged answers with errors or nothing.
pub fn database(input: &[u8]) {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if std::io::Write::write_all(&mut file, input).is_err() {
        return;
    }
    let Ok(database) = Database::open(file.path()) else { return };
    database.rows("npm", "a", &mut |_| std::ops::ControlFlow::Continue(()));
    database.rows("debian:12", "openssl", &mut |_| std::ops::ControlFlow::Continue(()));
    for index in 0..4 {
        let _maybe = database.advisory(index);
    }
    let _all = (
        database.find("CVE-2021-44228"),
        database.epss("CVE-2021-44228"),
        database.scores("CVE-2021-44228"),
        database.changed(),
        database.verify(),
    );
}

/// VEX documents and bills of materials.
pub fn documents(input: &[u8]) {
    let _vex = vex::parse(input);
    if let Ok(document) = kuboard_scan::sbom::read(input) {
        assert!(document.inventory.packages.iter().all(|one| !one.package.name.is_empty()));
    }
}
