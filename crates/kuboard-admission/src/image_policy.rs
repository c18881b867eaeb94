//! `ImageReview` of imagepolicy.k8s.io/v1alpha1: what the API server's own ImagePolicyWebhook asks.
//! Its annotations come from whoever makes the pod and are not looked at.

use std::collections::BTreeMap;

use kuboard_rt::http::Response;
use serde::{Deserialize, Serialize};

use crate::{
    answer::json,
    review::{MAX_USES, Text, cut},
};

const API_VERSION: &str = "imagepolicy.k8s.io/v1alpha1";
const KIND: &str = "ImageReview";

/// A question.
pub(crate) struct ImageReview<'a> {
    pub(crate) namespace: Text<'a>,
    pub(crate) images: Vec<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow, default)]
    api_version: Text<'a>,
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow, default)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    namespace: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow, default)]
    image: Option<Text<'a>>,
}

pub(crate) fn parse(body: &[u8]) -> Result<ImageReview<'_>, String> {
    let envelope: Envelope<'_> = serde_json::from_slice(body)
        .map_err(|fault| format!("the ImageReview can't be read: {fault}"))?;
    let (version, kind) = (envelope.api_version.as_str(), envelope.kind.as_str());
    if version != API_VERSION || kind != KIND {
        return Err(format!("not an {KIND} of {API_VERSION}: {} {}", cut(version), cut(kind)));
    }
    let containers = envelope.spec.containers.unwrap_or_default();
    if containers.len() > MAX_USES {
        return Err(format!("{} containers; hint: at most {MAX_USES}", containers.len()));
    }
    Ok(ImageReview {
        namespace: envelope.spec.namespace.unwrap_or_default(),
        images: containers.into_iter().map(|it| it.image.unwrap_or_default()).collect(),
    })
}

pub(crate) fn allowed() -> Response {
    judged(true, String::new(), BTreeMap::new())
}

pub(crate) fn refused(why: &str) -> Response {
    judged(false, format!("Kuboard can't judge this: {why}"), BTreeMap::new())
}

pub(crate) fn judged(
    allowed: bool,
    reason: String,
    annotations: BTreeMap<&'static str, String>,
) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        api_version: &'static str,
        kind: &'static str,
        status: Status,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        allowed: bool,
        #[serde(skip_serializing_if = "String::is_empty")]
        reason: String,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        audit_annotations: BTreeMap<&'static str, String>,
    }
    let status = Status { allowed, reason, audit_annotations: annotations };
    json(&Answer { api_version: API_VERSION, kind: KIND, status })
}
