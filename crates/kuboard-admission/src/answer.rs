//! Answers: an `AdmissionReview` of admission.k8s.io/v1 with a response, as bytes.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, StatusCode, header};
use kuboard_rt::http::{Body, Response};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the API server is told.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer<'a> {
    pub(crate) uid: &'a str,
    pub(crate) allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
    /// The API server puts the webhook's name before each key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) audit_annotations: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) patch: Option<String>,
}

/// Why something is refused.
#[derive(Serialize)]
pub(crate) struct Status {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// One change of a JSON patch (RFC 6902).
#[derive(Serialize)]
pub(crate) struct Change {
    pub(crate) op: &'static str,
    pub(crate) path: String,
    pub(crate) value: String,
}

impl<'a> Answer<'a> {
    pub(crate) fn allow(uid: &'a str) -> Self {
        Self { uid, allowed: true, ..Self::default() }
    }

    /// The pod breaks a policy.
    pub(crate) fn forbid(uid: &'a str, message: String) -> Self {
        Self::refuse(uid, StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// The question can't be read.
    pub(crate) fn refuse_unread(uid: &'a str, message: String) -> Self {
        Self::refuse(uid, StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    fn refuse(uid: &'a str, code: StatusCode, reason: &'static str, message: String) -> Self {
        let status = Some(Status { code: code.as_u16(), reason, message });
        Self { uid, allowed: false, status, ..Self::default() }
    }

    pub(crate) fn patched(mut self, changes: &[Change]) -> Self {
        if let (false, Ok(patch)) = (changes.is_empty(), serde_json::to_vec(changes)) {
            self.patch_type = Some("JSONPatch");
            self.patch = Some(BASE64_STANDARD.encode(patch));
        }
        self
    }

    pub(crate) fn response(&self) -> Response {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a> {
            api_version: &'static str,
            kind: &'static str,
            response: &'a Answer<'a>,
        }
        json(&Envelope {
            api_version: "admission.k8s.io/v1",
            kind: "AdmissionReview",
            response: self,
        })
    }
}

/// 200 with a body of JSON.
pub(crate) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Body::full(bytes));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(fault) => {
            plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("the answer failed: {fault}"))
        }
    }
}

/// An answer that is none: the API server does as the webhook's failurePolicy says.
pub(crate) fn plain(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::full(format!("{text}\n")));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
