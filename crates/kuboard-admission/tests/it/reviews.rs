//! What is read of a question.

use kuboard_admission::review::{Kind, Operation, Place, Review, uid_of};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::ground;

#[test]
fn a_pod_is_read() {
    let mut review = ground::review(
        "shop",
        json!({
            "metadata": {
                "generateName": "web-",
                "labels": {"kuboard.cn/probe": "abc-1"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "2", "controller": true},
                ],
            },
            "spec": {
                "serviceAccountName": "runner",
                "imagePullSecrets": [{"name": "one"}, {}, {"name": "two"}],
                "initContainers": null,
                "containers": [{"name": "a", "image": "x\u{e9}\n"}, {"name": "b"}],
                "ephemeralContainers": [{"name": "e", "image": "d", "targetContainerName": "a"}],
                "volumes": [
                    {"name": "v", "emptyDir": {}},
                    {"name": "w", "image": {"reference": "vol", "pullPolicy": "Always"}},
                ],
            },
        }),
    );
    review["request"]["name"] = Value::Null;
    let text = review.to_string();
    let review = Review::parse(text.as_bytes()).unwrap();
    assert_eq!((review.kind, review.operation), (Kind::Pod, Operation::Create));
    assert_eq!((review.user.as_str(), review.by_node, review.dry_run), ("alice", false, false));
    let pod = review.workload().unwrap().unwrap();
    let uses: Vec<_> = pod
        .uses
        .iter()
        .map(|it| (it.place, it.index, it.container.as_str(), it.image.as_str()))
        .collect();
    let expected = [
        (Place::Container, 0, "a", "x\u{e9}\n"),
        (Place::Container, 1, "b", ""),
        (Place::Ephemeral, 0, "e", "d"),
        (Place::Volume, 1, "w", "vol"),
    ];
    assert_eq!(uses, expected);
    assert_eq!((pod.name.as_str(), pod.service_account.as_str()), ("web-", "runner"));
    assert_eq!(pod.pull_secrets.iter().map(|it| it.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(pod.owner.unwrap().uid.as_str(), "2", "the controller, not the first");
    assert_eq!(pod.probe.unwrap().as_str(), "abc-1");
    assert!(!pod.mirror);
    assert!(review.old_images().unwrap().is_empty());
}

#[test]
fn only_nonces_are_probes() {
    let check = |label: &str, want: bool| {
        let metadata = json!({"metadata": {"labels": {"kuboard.cn/probe": label}}});
        let text = ground::review("shop", metadata).to_string();
        let review = Review::parse(text.as_bytes()).unwrap();
        assert_eq!(review.workload().unwrap().unwrap().probe.is_some(), want, "{label:?}");
    };
    check("a-1", true);
    check("", false);
    check("A", false);
    check("a b", false);
    check(&"a".repeat(63), true);
    check(&"a".repeat(64), false);
}

#[test]
fn kinds_are_known_by_group_and_name() {
    let check = |group: &str, kind: &str, want: Kind| {
        assert_eq!(Kind::of(group, kind), want, "{group}/{kind}");
    };
    check("", "Pod", Kind::Pod);
    check("apps", "Pod", Kind::Unknown);
    check("", "pod", Kind::Unknown);
    for kind in ["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"] {
        check("apps", kind, Kind::Template);
        check("example.org", kind, Kind::Unknown);
    }
    check("extensions", "Deployment", Kind::Template);
    check("batch", "Job", Kind::Template);
    check("batch", "CronJob", Kind::CronJob);
    check("", "ReplicationController", Kind::Template);
    check("", "PodTemplate", Kind::PodTemplate);
    check("autoscaling", "Scale", Kind::Unknown);
}

#[test]
fn what_is_no_question_is_refused_with_its_uid() {
    let check = |text: &str, uid: Option<&str>, why: &str| {
        let refusal = Review::parse(text.as_bytes()).unwrap_err();
        assert_eq!(refusal.uid.as_deref(), uid, "{text}");
        assert!(refusal.why.contains(why), "{text}: {}", refusal.why);
    };
    check("", None, "can't be read");
    check("[]", None, "not an AdmissionReview");
    check("{}", None, "not an AdmissionReview");
    let head = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1""#;
    check(&format!("{head}}}"), None, "without a request");
    check(&format!(r#"{head},"request":{{"uid":"a-1"}}}}"#), Some("a-1"), "missing field");
    check(&format!(r#"{head},"request":{{"uid" : "a-1","x":"#), Some("a-1"), "can't be read");
    check(&format!(r#"{head},"request":{{"uid":"a\u0041"}}}}"#), None, "missing field");
    check(&format!(r#"{head},"request":{{"uid":""}}}}"#), None, "missing field");
    let beta = head.replace("/v1", "/v1beta1");
    let question =
        r#""request":{"uid":"b","kind":{"group":"","kind":"Pod"},"operation":"CREATE"}}"#;
    check(&format!("{beta},{question}"), Some("b"), "hint: the webhook's admissionReviewVersions");
    let twice = format!(r#"{head},"request":{{"uid":"a","uid":"b"}}}}"#);
    check(&twice, Some("a"), "duplicate field");
    assert!(Review::parse(format!("{head},{question}").as_bytes()).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = uid_of(&bytes);
        let _ = Review::parse(&bytes).map(|it| (it.workload().is_ok(), it.old_images().is_ok()));
    }

    #[test]
    fn any_cut_of_a_question_is_read_or_refused_with_its_uid(end in 0_usize..600) {
        let text = ground::pod("shop", &["a", "b"]).to_string();
        let cut = &text.as_bytes()[..end.min(text.len())];
        if let Err(refusal) = Review::parse(cut) {
            let shown = String::from_utf8_lossy(cut).contains("42010a800002\"");
            prop_assert_eq!(refusal.uid.is_some(), shown);
        }
    }
}
