//! ELF of 32 and 64 bits in both byte orders.

use super::{Fields, Image, MAX_TABLE, Segment, bytes};
use crate::Content;

const NOBITS: u64 = 8;
const LOAD: u64 = 1;
const EXECUTABLE: u64 = 1;
const WRITABLE: u64 = 2;

/// Where the fields of the headers lie.
struct Layout {
    wide: bool,
    little: bool,
}

impl Layout {
    fn pick(&self, wide: usize, narrow: usize) -> usize {
        if self.wide { wide } else { narrow }
    }

    /// An address or offset of the class's width.
    fn word(&self, fields: Fields<'_>, wide: usize, narrow: usize) -> Option<u64> {
        if self.wide { fields.u64(wide) } else { fields.u32(narrow) }
    }
}

pub(super) fn image(content: &dyn Content, start: &[u8]) -> Option<Image> {
    let layout = Layout { wide: *start.get(4)? == 2, little: *start.get(5)? != 2 };
    let header = Fields { bytes: start, little: layout.little };
    let mut image = Image::default();
    segments(content, &layout, header, &mut image);
    sections(content, &layout, header, &mut image);
    Some(image)
}

fn segments(content: &dyn Content, layout: &Layout, header: Fields<'_>, image: &mut Image) {
    let _ = (|| {
        let offset = layout.word(header, 32, 28)?;
        let each = usize::try_from(header.u16(layout.pick(54, 42))?).ok()?;
        let count = header.u16(layout.pick(56, 44))?;
        let table = bytes(content, offset, (each as u64 * count).min(MAX_TABLE));
        if each < layout.pick(56, 32) {
            return None;
        }
        for entry in table.chunks_exact(each) {
            let entry = Fields { bytes: entry, little: layout.little };
            let flags = entry.u32(layout.pick(4, 24))?;
            if entry.u32(0)? == LOAD {
                image.segments.push(Segment {
                    address: layout.word(entry, 16, 8)?,
                    offset: layout.word(entry, 8, 4)?,
                    size: layout.word(entry, 32, 16)?,
                    data: flags & (WRITABLE | EXECUTABLE) == WRITABLE,
                });
            }
        }
        Some(())
    })();
}

fn sections(content: &dyn Content, layout: &Layout, header: Fields<'_>, image: &mut Image) {
    let read = || {
        let offset = layout.word(header, 40, 32)?;
        let each = usize::try_from(header.u16(layout.pick(58, 46))?).ok()?;
        let mut count = header.u16(layout.pick(60, 48))?;
        let mut names = header.u16(layout.pick(62, 50))?;
        if offset == 0 || each < layout.pick(64, 40) {
            return Some(None);
        }
        let first = bytes(content, offset, each as u64);
        let first = Fields { bytes: &first, little: layout.little };
        // Counts that need more than 16 bits stand in the first entry.
        if count == 0 {
            count = layout.word(first, 32, 20)?;
        }
        if names == 0xffff {
            names = first.u32(layout.pick(40, 24))?;
        }
        let length = count.checked_mul(each as u64)?;
        let table = bytes(content, offset, length.min(MAX_TABLE));
        let whole = table.len() as u64 == length;
        Some(Some((table, each, usize::try_from(names).ok()?, whole)))
    };
    let (table, each, names, whole) = match read() {
        Some(Some(read)) => read,
        Some(None) => return,
        None => {
            image.damage = Some("its section table lies outside of the file");
            return;
        }
    };
    if !whole {
        image.damage = Some("its section table lies outside of the file");
    }
    let entry = |index: usize| {
        let fields = Fields { bytes: &table, little: layout.little };
        let fields = fields.from(index.checked_mul(each)?, each)?;
        Some((
            usize::try_from(fields.u32(0)?).ok()?,
            fields.u32(4)?,
            layout.word(fields, 24, 16)?,
            layout.word(fields, 32, 20)?,
        ))
    };
    let Some((_, _, at, size)) = entry(names) else { return };
    let strings = bytes(content, at, size.min(MAX_TABLE));
    image.names_sections = whole && strings.len() as u64 == size;
    let mut index = 0;
    while let Some((name, kind, offset, size)) = entry(index) {
        index += 1;
        let name = strings.get(name..).unwrap_or_default();
        let name = name.get(..name.len().min(32)).unwrap_or_default();
        if let Some(name) = name.split(|byte| *byte == 0).next()
            && kind != NOBITS
        {
            image.add_section(name, offset, size);
        }
    }
}
