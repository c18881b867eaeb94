//! Who the API server says a token stands for.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use kuboard_registry::server::Workload;

/// What the API server adds to a user by itself; a claim here says nothing about rights.
const OWN_EXTRAS: &str = "authentication.kubernetes.io/";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// An authenticated user, as RBAC sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Such as `system:serviceaccount:team:default`.
    pub user: String,
    /// Empty if it has none.
    pub uid: String,
    /// Its groups, sorted.
    pub groups: Vec<String>,
    /// What else an authorizer may depend on. What a service account's token is bound to is left
    /// out: it says where somebody runs, not who it is.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Where it runs.
    pub workload: Option<Workload>,
}

impl Subject {
    /// Reads the answer to a review; `None` if the token was not accepted for this audience.
    #[must_use]
    pub fn of(status: TokenReviewStatus, audience: &str) -> Option<Self> {
        let audiences = status.audiences.unwrap_or_default();
        // An API server that knows nothing of audiences names none: it did not check ours.
        if status.authenticated != Some(true) || !audiences.iter().any(|one| one == audience) {
            return None;
        }
        let UserInfo { username, uid, groups, extra } = status.user?;
        let user = username.filter(|name| !name.is_empty())?;
        let mut extra = extra.unwrap_or_default();
        let workload = workload(&user, &extra);
        extra.retain(|key, _| !key.starts_with(OWN_EXTRAS));
        let mut groups = groups.unwrap_or_default();
        groups.sort_unstable();
        Some(Self { user, uid: uid.unwrap_or_default(), groups, extra, workload })
    }
}

fn workload(user: &str, extra: &BTreeMap<String, Vec<String>>) -> Option<Workload> {
    let (namespace, account) = user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    let first =
        |key: &str| extra.get(key).and_then(|values| values.first()).cloned().unwrap_or_default();
    Some(Workload {
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        pod: first(POD_NAME),
        pod_uid: first(POD_UID),
        node: first(NODE_NAME),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subject(status: serde_json::Value) -> Option<Subject> {
        Subject::of(serde_json::from_value(status).unwrap(), "registry.kuboard.cn")
    }

    #[test]
    fn only_tokens_for_our_audience_stand_for_somebody() {
        let user = json!({"username": "system:serviceaccount:team:web"});
        let check = |status: serde_json::Value, accepted: bool| {
            assert_eq!(subject(status.clone()).is_some(), accepted, "{status}");
        };
        let ours = json!(["registry.kuboard.cn"]);
        check(json!({"authenticated": true, "audiences": ours, "user": user}), true);
        check(
            json!({"authenticated": true, "audiences": ["x", "registry.kuboard.cn"], "user": user}),
            true,
        );
        check(json!({"authenticated": true, "audiences": ["x"], "user": user}), false);
        check(json!({"authenticated": true, "audiences": [], "user": user}), false);
        check(json!({"authenticated": true, "user": user}), false);
        check(json!({"authenticated": false, "audiences": ours, "user": user}), false);
        check(json!({"audiences": ours, "user": user}), false);
        check(json!({"authenticated": true, "audiences": ours}), false);
        check(json!({"authenticated": true, "audiences": ours, "user": {"username": ""}}), false);
    }

    #[test]
    fn pod_and_node_are_told_and_other_extras_kept() {
        let found = subject(json!({
            "authenticated": true,
            "audiences": ["registry.kuboard.cn"],
            "user": {
                "username": "system:serviceaccount:team:web",
                "uid": "u1",
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["web-0"],
                    "authentication.kubernetes.io/pod-uid": ["p1"],
                    "authentication.kubernetes.io/node-name": ["node-1"],
                    "authentication.kubernetes.io/credential-id": ["JTI=1"],
                    "scopes.example.com": ["a", "b"],
                },
            },
        }))
        .unwrap();
        assert_eq!(found.groups, ["system:authenticated", "system:serviceaccounts"]);
        assert_eq!(found.extra.keys().collect::<Vec<_>>(), ["scopes.example.com"]);
        let workload = found.workload.unwrap();
        assert_eq!(
            (workload.namespace.as_str(), workload.service_account.as_str()),
            ("team", "web")
        );
        assert_eq!(
            (workload.pod.as_str(), workload.pod_uid.as_str(), workload.node.as_str()),
            ("web-0", "p1", "node-1")
        );
    }

    #[test]
    fn a_user_of_another_kind_runs_nowhere() {
        let found = subject(json!({
            "authenticated": true,
            "audiences": ["registry.kuboard.cn"],
            "user": {"username": "ann"},
        }));
        assert_eq!(found.map(|found| (found.user, found.workload)), Some(("ann".to_owned(), None)));
    }
}
