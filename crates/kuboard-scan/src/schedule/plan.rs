//! What is due, decided from values alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use kuboard_catalog::{ImageName, NamedImage};
use kuboard_oci::Digest;

use super::{PolicySpec, Run, WINDOW_MS};

/// A policy whose mark has to move.
#[derive(Clone, Debug)]
pub struct Planned<'a> {
    /// Which.
    pub policy: &'a PolicySpec,
    /// The time that is done with afterwards.
    pub due_ms: i64,
    /// Over which time its scans are spread; `None`: nothing is scanned, it counts from now on.
    pub window_ms: Option<i64>,
}

/// Policies that are due, from their last runs by name. Of several times that were missed, the
/// last is made up. A policy that is new, or whose schedule is, waits for its next time.
#[must_use]
pub fn due<'a>(
    policies: &'a [PolicySpec],
    marks: &HashMap<String, Run>,
    now_ms: i64,
) -> Vec<Planned<'a>> {
    let mut planned = Vec::new();
    for policy in policies {
        let mark = marks.get(&policy.name).filter(|run| run.schedule == policy.schedule);
        let Some(mark) = mark else {
            planned.push(Planned { policy, due_ms: now_ms, window_ms: None });
            continue;
        };
        let last_ms = policy.times.last_before(now_ms.saturating_add(1));
        let Some(due_ms) = last_ms.filter(|last_ms| *last_ms > mark.due_ms) else {
            // A clock that was ahead and is right again must not silence a schedule for long.
            if mark.due_ms > now_ms.saturating_add(WINDOW_MS) {
                planned.push(Planned { policy, due_ms: now_ms, window_ms: None });
            }
            continue;
        };
        let next_ms = policy.times.next_after(now_ms).unwrap_or(i64::MAX);
        let window_ms = (next_ms.saturating_sub(due_ms) / 2).clamp(0, WINDOW_MS);
        planned.push(Planned { policy, due_ms, window_ms: Some(window_ms) });
    }
    planned
}

/// The images that a policy is about, from all that were seen by name and time: of each tag what
/// it means now, and all that are known by digest; each image once.
#[must_use]
pub fn images_of<'a>(policy: &PolicySpec, seen: &'a [NamedImage]) -> Vec<&'a NamedImage> {
    let mut latest: BTreeMap<(&ImageName, Option<Digest>), &NamedImage> = BTreeMap::new();
    for image in seen {
        let by_digest = image.name.tag.is_empty().then_some(image.image);
        let known = latest.entry((&image.name, by_digest)).or_insert(image);
        if image.seen_ms >= known.seen_ms {
            *known = image;
        }
    }
    let mut told = HashSet::new();
    // Names with a tag first: reports are kept under them.
    let (tagged, others): (Vec<_>, Vec<_>) =
        latest.into_values().partition(|image| !image.name.tag.is_empty());
    tagged
        .into_iter()
        .chain(others)
        .filter(|image| (policy.covers)(&image.name))
        .filter(|image| told.insert(image.image))
        .collect()
}

/// When in the window an image's turn is: the same for the same image, and evenly spread.
#[must_use]
pub fn spread(image: &Digest, window_ms: i64) -> i64 {
    let hex = image.hex();
    let head = hex.get(..8).and_then(|head| u32::from_str_radix(head, 16).ok()).unwrap_or(0);
    (i64::from(head) * window_ms.clamp(0, WINDOW_MS)) >> 32
}
