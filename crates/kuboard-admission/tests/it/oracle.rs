//! The second opinion, on as many worlds as a test run has time for; `cargo xtask bench
//! verdict-oracle` asks about a million and more.

use crate::second_opinion::compare;

#[test]
fn a_second_opinion_agrees() {
    let agreed = compare(1500, 1).unwrap();
    // Every outcome must be well represented, or the agreement says little.
    for outcome in ["allow", "audit", "warn", "deny"] {
        assert!(agreed.get(outcome).is_some_and(|it| *it > 60), "{agreed:?}");
    }
}
