//! The few raw reads and hints to the page cache, each with its fallback.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use kuboard_oci::{Algorithm, Hasher};

/// What is read at once to be hashed.
const HASH_READ: usize = 256 << 10;

/// Reads up to `length` bytes at `offset` if the page cache holds them, and never waits for a
/// disk. `None`: they are not there, or the file system cannot tell; read on a blocking thread.
pub(crate) fn read_cached(file: &File, offset: u64, length: usize) -> Option<Vec<u8>> {
    let position = libc::off_t::try_from(offset).ok()?;
    let mut buffer: Vec<u8> = Vec::with_capacity(length);
    let target = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: length };
    // SAFETY: `target` spans exactly the capacity reserved above and both outlive the call.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &target, 1, position, libc::RWF_NOWAIT) };
    let read = usize::try_from(read).ok().filter(|read| (1..=length).contains(read))?;
    // SAFETY: the kernel has written the first `read` bytes, which are within the capacity.
    unsafe { buffer.set_len(read) };
    Some(buffer)
}

/// Reads up to `length` bytes at `offset`, waiting for the disk; shorter only at the end.
pub(crate) fn read_waiting(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// Hashes a file from its first byte to its last, wherever its cursor is; also its length.
pub(crate) fn hash_file(file: &File, algorithm: Algorithm) -> io::Result<(Hasher, u64)> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; HASH_READ];
    let mut length = 0;
    loop {
        match file.read_at(&mut buffer, length) {
            Ok(0) => return Ok((hasher, length)),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Asks the kernel to begin writing a range to disk, so that the sync at the end finds little to
/// do. A hint only: failure means that the sync will take longer, or report the error itself.
pub(crate) fn begin_writeback(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn reads_what_is_there() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        begin_writeback(&file, 0, 10_000);
        // Just written, so cached wherever the file system supports the question.
        if let Some(read) = read_cached(&file, 4_000, 4_096) {
            assert_eq!(read, [7; 4_096]);
        }
        assert_eq!(read_cached(&file, 10_000, 10), None, "nothing beyond the end");
        assert_eq!(read_waiting(&file, 9_000, 4_096).unwrap(), [7; 1_000]);
    }
}
