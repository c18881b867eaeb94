//! From pushed bytes to a visitor: compression, hash, archive.

use std::io::{self, Read};

use super::{
    Compression, End, Limits, Summary, Visitor, compression::TELLING_BYTES, gzip::Gzip,
    walk::Walker, zstandard::Zstandard,
};
use crate::digest::{Algorithm, Hasher};

/// Bytes that are inflated, hashed and walked at a time: what a processor core keeps near.
const PIECE: usize = 128 << 10;

/// Reads a layer that is pushed to it in pieces of any length.
pub struct Unpacker<V> {
    stage: Stage,
    compression: Option<Compression>,
    buffer: Vec<u8>,
    /// Bytes pushed.
    pushed: u64,
    /// Bytes given to the decoder.
    taken: u64,
    flow: Flow<V>,
    failed: Option<End>,
}

enum Stage {
    /// The first bytes are not there yet.
    Unknown {
        head: [u8; TELLING_BYTES],
        filled: usize,
    },
    Plain,
    Gzip(Box<Gzip>),
    Zstd(Zstandard),
}

impl<V: Visitor> Unpacker<V> {
    /// An unpacker that has seen nothing.
    #[must_use]
    pub fn new(visitor: V, limits: &Limits) -> Self {
        Self {
            stage: Stage::Unknown { head: [0; TELLING_BYTES], filled: 0 },
            compression: None,
            buffer: Vec::new(),
            pushed: 0,
            taken: 0,
            flow: Flow {
                hasher: Hasher::new(Algorithm::Sha256),
                walker: Walker::new(limits.clone()),
                visitor,
                size: 0,
                limits: limits.clone(),
            },
            failed: None,
        }
    }

    /// Takes the next bytes of the blob.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pushed = self.pushed.saturating_add(bytes.len() as u64);
        if self.failed.is_some() {
            return;
        }
        if let Err(end) = self.accept(bytes) {
            self.failed = Some(end);
        }
    }

    /// Whether the rest of the blob makes no difference any more, because it can't be read.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The visitor, on the way.
    #[must_use]
    pub fn visitor(&self) -> &V {
        &self.flow.visitor
    }

    /// There are no more bytes.
    pub fn finish(mut self) -> (V, Summary) {
        let end = match self.failed.take().map_or_else(|| self.last(), Err) {
            Ok(()) => End::Complete,
            Err(end) => end,
        };
        let Flow { hasher, walker, visitor, size, .. } = self.flow;
        let summary = Summary {
            diff_id: (end == End::Complete).then(|| hasher.finish()),
            size,
            compressed: self.pushed,
            entries: walker.entries(),
            compression: self.compression,
            end,
        };
        (visitor, summary)
    }

    fn accept(&mut self, bytes: &[u8]) -> Result<(), End> {
        let Stage::Unknown { head, filled } = &mut self.stage else {
            return self.decode(bytes);
        };
        let slots = head.iter_mut().skip(*filled);
        let taken = slots.zip(bytes).map(|(slot, byte)| *slot = *byte).count();
        *filled += taken;
        if *filled < head.len() {
            return Ok(());
        }
        let head = *head;
        self.begin(&head)?;
        self.decode(bytes.get(taken..).unwrap_or_default())
    }

    /// Chooses the decoder, and gives it the first bytes.
    fn begin(&mut self, head: &[u8]) -> Result<(), End> {
        let compression = Compression::detect(head)?;
        self.compression = Some(compression);
        self.stage = match compression {
            Compression::None => Stage::Plain,
            Compression::Gzip => Stage::Gzip(Box::new(Gzip::new())),
            Compression::Zstd => Stage::Zstd(Zstandard::new()?),
        };
        if compression != Compression::None {
            self.buffer = vec![0; PIECE];
        }
        self.decode(head)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(), End> {
        let (flow, before) = (&mut self.flow, self.taken);
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        let mut sink = |piece: &[u8], used: usize| flow.pass(piece, before + used as u64);
        match &mut self.stage {
            Stage::Gzip(gzip) => gzip.push(bytes, &mut self.buffer, &mut sink),
            Stage::Zstd(zstd) => zstd.push(bytes, &mut self.buffer, &mut sink),
            Stage::Plain | Stage::Unknown { .. } => {
                let mut pieces = bytes.chunks(PIECE);
                pieces.try_for_each(|piece| flow.pass(piece, u64::MAX))
            }
        }
    }

    /// What is wrong at the end of the input.
    fn last(&mut self) -> Result<(), End> {
        if let Stage::Unknown { head, filled } = self.stage {
            self.begin(head.get(..filled).unwrap_or_default())?;
        }
        let garbage = match &self.stage {
            Stage::Gzip(gzip) => gzip.finish().map(|()| gzip.has_garbage())?,
            Stage::Zstd(zstd) => zstd.finish().map(|()| zstd.has_garbage())?,
            Stage::Plain | Stage::Unknown { .. } => false,
        };
        let walker = &self.flow.walker;
        if walker.has_end_marker() {
            return Ok(());
        }
        if garbage {
            let why = "there are bytes after the compressed stream that don't belong to it";
            return Err(End::Broken(why.to_owned()));
        }
        walker.finish()?;
        // The trailer of a compressed stream says that it was meant to end here.
        if matches!(self.stage, Stage::Plain | Stage::Unknown { .. }) {
            return Err(End::Truncated("the archive has no end marker".to_owned()));
        }
        Ok(())
    }
}

/// What uncompressed bytes go through.
struct Flow<V> {
    hasher: Hasher,
    walker: Walker,
    visitor: V,
    size: u64,
    limits: Limits,
}

impl<V: Visitor> Flow<V> {
    /// Takes uncompressed bytes, for which `taken` bytes of the blob were needed.
    fn pass(&mut self, piece: &[u8], taken: u64) -> Result<(), End> {
        let size = self.size.saturating_add(piece.len() as u64);
        if size > self.limits.inflated {
            let max = self.limits.inflated;
            return Err(End::Limit(format!("the archive has more than {max} bytes")));
        }
        if size > self.limits.free && size / self.limits.ratio.max(1) > taken {
            let ratio = self.limits.ratio;
            return Err(End::Limit(format!("it inflates to more than {ratio} times its size")));
        }
        self.size = size;
        self.hasher.update(piece);
        self.walker
            .push(piece, &mut self.visitor)
            .inspect_err(|_| self.size = self.walker.header_at())
    }
}

/// Reads a layer to its end, or until nothing more can be read of it.
///
/// # Errors
/// The reader fails. Whatever is wrong with the layer is in the [`Summary`] instead.
pub fn unpack<V: Visitor>(
    mut reader: impl Read,
    visitor: V,
    limits: &Limits,
) -> io::Result<(V, Summary)> {
    let mut unpacker = Unpacker::new(visitor, limits);
    let mut buffer = vec![0; PIECE];
    while !unpacker.has_failed() {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => unpacker.push(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(unpacker.finish())
}
