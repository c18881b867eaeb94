//! What a policy means for pods that want to run an image: the part of a policy that admission
//! reads, checked and with its defaults.

use std::collections::BTreeMap;

/// What happens to a pod whose image breaks the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// It is recorded.
    Audit,
    /// It runs, and whoever created it is warned.
    Warn,
    /// It is refused.
    #[default]
    Enforce,
}

/// What happens to a pod whose image was not scanned yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnUnscanned {
    /// It runs.
    Allow,
    /// It runs, with a warning.
    Warn,
    /// It is refused for now and scanned first; after `max_wait_ms` it runs with a warning, so
    /// that a scanner that does not answer stops nobody for ever.
    #[default]
    Wait,
    /// It is refused until it is scanned.
    Deny,
}

/// What happens to a pod whose image can't be resolved or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnError {
    /// It runs.
    Allow,
    /// It runs, with a warning.
    #[default]
    Warn,
    /// It is refused.
    Deny,
}

/// How a policy is applied to pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// What happens to pods that break the policy.
    pub mode: Mode,
    /// Images without facts.
    pub on_unscanned: OnUnscanned,
    /// Images that can't be resolved.
    pub on_error: OnError,
    /// Bound of [`OnUnscanned::Wait`], milliseconds since the image was first asked for.
    pub max_wait_ms: i64,
    /// A finding that new advisories brought to an image which had been scanned before does not
    /// count for so long after it was first seen, in milliseconds.
    pub grace_ms: i64,
    /// What already runs in the namespace may be started again there.
    pub allow_running: bool,
    /// Only findings that are known to be exploited count.
    pub only_exploited: bool,
    /// Findings below this probability (EPSS, in 1/100000) do not count; those without one do.
    pub min_epss: u32,
    /// Of a cluster policy: the namespaces it is for.
    pub namespaces: Selector,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            on_unscanned: OnUnscanned::default(),
            on_error: OnError::default(),
            max_wait_ms: 5 * 60_000,
            grace_ms: 24 * 3_600_000,
            allow_running: true,
            only_exploited: false,
            min_epss: 0,
            namespaces: Selector::default(),
        }
    }
}

/// A label selector, as Kubernetes means it: all requirements hold. Empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels that must have these values.
    pub labels: BTreeMap<String, String>,
    /// Further requirements.
    pub requirements: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The label has one of the values.
    In(String, Vec<String>),
    /// The label is missing or has another value.
    NotIn(String, Vec<String>),
    /// The label is there.
    Exists(String),
    /// The label is not there.
    Absent(String),
}

impl Selector {
    /// Whether labels fulfil it.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = self.labels.iter().all(|(key, value)| labels.get(key) == Some(value));
        equal
            && self.requirements.iter().all(|one| match one {
                Requirement::In(key, values) => {
                    labels.get(key).is_some_and(|value| values.contains(value))
                }
                Requirement::NotIn(key, values) => {
                    labels.get(key).is_none_or(|value| !values.contains(value))
                }
                Requirement::Exists(key) => labels.contains_key(key),
                Requirement::Absent(key) => !labels.contains_key(key),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::{Requirement, Selector};

    #[test]
    fn selectors_select() {
        let check = |labels: &[(&str, &str)], requirement: Option<Requirement>, want: bool| {
            let selector = Selector {
                labels: [("team".to_owned(), "a".to_owned())].into(),
                requirements: requirement.clone().into_iter().collect(),
            };
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(selector.selects(&labels), want, "{labels:?} {requirement:?}");
        };
        let values = || vec!["x".to_owned(), "y".to_owned()];
        let key = || "stage".to_owned();
        check(&[], None, false);
        check(&[("team", "b")], None, false);
        check(&[("team", "a"), ("other", "z")], None, true);
        check(&[("team", "a")], Some(Requirement::In(key(), values())), false);
        check(&[("team", "a"), ("stage", "x")], Some(Requirement::In(key(), values())), true);
        check(&[("team", "a"), ("stage", "z")], Some(Requirement::In(key(), values())), false);
        check(&[("team", "a")], Some(Requirement::NotIn(key(), values())), true);
        check(&[("team", "a"), ("stage", "y")], Some(Requirement::NotIn(key(), values())), false);
        check(&[("team", "a"), ("stage", "")], Some(Requirement::Exists(key())), true);
        check(&[("team", "a")], Some(Requirement::Exists(key())), false);
        check(&[("team", "a")], Some(Requirement::Absent(key())), true);
        check(&[("team", "a"), ("stage", "z")], Some(Requirement::Absent(key())), false);
        assert!(Selector::default().selects(&[].into()), "an empty one selects everything");
    }
}
