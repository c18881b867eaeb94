//! What a process may ask of its kernel once, at its start.

use std::io;

/// Raises the limit of open files as far as we may without a privilege, and says how far that
/// is. The usual soft limit of 1024 is less than a registry has connections.
///
/// # Errors
/// When the limit cannot be read or set.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit that outlives the call, which only reads it.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Keeps the allocator from giving the buffers of transfers back to the kernel one by one: each
/// would come back as fresh pages, whose clearing and faulting costs more than the copy into them.
/// Few arenas keep the process small. Where the C library is not glibc this does nothing.
pub fn tune_allocator() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, 8 << 20),
        (libc::M_TRIM_THRESHOLD, 16 << 20),
        (libc::M_ARENA_MAX, 2),
    ] {
        // SAFETY: mallopt only sets a parameter of the allocator, which takes a lock of its own.
        unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_is_raised_and_stays() {
        let raised = super::raise_open_files().unwrap();
        assert!(raised >= 256);
        assert_eq!(super::raise_open_files().unwrap(), raised);
    }
}
