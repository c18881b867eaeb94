//! A verdict in words: the message of a refusal, warnings, and what the audit log keeps.

use std::{collections::BTreeSet, fmt::Write as _};

use kuboard_api::policy::Scope;
use serde_json::json;

use crate::{
    images::Name,
    review::cut,
    verdict::{Cause, Outcome, Reason, Verdict, Worst},
};

/// Reasons that a refusal spells out.
const REASONS: usize = 3;
/// Findings that a reason spells out.
const FINDINGS: usize = 3;
/// Bytes of one warning; the API server cuts longer ones.
const WARNING_BYTES: usize = 250;
/// Warnings of one answer.
const WARNINGS: usize = 8;
/// Bytes of a refusal and of an audit annotation.
const MESSAGE_BYTES: usize = 4096;
/// How long a suggested exemption would hold.
const EXEMPTION_MS: i64 = 30 * 24 * 3_600_000;

/// The message of a refusal: every reason for it, and what to do.
#[must_use]
pub(crate) fn refusal(verdict: &Verdict, namespace: &str, now_ms: i64) -> String {
    let denying: Vec<&Reason> =
        verdict.reasons.iter().filter(|it| it.outcome == Outcome::Deny).collect();
    let mut text = String::new();
    for reason in denying.iter().take(REASONS) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&sentence(reason));
    }
    if let Some(more) = denying.len().checked_sub(REASONS).filter(|more| *more > 0) {
        let _ = write!(text, "; and {more} more reasons");
    }
    if let Some(first) = denying.first() {
        let _ = write!(text, "; hint: {}", hint(first, namespace, now_ms));
    }
    limited(text, MESSAGE_BYTES)
}

/// What whoever created the pod should know of: the reasons that warn, one line each.
#[must_use]
pub(crate) fn warnings(verdict: &Verdict) -> Vec<String> {
    let warning = verdict.reasons.iter().filter(|it| it.outcome == Outcome::Warn);
    warning.map(|it| limited(sentence(it), WARNING_BYTES)).take(WARNINGS).collect()
}

/// The same lines for all reasons, refusals too: for objects that are never refused themselves.
#[must_use]
pub(crate) fn forecasts(verdict: &Verdict) -> Vec<String> {
    let reasons = verdict.reasons.iter().filter(|it| it.outcome >= Outcome::Warn);
    let line = |it: &Reason| {
        let fate = match it.outcome {
            Outcome::Deny => "pods will be refused: ",
            _ => "",
        };
        limited(format!("{fate}{}", sentence(it)), WARNING_BYTES)
    };
    reasons.map(line).take(WARNINGS).collect()
}

/// All reasons of a verdict in one text, for the audit log and events.
#[must_use]
pub fn summary(verdict: &Verdict) -> String {
    let reasons = verdict.reasons.iter().filter(|it| it.outcome > Outcome::Allow);
    let lines: Vec<String> =
        reasons.map(|it| format!("{}: {}", it.outcome.as_str(), sentence(it))).collect();
    limited(lines.join("; "), MESSAGE_BYTES)
}

/// The policies that had a say, in one text.
#[must_use]
pub(crate) fn policies(verdict: &Verdict) -> String {
    let names: BTreeSet<String> = verdict.reasons.iter().map(policy).collect();
    limited(names.into_iter().collect::<Vec<_>>().join(","), MESSAGE_BYTES)
}

/// A policy with its kind.
#[must_use]
pub fn policy(reason: &Reason) -> String {
    let kind = match reason.scope {
        Scope::Namespace => "ImageScanPolicy",
        Scope::Cluster => "ClusterImageScanPolicy",
    };
    format!("{kind} {}", reason.policy)
}

/// One reason as a sentence without its hint.
#[must_use]
pub fn sentence(reason: &Reason) -> String {
    let policy = policy(reason);
    let image = match reason.place.as_str() {
        "" => cut(&reason.image),
        place => format!("{} ({})", cut(&reason.image), cut(place)),
    };
    match &reason.cause {
        Cause::Findings { threshold, counted, fixable, worst, running } => {
            let noun = if *counted == 1 { "finding" } else { "findings" };
            let mut text = format!(
                "image {image} breaks {policy}: {counted} {noun} at or above {threshold}, \
                 {fixable} with a fix"
            );
            if *running {
                text.push_str(" (it already runs in this namespace)");
            }
            let shown: Vec<String> = worst.iter().take(FINDINGS).map(finding).collect();
            let _ = write!(text, ": {}", shown.join(", "));
            let more = (*counted as usize).saturating_sub(shown.len());
            if more > 0 {
                let _ = write!(text, " and {more} more");
            }
            text
        }
        Cause::Unscanned { why, until_ms, running } => {
            let state = match why {
                Some(why) => format!("was not wholly scanned ({})", cut(why)),
                None => "was not scanned yet".to_owned(),
            };
            let mut text = format!("image {image} {state}, as {policy} wants");
            if *running {
                text.push_str(" (it already runs in this namespace)");
            } else if until_ms.is_some() {
                text.push_str("; it waits for its scan");
            }
            text
        }
        Cause::Unresolved(why) => {
            format!("image {image} can't be looked up for {policy}: {}", cut(why))
        }
        Cause::Invalid(why) => {
            format!("\"{image}\" is no image: {}; {policy} refuses it", cut(why))
        }
    }
}

fn finding(it: &Worst) -> String {
    let severity = format!("{:?}", it.severity).to_uppercase();
    let exploited = if it.exploited { ", exploited" } else { "" };
    let fix = match &it.fixed_in {
        Some(version) => format!("fixed in {}", cut(version)),
        None => "no fix".to_owned(),
    };
    format!("{} {severity} in {} {} ({fix}{exploited})", cut(&it.id), cut(&it.package), it.version)
}

/// What to do about a refusal.
fn hint(reason: &Reason, namespace: &str, now_ms: i64) -> String {
    match &reason.cause {
        Cause::Findings { worst, .. } => {
            let fixes: BTreeSet<String> = worst
                .iter()
                .filter_map(|it| it.fixed_in.as_ref().map(|fix| format!("{} {fix}", it.package)))
                .take(FINDINGS)
                .collect();
            let fixes: Vec<String> = fixes.into_iter().collect();
            let advice = match fixes.as_slice() {
                [] => "no version fixes this yet".to_owned(),
                fixes => format!("use an image with {}", cut(&fixes.join(", "))),
            };
            let exemption = exemption(reason.name.as_ref(), worst, namespace, now_ms);
            format!(
                "{advice}, or have somebody answer for it: kubectl apply -f - <<< '{exemption}'"
            )
        }
        Cause::Unscanned { until_ms: Some(until_ms), .. } => {
            let until = jiff::Timestamp::from_millisecond(*until_ms)
                .map_or_else(|_| "later".to_owned(), |it| it.to_string());
            format!(
                "create the pod again in some seconds, as controllers do by themselves; if its \
                 scan has not ended by {until}, it runs without"
            )
        }
        Cause::Unscanned { .. } => {
            "create the pod again once the image is scanned, as controllers do by themselves; \
             kuboard doctor scan tells what the scan waits for"
                .to_owned()
        }
        Cause::Unresolved(_) => {
            "see that the image exists and that its registry answers Kuboard with the \
             credentials of the pod; kuboard doctor image tells more"
                .to_owned()
        }
        Cause::Invalid(_) => {
            "write [registry/]repository[:tag][@sha256:…], the repository in small letters"
                .to_owned()
        }
    }
}

/// An exemption that would let the image pass, ready to be applied.
fn exemption(name: Option<&Name>, worst: &[Worst], namespace: &str, now_ms: i64) -> String {
    let image = name.map(|it| {
        let slash = if it.registry.is_empty() { "" } else { "/" };
        let tag = it.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        format!("{}{slash}{}{tag}", it.registry, it.repository)
    });
    let short = name.and_then(|it| it.repository.rsplit('/').next()).unwrap_or("image");
    let short: String = short
        .chars()
        .map(|it| if it.is_ascii_alphanumeric() { it.to_ascii_lowercase() } else { '-' })
        .take(40)
        .collect();
    // It stands between the quotes of a shell.
    let harmless =
        |id: &&str| id.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.:".contains(&it));
    let ids: BTreeSet<&str> = worst.iter().map(|it| it.id.as_str()).filter(harmless).collect();
    let until = now_ms.saturating_add(EXEMPTION_MS) / 1000;
    let until = jiff::Timestamp::from_second(until).map(|it| it.to_string()).unwrap_or_default();
    json!({
        "apiVersion": kuboard_api::policy::API_VERSION,
        "kind": "ImageExemption",
        "metadata": {"name": short.trim_matches('-'), "namespace": namespace},
        "spec": {
            "images": image.into_iter().collect::<Vec<_>>(),
            "vulnerabilities": ids,
            "reason": "why this is acceptable",
            "expiresAt": until,
        },
    })
    .to_string()
}

/// At most so many bytes, cut between characters.
#[must_use]
pub(crate) fn limited(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8()));
        text.truncate(end);
        text.push('…');
    }
    text
}
