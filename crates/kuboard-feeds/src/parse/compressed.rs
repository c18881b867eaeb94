//! What a feed is packed in, by its first bytes: gzip, bzip2, xz, zstd or nothing. One place, with
//! one bound on what comes out.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;

/// How much of the first bytes tells the packing.
const MAGIC: usize = 6;
/// An xz or zstd stream may ask for a window of this size.
const MAX_WINDOW_LOG: u32 = 27;
/// Memory that an xz stream may ask for: the window of `xz -9` and a little.
const MAX_XZ_MEMORY: u64 = 192 << 20;

/// Unpacks a feed; no more than `limit` bytes come out, then reading fails.
///
/// # Errors
/// If the first bytes cannot be read.
pub fn open<'a>(mut input: impl Read + 'a, limit: u64) -> io::Result<Box<dyn BufRead + 'a>> {
    let mut head = Vec::with_capacity(MAGIC);
    input.by_ref().take(MAGIC as u64).read_to_end(&mut head)?;
    let packing = Packing::of(&head);
    let input = BufReader::with_capacity(64 << 10, Cursor::new(head).chain(input));
    let plain: Box<dyn Read + 'a> = match packing {
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Packing::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                MAX_XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Packing::None => Box::new(input),
    };
    Ok(Box::new(BufReader::with_capacity(64 << 10, Bounded { inner: plain, left: limit })))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Packing {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    None,
}

impl Packing {
    fn of(head: &[u8]) -> Self {
        if head.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if head.starts_with(b"BZh") {
            Self::Bzip2
        } else if head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Self::Xz
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// Fails after so many bytes, where `take` would only end.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(size as u64)
            .ok_or_else(|| io::Error::other("it inflates to more than is allowed"))?;
        Ok(size)
    }
}

/// Bounds what is read between two calls of [`Allowance::renew`]: one item of a stream.
pub(crate) struct Metered<R> {
    inner: R,
    allowance: Allowance,
}

/// What is left for the current item.
#[derive(Clone)]
pub(crate) struct Allowance {
    left: Rc<Cell<u64>>,
    whole: u64,
}

impl Allowance {
    /// The next item begins.
    pub(crate) fn renew(&self) {
        self.left.set(self.whole);
    }
}

impl<R> Metered<R> {
    pub(crate) fn new(inner: R, whole: u64) -> (Self, Allowance) {
        let allowance = Allowance { left: Rc::new(Cell::new(whole)), whole };
        (Self { inner, allowance: allowance.clone() }, allowance)
    }

    fn spend(&self, size: usize) -> io::Result<()> {
        let left = self.allowance.left.get().checked_sub(size as u64);
        self.allowance
            .left
            .set(left.ok_or_else(|| io::Error::other("one item of it is too large"))?);
        Ok(())
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.inner.read(buffer)?;
        self.spend(size)?;
        Ok(size)
    }
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // Spent when consumed; one more buffer than the allowance may be looked at.
        if self.allowance.left.get() == 0 {
            return Err(io::Error::other("one item of it is too large"));
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, size: usize) {
        let left = self.allowance.left.get().saturating_sub(size as u64);
        self.allowance.left.set(left);
        self.inner.consume(size);
    }
}
