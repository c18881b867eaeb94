//! gzip (RFC 1952), pushed: any number of members, each with its checksum and size checked.
//!
//! Members one after the other are what pigz, bgzip and eStargz write; for the latter there is one
//! for each file, so a member costs no allocation. Zeros after the last member are padding, and
//! anything else that does not begin like a member is passed over like gzip(1) does.

use std::mem;

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::End;

const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;
const FLAGS_RESERVED: u8 = 0b1110_0000;

/// Where in a member the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// Before a member: the first, or what follows one.
    Start,
    /// The ten bytes that every header has.
    Fixed,
    ExtraLength,
    Extra(u16),
    Name,
    Comment,
    HeaderCrc,
    Body,
    Trailer,
    /// Zeros after the last member.
    Padding,
    /// Something else after the last member.
    Garbage,
}

/// The state of the decoder.
pub(super) struct Gzip {
    inflate: Decompress,
    part: Part,
    /// Header flags whose fields are still to come.
    flags: u8,
    /// Bytes of a field of fixed length.
    field: [u8; 10],
    filled: usize,
    header_crc: Crc,
    crc: Crc,
    members: u64,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            inflate: Decompress::new(false),
            part: Part::Start,
            flags: 0,
            field: [0; 10],
            filled: 0,
            header_crc: Crc::new(),
            crc: Crc::new(),
            members: 0,
        }
    }

    /// Whether bytes were passed over after the last member.
    pub(super) fn has_garbage(&self) -> bool {
        self.part == Part::Garbage
    }

    /// Inflates a piece through `buffer`; `sink` gets what comes out, with the number of bytes of
    /// the piece that were needed for it.
    pub(super) fn push(
        &mut self,
        input: &[u8],
        buffer: &mut [u8],
        sink: &mut impl FnMut(&[u8], usize) -> Result<(), End>,
    ) -> Result<(), End> {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.part {
                Part::Garbage => return Ok(()),
                Part::Body => {
                    let before = at;
                    self.body(rest, buffer, &mut |piece, used| sink(piece, before + used))?
                }
                _ => self.framing(rest)?,
            };
        }
        Ok(())
    }

    /// Whether the stream may end here.
    pub(super) fn finish(&self) -> Result<(), End> {
        let truncated = |what: &str| Err(End::Truncated(format!("the gzip stream {what}")));
        match self.part {
            Part::Padding | Part::Garbage => Ok(()),
            Part::Start if self.members > 0 => Ok(()),
            // One byte that looks like a member's first.
            Part::Fixed if self.members > 0 && self.filled < 2 => Ok(()),
            Part::Start => truncated("is empty"),
            Part::Body => truncated("breaks off"),
            Part::Trailer => truncated("breaks off in a trailer"),
            _ => truncated("breaks off in a header"),
        }
    }

    /// Inflates until the member or the input ends; returns the bytes taken.
    fn body(
        &mut self,
        input: &[u8],
        buffer: &mut [u8],
        sink: &mut impl FnMut(&[u8], usize) -> Result<(), End>,
    ) -> Result<usize, End> {
        let mut used = 0;
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let rest = input.get(used..).unwrap_or_default();
            let status = self.inflate.decompress(rest, buffer, FlushDecompress::None);
            let taken = count(self.inflate.total_in() - before_in);
            let made = count(self.inflate.total_out() - before_out);
            used += taken;
            // What came out before the damage counts, too.
            let piece = buffer.get(..made).unwrap_or_default();
            if !piece.is_empty() {
                self.crc.update(piece);
                sink(piece, used)?;
            }
            // The decoder's own words depend on how the stream was cut.
            let status = status.map_err(|_| broken("it can't be inflated"))?;
            if status == Status::StreamEnd {
                self.part = Part::Trailer;
                return Ok(used);
            }
            let is_full = made == buffer.len();
            if used >= input.len() && !is_full {
                return Ok(used);
            }
            if taken == 0 && made == 0 {
                return Err(End::Broken("the gzip stream makes no progress".to_owned()));
            }
        }
    }

    /// Takes bytes of a header or trailer; returns how many, at least one.
    fn framing(&mut self, input: &[u8]) -> Result<usize, End> {
        let Some(first) = input.first().copied() else { return Ok(0) };
        match self.part {
            Part::Start => self.start(first),
            Part::Fixed => return self.fixed(input),
            Part::ExtraLength => {
                let taken = self.fill(input, 2);
                self.header_crc.update(&input[..taken]);
                if self.filled == 2 {
                    let length = u16::from_le_bytes([self.field[0], self.field[1]]);
                    self.filled = 0;
                    self.part = Part::Extra(length);
                    if length == 0 {
                        self.next_field();
                    }
                }
                return Ok(taken);
            }
            Part::Extra(left) => {
                let taken = input.len().min(usize::from(left));
                self.header_crc.update(&input[..taken]);
                let left = left - u16::try_from(taken).unwrap_or(left);
                self.part = Part::Extra(left);
                if left == 0 {
                    self.next_field();
                }
                return Ok(taken);
            }
            Part::Name | Part::Comment => {
                let end = input.iter().position(|byte| *byte == 0);
                let taken = end.map_or(input.len(), |end| end + 1);
                self.header_crc.update(&input[..taken]);
                if end.is_some() {
                    self.next_field();
                }
                return Ok(taken);
            }
            Part::HeaderCrc => {
                let taken = self.fill(input, 2);
                if self.filled == 2 {
                    let stated = u16::from_le_bytes([self.field[0], self.field[1]]);
                    if u32::from(stated) != self.header_crc.sum() & 0xffff {
                        return Err(broken("a header's checksum is wrong"));
                    }
                    self.next_field();
                }
                return Ok(taken);
            }
            Part::Trailer => return self.trailer(input),
            Part::Padding if first != 0 => self.part = Part::Garbage,
            Part::Padding => {
                return Ok(input.iter().position(|byte| *byte != 0).unwrap_or(input.len()));
            }
            Part::Body | Part::Garbage => {}
        }
        Ok(1)
    }

    fn start(&mut self, first: u8) {
        self.part = match first {
            0x1f => Part::Fixed,
            0 if self.members > 0 => Part::Padding,
            _ => Part::Garbage,
        };
        self.field[0] = first;
        self.filled = 1;
    }

    fn fixed(&mut self, input: &[u8]) -> Result<usize, End> {
        let taken = self.fill(input, 10);
        let [_, second, method, flags, ..] = self.field;
        if self.filled >= 2 && second != 0x8b {
            if self.members == 0 {
                return Err(broken("there is no header"));
            }
            self.part = Part::Garbage;
            return Ok(taken);
        }
        if self.filled == self.field.len() {
            if method != 8 {
                return Err(broken("its method is not deflate"));
            }
            if flags & FLAGS_RESERVED != 0 {
                return Err(broken("a header has unknown flags"));
            }
            self.flags = flags;
            self.header_crc.reset();
            self.header_crc.update(&self.field);
            self.next_field();
        }
        Ok(taken)
    }

    fn trailer(&mut self, input: &[u8]) -> Result<usize, End> {
        let taken = self.fill(input, 8);
        if self.filled == 8 {
            let [a, b, c, d, e, f, g, h, ..] = self.field;
            if u32::from_le_bytes([a, b, c, d]) != self.crc.sum() {
                return Err(broken("a checksum is wrong"));
            }
            if u32::from_le_bytes([e, f, g, h]) != self.crc.amount() {
                return Err(broken("a stated size is wrong"));
            }
            self.members = self.members.saturating_add(1);
            self.crc.reset();
            self.inflate.reset(false);
            self.filled = 0;
            self.part = Part::Start;
        }
        Ok(taken)
    }

    /// Fills the field up to `length` bytes; returns how many were taken.
    fn fill(&mut self, input: &[u8], length: usize) -> usize {
        let slots = self.field.iter_mut().take(length).skip(self.filled);
        let taken = slots.zip(input).map(|(slot, byte)| *slot = *byte).count();
        self.filled += taken;
        taken
    }

    /// Goes on to the next field that the header's flags announce, else to the body.
    fn next_field(&mut self) {
        self.filled = 0;
        let flags = mem::take(&mut self.flags);
        let (flag, part) = match flags {
            _ if flags & FLAG_EXTRA != 0 => (FLAG_EXTRA, Part::ExtraLength),
            _ if flags & FLAG_NAME != 0 => (FLAG_NAME, Part::Name),
            _ if flags & FLAG_COMMENT != 0 => (FLAG_COMMENT, Part::Comment),
            _ if flags & FLAG_HEADER_CRC != 0 => (FLAG_HEADER_CRC, Part::HeaderCrc),
            _ => (flags, Part::Body),
        };
        self.flags = flags & !flag;
        self.part = part;
    }
}

fn broken(what: &str) -> End {
    End::Broken(format!("the gzip stream is damaged: {what}"))
}

/// A count of bytes of one call, which fits.
fn count(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
