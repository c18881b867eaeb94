//! Bounds on failed logins, per remote address and per user at that address.
//!
//! Behind a reverse proxy all callers share one address. There the bound per user keeps one broken
//! client from spending what the others may; the bound per address stops whoever tries many users.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;

/// Failures in a row that are allowed, and the time after which one more is.
#[derive(Copy, Clone)]
struct Allowance {
    burst: i64,
    refill_ms: i64,
}

const PER_USER: Allowance = Allowance { burst: 10, refill_ms: 6_000 };
const PER_ADDRESS: Allowance = Allowance { burst: 100, refill_ms: 600 };

/// Rows kept at most; a row is 40 bytes or so.
const MAX_ROWS: usize = 8192;

/// Counts failed logins.
pub(crate) struct Throttle {
    hasher: RandomState,
    /// When each counter will be back at zero, in milliseconds since 1970: each failure moves it
    /// by one refill time. Counters at zero need no row.
    clear_at_ms: Mutex<Table>,
}

type Table = HashMap<(IpAddr, u64), i64>;

impl Default for Throttle {
    fn default() -> Self {
        Self { hasher: RandomState::new(), clear_at_ms: Mutex::new(HashMap::new()) }
    }
}

impl Throttle {
    /// Charges an attempt, which is given back if it succeeds. Returns true if it is the last
    /// that is allowed for now.
    ///
    /// # Errors
    /// No attempt is left; how long to wait for one.
    pub(crate) fn attempt(
        &self,
        address: Option<IpAddr>,
        user: &str,
        now_ms: i64,
    ) -> Result<bool, Duration> {
        let mut table = self.clear_at_ms.lock();
        make_room(&mut table, now_ms);
        let rows = self.rows(address, user);
        let debt = |table: &Table, row: &(IpAddr, u64), allowance: Allowance| {
            let clear_at = table.get(row).copied().unwrap_or(now_ms);
            // A clock that was set back must not lock anybody out for longer than a full counter.
            (clear_at - now_ms).clamp(0, allowance.burst * allowance.refill_ms)
        };
        for (row, allowance) in &rows {
            let wait = debt(&table, row, *allowance) - (allowance.burst - 1) * allowance.refill_ms;
            if let Ok(wait @ 1..) = u64::try_from(wait) {
                return Err(Duration::from_millis(wait));
            }
        }
        let mut last = false;
        for (row, allowance) in rows {
            let owed = debt(&table, &row, allowance) + allowance.refill_ms;
            last |= owed > (allowance.burst - 1) * allowance.refill_ms;
            table.insert(row, now_ms + owed);
        }
        Ok(last)
    }

    /// Gives back what [`Throttle::attempt`] charged.
    pub(crate) fn refund(&self, address: Option<IpAddr>, user: &str) {
        let mut table = self.clear_at_ms.lock();
        for (row, allowance) in self.rows(address, user) {
            if let Some(clear_at) = table.get_mut(&row) {
                *clear_at -= allowance.refill_ms;
            }
        }
    }

    fn rows(&self, address: Option<IpAddr>, user: &str) -> [((IpAddr, u64), Allowance); 2] {
        let address = network(address);
        // Of users only a hash is kept; the 0 of the address itself may collide with one, harmlessly.
        [((address, self.hasher.hash_one(user)), PER_USER), ((address, 0), PER_ADDRESS)]
    }
}

/// Drops counters that are back at zero; if there are more remotes than the table can tell apart,
/// those nearest to zero.
fn make_room(table: &mut Table, now_ms: i64) {
    if table.len() + 2 > MAX_ROWS {
        table.retain(|_, clear_at| *clear_at > now_ms);
    }
    if table.len() + 2 > MAX_ROWS {
        let mut ends: Vec<i64> = table.values().copied().collect();
        let (_, middle, _) = ends.select_nth_unstable(MAX_ROWS / 2);
        let middle = *middle;
        table.retain(|_, clear_at| *clear_at > middle);
    }
}

/// What counts as one remote: an IPv4 address, or the /64 that IPv6 gives to one site. Callers on
/// a unix socket are one remote.
fn network(address: Option<IpAddr>) -> IpAddr {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(address)) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        Some(address) => address,
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn failures_of_a_user_lock_that_user_for_a_while() {
        let throttle = Throttle::default();
        let here = address("192.0.2.1");
        for n in 1..=10 {
            assert_eq!(throttle.attempt(here, "ann", 0), Ok(n == 10));
        }
        assert_eq!(throttle.attempt(here, "ann", 0), Err(Duration::from_secs(6)));
        assert!(throttle.attempt(here, "bob", 0).is_ok(), "another user behind the same proxy");
        assert!(throttle.attempt(address("192.0.2.2"), "ann", 0).is_ok(), "another address");
        assert!(throttle.attempt(here, "ann", 5_999).is_err());
        assert_eq!(throttle.attempt(here, "ann", 6_000), Ok(true), "one attempt a refill");
        assert!(throttle.attempt(here, "ann", 6_000).is_err());
    }

    #[test]
    fn successes_cost_nothing() {
        let throttle = Throttle::default();
        for _ in 0..1000 {
            assert!(throttle.attempt(None, "ann", 0).is_ok());
            throttle.refund(None, "ann");
        }
    }

    #[test]
    fn many_users_lock_the_address() {
        let throttle = Throttle::default();
        let here = address("192.0.2.1");
        for n in 0..100 {
            assert!(throttle.attempt(here, &n.to_string(), 0).is_ok());
        }
        assert!(throttle.attempt(here, "fresh", 0).is_err());
        assert!(throttle.attempt(address("192.0.2.2"), "fresh", 0).is_ok());
        assert!(throttle.attempt(here, "fresh", 600).is_ok());
    }

    #[test]
    fn an_ipv6_site_is_one_remote() {
        let check = |one: &str, other: &str, same: bool| {
            let throttle = Throttle::default();
            for _ in 0..10 {
                assert!(throttle.attempt(address(one), "ann", 0).is_ok());
            }
            let locked = throttle.attempt(address(other), "ann", 0).is_err();
            assert_eq!(locked, same, "{one} {other}");
        };
        check("2001:db8::1", "2001:db8::ffff:1", true);
        check("2001:db8::1", "2001:db8:0:1::1", false);
        check("::ffff:192.0.2.1", "192.0.2.1", true);
    }

    #[test]
    fn a_clock_set_back_locks_nobody_for_long() {
        let throttle = Throttle::default();
        for _ in 0..10 {
            assert!(throttle.attempt(None, "ann", 10_000_000).is_ok());
        }
        let wait = throttle.attempt(None, "ann", 0).unwrap_err();
        assert!(wait <= Duration::from_secs(60), "{wait:?}");
    }

    #[test]
    fn the_table_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..40_000_u32 {
            let _ = throttle.attempt(Some(IpAddr::from(n.to_be_bytes())), "ann", i64::from(n));
            assert!(throttle.clear_at_ms.lock().len() <= MAX_ROWS);
        }
    }
}
