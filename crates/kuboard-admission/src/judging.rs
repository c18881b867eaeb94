//! From the images of a pod to a verdict: names to digests, digests to facts, and the facts to the
//! pure function. What memory knows takes microseconds; only the rest is waited for, all of it at
//! once and until one deadline.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use kuboard_api::desired::{Desired, Running};
use kuboard_oci::{Digest, ImageReference};
use kuboard_rt::Tasks;
use kuboard_vuln::ImageFacts;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::{
    doors::{
        Digests, FactsSource, JudgedFacts, JudgedImage, Puller, Resolved, ScanRequest, Unresolved,
    },
    facts::{FactsIndex, FactsRef},
    images::{Name, normalised},
    lookup::{Lookups, Unanswered},
    metrics::Metrics,
    verdict::{Found, Input, Subject, Verdict, judge},
    waiting::Waiting,
};

/// What is asked.
pub(crate) struct Question<'a> {
    pub(crate) namespace: &'a str,
    /// The images, each once.
    pub(crate) images: Vec<Asked<'a>>,
    pub(crate) puller: Puller,
    /// A pod waits for the answer.
    pub(crate) urgent: bool,
    /// Scans may be wished for, and waits begin. Not so in dry runs.
    pub(crate) effects: bool,
    /// Judge as if nothing ran.
    pub(crate) afresh: bool,
    pub(crate) until: Instant,
    pub(crate) now_ms: i64,
}

/// An image of a question.
pub(crate) struct Asked<'a> {
    /// As the pod writes it.
    pub(crate) image: &'a str,
    /// Where it is used first.
    pub(crate) place: String,
    /// What it is known to stand for, whatever the name says.
    pub(crate) digest: Option<Digest>,
}

/// The answer.
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) images: Vec<JudgedImage>,
}

/// Looks things up and judges.
pub(crate) struct Judge {
    pub(crate) digests: Arc<dyn Digests>,
    pub(crate) source: Arc<dyn FactsSource>,
    pub(crate) facts: Arc<FactsIndex>,
    waiting: Waiting,
    resolving: Lookups<(ImageReference, Puller), Result<Arc<Resolved>, Unresolved>>,
    reading: Lookups<Digest, Result<Option<Arc<ImageFacts>>, String>>,
}

/// An image as far as it is known.
struct Looked {
    reference: Option<ImageReference>,
    name: Option<Name>,
    state: State,
}

enum State {
    Invalid(String),
    Unresolved(String),
    /// The registry must be asked.
    Cold,
    Resolved(Arc<Resolved>),
}

impl Judge {
    pub(crate) fn new(
        digests: Arc<dyn Digests>,
        source: Arc<dyn FactsSource>,
        facts: Arc<FactsIndex>,
        tasks: &Tasks,
    ) -> Self {
        Self {
            digests,
            source,
            facts,
            waiting: Waiting::default(),
            resolving: Lookups::new("resolve image", tasks.clone()),
            reading: Lookups::new("read facts", tasks.clone()),
        }
    }

    pub(crate) async fn answer(
        &self,
        question: &Question<'_>,
        desired: &Desired,
        running: &Running,
        metrics: &Metrics,
    ) -> Judged {
        let mut looked: Vec<Looked> = question.images.iter().map(|it| self.look(it)).collect();
        let cold = looked.iter_mut().filter(|it| matches!(it.state, State::Cold));
        join_all(cold.map(|it| self.resolve_cold(it, question, metrics))).await;
        let dubious = looked.iter_mut().filter(|it| leans_on_its_tag(it, question, desired));
        join_all(dubious.map(|it| self.check_tag(it, question, metrics))).await;
        let read = self.read_cold(&looked, question, metrics).await;
        self.conclude(question, &looked, &read, desired, running)
    }

    /// What memory knows of an image.
    fn look(&self, asked: &Asked<'_>) -> Looked {
        let mut reference = match normalised(asked.image) {
            Ok(reference) => reference,
            Err(fault) => {
                let state = State::Invalid(fault.to_string());
                return Looked { reference: None, name: None, state };
            }
        };
        let name = self.digests.name(&reference);
        if asked.digest.is_some() {
            reference.digest = asked.digest;
        }
        let state = match reference.digest.filter(|digest| self.facts.contains(digest)) {
            Some(digest) => {
                State::Resolved(Arc::new(Resolved { digest, manifests: [digest].into() }))
            }
            None => self.digests.known(&reference).map_or(State::Cold, State::Resolved),
        };
        Looked { reference: Some(reference), name: Some(name), state }
    }

    async fn resolve_cold(&self, looked: &mut Looked, question: &Question<'_>, metrics: &Metrics) {
        let Some(reference) = looked.reference.clone() else { return };
        let resolved = self.resolve(reference, &question.puller, question.until, metrics).await;
        looked.state = match resolved {
            Ok(resolved) => State::Resolved(resolved),
            Err(why) => State::Unresolved(why),
        };
    }

    async fn resolve(
        &self,
        reference: ImageReference,
        puller: &Puller,
        until: Instant,
        metrics: &Metrics,
    ) -> Result<Arc<Resolved>, String> {
        let key = (reference.clone(), puller.clone());
        let (digests, puller) = (self.digests.clone(), puller.clone());
        let look = || async move { digests.resolve(&reference, &puller).await };
        let answer = self.resolving.ask(key, until, look).await;
        let result = match &answer {
            Ok(Ok(_)) => "found",
            Ok(Err(Unresolved::NotFound(_))) => "missing",
            Ok(Err(_)) => "error",
            Err(fault) => unanswered(*fault),
        };
        metrics.cold.with_label_values(&["digest", result]).inc();
        match answer {
            Ok(Ok(resolved)) if resolved.manifests.is_empty() => {
                Err("it has no manifest for the platforms of the nodes".to_owned())
            }
            Ok(Ok(resolved)) => Ok(resolved),
            Ok(Err(fault)) => Err(fault.why().to_owned()),
            Err(Unanswered::Late) => Err("its registry has not answered in time; what it answers \
                                          is kept for the next try"
                .to_owned()),
            Err(Unanswered::Full) => Err("too many images are looked up at once".to_owned()),
            Err(Unanswered::Broken) => Err("looking it up failed".to_owned()),
        }
    }

    /// What an image stands for now.
    pub(crate) async fn digest_of(
        &self,
        reference: ImageReference,
        puller: &Puller,
        until: Instant,
        metrics: &Metrics,
    ) -> Option<Digest> {
        if let Some(known) = self.digests.known(&reference) {
            return Some(known.digest);
        }
        self.resolve(reference, puller, until, metrics).await.ok().map(|it| it.digest)
    }

    /// A tag beside a digest says something if it stands for that digest now.
    async fn check_tag(&self, looked: &mut Looked, question: &Question<'_>, metrics: &Metrics) {
        let Some(reference) = &looked.reference else { return };
        let by_tag = ImageReference { digest: None, ..reference.clone() };
        let resolved = match self.digests.known(&by_tag) {
            Some(resolved) => Ok(resolved),
            None => {
                let (puller, until) = (&question.puller, question.until);
                self.resolve(by_tag.clone(), puller, until, metrics).await
            }
        };
        if resolved.is_ok_and(|it| Some(it.digest) == reference.digest)
            && let (Some(name), Some(tag)) = (&mut looked.name, &by_tag.tag)
        {
            name.tag = Some(tag.to_string());
        }
    }

    /// Facts that are not in memory; those that do not fit there.
    async fn read_cold(
        &self,
        looked: &[Looked],
        question: &Question<'_>,
        metrics: &Metrics,
    ) -> FxHashMap<Digest, Arc<ImageFacts>> {
        let manifests = looked.iter().filter_map(|it| match &it.state {
            State::Resolved(resolved) => Some(resolved.manifests.iter()),
            _ => None,
        });
        let missing: BTreeSet<Digest> =
            manifests.flatten().filter(|it| !self.facts.contains(it)).copied().collect();
        if missing.is_empty() {
            return FxHashMap::default();
        }
        let reads = missing.into_iter().map(|manifest| async move {
            let source = self.source.clone();
            let facts = self.facts.clone();
            let read = move || async move {
                let read = source.facts(&manifest).await?.map(Arc::new);
                if let Some(read) = &read {
                    facts.put(&manifest, read);
                }
                Ok(read)
            };
            let answer = self.reading.ask(manifest, question.until, read).await;
            let result = match &answer {
                Ok(Ok(Some(_))) => "found",
                Ok(Ok(None)) => "missing",
                Ok(Err(fault)) => {
                    tracing::warn!(%manifest, "facts can't be read: {fault}");
                    "error"
                }
                Err(fault) => unanswered(*fault),
            };
            metrics.cold.with_label_values(&["facts", result]).inc();
            answer.ok()?.ok()?.map(|facts| (manifest, facts))
        });
        join_all(reads).await.into_iter().flatten().collect()
    }

    /// The pure part, and what follows from it.
    fn conclude(
        &self,
        question: &Question<'_>,
        looked: &[Looked],
        read: &FxHashMap<Digest, Arc<ImageFacts>>,
        desired: &Desired,
        running: &Running,
    ) -> Judged {
        let nothing = Running::default();
        let mut images = Vec::with_capacity(looked.len());
        let verdict = {
            let kept = self.facts.read();
            let facts: Vec<Vec<Option<FactsRef<'_>>>> = looked
                .iter()
                .map(|it| match &it.state {
                    State::Resolved(resolved) => resolved
                        .manifests
                        .iter()
                        .map(|it| kept.get(it).or_else(|| read.get(it).map(|it| (&**it).into())))
                        .collect(),
                    _ => Vec::new(),
                })
                .collect();
            let mut subjects = Vec::with_capacity(looked.len());
            for ((asked, looked), facts) in question.images.iter().zip(looked).zip(&facts) {
                images.push(judged_image(asked, looked, facts));
                let found = match &looked.state {
                    State::Invalid(why) => Found::Invalid(why),
                    State::Unresolved(why) => Found::Unresolved(why),
                    State::Cold => Found::Unresolved("it was not looked up"),
                    State::Resolved(resolved) => Found::Resolved {
                        digest: &resolved.digest,
                        manifests: facts,
                        first_asked_ms: self.waited(question, resolved, facts),
                    },
                };
                let (image, place) = (asked.image, asked.place.as_str());
                subjects.push(Subject { image, place, name: looked.name.as_ref(), found });
            }
            judge(&Input {
                namespace: question.namespace,
                known: desired.namespaces.get(question.namespace),
                images: &subjects,
                policies: &desired.policies,
                exemptions: &desired.exemptions,
                running: if question.afresh { &nothing } else { running },
                now_ms: question.now_ms,
            })
        };
        if question.effects {
            self.wish(question, looked, &images);
        }
        Judged { verdict, images }
    }

    /// Since when an image without all its facts is wanted.
    fn waited(
        &self,
        question: &Question<'_>,
        resolved: &Resolved,
        facts: &[Option<FactsRef<'_>>],
    ) -> Option<i64> {
        let complete = facts.iter().all(|it| it.is_some_and(|it| it.gap().is_none()));
        if !complete {
            return self.waiting.since(&resolved.digest);
        }
        if question.effects {
            self.waiting.done(&resolved.digest);
        }
        None
    }

    /// Wishes for the scans of images without facts.
    fn wish(&self, question: &Question<'_>, looked: &[Looked], images: &[JudgedImage]) {
        for (looked, judged) in looked.iter().zip(images) {
            let (Some(image), State::Resolved(resolved)) = (&looked.reference, &looked.state)
            else {
                continue;
            };
            if judged.is_complete || !self.waiting.ask(&resolved.digest, question.now_ms) {
                continue;
            }
            for facts in judged.facts.iter().filter(|it| it.scanned_ms.is_none()) {
                self.source.scan(ScanRequest {
                    image: image.clone(),
                    manifest: facts.manifest,
                    puller: question.puller.clone(),
                    urgent: question.urgent,
                });
            }
        }
    }
}

fn judged_image(asked: &Asked<'_>, looked: &Looked, facts: &[Option<FactsRef<'_>>]) -> JudgedImage {
    let resolved = match &looked.state {
        State::Resolved(resolved) => Some(resolved),
        _ => None,
    };
    let manifests = resolved.iter().flat_map(|it| it.manifests.iter());
    JudgedImage {
        image: crate::review::cut(asked.image),
        place: asked.place.clone(),
        digest: resolved.map(|it| it.digest),
        is_complete: resolved.is_some()
            && facts.iter().all(|it| it.is_some_and(|it| it.gap().is_none())),
        facts: manifests
            .zip(facts)
            .map(|(manifest, facts)| JudgedFacts {
                manifest: *manifest,
                scanned_ms: facts.map(|it| it.scanned_ms()),
                findings: facts.map_or(0, |it| it.count()),
            })
            .collect(),
    }
}

/// Whether an exemption is about the image only because of a tag that stands beside a digest.
fn leans_on_its_tag(looked: &Looked, question: &Question<'_>, desired: &Desired) -> bool {
    let (Some(reference), Some(name)) = (&looked.reference, &looked.name) else { return false };
    let (Some(tag), Some(_), None) = (&reference.tag, &reference.digest, &name.tag) else {
        return false;
    };
    desired.exemptions.iter().any(|it| {
        let (registry, repository) = (&name.registry, &name.repository);
        it.namespace == question.namespace
            && !it.is_over(question.now_ms)
            && it.covers(registry, repository, tag.as_str())
            && !it.covers(registry, repository, "")
    })
}

fn unanswered(fault: Unanswered) -> &'static str {
    match fault {
        Unanswered::Late => "late",
        Unanswered::Full => "full",
        Unanswered::Broken => "error",
    }
}

/// A question is answered within this time, unless told otherwise.
pub(crate) const DEADLINE: Duration = Duration::from_millis(2500);
