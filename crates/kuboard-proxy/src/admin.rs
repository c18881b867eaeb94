//! What the operator of a cache asks and orders: what is in it, what to drop, what to keep.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context, bail};
use kuboard_catalog::{Catalog, Kind};
use kuboard_oci::{Digest, MAX_MANIFEST_BYTES, Manifest, Tag};
use kuboard_rt::Clock;
use kuboard_store::Cache;
use serde::{Deserialize, Serialize};

use crate::{manifest_cache::ManifestCache, proxied::Proxied};

/// Names read from the catalogue at once.
const PAGE: u32 = 500;

/// Manifests followed from one image: an index of all platforms with attestations stays below.
const MAX_CHILDREN: usize = 1000;

/// The orders of an operator, on a running server or on its data folder.
#[derive(Clone)]
pub struct Admin {
    pub(crate) cache: Arc<Cache>,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<dyn Clock>,
    /// Memory of a running server that must forget what is removed.
    pub(crate) running: Option<Running>,
}

/// The memories of a running server.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) proxied: Arc<Proxied>,
    pub(crate) manifests: Arc<ManifestCache>,
}

/// One cached tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedImage {
    /// `docker.io/library/alpine`.
    pub repository: String,
    /// `3.20`.
    pub tag: String,
    /// Of the manifest or index that the tag names.
    pub digest: Digest,
    /// Bytes of its manifests and blobs that are in the cache now.
    pub cached_bytes: u64,
    /// Bytes that all its manifests and blobs would take, as far as its manifests are here.
    pub total_bytes: u64,
    /// Kept whatever else must go.
    pub pinned: bool,
    /// When the upstream last confirmed the tag, Unix milliseconds.
    pub checked_ms: i64,
}

/// One cached blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedBlob {
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Times it was opened since the server started.
    pub hits: u64,
    /// Kept whatever else must go.
    pub pinned: bool,
    /// Being read at the moment.
    pub leased: bool,
}

/// The cache at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Bytes of all blobs.
    pub used_bytes: u64,
    /// The bound, `cache.cacheSizeGB`.
    pub limit_bytes: u64,
    /// Blobs and manifests.
    pub blobs: u64,
    /// Those that are pinned.
    pub pinned_blobs: u64,
    /// Those evicted since the server started.
    pub evicted_blobs: u64,
    /// Bytes evicted since the server started.
    pub evicted_bytes: u64,
    /// Downloads under way; 0 when no server runs.
    pub fills_running: usize,
}

/// What [`Admin::remove`], [`Admin::pin`] and [`Admin::unpin`] touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Touched {
    /// Blobs and manifests.
    pub digests: Vec<Digest>,
    /// Their bytes.
    pub bytes: u64,
    /// The names by which they went.
    pub tags: Vec<String>,
}

/// What an order names: a digest, a repository, or a tag or digest in one.
enum Named {
    Digest(Digest),
    Repository(String),
    Tagged { repository: String, tag: Tag },
}

impl Named {
    fn parse(target: &str) -> anyhow::Result<Self> {
        if let Ok(digest) = target.parse::<Digest>() {
            return Ok(Self::Digest(digest));
        }
        if let Some((_, digest)) = target.split_once('@') {
            return Ok(Self::Digest(digest.parse().context("after @ a digest must stand")?));
        }
        let slash = target.rfind('/').map_or(0, |at| at + 1);
        match target[slash..].split_once(':') {
            Some((last, tag)) => Ok(Self::Tagged {
                repository: format!("{}{last}", &target[..slash]),
                tag: tag.parse().with_context(|| format!("{tag} is no tag"))?,
            }),
            None => Ok(Self::Repository(target.to_owned())),
        }
    }
}

impl Admin {
    /// The orders on a folder that no server runs on.
    pub fn offline(cache: Arc<Cache>, catalog: Catalog, clock: Arc<dyn Clock>) -> Self {
        Self { cache, catalog, clock, running: None }
    }

    /// All cached tags, by repository and tag.
    pub async fn images(&self) -> anyhow::Result<Vec<CachedImage>> {
        let mut images = Vec::new();
        let pins = self.catalog.pins().await?;
        let pinned: BTreeSet<Digest> = pins.into_iter().map(|pin| pin.digest).collect();
        for repository in self.repositories().await? {
            for tag in self.tags(&repository).await? {
                let Some(row) = self.catalog.resolve(&repository, &tag).await? else { continue };
                let closure = self.closure(&row.digest).await;
                images.push(CachedImage {
                    repository: repository.clone(),
                    tag: tag.to_string(),
                    digest: row.digest,
                    cached_bytes: self.held(&closure.digests).await,
                    total_bytes: closure.bytes,
                    pinned: pinned.contains(&row.digest),
                    checked_ms: row.checked_ms,
                });
            }
        }
        Ok(images)
    }

    /// All cached blobs, largest first.
    pub fn blobs(&self) -> Vec<CachedBlob> {
        let mut blobs: Vec<_> = self
            .cache
            .entries()
            .into_iter()
            .map(|entry| CachedBlob {
                digest: entry.digest,
                size: entry.size,
                hits: entry.hits,
                pinned: entry.pinned,
                leased: entry.leased,
            })
            .collect();
        blobs.sort_by(|a, b| b.size.cmp(&a.size).then(a.digest.cmp(&b.digest)));
        blobs
    }

    /// The cache at a glance.
    pub fn stats(&self) -> Stats {
        let stats = self.cache.stats();
        Stats {
            used_bytes: stats.used,
            limit_bytes: stats.max,
            blobs: stats.entries as u64,
            pinned_blobs: stats.pinned as u64,
            evicted_blobs: stats.evicted,
            evicted_bytes: stats.evicted_bytes,
            fills_running: self.running.as_ref().map_or(0, |r| r.proxied.fills_running()),
        }
    }

    /// Drops what `target` names from the cache: a digest, `REPOSITORY` or `REPOSITORY:TAG`.
    /// Blobs that another cached tag uses as well stay.
    pub async fn remove(&self, target: &str) -> anyhow::Result<Touched> {
        let mut touched = Touched::default();
        match Named::parse(target)? {
            Named::Digest(digest) => self.drop_digests([digest].into(), &mut touched).await?,
            Named::Tagged { repository, tag } => {
                self.drop_tags(&repository, vec![tag], &mut touched).await?;
            }
            Named::Repository(repository) => {
                let tags = self.tags(&repository).await?;
                self.drop_tags(&repository, tags, &mut touched).await?;
            }
        }
        if touched.digests.is_empty() && touched.tags.is_empty() {
            bail!("the cache holds nothing named {target}; hint: see `kuboard cache ls`");
        }
        Ok(touched)
    }

    /// Keeps what `target` names, whatever else must go, until [`Admin::unpin`].
    pub async fn pin(&self, target: &str) -> anyhow::Result<Touched> {
        let closure = self.named_closure(target).await?;
        let now_ms = self.clock.now_ms();
        for digest in &closure.digests {
            self.catalog.add_pin(digest, target, now_ms).await?;
            self.cache.pin(digest);
        }
        Ok(Touched { digests: closure.digests, bytes: closure.bytes, tags: vec![target.into()] })
    }

    /// Takes a pin back, by the name it was given or by digest.
    pub async fn unpin(&self, target: &str) -> anyhow::Result<Touched> {
        let mut touched = Touched::default();
        let pins = self.catalog.pins().await?;
        let named = target.parse::<Digest>().ok();
        for pin in pins.iter().filter(|pin| pin.reason == target || Some(pin.digest) == named) {
            self.catalog.remove_pin(&pin.digest, &pin.reason).await?;
            let kept_otherwise =
                pins.iter().any(|other| other.digest == pin.digest && other.reason != pin.reason);
            if named.is_some() || !kept_otherwise {
                self.cache.unpin(&pin.digest);
            }
            touched.bytes += self.cache.stat(&pin.digest).await.unwrap_or(0);
            touched.digests.push(pin.digest);
        }
        if touched.digests.is_empty() {
            bail!("nothing is pinned as {target}; hint: see `kuboard cache ls`");
        }
        Ok(touched)
    }

    async fn repositories(&self) -> anyhow::Result<Vec<String>> {
        let mut all: Vec<String> = Vec::new();
        loop {
            let after = all.last().cloned();
            let page =
                self.catalog.repositories(Some(Kind::Cached), after.as_deref(), PAGE).await?;
            let last_page = page.len() < PAGE as usize;
            all.extend(page);
            if last_page {
                return Ok(all);
            }
        }
    }

    async fn tags(&self, repository: &str) -> anyhow::Result<Vec<Tag>> {
        let mut all: Vec<Tag> = Vec::new();
        loop {
            let after = all.last().map(Tag::to_string);
            let page = self.catalog.tags(repository, after.as_deref(), PAGE).await?;
            let page = page.unwrap_or_default();
            let last_page = page.len() < PAGE as usize;
            all.extend(page.iter().filter_map(|tag| tag.parse().ok()));
            if last_page {
                return Ok(all);
            }
        }
    }

    async fn named_closure(&self, target: &str) -> anyhow::Result<Closure> {
        let root = match Named::parse(target)? {
            Named::Digest(digest) => digest,
            Named::Tagged { repository, tag } => {
                let row = self.catalog.resolve(&repository, &tag).await?;
                row.map(|row| row.digest)
                    .with_context(|| format!("{target} is not cached; hint: pull it first"))?
            }
            Named::Repository(repository) => {
                bail!("{repository} names a repository; hint: name a tag, {repository}:TAG")
            }
        };
        if self.cache.stat(&root).await.is_none() {
            bail!("{target} is not cached; hint: pull it first");
        }
        Ok(self.closure(&root).await)
    }

    /// The digest and all that its manifests lead to, as far as they are here.
    async fn closure(&self, root: &Digest) -> Closure {
        let mut closure = Closure::default();
        let mut seen = BTreeSet::new();
        let mut queue = vec![(*root, self.cache.stat(root).await.unwrap_or(0))];
        while let Some((digest, size)) = queue.pop() {
            if seen.len() > MAX_CHILDREN || !seen.insert(digest) {
                continue;
            }
            closure.digests.push(digest);
            closure.bytes += size;
            let Some(manifest) = self.manifest(&digest).await else { continue };
            for blob in manifest.blobs() {
                if seen.insert(blob.digest) {
                    closure.digests.push(blob.digest);
                    closure.bytes += blob.size;
                }
            }
            queue.extend(manifest.children().map(|child| (child.digest, child.size)));
        }
        closure
    }

    /// Bytes of these digests that are in the cache.
    async fn held(&self, digests: &[Digest]) -> u64 {
        let mut bytes = 0;
        for digest in digests {
            bytes += self.cache.stat(digest).await.unwrap_or(0);
        }
        bytes
    }

    async fn manifest(&self, digest: &Digest) -> Option<Manifest> {
        if self.cache.stat(digest).await? > MAX_MANIFEST_BYTES as u64 {
            return None;
        }
        let leased = self.cache.open_blob(digest).await.ok()??;
        let bytes = leased.bytes(MAX_MANIFEST_BYTES).await.ok()?;
        if bytes.first() != Some(&b'{') {
            return None;
        }
        Manifest::parse(&bytes, None).ok()
    }

    async fn drop_tags(
        &self,
        repository: &str,
        tags: Vec<Tag>,
        touched: &mut Touched,
    ) -> anyhow::Result<()> {
        let mut doomed = BTreeSet::new();
        for tag in tags {
            if let Some(row) = self.catalog.resolve(repository, &tag).await? {
                doomed.extend(self.closure(&row.digest).await.digests);
                self.catalog.delete_tag(repository, &tag).await?;
                touched.tags.push(format!("{repository}:{tag}"));
            }
        }
        for image in self.images().await? {
            for digest in self.closure(&image.digest).await.digests {
                doomed.remove(&digest);
            }
        }
        self.drop_digests(doomed, touched).await?;
        if let Some(running) = &self.running {
            running.proxied.forget(repository);
        }
        Ok(())
    }

    async fn drop_digests(
        &self,
        doomed: BTreeSet<Digest>,
        touched: &mut Touched,
    ) -> anyhow::Result<()> {
        let pins = self.catalog.pins().await?;
        for digest in doomed {
            // A pin that stayed would hold the blob again after the next start.
            for pin in pins.iter().filter(|pin| pin.digest == digest) {
                self.catalog.remove_pin(&digest, &pin.reason).await?;
            }
            let Some(size) = self.cache.stat(&digest).await else { continue };
            self.cache.unpin(&digest);
            if self.cache.remove(&digest).await? {
                touched.bytes += size;
                touched.digests.push(digest);
            }
            self.catalog.forget_cached(&digest).await?;
            if let Some(running) = &self.running {
                running.manifests.forget(&digest);
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Closure {
    digests: Vec<Digest>,
    bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_meant() {
        let digest = Digest::sha256(b"x").to_string();
        for (target, expected) in [
            (digest.clone(), "digest".to_owned()),
            (format!("docker.io/library/alpine@{digest}"), "digest".to_owned()),
            ("docker.io/library/alpine".to_owned(), "docker.io/library/alpine".to_owned()),
            ("docker.io/library/alpine:3".to_owned(), "docker.io/library/alpine+3".to_owned()),
        ] {
            let named = match Named::parse(&target).unwrap() {
                Named::Digest(_) => "digest".to_owned(),
                Named::Repository(repository) => repository,
                Named::Tagged { repository, tag } => format!("{repository}+{tag}"),
            };
            assert_eq!(named, expected, "{target}");
        }
        assert!(Named::parse("docker.io/a:???").is_err());
    }
}
