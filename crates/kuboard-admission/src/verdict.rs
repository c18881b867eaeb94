//! The verdict on the images of a pod: a pure, total function of facts, policies, exemptions, the
//! namespace, what runs there, and the time.
//!
//! * A policy concerns a namespace if it is a namespaced one of it, or a cluster one that selects
//!   its labels (of a namespace that nobody knows yet: every cluster one), is not suspended, and
//!   has a threshold: one without blocks nothing. It concerns an image if it covers its name. An
//!   image that is known by digest may have any tag; one whose text can't be read, any name.
//! * All policies are judged, for themselves; the strictest outcome wins.
//! * A finding counts if it reaches the threshold, has a fix or `ignoreUnfixed` is off, is known
//!   to be exploited or `onlyExploited` is off, and has no probability below `minEpss`. It does
//!   not count while it is in grace: first seen after the image was first scanned, and less than
//!   the grace ago. Nor if a live exemption of the namespace about the image forgives it.
//! * Counted findings refuse; so do images that nobody scanned, or not wholly, or can't resolve,
//!   as `onUnscanned` and `onError` say. What already runs in the namespace is only warned of if
//!   `allowRunning` is on.
//! * The mode caps what a policy does: `Warn` turns refusals into warnings, `Audit` turns both
//!   into records.
//!
//! One more finding, a stricter policy or one exemption less never makes the outcome milder, and
//! the order of anything does not matter.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use kuboard_api::{
    desired::{Namespace, Running},
    policy::{Exemption, Mode, OnError, OnUnscanned, Policy, Scope, Threshold},
};
use kuboard_oci::Digest;
use kuboard_vuln::Severity;

use crate::{
    facts::{FactsRef, FindingRef},
    images::Name,
};

/// Findings that a reason names.
pub const WORST: usize = 10;
/// The namespace of a namespaced policy that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// What comes of a pod, from the mildest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It runs.
    #[default]
    Allow,
    /// It runs, and that is recorded.
    Audit,
    /// It runs, and whoever created it is warned.
    Warn,
    /// It is refused.
    Deny,
}

impl Outcome {
    /// All of them, from the mildest.
    pub const ALL: [Self; 4] = [Self::Allow, Self::Audit, Self::Warn, Self::Deny];

    /// In small letters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Audit => "audit",
            Self::Warn => "warn",
            Self::Deny => "deny",
        }
    }
}

/// Everything that a verdict is made of.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Where the pod wants to run.
    pub namespace: &'a str,
    /// What is known of that namespace; `None` if it is too new.
    pub known: Option<&'a Namespace>,
    /// The images to judge, each once; of an update, those that are new.
    pub images: &'a [Subject<'a>],
    /// All policies.
    pub policies: &'a [Arc<Policy>],
    /// All exemptions.
    pub exemptions: &'a [Arc<Exemption>],
    /// What runs.
    pub running: &'a Running,
    /// Milliseconds since 1970.
    pub now_ms: i64,
}

/// One image of a pod.
#[derive(Clone)]
pub struct Subject<'a> {
    /// As the pod writes it.
    pub image: &'a str,
    /// Where it is used first, such as `container web`; may be empty.
    pub place: &'a str,
    /// Its name for policies; `None` if the text is no image.
    pub name: Option<&'a Name>,
    /// What is known.
    pub found: Found<'a>,
}

/// What is known of an image.
#[derive(Clone)]
pub enum Found<'a> {
    /// The text is no image.
    Invalid(&'a str),
    /// Nobody can say which image it is; the text says why.
    Unresolved(&'a str),
    /// It is known which image it is.
    Resolved {
        /// Of what the registry serves under the name: an index or a manifest.
        digest: &'a Digest,
        /// The manifests behind it, for the platforms of the nodes, with what is known of each.
        manifests: &'a [Option<FactsRef<'a>>],
        /// When somebody first wanted to run it without facts; `None` if that is now.
        first_asked_ms: Option<i64>,
    },
}

/// What comes of a pod, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The strictest of the reasons.
    pub outcome: Outcome,
    /// What speaks against it, the strictest first, each image and policy once for each cause.
    /// Reasons with [`Outcome::Allow`] are those that a policy lets pass.
    pub reasons: Vec<Reason>,
    /// Findings that would count but for an exemption, by its full name.
    pub forgiven: BTreeMap<String, u32>,
    /// Findings that would count but for their grace.
    pub in_grace: u32,
}

/// What one policy says of one image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// What comes of it.
    pub outcome: Outcome,
    /// The image as the pod writes it.
    pub image: String,
    /// Where it is used first, such as `container web`; may be empty.
    pub place: String,
    /// Its name for policies; `None` if it is no image.
    pub name: Option<Name>,
    /// The policy's kind.
    pub scope: Scope,
    /// The policy's name, with its namespace if it has one.
    pub policy: String,
    /// What is the matter.
    pub cause: Cause,
}

/// What is the matter with an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Findings that count.
    Findings {
        /// The policy's threshold.
        threshold: Threshold,
        /// How many: of the manifest that has the most.
        counted: u32,
        /// How many of them have a fix.
        fixable: u32,
        /// The worst of them, the worst first.
        worst: Vec<Worst>,
        /// The image already runs in the namespace.
        running: bool,
    },
    /// Nobody scanned it, or not wholly.
    Unscanned {
        /// Why nothing more is known, if somebody tried.
        why: Option<String>,
        /// It is refused for now: until this time (milliseconds since 1970), or scanned.
        until_ms: Option<i64>,
        /// The image already runs in the namespace.
        running: bool,
    },
    /// Nobody can say which image it is.
    Unresolved(String),
    /// It is no image.
    Invalid(String),
}

/// A finding, for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worst {
    /// The id that people know it by.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// Known to be exploited.
    pub exploited: bool,
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The lowest version that fixes it.
    pub fixed_in: Option<String>,
}

/// Judges.
#[must_use]
pub fn judge(input: &Input<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let policies: Vec<Judging<'_>> =
        input.policies.iter().filter_map(|it| Judging::of(it, input)).collect();
    if policies.is_empty() {
        return verdict;
    }
    let exemptions: Vec<&Exemption> = input
        .exemptions
        .iter()
        .map(|it| &**it)
        .filter(|it| it.namespace == input.namespace && !it.is_over(input.now_ms))
        .collect();
    for subject in input.images {
        judge_image(input, &policies, &exemptions, subject, &mut verdict);
    }
    let strictest = verdict.reasons.iter().map(|it| it.outcome).max();
    verdict.outcome = strictest.unwrap_or_default();
    verdict.reasons.sort_by(|a, b| b.outcome.cmp(&a.outcome).then_with(|| a.cmp(b)));
    verdict
}

/// A policy that concerns the namespace.
#[derive(Clone, Copy)]
struct Judging<'a> {
    policy: &'a Policy,
    threshold: Threshold,
    /// The threshold on the scale of findings.
    least: Severity,
}

impl<'a> Judging<'a> {
    fn of(policy: &'a Policy, input: &Input<'_>) -> Option<Self> {
        let threshold = policy.threshold?;
        let concerned = match policy.scope {
            Scope::Namespace => {
                let home = policy.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
                home == input.namespace
            }
            Scope::Cluster => {
                let selector = &policy.admission.namespaces;
                input.known.is_none_or(|known| selector.selects(&known.labels))
            }
        };
        let least = match threshold {
            Threshold::Low => Severity::Low,
            Threshold::Medium => Severity::Medium,
            Threshold::High => Severity::High,
            Threshold::Critical => Severity::Critical,
        };
        (concerned && !policy.suspended).then_some(Self { policy, threshold, least })
    }

    fn covers(&self, name: Option<&Name>) -> bool {
        match name {
            None => true,
            Some(Name { registry, repository, tag: Some(tag) }) => {
                self.policy.covers(registry, repository, tag)
            }
            Some(Name { registry, repository, tag: None }) => {
                self.policy.covers_any_tag(registry, repository)
            }
        }
    }

    fn wants(&self, finding: &FindingRef<'_>) -> bool {
        let admission = &self.policy.admission;
        finding.severity >= self.least
            && (finding.fixable || !self.policy.ignore_unfixed)
            && (finding.exploited || !admission.only_exploited)
            && finding.epss.is_none_or(|epss| epss >= admission.min_epss)
    }

    fn grants_grace(&self, finding: &FindingRef<'_>, first_scanned_ms: i64, now_ms: i64) -> bool {
        let until = finding.first_seen_ms.saturating_add(self.policy.admission.grace_ms);
        finding.first_seen_ms > first_scanned_ms && now_ms < until
    }

    /// What the policy's mode makes of a consequence.
    fn capped(&self, outcome: Outcome) -> Outcome {
        match (self.policy.admission.mode, outcome) {
            (_, Outcome::Allow) => Outcome::Allow,
            (Mode::Audit, _) => Outcome::Audit,
            (Mode::Warn, outcome) => outcome.min(Outcome::Warn),
            (Mode::Enforce, outcome) => outcome,
        }
    }

    fn reason(&self, subject: &Subject<'_>, outcome: Outcome, cause: Cause) -> Reason {
        Reason {
            outcome: self.capped(outcome),
            image: subject.image.to_owned(),
            place: subject.place.to_owned(),
            name: subject.name.cloned(),
            scope: self.policy.scope,
            policy: self.policy.name(),
            cause,
        }
    }
}

fn judge_image(
    input: &Input<'_>,
    policies: &[Judging<'_>],
    exemptions: &[&Exemption],
    subject: &Subject<'_>,
    verdict: &mut Verdict,
) {
    let strict = input.known.is_some_and(Namespace::is_strict);
    for it in policies.iter().filter(|it| it.covers(subject.name)) {
        let on_error = it.policy.admission.on_error;
        match &subject.found {
            Found::Invalid(why) => {
                // No runtime takes it either: refusing costs nothing, passing might.
                let outcome = match on_error {
                    OnError::Allow => Outcome::Warn,
                    OnError::Warn | OnError::Deny => Outcome::Deny,
                };
                let cause = Cause::Invalid((*why).to_owned());
                verdict.reasons.push(it.reason(subject, outcome, cause));
            }
            Found::Unresolved(why) => {
                let outcome = match on_error {
                    OnError::Allow => Outcome::Allow,
                    OnError::Warn if strict => Outcome::Deny,
                    OnError::Warn => Outcome::Warn,
                    OnError::Deny => Outcome::Deny,
                };
                let cause = Cause::Unresolved((*why).to_owned());
                verdict.reasons.push(it.reason(subject, outcome, cause));
            }
            Found::Resolved { digest, manifests, first_asked_ms } => {
                let running =
                    it.policy.admission.allow_running && input.running.has(input.namespace, digest);
                let image = Image { input, exemptions, subject, manifests, running };
                let gap = manifests.iter().any(|it| it.is_none_or(|it| it.gap().is_some()));
                if gap || manifests.is_empty() {
                    verdict.reasons.push(image.unscanned(it, *first_asked_ms, strict));
                }
                let findings = image.findings(it, verdict);
                verdict.reasons.extend(findings);
            }
        }
    }
}

/// An image whose digest is known, before one policy.
struct Image<'a> {
    input: &'a Input<'a>,
    exemptions: &'a [&'a Exemption],
    subject: &'a Subject<'a>,
    manifests: &'a [Option<FactsRef<'a>>],
    running: bool,
}

impl Image<'_> {
    fn unscanned(&self, it: &Judging<'_>, first_asked_ms: Option<i64>, strict: bool) -> Reason {
        let admission = &it.policy.admission;
        let now_ms = self.input.now_ms;
        let end = first_asked_ms.unwrap_or(now_ms).saturating_add(admission.max_wait_ms);
        let mut until_ms = None;
        let wanted = match admission.on_unscanned {
            OnUnscanned::Allow => Outcome::Allow,
            OnUnscanned::Warn => Outcome::Warn,
            OnUnscanned::Wait if now_ms < end || strict => {
                until_ms = Some(end);
                Outcome::Deny
            }
            OnUnscanned::Wait => Outcome::Warn,
            OnUnscanned::Deny => Outcome::Deny,
        };
        let outcome = if self.running { wanted.min(Outcome::Warn) } else { wanted };
        let gaps = self.manifests.iter().flatten().filter_map(|it| it.gap());
        let cause = Cause::Unscanned {
            why: gaps.min().map(str::to_owned),
            until_ms: until_ms.filter(|_| !self.running && !strict),
            running: self.running,
        };
        it.reason(self.subject, outcome, cause)
    }

    /// The findings that count, and in `verdict` those that do not.
    fn findings(&self, it: &Judging<'_>, verdict: &mut Verdict) -> Option<Reason> {
        let (mut counted, mut fixable) = (0_u32, 0_u32);
        let mut worst: Vec<FindingRef<'_>> = Vec::new();
        for facts in self.manifests.iter().flatten() {
            let (mut here, mut fixable_here) = (0_u32, 0_u32);
            for finding in facts.findings().filter(|finding| it.wants(finding)) {
                if it.grants_grace(&finding, facts.first_scanned_ms(), self.input.now_ms) {
                    verdict.in_grace = verdict.in_grace.saturating_add(1);
                } else if !self.is_forgiven(&finding, verdict) {
                    here = here.saturating_add(1);
                    fixable_here = fixable_here.saturating_add(u32::from(finding.fixable));
                    keep_worst(&mut worst, finding);
                }
            }
            counted = counted.max(here);
            fixable = fixable.max(fixable_here);
        }
        let cause = Cause::Findings {
            threshold: it.threshold,
            counted,
            fixable,
            worst: worst.into_iter().map(Worst::of).collect(),
            running: self.running,
        };
        let outcome = if self.running { Outcome::Warn } else { Outcome::Deny };
        (counted > 0).then(|| it.reason(self.subject, outcome, cause))
    }

    fn is_forgiven(&self, finding: &FindingRef<'_>, verdict: &mut Verdict) -> bool {
        let mut forgiven = false;
        for exemption in self.exemptions {
            if covers(exemption, self.subject.name)
                && exemption.forgives(finding.ids(), finding.package())
            {
                let count = verdict.forgiven.entry(exemption.full_name()).or_default();
                *count = count.saturating_add(1);
                forgiven = true;
            }
        }
        forgiven
    }
}

/// A tag beside a digest is checked by nobody, so that no exemption may lean on it.
fn covers(exemption: &Exemption, name: Option<&Name>) -> bool {
    name.is_some_and(|it| {
        exemption.covers(&it.registry, &it.repository, it.tag.as_deref().unwrap_or_default())
    })
}

/// How bad a finding is: the least first.
type Badness = (Severity, bool, bool, Option<u32>);

/// The worst first, in an order that leaves nothing open.
fn rank<'a>(it: &FindingRef<'a>) -> (Reverse<Badness>, [&'a str; 3], Option<&'a str>) {
    (
        Reverse((it.severity, it.exploited, it.fixable, it.epss)),
        [it.id(), it.package(), it.version()],
        it.fixed_in(),
    )
}

fn keep_worst<'a>(worst: &mut Vec<FindingRef<'a>>, finding: FindingRef<'a>) {
    let mine = rank(&finding);
    let at = worst.partition_point(|it| rank(it) < mine);
    // The same package may be in the manifests of several platforms.
    let known = worst.get(at).is_some_and(|it| rank(it) == mine);
    if at < WORST && !known {
        worst.insert(at, finding);
        worst.truncate(WORST);
    }
}

impl Worst {
    fn of(finding: FindingRef<'_>) -> Self {
        Self {
            id: finding.id().to_owned(),
            severity: finding.severity,
            exploited: finding.exploited,
            package: finding.package().to_owned(),
            version: finding.version().to_owned(),
            fixed_in: finding.fixed_in().map(str::to_owned),
        }
    }
}
