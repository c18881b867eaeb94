//! What is known of a cluster's credentials at one moment.

use std::collections::HashMap;
use std::sync::Arc;

use kuboard_api::crd;

use super::secret::{PullSecret, SecretFault};
use super::watch::Namespaces;

/// Namespace and name.
pub(crate) type Name = (String, String);

/// A service account, as far as pulls go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccountPull {
    /// Names of its `imagePullSecrets`.
    pub image_pull_secrets: Vec<String>,
}

/// Secrets, service accounts and RegistryCredentials. Cheap to clone but for the tables.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Secrets with credentials of registries, read, by namespace and name.
    pub(crate) secrets: HashMap<Name, Arc<Result<PullSecret, SecretFault>>>,
    /// Service accounts by namespace and name.
    pub(crate) accounts: HashMap<Name, Arc<ServiceAccountPull>>,
    /// RegistryCredentials that can be used, by namespace and name.
    pub(crate) credentials: std::collections::BTreeMap<Name, Arc<crd::Credential>>,
    /// Where Secrets are read at all.
    pub namespaces: Namespaces,
    /// Everything was read once. Until then nothing that is missing is known to be missing.
    pub synced: bool,
    /// There is more than is kept; what is missing may be there.
    pub full: bool,
}

impl Known {
    /// Adds or replaces a Secret; for callers that read single ones, such as `doctor`.
    pub fn put_secret(
        &mut self,
        namespace: &str,
        name: &str,
        read: Result<PullSecret, SecretFault>,
    ) {
        self.secrets.insert((namespace.to_owned(), name.to_owned()), Arc::new(read));
    }

    /// Adds or replaces a service account.
    pub fn put_account(&mut self, namespace: &str, name: &str, account: ServiceAccountPull) {
        self.accounts.insert((namespace.to_owned(), name.to_owned()), Arc::new(account));
    }

    /// Adds or replaces a RegistryCredential.
    pub fn put_credential(&mut self, credential: crd::Credential) {
        let name = (credential.namespace.clone(), credential.name.clone());
        self.credentials.insert(name, Arc::new(credential));
    }

    pub(crate) fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<&Result<PullSecret, SecretFault>> {
        self.secrets.get(&(namespace.to_owned(), name.to_owned())).map(|found| &**found)
    }

    pub(crate) fn account(&self, namespace: &str, name: &str) -> Option<&ServiceAccountPull> {
        self.accounts.get(&(namespace.to_owned(), name.to_owned())).map(|found| &**found)
    }

    /// The RegistryCredentials that a namespace may be served with for a registry, its own first.
    pub(crate) fn credentials_for<'a>(
        &'a self,
        namespace: &'a str,
        registry: &'a str,
    ) -> impl Iterator<Item = &'a crd::Credential> {
        let usable = move |credential: &&Arc<crd::Credential>| {
            credential.allows(namespace) && credential.is_for(registry)
        };
        let own = self.credentials.values().filter(move |one| one.namespace == namespace);
        let other = self.credentials.values().filter(move |one| one.namespace != namespace);
        own.chain(other).filter(usable).map(|one| &**one)
    }
}
