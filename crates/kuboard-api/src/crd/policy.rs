//! `ImageScanPolicy` and `ClusterImageScanPolicy`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{self, CRON, DURATION, Moment, conditions, plain};

const ZONE: (&str, &str) =
    ("!has(self.timeZone) || has(self.schedule)", "a timeZone needs a schedule beside it");
const SEVERITY: (&str, &str) = (
    "self.lowerAscii() in ['low', 'medium', 'high', 'critical']",
    "write LOW, MEDIUM, HIGH or CRITICAL",
);
const VALUES: (&str, &str) = (
    "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : \
     !has(self.values) || size(self.values) == 0",
    "In and NotIn need values, Exists and DoesNotExist have none",
);

/// What a policy says. Everything is optional; an empty policy blocks nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "kuboard.cn",
    version = "v1alpha1",
    kind = "ImageScanPolicy",
    doc = "When images of a namespace are scanned, and which findings keep its pods from running.",
    namespaced,
    status = "ImageScanPolicyStatus",
    derive = "PartialEq",
    shortname = "isp",
    category = "kuboard",
    label("app.kubernetes.io/part-of", "kuboard"),
    selectable = ".spec.severityThreshold",
    selectable = ".spec.mode",
    printcolumn(
        name = "Threshold",
        type_ = "string",
        json_path = ".spec.severityThreshold",
        description = "The least severity that counts"
    ),
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "What happens to pods that break it; empty is Enforce"
    ),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Last Scan", type_ = "date", json_path = ".status.lastScanTime"),
    printcolumn(
        name = "Suspended",
        type_ = "boolean",
        json_path = ".spec.suspended",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(self.spec.namespaceSelector)")
        .message("namespaceSelector is for kind ClusterImageScanPolicy")
        .field_path(".spec.namespaceSelector"),
    validation = Rule::new(
        "!has(self.spec.excludeRegistries) || \
         !self.spec.excludeRegistries.exists(one, one.matches('^[*]+$'))"
    )
    .message("excluding all registries leaves nothing; set suspended: true, or delete the policy")
    .field_path(".spec.excludeRegistries")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain, extend("x-kubernetes-validations" = schema::rules(&[ZONE])))]
pub struct ImageScanPolicySpec {
    /// The least severity that counts: LOW, MEDIUM, HIGH or CRITICAL, in any case. Unset: findings
    /// keep nobody from running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-validations" = schema::rules(&[SEVERITY]))
    )]
    pub severity_threshold: Option<String>,
    /// Findings that no known version fixes do not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_unfixed: bool,
    /// Registries whose images are left alone, as globs over the host: *.internal.corp. A port
    /// need not be named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 512)))]
    pub exclude_registries: Vec<String>,
    /// Images it is about, as globs over registry/repository or registry/repository:tag; * is a
    /// part of one component, ** any number of them. None means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 512)))]
    pub images: Vec<String>,
    /// When images are scanned again, in five fields of cron: 0 */6 * * *.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        extend("x-kubernetes-validations" = schema::rules(&[CRON]))
    )]
    pub schedule: Option<String>,
    /// Time zone of the schedule, such as Asia/Shanghai; unset is UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// Keep the policy and do nothing by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// What happens to a pod whose image breaks the policy: Enforce (refused), Warn (runs, and who
    /// created it is warned) or Audit (recorded). Unset is Enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Enforce", "Warn", "Audit"]))]
    pub mode: Option<String>,
    /// What happens to a pod whose image was not scanned yet: Allow, Warn, Wait (refused until it
    /// is scanned, for maxWait at most) or Deny. Unset is Wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Allow", "Warn", "Wait", "Deny"]))]
    pub on_unscanned: Option<String>,
    /// What happens to a pod whose image can't be found or read: Allow, Warn or Deny. Unset is
    /// Warn; a namespace labelled kuboard.cn/enforce=strict denies instead of warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Allow", "Warn", "Deny"]))]
    pub on_error: Option<String>,
    /// How long onUnscanned: Wait refuses, since the image was first asked for: 30s, 5m. At most
    /// 24h; unset is 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-validations" = schema::rules(&[DURATION]))
    )]
    pub max_wait: Option<String>,
    /// A finding that new advisories brought to an image which had been scanned before does not
    /// count for so long: 24h, 7d. 0s switches it off, at most 365d; unset is 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-validations" = schema::rules(&[DURATION]))
    )]
    pub grace_period: Option<String>,
    /// Whether what already runs in the namespace may be started again there. Unset is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_running: Option<bool>,
    /// Only findings that are known to be exploited count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_exploited: bool,
    /// Findings with a lower probability of exploitation (EPSS, 0 to 1) do not count; those
    /// without one do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub min_epss: Option<f64>,
    /// Of a ClusterImageScanPolicy: the namespaces it is for, by their labels. Unset is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
}

/// The same for namespaces chosen by their labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "kuboard.cn",
    version = "v1alpha1",
    kind = "ClusterImageScanPolicy",
    doc = "An ImageScanPolicy for all namespaces, or for those that namespaceSelector selects.",
    status = "ImageScanPolicyStatus",
    derive = "PartialEq",
    shortname = "cisp",
    category = "kuboard",
    label("app.kubernetes.io/part-of", "kuboard"),
    selectable = ".spec.severityThreshold",
    selectable = ".spec.mode",
    printcolumn(
        name = "Threshold",
        type_ = "string",
        json_path = ".spec.severityThreshold",
        description = "The least severity that counts"
    ),
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "What happens to pods that break it; empty is Enforce"
    ),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Last Scan", type_ = "date", json_path = ".status.lastScanTime"),
    printcolumn(
        name = "Suspended",
        type_ = "boolean",
        json_path = ".spec.suspended",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(transparent)]
pub struct ClusterImageScanPolicySpec(pub ImageScanPolicySpec);

/// Labels that a namespace must have. All requirements hold; an empty selector selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct LabelSelector {
    /// Labels that must have these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// A requirement on one label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain, extend("x-kubernetes-validations" = schema::rules(&[VALUES])))]
pub struct LabelRequirement {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,
    /// The values of In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// What the operator reports about a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct ImageScanPolicyStatus {
    /// The generation of the policy that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the policy can be used; otherwise its last good form is. Enforcing: pods are judged
    /// by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// When its images were last asked to be scanned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Moment>")]
    pub last_scan_time: Option<String>,
    /// When they will be next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Moment>")]
    pub next_scan_time: Option<String>,
    /// What runs now, held against the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageCounts>,
}

/// Images that run and that a policy is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = plain)]
pub struct ImageCounts {
    /// All of them.
    #[serde(default)]
    pub matched: i64,
    /// Those that would be refused if they were new.
    #[serde(default)]
    pub blocked: i64,
    /// Those that would be warned of.
    #[serde(default)]
    pub warned: i64,
    /// Those without a report.
    #[serde(default)]
    pub unscanned: i64,
}
