//! Documents into the next generation of the database.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;

use super::{
    FeedOutcome, Form,
    ask::{Harvest, Piece},
    state::{Known, OVERLAP_MS},
};
use crate::{
    Sink,
    database::{Builder, Database, DatabaseError, Generations},
    parse::{self, Summary},
};

/// A feed that had so many advisories and has less than half is not believed.
const SHRINK_FROM: u64 = 50;

pub(super) struct Compilation {
    /// For scratch files, in the file system of the generations.
    pub(super) folder: PathBuf,
    pub(super) generations: Arc<Generations>,
    pub(super) previous: Option<Arc<Database>>,
    /// Generations that are there and no good.
    pub(super) damaged: BTreeSet<u64>,
    pub(super) now_ms: i64,
    /// What was compiled in, by feed.
    pub(super) known: BTreeMap<&'static str, Known>,
    /// A feed may shrink, or go back.
    pub(super) full: bool,
    /// A feed of advisories could not be had at all.
    pub(super) lacking: bool,
}

pub(super) enum Compiled {
    /// What was compiled before can't be carried over.
    Damaged(DatabaseError),
    Done {
        /// The new one; `None` if nothing good came.
        database: Option<Arc<Database>>,
        feeds: Vec<(&'static str, FeedOutcome, Known)>,
    },
}

impl Compilation {
    /// Parses and compiles. A feed that turns out bad has already fed the builder: all is begun
    /// again without it.
    pub(super) fn run(&self, harvests: Vec<Harvest>) -> anyhow::Result<Compiled> {
        if let Some(Err(error)) = self.previous.as_ref().map(|previous| previous.verify()) {
            return Ok(Compiled::Damaged(error));
        }
        let mut good = harvests;
        let mut feeds = Vec::new();
        loop {
            if good.is_empty() {
                return Ok(Compiled::Done { database: None, feeds });
            }
            if let Some(why) = self.says_nothing(&good, &feeds) {
                let failed = |one: Harvest| (one.feed.name, failed(why.to_owned()), one.known);
                feeds.extend(good.into_iter().map(failed));
                return Ok(Compiled::Done { database: None, feeds });
            }
            let mut builder = Builder::new(&self.folder, self.previous.clone())?;
            let mut read = Vec::new();
            let mut bad = None;
            for (position, harvest) in good.iter().enumerate() {
                match self.feed(harvest, &mut builder) {
                    Ok(summary) => read.push(summary),
                    Err(error) => {
                        bad = Some((position, format!("{error:#}")));
                        break;
                    }
                }
            }
            if let Some((position, why)) = bad {
                let harvest = good.remove(position);
                feeds.push((harvest.feed.name, failed(why), harvest.known.clone()));
                continue;
            }
            let database = self.install(builder, &good)?;
            for (harvest, (summary, known)) in good.iter().zip(read) {
                let outcome = FeedOutcome::Updated {
                    read: summary.advisories,
                    skipped: summary.skipped_count,
                    incremental: harvest.incremental,
                };
                feeds.push((harvest.feed.name, outcome, known));
            }
            return Ok(Compiled::Done { database: Some(database), feeds });
        }
    }

    /// A first database with nothing but figures would call every image clean.
    fn says_nothing(
        &self,
        good: &[Harvest],
        feeds: &[(&'static str, FeedOutcome, Known)],
    ) -> Option<&'static str> {
        let lacking = self.lacking || !feeds.is_empty();
        let known = self.previous.as_ref().is_some_and(|previous| !previous.is_empty());
        let any = good.iter().any(|harvest| !is_figures(harvest.feed.form));
        (lacking && !known && !any)
            .then_some("no feed of advisories can be had, and figures alone are no database")
    }

    fn install(&self, mut builder: Builder, good: &[Harvest]) -> anyhow::Result<Arc<Database>> {
        let anew: Vec<&str> = good
            .iter()
            .filter(|harvest| !harvest.incremental)
            .flat_map(|harvest| harvest.feed.sources.iter().copied())
            .collect();
        builder.carry(&|source| !anew.contains(&source))?;
        let generation = self.generations.next()?;
        // Made aside: whoever opens the folder meanwhile clears away what looks left over there.
        let aside = self.folder.join("next.kbdb");
        builder.finish(&aside, generation, self.now_ms)?;
        Database::open(&aside)?.verify()?;
        let to = self.generations.path(generation);
        fs::rename(&aside, &to).with_context(|| format!("{} can't be made", to.display()))?;
        for damaged in &self.damaged {
            // Else it would be the one that is kept for a bad day.
            let _gone = fs::remove_file(self.generations.path(*damaged));
        }
        Ok(self.generations.install(generation)?)
    }

    /// Parses a feed into the builder.
    fn feed(&self, harvest: &Harvest, builder: &mut Builder) -> anyhow::Result<(Summary, Known)> {
        let before = self.known.get(harvest.feed.name).filter(|_| !self.full);
        if let Some(before) = before.filter(|before| before.advisories >= SHRINK_FROM) {
            let gone = harvest.retracted.len() as u64;
            anyhow::ensure!(
                gone * 2 <= before.advisories || !harvest.incremental,
                "{gone} of its {} advisories are said to be gone; hint: if that is right, \
                 `kuboard db update --full` takes it",
                before.advisories
            );
        }
        let mut summary = read(harvest, builder)?;
        summary.skipped_count += harvest.missing;
        if let Some(before) = before.filter(|_| !harvest.incremental) {
            believe(&summary, before)?;
        }
        let known = self.after(harvest, &summary);
        let text = known.to_text();
        for (position, source) in harvest.feed.sources.iter().enumerate() {
            builder.source(source, self.now_ms, if position == 0 { &text } else { "" });
        }
        Ok((summary, known))
    }

    fn after(&self, harvest: &Harvest, summary: &Summary) -> Known {
        let mut known = harvest.known.clone();
        if !harvest.incremental {
            known.advisories = summary.advisories;
        }
        // Red Hat's lists tell by their own time, which its fetcher has noted.
        if harvest.feed.form != Form::RedHat {
            let newest = summary.newest_modified_ms.unwrap_or(0).min(self.now_ms);
            known.newest_ms = known.newest_ms.max(newest);
        }
        known
    }
}

fn failed(why: String) -> FeedOutcome {
    FeedOutcome::Failed { why }
}

/// Whether a feed only rates, and names no vulnerable package.
pub(super) fn is_figures(form: Form) -> bool {
    matches!(form, Form::Nvd | Form::Epss | Form::Kev | Form::EndOfLife)
}

/// A whole feed is compared with what it was.
fn believe(summary: &Summary, before: &Known) -> anyhow::Result<()> {
    anyhow::ensure!(
        before.advisories < SHRINK_FROM || summary.advisories >= before.advisories.div_ceil(2),
        "it has {} advisories where it had {}; hint: if that is right, `kuboard db update --full` \
         takes it",
        summary.advisories,
        before.advisories
    );
    let newest = summary.newest_modified_ms.unwrap_or(i64::MAX);
    anyhow::ensure!(
        // Some sources date nothing, or from the year 1.
        before.newest_ms <= 0 || newest >= before.newest_ms.saturating_sub(OVERLAP_MS),
        "it went back in time: its newest change is older than what is compiled in; hint: \
         `kuboard db update --full` takes it all the same"
    );
    Ok(())
}

/// Parses the documents of a feed: the whole, then what is gone since, then what changed since.
fn read(harvest: &Harvest, sink: &mut Builder) -> anyhow::Result<Summary> {
    let mut total = Summary::default();
    if !harvest.whole.is_empty() {
        total = whole(harvest, sink)?;
    }
    for source in harvest.feed.sources {
        for id in &harvest.retracted {
            sink.retract(source, id);
        }
    }
    let (mut good, mut bad) = (0_u64, 0_u64);
    let mut first = None;
    for piece in &harvest.single {
        match single(harvest, piece, sink) {
            Ok(()) => good += 1,
            Err(error) => {
                tracing::debug!(document = %piece.name, %error, "document skipped");
                first.get_or_insert(format!("{}: {error:#}", piece.name));
                bad += 1;
            }
        }
    }
    anyhow::ensure!(
        bad <= good,
        "{bad} of {} changed documents are bad; the first one is {}",
        harvest.single.len(),
        first.unwrap_or_default()
    );
    total.advisories += good;
    total.skipped_count += bad;
    Ok(total)
}

fn single(harvest: &Harvest, piece: &Piece, sink: &mut Builder) -> anyhow::Result<()> {
    let bytes = fs::read(&piece.file)?;
    match harvest.feed.form {
        Form::Osv(ecosystem) => {
            let source = harvest.feed.sources.first().copied().unwrap_or_default();
            let part = parse::osv::Feed { source, ecosystem: Some(ecosystem) };
            Ok(parse::osv::apply_document(&bytes, &part, sink)?)
        }
        _ => Ok(parse::redhat::apply_document(&bytes, sink)?),
    }
}

fn whole(harvest: &Harvest, sink: &mut Builder) -> anyhow::Result<Summary> {
    let Harvest { feed, whole, .. } = harvest;
    match feed.form {
        Form::Secdb(family) => {
            let mut reader = parse::secdb::Reader::new(family);
            for piece in whole {
                reader.read(open(&piece.file)?).with_context(|| piece.name.clone())?;
            }
            Ok(reader.finish(sink)?)
        }
        Form::Azure => {
            let mut total = Summary::default();
            for source in feed.sources {
                let of = |piece: &&Piece| piece.namespace.split(':').next() == Some(*source);
                let mut reader = parse::azure::Reader::new(source);
                for piece in whole.iter().filter(of) {
                    let input = open(&piece.file)?;
                    reader.read(input, piece.namespace).with_context(|| piece.name.clone())?;
                }
                add(&mut total, reader.finish(sink)?);
            }
            Ok(total)
        }
        Form::Photon => {
            let mut reader = parse::photon::Reader::new();
            for piece in whole {
                let input = open(&piece.file)?;
                reader.read(input, piece.namespace).with_context(|| piece.name.clone())?;
            }
            Ok(reader.finish(sink)?)
        }
        _ => {
            let mut total = Summary::default();
            for piece in whole {
                let part = one(harvest, piece, sink).with_context(|| piece.name.clone())?;
                add(&mut total, part);
            }
            Ok(total)
        }
    }
}

/// A document that is read by itself.
fn one(harvest: &Harvest, piece: &Piece, sink: &mut Builder) -> anyhow::Result<Summary> {
    let input = open(&piece.file)?;
    let source = harvest.feed.sources.first().copied().unwrap_or_default();
    let summary = match harvest.feed.form {
        Form::Osv(ecosystem) => {
            let part = parse::osv::Feed { source, ecosystem: Some(ecosystem) };
            parse::osv::parse_zip(input, &part, sink)
        }
        Form::RedHat => parse::redhat::parse_archive(input, sink),
        Form::Debian => parse::debian::parse(input, sink),
        Form::Ubuntu => parse::ubuntu::parse(input, sink),
        Form::Suse => parse::suse::parse_archive(input, sink),
        Form::Amazon => parse::amazon::parse(input, piece.namespace, sink),
        Form::Oracle => parse::oracle::parse(input, sink),
        Form::Nvd => parse::nvd::parse(input, sink),
        Form::Epss => parse::epss::parse(input, sink),
        Form::Kev => parse::kev::parse(input, sink),
        Form::EndOfLife => parse::eol::parse(input, sink),
        Form::Secdb(_) | Form::Azure | Form::Photon => return whole(harvest, sink),
    };
    Ok(summary?)
}

fn open(path: &Path) -> anyhow::Result<fs::File> {
    fs::File::open(path).with_context(|| format!("{} can't be read", path.display()))
}

fn add(total: &mut Summary, part: Summary) {
    total.advisories += part.advisories;
    total.skipped_count += part.skipped_count;
    total.ignored += part.ignored;
    total.newest_modified_ms = total.newest_modified_ms.max(part.newest_modified_ms);
    let room = parse::MAX_NAMED_SKIPS.saturating_sub(total.skipped.len());
    total.skipped.extend(part.skipped.into_iter().take(room));
}
