//! The header blocks of tar, in all its forms.

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;

/// What a writer wrote the header as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    V7,
    Ustar,
    /// ustar with a shorter prefix, by Jörg Schilling's star.
    Star,
    Gnu,
}

/// One block, read as a header.
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
    form: Form,
}

impl<'a> Header<'a> {
    /// The header in a block, if its checksum is right.
    pub(super) fn read(block: &'a [u8; BLOCK]) -> Option<Self> {
        if !has_checksum(block) {
            return None;
        }
        let form = match &block[257..265] {
            b"ustar  \0" => Form::Gnu,
            [b'u', b's', b't', b'a', b'r', 0, ..] if block[508..] == *b"tar\0" => Form::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Form::Ustar,
            _ => Form::V7,
        };
        Some(Self { block, form })
    }

    /// The type of the entry.
    pub(super) fn kind(&self) -> u8 {
        self.block[156]
    }

    /// Bytes of the content; nothing if the field is no number.
    pub(super) fn size(&self) -> Option<u64> {
        number(&self.block[124..136]).filter(|size| i64::try_from(*size).is_ok())
    }

    /// Permission bits; none where they can't be read, as nothing depends on them.
    pub(super) fn mode(&self) -> u32 {
        number(&self.block[100..108])
            .and_then(|mode| u32::try_from(mode & 0o7777).ok())
            .unwrap_or_default()
    }

    /// The folder before the name, where the form has one, and the name.
    pub(super) fn name(&self) -> (&'a [u8], &'a [u8]) {
        let prefix: &[u8] = match self.form {
            Form::Ustar => &self.block[345..500],
            Form::Star => &self.block[345..476],
            Form::V7 | Form::Gnu => &[],
        };
        (text(prefix), text(&self.block[..100]))
    }

    /// Where a link points.
    pub(super) fn link(&self) -> &'a [u8] {
        text(&self.block[157..257])
    }

    /// Whether blocks with the rest of a sparse file's map follow (old GNU form).
    pub(super) fn has_more_map(&self) -> bool {
        self.form == Form::Gnu && self.block[482] != 0
    }
}

/// Whether a block of a sparse file's map says that another one follows.
pub(super) fn map_goes_on(block: &[u8; BLOCK]) -> bool {
    block[504] != 0
}

/// A field up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The sum of all bytes, those of the checksum counted as blanks. Some old writers took bytes for
/// signed.
fn has_checksum(block: &[u8; BLOCK]) -> bool {
    let field = &block[148..156];
    let Some(stated) = octal(field).and_then(|stated| i64::try_from(stated).ok()) else {
        return false;
    };
    let unsigned = |bytes: &[u8]| i64::from(bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>());
    let blanks = 8 * i64::from(b' ');
    if unsigned(block) - unsigned(field) + blanks == stated {
        return true;
    }
    let signed = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(byte.cast_signed())).sum::<i64>();
    signed(block) - signed(field) + blanks == stated
}

/// A number: octal digits, or (GNU, star) the top bit set and then base 256.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        return octal(field);
    }
    // The next bit is the sign.
    if first & 0x40 != 0 {
        return None;
    }
    rest.iter().try_fold(u64::from(first & 0x3f), |value, byte| {
        value.checked_mul(256).map(|value| value | u64::from(*byte))
    })
}

/// Octal digits between blanks and NULs; a field without digits is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let is_filler = |byte: &u8| matches!(byte, b' ' | 0);
    field.iter().skip_while(|byte| is_filler(byte)).take_while(|byte| !is_filler(byte)).try_fold(
        0_u64,
        |value, byte| {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8)?;
            value.checked_mul(8)?.checked_add(u64::from(digit))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_octal_or_base_256() {
        let check =
            |field: &[u8], value: Option<u64>| assert_eq!(number(field), value, "{field:?}");
        check(b"0000644\0", Some(0o644));
        check(b"  644 \0\0", Some(0o644));
        check(b"\0\0\0\0", Some(0));
        check(b"        ", Some(0));
        check(b"77777777777\0", Some(0o77_777_777_777));
        check(b"00008\0", None);
        check(b"-1\0", None);
        check(b"7777777777777777777777777", None);
        check(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1], Some((2 << 32) | 1));
        check(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Some(u64::MAX));
        check(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], None);
        check(&[0xff; 12], None);
        check(&[], None);
    }
}
