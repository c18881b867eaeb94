//! chisel's manifest of a root file system cut out of Ubuntu packages: zstd over "jsonwall", one
//! JSON object a line. The first line names the format (`{"jsonwall":"1.0",…}`); lines of kind
//! `package` name packages and lines of kind `path` all files. It does not name source packages.
//! <https://documentation.ubuntu.com/chisel/en/latest/reference/manifest/>

use std::{borrow::Cow, io::Read as _};

use kuboard_vuln::{Ecosystem, Package};
use serde::Deserialize;

use crate::{MAX_READ, indexers::os::draft::Draft};

/// The largest window, as a power of two, that the decompressor allocates.
const MAX_WINDOW: u32 = 27;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    jsonwall: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
    #[serde(borrow, default)]
    arch: Cow<'a, str>,
    #[serde(borrow, default)]
    path: Cow<'a, str>,
}

pub(super) fn read(bytes: &[u8], draft: &mut Draft) {
    let inflated = inflate(bytes, draft);
    let mut lines = inflated.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let header = lines.next().and_then(|line| serde_json::from_slice::<Line<'_>>(line).ok());
    if header.and_then(|line| line.jsonwall).is_none_or(|version| !version.starts_with("1.")) {
        draft.partly("it is no manifest of a version that is known");
        return;
    }
    for line in lines {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else {
            draft.partly("a line is no JSON object");
            continue;
        };
        match &*line.kind {
            "package" => {
                let mut package = Package::new(Ecosystem::Deb, &line.name, &line.version);
                package.arch = (!line.arch.is_empty()).then(|| line.arch.into_owned());
                draft.package(package);
            }
            "path" if !draft.owns(&line.path) => return,
            _ => {}
        }
    }
}

fn inflate(bytes: &[u8], draft: &mut Draft) -> Vec<u8> {
    let mut inflated = Vec::new();
    let read = zstd::Decoder::with_buffer(bytes).and_then(|mut decoder| {
        decoder.window_log_max(MAX_WINDOW)?;
        decoder.take(MAX_READ + 1).read_to_end(&mut inflated)
    });
    if let Err(error) = read {
        draft.partly(format!("it can't be decompressed: {error}"));
    }
    if inflated.len() as u64 > MAX_READ {
        draft.partly(format!("it has more than {MAX_READ} bytes"));
        inflated.truncate(MAX_READ as usize);
    }
    inflated
}
