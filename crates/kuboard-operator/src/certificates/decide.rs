//! What to do about the certificates of the webhook, decided from the time and what is there.
//!
//! Two authorities are always trusted, the one that signs and the one that will sign next. So a
//! change of authority needs no moment at which everybody learns of it: the API server has trusted
//! the next one for months when it begins to sign, and trusts the last one until replicas have
//! taken over.

/// How long an authority lives.
pub const AUTHORITY_LIFE_MS: i64 = 5 * 365 * DAY_MS;
/// How long a leaf lives, unless its authority ends sooner.
pub const LEAF_LIFE_MS: i64 = 180 * DAY_MS;
/// A day.
pub const DAY_MS: i64 = 86_400_000;

/// The life of a certificate, milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The first.
    pub from_ms: i64,
    /// The last.
    pub until_ms: i64,
}

impl Life {
    fn holds(self, now_ms: i64) -> bool {
        self.from_ms <= now_ms && now_ms < self.until_ms
    }

    /// Whether it holds, and for longer than `least`.
    fn is_fresh(self, now_ms: i64, least: i64) -> bool {
        self.holds(now_ms) && self.until_ms.saturating_sub(now_ms) > least
    }
}

/// An authority with less of its life before it makes way for the next one.
const SIGNS_MS: i64 = AUTHORITY_LIFE_MS / 3;
/// A next one with less is replaced: earlier, so that whoever signs was trusted for months before.
const NEXT_MS: i64 = AUTHORITY_LIFE_MS / 2;

/// What is there; `None` is something that is missing or can't be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The authority that signs, with its key.
    pub authority: Option<Life>,
    /// The authority that will sign next, with its key.
    pub next: Option<Life>,
    /// The leaf, if it has its key and the authority that signs did sign it.
    pub leaf: Option<Life>,
    /// The leaf has all names that are asked for.
    pub has_names: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Keep,
    /// A new leaf of the authority that signs.
    NewLeaf,
    /// A new authority in the place of the next one, which nothing depends on yet.
    NewNext,
    /// The next authority signs from now on: a new leaf of it, and a new next one. The one that
    /// signed stays trusted.
    Promote,
    /// Two new authorities and a leaf: nothing of what is there can be used.
    StartAgain,
}

/// What to do now. The same again after it was done is always [`Plan::Keep`].
#[must_use]
pub fn what_to_do(now_ms: i64, held: &Held) -> Plan {
    let lasts = |life: Option<Life>, least| life.is_some_and(|it| it.is_fresh(now_ms, least));
    let signs = lasts(held.authority, 0);
    let signs_long = lasts(held.authority, SIGNS_MS);
    let next = lasts(held.next, 0);
    let next_long = lasts(held.next, SIGNS_MS);
    if !signs_long && next_long {
        return Plan::Promote;
    }
    if !signs && !next {
        return Plan::StartAgain;
    }
    if !signs {
        return Plan::Promote;
    }
    // Not beside a promotion: at each step there is one authority that was trusted before.
    if !lasts(held.next, NEXT_MS) {
        return Plan::NewNext;
    }
    if held.has_names && lasts(held.leaf, LEAF_LIFE_MS / 3) { Plan::Keep } else { Plan::NewLeaf }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{AUTHORITY_LIFE_MS, DAY_MS, Held, LEAF_LIFE_MS, Life, Plan, what_to_do};

    const NOW: i64 = 20_000 * DAY_MS;

    /// A life that began long ago and ends so many days from now.
    fn days(left: i64) -> Option<Life> {
        Some(Life { from_ms: 0, until_ms: NOW + left * DAY_MS })
    }

    #[test]
    fn plans() {
        let check = |authority, next, leaf, want: Plan| {
            let held = Held { authority, next, leaf, has_names: true };
            assert_eq!(what_to_do(NOW, &held), want, "{held:?}");
        };
        let long = days(1_800);
        check(None, None, None, Plan::StartAgain);
        check(long, long, days(180), Plan::Keep);
        check(long, long, days(61), Plan::Keep);
        check(long, long, days(60), Plan::NewLeaf);
        check(long, long, days(-220), Plan::NewLeaf);
        check(long, long, None, Plan::NewLeaf);
        check(long, None, days(180), Plan::NewNext);
        check(long, days(913), days(180), Plan::Keep);
        check(long, days(912), days(180), Plan::NewNext);
        check(days(608), days(700), days(180), Plan::Promote);
        check(days(609), long, days(180), Plan::Keep);
        check(days(608), long, days(180), Plan::Promote);
        check(days(-1), long, days(-1), Plan::Promote);
        check(None, long, None, Plan::Promote);
        check(days(-1), days(-1), days(-1), Plan::StartAgain);
        // Both are short: what still holds is used while a next one becomes known.
        check(days(5), days(5), days(3), Plan::NewNext);
        check(days(-1), days(5), days(-1), Plan::Promote);
        // A leaf of the future: the clock was ahead when it was made.
        let future = Some(Life { from_ms: NOW + 1, until_ms: NOW + LEAF_LIFE_MS });
        check(long, long, future, Plan::NewLeaf);
        let held = Held { authority: long, next: long, leaf: days(180), has_names: false };
        assert_eq!(what_to_do(NOW, &held), Plan::NewLeaf, "other names are wanted");
    }

    /// What is there after a plan was carried out.
    fn after(plan: Plan, now_ms: i64, held: &Held) -> Held {
        let authority = Some(Life { from_ms: 0, until_ms: now_ms + AUTHORITY_LIFE_MS });
        let leaf = |signed_by: Option<Life>| {
            let ends = signed_by.map_or(0, |it| it.until_ms);
            let until_ms = ends.min(now_ms + LEAF_LIFE_MS);
            Some(Life { from_ms: now_ms - DAY_MS, until_ms })
        };
        let mut held = held.clone();
        match plan {
            Plan::Keep => {}
            Plan::NewLeaf => held.leaf = leaf(held.authority),
            Plan::NewNext => held.next = authority,
            Plan::Promote => {
                held.authority = held.next;
                held.leaf = leaf(held.authority);
                held.next = authority;
            }
            Plan::StartAgain => {
                held = Held { authority, next: authority, leaf: leaf(authority), has_names: true };
            }
        }
        held.has_names |= matches!(plan, Plan::NewLeaf | Plan::Promote);
        held
    }

    fn life() -> impl Strategy<Value = Option<Life>> {
        let days = -3_000..3_000_i64;
        prop::option::of((days.clone(), days).prop_map(|(from, until)| Life {
            from_ms: NOW + from * DAY_MS,
            until_ms: NOW + until * DAY_MS,
        }))
    }

    #[test]
    fn whoever_signs_was_trusted_for_months() {
        let mut held = after(Plan::StartAgain, NOW, &Held::default());
        let (mut next_since, mut promotions) = (NOW, 0);
        for day in 0..30 * 365 {
            let now_ms = NOW + day * DAY_MS;
            loop {
                let plan = what_to_do(now_ms, &held);
                if plan == Plan::Keep {
                    break;
                }
                assert_ne!(plan, Plan::StartAgain);
                if plan == Plan::Promote {
                    promotions += 1;
                    assert!(now_ms - next_since > 180 * DAY_MS, "day {day}");
                }
                if matches!(plan, Plan::Promote | Plan::NewNext) {
                    next_since = now_ms;
                }
                held = after(plan, now_ms, &held);
            }
        }
        assert!(promotions > 5, "{promotions}");
    }

    proptest! {
        /// Whatever is there and however the clock jumps, a few steps lead to rest, with a leaf
        /// that holds; and an authority that signs was trusted before, if any was.
        #[test]
        fn plans_come_to_rest(
            authority in life(), next in life(), leaf in life(), has_names: bool,
            jumps in prop::collection::vec(-2_000..2_000_i64, 0..6),
        ) {
            let mut held = Held { authority, next, leaf, has_names };
            let mut now_ms = NOW;
            for jump in [0].into_iter().chain(jumps) {
                now_ms += jump * DAY_MS;
                for step in 0.. {
                    let plan = what_to_do(now_ms, &held);
                    if plan == Plan::Keep {
                        break;
                    }
                    prop_assert!(step < 4, "{plan:?} of {held:?}");
                    let done = after(plan, now_ms, &held);
                    if plan != Plan::StartAgain && done.authority != held.authority {
                        prop_assert_eq!(done.authority, held.next);
                    }
                    held = done;
                }
                prop_assert!(held.leaf.is_some_and(|it| it.holds(now_ms)));
            }
        }
    }
}
