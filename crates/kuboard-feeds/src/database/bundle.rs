//! A database as one compressed file, to be carried to where no feed can be reached.
//!
//! ```text
//! 0    magic "KBADVEX\n"     8  u32 format version of the database     12  u32 zero
//! 16   u64 length of the database     24  checksum of the database (32)
//! 56   the database file, one zstd frame
//! end  sha256 of the database file (32)
//! ```

use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use kuboard_oci::{Algorithm, Hasher};
use tempfile::NamedTempFile;

use super::format::{VERSION, array_at, hex, sha256, sum_of, u32_at, u64_at};
use super::{Database, DatabaseError};

const MAGIC: [u8; 8] = *b"KBADVEX\n";
const HEAD: usize = 56;
const LEVEL: i32 = 15;
/// Match distances of up to 32 MiB: rows and keys repeat far apart.
const WINDOW_LOG: u32 = 25;

/// Writes a bundle.
///
/// # Errors
/// When writing fails, or the database turns out to be damaged.
pub fn export(database: &Database, mut to: impl Write) -> Result<(), DatabaseError> {
    let io = |source| DatabaseError::Io { path: "the bundle".into(), source };
    database.verify()?;
    let file = database.file();
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&0_u32.to_le_bytes());
    head.extend_from_slice(&(file.len() as u64).to_le_bytes());
    for at in (0..64).step_by(2) {
        let pair = database.checksum().get(at..at + 2).unwrap_or_default();
        head.push(u8::from_str_radix(pair, 16).unwrap_or_default());
    }
    to.write_all(&head).map_err(io)?;
    let mut encoder = zstd::stream::write::Encoder::new(&mut to, LEVEL).map_err(io)?;
    encoder.window_log(WINDOW_LOG).map_err(io)?;
    encoder.set_pledged_src_size(Some(file.len() as u64)).map_err(io)?;
    encoder.write_all(file).map_err(io)?;
    encoder.finish().map_err(io)?;
    to.write_all(&sha256(file)).and_then(|()| to.flush()).map_err(io)
}

/// A bundle that was unpacked beside the generations and verified.
#[derive(Debug)]
pub struct Unpacked {
    pub(super) file: NamedTempFile,
    /// The database, open.
    pub database: Arc<Database>,
}

/// Unpacks a bundle into a temporary file of `folder`, at most `max_bytes` long, and verifies all
/// of it.
///
/// # Errors
/// When it is no bundle, damaged, of a newer format, or longer.
pub fn unpack(from: impl Read, folder: &Path, max_bytes: u64) -> Result<Unpacked, DatabaseError> {
    let io = |source| DatabaseError::Io { path: "the bundle".into(), source };
    let cut = |_: io::Error| DatabaseError::Damaged("the bundle is cut short or garbled");
    let mut from = BufReader::with_capacity(1 << 17, from);
    let mut head = [0; HEAD];
    from.read_exact(&mut head).map_err(|_| DatabaseError::NotADatabase)?;
    if head.get(..8) != Some(&MAGIC[..]) {
        return Err(DatabaseError::NotADatabase);
    }
    let found = u32_at(&head, 8).unwrap_or_default();
    if found > VERSION {
        return Err(DatabaseError::Newer { found });
    }
    let len = u64_at(&head, 16).unwrap_or_default();
    if len > max_bytes {
        return Err(DatabaseError::TooLarge("bytes"));
    }
    let checksum: [u8; 32] = array_at(&head, 24).unwrap_or_default();
    let mut file = tempfile::Builder::new()
        .prefix(".importing-")
        .suffix(".kbdb")
        .tempfile_in(folder)
        .map_err(|err| DatabaseError::io(folder, err))?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut from).map_err(io)?;
    decoder.window_log_max(WINDOW_LOG + 2).map_err(io)?;
    let mut decoder = decoder.single_frame();
    let mut left = len;
    let mut piece = vec![0; 1 << 17];
    loop {
        let read = decoder.read(&mut piece).map_err(cut)?;
        let bytes = piece.get(..read).unwrap_or_default();
        if read == 0 {
            break;
        }
        left = left
            .checked_sub(read as u64)
            .ok_or(DatabaseError::Damaged("the bundle is longer than it says"))?;
        hasher.update(bytes);
        file.write_all(bytes).map_err(|err| DatabaseError::io(folder, err))?;
    }
    decoder.finish();
    let mut sum = [0; 32];
    from.read_exact(&mut sum).map_err(cut)?;
    if left != 0 || sum != sum_of(hasher) {
        return Err(DatabaseError::Damaged("the bundle's checksum does not fit"));
    }
    file.as_file().sync_all().map_err(|err| DatabaseError::io(folder, err))?;
    let database = Database::open(file.path())?;
    database.verify()?;
    if database.checksum() != hex(&checksum) {
        return Err(DatabaseError::Damaged("the bundle holds another database than it says"));
    }
    Ok(Unpacked { file, database })
}
