//! A tar writer that also writes what no writer should.

/// An archive in the making.
pub(super) struct Archive(Vec<u8>);

impl Archive {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// A POSIX header.
    pub(super) fn header(kind: u8, name: &[u8], size: u64) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
        put(0, &name[..name.len().min(100)]);
        put(100, b"0000644\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        block
    }

    /// Sets a header's checksum.
    pub(super) fn seal(mut block: [u8; 512]) -> [u8; 512] {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    /// Bytes as they are.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes, and zeros up to the next block.
    pub(super) fn filled(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn entry(self, kind: u8, name: impl AsRef<[u8]>, content: &[u8]) -> Self {
        let header = Self::header(kind, name.as_ref(), content.len() as u64);
        self.raw(&Self::seal(header)).filled(content)
    }

    pub(super) fn link(self, kind: u8, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, name.as_bytes(), 0);
        header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        self.raw(&Self::seal(header))
    }

    /// A header that is changed before its checksum is set.
    pub(super) fn changed(
        self,
        kind: u8,
        name: &str,
        content: &[u8],
        change: impl FnOnce(&mut [u8; 512]),
    ) -> Self {
        let mut header = Self::header(kind, name.as_bytes(), content.len() as u64);
        change(&mut header);
        self.raw(&Self::seal(header)).filled(content)
    }

    pub(super) fn pax(self, records: &[(&str, &str)]) -> Self {
        self.entry(b'x', "PaxHeaders/0", pax_records(records).as_bytes())
    }

    /// The archive with its end marker.
    pub(super) fn finish(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }

    /// The archive without end marker.
    pub(super) fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

pub(super) fn pax_records(records: &[(&str, &str)]) -> String {
    let record = |(key, value): &(&str, &str)| {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length += 1;
        }
        format!("{length} {key}={value}\n")
    };
    records.iter().map(record).collect()
}
