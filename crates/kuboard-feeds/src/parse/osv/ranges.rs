//! Events of an OSV range to ranges from an introduction to its end.

use kuboard_vuln::version::{self, Scheme};
use kuboard_vuln::{Bound, Range};

/// An event, `limit` left out: it bounds commits only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    Introduced(String),
    Fixed(String),
    LastAffected(String),
}

impl Event {
    fn version(&self) -> &str {
        match self {
            Event::Introduced(version) | Event::Fixed(version) | Event::LastAffected(version) => {
                version
            }
        }
    }
}

/// Pairs events. Their order in a document means nothing, so they are sorted by the scheme; where a
/// version is none of the scheme they are taken as they come.
pub(super) fn pair(scheme: Scheme, mut events: Vec<Event>) -> Vec<Range> {
    if events.len() > 2 || matches!(events.first(), Some(Event::Fixed(_) | Event::LastAffected(_)))
    {
        events = sorted(scheme, events);
    }
    let mut ranges = Vec::new();
    let mut open: Option<Option<String>> = None;
    for event in events {
        match event {
            Event::Introduced(version) if open.is_none() => {
                open = Some((version != "0").then_some(version));
            }
            // Introduced again while it still is: nothing new.
            Event::Introduced(_) => {}
            Event::Fixed(version) => {
                if let Some(introduced) = open.take() {
                    ranges.push(Range { introduced, until: Bound::Fixed(version) });
                }
            }
            Event::LastAffected(version) => {
                if let Some(introduced) = open.take() {
                    ranges.push(Range { introduced, until: Bound::LastAffected(version) });
                }
            }
        }
    }
    if let Some(introduced) = open {
        ranges.push(Range { introduced, until: Bound::None });
    }
    ranges
}

fn sorted(scheme: Scheme, events: Vec<Event>) -> Vec<Event> {
    let key = |event: &Event| match event.version() {
        "0" => Some(Vec::new()),
        text => version::key(scheme, text).ok(),
    };
    let Some(keys) = events.iter().map(key).collect::<Option<Vec<_>>>() else { return events };
    let mut keyed: Vec<_> = keys.into_iter().zip(events).collect();
    // At one version the end of a range comes before the beginning of the next; a range of one
    // version, `introduced` and `last_affected` at once, begins first.
    keyed.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| rank(x).cmp(&rank(y))));
    keyed.into_iter().map(|(_, event)| event).collect()
}

fn rank(event: &Event) -> u8 {
    match event {
        Event::Fixed(_) => 0,
        Event::Introduced(_) => 1,
        Event::LastAffected(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, pair};
    use kuboard_vuln::{Bound, version::Scheme};

    /// `+1` introduced, `-2` fixed, `=3` last affected.
    fn check(events: &str, ranges: &str) {
        let parsed = events
            .split_whitespace()
            .map(|word| match word.split_at(1) {
                ("+", version) => Event::Introduced(version.to_owned()),
                ("-", version) => Event::Fixed(version.to_owned()),
                (_, version) => Event::LastAffected(version.to_owned()),
            })
            .collect();
        let got: Vec<String> = pair(Scheme::Semver, parsed)
            .into_iter()
            .map(|range| {
                let from = range.introduced.unwrap_or_default();
                match range.until {
                    Bound::None => format!("[{from},)"),
                    Bound::Fixed(version) => format!("[{from},{version})"),
                    Bound::LastAffected(version) => format!("[{from},{version}]"),
                }
            })
            .collect();
        assert_eq!(got.join(" "), ranges, "{events}");
    }

    #[test]
    fn events_are_paired() {
        check(
            "+0 -1.8.15 +1.9.0 -1.9.9 +1.10.0 -1.10.2",
            "[,1.8.15) [1.9.0,1.9.9) [1.10.0,1.10.2)",
        );
        check("+0", "[,)");
        check("-1.0.0 +0", "[,1.0.0)");
        check("+2.0.0 -2.3.0 +0 -1.5.0", "[,1.5.0) [2.0.0,2.3.0)");
        check("+0 -2.3.0 +2.0.0 -1.5.0", "[,1.5.0) [2.0.0,2.3.0)");
        check("+0 +1.0.0 -2.0.0 -3.0.0", "[,2.0.0)");
        check("+1.0.0 =1.0.0", "[1.0.0,1.0.0]");
        check("+1.0.0 =1.0.0 +3.0.0", "[1.0.0,1.0.0] [3.0.0,)");
        check("+0 -1.0.0 +1.0.0 -2.0.0", "[,1.0.0) [1.0.0,2.0.0)");
        check("-1.0.0", "");
        check("", "");
    }
}
