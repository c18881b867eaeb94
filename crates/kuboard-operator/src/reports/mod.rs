//! What is found becomes objects: a status for each policy and exemption, an `ImageReport` for each
//! image that runs, a report in the forms of others. The leader writes; only what changed, never
//! faster than a rate, and not at all for a while when the cluster has no room.

mod image;
mod pace;
mod policy_report;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use kuboard_api::{
    crd::{
        ClusterImageScanPolicy, ImageCounts, ImageExemption, ImageReport, ImageReportStatus,
        ImageScanPolicy, report_digest, report_name,
    },
    desired::Desired,
    names,
    policy::Scope,
};
use kuboard_oci::Digest;
use kuboard_rt::Clock;
use serde_json::{Value, json};

pub(crate) use pace::{Breaker, Bucket};

use crate::{
    Error, OperatorMetrics,
    client::ask,
    events::{Teller, Told},
    judge::{Judge, Judged, Outcome, PolicyKey},
    lease::Term,
    watch::{Runners, RunningImage, Watch},
};
use policy_report::Form;
use status::Surroundings;

/// Annotation of a report: a fingerprint of what it says.
const CONTENT: &str = "kuboard.cn/content";
/// Everything is judged again at least so often.
const ALL_EACH: Duration = Duration::from_secs(3_600);
/// Statuses are looked at at least so often: exemptions end by the clock.
const LOOK_EACH: Duration = Duration::from_secs(30);
/// Changes that come together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// Between two times of judging everything, and how many times its length at least.
const REST: Duration = Duration::from_secs(3);
const REST_TIMES: u32 = 20;
const AT_ONCE: usize = 8;

/// Bounds of what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Image reports in the cluster.
    pub max_reports: usize,
    /// Writes a second.
    pub writes_per_second: u32,
    /// Whether reports in the forms of others are written where the cluster has their kinds.
    pub policy_reports: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_reports: 5_000, writes_per_second: 20, policy_reports: true }
    }
}

/// Everything that runs, judged.
type AllJudged = BTreeMap<RunningImage, (Runners, Judged)>;

/// Judges what runs and writes what follows.
pub struct Reporter {
    /// The cluster.
    pub client: Client,
    /// What is wanted and what runs.
    pub watch: Arc<Watch>,
    /// Judges.
    pub judge: Arc<dyn Judge>,
    /// Our namespace.
    pub namespace: String,
    /// Bounds.
    pub limits: Limits,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What it counts.
    pub metrics: Arc<OperatorMetrics>,
    /// Hears of what runs and would be refused now.
    pub teller: Teller,
}

/// What is remembered during a term.
struct Memory {
    bucket: Bucket,
    breaker: Breaker,
    unused: image::Unused,
    /// Reports there are, with the fingerprint of what they say.
    reports: Option<BTreeMap<String, String>>,
    statuses: BTreeMap<String, ImageReportStatus>,
    /// Reports in the forms of others as they were last written, by (form, namespace).
    others: BTreeMap<(usize, String), Value>,
    forms: Vec<Form>,
    counts: Option<BTreeMap<PolicyKey, ImageCounts>>,
    /// What ran and would have been refused, the last time.
    refused: BTreeSet<RunningImage>,
}

impl Reporter {
    /// Runs as long as the term lasts.
    pub async fn run(&self, term: Term) {
        let mut memory = Memory {
            bucket: Bucket::new(self.limits.writes_per_second, self.limits.writes_per_second * 2),
            breaker: Breaker::default(),
            unused: image::Unused::default(),
            reports: None,
            statuses: BTreeMap::new(),
            others: BTreeMap::new(),
            forms: Vec::new(),
            counts: None,
            refused: BTreeSet::new(),
        };
        let mut snapshots = self.watch.changes();
        let mut facts = self.judge.changes();
        let mut judged_at: Option<Duration> = None;
        let mut rest = Duration::ZERO;
        let mut is_stale = true;
        let mut told: Option<(Duration, Arc<Desired>)> = None;
        while term.lasts() {
            let since = judged_at.map(|at| self.clock.monotonic().saturating_sub(at));
            let is_due = since.is_none_or(|since| since >= rest && is_stale || since >= ALL_EACH);
            if is_due && self.watch.is_synced() {
                let start = self.clock.monotonic();
                self.judge_and_report(&mut memory, &term).await;
                let took = self.clock.monotonic().saturating_sub(start);
                self.metrics.reevaluation_seconds.observe(took.as_secs_f64());
                judged_at = Some(self.clock.monotonic());
                rest = REST.max(took * REST_TIMES);
                is_stale = false;
            }
            let (now, desired) = (self.clock.monotonic(), self.watch.desired().load_full());
            let is_told = told.as_ref().is_some_and(|(at, before)| {
                Arc::ptr_eq(before, &desired) && now.saturating_sub(*at) < LOOK_EACH
            });
            if !is_told {
                self.write_statuses(&mut memory, &term).await;
                told = Some((now, desired));
            }
            let wait = if is_stale { rest.min(LOOK_EACH).max(DEBOUNCE) } else { LOOK_EACH };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Ok(()) = snapshots.changed() => is_stale = true,
                Ok(()) = facts.changed() => is_stale = true,
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    async fn judge_and_report(&self, memory: &mut Memory, term: &Term) {
        let judged = self.judge_all().await;
        let mut by_outcome: BTreeMap<Outcome, i64> = BTreeMap::new();
        for (_, judged) in judged.values() {
            *by_outcome.entry(judged.outcome).or_default() += 1;
        }
        for outcome in [Outcome::Allow, Outcome::Audit, Outcome::Warn, Outcome::Deny] {
            let word = outcome.as_str().to_lowercase();
            let number = by_outcome.get(&outcome).copied().unwrap_or(0);
            self.metrics.running.with_label_values(&[&word]).set(number);
        }
        self.tell_refused(memory, &judged);
        memory.counts = Some(status::count(judged.values().map(|(_, judged)| judged)));
        // Statuses are few and awaited; reports may take their time.
        self.write_statuses(memory, term).await;
        if let Err(error) = self.write_reports(memory, term, &judged).await {
            self.note(memory, &error);
        }
        if self.limits.policy_reports
            && let Err(error) = self.write_others(memory, term, &judged).await
        {
            self.note(memory, &error);
        }
        let is_open = memory.breaker.is_open(self.now());
        self.metrics.breaker.set(i64::from(is_open));
    }

    /// Events about what runs though it would be refused now: it came while the webhook was away,
    /// or advisories or policies changed. Each is told once.
    fn tell_refused(&self, memory: &mut Memory, judged: &AllJudged) {
        let mut refused = BTreeSet::new();
        for (image, (runners, judged)) in judged {
            if judged.outcome < Outcome::Deny {
                continue;
            }
            refused.insert(image.clone());
            if memory.refused.contains(image) {
                continue;
            }
            let reason = judged.reason.as_deref().unwrap_or("a policy refuses it");
            self.teller.tell(Told {
                namespace: image.namespace.to_string(),
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: runners.pod.clone(),
                uid: String::new(),
                reason: "ImageRefusedNow".to_owned(),
                message: format!("{} runs and would be refused now: {reason}", image.image),
            });
        }
        memory.refused = refused;
    }

    async fn judge_all(&self) -> AllJudged {
        let fleet = self.watch.fleet();
        let all: Vec<(RunningImage, Runners)> =
            fleet.iter().map(|(image, runners)| (image.clone(), runners.clone())).collect();
        futures_util::stream::iter(all)
            .map(|(image, runners)| self.judge_one(image, runners))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn judge_one(
        &self,
        image: RunningImage,
        runners: Runners,
    ) -> (RunningImage, (Runners, Judged)) {
        let judged = self.judge.judge(&image, &runners).await;
        (image, (runners, judged))
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.monotonic().as_millis()).unwrap_or(i64::MAX)
    }

    fn note(&self, memory: &mut Memory, error: &Error) {
        if error.is_full() {
            tracing::warn!("no reports for ten minutes: {error}");
            memory.breaker.trip(self.now());
        } else {
            tracing::warn!("reports: {error}");
        }
    }

    /// Waits for the turn to write. False: the term is over, or there is no room.
    async fn may_write(&self, memory: &mut Memory, term: &Term) -> bool {
        loop {
            if !term.lasts() || memory.breaker.is_open(self.now()) {
                return false;
            }
            match memory.bucket.take(self.now()) {
                Ok(()) => return true,
                Err(wait_ms) => tokio::time::sleep(Duration::from_millis(wait_ms)).await,
            }
        }
    }

    async fn write_reports(
        &self,
        memory: &mut Memory,
        term: &Term,
        judged: &AllJudged,
    ) -> Result<(), Error> {
        if memory.reports.is_none() {
            memory.reports = Some(self.list_reports().await?);
        }
        let verdicts = image::verdicts(judged.iter().map(|(image, (_, judged))| (image, judged)));
        let names_of = names_by_manifest(judged);
        let mut used = BTreeSet::new();
        for digest in image::chosen(&verdicts, self.limits.max_reports) {
            let name = report_name(&digest);
            used.insert(name.clone());
            let names = names_of.get(&digest).cloned().unwrap_or_default();
            let is_there = self.write_report(memory, term, &digest, names).await?;
            if let (true, Some(verdicts)) = (is_there, verdicts.get(&digest)) {
                self.write_report_status(memory, term, &name, verdicts).await?;
            }
        }
        self.remove_unused(memory, term, &used).await?;
        let number = memory.reports.as_ref().map_or(0, BTreeMap::len);
        self.metrics.reports.set(i64::try_from(number).unwrap_or(i64::MAX));
        Ok(())
    }

    async fn list_reports(&self) -> Result<BTreeMap<String, String>, Error> {
        let api: Api<PartialObjectMeta<ImageReport>> = Api::all(self.client.clone());
        let mut all = BTreeMap::new();
        let mut params = ListParams::default().limit(500);
        loop {
            let page = ask("list ImageReports", || api.list(&params)).await?;
            for object in page.items {
                let content = object.annotations().get(CONTENT).cloned().unwrap_or_default();
                all.insert(object.name_any(), content);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// Writes what is known of an image. True if there is a report afterwards.
    async fn write_report(
        &self,
        memory: &mut Memory,
        term: &Term,
        digest: &Digest,
        names: Vec<String>,
    ) -> Result<bool, Error> {
        let name = report_name(digest);
        let there = memory.reports.as_ref().and_then(|it| it.get(&name)).cloned();
        let mut spec = match self.judge.report(digest).await {
            Ok(Some(spec)) => spec,
            Ok(None) => return Ok(there.is_some()),
            Err(error) => {
                tracing::warn!(%digest, "no report: {error}");
                return Ok(there.is_some());
            }
        };
        if spec.names.is_empty() {
            spec.names = names;
        }
        spec.fit();
        let scanned = spec.scanned_at.parse::<jiff::Timestamp>();
        let content = image::content(&spec, scanned.map_or(0, |at| at.as_millisecond()));
        if there.as_ref() == Some(&content) {
            return Ok(true);
        }
        if !self.may_write(memory, term).await {
            return Ok(there.is_some());
        }
        let api: Api<ImageReport> = Api::all(self.client.clone());
        let object = json!({
            "apiVersion": "kuboard.cn/v1alpha1", "kind": "ImageReport",
            "metadata": {
                "name": name,
                "labels": {"app.kubernetes.io/managed-by": names::MANAGER},
                "annotations": {CONTENT: content},
            },
            "spec": spec,
        });
        let params = PatchParams::apply(names::MANAGER).force();
        let patch = Patch::Apply(&object);
        let what = format!("write ImageReport {name}");
        let outcome = ask(&what, || api.patch(&name, &params, &patch)).await;
        self.metrics.wrote("ImageReport", &outcome);
        outcome?;
        if let Some(reports) = &mut memory.reports {
            reports.insert(name, content);
        }
        Ok(true)
    }

    async fn write_report_status(
        &self,
        memory: &mut Memory,
        term: &Term,
        name: &str,
        verdicts: &image::Verdicts,
    ) -> Result<(), Error> {
        let before = memory.statuses.get(name);
        let status = image::status(before, verdicts, self.clock.now_ms());
        if before == Some(&status) || !self.may_write(memory, term).await {
            return Ok(());
        }
        let api: Api<ImageReport> = Api::all(self.client.clone());
        let object = json!({
            "apiVersion": "kuboard.cn/v1alpha1", "kind": "ImageReport",
            "metadata": {"name": name}, "status": status,
        });
        self.patch_status(&api, "ImageReport", name, &object).await?;
        memory.statuses.insert(name.to_owned(), status);
        Ok(())
    }

    async fn remove_unused(
        &self,
        memory: &mut Memory,
        term: &Term,
        used: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let Some(reports) = &memory.reports else { return Ok(()) };
        let over = memory.unused.over(reports.keys(), used, self.clock.now_ms());
        let api: Api<ImageReport> = Api::all(self.client.clone());
        for name in over {
            // One of another name is not ours.
            let Some(digest) = report_digest(&name) else { continue };
            match self.judge.is_stored(&digest).await {
                Ok(false) => {}
                Ok(true) => continue,
                Err(error) => {
                    tracing::warn!(%digest, "the report stays: {error}");
                    continue;
                }
            }
            if !self.may_write(memory, term).await {
                return Ok(());
            }
            let what = format!("remove ImageReport {name}");
            let params = DeleteParams::default();
            match ask(&what, || api.delete(&name, &params)).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            memory.statuses.remove(&name);
            if let Some(reports) = &mut memory.reports {
                reports.remove(&name);
            }
        }
        Ok(())
    }

    /// Which forms of others the cluster has.
    async fn forms(&self) -> Result<Vec<Form>, Error> {
        let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(self.client.clone());
        let mut forms = Vec::new();
        for form in Form::ALL {
            let (group, _, _, plural) = form.names();
            let name = format!("{plural}.{group}");
            let what = format!("read CustomResourceDefinition {name}");
            if ask(&what, || api.get_opt(&name)).await?.is_some() {
                forms.push(form);
            }
        }
        Ok(forms)
    }

    async fn write_others(
        &self,
        memory: &mut Memory,
        term: &Term,
        judged: &AllJudged,
    ) -> Result<(), Error> {
        memory.forms = self.forms().await?;
        for (number, form) in memory.forms.clone().into_iter().enumerate() {
            let mut wanted = policy_report::reports(form, judged);
            // Namespaces in which nothing is judged any more have an empty report, if they had one.
            let before: Vec<String> = memory
                .others
                .keys()
                .filter(|(of, namespace)| *of == number && !wanted.contains_key(namespace))
                .map(|(_, namespace)| namespace.clone())
                .collect();
            for namespace in before {
                wanted.insert(namespace, Value::Null);
            }
            for (namespace, content) in wanted {
                self.write_other(memory, term, (number, form), &namespace, content).await?;
            }
        }
        Ok(())
    }

    async fn write_other(
        &self,
        memory: &mut Memory,
        term: &Term,
        (number, form): (usize, Form),
        namespace: &str,
        content: Value,
    ) -> Result<(), Error> {
        let key = (number, namespace.to_owned());
        if memory.others.get(&key) == Some(&content) || !self.may_write(memory, term).await {
            return Ok(());
        }
        let (group, version, kind, plural) = form.names();
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: format!("{group}/{version}"),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource);
        let name = policy_report::NAME;
        let what = format!("write {kind} {namespace}/{name}");
        if content.is_null() {
            let params = DeleteParams::default();
            match ask(&what, || api.delete(name, &params)).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            memory.others.remove(&key);
            return Ok(());
        }
        let mut object = json!({
            "apiVersion": resource.api_version, "kind": kind,
            "metadata": {
                "name": name,
                "labels": {"app.kubernetes.io/managed-by": names::MANAGER},
            },
        });
        if let (Some(object), Some(content)) = (object.as_object_mut(), content.as_object()) {
            object.extend(content.clone());
        }
        let params = PatchParams::apply(names::MANAGER).force();
        let patch = Patch::Apply(&object);
        let outcome = ask(&what, || api.patch(name, &params, &patch)).await;
        self.metrics.wrote(kind, &outcome);
        match outcome {
            Ok(_) => drop(memory.others.insert(key, content)),
            // The namespace went in the meantime.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Statuses of policies and exemptions that say something else than they should.
    async fn write_statuses(&self, memory: &mut Memory, term: &Term) {
        if let Err(error) = self.try_write_statuses(memory, term).await {
            tracing::warn!("statuses: {error}");
        }
    }

    async fn try_write_statuses(&self, memory: &mut Memory, term: &Term) -> Result<(), Error> {
        let tables = self.watch.policies();
        let armed = crate::webhook::status(&self.client, &self.namespace).await?.armed;
        let policies = tables
            .namespaced
            .iter()
            .map(|it| (Scope::Namespace, it))
            .chain(tables.cluster.iter().map(|it| (Scope::Cluster, it)));
        for (scope, ((namespace, name), kept)) in policies {
            let key = PolicyKey { scope, namespace: namespace.clone(), name: name.clone() };
            let counts =
                memory.counts.as_ref().map(|counts| counts.get(&key).copied().unwrap_or_default());
            let around = Surroundings {
                armed,
                counts,
                last_scan_ms: self.judge.last_scan_ms(&key).await,
                now_ms: self.clock.now_ms(),
            };
            let status = status::policy(kept, around);
            if kept.status.as_ref() == Some(&status) || !self.may_write(memory, term).await {
                continue;
            }
            let object = json!({
                "apiVersion": "kuboard.cn/v1alpha1", "kind": scope.kind(),
                "metadata": {"name": name}, "status": status,
            });
            let client = self.client.clone();
            let written = match scope {
                Scope::Namespace => {
                    let api: Api<ImageScanPolicy> = Api::namespaced(client, namespace);
                    self.patch_status(&api, scope.kind(), name, &object).await
                }
                Scope::Cluster => {
                    let api: Api<ClusterImageScanPolicy> = Api::all(client);
                    self.patch_status(&api, scope.kind(), name, &object).await
                }
            };
            pass_if_gone(written)?;
        }
        for ((namespace, name), kept) in tables.exemptions.iter() {
            let status = status::exemption(kept, self.clock.now_ms());
            if kept.status.as_ref() == Some(&status) || !self.may_write(memory, term).await {
                continue;
            }
            let object = json!({
                "apiVersion": "kuboard.cn/v1alpha1", "kind": "ImageExemption",
                "metadata": {"name": name}, "status": status,
            });
            let api: Api<ImageExemption> = Api::namespaced(self.client.clone(), namespace);
            pass_if_gone(self.patch_status(&api, "ImageExemption", name, &object).await)?;
        }
        Ok(())
    }

    async fn patch_status<K>(
        &self,
        api: &Api<K>,
        kind: &str,
        name: &str,
        object: &Value,
    ) -> Result<(), Error>
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let params = PatchParams::apply(names::STATUS_MANAGER).force();
        let patch = Patch::Apply(object);
        let what = format!("write the status of {kind} {name}");
        let outcome = ask(&what, || api.patch_status(name, &params, &patch)).await;
        self.metrics.wrote(kind, &outcome);
        outcome.map(drop)
    }
}

/// What was removed in the meantime needs no status.
fn pass_if_gone(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// Names under which a manifest runs.
fn names_by_manifest(judged: &AllJudged) -> BTreeMap<Digest, Vec<String>> {
    let mut all: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for (image, (_, judged)) in judged {
        for digest in &judged.manifests {
            all.entry(*digest).or_default().insert(image.image.to_string());
        }
    }
    all.into_iter().map(|(digest, names)| (digest, names.into_iter().collect())).collect()
}
