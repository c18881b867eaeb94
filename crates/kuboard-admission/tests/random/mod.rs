//! Random worlds for the verdict: small ones, out of few names, so that things meet. Each can be
//! judged, written as JSON for who judges it in another language, and changed step by step.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use kuboard_admission::{
    Name, Verdict,
    facts::{FactsIndex, FactsRef},
    judge,
    verdict::{Cause, Found, Input, Subject},
};
use kuboard_api::{crd::ImageExemptionSpec, policy::ImageScanPolicySpec};
use kuboard_api::{
    desired::{Namespace, Running},
    policy::{
        Admission, Exemption, Metadata, Mode, OnError, OnUnscanned, Policy, Requirement, Scope,
        Selector,
    },
};
use kuboard_oci::Digest;
use kuboard_vuln::{Fact, ImageFacts, Known, Severity};
use serde::Serialize;
use serde_json::{Value, json};

/// Deterministic noise (splitmix64).
#[derive(Clone)]
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn some<T: Clone>(&mut self, all: &[T], most: usize) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| self.pick(all)).collect()
    }
}

/// A world before a verdict.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Case {
    pub(crate) namespace: String,
    /// `None`: nobody knows the namespace.
    pub(crate) labels: Option<Vec<(String, String)>>,
    pub(crate) images: Vec<Image>,
    pub(crate) policies: Vec<Rule>,
    pub(crate) exemptions: Vec<Exempted>,
    /// (namespace, digest by number).
    pub(crate) running: Vec<(String, u64)>,
    pub(crate) now_ms: i64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Image {
    pub(crate) image: String,
    /// Registry, repository, tag; `None` with the state `invalid`.
    pub(crate) name: Option<(String, String, Option<String>)>,
    /// `invalid`, `unresolved` or `resolved`.
    pub(crate) state: String,
    pub(crate) digest: u64,
    pub(crate) manifests: Vec<Option<Facts>>,
    pub(crate) first_asked_ms: Option<i64>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Facts {
    /// `all`, `part` or `nothing`.
    pub(crate) known: String,
    pub(crate) first_scanned_ms: i64,
    pub(crate) findings: Vec<Finding>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) id: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) fixed_in: Option<String>,
    /// 0 (unknown) to 5 (critical).
    pub(crate) severity: usize,
    pub(crate) exploited: bool,
    pub(crate) epss: Option<u32>,
    pub(crate) first_seen_ms: i64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rule {
    /// `None`: a cluster policy.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) threshold: Option<String>,
    pub(crate) ignore_unfixed: bool,
    pub(crate) suspended: bool,
    pub(crate) exclude_registries: Vec<String>,
    pub(crate) images: Vec<String>,
    /// 0 audit, 1 warn, 2 enforce.
    pub(crate) mode: usize,
    /// 0 allow, 1 warn, 2 wait, 3 deny.
    pub(crate) on_unscanned: usize,
    /// 0 allow, 1 warn, 2 deny.
    pub(crate) on_error: usize,
    pub(crate) max_wait_ms: i64,
    pub(crate) grace_ms: i64,
    pub(crate) allow_running: bool,
    pub(crate) only_exploited: bool,
    pub(crate) min_epss: u32,
    pub(crate) selector_labels: Vec<(String, String)>,
    /// (kind, key, values); kinds are `in`, `not-in`, `exists` and `absent`.
    pub(crate) selector_requirements: Vec<(String, String, Vec<String>)>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Exempted {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) expires_ms: i64,
    pub(crate) images: Vec<String>,
    pub(crate) vulnerabilities: Vec<String>,
    pub(crate) packages: Vec<String>,
}

const NAMESPACES: &[&str] = &["shop", "play", "default"];
const KEYS: &[&str] = &["team", "stage"];
const VALUES: &[&str] = &["a", "b"];
const REGISTRIES: &[&str] = &["reg.io", "reg.io.evil", "reg.io:5000", "docker.io", ""];
const REPOSITORIES: &[&str] = &["team/web", "team/web/ui", "library/nginx", "web"];
const TAGS: &[&str] = &["1", "1.2", "latest"];
const REGISTRY_GLOBS: &[&str] = &["reg.io", "*.evil", "reg.*", "*r*", "docker.?o", "reg.io:5000"];
const IMAGE_GLOBS: &[&str] = &[
    "reg.io/**",
    "reg.io/*",
    "reg.io/team/*",
    "**/web",
    "**",
    "**/team/web:1",
    "**/team/web:1*",
    "docker.io/library/nginx:*",
    "team/*",
    "*/*/web:latest",
    "w?b",
];
const IDS: &[&str] =
    &["CVE-2026-1", "CVE-2026-2", "CVE-2025-11", "GHSA-aa-bb", "DSA-7", "CVE-2026-12"];
const ID_GLOBS: &[&str] = &["CVE-2026-1", "cve-2026-*", "GHSA-*", "*", "CVE-2026-?", "DSA-8"];
const PACKAGES: &[&str] = &["openssl", "zlib1g", "libc/bin"];
const PACKAGE_GLOBS: &[&str] = &["openssl", "zlib*", "lib*", "OPEN*"];
const VERSIONS: &[&str] = &["1.0", "1.1"];
const THRESHOLDS: &[&str] = &["LOW", "MEDIUM", "HIGH", "CRITICAL"];
/// Half of the times of a world are near this one.
const NOW: i64 = 1_795_392_000_000;
const STEPS: &[i64] = &[-100_000, -10_000, -1000, -1, 0, 1, 1000, 10_000, 100_000];

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|it| (*it).to_owned()).collect()
}

fn moment(noise: &mut Noise) -> i64 {
    match noise.below(40) {
        0 => i64::MAX,
        1 => i64::MIN,
        _ => NOW + noise.pick(STEPS),
    }
}

impl Case {
    pub(crate) fn random(noise: &mut Noise) -> Self {
        let pairs = |noise: &mut Noise| {
            let mut labels: Vec<(String, String)> = Vec::new();
            for key in KEYS {
                if noise.one_in(2) {
                    labels.push(((*key).to_owned(), noise.pick(VALUES).to_owned()));
                }
            }
            labels
        };
        let labels = (!noise.one_in(8)).then(|| {
            let mut labels = pairs(noise);
            if noise.one_in(4) {
                let value = noise.pick(&["strict", "strict", "lax"]);
                labels.push(("kuboard.cn/enforce".to_owned(), value.to_owned()));
            }
            labels
        });
        let mut case = Self {
            namespace: noise.pick(NAMESPACES).to_owned(),
            labels,
            images: Vec::new(),
            policies: Vec::new(),
            exemptions: Vec::new(),
            running: Vec::new(),
            now_ms: NOW,
        };
        for number in 0..1 + noise.below(3) {
            case.images.push(Image::random(noise, number));
        }
        for number in 0..noise.below(4) {
            case.policies.push(Rule::random(noise, number));
        }
        for number in 0..noise.below(3) {
            case.exemptions.push(Exempted::random(noise, number));
        }
        for _ in 0..noise.below(3) {
            case.running.push((noise.pick(NAMESPACES).to_owned(), noise.below(3) as u64));
        }
        case
    }

    /// The verdict, from facts as they are or (`kept`) as the index keeps them.
    pub(crate) fn verdict(&self, kept: bool) -> Verdict {
        let names: Vec<Option<Name>> = self.images.iter().map(Image::name).collect();
        let digests: Vec<Digest> = self.images.iter().map(|it| digest(it.digest)).collect();
        let all: Vec<Vec<Option<ImageFacts>>> = self
            .images
            .iter()
            .map(|it| it.manifests.iter().map(|it| it.as_ref().map(Facts::of)).collect())
            .collect();
        let index = FactsIndex::new(usize::MAX);
        let number = |image: usize, manifest: usize| digest((image * 100 + manifest) as u64 + 1000);
        if kept {
            for (image, manifests) in all.iter().enumerate() {
                for (manifest, facts) in manifests.iter().enumerate() {
                    if let Some(facts) = facts {
                        assert!(index.put(&number(image, manifest), facts));
                    }
                }
            }
        }
        let reading = index.read();
        let facts: Vec<Vec<Option<FactsRef<'_>>>> = all
            .iter()
            .enumerate()
            .map(|(image, manifests)| {
                let manifests = manifests.iter().enumerate();
                manifests
                    .map(|(manifest, facts)| match kept {
                        true => reading.get(&number(image, manifest)),
                        false => facts.as_ref().map(FactsRef::from),
                    })
                    .collect()
            })
            .collect();
        let subjects: Vec<Subject<'_>> = self
            .images
            .iter()
            .enumerate()
            .map(|(at, it)| Subject {
                image: &it.image,
                place: "",
                name: names[at].as_ref(),
                found: match it.state.as_str() {
                    "invalid" => Found::Invalid("no image"),
                    "unresolved" => Found::Unresolved("no answer"),
                    _ => Found::Resolved {
                        digest: &digests[at],
                        manifests: &facts[at],
                        first_asked_ms: it.first_asked_ms,
                    },
                },
            })
            .collect();
        let policies: Vec<Arc<Policy>> = self.policies.iter().map(|it| it.policy()).collect();
        let exemptions: Vec<Arc<Exemption>> =
            self.exemptions.iter().map(|it| it.exemption()).collect();
        let mut running = Running::default();
        for (namespace, number) in &self.running {
            running.digests.entry(namespace.clone()).or_default().insert(digest(*number));
        }
        let known = self
            .labels
            .as_ref()
            .map(|labels| Namespace { labels: labels.iter().cloned().collect() });
        judge(&Input {
            namespace: &self.namespace,
            known: known.as_ref(),
            images: &subjects,
            policies: &policies,
            exemptions: &exemptions,
            running: &running,
            now_ms: self.now_ms,
        })
    }
}

fn digest(number: u64) -> Digest {
    Digest::sha256(&number.to_be_bytes())
}

impl Image {
    fn random(noise: &mut Noise, number: usize) -> Self {
        let state =
            noise.pick(&["resolved", "resolved", "resolved", "resolved", "unresolved", "invalid"]);
        let tag = (!noise.one_in(3)).then(|| noise.pick(TAGS).to_owned());
        let name = (noise.pick(REGISTRIES).to_owned(), noise.pick(REPOSITORIES).to_owned(), tag);
        let manifests = match noise.below(10) {
            0 => 0,
            1..8 => 1,
            _ => 2,
        };
        Self {
            image: format!("image-{number}"),
            name: (state != "invalid").then_some(name),
            state: state.to_owned(),
            digest: noise.below(3) as u64,
            manifests: (0..manifests)
                .map(|_| (!noise.one_in(5)).then(|| Facts::random(noise)))
                .collect(),
            first_asked_ms: noise.one_in(2).then(|| moment(noise)),
        }
    }

    fn name(&self) -> Option<Name> {
        let (registry, repository, tag) = self.name.clone()?;
        Some(Name { registry, repository, tag })
    }
}

impl Facts {
    fn random(noise: &mut Noise) -> Self {
        Self {
            known: noise.pick(&["all", "all", "all", "all", "part", "nothing"]).to_owned(),
            first_scanned_ms: moment(noise),
            findings: (0..noise.below(5)).map(|_| Finding::random(noise)).collect(),
        }
    }

    fn of(&self) -> ImageFacts {
        let why = || "why".into();
        ImageFacts {
            known: match self.known.as_str() {
                "all" => Known::All,
                "part" => Known::Part(why()),
                _ => Known::Nothing(why()),
            },
            findings: self.findings.iter().map(Finding::fact).collect(),
            first_scanned_ms: self.first_scanned_ms,
            scanned_ms: self.first_scanned_ms,
        }
    }
}

impl Finding {
    fn random(noise: &mut Noise) -> Self {
        Self {
            id: noise.pick(IDS).to_owned(),
            aliases: texts(&noise.some(IDS, 2)),
            package: noise.pick(PACKAGES).to_owned(),
            version: noise.pick(VERSIONS).to_owned(),
            fixed_in: noise.one_in(2).then(|| noise.pick(VERSIONS).to_owned()),
            severity: noise.below(6),
            exploited: noise.one_in(4),
            epss: noise.one_in(2).then(|| noise.pick(&[0, 99, 100, 101, 100_000])),
            first_seen_ms: moment(noise),
        }
    }

    fn fact(&self) -> Fact {
        let severities = [
            Severity::Unknown,
            Severity::Negligible,
            Severity::Low,
            Severity::Medium,
            Severity::High,
            Severity::Critical,
        ];
        Fact {
            id: self.id.as_str().into(),
            aliases: self.aliases.iter().map(|it| it.as_str().into()).collect(),
            package: self.package.as_str().into(),
            version: self.version.as_str().into(),
            fixed_in: self.fixed_in.as_deref().map(Into::into),
            severity: severities[self.severity],
            exploited: self.exploited,
            epss: self.epss,
            first_seen_ms: self.first_seen_ms,
        }
    }
}

impl Rule {
    fn random(noise: &mut Noise, number: usize) -> Self {
        let namespace = noise.one_in(2).then(|| noise.pick(NAMESPACES).to_owned());
        let kinds = ["in", "not-in", "exists", "absent"];
        let (labels, requirements) = match namespace {
            Some(_) => (Vec::new(), Vec::new()),
            None => (
                (0..noise.below(2))
                    .map(|_| (noise.pick(KEYS).to_owned(), noise.pick(VALUES).to_owned()))
                    .collect(),
                (0..noise.below(2))
                    .map(|_| {
                        let kind = noise.pick(&kinds).to_owned();
                        (kind, noise.pick(KEYS).to_owned(), texts(&noise.some(VALUES, 2)))
                    })
                    .collect(),
            ),
        };
        Self {
            namespace,
            name: format!("p{number}"),
            threshold: (!noise.one_in(8)).then(|| noise.pick(THRESHOLDS).to_owned()),
            ignore_unfixed: noise.one_in(3),
            suspended: noise.one_in(10),
            exclude_registries: match noise.one_in(3) {
                true => texts(&noise.some(REGISTRY_GLOBS, 1)),
                false => Vec::new(),
            },
            images: match noise.one_in(2) {
                true => texts(&noise.some(IMAGE_GLOBS, 2)),
                false => Vec::new(),
            },
            mode: noise.pick(&[0, 1, 2, 2]),
            on_unscanned: noise.below(4),
            on_error: noise.below(3),
            max_wait_ms: noise.pick(&[0, 1, 1000, 20_000, i64::MAX]),
            grace_ms: noise.pick(&[0, 1, 1000, 20_000, i64::MAX]),
            allow_running: noise.one_in(2),
            only_exploited: noise.one_in(4),
            min_epss: noise.pick(&[0, 0, 100, 100_000]),
            selector_labels: labels,
            selector_requirements: requirements,
        }
    }

    /// The policy with these globs, compiled once: a million worlds have few lists of them.
    fn compiled(&self) -> Policy {
        type Lists = (Vec<String>, Vec<String>);
        thread_local! {
            static KNOWN: RefCell<HashMap<Lists, Policy>> = RefCell::default();
        }
        let lists = (self.exclude_registries.clone(), self.images.clone());
        KNOWN.with_borrow_mut(|known| {
            let compile = |(exclude_registries, images): &Lists| {
                let spec = ImageScanPolicySpec {
                    exclude_registries: exclude_registries.clone(),
                    images: images.clone(),
                    ..ImageScanPolicySpec::default()
                };
                let metadata = Metadata { name: "p".to_owned(), ..Metadata::default() };
                Policy::check(Scope::Cluster, metadata, &spec).unwrap()
            };
            known.entry(lists).or_insert_with_key(compile).clone()
        })
    }

    fn policy(&self) -> Arc<Policy> {
        let mut policy = self.compiled();
        policy.threshold = self.threshold.as_deref().map(|it| it.parse().unwrap());
        policy.ignore_unfixed = self.ignore_unfixed;
        policy.suspended = self.suspended;
        policy.scope = match self.namespace {
            Some(_) => Scope::Namespace,
            None => Scope::Cluster,
        };
        policy.metadata = Metadata {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            ..Metadata::default()
        };
        let requirement = |(kind, key, values): &(String, String, Vec<String>)| {
            let (key, values) = (key.clone(), values.clone());
            match kind.as_str() {
                "in" => Requirement::In(key, values),
                "not-in" => Requirement::NotIn(key, values),
                "exists" => Requirement::Exists(key),
                _ => Requirement::Absent(key),
            }
        };
        policy.admission = Admission {
            mode: [Mode::Audit, Mode::Warn, Mode::Enforce][self.mode],
            on_unscanned: [
                OnUnscanned::Allow,
                OnUnscanned::Warn,
                OnUnscanned::Wait,
                OnUnscanned::Deny,
            ][self.on_unscanned],
            on_error: [OnError::Allow, OnError::Warn, OnError::Deny][self.on_error],
            max_wait_ms: self.max_wait_ms,
            grace_ms: self.grace_ms,
            allow_running: self.allow_running,
            only_exploited: self.only_exploited,
            min_epss: self.min_epss,
            namespaces: Selector {
                labels: self.selector_labels.iter().cloned().collect(),
                requirements: self.selector_requirements.iter().map(requirement).collect(),
            },
        };
        Arc::new(policy)
    }
}

impl Exempted {
    fn random(noise: &mut Noise, number: usize) -> Self {
        Self {
            namespace: noise.pick(NAMESPACES).to_owned(),
            name: format!("e{number}"),
            expires_ms: NOW + noise.pick(STEPS),
            images: texts(&noise.some(IMAGE_GLOBS, 2)),
            vulnerabilities: texts(&[noise.pick(ID_GLOBS)]),
            packages: match noise.one_in(3) {
                true => texts(&noise.some(PACKAGE_GLOBS, 2)),
                false => Vec::new(),
            },
        }
    }

    fn exemption(&self) -> Arc<Exemption> {
        let spec = ImageExemptionSpec {
            images: self.images.clone(),
            vulnerabilities: self.vulnerabilities.clone(),
            packages: self.packages.clone(),
            reason: "test".to_owned(),
            owner: None,
            expires_at: "2026-12-01T00:00:00Z".to_owned(),
        };
        let metadata = Metadata {
            name: self.name.clone(),
            namespace: Some(self.namespace.clone()),
            ..Metadata::default()
        };
        let mut exemption = Exemption::check(metadata, &spec, NOW).unwrap();
        exemption.expires_ms = self.expires_ms;
        Arc::new(exemption)
    }
}

/// Makes a finding more serious; `false` if there is none.
fn worsen_finding(case: &mut Case, noise: &mut Noise) -> bool {
    let facts = case.images.iter_mut().flat_map(|it| it.manifests.iter_mut()).flatten();
    let mut findings: Vec<&mut Finding> = facts.flat_map(|it| it.findings.iter_mut()).collect();
    if findings.is_empty() {
        return false;
    }
    let at = noise.below(findings.len());
    let finding = &mut findings[at];
    match noise.below(5) {
        0 => finding.severity = (finding.severity + 1).min(5),
        1 => finding.exploited = true,
        2 => finding.epss = None,
        3 => finding.fixed_in = Some("9".to_owned()),
        // Longer known: its grace ends sooner, or never was.
        _ => finding.first_seen_ms = finding.first_seen_ms.saturating_sub(5000),
    }
    true
}

/// Makes a policy stricter; `false` if there is none.
fn tighten_policy(case: &mut Case, noise: &mut Noise) -> bool {
    if case.policies.is_empty() {
        return false;
    }
    let at = noise.below(case.policies.len());
    let it: &mut Rule = &mut case.policies[at];
    match noise.below(14) {
        0 => {
            let step = it
                .threshold
                .as_deref()
                .and_then(|now| THRESHOLDS.iter().position(|one| *one == now));
            let lower = step.map_or(THRESHOLDS.len() - 1, |step| step.saturating_sub(1));
            it.threshold = Some(THRESHOLDS[lower].to_owned());
        }
        1 => it.ignore_unfixed = false,
        2 => it.suspended = false,
        3 => drop(it.exclude_registries.pop()),
        4 => it.images.clear(),
        5 if !it.images.is_empty() => it.images.push("**".to_owned()),
        6 => it.mode = (it.mode + 1).min(2),
        7 => it.on_unscanned = (it.on_unscanned + 1).min(3),
        8 => it.on_error = (it.on_error + 1).min(2),
        9 => it.max_wait_ms = it.max_wait_ms.saturating_mul(2).saturating_add(1),
        10 => it.grace_ms /= 2,
        11 => it.allow_running = false,
        12 => it.only_exploited = false,
        _ => it.min_epss /= 2,
    }
    true
}

/// Makes a world worse or stricter in one point; `false` if it has no such point.
pub(crate) fn worsen(case: &mut Case, noise: &mut Noise) -> bool {
    match noise.below(8) {
        0 | 1 => tighten_policy(case, noise),
        2 => worsen_finding(case, noise),
        3 => {
            let manifests = case.images.iter_mut().flat_map(|it| it.manifests.iter_mut());
            let mut known: Vec<_> = manifests.flatten().collect();
            if known.is_empty() {
                return false;
            }
            let at = noise.below(known.len());
            known[at].findings.push(Finding::random(noise));
            true
        }
        4 => {
            case.policies.push(Rule::random(noise, 9));
            true
        }
        5 => case.exemptions.pop().is_some(),
        6 => case.running.pop().is_some(),
        _ => {
            let strict = ("kuboard.cn/enforce".to_owned(), "strict".to_owned());
            case.labels.as_mut().is_some_and(|labels| {
                labels.retain(|it| it.0 != strict.0);
                labels.push(strict);
                true
            })
        }
    }
}

/// What both sides of a comparison say of a case.
pub(crate) fn told(verdict: &Verdict) -> Value {
    let reasons = verdict.reasons.iter().map(|it| {
        let detail = match &it.cause {
            Cause::Findings { counted, fixable, worst, running, .. } => {
                let worst: Vec<_> =
                    worst.iter().map(|it| json!([it.id, it.package, it.version])).collect();
                json!(["findings", counted, fixable, running, worst])
            }
            Cause::Unscanned { until_ms, running, .. } => json!(["unscanned", until_ms, running]),
            Cause::Unresolved(_) => json!(["unresolved"]),
            Cause::Invalid(_) => json!(["invalid"]),
        };
        json!([it.outcome.as_str(), it.image, it.policy, detail])
    });
    let mut reasons: Vec<String> = reasons.map(|it| it.to_string()).collect();
    reasons.sort();
    json!({
        "outcome": verdict.outcome.as_str(),
        "reasons": reasons,
        "forgiven": verdict.forgiven,
        "in_grace": verdict.in_grace,
    })
}
