//! When a cached tag may be served, and what to do first: pure decisions over ages and answers.
//!
//! A tag is *fresh* for its time-to-live, then *stale*: still served at once while one request
//! asks the upstream in the background. Past `max_stale` the upstream is asked first, and the
//! cached tag is served only if the upstream does not answer.

use std::time::Duration;

use kuboard_registry::client::{RateLimit, UpstreamErrorKind};

/// The times of one upstream rule that decide how long a tag is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TagTimes {
    /// Age below which the upstream is not asked at all; zero asks always.
    pub(crate) ttl: Duration,
    /// Age below which the tag is served before the upstream is asked.
    pub(crate) max_stale: Duration,
    /// The tag never moves by the operator's word (`immutableTags`).
    pub(crate) immutable: bool,
}

/// What to do with a tag of a known age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Serve it, ask nobody.
    Serve,
    /// Serve it, and ask the upstream beside.
    ServeAndRevalidate,
    /// Ask the upstream first; serve it if the upstream does not answer.
    AskFirst,
}

/// Decides for a cached tag that was last confirmed `age` ago.
///
/// `saving` says that the upstream's rate limit is nearly used up: then a tag that may be served
/// is served without asking, however stale.
pub(crate) fn plan(age: Duration, times: TagTimes, saving: bool) -> Plan {
    if times.immutable || age < times.ttl || saving {
        Plan::Serve
    } else if age < times.max_stale {
        Plan::ServeAndRevalidate
    } else {
        Plan::AskFirst
    }
}

/// Whether so little of the upstream's allowance is left that revalidation should stop:
/// below a tenth of the limit.
pub(crate) fn is_saving(limit: Option<RateLimit>) -> bool {
    limit.is_some_and(|limit| limit.is_low())
}

/// Whether a cached copy may stand in for an upstream that answered so. Only a plain
/// "not found" is the upstream's word about the content; all else is about the road to it.
pub(crate) fn may_stand_in(kind: UpstreamErrorKind) -> bool {
    !matches!(kind, UpstreamErrorKind::NotFound)
}

/// The reason label of `registry_proxy_stale_served_total`.
pub(crate) fn stale_reason(kind: UpstreamErrorKind) -> &'static str {
    match kind {
        UpstreamErrorKind::NotFound => "not_found",
        UpstreamErrorKind::Unauthorized | UpstreamErrorKind::Denied => "refused",
        UpstreamErrorKind::Throttled { .. } => "throttled",
        UpstreamErrorKind::Unavailable => "unavailable",
        UpstreamErrorKind::Timeout => "timeout",
        UpstreamErrorKind::Invalid => "invalid",
        UpstreamErrorKind::Refused => "forbidden_by_rule",
    }
}

/// How a range request on a blob that is still being filled is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangePlan {
    /// Follow the fill: the bytes are there or soon will be.
    Follow,
    /// Ask the upstream for just this range.
    Relay,
}

/// Bytes by which a range may lie ahead of the fill and still wait for it.
pub(crate) const FOLLOW_WINDOW: u64 = 8 << 20;

/// Decides for a range that begins at `start` while `written` bytes came in `elapsed`.
/// A range that the fill reaches within a second at its present pace waits for it: asking
/// the upstream again would move the same bytes twice for no gain.
pub(crate) fn range_plan(start: u64, written: u64, elapsed: Duration) -> RangePlan {
    let ahead = start.saturating_sub(written);
    if ahead <= FOLLOW_WINDOW {
        return RangePlan::Follow;
    }
    let per_second = (written as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    if ahead <= per_second { RangePlan::Follow } else { RangePlan::Relay }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: TagTimes = TagTimes {
        ttl: Duration::from_secs(60),
        max_stale: Duration::from_secs(3600),
        immutable: false,
    };

    const NEVER: TagTimes =
        TagTimes { ttl: Duration::ZERO, max_stale: Duration::ZERO, immutable: false };

    #[test]
    fn plans_by_age() {
        let immutable = TagTimes { immutable: true, ..TIMES };
        for (age, times, saving, expected) in [
            (0, TIMES, false, Plan::Serve),
            (59, TIMES, false, Plan::Serve),
            (60, TIMES, false, Plan::ServeAndRevalidate),
            (3599, TIMES, false, Plan::ServeAndRevalidate),
            (3600, TIMES, false, Plan::AskFirst),
            (0, NEVER, false, Plan::AskFirst),
            (3601, TIMES, true, Plan::Serve),
            (1 << 30, immutable, false, Plan::Serve),
        ] {
            assert_eq!(plan(Duration::from_secs(age), times, saving), expected, "age {age}");
        }
    }

    #[test]
    fn saves_the_last_tenth_of_the_allowance() {
        let limit = |limit, remaining| Some(RateLimit { limit, remaining, window_s: 21600 });
        for (given, expected) in [
            (None, false),
            (limit(100, 100), false),
            (limit(100, 10), false),
            (limit(100, 9), true),
            (limit(100, 0), true),
            (limit(0, 0), false),
        ] {
            assert_eq!(is_saving(given), expected, "{given:?}");
        }
    }

    #[test]
    fn only_not_found_speaks_about_content() {
        assert!(!may_stand_in(UpstreamErrorKind::NotFound));
        for kind in [
            UpstreamErrorKind::Unauthorized,
            UpstreamErrorKind::Denied,
            UpstreamErrorKind::Throttled { retry_after: None },
            UpstreamErrorKind::Unavailable,
            UpstreamErrorKind::Timeout,
            UpstreamErrorKind::Invalid,
            UpstreamErrorKind::Refused,
        ] {
            assert!(may_stand_in(kind), "{kind:?}");
        }
    }

    #[test]
    fn far_ranges_are_relayed_unless_the_fill_is_fast() {
        let second = Duration::from_secs(1);
        for (start, written, expected) in [
            (0, 0, RangePlan::Follow),
            (FOLLOW_WINDOW, 0, RangePlan::Follow),
            (FOLLOW_WINDOW + 1, 0, RangePlan::Relay),
            (100 << 20, 95 << 20, RangePlan::Follow),
            (100 << 20, 60 << 20, RangePlan::Follow),
            (500 << 20, 60 << 20, RangePlan::Relay),
        ] {
            assert_eq!(range_plan(start, written, second), expected, "{start} {written}");
        }
    }
}
