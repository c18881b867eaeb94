//! Archives of images on a local disk, read by offset: a tar file is a folder whose files are
//! found once. A compressed one is inflated into an unnamed temporary file first.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use kuboard_oci::{Digest, MAX_MANIFEST_BYTES, Reference};
use kuboard_rt::BoxFuture;

use super::{
    BlobBytes, Contents, Document, SourceError, SourceErrorKind,
    layout::{blob_path, manifest_of},
};

/// Files of an image archive: an image has at most some hundred layers.
const MAX_FILES: usize = 200_000;
const BLOCK: u64 = 512;
/// Names are short; a longer one is an attack.
const MAX_NAME: u64 = 64 << 10;
/// Headers, those that only belong to others included.
const MAX_HEADERS: usize = 4 * MAX_FILES;

/// An uncompressed tar file whose members are read by name.
pub(super) struct TarFile {
    file: Arc<File>,
    members: HashMap<String, (u64, u64)>,
}

impl TarFile {
    /// Finds the members. `spill` is a folder for temporary files.
    pub(super) fn open(path: &Path, spill: &Path) -> Result<Self, SourceError> {
        let mut file = File::open(path).map_err(|error| {
            let SourceError { kind, message } = SourceError::io(error);
            SourceError::new(kind, format!("{}: {message}", path.display()))
        })?;
        let mut magic = [0; 6];
        let read = read_up_to(&mut file, &mut magic).map_err(SourceError::io)?;
        file.seek(SeekFrom::Start(0)).map_err(SourceError::io)?;
        let file = match &magic[..read] {
            [0x1f, 0x8b, ..] => inflate(flate2::read::MultiGzDecoder::new(file), spill)?,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let decoder = zstd::stream::read::Decoder::new(file).map_err(SourceError::io)?;
                inflate(decoder, spill)?
            }
            _ => file,
        };
        let members = members(&file)?;
        Ok(Self { file: Arc::new(file), members })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    pub(super) fn reader(&self, name: &str) -> Result<(Section, u64), SourceError> {
        let (offset, length) = self.members.get(name).copied().ok_or_else(|| {
            SourceError::new(SourceErrorKind::NotFound, format!("the archive has no {name}"))
        })?;
        Ok((Section { file: self.file.clone(), at: offset, end: offset + length }, length))
    }

    pub(super) fn bytes(&self, name: &str, max: usize) -> Result<Vec<u8>, SourceError> {
        let (section, length) = self.reader(name)?;
        if length > max as u64 {
            return Err(SourceError::invalid(format!("{name} is longer than {max} bytes")));
        }
        let mut bytes = Vec::new();
        section.take(length).read_to_end(&mut bytes).map_err(SourceError::io)?;
        Ok(bytes)
    }
}

/// A part of a file, read with a position of its own.
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(into.len());
        let read = self.file.read_at(&mut into[..left], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn read_up_to(file: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read(&mut into[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// A bomb fills at most this much of the temporary folder.
const MAX_INFLATED: u64 = 64 << 30;

fn inflate(source: impl Read, spill: &Path) -> Result<File, SourceError> {
    let mut file = tempfile::tempfile_in(spill).map_err(SourceError::io)?;
    let copied = io::copy(&mut source.take(MAX_INFLATED), &mut file);
    let copied =
        copied.map_err(|error| SourceError::invalid(format!("it can't be inflated: {error}")))?;
    if copied == MAX_INFLATED {
        return Err(SourceError::invalid("it inflates to more than 64 GiB"));
    }
    file.flush().map_err(SourceError::io)?;
    Ok(file)
}

fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        // Base 256, as GNU writes sizes above 8 GiB; what more than the last eight bytes say is
        // absurd, or negative.
        let (head, tail) = field.split_at_checked(field.len().checked_sub(8)?)?;
        let (first, others) = head.split_first()?;
        if *first != 0x80 || others.iter().any(|byte| *byte != 0) {
            return None;
        }
        return Some(u64::from_be_bytes(tail.try_into().ok()?));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// What a PAX header says of the next member: `path` and `size`. Records are `LENGTH KEY=VALUE\n`,
/// the length being the whole record's; values may be any bytes.
fn pax(mut records: &[u8]) -> (Option<String>, Option<u64>) {
    let (mut path, mut size) = (None, None);
    while let Some(space) = records.iter().position(|byte| *byte == b' ') {
        let length = std::str::from_utf8(&records[..space]).ok().and_then(|text| text.parse().ok());
        let Some(record) = length.and_then(|length: usize| records.get(space + 1..length)) else {
            break;
        };
        records = &records[space + 1 + record.len()..];
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        if let Some(value) = record.strip_prefix(b"path=") {
            path = Some(String::from_utf8_lossy(value).into_owned());
        } else if let Some(value) = record.strip_prefix(b"size=") {
            size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        }
    }
    (path, size)
}

fn normal(name: &str) -> String {
    name.trim_start_matches("./").trim_start_matches('/').to_owned()
}

fn members(file: &File) -> Result<HashMap<String, (u64, u64)>, SourceError> {
    let length = file.metadata().map_err(SourceError::io)?.len();
    let damaged =
        |at: u64| SourceError::invalid(format!("no tar archive: bad header at byte {at}"));
    let mut members = HashMap::new();
    let mut links = Vec::new();
    let (mut long_name, mut long_size) = (None, None);
    let (mut at, mut headers) = (0_u64, 0);
    while at.checked_add(BLOCK).is_some_and(|end| end <= length) {
        headers += 1;
        if headers > MAX_HEADERS {
            return Err(SourceError::invalid(format!("it has more than {MAX_HEADERS} headers")));
        }
        let mut header = [0; BLOCK as usize];
        file.read_exact_at(&mut header, at).map_err(SourceError::io)?;
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let is_own = !matches!(header[156], b'L' | b'K' | b'x' | b'g');
        let said = if is_own { long_size.take() } else { None };
        let size = said.or_else(|| number(&header[124..136])).ok_or_else(|| damaged(at))?;
        if &header[257..262] != b"ustar" {
            return Err(damaged(at));
        }
        let content = at + BLOCK;
        let holds = !matches!(header[156], b'1' | b'2' | b'5');
        if holds && content.checked_add(size).is_none_or(|end| end > length) {
            return Err(SourceError::invalid("the archive is cut off"));
        }
        let read_name = || -> Result<Vec<u8>, SourceError> {
            let mut bytes = vec![0; usize::try_from(size.min(MAX_NAME)).unwrap_or(0)];
            file.read_exact_at(&mut bytes, content).map_err(SourceError::io)?;
            Ok(bytes)
        };
        match header[156] {
            b'L' => long_name = Some(text(&read_name()?)),
            b'x' => {
                let (path, size) = pax(&read_name()?);
                long_name = path.or(long_name);
                long_size = size;
            }
            b'g' | b'K' => {}
            kind => {
                let name = long_name.take().unwrap_or_else(|| {
                    let prefix = text(&header[345..500]);
                    let name = text(&header[..100]);
                    // GNU's own form keeps other things where POSIX has the prefix.
                    let has_prefix = !prefix.is_empty() && &header[257..263] == b"ustar\0";
                    if has_prefix { format!("{prefix}/{name}") } else { name }
                });
                match kind {
                    b'0' | 0 => drop(members.insert(normal(&name), (content, size))),
                    b'1' | b'2' => links.push((normal(&name), text(&header[157..257]))),
                    _ => {}
                }
            }
        }
        if members.len() + links.len() > MAX_FILES {
            return Err(SourceError::invalid(format!("it has more than {MAX_FILES} members")));
        }
        let padded = if holds { size.div_ceil(BLOCK).checked_mul(BLOCK) } else { Some(0) };
        at = padded.and_then(|padded| content.checked_add(padded)).ok_or_else(|| damaged(at))?;
    }
    // Old docker versions write a layer that stands in several images once, and links to it.
    for (name, target) in links {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let joined = match target.strip_prefix("../") {
            Some(beside) => beside.to_owned(),
            None if target.contains('/') || folder.is_empty() => target.clone(),
            None => format!("{folder}/{target}"),
        };
        if let Some(place) = members.get(&normal(&joined)).copied() {
            members.insert(name, place);
        }
    }
    Ok(members)
}

/// An OCI layout in a tar file.
pub struct ArchiveContents {
    tar: TarFile,
}

impl ArchiveContents {
    /// Opens an archive; `spill` is a folder for temporary files, which a compressed archive
    /// needs.
    ///
    /// # Errors
    /// It is no archive with an OCI layout.
    pub fn open(path: &Path, spill: &Path) -> Result<Self, SourceError> {
        let tar = TarFile::open(path, spill)?;
        if !tar.has("index.json") {
            return Err(SourceError::not_an_image(format!(
                "{} has no index.json: it is no OCI archive",
                path.display()
            )));
        }
        Ok(Self { tar })
    }
}

impl Contents for ArchiveContents {
    fn manifest<'a>(
        &'a self,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Document, SourceError>> {
        Box::pin(async move {
            let index = self.tar.bytes("index.json", MAX_MANIFEST_BYTES)?;
            manifest_of(self, &index, reference).await
        })
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<BlobBytes, SourceError>> {
        Box::pin(async move {
            let (section, _) = self.tar.reader(&blob_path(digest))?;
            Ok(BlobBytes::Reader(Box::new(section)))
        })
    }
}
