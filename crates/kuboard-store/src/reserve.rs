//! Space on the disk that is asked for ahead of a growing file.
//!
//! Writing into space that the file has already spares the kernel the search for each block, once
//! when it is written and once more when it goes to disk. The reserve lies beyond the end of the
//! file (`FALLOC_FL_KEEP_SIZE`), so the file is never longer than what was written to it, whatever
//! happens. What is left of the reserve is given back at the end; of a file that was left by a
//! crash, when it is finished or removed.
//!
//! It is a kindness of the file system, not a promise to anybody: where it is refused, for lack of
//! space or of the ability, the file grows as any other.

use std::{fs::File, io, os::fd::AsRawFd};

/// A file is not worth the call before it has this many bytes.
const FIRST: u64 = 4 << 20;
/// Most bytes of one reserve: little beside what a disk must have free anyway, many beside the
/// cost of a call.
const MOST: u64 = 16 << 20;

/// The reserve of one file.
pub(crate) struct Reserve {
    /// Where it ends; 0 before the first.
    end: u64,
    refused: bool,
    /// There may be space beyond the end of the file.
    held: bool,
}

impl Reserve {
    /// For a file of which `written` bytes are there. If there are some, whoever wrote them may have
    /// left a reserve.
    pub(crate) fn new(written: u64) -> Reserve {
        Reserve { end: 0, refused: false, held: written > 0 }
    }

    /// Sees to it that bytes up to `until` meet a reserve, if the file is worth it.
    pub(crate) fn reach(&mut self, file: &File, written: u64, until: u64) {
        if self.refused || until <= self.end || written < FIRST {
            return;
        }
        let from = self.end.max(written);
        // Never more than the file has already, so that a small one does not hold much.
        let length = from.min(MOST).max(until - from);
        if allocate(file, from, length).is_ok() {
            self.end = from + length;
            self.held = true;
        } else {
            // Asked again, a full disk would cost a failing call for each write.
            self.refused = true;
        }
    }

    /// Gives back what lies beyond `length`, where the file ends.
    pub(crate) fn give_back(&mut self, file: &File, length: u64) -> io::Result<()> {
        if self.held {
            file.set_len(length)?;
            self.held = false;
        }
        Ok(())
    }
}

fn allocate(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let offset = libc::off64_t::try_from(offset).map_err(io::Error::other)?;
    let length = libc::off64_t::try_from(length).map_err(io::Error::other)?;
    let mode = libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    match unsafe { libc::fallocate64(file.as_raw_fd(), mode, offset, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::MetadataExt as _};

    use super::*;

    /// Bytes on disk; `None` where the file system does not reserve.
    fn reserved(file: &File, reserve: &Reserve) -> Option<u64> {
        (!reserve.refused).then(|| file.metadata().unwrap().blocks() * 512)
    }

    #[test]
    fn the_file_keeps_its_length_and_the_rest_is_given_back() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; FIRST as usize + 5]).unwrap();
        let length = FIRST + 5;
        let mut reserve = Reserve::new(0);
        reserve.reach(&file, FIRST - 1, length);
        assert_eq!(reserve.end, 0, "not worth it yet");
        reserve.reach(&file, length, length + 1);
        if let Some(bytes) = reserved(&file, &reserve) {
            assert_eq!(reserve.end, 2 * length);
            assert!(bytes >= 2 * length, "{bytes}");
            reserve.reach(&file, length, 2 * length);
            assert_eq!(reserve.end, 2 * length, "there is enough");
        }
        assert_eq!(file.metadata().unwrap().len(), length);
        // As after a crash: whoever goes on does not know of the reserve.
        let mut later = Reserve::new(length);
        later.give_back(&file, length).unwrap();
        let bytes = file.metadata().unwrap().blocks() * 512;
        assert!(bytes < length + FIRST / 2, "{bytes}");
        assert_eq!(file.metadata().unwrap().len(), length);
    }

    /// `/dev/full` cannot reserve, as some file systems and full disks cannot.
    #[test]
    fn a_refusal_is_not_asked_again_and_harms_nothing() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let mut reserve = Reserve::new(0);
        reserve.reach(&file, FIRST, FIRST + 1);
        assert!(reserve.refused && reserve.end == 0);
        reserve.give_back(&file, FIRST).unwrap();
    }
}
