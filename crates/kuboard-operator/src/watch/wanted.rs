//! What is wanted, from policies, exemptions and namespaces. Pure: objects come in, a snapshot
//! goes out. What became invalid stays as it last was.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Namespace as NamespaceObject;
use kube::{ResourceExt, core::PartialObjectMeta};
use kuboard_api::{
    crd::{
        ClusterImageScanPolicy, ImageExemption, ImageExemptionStatus, ImageScanPolicy,
        ImageScanPolicyStatus,
    },
    desired::{Desired, Namespace},
    policy::{Exemption, Policy},
};

/// An object of ours and what it was found to mean.
#[derive(Clone, Debug)]
pub struct Kept<T, S> {
    /// Its uid: another object of the same name has nothing to do with it.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// What it means; of an invalid one, what it meant before.
    pub meaning: Option<Arc<T>>,
    /// What is wrong with it, a line each.
    pub problem: Option<String>,
    /// Its status as the API server has it.
    pub status: Option<S>,
}

/// A policy in the cluster.
pub type KeptPolicy = Kept<Policy, ImageScanPolicyStatus>;
/// An exemption in the cluster.
pub type KeptExemption = Kept<Exemption, ImageExemptionStatus>;

/// Objects of a kind by (namespace, name); the namespace of a cluster's object is empty.
#[derive(Clone, Debug)]
pub struct Table<T, S> {
    objects: BTreeMap<(String, String), Kept<T, S>>,
    listed: Option<Vec<(String, String)>>,
    synced: bool,
}

impl<T, S> Default for Table<T, S> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listed: None, synced: false }
    }
}

/// What is read of an object.
struct Read<'a, S> {
    namespace: String,
    name: String,
    uid: String,
    generation: i64,
    status: &'a Option<S>,
}

impl<'a, S> Read<'a, S> {
    fn of(object: &impl ResourceExt, status: &'a Option<S>) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            generation: object.meta().generation.unwrap_or(0),
            status,
        }
    }
}

impl<T, S: Clone> Table<T, S> {
    pub(crate) fn begin_list(&mut self) {
        self.listed = Some(Vec::new());
    }

    /// True if something changed.
    pub(crate) fn end_list(&mut self) -> bool {
        let Some(mut listed) = self.listed.take() else { return false };
        listed.sort_unstable();
        let before = self.objects.len();
        self.objects.retain(|key, _| listed.binary_search(key).is_ok());
        let was_synced = std::mem::replace(&mut self.synced, true);
        !was_synced || before != self.objects.len()
    }

    /// True if its meaning changed.
    fn put(
        &mut self,
        read: Read<'_, S>,
        check: impl FnOnce() -> Result<T, Vec<kuboard_api::Problem>>,
    ) -> bool {
        let key = (read.namespace, read.name);
        if let Some(listed) = &mut self.listed {
            listed.push(key.clone());
        }
        let before = self.objects.remove(&key).filter(|it| it.uid == read.uid);
        if let Some(same) = before.as_ref().filter(|it| it.generation == read.generation) {
            let kept = Kept { status: read.status.clone(), ..same_meaning(same) };
            self.objects.insert(key, kept);
            return false;
        }
        let (meaning, problem) = match check() {
            Ok(meaning) => (Some(Arc::new(meaning)), None),
            Err(problems) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                (before.and_then(|it| it.meaning), Some(lines.join("\n")))
            }
        };
        if let Some(problem) = &problem {
            tracing::warn!(namespace = key.0, name = key.1, "not usable: {problem}");
        }
        let (uid, generation, status) = (read.uid, read.generation, read.status.clone());
        self.objects.insert(key, Kept { uid, generation, meaning, problem, status });
        true
    }

    /// True if it was known.
    pub(crate) fn take(&mut self, object: &impl ResourceExt) -> bool {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        self.objects.remove(&key).is_some()
    }

    /// All of them, by (namespace, name).
    pub fn iter(&self) -> impl Iterator<Item = (&(String, String), &Kept<T, S>)> {
        self.objects.iter()
    }

    /// The object of this name; `namespace` is empty for one of the cluster.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Kept<T, S>> {
        self.objects.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn invalid(&self) -> usize {
        self.objects.values().filter(|it| it.problem.is_some()).count()
    }

    fn meanings(&self) -> impl Iterator<Item = Arc<T>> {
        self.objects.values().filter_map(|it| it.meaning.clone())
    }
}

fn same_meaning<T, S>(kept: &Kept<T, S>) -> Kept<T, S> {
    Kept {
        uid: kept.uid.clone(),
        generation: kept.generation,
        meaning: kept.meaning.clone(),
        problem: kept.problem.clone(),
        status: None,
    }
}

/// Everything that is wanted.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) policies: Table<Policy, ImageScanPolicyStatus>,
    pub(crate) cluster_policies: Table<Policy, ImageScanPolicyStatus>,
    pub(crate) exemptions: Table<Exemption, ImageExemptionStatus>,
    namespaces: BTreeMap<String, Namespace>,
    listed_namespaces: Option<Vec<String>>,
    namespaces_synced: bool,
}

impl Wanted {
    pub(crate) fn put_policy(&mut self, object: &ImageScanPolicy) -> bool {
        let read = Read::of(object, &object.status);
        self.policies.put(read, || Policy::from_object(object))
    }

    pub(crate) fn put_cluster_policy(&mut self, object: &ClusterImageScanPolicy) -> bool {
        let read = Read::of(object, &object.status);
        self.cluster_policies.put(read, || Policy::from_cluster_object(object))
    }

    pub(crate) fn put_exemption(&mut self, object: &ImageExemption, now_ms: i64) -> bool {
        let read = Read::of(object, &object.status);
        self.exemptions.put(read, || Exemption::from_object(object, now_ms))
    }

    pub(crate) fn begin_namespaces(&mut self) {
        self.listed_namespaces = Some(Vec::new());
    }

    pub(crate) fn put_namespace(&mut self, object: &PartialObjectMeta<NamespaceObject>) -> bool {
        let name = object.name_any();
        if let Some(listed) = &mut self.listed_namespaces {
            listed.push(name.clone());
        }
        let namespace = Namespace { labels: object.labels().clone() };
        let changed = self.namespaces.get(&name) != Some(&namespace);
        if changed {
            self.namespaces.insert(name, namespace);
        }
        changed
    }

    pub(crate) fn take_namespace(&mut self, object: &PartialObjectMeta<NamespaceObject>) -> bool {
        self.namespaces.remove(&object.name_any()).is_some()
    }

    pub(crate) fn end_namespaces(&mut self) -> bool {
        let Some(listed) = self.listed_namespaces.take() else { return false };
        let before = self.namespaces.len();
        self.namespaces.retain(|name, _| listed.contains(name));
        let was_synced = std::mem::replace(&mut self.namespaces_synced, true);
        !was_synced || before != self.namespaces.len()
    }

    /// What has not been read yet.
    pub(crate) fn unread(&self) -> Vec<&'static str> {
        [
            ("ImageScanPolicy", self.policies.synced),
            ("ClusterImageScanPolicy", self.cluster_policies.synced),
            ("ImageExemption", self.exemptions.synced),
            ("Namespace", self.namespaces_synced),
        ]
        .into_iter()
        .filter_map(|(kind, synced)| (!synced).then_some(kind))
        .collect()
    }

    pub(crate) fn desired(&self) -> Desired {
        Desired {
            policies: self.policies.meanings().chain(self.cluster_policies.meanings()).collect(),
            exemptions: self.exemptions.meanings().collect(),
            namespaces: self.namespaces.clone(),
            synced: self.unread().is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kuboard_api::{crd::ImageScanPolicy, policy::Threshold};
    use serde_json::json;

    use super::Wanted;

    fn policy(uid: &str, generation: i64, threshold: &str) -> ImageScanPolicy {
        serde_json::from_value(json!({
            "apiVersion": "kuboard.cn/v1alpha1", "kind": "ImageScanPolicy",
            "metadata": {"name": "scan", "namespace": "shop", "uid": uid, "generation": generation},
            "spec": {"severityThreshold": threshold},
        }))
        .unwrap()
    }

    fn threshold(wanted: &Wanted) -> Option<Threshold> {
        wanted.desired().policies.first().and_then(|it| it.threshold)
    }

    #[test]
    fn what_became_invalid_stays_as_it_was() {
        let mut wanted = Wanted::default();
        assert!(wanted.put_policy(&policy("1", 1, "HIGH")));
        assert!(!wanted.put_policy(&policy("1", 1, "HIGH")), "a status that changed is no news");
        assert!(wanted.put_policy(&policy("1", 2, "HIHG")));
        assert_eq!(threshold(&wanted), Some(Threshold::High));
        let kept = wanted.policies.get("shop", "scan").unwrap();
        assert!(kept.problem.as_ref().unwrap().contains("did you mean HIGH?"));
        assert_eq!((kept.generation, wanted.policies.invalid()), (2, 1));
        assert!(wanted.put_policy(&policy("1", 3, "LOW")));
        assert_eq!((threshold(&wanted), wanted.policies.invalid()), (Some(Threshold::Low), 0));
        // Another object of the same name has no past.
        assert!(wanted.put_policy(&policy("2", 1, "??")));
        assert_eq!(threshold(&wanted), None);
    }

    #[test]
    fn nothing_is_known_until_everything_was_read() {
        let mut wanted = Wanted::default();
        for table in 0..4 {
            assert!(!wanted.desired().synced);
            match table {
                0 => {
                    wanted.policies.begin_list();
                    wanted.put_policy(&policy("1", 1, "HIGH"));
                    assert!(wanted.policies.end_list());
                }
                1 => {
                    wanted.cluster_policies.begin_list();
                    assert!(wanted.cluster_policies.end_list());
                }
                2 => {
                    wanted.exemptions.begin_list();
                    assert!(wanted.exemptions.end_list());
                }
                _ => {
                    wanted.begin_namespaces();
                    assert!(wanted.end_namespaces());
                }
            }
        }
        assert!(wanted.desired().synced && wanted.desired().policies.len() == 1);
        wanted.policies.begin_list();
        assert_eq!(wanted.desired().policies.len(), 1, "kept while a list is read again");
        assert!(wanted.policies.end_list());
        assert!(wanted.desired().policies.is_empty());
        assert!(wanted.desired().synced);
    }
}
