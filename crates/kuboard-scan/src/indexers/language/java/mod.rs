//! Java archives, and archives in them.
//!
//! An archive is what Maven says in it (`META-INF/maven/*/*/pom.properties`, `pom.xml`); a shaded
//! one is all of that. Where Maven left nothing, its file name and its manifest tell. Archives in
//! archives (`WEB-INF/lib`, `BOOT-INF/lib`) are read where they lie if they are stored, inflated
//! in memory or in an unnamed file if not; depth, count and inflated bytes are bounded.

mod groups;
mod manifest;
mod pom;
mod zip;

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    os::unix::fs::FileExt,
};

use kuboard_vuln::{Ecosystem, Package};

use self::{
    manifest::Manifest,
    pom::Pom,
    zip::{Archive, Entry},
};
use super::{MAX_PACKAGES, Parsed, license, package, store};
use crate::{Candidate, Content, File, Found, Indexer, Want};

const EXTENSIONS: [&str; 10] =
    ["jar", "war", "ear", "par", "sar", "nar", "kar", "hpi", "jpi", "lpkg"];

/// How deep archives may be nested.
const MAX_DEPTH: usize = 8;

/// The most archives in one file.
const MAX_ARCHIVES: usize = 10_000;

/// The most inflated bytes of one file, over all archives in it.
const MAX_INFLATED: u64 = 1 << 30;

/// The most bytes of a manifest or a pom.
const MAX_TEXT: u64 = 4 << 20;

/// Larger nested archives are inflated to an unnamed file.
const IN_MEMORY: u64 = 16 << 20;

/// The most problems of one file that are told one by one.
const MAX_PROBLEMS: usize = 16;

/// Java archives.
pub(super) struct Java;

impl Indexer for Java {
    fn name(&self) -> &'static str {
        "java"
    }

    fn version(&self) -> u32 {
        1
    }

    fn wants(&self, candidate: &Candidate<'_>) -> Want {
        if is_archive(candidate.path) && candidate.size > 0 { Want::Now } else { Want::No }
    }

    fn read(&self, file: &File<'_>, found: &mut Found) {
        store(self.name(), file.path, parse(file.path, file.content), found);
    }
}

fn is_archive(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, extension)| {
        EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// Artifacts of an archive and of those in it; the path's last part is its name.
#[must_use]
pub fn parse(path: &str, content: &dyn Content) -> Parsed {
    let mut walk = Walk::default();
    let name = path.rsplit('/').next().unwrap_or(path);
    walk.archive(content, name, "", 0);
    walk.parsed
}

/// What a wanted entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind<'a> {
    Manifest,
    /// The folder that it is in.
    Properties(&'a str),
    Xml(&'a str),
    Nested,
}

fn kind(name: &str) -> Option<Kind<'_>> {
    if name.eq_ignore_ascii_case("META-INF/MANIFEST.MF") {
        return Some(Kind::Manifest);
    }
    if is_archive(name) {
        return Some(Kind::Nested);
    }
    let (folder, file) = name.rsplit_once('/')?;
    if !folder.contains("META-INF/maven/") {
        return None;
    }
    match file {
        "pom.properties" => Some(Kind::Properties(folder)),
        "pom.xml" => Some(Kind::Xml(folder)),
        _ => None,
    }
}

/// A nested archive that was inflated.
enum Inflated {
    Memory(Vec<u8>),
    File(fs::File, u64),
}

impl Content for Inflated {
    fn size(&self) -> u64 {
        match self {
            Inflated::Memory(bytes) => bytes.len() as u64,
            Inflated::File(_, size) => *size,
        }
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Inflated::Memory(bytes) => bytes.as_slice().read_at(offset, into),
            Inflated::File(file, _) => {
                let mut read = 0;
                while let Some(rest) = into.get_mut(read..).filter(|rest| !rest.is_empty()) {
                    match file.read_at(rest, offset + read as u64)? {
                        0 => break,
                        more => read += more,
                    }
                }
                Ok(read)
            }
        }
    }

    fn in_memory(&self) -> Option<&[u8]> {
        match self {
            Inflated::Memory(bytes) => Some(bytes),
            Inflated::File(..) => None,
        }
    }
}

/// What was found so far, and what it has cost.
#[derive(Default)]
struct Walk {
    parsed: Parsed,
    seen: HashSet<Package>,
    archives: usize,
    inflated: u64,
}

impl Walk {
    fn archive(&mut self, content: &dyn Content, name: &str, place: &str, depth: usize) {
        self.archives += 1;
        if depth > MAX_DEPTH {
            return self.problem(place, "archives are nested too deep");
        }
        if self.archives > MAX_ARCHIVES {
            return self.problem(place, "there are too many archives in it");
        }
        let archive = match Archive::open(content, |name| kind(name).is_some()) {
            Ok(archive) => archive,
            Err(why) => return self.problem(place, why),
        };
        for why in &archive.problems {
            self.problem(place, why);
        }
        let mut manifest = Manifest::default();
        let mut poms: BTreeMap<&str, (Pom, Pom)> = BTreeMap::new();
        for entry in &archive.entries {
            let Some(kind) = kind(&entry.name).filter(|kind| *kind != Kind::Nested) else {
                continue;
            };
            let text = match self.text(content, entry) {
                Ok(text) => text,
                Err(why) => {
                    self.problem(&within(place, &entry.name), &why);
                    continue;
                }
            };
            match kind {
                Kind::Manifest => manifest = Manifest::parse(&text),
                Kind::Properties(at) => poms.entry(at).or_default().0 = Pom::of_properties(&text),
                Kind::Xml(at) => poms.entry(at).or_default().1 = Pom::of_xml(&text),
                Kind::Nested => {}
            }
        }
        let poms: Vec<Pom> = poms.into_iter().filter_map(|(at, pair)| joined(at, pair)).collect();
        self.add(artifacts(name, &manifest, poms));
        for entry in &archive.entries {
            if kind(&entry.name) == Some(Kind::Nested) {
                self.nested(content, entry, &within(place, &entry.name), depth);
            }
        }
    }

    fn nested(&mut self, content: &dyn Content, entry: &Entry, place: &str, depth: usize) {
        let name = entry.name.rsplit('/').next().unwrap_or_default();
        // Folders may be called like archives.
        if name.is_empty() || entry.size == 0 {
            return;
        }
        match entry.part(content) {
            Ok((part, false)) => self.archive(&part, name, place, depth + 1),
            Ok((part, true)) => match self.inflate(entry, &part) {
                Ok(inflated) => self.archive(&inflated, name, place, depth + 1),
                Err(why) => self.problem(place, &why),
            },
            Err(why) => self.problem(place, why),
        }
    }

    /// Takes the bytes that an entry says it has from what may be inflated.
    fn spend(&mut self, size: u64) -> Result<(), String> {
        match self.inflated.checked_add(size).filter(|sum| *sum <= MAX_INFLATED) {
            Some(sum) => {
                self.inflated = sum;
                Ok(())
            }
            None => Err(format!("more than {MAX_INFLATED} bytes would have to be inflated")),
        }
    }

    fn inflate(&mut self, entry: &Entry, part: &zip::Part<'_>) -> Result<Inflated, String> {
        self.spend(entry.size)?;
        if entry.size <= IN_MEMORY {
            let mut bytes = Vec::new();
            entry.inflate(part, &mut bytes)?;
            return Ok(Inflated::Memory(bytes));
        }
        let mut file = tempfile::tempfile().map_err(|error| error.to_string())?;
        entry.inflate(part, &mut file)?;
        Ok(Inflated::File(file, entry.size))
    }

    fn text(&mut self, content: &dyn Content, entry: &Entry) -> Result<String, String> {
        if entry.size > MAX_TEXT {
            return Err(format!("it has more than {MAX_TEXT} bytes"));
        }
        let (part, deflated) = entry.part(content)?;
        self.spend(entry.size)?;
        let mut bytes = Vec::new();
        if deflated {
            entry.inflate(&part, &mut bytes)?;
        } else {
            entry.copy_stored(&part, &mut bytes)?;
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn add(&mut self, packages: Vec<Package>) {
        for package in packages {
            if self.parsed.packages.len() == MAX_PACKAGES {
                return self.problem("", "it states too many packages");
            }
            if self.seen.insert(package.clone()) {
                self.parsed.packages.push(package);
            }
        }
    }

    fn problem(&mut self, place: &str, why: &str) {
        let problems = &mut self.parsed.problems;
        match problems.len() {
            MAX_PROBLEMS => problems.push("there are more problems".to_owned()),
            0..MAX_PROBLEMS if place.is_empty() => problems.push(why.to_owned()),
            0..MAX_PROBLEMS => problems.push(format!("{}: {why}", shortened(place))),
            _ => {}
        }
    }
}

/// The path of an archive in an archive.
fn within(place: &str, name: &str) -> String {
    let name = shortened(name);
    if place.is_empty() { name } else { format!("{place}!/{name}") }
}

/// Names in archives are as long and as odd as their makers like.
fn shortened(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control()).take(1000).collect()
}

/// What both files of a folder of Maven's say; the folder's own name is `GROUP/ARTIFACT`.
fn joined(folder: &str, (mut pom, xml): (Pom, Pom)) -> Option<Pom> {
    pom.complete(xml);
    let mut parts = folder.rsplit('/');
    let (artifact, group) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    pom.complete(Pom { group: group.to_owned(), artifact: artifact.to_owned(), ..Pom::default() });
    pom.is_complete().then_some(pom)
}

/// The artifacts of one archive, its own first.
fn artifacts(file: &str, manifest: &Manifest, mut poms: Vec<Pom>) -> Vec<Package> {
    // Agents that instrument a library call themselves by its name and version.
    let is_agent = manifest.get("weave-classes").is_some();
    let mut packages = Vec::new();
    let own = own(file, manifest, &poms).map(|at| poms.swap_remove(at));
    let stated = manifest.get("bundle-license").and_then(license);
    match own {
        Some(mut own) => {
            if own.licenses.is_empty() {
                own.licenses.extend(stated);
            }
            packages.extend(artifact(&own));
        }
        None if is_agent => {}
        None => packages.extend(manifest::identity(file, manifest).and_then(|identity| {
            if poms.iter().any(|pom| pom.artifact == identity.artifact) {
                return None;
            }
            let name = match identity.group {
                Some(group) => format!("{group}:{}", identity.artifact),
                None => identity.artifact,
            };
            let mut package = package(Ecosystem::Maven, &name, &identity.version)?;
            package.licenses.extend(stated);
            Some(package)
        })),
    }
    poms.sort_by(|a, b| (&a.group, &a.artifact).cmp(&(&b.group, &b.artifact)));
    packages.extend(poms.iter().filter_map(artifact));
    packages
}

fn artifact(pom: &Pom) -> Option<Package> {
    let name = format!("{}:{}", pom.group, pom.artifact);
    let mut package = package(Ecosystem::Maven, &name, &pom.version)?;
    package.licenses.clone_from(&pom.licenses);
    Some(package)
}

/// Which of the poms is the archive's own: that which the file is named after, or the only one if
/// its version is the archive's.
fn own(file: &str, manifest: &Manifest, poms: &[Pom]) -> Option<usize> {
    let (name, version) = manifest::of_file(file);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let named = |pom: &Pom| {
        let rest = stem.strip_prefix(pom.artifact.as_str());
        pom.artifact == name || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let best = poms
        .iter()
        .enumerate()
        .filter(|(_, pom)| named(pom))
        .max_by_key(|(_, pom)| (version == Some(pom.version.as_str()), pom.artifact.len()));
    if let Some((at, _)) = best {
        return Some(at);
    }
    let [only] = poms else { return None };
    let same = version.or_else(|| manifest.version()).is_none_or(|version| {
        version == only.version
            || version
                .strip_prefix(only.version.as_str())
                .is_some_and(|rest| rest.starts_with(['-', '.']))
    });
    same.then_some(0)
}

#[cfg(test)]
pub(super) mod tests;
