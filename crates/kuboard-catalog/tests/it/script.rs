//! Cases as text: one call a line, `call => what it gave`. Digests have short names: `a` is the
//! SHA-256 of the letter a, of 10 bytes unless said otherwise.

use std::{collections::BTreeMap, fmt::Debug, str::FromStr};

use kuboard_catalog::{
    Catalog, Error, KeyRow, Kind, ManifestRow, PutOutcome, ReferrerRow, Result, SweepReport,
};
use kuboard_oci::Digest;

/// Runs each line against the catalogue and compares what it gave.
pub(crate) async fn check(catalog: &Catalog, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (call, expected) = line.split_once("=>").unwrap_or_else(|| panic!("no => in {line}"));
        let words: Vec<&str> = call.split_whitespace().collect();
        let call = Call { catalog, name: words[0], words: &words[1..] };
        let given = call.run().await.unwrap_or_else(|error| told(&error));
        assert_eq!(given, expected.trim(), "{line}");
    }
}

/// The digest with this short name.
pub(crate) fn digest(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

/// The short name of a digest.
pub(crate) fn named(of: &Digest) -> String {
    let names = ('a'..='z').map(String::from).chain((0..300).map(|n| format!("n{n}")));
    names.into_iter().find(|name| digest(name) == *of).unwrap_or_else(|| of.to_string())
}

fn told(error: &Error) -> String {
    format!("{:?}{}", error.kind(), if error.is_retryable() { ", retryable" } else { "" })
}

fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "nothing".to_owned() } else { items.join(" ") }
}

fn or_none<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "none".to_owned(), show)
}

/// One line: a name, words that must be there, and `key=value` or flags that may.
struct Call<'a> {
    catalog: &'a Catalog,
    name: &'a str,
    words: &'a [&'a str],
}

impl<'a> Call<'a> {
    fn plain(&self, nth: usize) -> &'a str {
        let mut plain = self.words.iter().filter(|word| !word.contains('=') && **word != "cached");
        plain.nth(nth).unwrap_or_else(|| panic!("{} lacks word {nth}", self.name))
    }

    fn option(&self, key: &str) -> Option<&'a str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn number<T: FromStr<Err: Debug>>(&self, key: &str, default: T) -> T {
        self.option(key).map_or(default, |value| value.parse().unwrap())
    }

    fn digests(&self, key: &str) -> Vec<Digest> {
        self.option(key).into_iter().flat_map(|value| value.split(',')).map(digest).collect()
    }

    fn kind(&self) -> Kind {
        if self.words.contains(&"cached") { Kind::Cached } else { Kind::Hosted }
    }

    fn limit(&self) -> u32 {
        self.number("limit", 100)
    }

    async fn run(&self) -> Result<String> {
        match self.name {
            "announce" | "blob" | "renew" | "mount" | "find" | "unlink" | "hosted" => {
                self.blobs().await
            }
            "put" | "push" | "manifest" | "delete" | "referrers" => self.manifests().await,
            "point" | "resolve" | "untag" | "tags" => self.tags().await,
            "linked" | "link" | "forget" => self.cached().await,
            _ => self.others().await,
        }
    }

    async fn blobs(&self) -> Result<String> {
        let catalog = self.catalog;
        let lease = self.number("lease", 0);
        Ok(match self.name {
            "announce" => {
                let (repository, blob) = (self.plain(0), digest(self.plain(1)));
                let size = self.number("size", 10);
                catalog.put_blob(repository, self.kind(), &blob, size, lease).await?;
                "ok".to_owned()
            }
            "blob" => {
                let row = catalog.blob(self.plain(0), &digest(self.plain(1))).await?;
                or_none(row, |row| {
                    let referenced = if row.referenced { ", referenced" } else { "" };
                    format!("{} bytes, lease {}{referenced}", row.size, row.lease_until_ms)
                })
            }
            "renew" => {
                let digest = digest(self.plain(1));
                catalog.renew_lease(self.plain(0), &digest, lease).await?.to_string()
            }
            "mount" => {
                let digest = digest(self.plain(2));
                let size = catalog.mount(self.plain(0), self.plain(1), &digest, lease).await?;
                or_none(size, |size| format!("{size} bytes"))
            }
            "find" => {
                let found = catalog.find_blob(&digest(self.plain(0))).await?;
                or_none(found, |(repository, size)| format!("{size} bytes in {repository}"))
            }
            "unlink" => {
                catalog.unlink_blob(self.plain(0), &digest(self.plain(1))).await?.to_string()
            }
            _ => {
                let after = self.option("after").map(digest);
                let rows = catalog.hosted_digests(after.as_ref(), self.limit()).await?;
                assert!(rows.is_sorted_by_key(|row| row.digest), "{rows:?}");
                let mut shown: Vec<String> = rows
                    .iter()
                    .map(|row| named(&row.digest) + if row.referenced { "!" } else { "" })
                    .collect();
                shown.sort();
                listed(shown)
            }
        })
    }

    fn row(&self) -> ManifestRow {
        ManifestRow {
            repository: self.plain(0).to_owned(),
            kind: self.kind(),
            digest: digest(self.plain(1)),
            media_type: self.option("media").unwrap_or("image").to_owned(),
            size: self.number("size", 10),
            artifact_type: self.option("type").map(str::to_owned),
            subject: self.option("subject").map(digest),
            annotations: self
                .option("note")
                .map(|note| BTreeMap::from([("note".to_owned(), note.to_owned())]))
                .unwrap_or_default(),
            blobs: self.digests("blobs"),
            children: self.digests("children"),
            pushed_at_ms: self.number("at", 1),
        }
    }

    async fn manifests(&self) -> Result<String> {
        let catalog = self.catalog;
        Ok(match self.name {
            "put" | "push" => {
                let row = self.row();
                if self.name == "push" {
                    catalog.put_blob(&row.repository, row.kind, &row.digest, row.size, 0).await?;
                }
                let tags = self.option("tags").into_iter().flat_map(|tags| tags.split(','));
                let tags: Vec<_> = tags.map(|tag| tag.parse().unwrap()).collect();
                match catalog.put_manifest(&row, &tags).await? {
                    PutOutcome::Stored => "stored".to_owned(),
                    PutOutcome::Missing(missing) => {
                        format!("missing {}", listed(missing.iter().map(named)))
                    }
                }
            }
            "manifest" => {
                let meta = catalog.manifest(self.plain(0), &digest(self.plain(1))).await?;
                or_none(meta, |meta| {
                    let subject = meta.subject.as_ref().map(named);
                    format!(
                        "{} {} {subject:?} {:?}",
                        meta.media_type, meta.size, meta.artifact_type
                    )
                })
            }
            "delete" => {
                catalog.delete_manifest(self.plain(0), &digest(self.plain(1))).await?.to_string()
            }
            _ => {
                let subject = digest(self.plain(1));
                let rows = catalog.referrers(self.plain(0), &subject, self.option("type")).await?;
                listed(rows.iter().map(|row: &ReferrerRow| {
                    let artifact_type = row.artifact_type.as_deref().unwrap_or("-");
                    let note = row.annotations.get("note").map_or("", |note| note);
                    let name = named(&row.digest);
                    format!("{name}:{}:{}:{artifact_type}:{note}", row.media_type, row.size)
                }))
            }
        })
    }

    async fn tags(&self) -> Result<String> {
        let (catalog, repository) = (self.catalog, self.plain(0));
        let tag = || self.plain(1).parse().unwrap();
        Ok(match self.name {
            "point" => {
                let (manifest, etag) = (digest(self.plain(2)), self.option("etag"));
                let (kind, at) = (self.kind(), self.number("at", 1));
                catalog.set_tag(repository, kind, &tag(), &manifest, at, etag).await?;
                "ok".to_owned()
            }
            "resolve" => {
                let row = catalog.resolve(repository, &tag()).await?;
                or_none(row, |row| {
                    let etag = row.etag.unwrap_or_default();
                    let (updated, checked) = (row.updated_ms, row.checked_ms);
                    let what = format!("{} {} {}", named(&row.digest), row.media_type, row.size);
                    format!("{what} updated {updated} checked {checked} {etag}").trim().to_owned()
                })
            }
            "untag" => catalog.delete_tag(repository, &tag()).await?.to_string(),
            _ => {
                let tags = catalog.tags(repository, self.option("after"), self.limit()).await?;
                or_none(tags, listed)
            }
        })
    }

    async fn cached(&self) -> Result<String> {
        let catalog = self.catalog;
        Ok(match self.name {
            "linked" => catalog.linked(self.plain(0), &digest(self.plain(1))).await?.to_string(),
            "link" => {
                let digests: Vec<_> = self.words[1..].iter().map(|name| digest(name)).collect();
                catalog.link(self.plain(0), &digests).await?;
                "ok".to_owned()
            }
            _ => {
                catalog.forget_cached(&digest(self.plain(0))).await?;
                "ok".to_owned()
            }
        })
    }

    async fn others(&self) -> Result<String> {
        let catalog = self.catalog;
        Ok(match self.name {
            "repositories" => {
                let kind = self.option("kind").map(|kind| match kind {
                    "hosted" => Kind::Hosted,
                    _ => Kind::Cached,
                });
                listed(catalog.repositories(kind, self.option("after"), self.limit()).await?)
            }
            "counts" => {
                let counts = catalog.counts().await?;
                format!(
                    "{} hosted, {} cached, {} tags, {} manifests, {} contents of {} bytes",
                    counts.hosted_repositories,
                    counts.cached_repositories,
                    counts.tags,
                    counts.manifests,
                    counts.hosted_contents,
                    counts.hosted_bytes
                )
            }
            "sweep" => self.sweep().await?,
            "untagged" => catalog
                .delete_untagged(self.number("before", 0), self.number("batch", 2))
                .await?
                .to_string(),
            "pin" => {
                let at = self.number("at", 1);
                catalog.add_pin(&digest(self.plain(0)), self.plain(1), at).await?;
                "ok".to_owned()
            }
            "unpin" => catalog.remove_pin(&digest(self.plain(0)), self.plain(1)).await?.to_string(),
            "pins" => {
                let pins = catalog.pins().await?;
                let mut shown: Vec<String> = pins
                    .iter()
                    .map(|pin| format!("{}:{}:{}", named(&pin.digest), pin.reason, pin.created_ms))
                    .collect();
                shown.sort();
                listed(shown)
            }
            _ => self.keys().await?,
        })
    }

    /// `fail=a,b` names digests that the store refuses to remove.
    async fn sweep(&self) -> Result<String> {
        let (mut removed, refused) = (Vec::new(), self.digests("fail"));
        let remove = |digest: Digest| {
            let refused = refused.contains(&digest);
            if !refused {
                removed.push(named(&digest));
            }
            async move { if refused { Err("the store is away") } else { Ok(()) } }
        };
        let (now, batch) = (self.number("now", 0), self.number("batch", 2));
        let report: SweepReport = self.catalog.sweep(now, batch, remove).await?;
        assert_eq!(report.removed as usize, removed.len(), "{report:?}");
        removed.sort();
        let mut shown = format!("unlinked {}, removed {}", report.unlinked, listed(removed));
        if report.bytes > 0 {
            shown += &format!(" ({} bytes)", report.bytes);
        }
        if report.repositories > 0 {
            shown += &format!(", {} repositories", report.repositories);
        }
        if !report.failed.is_empty() {
            shown += &format!(", {} failed", report.failed.len());
        }
        Ok(shown)
    }

    async fn keys(&self) -> Result<String> {
        let catalog = self.catalog;
        Ok(match self.name {
            "key+" => {
                let row = KeyRow {
                    id: self.plain(0).to_owned(),
                    secret_hash: "hash".to_owned(),
                    owner: "me".to_owned(),
                    scopes_json: "[]".to_owned(),
                    created_ms: 1,
                    expires_ms: self.option("expires").map(|ms| ms.parse().unwrap()),
                };
                catalog.add_key(&row).await?;
                assert!(!format!("{row:?}").contains("hash"));
                "ok".to_owned()
            }
            "key-" => catalog.remove_key(self.plain(0)).await?.to_string(),
            "key" => {
                let row = catalog.key(self.plain(0)).await?;
                or_none(row, |row| {
                    assert_eq!(
                        (row.secret_hash.as_str(), row.scopes_json.as_str()),
                        ("hash", "[]")
                    );
                    format!("{} of {} until {:?}", row.id, row.owner, row.expires_ms)
                })
            }
            "keys" => listed(catalog.keys().await?.iter().map(|row| &row.id)),
            unknown => panic!("no call is named {unknown}"),
        })
    }
}
