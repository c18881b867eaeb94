//! One update: ask all feeds, compile what changed, swap.
//!
//! A feed that fails in any way (no answer, throttled, garbage, cut off, suddenly half as large,
//! older than before) leaves its last good advisories in use: they are carried over into the new
//! database. If nothing changed, the database stays as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use futures_util::{StreamExt, stream::FuturesUnordered};
use kuboard_rt::{Clock, Tasks};
use serde::Serialize;

use super::{
    Downloader, FEEDS, Feed, FeedState, Mirror,
    ask::{Asked, Asker, Harvest},
    compile::{Compilation, Compiled, is_figures},
    state::{self, Known, Lock, States},
};
use crate::database::{Database, Generations};

/// Feeds under way at once.
const FEEDS_AT_ONCE: usize = 4;
/// Generations that may turn out damaged in one update; so many are never kept.
const MAX_DAMAGED: usize = 8;

/// What an updater is made of.
pub struct UpdaterConfig {
    /// Folder of the database.
    pub folder: PathBuf,
    /// Names of feeds to use, or of families of them (`osv`); none means all.
    pub feeds: Vec<String>,
    /// One base for all feeds instead of their own addresses: see [`Mirror`].
    pub mirror: Option<String>,
    /// PEM certificates that are trusted besides the system's.
    pub authority: Option<Vec<u8>>,
}

/// What came of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum FeedOutcome {
    /// Nothing new.
    Unchanged,
    /// Compiled anew.
    Updated {
        /// Advisories (or figures) that were read.
        read: u64,
        /// Items that could not be read.
        skipped: u64,
        /// Only what changed was fetched.
        incremental: bool,
    },
    /// Its last good content stays in use.
    Failed {
        /// Why.
        why: String,
    },
}

/// What came of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UpdateReport {
    /// The new generation; `None` if the database stays as it is.
    pub generation: Option<u64>,
    /// By feed.
    pub feeds: BTreeMap<String, FeedOutcome>,
}

/// Keeps a database up to date.
pub struct Updater {
    folder: PathBuf,
    feeds: Vec<&'static Feed>,
    mirror: Option<Mirror>,
    downloader: Downloader,
    generations: Arc<Generations>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
}

/// What one update works on.
struct Run {
    lock: Arc<Lock>,
    now_ms: i64,
    full: bool,
    states: States,
    report: UpdateReport,
    /// Generations that are there and no good.
    damaged: BTreeSet<u64>,
}

impl Updater {
    /// Makes the folder if need be; nobody is asked yet.
    ///
    /// # Errors
    /// A feed or the mirror is unknown, the folder can't be used, or the certificate can't be
    /// read.
    pub fn new(
        config: UpdaterConfig,
        generations: Arc<Generations>,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
    ) -> anyhow::Result<Self> {
        let feeds = chosen(&config.feeds)?;
        let mirror: Option<Mirror> = config.mirror.as_deref().map(str::parse).transpose()?;
        let direct = mirror.as_ref().is_some_and(Mirror::is_local);
        let downloader = Downloader::new(config.authority.as_deref(), direct)?;
        let folder = config.folder;
        fs::create_dir_all(folder.join("incoming"))
            .with_context(|| format!("{} can't be used", folder.display()))?;
        Ok(Self { folder, feeds, mirror, downloader, generations, clock, tasks })
    }

    /// The same with another downloader, for tests.
    #[must_use]
    pub fn with_downloader(mut self, downloader: Downloader) -> Self {
        self.downloader = downloader;
        self
    }

    /// What is remembered of all feeds; nothing where it can't be read.
    #[must_use]
    pub fn states(folder: &Path) -> BTreeMap<String, FeedState> {
        state::load(folder)
    }

    fn incoming(&self) -> PathBuf {
        self.folder.join("incoming")
    }

    /// Asks all feeds, and compiles a new database if something changed. With `full`, nothing
    /// that is known is believed: every document is fetched, and a feed may shrink or go back.
    /// What a feed that fails last said stays in use all the same.
    ///
    /// # Errors
    /// Another update of the folder is under way, or the new database can't be written. The last
    /// one stays in use.
    pub async fn update(&self, full: bool) -> anyhow::Result<UpdateReport> {
        let mut run = Run {
            lock: Arc::new(Lock::take(&self.folder)?),
            now_ms: self.clock.now_ms(),
            full,
            states: state::load(&self.folder),
            report: UpdateReport::default(),
            damaged: BTreeSet::new(),
        };
        self.sweep();
        self.generations.sweep();
        loop {
            let previous = self.sound(&run.damaged);
            let damaged = previous.as_ref().map(|previous| previous.generation());
            let outcome = self.attempt(&mut run, previous).await;
            match (outcome, damaged) {
                (Ok(true), _) => break,
                (Ok(false), Some(damaged)) if run.damaged.len() < MAX_DAMAGED => {
                    run.damaged.insert(damaged);
                    run.report = UpdateReport::default();
                }
                (Ok(false), _) => anyhow::bail!("the advisories of all generations are damaged"),
                (Err(error), _) => {
                    if let Err(error) = state::save(&self.folder, &run.states) {
                        tracing::warn!("{error:#}");
                    }
                    return Err(error);
                }
            }
        }
        state::save(&self.folder, &run.states)?;
        Ok(run.report)
    }

    /// Removes what a killed update left.
    fn sweep(&self) {
        for entry in fs::read_dir(self.incoming()).into_iter().flatten().flatten() {
            let _gone = fs::remove_file(entry.path());
        }
    }

    /// The database in use, or where that is damaged the one before; `None` is as good as none,
    /// for all can be fetched anew.
    fn sound(&self, damaged: &BTreeSet<u64>) -> Option<Arc<Database>> {
        if damaged.is_empty() {
            let current = self.generations.current();
            return current
                .inspect_err(|error| tracing::warn!(%error, "the advisories are fetched anew"))
                .ok()
                .flatten();
        }
        let numbers = self.generations.numbers().unwrap_or_default();
        let others = numbers.into_iter().filter(|number| !damaged.contains(number));
        others.filter_map(|number| Database::open(&self.generations.path(number)).ok()).next()
    }

    /// One round by what `previous` holds. False if that is damaged.
    async fn attempt(
        &self,
        run: &mut Run,
        previous: Option<Arc<Database>>,
    ) -> anyhow::Result<bool> {
        let asker = Asker {
            downloader: self.downloader.clone(),
            mirror: self.mirror.clone(),
            incoming: self.incoming(),
            database: previous.clone(),
            now_ms: run.now_ms,
        };
        let known: BTreeMap<&'static str, Known> = self
            .feeds
            .iter()
            .map(|feed| {
                let state = run.states.get(feed.name);
                (feed.name, Known::of(feed, previous.as_deref(), state))
            })
            .collect();
        let mut harvests = Vec::new();
        let mut lacking = false;
        let mut waiting = self.feeds.iter();
        let mut asking = FuturesUnordered::new();
        loop {
            while asking.len() < FEEDS_AT_ONCE
                && let Some(feed) = waiting.next()
            {
                let known = known.get(feed.name).filter(|_| !run.full).cloned();
                asking.push(asker.ask(feed, known.unwrap_or_default()));
            }
            let Some((feed, asked)) = asking.next().await else { break };
            match asked {
                Ok(Asked::Unchanged(known)) => run.unchanged(feed, known, previous.as_deref()),
                Ok(Asked::Changed(harvest)) => harvests.push(harvest),
                Err(error) => {
                    lacking |= !is_figures(feed.form);
                    run.failed(feed.name, &format!("{error:#}"));
                }
            }
        }
        drop(asking);
        if harvests.is_empty() {
            return Ok(true);
        }
        harvests.sort_by_key(|harvest| harvest.feed.name);
        let compilation = Compilation {
            folder: self.incoming(),
            generations: self.generations.clone(),
            previous,
            damaged: run.damaged.clone(),
            now_ms: run.now_ms,
            known,
            full: run.full,
            lacking,
        };
        self.compile(run, compilation, harvests).await
    }

    /// Parses and compiles on a thread of its own.
    async fn compile(
        &self,
        run: &mut Run,
        compilation: Compilation,
        harvests: Vec<Harvest>,
    ) -> anyhow::Result<bool> {
        let names: Vec<&str> = harvests.iter().map(|harvest| harvest.feed.name).collect();
        let before = compilation.previous.as_ref().map(|previous| state::checksum(previous));
        // The thread goes on when this future is dropped, and nobody else may write then.
        let lock = run.lock.clone();
        let work = move || {
            let compiled = compilation.run(harvests);
            drop(lock);
            compiled
        };
        let compiled = self.tasks.blocking("compile advisories", work).await;
        let compiled = match compiled.map_err(anyhow::Error::from).and_then(|compiled| compiled) {
            Ok(compiled) => compiled,
            Err(error) => {
                let error = error.context("the new advisories can't be compiled");
                for name in names {
                    run.failed(name, &format!("{error:#}"));
                }
                return Err(error);
            }
        };
        match compiled {
            Compiled::Damaged(error) => {
                tracing::warn!(%error, "the advisories in use are not built on");
                Ok(false)
            }
            Compiled::Done { database, feeds } => {
                if let Some(database) = &database {
                    run.report.generation = Some(database.generation());
                    run.moved(before.as_deref().unwrap_or_default(), &state::checksum(database));
                }
                for (name, outcome, known) in feeds {
                    match outcome {
                        FeedOutcome::Failed { why } => run.failed(name, &why),
                        outcome => {
                            run.good(name, known, database.as_deref());
                            run.report.feeds.insert(name.to_owned(), outcome);
                        }
                    }
                }
                Ok(true)
            }
        }
    }
}

impl Run {
    fn unchanged(&mut self, feed: &Feed, known: Known, database: Option<&Database>) {
        self.good(feed.name, known, database);
        self.report.feeds.insert(feed.name.to_owned(), FeedOutcome::Unchanged);
    }

    fn good(&mut self, name: &str, known: Known, database: Option<&Database>) {
        let state = FeedState {
            documents: known.documents,
            newest_ms: known.newest_ms,
            asked_ms: self.now_ms,
            good_ms: self.now_ms,
            advisories: known.advisories,
            error: String::new(),
            database: database.map(state::checksum).unwrap_or_default(),
        };
        self.states.insert(name.to_owned(), state);
    }

    fn failed(&mut self, name: &str, why: &str) {
        tracing::warn!(feed = name, why, "feed not updated; its last good content stays in use");
        let state = self.states.entry(name.to_owned()).or_default();
        state.asked_ms = self.now_ms;
        why.clone_into(&mut state.error);
        let outcome = FeedOutcome::Failed { why: why.to_owned() };
        self.report.feeds.insert(name.to_owned(), outcome);
    }

    /// What was not compiled anew was carried over as it is.
    fn moved(&mut self, before: &str, after: &str) {
        for state in self.states.values_mut().filter(|state| state.database == before) {
            after.clone_into(&mut state.database);
        }
    }
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Feed>> {
    if names.is_empty() {
        return Ok(FEEDS.iter().collect());
    }
    let mut chosen: Vec<&'static Feed> = Vec::new();
    for name in names {
        let is_named = |feed: &&Feed| {
            feed.name == name || feed.name.split_once(':').is_some_and(|(family, _)| family == name)
        };
        let mut named = FEEDS.iter().filter(is_named).peekable();
        if named.peek().is_none() {
            let all: Vec<_> = FEEDS.iter().map(|feed| feed.name).collect();
            anyhow::bail!("no feed is called {name}; hint: there are {}", all.join(", "));
        }
        for feed in named {
            if !chosen.iter().any(|other| other.name == feed.name) {
                chosen.push(feed);
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::{Updater, chosen};

    /// The service runs updates in tasks that move between threads.
    #[test]
    fn an_update_may_move_between_threads() {
        fn is_send<T: Send>(_: T) {}
        fn check(updater: &Updater) {
            is_send(updater.update(false));
        }
        let _compiles: fn(&Updater) = check;
    }

    #[test]
    fn feeds_are_chosen_once_by_name_or_family() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(&names).map(|feeds| feeds.iter().map(|feed| feed.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["kev", "debian", "kev"]).unwrap(), ["kev", "debian"]);
        assert!(names(&["osv", "osv:go"]).unwrap().len() > 5);
        assert_eq!(names(&[]).unwrap().len(), super::FEEDS.len());
        let error = names(&["nonsense"]).unwrap_err().to_string();
        assert!(error.contains("hint: there are debian"), "{error}");
    }
}
