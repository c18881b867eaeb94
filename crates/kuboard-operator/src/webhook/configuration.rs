//! What the API server is told of the webhook. Pure; every expression here was tried on a real
//! API server, because one that fails to evaluate refuses everything that it is about.

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations,
        ServiceReference, ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, OwnerReference},
};
use kube::api::ObjectMeta;
use kuboard_api::names;

/// The label that every namespace has, with its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The configuration by which the API server calls us for a self-test only.
pub const PROBE_CONFIGURATION: &str = "kuboard-admission-probe";

/// How the API server reaches the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// `https://HOST:PORT`, for API servers that don't reach Services.
    Url(String),
}

/// Where the webhook is, and whom it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Our own namespace, whose pods are never judged.
    pub namespace: String,
    /// How the API server reaches us.
    pub address: Address,
    /// Path that judges pods.
    pub validate_path: String,
    /// Path that warns of workloads.
    pub warn_path: String,
    /// Path that pins images to digests.
    pub mutate_path: String,
    /// Whether pods are changed: tags become digests.
    pub mutate: bool,
    /// Further namespaces that are never judged.
    pub excluded_namespaces: Vec<String>,
    /// How long the API server waits for a verdict on a pod, in seconds (1 to 30).
    pub timeout_seconds: i32,
    /// The ClusterRole that goes when we are uninstalled; what was armed goes with it.
    pub owner: String,
}

impl Default for Settings {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            namespace: text(names::NAMESPACE),
            address: Address::Service {
                namespace: text(names::NAMESPACE),
                name: text("kuboard-webhook"),
                port: 443,
            },
            validate_path: text("/admission/validate"),
            warn_path: text("/admission/warn"),
            mutate_path: text("/admission/mutate"),
            mutate: false,
            excluded_namespaces: Vec::new(),
            timeout_seconds: 3,
            owner: text("kuboard-operator"),
        }
    }
}

impl Settings {
    /// The names that the certificate of the webhook needs.
    #[must_use]
    pub fn certificate_names(&self) -> Vec<String> {
        match &self.address {
            Address::Service { namespace, name, .. } => vec![
                format!("{name}.{namespace}.svc"),
                format!("{name}.{namespace}.svc.cluster.local"),
                format!("{name}.{namespace}"),
            ],
            Address::Url(url) => host(url).map(str::to_owned).into_iter().collect(),
        }
    }

    fn client(&self, path: &str, bundle: &str) -> WebhookClientConfig {
        let ca_bundle = Some(ByteString(bundle.as_bytes().to_vec()));
        match &self.address {
            Address::Service { namespace, name, port } => WebhookClientConfig {
                ca_bundle,
                service: Some(ServiceReference {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    path: Some(path.to_owned()),
                    port: Some(i32::from(*port)),
                }),
                url: None,
            },
            Address::Url(url) => WebhookClientConfig {
                ca_bundle,
                service: None,
                url: Some(format!("{}{path}", url.trim_end_matches('/'))),
            },
        }
    }

    /// Namespaces that are judged; `strict`: only those that fail closed, or only the others.
    fn namespaces(&self, strict: Option<bool>) -> LabelSelector {
        let mut out: Vec<String> =
            names::SYSTEM_NAMESPACES.iter().map(|name| (*name).to_owned()).collect();
        out.push(self.namespace.clone());
        out.extend(self.excluded_namespaces.iter().cloned());
        out.dedup();
        let mut requirements = vec![
            requirement(NAME_LABEL, "NotIn", out),
            requirement(names::ADMISSION, "NotIn", vec![names::DISABLED.to_owned()]),
        ];
        if let Some(strict) = strict {
            let operator = if strict { "In" } else { "NotIn" };
            requirements.push(requirement(
                names::ENFORCE,
                operator,
                vec![names::STRICT.to_owned()],
            ));
        }
        LabelSelector { match_expressions: Some(requirements), match_labels: None }
    }
}

/// The host of a URL, without port and brackets.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next();
    }
    authority.split(':').next().filter(|host| !host.is_empty())
}

fn requirement(key: &str, operator: &str, values: Vec<String>) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(values),
    }
}

fn rule(group: &str, version: &str, operations: &[&str], resources: &[&str]) -> RuleWithOperations {
    let texts = |list: &[&str]| Some(list.iter().map(|it| (*it).to_owned()).collect());
    RuleWithOperations {
        api_groups: texts(&[group]),
        api_versions: texts(&[version]),
        operations: texts(operations),
        resources: texts(resources),
        scope: Some("Namespaced".to_owned()),
    }
}

/// Everything by which a pod gets an image to run.
fn pods(operations: &[&str]) -> Vec<RuleWithOperations> {
    vec![rule("", "v1", operations, &["pods", "pods/ephemeralcontainers"])]
}

fn condition(name: &str, expression: String) -> MatchCondition {
    MatchCondition { name: name.to_owned(), expression }
}

/// Images of a pod. Nothing is taken for granted: this runs before the API server has checked the
/// pod, and a field that is missing would be an error, which refuses the request.
fn images(pod: &str) -> String {
    ["containers", "initContainers", "ephemeralContainers"]
        .map(|field| {
            let list = format!("{pod}.spec.{field}");
            format!("(has({list}) ? {list}.map(c, has(c.image) ? c.image : '') : [])")
        })
        .join(" + ")
}

/// Whether the requester may go past us, and says so.
pub(super) fn bypass() -> String {
    format!(
        "has(object.metadata.annotations) && '{}' in object.metadata.annotations && {}",
        names::BYPASS,
        may_bypass()
    )
}

pub(super) fn may_bypass() -> String {
    format!("authorizer.group('{}').resource('admission').check('bypass').allowed()", names::GROUP)
}

fn pod_conditions() -> Vec<MatchCondition> {
    vec![
        // Volumes of a pod never change, so images of volumes can't either.
        condition(
            "images-changed",
            format!(
                "request.operation != 'UPDATE' || ({}) != ({})",
                images("object"),
                images("oldObject")
            ),
        ),
        // The shadow of a static pod, which a kubelet shows: it runs already. Of anybody else the
        // annotation counts for nothing.
        condition(
            "not-shown-by-a-kubelet",
            "!(has(object.metadata.annotations) && \
             'kubernetes.io/config.mirror' in object.metadata.annotations && \
             has(request.userInfo.groups) && \
             request.userInfo.groups.exists(group, group == 'system:nodes'))"
                .to_owned(),
        ),
        condition("not-bypassed", format!("!({})", bypass())),
    ]
}

fn metadata(name: &str, owner: Option<&OwnerReference>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(
            [("app.kubernetes.io/managed-by".to_owned(), names::MANAGER.to_owned())].into(),
        ),
        owner_references: owner.map(|owner| vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// Pods of strict namespaces, pods of all others, and workloads.
#[must_use]
pub fn validating(
    settings: &Settings,
    bundle: &str,
    owner: Option<&OwnerReference>,
) -> ValidatingWebhookConfiguration {
    let pods_webhook = |name: &str, strict: bool| ValidatingWebhook {
        name: format!("{name}.{}", names::GROUP),
        admission_review_versions: vec!["v1".to_owned()],
        client_config: settings.client(&settings.validate_path, bundle),
        failure_policy: Some(if strict { "Fail" } else { "Ignore" }.to_owned()),
        match_conditions: Some(pod_conditions()),
        match_policy: Some("Equivalent".to_owned()),
        namespace_selector: Some(settings.namespaces(Some(strict))),
        object_selector: Some(LabelSelector::default()),
        rules: Some(pods(&["CREATE", "UPDATE"])),
        side_effects: "NoneOnDryRun".to_owned(),
        timeout_seconds: Some(settings.timeout_seconds.clamp(1, 30)),
    };
    let workloads = ValidatingWebhook {
        name: format!("workloads.warn.{}", names::GROUP),
        client_config: settings.client(&settings.warn_path, bundle),
        failure_policy: Some("Ignore".to_owned()),
        match_conditions: Some(vec![condition(
            "spec-changed",
            "request.operation != 'UPDATE' || object.spec != oldObject.spec".to_owned(),
        )]),
        namespace_selector: Some(settings.namespaces(None)),
        rules: Some(vec![
            rule(
                "apps",
                "v1",
                &["CREATE", "UPDATE"],
                &["deployments", "replicasets", "statefulsets", "daemonsets"],
            ),
            rule("batch", "v1", &["CREATE", "UPDATE"], &["jobs", "cronjobs"]),
            rule("", "v1", &["CREATE", "UPDATE"], &["replicationcontrollers"]),
        ]),
        timeout_seconds: Some(1),
        ..pods_webhook("workloads", false)
    };
    ValidatingWebhookConfiguration {
        metadata: metadata(names::WEBHOOK, owner),
        webhooks: Some(vec![
            pods_webhook("pods-strict.enforce", true),
            pods_webhook("pods.enforce", false),
            workloads,
        ]),
    }
}

/// Pods get digests in the place of tags. It fails open everywhere: whoever judges looks at what
/// arrives.
#[must_use]
pub fn mutating(
    settings: &Settings,
    bundle: &str,
    owner: Option<&OwnerReference>,
) -> MutatingWebhookConfiguration {
    MutatingWebhookConfiguration {
        metadata: metadata(names::WEBHOOK, owner),
        webhooks: Some(vec![MutatingWebhook {
            name: format!("pods.pin.{}", names::GROUP),
            admission_review_versions: vec!["v1".to_owned()],
            client_config: settings.client(&settings.mutate_path, bundle),
            failure_policy: Some("Ignore".to_owned()),
            match_conditions: Some(pod_conditions()),
            match_policy: Some("Equivalent".to_owned()),
            namespace_selector: Some(settings.namespaces(None)),
            object_selector: Some(LabelSelector::default()),
            reinvocation_policy: Some("IfNeeded".to_owned()),
            rules: Some(pods(&["CREATE"])),
            side_effects: "NoneOnDryRun".to_owned(),
            timeout_seconds: Some(settings.timeout_seconds.clamp(1, 30)),
        }]),
    }
}

/// The configuration of a self-test: it is about nothing but the pod with this probe.
#[must_use]
pub fn probing(
    settings: &Settings,
    bundle: &str,
    probe: &str,
    owner: Option<&OwnerReference>,
) -> ValidatingWebhookConfiguration {
    let only_own = requirement(NAME_LABEL, "In", vec![settings.namespace.clone()]);
    ValidatingWebhookConfiguration {
        metadata: metadata(PROBE_CONFIGURATION, owner),
        webhooks: Some(vec![ValidatingWebhook {
            name: format!("probe.{}", names::GROUP),
            admission_review_versions: vec!["v1".to_owned()],
            client_config: settings.client(&settings.validate_path, bundle),
            failure_policy: Some("Fail".to_owned()),
            match_conditions: None,
            match_policy: Some("Equivalent".to_owned()),
            namespace_selector: Some(LabelSelector {
                match_expressions: Some(vec![only_own]),
                match_labels: None,
            }),
            object_selector: Some(LabelSelector {
                match_expressions: None,
                match_labels: Some([(names::PROBE.to_owned(), probe.to_owned())].into()),
            }),
            rules: Some(vec![rule("", "v1", &["CREATE"], &["pods"])]),
            side_effects: "NoneOnDryRun".to_owned(),
            timeout_seconds: Some(3),
        }]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Address, Settings, mutating, probing, validating};

    fn settings() -> Settings {
        Settings { excluded_namespaces: vec!["vault".to_owned()], ..Settings::default() }
    }

    fn built() -> Vec<Value> {
        let value = serde_json::to_value(validating(&settings(), "PEM", None)).unwrap();
        value["webhooks"].as_array().unwrap().clone()
    }

    #[test]
    fn strict_namespaces_fail_closed_and_no_others() {
        let policies: Vec<_> = built()
            .iter()
            .map(|it| {
                (it["name"].clone(), it["failurePolicy"].clone(), it["timeoutSeconds"].clone())
            })
            .collect();
        assert_eq!(
            policies,
            [
                (json!("pods-strict.enforce.kuboard.cn"), json!("Fail"), json!(3)),
                (json!("pods.enforce.kuboard.cn"), json!("Ignore"), json!(3)),
                (json!("workloads.warn.kuboard.cn"), json!("Ignore"), json!(1)),
            ]
        );
        let strict = |webhook: &Value| {
            let all = webhook["namespaceSelector"]["matchExpressions"].as_array().unwrap();
            all.iter().find(|it| it["key"] == "kuboard.cn/enforce").map(|it| it["operator"].clone())
        };
        let strict: Vec<_> = built().iter().map(strict).collect();
        assert_eq!(strict, [Some(json!("In")), Some(json!("NotIn")), None]);
    }

    #[test]
    fn the_system_is_never_asked_about() {
        let mut all = built();
        let pin = serde_json::to_value(mutating(&settings(), "PEM", None)).unwrap();
        all.extend(pin["webhooks"].as_array().unwrap().iter().cloned());
        for webhook in all {
            let expressions = &webhook["namespaceSelector"]["matchExpressions"];
            let out = json!(["kube-system", "kube-public", "kube-node-lease", "kuboard", "vault"]);
            let wanted = json!({
                "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": out,
            });
            assert_eq!(expressions[0], wanted);
            let disabled = json!({
                "key": "kuboard.cn/admission", "operator": "NotIn", "values": ["disabled"],
            });
            assert_eq!(expressions[1], disabled);
            for rule in webhook["rules"].as_array().unwrap() {
                assert_eq!(rule["scope"], "Namespaced");
                for resource in rule["resources"].as_array().unwrap() {
                    let resource = resource.as_str().unwrap();
                    assert!(!resource.contains('*') && resource != "leases", "{resource}");
                }
            }
        }
    }

    #[test]
    fn pods_are_judged_however_they_get_their_images() {
        for webhook in &built()[..2] {
            assert_eq!(
                webhook["rules"][0]["resources"],
                json!(["pods", "pods/ephemeralcontainers"])
            );
            assert_eq!(webhook["rules"][0]["operations"], json!(["CREATE", "UPDATE"]));
        }
    }

    #[test]
    fn a_url_takes_the_place_of_the_service() {
        let check = |url: &str, names: &[&str], asked: &str| {
            let settings = Settings { address: Address::Url(url.to_owned()), ..settings() };
            assert_eq!(settings.certificate_names(), names);
            let probe = serde_json::to_value(probing(&settings, "PEM", "1-a", None)).unwrap();
            let client = &probe["webhooks"][0]["clientConfig"];
            assert_eq!((client["url"].as_str(), &client["service"]), (Some(asked), &Value::Null));
            assert_eq!(client["caBundle"], "UEVN");
        };
        let path = "admission/validate";
        check("https://127.0.0.1:8443", &["127.0.0.1"], &format!("https://127.0.0.1:8443/{path}"));
        check("https://[::1]:8443/", &["::1"], &format!("https://[::1]:8443/{path}"));
        check("https://hooks.corp", &["hooks.corp"], &format!("https://hooks.corp/{path}"));
        assert_eq!(settings().certificate_names()[0], "kuboard-webhook.kuboard.svc");
    }
}
