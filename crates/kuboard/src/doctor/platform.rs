//! Our own parts in a cluster: workloads, storage, the webhook and its certificate, leases, clocks.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingWebhook, ValidatingWebhookConfiguration},
        core::v1::{Pod, Secret},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kuboard_api::names;

use super::{
    finding::Finding,
    network::selects,
    observed::{Observed, full_name},
};

/// Clocks that differ by more are a problem for certificates and tokens.
const CLOCK_MS: i64 = 120_000;
/// A leader that did not renew for so long is gone.
const LEASE_MS: i64 = 60_000;
/// A certificate that ends sooner should have been renewed.
const CERTIFICATE_MS: i64 = 14 * 86_400_000;
/// Pods wait for volumes for a while; then something is wrong.
const PENDING_MS: i64 = 120_000;

/// Our kinds, each with what stops without it.
const CRDS: [&str; 6] = [
    "imagescanpolicies",
    "clusterimagescanpolicies",
    "imageexemptions",
    "imagereports",
    "registrycredentials",
    "registryfederations",
];

/// Finds what is wrong with Kuboard itself.
pub(crate) fn judge(seen: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(clock(seen));
    findings.extend(crds(seen));
    findings.extend(workloads(seen));
    findings.extend(crashes(seen));
    findings.extend(claims(seen));
    findings.extend(nodes(seen));
    findings.extend(lease(seen));
    findings.extend(webhook(seen));
    findings.extend(foreign_webhooks(seen));
    findings.extend(certificate(seen));
    findings
}

/// Whether the API server's clock and ours agree.
pub(crate) fn clock(seen: &Observed) -> Option<Finding> {
    let apart = seen.now_ms - seen.server_ms?;
    (apart.abs() > CLOCK_MS).then(|| {
        Finding::problem("clock", "this machine and the API server")
            .symptom("certificates are \"not yet valid\" or \"expired\", tokens are refused")
            .evidence(format!("the clocks are {} s apart", apart / 1000))
            .cause("one of the clocks is wrong")
            .fix("timedatectl status; systemctl restart systemd-timesyncd   # on the machine that is off")
    })
}

fn crds(seen: &Observed) -> Option<Finding> {
    let name = |plural: &str| format!("{plural}.{}", names::GROUP);
    let missing: Vec<String> =
        CRDS.iter().map(|it| name(it)).filter(|it| seen.crds.get(it) != Some(&true)).collect();
    if missing.is_empty() {
        return None;
    }
    Some(
        Finding::problem("crds", "custom resources")
            .symptom("policies can't be applied, or have no effect")
            .evidence(format!("missing or not established: {}", missing.join(", ")))
            .cause("the CRDs were not installed; Helm never upgrades those of its folder crds")
            .fix("kuboard crds | kubectl apply --server-side -f -"),
    )
}

/// What stops when a component has no ready replica.
fn meaning(component: &str) -> &'static str {
    match component {
        "registry-proxy" | "registry-cache" => "pulls through Kuboard fail",
        "scan-engine" => "no advisories, schedules, reports",
        "scan-worker" => "scans wait and never run",
        "operator" | "admission" => "policies have no effect, pods run unchecked or not at all",
        "agent" => "nodes pull without their peers",
        _ => "a part of Kuboard is away",
    }
}

struct Workload<'a> {
    kind: &'static str,
    metadata: &'a ObjectMeta,
    wanted: i32,
    ready: i32,
}

fn all_workloads(seen: &Observed) -> Vec<Workload<'_>> {
    let home = |it: &ObjectMeta| it.namespace.as_deref() == Some(seen.home.as_str());
    let mut all = Vec::new();
    for it in seen.deployments.iter().filter(|it| home(&it.metadata)) {
        all.push(Workload {
            kind: "deployment",
            metadata: &it.metadata,
            wanted: it.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            ready: it.status.as_ref().and_then(|it| it.ready_replicas).unwrap_or(0),
        });
    }
    for it in seen.stateful_sets.iter().filter(|it| home(&it.metadata)) {
        all.push(Workload {
            kind: "statefulset",
            metadata: &it.metadata,
            wanted: it.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            ready: it.status.as_ref().and_then(|it| it.ready_replicas).unwrap_or(0),
        });
    }
    for it in seen.daemon_sets.iter().filter(|it| home(&it.metadata)) {
        all.push(Workload {
            kind: "daemonset",
            metadata: &it.metadata,
            wanted: it.status.as_ref().map_or(0, |it| it.desired_number_scheduled),
            ready: it.status.as_ref().map_or(0, |it| it.number_ready),
        });
    }
    all
}

fn component(metadata: &ObjectMeta) -> &str {
    let label = metadata.labels.as_ref().and_then(|it| it.get("app.kubernetes.io/component"));
    label.or(metadata.name.as_ref()).map_or("", String::as_str)
}

fn workloads(seen: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    for it in all_workloads(seen) {
        let component = component(it.metadata);
        let subject = format!("{} {}", it.kind, full_name(it.metadata));
        let name = it.metadata.name.as_deref().unwrap_or_default();
        if it.wanted == 0 && it.kind != "daemonset" {
            let code =
                if component == "scan-worker" { "scan.no-workers" } else { "platform.no-replicas" };
            findings.push(
                Finding::problem(code, subject)
                    .symptom(meaning(component))
                    .evidence("replicas: 0")
                    .cause("it is scaled to nothing")
                    .fix(format!("kubectl scale {}/{name} -n {} --replicas=1", it.kind, seen.home)),
            );
        } else if it.ready == 0 && it.wanted > 0 {
            findings.push(
                Finding::problem("platform.not-ready", subject)
                    .symptom(meaning(component))
                    .evidence(format!("{} of {} replicas are ready", it.ready, it.wanted))
                    .cause("none of its pods is ready; their own trouble stands beside this")
                    .fix(format!("kubectl get pods -n {} -l app.kubernetes.io/component={component}; kubectl describe {}/{name} -n {}", seen.home, it.kind, seen.home)),
            );
        } else if it.ready < it.wanted {
            findings.push(
                Finding::warning("platform.partly-ready", subject)
                    .symptom("it runs with fewer replicas than wanted")
                    .evidence(format!("{} of {} replicas are ready", it.ready, it.wanted))
                    .cause("some of its pods are not ready")
                    .fix(format!("kubectl describe {}/{name} -n {}", it.kind, seen.home)),
            );
        }
    }
    findings
}

fn ours(seen: &Observed) -> impl Iterator<Item = &Pod> {
    seen.pods.iter().filter(|it| it.metadata.namespace.as_deref() == Some(seen.home.as_str()))
}

/// Containers of ours that end and start again, with the end's own words.
fn crashes(seen: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pod in ours(seen) {
        let statuses = pod.status.iter().flat_map(|it| it.container_statuses.iter().flatten());
        for status in statuses {
            let waits = status.state.as_ref().and_then(|it| it.waiting.as_ref());
            let looping = waits.and_then(|it| it.reason.as_deref()) == Some("CrashLoopBackOff");
            let ended = status.last_state.as_ref().and_then(|it| it.terminated.as_ref());
            let reason = ended.and_then(|it| it.reason.as_deref()).unwrap_or_default();
            if !looping && reason != "OOMKilled" {
                continue;
            }
            let subject = format!("pod {} container {}", full_name(&pod.metadata), status.name);
            let said = ended.and_then(|it| it.message.as_deref()).unwrap_or("nothing");
            let finding = if reason == "OOMKilled" {
                Finding::problem("platform.memory", subject)
                    .cause("it needs more memory than its limit")
                    .fix(format!(
                        "raise resources.limits.memory of {} in the chart's values",
                        status.name
                    ))
            } else if said.contains("catalog") || said.contains("PostgreSQL") {
                Finding::problem("scan.database", subject)
                    .cause("the catalogue's database can't be reached, refuses the password, or is not migrated")
                    .fix("check catalog.url and its Secret; psql \"$URL\" -c 'select 1'")
            } else {
                Finding::problem("platform.crashes", subject)
                    .cause("it ends with an error right after its start")
                    .fix(format!(
                        "kubectl logs -n {} {} -c {} --previous",
                        seen.home,
                        pod.metadata.name.as_deref().unwrap_or_default(),
                        status.name
                    ))
            };
            let code = ended.map_or(0, |it| it.exit_code);
            findings.push(
                finding
                    .symptom(format!("it was started {} times", status.restart_count + 1))
                    .evidence(format!("it ended with code {code} {reason}, and said: {said}")),
            );
        }
    }
    findings
}

fn claims(seen: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    for claim in &seen.claims {
        let phase = claim.status.as_ref().and_then(|it| it.phase.as_deref()).unwrap_or_default();
        if claim.metadata.namespace.as_deref() != Some(&seen.home) || phase == "Bound" {
            continue;
        }
        let name = claim.metadata.name.as_deref();
        let used_by = ours(seen).find(|pod| {
            let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            volumes
                .filter_map(|it| it.persistent_volume_claim.as_ref())
                .any(|it| Some(it.claim_name.as_str()) == name)
        });
        // With WaitForFirstConsumer a claim waits for its pod; without one that is as it should be.
        let made = claim.metadata.creation_timestamp.as_ref().map(|it| it.0.as_millisecond());
        if used_by.is_none() || made.is_some_and(|made| seen.now_ms - made < PENDING_MS) {
            continue;
        }
        let class = claim.spec.as_ref().and_then(|it| it.storage_class_name.as_deref());
        let told = seen.events.iter().rev().find(|event| {
            event.involved_object.kind.as_deref() == Some("PersistentVolumeClaim")
                && event.involved_object.name.as_deref() == name
        });
        let told = told.and_then(|it| it.message.as_deref()).unwrap_or("no event tells why");
        findings.push(
            Finding::problem("storage.claim-pending", format!("claim {}", full_name(&claim.metadata)))
                .symptom("the pod that wants the volume does not start")
                .evidence(format!("phase {phase}, storage class {}", class.unwrap_or("(default)")))
                .evidence(told)
                .cause("no volume fits the claim: no such class, no provisioner, no node with the volume, or too little space")
                .fix("kubectl get storageclass,pv; set persistence.storageClass in the chart's values"),
        );
    }
    findings
}

fn nodes(seen: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in &seen.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let conditions = node.status.iter().flat_map(|it| it.conditions.iter().flatten());
        for condition in conditions {
            let said = condition.message.as_deref().unwrap_or_default();
            match (condition.type_.as_str(), condition.status.as_str()) {
                ("DiskPressure", "True") => findings.push(
                    Finding::problem("node.disk", format!("node {name}"))
                        .symptom("images are removed and pods evicted; pulls fail")
                        .evidence(said)
                        .cause("the node's disk is nearly full")
                        .fix("crictl rmi --prune   # on the node; lower cache.cacheSizeGB if Kuboard's cache is there"),
                ),
                ("Ready", status) if status != "True" => findings.push(
                    Finding::problem("node.not-ready", format!("node {name}"))
                        .symptom("its pods do not run")
                        .evidence(format!("Ready is {status}: {said}"))
                        .cause("the kubelet does not report, or its runtime is away")
                        .fix("systemctl status kubelet containerd   # on the node"),
                ),
                _ => {}
            }
        }
    }
    findings
}

fn lease(seen: &Observed) -> Option<Finding> {
    let lease = seen.leases.iter().find(|it| {
        it.metadata.namespace.as_deref() == Some(&seen.home)
            && it.metadata.name.as_deref() == Some(names::LEASE)
    })?;
    let spec = lease.spec.as_ref()?;
    let renewed = spec.renew_time.as_ref()?.0.as_millisecond();
    let age = seen.server_ms.unwrap_or(seen.now_ms) - renewed;
    (age > LEASE_MS).then(|| {
        Finding::problem("operator.no-leader", "operator")
            .symptom("policies' statuses and image reports do not change any more")
            .evidence(format!(
                "{} renewed the lease {} s ago",
                spec.holder_identity.as_deref().unwrap_or("nobody"),
                age / 1000
            ))
            .cause("no operator leads: it is away, or can't write its lease")
            .fix(format!("kubectl logs -n {} -l app.kubernetes.io/component=operator", seen.home))
    })
}

fn webhook(seen: &Observed) -> Vec<Finding> {
    let ours = seen.webhooks.iter().find(|it| it.metadata.name.as_deref() == Some(names::WEBHOOK));
    let Some(ours) = ours else {
        return vec![
            Finding::problem("webhook.disarmed", "webhook")
                .symptom("pods run whatever their images carry")
                .evidence(format!("there is no ValidatingWebhookConfiguration {}", names::WEBHOOK))
                .cause("the webhook was never armed (its self-test did not pass), or somebody disarmed it")
                .fix("kuboard admission status; kuboard admission arm"),
        ];
    };
    let mut findings = Vec::new();
    for hook in ours.webhooks.iter().flatten() {
        findings.extend(service_of(seen, hook));
        findings.extend(authority_of(seen, hook));
    }
    findings.dedup();
    findings
}

/// Whether somebody stands behind the webhook's Service.
fn service_of(seen: &Observed, hook: &ValidatingWebhook) -> Option<Finding> {
    let service = hook.client_config.service.as_ref()?;
    let ready = seen.endpoints.iter().any(|slice| {
        slice.metadata.namespace.as_deref() == Some(&service.namespace)
            && slice
                .metadata
                .labels
                .as_ref()
                .and_then(|it| it.get("kubernetes.io/service-name"))
                .is_some_and(|name| *name == service.name)
            && slice
                .endpoints
                .iter()
                .flatten()
                .any(|it| it.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true))
    });
    if ready {
        return None;
    }
    let policy = hook.failure_policy.as_deref().unwrap_or("Fail");
    Some(
        Finding::problem("webhook.no-endpoints", "webhook")
            .symptom(match policy {
                "Ignore" => "pods run unchecked until it is back",
                _ => "pods of strict namespaces are refused",
            })
            .evidence(format!(
                "Service {}/{} has no ready endpoint",
                service.namespace, service.name
            ))
            .cause(
                "the role admission does not run, is not ready, or the Service selects other pods",
            )
            .fix(format!("kubectl get pods,endpointslices -n {}", service.namespace))
            .fix("kuboard admission disarm   # if pods must start now"),
    )
}

fn secret_of(seen: &Observed) -> Option<&Secret> {
    seen.secrets.iter().find(|it| {
        it.metadata.namespace.as_deref() == Some(&seen.home)
            && it.metadata.name.as_deref() == Some(names::WEBHOOK_SECRET)
    })
}

/// Whether the authority that the API server trusts is that of the certificate that is served.
fn authority_of(seen: &Observed, hook: &ValidatingWebhook) -> Option<Finding> {
    let secret = secret_of(seen)?;
    let data = secret.data.as_ref()?;
    let authority = std::str::from_utf8(&data.get("ca.crt")?.0).ok()?;
    let bundle =
        hook.client_config.ca_bundle.as_ref().map(|it| it.0.as_slice()).unwrap_or_default();
    let bundle = std::str::from_utf8(bundle).unwrap_or_default();
    let newest = authority.split("-----BEGIN CERTIFICATE-----").nth(1)?.trim();
    (!bundle.contains(newest)).then(|| {
        Finding::problem("webhook.authority", "webhook")
            .symptom("the API server can't call the webhook: x509: certificate signed by unknown authority")
            .evidence(format!("caBundle of {} does not hold the authority in Secret {}/{}", hook.name, seen.home, names::WEBHOOK_SECRET))
            .cause("somebody changed the configuration or the Secret, or an old release was applied again")
            .fix("kuboard admission arm   # writes the authority of the Secret into the configuration")
    })
}

fn certificate(seen: &Observed) -> Option<Finding> {
    let data = secret_of(seen)?.data.as_ref()?;
    let pem = &data.get("tls.crt")?.0;
    let subject = format!("certificate {}/{}", seen.home, names::WEBHOOK_SECRET);
    let Some(end_ms) = super::certificates::end_ms(pem) else {
        return Some(
            Finding::problem("certificate.unreadable", subject)
                .symptom("the webhook can't be called")
                .evidence("tls.crt holds no certificate")
                .cause("somebody overwrote the Secret")
                .fix(format!(
                    "kubectl delete secret -n {} {}   # it makes itself anew",
                    seen.home,
                    names::WEBHOOK_SECRET
                )),
        );
    };
    let left = end_ms - seen.server_ms.unwrap_or(seen.now_ms);
    if left > CERTIFICATE_MS {
        return None;
    }
    let (finding, symptom) = if left <= 0 {
        (Finding::problem("certificate.expired", subject), "the API server can't call the webhook")
    } else {
        (
            Finding::warning("certificate.expires", subject),
            "soon the API server can't call the webhook",
        )
    };
    Some(
        finding
            .symptom(symptom)
            .evidence(format!("it ends in {} hours", left / 3_600_000))
            .cause("the operator renews it long before; it does not run, or can't write the Secret")
            .fix(format!("kubectl logs -n {} -l app.kubernetes.io/component=operator", seen.home)),
    )
}

/// Webhooks of others that can stop our own pods from starting.
fn foreign_webhooks(seen: &Observed) -> Vec<Finding> {
    let empty = BTreeMap::new();
    let home = seen.namespaces.iter().find(|it| it.metadata.name.as_deref() == Some(&seen.home));
    let labels = home.and_then(|it| it.metadata.labels.as_ref()).unwrap_or(&empty);
    let stops = |configuration: &ValidatingWebhookConfiguration| -> Vec<String> {
        let hooks = configuration.webhooks.iter().flatten();
        hooks
            .filter(|hook| {
                hook.failure_policy.as_deref().unwrap_or("Fail") == "Fail"
                    && hook.namespace_selector.as_ref().is_none_or(|it| selects(it, labels))
                    && hook.rules.iter().flatten().any(|rule| {
                        rule.resources
                            .iter()
                            .flatten()
                            .any(|it| it == "pods" || it == "*" || it == "*/*")
                    })
                    && service_of(seen, hook).is_some()
            })
            .map(|hook| hook.name.clone())
            .collect()
    };
    let mut findings = Vec::new();
    for configuration in &seen.webhooks {
        if configuration.metadata.name.as_deref() == Some(names::WEBHOOK) {
            continue;
        }
        for name in stops(configuration) {
            findings.push(
                Finding::problem("webhook.foreign", format!("webhook {name}"))
                    .symptom("pods of Kuboard can't be created")
                    .evidence(format!(
                        "{} fails closed for namespace {}, and nobody answers behind its Service",
                        full_name(&configuration.metadata),
                        seen.home
                    ))
                    .cause("another webhook is away and stops every pod")
                    .fix(format!(
                        "bring it back, or keep it off {}: namespaceSelector in ValidatingWebhookConfiguration {}",
                        seen.home,
                        full_name(&configuration.metadata)
                    )),
            );
        }
    }
    findings
}
