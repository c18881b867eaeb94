//! What runs, from the pods there are. Pure: events come in, snapshots go out.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use kuboard_api::desired::Running;
use kuboard_oci::Digest;

use super::pod::{Pod, PodObject, Texts};

/// A digest counts as running for so long after its last pod went: a pod that is replaced is gone
/// before the new one is asked for, and a node that is drained takes all of them at once.
pub(crate) const LINGER_MS: i64 = 3_600_000;
/// Digests that are remembered beyond their pods.
const MAX_LINGERING: usize = 50_000;

/// Pods and what follows from them.
#[derive(Default)]
pub(crate) struct Pods {
    /// By (namespace, name).
    pods: HashMap<(Arc<str>, Box<str>), Pod>,
    /// The same while a list is read; what is not in it is gone.
    listed: Option<HashSet<(Arc<str>, Box<str>)>>,
    texts: Texts,
    /// When a digest was last seen in a namespace.
    seen: HashMap<(Arc<str>, Digest), i64>,
    synced: bool,
}

/// An image that runs in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunningImage {
    /// The namespace.
    pub namespace: Arc<str>,
    /// As pods name it.
    pub image: Arc<str>,
    /// What the registry served under the name, if a node knows.
    pub digest: Option<Digest>,
}

/// Who runs an image: one of them, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runners {
    /// Number of pods.
    pub pods: usize,
    /// A pod, by name.
    pub pod: String,
    /// Its controller, as `ReplicaSet/web`; empty if it has none.
    pub owner: String,
    /// Its service account; empty for `default`.
    pub service_account: String,
    /// Names of its own imagePullSecrets.
    pub pull_secrets: Vec<String>,
}

/// Everything that runs, each image once a namespace.
pub type Fleet = BTreeMap<RunningImage, Runners>;

impl Pods {
    pub(crate) fn begin_list(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// True if something changed.
    pub(crate) fn end_list(&mut self, now_ms: i64) -> bool {
        let Some(listed) = self.listed.take() else { return false };
        let gone: Vec<_> = self.pods.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in &gone {
            self.leave(key, now_ms);
        }
        let was_synced = std::mem::replace(&mut self.synced, true);
        self.texts.sweep();
        !was_synced || !gone.is_empty()
    }

    /// Takes a pod as it is now. True if something changed that matters.
    pub(crate) fn put(&mut self, object: &PodObject, now_ms: i64) -> bool {
        let pod = Pod::of(object, &mut self.texts);
        let key = (pod.namespace.clone(), pod.name.clone());
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
        let changed = self.pods.get(&key) != Some(&pod);
        if changed {
            self.leave(&key, now_ms);
            self.pods.insert(key, pod);
        }
        changed
    }

    /// Forgets a pod. True if it was known.
    pub(crate) fn take(&mut self, object: &PodObject, now_ms: i64) -> bool {
        let pod = Pod::of(object, &mut self.texts);
        self.leave(&(pod.namespace, pod.name), now_ms)
    }

    /// What it ran is remembered.
    fn leave(&mut self, key: &(Arc<str>, Box<str>), now_ms: i64) -> bool {
        let Some(pod) = self.pods.remove(key) else { return false };
        if !pod.is_over {
            for digest in pod.images.iter().filter_map(|it| it.started) {
                self.seen.insert((pod.namespace.clone(), digest), now_ms);
            }
        }
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.pods.len()
    }

    /// What runs now, for verdicts.
    pub(crate) fn running(&mut self, now_ms: i64) -> Running {
        self.texts.sweep();
        let mut pins: HashMap<(String, String), (i64, Digest)> = HashMap::new();
        for pod in self.pods.values() {
            for used in &pod.images {
                let Some(digest) = used.started else { continue };
                if !pod.is_over {
                    self.seen.insert((pod.namespace.clone(), digest), now_ms);
                }
                let Some((_, _, uid)) = &pod.owner else { continue };
                for image in [Some(&*used.image), without_digest(&used.image)].into_iter().flatten()
                {
                    let pin = pins
                        .entry((uid.to_string(), image.to_owned()))
                        .or_insert((pod.created_ms, digest));
                    if (pod.created_ms, digest) < *pin {
                        *pin = (pod.created_ms, digest);
                    }
                }
            }
        }
        self.seen.retain(|_, seen_ms| (0..LINGER_MS).contains(&now_ms.saturating_sub(*seen_ms)));
        self.bound_lingering();
        let mut digests: HashMap<String, HashSet<Digest>> = HashMap::new();
        for (namespace, digest) in self.seen.keys() {
            match digests.get_mut(&**namespace) {
                Some(set) => drop(set.insert(*digest)),
                None => drop(digests.insert(namespace.to_string(), HashSet::from([*digest]))),
            }
        }
        let pins = pins.into_iter().map(|(key, (_, digest))| (key, digest)).collect();
        Running { digests, pins, synced: self.synced }
    }

    /// The oldest memories go first.
    fn bound_lingering(&mut self) {
        let excess = self.seen.len().saturating_sub(MAX_LINGERING);
        if excess > 0 {
            let mut times: Vec<i64> = self.seen.values().copied().collect();
            times.sort_unstable();
            if let Some(oldest) = times.get(excess).copied() {
                self.seen.retain(|_, seen_ms| *seen_ms >= oldest);
            }
        }
    }

    /// Everything that runs or is about to, each image once a namespace.
    pub(crate) fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::new();
        for pod in self.pods.values().filter(|pod| !pod.is_over) {
            for used in &pod.images {
                let key = RunningImage {
                    namespace: pod.namespace.clone(),
                    image: used.image.clone(),
                    digest: used.started,
                };
                let runners = fleet.entry(key).or_default();
                runners.pods += 1;
                // The first by name, so that the same pods give the same text.
                if runners.pod.is_empty() || *pod.name < *runners.pod {
                    runners.pod = pod.name.to_string();
                    runners.owner = pod
                        .owner
                        .as_ref()
                        .map_or_else(String::new, |(kind, name, _)| format!("{kind}/{name}"));
                    runners.service_account = pod.service_account.to_string();
                    runners.pull_secrets =
                        pod.pull_secrets.iter().map(ToString::to_string).collect();
                }
            }
        }
        fleet
    }
}

/// `nginx:1.27` of `nginx:1.27@sha256:…`: the name that somebody pinned.
fn without_digest(image: &str) -> Option<&str> {
    image.split_once('@').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use kuboard_oci::Digest;
    use serde_json::json;

    use super::{LINGER_MS, Pods};

    fn digest(byte: &str) -> Digest {
        format!("sha256:{}", byte.repeat(64)).parse().unwrap()
    }

    /// A pod of ReplicaSet `rs` in namespace `shop`, made in such a second.
    fn object(name: &str, second: u32, byte: &str, phase: &str) -> super::PodObject {
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "shop",
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                    "uid": "rs", "controller": true}],
            },
            "spec": {"containers": [{"name": "app", "image": "app:1"}]},
            "status": {"phase": phase, "containerStatuses": [
                {"name": "app", "imageID": format!("reg/app@{}", digest(byte))},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn the_first_pod_of_an_owner_pins() {
        let mut pods = Pods::default();
        assert!(!pods.running(0).synced);
        pods.begin_list();
        assert!(pods.put(&object("b", 2, "b", "Running"), 0));
        assert!(pods.put(&object("a", 1, "a", "Running"), 0));
        assert!(!pods.put(&object("a", 1, "a", "Running"), 0), "nothing new");
        assert!(pods.end_list(0));
        let running = pods.running(0);
        assert!(running.synced && running.has("shop", &digest("a")));
        assert!(!running.has("bank", &digest("a")));
        assert_eq!(running.pins.get(&("rs".into(), "app:1".into())), Some(&digest("a")));
        let fleet = pods.fleet();
        assert_eq!(fleet.len(), 2);
        let (_, runners) = fleet.first_key_value().unwrap();
        assert_eq!((runners.pods, &*runners.pod, &*runners.owner), (1, "a", "ReplicaSet/web"));
    }

    #[test]
    fn what_ran_a_moment_ago_still_counts() {
        let mut pods = Pods::default();
        pods.begin_list();
        pods.put(&object("a", 1, "a", "Running"), 0);
        pods.end_list(0);
        assert!(pods.running(1_000).has("shop", &digest("a")));
        assert!(pods.take(&object("a", 1, "a", "Running"), 5 * LINGER_MS));
        assert!(pods.running(6 * LINGER_MS - 1).has("shop", &digest("a")), "from when it went");
        assert!(!pods.running(6 * LINGER_MS).has("shop", &digest("a")));
        assert!(pods.fleet().is_empty());
    }

    #[test]
    fn pods_that_ended_do_not_count() {
        let mut pods = Pods::default();
        pods.put(&object("a", 1, "a", "Succeeded"), 0);
        assert!(!pods.running(0).has("shop", &digest("a")));
        assert!(pods.fleet().is_empty());
    }

    #[test]
    fn a_list_replaces_what_was_known() {
        let mut pods = Pods::default();
        pods.begin_list();
        pods.put(&object("a", 1, "a", "Running"), 0);
        pods.put(&object("b", 1, "b", "Running"), 0);
        pods.end_list(0);
        pods.begin_list();
        pods.put(&object("b", 1, "b", "Running"), 0);
        assert_eq!(pods.len(), 2, "kept until the list is whole");
        assert!(pods.end_list(0));
        assert_eq!(pods.len(), 1);
    }

    #[test]
    fn ten_thousand_pods_of_a_thousand_images() {
        let mut pods = Pods::default();
        pods.begin_list();
        for number in 0..10_000_usize {
            let byte = format!("{:x}", number % 16);
            let image = format!("registry.corp/team/app-{}:v1", number % 1_000);
            let id = format!("{image}@{}", Digest::sha256((number % 1_000).to_string().as_bytes()));
            let object = serde_json::from_value(json!({
                "metadata": {"name": format!("pod-{number}"), "namespace": format!("ns-{byte}")},
                "spec": {"containers": [{"name": "app", "image": image}]},
                "status": {"phase": "Running",
                           "containerStatuses": [{"name": "app", "imageID": id}]},
            }));
            pods.put(&object.unwrap(), 0);
        }
        pods.end_list(0);
        let running = pods.running(0);
        assert_eq!(running.digests.len(), 16);
        let fleet = pods.fleet();
        assert_eq!(fleet.values().map(|it| it.pods).sum::<usize>(), 10_000);
        let texts: std::collections::HashSet<*const u8> =
            fleet.keys().map(|it| it.image.as_ptr()).collect();
        assert_eq!(texts.len(), 1_000, "the text of an image is kept once");
    }
}
