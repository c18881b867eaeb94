//! Packings and archives.

use std::io::{Cursor, Read as _, Write as _};

use proptest::prelude::*;

use super::{Kept, data};
use crate::parse::osv::{Feed, parse_zip};
use crate::parse::{ParseError, compressed, debian, ubuntu};

const GO: Feed<'static> = Feed { source: "osv:go", ecosystem: Some("Go") };

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn packings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut bz2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bz2.write_all(bytes).unwrap();
    vec![
        bytes.to_vec(),
        gzip(bytes),
        bz2.finish().unwrap(),
        liblzma::encode_all(bytes, 1).unwrap(),
        zstd::encode_all(bytes, 1).unwrap(),
    ]
}

#[test]
fn all_packings_are_told_and_bounded() {
    let plain = data("debian.json");
    for packed in packings(&plain) {
        let mut kept = Kept::default();
        assert_eq!(debian::parse(&*packed, &mut kept).unwrap().advisories, 6);
        let cut = &packed[..packed.len() * 2 / 3];
        assert!(debian::parse(cut, &mut Kept::default()).is_err());
        let mut out = Vec::new();
        let small = compressed::open(&*packed, 100).unwrap().read_to_end(&mut out);
        assert!(small.is_err() && out.len() <= 100);
    }
    for packed in packings(&vec![0; 1 << 20]) {
        let mut kept = Kept::default();
        assert!(debian::parse(&*packed, &mut kept).is_err());
    }
}

/// A file of a zip archive to be.
pub(super) struct File<'a> {
    pub name: &'a str,
    pub content: &'a [u8],
    pub deflated: bool,
}

/// A zip archive; `wide`: with 64-bit records.
pub(super) fn zip(files: &[File<'_>], wide: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for file in files {
        let offset = out.len() as u64;
        let packed = if file.deflated {
            let mut encoder =
                flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(file.content).unwrap();
            encoder.finish().unwrap()
        } else {
            file.content.to_vec()
        };
        let mut crc = flate2::Crc::new();
        crc.update(file.content);
        let method = if file.deflated { 8_u16 } else { 0 };
        let mut common = Vec::new();
        common.extend(20_u16.to_le_bytes());
        common.extend(0_u16.to_le_bytes());
        common.extend(method.to_le_bytes());
        common.extend(0_u32.to_le_bytes());
        common.extend(crc.sum().to_le_bytes());
        let sizes = [packed.len() as u32, file.content.len() as u32];
        let short = if wide { [u32::MAX; 2] } else { sizes };
        let name = (file.name.len() as u16).to_le_bytes();
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        sizes.iter().for_each(|size| out.extend(size.to_le_bytes()));
        out.extend(name);
        out.extend(0_u16.to_le_bytes());
        out.extend(file.name.as_bytes());
        out.extend(&packed);
        let mut extra = Vec::new();
        if wide {
            extra.extend(1_u16.to_le_bytes());
            extra.extend(24_u16.to_le_bytes());
            extra.extend(u64::from(sizes[1]).to_le_bytes());
            extra.extend(u64::from(sizes[0]).to_le_bytes());
            extra.extend(offset.to_le_bytes());
        }
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        short.iter().for_each(|size| directory.extend(size.to_le_bytes()));
        directory.extend(name);
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]);
        directory.extend(if wide { u32::MAX } else { offset as u32 }.to_le_bytes());
        directory.extend(file.name.as_bytes());
        directory.extend(extra);
    }
    let (count, size, offset) = (files.len() as u64, directory.len() as u64, out.len() as u64);
    out.extend(directory);
    if wide {
        let record = out.len() as u64;
        out.extend(b"PK\x06\x06");
        out.extend(44_u64.to_le_bytes());
        out.extend([0; 12]);
        [count, count, size, offset].iter().for_each(|figure| out.extend(figure.to_le_bytes()));
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(record.to_le_bytes());
        out.extend(1_u32.to_le_bytes());
    }
    out.extend(b"PK\x05\x06\0\0\0\0");
    let count = if wide { 0xffff } else { count as u16 };
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(if wide { u32::MAX } else { size as u32 }.to_le_bytes());
    out.extend(if wide { u32::MAX } else { offset as u32 }.to_le_bytes());
    out.extend(7_u16.to_le_bytes());
    out.extend(b"comment");
    out
}

#[test]
fn zips_are_read() {
    let document = data("osv/GO-2024-2611.json");
    let files = [
        File { name: "GO-2024-2611.json", content: &document, deflated: true },
        File { name: "folder/", content: b"", deflated: false },
        File { name: "copy.json", content: &document, deflated: false },
        File { name: "README.md", content: b"no", deflated: false },
        File { name: "bad.json", content: b"{", deflated: false },
    ];
    for wide in [false, true] {
        let mut kept = Kept::default();
        let summary = parse_zip(Cursor::new(zip(&files, wide)), &GO, &mut kept).unwrap();
        assert_eq!((summary.advisories, summary.skipped_count), (2, 1), "{wide}");
        assert_eq!(summary.skipped[0].0, "bad.json");
        assert_eq!(kept.advisories[0].source, "osv:go");
    }
    let bad = parse_zip(Cursor::new(zip(&files[4..], false)), &GO, &mut Kept::default());
    assert!(matches!(bad, Err(ParseError::MostlyBad { .. })));
    let empty = parse_zip(Cursor::new(zip(&[], false)), &GO, &mut Kept::default());
    assert!(matches!(empty, Err(ParseError::Empty)));
    let none = parse_zip(Cursor::new(b"<html>".to_vec()), &GO, &mut Kept::default());
    assert!(matches!(none, Err(ParseError::Format { .. })));
}

#[test]
fn a_lying_zip_is_noticed() {
    let document = data("osv/GO-2024-2611.json");
    let files = [File { name: "a.json", content: &document, deflated: true }];
    let good = zip(&files, false);
    let at = memchr::memmem::find(&good, b"PK\x01\x02").unwrap();
    for (field, why) in [(16, "checksum"), (24, "size")] {
        let mut bad = good.clone();
        bad[at + field] ^= 1;
        let error = parse_zip(Cursor::new(bad), &GO, &mut Kept::default()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let cut = good[..good.len() - 40].to_vec();
    assert!(parse_zip(Cursor::new(cut), &GO, &mut Kept::default()).is_err());
}

/// An entry of a tar archive.
pub(super) fn tar_entry(out: &mut Vec<u8>, kind: u8, name: &str, content: &[u8]) {
    let mut header = [0_u8; 512];
    let short = &name.as_bytes()[..name.len().min(100)];
    header[..short.len()].copy_from_slice(short);
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    out.extend(header);
    out.extend(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

#[test]
fn ubuntu_archive() {
    let long = format!("osv/cve/{}/UBUNTU-CVE-2014-2901.json", "x".repeat(120));
    let pax = format!("path={long}\n");
    let length = pax.len() + 4;
    let mut archive = Vec::new();
    tar_entry(&mut archive, b'5', "osv/", b"");
    tar_entry(&mut archive, b'0', "osv/usn/USN-5614-1.json", &data("osv/USN-5614-1.json"));
    tar_entry(&mut archive, b'x', "pax", format!("{length} {pax}").as_bytes());
    tar_entry(&mut archive, b'0', "short", &data("osv/UBUNTU-CVE-2014-2901.json"));
    let gnu = format!("{}/UBUNTU-CVE-2014-9913.json\0", "y".repeat(120));
    tar_entry(&mut archive, b'L', "././@LongLink", gnu.as_bytes());
    tar_entry(&mut archive, b'0', "y", &data("osv/UBUNTU-CVE-2014-9913.json"));
    tar_entry(&mut archive, b'2', "osv/link.json", b"");
    let whole = [archive.clone(), vec![0; 1024]].concat();
    for packed in packings(&whole) {
        let mut kept = Kept::default();
        let summary = ubuntu::parse(&*packed, &mut kept).unwrap();
        assert_eq!((summary.advisories, summary.ignored, summary.skipped_count), (2, 1, 0));
        let ids: Vec<_> = kept.advisories.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["UBUNTU-CVE-2014-2901", "UBUNTU-CVE-2014-9913"]);
    }
    // Without its end it is cut off, wherever that is.
    assert!(matches!(ubuntu::parse(&*archive, &mut Kept::default()), Err(ParseError::Read(_))));
    assert!(ubuntu::parse(&whole[..3000], &mut Kept::default()).is_err());
    assert!(ubuntu::parse(&[0_u8; 1024][..], &mut Kept::default()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn zips_never_panic(at in 0_usize..2000, byte: u8, cut in 0_usize..2000) {
        let document = data("osv/GO-2024-2611.json");
        let files = [
            File { name: "a.json", content: &document, deflated: true },
            File { name: "b.json", content: &document, deflated: false },
        ];
        for wide in [false, true] {
            let mut bytes = zip(&files, wide);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = parse_zip(Cursor::new(&bytes), &GO, &mut Kept::default());
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = parse_zip(Cursor::new(&bytes), &GO, &mut Kept::default());
        }
    }
}
