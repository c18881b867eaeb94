//! Who may do what, as the settings say: users of a file, access keys of the catalogue, and the
//! identities of a cluster.

use std::{error::Error, sync::Arc};

use anyhow::Context;
use kuboard_api::{Anonymous as Said, Config, Rules, Target};
use kuboard_catalog::{Catalog, KeyRow};
use kuboard_operator::{
    access::{KubernetesAuthorizer, Metrics as ReviewMetrics, Settings},
    client::Cluster,
    credentials::{ClusterCredentials, Namespaces, Watch},
};
use kuboard_registry::credentials::Credentials;
use kuboard_registry::server::{
    Access, AccessConfig, Anonymous, KeySource, NoKeys, Rule, StoredKey,
};
use kuboard_rt::{BoxFuture, Clock, Tasks};

/// Name of this registry in tokens.
const SERVICE: &str = "kuboard";

/// Opens the users and keys of the settings.
pub(crate) async fn open(
    config: &Config,
    catalog: &Catalog,
    rules: Arc<Rules>,
    metrics: &prometheus::Registry,
) -> anyhow::Result<Arc<Access>> {
    let anonymous = match config.anonymous() {
        Said::None => Anonymous::None,
        Said::Pull => Anonymous::Pull,
        Said::Push => Anonymous::Push,
    };
    let key = config.access.token_key.clone();
    let access = Access::new(
        AccessConfig {
            anonymous,
            htpasswd: config.access.htpasswd.clone(),
            token_key: key.unwrap_or_else(|| config.data_dir.join("token-key.pem")),
            service: SERVICE.to_owned(),
            external_url: config.server.external_url.as_ref().map(ToString::to_string),
        },
        Arc::new(CatalogKeys(catalog.clone())),
    )
    .context("access")?;
    let access = access.with_naming(move |host, name| names(&rules, host, name));
    Ok(Arc::new(match kubernetes(config, metrics).await? {
        Some(cluster) => access.with_authorizer(Arc::new(cluster)),
        None => access,
    }))
}

/// The identities of the cluster, if they are wanted. The API server is not asked before somebody
/// comes with a token: pulls of others never wait for it.
async fn kubernetes(
    config: &Config,
    metrics: &prometheus::Registry,
) -> anyhow::Result<Option<KubernetesAuthorizer>> {
    let wanted = &config.access.kubernetes;
    if !wanted.enable {
        return Ok(None);
    }
    let kubeconfig = config.kubernetes.kubeconfig.clone();
    let cluster = Cluster { kubeconfig, ..Cluster::default() };
    let client = cluster.client().await.context("access.kubernetes")?;
    let settings = Settings { audience: wanted.audience.clone() };
    let metrics = ReviewMetrics::new(metrics)?;
    Ok(Some(KubernetesAuthorizer::new(client, settings, metrics)?))
}

/// Signs tokens for those whom this registry sends for its own content; knows no users.
pub(crate) fn tokens(config: &Config) -> anyhow::Result<Access> {
    let key = config.access.token_key.clone();
    let access = AccessConfig {
        anonymous: Anonymous::None,
        htpasswd: None,
        token_key: key.unwrap_or_else(|| config.data_dir.join("token-key.pem")),
        service: SERVICE.to_owned(),
        external_url: None,
    };
    Access::new(access, Arc::new(NoKeys)).context("access")
}

/// What upstreams are asked with whose rules name no credentials: the cluster's
/// RegistryCredentials, if they are wanted. The API server may come later, or go.
pub(crate) async fn cluster_credentials(
    config: &Config,
    clock: Arc<dyn Clock>,
    tasks: &Tasks,
) -> anyhow::Result<Option<Arc<dyn Credentials>>> {
    let kubernetes = &config.kubernetes;
    if !kubernetes.registry_credentials {
        return Ok(None);
    }
    let cluster = Cluster { kubeconfig: kubernetes.kubeconfig.clone(), ..Cluster::default() };
    let client = cluster.client().await.context("kubernetes.registryCredentials")?;
    let named = &kubernetes.secret_namespaces;
    let namespaces = match named.as_slice() {
        [] => Namespaces::These(vec![kubernetes.namespace.clone()]),
        all if all.iter().any(|one| one == "*") => Namespaces::All,
        some => Namespaces::These(some.to_vec()),
    };
    let watch = Watch::new(client, namespaces);
    let known = watch.known();
    tasks.spawn("registry credentials", watch.run(tasks.shutdown()));
    Ok(Some(Arc::new(ClusterCredentials::new(known, &kubernetes.namespace, clock))))
}

/// By which names rights to a repository are checked, when a client asks a token for it.
fn names(rules: &Rules, host: Option<&str>, name: &str) -> Vec<String> {
    let Ok(name) = name.parse() else { return Vec::new() };
    match rules.target(None, host, &name) {
        Target::Upstream { registry, repository, .. } => {
            // A challenge names the repository in full already; where the host stands for the
            // registry, its name must not be put before it twice.
            let full = repository.as_str().strip_prefix(&format!("{registry}/"));
            let full = full.filter(|_| host.is_some());
            vec![format!("{registry}/{}", full.unwrap_or(repository.as_str()))]
        }
        Target::Hosted { repository, fallback } => {
            let upstream = fallback.map(|meant| format!("{}/{}", meant.registry, meant.repository));
            [Some(repository.to_string()), upstream].into_iter().flatten().collect()
        }
        Target::UnknownNamespace { .. } => vec![name.to_string()],
    }
}

/// The access keys of the catalogue.
struct CatalogKeys(Catalog);

impl KeySource for CatalogKeys {
    fn key<'a>(
        &'a self,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredKey>, Box<dyn Error + Send + Sync>>> {
        Box::pin(async move { Ok(self.0.key(id).await?.map(stored).transpose()?) })
    }
}

fn stored(row: KeyRow) -> Result<StoredKey, serde_json::Error> {
    let rules: Vec<Rule> = serde_json::from_str(&row.scopes_json)?;
    Ok(StoredKey {
        owner: row.owner,
        secret_hash: row.secret_hash,
        rules,
        expires_ms: row.expires_ms,
    })
}
