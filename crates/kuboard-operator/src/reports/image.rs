//! Which `ImageReport`s are written and which removed. Pure: what is there and what should be
//! comes in, writes come out.

use std::collections::{BTreeMap, BTreeSet};

use kuboard_api::crd::{
    COMPLIANT, ImageReportSpec, ImageReportStatus, NamespaceVerdict, Said, set_condition, time,
};
use kuboard_oci::Digest;

use crate::{
    judge::{Judged, Outcome},
    watch::RunningImage,
};

const MAX_NAMESPACES: usize = 200;
const MAX_POLICIES: usize = 8;
const MAX_REASON: usize = 256;
const DAY_MS: i64 = 86_400_000;
/// What nobody runs keeps its report for so long.
pub(crate) const UNUSED_MS: i64 = 3_600_000;

/// Where an image runs and what is said of it there; the strictest verdict of a namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdicts {
    pub(crate) by_namespace: BTreeMap<String, NamespaceVerdict>,
    pub(crate) worst: Outcome,
}

/// Verdicts by manifest.
pub(crate) fn verdicts<'a>(
    judged: impl Iterator<Item = (&'a RunningImage, &'a Judged)>,
) -> BTreeMap<Digest, Verdicts> {
    let mut all: BTreeMap<Digest, Verdicts> = BTreeMap::new();
    for (image, judged) in judged {
        for digest in &judged.manifests {
            let verdicts = all.entry(*digest).or_default();
            verdicts.worst = verdicts.worst.max(judged.outcome);
            let is_stricter = verdicts
                .by_namespace
                .get(&*image.namespace)
                .is_none_or(|before| outcome_of(&before.verdict) < judged.outcome);
            if is_stricter {
                let verdict = verdict(&image.namespace, judged);
                verdicts.by_namespace.insert(image.namespace.to_string(), verdict);
            }
        }
    }
    all
}

fn verdict(namespace: &str, judged: &Judged) -> NamespaceVerdict {
    let mut policies: Vec<String> = judged
        .said
        .iter()
        .filter(|said| said.outcome == judged.outcome && said.outcome > Outcome::Allow)
        .map(|said| said.policy.text())
        .collect();
    policies.sort_unstable();
    policies.truncate(MAX_POLICIES);
    let reason = judged.reason.as_ref().map(|it| it.chars().take(MAX_REASON).collect());
    NamespaceVerdict {
        namespace: namespace.to_owned(),
        verdict: judged.outcome.as_str().to_owned(),
        policies,
        reason,
    }
}

fn outcome_of(word: &str) -> Outcome {
    [Outcome::Audit, Outcome::Warn, Outcome::Deny]
        .into_iter()
        .find(|it| it.as_str() == word)
        .unwrap_or_default()
}

/// The status of a report, made of the one before so that times stay when nothing changed.
pub(crate) fn status(
    before: Option<&ImageReportStatus>,
    verdicts: &Verdicts,
    now_ms: i64,
) -> ImageReportStatus {
    let mut namespaces: Vec<NamespaceVerdict> = verdicts.by_namespace.values().cloned().collect();
    if namespaces.len() > MAX_NAMESPACES {
        namespaces.sort_by_key(|it| std::cmp::Reverse(outcome_of(&it.verdict)));
        namespaces.truncate(MAX_NAMESPACES);
    }
    namespaces.sort_by(|one, other| one.namespace.cmp(&other.namespace));
    let mut conditions = before.map(|it| it.conditions.clone()).unwrap_or_default();
    let refused = namespaces.iter().filter(|it| it.verdict == "Deny").count();
    let (is_true, reason, message) = match refused {
        0 => (true, "Allowed", "no policy would refuse it where it runs".to_owned()),
        refused => (false, "Refused", format!("it would be refused in {refused} namespaces")),
    };
    let said = Said { kind: COMPLIANT, is_true: Some(is_true), reason, message: &message };
    let changed = set_condition(&mut conditions, said, None, now_ms)
        || before.is_none_or(|before| before.namespaces != namespaces);
    let evaluated_at = match (changed, before) {
        (false, Some(before)) => before.evaluated_at.clone(),
        _ => Some(time(now_ms)),
    };
    ImageReportStatus { observed_generation: None, conditions, evaluated_at, namespaces }
}

/// What a report says, but for the moment of the last look: advisories are matched several times
/// a day, and a report that says the same is written once a day at most.
pub(crate) fn content(spec: &ImageReportSpec, scanned_ms: i64) -> String {
    let mut lasting = spec.clone();
    lasting.scanned_at = (scanned_ms / DAY_MS).to_string();
    lasting.advisories = None;
    let bytes = serde_json::to_vec(&lasting).unwrap_or_default();
    Digest::sha256(&bytes).hex().chars().take(32).collect()
}

/// Images that get a report, at most `most` of them: the worst first.
pub(crate) fn chosen(verdicts: &BTreeMap<Digest, Verdicts>, most: usize) -> Vec<Digest> {
    let mut all: Vec<(std::cmp::Reverse<Outcome>, Digest)> =
        verdicts.iter().map(|(digest, it)| (std::cmp::Reverse(it.worst), *digest)).collect();
    all.sort_unstable();
    all.truncate(most);
    all.into_iter().map(|(_, digest)| digest).collect()
}

/// Since when reports are of no use.
#[derive(Default)]
pub(crate) struct Unused(BTreeMap<String, i64>);

impl Unused {
    /// Reports that nobody has needed for a while.
    pub(crate) fn over<'a>(
        &mut self,
        there: impl Iterator<Item = &'a String>,
        used: &BTreeSet<String>,
        now_ms: i64,
    ) -> Vec<String> {
        let mut still = BTreeMap::new();
        for name in there.filter(|name| !used.contains(*name)) {
            let since = self.0.get(name).copied().unwrap_or(now_ms).min(now_ms);
            still.insert(name.clone(), since);
        }
        self.0 = still;
        self.0
            .iter()
            .filter(|(_, since)| now_ms.saturating_sub(**since) >= UNUSED_MS)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kuboard_api::{crd::ImageReportSpec, policy::Scope};
    use kuboard_oci::Digest;

    use super::{UNUSED_MS, Unused, chosen, content, status, verdicts};
    use crate::{
        judge::{Judged, Outcome, PolicyKey, Said},
        watch::RunningImage,
    };

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn running(namespace: &str, image: &str) -> RunningImage {
        RunningImage { namespace: namespace.into(), image: image.into(), digest: None }
    }

    fn judged(outcome: Outcome, manifest: &str) -> Judged {
        let policy =
            PolicyKey { scope: Scope::Cluster, namespace: String::new(), name: "all".to_owned() };
        Judged {
            outcome,
            said: vec![Said { policy, outcome, unscanned: false }],
            reason: Some("because".to_owned()),
            manifests: vec![digest(manifest)],
        }
    }

    #[test]
    fn the_strictest_verdict_of_a_namespace_counts() {
        let all = [
            (running("a", "x:1"), judged(Outcome::Warn, "x")),
            (running("a", "x:2"), judged(Outcome::Deny, "x")),
            (running("a", "x:3"), judged(Outcome::Allow, "x")),
            (running("b", "x:1"), judged(Outcome::Allow, "x")),
            (running("b", "y:1"), judged(Outcome::Allow, "y")),
        ];
        let verdicts = verdicts(all.iter().map(|(image, judged)| (image, judged)));
        let x = &verdicts[&digest("x")];
        let words: Vec<_> =
            x.by_namespace.values().map(|it| (&*it.namespace, &*it.verdict)).collect();
        assert_eq!(words, [("a", "Deny"), ("b", "Allow")]);
        assert_eq!(x.by_namespace["a"].policies, ["all"]);
        assert!(x.by_namespace["b"].policies.is_empty());
        assert_eq!(chosen(&verdicts, 1), [digest("x")], "the worst first");
        assert_eq!(chosen(&verdicts, 9).len(), 2);
    }

    #[test]
    fn a_status_that_says_the_same_is_the_same() {
        let first = [(running("a", "x:1"), judged(Outcome::Deny, "x"))];
        let all = verdicts(first.iter().map(|(image, judged)| (image, judged)));
        let before = status(None, &all[&digest("x")], 1_000);
        assert_eq!(before.conditions[0].status, "False");
        let after = status(Some(&before), &all[&digest("x")], 90_000);
        assert_eq!(before, after);
        let second = [(running("a", "x:1"), judged(Outcome::Allow, "x"))];
        let all = verdicts(second.iter().map(|(image, judged)| (image, judged)));
        let after = status(Some(&before), &all[&digest("x")], 90_000);
        assert_eq!(after.conditions[0].status, "True");
        assert_ne!(before.evaluated_at, after.evaluated_at);
    }

    #[test]
    fn content_is_what_lasts() {
        let spec = ImageReportSpec { outcome: "Complete".to_owned(), ..Default::default() };
        let later = ImageReportSpec { scanned_at: "later".to_owned(), ..spec.clone() };
        assert_eq!(content(&spec, 0), content(&later, 3_600_000));
        assert_ne!(content(&spec, 0), content(&spec, 86_400_000), "once a day");
        let other = ImageReportSpec { outcome: "Partial".to_owned(), ..spec.clone() };
        assert_ne!(content(&spec, 0), content(&other, 0));
    }

    #[test]
    fn what_nobody_needs_goes_after_a_while() {
        let mut unused = Unused::default();
        let there = ["a".to_owned(), "b".to_owned()];
        let used = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|it| (*it).to_owned()).collect()
        };
        assert!(unused.over(there.iter(), &used(&["a"]), 0).is_empty());
        assert!(unused.over(there.iter(), &used(&["a"]), UNUSED_MS - 1).is_empty());
        assert_eq!(unused.over(there.iter(), &used(&["a"]), UNUSED_MS), ["b"]);
        assert!(unused.over(there.iter(), &used(&["a", "b"]), UNUSED_MS).is_empty());
        assert!(unused.over(there.iter(), &used(&["a"]), UNUSED_MS).is_empty(), "from the start");
    }
}
