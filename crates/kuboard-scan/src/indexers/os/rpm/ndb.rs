//! ndb, rpm's own format since 4.13, SUSE's default: a page-aligned table of 16-byte slots, then
//! blobs of headers in units of 16 bytes. All numbers are little-endian. The checksum after a blob
//! is left unread: a header checks itself.

use super::{
    Damage, MAX_HEADER, header,
    number::{index, le32},
    read_exactly,
};
use crate::{Content, indexers::os::draft::Draft};

pub(super) const MAGIC: &[u8] = b"RpmP";
const PAGE: usize = 4096;
const SLOT: usize = 16;
const BLOCK: u64 = 16;
/// Magic number, package, generation and length before a blob's data.
const BLOB_HEADER: usize = 16;
/// Slots that the file's own header takes.
const FIRST_SLOT: usize = 2;
/// Pages of slots, as rpm limits them.
const MAX_SLOT_PAGES: u32 = 2048;

struct Slot {
    package: u32,
    first_block: u32,
    blocks: u32,
}

pub(super) fn read(content: &dyn Content, draft: &mut Draft) -> Result<(), Damage> {
    let mut start = [0; 32];
    read_exactly(content, 0, &mut start)?;
    if le32(&start, 4) != Some(0) {
        return Err(Damage::Unsupported("this version of an ndb database"));
    }
    let pages = le32(&start, 12).unwrap_or_default();
    if pages == 0 || pages > MAX_SLOT_PAGES {
        return Err(Damage::Broken("its table of slots has an impossible size"));
    }
    let mut slots = slots(content, pages, draft)?;
    slots.sort_by_key(|slot| (slot.first_block, slot.package));
    let mut free_from = u64::from(pages) * PAGE as u64 / BLOCK;
    for slot in slots {
        if draft.is_full() {
            break;
        }
        if u64::from(slot.first_block) < free_from {
            draft.partly("two slots overlap");
            continue;
        }
        match blob(content, &slot) {
            Ok(blob) => {
                free_from = u64::from(slot.first_block) + u64::from(slot.blocks);
                header::add(&blob, draft);
            }
            Err(damage) => draft.partly(damage.to_string()),
        }
    }
    Ok(())
}

/// The slots that are in use.
fn slots(content: &dyn Content, pages: u32, draft: &mut Draft) -> Result<Vec<Slot>, Damage> {
    let mut slots = Vec::new();
    let mut page = [0; PAGE];
    for number in 0..pages {
        let length = content.read_at(u64::from(number) * PAGE as u64, &mut page)?;
        if length < PAGE {
            draft.partly(Damage::Short.to_string());
        }
        let skip = if number == 0 { FIRST_SLOT } else { 0 };
        let read = page.get(..length).unwrap_or_default();
        for slot in read.chunks_exact(SLOT).skip(skip) {
            if !slot.starts_with(b"Slot") {
                draft.partly("a slot is broken");
                continue;
            }
            let numbers = (le32(slot, 4), le32(slot, 8), le32(slot, 12));
            let (Some(package), Some(first_block), Some(blocks)) = numbers else { continue };
            if package != 0 && first_block != 0 {
                slots.push(Slot { package, first_block, blocks });
            }
        }
        if length < PAGE {
            break;
        }
    }
    Ok(slots)
}

fn blob(content: &dyn Content, slot: &Slot) -> Result<Vec<u8>, Damage> {
    let offset = u64::from(slot.first_block) * BLOCK;
    let mut start = [0; BLOB_HEADER];
    read_exactly(content, offset, &mut start)?;
    if !start.starts_with(b"BlbS") || le32(&start, 4) != Some(slot.package) {
        return Err(Damage::Broken("a slot names no package"));
    }
    let length = index(le32(&start, 12).unwrap_or_default());
    let room = u64::from(slot.blocks) * BLOCK;
    if length > MAX_HEADER || (length + BLOB_HEADER) as u64 > room {
        return Err(Damage::Broken("a package has an impossible size"));
    }
    if offset + ((length + BLOB_HEADER) as u64) > content.size() {
        return Err(Damage::Short);
    }
    let mut blob = vec![0; length];
    read_exactly(content, offset + BLOB_HEADER as u64, &mut blob)?;
    Ok(blob)
}
