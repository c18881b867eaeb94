//! Layers made on the spot, whole and in every kind of disorder.

mod archive;
mod compressed;
mod damaged;
mod plain;

use archive::Archive;

use super::{Entry, Interest, Kind, Limits, Summary, Unpacker, Visitor};

/// Writes down what it is told, one line each, and reads every file whose name ends in a digit.
#[derive(Default)]
struct Record {
    lines: Vec<String>,
    content: Vec<u8>,
    is_reading: bool,
}

impl Visitor for Record {
    fn entry(&mut self, entry: &Entry<'_>) -> Interest {
        assert!(!self.is_reading || self.content.is_empty());
        let Entry { path, kind, size, mode, link, sparse } = entry;
        assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path}");
        let link = link.map(|link| format!(" -> {link}")).unwrap_or_default();
        let sparse = if *sparse { " sparse" } else { "" };
        let kind = match kind {
            Kind::File => format!("file {path} {size} {mode:o}"),
            Kind::Directory => format!("dir {path}"),
            Kind::HardLink => format!("hard {path}"),
            Kind::Symlink => format!("link {path}"),
            Kind::Other(kind) => format!("other {} {path}", char::from(*kind)),
        };
        self.lines.push(format!("{kind}{link}{sparse}"));
        self.is_reading = path.ends_with(|last: char| last.is_ascii_digit());
        if self.is_reading { Interest::Read } else { Interest::Skip }
    }

    fn content(&mut self, piece: &[u8]) {
        assert!(self.is_reading && !piece.is_empty());
        self.content.extend_from_slice(piece);
    }

    fn end(&mut self) {
        assert!(self.is_reading);
        self.is_reading = false;
        let content = std::mem::take(&mut self.content);
        self.lines.push(format!("  = {}", String::from_utf8_lossy(&content)));
    }

    fn whiteout(&mut self, path: &str) {
        self.lines.push(format!("without {path}"));
    }

    fn opaque(&mut self, folder: &str) {
        self.lines.push(format!("opaque {folder}"));
    }

    fn problem(&mut self, path: &str, why: &str) {
        self.lines.push(format!("problem {path}: {why}"));
    }
}

/// What is found when the blob comes in pieces of this length.
fn read_in(blob: &[u8], length: usize, limits: &Limits) -> (String, Summary) {
    let mut unpacker = Unpacker::new(Record::default(), limits);
    blob.chunks(length).for_each(|piece| unpacker.push(piece));
    let (record, summary) = unpacker.finish();
    (record.lines.join("\n"), summary)
}

/// What is found, which must not depend on how the blob is cut.
fn read(blob: &[u8]) -> (String, Summary) {
    let whole = read_in(blob, usize::MAX, &Limits::default());
    for length in [1, 7, 511, 512, 513] {
        assert_eq!(read_in(blob, length, &Limits::default()), whole, "in pieces of {length}");
    }
    let mut unpacker = Unpacker::new(Record::default(), &Limits::default());
    unpacker.push(&[]);
    unpacker.push(blob);
    unpacker.push(&[]);
    assert_eq!(unpacker.finish().1, whole.1);
    whole
}

/// The archive that several tests cut and squeeze.
fn sample() -> Vec<u8> {
    Archive::new()
        .entry(b'5', "etc/", b"")
        .entry(b'0', "etc/file1", b"one")
        .entry(b'0', "etc/skipped", &[b'x'; 1500])
        .pax(&[("path", "etc/long2"), ("size", "3")])
        .entry(b'0', "short", b"two")
        .link(b'2', "etc/link", "../usr/etc")
        .entry(b'0', "etc/.wh.gone", b"")
        .entry(b'0', "etc/file3", &[b'y'; 700])
        .finish()
}
