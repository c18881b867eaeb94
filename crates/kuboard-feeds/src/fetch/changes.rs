//! OSV and Red Hat: the whole the first time, then only what their lists of changes name.
//!
//! A list is looked at from a day before the newest change that is known, for what is published
//! late carries an early time; what is known of that day is passed over. A document that a list
//! names and the server does not have is an inconsistent server, not a deletion.

use std::{collections::HashSet, fs::File, io::BufReader};

use anyhow::Context;

use super::{
    Feed, FetchErrorKind, Fetched, Place,
    ask::{Asked, Asker, Harvest, MAX_POINTER, Piece},
    download::MAX_BYTES,
    feeds::{OSV, RED_HAT},
    state::{Known, OVERLAP_MS},
};
use crate::parse::{
    self,
    osv::Modified,
    redhat::{self, Change},
};

/// Changed documents that are fetched one by one; more are cheaper as a whole.
const MAX_SINGLE: usize = 2000;
/// The same of Red Hat, whose whole is large and old.
const MAX_RED_HAT: usize = 8000;
/// Changes since the archive was made are taken up to this number.
const MAX_SINCE_ARCHIVE: usize = 100_000;
/// A list of changes is at most this long.
const MAX_LIST: u64 = 256 << 20;
/// So many listed documents may be missing, or one in a hundred.
const MAX_MISSING: usize = 10;

const ALL: &str = "all.zip";
const MODIFIED: &str = "modified_id.csv";
const CHANGES: &str = "changes.csv";
const ROLLED_BACK: &str = "its list of changes is older than what is compiled in; hint: `kuboard \
                           db update --full` takes it all the same";

impl Asker {
    pub(super) async fn osv(
        &self,
        feed: &'static Feed,
        ecosystem: &str,
        mut known: Known,
    ) -> anyhow::Result<Asked> {
        if known.newest_ms > 0
            && let Some(asked) = self.osv_changes(feed, ecosystem, &known).await?
        {
            return Ok(asked);
        }
        let place = self.osv_place(ecosystem, ALL);
        match self.fetch(&place, known.documents.get(ALL), MAX_BYTES).await? {
            Fetched::Unchanged(fingerprint) => {
                known.documents.insert(ALL.to_owned(), fingerprint);
                Ok(Asked::Unchanged(known))
            }
            Fetched::File(file, fingerprint) => {
                let mut known = Known { advisories: known.advisories, ..Known::default() };
                known.documents.insert(ALL.to_owned(), fingerprint);
                let mut harvest = Harvest::new(feed, known);
                harvest.whole.push(Piece { name: ALL.to_owned(), namespace: "", file });
                Ok(Asked::Changed(harvest))
            }
        }
    }

    fn osv_place(&self, ecosystem: &str, name: &str) -> Place {
        match &self.mirror {
            // The layout of OSV's bucket below one folder.
            Some(_) => self.place(&format!("osv/{ecosystem}/{name}"), ""),
            None => Place::below(OSV, &format!("{ecosystem}/{name}")),
        }
    }

    /// What changed since the last time; `None`: take the whole.
    async fn osv_changes(
        &self,
        feed: &'static Feed,
        ecosystem: &str,
        known: &Known,
    ) -> anyhow::Result<Option<Asked>> {
        let mut known = known.clone();
        let place = self.osv_place(ecosystem, MODIFIED);
        let (list, fingerprint) =
            match self.fetch(&place, known.documents.get(MODIFIED), MAX_LIST).await {
                Ok(Fetched::File(list, fingerprint)) => (list, fingerprint),
                Ok(Fetched::Unchanged(fingerprint)) => {
                    known.documents.insert(MODIFIED.to_owned(), fingerprint);
                    return Ok(Some(Asked::Unchanged(known)));
                }
                Err(error) if error.kind == FetchErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        anyhow::ensure!(fingerprint.size > 0, "{place}: the list of changes is empty");
        let since = known.since_ms();
        let mut listed = parse::osv::read_modified(BufReader::new(File::open(&list)?), since)?;
        listed.retain(|one| !one.id.contains('/'));
        let newest = listed.iter().map(|one| one.modified_ms).max().context(ROLLED_BACK)?;
        let Some(changed) = self.osv_new(feed, &known, listed) else { return Ok(None) };
        known.documents.insert(MODIFIED.to_owned(), fingerprint);
        let newest = newest.min(self.now_ms);
        if changed.is_empty() {
            known.saw(std::iter::empty(), newest);
            return Ok(Some(Asked::Unchanged(known)));
        }
        let wanted = changed
            .iter()
            .map(|one| (one.id.clone(), self.osv_place(ecosystem, &format!("{}.json", one.id))));
        let (found, missing) = self.singles(wanted.collect()).await?;
        if is_much(missing.len(), changed.len()) {
            return Ok(None);
        }
        let missing: HashSet<String> = missing.into_iter().collect();
        let seen = changed.into_iter().filter(|one| !missing.contains(&one.id));
        known.saw(seen.map(|one| (one.id, one.modified_ms)), newest);
        let mut harvest = Harvest::new(feed, known);
        harvest.single = found;
        harvest.missing = missing.len() as u64;
        harvest.incremental = true;
        Ok(Some(Asked::Changed(harvest)))
    }

    /// Those listed changes that are not compiled in; `None` if they are too many.
    fn osv_new(&self, feed: &Feed, known: &Known, listed: Vec<Modified>) -> Option<Vec<Modified>> {
        let (newer, mut late): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|one| one.modified_ms > known.newest_ms);
        if late.len() > MAX_SINGLE {
            // A day on which everything changed: to look at all of it again costs more than it is
            // worth.
            late.clear();
        }
        let mut new = newer;
        new.extend(late);
        if new.len() > MAX_SINGLE * 2 {
            return None;
        }
        new.retain(|one| {
            known.seen.get(&one.id).is_none_or(|seen| *seen < one.modified_ms)
                && !self.holds(feed, one)
        });
        (new.len() <= MAX_SINGLE).then_some(new)
    }

    /// Whether that state of an advisory, or a later one, is compiled in.
    fn holds(&self, feed: &Feed, change: &Modified) -> bool {
        let Some(database) = &self.database else { return false };
        database.find(&change.id).iter().any(|advisory| {
            advisory.id == change.id
                && feed.sources.contains(&advisory.source.as_str())
                && advisory.modified_ms.is_some_and(|at| at >= change.modified_ms)
        })
    }

    pub(super) async fn red_hat(&self, feed: &'static Feed, known: Known) -> anyhow::Result<Asked> {
        if known.newest_ms > 0
            && let Some(asked) = self.red_hat_changes(feed, &known).await?
        {
            return Ok(asked);
        }
        let latest = self.bytes(&self.red_hat_place("archive_latest.txt"), MAX_POINTER).await?;
        let name = redhat::read_archive_name(latest.as_slice())?;
        let file = match self.fetch(&self.red_hat_place(&name), None, MAX_BYTES).await? {
            Fetched::File(file, fingerprint) => {
                let mut known = Known { advisories: known.advisories, ..Known::default() };
                known.documents.insert(name.clone(), fingerprint);
                let mut harvest = Harvest::new(feed, known);
                harvest.whole.push(Piece { name: name.clone(), namespace: "", file });
                harvest
            }
            Fetched::Unchanged(_) => anyhow::bail!("{name} gave nothing when asked anew"),
        };
        self.since_archive(file, &name).await
    }

    fn red_hat_place(&self, name: &str) -> Place {
        self.place(&format!("redhat/{name}"), &format!("{RED_HAT}/{name}"))
    }

    /// The archive is of some day: with it comes what changed since.
    async fn since_archive(&self, mut harvest: Harvest, name: &str) -> anyhow::Result<Asked> {
        let since = archive_day_ms(name).unwrap_or(self.now_ms).saturating_sub(OVERLAP_MS);
        harvest.known.newest_ms = since;
        let changes = match self.bytes(&self.red_hat_place(CHANGES), MAX_LIST).await {
            Ok(list) => redhat::read_changes(list.as_slice(), since)?,
            Err(error) if error.kind == FetchErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let deletions = self.deletions(since).await?;
        anyhow::ensure!(
            changes.len() <= MAX_SINCE_ARCHIVE,
            "{} documents changed since {name}; hint: the next archive should have them",
            changes.len()
        );
        self.apply(&mut harvest, changes, deletions).await?;
        Ok(Asked::Changed(harvest))
    }

    /// What changed since the last time; `None`: take the whole.
    async fn red_hat_changes(
        &self,
        feed: &'static Feed,
        known: &Known,
    ) -> anyhow::Result<Option<Asked>> {
        let since = known.since_ms();
        let mut known = known.clone();
        let unseen = |known: &Known, one: &Change, mark: &str| {
            let seen = known.seen.get(&format!("{mark}{}", one.path));
            seen.is_none_or(|seen| *seen < one.at_ms)
        };
        let mut deletions = self.deletions(since).await?;
        deletions.retain(|one| unseen(&known, one, "-"));
        let place = self.red_hat_place(CHANGES);
        let mut changes = match self.fetch(&place, known.documents.get(CHANGES), MAX_LIST).await {
            Ok(Fetched::File(list, fingerprint)) => {
                let changes = redhat::read_changes(BufReader::new(File::open(&list)?), since)?;
                anyhow::ensure!(!changes.is_empty(), ROLLED_BACK);
                known.documents.insert(CHANGES.to_owned(), fingerprint);
                changes
            }
            Ok(Fetched::Unchanged(fingerprint)) => {
                known.documents.insert(CHANGES.to_owned(), fingerprint);
                Vec::new()
            }
            Err(error) if error.kind == FetchErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        changes.retain(|one| unseen(&known, one, ""));
        if changes.is_empty() && deletions.is_empty() {
            return Ok(Some(Asked::Unchanged(known)));
        }
        if changes.len() > MAX_RED_HAT {
            return Ok(None);
        }
        let mut harvest = Harvest::new(feed, known);
        harvest.incremental = true;
        self.apply(&mut harvest, changes, deletions).await?;
        Ok(Some(Asked::Changed(harvest)))
    }

    async fn deletions(&self, since: i64) -> anyhow::Result<Vec<Change>> {
        match self.bytes(&self.red_hat_place("deletions.csv"), MAX_LIST).await {
            Ok(list) => Ok(redhat::read_changes(list.as_slice(), since)?),
            Err(error) if error.kind == FetchErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Fetches the changed documents.
    async fn apply(
        &self,
        harvest: &mut Harvest,
        changes: Vec<Change>,
        deletions: Vec<Change>,
    ) -> anyhow::Result<()> {
        let places = changes.iter().map(|one| (one.path.clone(), self.red_hat_place(&one.path)));
        let (found, missing) = self.singles(places.collect()).await?;
        let gone: HashSet<&str> = deletions.iter().map(|one| one.path.as_str()).collect();
        let missing: HashSet<String> =
            missing.into_iter().filter(|path| !gone.contains(path.as_str())).collect();
        anyhow::ensure!(
            !is_much(missing.len(), changes.len()),
            "{} of {} changed documents are not there, such as {}",
            missing.len(),
            changes.len(),
            missing.iter().min().map(String::as_str).unwrap_or_default()
        );
        harvest.retracted = deletions.iter().map(Change::id).collect();
        harvest.single = found;
        harvest.missing = missing.len() as u64;
        let newest = changes.iter().chain(&deletions).map(|one| one.at_ms).max();
        let newest = newest.unwrap_or(0).min(self.now_ms);
        let taken = changes.into_iter().filter(|one| !missing.contains(&one.path));
        let taken = taken.map(|one| (one.path, one.at_ms));
        let deleted = deletions.iter().map(|one| (format!("-{}", one.path), one.at_ms));
        harvest.known.saw(taken.chain(deleted), newest);
        Ok(())
    }
}

fn is_much(missing: usize, all: usize) -> bool {
    // A server that has nothing of what it lists is a mirror of the lists alone.
    missing > 0 && (missing > MAX_MISSING.max(all / 100) || missing == all)
}

/// The day in `csaf_vex_2023-10-31.tar.zst`.
fn archive_day_ms(name: &str) -> Option<i64> {
    let day = name.split(['_', '.']).find_map(|part| part.parse::<jiff::civil::Date>().ok())?;
    let midnight = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(midnight.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::{archive_day_ms, is_much};

    #[test]
    fn archives_name_their_day() {
        assert_eq!(archive_day_ms("csaf_vex_1970-01-02.tar.zst"), Some(86_400_000));
        assert_eq!(archive_day_ms("csaf_vex.tar.zst"), None);
        assert_eq!(archive_day_ms("csaf_vex_2023-13-31.tar.zst"), None);
    }

    #[test]
    fn a_few_missing_documents_are_borne() {
        for (missing, all, much) in [
            (0, 0, false),
            (1, 1, true),
            (1, 2, false),
            (10, 100, false),
            (11, 100, true),
            (50, 5000, false),
            (51, 5000, true),
        ] {
            assert_eq!(is_much(missing, all), much, "{missing} of {all}");
        }
    }
}
