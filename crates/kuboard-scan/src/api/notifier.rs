//! New advisories to notifications, and notifications to whoever listens.
//!
//! A notification is about one generation of the advisories and names each image that is newly
//! affected once, with the most severe of what is new (Clair's summary). Its id, and those of its
//! items, are made of what they stand for: processes that share a catalogue make the same one.
//! Delivery is a job, so it outlives the process, is tried again with growing pauses, and what
//! nobody takes is set aside for a person to see.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use kuboard_catalog::{AfterFailure, LeasedJob, NewJob};
use kuboard_feeds::database::{Changes, Database};
use kuboard_oci::Digest;
use kuboard_rt::{Shutdown, retry::Backoff};
use kuboard_vuln::{Finding, Report, lookup::name_key, matching::MatchOptions};
use serde_json::{Value, json};
use url::Url;

use super::{
    answer::Refusal,
    clair::{ClairApi, NOTIFICATION, stable_id},
};
use crate::{
    assemble::assemble,
    clair_engine::INTRASERVICE,
    engine::ScanError,
    report::clair::{Vulnerability, vulnerability_report},
};

/// Kind of the jobs that deliver one notification.
pub const NOTIFY: &str = "clair-notify";

const MARK: &str = "clair notified generation";
/// About two days with the pauses below.
const ATTEMPTS: u32 = 60;
const PAUSE: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(3600) };
const IDLE: Duration = Duration::from_secs(1);
/// A delivery takes at most 30 s.
const LEASE_MS: i64 = 120_000;
/// Notifications that nobody deleted are dropped after this time.
const KEPT_MS: i64 = 30 * 86_400_000;
const SWEEP_MS: i64 = 3_600_000;
const MAX_PACKAGES: usize = 50_000;
const PAGE: u32 = 1000;

/// Why a notification was not made.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The catalogue failed.
    #[error(transparent)]
    Catalog(#[from] kuboard_catalog::Error),
    /// The engine failed.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The database's list of changes can't be read.
    #[error("the changes of the advisories can't be read: {0}")]
    Changes(String),
}

/// An advisory by source and id.
type Names = HashSet<(String, String)>;

/// Where to look for what is new.
struct News {
    /// Advisories that are new or say something else; `None`: any may be.
    written: Option<Names>,
    /// Images that hold a package of these; `None`: all.
    packages: Option<Vec<String>>,
}

impl News {
    fn of(changes: Changes, last: Option<u64>, database: &Database) -> Self {
        // Generations were missed: all images are looked at, and compared with their reports.
        let many = changes.packages.len().max(changes.changed.len()) > MAX_PACKAGES;
        if changes.since != last || many {
            return Self { written: None, packages: None };
        }
        let key = |(namespace, package): &(String, String)| format!("{namespace} {package}");
        let mut packages: BTreeSet<String> = changes.packages.iter().map(key).collect();
        // An advisory that is only worse than it was has the same rows as before.
        for (source, id) in &changes.changed {
            let found = database.find(id).into_iter();
            let own = found.filter(|one| one.source == *source && one.id == *id);
            for affected in own.flat_map(|one| one.affected) {
                let name = name_key(affected.ecosystem, &affected.package);
                packages.insert(format!("{} {name}", affected.namespace));
            }
        }
        Self {
            packages: Some(packages.into_iter().collect()),
            written: Some(changes.added.into_iter().chain(changes.changed).collect()),
        }
    }
}

impl ClairApi {
    /// Makes the notification of a generation of the advisories, if it has something to tell; how
    /// many images it names. The first generation tells nothing, and one that was told is not told
    /// again. May be called before or after [`crate::engine::Engine::advisories_changed`].
    ///
    /// # Errors
    /// The catalogue or the database failed; asking again asks for the same.
    pub async fn advisories_changed(&self, database: &Database) -> Result<usize, NotifyError> {
        let catalog = self.engine.catalog();
        let generation = database.generation();
        let last = catalog.mark(MARK).await?.and_then(|text| text.parse::<u64>().ok());
        if last == Some(generation) {
            return Ok(0);
        }
        let changes =
            database.changed().map_err(|error| NotifyError::Changes(error.to_string()))?;
        let mut told = 0;
        if last.is_some() && changes.since.is_some() {
            let news = News::of(changes, last, database);
            let id = stable_id(&["notification", database_id(database).as_str()]).to_string();
            let items = self.items(database, &news, &id).await?;
            told = items.len();
            if !items.is_empty() {
                catalog.add_notification(&id, &items, self.engine.now_ms()).await?;
                self.queue(&id).await?;
            }
        }
        catalog.set_mark(MARK, &generation.to_string()).await?;
        Ok(told)
    }

    async fn queue(&self, id: &str) -> Result<(), NotifyError> {
        if self.settings.notifier_target.is_none() {
            return Ok(());
        }
        let job = NewJob {
            kind: NOTIFY.to_owned(),
            subject: id.to_owned(),
            payload: "{}".to_owned(),
            priority: 70,
            run_after_ms: 0,
            max_attempts: ATTEMPTS,
        };
        self.engine.catalog().enqueue(&job, self.engine.now_ms()).await?;
        self.added.notify_one();
        Ok(())
    }

    /// What the notification says: item ids and bodies.
    async fn items(
        &self,
        database: &Database,
        news: &News,
        id: &str,
    ) -> Result<Vec<(String, String)>, NotifyError> {
        let mut items = Vec::new();
        if let Some(packages) = &news.packages {
            for image in self.engine.catalog().images_with(packages).await? {
                items.extend(self.item(database, news, &image, id).await?);
            }
            return Ok(items);
        }
        let mut after = None;
        loop {
            let page = self.engine.catalog().inventoried_images(after.as_ref(), PAGE).await?;
            let Some(last) = page.last().copied() else { return Ok(items) };
            for image in &page {
                items.extend(self.item(database, news, image, id).await?);
            }
            after = Some(last);
        }
    }

    async fn item(
        &self,
        database: &Database,
        news: &News,
        image: &Digest,
        id: &str,
    ) -> Result<Option<(String, String)>, NotifyError> {
        let known = self.any_inventory(image).await.map_err(unreadable)?;
        let Some((identity, inventory)) = known else { return Ok(None) };
        let options = MatchOptions::default();
        let now_ms = self.engine.now_ms();
        let report = assemble(identity, inventory, Some(database), &options, now_ms);
        let before = self.engine.stored_report(image).await.unwrap_or_else(|error| {
            tracing::warn!(%image, %error, "stored report unreadable");
            None
        });
        let Some((reason, finding)) = worst_news(&report, before.as_ref(), news) else {
            return Ok(None);
        };
        let Some(vulnerability) = clairs(&report, finding) else { return Ok(None) };
        let item = stable_id(&[id, &image.to_string(), reason, &finding.id, &finding.package.name]);
        let body = json!({
            "id": item.to_string(),
            "manifest": image,
            "reason": reason,
            "vulnerability": summary(&vulnerability),
        });
        Ok(Some((item.to_string(), body.to_string())))
    }

    /// Delivers notifications until stop. `worker` is unlike any other's name.
    ///
    /// # Errors
    /// None; the return type is that of a role.
    pub async fn notify(self: Arc<Self>, stop: Shutdown) -> anyhow::Result<()> {
        let worker = format!("clair-notifier {}", uuid::Uuid::new_v4());
        let mut swept_ms = i64::MIN;
        while !stop.is_begun() {
            let now_ms = self.engine.now_ms();
            if now_ms.saturating_sub(swept_ms) >= SWEEP_MS {
                swept_ms = now_ms;
                self.sweep(now_ms).await;
            }
            let taken = match self.settings.notifier_target {
                Some(_) => {
                    let until_ms = now_ms + LEASE_MS;
                    let catalog = self.engine.catalog();
                    catalog.lease_job(&[NOTIFY], &worker, until_ms, now_ms).await
                }
                None => Ok(None),
            };
            match taken {
                Ok(Some(job)) => {
                    tokio::select! {
                        () = stop.begun() => return Ok(()),
                        () = self.deliver_job(&job, &worker) => continue,
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "no notification taken"),
            }
            tokio::select! {
                () = stop.begun() => {}
                () = self.added.notified() => {}
                () = tokio::time::sleep(IDLE) => {}
            }
        }
        Ok(())
    }

    async fn sweep(&self, now_ms: i64) {
        let catalog = self.engine.catalog();
        let swept = async {
            for id in catalog.old_notifications(now_ms - KEPT_MS).await? {
                catalog.remove_notification(&id).await?;
            }
            Ok::<_, kuboard_catalog::Error>(())
        };
        if let Err(error) = swept.await {
            tracing::warn!(%error, "old notifications not dropped");
        }
    }

    async fn deliver_job(&self, job: &LeasedJob, worker: &str) {
        let delivered = self.deliver(&job.subject).await;
        let now_ms = self.engine.now_ms();
        let catalog = self.engine.catalog();
        let ended = match delivered {
            Ok(()) => catalog.complete_job(job.id, worker, now_ms).await,
            Err(reason) => {
                tracing::warn!(notification = %job.subject, attempt = job.attempt, reason,
                    "notification not delivered");
                let pause = PAUSE.delay(job.attempt.saturating_sub(1), 0.5).as_millis();
                let pause = i64::try_from(pause).unwrap_or(i64::MAX);
                let after = AfterFailure::RetryAt(now_ms.saturating_add(pause));
                catalog.fail_job(job.id, worker, &reason, after, now_ms).await
            }
        };
        if let Err(error) = ended {
            tracing::warn!(notification = %job.subject, %error, "delivery's end not noted");
        }
    }

    /// Posts one notification; any 2xx is success. One that was deleted meanwhile needs none.
    async fn deliver(&self, id: &str) -> Result<(), String> {
        let Some(target) = &self.settings.notifier_target else {
            return Err("there is no target".to_owned());
        };
        let known = self.engine.catalog().notification(id, "", 1).await;
        if known.map_err(|error| error.to_string())?.is_none() {
            return Ok(());
        }
        let callback = callback(self.settings.notifier_callback.as_ref(), id);
        let mut request = self
            .client
            .post(target.clone())
            .json(&json!({"notification_id": id, "callback": callback}));
        if let Some(psk) = self.access.psk() {
            let token = psk.sign(INTRASERVICE, self.engine.now_ms(), 300);
            request = request.bearer_auth(token.map_err(|error| error.to_string())?);
        }
        let response = request.send().await.map_err(|error| error.without_url().to_string())?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(format!("the target answers {status}")) }
    }
}

fn unreadable(refusal: Refusal) -> NotifyError {
    NotifyError::Changes(refusal.message)
}

/// What tells this database from all others.
fn database_id(database: &Database) -> String {
    use kuboard_vuln::Advisories as _;
    let stamp = database.stamp();
    format!("{} {}", stamp.generation, stamp.checksum)
}

/// Where a notification is read: below the callback's address, which may be that of the
/// notifications or only this program's.
fn callback(base: Option<&Url>, id: &str) -> String {
    let Some(base) = base else { return format!("{NOTIFICATION}/{id}") };
    let mut url = base.clone();
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if path.ends_with("/notification") {
        format!("{path}/{id}")
    } else {
        format!("{path}{NOTIFICATION}/{id}")
    };
    url.set_path(&path);
    url.to_string()
}

/// The most severe of what is new in an image, or else of what is gone.
fn worst_news<'a>(
    report: &'a Report,
    before: Option<&'a Report>,
    news: &News,
) -> Option<(&'static str, &'a Finding)> {
    type Key<'b> = (&'b str, &'b str, &'b str);
    fn key(finding: &Finding) -> Key<'_> {
        (&finding.id, &finding.package.name, &finding.package.version)
    }
    // A stored report of the same generation was made a moment ago: what it saw first is new.
    let is_now = before.is_some_and(|one| one.database.generation >= report.database.generation);
    let mut known: HashMap<Key<'_>, &Finding> = HashMap::new();
    for finding in before.into_iter().flat_map(|one| &one.findings) {
        let is_new = is_now && finding.first_seen_ms == before.map(|one| one.scanned_ms);
        if !is_new {
            known.insert(key(finding), finding);
        }
    }
    let is_written = |finding: &Finding| match &news.written {
        Some(names) => names.contains(&(finding.source.clone(), finding.advisory.clone())),
        // Without a report to compare with, everything old would be news.
        None => before.is_some(),
    };
    let added = report.findings.iter().filter(|finding| is_written(finding)).find(|finding| {
        let old = known.get(&key(finding));
        // The same, but worse than it was told to be, is news.
        old.is_none_or(|old| !is_now && finding.severity > old.severity)
    });
    if let Some(finding) = added {
        return Some(("added", finding));
    }
    let now: HashSet<Key<'_>> = report.findings.iter().map(key).collect();
    let before = before.filter(|_| !is_now)?;
    let gone = before.findings.iter().find(|finding| !now.contains(&key(finding)))?;
    Some(("removed", gone))
}

/// The finding in Clair's form.
fn clairs(report: &Report, finding: &Finding) -> Option<Vulnerability> {
    let alone = Report {
        findings: vec![finding.clone()],
        suppressed: Vec::new(),
        packages: Vec::new(),
        layers: Vec::new(),
        image: report.image.clone(),
        outcome: report.outcome.clone(),
        distribution: report.distribution.clone(),
        end_of_life: None,
        database: report.database.clone(),
        ..*report
    };
    vulnerability_report(&alone).vulnerabilities.into_values().next()
}

/// What a notification says of a vulnerability.
fn summary(vulnerability: &Vulnerability) -> Value {
    let mut summary = json!({
        "name": vulnerability.name,
        "description": vulnerability.description,
        "severity": vulnerability.normalized_severity,
        "fixed_in_version": vulnerability.fixed_in_version,
        "links": vulnerability.links,
    });
    if let Some(package) = &vulnerability.package {
        summary["package"] = json!(package);
    }
    if let Some(distribution) = &vulnerability.distribution {
        summary["distribution"] = json!(distribution);
    }
    if let Some(repository) = &vulnerability.repository {
        summary["repo"] = json!(repository);
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::callback;

    #[test]
    fn callbacks_lead_to_the_notification() {
        for (base, wanted) in [
            (None, "/notifier/api/v1/notification/7"),
            (Some("http://scan"), "http://scan/notifier/api/v1/notification/7"),
            (Some("http://scan/base/"), "http://scan/base/notifier/api/v1/notification/7"),
            (
                Some("http://scan/notifier/api/v1/notification/"),
                "http://scan/notifier/api/v1/notification/7",
            ),
            (
                Some("http://scan:6060/notifier/api/v1/notification"),
                "http://scan:6060/notifier/api/v1/notification/7",
            ),
        ] {
            let base = base.map(|base| base.parse().unwrap());
            assert_eq!(callback(base.as_ref(), "7"), wanted);
        }
    }
}
