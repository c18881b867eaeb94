use std::io::Write;

use super::super::tests::shown;
use super::*;

struct Bytes(Vec<u8>);

impl Content for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.as_slice().read_at(offset, into)
    }

    fn in_memory(&self) -> Option<&[u8]> {
        None
    }
}

/// How an archive is written.
#[derive(Clone, Copy, Default)]
struct Form {
    stored: bool,
    /// Sizes stand behind the data as well, and are 0 before it.
    descriptors: bool,
    wide: bool,
    prefix: &'static [u8],
}

fn le(number: u64, length: usize) -> Vec<u8> {
    number.to_le_bytes()[..length].to_vec()
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder =
        flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(form: Form, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = form.prefix.to_vec();
    let mut directory = Vec::new();
    for (name, bytes) in files {
        let offset = archive.len() - form.prefix.len();
        let data = if form.stored { bytes.to_vec() } else { deflated(bytes) };
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let numbers =
            [le(crc.sum().into(), 4), le(data.len() as u64, 4), le(bytes.len() as u64, 4)].concat();
        let known = if form.descriptors { vec![0; 12] } else { numbers.clone() };
        let flags = if form.descriptors { 8 } else { 0 };
        let method = if form.stored { 0 } else { 8 };
        let start = [le(20, 2), le(flags, 2), le(method, 2), le(0, 4)].concat();
        let length = le(name.len() as u64, 2);
        archive.extend(
            [b"PK\x03\x04", &start[..], &known, &length, &[0, 0], name.as_bytes()].concat(),
        );
        archive.extend(&data);
        if form.descriptors {
            archive.extend([b"PK\x07\x08", &numbers[..]].concat());
        }
        directory.extend([b"PK\x01\x02\x14\x00", &start[..]].concat());
        if form.wide {
            directory.extend(
                [&numbers[..4], &[0xff; 8], &length, &[28, 0], &[0; 10], &[0xff; 4]].concat(),
            );
            directory.extend([name.as_bytes(), &le(1, 2), &le(24, 2)].concat());
            directory.extend(
                [le(bytes.len() as u64, 8), le(data.len() as u64, 8), le(offset as u64, 8)]
                    .concat(),
            );
        } else {
            directory.extend(
                [&numbers[..], &length, &[0; 12], &le(offset as u64, 4), name.as_bytes()].concat(),
            );
        }
    }
    let (at, count) = (archive.len() - form.prefix.len(), files.len() as u64);
    archive.extend(&directory);
    if form.wide {
        let end = archive.len() - form.prefix.len();
        archive.extend(
            [b"PK\x06\x06", &le(44, 8)[..], &[0; 12], &le(count, 8), &le(count, 8)].concat(),
        );
        archive.extend([le(directory.len() as u64, 8), le(at as u64, 8)].concat());
        archive.extend([b"PK\x06\x07", &[0; 4][..], &le(end as u64, 8), &le(1, 4)].concat());
        archive.extend([b"PK\x05\x06", &[0; 4][..], &[0xff; 12], &[0; 2]].concat());
    } else {
        archive.extend([b"PK\x05\x06", &[0; 4][..], &le(count, 2), &le(count, 2)].concat());
        archive.extend([le(directory.len() as u64, 4), le(at as u64, 4), vec![0; 2]].concat());
    }
    archive
}

const POM: &[u8] = b"groupId=org.example\nartifactId=lib\nversion=1.2.3\n";
const POM_AT: &str = "META-INF/maven/org.example/lib/pom.properties";
const OTHER: &[u8] = b"groupId=org.example\nartifactId=other\nversion=2.0\n";
const OTHER_AT: &str = "META-INF/maven/org.example/other/pom.properties";

pub(in super::super) fn samples() -> Vec<Vec<u8>> {
    let inner = zip(Form::default(), &[(POM_AT, POM)]);
    let files: [(&str, &[u8]); 3] = [
        ("META-INF/MANIFEST.MF", b"Implementation-Version: 1\n"),
        ("WEB-INF/lib/lib-1.2.3.jar", &inner),
        ("x", b""),
    ];
    vec![
        zip(Form::default(), &files),
        zip(Form { stored: true, ..Form::default() }, &files),
        zip(Form { wide: true, prefix: b"#!/bin/sh\n", ..Form::default() }, &files),
    ]
}

fn check(path: &str, archive: Vec<u8>, expected: &str) {
    assert_eq!(shown(&parse(path, &Bytes(archive))), expected, "{path}");
}

#[test]
fn forms() {
    for stored in [false, true] {
        for descriptors in [false, true] {
            for wide in [false, true] {
                for prefix in [b"".as_slice(), b"#!/bin/sh\nexec java -jar $0\n"] {
                    let form = Form { stored, descriptors, wide, prefix };
                    let inner = zip(form, &[("x", b"x"), (POM_AT, POM), ("y", b"")]);
                    check("a/lib-1.2.3.jar", inner.clone(), "org.example:lib 1.2.3");
                    let outer = zip(form, &[("WEB-INF/lib/lib-1.2.3.jar", &inner)]);
                    check("a/app.war", outer, "org.example:lib 1.2.3");
                }
            }
        }
    }
    let commented = [&zip(Form::default(), &[(POM_AT, POM)])[..], b""].concat();
    let end = commented.len() - 2;
    let commented = [&commented[..end], &le(26, 2), b"PK\x05\x06 and what is behind it"].concat();
    check("lib.jar", commented, "org.example:lib 1.2.3");
    check("a.jar", zip(Form::default(), &[]), "");
}

#[test]
fn identities() {
    let of = |files: &[(&str, &[u8])]| zip(Form::default(), files);
    let manifest = "META-INF/MANIFEST.MF";
    let both: [(&str, &[u8]); 2] = [(OTHER_AT, OTHER), (POM_AT, POM)];
    check("lib-1.2.3.jar", of(&both), "org.example:lib 1.2.3, org.example:other 2.0");
    check("shaded.jar", of(&both), "org.example:lib 1.2.3, org.example:other 2.0");
    check("shaded-7.0.jar", of(&both), "shaded 7.0, org.example:lib 1.2.3, org.example:other 2.0");
    // Renamed, but of the same version: it is the only one that it says it is.
    check("renamed-1.2.3.jar", of(&both[1..]), "org.example:lib 1.2.3");
    check("renamed.jar", of(&both[1..]), "org.example:lib 1.2.3");
    check("renamed-9.jar", of(&both[1..]), "renamed 9, org.example:lib 1.2.3");
    check("a-1.0.jar", of(&[(manifest, b"Bundle-License: MIT\n")]), "a 1.0 [MIT]");
    check("a-1.0.jar", of(&[(manifest, b"Weave-Classes: x\n")]), "");
    check("a.jar", of(&[(manifest, b"Manifest-Version: 1.0\n")]), "");
    let xml = b"<project><parent><version>4</version></parent><licenses><license><name>MIT</name></license></licenses></project>";
    check("x.jar", of(&[("META-INF/maven/g.h/x/pom.xml", xml)]), "g.h:x 4 [MIT]");
    check("x.jar", of(&[("META-INF/maven/g.h/x/pom.properties", b"version=${v}\n")]), "");
}

#[test]
fn hostile() {
    let form = Form::default();
    check("a.jar", b"not an archive".to_vec(), "! it is not a zip archive, or cut off");
    check("a.jar", Vec::new(), "! it is not a zip archive, or cut off");
    // Archives in archives without an end.
    let mut nested = zip(form, &[(POM_AT, POM)]);
    for _ in 0..12 {
        nested = zip(form, &[("a.jar", &nested)]);
    }
    let found = shown(&parse("a.jar", &Bytes(nested)));
    assert!(found.ends_with("archives are nested too deep"), "{found}");
    // A bomb by ratio, and one whose directory hides its size.
    let zeros = vec![0; 8 << 20];
    let bomb = zip(form, &[("a.jar", &zeros), (POM_AT, POM)]);
    check(
        "lib.jar",
        bomb.clone(),
        "org.example:lib 1.2.3, ! a.jar: it is compressed too much to be true",
    );
    let mut lying = bomb;
    let size = le(8 << 20, 4);
    while let Some(at) = memchr::memmem::rfind(&lying, &size) {
        lying[at..at + 4].copy_from_slice(&le(1 << 19, 4));
    }
    check(
        "lib.jar",
        lying,
        "org.example:lib 1.2.3, ! a.jar: its size is not what the directory says",
    );
    // Damage within leaves the rest.
    let mut damaged = zip(Form { stored: true, ..form }, &[(OTHER_AT, OTHER), (POM_AT, POM)]);
    damaged[40 + OTHER_AT.len()] ^= 1;
    check(
        "lib.jar",
        damaged,
        &format!("org.example:lib 1.2.3, ! {OTHER_AT}: its checksum is wrong"),
    );
    // Two entries of the same bytes.
    let mut twice = zip(form, &[(POM_AT, POM), (OTHER_AT, OTHER)]);
    let second = memchr::memmem::rfind(&twice, b"PK\x01\x02").unwrap();
    twice[second + 42..second + 46].copy_from_slice(&le(0, 4));
    check("lib.jar", twice, "org.example:lib 1.2.3, ! its entries overlap");
    let mut encrypted = zip(form, &[(POM_AT, POM)]);
    let first = memchr::memmem::find(&encrypted, b"PK\x01\x02").unwrap();
    encrypted[first + 8] |= 1;
    check("x.jar", encrypted, &format!("! {POM_AT}: it is encrypted"));
    let whole = zip(form, &[(POM_AT, POM), (OTHER_AT, OTHER)]);
    for length in 0..whole.len() {
        let parsed = parse("lib.jar", &Bytes(whole[..length].to_vec()));
        assert!(!parsed.problems.is_empty(), "{length}");
    }
}

#[test]
fn large_ones_in_a_file() {
    // Not compressible, so that the ratio is true.
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..IN_MEMORY as usize + 1)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let inner = zip(Form { stored: true, ..Form::default() }, &[("noise", &noise), (POM_AT, POM)]);
    let outer = zip(Form::default(), &[("lib.jar", &inner)]);
    check("app.war", outer, "org.example:lib 1.2.3");
}
