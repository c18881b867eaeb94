//! PE of 32 and 64 bits.

use super::{Fields, Image, MAX_TABLE, Segment, bytes};
use crate::Content;

const INITIALISED: u64 = 0x40;
const READABLE_AND_WRITABLE: u64 = 0xc000_0000;

pub(super) fn image(content: &dyn Content, start: &[u8]) -> Option<Image> {
    let at = Fields { bytes: start, little: true }.u32(60)?;
    let header = bytes(content, at, 24);
    let header = Fields { bytes: &header, little: true };
    if header.at(0, 4)? != b"PE\0\0" {
        return None;
    }
    let count = header.u16(6)?;
    let optional_size = header.u16(20)?;
    let optional = bytes(content, at + 24, optional_size);
    let optional = Fields { bytes: &optional, little: true };
    let base = match optional.u16(0)? {
        0x10b => optional.u32(28)?,
        0x20b => optional.u64(24)?,
        _ => return None,
    };
    let table = bytes(content, at + 24 + optional_size, (count * 40).min(MAX_TABLE));
    // Names of sections are cut to 8 bytes, Go's does not fit and is not there.
    let mut image = Image::default();
    if (table.len() as u64) < count * 40 {
        image.damage = Some("its section table lies outside of the file");
    }
    for entry in table.chunks_exact(40) {
        let entry = Fields { bytes: entry, little: true };
        let (virtual_size, raw_size) = (entry.u32(8)?, entry.u32(16)?);
        let size = if virtual_size == 0 { raw_size } else { raw_size.min(virtual_size) };
        let (offset, flags) = (entry.u32(20)?, entry.u32(36)?);
        image.add_section(entry.name(0, 8)?, offset, size);
        let wanted = INITIALISED | READABLE_AND_WRITABLE;
        image.segments.push(Segment {
            address: base.checked_add(entry.u32(12)?)?,
            offset,
            size: raw_size,
            data: flags & wanted == wanted,
        });
    }
    Some(image)
}
