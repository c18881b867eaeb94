//! From what a policy says to what it means, with everything that is wrong about it.

use std::{fmt, str::FromStr};

use super::{
    Admission, ImageScanPolicySpec, Metadata, Mode, OnError, OnUnscanned, Requirement, Schedule,
    ScheduleError, Scope, Selector,
};
use crate::{
    Seconds,
    crd::{ClusterImageScanPolicy, ImageScanPolicy, LabelSelector, problems::is_name},
    error::Problem,
    globs::Globs,
};

/// Globs of one list.
const MAX_GLOBS: usize = 1000;
/// Bounds of `maxWait` and `gracePeriod`, in seconds.
const MAX_WAIT: u64 = 24 * 3600;
const MAX_GRACE: u64 = 365 * 86_400;
/// EPSS is counted in 1/100000.
const EPSS_STEPS: f64 = 100_000.0;
pub(super) const GLOB_HINT: &str =
    "* stands for any part, ? for one character, [a-z] for one of them";

/// A severity that findings are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Threshold {
    /// `LOW`.
    Low,
    /// `MEDIUM`.
    Medium,
    /// `HIGH`.
    High,
    /// `CRITICAL`.
    Critical,
}

impl Threshold {
    /// In capitals, as policies write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Low, Self::Medium, Self::High, Self::Critical]
            .into_iter()
            .find(|it| it.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("no such severity: \"{}\"", shortened(text)))
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A policy that was checked.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whom it is for.
    pub scope: Scope,
    /// Its name and labels.
    pub metadata: Metadata,
    /// The least severity that counts; `None`: it blocks nothing.
    pub threshold: Option<Threshold>,
    /// Findings without a fix do not count.
    pub ignore_unfixed: bool,
    /// When images are scanned again.
    pub schedule: Option<Schedule>,
    /// Do nothing by it.
    pub suspended: bool,
    /// What it means for pods.
    pub admission: Admission,
    exclude_registries: Globs,
    images: Images,
}

/// Globs over images.
#[derive(Clone, Debug, Default)]
pub(crate) struct Images {
    patterns: Vec<String>,
    /// Repositories, and the tags of those whose pattern has a part for tags.
    parts: Vec<(Globs, Option<Globs>)>,
}

impl Images {
    pub(crate) fn new(patterns: &[String]) -> Result<Self, (usize, String)> {
        Globs::checked(patterns)?;
        let mut parts = Vec::new();
        for (number, pattern) in patterns.iter().enumerate() {
            let compiled = |text: &str| Globs::new(&[text.to_owned()]).map_err(|it| (number, it));
            let (repository, tag) = match pattern.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
                _ => (pattern.as_str(), None),
            };
            parts.push((compiled(repository)?, tag.map(compiled).transpose()?));
        }
        Ok(Self { patterns: patterns.to_vec(), parts })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    fn matches_any_tag(&self, repository: &str) -> bool {
        self.parts.iter().any(|(repositories, _)| repositories.matches(repository))
    }

    pub(crate) fn matches(&self, repository: &str, tag: &str) -> bool {
        self.parts.iter().any(|(repositories, tags)| {
            repositories.matches(repository) && tags.as_ref().is_none_or(|it| it.matches(tag))
        })
    }
}

impl Policy {
    /// The policy of an object of a namespace.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_object(object: &ImageScanPolicy) -> Result<Self, Vec<Problem>> {
        Self::check(Scope::Namespace, (&object.metadata).into(), &object.spec)
    }

    /// The policy of an object of the cluster.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_cluster_object(object: &ClusterImageScanPolicy) -> Result<Self, Vec<Problem>> {
        Self::check(Scope::Cluster, (&object.metadata).into(), &object.spec.0)
    }

    /// Checks what was read.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn check(
        scope: Scope,
        metadata: Metadata,
        spec: &ImageScanPolicySpec,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        check_metadata(scope, &metadata, &mut problems);
        let threshold = spec.severity_threshold.as_deref().and_then(|text| {
            text.parse().map_err(|fact: String| problems.push(unknown_severity(text, fact))).ok()
        });
        let schedule = schedule(spec, &mut problems);
        if spec.schedule.is_none() && spec.time_zone.is_some() {
            problems.push(
                Problem::at("spec.timeZone", "a time zone of no schedule")
                    .hint("add schedule: \"0 */6 * * *\", or remove timeZone"),
            );
        }
        let admission = admission(scope, spec, &mut problems);
        check_excluded(scope, spec, &mut problems);
        let mut no_glob = |key: &str, (number, fact): (usize, String)| {
            problems.push(Problem::at(format!("spec.{key}[{number}]"), fact).hint(GLOB_HINT));
        };
        let exclude_registries = Globs::checked(&spec.exclude_registries)
            .map_err(|wrong| no_glob("excludeRegistries", wrong))
            .unwrap_or_default();
        let images =
            Images::new(&spec.images).map_err(|wrong| no_glob("images", wrong)).unwrap_or_default();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            scope,
            metadata,
            threshold,
            ignore_unfixed: spec.ignore_unfixed,
            schedule,
            suspended: spec.suspended,
            admission,
            exclude_registries,
            images,
        })
    }

    /// `namespace/name`, or the name alone: unique among policies of a scope.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.metadata.namespace {
            Some(namespace) => format!("{namespace}/{}", self.metadata.name),
            None => self.metadata.name.clone(),
        }
    }

    /// Whether images of a registry are left alone. `registry` is a host, with its port if it has
    /// one; empty for hosted images.
    #[must_use]
    pub fn excludes(&self, registry: &str) -> bool {
        let host = match registry.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => registry,
        };
        self.exclude_registries.matches(registry) || self.exclude_registries.matches(host)
    }

    /// Whether the policy is about this image. `registry` is empty for hosted ones, `tag` for
    /// those known by digest.
    #[must_use]
    pub fn covers(&self, registry: &str, repository: &str, tag: &str) -> bool {
        if self.excludes(registry) {
            return false;
        }
        let slash = if registry.is_empty() { "" } else { "/" };
        let name = format!("{registry}{slash}{repository}");
        self.images.patterns.is_empty() || self.images.matches(&name, tag)
    }

    /// Whether the policy is about an image that may have any tag: one that is run by digest.
    #[must_use]
    pub fn covers_any_tag(&self, registry: &str, repository: &str) -> bool {
        if self.excludes(registry) {
            return false;
        }
        let slash = if registry.is_empty() { "" } else { "/" };
        let name = format!("{registry}{slash}{repository}");
        self.images.patterns.is_empty() || self.images.matches_any_tag(&name)
    }

    /// The globs of `excludeRegistries`.
    #[must_use]
    pub fn exclude_registries(&self) -> &[String] {
        self.exclude_registries.patterns()
    }

    /// The globs of `images`; none means all.
    #[must_use]
    pub fn images(&self) -> &[String] {
        &self.images.patterns
    }
}

impl Globs {
    /// Compiles patterns; the error tells which one is none, and why.
    pub(crate) fn checked(patterns: &[String]) -> Result<Self, (usize, String)> {
        if patterns.len() > MAX_GLOBS {
            return Err((MAX_GLOBS, format!("more than {MAX_GLOBS} patterns")));
        }
        for (number, pattern) in patterns.iter().enumerate() {
            if pattern.is_empty() || pattern.len() > 512 {
                let fact = format!("not a pattern: \"{}\"", shortened(pattern));
                return Err((number, fact));
            }
            Self::new(std::slice::from_ref(pattern)).map_err(|fact| (number, fact))?;
        }
        Self::new(patterns).map_err(|fact| (0, fact))
    }
}

fn schedule(spec: &ImageScanPolicySpec, problems: &mut Vec<Problem>) -> Option<Schedule> {
    let text = spec.schedule.as_deref()?;
    match Schedule::parse(text, spec.time_zone.as_deref()) {
        Ok(schedule) => Some(schedule),
        Err(ScheduleError::Cron(fact)) => {
            let (fact, hint) = fact.split_once('\n').unwrap_or((&fact, ""));
            let hint = match hint {
                "" => "minute, hour, day of the month, month, weekday, such as \"0 */6 * * *\"",
                hint => hint,
            };
            problems.push(Problem::at("spec.schedule", fact).hint(hint));
            // The zone is looked at too, so that one reading tells everything.
            let zone = Schedule::parse("@daily", spec.time_zone.as_deref()).err()?;
            problems.push(unknown_zone(&zone));
            None
        }
        Err(error @ ScheduleError::Zone(_)) => {
            problems.push(unknown_zone(&error));
            None
        }
    }
}

fn unknown_zone(error: &ScheduleError) -> Problem {
    Problem::at("spec.timeZone", error.to_string())
        .hint("write a name such as Asia/Shanghai or UTC; offsets such as +08:00 are none")
}

fn unknown_severity(text: &str, fact: String) -> Problem {
    let near = ["LOW", "MEDIUM", "HIGH", "CRITICAL"]
        .into_iter()
        .find(|word| strsim::damerau_levenshtein(word, &shortened(text).to_uppercase()) <= 2);
    let hint = match near {
        Some(word) => format!("did you mean {word}?"),
        None => "write LOW, MEDIUM, HIGH or CRITICAL".to_owned(),
    };
    Problem::at("spec.severityThreshold", fact).hint(hint)
}

/// What the policy means for pods.
fn admission(scope: Scope, spec: &ImageScanPolicySpec, problems: &mut Vec<Problem>) -> Admission {
    let usual = Admission::default();
    let modes = [("Enforce", Mode::Enforce), ("Warn", Mode::Warn), ("Audit", Mode::Audit)];
    let unscanned = [
        ("Allow", OnUnscanned::Allow),
        ("Warn", OnUnscanned::Warn),
        ("Wait", OnUnscanned::Wait),
        ("Deny", OnUnscanned::Deny),
    ];
    let errors = [("Allow", OnError::Allow), ("Warn", OnError::Warn), ("Deny", OnError::Deny)];
    let namespaces = match (&spec.namespace_selector, scope) {
        (None, _) => Selector::default(),
        (Some(selector), Scope::Cluster) => label_selector(selector, problems),
        (Some(_), Scope::Namespace) => {
            let fact = "an ImageScanPolicy is for its own namespace";
            let hint = "remove it, or write kind: ClusterImageScanPolicy";
            problems.push(Problem::at("spec.namespaceSelector", fact).hint(hint));
            Selector::default()
        }
    };
    let min_epss = spec.min_epss.unwrap_or_default();
    if !(0.0..=1.0).contains(&min_epss) {
        let hint = "it is a probability, from 0 to 1";
        problems.push(Problem::at("spec.minEpss", format!("not {min_epss}")).hint(hint));
    }
    Admission {
        mode: word("spec.mode", spec.mode.as_deref(), &modes, usual.mode, problems),
        on_unscanned: word(
            "spec.onUnscanned",
            spec.on_unscanned.as_deref(),
            &unscanned,
            usual.on_unscanned,
            problems,
        ),
        on_error: word("spec.onError", spec.on_error.as_deref(), &errors, usual.on_error, problems),
        max_wait_ms: duration("spec.maxWait", spec.max_wait.as_deref(), MAX_WAIT, problems)
            .unwrap_or(usual.max_wait_ms),
        grace_ms: duration("spec.gracePeriod", spec.grace_period.as_deref(), MAX_GRACE, problems)
            .unwrap_or(usual.grace_ms),
        allow_running: spec.allow_running.unwrap_or(usual.allow_running),
        only_exploited: spec.only_exploited,
        min_epss: (min_epss.clamp(0.0, 1.0) * EPSS_STEPS).round() as u32,
        namespaces,
    }
}

/// One of the known words.
fn word<T: Copy>(
    key: &str,
    said: Option<&str>,
    known: &[(&str, T)],
    usual: T,
    problems: &mut Vec<Problem>,
) -> T {
    let Some(said) = said else { return usual };
    if let Some((_, value)) = known.iter().find(|(word, _)| *word == said) {
        return *value;
    }
    let shown = shortened(said);
    let near = known.iter().find(|(word, _)| {
        strsim::damerau_levenshtein(&word.to_lowercase(), &shown.to_lowercase()) <= 1
    });
    let hint = match near {
        Some((word, _)) => format!("did you mean {word}?"),
        None => {
            let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            format!("write one of {}", words.join(", "))
        }
    };
    problems.push(Problem::at(key, format!("not \"{shown}\"")).hint(hint));
    usual
}

/// A duration with its unit, in milliseconds.
fn duration(key: &str, said: Option<&str>, most: u64, problems: &mut Vec<Problem>) -> Option<i64> {
    let said = said?;
    let hint = "write a duration such as 30s, 5m, 24h or 7d";
    let has_unit = said.ends_with(|last: char| last.is_ascii_lowercase());
    let seconds = match said.parse::<Seconds>() {
        Ok(seconds) if has_unit => seconds.duration().as_secs(),
        _ => {
            let fact = format!("not a duration: \"{}\"", shortened(said));
            problems.push(Problem::at(key, fact).hint(hint));
            return None;
        }
    };
    if seconds > most {
        let fact = format!("longer than {}", Seconds::of(most));
        problems.push(Problem::at(key, fact).hint("write a shorter one"));
        return None;
    }
    i64::try_from(seconds).ok()?.checked_mul(1000)
}

fn label_selector(selector: &LabelSelector, problems: &mut Vec<Problem>) -> Selector {
    let mut requirements = Vec::new();
    for (number, one) in selector.match_expressions.iter().enumerate() {
        let (key, values) = (one.key.clone(), one.values.clone());
        let place = format!("spec.namespaceSelector.matchExpressions[{number}]");
        let requirement = match (one.operator.as_str(), values.is_empty()) {
            ("In", false) => Requirement::In(key, values),
            ("NotIn", false) => Requirement::NotIn(key, values),
            ("Exists", true) => Requirement::Exists(key),
            ("DoesNotExist", true) => Requirement::Absent(key),
            ("In" | "NotIn", true) => {
                let fact = format!("{} of no values", one.operator);
                problems.push(Problem::at(place, fact).hint("write values: [a, b]"));
                continue;
            }
            ("Exists" | "DoesNotExist", false) => {
                let fact = format!("{} has no values", one.operator);
                problems.push(Problem::at(place, fact).hint("remove them, or write In or NotIn"));
                continue;
            }
            (other, _) => {
                let fact = format!("no such operator: \"{}\"", shortened(other));
                let hint = "write In, NotIn, Exists or DoesNotExist";
                problems.push(Problem::at(place, fact).hint(hint));
                continue;
            }
        };
        requirements.push(requirement);
    }
    Selector { labels: selector.match_labels.clone(), requirements }
}

/// A policy that looks at nothing is a mistake, but for the cluster's, which others may rely on.
fn check_excluded(scope: Scope, spec: &ImageScanPolicySpec, problems: &mut Vec<Problem>) {
    let is_all = |glob: &String| !glob.is_empty() && glob.bytes().all(|byte| byte == b'*');
    if scope == Scope::Namespace
        && let Some(number) = spec.exclude_registries.iter().position(is_all)
    {
        let fact = "excluding all registries leaves nothing";
        let hint = "set suspended: true, or delete the policy";
        problems.push(Problem::at(format!("spec.excludeRegistries[{number}]"), fact).hint(hint));
    }
}

pub(super) fn check_metadata(scope: Scope, metadata: &Metadata, problems: &mut Vec<Problem>) {
    let hint = "lower-case letters, digits and \"-\", as in production-scan";
    if !is_name(&metadata.name, 253, b"-.") {
        let fact = format!("not a name: \"{}\"", shortened(&metadata.name));
        problems.push(Problem::at("metadata.name", fact).hint(hint));
    }
    let Some(namespace) = &metadata.namespace else { return };
    if scope == Scope::Cluster {
        problems.push(
            Problem::at("metadata.namespace", "a ClusterImageScanPolicy is in no namespace")
                .hint("remove it, or write kind: ImageScanPolicy"),
        );
    } else if !is_name(namespace, 63, b"-") {
        let fact = format!("not a namespace: \"{}\"", shortened(namespace));
        problems.push(Problem::at("metadata.namespace", fact).hint(hint));
    }
}

/// Text of a file for a message.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
