//! The door to what judges: the operator knows what runs and whom to tell, the binary joins it
//! with the policy engine and the catalogue.

use kuboard_api::{crd::ImageReportSpec, policy::Scope};
use kuboard_oci::Digest;
use kuboard_rt::BoxFuture;
use tokio::sync::watch;

use crate::watch::{Runners, RunningImage};

/// What policies say of an image, as if a new pod wanted to run it; the strictest is the greatest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It may run.
    #[default]
    Allow,
    /// It may run, and that is recorded.
    Audit,
    /// It may run, with a warning.
    Warn,
    /// It may not.
    Deny,
}

impl Outcome {
    /// As an `ImageReport` writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Audit => "Audit",
            Self::Warn => "Warn",
            Self::Deny => "Deny",
        }
    }
}

/// Which policy. The namespace of a cluster's is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Whom it is for.
    pub scope: Scope,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PolicyKey {
    /// `shop/scan`, or `scan` of the cluster.
    #[must_use]
    pub fn text(&self) -> String {
        match self.namespace.as_str() {
            "" => self.name.clone(),
            namespace => format!("{namespace}/{}", self.name),
        }
    }
}

/// What one policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Which policy.
    pub policy: PolicyKey,
    /// What it says; [`Outcome::Allow`] of one that is about the image and has nothing against it.
    pub outcome: Outcome,
    /// It says so because nothing is known of the image.
    pub unscanned: bool,
}

/// What all policies say of an image where it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The strictest.
    pub outcome: Outcome,
    /// Every policy that is about the image.
    pub said: Vec<Said>,
    /// Why, in one sentence.
    pub reason: Option<String>,
    /// The manifests that reports are kept for. Of an index, those of the nodes' platforms.
    pub manifests: Vec<Digest>,
}

/// Judges what runs, and knows what is known. Everything may be asked often: it should answer from
/// memory, or from a database at most.
pub trait Judge: Send + Sync + 'static {
    /// Judges an image where it runs, as if a new pod wanted to run it. Nothing is recorded.
    fn judge<'a>(&'a self, image: &'a RunningImage, runners: &'a Runners) -> BoxFuture<'a, Judged>;

    /// What is known of a manifest, for its report; `None`: nothing yet. The error is a sentence.
    fn report<'a>(
        &'a self,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<ImageReportSpec>, String>>;

    /// Whether the registry has it: reports of such images stay though nobody runs them.
    fn is_stored<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, String>>;

    /// When the policy's schedule last ran, milliseconds since 1970.
    fn last_scan_ms<'a>(&'a self, policy: &'a PolicyKey) -> BoxFuture<'a, Option<i64>>;

    /// Hears of every change of what is known of images.
    fn changes(&self) -> watch::Receiver<u64>;
}
