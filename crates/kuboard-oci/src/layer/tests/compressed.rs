//! Archives inside compressed streams of every shape.

use std::io::Write as _;

use flate2::{Crc, GzBuilder, write::GzEncoder};

use super::{Archive, read, read_in, sample};
use crate::{
    Digest,
    layer::{Compression, End, Limits},
};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 3).unwrap()
}

fn skippable(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_le_bytes();
    [&[0x5a, 0x2a, 0x4d, 0x18], &length[..], content].concat()
}

/// A blob that holds the sample archive.
fn check(blob: &[u8], compression: Compression) {
    let sample = sample();
    let (lines, summary) = read(blob);
    assert_eq!(lines, read(&sample).0);
    assert_eq!(summary.end, End::Complete);
    assert_eq!(summary.compression, Some(compression));
    assert_eq!(summary.diff_id, Some(Digest::sha256(&sample)));
    assert_eq!((summary.size, summary.compressed), (sample.len() as u64, blob.len() as u64));
}

fn refused(blob: &[u8]) -> End {
    let (_, summary) = read(blob);
    assert_eq!(summary.diff_id, None);
    summary.end
}

#[test]
fn gzip_members() {
    let sample = sample();
    check(&gzip(&sample), Compression::Gzip);
    for length in [1, 100, 512, 4096] {
        let members: Vec<u8> = sample.chunks(length).flat_map(gzip).collect();
        check(&members, Compression::Gzip);
    }
    check(&[gzip(&[]), gzip(&sample), gzip(&[])].concat(), Compression::Gzip);
    check(&[gzip(&sample), vec![0; 777]].concat(), Compression::Gzip);
    for garbage in ["x", "\x1f", "\x1fx", "\0\0x", "garbage of more than ten bytes"] {
        check(&[&gzip(&sample), garbage.as_bytes()].concat(), Compression::Gzip);
    }
}

/// A member with all fields that a header may have, its checksum given.
fn member(flags: u8, wrong: u16) -> Vec<u8> {
    let mut head = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 255];
    if flags & 4 != 0 {
        head.extend_from_slice(b"\x03\x00xyz");
    }
    if flags & 8 != 0 {
        head.extend_from_slice(b"name\0");
    }
    if flags & 16 != 0 {
        head.extend_from_slice(b"comment\0");
    }
    if flags & 2 != 0 {
        let mut crc = Crc::new();
        crc.update(&head);
        let low = u16::try_from(crc.sum() & 0xffff).unwrap() ^ wrong;
        head.extend_from_slice(&low.to_le_bytes());
    }
    head.extend_from_slice(&gzip(&sample())[10..]);
    head
}

#[test]
fn gzip_headers() {
    for flags in 0..32 {
        check(&member(flags, 0), Compression::Gzip);
    }
    let mut encoder = GzBuilder::new()
        .extra(Vec::new())
        .filename("layer")
        .write(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&sample()).unwrap();
    check(&encoder.finish().unwrap(), Compression::Gzip);
    let broken = |what: &str| End::Broken(format!("the gzip stream is damaged: {what}"));
    assert_eq!(refused(&member(31, 1)), broken("a header's checksum is wrong"));
    assert_eq!(refused(&member(32, 0)), broken("a header has unknown flags"));
    let mut method = gzip(&sample());
    method[2] = 7;
    assert_eq!(refused(&method), broken("its method is not deflate"));
}

#[test]
fn gzip_trailers_are_checked() {
    let whole = gzip(&sample());
    let at = whole.len();
    let spoil = |index: usize| {
        let mut blob = whole.clone();
        blob[index] ^= 1;
        refused(&blob).to_string()
    };
    assert_eq!(spoil(at - 8), "the gzip stream is damaged: a checksum is wrong");
    assert_eq!(spoil(at - 1), "the gzip stream is damaged: a stated size is wrong");
}

#[test]
fn zstd_frames() {
    let sample = sample();
    check(&zstd(&sample), Compression::Zstd);
    for length in [1, 100, 512, 4096] {
        let frames: Vec<u8> = sample.chunks(length).flat_map(zstd).collect();
        check(&frames, Compression::Zstd);
    }
    let chunked = [zstd(&sample), skippable(b"table of contents"), skippable(b"")].concat();
    check(&chunked, Compression::Zstd);
    check(&[skippable(&[7; 5000]), zstd(&sample), zstd(&[])].concat(), Compression::Zstd);
    check(&[zstd(&sample), vec![0; 777]].concat(), Compression::Zstd);
    check(&[&zstd(&sample), &b"garbage"[..]].concat(), Compression::Zstd);
    // A window of 256 MiB.
    let wide = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x90], &[0; 64][..]].concat();
    let end = End::Limit("the zstd stream asks for a window of more than 128 MiB".to_owned());
    assert_eq!(refused(&wide), end);
}

#[test]
fn garbage_in_place_of_the_rest_is_told() {
    let half = &sample()[..1024];
    for blob in [gzip(half), zstd(half)] {
        let end = refused(&[&blob[..], b"garbage"].concat());
        let why = "there are bytes after the compressed stream that don't belong to it";
        assert_eq!(end, End::Broken(why.to_owned()));
    }
}

#[test]
fn compressed_streams_without_end_marker_are_whole() {
    let archive = Archive::new().entry(b'0', "a1", b"x").unfinished();
    for blob in [gzip(&archive), zstd(&archive)] {
        let (lines, summary) = read(&blob);
        assert_eq!((lines.as_str(), summary.end), ("file a1 1 644\n  = x", End::Complete));
    }
    assert_eq!(read(&gzip(&[])).1.end, End::Complete);
    assert_eq!(read(&zstd(&[])).1.end, End::Complete);
}

#[test]
fn every_split_point_gives_the_same() {
    for blob in [sample(), gzip(&sample()), zstd(&sample()), member(31, 0)] {
        let limits = Limits::default();
        let whole = read_in(&blob, usize::MAX, &limits);
        for at in 0..blob.len() {
            let mut unpacker = super::Unpacker::new(super::Record::default(), &limits);
            let (head, tail) = blob.split_at(at);
            unpacker.push(head);
            unpacker.push(tail);
            let (record, summary) = unpacker.finish();
            assert_eq!((record.lines.join("\n"), summary), whole, "split at {at}");
        }
    }
}

#[test]
fn other_compressions_are_refused() {
    let check = |head: &[u8], what: &str| {
        let blob = [head, &[0; 600]].concat();
        let hint = "which is not supported; hint: gzip, zstd and plain tar are";
        assert_eq!(refused(&blob), End::Broken(format!("the layer is {what}, {hint}")));
    };
    check(b"\xfd7zXZ\0", "compressed with xz");
    check(b"BZh91AY&SY", "compressed with bzip2");
    check(b"\x04\x22\x4d\x18", "compressed with lz4");
    check(b"LZIP\x01", "compressed with lzip");
    check(b"\x1f\x9d\x90", "compressed with compress");
    let check = |media_type: &str, is_read: bool| {
        assert_eq!(Compression::check_media_type(media_type).is_ok(), is_read, "{media_type}");
    };
    check("application/vnd.oci.image.layer.v1.tar+gzip", true);
    check("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", false);
    check("application/vnd.oci.image.layer.v1.tar+Encrypted; x=y", false);
    check("application/octet-stream", true);
    check("", true);
}
