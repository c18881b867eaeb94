//! What is known of images, by digest, in memory: a hundred thousand of them in tens of megabytes.
//!
//! Images share findings: the same advisory for the same version of the same package. Each such
//! definition is kept once, with its texts kept once, and an image is a sorted list of their
//! numbers, written as differences in as few bytes as they need. A finding that was first seen
//! with the first scan costs two bytes; a later one some more.

use std::{borrow::Borrow, hash::Hash, sync::Arc};

use kuboard_oci::{Algorithm, Digest};
use kuboard_vuln::{Fact, ImageFacts, Known, Severity};
use parking_lot::{RwLock, RwLockReadGuard};
use rustc_hash::FxHashMap;

/// No number.
const NONE: u32 = u32::MAX;

/// Facts by digest. All methods are quick and wait for nothing but each other.
pub struct FactsIndex {
    inner: RwLock<Inner>,
    max_images: usize,
}

#[derive(Default)]
struct Inner {
    /// Nearly all digests; half the size of a [`Digest`].
    short: FxHashMap<[u8; 32], Entry>,
    long: FxHashMap<Digest, Entry>,
    texts: Interned<Arc<str>>,
    lists: Interned<Arc<[Arc<str>]>>,
    definitions: Interned<Definition>,
}

/// An image.
struct Entry {
    first_scanned_ms: i64,
    scanned_ms: i64,
    known: Extent,
    count: u32,
    findings: Box<[u8]>,
}

/// [`Known`] with its text by number.
#[derive(Clone, Copy)]
enum Extent {
    All,
    Part(u32),
    Nothing(u32),
}

/// A finding without the time at which an image was first seen to have it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Definition {
    id: u32,
    aliases: u32,
    package: u32,
    version: u32,
    fixed_in: u32,
    epss: u32,
    severity: Severity,
    exploited: bool,
}

impl FactsIndex {
    /// Empty, for at most `max_images` digests.
    #[must_use]
    pub fn new(max_images: usize) -> Self {
        Self { inner: RwLock::default(), max_images }
    }

    /// Keeps what is known of a manifest, in place of what was. `false` if there is no room for
    /// one more; what is kept never has to go for it.
    pub fn put(&self, digest: &Digest, facts: &ImageFacts) -> bool {
        let mut inner = self.inner.write();
        if inner.len() >= self.max_images && inner.entry(digest).is_none() {
            return false;
        }
        let entry = inner.encode(facts);
        let old = match short(digest) {
            Some(key) => inner.short.insert(key, entry),
            None => inner.long.insert(*digest, entry),
        };
        if let Some(old) = old {
            inner.release(&old);
        }
        true
    }

    /// Forgets a manifest; `false` if it was not known.
    pub fn remove(&self, digest: &Digest) -> bool {
        let mut inner = self.inner.write();
        let old = match short(digest) {
            Some(key) => inner.short.remove(&key),
            None => inner.long.remove(digest),
        };
        if let Some(old) = &old {
            inner.release(old);
        }
        old.is_some()
    }

    /// What is known of a manifest, written out. Findings come in no particular order.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<ImageFacts> {
        self.read().get(digest).map(|facts| facts.to_owned())
    }

    /// Whether a manifest is known.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.inner.read().entry(digest).is_some()
    }

    /// Manifests that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.read().len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Different findings over all images.
    #[must_use]
    pub fn definitions(&self) -> usize {
        self.inner.read().definitions.len()
    }

    /// All of it at one moment. Nothing can be put in while it is held: not across a wait.
    #[must_use]
    pub fn read(&self) -> Reading<'_> {
        Reading(self.inner.read())
    }
}

fn short(digest: &Digest) -> Option<[u8; 32]> {
    match digest.algorithm() {
        Algorithm::Sha256 => digest.bytes().try_into().ok(),
        Algorithm::Sha512 => None,
    }
}

/// The facts at one moment.
pub struct Reading<'a>(RwLockReadGuard<'a, Inner>);

impl Reading<'_> {
    /// What is known of a manifest.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<FactsRef<'_>> {
        let inner = &*self.0;
        inner.entry(digest).map(|entry| FactsRef(Source::Kept { inner, entry }))
    }
}

/// What is known of a manifest, wherever it is kept.
#[derive(Clone, Copy)]
pub struct FactsRef<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Whole(&'a ImageFacts),
    Kept { inner: &'a Inner, entry: &'a Entry },
}

impl<'a> From<&'a ImageFacts> for FactsRef<'a> {
    fn from(facts: &'a ImageFacts) -> Self {
        Self(Source::Whole(facts))
    }
}

impl<'a> FactsRef<'a> {
    /// Why the facts may be incomplete; `None` if everything was read.
    #[must_use]
    pub fn gap(&self) -> Option<&'a str> {
        match self.0 {
            Source::Whole(facts) => match &facts.known {
                Known::All => None,
                Known::Part(why) | Known::Nothing(why) => Some(why),
            },
            Source::Kept { inner, entry } => match entry.known {
                Extent::All => None,
                Extent::Part(why) | Extent::Nothing(why) => Some(inner.text(why)),
            },
        }
    }

    /// When it was first scanned, milliseconds since 1970.
    #[must_use]
    pub fn first_scanned_ms(&self) -> i64 {
        match self.0 {
            Source::Whole(facts) => facts.first_scanned_ms,
            Source::Kept { entry, .. } => entry.first_scanned_ms,
        }
    }

    /// When it was last matched with advisories, milliseconds since 1970.
    #[must_use]
    pub fn scanned_ms(&self) -> i64 {
        match self.0 {
            Source::Whole(facts) => facts.scanned_ms,
            Source::Kept { entry, .. } => entry.scanned_ms,
        }
    }

    /// Findings, of all severities.
    #[must_use]
    pub fn count(&self) -> usize {
        match self.0 {
            Source::Whole(facts) => facts.findings.len(),
            Source::Kept { entry, .. } => entry.count as usize,
        }
    }

    /// The findings, in no particular order.
    #[must_use]
    pub fn findings(&self) -> Findings<'a> {
        match self.0 {
            Source::Whole(facts) => Findings::Whole(facts.findings.iter()),
            Source::Kept { inner, entry } => Findings::Kept {
                inner,
                first_scanned_ms: entry.first_scanned_ms,
                bytes: &entry.findings,
                number: 0,
            },
        }
    }

    fn to_owned(self) -> ImageFacts {
        let known = match self.0 {
            Source::Whole(facts) => return facts.clone(),
            Source::Kept { inner, entry } => match entry.known {
                Extent::All => Known::All,
                Extent::Part(why) => Known::Part(inner.text(why).into()),
                Extent::Nothing(why) => Known::Nothing(inner.text(why).into()),
            },
        };
        let fact = |finding: FindingRef<'_>| Fact {
            id: finding.id().into(),
            aliases: finding.aliases().into(),
            package: finding.package().into(),
            version: finding.version().into(),
            fixed_in: finding.fixed_in().map(Into::into),
            severity: finding.severity,
            exploited: finding.exploited,
            epss: finding.epss,
            first_seen_ms: finding.first_seen_ms,
        };
        ImageFacts {
            known,
            findings: self.findings().map(fact).collect(),
            first_scanned_ms: self.first_scanned_ms(),
            scanned_ms: self.scanned_ms(),
        }
    }
}

/// Findings one by one.
pub enum Findings<'a> {
    #[doc(hidden)]
    Whole(std::slice::Iter<'a, Fact>),
    #[doc(hidden)]
    #[allow(private_interfaces)]
    Kept { inner: &'a Inner, first_scanned_ms: i64, bytes: &'a [u8], number: u32 },
}

/// A finding: what decides at hand, the texts when they are asked for.
#[derive(Clone, Copy)]
pub struct FindingRef<'a> {
    /// The step that counts.
    pub severity: Severity,
    /// Known to be exploited.
    pub exploited: bool,
    /// Whether a version fixes it.
    pub fixable: bool,
    /// Probability of exploitation in 1/100000, where known.
    pub epss: Option<u32>,
    /// When it was first seen in this image, milliseconds since 1970.
    pub first_seen_ms: i64,
    texts: Texts<'a>,
}

#[derive(Clone, Copy)]
enum Texts<'a> {
    Whole(&'a Fact),
    Kept(&'a Inner, &'a Definition),
}

impl<'a> FindingRef<'a> {
    /// The id that people know it by.
    #[must_use]
    pub fn id(&self) -> &'a str {
        match self.texts {
            Texts::Whole(fact) => &fact.id,
            Texts::Kept(inner, it) => inner.text(it.id),
        }
    }

    /// All other ids.
    #[must_use]
    pub fn aliases(&self) -> &'a [Arc<str>] {
        match self.texts {
            Texts::Whole(fact) => &fact.aliases,
            Texts::Kept(inner, it) => inner.lists.get(it.aliases).map_or(&[], |list| list),
        }
    }

    /// The id and all others.
    pub fn ids(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        std::iter::once(self.id()).chain(self.aliases().iter().map(|id| &**id))
    }

    /// Name of the package.
    #[must_use]
    pub fn package(&self) -> &'a str {
        match self.texts {
            Texts::Whole(fact) => &fact.package,
            Texts::Kept(inner, it) => inner.text(it.package),
        }
    }

    /// Installed version.
    #[must_use]
    pub fn version(&self) -> &'a str {
        match self.texts {
            Texts::Whole(fact) => &fact.version,
            Texts::Kept(inner, it) => inner.text(it.version),
        }
    }

    /// The lowest version that fixes it.
    #[must_use]
    pub fn fixed_in(&self) -> Option<&'a str> {
        match self.texts {
            Texts::Whole(fact) => fact.fixed_in.as_deref(),
            Texts::Kept(inner, it) => self.fixable.then(|| inner.text(it.fixed_in)),
        }
    }
}

impl<'a> Iterator for Findings<'a> {
    type Item = FindingRef<'a>;

    fn next(&mut self) -> Option<FindingRef<'a>> {
        match self {
            Self::Whole(facts) => facts.next().map(|fact| FindingRef {
                severity: fact.severity,
                exploited: fact.exploited,
                fixable: fact.fixed_in.is_some(),
                epss: fact.epss,
                first_seen_ms: fact.first_seen_ms,
                texts: Texts::Whole(fact),
            }),
            Self::Kept { inner, first_scanned_ms, bytes, number } => {
                let head = read_number(bytes)?;
                *number = number.wrapping_add(u32::try_from(head >> 1).ok()?);
                let late = if head & 1 == 1 { read_number(bytes)? } else { 0 };
                let definition = inner.definitions.get(*number)?;
                Some(FindingRef {
                    severity: definition.severity,
                    exploited: definition.exploited,
                    fixable: definition.fixed_in != NONE,
                    epss: (definition.epss != NONE).then_some(definition.epss),
                    first_seen_ms: first_scanned_ms.wrapping_add(unfolded(late)),
                    texts: Texts::Kept(inner, definition),
                })
            }
        }
    }
}

impl Inner {
    fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    fn entry(&self, digest: &Digest) -> Option<&Entry> {
        match short(digest) {
            Some(key) => self.short.get(&key),
            None => self.long.get(digest),
        }
    }

    fn text(&self, number: u32) -> &str {
        self.texts.get(number).map_or("", |text| text)
    }

    fn encode(&mut self, facts: &ImageFacts) -> Entry {
        let known = match &facts.known {
            Known::All => Extent::All,
            Known::Part(why) => Extent::Part(self.texts.take(why).0),
            Known::Nothing(why) => Extent::Nothing(self.texts.take(why).0),
        };
        let mut numbers: Vec<(u32, i64)> = facts
            .findings
            .iter()
            .map(|fact| {
                let late = fact.first_seen_ms.wrapping_sub(facts.first_scanned_ms);
                (self.definition(fact), late)
            })
            .collect();
        numbers.sort_unstable();
        let (mut bytes, mut last) = (Vec::with_capacity(numbers.len() * 2), 0);
        for (number, late) in &numbers {
            let gap = u64::from(number - last) << 1;
            last = *number;
            match late {
                0 => write_number(&mut bytes, gap),
                late => {
                    write_number(&mut bytes, gap | 1);
                    write_number(&mut bytes, folded(*late));
                }
            }
        }
        Entry {
            first_scanned_ms: facts.first_scanned_ms,
            scanned_ms: facts.scanned_ms,
            known,
            count: u32::try_from(numbers.len()).unwrap_or(u32::MAX),
            findings: bytes.into_boxed_slice(),
        }
    }

    fn definition(&mut self, fact: &Fact) -> u32 {
        let definition = Definition {
            id: self.texts.take(&fact.id).0,
            aliases: self.lists.take(&fact.aliases).0,
            package: self.texts.take(&fact.package).0,
            version: self.texts.take(&fact.version).0,
            fixed_in: fact.fixed_in.as_ref().map_or(NONE, |it| self.texts.take(it).0),
            epss: fact.epss.map_or(NONE, |it| it.min(NONE - 1)),
            severity: fact.severity,
            exploited: fact.exploited,
        };
        let (number, is_new) = self.definitions.take(&definition);
        if !is_new {
            // The definition holds its texts already.
            self.release_texts(&definition);
        }
        number
    }

    fn release(&mut self, entry: &Entry) {
        match entry.known {
            Extent::All => {}
            Extent::Part(why) | Extent::Nothing(why) => drop(self.texts.give(why)),
        }
        let (mut bytes, mut number) = (&entry.findings[..], 0_u32);
        while let Some(head) = read_number(&mut bytes) {
            number = number.wrapping_add(u32::try_from(head >> 1).unwrap_or_default());
            if head & 1 == 1 {
                read_number(&mut bytes);
            }
            if let Some(definition) = self.definitions.give(number) {
                self.release_texts(&definition);
            }
        }
    }

    fn release_texts(&mut self, definition: &Definition) {
        let Definition { id, package, version, fixed_in, aliases, .. } = *definition;
        for text in [id, package, version, fixed_in] {
            self.texts.give(text);
        }
        self.lists.give(aliases);
    }
}

/// Values kept once each and known by a number, for as long as somebody uses them.
struct Interned<T> {
    slots: Vec<Option<(T, u32)>>,
    numbers: FxHashMap<T, u32>,
    free: Vec<u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), numbers: FxHashMap::default(), free: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn len(&self) -> usize {
        self.numbers.len()
    }

    fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize)?.as_ref().map(|(value, _)| value)
    }

    /// The number of a value, with one more user; and whether the value is new.
    fn take(&mut self, value: &T) -> (u32, bool) {
        let known = self.numbers.get::<T>(value.borrow()).copied();
        if let Some(number) = known
            && let Some(Some((_, users))) = self.slots.get_mut(number as usize)
        {
            *users += 1;
            return (number, false);
        }
        let slot = Some((value.clone(), 1));
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.slots.get_mut(number as usize) {
                    *place = slot;
                }
                number
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
            }
        };
        self.numbers.insert(value.clone(), number);
        (number, true)
    }

    /// One user less; the value, if that was the last one.
    fn give(&mut self, number: u32) -> Option<T> {
        let place = self.slots.get_mut(number as usize)?;
        let (_, users) = place.as_mut()?;
        *users -= 1;
        if *users > 0 {
            return None;
        }
        let (value, _) = place.take()?;
        self.numbers.remove(&value);
        self.free.push(number);
        Some(value)
    }
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0_u64, 0_u32);
    loop {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

/// Small numbers of either sign as small numbers.
fn folded(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unfolded(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}
