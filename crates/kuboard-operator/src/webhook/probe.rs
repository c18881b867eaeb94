//! The self-test: the API server is asked for a pod that nobody wants, and must have called us
//! before it says what it would do.

use std::time::Duration;

use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingWebhookConfiguration,
        core::v1::{Container, Pod, PodSpec, SeccompProfile, SecurityContext},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams, Request},
    client::Body,
};
use kuboard_api::names;

use super::configuration::{PROBE_CONFIGURATION, Settings, probing};
use crate::{
    Error,
    apply::{apply, remove},
    client::ASK,
};

/// An API server learns of a configuration within a second; several of them within a few.
const PATIENCE: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(500);

/// What came back.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The API server called the webhook, and it answered.
    Answered,
    /// The API server does not know of the webhook yet.
    NotYet(String),
    /// The webhook could not be called, or answered something else.
    Failed(String),
}

/// Has the API server call the webhook for a pod that is never made. `probe` is 1 to 63 lower-case
/// letters, digits and `-`, and new each time.
///
/// # Errors
/// The webhook did not answer; the message says what the API server said about it.
pub async fn self_test(
    client: &Client,
    settings: &Settings,
    bundle: &str,
    probe: &str,
    owner: Option<&OwnerReference>,
) -> Result<(), Error> {
    if bundle.is_empty() {
        return Err(Error::SelfTest("there is no certificate for the webhook yet".to_owned()));
    }
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    apply(&api, &probing(settings, bundle, probe, owner), None).await?;
    let outcome = until_answered(client, settings, probe).await;
    // Gone whatever happened: nobody else may find it.
    let removed = remove(&api, PROBE_CONFIGURATION).await;
    outcome.and_then(|()| removed.map(drop))
}

async fn until_answered(client: &Client, settings: &Settings, probe: &str) -> Result<(), Error> {
    let mut last = String::new();
    for _ in 0..PATIENCE {
        match ask_for_pod(client, settings, probe).await? {
            Answer::Answered => return Ok(()),
            Answer::NotYet(said) | Answer::Failed(said) => last = said,
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Err(Error::SelfTest(format!(
        "the webhook did not answer the API server: {last}; hint: is a pod of it ready, and may \
         the API server reach it (NetworkPolicy, firewall, --webhook-url)?"
    )))
}

async fn ask_for_pod(client: &Client, settings: &Settings, probe: &str) -> Result<Answer, Error> {
    let what = format!("ask for a pod in {} (dry run)", settings.namespace);
    let pod = serde_json::to_vec(&pod(&settings.namespace, probe))
        .map_err(|error| Error::of(&what, kube::Error::SerdeError(error)))?;
    let url = format!("/api/v1/namespaces/{}/pods", settings.namespace);
    let params = PostParams { dry_run: true, field_manager: Some(names::MANAGER.to_owned()) };
    let request = Request::new(url)
        .create(&params, pod)
        .map_err(|error| Error::of(&what, kube::Error::BuildRequest(error)))?;
    // The answer's headers hold the warnings, so the request is sent as it is.
    let sent = tokio::time::timeout(ASK, client.send(request.map(Body::from)));
    let response = match sent.await {
        Ok(response) => response.map_err(|error| Error::of(&what, error))?,
        Err(_) => return Err(Error::Silent { what, within: ASK }),
    };
    let warnings: Vec<String> = response
        .headers()
        .get_all(http::header::WARNING)
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    let status = response.status().as_u16();
    let body = response.into_body().collect_bytes().await;
    let said = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    Ok(judge(status, &warnings, &said, probe))
}

/// What an answer means.
fn judge(status: u16, warnings: &[String], body: &str, probe: &str) -> Answer {
    let expected = format!("{}={probe}", names::PROBE);
    if warnings.iter().any(|warning| warning.contains(&expected)) {
        return Answer::Answered;
    }
    if (200..300).contains(&status) {
        return Answer::NotYet("the API server did not call it".to_owned());
    }
    let message = serde_json::from_str::<serde_json::Value>(body)
        .ok()
        .and_then(|it| it["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| format!("status {status}"));
    Answer::Failed(message.chars().take(500).collect())
}

/// A pod that even the strictest standard for pods lets through.
fn pod(namespace: &str, probe: &str) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("kuboard-probe-{probe}")),
            namespace: Some(namespace.to_owned()),
            labels: Some([(names::PROBE.to_owned(), probe.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            restart_policy: Some("Never".to_owned()),
            containers: vec![Container {
                name: "probe".to_owned(),
                image: Some("kuboard.cn/probe:none".to_owned()),
                security_context: Some(SecurityContext {
                    allow_privilege_escalation: Some(false),
                    run_as_non_root: Some(true),
                    run_as_user: Some(65_532),
                    capabilities: Some(k8s_openapi::api::core::v1::Capabilities {
                        drop: Some(vec!["ALL".to_owned()]),
                        add: None,
                    }),
                    seccomp_profile: Some(SeccompProfile {
                        type_: "RuntimeDefault".to_owned(),
                        localhost_profile: None,
                    }),
                    ..SecurityContext::default()
                }),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, judge};

    #[test]
    fn answers_are_told_apart() {
        let check = |status: u16, warnings: &[&str], body: &str, want: Answer| {
            let warnings: Vec<String> = warnings.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(judge(status, &warnings, body, "17-a"), want);
        };
        let said = r#"299 - "kuboard.cn/probe=17-a""#;
        let not_yet = || Answer::NotYet("the API server did not call it".to_owned());
        check(201, &[said], "{}", Answer::Answered);
        check(201, &["299 - \"other\"", said], "{}", Answer::Answered);
        check(201, &[], "{}", not_yet());
        check(201, &["299 - \"kuboard.cn/probe=16-a\""], "{}", not_yet());
        let failed = r#"{"message":"failed calling webhook \"probe.kuboard.cn\": refused"}"#;
        let message = "failed calling webhook \"probe.kuboard.cn\": refused";
        check(500, &[], failed, Answer::Failed(message.to_owned()));
        check(403, &[], "<html>", Answer::Failed("status 403".to_owned()));
    }
}
