//! Pods whose images can't be pulled: from what the kubelet says to what is wrong, along the chain
//! name, network, certificate, credentials, content, node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Secret, ServiceAccount};
use kuboard_oci::ImageReference;

use super::{
    finding::Finding,
    message::{self, Cause},
    observed::{Observed, full_name},
    secrets::{self, Holds},
};

/// Reasons of a waiting container that are about its image.
const REASONS: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

/// A container that waits for its image.
struct Waiting<'a> {
    pod: &'a Pod,
    container: &'a str,
    image: &'a str,
    /// Everything that was said of it.
    message: String,
}

/// Finds what keeps pods from their images. `only`: `namespace/name` of the pod that is asked for.
pub(crate) fn judge(seen: &Observed, only: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let asked = |pod: &&Pod| only.is_none_or(|name| full_name(&pod.metadata) == name);
    for pod in seen.pods.iter().filter(asked) {
        for waiting in waiting(seen, pod) {
            findings.push(one(seen, &waiting));
        }
    }
    findings
}

fn waiting<'a>(seen: &Observed, pod: &'a Pod) -> Vec<Waiting<'a>> {
    let Some(status) = &pod.status else { return Vec::new() };
    let statuses = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let statuses = statuses.into_iter().flatten().flatten();
    statuses.filter_map(|one| waiting_one(seen, pod, one)).collect()
}

fn waiting_one<'a>(
    seen: &Observed,
    pod: &'a Pod,
    status: &'a ContainerStatus,
) -> Option<Waiting<'a>> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if !REASONS.contains(&reason) {
        return None;
    }
    let mut message = format!("{reason}: {}", waiting.message.as_deref().unwrap_or_default());
    // Between two tries the status says only that it waits; events keep what was said before.
    if message::cause(&message).is_none() {
        let uid = pod.metadata.uid.as_deref();
        let told = seen.events.iter().filter(|event| {
            event.involved_object.uid.as_deref() == uid
                && event.message.as_deref().is_some_and(|text| text.contains(&status.image))
        });
        for event in told.filter_map(|event| event.message.as_deref()) {
            if message::cause(event).is_some() {
                message = event.to_owned();
            }
        }
    }
    Some(Waiting { pod, container: &status.name, image: image_of(pod, status), message })
}

/// The image as the pod's author wrote it; a status may hold it in another form.
fn image_of<'a>(pod: &'a Pod, status: &'a ContainerStatus) -> &'a str {
    let spec = pod.spec.as_ref();
    let all = spec
        .into_iter()
        .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let written = all.filter(|it| it.name == status.name).find_map(|it| it.image.as_deref());
    written.unwrap_or(&status.image)
}

fn one(seen: &Observed, waiting: &Waiting<'_>) -> Finding {
    let subject = format!("pod {}", full_name(&waiting.pod.metadata));
    let symptom = format!(
        "container {} can't get its image {}: {}",
        waiting.container, waiting.image, waiting.message
    );
    let Ok(image) = waiting.image.parse::<ImageReference>() else {
        return bad_name(subject, waiting.image).symptom(symptom);
    };
    let cause = message::cause(&waiting.message);
    let finding = match cause {
        Some(Cause::Unauthorized | Cause::Forbidden) => {
            credentials(seen, waiting.pod, &image, &subject)
        }
        // Many registries hide what a caller may not see.
        Some(Cause::NotFound) => {
            let why = credentials(seen, waiting.pod, &image, &subject);
            match why.code {
                "pull.unauthorized" | "pull.no-credentials" => not_found(&subject, &image),
                _ => why,
            }
        }
        Some(other) => by_cause(seen, other, &subject, &image, waiting),
        None => Finding::problem("pull.unknown", subject.as_str())
            .cause("the kubelet's words fit no known cause")
            .fix(format!(
                "kubectl describe pod -n {} {}",
                waiting.pod.metadata.namespace.as_deref().unwrap_or("default"),
                waiting.pod.metadata.name.as_deref().unwrap_or_default()
            )),
    };
    finding.symptom(symptom)
}

fn bad_name(subject: String, image: &str) -> Finding {
    Finding::problem("pull.name", subject)
        .evidence(format!("\"{image}\" is no image name"))
        .cause("the image's name is written wrong (capitals, a scheme, spaces, an empty tag?)")
        .fix("write registry/repository:tag in lower case, such as docker.io/library/nginx:1.29")
}

fn not_found(subject: &str, image: &ImageReference) -> Finding {
    let tag = image.tag.as_ref().map_or("latest", |tag| tag.as_str());
    Finding::problem("pull.not-found", subject)
        .cause(format!("the registry {} knows no {}:{tag}", image.registry, image.repository))
        .fix(format!("skopeo list-tags docker://{}/{}", image.registry, image.repository))
        .fix("correct the name or tag; if the repository is private, the registry may hide it: give the pod imagePullSecrets")
}

fn by_cause(
    seen: &Observed,
    cause: Cause,
    subject: &str,
    image: &ImageReference,
    waiting: &Waiting<'_>,
) -> Finding {
    let registry = &image.registry;
    let node = waiting.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let node = node.unwrap_or("its node");
    let finding = |code| Finding::problem(code, subject).evidence(format!("node {node}"));
    match cause {
        Cause::Name => bad_name(subject.to_owned(), waiting.image),
        Cause::Policy => finding("pull.policy")
            .cause("a policy refuses this image")
            .fix(format!("kuboard scan {}", waiting.image))
            .fix("take a fixed version, or ask for an ImageExemption in the namespace"),
        Cause::Throttled => finding("pull.throttled")
            .cause(format!("{registry} limits pulls, and this node used up its share"))
            .fix("let the nodes pull through Kuboard, which asks once for all of them (hosts.toml of containerd)")
            .fix(format!("give [[upstream]] name = \"{registry}\" credentials: signed-in pulls have a higher limit")),
        Cause::Platform => {
            let platform = node_platform(seen, node);
            finding("pull.platform")
                .evidence(format!("the node is {platform}"))
                .cause("the image has no build for the node's platform")
                .fix("build the image for that platform, or keep the pod off the node: nodeSelector kubernetes.io/arch")
        }
        Cause::Authority => finding("pull.tls-authority")
            .cause(format!("the node does not trust the authority that signed the certificate of {registry}"))
            .fix(format!("put the authority's certificate on the node: ca = \"/etc/containerd/certs.d/{registry}/ca.crt\" in /etc/containerd/certs.d/{registry}/hosts.toml")),
        Cause::Expired => clock(seen).unwrap_or_else(|| {
            finding("pull.tls-expired")
                .cause(format!("the certificate of {registry} is over, or the clock of {node} is wrong"))
                .fix(format!("openssl s_client -connect {registry}:443 </dev/null | openssl x509 -noout -dates; date"))
        }),
        Cause::WrongName => finding("pull.tls-name")
            .cause(format!("the certificate is not for the name {registry}"))
            .fix("ask by a name that the certificate has, or have the name added to it (server.tls)"),
        Cause::PlainHttp => finding("pull.plain-http")
            .cause(format!("{registry} speaks HTTP, and containerd asks by HTTPS"))
            .fix(format!("write server = \"http://{registry}\" into /etc/containerd/certs.d/{registry}/hosts.toml")),
        Cause::Dns => finding("pull.dns")
            .cause(format!("{node} can't resolve the name {registry}; nodes do not ask the cluster's DNS"))
            .fix("use a name that the nodes' own DNS knows, or write it into /etc/hosts of the nodes"),
        Cause::Refused | Cause::Unreachable => finding("pull.network")
            .cause(format!("{node} gets no connection to {registry}"))
            .fix("open ports 5000 and 443 between nodes and registry (firewall, NetworkPolicy, security group)")
            .fix(format!("curl -v https://{registry}/v2/   # on {node}")),
        Cause::ServerError => finding("pull.server-error")
            .cause(format!("{registry} or what stands before it is in trouble"))
            .fix("kubectl get pods -n kuboard; kubectl logs -n kuboard -l app.kubernetes.io/component=registry-cache"),
        Cause::Disk => finding("pull.disk")
            .cause(format!("the disk of {node} is full"))
            .fix("crictl rmi --prune   # on the node; then look at kubelet's imageGCHighThresholdPercent"),
        Cause::Never => finding("pull.never")
            .cause("imagePullPolicy is Never and the image is not on the node")
            .fix("set imagePullPolicy: IfNotPresent, or load the image onto the node"),
        Cause::NotFound | Cause::Unauthorized | Cause::Forbidden => {
            credentials(seen, waiting.pod, image, subject)
        }
    }
}

fn node_platform(seen: &Observed, node: &str) -> String {
    let found = seen.nodes.iter().find(|it| it.metadata.name.as_deref() == Some(node));
    let info = found.and_then(|it| it.status.as_ref()?.node_info.as_ref());
    info.map_or_else(
        || "of an unknown platform".to_owned(),
        |info| format!("{}/{}", info.operating_system, info.architecture),
    )
}

/// A clock that is far off explains a certificate that is "over".
fn clock(seen: &Observed) -> Option<Finding> {
    super::platform::clock(seen)
}

/// Why there are no good credentials for an image: along the chain of a kubelet, the pod's own
/// secrets (into which the service account's were copied when the pod was made), then nothing.
fn credentials(seen: &Observed, pod: &Pod, image: &ImageReference, subject: &str) -> Finding {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let secrets: BTreeMap<&str, &Secret> = seen
        .secrets
        .iter()
        .filter(|it| it.metadata.namespace.as_deref() == Some(namespace))
        .filter_map(|it| Some((it.metadata.name.as_deref()?, it)))
        .collect();
    let named: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.image_pull_secrets.iter().flatten())
        .map(|one| one.name.as_str())
        .collect();
    let look = |secret: &Secret| secrets::holds(secret, image, seen.now_ms);
    let problem = |code| Finding::problem(code, subject);
    let mut others = Vec::new();
    for name in &named {
        let Some(secret) = secrets.get(name) else {
            if !seen.secrets_known {
                continue;
            }
            return problem("pull.secret-missing")
                .evidence(format!("imagePullSecrets names {name}"))
                .evidence(format!("there is no Secret {namespace}/{name}"))
                .cause("the pod names a pull secret that does not exist in its namespace")
                .fix(format!(
                    "kubectl create secret docker-registry {name} -n {namespace} --docker-server={} --docker-username=… --docker-password=…",
                    image.registry
                ));
        };
        match look(secret) {
            Holds::Credentials => {
                return problem("pull.unauthorized")
                    .evidence(format!("Secret {namespace}/{name} has credentials for {}", image.registry))
                    .cause("the registry refuses the credentials of the pull secret: wrong, changed, or without right to this repository")
                    .fix(format!("skopeo inspect --creds USER:PASSWORD docker://{}/{}", image.registry, image.repository));
            }
            Holds::Expired(end) => {
                let when = jiff::Timestamp::from_millisecond(end).map(|it| it.to_string());
                return problem("pull.secret-expired")
                    .evidence(format!("the token in {namespace}/{name} ended {}", when.unwrap_or_default()))
                    .cause("the pull secret holds a token whose time is over")
                    .fix(format!("make the Secret {name} anew, or let Kuboard hold the credentials ([[upstream]] credentials, which renews ECR's by itself)"));
            }
            Holds::WrongType(why) => {
                return problem("pull.secret-type")
                    .evidence(format!("Secret {namespace}/{name}: {why}"))
                    .cause("the pull secret has a type that kubelets pass over")
                    .fix(format!("kubectl create secret docker-registry {name} -n {namespace} …   # a Secret's type can't be changed"));
            }
            Holds::Malformed(why) => {
                return problem("pull.secret-malformed")
                    .evidence(format!("Secret {namespace}/{name}: {why}"))
                    .cause("the pull secret can't be read")
                    .fix(format!("make it anew: kubectl create secret docker-registry {name} -n {namespace} …"));
            }
            Holds::OtherHosts(hosts) => {
                let hosts =
                    if hosts.is_empty() { "no registry".to_owned() } else { hosts.join(", ") };
                others.push(format!("{name} is for {hosts}"));
            }
        }
    }
    if !others.is_empty() {
        let mut finding = problem("pull.secret-host");
        for other in others {
            finding = finding.evidence(other);
        }
        return finding
            .cause(format!(
                "no pull secret of the pod is for {}; host and port must be the same",
                image.registry
            ))
            .fix(format!("add an entry for {} to the Secret", image.registry));
    }
    unwired(seen, pod, &secrets, image, subject)
}

/// No secret is named: is there one that was meant?
fn unwired(
    seen: &Observed,
    pod: &Pod,
    secrets: &BTreeMap<&str, &Secret>,
    image: &ImageReference,
    subject: &str,
) -> Finding {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let account = account.unwrap_or("default");
    let is_account = |it: &&ServiceAccount| {
        it.metadata.namespace.as_deref() == Some(namespace)
            && it.metadata.name.as_deref() == Some(account)
    };
    let found = seen.service_accounts.iter().find(is_account);
    let of_account =
        found.and_then(|it| it.image_pull_secrets.as_ref()).filter(|it| !it.is_empty());
    if let Some(names) = of_account {
        let names: Vec<&str> = names.iter().map(|it| it.name.as_str()).collect();
        return Finding::problem("pull.pod-before-secret", subject)
            .evidence(format!("ServiceAccount {namespace}/{account} has {}", names.join(", ")))
            .evidence("the pod has no imagePullSecrets")
            .cause("the pod was made before its service account got the pull secret; it is copied only when a pod is made")
            .fix(format!("kubectl delete pod -n {namespace} {}", pod.metadata.name.as_deref().unwrap_or_default()));
    }
    let usable = secrets
        .iter()
        .find(|(_, secret)| secrets::holds(secret, image, seen.now_ms) == Holds::Credentials);
    if let Some((name, _)) = usable {
        return Finding::problem("pull.account-unwired", subject)
            .evidence(format!("Secret {namespace}/{name} has credentials for {}", image.registry))
            .evidence(format!("neither the pod nor ServiceAccount {namespace}/{account} names it"))
            .cause("the pull secret is there, but nothing gives it to the pod")
            .fix(format!(
                "kubectl patch serviceaccount {account} -n {namespace} -p '{{\"imagePullSecrets\":[{{\"name\":\"{name}\"}}]}}'"
            ))
            .fix("then make the pod anew: it is copied only when a pod is made");
    }
    let finding = Finding::problem("pull.no-credentials", subject)
        .evidence("the pod has no imagePullSecrets")
        .cause(format!("{} wants credentials, and the pod has none", image.registry))
        .fix(format!(
            "kubectl create secret docker-registry NAME -n {namespace} --docker-server={} …",
            image.registry
        ));
    if seen.secrets_known {
        return finding.evidence(format!("no Secret of {namespace} is for {}", image.registry));
    }
    finding
}
