//! The names of entries: from what is written to a path that can be compared.

/// Why an entry has no path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// It leads out of the root.
    ClimbsOut,
    /// It has more bytes than a path may have.
    TooLong,
    /// It contains a NUL, which no file name can.
    Nul,
}

impl Refused {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Refused::ClimbsOut => "its path leads out of the root",
            Refused::TooLong => "its path is too long",
            Refused::Nul => "its path contains a NUL",
        }
    }
}

/// Writes `prefix/name` into `into` without leading slash, empty parts, `.` and `..`; the root is
/// empty. Bytes that are not UTF-8 are replaced.
pub(super) fn normalise(
    prefix: &[u8],
    name: &[u8],
    max: usize,
    into: &mut String,
) -> Result<(), Refused> {
    into.clear();
    if prefix.len().saturating_add(name.len()) > max {
        return Err(Refused::TooLong);
    }
    for part in prefix.split(|byte| *byte == b'/').chain(name.split(|byte| *byte == b'/')) {
        match part {
            b"" | b"." => {}
            b".." if into.is_empty() => return Err(Refused::ClimbsOut),
            b".." => into.truncate(into.rfind('/').unwrap_or_default()),
            _ if part.contains(&0) => return Err(Refused::Nul),
            _ => {
                if !into.is_empty() {
                    into.push('/');
                }
                match std::str::from_utf8(part) {
                    Ok(part) => into.push_str(part),
                    Err(_) => into.push_str(&String::from_utf8_lossy(part)),
                }
            }
        }
    }
    Ok(())
}

/// What an entry's name means to the layers underneath.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Mark<'a> {
    /// Nothing: an entry like others.
    None,
    /// It removes `NAME` from the folder.
    Whiteout { folder: &'a str, name: &'a str },
    /// It hides what the folder held.
    Opaque { folder: &'a str },
    /// A record of aufs for itself.
    Metadata,
    /// A whiteout that names nothing.
    Senseless,
}

/// Tells a whiteout from an entry.
pub(super) fn mark(path: &str) -> Mark<'_> {
    let (folder, base) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(name) = base.strip_prefix(".wh.") else { return Mark::None };
    match name {
        ".wh..opq" => Mark::Opaque { folder },
        "" | "." | ".." => Mark::Senseless,
        _ if name.starts_with(".wh.") => Mark::Metadata,
        _ => Mark::Whiteout { folder, name },
    }
}

#[cfg(test)]
mod tests {
    use super::{Mark, Refused, mark, normalise};

    #[test]
    fn names_are_normalised() {
        let check = |prefix: &[u8], name: &[u8], want: Result<&str, Refused>| {
            let mut path = "before".to_owned();
            let result = normalise(prefix, name, 40, &mut path);
            assert_eq!(result.map(|()| path.as_str()), want, "{name:?}");
        };
        check(b"", b"etc/passwd", Ok("etc/passwd"));
        check(b"", b"./etc//passwd/", Ok("etc/passwd"));
        check(b"", b"/etc/passwd", Ok("etc/passwd"));
        check(b"", b"a/../b", Ok("b"));
        check(b"", b"a/b/../../c/./d", Ok("c/d"));
        check(b"usr/share", b"doc", Ok("usr/share/doc"));
        check(b"", b"./", Ok(""));
        check(b"", b"", Ok(""));
        check(b"", b"a/..", Ok(""));
        check(b"", b"..", Err(Refused::ClimbsOut));
        check(b"", b"a/../../b", Err(Refused::ClimbsOut));
        check(b"..", b"b", Err(Refused::ClimbsOut));
        check(b"", b"a\0b", Err(Refused::Nul));
        check(b"", b"caf\xe9", Ok("caf\u{fffd}"));
        check(b"", "caf\u{e9}".as_bytes(), Ok("caf\u{e9}"));
        check(b"", &[b'a'; 41], Err(Refused::TooLong));
        check(b"", b"..a/b..", Ok("..a/b.."));
    }

    #[test]
    fn whiteouts_are_told_from_entries() {
        let check = |path: &str, want: Mark<'_>| assert_eq!(mark(path), want, "{path}");
        check("a/b", Mark::None);
        check("a/.wh.b/c", Mark::None);
        check("a/.wh.b", Mark::Whiteout { folder: "a", name: "b" });
        check(".wh.b", Mark::Whiteout { folder: "", name: "b" });
        check("a/.wh..b", Mark::Whiteout { folder: "a", name: ".b" });
        check("a/.wh..wh..opq", Mark::Opaque { folder: "a" });
        check(".wh..wh..opq", Mark::Opaque { folder: "" });
        check(".wh..wh.plnk", Mark::Metadata);
        check("a/.wh.", Mark::Senseless);
        check("a/.wh..", Mark::Senseless);
        check("a/.wh...", Mark::Senseless);
    }
}
