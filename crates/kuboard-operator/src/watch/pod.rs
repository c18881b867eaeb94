//! A pod, cut down while it is read: a cluster has ten thousand of them, and of each we need its
//! images and what they turned out to be.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, api::ObjectMeta};
use kuboard_oci::Digest;
use serde::Deserialize;

/// The parts of a pod that are read at all.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PodObject {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
    volumes: Vec<Volume>,
    service_account_name: String,
    image_pull_secrets: Vec<Secret>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Secret {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    image: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Volume {
    image: Option<ImageVolume>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ImageVolume {
    reference: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "imageID")]
    image_id: String,
}

impl Resource for PodObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A pod as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Box<str>,
    pub(crate) created_ms: i64,
    /// The controller that made it: (kind, name, uid).
    pub(crate) owner: Option<(Arc<str>, Arc<str>, Arc<str>)>,
    pub(crate) images: Box<[Used]>,
    /// By whose credentials its images are pulled.
    pub(crate) service_account: Arc<str>,
    pub(crate) pull_secrets: Box<[Arc<str>]>,
    /// It will not run (again).
    pub(crate) is_over: bool,
}

/// An image of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// As the pod names it.
    pub(crate) image: Arc<str>,
    /// What the registry served under the name, as far as the node knows; only of containers
    /// that were started.
    pub(crate) started: Option<Digest>,
}

/// Texts that many pods have in common, each kept once.
#[derive(Default)]
pub(crate) struct Texts(HashMap<Arc<str>, ()>);

impl Texts {
    pub(crate) fn keep(&mut self, text: &str) -> Arc<str> {
        if let Some((kept, ())) = self.0.get_key_value(text) {
            return kept.clone();
        }
        let kept: Arc<str> = text.into();
        self.0.insert(kept.clone(), ());
        kept
    }

    /// Forgets what nobody has any more.
    pub(crate) fn sweep(&mut self) {
        self.0.retain(|text, ()| Arc::strong_count(text) > 1);
    }
}

impl Pod {
    pub(crate) fn of(object: &PodObject, texts: &mut Texts) -> Self {
        let (spec, status) = (&object.spec, &object.status);
        let started = |name: &str, statuses: &[ContainerStatus]| {
            statuses.iter().find(|it| it.name == name).and_then(|it| digest(&it.image_id))
        };
        let lists = [
            (&spec.init_containers, &status.init_container_statuses),
            (&spec.containers, &status.container_statuses),
            (&spec.ephemeral_containers, &status.ephemeral_container_statuses),
        ];
        let mut images: Vec<Used> = Vec::new();
        for (containers, statuses) in lists {
            for one in containers {
                let started = started(&one.name, statuses);
                images.push(Used { image: texts.keep(&one.image), started });
            }
        }
        for volume in spec.volumes.iter().filter_map(|it| it.image.as_ref()) {
            images.push(Used { image: texts.keep(&volume.reference), started: None });
        }
        let owners = object.metadata.owner_references.as_deref().unwrap_or_default();
        let owner = owners.iter().find(|it| it.controller == Some(true));
        let created = object.metadata.creation_timestamp.as_ref();
        Self {
            namespace: texts.keep(object.metadata.namespace.as_deref().unwrap_or_default()),
            name: object.metadata.name.as_deref().unwrap_or_default().into(),
            created_ms: created.map_or(0, |at| at.0.as_millisecond()),
            owner: owner
                .map(|it| (texts.keep(&it.kind), texts.keep(&it.name), texts.keep(&it.uid))),
            images: images.into(),
            service_account: texts.keep(&spec.service_account_name),
            pull_secrets: spec.image_pull_secrets.iter().map(|it| texts.keep(&it.name)).collect(),
            is_over: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
        }
    }
}

/// The digest of an image id: `docker.io/library/nginx@sha256:…`, older runtimes put
/// `docker-pullable://` before it. A digest alone is that of a configuration, which no registry
/// serves as an image.
fn digest(image_id: &str) -> Option<Digest> {
    image_id.rsplit_once('@')?.1.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::{Pod, PodObject, Texts, digest};

    pub(crate) fn pod(value: serde_json::Value) -> Pod {
        let object: PodObject = serde_json::from_value(value).unwrap();
        Pod::of(&object, &mut Texts::default())
    }

    #[test]
    fn image_ids_are_read() {
        let hex = "a".repeat(64);
        let check = |id: &str, want: bool| assert_eq!(digest(id).is_some(), want, "{id}");
        check(&format!("docker.io/library/nginx@sha256:{hex}"), true);
        check(&format!("docker-pullable://nginx@sha256:{hex}"), true);
        check(&format!("localhost:5000/a/b@sha256:{hex}"), true);
        check(&format!("sha256:{hex}"), false);
        check("nginx@sha256:short", false);
        check("", false);
    }

    #[test]
    fn all_images_of_a_pod_are_seen() {
        let hex = "a".repeat(64);
        let pod = pod(json!({
            "metadata": {
                "name": "web-1", "namespace": "shop", "uid": "u1",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [{"manager": "kubelet"}],
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "no"},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs1",
                     "controller": true},
                ],
            },
            "spec": {
                "initContainers": [{"name": "a", "image": "init:1"}],
                "containers": [{"name": "b", "image": "app:1", "env": [{"name": "X"}]}],
                "ephemeralContainers": [{"name": "c", "image": "debug:1"}],
                "volumes": [{"name": "v", "image": {"reference": "models:1"}}, {"name": "w"}],
            },
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "b", "image": "app:1", "imageID": format!("reg/app@sha256:{hex}")},
            ]},
        }));
        let images: Vec<(&str, bool)> =
            pod.images.iter().map(|it| (&*it.image, it.started.is_some())).collect();
        assert_eq!(
            images,
            [("init:1", false), ("app:1", true), ("debug:1", false), ("models:1", false)]
        );
        assert_eq!(pod.owner.unwrap().2.as_ref(), "rs1");
        assert_eq!((pod.created_ms, pod.is_over), (1_767_225_600_000, false));
    }

    #[test]
    fn texts_are_kept_once_and_forgotten() {
        let mut texts = Texts::default();
        let (one, two) = (texts.keep("nginx"), texts.keep("nginx"));
        assert!(std::sync::Arc::ptr_eq(&one, &two));
        texts.keep("gone");
        texts.sweep();
        assert_eq!(texts.0.len(), 1);
    }
}
