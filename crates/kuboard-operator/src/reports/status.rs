//! What policies and exemptions are told about themselves. Pure.

use std::collections::BTreeMap;

use kuboard_api::{
    crd::{
        ACTIVE, ENFORCING, ImageCounts, ImageExemptionStatus, ImageScanPolicyStatus, READY, Said,
        set_condition, time,
    },
    policy::Mode,
};

use crate::{
    judge::{Judged, Outcome, PolicyKey},
    watch::{KeptExemption, KeptPolicy},
};

/// What else a policy's status depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Surroundings {
    /// The webhook is armed.
    pub(crate) armed: bool,
    /// What runs, counted; `None`: not yet.
    pub(crate) counts: Option<ImageCounts>,
    /// When the schedule ran last.
    pub(crate) last_scan_ms: Option<i64>,
    pub(crate) now_ms: i64,
}

/// What runs, counted by policy.
pub(crate) fn count<'a>(
    judged: impl Iterator<Item = &'a Judged>,
) -> BTreeMap<PolicyKey, ImageCounts> {
    let mut counts: BTreeMap<PolicyKey, ImageCounts> = BTreeMap::new();
    for said in judged.flat_map(|it| &it.said) {
        let counts = counts.entry(said.policy.clone()).or_default();
        counts.matched += 1;
        counts.blocked += i64::from(said.outcome == Outcome::Deny);
        counts.warned += i64::from(said.outcome == Outcome::Warn);
        counts.unscanned += i64::from(said.unscanned);
    }
    counts
}

/// A policy's status, made of the one before.
pub(crate) fn policy(kept: &KeptPolicy, around: Surroundings) -> ImageScanPolicyStatus {
    let before = kept.status.clone().unwrap_or_default();
    let mut conditions = before.conditions;
    let generation = Some(kept.generation);
    let now_ms = around.now_ms;
    let invalid = kept.problem.as_ref().map(|problem| match kept.meaning {
        Some(_) => format!("{problem}\nuntil it is mended, the policy holds as it was before"),
        None => format!("{problem}\nuntil it is mended, nothing is done by it"),
    });
    let ready = match &invalid {
        None => Said { kind: READY, is_true: Some(true), reason: "Valid", message: "" },
        Some(message) => Said { kind: READY, is_true: Some(false), reason: "Invalid", message },
    };
    set_condition(&mut conditions, ready, generation, now_ms);
    let (enforces, reason, message) = enforcing(kept, around.armed);
    let enforcing = Said { kind: ENFORCING, is_true: Some(enforces), reason, message };
    set_condition(&mut conditions, enforcing, generation, now_ms);
    let schedule = kept.meaning.as_ref().filter(|it| !it.suspended);
    let next_ms = schedule.and_then(|it| it.schedule.as_ref()?.next_after(now_ms));
    ImageScanPolicyStatus {
        observed_generation: generation,
        conditions,
        last_scan_time: around.last_scan_ms.map(time).or(before.last_scan_time),
        next_scan_time: next_ms.map(time),
        images: around.counts.or(before.images),
    }
}

fn enforcing(kept: &KeptPolicy, armed: bool) -> (bool, &'static str, &'static str) {
    let Some(policy) = &kept.meaning else {
        return (false, "Invalid", "the policy can't be used");
    };
    if policy.suspended {
        return (false, "Suspended", "spec.suspended is true");
    }
    match policy.admission.mode {
        _ if policy.threshold.is_none() => {
            (false, "NoThreshold", "without severityThreshold no finding keeps a pod from running")
        }
        Mode::Audit => (false, "Audit", "spec.mode is Audit: what breaks it is recorded"),
        Mode::Warn => (false, "Warn", "spec.mode is Warn: what breaks it is warned of"),
        Mode::Enforce if !armed => {
            (false, "NotArmed", "the webhook is not armed; see kuboard admission status")
        }
        Mode::Enforce => (true, "Armed", "pods that break it are refused"),
    }
}

/// An exemption's status, made of the one before.
pub(crate) fn exemption(kept: &KeptExemption, now_ms: i64) -> ImageExemptionStatus {
    let mut conditions = kept.status.clone().unwrap_or_default().conditions;
    let generation = Some(kept.generation);
    let over = kept.meaning.as_ref().is_some_and(|it| it.is_over(now_ms));
    let problem = kept.problem.clone().unwrap_or_default();
    let (is_true, reason, message) = match (&kept.meaning, over) {
        (Some(_), true) => (false, "Expired", "its time is over"),
        (Some(_), false) if problem.is_empty() => (true, "InForce", ""),
        (Some(_), false) => (true, "InForceAsBefore", &*problem),
        (None, _) => (false, "Invalid", &*problem),
    };
    let said = Said { kind: ACTIVE, is_true: Some(is_true), reason, message };
    set_condition(&mut conditions, said, generation, now_ms);
    ImageExemptionStatus { observed_generation: generation, conditions }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use kuboard_api::policy::parse;

    use super::{Surroundings, policy};
    use crate::watch::KeptPolicy;

    const NOW: i64 = 1_795_000_000_000;

    fn kept(spec: &str, problem: Option<&str>) -> KeptPolicy {
        let text = format!(
            "apiVersion: kuboard.cn/v1alpha1\nkind: ImageScanPolicy\nmetadata:\n  name: p\n  \
             namespace: shop\nspec: {spec}\n"
        );
        let folder = parse(Path::new("p.yaml"), &text).unwrap();
        let meaning = folder.policies.into_iter().next().map(|it| Arc::new(it.policy));
        KeptPolicy {
            uid: "1".to_owned(),
            generation: 3,
            meaning,
            problem: problem.map(str::to_owned),
            status: None,
        }
    }

    #[test]
    fn policies_are_told_whether_they_enforce() {
        let check = |spec: &str, armed: bool, want: (&str, &str)| {
            let around = Surroundings { armed, now_ms: NOW, ..Surroundings::default() };
            let status = policy(&kept(spec, None), around);
            let enforcing = &status.conditions[1];
            assert_eq!((&*enforcing.status, &*enforcing.reason), want, "{spec}");
            assert_eq!(status.conditions[0].status, "True");
            assert_eq!(status.observed_generation, Some(3));
        };
        check("{severityThreshold: HIGH}", true, ("True", "Armed"));
        check("{severityThreshold: HIGH}", false, ("False", "NotArmed"));
        check("{severityThreshold: HIGH, mode: Warn}", true, ("False", "Warn"));
        check("{severityThreshold: HIGH, mode: Audit}", true, ("False", "Audit"));
        check("{severityThreshold: HIGH, suspended: true}", true, ("False", "Suspended"));
        check("{}", true, ("False", "NoThreshold"));
    }

    #[test]
    fn an_invalid_policy_says_what_holds() {
        let mut broken = kept("{severityThreshold: HIGH}", Some("spec.severityThreshold: no"));
        let around = Surroundings { armed: true, now_ms: NOW, ..Surroundings::default() };
        let status = policy(&broken, around);
        assert_eq!(
            (&*status.conditions[0].status, &*status.conditions[0].reason),
            ("False", "Invalid")
        );
        assert!(status.conditions[0].message.contains("holds as it was before"));
        assert_eq!(status.conditions[1].status, "True", "the last good form enforces");
        broken.meaning = None;
        let status = policy(&broken, around);
        assert!(status.conditions[0].message.contains("nothing is done by it"));
        assert_eq!(status.conditions[1].reason, "Invalid");
    }

    #[test]
    fn a_status_that_says_the_same_is_the_same() {
        let mut kept = kept("{severityThreshold: HIGH, schedule: \"0 */6 * * *\"}", None);
        let around = Surroundings { armed: true, now_ms: NOW, ..Surroundings::default() };
        let first = policy(&kept, around);
        assert!(first.next_scan_time.is_some());
        kept.status = Some(first.clone());
        assert_eq!(policy(&kept, Surroundings { now_ms: NOW + 60_000, ..around }), first);
    }
}
