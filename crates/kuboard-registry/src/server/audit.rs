//! The audit: a line for each manifest that a workload of a cluster asks for, each token that it is
//! given, and each refusal. People and robots outside of clusters have names, not pods; what they
//! do is counted by the metrics.

use http::Method;

use super::authorizer::Workload;
use super::caller::{Action, Caller};

/// Target of the lines, for log filters: `info,audit=off` leaves them out.
pub const TARGET: &str = "audit";

/// A request for content. Manifests and refusals are told; a pull's blobs and the rest would only
/// repeat them.
pub(crate) fn asked(caller: &Caller, method: &Method, path: &str, repository: &str, allowed: bool) {
    let Some(workload) = caller.workload.as_deref() else { return };
    let reference = path.rsplit_once("/manifests/").map(|(_, reference)| reference);
    if reference.is_none() && allowed {
        return;
    }
    let Workload { namespace, service_account, pod, pod_uid, node } = workload;
    let reference = reference.unwrap_or_default();
    let subject = caller.name.as_deref().unwrap_or_default();
    tracing::info!(
        target: TARGET, %method, repository, reference, allowed, subject, namespace,
        service_account, pod, pod_uid, node, "asked for"
    );
}

/// A token for a repository.
pub(crate) fn granted(caller: &Caller, repository: &str, asked: &[Action], may: &[Action]) {
    let Some(workload) = caller.workload.as_deref() else { return };
    let words = |actions: &[Action]| {
        actions.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(",")
    };
    let (asked, granted) = (words(asked), words(may));
    let Workload { namespace, service_account, pod, pod_uid, node } = workload;
    let subject = caller.name.as_deref().unwrap_or_default();
    tracing::info!(
        target: TARGET, repository, asked, granted, subject, namespace, service_account, pod,
        pod_uid, node, "token"
    );
}
