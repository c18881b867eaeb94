//! Archives that are cut off, spoilt, or made to do harm.

use std::io::{self, Read, Write as _};

use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::{Archive, Record, archive::pax_records, read, read_in, sample};
use crate::layer::{Compression, End, Limits, unpack};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_cut_is_told() {
    let sample = sample();
    let whole = read(&sample).0;
    for length in 0..sample.len() {
        let (lines, summary) = read_in(&sample[..length], usize::MAX, &Limits::default());
        assert!(whole.starts_with(&lines), "cut after {length}");
        // From the first block of zeros on it is whole.
        let is_whole = length >= sample.len() - 512;
        let is_told = matches!(summary.end, End::Truncated(_));
        let is_headless = length > 0 && length < 10 && matches!(summary.end, End::Truncated(_));
        assert!(is_told != is_whole || is_headless, "cut after {length}: {:?}", summary.end);
        assert_eq!(summary.diff_id.is_some(), is_whole);
    }
    for blob in [gzip(&sample), ::zstd::encode_all(&sample[..], 1).unwrap()] {
        for length in 0..blob.len() {
            let (lines, summary) = read_in(&blob[..length], usize::MAX, &Limits::default());
            assert!(whole.starts_with(&lines), "cut after {length}");
            assert!(matches!(summary.end, End::Truncated(_)), "cut after {length}: {summary:?}");
        }
    }
}

fn check(blob: &[u8], limits: &Limits, end: &End) {
    for length in [usize::MAX, 1000] {
        let (_, summary) = read_in(blob, length, limits);
        assert_eq!(&summary.end, end);
        assert_eq!(summary.diff_id, None);
    }
}

#[test]
fn damage_is_told() {
    let broken = |why: &str| End::Broken(why.to_owned());
    let limits = Limits::default();
    check(&[b'x'; 600], &limits, &broken("it is no tar archive"));
    let mut spoilt = sample();
    spoilt[512 + 5] ^= 1;
    let why = "the archive is damaged: the header at byte 512 has a wrong checksum";
    check(&spoilt, &limits, &broken(why));
    let size = |field: &'static [u8; 12]| {
        let change = |header: &mut [u8; 512]| header[124..136].copy_from_slice(field);
        Archive::new().changed(b'0', "a", b"", change).finish()
    };
    let why = "the archive is damaged: the header at byte 0 has a size that is no number";
    check(&size(b"0000000009x\0"), &limits, &broken(why));
    check(&size(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), &limits, &broken(why));
    check(&size(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), &limits, &broken(why));
    let beyond = Archive::new().pax(&[("size", "9223372036854775807")]).entry(b'0', "a", b"");
    let why = "the archive is damaged: the header at byte 1024 has a size beyond all measure";
    check(&beyond.finish(), &limits, &broken(why));
    let why = "the archive is damaged: the header at byte 0 has an extended header that can't \
               be read: a record is malformed";
    check(&Archive::new().entry(b'x', "p", b"5 a=").finish(), &limits, &broken(why));
}

#[test]
fn ten_gigabytes_are_declared_and_not_there() {
    let declared = |header: &mut [u8; 512]| header[124..136].copy_from_slice(b"124000000000");
    let blob = Archive::new().changed(b'0', "big1", b"", declared).finish();
    let why = "the archive breaks off in the content of an entry, after 1536 bytes";
    check(&blob, &Limits::default(), &End::Truncated(why.to_owned()));
    check(&gzip(&blob), &Limits::default(), &End::Truncated(why.to_owned()));
}

#[test]
fn limits_hold() {
    let limits = Limits {
        entries: 3,
        path: 20,
        extended: 1000,
        inflated: 200_000,
        ratio: 100,
        free: 50_000,
    };
    let limit = |why: &str| End::Limit(why.to_owned());
    let many = (0..4).fold(Archive::new(), |archive, _| archive.entry(b'0', "a", b""));
    check(&many.finish(), &limits, &limit("the archive has more than 3 entries"));
    let long = limit("the archive has an extended header of more than 1000 bytes");
    for kind in [b'x', b'g', b'L', b'K'] {
        check(&Archive::new().entry(kind, "a", &[b'x'; 1001]).finish(), &limits, &long);
    }
    let size = limit("the archive has more than 200000 bytes");
    check(&Archive::new().entry(b'0', "a", &[0; 200_000]).finish(), &limits, &size);
    let ratio = limit("it inflates to more than 100 times its size");
    check(&gzip(&[0; 150_000]), &limits, &ratio);
    check(&::zstd::encode_all(&[0; 150_000][..], 1).unwrap(), &limits, &ratio);
    let bomb = ::zstd::encode_all(io::repeat(0).take(1 << 28), 1).unwrap();
    let (_, summary) = read_in(&bomb, usize::MAX, &limits);
    assert!(summary.size <= 200_000 && matches!(summary.end, End::Limit(_)));
    let short = Archive::new().entry(b'0', "a/name/of/twenty-one/b", b"").finish();
    let (lines, summary) = read_in(&short, 100, &limits);
    assert_eq!(lines, "problem a/name/of/twenty-one/b: its path is too long");
    assert_eq!(summary.end, End::Complete);
}

#[test]
fn a_pax_bomb_costs_its_length() {
    let record = pax_records(&[("path", &"p/".repeat(2000))]);
    let archive =
        (0..2000).fold(Archive::new(), |archive, _| archive.entry(b'x', "p", record.as_bytes()));
    let (lines, summary) =
        read_in(&gzip(&archive.entry(b'0', "a", b"").finish()), 4096, &Limits::default());
    assert_eq!(lines, format!("file {} 0 644", "p/".repeat(2000).trim_end_matches('/')));
    assert_eq!((summary.end, summary.entries), (End::Complete, 1));
}

/// A reader that gives a few bytes and then fails.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(io::Error::other("gone")),
            length => Ok(length),
        }
    }
}

#[test]
fn readers_are_read_to_their_end() {
    let sample = sample();
    let limits = Limits::default();
    let (record, summary) = unpack(&sample[..], Record::default(), &limits).unwrap();
    assert_eq!((record.lines.join("\n"), summary), read(&sample));
    assert!(unpack(Failing(&sample), Record::default(), &limits).is_err());
    // Nothing more is read of what can't be read.
    assert!(unpack(Failing(&[b'x'; 600]), Record::default(), &limits).is_ok());
}

fn disordered() -> impl Strategy<Value = Vec<u8>> {
    let limits = 0..8_usize;
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (limits, edits, any::<prop::sample::Index>()).prop_map(|(form, edits, cut)| {
        let mut archive = sample();
        let spoil = |bytes: &mut Vec<u8>| {
            for (at, byte) in &edits {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
        };
        if form < 4 {
            spoil(&mut archive);
            // Damage beyond the checksums, too.
            for at in (0..archive.len() - 1024).step_by(512) {
                let block: [u8; 512] = archive[at..at + 512].try_into().unwrap();
                if block[257..262] == *b"ustar" {
                    archive[at..at + 512].copy_from_slice(&Archive::seal(block));
                }
            }
        }
        let mut blob = match form % 4 {
            0 | 1 => archive,
            2 => gzip(&archive),
            _ => ::zstd::encode_all(&archive[..], 1).unwrap(),
        };
        if form >= 4 {
            spoil(&mut blob);
            blob.truncate(cut.index(blob.len()) + 1);
        }
        blob
    })
}

proptest! {
    #[test]
    fn anything_is_survived(blob in prop::collection::vec(any::<u8>(), 0..3000)) {
        read_in(&blob, usize::MAX, &Limits::default());
        read_in(&[&[0x1f, 0x8b, 8, 0][..], &blob].concat(), 100, &Limits::default());
        read_in(&[&[0x28, 0xb5, 0x2f, 0xfd][..], &blob].concat(), 100, &Limits::default());
    }

    #[test]
    fn disorder_is_the_same_in_pieces(blob in disordered(), length in 1..700_usize) {
        let limits = Limits::default();
        let (mut lines, mut summary) = read_in(&blob, length, &limits);
        let (whole, mut total) = read_in(&blob, usize::MAX, &limits);
        // What comes out of a damaged stream before the damage is noticed depends on the pieces.
        let is_stream = summary.compression != Some(Compression::None);
        if is_stream && matches!(summary.end, End::Broken(_)) {
            (summary.size, total.size) = (0, 0);
            (summary.entries, total.entries) = (0, 0);
            lines = whole.clone();
        }
        prop_assert_eq!((lines, summary), (whole, total));
    }
}
