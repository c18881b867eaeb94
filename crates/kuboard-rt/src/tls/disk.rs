//! Files of certificates and keys: read whole, written whole.

use super::Error;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Nobody's certificate chain is larger; a wrong path must not fill the memory.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a small text file.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    let read = || {
        let len = std::fs::metadata(path)?.len();
        if len > MAX_BYTES {
            return Err(io::Error::other(format!("{len} bytes are too many for a certificate")));
        }
        std::fs::read_to_string(path)
    };
    read().map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Like [`read`]; `None` when there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match read(path) {
        Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Writes a file that only we may read, such that it is there whole or not at all. Makes the
/// folder if need be.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    write(path, text, 0o600).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Like [`write_private`], for what everybody may read.
pub(crate) fn write_public(path: &Path, text: &str) -> Result<(), Error> {
    write(path, text, 0o644).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    // A leftover of a crash may have other permissions: never write into it.
    match std::fs::remove_file(&aside) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    std::fs::File::open(folder)?.sync_all()
}
