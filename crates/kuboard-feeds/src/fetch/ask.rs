//! What each feed has for us: nothing new, or documents to compile.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tempfile::TempPath;

use super::{
    Downloader, Feed, FetchError, FetchErrorKind, Fetched, Fingerprint, Form, Mirror, Place,
    amazon,
    download::MAX_BYTES,
    feeds::{self, Document},
    state::Known,
};
use crate::database::Database;

/// Single documents under way at once.
const AT_ONCE: usize = 16;
/// A single document is at most this long.
const MAX_DOCUMENT: u64 = 64 << 20;
/// Lists that only point elsewhere are at most this long.
pub(super) const MAX_POINTER: u64 = 1 << 20;

/// A document, fetched and not yet parsed. The file goes away with it.
pub(super) struct Piece {
    pub(super) name: String,
    /// The namespace that it speaks of, where its content does not say.
    pub(super) namespace: &'static str,
    pub(super) file: TempPath,
}

/// What a feed has to say.
pub(super) struct Harvest {
    pub(super) feed: &'static Feed,
    /// What is known once this is compiled.
    pub(super) known: Known,
    /// Documents that hold many advisories.
    pub(super) whole: Vec<Piece>,
    /// Documents of one advisory each, newer than the whole.
    pub(super) single: Vec<Piece>,
    /// Advisories that are gone.
    pub(super) retracted: Vec<String>,
    /// Changed documents that the server names and does not have.
    pub(super) missing: u64,
    /// It is only what changed.
    pub(super) incremental: bool,
}

impl Harvest {
    pub(super) fn new(feed: &'static Feed, known: Known) -> Self {
        Self {
            feed,
            known,
            whole: Vec::new(),
            single: Vec::new(),
            retracted: Vec::new(),
            missing: 0,
            incremental: false,
        }
    }
}

pub(super) enum Asked {
    Unchanged(Known),
    Changed(Harvest),
}

/// Asks feeds.
pub(super) struct Asker {
    pub(super) downloader: Downloader,
    pub(super) mirror: Option<Mirror>,
    /// Where files are meanwhile.
    pub(super) incoming: PathBuf,
    /// What is compiled in.
    pub(super) database: Option<Arc<Database>>,
    pub(super) now_ms: i64,
}

impl Asker {
    /// Asks one feed, and says which it was.
    pub(super) async fn ask(
        &self,
        feed: &'static Feed,
        known: Known,
    ) -> (&'static Feed, anyhow::Result<Asked>) {
        let asked = match feed.form {
            Form::Osv(ecosystem) => self.osv(feed, ecosystem, known).await,
            Form::RedHat => self.red_hat(feed, known).await,
            Form::Amazon => match self.amazon().await {
                Ok(documents) => self.documents(feed, known, documents).await,
                Err(error) => Err(error),
            },
            form => {
                let documents = feeds::documents(form, self.year());
                self.documents(feed, known, documents).await
            }
        };
        (feed, asked)
    }

    fn year(&self) -> i16 {
        let now = jiff::Timestamp::from_millisecond(self.now_ms);
        now.map_or(2026, |now| now.to_zoned(jiff::tz::TimeZone::UTC).year())
    }

    pub(super) fn place(&self, path: &str, url: &str) -> Place {
        Place::of(self.mirror.as_ref(), path, url)
    }

    pub(super) async fn fetch(
        &self,
        place: &Place,
        last: Option<&Fingerprint>,
        max: u64,
    ) -> Result<Fetched, FetchError> {
        self.downloader.fetch(place, last, &self.incoming, max).await
    }

    pub(super) async fn bytes(&self, place: &Place, max: u64) -> Result<Vec<u8>, FetchError> {
        self.downloader.bytes(place, &self.incoming, max).await
    }

    /// Documents at known addresses. NVD's each stand for themselves; the others are read
    /// together, so if one changed, all are fetched.
    async fn documents(
        &self,
        feed: &'static Feed,
        mut known: Known,
        documents: Vec<Document>,
    ) -> anyhow::Result<Asked> {
        let mut new = Vec::new();
        let mut same = Vec::new();
        let mut absent = None;
        for document in documents {
            let place = self.place(&format!("{}/{}", feed.name, document.name), &document.url);
            let last = known.documents.get(&document.name);
            match self.fetch(&place, last, MAX_BYTES).await {
                Ok(Fetched::Unchanged(fingerprint)) => {
                    known.documents.insert(document.name.clone(), fingerprint);
                    same.push((document, place));
                }
                Ok(Fetched::File(file, fingerprint)) => {
                    known.documents.insert(document.name.clone(), fingerprint);
                    new.push(piece(document, file));
                }
                Err(error) if document.optional && is_absent(&error) => {
                    anyhow::ensure!(
                        last.is_none(),
                        "{place}: it was there and is gone; hint: `kuboard db update --full` goes \
                         without it"
                    );
                    absent.get_or_insert(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let (true, true, Some(error)) = (new.is_empty(), same.is_empty(), absent) {
            return Err(anyhow::Error::from(error).context("it has none of its documents"));
        }
        if new.is_empty() {
            return Ok(Asked::Unchanged(known));
        }
        let independent = feed.form == Form::Nvd;
        let mut harvest = Harvest::new(feed, known);
        harvest.incremental = independent && !same.is_empty();
        harvest.whole = new;
        for (document, place) in same.into_iter().filter(|_| !independent) {
            match self.fetch(&place, None, MAX_BYTES).await? {
                Fetched::File(file, fingerprint) => {
                    harvest.known.documents.insert(document.name.clone(), fingerprint);
                    harvest.whole.push(piece(document, file));
                }
                Fetched::Unchanged(_) => anyhow::bail!("{place} gave nothing when asked anew"),
            }
        }
        Ok(Asked::Changed(harvest))
    }

    /// Fetches documents of one advisory each: what is there, and the names of what is not.
    pub(super) async fn singles(
        &self,
        wanted: Vec<(String, Place)>,
    ) -> Result<(Vec<Piece>, Vec<String>), FetchError> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        let mut wanted = wanted.into_iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some((name, place)) = wanted.next()
            {
                under_way.push(self.single(name, place));
            }
            let Some((name, fetched)) = under_way.next().await else { break };
            match fetched {
                Ok(Fetched::File(file, _)) => found.push(Piece { name, namespace: "", file }),
                Ok(Fetched::Unchanged(_)) => {}
                Err(error) if error.kind == FetchErrorKind::NotFound => missing.push(name),
                Err(error) => return Err(error),
            }
        }
        found.sort_by(|one, two| one.name.cmp(&two.name));
        Ok((found, missing))
    }

    async fn single(&self, name: String, place: Place) -> (String, Result<Fetched, FetchError>) {
        let fetched = self.fetch(&place, None, MAX_DOCUMENT).await;
        (name, fetched)
    }

    async fn amazon(&self) -> anyhow::Result<Vec<Document>> {
        let mut documents = Vec::new();
        for (namespace, name, list) in amazon::RELEASES {
            let url = match &self.mirror {
                Some(_) => String::new(),
                None => self.updateinfo(list).await?,
            };
            documents.push(Document { name: name.to_owned(), url, namespace, optional: false });
        }
        Ok(documents)
    }

    /// The first mirror of a list that answers.
    async fn updateinfo(&self, list: &str) -> anyhow::Result<String> {
        let listed = self.bytes(&Place::Url(list.to_owned()), MAX_POINTER).await?;
        let mut last = None;
        for base in amazon::mirrors(&listed) {
            let index = Place::Url(format!("{base}repodata/repomd.xml"));
            match self.bytes(&index, MAX_POINTER).await {
                Ok(index) => match amazon::updateinfo(&index) {
                    Some(path) => return Ok(format!("{base}{path}")),
                    None => last = Some(anyhow::anyhow!("{base}: its index names no updateinfo")),
                },
                Err(error) => last = Some(error.into()),
            }
        }
        Err(last.context(format!("{list} names no mirror by https"))?)
    }
}

fn piece(document: Document, file: TempPath) -> Piece {
    Piece { name: document.name, namespace: document.namespace, file }
}

/// Stores of objects say "forbidden" of what they do not have.
fn is_absent(error: &FetchError) -> bool {
    matches!(error.kind, FetchErrorKind::NotFound | FetchErrorKind::Denied)
}
