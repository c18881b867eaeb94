//! Refused credentials rest: registries ban who keeps trying ("too many failed login
//! attempts"). Each refusal in a row doubles the wait; a replaced secret is another credential
//! and is tried at once. Pure: time comes in as an argument.

use std::{collections::HashMap, time::Duration};

const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Credentials remembered; callers bring their own, so there may be many.
const MAX_ENTRIES: usize = 4096;

/// Which credential at which service.
type Key = (Box<str>, u64);

#[derive(Debug, Default)]
pub(super) struct Lockouts(HashMap<Key, Refusals>);

#[derive(Clone, Copy, Debug)]
struct Refusals {
    count: u32,
    /// Monotonic.
    until: Duration,
}

impl Lockouts {
    /// How long the credential still rests.
    pub(super) fn rests(&self, service: &str, credential: u64, now: Duration) -> Option<Duration> {
        let refusals = self.0.get(&(service.into(), credential))?;
        refusals.until.checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// The service said 401 to the credential. Returns for how long it rests.
    pub(super) fn refused(&mut self, service: &str, credential: u64, now: Duration) -> Duration {
        if self.0.len() >= MAX_ENTRIES {
            self.0.retain(|_, refusals| now < refusals.until);
        }
        if self.0.len() >= MAX_ENTRIES {
            self.0.clear();
        }
        let none = Refusals { count: 0, until: now };
        let refusals = self.0.entry((service.into(), credential)).or_insert(none);
        // Requests that were under way together count once.
        if refusals.count == 0 || refusals.until <= now {
            refusals.count = refusals.count.saturating_add(1);
            let doublings = (refusals.count - 1).min(16);
            refusals.until = now + FIRST.saturating_mul(1 << doublings).min(LONGEST);
        }
        refusals.until - now
    }

    pub(super) fn accepted(&mut self, service: &str, credential: u64) {
        if !self.0.is_empty() {
            self.0.remove(&(service.into(), credential));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_refusal_doubles_the_wait() {
        let mut lockouts = Lockouts::default();
        let mut now = SECOND;
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(lockouts.rests("reg", 7, now), None);
            let wait = lockouts.refused("reg", 7, now);
            assert_eq!(lockouts.rests("reg", 7, now), Some(wait));
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
    }

    #[test]
    fn others_and_accepted_ones_do_not_rest() {
        let mut lockouts = Lockouts::default();
        lockouts.refused("reg", 7, SECOND);
        assert_eq!(lockouts.refused("reg", 7, SECOND), 2 * SECOND, "one burst counts once");
        assert_eq!(lockouts.rests("reg", 8, SECOND), None);
        assert_eq!(lockouts.rests("other", 7, SECOND), None);
        lockouts.accepted("reg", 7);
        assert_eq!(lockouts.rests("reg", 7, SECOND), None);
        assert_eq!(lockouts.refused("reg", 7, SECOND), 2 * SECOND, "it begins anew");
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut lockouts = Lockouts::default();
        for credential in 0..3 * MAX_ENTRIES as u64 {
            lockouts.refused("reg", credential, SECOND);
        }
        assert!(lockouts.0.len() <= MAX_ENTRIES);
    }
}
