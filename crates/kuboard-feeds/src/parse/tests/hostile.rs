//! Garbage, cuts and changed bytes: an error or a summary, never a panic, never an empty success.

use proptest::prelude::*;

use super::{Kept, data};
use crate::parse::osv::{self, Feed};
use crate::parse::secdb::{self, Family};
use crate::parse::{
    ParseError, Summary, amazon, azure, debian, eol, epss, kev, nvd, oracle, photon, redhat, suse,
    ubuntu,
};

type Parser = fn(&[u8]) -> Result<Summary, ParseError>;

/// Sample and parser of each format that is a whole feed.
const FEEDS: [(&str, Parser); 14] = [
    ("debian.json", |bytes| debian::parse(bytes, &mut Kept::default())),
    ("secdb-wolfi.json", |bytes| {
        let mut reader = secdb::Reader::new(Family::Wolfi);
        reader.read(bytes)?;
        reader.finish(&mut Kept::default())
    }),
    ("secdb-alpine-3.15-main.json", |bytes| {
        let mut reader = secdb::Reader::new(Family::Alpine);
        reader.read(bytes)?;
        reader.finish(&mut Kept::default())
    }),
    ("updateinfo-amazon-2.xml", |bytes| amazon::parse(bytes, "amazon:2", &mut Kept::default())),
    ("oracle-data.xml.bz2", |bytes| oracle::parse(bytes, &mut Kept::default())),
    ("mariner-2.0-oval.xml", |bytes| {
        let mut reader = azure::Reader::new("mariner");
        reader.read(bytes, "mariner:2.0")?;
        reader.finish(&mut Kept::default())
    }),
    ("cve_data_photon4.0.json", |bytes| {
        let mut reader = photon::Reader::new();
        reader.read(bytes, "photon:4.0")?;
        reader.finish(&mut Kept::default())
    }),
    ("nvd.json.gz", |bytes| nvd::parse(bytes, &mut Kept::default())),
    ("epss.csv.gz", |bytes| epss::parse(bytes, &mut Kept::default())),
    ("kev.json", |bytes| kev::parse(bytes, &mut Kept::default())),
    ("eol.json", |bytes| eol::parse(bytes, &mut Kept::default())),
    ("redhat/csaf_vex_2023-10-31.tar.zst", |bytes| {
        redhat::parse_archive(bytes, &mut Kept::default())
    }),
    ("redhat/csaf_vex_2023-10-31.tar.zst", |bytes| {
        suse::parse_archive(bytes, &mut Kept::default())
    }),
    ("redhat/csaf_vex_2023-10-31.tar.zst", |bytes| ubuntu::parse(bytes, &mut Kept::default())),
];

#[test]
fn what_is_no_feed_is_an_error() {
    for (name, parse) in FEEDS {
        for garbage in [
            "",
            " ",
            "\n",
            "{}",
            "[]",
            "null",
            "0",
            "\"x\"",
            "<",
            "<a/>",
            "<html><body>503</body></html>",
            "{\"vulnerabilities\":{}}",
            "{\"packages\":7}",
            "#\n",
            "\u{1f}\u{8b}",
            "BZh9",
            "PK\u{3}\u{4}",
        ] {
            let parsed = parse(garbage.as_bytes());
            assert!(parsed.is_err(), "{name} takes {garbage:?}: {parsed:?}");
        }
    }
}

#[test]
fn what_is_cut_off_is_an_error() {
    for (name, parse) in FEEDS {
        let whole = data(name);
        // A trailing end of line may be missing.
        let whole = whole.trim_ascii_end();
        for part in 1..20 {
            let cut = &whole[..whole.len() * part / 20];
            // The list of EPSS has no end that could be missing, but its packing has one.
            assert!(parse(cut).is_err(), "{name} cut at {part}/20");
        }
    }
}

#[test]
fn deep_documents_are_refused() {
    let deep = "[".repeat(100_000);
    let wide = format!("{{\"p\":{deep}");
    let xml = format!("<updates>{}", "<a>".repeat(100_000));
    for (name, parse) in FEEDS {
        for document in [&deep, &wide, &xml] {
            assert!(parse(document.as_bytes()).is_err(), "{name}");
        }
    }
    let feed = Feed { source: "osv", ecosystem: None };
    assert!(osv::parse_document(deep.as_bytes(), &feed).is_err());
    assert!(redhat::parse_document(deep.as_bytes()).is_err());
    let branches = format!("{{\"product_tree\":{}", "{\"branches\":[".repeat(50_000));
    assert!(redhat::parse_document(branches.as_bytes()).is_err());
}

#[test]
fn entities_are_not_expanded() {
    let laughs = "<!DOCTYPE u [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\">]><updates><update>\
                  <id>ALAS-1</id><title>&b;&lt;x&#65;</title><pkglist><package name=\"p\" \
                  version=\"1\" release=\"2\" arch=\"noarch\"/></pkglist></update></updates>";
    let mut kept = Kept::default();
    amazon::parse(laughs.as_bytes(), "amazon:2", &mut kept).unwrap();
    assert_eq!(kept.advisories[0].summary, "<xA");
}

fn change(whole: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for (at, byte) in changes {
        let at = at % bytes.len();
        bytes[at] = *byte;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn changed_bytes_never_panic(
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8),
        slice in any::<proptest::sample::Index>(),
    ) {
        for (name, parse) in FEEDS {
            let whole = data(name);
            let _ = parse(&change(&whole, &changes));
            // Cut a piece out of the middle.
            let at = slice.index(whole.len());
            let to = (at + 7).min(whole.len());
            let _ = parse(&[&whole[..at], &whole[to..]].concat());
        }
        let feed = Feed { source: "osv", ecosystem: None };
        for name in ["osv/GHSA-made-0001-made.json", "osv/CGA-224q-ccj5-2p53.json"] {
            let _ = osv::parse_document(&change(&data(name), &changes), &feed);
        }
        for name in ["suse/cve-2023-9999.json", "redhat/cve-2024-24786-illegal-module.json"] {
            let bytes = change(&data(name), &changes);
            let _ = suse::parse_document(&bytes);
            let _ = redhat::parse_document(&bytes);
        }
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,200}") {
        for (_, parse) in FEEDS {
            let _ = parse(text.as_bytes());
        }
        let _ = osv::read_modified(text.as_bytes(), 0);
        let _ = redhat::read_changes(text.as_bytes(), 0);
        let _ = redhat::read_archive_name(text.as_bytes());
    }
}
