//! Keeps what is known of a cluster's credentials fresh: Secrets of the types that hold registries'
//! credentials, service accounts that name such Secrets, and RegistryCredentials.
//!
//! Nothing else of a Secret is read, and nothing is kept but what pulls need. What may not be read,
//! because RBAC gives Secrets namespace by namespace or not at all, is known to be unread; it is
//! asked for again now and then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use kuboard_api::crd::{self, RegistryCredential};
use kuboard_rt::Shutdown;
use serde::de::DeserializeOwned;

use super::known::{Known, Name, ServiceAccountPull};
use super::secret::{BASIC_AUTH, DOCKER_CONFIG_JSON, DOCKERCFG, PullSecret, SecretFault};

/// Objects of one kind that are kept at most.
const MAX_OBJECTS: usize = 20_000;
/// Changes that are taken in before others see them.
const BATCH: usize = 1_024;

/// Where Secrets and service accounts are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespaces {
    /// Everywhere.
    #[default]
    All,
    /// In these.
    These(Vec<String>),
}

impl Namespaces {
    /// True if the namespace is one of them.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(all) => all.iter().any(|one| one == namespace),
        }
    }
}

/// Watches the API server for credentials.
pub struct Watch {
    client: Client,
    namespaces: Namespaces,
    known: Arc<ArcSwap<Known>>,
}

impl Watch {
    /// Will read Secrets and service accounts in these namespaces, and RegistryCredentials
    /// everywhere.
    #[must_use]
    pub fn new(client: Client, namespaces: Namespaces) -> Self {
        let known = Known { namespaces: namespaces.clone(), ..Known::default() };
        Self { client, namespaces, known: Arc::new(ArcSwap::from_pointee(known)) }
    }

    /// What is known, always the latest.
    #[must_use]
    pub fn known(&self) -> Arc<ArcSwap<Known>> {
        self.known.clone()
    }

    /// Watches until it is told to stop. The API server may be away for any time meanwhile.
    pub async fn run(self, stop: Shutdown) {
        let Watches { mut streams, sources, .. } = self.watches();
        let mut table = Table::new(self.namespaces.clone(), sources);
        let mut changes = (&mut streams).ready_chunks(BATCH);
        loop {
            let batch = tokio::select! {
                () = stop.begun() => return,
                batch = changes.next() => batch,
            };
            // The streams of the watcher never end.
            let Some(batch) = batch else { return };
            for (source, change) in batch {
                table.take(source, change);
            }
            self.known.store(Arc::new(table.known()));
        }
    }

    fn watches(&self) -> Watches {
        let mut watches =
            Watches { client: self.client.clone(), streams: SelectAll::new(), sources: Vec::new() };
        let scopes: Vec<Option<&String>> = match &self.namespaces {
            Namespaces::All => vec![None],
            Namespaces::These(all) => all.iter().map(Some).collect(),
        };
        for scope in scopes {
            for kind in [DOCKER_CONFIG_JSON, DOCKERCFG, BASIC_AUTH] {
                let config = watcher::Config::default().fields(&format!("type={kind}"));
                watches.add(scope, Source::secrets(scope), config, secret);
            }
            let source = Source { what: "service accounts", secrets_of: None };
            watches.add(scope, source, watcher::Config::default(), account);
        }
        let source = Source { what: "RegistryCredentials", secrets_of: None };
        watches.add(None, source, watcher::Config::default(), credential);
        watches
    }
}

/// All watches as one stream of changes, each with the number of its source.
struct Watches {
    client: Client,
    streams: SelectAll<BoxStream<'static, (usize, Change)>>,
    sources: Vec<Source>,
}

impl Watches {
    fn add<K>(
        &mut self,
        scope: Option<&String>,
        source: Source,
        config: watcher::Config,
        object: fn(K) -> Option<Object>,
    ) where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let number = self.sources.len();
        self.sources.push(source);
        let api: Api<K> = match scope {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let events = watcher(api, config).default_backoff();
        let changes = events.map(move |event| (number, Change::of(event, object)));
        self.streams.push(changes.boxed());
    }
}

fn secret(secret: Secret) -> Option<Object> {
    Some(Object::Secret(read(&secret)))
}

fn read(secret: &Secret) -> Result<PullSecret, SecretFault> {
    let none = std::collections::BTreeMap::new();
    let kind = secret.type_.as_deref().unwrap_or_default();
    PullSecret::read(kind, secret.data.as_ref().unwrap_or(&none))
}

/// Accounts without Secrets are most, and say nothing.
fn account(account: ServiceAccount) -> Option<Object> {
    let named = account.image_pull_secrets.unwrap_or_default();
    let named: Vec<String> = named.into_iter().map(|one| one.name).collect();
    let image_pull_secrets: Vec<String> =
        named.into_iter().filter(|name| !name.is_empty()).collect();
    (!image_pull_secrets.is_empty())
        .then(|| Object::Account(ServiceAccountPull { image_pull_secrets }))
}

/// What is wrong with one stands in its status, which others write.
fn credential(object: RegistryCredential) -> Option<Object> {
    object.check().ok().map(Object::Credential)
}

/// One watch.
#[derive(Clone, Debug)]
struct Source {
    what: &'static str,
    /// Where it reads Secrets, if it does.
    secrets_of: Option<Namespaces>,
}

impl Source {
    fn secrets(scope: Option<&String>) -> Self {
        let of = scope.map_or(Namespaces::All, |one| Namespaces::These(vec![one.clone()]));
        Self { what: "Secrets", secrets_of: Some(of) }
    }
}

enum Object {
    Secret(Result<PullSecret, SecretFault>),
    Account(ServiceAccountPull),
    Credential(crd::Credential),
}

enum Change {
    Began,
    /// Boxed: most of a batch are small.
    Put(Name, Option<Box<Object>>),
    Gone(Name),
    Complete,
    Refused(String),
    Failed(String),
}

impl Change {
    fn of<K: Resource>(
        event: Result<Event<K>, watcher::Error>,
        object: fn(K) -> Option<Object>,
    ) -> Self {
        let name = |it: &K| (it.namespace().unwrap_or_default(), it.name_any());
        match event {
            Ok(Event::Init) => Self::Began,
            Ok(Event::InitDone) => Self::Complete,
            Ok(Event::Apply(it) | Event::InitApply(it)) => {
                Self::Put(name(&it), object(it).map(Box::new))
            }
            Ok(Event::Delete(it)) => Self::Gone(name(&it)),
            Err(error) if is_refusal(&error) => Self::Refused(error.to_string()),
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

/// We may not, or there is no such kind.
fn is_refusal(error: &watcher::Error) -> bool {
    let cause = match error {
        watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause) => cause,
        _ => return false,
    };
    matches!(cause, kube::Error::Api(status) if status.is_forbidden() || status.is_not_found())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    Complete,
    Refused,
}

/// What the watches told, and which of them told it: a Secret that is made anew with another type
/// is told by two of them, in any order.
struct Table {
    namespaces: Namespaces,
    sources: Vec<Source>,
    states: Vec<State>,
    /// Names that a source told since it began anew.
    seen: HashMap<usize, HashSet<Name>>,
    secrets: HashMap<Name, (usize, Arc<Result<PullSecret, SecretFault>>)>,
    accounts: HashMap<Name, (usize, Arc<ServiceAccountPull>)>,
    credentials: HashMap<Name, (usize, Arc<crd::Credential>)>,
    full: bool,
}

impl Table {
    fn new(namespaces: Namespaces, sources: Vec<Source>) -> Self {
        Self {
            namespaces,
            states: vec![State::Waiting; sources.len()],
            sources,
            seen: HashMap::new(),
            secrets: HashMap::new(),
            accounts: HashMap::new(),
            credentials: HashMap::new(),
            full: false,
        }
    }

    fn take(&mut self, source: usize, change: Change) {
        let what = self.sources.get(source).map_or("", |source| source.what);
        match change {
            Change::Began => {
                self.seen.insert(source, HashSet::new());
            }
            Change::Put(name, object) => {
                if let Some(seen) = self.seen.get_mut(&source)
                    && seen.len() < MAX_OBJECTS
                {
                    seen.insert(name.clone());
                }
                match object {
                    Some(object) => self.put(source, name, *object),
                    None => self.remove(source, &name),
                }
            }
            Change::Gone(name) => self.remove(source, &name),
            Change::Complete => {
                let seen = self.seen.remove(&source).unwrap_or_default();
                self.retain(source, |name| seen.contains(name));
                self.set(source, State::Complete);
            }
            Change::Refused(error) => {
                if self.states.get(source) != Some(&State::Refused) {
                    tracing::warn!(
                        error,
                        "{what} cannot be read; hint: see the credentials' rights in the chart"
                    );
                }
                self.retain(source, |_| false);
                self.set(source, State::Refused);
            }
            // What was known stays in use.
            Change::Failed(error) => tracing::debug!(error, "the watch of {what} failed"),
        }
    }

    fn set(&mut self, source: usize, state: State) {
        if let Some(known) = self.states.get_mut(source) {
            *known = state;
        }
    }

    fn put(&mut self, source: usize, name: Name, object: Object) {
        let full = match object {
            Object::Secret(it) => bounded(&mut self.secrets, name, source, it),
            Object::Account(it) => bounded(&mut self.accounts, name, source, it),
            Object::Credential(it) => bounded(&mut self.credentials, name, source, it),
        };
        if full && !self.full {
            self.full = true;
            tracing::warn!(
                "there are more than {MAX_OBJECTS} Secrets, service accounts or \
                 RegistryCredentials; the rest is not used"
            );
        }
    }

    fn remove(&mut self, source: usize, name: &Name) {
        drop_of(&mut self.secrets, source, name);
        drop_of(&mut self.accounts, source, name);
        drop_of(&mut self.credentials, source, name);
    }

    fn retain(&mut self, source: usize, keep: impl Fn(&Name) -> bool) {
        self.secrets.retain(|name, (from, _)| *from != source || keep(name));
        self.accounts.retain(|name, (from, _)| *from != source || keep(name));
        self.credentials.retain(|name, (from, _)| *from != source || keep(name));
    }

    fn known(&self) -> Known {
        let refused = |namespace: Option<&String>| {
            self.sources.iter().zip(&self.states).any(|(source, state)| {
                *state == State::Refused
                    && match (&source.secrets_of, namespace) {
                        (Some(Namespaces::All), _) => true,
                        (Some(of), Some(namespace)) => of.contains(namespace),
                        _ => false,
                    }
            })
        };
        let namespaces = match &self.namespaces {
            Namespaces::All if refused(None) => Namespaces::These(Vec::new()),
            Namespaces::All => Namespaces::All,
            Namespaces::These(all) => {
                Namespaces::These(all.iter().filter(|one| !refused(Some(one))).cloned().collect())
            }
        };
        Known {
            secrets: values(&self.secrets),
            accounts: values(&self.accounts),
            credentials: values(&self.credentials),
            namespaces,
            synced: self.states.iter().all(|state| *state != State::Waiting),
            full: self.full,
        }
    }
}

type Told<V> = HashMap<Name, (usize, Arc<V>)>;

/// Puts a value; true if there is no room for it.
fn bounded<V>(map: &mut Told<V>, name: Name, source: usize, value: V) -> bool {
    if map.len() >= MAX_OBJECTS && !map.contains_key(&name) {
        return true;
    }
    map.insert(name, (source, Arc::new(value)));
    false
}

fn drop_of<V>(map: &mut Told<V>, source: usize, name: &Name) {
    if map.get(name).is_some_and(|(from, _)| *from == source) {
        map.remove(name);
    }
}

fn values<V, M: FromIterator<(Name, Arc<V>)>>(map: &Told<V>) -> M {
    map.iter().map(|(name, (_, value))| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        ("team".to_owned(), text.to_owned())
    }

    fn made(kind: &str) -> Option<Box<Object>> {
        let data = std::collections::BTreeMap::new();
        Some(Box::new(Object::Secret(PullSecret::read(kind, &data))))
    }

    fn table() -> Table {
        let sources = vec![
            Source::secrets(None),
            Source::secrets(None),
            Source { what: "service accounts", secrets_of: None },
        ];
        Table::new(Namespaces::All, sources)
    }

    #[test]
    fn it_is_synced_when_every_watch_has_told_all() {
        let mut table = table();
        for source in 0..3 {
            assert!(!table.known().synced);
            table.take(source, Change::Began);
            table.take(source, Change::Complete);
        }
        assert!(table.known().synced);
        table.take(0, Change::Began);
        assert!(table.known().synced, "what is known stays known while a watch begins anew");
    }

    #[test]
    fn what_is_gone_when_a_watch_begins_anew_is_forgotten() {
        let mut table = table();
        for round in [&["a", "b"][..], &["b"]] {
            table.take(0, Change::Began);
            for one in round {
                table.take(0, Change::Put(name(one), made(DOCKER_CONFIG_JSON)));
            }
            table.take(0, Change::Complete);
        }
        let known = table.known();
        assert!(known.secret("team", "a").is_none());
        assert!(known.secret("team", "b").is_some());
    }

    #[test]
    fn a_secret_made_anew_with_another_type_survives_the_end_of_the_old_one() {
        let mut table = table();
        table.take(0, Change::Put(name("a"), made(DOCKER_CONFIG_JSON)));
        table.take(1, Change::Put(name("a"), made(DOCKERCFG)));
        table.take(0, Change::Gone(name("a")));
        assert!(table.known().secret("team", "a").is_some());
        table.take(1, Change::Gone(name("a")));
        assert!(table.known().secret("team", "a").is_none());
    }

    #[test]
    fn what_may_not_be_read_is_known_to_be_unread_until_it_may() {
        let mut table = table();
        for source in 0..3 {
            table.take(source, Change::Refused("no".to_owned()));
        }
        let known = table.known();
        assert!(known.synced);
        assert!(!known.namespaces.contains("team"));
        for source in 0..2 {
            table.take(source, Change::Began);
            table.take(source, Change::Complete);
        }
        assert!(table.known().namespaces.contains("team"));
    }

    #[test]
    fn a_failure_changes_nothing() {
        let mut table = table();
        table.take(0, Change::Put(name("a"), made(DOCKER_CONFIG_JSON)));
        table.take(0, Change::Failed("away".to_owned()));
        assert!(table.known().secret("team", "a").is_some());
    }
}
