//! Zstandard (RFC 8878), pushed: any number of frames; skippable ones, in which zstd:chunked keeps
//! its table of contents, are passed over.

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::End;

/// The largest window that a frame may ask for, as a power of two: 128 MiB.
const MAX_WINDOW_LOG: u32 = 27;

/// The state of the decoder.
pub(super) struct Zstandard {
    decoder: Decoder<'static>,
    /// First bytes of a frame, until they tell that it is one.
    magic: [u8; 4],
    filled: usize,
    place: Place,
    frames: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Between,
    Inside,
    Padding,
    Garbage,
}

impl Zstandard {
    pub(super) fn new() -> Result<Self, End> {
        let failed = |error| End::Broken(format!("zstd can't be set up: {error}"));
        let mut decoder = Decoder::new().map_err(failed)?;
        decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).map_err(failed)?;
        Ok(Self { decoder, magic: [0; 4], filled: 0, place: Place::Between, frames: 0 })
    }

    /// Whether bytes were passed over after the last frame.
    pub(super) fn has_garbage(&self) -> bool {
        self.place == Place::Garbage
    }

    /// Decompresses a piece through `buffer`; `sink` gets what comes out, with the number of bytes
    /// of the piece that were needed for it.
    pub(super) fn push(
        &mut self,
        input: &[u8],
        buffer: &mut [u8],
        sink: &mut impl FnMut(&[u8], usize) -> Result<(), End>,
    ) -> Result<(), End> {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.place {
                Place::Garbage => return Ok(()),
                Place::Padding => {
                    let zeros = rest.iter().position(|byte| *byte != 0);
                    if zeros.is_some() {
                        self.place = Place::Garbage;
                    }
                    zeros.unwrap_or(rest.len())
                }
                Place::Between => self.magic(rest, buffer)?,
                Place::Inside => {
                    let before = at;
                    self.frame(rest, buffer, &mut |piece, used| sink(piece, before + used))?
                }
            };
        }
        Ok(())
    }

    /// Whether the stream may end here.
    pub(super) fn finish(&self) -> Result<(), End> {
        match self.place {
            Place::Padding | Place::Garbage => Ok(()),
            Place::Between if self.frames > 0 && self.filled == 0 => Ok(()),
            _ => Err(End::Truncated("the zstd stream breaks off".to_owned())),
        }
    }

    /// Takes the first four bytes of a frame, and then gives them to the decoder, which holds
    /// them back without output.
    fn magic(&mut self, input: &[u8], buffer: &mut [u8]) -> Result<usize, End> {
        let slots = self.magic.iter_mut().skip(self.filled);
        let taken = slots.zip(input).map(|(slot, byte)| *slot = *byte).count();
        self.filled += taken;
        if self.filled < self.magic.len() {
            return Ok(taken);
        }
        self.filled = 0;
        self.place = match self.magic {
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Place::Inside,
            [0, 0, 0, 0] if self.frames > 0 => Place::Padding,
            _ => Place::Garbage,
        };
        if self.place == Place::Inside {
            let magic = self.magic;
            self.frame(&magic, buffer, &mut |_, _| Ok(()))?;
        }
        Ok(taken)
    }

    /// Decompresses until the frame or the input ends; returns the bytes taken.
    fn frame(
        &mut self,
        input: &[u8],
        buffer: &mut [u8],
        sink: &mut impl FnMut(&[u8], usize) -> Result<(), End>,
    ) -> Result<usize, End> {
        let mut used = 0;
        loop {
            let mut source = InBuffer::around(input.get(used..).unwrap_or_default());
            let mut target = OutBuffer::around(&mut *buffer);
            let hint =
                self.decoder.run(&mut source, &mut target).map_err(|error| refusal(&error))?;
            let (taken, made) = (source.pos(), target.pos());
            used += taken;
            let piece = buffer.get(..made).unwrap_or_default();
            if !piece.is_empty() {
                sink(piece, used)?;
            }
            if hint == 0 {
                self.place = Place::Between;
                self.frames = self.frames.saturating_add(1);
                return Ok(used);
            }
            if used >= input.len() && made < buffer.len() {
                return Ok(used);
            }
            if taken == 0 && made == 0 {
                return Err(End::Broken("the zstd stream makes no progress".to_owned()));
            }
        }
    }
}

fn refusal(error: &std::io::Error) -> End {
    if error.to_string().contains("too much memory") {
        let max = (1_u64 << MAX_WINDOW_LOG) >> 20;
        return End::Limit(format!("the zstd stream asks for a window of more than {max} MiB"));
    }
    // The decoder's own words depend on how the stream was cut.
    End::Broken("the zstd stream is damaged: it can't be decompressed".to_owned())
}
