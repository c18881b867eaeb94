//! Extended headers (POSIX.1-2001, pax): the few records that say how the next entry is read.

/// What extended headers say of the entry that follows them.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Pax {
    /// `path`, or `GNU.sparse.name`, which is then the real one.
    pub(super) path: Option<Vec<u8>>,
    /// `linkpath`.
    pub(super) link: Option<Vec<u8>>,
    /// `size`.
    pub(super) size: Option<u64>,
    /// There are `GNU.sparse.` records: the content is a map with pieces.
    pub(super) sparse: bool,
}

impl Pax {
    /// Reads records, each `LENGTH KEY=VALUE` with a line feed, the length being that of the whole
    /// record. A key without value takes back what was said of it before.
    ///
    /// # Errors
    /// A record is not of that form, or the size is no number.
    pub(super) fn read(mut bytes: &[u8]) -> Result<Pax, &'static str> {
        let mut pax = Pax::default();
        let mut sparse_name = None;
        // Some writers fill the block up and count the filling in.
        while !matches!(bytes, [] | [0, ..]) {
            let (key, value, rest) = record(bytes).ok_or("a record is malformed")?;
            bytes = rest;
            let filled = (!value.is_empty()).then_some(value);
            match key {
                b"path" => pax.path = filled.map(<[u8]>::to_vec),
                b"linkpath" => pax.link = filled.map(<[u8]>::to_vec),
                b"size" => pax.size = filled.map(decimal).transpose()?,
                b"GNU.sparse.name" => sparse_name = filled.map(<[u8]>::to_vec),
                _ => {}
            }
            pax.sparse |= key.starts_with(b"GNU.sparse.");
        }
        pax.path = sparse_name.or(pax.path);
        Ok(pax)
    }
}

/// The first record's key and value, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // A length has at most 20 digits.
    let blank = bytes.iter().take(21).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..blank]).ok()?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let [pair @ .., b'\n'] = record.get(blank + 1..)? else { return None };
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = pair.split_at(equals);
    (!key.is_empty()).then_some((key, &value[1..], rest))
}

fn decimal(digits: &[u8]) -> Result<u64, &'static str> {
    let value = digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    });
    value
        .filter(|value| !digits.is_empty() && i64::try_from(*value).is_ok())
        .ok_or("a number is malformed")
}

#[cfg(test)]
mod tests {
    use super::Pax;

    fn check(bytes: &[u8], path: Option<&str>, size: Option<u64>, sparse: bool) {
        let path = path.map(|path| path.as_bytes().to_vec());
        assert_eq!(Pax::read(bytes), Ok(Pax { path, link: None, size, sparse }), "{bytes:?}");
    }

    #[test]
    fn records_are_read() {
        check(b"", None, None, false);
        check(b"10 path=a\n", Some("a"), None, false);
        check(b"10 path=a\n10 size=7\n\0\0\0", Some("a"), Some(7), false);
        check(b"10 path=a\n8 path=\n", None, None, false);
        check(b"12 path=a=b\n", Some("a=b"), None, false);
        check(b"20 comment=a\nb c=d\n\n", None, None, false);
        check(b"10 path=a\n21 GNU.sparse.name=b\n", Some("b"), None, true);
        check(b"22 GNU.sparse.major=1\n", None, None, true);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            "path=a\n",
            "8 path=a\n",
            "11 path=a\n",
            "10 path=a",
            "0 path=a\n",
            " path=a\n",
            "3 a\n",
            "99999999999999999999999 path=a\n",
            "10 size=x\n",
            "5 =a\n",
            "28 size=18446744073709551615\n",
            "-1 path=a\n",
        ] {
            assert!(Pax::read(bytes.as_bytes()).is_err(), "{bytes}");
        }
    }
}
