//! One message and its way.

use std::time::Duration;

use http::{HeaderMap, header};
use jiff::Timestamp;
use kuboard_catalog::DeliveryRow;
use serde_json::json;
use url::Url;

use super::{
    Receiver, Template,
    message::Told,
    sign, text,
    verdict::{Answer, judge, retry_after},
};

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 16 << 10;
const CLOUD_EVENT: &str = "application/cloudevents+json; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

/// A message ready to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// The message of an event to a receiver, signed at `now_ms`.
pub(super) fn outgoing(
    receiver: &Receiver,
    told: &Told,
    row: &DeliveryRow,
    source: &str,
    now_ms: i64,
) -> Outgoing {
    let seconds = now_ms.div_euclid(1000).to_string();
    let secret = receiver.secret.as_deref();
    let mut url = receiver.url.clone();
    let mut content_type = JSON;
    let body = match receiver.template {
        Template::CloudEvents => {
            content_type = CLOUD_EVENT;
            cloud_event(told, row, source)
        }
        Template::Slack => text::slack(told, receiver.language),
        Template::DingTalk => {
            if let Some(secret) = secret {
                let ms = now_ms.to_string();
                let sign = sign::dingtalk(secret, &ms);
                url.query_pairs_mut().append_pair("timestamp", &ms).append_pair("sign", &sign);
            }
            text::dingtalk(told, receiver.language)
        }
        Template::Feishu => {
            let signed = secret.map(|secret| (seconds.as_str(), sign::feishu(secret, &seconds)));
            text::feishu(told, receiver.language, signed)
        }
        Template::WeCom => text::wecom(told, receiver.language),
    };
    let body = body.to_string();
    let mut headers = vec![
        ("content-type", content_type.to_owned()),
        ("webhook-id", row.key.clone()),
        ("webhook-timestamp", seconds.clone()),
    ];
    // Chats know their own signatures only.
    let signing = secret.filter(|_| receiver.template == Template::CloudEvents);
    if let Some(secret) = signing {
        let signature = sign::standard(secret, &row.key, &seconds, body.as_bytes());
        headers.push(("webhook-signature", signature));
        headers.push(("x-kuboard-signature-256", sign::body_only(secret, body.as_bytes())));
    }
    Outgoing { url, headers, body }
}

/// CloudEvents 1.0, structured mode.
fn cloud_event(told: &Told, row: &DeliveryRow, source: &str) -> serde_json::Value {
    let time = Timestamp::from_millisecond(row.created_ms).unwrap_or_default();
    json!({
        "specversion": "1.0",
        "id": row.key,
        "source": source,
        "type": row.kind,
        "subject": told.subject,
        "time": time.to_string(),
        "datacontenttype": "application/json",
        "data": told.data,
    })
}

/// Posts to receivers whose certificates it can check.
#[derive(Clone)]
pub(super) struct Client(reqwest::Client);

impl Client {
    pub(super) fn new(receiver: &Receiver, timeout: Duration) -> anyhow::Result<Self> {
        let refused = |error: reqwest::Error| {
            let name = &receiver.name;
            anyhow::anyhow!("webhook {name}: its authority can't be used: {error}")
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("kuboard/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeout / 2)
            .timeout(timeout)
            .pool_idle_timeout(Duration::from_secs(20))
            // What is told is told to whom the operator named, and nobody else.
            .redirect(reqwest::redirect::Policy::none());
        for pem in receiver.authority.iter() {
            for certificate in reqwest::Certificate::from_pem_bundle(pem).map_err(refused)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Ok(Self(builder.build().map_err(refused)?))
    }

    pub(super) async fn post(&self, outgoing: Outgoing, template: Template, now_ms: i64) -> Answer {
        let mut request = self.0.post(outgoing.url).body(outgoing.body);
        for (name, value) in outgoing.headers {
            request = request.header(name, value);
        }
        match answer(request, template, now_ms).await {
            Ok(answer) => answer,
            // Addresses hold tokens.
            Err(error) => Answer::Busy { why: reason(&error.without_url()), wait: None },
        }
    }
}

async fn answer(
    request: reqwest::RequestBuilder,
    template: Template,
    now_ms: i64,
) -> Result<Answer, reqwest::Error> {
    let mut response = request.send().await?;
    let status = response.status();
    let wait = asked_wait(response.headers(), now_ms);
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(piece)) => {
                let room = MAX_ANSWER.saturating_sub(body.len());
                body.extend_from_slice(piece.get(..room).unwrap_or(&piece));
                if body.len() >= MAX_ANSWER {
                    break;
                }
            }
            Ok(None) => break,
            // The status says all where the body does not matter.
            Err(_) if status.is_success() && template == Template::CloudEvents => break,
            Err(error) => return Err(error),
        }
    }
    Ok(judge(template, status, wait, &body))
}

fn asked_wait(headers: &HeaderMap, now_ms: i64) -> Option<Duration> {
    retry_after(headers.get(header::RETRY_AFTER)?.to_str().ok()?, now_ms)
}

/// An error with its causes.
fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text.chars().take(400).collect()
}
