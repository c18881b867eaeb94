//! The same verdicts in the forms that dashboards of others read: one `PolicyReport`
//! (`wgpolicyk8s.io`) or `Report` (`openreports.io`) a namespace, bounded. Pure.

use std::collections::BTreeMap;

use kuboard_api::names;
use serde_json::{Value, json};

use crate::{
    judge::{Judged, Outcome},
    watch::{Runners, RunningImage},
};

/// Results in a report; the worst are shown, all are counted.
const MAX_RESULTS: usize = 200;
const MAX_MESSAGE: usize = 500;
/// The report of a namespace.
pub(crate) const NAME: &str = "kuboard-images";

/// A form of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `wgpolicyk8s.io/v1alpha2 PolicyReport`.
    PolicyReport,
    /// `openreports.io/v1alpha1 Report`.
    OpenReport,
}

impl Form {
    pub(crate) const ALL: [Self; 2] = [Self::PolicyReport, Self::OpenReport];

    /// (group, version, kind, plural).
    pub(crate) fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::PolicyReport => ("wgpolicyk8s.io", "v1alpha2", "PolicyReport", "policyreports"),
            Self::OpenReport => ("openreports.io", "v1alpha1", "Report", "reports"),
        }
    }
}

/// What a report holds, by namespace.
pub(crate) fn reports(
    form: Form,
    judged: &BTreeMap<RunningImage, (Runners, Judged)>,
) -> BTreeMap<String, Value> {
    let mut by_namespace: BTreeMap<String, Vec<(&RunningImage, &Runners, &Judged)>> =
        BTreeMap::new();
    for (image, (runners, judged)) in judged {
        if !judged.said.is_empty() {
            by_namespace
                .entry(image.namespace.to_string())
                .or_default()
                .push((image, runners, judged));
        }
    }
    by_namespace
        .into_iter()
        .map(|(namespace, all)| {
            let content = content(form, &namespace, &all);
            (namespace, content)
        })
        .collect()
}

fn content(form: Form, namespace: &str, all: &[(&RunningImage, &Runners, &Judged)]) -> Value {
    let mut counts = [0_u32; 4];
    let mut results: Vec<(u8, Value)> = Vec::new();
    for (image, runners, judged) in all {
        for said in &judged.said {
            let (rank, word) = match said.outcome {
                Outcome::Deny => (0, "fail"),
                Outcome::Warn | Outcome::Audit => (1, "warn"),
                Outcome::Allow if said.unscanned => (2, "skip"),
                Outcome::Allow => (3, "pass"),
            };
            if let Some(count) = counts.get_mut(usize::from(rank)) {
                *count += 1;
            }
            let digest = image.digest.map_or_else(String::new, |it| it.to_string());
            let reason = judged.reason.as_deref().filter(|_| said.outcome > Outcome::Allow);
            let message: String = reason.unwrap_or_default().chars().take(MAX_MESSAGE).collect();
            results.push((
                rank,
                json!({
                    "source": names::MANAGER,
                    "policy": said.policy.text(),
                    "rule": &*image.image,
                    "category": "image vulnerabilities",
                    "result": word,
                    "scored": true,
                    "message": message,
                    "resources": [{
                        "apiVersion": "v1", "kind": "Pod", "namespace": namespace,
                        "name": runners.pod,
                    }],
                    "properties": {
                        "digest": digest,
                        "owner": runners.owner,
                        "pods": runners.pods.to_string(),
                    },
                }),
            ));
        }
    }
    results.sort_by_key(|(rank, _)| *rank);
    results.truncate(MAX_RESULTS);
    let results: Vec<Value> = results.into_iter().map(|(_, result)| result).collect();
    let [fail, warn, skip, pass] = counts;
    let mut content = json!({
        "summary": {"pass": pass, "fail": fail, "warn": warn, "error": 0, "skip": skip},
        "results": results,
    });
    if form == Form::OpenReport
        && let Some(object) = content.as_object_mut()
    {
        object.insert("source".to_owned(), json!(names::MANAGER));
    }
    content
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kuboard_api::policy::Scope;
    use serde_json::json;

    use super::{Form, MAX_RESULTS, reports};
    use crate::{
        judge::{Judged, Outcome, PolicyKey, Said},
        watch::{Runners, RunningImage},
    };

    #[test]
    fn results_are_bounded_and_counted() {
        let outcomes = [Outcome::Allow, Outcome::Audit, Outcome::Warn, Outcome::Deny];
        let all: BTreeMap<RunningImage, (Runners, Judged)> = (0..400)
            .map(|number: usize| {
                let image = RunningImage {
                    namespace: "shop".into(),
                    image: format!("image-{number}").into(),
                    digest: None,
                };
                let policy = PolicyKey {
                    scope: Scope::Namespace,
                    namespace: "shop".to_owned(),
                    name: "scan".to_owned(),
                };
                let outcome = outcomes[number % 4];
                let judged = Judged {
                    outcome,
                    said: vec![Said { policy, outcome, unscanned: false }],
                    reason: Some("because".to_owned()),
                    manifests: Vec::new(),
                };
                (image, (Runners { pods: 1, ..Runners::default() }, judged))
            })
            .collect();
        let reports = reports(Form::OpenReport, &all);
        let report = &reports["shop"];
        let summary = json!({"pass": 100, "fail": 100, "warn": 200, "error": 0, "skip": 0});
        assert_eq!(report["summary"], summary);
        let results = report["results"].as_array().unwrap();
        assert_eq!(results.len(), MAX_RESULTS);
        assert_eq!(
            (&results[0]["result"], &results[99]["result"]),
            (&json!("fail"), &json!("fail"))
        );
        assert_eq!(results[100]["result"], "warn");
        assert_eq!(report["source"], "kuboard");
    }
}
