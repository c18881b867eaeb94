//! What admission needs of others, and what it tells them. The binary puts the registry, the scan
//! engine, the catalogue and the Kubernetes API behind these doors.

use std::sync::Arc;

use kuboard_oci::{Digest, ImageReference};
use kuboard_rt::BoxFuture;
use kuboard_vuln::ImageFacts;

use crate::{images::Name, verdict::Verdict};

/// For whom an image is looked up: whose credentials may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Puller {
    /// The pod's namespace.
    pub namespace: String,
    /// Its service account; empty for `default`.
    pub service_account: String,
    /// Names of its own imagePullSecrets, which go before those of the account.
    pub pull_secrets: Vec<String>,
}

/// Which image a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Of what the registry serves under the name: an index or a manifest.
    pub digest: Digest,
    /// The image manifests behind it for the platforms of the nodes: of a manifest, itself. None
    /// if it has none of these platforms.
    pub manifests: Arc<[Digest]>,
}

/// Why a name can't be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// The registry says that there is no such image.
    NotFound(String),
    /// The registry can't be reached, or does not answer.
    Unreachable(String),
    /// The registry refuses, or no rule lets us ask it.
    Refused(String),
}

impl Unresolved {
    /// The kind, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) => "refused",
        }
    }

    /// A sentence without secrets.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::NotFound(why) | Self::Unreachable(why) | Self::Refused(why) => why,
        }
    }
}

/// From names of images to digests.
pub trait Digests: Send + Sync + 'static {
    /// What policies call an image: an image that is pulled through this registry has the name of
    /// its upstream, a hosted one no registry. Pure and quick.
    fn name(&self, image: &ImageReference) -> Name {
        Name::of(image)
    }

    /// What is known at once, and fresh enough to pull by. Quick: memory only.
    fn known(&self, image: &ImageReference) -> Option<Arc<Resolved>>;

    /// Asks the registry, for as long as it takes; callers stop listening when their time is
    /// over, and what is found then should be known the next time.
    fn resolve<'a>(
        &'a self,
        image: &'a ImageReference,
        puller: &'a Puller,
    ) -> BoxFuture<'a, Result<Arc<Resolved>, Unresolved>>;
}

/// An image that somebody wants to run and nobody scanned.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// The image.
    pub image: ImageReference,
    /// The manifest without facts.
    pub manifest: Digest,
    /// Whose credentials may be used.
    pub puller: Puller,
    /// A pod waits for it; else a workload was created that will make pods.
    pub urgent: bool,
}

/// What is known of images beyond the memory of this process.
pub trait FactsSource: Send + Sync + 'static {
    /// What is known of a manifest; `None` if nothing is.
    fn facts<'a>(
        &'a self,
        manifest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<ImageFacts>, String>>;

    /// Wants an image scanned. Returns at once; asking twice is the same as asking once.
    fn scan(&self, request: ScanRequest);
}

/// Keeps decisions. Must not wait.
pub trait Recorder: Send + Sync + 'static {
    /// Keeps one.
    fn record(&self, decision: Decision);
}

/// Tells people in the cluster. Must not wait, and must bound what it sends.
pub trait Events: Send + Sync + 'static {
    /// Tells one.
    fn tell(&self, event: Event);
}

impl Recorder for () {
    fn record(&self, _: Decision) {}
}

impl Events for () {
    fn tell(&self, _: Event) {}
}

/// What was decided, for whom, by which rule and which facts. Dry runs make none.
#[derive(Clone, Debug)]
pub struct Decision {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// `validate`, `workloads`, `imagepolicy` or `background`.
    pub webhook: &'static str,
    /// Uid of the request; empty for what nobody asked.
    pub uid: String,
    /// `CREATE` or `UPDATE`; empty for what nobody asked.
    pub operation: &'static str,
    /// Kind of the object, such as `Pod`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name, or the prefix of its name to come.
    pub name: String,
    /// Who owns it.
    pub owner: Option<Regarding>,
    /// Who asked.
    pub user: String,
    /// What comes of it, and why.
    pub verdict: Verdict,
    /// The images that were judged.
    pub images: Vec<JudgedImage>,
}

/// An image of a [`Decision`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedImage {
    /// As the pod writes it.
    pub image: String,
    /// Where it is used first: `container web`.
    pub place: String,
    /// What it stands for, if that is known.
    pub digest: Option<Digest>,
    /// It is known which image it is, and everything of it was scanned.
    pub is_complete: bool,
    /// The manifests and the facts that were read.
    pub facts: Vec<JudgedFacts>,
}

/// Which facts a verdict read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedFacts {
    /// Of which manifest.
    pub manifest: Digest,
    /// When they were made, milliseconds since 1970; `None` if there are none.
    pub scanned_ms: Option<i64>,
    /// Findings in them, counted or not.
    pub findings: usize,
}

/// An object in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Uid; empty if there is none yet.
    pub uid: String,
}

/// Something that people should see at the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it is.
    pub namespace: String,
    /// The owner of the pod if it has one, as a refused pod never exists.
    pub regarding: Regarding,
    /// `ImageDenied` or `ImageWarning`.
    pub reason: &'static str,
    /// At most 1024 bytes.
    pub message: String,
}
