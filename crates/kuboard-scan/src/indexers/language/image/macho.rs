//! Mach-O of 32 and 64 bits in both byte orders, and fat files of several.

use super::{Fields, Image, MAX_SLICES, MAX_TABLE, Segment, bytes};
use crate::Content;

const SEGMENT: u64 = 1;
const SEGMENT_64: u64 = 0x19;
const EXECUTABLE: u64 = 4;
const WRITABLE: u64 = 2;

/// The programs of a fat file.
pub(super) fn slices(content: &dyn Content) -> Vec<Image> {
    let header = bytes(content, 0, 8 + u64::from(MAX_SLICES) * 20);
    let header = Fields { bytes: &header, little: false };
    let count = header.u32(4).unwrap_or_default().min(u64::from(MAX_SLICES));
    (0..usize::try_from(count).unwrap_or_default())
        .filter_map(|index| image(content, header.u32(8 + index * 20 + 8)?))
        .collect()
}

/// The program that begins at `base`; its sections lie from the start of the file.
pub(super) fn image(content: &dyn Content, base: u64) -> Option<Image> {
    let header = bytes(content, base, 32);
    let (wide, little) = match header.get(..4)? {
        b"\xcf\xfa\xed\xfe" => (true, true),
        b"\xce\xfa\xed\xfe" => (false, true),
        b"\xfe\xed\xfa\xcf" => (true, false),
        b"\xfe\xed\xfa\xce" => (false, false),
        _ => return None,
    };
    let header = Fields { bytes: &header, little };
    let size = header.u32(20)?;
    let commands = bytes(content, base + if wide { 32 } else { 28 }, size.min(MAX_TABLE));
    let mut image = Image { names_sections: true, ..Image::default() };
    if (commands.len() as u64) < size {
        image.damage = Some("its load commands lie outside of the file");
        image.names_sections = false;
    }
    let commands = Fields { bytes: &commands, little };
    let mut at = 0;
    for _ in 0..header.u32(16)? {
        let (Some(kind), Some(length)) = (commands.u32(at), commands.u32(at + 4)) else { break };
        let Some(length) = usize::try_from(length).ok().filter(|length| *length >= 8) else {
            break;
        };
        let Some(command) = commands.from(at, length) else { break };
        if kind == if wide { SEGMENT_64 } else { SEGMENT } {
            segment(command, wide, base, &mut image);
        }
        at += length;
    }
    Some(image)
}

fn segment(command: Fields<'_>, wide: bool, base: u64, image: &mut Image) -> Option<()> {
    let word = |index: usize| {
        if wide { command.u64(24 + index * 8) } else { command.u32(24 + index * 4) }
    };
    let rest = if wide { 56 } else { 40 };
    let protection = command.u32(rest + 4)?;
    image.segments.push(Segment {
        address: word(0)?,
        offset: base.checked_add(word(2)?)?,
        size: word(3)?,
        data: protection & (WRITABLE | EXECUTABLE) == WRITABLE,
    });
    let each = if wide { 80 } else { 68 };
    let (mut at, count) = (rest + 16, command.u32(rest + 8)?);
    for _ in 0..count {
        let section = command.from(at, each)?;
        let (size, offset) = if wide {
            (section.u64(40)?, section.u32(48)?)
        } else {
            (section.u32(36)?, section.u32(40)?)
        };
        image.add_section(section.name(0, 16)?, base.checked_add(offset)?, size);
        at += each;
    }
    Some(())
}
