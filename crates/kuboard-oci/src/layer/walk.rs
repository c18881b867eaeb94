//! The walk through a tar archive that is pushed in pieces of any length.
//!
//! Headers are read where they lie when a piece holds them whole, so the walk costs a few hundred
//! nanoseconds an entry and allocates nothing for most. Extended headers of a whole archive (`g`)
//! are checked for their length and passed over, as container runtimes do.

use super::{
    End, Entry, Interest, Kind, Limits, Visitor,
    header::{BLOCK, Header, map_goes_on, text},
    name::{Mark, mark, normalise},
    pax::Pax,
};

/// Longest part of a refused name that a problem repeats.
const NAME_PRINTABLE: usize = 200;

/// The state of the walk.
pub(super) struct Walker {
    state: State,
    limits: Limits,
    /// A block that came in pieces.
    block: [u8; BLOCK],
    filled: usize,
    /// What extended headers and long names said of the next entry.
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    /// Content of an extended header.
    meta: Vec<u8>,
    path: String,
    link: String,
    /// A path put together for a whiteout.
    target: String,
    entries: u64,
    offset: u64,
    /// Where the block that is read, or was read last, begins.
    block_at: u64,
    /// A block of zeros stands before the next header.
    saw_zeros: bool,
}

#[derive(Clone, Copy)]
enum State {
    Header,
    /// Content that the visitor wants, and the filling of its last block.
    Content {
        left: u64,
        filling: u64,
    },
    /// Bytes that nobody wants.
    Skip {
        left: u64,
    },
    /// Content of an extended header.
    Meta {
        kind: u8,
        left: u64,
        filling: u64,
    },
    /// Further blocks of a sparse file's map, and then content that nobody wants.
    Map {
        content: u64,
    },
    /// After the end marker.
    End,
}

impl Walker {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            state: State::Header,
            limits,
            block: [0; BLOCK],
            filled: 0,
            pax: Pax::default(),
            long_name: None,
            long_link: None,
            meta: Vec::new(),
            path: String::new(),
            link: String::new(),
            target: String::new(),
            entries: 0,
            offset: 0,
            block_at: 0,
            saw_zeros: false,
        }
    }

    /// Entries so far.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Where the header begins that is read, or was read last.
    pub(super) fn header_at(&self) -> u64 {
        self.block_at
    }

    /// Whether the end of the archive was marked.
    pub(super) fn has_end_marker(&self) -> bool {
        matches!(self.state, State::End) || (matches!(self.state, State::Header) && self.saw_zeros)
    }

    /// Whether the archive may end here.
    pub(super) fn finish(&self) -> Result<(), End> {
        let what = match self.state {
            State::End => return Ok(()),
            State::Header if self.filled == 0 => return Ok(()),
            State::Header => "in a header",
            State::Content { .. } | State::Skip { .. } => "in the content of an entry",
            State::Meta { .. } | State::Map { .. } => "in an extended header",
        };
        let offset = self.offset;
        Err(End::Truncated(format!("the archive breaks off {what}, after {offset} bytes")))
    }

    /// Takes the next bytes of the archive.
    pub(super) fn push(&mut self, piece: &[u8], visitor: &mut impl Visitor) -> Result<(), End> {
        let mut rest = piece;
        while !rest.is_empty() {
            let taken = match self.state {
                State::End => rest.len(),
                State::Skip { left } => {
                    let taken = up_to(rest, left);
                    self.state = skip(left - taken as u64);
                    taken
                }
                State::Content { left, filling } => self.content(rest, left, filling, visitor),
                State::Meta { kind, left, filling } => self.meta(rest, kind, left, filling)?,
                State::Header | State::Map { .. } => self.block(rest, visitor)?,
            };
            self.offset = self.offset.saturating_add(taken as u64);
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    fn content(
        &mut self,
        rest: &[u8],
        left: u64,
        filling: u64,
        visitor: &mut impl Visitor,
    ) -> usize {
        let taken = up_to(rest, left);
        visitor.content(&rest[..taken]);
        let left = left - taken as u64;
        if left == 0 {
            visitor.end();
            self.state = skip(filling);
        } else {
            self.state = State::Content { left, filling };
        }
        taken
    }

    fn meta(&mut self, rest: &[u8], kind: u8, left: u64, filling: u64) -> Result<usize, End> {
        let taken = up_to(rest, left);
        self.meta.extend_from_slice(&rest[..taken]);
        let left = left - taken as u64;
        if left > 0 {
            self.state = State::Meta { kind, left, filling };
            return Ok(taken);
        }
        self.understand(kind)?;
        self.state = skip(filling);
        Ok(taken)
    }

    /// Keeps what an extended header or long name says of the next entry.
    fn understand(&mut self, kind: u8) -> Result<(), End> {
        match kind {
            b'L' => self.long_name = Some(text(&self.meta).to_vec()),
            b'K' => self.long_link = Some(text(&self.meta).to_vec()),
            _ => {
                self.pax = Pax::read(&self.meta).map_err(|why| {
                    self.broken(&format!("has an extended header that can't be read: {why}"))
                })?;
            }
        }
        Ok(())
    }

    /// Takes a block, or the part of one that is there.
    fn block(&mut self, rest: &[u8], visitor: &mut impl Visitor) -> Result<usize, End> {
        if self.filled == 0 {
            self.block_at = self.offset;
        }
        if self.filled == 0
            && let Some(block) = rest.first_chunk::<BLOCK>()
        {
            self.whole_block(block, visitor)?;
            return Ok(BLOCK);
        }
        let slots = self.block.get_mut(self.filled..).unwrap_or_default();
        let taken = slots.len().min(rest.len());
        slots[..taken].copy_from_slice(&rest[..taken]);
        self.filled += taken;
        if self.filled == BLOCK {
            self.filled = 0;
            let block = self.block;
            self.whole_block(&block, visitor)?;
        }
        Ok(taken)
    }

    fn whole_block(&mut self, block: &[u8; BLOCK], visitor: &mut impl Visitor) -> Result<(), End> {
        if let State::Map { content } = self.state {
            if !map_goes_on(block) {
                self.state = skip(content);
            }
            return Ok(());
        }
        if block[0] == 0 && block.iter().all(|byte| *byte == 0) {
            if self.saw_zeros {
                self.state = State::End;
            }
            self.saw_zeros = true;
            return Ok(());
        }
        self.saw_zeros = false;
        let Some(header) = Header::read(block) else {
            return Err(match self.entries {
                0 if self.block_at == 0 => End::Broken("it is no tar archive".to_owned()),
                _ => self.broken("has a wrong checksum"),
            });
        };
        let size = header.size().ok_or_else(|| self.broken("has a size that is no number"))?;
        match header.kind() {
            kind @ (b'x' | b'X' | b'L' | b'K') => self.begin_meta(kind, size),
            b'g' if size > self.limits.extended => Err(self.too_long()),
            b'g' => {
                self.state = skip(size + filling(size));
                Ok(())
            }
            kind => self.entry(&header, kind, size, visitor),
        }
    }

    fn begin_meta(&mut self, kind: u8, size: u64) -> Result<(), End> {
        if size > self.limits.extended {
            return Err(self.too_long());
        }
        self.meta.clear();
        let filling = filling(size);
        self.state = State::Meta { kind, left: size, filling };
        if size == 0 {
            self.understand(kind)?;
            self.state = State::Header;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        kind: u8,
        stated: u64,
        visitor: &mut impl Visitor,
    ) -> Result<(), End> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            let max = self.limits.entries;
            return Err(End::Limit(format!("the archive has more than {max} entries")));
        }
        let pax = std::mem::take(&mut self.pax);
        let name = self.long_name.take().or(pax.path);
        let link = self.long_link.take().or(pax.link);
        let (prefix, plain) = header.name();
        let (prefix, name) = name.as_deref().map_or((prefix, plain), |name| (&[][..], name));
        let link = link.as_deref().unwrap_or(header.link());
        let kind = kind_of(kind, name);
        let stored = match kind {
            Kind::File | Kind::Other(_) => pax.size.unwrap_or(stated),
            Kind::Directory | Kind::HardLink | Kind::Symlink => 0,
        };
        // Devices and pipes have no content, whatever their size says.
        let stored = if matches!(kind, Kind::Other(b'3' | b'4' | b'6')) { 0 } else { stored };
        let whole = stored.checked_add(filling(stored)).filter(|size| i64::try_from(*size).is_ok());
        let whole = whole.ok_or_else(|| self.broken("has a size beyond all measure"))?;
        let is_old_sparse = header.kind() == b'S';
        let sparse = is_old_sparse || (kind == Kind::File && pax.sparse);
        let size = if kind == Kind::File { stored } else { 0 };
        let mode = header.mode();
        let told = Told { kind, size, mode, sparse };
        let interest = self.tell(prefix, name, link, told, visitor);
        self.state = match interest {
            _ if is_old_sparse && header.has_more_map() => State::Map { content: whole },
            Interest::Read if stored > 0 => {
                State::Content { left: stored, filling: whole - stored }
            }
            Interest::Read => {
                visitor.end();
                State::Header
            }
            Interest::Skip => skip(whole),
        };
        Ok(())
    }

    /// Tells the visitor of an entry, or of what its name means instead.
    fn tell(
        &mut self,
        prefix: &[u8],
        name: &[u8],
        link: &[u8],
        told: Told,
        visitor: &mut impl Visitor,
    ) -> Interest {
        let Told { kind, size, mode, sparse } = told;
        let max = self.limits.path;
        let mut refuse = |name: &[u8], why: &str| {
            let name = String::from_utf8_lossy(name.get(..NAME_PRINTABLE).unwrap_or(name));
            visitor.problem(&name, why);
            Interest::Skip
        };
        if let Err(refused) = normalise(prefix, name, max, &mut self.path) {
            return refuse(name, refused.as_str());
        }
        if self.path.is_empty() {
            // The root itself.
            return match kind {
                Kind::Directory | Kind::Other(_) => Interest::Skip,
                _ => refuse(name, "it has no name"),
            };
        }
        match mark(&self.path) {
            Mark::None => {}
            Mark::Metadata => return Interest::Skip,
            Mark::Senseless => return refuse(name, "it removes a file without a name"),
            Mark::Opaque { folder } => {
                visitor.opaque(folder);
                return Interest::Skip;
            }
            Mark::Whiteout { folder, name } => {
                self.target.clear();
                self.target.push_str(folder);
                if !folder.is_empty() {
                    self.target.push('/');
                }
                self.target.push_str(name);
                visitor.whiteout(&self.target);
                return Interest::Skip;
            }
        }
        let link = match kind {
            Kind::HardLink => match normalise(&[], link, max, &mut self.link) {
                Ok(()) => Some(self.link.as_str()),
                Err(_) => return refuse(name, "it links to a path that can't be one"),
            },
            Kind::Symlink if link.len() > max => {
                return refuse(name, "it links to a path that is too long");
            }
            Kind::Symlink => {
                self.link.clear();
                self.link.push_str(&String::from_utf8_lossy(link));
                Some(self.link.as_str())
            }
            _ => None,
        };
        let interest = visitor.entry(&Entry { path: &self.path, kind, size, mode, link, sparse });
        if kind == Kind::File && !sparse { interest } else { Interest::Skip }
    }

    fn broken(&self, what: &str) -> End {
        let at = self.block_at;
        End::Broken(format!("the archive is damaged: the header at byte {at} {what}"))
    }

    fn too_long(&self) -> End {
        let max = self.limits.extended;
        End::Limit(format!("the archive has an extended header of more than {max} bytes"))
    }
}

/// What a header says of an entry, beside its names.
#[derive(Clone, Copy)]
struct Told {
    kind: Kind,
    size: u64,
    mode: u32,
    sparse: bool,
}

fn kind_of(flag: u8, name: &[u8]) -> Kind {
    match flag {
        // V7 has no type for folders.
        0 if name.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'5' => Kind::Directory,
        other => Kind::Other(other),
    }
}

/// Bytes that fill the last block of a content.
fn filling(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn skip(left: u64) -> State {
    if left == 0 { State::Header } else { State::Skip { left } }
}

fn up_to(rest: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(rest.len(), |left| rest.len().min(left))
}
