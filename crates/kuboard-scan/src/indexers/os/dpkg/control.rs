//! The control format of dpkg: stanzas of `Field: value` lines with an empty line between them.

use std::borrow::Cow;

/// The fields of a stanza that matter here.
#[derive(Default)]
pub(super) struct Stanza<'a> {
    pub(super) package: Option<Cow<'a, str>>,
    pub(super) version: Option<Cow<'a, str>>,
    pub(super) status: Option<Cow<'a, str>>,
    pub(super) source: Option<Cow<'a, str>>,
    pub(super) architecture: Option<Cow<'a, str>>,
}

/// Calls `each` with every stanza that names a package. A second `Package:` begins a stanza, too,
/// so that a lost empty line loses no package.
pub(super) fn stanzas<'a>(bytes: &'a [u8], mut each: impl FnMut(Stanza<'a>)) {
    let mut stanza = Stanza::default();
    for line in bytes.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let whole = std::mem::take(&mut stanza);
            if whole.package.is_some() {
                each(whole);
            }
            continue;
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            continue;
        }
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (field, value) = line.split_at(colon);
        let is = |name: &str| field.eq_ignore_ascii_case(name.as_bytes());
        if is("Package") && stanza.package.is_some() {
            each(std::mem::take(&mut stanza));
        }
        let into = if is("Package") {
            &mut stanza.package
        } else if is("Version") {
            &mut stanza.version
        } else if is("Status") {
            &mut stanza.status
        } else if is("Source") {
            &mut stanza.source
        } else if is("Architecture") {
            &mut stanza.architecture
        } else {
            continue;
        };
        *into = Some(String::from_utf8_lossy(value.get(1..).unwrap_or_default().trim_ascii()));
    }
    if stanza.package.is_some() {
        each(stanza);
    }
}
