use std::net::{Ipv4Addr, SocketAddr};

use kuboard_oci::Digest;
use proptest::prelude::*;

use super::{Announcement, NodeId, Place, Tracker, TrackerLimits};

fn announcement(node: u64, zone: u32, have: u32) -> Announcement {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node as u16));
    Announcement { node: NodeId(node), address, zone: Place(zone), have, blocks: 10, leaves: false }
}

fn digest() -> Digest {
    Digest::sha256(b"layer")
}

fn filled(nodes: u64, zones: u64) -> Tracker {
    let mut tracker = Tracker::new(TrackerLimits::default(), 1, 1);
    for node in 0..nodes {
        tracker.announce(0, &digest(), &announcement(node, (node % zones) as u32, 0));
    }
    tracker
}

#[test]
fn most_peers_are_of_the_own_zone() {
    let check = |nodes: u64, zones: u64, total: usize, near: usize| {
        let mut tracker = filled(nodes, zones);
        let answer = tracker.announce(1, &digest(), &announcement(0, 0, 3));
        let own = answer.peers.iter().filter(|peer| peer.near).count();
        assert_eq!((answer.peers.len(), own), (total, near), "{nodes} {zones}");
        assert!(answer.peers.iter().all(|peer| peer.node != NodeId(0)));
        assert!(answer.peers.iter().all(|peer| peer.near == peer.node.0.is_multiple_of(zones)));
    };
    check(1, 1, 0, 0);
    check(5, 1, 4, 4);
    check(300, 3, 16, 12);
    check(300, 1, 12, 12);
    check(9, 3, 8, 2);
}

#[test]
fn slow_ones_come_last_and_complete_ones_do_not_crowd_out() {
    let mut tracker = filled(200, 1);
    tracker.measured(&digest(), (0..100).map(|node| (NodeId(node), 1_000)));
    tracker.measured(&digest(), (100..200).map(|node| (NodeId(node), 1_000_000)));
    let (mut slow, mut all) = (0, 0);
    for asker in 0..200 {
        let answer = tracker.announce(1, &digest(), &announcement(asker, 0, 0));
        slow += answer.peers.iter().filter(|peer| peer.node.0 < 100).count();
        all += answer.peers.len();
    }
    assert!(slow * 4 < all, "{slow} of {all}");

    for node in 0..150 {
        tracker.announce(2, &digest(), &announcement(node, 0, 10));
    }
    assert_eq!(tracker.members(&digest()), (200, 150));
    let answer = tracker.announce(3, &digest(), &announcement(199, 0, 0));
    let partial = answer.peers.iter().filter(|peer| peer.node.0 >= 150).count();
    assert!(partial >= 2, "{partial} of {}", answer.peers.len());
}

#[test]
fn the_silent_and_the_leaving_are_forgotten() {
    let mut tracker = filled(10, 2);
    tracker.announce(0, &digest(), &Announcement { leaves: true, ..announcement(3, 1, 0) });
    assert_eq!(tracker.members(&digest()).0, 9);
    tracker.expel(NodeId(4));
    assert_eq!(tracker.members(&digest()).0, 8);
    let late = TrackerLimits::default().silence_ms + 1;
    tracker.announce(late, &digest(), &announcement(1, 1, 0));
    assert_eq!(tracker.members(&digest()).0, 1);
    tracker.sweep(late * 3);
    assert_eq!(tracker.size(), (0, 0));
}

#[test]
fn one_in_fifty_may_go_to_the_upstream() {
    for (nodes, most) in [(1, 1), (50, 1), (51, 2), (200, 4)] {
        let mut tracker = filled(nodes, 3);
        let granted = (0..nodes)
            .filter(|node| tracker.ask_source(0, &digest(), NodeId(*node)).is_some())
            .count();
        assert_eq!(granted, most, "{nodes}");
        // Who has it keeps it; a stranger does not get it; later others may.
        assert!(tracker.ask_source(1, &digest(), NodeId(0)).is_some());
        assert!(tracker.ask_source(1, &digest(), NodeId(9999)).is_none());
        let later = TrackerLimits::default().source_ms * 3;
        assert!(tracker.ask_source(later, &digest(), NodeId(nodes - 1)).is_some());
    }
}

proptest! {
    #[test]
    fn stays_within_its_bounds(steps in proptest::collection::vec((0_u64..40, 0_u32..3, 0_u8..12, 0_u64..5_000, any::<bool>()), 1..300)) {
        let limits = TrackerLimits { blobs: 5, members: 10, ..TrackerLimits::default() };
        let (mut tracker, mut now) = (Tracker::new(limits, 9, 1), 0);
        for (node, zone, blob, step, leaves) in steps {
            now += step;
            let digest = Digest::sha256(&[blob]);
            let from = Announcement { leaves, ..announcement(node, zone, u32::from(blob)) };
            let answer = tracker.announce(now, &digest, &from);
            prop_assert_eq!(answer.epoch, 9);
            prop_assert!(answer.peers.len() <= limits.peers.1);
            let mut ids: Vec<_> = answer.peers.iter().map(|peer| peer.node).collect();
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), answer.peers.len());
            prop_assert!(!ids.contains(&NodeId(node)));
            let (blobs, members) = tracker.size();
            prop_assert!(blobs <= 5 && members <= 50);
            for swarm in tracker.swarms.values() {
                let listed: usize = swarm.zones.values().map(Vec::len).sum();
                prop_assert_eq!(listed, swarm.members.len());
            }
        }
    }
}
