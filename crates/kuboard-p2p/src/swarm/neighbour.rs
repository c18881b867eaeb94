//! A connected peer: what it has, what was said between us, how it behaves.

use crate::{
    bits::Bits,
    swarm::{BlobId, Kind, Peer},
};

/// Blobs that one peer may share with us.
const MAX_SHARES: usize = 512;
/// Longest pause after failures.
const MAX_PAUSE_MS: u64 = 10_000;
/// Failures in a row after which the connection is given up.
pub(super) const MAX_STRIKES: u32 = 5;
/// Requests out of turn in one second that are borne.
const MAX_ASKS_PER_S: u32 = 200;

#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) kind: Kind,
    pub(super) near: bool,
    shares: Vec<Share>,
    /// Bytes per millisecond that it sends, as measured.
    pub(super) rate: Option<f64>,
    /// Bytes per second, as others measured.
    pub(super) told_rate: Option<u64>,
    /// It would like an offer.
    pub(super) wanting: bool,
    /// We said that we would like one.
    pub(super) wanted: bool,
    /// Nothing is asked of it, or offered to it, before that.
    pub(super) paused_until_ms: u64,
    /// Offers of ours that it let pass are followed by longer and longer pauses.
    pub(super) lapses: u32,
    pub(super) strikes: u32,
    asks: (u64, u32),
}

#[derive(Debug)]
pub(super) struct Share {
    pub(super) blob: BlobId,
    pub(super) have: Bits,
    pub(super) wanted: bool,
}

impl Neighbour {
    pub(super) fn new(peer: &Peer) -> Neighbour {
        Neighbour {
            kind: peer.kind,
            near: peer.near,
            shares: Vec::new(),
            rate: None,
            told_rate: peer.rate,
            wanting: false,
            wanted: false,
            paused_until_ms: 0,
            lapses: 0,
            strikes: 0,
            asks: (0, 0),
        }
    }

    pub(super) fn share(&self, blob: BlobId) -> Option<&Share> {
        self.shares.iter().find(|share| share.blob == blob)
    }

    pub(super) fn share_mut(&mut self, blob: BlobId) -> Option<&mut Share> {
        self.shares.iter_mut().find(|share| share.blob == blob)
    }

    pub(super) fn shares(&self) -> impl Iterator<Item = &Share> {
        self.shares.iter()
    }

    /// Sets what it has of a blob; what it was known to have before.
    pub(super) fn set_share(&mut self, share: Share) -> Option<Bits> {
        if let Some(known) = self.share_mut(share.blob) {
            return Some(std::mem::replace(known, share).have);
        }
        if self.shares.len() < MAX_SHARES {
            self.shares.push(share);
        }
        None
    }

    pub(super) fn forget(&mut self, blob: BlobId) {
        self.shares.retain(|share| share.blob != blob);
    }

    pub(super) fn is_usable(&self, now: u64) -> bool {
        now >= self.paused_until_ms
    }

    /// Notes a transfer of `bytes` that took `ms`.
    pub(super) fn measure(&mut self, bytes: u64, ms: u64) {
        let rate = bytes as f64 / ms.max(1) as f64;
        self.rate = Some(self.rate.map_or(rate, |old| old * 0.7 + rate * 0.3));
        self.strikes = 0;
    }

    /// Bytes per millisecond that one transfer from it may be hoped to have.
    pub(super) fn hoped_rate(&self) -> Option<f64> {
        self.rate.or(self.told_rate.map(|rate| rate as f64 / 1000.0))
    }

    /// Notes a failure: it is left alone for a while, longer each time.
    pub(super) fn strike(&mut self, now: u64) {
        self.strikes += 1;
        let pause = (200_u64 << self.strikes.min(6)).min(MAX_PAUSE_MS);
        self.paused_until_ms = self.paused_until_ms.max(now + pause);
    }

    /// Notes an offer of ours that it did not answer.
    pub(super) fn lapse(&mut self, now: u64) {
        self.lapses += 1;
        let pause = (200_u64 << self.lapses.min(6)).min(MAX_PAUSE_MS);
        self.paused_until_ms = self.paused_until_ms.max(now + pause);
    }

    /// Counts a request out of turn; whether there are too many of them.
    pub(super) fn floods(&mut self, now: u64) -> bool {
        let second = now / 1000;
        if self.asks.0 != second {
            self.asks = (second, 0);
        }
        self.asks.1 += 1;
        self.asks.1 > MAX_ASKS_PER_S
    }
}
