//! What people want of the cluster, as one value: everybody reads the same moment of it. The
//! operator makes it from the Kubernetes API, `kuboard up` from files; admission and schedules
//! read it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use kuboard_oci::Digest;

use crate::policy::{Exemption, Folder, Policy, PolicyError, PolicyProblem};

/// Policies, exemptions and namespaces at one moment.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// All policies that can be used, suspended ones among them. One that became invalid is here
    /// as it last was.
    pub policies: Vec<Arc<Policy>>,
    /// All exemptions, expired ones among them.
    pub exemptions: Vec<Arc<Exemption>>,
    /// The namespaces of the cluster; none without one.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Everything has been read once. Until then nobody knows what is wanted.
    pub synced: bool,
}

impl Desired {
    /// What files say, where there is no cluster: no namespaces, and everything read. `now_ms` is
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// An exemption ends too far ahead.
    pub fn from_folder(folder: Folder, now_ms: i64) -> Result<Self, PolicyError> {
        let mut problems = Vec::new();
        for loaded in &folder.exemptions {
            if let Some(mut problem) = loaded.exemption.too_far(now_ms) {
                problem.line = Some(loaded.line);
                problems.push(PolicyProblem { file: loaded.file.clone(), problem });
            }
        }
        if !problems.is_empty() {
            return Err(PolicyError::new(problems));
        }
        Ok(Self {
            policies: folder.policies.into_iter().map(|it| Arc::new(it.policy)).collect(),
            exemptions: folder.exemptions.into_iter().map(|it| Arc::new(it.exemption)).collect(),
            namespaces: BTreeMap::new(),
            synced: true,
        })
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Namespace {
    /// Whether its pods wait for a policy engine that is away, rather than run unchecked
    /// ([`crate::names::ENFORCE`] is `strict`).
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.labels.get(crate::names::ENFORCE).is_some_and(|word| word == crate::names::STRICT)
    }
}

/// What runs in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// Digests of images with a running container, by namespace: of what the registry served
    /// under the name (an index or a manifest).
    pub digests: HashMap<String, HashSet<Digest>>,
    /// The digest that an image's name stood for when the first pod of an owner was admitted, by
    /// (uid of the owner, image as written).
    pub pins: HashMap<(String, String), Digest>,
    /// Everything has been read once.
    pub synced: bool,
}

impl Running {
    /// Whether the image runs in the namespace.
    #[must_use]
    pub fn has(&self, namespace: &str, digest: &Digest) -> bool {
        self.digests.get(namespace).is_some_and(|all| all.contains(digest))
    }
}
