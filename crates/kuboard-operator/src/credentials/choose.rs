//! Which credential a pod's image is pulled with, and why: pure, and the same for `doctor`, the
//! scanner and the operator.
//!
//! Kubelet uses the pod's `imagePullSecrets`. When a pod is made that names none, those of its
//! service account are written into it; a pod that exists keeps what it has. All Secrets together
//! are one table, sorted by their entries' keys from the last to the first in byte order, and each
//! entry that matches is tried in turn until one pulls. What the node itself knows (its docker
//! configuration, credential providers) comes last. Between the two stand Kuboard's own
//! RegistryCredentials, which kubelet does not know: with them the proxy and the scanner ask.

use std::cmp::Reverse;
use std::fmt;

use kuboard_api::crd::CredentialSource;
use kuboard_oci::ImageReference;
use kuboard_registry::credentials::Credential;

use super::known::Known;
use super::secret::{Entry, SecretFault};

/// A pod, as far as pulls go.
#[derive(Clone, Copy, Debug)]
pub struct PodPull<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Names of its `imagePullSecrets`.
    pub image_pull_secrets: &'a [String],
    /// Its service account; empty means `default`.
    pub service_account: &'a str,
    /// It exists in the cluster, so its list is final. False for a template.
    pub exists: bool,
}

/// Where a credential comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Secret that the pod names.
    Pod {
        /// The Secret.
        secret: String,
    },
    /// A Secret that the pod has from its service account.
    ServiceAccount {
        /// The account.
        account: String,
        /// The Secret.
        secret: String,
    },
    /// A RegistryCredential.
    RegistryCredential {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The node: its docker configuration and credential providers.
    Node,
}

/// What came of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This is the one.
    Chosen {
        /// The entry that matches; empty for one that is for any registry.
        entry: String,
    },
    /// It matches too and is tried when those before it do not pull.
    Next {
        /// The entry that matches.
        entry: String,
    },
    /// It has entries for these registries only.
    NoEntry {
        /// Their keys.
        entries: Vec<String>,
    },
    /// The entry that matches holds nothing that kubelet could use.
    Useless {
        /// The entry.
        entry: String,
    },
    /// There is no such Secret of a type for registries.
    Missing,
    /// Secrets of this namespace are not read.
    Unread,
    /// It is of no use.
    Fault(SecretFault),
    /// It is not asked, and why.
    NotUsed(&'static str),
    /// The cloud is asked for a token.
    Provider,
}

/// One source that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// Which.
    pub source: Source,
    /// What came of it.
    pub outcome: Outcome,
}

/// A credential that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub source: Source,
    /// What it holds; `None` where a provider is to be asked.
    pub credential: Option<Credential>,
}

/// What an image is pulled with, and all that was looked at on the way, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The credential; `None` is an anonymous pull, unless the node knows one.
    pub found: Option<Found>,
    /// Kubelet does not pull at all, because of the form of a Secret.
    pub stopped: bool,
    /// The reasons.
    pub why: Vec<Considered>,
}

impl Choice {
    /// True if kubelet itself would use what was found.
    #[must_use]
    pub fn is_kubelets(&self) -> bool {
        let source = self.found.as_ref().map(|found| &found.source);
        matches!(source, Some(Source::Pod { .. } | Source::ServiceAccount { .. }))
    }
}

/// Chooses, in the pod's place. Pure and total.
#[must_use]
pub fn choose(image: &ImageReference, pod: &PodPull<'_>, known: &Known) -> Choice {
    let mut choice = Choice::default();
    let account = if pod.service_account.is_empty() { "default" } else { pod.service_account };
    let of_account =
        known.account(pod.namespace, account).map_or(&[][..], |it| &it.image_pull_secrets);
    let from_account = |secret: &String| {
        let (account, secret) = (account.to_owned(), secret.clone());
        Source::ServiceAccount { account, secret }
    };
    if pod.image_pull_secrets.is_empty() && !pod.exists {
        let named = of_account.iter().map(|secret| (secret, from_account(secret)));
        choice.take_secrets(image, pod.namespace, named.collect(), known);
    } else {
        let own = |secret: &String| Source::Pod { secret: secret.clone() };
        let named = pod.image_pull_secrets.iter().map(|secret| (secret, own(secret)));
        choice.take_secrets(image, pod.namespace, named.collect(), known);
        let because = if pod.image_pull_secrets.is_empty() {
            "the pod was made before its service account named it; hint: make the pod anew"
        } else {
            "the pod names its own imagePullSecrets"
        };
        for secret in of_account.iter().filter(|name| !pod.image_pull_secrets.contains(name)) {
            let outcome = Outcome::NotUsed(because);
            choice.why.push(Considered { source: from_account(secret), outcome });
        }
    }
    choice.take_credentials(image, pod.namespace, known);
    let outcome = match &choice.found {
        Some(_) => Outcome::NotUsed("it comes after what was found"),
        None => Outcome::NotUsed(
            "whether the node's docker configuration or a credential provider knows one is seen on \
             the node only",
        ),
    };
    choice.why.push(Considered { source: Source::Node, outcome });
    choice
}

impl Choice {
    /// What kubelet makes of the pod's Secrets.
    fn take_secrets(
        &mut self,
        image: &ImageReference,
        namespace: &str,
        named: Vec<(&String, Source)>,
        known: &Known,
    ) {
        let (registry, repository) = (image.registry.as_str(), image.repository.as_str());
        let mut matches = Vec::new();
        let mut hub = Vec::new();
        for (order, (name, source)) in named.into_iter().enumerate() {
            let outcome = match known.secret(namespace, name) {
                None if known.namespaces.contains(namespace) => Outcome::Missing,
                None => Outcome::Unread,
                Some(Err(fault)) => {
                    self.stopped |= fault.stops_kubelet();
                    Outcome::Fault(fault.clone())
                }
                Some(Ok(secret)) => {
                    let before = matches.len() + hub.len();
                    let found = secret.entries_for(registry, repository);
                    matches.extend(found.map(|(key, it)| (key, order, source.clone(), it)));
                    let login = secret.hub_login(registry);
                    hub.extend(login.map(|(key, it)| (key, order, source.clone(), it)));
                    if matches.len() + hub.len() > before {
                        continue;
                    }
                    let entries = secret.addresses().into_iter().map(str::to_owned).collect();
                    Outcome::NoEntry { entries }
                }
            };
            self.why.push(Considered { source, outcome });
        }
        // Docker Hub's own entry counts only where no other matches.
        let mut tried = if matches.is_empty() { hub } else { matches };
        tried.sort_by_key(|(key, order, ..)| (Reverse((*key).clone()), *order));
        let mut turn = Vec::new();
        for (key, _, source, entry) in tried {
            let entry_key = key.as_str().to_owned();
            let outcome = match entry {
                Entry::Basic(credential) if self.found.is_none() && !self.stopped => {
                    let credential = Some(credential.clone());
                    self.found = Some(Found { source: source.clone(), credential });
                    Outcome::Chosen { entry: entry_key }
                }
                Entry::Basic(_) => Outcome::Next { entry: entry_key },
                Entry::Token(_) | Entry::Empty => Outcome::Useless { entry: entry_key },
            };
            turn.push(Considered { source, outcome });
        }
        // What is tried comes first, in the order in which it is.
        turn.append(&mut self.why);
        self.why = turn;
    }

    /// What Kuboard asks with where the pod itself brings nothing.
    fn take_credentials(&mut self, image: &ImageReference, namespace: &str, known: &Known) {
        let (registry, repository) = (image.registry.as_str(), image.repository.as_str());
        for one in known.credentials_for(namespace, registry) {
            let source = Source::RegistryCredential {
                namespace: one.namespace.clone(),
                name: one.name.clone(),
            };
            let (outcome, credential) = match &one.source {
                CredentialSource::Ecr { .. } => (Outcome::Provider, None),
                CredentialSource::Secret(name) => match known.secret(&one.namespace, name) {
                    None if known.namespaces.contains(&one.namespace) => (Outcome::Missing, None),
                    None => (Outcome::Unread, None),
                    Some(Err(fault)) => (Outcome::Fault(fault.clone()), None),
                    Some(Ok(secret)) => match secret.best(registry, repository) {
                        Some((entry, credential)) => {
                            let entry = entry.to_owned();
                            (Outcome::Chosen { entry }, Some(credential.clone()))
                        }
                        None => {
                            let entries =
                                secret.addresses().into_iter().map(str::to_owned).collect();
                            (Outcome::NoEntry { entries }, None)
                        }
                    },
                },
            };
            let usable = credential.is_some() || outcome == Outcome::Provider;
            let outcome = match outcome {
                Outcome::Chosen { entry } if self.found.is_some() => Outcome::Next { entry },
                Outcome::Provider if self.found.is_some() => {
                    Outcome::NotUsed("it comes after what was found")
                }
                outcome => outcome,
            };
            if usable && self.found.is_none() {
                self.found = Some(Found { source: source.clone(), credential });
            }
            self.why.push(Considered { source, outcome });
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { secret } => write!(f, "Secret {secret} of the pod"),
            Self::ServiceAccount { account, secret } => {
                write!(f, "Secret {secret} of the service account {account}")
            }
            Self::RegistryCredential { namespace, name } => {
                write!(f, "RegistryCredential {namespace}/{name}")
            }
            Self::Node => f.write_str("the node"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen { entry } if entry.is_empty() => f.write_str("used"),
            Self::Chosen { entry } => write!(f, "used, by its entry {entry}"),
            Self::Next { entry } => {
                write!(f, "its entry {entry} is tried if those before it do not pull")
            }
            Self::NoEntry { entries } if entries.is_empty() => f.write_str("has no entries"),
            Self::NoEntry { entries } => {
                write!(f, "has entries for {} only", entries.join(", "))
            }
            Self::Useless { entry } => {
                write!(f, "its entry {entry} holds no user and password, which kubelet needs")
            }
            Self::Missing => f.write_str(
                "there is no such Secret of a type for registries; hint: kubectl create secret \
                 docker-registry",
            ),
            Self::Unread => f.write_str("Secrets of its namespace are not read"),
            Self::Fault(fault) => fault.fmt(f),
            Self::NotUsed(why) => write!(f, "not used: {why}"),
            Self::Provider => f.write_str("used: the cloud is asked for a token"),
        }
    }
}

impl fmt::Display for Considered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.outcome)
    }
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
