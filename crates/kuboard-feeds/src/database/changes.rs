//! What differs between the previous database and the one being built: both are in the same
//! order, so one walk over each tells.

use std::cmp::Ordering;

use kuboard_vuln::Row;

use super::format::hash;
use super::{Changes, Database, DatabaseError, rows};

pub(super) struct NewPackage<'a> {
    pub(super) namespace: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) fingerprint: u64,
}

pub(super) struct NewAdvisory<'a> {
    pub(super) source: &'a str,
    pub(super) id: &'a str,
    pub(super) hash: u64,
}

/// What stands for an advisory in all generations.
pub(super) fn identity(source: &str, id: &str) -> u64 {
    hash(hash(1, source.as_bytes()), id.as_bytes())
}

/// The content of a package's rows, whatever their order.
pub(super) fn fingerprint<'a>(rows: impl Iterator<Item = Row<'a>>, identities: &[u64]) -> u64 {
    rows.fold(0, |sum: u64, row| {
        let identity = identities.get(row.advisory as usize).copied().unwrap_or_default();
        sum.wrapping_add(rows::fingerprint(&row, identity))
    })
}

pub(super) fn compare<'a>(
    previous: &Database,
    packages: impl Iterator<Item = NewPackage<'a>>,
    advisories: &[NewAdvisory<'_>],
) -> Result<Changes, DatabaseError> {
    let mut changes = Changes { since: Some(previous.generation()), ..Changes::default() };
    let mut identities = Vec::with_capacity(previous.len());
    let mut new = advisories.iter().peekable();
    let pair = |source: &str, id: &str| (source.to_owned(), id.to_owned());
    for index in 0..previous.len() as u32 {
        let (source, id, hash) = previous.identity(index)?;
        identities.push(identity(source, id));
        while let Some(one) = new.next_if(|one| (one.source, one.id) < (source, id)) {
            changes.added.push(pair(one.source, one.id));
        }
        match new.next_if(|one| (one.source, one.id) == (source, id)) {
            None => changes.removed.push(pair(source, id)),
            Some(same) if same.hash != hash => changes.changed.push(pair(source, id)),
            Some(_) => {}
        }
    }
    changes.added.extend(new.map(|one| pair(one.source, one.id)));
    let mut new = packages.peekable();
    for index in 0..previous.packages() {
        let Some((namespace, name, rows)) = previous.package(index) else { continue };
        let old = (namespace.as_bytes(), name.as_bytes());
        loop {
            let order = new.peek().map(|one| (one.namespace, one.name).cmp(&old));
            match order {
                Some(Ordering::Less) => {
                    changes.packages.extend(new.next().map(|one| names(&one)));
                }
                Some(Ordering::Equal) => {
                    if new
                        .next()
                        .is_some_and(|one| one.fingerprint != fingerprint(rows, &identities))
                    {
                        changes.packages.push(pair(namespace, name));
                    }
                    break;
                }
                Some(Ordering::Greater) | None => {
                    changes.packages.push(pair(namespace, name));
                    break;
                }
            }
        }
    }
    changes.packages.extend(new.map(|one| names(&one)));
    Ok(changes)
}

fn names(package: &NewPackage<'_>) -> (String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(package.namespace), text(package.name))
}
