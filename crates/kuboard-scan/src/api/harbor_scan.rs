//! Harbor's jobs: an image is pulled from Harbor's registry with the credentials of the request.

use std::{sync::Arc, time::Duration};

use kuboard_catalog::{AfterFailure, LeasedJob};
use kuboard_oci::Reference;
use kuboard_rt::{Shutdown, retry::Backoff};
use kuboard_vuln::ImageIdentity;

use super::{
    harbor::{HARBOR_SCAN, HarborApi, HarborScan},
    harbor_pull::HarborContents,
};
use crate::{
    engine::{LEASE, ScanError, subject_of},
    source::{SourceError, SourceErrorKind, open_image},
};

const IDLE: Duration = Duration::from_secs(2);
const PAUSE: Backoff = Backoff { base: Duration::from_secs(5), cap: Duration::from_secs(60) };

impl HarborApi {
    /// Takes Harbor's jobs and does them, one at a time, until stop. May run several times over.
    ///
    /// # Errors
    /// None; the return type is that of a role.
    pub async fn work(self: Arc<Self>, stop: Shutdown) -> anyhow::Result<()> {
        let worker = format!("harbor {}", uuid::Uuid::new_v4());
        while !stop.is_begun() {
            let now_ms = self.engine.now_ms();
            let until_ms = now_ms.saturating_add(millis(LEASE));
            let catalog = self.engine.catalog();
            match catalog.lease_job(&[HARBOR_SCAN], &worker, until_ms, now_ms).await {
                Ok(Some(job)) => {
                    tokio::select! {
                        // The lease runs out by itself; another worker goes on.
                        () = stop.begun() => return Ok(()),
                        () = self.hold(&job, &worker) => continue,
                        () = self.run(&job, &worker) => continue,
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "no job of Harbor's taken"),
            }
            tokio::select! {
                () = stop.begun() => {}
                () = self.added.notified() => {}
                () = tokio::time::sleep(IDLE) => {}
            }
        }
        Ok(())
    }

    /// Renews the lease until it can't be.
    async fn hold(&self, job: &LeasedJob, worker: &str) {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            let until_ms = self.engine.now_ms().saturating_add(millis(LEASE));
            match self.engine.catalog().renew_job(job.id, worker, until_ms).await {
                Ok(true) => {}
                Ok(false) => return tracing::warn!(job = job.id, "job lost to another worker"),
                Err(error) => tracing::warn!(job = job.id, %error, "lease not renewed yet"),
            }
        }
    }

    async fn run(&self, job: &LeasedJob, worker: &str) {
        let outcome = self.scan(job).await;
        let now_ms = self.engine.now_ms();
        let catalog = self.engine.catalog();
        let ended = match outcome {
            Ok(()) => catalog.complete_job(job.id, worker, now_ms).await,
            Err(error) => {
                tracing::warn!(scan = %job.subject, attempt = job.attempt, %error,
                    "scan for Harbor failed");
                let pause = millis(PAUSE.delay(job.attempt.saturating_sub(1), 0.5));
                let after = match error.is_retryable() {
                    true => AfterFailure::RetryAt(now_ms.saturating_add(pause)),
                    false => AfterFailure::SetAside,
                };
                catalog.fail_job(job.id, worker, &error.to_string(), after, now_ms).await
            }
        };
        if let Err(error) = ended {
            tracing::warn!(job = job.id, %error, "job's end not noted; it will run again");
        }
    }

    async fn scan(&self, job: &LeasedJob) -> Result<(), ScanError> {
        let scan: HarborScan = serde_json::from_str(&job.payload).map_err(SourceError::invalid)?;
        if self.engine.inventory(&scan.digest).await?.is_none() {
            self.index(job, &scan).await?;
        }
        if let Some(mut report) = self.engine.report_now(&scan.digest).await? {
            let registry = scan.registry_name();
            report.image.name = subject_of(&registry, &scan.repository, &scan.tag, &scan.digest);
            report.image.registry = registry;
            report.image.repository = scan.repository;
            report.image.tag = scan.tag;
            self.engine.publish(&scan.digest, &report).await?;
        }
        Ok(())
    }

    async fn index(&self, job: &LeasedJob, scan: &HarborScan) -> Result<(), ScanError> {
        let authorization = match scan.is_authorized {
            false => String::new(),
            true => self.seal.open(&job.subject, &scan.authorization).ok_or_else(|| {
                SourceError::new(
                    SourceErrorKind::Denied,
                    "the credentials of the request are lost; hint: scan again, and set \
                     scan.api.pskFile, by which they outlive a restart",
                )
            })?,
        };
        let contents = HarborContents::new(
            self.outbound.clone(),
            scan.registry.parse().map_err(SourceError::invalid)?,
            scan.repository.clone(),
            authorization,
        );
        let registry = scan.registry_name();
        let identity = ImageIdentity {
            name: subject_of(&registry, &scan.repository, &scan.tag, &scan.digest),
            registry,
            repository: scan.repository.clone(),
            tag: scan.tag.clone(),
            ..ImageIdentity::default()
        };
        let reference = Reference::Digest(scan.digest);
        let image = open_image(Arc::new(contents), identity, Some(&reference), None).await?;
        let inventory = self.engine.inspector().inspect(&image, &|_, _| {}).await?;
        self.engine.keep_inventory(&scan.digest, &image.identity, &inventory).await
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
