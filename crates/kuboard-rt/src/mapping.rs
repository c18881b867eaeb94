//! Read-only maps of files whose bytes never change, the cheapest way to send a blob.
//!
//! A map gives addresses: plain HTTP/1.1 turns such an address back into (file, offset) and
//! sends it with `sendfile(2)`, TLS and HTTP/2 read the bytes through it. Three things keep
//! that safe and small:
//!
//! * The file must never be truncated or written in place; it may be renamed or unlinked.
//!   Reading a mapped page beyond the end of a file kills the process (SIGBUS), which is why
//!   nobody but the content-addressed store should map anything.
//! * Pages that were read through the map count as memory of this process, so a slice gives
//!   them back when it is dropped (`MADV_DONTNEED`); they stay in the kernel's page cache.
//! * A page that is not in the page cache would block the thread that touches it, so whoever
//!   serves a window of a map calls [`Mapping::is_resident`] first and [`read_ahead`] if not.

use bytes::Bytes;
use memmap2::{Mmap, UncheckedAdvice};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// Slices shorter than this keep their pages: giving them back costs more than it frees.
const RELEASE_FROM: usize = 64 << 10;

/// Cold bytes are read in pieces of this size.
const READ_PIECE: usize = 128 << 10;

static PAGE: LazyLock<usize> = LazyLock::new(|| {
    // SAFETY: sysconf only reads its argument and touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
});

/// A read-only map of an immutable file, together with the open file.
#[derive(Debug)]
pub struct Mapping {
    map: Mmap,
    file: File,
}

impl Mapping {
    /// Opens and maps the file at `path`.
    ///
    /// # Errors
    /// When it cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        Self::from_file(File::open(path)?)
    }

    /// Maps an open file, which must be readable.
    ///
    /// # Errors
    /// When it cannot be mapped (a pipe, a folder, out of address space).
    pub fn from_file(file: File) -> io::Result<Arc<Self>> {
        // SAFETY: the map is only sound while nobody truncates or writes the file. That is the
        // contract of this module (see its head): mapped files are immutable, stores replace
        // them by rename and unlink only.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Arc::new(Self { map, file }))
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All bytes, for who reads here and there and keeps the map: an index, a database.
    pub fn as_slice(&self) -> &[u8] {
        &self.map
    }

    /// The open file behind the map.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The bytes of `range`, cut to the file's length, without copying. The map lives as long
    /// as any slice of it. Pages touched through the slice are given back when it is dropped.
    pub fn slice(self: &Arc<Self>, range: Range<u64>) -> Bytes {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        if start == end {
            return Bytes::new();
        }
        // Both fit: they are at most the length of a map in memory.
        let range = start as usize..end as usize;
        Bytes::from_owner(Slice { mapping: self.clone(), range })
    }

    /// The offset in the file of the `len` bytes at `address`, if all of them lie in this map.
    ///
    /// While the caller holds the `Mapping`, no other memory can have such an address.
    pub fn contains(&self, address: *const u8, len: usize) -> Option<u64> {
        let offset = (address as usize).checked_sub(self.map.as_ptr() as usize)?;
        (offset.checked_add(len)? <= self.map.len()).then_some(offset as u64)
    }

    /// Whether the byte at `offset` can be read without waiting for the disk. False when there
    /// is no way to tell.
    pub fn is_resident(&self, offset: u64) -> bool {
        let Ok(offset) = libc::off_t::try_from(offset) else { return false };
        let mut byte = 0_u8;
        let piece = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // SAFETY: `piece` describes one writable byte that outlives the call, and the
        // descriptor is open as long as `self.file`.
        let got = unsafe {
            libc::preadv2(self.file.as_raw_fd(), &raw const piece, 1, offset, libc::RWF_NOWAIT)
        };
        match got {
            1 => true,
            -1 if io::Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP) => {
                // tmpfs, some network filesystems: ask the map instead.
                usize::try_from(offset).is_ok_and(|offset| self.is_cached(offset))
            }
            _ => false,
        }
    }

    /// Asks the kernel for the page at `offset` of the map.
    fn is_cached(&self, offset: usize) -> bool {
        if offset >= self.map.len() {
            return false;
        }
        let page = self.map[offset / *PAGE * *PAGE..].as_ptr();
        let mut found = 0_u8;
        // SAFETY: `page` is the beginning of a page of the map; one page needs one byte of
        // answer, which `found` is. The map itself is not touched.
        let asked = unsafe { libc::mincore(page.cast_mut().cast(), 1, &raw mut found) };
        asked == 0 && found & 1 == 1
    }

    /// Gives back the whole pages of `range`: they stop counting as memory of this process.
    fn release(&self, range: Range<usize>) {
        let start = range.start.next_multiple_of(*PAGE);
        // The last page of the file may be given back whole: nothing lies behind its end.
        let end = if range.end == self.map.len() { range.end } else { range.end / *PAGE * *PAGE };
        if start >= end {
            return;
        }
        // SAFETY: the map is shared, read-only and backed by an immutable file, so a page that
        // was given back is read again from the file with the same bytes. Other slices of the
        // same pages therefore never see a difference.
        let released = unsafe {
            self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
        };
        if let Err(err) = released {
            tracing::debug!("cannot give back mapped pages: {err}");
        }
    }
}

struct Slice {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.mapping.map[self.range.clone()]
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        if self.range.len() >= RELEASE_FROM {
            self.mapping.release(self.range.clone());
        }
    }
}

/// Reads `range` of the file into the page cache, on the pool of blocking threads, and asks
/// the kernel to begin with as many bytes behind it.
///
/// The bytes are really read rather than only asked for: a bad sector becomes an error here
/// instead of a SIGBUS in the thread that touches the map.
///
/// # Errors
/// When the file cannot be read.
pub async fn read_ahead(mapping: Arc<Mapping>, range: Range<u64>) -> io::Result<()> {
    let read = tokio::task::spawn_blocking(move || read_now(&mapping, range));
    read.await.unwrap_or_else(|err| Err(io::Error::other(err)))
}

fn read_now(mapping: &Mapping, range: Range<u64>) -> io::Result<()> {
    let len = range.end.saturating_sub(range.start);
    let twice = usize::try_from(len.saturating_mul(2)).unwrap_or(usize::MAX);
    let start = libc::off64_t::try_from(range.start).map_err(io::Error::other)?;
    // SAFETY: readahead only takes numbers and an open descriptor. A failure is of no concern,
    // it only prepares for the reads below.
    unsafe { libc::readahead(mapping.file.as_raw_fd(), start, twice) };
    let mut piece = vec![0_u8; READ_PIECE];
    let mut offset = range.start;
    while offset < range.end {
        let want = READ_PIECE.min(usize::try_from(range.end - offset).unwrap_or(READ_PIECE));
        match mapping.file.read_at(&mut piece[..want], offset) {
            Ok(0) => break,
            Ok(read) => offset += read as u64,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

#[cfg(test)]
impl Mapping {
    /// A map whose bytes are not those of its file, so that a test sees which of the two was
    /// sent.
    pub(crate) fn two_faced(mapped: &File, file: File) -> Arc<Self> {
        // SAFETY: the test does not change `mapped`.
        let map = unsafe { Mmap::map(mapped).unwrap() };
        Arc::new(Self { map, file })
    }

    /// Drops the file from the page cache, where the filesystem can.
    pub(crate) fn make_cold(&self) {
        self.file.sync_all().unwrap();
        // SAFETY: posix_fadvise only takes numbers and an open descriptor.
        unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(31) >> 3) as u8).collect()
    }

    fn mapped(bytes: &[u8]) -> Arc<Mapping> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        std::fs::write(&path, bytes).unwrap();
        // The folder goes away here: an unlinked file stays readable.
        Mapping::open(&path).unwrap()
    }

    #[test]
    fn slices_are_the_files_bytes_and_survive_giving_pages_back() {
        let bytes = pattern(1_000_003);
        let mapping = mapped(&bytes);
        assert_eq!(mapping.len(), 1_000_003);
        let cases =
            [0..10, 0..1_000_003, 5..300_000, 900_000..2_000_000, 7..7, 2_000_000..3_000_000];
        for range in cases {
            let expected = {
                let end = (range.end as usize).min(bytes.len());
                &bytes[(range.start as usize).min(end)..end]
            };
            let other = mapping.slice(range.clone());
            drop(mapping.slice(range.clone()));
            assert_eq!(other, expected, "{range:?}");
        }
    }

    /// Memory of this process that holds pages of `mapping`, in KiB.
    fn resident_kib(mapping: &Mapping) -> u64 {
        let start = mapping.map.as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = maps.lines().skip_while(|line| !line.starts_with(&format!("{start:x}-")));
        let rss = ours.into_iter().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[test]
    fn dropping_a_slice_gives_its_memory_back() {
        let bytes = pattern(8 << 20);
        let mapping = mapped(&bytes);
        let slice = mapping.slice(0..mapping.len());
        assert_eq!(slice, bytes);
        assert_eq!(resident_kib(&mapping), 8 << 10);
        drop(slice);
        assert_eq!(resident_kib(&mapping), 0);
        for at in 0..32 {
            let slice = mapping.slice(at << 18..(at + 1) << 18);
            assert_eq!(slice, bytes[at as usize * (256 << 10)..][..256 << 10]);
        }
        // What the kernel mapped ahead of a slice may stay until the next one goes.
        assert!(resident_kib(&mapping) <= 256, "{} KiB stay", resident_kib(&mapping));
    }

    #[test]
    fn a_slice_outlives_the_mapping() {
        let bytes = pattern(200_000);
        let mapping = mapped(&bytes);
        let slice = mapping.slice(100..199_000);
        drop(mapping);
        assert_eq!(slice, &bytes[100..199_000]);
    }

    #[test]
    fn addresses_lead_back_to_offsets() {
        let mapping = mapped(&pattern(10_000));
        let slice = mapping.slice(1_234..5_000);
        assert_eq!(mapping.contains(slice.as_ptr(), slice.len()), Some(1_234));
        assert_eq!(mapping.contains(slice.slice(6..).as_ptr(), 10), Some(1_240));
        assert_eq!(mapping.contains(slice.as_ptr(), 10_000), None);
        let elsewhere = pattern(10);
        assert_eq!(mapping.contains(elsewhere.as_ptr(), 10), None);
    }

    #[test]
    fn an_empty_file_maps() {
        let mapping = mapped(b"");
        assert!(mapping.is_empty());
        assert_eq!(mapping.slice(0..10), Bytes::new());
        assert!(!mapping.is_resident(0));
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_resident() {
        let bytes = pattern(3 << 20);
        let mapping = mapped(&bytes);
        read_ahead(mapping.clone(), 0..mapping.len()).await.unwrap();
        assert_eq!(mapping.slice(0..mapping.len()), bytes);
        assert!(mapping.is_resident(mapping.len() - 1) && mapping.is_cached(bytes.len() - 1));
        // Beyond the end there is nothing to wait for, and nothing to find.
        read_ahead(mapping.clone(), mapping.len()..mapping.len() + 10).await.unwrap();
        assert!(!mapping.is_resident(mapping.len()) && !mapping.is_cached(bytes.len()));
    }
}
