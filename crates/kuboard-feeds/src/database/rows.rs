//! Rows of 20 bytes: advisory, key of the first version, the end (key or text), text of the fix,
//! and a word with the offset of the conditions (/4, 24 bits) and flags: status (3 bits), source
//! package (1), kind of the end (3), fix of a module (1).

use kuboard_vuln::{Conditions, Row, Status, Until};

use super::DatabaseError;
use super::format::{hash, u32_at};
use super::intern::{Intern, entry};

pub(super) const ROW: usize = 20;

/// The three arenas that rows point into.
pub(super) struct Arenas {
    pub(super) strings: Intern,
    pub(super) keys: Intern,
    pub(super) conditions: Intern,
}

/// The same, of a file.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) strings: &'a [u8],
    pub(super) keys: &'a [u8],
    pub(super) conditions: &'a [u8],
}

/// A row as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Packed {
    pub(super) advisory: u32,
    from: u32,
    until: u32,
    fixed_in: u32,
    word: u32,
}

const STATUSES: [Status; 7] = [
    Status::Fixed,
    Status::Affected,
    Status::WillNotFix,
    Status::FixDeferred,
    Status::EndOfLife,
    Status::NotAffected,
    Status::UnderInvestigation,
];

impl Arenas {
    pub(super) fn new() -> Self {
        Self {
            strings: Intern::new("texts", 1),
            keys: Intern::new("version keys", 1),
            conditions: Intern::new("conditions", 4),
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            strings: self.strings.arena(),
            keys: self.keys.arena(),
            conditions: self.conditions.arena(),
        }
    }

    pub(super) fn pack(&mut self, row: &Row<'_>) -> Result<Packed, DatabaseError> {
        let (kind, until) = match row.until {
            Until::Open => (0, 0),
            Until::Before(key) => (1, self.keys.add(key)?),
            Until::Through(key) => (2, self.keys.add(key)?),
            Until::Exactly(key) => (3, self.keys.add(key)?),
            Until::Text(text) => (4, self.strings.add(text.as_bytes())?),
        };
        let conditions = match row.conditions {
            None => 0,
            Some(all) => self.conditions.add(all.bytes())? / 4,
        };
        if conditions >= 1 << 24 {
            return Err(DatabaseError::TooLarge("conditions"));
        }
        let status = STATUSES.iter().position(|one| *one == row.status).unwrap_or_default() as u32;
        let flags = status | u32::from(row.by_source) << 3 | kind << 4;
        let flags = flags | u32::from(row.of_module) << 7;
        Ok(Packed {
            advisory: row.advisory,
            from: self.keys.add(row.from)?,
            until,
            fixed_in: self.strings.add(row.fixed_in.as_bytes())?,
            word: flags << 24 | conditions,
        })
    }
}

impl<'a> View<'a> {
    /// `None` for a row whose parts lie outside.
    pub(super) fn unpack(&self, row: Packed) -> Option<Row<'a>> {
        let flags = row.word >> 24;
        let conditions = (row.word & 0xff_ffff) * 4;
        let text = |offset| std::str::from_utf8(entry(self.strings, offset)?).ok();
        let key = |offset| entry(self.keys, offset);
        Some(Row {
            advisory: row.advisory,
            status: *STATUSES.get(flags as usize & 7)?,
            by_source: flags & 8 != 0,
            of_module: flags & 0x80 != 0,
            from: if row.from == 0 { b"" } else { key(row.from)? },
            until: match flags >> 4 & 7 {
                0 => Until::Open,
                1 => Until::Before(key(row.until)?),
                2 => Until::Through(key(row.until)?),
                3 => Until::Exactly(key(row.until)?),
                4 => Until::Text(text(row.until)?),
                _ => return None,
            },
            fixed_in: if row.fixed_in == 0 { "" } else { text(row.fixed_in)? },
            conditions: match conditions {
                0 => None,
                offset => Some(Conditions::from_bytes(entry(self.conditions, offset)?)),
            },
        })
    }
}

impl Packed {
    pub(super) fn to_bytes(self) -> [u8; ROW] {
        let mut out = [0; ROW];
        let words = [self.advisory, self.from, self.until, self.fixed_in, self.word];
        for (to, word) in out.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            advisory: u32_at(bytes, 0)?,
            from: u32_at(bytes, 4)?,
            until: u32_at(bytes, 8)?,
            fixed_in: u32_at(bytes, 12)?,
            word: u32_at(bytes, 16)?,
        })
    }
}

/// A row's content, the same in all generations: `identity` stands for the advisory.
pub(super) fn fingerprint(row: &Row<'_>, identity: u64) -> u64 {
    let (kind, until) = match row.until {
        Until::Open => (0, &b""[..]),
        Until::Before(key) => (1, key),
        Until::Through(key) => (2, key),
        Until::Exactly(key) => (3, key),
        Until::Text(text) => (4, text.as_bytes()),
    };
    let flags = kind << 8 | (row.status as u64) << 4 | u64::from(row.by_source);
    let conditions = row.conditions.map_or(&b""[..], Conditions::bytes);
    [row.from, until, row.fixed_in.as_bytes(), conditions].into_iter().fold(identity ^ flags, hash)
}
