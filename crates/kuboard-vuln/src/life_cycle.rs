//! The life of a finding in one image: open, acknowledged, fixed, reopened, exempt.
//!
//! [`next`] is the whole of it; who keeps the states asks it after every scan and after every
//! act of a person, and stores what it answers.

use serde::{Deserialize, Serialize};

/// Entries of a history that are kept: the first, and the newest others.
const MAX_HISTORY: usize = 256;

/// Where a finding is in its life.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// There, and nobody has looked at it.
    Open,
    /// There, and somebody knows.
    Acknowledged,
    /// Not there any more.
    Fixed,
    /// There again after it was fixed.
    Reopened,
    /// There, and it does not count.
    Exempt {
        /// Milliseconds since 1970 from which on it counts again; `None` for never.
        until_ms: Option<i64>,
    },
}

/// What is known of a finding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Where it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
    /// When it was first seen.
    pub first_seen_ms: i64,
    /// When it was last seen.
    pub last_seen_ms: i64,
    /// What happened, the oldest first.
    #[serde(default)]
    pub history: Vec<Entry>,
}

/// What happens to a finding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    /// A scan has it.
    Seen,
    /// A complete scan does not have it. Never give this for a scan that was partly read.
    NotSeen,
    /// A person knows of it.
    Acknowledge(Act),
    /// A person lets it pass.
    Exempt {
        /// Who and why.
        act: Act,
        /// Until when, milliseconds since 1970; `None` for good.
        until_ms: Option<i64>,
    },
    /// A person takes an acknowledgement or exemption back.
    Revoke(Act),
}

/// Who does something, and why.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Act {
    /// Who.
    pub by: String,
    /// Why, in their words.
    #[serde(default)]
    pub reason: String,
}

/// A change worth telling.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Seen for the first time.
    Opened,
    /// Acknowledged.
    Acknowledged,
    /// Gone.
    Fixed,
    /// Back after it was gone.
    Reopened,
    /// Exempt, or exempt until another day.
    Exempted,
    /// An exemption's time is over.
    ExemptionEnded,
    /// An acknowledgement or exemption was taken back.
    Revoked,
}

/// One line of a history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// What.
    pub event: Event,
    /// By whom, if by a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Act>,
}

/// The state after an input, and the event if something changed. `None` as a state stays `None`
/// for everything but [`Input::Seen`]: what was never seen cannot be acknowledged.
#[must_use]
pub fn next(state: Option<&State>, input: &Input, now_ms: i64) -> (Option<State>, Option<Event>) {
    let Some(state) = state else {
        if *input != Input::Seen {
            return (None, None);
        }
        let history = vec![Entry { at_ms: now_ms, event: Event::Opened, act: None }];
        let phase = Phase::Open;
        let opened =
            State { phase, since_ms: now_ms, first_seen_ms: now_ms, last_seen_ms: now_ms, history };
        return (Some(opened), Some(Event::Opened));
    };
    let mut after = state.clone();
    if *input == Input::Seen {
        after.last_seen_ms = after.last_seen_ms.max(now_ms);
    }
    let Some((phase, event)) = step(&state.phase, input, now_ms) else {
        return (Some(after), None);
    };
    let act = match input {
        Input::Seen | Input::NotSeen => None,
        Input::Acknowledge(act) | Input::Exempt { act, .. } | Input::Revoke(act) => {
            Some(act.clone())
        }
    };
    after.phase = phase;
    after.since_ms = now_ms;
    if after.history.len() >= MAX_HISTORY {
        after.history.remove(1);
    }
    after.history.push(Entry { at_ms: now_ms, event, act });
    (Some(after), Some(event))
}

/// The change of phase; `None` if there is none.
fn step(phase: &Phase, input: &Input, now_ms: i64) -> Option<(Phase, Event)> {
    let exempt = |until_ms: &Option<i64>| (Phase::Exempt { until_ms: *until_ms }, Event::Exempted);
    match (phase, input) {
        (Phase::Fixed, Input::Seen) => Some((Phase::Reopened, Event::Reopened)),
        (Phase::Fixed, _) => None,
        (_, Input::NotSeen) => Some((Phase::Fixed, Event::Fixed)),
        (Phase::Exempt { until_ms: Some(until) }, Input::Seen) if *until <= now_ms => {
            Some((Phase::Open, Event::ExemptionEnded))
        }
        (_, Input::Seen) => None,
        (Phase::Open | Phase::Reopened, Input::Acknowledge(_)) => {
            Some((Phase::Acknowledged, Event::Acknowledged))
        }
        (_, Input::Acknowledge(_)) => None,
        (Phase::Exempt { until_ms: old }, Input::Exempt { until_ms, .. }) if old == until_ms => {
            None
        }
        (_, Input::Exempt { until_ms, .. }) => Some(exempt(until_ms)),
        (Phase::Acknowledged | Phase::Exempt { .. }, Input::Revoke(_)) => {
            Some((Phase::Open, Event::Revoked))
        }
        (_, Input::Revoke(_)) => None,
    }
}

/// Whether a finding in this state counts at `now_ms`.
#[must_use]
pub fn counts(phase: &Phase, now_ms: i64) -> bool {
    match phase {
        Phase::Open | Phase::Acknowledged | Phase::Reopened => true,
        Phase::Fixed => false,
        Phase::Exempt { until_ms } => until_ms.is_some_and(|until| until <= now_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::{Act, Event, Input, MAX_HISTORY, Phase, State, counts, next};

    const NOW: i64 = 1_000;

    fn state(phase: Phase) -> State {
        State { phase, since_ms: 1, first_seen_ms: 1, last_seen_ms: 1, history: Vec::new() }
    }

    fn check(from: Option<Phase>, input: &Input, want: Option<Phase>, event: Option<Event>) {
        let before = from.clone().map(state);
        let (after, got) = next(before.as_ref(), input, NOW);
        let label = format!("{from:?} {input:?}");
        assert_eq!(after.as_ref().map(|s| s.phase.clone()), want, "{label}");
        assert_eq!(got, event, "{label}");
        if let Some(after) = after {
            let since = if event.is_some() { NOW } else { 1 };
            assert_eq!(after.since_ms, since, "{label}");
            assert_eq!(after.history.last().map(|entry| entry.event), event, "{label}");
        }
    }

    #[test]
    fn every_pair_of_phase_and_input() {
        use Phase::{Acknowledged, Exempt, Fixed, Open, Reopened};
        let act = Act { by: "li".to_owned(), reason: "known".to_owned() };
        let ack = Input::Acknowledge(act.clone());
        let exempt = Input::Exempt { act: act.clone(), until_ms: Some(5_000) };
        let revoke = Input::Revoke(act);
        let later = Exempt { until_ms: Some(5_000) };
        let over = Exempt { until_ms: Some(NOW) };
        let always = Exempt { until_ms: None };
        for (from, input, want, event) in [
            (None, &Input::Seen, Some(Open), Some(Event::Opened)),
            (None, &Input::NotSeen, None, None),
            (None, &ack, None, None),
            (None, &exempt, None, None),
            (None, &revoke, None, None),
            (Some(Open), &Input::Seen, Some(Open), None),
            (Some(Open), &Input::NotSeen, Some(Fixed), Some(Event::Fixed)),
            (Some(Open), &ack, Some(Acknowledged), Some(Event::Acknowledged)),
            (Some(Open), &exempt, Some(later.clone()), Some(Event::Exempted)),
            (Some(Open), &revoke, Some(Open), None),
            (Some(Acknowledged), &Input::Seen, Some(Acknowledged), None),
            (Some(Acknowledged), &Input::NotSeen, Some(Fixed), Some(Event::Fixed)),
            (Some(Acknowledged), &ack, Some(Acknowledged), None),
            (Some(Acknowledged), &exempt, Some(later.clone()), Some(Event::Exempted)),
            (Some(Acknowledged), &revoke, Some(Open), Some(Event::Revoked)),
            (Some(Fixed), &Input::Seen, Some(Reopened), Some(Event::Reopened)),
            (Some(Fixed), &Input::NotSeen, Some(Fixed), None),
            (Some(Fixed), &ack, Some(Fixed), None),
            (Some(Fixed), &exempt, Some(Fixed), None),
            (Some(Fixed), &revoke, Some(Fixed), None),
            (Some(Reopened), &Input::Seen, Some(Reopened), None),
            (Some(Reopened), &Input::NotSeen, Some(Fixed), Some(Event::Fixed)),
            (Some(Reopened), &ack, Some(Acknowledged), Some(Event::Acknowledged)),
            (Some(Reopened), &exempt, Some(later.clone()), Some(Event::Exempted)),
            (Some(Reopened), &revoke, Some(Reopened), None),
            (Some(later.clone()), &Input::Seen, Some(later.clone()), None),
            (Some(over.clone()), &Input::Seen, Some(Open), Some(Event::ExemptionEnded)),
            (Some(always.clone()), &Input::Seen, Some(always.clone()), None),
            (Some(later.clone()), &Input::NotSeen, Some(Fixed), Some(Event::Fixed)),
            (Some(later.clone()), &ack, Some(later.clone()), None),
            (Some(later.clone()), &exempt, Some(later.clone()), None),
            (Some(always), &exempt, Some(later.clone()), Some(Event::Exempted)),
            (Some(later), &revoke, Some(Open), Some(Event::Revoked)),
        ] {
            check(from, input, want, event);
        }
    }

    #[test]
    fn what_counts() {
        for (phase, want) in [
            (Phase::Open, true),
            (Phase::Acknowledged, true),
            (Phase::Reopened, true),
            (Phase::Fixed, false),
            (Phase::Exempt { until_ms: None }, false),
            (Phase::Exempt { until_ms: Some(NOW + 1) }, false),
            (Phase::Exempt { until_ms: Some(NOW) }, true),
        ] {
            assert_eq!(counts(&phase, NOW), want, "{phase:?}");
        }
    }

    #[test]
    fn a_history_keeps_its_first_entry_and_does_not_grow_for_ever() {
        let mut state = next(None, &Input::Seen, 0).0;
        for round in 0..1_000 {
            let input = if round % 2 == 0 { Input::NotSeen } else { Input::Seen };
            state = next(state.as_ref(), &input, round).0;
        }
        let state = state.unwrap();
        assert_eq!(state.history.len(), MAX_HISTORY);
        assert_eq!(state.history[0].event, Event::Opened);
    }
}
