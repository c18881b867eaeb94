//! Exemptions: findings that somebody answers for, until a day that must be named.

use globset::{GlobBuilder, GlobMatcher};
use jiff::Timestamp;

use super::{
    Metadata, Scope,
    check::{GLOB_HINT, Images, check_metadata, shortened},
};
use crate::{
    crd::{ImageExemption, ImageExemptionSpec},
    error::Problem,
};

/// How far ahead an exemption may end, in milliseconds: 90 days.
pub const MAX_AHEAD_MS: i64 = 90 * 86_400_000;
/// Entries of one list.
const MAX_ENTRIES: usize = 500;
/// Characters of a reason.
const MAX_REASON: usize = 1024;

/// An exemption that was checked. It holds in its own namespace only.
#[derive(Clone, Debug)]
pub struct Exemption {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Why; shown with everything that it lets through.
    pub reason: String,
    /// Who answers for it; empty if nobody is named.
    pub owner: String,
    /// The first millisecond (since 1970) at which it holds no more.
    pub expires_ms: i64,
    /// Images; none means all of the namespace.
    pub(crate) images: Images,
    /// Ids of vulnerabilities, compared without regard to case; none means all.
    pub(crate) vulnerabilities: Vec<GlobMatcher>,
    /// Names of packages; none means all.
    pub(crate) packages: Vec<GlobMatcher>,
}

impl Exemption {
    /// The exemption of an object; see [`Exemption::check`].
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_object(object: &ImageExemption, now_ms: i64) -> Result<Self, Vec<Problem>> {
        Self::check((&object.metadata).into(), &object.spec, now_ms)
    }

    /// Checks what was read. An exemption whose time is over is fine; one that ends more than 90
    /// days after `now_ms` (milliseconds since 1970) is not.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn check(
        metadata: Metadata,
        spec: &ImageExemptionSpec,
        now_ms: i64,
    ) -> Result<Self, Vec<Problem>> {
        let exemption = Self::undated(metadata, spec)?;
        match exemption.too_far(now_ms) {
            None => Ok(exemption),
            Some(problem) => Err(vec![problem]),
        }
    }

    /// Everything but whether it ends too late.
    pub(crate) fn undated(
        metadata: Metadata,
        spec: &ImageExemptionSpec,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        check_metadata(Scope::Namespace, &metadata, &mut problems);
        if spec.reason.trim().is_empty() {
            problems.push(Problem::at("spec.reason", "no reason").hint("say why"));
        }
        if spec.reason.chars().count() > MAX_REASON {
            let fact = format!("longer than {MAX_REASON} characters");
            problems.push(Problem::at("spec.reason", fact).hint("link to where it is told"));
        }
        let expires = spec.expires_at.trim().parse::<Timestamp>().map(Timestamp::as_millisecond);
        let expires_ms = expires.unwrap_or_else(|_| {
            let fact = format!("not a time: \"{}\"", shortened(&spec.expires_at));
            let hint = "write it as 2026-12-31T00:00:00Z";
            problems.push(Problem::at("spec.expiresAt", fact).hint(hint));
            0
        });
        if spec.images.is_empty() && spec.vulnerabilities.is_empty() && spec.packages.is_empty() {
            let fact = "an exemption of everything";
            let hint = "name images, vulnerabilities or packages; what should not be blocked at \
                        all needs a policy with mode: Audit";
            problems.push(Problem::at("spec", fact).hint(hint));
        }
        let images = Images::new(&spec.images).unwrap_or_else(|(number, fact)| {
            problems.push(Problem::at(format!("spec.images[{number}]"), fact).hint(GLOB_HINT));
            Images::default()
        });
        let vulnerabilities = matchers("vulnerabilities", &spec.vulnerabilities, &mut problems);
        let packages = matchers("packages", &spec.packages, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name: metadata.name,
            namespace: metadata.namespace.unwrap_or_default(),
            reason: spec.reason.trim().to_owned(),
            owner: spec.owner.clone().unwrap_or_default(),
            expires_ms,
            images,
            vulnerabilities,
            packages,
        })
    }

    /// What is wrong with its end, seen from now.
    pub(crate) fn too_far(&self, now_ms: i64) -> Option<Problem> {
        let last = now_ms.saturating_add(MAX_AHEAD_MS);
        (self.expires_ms > last).then(|| {
            let day = Timestamp::from_millisecond(last).unwrap_or(Timestamp::MAX);
            Problem::at("spec.expiresAt", "more than 90 days ahead").hint(format!(
                "write {} or earlier, and renew it when that day comes",
                day.strftime("%Y-%m-%dT00:00:00Z")
            ))
        })
    }

    /// `namespace/name`, or the name alone where a file names no namespace.
    #[must_use]
    pub fn full_name(&self) -> String {
        match self.namespace.as_str() {
            "" => self.name.clone(),
            namespace => format!("{namespace}/{}", self.name),
        }
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, now_ms: i64) -> bool {
        self.expires_ms <= now_ms
    }

    /// Whether it is about an image. `registry` is empty for hosted ones, `tag` for those known by
    /// digest.
    #[must_use]
    pub fn covers(&self, registry: &str, repository: &str, tag: &str) -> bool {
        let slash = if registry.is_empty() { "" } else { "/" };
        self.images.is_empty()
            || self.images.matches(&format!("{registry}{slash}{repository}"), tag)
    }

    /// Whether it takes away a finding with these ids (the id and its aliases) in a package.
    #[must_use]
    pub fn forgives<'a>(&self, ids: impl IntoIterator<Item = &'a str>, package: &str) -> bool {
        let any = self.vulnerabilities.is_empty();
        (any || ids.into_iter().any(|id| self.vulnerabilities.iter().any(|it| it.is_match(id))))
            && (self.packages.is_empty() || self.packages.iter().any(|it| it.is_match(package)))
    }
}

/// A glob in which `*` stands for any part, compared without regard to case.
fn matcher(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    let glob = GlobBuilder::new(pattern).case_insensitive(true).build()?;
    Ok(glob.compile_matcher())
}

fn matchers(key: &str, patterns: &[String], problems: &mut Vec<Problem>) -> Vec<GlobMatcher> {
    if patterns.len() > MAX_ENTRIES {
        let fact = format!("more than {MAX_ENTRIES} entries");
        problems.push(Problem::at(format!("spec.{key}"), fact).hint("use * for a part of a name"));
        return Vec::new();
    }
    let mut globs = Vec::new();
    for (number, pattern) in patterns.iter().enumerate() {
        match matcher(pattern) {
            Ok(glob) if !pattern.is_empty() && pattern.len() <= 256 => globs.push(glob),
            _ => {
                let fact = format!("not a pattern: \"{}\"", shortened(pattern));
                let key = format!("spec.{key}[{number}]");
                problems.push(Problem::at(key, fact).hint(GLOB_HINT));
            }
        }
    }
    globs
}
