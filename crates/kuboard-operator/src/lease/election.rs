//! Who leads, decided from what a lease says and two clocks. Pure: the caller asks the API server.
//!
//! Nobody's clock is compared with anybody else's. A candidate takes a lease only after it has
//! seen the same version of it for a whole duration of its own time; a leader counts from the
//! moment *before* it sent the renewal that was confirmed, and stops well before that duration is
//! over. Each write names the version that it replaces, so of several candidates one succeeds.
//! Clocks may jump and drift; they must not run more than a fifth faster or slower than others.

use std::time::Duration;

/// How long a lease holds, and how often it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A lease that nobody renewed for so long may be taken.
    pub duration: Duration,
    /// A leader that could not renew for so long leads no more. Less than two thirds of
    /// `duration` leaves room for clocks that drift.
    pub renew_deadline: Duration,
    /// Between two looks.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Never goes back; stands still while the machine sleeps.
    pub monotonic: Duration,
    /// Milliseconds since 1970; may jump.
    pub wall_ms: i64,
}

/// What a lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty if nobody does.
    pub holder: String,
    /// How long it holds.
    pub duration: Duration,
    /// Of the object: it changes with every write.
    pub version: String,
    /// How often it changed hands.
    pub transitions: i32,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the lease.
    Create,
    /// Write our name over this version.
    Take {
        /// The version that is replaced.
        version: String,
        /// How often it will have changed hands.
        transitions: i32,
    },
    /// It is ours: write the time over this version.
    Renew {
        /// The version that is replaced.
        version: String,
        /// How often it changed hands.
        transitions: i32,
    },
    /// Somebody else leads.
    Wait,
}

/// One candidate.
#[derive(Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    /// The last record, and when this version of it was seen first (monotonic).
    seen: Option<(Record, Duration)>,
    /// There was a lease once.
    knew: bool,
    /// When a lease that there had been was first seen to be gone (monotonic).
    gone: Option<Duration>,
    /// When the last confirmed write was about to be sent.
    held: Option<Moment>,
}

impl Election {
    /// A candidate whose `identity` nobody else has, not even its own predecessor.
    #[must_use]
    pub fn new(identity: &str, timing: Timing) -> Self {
        Self {
            identity: identity.to_owned(),
            timing,
            seen: None,
            knew: false,
            gone: None,
            held: None,
        }
    }

    /// Takes note of what the lease says now; `None`: there is none.
    pub fn saw(&mut self, record: Option<Record>, now: Moment) {
        let Some(record) = record else {
            // Whoever holds it does not know yet that somebody removed it.
            if self.knew && !self.leads(now) {
                self.gone.get_or_insert(now.monotonic);
            }
            self.seen = None;
            return;
        };
        (self.knew, self.gone) = (true, None);
        let since = match &self.seen {
            Some((before, since)) if before.version == record.version => *since,
            _ => now.monotonic,
        };
        if record.holder != self.identity {
            self.held = None;
        }
        self.seen = Some((record, since));
    }

    /// What to do about what was seen last.
    #[must_use]
    pub fn step(&self, now: Moment) -> Step {
        let Some((record, since)) = &self.seen else {
            let passed = self.gone.map(|gone| now.monotonic.saturating_sub(gone));
            let may = passed.is_none_or(|passed| passed >= self.timing.duration);
            return if may { Step::Create } else { Step::Wait };
        };
        let version = record.version.clone();
        if record.holder == self.identity {
            return Step::Renew { version, transitions: record.transitions };
        }
        let lasts = record.duration.max(self.timing.duration);
        if record.holder.is_empty() || now.monotonic.saturating_sub(*since) >= lasts {
            return Step::Take { version, transitions: record.transitions.saturating_add(1) };
        }
        Step::Wait
    }

    /// A write was confirmed that was about to be sent at `sent`.
    pub fn wrote(&mut self, record: Record, sent: Moment, now: Moment) {
        (self.knew, self.gone, self.held) = (true, None, Some(sent));
        self.seen = Some((record, now.monotonic));
    }

    /// How much longer we lead if nothing is confirmed; zero: we do not lead.
    #[must_use]
    pub fn remaining(&self, now: Moment) -> Duration {
        let Some(held) = self.held else { return Duration::ZERO };
        // A machine that slept has only its wall clock to know by.
        let by_wall = now.wall_ms.saturating_sub(held.wall_ms).max(0).unsigned_abs();
        let passed =
            now.monotonic.saturating_sub(held.monotonic).max(Duration::from_millis(by_wall));
        self.timing.renew_deadline.saturating_sub(passed)
    }

    /// Whether we lead.
    #[must_use]
    pub fn leads(&self, now: Moment) -> bool {
        !self.remaining(now).is_zero()
    }

    /// We lead no more, whatever the clocks will show.
    pub fn resign(&mut self) {
        self.held = None;
    }

    /// Who leads as far as we know.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.seen.as_ref().map(|(record, _)| record.holder.as_str()).filter(|it| !it.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Election, Moment, Record, Step, Timing};

    fn at(seconds: u64) -> Moment {
        Moment {
            monotonic: Duration::from_secs(seconds),
            wall_ms: i64::try_from(seconds).unwrap() * 1_000,
        }
    }

    fn record(holder: &str, version: &str) -> Record {
        Record {
            holder: holder.to_owned(),
            duration: Duration::from_secs(15),
            version: version.to_owned(),
            transitions: 4,
        }
    }

    #[test]
    fn steps_follow_what_was_seen() {
        // What was seen when, and what follows at which second.
        let check = |seen: &[(u64, Option<(&str, &str)>)], now: u64, want: Step| {
            let mut election = Election::new("me", Timing::default());
            for (second, what) in seen {
                election.saw(what.map(|(holder, version)| record(holder, version)), at(*second));
            }
            assert_eq!(election.step(at(now)), want, "{seen:?} at {now}");
        };
        let take = |version: &str| Step::Take { version: version.to_owned(), transitions: 5 };
        let renew = |version: &str| Step::Renew { version: version.to_owned(), transitions: 4 };
        check(&[], 0, Step::Create);
        check(&[(0, None)], 0, Step::Create);
        check(&[(0, Some(("", "1")))], 0, take("1"));
        check(&[(0, Some(("you", "1")))], 0, Step::Wait);
        check(&[(0, Some(("you", "1")))], 14, Step::Wait);
        check(&[(0, Some(("you", "1")))], 15, take("1"));
        check(&[(0, Some(("you", "1"))), (14, Some(("you", "2")))], 28, Step::Wait);
        check(&[(0, Some(("you", "1"))), (14, Some(("you", "2")))], 29, take("2"));
        check(&[(0, Some(("you", "1"))), (9, Some(("you", "1")))], 15, take("1"));
        check(&[(0, Some(("you", "1"))), (9, None)], 23, Step::Wait);
        check(&[(0, Some(("you", "1"))), (9, None), (20, None)], 24, Step::Create);
        check(&[(0, Some(("me", "1"))), (9, None)], 9, Step::Wait);
        check(&[(0, Some(("", "1"))), (9, None)], 9, Step::Wait);
        check(&[(0, Some(("me", "7")))], 0, renew("7"));
    }

    #[test]
    fn a_lease_that_holds_longer_is_waited_for() {
        let mut election = Election::new("me", Timing::default());
        let longer = Record { duration: Duration::from_secs(60), ..record("you", "1") };
        election.saw(Some(longer), at(0));
        assert_eq!(election.step(at(59)), Step::Wait);
        assert!(matches!(election.step(at(60)), Step::Take { .. }));
    }

    #[test]
    fn leading_ends_by_either_clock() {
        let led = |now: Moment| {
            let mut election = Election::new("me", Timing::default());
            election.wrote(record("me", "2"), at(100), at(103));
            election.leads(now)
        };
        assert!(led(at(109)) && !led(at(110)), "counted from when it was sent");
        let jumped = |wall_ms| Moment { wall_ms, ..at(101) };
        assert!(!led(jumped(110_000)), "a machine that slept");
        assert!(led(jumped(-5)), "a wall clock that was set back says nothing");
        let mut election = Election::new("me", Timing::default());
        election.wrote(record("me", "2"), at(100), at(100));
        election.saw(Some(record("you", "3")), at(101));
        assert!(!election.leads(at(101)), "somebody else's name stands there");
    }
}
