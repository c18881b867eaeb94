//! How a layer is compressed: by its first bytes, because media types lie.

use super::End;

/// Bytes that must be there to tell all forms apart.
pub(super) const TELLING_BYTES: usize = 10;

/// A compression that is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// None: the archive itself.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Tells the compression by the first bytes, of which ten suffice. What is not recognised
    /// counts as an archive that is not compressed.
    ///
    /// # Errors
    /// The bytes are those of a compression that is not read.
    pub fn detect(head: &[u8]) -> Result<Compression, Unsupported> {
        let unsupported = |what| Err(Unsupported { what });
        match head {
            [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Ok(Compression::Zstd)
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => unsupported("compressed with xz"),
            [0x04, 0x22, 0x4d, 0x18, ..] | [0x02, 0x21, 0x4c, 0x18, ..] => {
                unsupported("compressed with lz4")
            }
            // Letters also begin a path, so these two ask for what follows them.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => {
                unsupported("compressed with bzip2")
            }
            [b'L', b'Z', b'I', b'P', 1, ..] => unsupported("compressed with lzip"),
            [0x1f, 0x9d, ..] => unsupported("compressed with compress"),
            _ => Ok(Compression::None),
        }
    }

    /// Whether a layer of this media type can be read at all. The type says nothing else that is
    /// believed: the compression is told by [`Compression::detect`].
    ///
    /// # Errors
    /// The type says that the layer is encrypted.
    pub fn check_media_type(media_type: &str) -> Result<(), Unsupported> {
        let mut suffixes = crate::media_type::essence(media_type).split('+').skip(1);
        if suffixes.any(|suffix| suffix.eq_ignore_ascii_case("encrypted")) {
            return Err(Unsupported { what: "encrypted" });
        }
        Ok(())
    }

    /// `none`, `gzip` or `zstd`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

/// A layer in a form that is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the layer is {what}, which is not supported; hint: gzip, zstd and plain tar are")]
pub struct Unsupported {
    /// `encrypted`, `compressed with xz`.
    pub what: &'static str,
}

impl From<Unsupported> for End {
    fn from(error: Unsupported) -> Self {
        End::Broken(error.to_string())
    }
}
