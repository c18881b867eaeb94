//! Who gets scanned when: images that pass become jobs, workers take them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use globset::{Glob, GlobSet, GlobSetBuilder};
use kuboard_catalog::{AfterFailure, ImageName, LeasedJob, NewJob};
use kuboard_oci::Digest;
use kuboard_rt::{Shutdown, retry::Backoff};
use serde::{Deserialize, Serialize};

use super::{
    Engine, LEASE, ScanError,
    passing::{Heard, SeenImage},
    rematch::REMATCH,
    results::{Summary, subject_of},
};

/// Kind of the jobs that scan one image.
pub const SCAN: &str = "scan";

/// Runs of a job before it is set aside.
const ATTEMPTS: u32 = 5;
/// A pulled image whose layers do not come is looked at after this time: a client that only read
/// the manifest is no reason to download the layers.
const GRACE_MS: i64 = 30_000;
/// An image that could not be queued is told of again after this time.
const HEAR_AGAIN: Duration = Duration::from_secs(5);
/// A job that came before its advisories is looked at again after this time.
const EARLY_MS: i64 = 2_000;
/// A job that failed by an outage of the scanner is tried again after this time.
const OUTAGE_MS: i64 = 10_000;
/// How old the counts of all reports may be; they are kept up in between.
const WARM_MS: i64 = 600_000;
/// How often an idle worker looks for jobs that others added.
const IDLE: Duration = Duration::from_millis(500);
/// Images whose layers are awaited at a time.
const MAX_AWAITED: usize = 1024;

/// What a job says: which image, by which name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanJob {
    /// Registry; empty for hosted.
    pub registry: String,
    /// Repository.
    pub repository: String,
    /// Tag, or empty.
    pub tag: String,
    /// Digest of the manifest.
    pub image: Digest,
    /// Scan although none of its layers was pulled yet.
    #[serde(default)]
    pub fetch: bool,
    /// Digests of the layers, where the asker knew them.
    #[serde(default)]
    pub layers: Vec<Digest>,
}

/// Registries whose images are left alone.
#[derive(Clone, Debug, Default)]
pub struct Exclusions(GlobSet);

impl Exclusions {
    /// Globs over registry hosts, such as `*.internal.corp`.
    ///
    /// # Errors
    /// One of them is no glob.
    pub fn new<'a>(globs: impl IntoIterator<Item = &'a str>) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            set.add(Glob::new(glob)?);
        }
        Ok(Self(set.build()?))
    }

    /// Whether images of this registry are left alone.
    #[must_use]
    pub fn covers(&self, registry: &str) -> bool {
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
        self.0.is_match(registry) || self.0.is_match(host)
    }
}

impl Engine {
    /// Asks for a scan. More urgent ones have a higher priority: 100 a person, 50 a push, 40 a
    /// pull, 10 a schedule.
    ///
    /// # Errors
    /// The catalogue failed.
    pub async fn ask(&self, job: &ScanJob, priority: i64, after_ms: i64) -> Result<i64, ScanError> {
        let payload = serde_json::to_string(job).unwrap_or_default();
        let job = NewJob {
            kind: SCAN.to_owned(),
            subject: job.image.to_string(),
            payload,
            priority,
            run_after_ms: after_ms,
            max_attempts: ATTEMPTS,
        };
        let id = self.parts.catalog.enqueue(&job, self.now_ms()).await?;
        self.added.notify_one();
        Ok(id)
    }

    /// Turns what passes into jobs until stop. An image whose last layer was indexed a moment ago
    /// is scanned here and now.
    ///
    /// # Errors
    /// None; the return type is that of a role.
    pub async fn listen(self: Arc<Self>, mut heard: Heard, stop: Shutdown) -> anyhow::Result<()> {
        let mut awaited = Awaited::default();
        loop {
            tokio::select! {
                () = stop.begun() => return Ok(()),
                Some(seen) = heard.images.recv() => {
                    if let Err(error) = self.heard(seen.clone(), &mut awaited).await {
                        tracing::warn!(image = %seen.image, %error, "image not queued yet");
                        self.hear_again(seen);
                    }
                }
                Some(layer) = heard.layers.recv() => {
                    for job in awaited.arrived(&layer) {
                        self.scan_now(job);
                    }
                }
            }
        }
    }

    /// The catalogue was away: an image that was heard of is told again a little later, since
    /// nobody else may ever ask for it.
    fn hear_again(self: &Arc<Self>, seen: SeenImage) {
        let engine = self.clone();
        self.parts.tasks.spawn("hear of an image again", async move {
            pause(HEAR_AGAIN, &engine.parts.tasks.shutdown()).await;
            engine.passing.tell(seen);
        });
    }

    pub(super) async fn heard(
        self: &Arc<Self>,
        seen: SeenImage,
        awaited: &mut Awaited,
    ) -> Result<(), ScanError> {
        let now_ms = self.now_ms();
        let name = ImageName {
            registry: seen.registry.clone(),
            repository: seen.repository.clone(),
            tag: seen.tag.clone(),
        };
        self.parts.catalog.name_image(&name, &seen.image, now_ms).await?;
        if self.parts.exclusions.covers(&seen.registry) {
            return Ok(());
        }
        let hosted = seen.registry.is_empty();
        let job = ScanJob {
            registry: seen.registry,
            repository: seen.repository,
            tag: seen.tag,
            image: seen.image,
            fetch: hosted,
            layers: seen.layers,
        };
        // Known: its report is made of today's advisories, at once. Its job comes after that, and
        // finds work only if this process dies before.
        let is_indexed = self.is_indexed(&job.image).await?;
        let (priority, wait_ms) = match hosted {
            true if !is_indexed => (50, 0),
            _ => (40, GRACE_MS),
        };
        self.ask(&job, priority, now_ms + wait_ms).await?;
        if is_indexed {
            self.scan_now(job);
            return Ok(());
        }
        if hosted {
            return Ok(());
        }
        let mut missing = HashSet::new();
        for layer in &job.layers {
            if self.passing.is_indexing(layer) || !self.has_layer(layer).await {
                missing.insert(*layer);
            }
        }
        if missing.is_empty() {
            self.scan_now(job);
        } else {
            awaited.add(job, missing);
        }
        Ok(())
    }

    /// Whether the scanner has what it needs of a layer, so that nothing is downloaded for it.
    async fn has_layer(&self, layer: &Digest) -> bool {
        match self.scanner.reads_along() {
            true => self.passing.has_inventory(layer).await,
            false => self.parts.repositories.is_cached(layer).await,
        }
    }

    /// Scans beside the queue; the job that waits there finds the work done.
    fn scan_now(self: &Arc<Self>, job: ScanJob) {
        let engine = self.clone();
        self.parts.tasks.spawn("scan a passing image", async move {
            let Ok(_place) = engine.at_once.acquire().await else { return };
            match engine.scan(&job).await {
                Ok(report) => tracing::info!(image = %report.image.name,
                    findings = report.findings.len(), "scanned while it was pulled"),
                Err(error) => {
                    tracing::debug!(image = %job.image, %error, "left to its job");
                    engine.insist(job, &error).await;
                }
            }
        });
    }

    /// An image that came whole while the scanner was away is scanned by whichever worker has its
    /// job, also by one that can't see what is cached here.
    async fn insist(&self, job: ScanJob, error: &ScanError) {
        const PRIORITY: i64 = 40;
        if !error.is_outage() {
            return;
        }
        let job = ScanJob { fetch: true, ..job };
        if let Err(error) = self.ask(&job, PRIORITY, self.now_ms()).await {
            tracing::warn!(image = %job.image, %error, "not queued anew");
        }
    }

    /// Brings the gauges of the queue up to date.
    ///
    /// # Errors
    /// The catalogue failed.
    pub async fn measure(&self) -> Result<(), ScanError> {
        let metrics = &self.parts.metrics;
        let warmed_ms = *self.warmed_ms.lock();
        if warmed_ms.is_none_or(|at_ms| self.now_ms() - at_ms >= WARM_MS) {
            self.warm().await?;
        }
        metrics.queue.reset();
        metrics.queue_age.reset();
        let now_ms = self.now_ms();
        for depth in self.parts.catalog.queue_depths().await? {
            let count = i64::try_from(depth.count).unwrap_or(i64::MAX);
            metrics.queue.with_label_values(&[&depth.kind, depth.state.as_str()]).set(count);
            if depth.state == kuboard_catalog::JobState::Waiting {
                let age = (now_ms - depth.oldest_ms).max(0) / 1000;
                metrics.queue_age.with_label_values(&[&depth.kind]).set(age);
            }
        }
        metrics.deliveries.reset();
        for (receiver, state, count) in self.parts.catalog.delivery_states().await? {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.deliveries.with_label_values(&[&receiver, &state]).set(count);
        }
        Ok(())
    }

    /// Counts the findings of all stored reports, for the gauges: those of images that names mean
    /// now, whichever process scanned them.
    ///
    /// # Errors
    /// The catalogue failed.
    pub async fn warm(&self) -> Result<(), ScanError> {
        const PAGE: u32 = 2000;
        let catalog = &self.parts.catalog;
        // By name, then by time: the last image of a name is what it means now.
        let mut meant = HashMap::new();
        for seen in catalog.images_seen_since(i64::MIN).await? {
            let ImageName { registry, repository, tag } = seen.name;
            let subject = subject_of(&registry, &repository, &tag, &seen.image);
            meant.insert(subject, (seen.image, registry));
        }
        let mut names: HashMap<Digest, Vec<(String, String)>> = HashMap::new();
        for (subject, (image, registry)) in &meant {
            names.entry(*image).or_default().push((subject.clone(), registry.clone()));
        }
        let mut counted = BTreeMap::new();
        let mut last = None;
        loop {
            let page = catalog.report_summaries(last.as_ref(), PAGE).await?;
            let Some((end, _)) = page.last() else { break };
            last = Some(*end);
            for (image, text) in page {
                let Ok(summary) = serde_json::from_str::<Summary>(&text) else { continue };
                for (name, registry) in names.remove(&image).unwrap_or_default() {
                    counted.insert(name.clone(), Summary { name, registry, ..summary.clone() });
                }
                if !meant.contains_key(&summary.name) {
                    counted.insert(summary.name.clone(), summary);
                }
            }
        }
        self.parts.metrics.recount(counted);
        *self.warmed_ms.lock() = Some(self.now_ms());
        Ok(())
    }

    /// Forgets jobs that ended, and events that were delivered, before then.
    ///
    /// # Errors
    /// The catalogue failed.
    pub async fn forget(&self, before_ms: i64) -> Result<(), ScanError> {
        self.parts.catalog.forget_jobs(before_ms).await?;
        self.parts.catalog.forget_events(before_ms).await?;
        Ok(())
    }

    /// Takes jobs and does them until stop. `name` is this worker's, unlike any other's.
    ///
    /// # Errors
    /// None; the return type is that of a role.
    pub async fn work(self: Arc<Self>, name: String, stop: Shutdown) -> anyhow::Result<()> {
        while !stop.is_begun() {
            let now_ms = self.now_ms();
            let until_ms = now_ms + millis(LEASE);
            let kinds = [SCAN, REMATCH];
            match self.parts.catalog.lease_job(&kinds, &name, until_ms, now_ms).await {
                Ok(Some(job)) => self.run(&job, &name, &stop).await,
                Ok(None) => tokio::select! {
                    () = pause(IDLE, &stop) => {}
                    () = self.added.notified() => {}
                },
                Err(error) => {
                    tracing::warn!(%error, "no job taken");
                    pause(IDLE * 4, &stop).await;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn run(&self, job: &LeasedJob, worker: &str, stop: &Shutdown) {
        if job.kind == REMATCH && self.is_early(&job.payload) {
            return self.give_back(job, worker, self.now_ms() + EARLY_MS).await;
        }
        let outcome = tokio::select! {
            () = stop.begun() => return self.give_back(job, worker, self.now_ms()).await,
            lost = self.hold(job, worker) => {
                tracing::warn!(job = job.id, subject = %job.subject, lost, "job lost");
                return;
            }
            outcome = self.perform(job) => outcome,
        };
        let now_ms = self.now_ms();
        let ended = match outcome {
            Ok(()) => {
                self.parts.metrics.jobs.with_label_values(&[&job.kind, "done"]).inc();
                self.parts.catalog.complete_job(job.id, worker, now_ms).await
            }
            Err(failure) => {
                self.parts.metrics.jobs.with_label_values(&[&job.kind, "failed"]).inc();
                tracing::warn!(kind = %job.kind, subject = %job.subject, attempt = job.attempt,
                    of = job.max_attempts, error = %failure.reason, "job failed");
                if failure.outage {
                    // It says nothing of the image: the same job is tried until the outage is over.
                    return self.give_back(job, worker, now_ms + OUTAGE_MS).await;
                }
                let after = match failure.lasting {
                    true => AfterFailure::SetAside,
                    false => AfterFailure::RetryAt(now_ms + delay_ms(job.attempt)),
                };
                self.parts.catalog.fail_job(job.id, worker, &failure.reason, after, now_ms).await
            }
        };
        if let Err(error) = ended {
            tracing::warn!(job = job.id, %error, "job's end not noted; it will run again");
        }
    }

    /// Lets another worker go on. Where that fails, the lease runs out by itself.
    async fn give_back(&self, job: &LeasedJob, worker: &str, after_ms: i64) {
        if let Err(error) = self.parts.catalog.postpone_job(job.id, worker, after_ms).await {
            tracing::warn!(job = job.id, %error, "job not given back; its lease runs out");
        }
    }

    /// Renews the lease until it can't be; then says why.
    async fn hold(&self, job: &LeasedJob, worker: &str) -> &'static str {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            let until_ms = self.now_ms() + millis(LEASE);
            match self.parts.catalog.renew_job(job.id, worker, until_ms).await {
                Ok(true) => {}
                Ok(false) => return "another worker has it",
                Err(error) => tracing::warn!(job = job.id, %error, "lease not renewed yet"),
            }
        }
    }

    async fn perform(&self, job: &LeasedJob) -> Result<(), Failure> {
        if job.kind == REMATCH {
            return self.rematch_job(&job.payload).await.map_err(Failure::from);
        }
        let scan: ScanJob = serde_json::from_str(&job.payload).map_err(|error| Failure {
            reason: format!("its payload can't be read: {error}"),
            lasting: true,
            outage: false,
        })?;
        if !scan.fetch && !self.is_wanted(&scan).await? {
            return Ok(());
        }
        self.scan(&scan).await?;
        Ok(())
    }

    /// An image whose manifest alone was read is not downloaded for its scan.
    async fn is_wanted(&self, job: &ScanJob) -> Result<bool, Failure> {
        if self.is_indexed(&job.image).await? || job.layers.is_empty() {
            return Ok(true);
        }
        for layer in &job.layers {
            if self.passing.is_indexing(layer)
                || self.has_layer(layer).await
                || self.parts.repositories.is_cached(layer).await
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Why a job failed, and whether for good.
struct Failure {
    reason: String,
    lasting: bool,
    outage: bool,
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        let (lasting, outage) = (!error.is_retryable(), error.is_outage());
        Self { reason: error.to_string(), lasting, outage }
    }
}

fn delay_ms(attempt: u32) -> i64 {
    const PAUSE: Backoff =
        Backoff { base: Duration::from_secs(5), cap: Duration::from_secs(15 * 60) };
    millis(PAUSE.delay(attempt.saturating_sub(1), 0.5))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) async fn pause(time: Duration, stop: &Shutdown) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = stop.begun() => {}
    }
}

/// Images that wait for layers which are on their way.
#[derive(Default)]
pub(super) struct Awaited {
    images: HashMap<Digest, (ScanJob, HashSet<Digest>)>,
}

impl Awaited {
    fn add(&mut self, job: ScanJob, missing: HashSet<Digest>) {
        if self.images.len() >= MAX_AWAITED {
            // Their jobs are in the queue all the same.
            self.images.clear();
        }
        self.images.insert(job.image, (job, missing));
    }

    /// Images that waited for this layer last.
    fn arrived(&mut self, layer: &Digest) -> Vec<ScanJob> {
        let mut complete = Vec::new();
        self.images.retain(|_, (job, missing)| {
            let done = missing.remove(layer) && missing.is_empty();
            if done {
                complete.push(job.clone());
            }
            !done
        });
        complete
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use kuboard_oci::Digest;

    use super::{Awaited, Exclusions, ScanJob};

    fn job(name: &[u8], layers: &[Digest]) -> ScanJob {
        ScanJob {
            registry: "docker.io".into(),
            repository: "library/a".into(),
            tag: "1".into(),
            image: Digest::sha256(name),
            fetch: false,
            layers: layers.to_vec(),
        }
    }

    #[test]
    fn images_are_complete_with_their_last_layer() {
        let [a, b] = [Digest::sha256(b"a"), Digest::sha256(b"b")];
        let mut awaited = Awaited::default();
        awaited.add(job(b"one", &[a, b]), HashSet::from([a, b]));
        awaited.add(job(b"two", &[b]), HashSet::from([b]));
        assert_eq!(awaited.arrived(&a), []);
        assert_eq!(awaited.arrived(&a), [], "a layer may be told of twice");
        let complete: HashSet<Digest> = awaited.arrived(&b).iter().map(|job| job.image).collect();
        assert_eq!(complete, HashSet::from([Digest::sha256(b"one"), Digest::sha256(b"two")]));
        assert_eq!(awaited.arrived(&b), []);
    }

    #[test]
    fn registries_are_excluded_by_glob() {
        let exclusions = Exclusions::new(["*.internal.corp", "quay.io"]).unwrap();
        for (registry, covered) in [
            ("registry.internal.corp", true),
            ("registry.internal.corp:5000", true),
            ("a.b.internal.corp", true),
            ("internal.corp", false),
            ("quay.io", true),
            ("docker.io", false),
            ("", false),
        ] {
            assert_eq!(exclusions.covers(registry), covered, "{registry}");
        }
        assert!(Exclusions::new(["["]).is_err());
    }
}
