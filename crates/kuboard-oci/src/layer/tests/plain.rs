//! Archives as their writers meant them.

use super::{Archive, read, sample};
use crate::{
    Digest,
    layer::{Compression, End},
};

fn check(archive: Archive, want: &str) {
    let blob = archive.finish();
    let (lines, summary) = read(&blob);
    assert_eq!(lines, want);
    assert_eq!(summary.end, End::Complete);
    assert_eq!(summary.diff_id, Some(Digest::sha256(&blob)));
    assert_eq!(summary.size, blob.len() as u64);
    assert_eq!(summary.compressed, blob.len() as u64);
    assert_eq!(summary.compression, Some(Compression::None));
}

#[test]
fn a_usual_archive() {
    let (lines, summary) = read(&sample());
    let y = "y".repeat(700);
    let want = format!(
        "dir etc\nfile etc/file1 3 644\n  = one\nfile etc/skipped 1500 644\nfile etc/long2 3 644\n  \
         = two\nlink etc/link -> ../usr/etc\nwithout etc/gone\nfile etc/file3 700 644\n  = {y}"
    );
    assert_eq!(lines, want);
    assert_eq!(summary.entries, 7);
}

#[test]
fn kinds_of_entries() {
    check(
        Archive::new()
            .entry(b'0', "a1", b"x")
            .entry(0, "b1", b"y")
            .entry(b'7', "c1", b"z")
            .entry(0, "folder/", b"")
            .entry(b'5', "./", b"")
            .link(b'1', "hard", "./a1")
            .link(b'2', "loop", "loop")
            .entry(b'3', "dev/null", b"")
            .entry(b'6', "pipe", b"")
            .entry(b'Z', "unknown1", b"its content is passed over")
            .entry(b'0', "empty1", b""),
        "file a1 1 644\n  = x\nfile b1 1 644\n  = y\nfile c1 1 644\n  = z\ndir folder\n\
         hard hard -> a1\nlink loop -> loop\nother 3 dev/null\nother 6 pipe\nother Z unknown1\n\
         file empty1 0 644\n  = ",
    );
}

#[test]
fn sizes_of_entries_without_content_do_not_count() {
    let lie = |header: &mut [u8; 512]| header[124..136].copy_from_slice(b"00000001000\0");
    let archive = [b'1', b'2', b'3', b'4', b'5', b'6']
        .into_iter()
        .fold(Archive::new(), |archive, kind| archive.changed(kind, "x", b"", lie));
    check(
        archive.entry(b'0', "a1", b"!"),
        "problem x: it links to a path that can't be one\nlink x -> \nother 3 x\nother 4 x\n\
         dir x\nother 6 x\nfile a1 1 644\n  = !"
            .replace("problem x: it links to a path that can't be one", "hard x -> ")
            .as_str(),
    );
}

#[test]
fn long_names() {
    let long = format!("{}/1", "d".repeat(300));
    let prefixed = |magic: &'static [u8], length: usize| {
        move |header: &mut [u8; 512]| {
            header[257..265].copy_from_slice(magic);
            header[345..345 + length].fill(b'p');
        }
    };
    let star = |header: &mut [u8; 512]| {
        header[345..350].copy_from_slice(b"outer");
        header[476..480].copy_from_slice(b"0123");
        header[508..].copy_from_slice(b"tar\0");
    };
    check(
        Archive::new()
            .entry(b'L', "././@LongLink", format!("{long}\0").as_bytes())
            .entry(b'0', "cut", b"A")
            .entry(b'K', "././@LongLink", format!("{long}\0").as_bytes())
            .link(b'1', "hard", "cut")
            .pax(&[("path", &long), ("linkpath", "over there")])
            .link(b'2', "cut", "cut")
            .pax(&[("linkpath", "there")])
            .link(b'1', "hard", "cut")
            .changed(b'0', "n1", b"B", prefixed(b"ustar\x0000", 155))
            .changed(b'0', "n1", b"C", prefixed(b"ustar  \0", 155))
            .changed(b'0', "n1", b"D", prefixed(&[0; 8], 155))
            .changed(b'0', "n1", b"E", star)
            .entry(b'0', [b'f'; 100], b"F"),
        &format!(
            "file {long} 1 644\n  = A\nhard hard -> {long}\nlink {long} -> over there\n\
             hard hard -> there\nfile {p}/n1 1 644\n  = B\nfile n1 1 644\n  = C\n\
             file n1 1 644\n  = D\nfile outer/n1 1 644\n  = E\nfile {f} 1 644",
            p = "p".repeat(155),
            f = "f".repeat(100),
        ),
    );
}

#[test]
fn extended_headers() {
    let base_256 = |header: &mut [u8; 512]| {
        header[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    };
    check(
        Archive::new()
            .entry(b'g', "pax_global_header", b"10 path=q\n19 comment=0123456\n")
            .entry(b'0', "own1", b"A")
            // The size in the header is wrong; the extended one counts.
            .pax(&[("size", "2"), ("mtime", "1.5")])
            .changed(b'0', "sized1", b"BC", |header| header[124..136].fill(b'0'))
            .changed(b'0', "big1", b"DE", base_256)
            // Only the last of two counts, and only for the next entry.
            .pax(&[("path", "never1")])
            .pax(&[("path", "caf\u{e9}1")])
            .entry(b'0', "plain1", b"F")
            .entry(b'0', "plain1", b"G")
            .pax(&[])
            .entry(b'0', "plain1", b"H"),
        "file own1 1 644\n  = A\nfile sized1 2 644\n  = BC\nfile big1 2 644\n  = DE\n\
         file caf\u{e9}1 1 644\n  = F\nfile plain1 1 644\n  = G\nfile plain1 1 644\n  = H",
    );
}

#[test]
fn sparse_files_are_passed_over() {
    let gnu = |more: bool| {
        move |header: &mut [u8; 512]| {
            header[257..265].copy_from_slice(b"ustar  \0");
            header[482] = u8::from(more);
            header[124..136].copy_from_slice(b"00000001000\0");
        }
    };
    let mut map = [[b'1'; 512]; 3];
    map[2][504] = 0;
    check(
        Archive::new()
            .changed(b'S', "old1", b"", gnu(false))
            .raw(&[b'x'; 512])
            .changed(b'S', "older1", b"", gnu(true))
            .raw(map.as_flattened())
            .raw(&[b'x'; 512])
            .pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.name", "new1")])
            .entry(b'0', "GNUSparseFile.0/new1", b"1\n0\n5\n")
            .entry(b'0', "after1", b"!"),
        "file old1 512 644 sparse\nfile older1 512 644 sparse\nfile new1 6 644 sparse\n\
         file after1 1 644\n  = !",
    );
}

#[test]
fn names_and_whiteouts() {
    check(
        Archive::new()
            .entry(b'0', "/etc//./a", b"")
            .entry(b'0', "x/../b", b"")
            .entry(b'0', "../etc/shadow", b"ignored")
            .entry(b'0', "a/../../c", b"")
            .entry(b'0', "", b"")
            .entry(b'0', b"l\xe9", b"")
            .entry(b'0', "var/.wh.cache", b"")
            .entry(b'0', ".wh.opt", b"")
            .entry(b'0', "srv/.wh..wh..opq", b"")
            .entry(b'0', ".wh..wh..opq", b"")
            .entry(b'5', ".wh..wh.plnk", b"")
            .entry(b'0', "a/.wh...", b"")
            .pax(&[("path", &"n/".repeat(2100))])
            .entry(b'0', "n", b"ignored")
            .link(b'1', "h", "../up")
            .entry(b'0', "end", b""),
        &format!(
            "file etc/a 0 644\nfile b 0 644\n\
             problem ../etc/shadow: its path leads out of the root\n\
             problem a/../../c: its path leads out of the root\nproblem : it has no name\n\
             file l\u{fffd} 0 644\nwithout var/cache\nwithout opt\nopaque srv\nopaque \n\
             problem a/.wh...: it removes a file without a name\n\
             problem {}: its path is too long\nproblem h: it links to a path that can't be one\n\
             file end 0 644",
            "n/".repeat(100),
        ),
    );
}

#[test]
fn what_follows_the_end_marker_is_hashed_and_not_read() {
    check(
        Archive::new().entry(b'0', "a1", b"x").raw(&[0; 1024]).entry(b'0', "b1", b"y"),
        "file a1 1 644\n  = x",
    );
    // One block of zeros alone ends nothing.
    check(
        Archive::new().entry(b'0', "a1", b"x").raw(&[0; 512]).entry(b'0', "b1", b"y"),
        "file a1 1 644\n  = x\nfile b1 1 644\n  = y",
    );
    check(Archive::new().raw(&[0; 9000]), "");
    check(Archive::new().entry(b'0', "BZh1", b"x"), "file BZh1 1 644\n  = x");
}

#[test]
fn signed_checksums() {
    let name = b"\xe9\xe91";
    let mut block = Archive::header(b'0', name, 0);
    block[148..156].copy_from_slice(b"        ");
    let sum: i32 = block.iter().map(|byte| i32::from(byte.cast_signed())).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    check(Archive::new().raw(&block), "file \u{fffd}\u{fffd}1 0 644\n  = ");
}
