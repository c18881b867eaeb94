//! Elections under clocks that drift and jump, answers that are late or lost, and writes that
//! arrive long after their sender gave up: at no moment do two lead.

use std::time::Duration;

use proptest::prelude::*;

use super::election::{Election, Moment, Record, Step, Timing};

/// Random numbers by a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
}

/// A candidate and its clocks, which run `rate` per mille of true time.
struct Candidate {
    election: Election,
    rate: u64,
    wall_offset_ms: i64,
    /// It stands still until then.
    paused_until: u64,
    /// Counts what it asked; answers to what it gave up are not heard.
    asked: u64,
    /// It has seen a lease.
    knows: bool,
}

impl Candidate {
    fn now(&self, ms: u64) -> Moment {
        let own = ms * self.rate / 1_000;
        Moment {
            monotonic: Duration::from_millis(own),
            wall_ms: i64::try_from(own).unwrap() + self.wall_offset_ms,
        }
    }
}

enum Event {
    Look {
        who: usize,
    },
    Read {
        who: usize,
        number: u64,
    },
    Seen {
        who: usize,
        number: u64,
        record: Option<Record>,
    },
    Write {
        who: usize,
        number: u64,
        step: Step,
        sent: Moment,
    },
    Written {
        who: usize,
        number: u64,
        record: Option<Record>,
        sent: Moment,
    },
    Jump {
        who: usize,
    },
    Pause {
        who: usize,
    },
    /// The leader gives the lease back.
    Release {
        who: usize,
    },
    Released {
        who: usize,
        version: String,
    },
    /// Somebody who is no candidate removes the lease.
    Remove,
}

struct World {
    dice: Dice,
    now: u64,
    order: u64,
    events: std::collections::BTreeMap<(u64, u64), Event>,
    lease: Option<Record>,
    version: u64,
    candidates: Vec<Candidate>,
    terms: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let candidates = (0..2 + dice.below(4))
            .map(|number| Candidate {
                election: Election::new(&format!("candidate-{number}"), Timing::default()),
                rate: 900 + dice.below(201),
                wall_offset_ms: i64::try_from(dice.below(1_000_000)).unwrap() - 500_000,
                paused_until: 0,
                asked: 0,
                knows: false,
            })
            .collect();
        Self {
            dice,
            now: 0,
            order: 0,
            events: std::collections::BTreeMap::new(),
            lease: None,
            version: 0,
            candidates,
            terms: 0,
        }
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.order += 1;
        self.events.insert((self.now + ms, self.order), event);
    }

    /// A way over the network: mostly quick, at times very slow, sometimes endless.
    fn way(&mut self) -> Option<u64> {
        match self.dice.below(20) {
            0 => None,
            1 => Some(self.dice.below(40_000)),
            2 | 3 => Some(self.dice.below(3_000)),
            _ => Some(self.dice.below(20)),
        }
    }

    fn run(&mut self, until: u64) {
        for who in 0..self.candidates.len() {
            let start = self.dice.below(3_000);
            self.after(start, Event::Look { who });
            let jump = self.dice.below(60_000);
            self.after(jump, Event::Jump { who });
            let pause = self.dice.below(60_000);
            self.after(pause, Event::Pause { who });
            let release = self.dice.below(400_000);
            self.after(release, Event::Release { who });
        }
        let remove = self.dice.below(600_000);
        self.after(remove, Event::Remove);
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > until {
                break;
            }
            self.now = at;
            self.happen(event);
            let leaders: Vec<usize> = (0..self.candidates.len())
                .filter(|who| {
                    let candidate = &self.candidates[*who];
                    candidate.election.leads(candidate.now(self.now))
                })
                .collect();
            assert!(leaders.len() <= 1, "{leaders:?} lead at {} ms", self.now);
        }
    }

    /// A candidate that stands still does the next thing when it goes on.
    fn is_paused(&mut self, who: usize) -> Option<u64> {
        let until = self.candidates[who].paused_until;
        (until > self.now).then(|| until - self.now)
    }

    fn happen(&mut self, event: Event) {
        let who = match &event {
            Event::Look { who } | Event::Seen { who, .. } | Event::Written { who, .. } => {
                Some(*who)
            }
            _ => None,
        };
        if let Some(wait) = who.and_then(|who| self.is_paused(who)) {
            self.after(wait, event);
            return;
        }
        match event {
            Event::Look { who } => {
                self.candidates[who].asked += 1;
                let number = self.candidates[who].asked;
                if let Some(way) = self.way() {
                    self.after(way, Event::Read { who, number });
                }
                let pause = 1_500 + self.dice.below(4_000);
                self.after(pause, Event::Look { who });
            }
            Event::Read { who, number } => {
                let record = self.lease.clone();
                if let Some(way) = self.way() {
                    self.after(way, Event::Seen { who, number, record });
                }
            }
            Event::Seen { who, number, record } => self.seen(who, number, record),
            Event::Write { who, number, step, sent } => self.write(who, number, step, sent),
            Event::Written { who, number, record, sent } => {
                let candidate = &mut self.candidates[who];
                let now = candidate.now(self.now);
                if candidate.asked == number
                    && let Some(record) = record
                {
                    self.terms += usize::from(!candidate.election.leads(now));
                    candidate.election.wrote(record, sent, now);
                }
            }
            Event::Jump { who } => {
                let by = i64::try_from(self.dice.below(40_000)).unwrap() - 20_000;
                self.candidates[who].wall_offset_ms += by;
                let next = self.dice.below(60_000);
                self.after(next, Event::Jump { who });
            }
            Event::Pause { who } => {
                self.candidates[who].paused_until = self.now + self.dice.below(30_000);
                let next = 30_000 + self.dice.below(200_000);
                self.after(next, Event::Pause { who });
            }
            Event::Release { who } => self.release(who),
            Event::Released { who, version } => {
                let is_own = self.lease.as_ref().is_some_and(|lease| {
                    lease.version == version && lease.holder == format!("candidate-{who}")
                });
                if let (true, Some(lease)) = (is_own, &mut self.lease) {
                    self.version += 1;
                    lease.holder.clear();
                    lease.version = self.version.to_string();
                }
            }
            // Who has never seen the lease takes its absence for a new cluster.
            Event::Remove if self.candidates.iter().all(|it| it.knows) => self.lease = None,
            Event::Remove => {}
        }
    }

    fn release(&mut self, who: usize) {
        let candidate = &mut self.candidates[who];
        let now = candidate.now(self.now);
        if candidate.election.leads(now)
            && let Step::Renew { version, .. } = candidate.election.step(now)
        {
            candidate.election.resign();
            candidate.asked += 1;
            if let Some(way) = self.way() {
                self.after(way, Event::Released { who, version });
            }
        }
    }

    fn seen(&mut self, who: usize, number: u64, record: Option<Record>) {
        let candidate = &mut self.candidates[who];
        if candidate.asked != number {
            return;
        }
        let sent = candidate.now(self.now);
        candidate.knows |= record.is_some();
        candidate.election.saw(record, sent);
        let step = candidate.election.step(sent);
        if step != Step::Wait
            && let Some(way) = self.way()
        {
            self.after(way, Event::Write { who, number, step, sent });
        }
    }

    /// What the API server does: a write over a version that is gone is refused.
    fn write(&mut self, who: usize, number: u64, step: Step, sent: Moment) {
        let is_current =
            |version: &str| self.lease.as_ref().is_some_and(|lease| lease.version == version);
        let transitions = match &step {
            Step::Create if self.lease.is_none() => Some(0),
            Step::Take { version, transitions } | Step::Renew { version, transitions }
                if is_current(version) =>
            {
                Some(*transitions)
            }
            _ => None,
        };
        let written = transitions.map(|transitions| {
            self.version += 1;
            Record {
                holder: format!("candidate-{who}"),
                duration: Timing::default().duration,
                version: self.version.to_string(),
                transitions,
            }
        });
        if written.is_some() {
            self.lease.clone_from(&written);
        }
        if let Some(way) = self.way() {
            self.after(way, Event::Written { who, number, record: written, sent });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn never_do_two_lead(seed in any::<u64>()) {
        World::new(seed).run(300_000);
    }
}

#[test]
fn somebody_leads_most_of_the_time() {
    let mut terms = 0;
    for seed in 0..50 {
        let mut world = World::new(seed);
        world.run(300_000);
        terms += world.terms;
    }
    assert!(terms >= 50, "{terms} terms in 50 worlds: the simulation elects nobody");
}
