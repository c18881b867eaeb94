//! The webhook: requests of the API server in, answers out.
//!
//! Every question gets an answer before the API server gives up, and what can't be read is refused
//! rather than answered with a fault, because a fault passes where the webhook fails open. There
//! are three exceptions, for which the API server should do as the namespace chose: nobody knows
//! yet what is wanted, too many questions at once, and a text without so much as a uid.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use kuboard_api::{
    desired::{Desired, Running},
    names,
};
use kuboard_oci::Digest;
use kuboard_rt::{
    BoxFuture, Clock, Tasks,
    http::{Handler, Request, Response},
};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    answer::{Answer, Change, plain},
    doors::{
        Decision, Digests, Event, Events, FactsSource, JudgedImage, Puller, Recorder, Regarding,
    },
    explain,
    facts::FactsIndex,
    image_policy,
    images::{normalised, pinned},
    judging::{Asked, Judge, Judged, Question},
    metrics::{Ended, Metrics, Webhook},
    pins::Pins,
    review::{self, Kind, MAX_BODY_BYTES, Operation, Place, Review, Use, Workload, cut},
    verdict::{Outcome, Verdict},
};

/// Questions that are answered at once; more wait for a place.
const MAX_AT_ONCE: usize = 512;
/// Bytes of an event's message, the limit of the API server.
const EVENT_BYTES: usize = 1024;
/// Images that the audit log names.
const AUDITED_IMAGES: usize = 16;

/// How admission behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our own namespace, never judged.
    pub namespace: String,
    /// More namespaces that are never judged.
    pub excluded: Vec<String>,
    /// Answer `/mutate` with digests for tags; else it changes nothing.
    pub pin_digests: bool,
    /// Every question is answered within this time; less than the webhook's `timeoutSeconds`.
    pub deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: names::NAMESPACE.to_owned(),
            excluded: Vec::new(),
            pin_digests: false,
            deadline: crate::judging::DEADLINE,
        }
    }
}

/// What others know, as they last said it.
#[derive(Clone)]
pub struct Knowledge {
    /// What is wanted.
    pub desired: Arc<ArcSwap<Desired>>,
    /// What runs.
    pub running: Arc<ArcSwap<Running>>,
    /// What is known of images.
    pub facts: Arc<FactsIndex>,
}

/// Whom admission asks and tells.
#[derive(Clone)]
pub struct Doors {
    /// From names to digests.
    pub digests: Arc<dyn Digests>,
    /// Facts that are not in memory, and scans.
    pub facts: Arc<dyn FactsSource>,
    /// Who keeps decisions.
    pub recorder: Arc<dyn Recorder>,
    /// Who tells people.
    pub events: Arc<dyn Events>,
}

/// The webhook. Serve it with `kuboard_rt::http::bind`.
pub struct Admission {
    settings: Settings,
    knowledge: Knowledge,
    judge: Judge,
    recorder: Arc<dyn Recorder>,
    events: Arc<dyn Events>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    pins: Pins,
    places: Semaphore,
}

/// A pod that runs already, or any other one that nobody asks about.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its images as the spec writes them, with the digest that runs where the status tells one.
    pub images: Vec<(String, Option<Digest>)>,
    /// Whose credentials may be used.
    pub service_account: String,
    /// Names of its own imagePullSecrets.
    pub pull_secrets: Vec<String>,
}

/// What comes of a [`Pod`].
#[derive(Clone, Debug)]
pub struct PodVerdict {
    /// What comes of it, and why; allowed if its namespace is not judged.
    pub verdict: Verdict,
    /// The images and the facts that were read, each image once.
    pub images: Vec<JudgedImage>,
}

impl Admission {
    /// Everything together. Metrics go into `registry`; lookups that outlive a question run in
    /// `tasks`.
    ///
    /// # Errors
    /// The name of a metric is taken.
    pub fn new(
        settings: Settings,
        knowledge: Knowledge,
        doors: Doors,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let judge = Judge::new(doors.digests, doors.facts, knowledge.facts.clone(), tasks);
        Ok(Arc::new(Self {
            settings,
            knowledge,
            judge,
            recorder: doors.recorder,
            events: doors.events,
            clock,
            metrics: Metrics::new(registry)?,
            pins: Pins::default(),
            places: Semaphore::new(MAX_AT_ONCE),
        }))
    }

    /// Whether questions can be judged; the error says what is missing.
    ///
    /// # Errors
    /// What is wanted, or what runs, was not read yet.
    pub fn ready(&self) -> Result<(), String> {
        if !self.knowledge.desired.load().synced {
            return Err("policies and namespaces were not read yet".to_owned());
        }
        if !self.knowledge.running.load().synced {
            return Err("what runs was not read yet".to_owned());
        }
        Ok(())
    }

    /// Judges what nobody asks about, such as a pod that runs. With `afresh`, as if it did not:
    /// what would come of it if it were the first of its images in the namespace. Scans are wished
    /// for; nothing is recorded and nobody told.
    pub async fn judge_pod(&self, pod: &Pod, afresh: bool) -> PodVerdict {
        let desired = self.knowledge.desired.load_full();
        if self.is_excluded(&pod.namespace, &desired) {
            return PodVerdict { verdict: Verdict::default(), images: Vec::new() };
        }
        let mut images: BTreeMap<&str, Option<Digest>> = BTreeMap::new();
        for (image, digest) in &pod.images {
            let known = images.entry(image).or_default();
            *known = known.or(*digest);
        }
        let asked = |(image, digest)| Asked { image, place: String::new(), digest };
        let question = Question {
            namespace: &pod.namespace,
            images: images.into_iter().map(asked).collect(),
            puller: Puller {
                namespace: pod.namespace.clone(),
                service_account: pod.service_account.clone(),
                pull_secrets: pod.pull_secrets.clone(),
            },
            urgent: false,
            effects: true,
            afresh,
            until: Instant::now() + self.settings.deadline,
            now_ms: self.clock.now_ms(),
        };
        let Judged { verdict, images } = self.answer(&question, &desired).await;
        PodVerdict { verdict, images }
    }

    pub(crate) async fn answer(&self, question: &Question<'_>, desired: &Desired) -> Judged {
        let running = self.knowledge.running.load_full();
        self.judge.answer(question, desired, &running, &self.metrics).await
    }

    /// Namespaces whose pods nobody judges.
    fn is_excluded(&self, namespace: &str, desired: &Desired) -> bool {
        let disabled = || {
            let labels = desired.namespaces.get(namespace).map(|it| &it.labels);
            labels.and_then(|it| it.get(names::ADMISSION)).is_some_and(|it| it == names::DISABLED)
        };
        names::SYSTEM_NAMESPACES.contains(&namespace)
            || namespace == self.settings.namespace
            || self.settings.excluded.iter().any(|it| it == namespace)
            || disabled()
    }

    async fn respond(&self, request: Request) -> Response {
        let Some(webhook) = Webhook::at(request.uri().path()) else {
            return plain(StatusCode::NOT_FOUND, "no such webhook");
        };
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "reviews are posted");
        }
        let until = Instant::now() + self.settings.deadline;
        let (body, too_large) =
            match tokio::time::timeout_at(until, read(request.into_body())).await {
                Ok(Ok(read)) => read,
                Ok(Err(fault)) => {
                    self.count_error(webhook, "unread");
                    return plain(StatusCode::BAD_REQUEST, &format!("the body broke off: {fault}"));
                }
                Err(_) => {
                    self.count_error(webhook, "slow");
                    return plain(StatusCode::REQUEST_TIMEOUT, "the body took too long");
                }
            };
        // Counted from here: how long the question itself takes to come is not ours.
        let started = self.clock.monotonic();
        let Ok(Ok(_place)) = tokio::time::timeout_at(until, self.places.acquire()).await else {
            self.count_error(webhook, "busy");
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many reviews at once");
        };
        let asked = Posted { webhook, body: &body, too_large, until };
        let (response, operation, end) = match webhook {
            Webhook::ImagePolicy => self.image_policy(&asked).await,
            _ => self.review(&asked).await,
        };
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.ended(webhook, operation, end, took.as_secs_f64());
        self.metrics.facts.set(i64::try_from(self.knowledge.facts.len()).unwrap_or(i64::MAX));
        response
    }

    fn count_error(&self, webhook: Webhook, reason: &str) {
        self.metrics.errors.with_label_values(&[reason]).inc();
        self.metrics.ended(webhook, Operation::Other, Ended::Error, 0.0);
    }

    fn refuse_unread(&self, asked: &Posted<'_>, uid: Option<&str>, why: &str) -> Response {
        let reason = if asked.too_large { "too_large" } else { "unread" };
        self.metrics.errors.with_label_values(&[reason]).inc();
        tracing::warn!(webhook = asked.webhook.as_str(), "a review can't be read: {}", cut(why));
        match uid {
            // Objects that are never refused for their images are not refused for this either.
            Some(uid) if asked.webhook == Webhook::Validate => {
                Answer::refuse_unread(uid, format!("Kuboard can't judge this: {why}")).response()
            }
            Some(uid) => {
                let mut answer = Answer::allow(uid);
                answer.warnings.push(explain::limited(format!("Kuboard: {why}"), 250));
                answer.response()
            }
            None => plain(StatusCode::BAD_REQUEST, why),
        }
    }

    /// `/validate`, `/mutate` and `/workloads`.
    async fn review(&self, asked: &Posted<'_>) -> (Response, Operation, Ended) {
        if asked.too_large {
            let uid = review::uid_of(asked.body);
            let why = format!(
                "the object has more than {} MiB as JSON; hint: make it smaller",
                MAX_BODY_BYTES >> 20
            );
            let response = self.refuse_unread(asked, uid.as_deref(), &why);
            return (response, Operation::Other, Ended::Error);
        }
        let review = match Review::parse(asked.body) {
            Ok(review) => review,
            Err(refusal) => {
                let response = self.refuse_unread(asked, refusal.uid.as_deref(), &refusal.why);
                return (response, Operation::Other, Ended::Error);
            }
        };
        let (response, end) = self.answer_review(asked, &review).await;
        (response, review.operation, end)
    }

    async fn answer_review(&self, asked: &Posted<'_>, review: &Review<'_>) -> (Response, Ended) {
        let uid = review.uid.as_str();
        let passed = || (Answer::allow(uid).response(), Ended::Passed);
        if review.kind == Kind::Unknown || review.operation == Operation::Other {
            return passed();
        }
        let workload = match review.workload() {
            Ok(Some(workload)) => workload,
            Ok(None) => {
                let why = "the review has no object";
                return (self.refuse_unread(asked, Some(uid), why), Ended::Error);
            }
            Err(why) => return (self.refuse_unread(asked, Some(uid), &why), Ended::Error),
        };
        let probe = workload.probe.as_ref().filter(|_| review.dry_run);
        let probe = probe.map(|nonce| format!("{}={}", names::PROBE, nonce.as_str()));
        let desired = self.knowledge.desired.load_full();
        if self.is_excluded(review.namespace.as_str(), &desired) {
            let mut answer = Answer::allow(uid);
            answer.warnings.extend(probe);
            return (answer.response(), Ended::Passed);
        }
        if asked.webhook == Webhook::Mutate {
            return self.mutate(asked, review, &workload).await;
        }
        if !desired.synced {
            self.metrics.errors.with_label_values(&["unsynced"]).inc();
            let why = "Kuboard has not read the policies yet";
            return (plain(StatusCode::SERVICE_UNAVAILABLE, why), Ended::Error);
        }
        let enforced = asked.webhook == Webhook::Validate && review.kind == Kind::Pod;
        // What can't be read of the old object was not admitted as far as anybody knows.
        let old = review.old_images().unwrap_or_default();
        let question = self.question(asked, review, &workload, |image| old.contains(image));
        if question.images.is_empty() {
            let mut answer = Answer::allow(uid);
            answer.warnings.extend(probe);
            return (answer.response(), Ended::Passed);
        }
        let mut judged = self.answer(&question, &desired).await;
        if review.by_node && workload.mirror {
            // The kubelet runs it already; refusing its mirror would only hide it.
            soften(&mut judged.verdict);
        }
        let mut answer = self.worded(review, enforced, &judged);
        answer.warnings.splice(0..0, probe);
        let end = Ended::Judged(judged.verdict.outcome);
        if !review.dry_run {
            self.tell(asked.webhook, review, &workload, enforced, judged);
        }
        (answer.response(), end)
    }

    fn question<'a>(
        &self,
        asked: &Posted<'_>,
        review: &'a Review<'_>,
        workload: &'a Workload<'_>,
        is_old: impl Fn(&str) -> bool,
    ) -> Question<'a> {
        let mut seen = BTreeSet::new();
        let images = workload.uses.iter().filter_map(|it| {
            let image = it.image.as_str();
            let place = || format!("{} {}", it.place.as_str(), cut(it.container.as_str()));
            let new = seen.insert(image) && !is_old(image);
            new.then(|| Asked { image, place: place(), digest: None })
        });
        Question {
            namespace: review.namespace.as_str(),
            images: images.collect(),
            puller: puller(review.namespace.as_str(), workload),
            urgent: review.kind == Kind::Pod,
            effects: !review.dry_run,
            afresh: false,
            until: asked.until,
            now_ms: self.clock.now_ms(),
        }
    }

    /// A verdict as an answer.
    fn worded<'a>(&self, review: &'a Review<'_>, enforced: bool, judged: &Judged) -> Answer<'a> {
        let (uid, verdict) = (review.uid.as_str(), &judged.verdict);
        let mut answer = if enforced && verdict.outcome == Outcome::Deny {
            let now_ms = self.clock.now_ms();
            Answer::forbid(uid, explain::refusal(verdict, review.namespace.as_str(), now_ms))
        } else {
            Answer::allow(uid)
        };
        if verdict.outcome >= Outcome::Warn {
            answer.warnings =
                if enforced { explain::warnings(verdict) } else { explain::forecasts(verdict) };
        }
        answer.audit_annotations = annotations(judged);
        answer
    }

    /// Records a decision, and tells people of refusals and warnings.
    fn tell(
        &self,
        webhook: Webhook,
        review: &Review<'_>,
        workload: &Workload<'_>,
        enforced: bool,
        judged: Judged,
    ) {
        let owner = workload.owner.as_ref().map(|it| Regarding {
            api_version: it.api_version.0.to_string(),
            kind: it.kind.0.to_string(),
            name: it.name.0.to_string(),
            uid: it.uid.0.to_string(),
        });
        let name = if review.name.0.is_empty() { &workload.name } else { &review.name };
        let reason = match judged.verdict.outcome {
            Outcome::Deny if enforced => Some("ImageDenied"),
            Outcome::Warn if enforced => Some("ImageWarning"),
            _ => None,
        };
        if let Some(reason) = reason {
            let itself = || Regarding {
                api_version: "v1".to_owned(),
                kind: review.kind_name.0.to_string(),
                name: name.0.to_string(),
                uid: String::new(),
            };
            self.events.tell(Event {
                namespace: review.namespace.0.to_string(),
                regarding: owner.clone().unwrap_or_else(itself),
                reason,
                message: explain::limited(explain::summary(&judged.verdict), EVENT_BYTES),
            });
        }
        self.recorder.record(Decision {
            at_ms: self.clock.now_ms(),
            webhook: webhook.as_str(),
            uid: review.uid.0.to_string(),
            operation: review.operation.as_str(),
            kind: review.kind_name.0.to_string(),
            namespace: review.namespace.0.to_string(),
            name: name.0.to_string(),
            owner,
            user: review.user.0.to_string(),
            verdict: judged.verdict,
            images: judged.images,
        });
    }

    /// Tags become digests, in pods that are created.
    async fn mutate(
        &self,
        asked: &Posted<'_>,
        review: &Review<'_>,
        workload: &Workload<'_>,
    ) -> (Response, Ended) {
        let uid = review.uid.as_str();
        let wanted = self.settings.pin_digests
            && review.kind == Kind::Pod
            && review.operation == Operation::Create
            && !workload.mirror;
        if !wanted {
            return (Answer::allow(uid).response(), Ended::Passed);
        }
        let owner = workload.owner.as_ref().map(|it| it.uid.as_str()).filter(|it| !it.is_empty());
        let mut digests: BTreeMap<&str, Option<Digest>> = BTreeMap::new();
        for it in &workload.uses {
            digests.entry(it.image.as_str()).or_default();
        }
        let puller = puller(review.namespace.as_str(), workload);
        let (images, found): (Vec<&str>, Vec<_>) = digests
            .keys()
            .map(|image| (*image, self.pin(image, owner, &puller, review.dry_run, asked.until)))
            .unzip();
        let found = futures_util::future::join_all(found).await;
        let digests: BTreeMap<&str, Option<Digest>> = images.into_iter().zip(found).collect();
        let changes: Vec<Change> = workload
            .uses
            .iter()
            .filter_map(|it| {
                let image = it.image.as_str();
                let digest = (*digests.get(image)?)?;
                Some(Change { op: "replace", path: path(it), value: pinned(image, &digest) })
            })
            .collect();
        let end = if changes.is_empty() { Ended::Passed } else { Ended::Judged(Outcome::Allow) };
        (Answer::allow(uid).patched(&changes).response(), end)
    }

    /// The digest that takes an image's place; `None` if it has one already, or nobody knows it:
    /// then it is judged by what it is when that is asked.
    async fn pin(
        &self,
        image: &str,
        owner: Option<&str>,
        puller: &Puller,
        dry_run: bool,
        until: Instant,
    ) -> Option<Digest> {
        let reference = normalised(image).ok().filter(|it| it.digest.is_none())?;
        if let Some(owner) = owner {
            let running = self.knowledge.running.load();
            let shown = running.pins.get(&(owner.to_owned(), image.to_owned())).copied();
            if let Some(digest) = shown.or_else(|| self.pins.get(owner, image)) {
                return Some(digest);
            }
        }
        let resolved = self.judge.digest_of(reference, puller, until, &self.metrics).await?;
        match owner {
            Some(owner) if !dry_run => Some(self.pins.keep(owner, image, resolved)),
            _ => Some(resolved),
        }
    }

    /// `/imagepolicy`: the same for the API server's own ImagePolicyWebhook, which knows no image
    /// volumes, no service accounts and no dry runs.
    async fn image_policy(&self, asked: &Posted<'_>) -> (Response, Operation, Ended) {
        let refused = |why: &str| {
            let reason = if asked.too_large { "too_large" } else { "unread" };
            self.metrics.errors.with_label_values(&[reason]).inc();
            (image_policy::refused(why), Operation::Create, Ended::Error)
        };
        if asked.too_large {
            return refused("the review is too large");
        }
        let review = match image_policy::parse(asked.body) {
            Ok(review) => review,
            Err(why) => return refused(&why),
        };
        let desired = self.knowledge.desired.load_full();
        let namespace = review.namespace.as_str();
        if self.is_excluded(namespace, &desired) {
            return (image_policy::allowed(), Operation::Create, Ended::Passed);
        }
        if !desired.synced {
            self.metrics.errors.with_label_values(&["unsynced"]).inc();
            let why = "Kuboard has not read the policies yet";
            return (plain(StatusCode::SERVICE_UNAVAILABLE, why), Operation::Create, Ended::Error);
        }
        let images: BTreeSet<&str> = review.images.iter().map(|it| it.as_str()).collect();
        let ask = |image| Asked { image, place: "container".to_owned(), digest: None };
        let question = Question {
            namespace,
            images: images.into_iter().map(ask).collect(),
            puller: Puller { namespace: namespace.to_owned(), ..Puller::default() },
            urgent: true,
            effects: true,
            afresh: false,
            until: asked.until,
            now_ms: self.clock.now_ms(),
        };
        let judged = self.answer(&question, &desired).await;
        let outcome = judged.verdict.outcome;
        let why = match outcome {
            Outcome::Deny => explain::refusal(&judged.verdict, namespace, question.now_ms),
            _ => String::new(),
        };
        let response = image_policy::judged(outcome != Outcome::Deny, why, annotations(&judged));
        self.recorder.record(Decision {
            at_ms: question.now_ms,
            webhook: Webhook::ImagePolicy.as_str(),
            uid: String::new(),
            operation: Operation::Create.as_str(),
            kind: "Pod".to_owned(),
            namespace: namespace.to_owned(),
            name: String::new(),
            owner: None,
            user: String::new(),
            verdict: judged.verdict,
            images: judged.images,
        });
        (response, Operation::Create, Ended::Judged(outcome))
    }
}

impl Handler for Admission {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(self.respond(request))
    }
}

/// A question as it came.
struct Posted<'a> {
    webhook: Webhook,
    body: &'a [u8],
    /// There was more of it.
    too_large: bool,
    until: Instant,
}

/// The body up to the limit, and whether there was more.
async fn read(mut body: kuboard_rt::http::RequestBody) -> io::Result<(Bytes, bool)> {
    let Some(first) = body.next().await.transpose()? else { return Ok((Bytes::new(), false)) };
    // Most questions are one piece, which is not copied.
    let (mut all, mut next) = match body.next().await.transpose()? {
        None if first.len() <= MAX_BODY_BYTES => return Ok((first, false)),
        next => (BytesMut::from(first), next),
    };
    while let Some(piece) = next {
        if all.len() + piece.len() > MAX_BODY_BYTES {
            return Ok((all.freeze(), true));
        }
        all.extend_from_slice(&piece);
        next = body.next().await.transpose()?;
    }
    let too_large = all.len() > MAX_BODY_BYTES;
    Ok((all.freeze(), too_large))
}

fn puller(namespace: &str, workload: &Workload<'_>) -> Puller {
    Puller {
        namespace: namespace.to_owned(),
        service_account: workload.service_account.0.to_string(),
        pull_secrets: workload.pull_secrets.iter().map(|it| it.0.to_string()).collect(),
    }
}

/// Where a JSON patch finds an image.
fn path(it: &Use<'_>) -> String {
    let index = it.index;
    match it.place {
        Place::Init => format!("/spec/initContainers/{index}/image"),
        Place::Container => format!("/spec/containers/{index}/image"),
        Place::Ephemeral => format!("/spec/ephemeralContainers/{index}/image"),
        Place::Volume => format!("/spec/volumes/{index}/image/reference"),
    }
}

/// Refusals become warnings.
fn soften(verdict: &mut Verdict) {
    for reason in &mut verdict.reasons {
        reason.outcome = reason.outcome.min(Outcome::Warn);
    }
    verdict.outcome = verdict.outcome.min(Outcome::Warn);
}

/// What the audit log of the API server keeps.
fn annotations(judged: &Judged) -> BTreeMap<&'static str, String> {
    let Judged { verdict, images } = judged;
    let mut all = BTreeMap::from([("outcome", verdict.outcome.as_str().to_owned())]);
    let digests: Vec<String> = images
        .iter()
        .take(AUDITED_IMAGES)
        .filter_map(|it| it.digest.map(|digest| format!("{}={digest}", it.image)))
        .collect();
    if !digests.is_empty() {
        all.insert("images", digests.join(","));
    }
    if !verdict.reasons.is_empty() {
        all.insert("policies", explain::policies(verdict));
        all.insert("reasons", explain::summary(verdict));
    }
    if !verdict.forgiven.is_empty() {
        let names: Vec<&str> =
            verdict.forgiven.keys().take(AUDITED_IMAGES).map(String::as_str).collect();
        all.insert("exemptions", names.join(","));
    }
    all
}
