//! Conditions of a status, and moments as statuses write them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The object can be used.
pub const READY: &str = "Ready";
/// Pods are judged by the policy.
pub const ENFORCING: &str = "Enforcing";
/// The exemption holds.
pub const ACTIVE: &str = "Active";
/// No policy would refuse the image where it runs.
pub const COMPLIANT: &str = "Compliant";

/// What a condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said<'a> {
    /// `Ready`, …
    pub kind: &'a str,
    /// Whether it is the case; `None`: not known.
    pub is_true: Option<bool>,
    /// One word in camel case.
    pub reason: &'a str,
    /// For people.
    pub message: &'a str,
}

/// Puts a condition into a status, in the place of the one of the same type; the time of its last
/// transition moves only when its truth does. True if anything but that time changed, so that a
/// status is written only when it says something new.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    said: Said<'_>,
    generation: Option<i64>,
    now_ms: i64,
) -> bool {
    let status = match said.is_true {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let message: String = said.message.chars().take(32_768).collect();
    let new = Condition {
        last_transition_time: Time(moment(now_ms)),
        message,
        observed_generation: generation,
        reason: said.reason.to_owned(),
        status: status.to_owned(),
        type_: said.kind.to_owned(),
    };
    match conditions.iter_mut().find(|it| it.type_ == said.kind) {
        None => conditions.push(new),
        Some(old) => {
            let last = match old.status == new.status {
                true => old.last_transition_time.clone(),
                false => new.last_transition_time.clone(),
            };
            let new = Condition { last_transition_time: last, ..new };
            if *old == new {
                return false;
            }
            *old = new;
        }
    }
    true
}

/// Milliseconds since 1970 as RFC 3339 writes them, in whole seconds as Kubernetes does.
#[must_use]
pub fn time(ms: i64) -> String {
    moment(ms).to_string()
}

fn moment(ms: i64) -> Timestamp {
    let seconds = ms.div_euclid(1000);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
