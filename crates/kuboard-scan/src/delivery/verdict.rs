//! What an answer means, and whether and when to try again.

use std::time::Duration;

use http::StatusCode;
use jiff::fmt::rfc2822;
use kuboard_catalog::DeliveryRow;
use serde_json::Value;

use super::{Pace, Template};

/// A receiver may ask for this much patience.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Bytes of an answer that are quoted.
const QUOTED: usize = 200;

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The receiver has it.
    Accepted,
    /// Not now: away, broken, busy.
    Busy { why: String, wait: Option<Duration> },
    /// Not like this: the next try will hardly fare better.
    Refused { why: String },
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    Again { after: Duration, reason: String },
    Dead { reason: String },
}

/// Real tries of an event to a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tries {
    /// All of them.
    pub(super) all: u32,
    /// The last ones, if they were refused.
    pub(super) refused: u32,
}

/// What to do after one more try. `key` spreads the pauses of events that failed together.
pub(super) fn verdict(answer: &Answer, before: Tries, pace: &Pace, key: &str) -> Verdict {
    let all = before.all.saturating_add(1);
    let refused = before.refused.saturating_add(1);
    let (reason, is_last, wait) = match answer {
        Answer::Accepted => return Verdict::Delivered,
        Answer::Busy { why, wait } => (format!("try {all}: {why}"), all >= pace.tries, *wait),
        Answer::Refused { why } => {
            let is_last = refused >= pace.refused_tries || all >= pace.tries;
            (format!("try {all}, refused {refused}: {why}"), is_last, None)
        }
    };
    if is_last {
        return Verdict::Dead { reason };
    }
    let pause = pace.backoff.delay(before.all, fraction(key, all));
    Verdict::Again { after: pause.max(wait.unwrap_or_default().min(LONGEST_WAIT)), reason }
}

/// Tries before this one. The outbox counts how often an event was taken; those who took it may
/// have died before they tried. The reason that was kept tells of real tries, unless the event is
/// taken for the first time (again).
pub(super) fn tries_before(row: &DeliveryRow) -> Tries {
    let head = row.reason.split_once(':').map_or("", |(head, _)| head);
    let Some(head) = head.strip_prefix("try ").filter(|_| row.attempts > 1) else {
        return Tries::default();
    };
    let (all, refused) = head.split_once(", refused ").unwrap_or((head, "0"));
    let all = all.parse().unwrap_or(0).min(row.attempts - 1);
    Tries { all, refused: refused.parse().unwrap_or(0).min(all) }
}

/// Uniform in 0..1, the same for the same.
fn fraction(key: &str, tries: u32) -> f64 {
    let seed = key.bytes().fold(tries.wrapping_add(1), |seed, byte| {
        (seed ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    f64::from(seed.wrapping_mul(0x9e37_79b9)) / f64::from(u32::MAX)
}

/// What an answer means. `body` is its beginning.
pub(super) fn judge(
    template: Template,
    status: StatusCode,
    retry_after: Option<Duration>,
    body: &[u8],
) -> Answer {
    let text = String::from_utf8_lossy(body);
    let quoted: String =
        text.chars().take(QUOTED).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let why = match quoted.trim() {
        "" => format!("answered {}", status.as_u16()),
        quoted => format!("answered {}: {quoted}", status.as_u16()),
    };
    let is_busy = status.is_server_error() || [408, 425, 429].contains(&status.as_u16());
    if status.is_success() {
        return match template {
            Template::CloudEvents | Template::Slack => Answer::Accepted,
            Template::DingTalk | Template::Feishu | Template::WeCom => robot(body, why),
        };
    }
    if status.is_redirection() {
        return Answer::Refused { why: format!("{why}; hint: set the final address") };
    }
    if is_busy { Answer::Busy { why, wait: retry_after } } else { Answer::Refused { why } }
}

/// Robots answer 200 to everything and say in the body what came of it.
fn robot(body: &[u8], why: String) -> Answer {
    const PASSING: [i64; 6] = [-1, 130_101, 130_102, 45_009, 45_033, 11_232];
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = ["errcode", "code", "StatusCode"].iter().find_map(|key| answer[*key].as_i64());
    let words = ["errmsg", "msg", "StatusMessage"].iter().find_map(|key| answer[*key].as_str());
    let words = words.unwrap_or_default().to_lowercase();
    match code {
        Some(0) => Answer::Accepted,
        Some(code)
            if PASSING.contains(&code)
                || words.contains("too many")
                || words.contains("frequency limit") =>
        {
            // Their limits are counted by the minute.
            Answer::Busy { why, wait: Some(Duration::from_secs(60)) }
        }
        _ => Answer::Refused { why },
    }
}

/// The time that `Retry-After` asks for: seconds, or a date.
pub(super) fn retry_after(value: &str, now_ms: i64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST_WAIT));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    let wait_ms = date.as_millisecond().saturating_sub(now_ms).max(0);
    Some(Duration::from_millis(wait_ms.unsigned_abs()).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use kuboard_catalog::DeliveryRow;

    use super::{
        Answer, Pace, Template, Tries, Verdict, fraction, judge, retry_after, tries_before, verdict,
    };

    #[test]
    fn answers_are_judged() {
        let check = |template, status: u16, body: &str, expected: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let meant = match judge(template, status, None, body.as_bytes()) {
                Answer::Accepted => "accepted",
                Answer::Busy { .. } => "busy",
                Answer::Refused { .. } => "refused",
            };
            assert_eq!(meant, expected, "{template:?} {status} {body}");
        };
        for (status, expected) in [
            (200, "accepted"),
            (202, "accepted"),
            (204, "accepted"),
            (301, "refused"),
            (307, "refused"),
            (400, "refused"),
            (401, "refused"),
            (404, "refused"),
            (408, "busy"),
            (410, "refused"),
            (425, "busy"),
            (429, "busy"),
            (500, "busy"),
            (503, "busy"),
        ] {
            check(Template::CloudEvents, status, "", expected);
        }
        check(Template::Slack, 200, "ok", "accepted");
        check(Template::Slack, 403, "invalid_token", "refused");
        check(Template::DingTalk, 200, r#"{"errcode":0,"errmsg":"ok"}"#, "accepted");
        check(
            Template::DingTalk,
            200,
            r#"{"errcode":310000,"errmsg":"sign not match"}"#,
            "refused",
        );
        check(Template::DingTalk, 200, r#"{"errcode":130101,"errmsg":"send too fast"}"#, "busy");
        check(Template::Feishu, 200, r#"{"StatusCode":0,"StatusMessage":"success"}"#, "accepted");
        check(Template::Feishu, 200, r#"{"code":0,"msg":"success","data":{}}"#, "accepted");
        check(Template::Feishu, 200, r#"{"code":19021,"msg":"sign match fail"}"#, "refused");
        check(Template::Feishu, 200, r#"{"code":9499,"msg":"too many request"}"#, "busy");
        check(Template::WeCom, 200, r#"{"errcode":0,"errmsg":"ok"}"#, "accepted");
        check(
            Template::WeCom,
            200,
            r#"{"errcode":93000,"errmsg":"invalid webhook url"}"#,
            "refused",
        );
        check(
            Template::WeCom,
            200,
            r#"{"errcode":45009,"errmsg":"api freq out of limit"}"#,
            "busy",
        );
        check(Template::WeCom, 200, "<html>login</html>", "refused");
        check(Template::WeCom, 502, "<html>", "busy");
    }

    fn tries(all: u32, refused: u32) -> Tries {
        Tries { all, refused }
    }

    #[test]
    fn tries_end_and_pauses_grow() {
        let pace = Pace::default();
        let busy = Answer::Busy { why: "answered 503".into(), wait: None };
        let mut total = Duration::ZERO;
        let mut before = 0;
        loop {
            match verdict(&busy, tries(before, 0), &pace, "a key") {
                Verdict::Again { after, reason } => {
                    assert!(after <= pace.backoff.cap && after >= Duration::from_secs(1));
                    assert_eq!(reason, format!("try {}: answered 503", before + 1));
                    total += after;
                }
                other => {
                    let reason = "try 15: answered 503".to_owned();
                    assert_eq!(other, Verdict::Dead { reason });
                    break;
                }
            }
            before += 1;
        }
        assert!((30..75).contains(&(total.as_secs() / 60)), "{total:?}");
        let refused = Answer::Refused { why: "answered 400".into() };
        let is_dead = |before| matches!(verdict(&refused, before, &pace, ""), Verdict::Dead { .. });
        for (before, expected) in [
            (tries(0, 0), false),
            (tries(1, 1), false),
            (tries(2, 2), true),
            // What was only busy before is not given up at the first refusal.
            (tries(9, 0), false),
            (tries(14, 0), true),
        ] {
            assert_eq!(is_dead(before), expected, "{before:?}");
        }
        let wait =
            |seconds| Answer::Busy { why: String::new(), wait: Some(Duration::from_secs(seconds)) };
        let after = |answer: &Answer| match verdict(answer, tries(0, 0), &pace, "") {
            Verdict::Again { after, .. } => after.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!((after(&wait(90)), after(&wait(1 << 40))), (90, 3600));
        assert_eq!(verdict(&Answer::Accepted, tries(99, 0), &pace, ""), Verdict::Delivered);
        for (key, tries) in [("", 0), ("a", 1), ("ffff", u32::MAX)] {
            assert!((0.0..=1.0).contains(&fraction(key, tries)));
        }
        assert_ne!(fraction("a", 1).to_bits(), fraction("b", 1).to_bits());
    }

    #[test]
    fn only_real_tries_count() {
        for (attempts, reason, expected) in [
            (0, "", tries(0, 0)),
            (1, "", tries(0, 0)),
            (1, "try 15: answered 503", tries(0, 0)),
            (2, "try 1: answered 503", tries(1, 0)),
            (40, "try 3, refused 2: answered 400: no", tries(3, 2)),
            (40, "", tries(0, 0)),
            (40, "try x: y", tries(0, 0)),
            (3, "try 999, refused 999: y", tries(2, 2)),
        ] {
            let row = DeliveryRow {
                event: 1,
                receiver: String::new(),
                key: String::new(),
                kind: String::new(),
                body: String::new(),
                created_ms: 0,
                attempts,
                reason: reason.to_owned(),
            };
            assert_eq!(tries_before(&row), expected, "{attempts} {reason}");
        }
    }

    #[test]
    fn waits_are_read() {
        let now_ms = 1_700_000_000_000; // Tue, 14 Nov 2023 22:13:20 GMT
        for (value, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999", Some(3600)),
            ("Tue, 14 Nov 2023 22:14:20 GMT", Some(60)),
            ("Tue, 14 Nov 2023 22:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let wait = retry_after(value, now_ms).map(|wait| wait.as_secs());
            assert_eq!(wait, expected, "{value}");
        }
    }
}
