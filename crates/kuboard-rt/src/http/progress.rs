//! What one connection is doing, and whether its client still takes part.
//!
//! A slow client is one that leaves us waiting: bytes that its socket does not take, or (on
//! HTTP/2) a response that its flow control does not let out. Timers per write would cost
//! more than the write; instead the connection notes cheaply what it waits for, and a
//! [`Watch`] that looks a few times per timeout decides.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Fewer bytes than this within a whole idle timeout are no progress. Acknowledgements of
/// pings are bytes too, and must not keep a stalled HTTP/2 connection alive.
const LEAST_PROGRESS: u64 = 16 << 10;

/// Counters of one connection. They guide timeouts only, hence relaxed ordering throughout.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    written: AtomicU64,
    write_blocked: AtomicBool,
    requests: AtomicU64,
    answering: AtomicUsize,
    stalled_bodies: AtomicUsize,
    body_left_unread: AtomicBool,
}

impl Progress {
    pub(crate) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        self.write_blocked.store(false, Ordering::Relaxed);
    }

    pub(crate) fn write_blocks(&self) {
        self.write_blocked.store(true, Ordering::Relaxed);
    }

    pub(crate) fn request_begins(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.answering.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request_ends(&self) {
        self.answering.fetch_sub(1, Ordering::Relaxed);
    }

    /// A piece of a body was handed over; the next one is up to the client.
    pub(crate) fn body_waits(&self) {
        self.stalled_bodies.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn body_moves(&self) {
        self.stalled_bodies.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request's body was given up before its end.
    pub(crate) fn leaves_body_unread(&self) {
        self.body_left_unread.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_unread_body(&self) -> bool {
        self.body_left_unread.load(Ordering::Relaxed)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            written: self.written.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            answering: self.answering.load(Ordering::Relaxed) > 0,
            waits_for_client: self.write_blocked.load(Ordering::Relaxed)
                || self.stalled_bodies.load(Ordering::Relaxed) > 0,
        }
    }
}

/// The state of a connection at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    /// Bytes since the start.
    pub(crate) written: u64,
    /// Requests since the start.
    pub(crate) requests: u64,
    /// Whether a request is being answered.
    pub(crate) answering: bool,
    /// Whether bytes wait for the client to take them.
    pub(crate) waits_for_client: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Keep,
    /// Nothing happens: say goodbye.
    Finish,
    /// The client does not take what it asked for: cut.
    Cut,
}

/// Turns snapshots into verdicts.
#[derive(Debug)]
pub(crate) struct Watch {
    idle_timeout: Duration,
    /// When, and at which count of bytes, the last progress of a waiting write was seen.
    moved: (Duration, u64),
    /// When, and at which count of requests, the connection was last busy.
    busy: (Duration, u64),
}

impl Watch {
    pub(crate) fn new(idle_timeout: Duration, now: Duration) -> Self {
        Self { idle_timeout, moved: (now, 0), busy: (now, 0) }
    }

    /// `now` counts from any fixed moment.
    pub(crate) fn look(&mut self, now: Duration, seen: Snapshot) -> Verdict {
        let moved = seen.written - self.moved.1 >= LEAST_PROGRESS;
        if !seen.waits_for_client || moved {
            self.moved = (now, seen.written);
        }
        if seen.answering || seen.requests != self.busy.1 || moved {
            self.busy = (now, seen.requests);
        }
        if now.saturating_sub(self.moved.0) >= self.idle_timeout {
            Verdict::Cut
        } else if now.saturating_sub(self.busy.0) >= self.idle_timeout {
            Verdict::Finish
        } else {
            Verdict::Keep
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: u64 = 60;

    /// Each look is (second, KiB written, requests, answering, waits) and its verdict.
    fn check(looks: &[(u64, u64, u64, bool, bool, Verdict)]) {
        let mut watch = Watch::new(Duration::from_secs(IDLE), Duration::ZERO);
        for &(second, kib, requests, answering, waits_for_client, verdict) in looks {
            let seen = Snapshot { written: kib << 10, requests, answering, waits_for_client };
            assert_eq!(watch.look(Duration::from_secs(second), seen), verdict, "second {second}");
        }
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut() {
        use Verdict::{Cut, Keep};
        check(&[
            (0, 0, 1, true, false, Keep),
            (15, 300, 1, true, true, Keep),
            (60, 301, 1, true, true, Keep),
            (75, 302, 1, true, true, Cut),
        ]);
    }

    #[test]
    fn a_slow_client_that_takes_something_is_kept() {
        use Verdict::Keep;
        check(&[
            (50, 16, 1, true, true, Keep),
            (100, 32, 1, true, true, Keep),
            (150, 48, 1, true, true, Keep),
        ]);
    }

    #[test]
    fn waiting_for_our_own_handler_is_not_the_clients_fault() {
        use Verdict::Keep;
        check(&[(60, 0, 1, true, false, Keep), (600, 0, 1, true, false, Keep)]);
    }

    #[test]
    fn an_idle_connection_is_finished_and_a_busy_one_is_not() {
        use Verdict::{Finish, Keep};
        check(&[
            (15, 20, 1, false, false, Keep),
            (70, 20, 2, false, false, Keep),
            (129, 20, 2, false, false, Keep),
            (130, 20, 2, false, false, Finish),
        ]);
    }
}
