//! Well-known names in a cluster.

/// The API group.
pub const GROUP: &str = "kuboard.cn";
/// Label of a namespace: `strict` refuses pods while the policy engine is away; anything else lets
/// them run and judges them afterwards.
pub const ENFORCE: &str = "kuboard.cn/enforce";
/// The value of [`ENFORCE`] that fails closed.
pub const STRICT: &str = "strict";
/// Label of a namespace: `disabled` takes it out of admission. Only who may `bypass` can set it.
pub const ADMISSION: &str = "kuboard.cn/admission";
/// The value of [`ADMISSION`] that takes a namespace out.
pub const DISABLED: &str = "disabled";
/// Audience of service-account tokens for the registry.
pub const AUDIENCE: &str = "registry.kuboard.cn";
/// API group of the registry's repositories in RBAC rules.
pub const REGISTRY_GROUP: &str = "registry.kuboard.cn";
/// Resource of the registry's repositories in RBAC rules: verbs `get` (pull), `create` (push),
/// `delete`.
pub const REPOSITORIES: &str = "repositories";
/// Label of the pod by which the operator asks, through the API server, whether the webhook answers.
/// Its value comes back as the warning `kuboard.cn/probe=VALUE`; it has no other effect.
pub const PROBE: &str = "kuboard.cn/probe";
/// Annotation of a pod that is not to be judged, with the reason as its value. It counts only for
/// who may `bypass` the resource `admission` of [`GROUP`].
pub const BYPASS: &str = "kuboard.cn/bypass";
/// Our namespace, unless told otherwise.
pub const NAMESPACE: &str = "kuboard";
/// The field manager of specs that we apply.
pub const MANAGER: &str = "kuboard";
/// The field manager of statuses.
pub const STATUS_MANAGER: &str = "kuboard-status";
/// The webhook configuration, mutating and validating.
pub const WEBHOOK: &str = "kuboard-admission";
/// The lease of the operator's leader.
pub const LEASE: &str = "kuboard-operator";
/// The Secret with the authority and certificate of the webhook.
pub const WEBHOOK_SECRET: &str = "kuboard-webhook-tls";
/// Namespaces that are never judged, beside our own.
pub const SYSTEM_NAMESPACES: &[&str] = &["kube-system", "kube-public", "kube-node-lease"];
