//! NetworkPolicies that keep pods from the registry, or the API server from the webhook: which
//! ports a set of policies leaves open is computed as the network plugin would.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::Pod,
        networking::v1::{NetworkPolicy, NetworkPolicyPort},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{
    finding::Finding,
    observed::{Observed, full_name},
};

/// Ports by which the registry is reached.
const REGISTRY_PORTS: [i32; 2] = [5000, 443];

/// Which way a policy looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// Finds policies that close what must be open: the way into our own pods.
pub(crate) fn judge(seen: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    let home = |pod: &&Pod| pod.metadata.namespace.as_deref() == Some(seen.home.as_str());
    for pod in seen.pods.iter().filter(home) {
        let component = label(pod, "app.kubernetes.io/component");
        let serves = matches!(component, "registry-proxy" | "registry-cache");
        for port in REGISTRY_PORTS.iter().filter(|port| serves && listens(pod, **port)) {
            findings.extend(closed(seen, pod, Way::In, *port).map(|policies| {
                Finding::problem("network.ingress", format!("pods of {component}"))
                    .symptom(format!("pulls time out: nothing reaches port {port}"))
                    .evidence(format!("closed by NetworkPolicy {}", policies.join(", ")))
                    .cause(format!("NetworkPolicies select {component} and let nobody in on port {port}"))
                    .fix(format!("allow ingress on port {port} to pods with app.kubernetes.io/component={component} (the chart's networkPolicy.enabled does so)"))
            }));
        }
        if component == "operator" || component == "admission" {
            findings.extend(closed(seen, pod, Way::In, 9443).map(|policies| {
                Finding::problem("network.webhook", format!("pods of {component}"))
                    .symptom("pods are created unchecked, or not at all: the API server can't reach the webhook")
                    .evidence(format!("closed by NetworkPolicy {}", policies.join(", ")))
                    .cause("NetworkPolicies close port 9443 of the webhook")
                    .fix("allow ingress on port 9443 from the API server's addresses (networkPolicy.apiServerCIDRs of the chart)")
            }));
        }
    }
    let waits = seen.pods.iter().filter(|pod| asks_registry_itself(pod, &seen.home));
    for pod in waits {
        let shut = REGISTRY_PORTS.map(|port| closed(seen, pod, Way::Out, port));
        if let [Some(policies), Some(_)] = shut {
            findings.push(
                Finding::problem("network.egress", format!("pod {}", full_name(&pod.metadata)))
                    .symptom("the pod can't reach any registry")
                    .evidence(format!("closed by NetworkPolicy {}", policies.join(", ")))
                    .cause("NetworkPolicies of its namespace let nothing out on ports 5000 and 443")
                    .fix("allow egress on ports 5000 and 443 to the registry"),
            );
        }
    }
    findings.dedup();
    findings
}

/// Nodes pull images, pods do not; but our own pods ask upstreams, and builders push.
fn asks_registry_itself(pod: &Pod, home: &str) -> bool {
    pod.metadata.namespace.as_deref() == Some(home)
        && matches!(
            label(pod, "app.kubernetes.io/component"),
            "registry-proxy" | "registry-cache" | "scan-worker"
        )
}

fn label<'a>(pod: &'a Pod, key: &str) -> &'a str {
    pod.metadata.labels.as_ref().and_then(|all| all.get(key)).map_or("", String::as_str)
}

fn listens(pod: &Pod, port: i32) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.flat_map(|it| it.ports.iter().flatten()).any(|it| it.container_port == port)
}

/// The policies that close a port of a pod: `None` if it is open to somebody.
fn closed(seen: &Observed, pod: &Pod, way: Way, port: i32) -> Option<Vec<String>> {
    let empty = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&empty);
    let about: Vec<&NetworkPolicy> = seen
        .network_policies
        .iter()
        .filter(|policy| policy.metadata.namespace == pod.metadata.namespace)
        .filter(|policy| looks(policy, way))
        .filter(|policy| {
            policy
                .spec
                .as_ref()
                .and_then(|spec| spec.pod_selector.as_ref())
                .is_none_or(|it| selects(it, labels))
        })
        .collect();
    if about.is_empty() || about.iter().any(|policy| opens(policy, way, port)) {
        return None;
    }
    Some(about.iter().map(|policy| full_name(&policy.metadata)).collect())
}

fn looks(policy: &NetworkPolicy, way: Way) -> bool {
    let Some(spec) = &policy.spec else { return way == Way::In };
    match &spec.policy_types {
        Some(types) => types.iter().any(|it| (it == "Ingress") == (way == Way::In)),
        // Left out, a policy is about ingress, and about egress if it has rules for that.
        None => way == Way::In || spec.egress.is_some(),
    }
}

fn opens(policy: &NetworkPolicy, way: Way, port: i32) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let open = |ports: &Option<Vec<NetworkPolicyPort>>| {
        ports.as_ref().is_none_or(|ports| ports.is_empty() || ports.iter().any(|it| has(it, port)))
    };
    match way {
        Way::In => spec.ingress.iter().flatten().any(|rule| open(&rule.ports)),
        Way::Out => spec.egress.iter().flatten().any(|rule| open(&rule.ports)),
    }
}

fn has(rule: &NetworkPolicyPort, port: i32) -> bool {
    if rule.protocol.as_deref().is_some_and(|it| it != "TCP") {
        return false;
    }
    match (&rule.port, rule.end_port) {
        (None, _) => true,
        (Some(IntOrString::Int(first)), None) => *first == port,
        (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&port),
        // A name stands for a port of the pod: that it is ours can't be excluded.
        (Some(IntOrString::String(_)), _) => true,
    }
}

/// Whether a selector selects labels; an empty one selects everything.
pub(crate) fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal =
        selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let requirements = selector.match_expressions.iter().flatten();
    equal
        && requirements.into_iter().all(|one| {
            let value = labels.get(&one.key);
            let among =
                || value.is_some_and(|it| one.values.as_ref().is_some_and(|all| all.contains(it)));
            match one.operator.as_str() {
                "In" => among(),
                "NotIn" => !among(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::observed::Observed;
    use super::judge;

    fn codes(policies: serde_json::Value) -> Vec<&'static str> {
        let seen: Observed = serde_json::from_value(json!({
            "home": "kuboard",
            "pods": [
                {"metadata": {"name": "p", "namespace": "kuboard",
                    "labels": {"app.kubernetes.io/component": "registry-proxy"}},
                 "spec": {"containers": [{"name": "registry-proxy",
                    "ports": [{"containerPort": 5000}]}]}},
                {"metadata": {"name": "o", "namespace": "kuboard",
                    "labels": {"app.kubernetes.io/component": "operator"}},
                 "spec": {"containers": [{"name": "operator"}]}},
            ],
            "networkPolicies": policies,
        }))
        .unwrap();
        judge(&seen).iter().map(|it| it.code).collect()
    }

    #[test]
    fn closed_ports_are_found() {
        let policy = |spec: serde_json::Value| json!([{"metadata": {"name": "n", "namespace": "kuboard"}, "spec": spec}]);
        let check = |policies: serde_json::Value, want: &[&str]| {
            assert_eq!(codes(policies.clone()), want, "{policies}");
        };
        check(json!([]), &[]);
        check(
            policy(json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
            &["network.ingress", "network.webhook"],
        );
        check(
            policy(json!({"podSelector": {}, "ingress": [{"ports": [{"port": 443}]}]})),
            &["network.ingress", "network.webhook"],
        );
        check(
            policy(
                json!({"podSelector": {}, "ingress": [{"ports": [{"port": 4000, "endPort": 10000}]}]}),
            ),
            &[],
        );
        check(policy(json!({"podSelector": {}, "ingress": [{}]})), &[]);
        check(
            policy(
                json!({"podSelector": {"matchLabels": {"app.kubernetes.io/component": "operator"}}}),
            ),
            &["network.webhook"],
        );
        check(
            policy(json!({"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"]})),
            &[],
        );
        check(policy(json!({"podSelector": {}, "policyTypes": ["Egress"]})), &["network.egress"]);
        check(
            policy(
                json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 443}]}]}),
            ),
            &[],
        );
        check(
            policy(
                json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 5000, "protocol": "UDP"}]}]}),
            ),
            &["network.ingress", "network.webhook"],
        );
    }
}
