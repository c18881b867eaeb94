//! The cluster's credentials behind the door that the proxy and the scanner ask.

use std::sync::Arc;

use arc_swap::ArcSwap;
use kuboard_api::crd::CredentialSource;
use kuboard_registry::credentials::{Credential, CredentialError, Credentials, EcrToken};
use kuboard_rt::{BoxFuture, Clock};
use parking_lot::Mutex;

use super::known::Known;

/// What a namespace may be served with: its own RegistryCredentials, and those of others that allow
/// it. The proxy asks as Kuboard's own namespace, because what it caches is for everybody who may
/// pull there; the scanner as the namespace whose image it looks into.
pub struct ClusterCredentials {
    known: Arc<ArcSwap<Known>>,
    namespace: String,
    clock: Arc<dyn Clock>,
    /// Made when first needed: most clusters are in no cloud.
    ecr: Mutex<Option<Arc<EcrToken>>>,
}

/// What is to be used for a registry.
enum Meant {
    Credential(Credential),
    Ecr,
    Nothing,
}

impl ClusterCredentials {
    /// Answers for the pods of `namespace`.
    #[must_use]
    pub fn new(known: Arc<ArcSwap<Known>>, namespace: &str, clock: Arc<dyn Clock>) -> Self {
        Self { known, namespace: namespace.to_owned(), clock, ecr: Mutex::default() }
    }

    fn meant(&self, registry: &str, repository: &str) -> Result<Meant, CredentialError> {
        let known = self.known.load();
        if !known.synced {
            return Err(CredentialError::passing(
                "the cluster's RegistryCredentials have not been read yet",
            ));
        }
        let mut fault = None;
        let mut best: Option<(usize, Credential)> = None;
        for one in known.credentials_for(&self.namespace, registry) {
            let named = format!("RegistryCredential {}/{}", one.namespace, one.name);
            match &one.source {
                CredentialSource::Ecr { .. } if best.is_none() => return Ok(Meant::Ecr),
                CredentialSource::Ecr { .. } => {}
                CredentialSource::Secret(name) => match known.secret(&one.namespace, name) {
                    Some(Ok(secret)) => {
                        // A Secret for a part of the registry is one for another part's nothing.
                        if let Some((entry, credential)) = secret.best(registry, repository)
                            && best.as_ref().is_none_or(|(length, _)| *length < entry.len())
                        {
                            best = Some((entry.len(), credential.clone()));
                        }
                    }
                    Some(Err(why)) => {
                        fault.get_or_insert(format!("{named}: the Secret {name}: {why}"));
                    }
                    None => {
                        fault.get_or_insert(format!(
                            "{named}: there is no Secret {name} in {} that may be read",
                            one.namespace
                        ));
                    }
                },
            }
        }
        match (best, fault) {
            (Some((_, credential)), _) => Ok(Meant::Credential(credential)),
            // Going on without it would turn "denied" into "does not exist".
            (None, Some(fault)) => Err(CredentialError::passing(fault)),
            (None, None) => Ok(Meant::Nothing),
        }
    }

    fn ecr(&self) -> Result<Arc<EcrToken>, CredentialError> {
        let mut made = self.ecr.lock();
        if let Some(ecr) = &*made {
            return Ok(ecr.clone());
        }
        let ecr = Arc::new(EcrToken::from_environment(self.clock.clone())?);
        Ok(made.insert(ecr).clone())
    }
}

impl Credentials for ClusterCredentials {
    fn for_repository<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialError>> {
        Box::pin(async move {
            match self.meant(registry, repository)? {
                Meant::Credential(credential) => Ok(Some(credential)),
                Meant::Ecr => self.ecr()?.for_repository(registry, repository).await,
                Meant::Nothing => Ok(None),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use kuboard_api::crd::{RegistryCredential, RegistryCredentialSpec, SecretReference};
    use kuboard_rt::SystemClock;

    use super::*;
    use crate::credentials::{Namespaces, PullSecret};

    fn add(
        known: &mut Known,
        at: &str,
        registries: &[&str],
        keys: Option<&[&str]>,
        allowed: &[&str],
    ) {
        let (namespace, name) = at.split_once('/').unwrap();
        let texts = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let mut object = RegistryCredential::new(
            name,
            RegistryCredentialSpec {
                registries: texts(registries),
                secret_ref: Some(SecretReference { name: name.to_owned() }),
                provider: None,
                allowed_namespaces: texts(allowed),
            },
        );
        object.metadata.namespace = Some(namespace.to_owned());
        known.put_credential(object.check().unwrap());
        let Some(keys) = keys else { return };
        let auths: serde_json::Map<String, serde_json::Value> = keys
            .iter()
            .map(|key| {
                let entry = serde_json::json!({"username": format!("{at}@{key}"), "password": "p"});
                ((*key).to_owned(), entry)
            })
            .collect();
        let text = serde_json::json!({ "auths": auths }).to_string();
        let data = [(".dockerconfigjson".to_owned(), ByteString(text.into_bytes()))].into();
        let read = PullSecret::read("kubernetes.io/dockerconfigjson", &data);
        known.put_secret(namespace, name, read);
    }

    #[tokio::test]
    async fn a_namespace_is_served_with_its_own_and_what_it_is_allowed() {
        let mut known = Known { synced: true, namespaces: Namespaces::All, ..Known::default() };
        add(&mut known, "kuboard/wide", &["quay.io"], Some(&["quay.io"]), &[]);
        add(&mut known, "kuboard/deep", &["quay.io"], Some(&["quay.io/team"]), &[]);
        add(&mut known, "team/secret", &["ghcr.io"], Some(&["ghcr.io"]), &[]);
        add(&mut known, "infra/shared", &["harbor.test"], Some(&["harbor.test"]), &["*"]);
        add(&mut known, "infra/some", &["nexus.test"], Some(&["nexus.test"]), &["team"]);
        add(&mut known, "kuboard/torn", &["torn.test"], None, &[]);
        let known = Arc::new(ArcSwap::from_pointee(known));
        let ask = async |namespace: &str, registry: &str, repository: &str| {
            let at = Arc::new(SystemClock);
            let door = ClusterCredentials::new(known.clone(), namespace, at);
            match door.for_repository(registry, repository).await {
                Ok(None) => "nothing".to_owned(),
                Ok(Some(Credential::Basic { user, .. })) => user,
                other => format!("{other:?}"),
            }
        };
        assert_eq!(ask("kuboard", "quay.io", "other/app").await, "kuboard/wide@quay.io");
        assert_eq!(ask("kuboard", "quay.io", "team/app").await, "kuboard/deep@quay.io/team");
        assert_eq!(ask("team", "quay.io", "team/app").await, "nothing");
        assert_eq!(ask("kuboard", "ghcr.io", "app").await, "nothing");
        assert_eq!(ask("team", "ghcr.io", "app").await, "team/secret@ghcr.io");
        assert_eq!(ask("kuboard", "harbor.test", "app").await, "infra/shared@harbor.test");
        assert_eq!(ask("kuboard", "nexus.test", "app").await, "nothing");
        assert_eq!(ask("team", "nexus.test", "app").await, "infra/some@nexus.test");
        assert!(ask("kuboard", "torn.test", "app").await.contains("there is no Secret torn"));
        known.store(Arc::default());
        assert!(ask("team", "ghcr.io", "app").await.contains("not been read yet"));
    }
}
