//! From what a policy says to what it means, with everything that is wrong about it.

use std::{fmt, str::FromStr};

use super::{ImageScanPolicySpec, Metadata, Schedule, ScheduleError, Scope};
use crate::{error::Problem, globs::Globs};

/// Globs of one list.
const MAX_GLOBS: usize = 1000;

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
    exclude_registries: Globs,
    images: Images,
}

/// Globs over images.
#[derive(Clone, Debug, Default)]
struct Images {
    patterns: Vec<String>,
    /// Repositories, and the tags of those whose pattern has a part for tags.
    parts: Vec<(Globs, Option<Globs>)>,
}

impl Images {
    fn new(patterns: &[String]) -> Result<Self, (usize, String)> {
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

    fn matches(&self, repository: &str, tag: &str) -> bool {
        self.parts.iter().any(|(repositories, tags)| {
            repositories.matches(repository) && tags.as_ref().is_none_or(|it| it.matches(tag))
        })
    }
}

impl Policy {
    /// Checks what was read; everything that is wrong comes at once.
    pub(super) fn check(
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
        let mut no_glob = |key: &str, (number, fact): (usize, String)| {
            let hint = "* stands for any part, ? for one character, [a-z] for one of them";
            problems.push(Problem::at(format!("spec.{key}[{number}]"), fact).hint(hint));
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
    fn checked(patterns: &[String]) -> Result<Self, (usize, String)> {
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

fn check_metadata(scope: Scope, metadata: &Metadata, problems: &mut Vec<Problem>) {
    let is_name = |text: &str, most: usize, others: &[u8]| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        (1..=most).contains(&bytes.len())
            && bytes.iter().all(|byte| inner(*byte) || others.contains(byte))
            && bytes.first().is_some_and(|byte| inner(*byte))
            && bytes.last().is_some_and(|byte| inner(*byte))
    };
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
