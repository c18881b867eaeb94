//! Transfers over shared links: how fast each one is, and when it will be done.

/// A transfer by its number; numbers are used again.
pub(super) type TransferId = u32;

#[derive(Debug, Clone)]
pub(super) struct Transfer<T> {
    pub(super) from: u32,
    pub(super) to: u32,
    /// What the owner notes about it.
    pub(super) note: T,
    pub(super) bytes: f64,
    left: f64,
    /// Bytes per microsecond.
    rate: f64,
    at_us: u64,
    /// Counts changes of the rate, so that older ends are known to be void.
    pub(super) version: u32,
    frozen: bool,
}

/// An end that is to be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) at_us: u64,
    pub(super) transfer: TransferId,
    pub(super) version: u32,
}

#[derive(Debug)]
struct Port {
    up: f64,
    down: f64,
    sends: Vec<TransferId>,
    receives: Vec<TransferId>,
    /// What each download may have at most.
    level: f64,
}

/// All links.
#[derive(Debug)]
pub(super) struct Links<T> {
    ports: Vec<Port>,
    transfers: Vec<Option<Transfer<T>>>,
    versions: Vec<u32>,
    free: Vec<TransferId>,
    /// Ends that changed since they were last taken.
    pub(super) ends: Vec<End>,
}

/// Changes below this share of a rate are not followed.
const RATE_STEP: f64 = 0.01;
/// The rate of what stands still; its end is far away.
const FROZEN: f64 = 1e-9;

impl<T: Clone> Links<T> {
    pub(super) fn new() -> Links<T> {
        let (ports, transfers, versions) = (Vec::new(), Vec::new(), Vec::new());
        Links { ports, transfers, versions, free: Vec::new(), ends: Vec::new() }
    }

    /// Adds a node with links of so many bytes per second.
    pub(super) fn add(&mut self, up: u64, down: u64) {
        let (up, down) = (up as f64 / 1e6, down as f64 / 1e6);
        let (sends, receives) = (Vec::new(), Vec::new());
        self.ports.push(Port { up, down, sends, receives, level: down });
    }

    pub(super) fn start(&mut self, now_us: u64, from: u32, to: u32, bytes: u64, note: T) {
        let id = self.free.pop().unwrap_or_else(|| {
            self.transfers.push(None);
            self.versions.push(0);
            self.transfers.len() as u32 - 1
        });
        let bytes = bytes as f64;
        let version = self.versions[id as usize];
        let transfer = Transfer {
            from,
            to,
            note,
            bytes,
            left: bytes,
            rate: 0.0,
            at_us: now_us,
            version,
            frozen: false,
        };
        self.transfers[id as usize] = Some(transfer);
        self.ports[from as usize].sends.push(id);
        self.ports[to as usize].receives.push(id);
        self.relevel(now_us, from, to);
    }

    /// Takes out a transfer that is at its end; `None` if the end is void.
    pub(super) fn end(&mut self, now_us: u64, end: End) -> Option<Transfer<T>> {
        let known = self.transfers.get(end.transfer as usize)?.as_ref()?;
        if known.version != end.version {
            return None;
        }
        self.remove(now_us, end.transfer)
    }

    /// Takes out a transfer wherever it is, and how many bytes it moved.
    pub(super) fn remove(&mut self, now_us: u64, id: TransferId) -> Option<Transfer<T>> {
        let transfer = self.transfers.get_mut(id as usize)?.take()?;
        self.versions[id as usize] = transfer.version.wrapping_add(1);
        self.free.push(id);
        self.ports[transfer.from as usize].sends.retain(|of| *of != id);
        self.ports[transfer.to as usize].receives.retain(|of| *of != id);
        self.relevel(now_us, transfer.from, transfer.to);
        Some(transfer)
    }

    /// Bytes that a transfer has moved by now.
    pub(super) fn moved(transfer: &Transfer<T>, now_us: u64) -> f64 {
        let passed = now_us.saturating_sub(transfer.at_us) as f64;
        (transfer.bytes - transfer.left + transfer.rate * passed).clamp(0.0, transfer.bytes)
    }

    pub(super) fn find(
        &self,
        from: u32,
        to: u32,
        is_it: impl Fn(&T) -> bool,
    ) -> Option<TransferId> {
        self.ports[to as usize].receives.iter().copied().find(|id| {
            self.transfers[*id as usize]
                .as_ref()
                .is_some_and(|transfer| transfer.from == from && is_it(&transfer.note))
        })
    }

    /// Transfers from and to a node.
    pub(super) fn of(&self, node: u32) -> Vec<TransferId> {
        let port = &self.ports[node as usize];
        port.sends.iter().chain(&port.receives).copied().collect()
    }

    pub(super) fn sends(&self, node: u32) -> usize {
        self.ports[node as usize].sends.len()
    }

    pub(super) fn get(&self, id: TransferId) -> Option<&Transfer<T>> {
        self.transfers[id as usize].as_ref()
    }

    /// Lets a transfer stand still, or go on.
    pub(super) fn freeze(&mut self, now_us: u64, id: TransferId, frozen: bool) {
        if let Some(transfer) = self.transfers[id as usize].as_mut() {
            transfer.frozen = frozen;
            let (from, to) = (transfer.from, transfer.to);
            self.relevel(now_us, from, to);
        }
    }

    /// Works out anew the rates that a start or end between two nodes may change.
    fn relevel(&mut self, now_us: u64, from: u32, to: u32) {
        let mut receivers = vec![to];
        for id in &self.ports[from as usize].sends {
            if let Some(transfer) = &self.transfers[*id as usize]
                && !receivers.contains(&transfer.to)
            {
                receivers.push(transfer.to);
            }
        }
        let mut senders = vec![from];
        for receiver in receivers {
            self.set_level(receiver);
            for id in &self.ports[receiver as usize].receives {
                if let Some(transfer) = &self.transfers[*id as usize]
                    && !senders.contains(&transfer.from)
                {
                    senders.push(transfer.from);
                }
            }
        }
        for sender in senders {
            self.share_uplink(now_us, sender);
        }
    }

    /// What each of a node's downloads may have, if its senders shared their uplinks evenly.
    fn set_level(&mut self, node: u32) {
        let port = &self.ports[node as usize];
        let mut wishes: Vec<f64> = port
            .receives
            .iter()
            .filter_map(|id| self.transfers[*id as usize].as_ref())
            .map(|of| {
                let sender = &self.ports[of.from as usize];
                if of.frozen { 0.0 } else { sender.up / sender.sends.len() as f64 }
            })
            .collect();
        let level = water_level(port.down, &mut wishes);
        self.ports[node as usize].level = level;
    }

    /// Gives a node's uplink to its uploads: evenly, but to none more than its receiver takes.
    fn share_uplink(&mut self, now_us: u64, node: u32) {
        let port = &self.ports[node as usize];
        let mut caps: Vec<f64> = port
            .sends
            .iter()
            .filter_map(|id| self.transfers[*id as usize].as_ref())
            .map(|of| if of.frozen { 0.0 } else { self.ports[of.to as usize].level })
            .collect();
        let level = water_level(port.up, &mut caps);
        for at in 0..self.ports[node as usize].sends.len() {
            let id = self.ports[node as usize].sends[at];
            let Some(transfer) = self.transfers[id as usize].as_mut() else { continue };
            let cap = self.ports[transfer.to as usize].level;
            let rate = if transfer.frozen { FROZEN } else { level.min(cap).max(FROZEN) };
            if (rate - transfer.rate).abs() <= transfer.rate * RATE_STEP {
                continue;
            }
            let passed = now_us.saturating_sub(transfer.at_us) as f64;
            transfer.left = (transfer.left - transfer.rate * passed).max(0.0);
            transfer.at_us = now_us;
            transfer.rate = rate;
            transfer.version = transfer.version.wrapping_add(1);
            let lasts = (transfer.left / rate).ceil().min(1e15) as u64;
            let version = transfer.version;
            self.ends.push(End { at_us: now_us + lasts, transfer: id, version });
        }
    }
}

/// The level up to which `wishes` are filled from `capacity`; infinite if there is enough for all.
fn water_level(capacity: f64, wishes: &mut [f64]) -> f64 {
    wishes.sort_by(f64::total_cmp);
    let mut left = capacity;
    for (at, wish) in wishes.iter().enumerate() {
        let share = left / (wishes.len() - at) as f64;
        if *wish > share {
            return share;
        }
        left -= wish;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::{Links, water_level};

    #[test]
    fn water_levels() {
        for (capacity, wishes, expected) in [
            (10.0, vec![], f64::INFINITY),
            (10.0, vec![4.0, 4.0], f64::INFINITY),
            (10.0, vec![8.0, 8.0], 5.0),
            (10.0, vec![1.0, 8.0, 8.0], 4.5),
            (10.0, vec![0.0, 20.0], 10.0),
        ] {
            assert_eq!(water_level(capacity, &mut wishes.clone()), expected, "{wishes:?}");
        }
    }

    #[test]
    fn two_uploads_share_and_then_do_not() {
        let mut links = Links::new();
        (0..3).for_each(|_| links.add(1_000_000, 1_000_000));
        links.start(0, 0, 1, 1_000_000, ());
        links.start(0, 0, 2, 500_000, ());
        let last = *links.ends.last().unwrap();
        assert_eq!(last.at_us, 1_000_000);
        let ended = links.end(1_000_000, last).unwrap();
        assert_eq!((ended.to, ended.bytes), (2, 500_000.0));
        let last = *links.ends.last().unwrap();
        assert_eq!(last.at_us, 1_500_000);
        assert!(links.end(last.at_us, last).is_some());
        assert!(links.end(last.at_us, last).is_none());
    }
}
