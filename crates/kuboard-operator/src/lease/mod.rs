//! Leader election by a `coordination.k8s.io/v1` Lease, for what writes to the cluster. Who only
//! reads (admission, the registry) never needs it.
//!
//! Every write replaces a version that was read; a conflict means that somebody else was faster.
//! A leader that could not renew in time is stopped before anybody else may begin: its work is
//! dropped where it waits.

mod election;
#[cfg(test)]
mod simulation;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease as LeaseObject, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use kuboard_rt::{Clock, Shutdown};
use parking_lot::Mutex;

pub use election::{Election, Moment, Record, Step, Timing};

use crate::{
    Error,
    client::{ASK, once},
};

/// A lease and one who wants it.
#[derive(Clone)]
pub struct Lease {
    /// Where it is.
    pub client: Client,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who wants it; nobody else may have the same, not even our own predecessor.
    pub identity: String,
    /// How long it holds.
    pub timing: Timing,
    /// Our time.
    pub clock: Arc<dyn Clock>,
}

/// The time in which we lead. Cheap to clone.
#[derive(Clone)]
pub struct Term {
    election: Arc<Mutex<Election>>,
    clock: Arc<dyn Clock>,
}

impl Term {
    /// Whether it still lasts; asked before each write.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.election.lock().leads(moment(&*self.clock))
    }
}

fn moment(clock: &dyn Clock) -> Moment {
    Moment { monotonic: clock.monotonic(), wall_ms: clock.now_ms() }
}

impl Lease {
    /// Runs `work` whenever and as long as we lead, until `stop` begins; then gives the lease
    /// back. Work is dropped when the term ends, and begun again with the next one. `tell` hears
    /// of each change.
    pub async fn run<W, F>(&self, stop: Shutdown, tell: impl Fn(bool), work: W)
    where
        W: Fn(Term) -> F,
        F: Future<Output = ()>,
    {
        let election = Arc::new(Mutex::new(Election::new(&self.identity, self.timing)));
        let term = Term { election: election.clone(), clock: self.clock.clone() };
        loop {
            tokio::select! {
                () = stop.begun() => break,
                () = self.campaign(&election) => {}
            }
            tracing::info!(lease = self.name, identity = self.identity, "leading");
            tell(true);
            let is_over = tokio::select! {
                () = stop.begun() => true,
                () = self.hold(&election) => false,
                () = for_ever(work(term.clone())) => false,
            };
            tell(false);
            if is_over {
                break;
            }
            election.lock().resign();
            tracing::warn!(lease = self.name, "leading no more; what was being written is dropped");
        }
        self.give_back(&election).await;
    }

    /// Until we lead.
    async fn campaign(&self, election: &Mutex<Election>) {
        let mut told = None;
        loop {
            match self.look(election, ASK).await {
                Ok(()) => told = None,
                Err(error) => tell_once(&mut told, &error),
            }
            if election.lock().leads(moment(&*self.clock)) {
                return;
            }
            tokio::time::sleep(self.timing.retry).await;
        }
    }

    /// Until we lead no more.
    async fn hold(&self, election: &Mutex<Election>) {
        let mut told = None;
        loop {
            let remaining = election.lock().remaining(moment(&*self.clock));
            if remaining.is_zero() {
                return;
            }
            tokio::time::sleep(self.timing.retry.min(remaining)).await;
            let remaining = election.lock().remaining(moment(&*self.clock));
            if remaining.is_zero() {
                return;
            }
            // Two tries fit into what remains: one that hangs is not the last.
            let within = (remaining / 2).max(Duration::from_millis(500)).min(remaining);
            match tokio::time::timeout(remaining, self.look(election, within)).await {
                Ok(Ok(())) => told = None,
                Ok(Err(error)) => tell_once(&mut told, &error),
                Err(_) => return,
            }
        }
    }

    /// Reads the lease and does what follows. A conflict is no error: the next look tells more.
    async fn look(&self, election: &Mutex<Election>, within: Duration) -> Result<(), Error> {
        let api: Api<LeaseObject> = Api::namespaced(self.client.clone(), &self.namespace);
        let what = format!("renew Lease {}/{}", self.namespace, self.name);
        let found = once(&what, within, api.get_opt(&self.name)).await?;
        let now = moment(&*self.clock);
        let step = {
            let mut election = election.lock();
            election.saw(found.as_ref().map(record), now);
            election.step(now)
        };
        let sent = moment(&*self.clock);
        let written = match step {
            Step::Wait => return Ok(()),
            Step::Create => {
                let object = self.object(found, None, 0, sent.wall_ms);
                once(&what, within, api.create(&PostParams::default(), &object)).await
            }
            Step::Take { version, transitions } | Step::Renew { version, transitions } => {
                let object = self.object(found, Some(version), transitions, sent.wall_ms);
                once(&what, within, api.replace(&self.name, &PostParams::default(), &object)).await
            }
        };
        match written {
            Ok(object) => {
                election.lock().wrote(record(&object), sent, moment(&*self.clock));
                Ok(())
            }
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The lease with our name in it. What others noted on it stays.
    fn object(
        &self,
        found: Option<LeaseObject>,
        version: Option<String>,
        transitions: i32,
        now_ms: i64,
    ) -> LeaseObject {
        let now = Timestamp::from_millisecond(now_ms).ok().map(MicroTime);
        let mut object = found.unwrap_or_else(|| LeaseObject {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            ..LeaseObject::default()
        });
        object.metadata.resource_version = version;
        object.metadata.managed_fields = None;
        let spec = object.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            spec.acquire_time.clone_from(&now);
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(self.timing.duration.as_secs().max(1)).ok();
        spec.lease_transitions = Some(transitions);
        spec.renew_time = now;
        object
    }

    /// Lets others begin at once. Nothing is lost if it fails: they wait for the duration.
    async fn give_back(&self, election: &Mutex<Election>) {
        let leads = {
            let mut election = election.lock();
            let leads = election.leads(moment(&*self.clock));
            election.resign();
            leads
        };
        if !leads {
            return;
        }
        let api: Api<LeaseObject> = Api::namespaced(self.client.clone(), &self.namespace);
        let what = format!("give back Lease {}/{}", self.namespace, self.name);
        let within = self.timing.retry;
        let given = async {
            let mut object = once(&what, within, api.get(&self.name)).await?;
            object.metadata.managed_fields = None;
            let Some(spec) = &mut object.spec else { return Ok(()) };
            if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                once(&what, within, api.replace(&self.name, &PostParams::default(), &object))
                    .await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = given.await {
            tracing::debug!("{error}");
        }
    }
}

/// Work that is done does not end the term.
async fn for_ever(work: impl Future<Output = ()>) {
    work.await;
    std::future::pending().await
}

fn record(object: &LeaseObject) -> Record {
    let spec = object.spec.as_ref();
    let seconds = spec.and_then(|it| it.lease_duration_seconds).unwrap_or(0);
    Record {
        holder: spec.and_then(|it| it.holder_identity.clone()).unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        version: object.metadata.resource_version.clone().unwrap_or_default(),
        transitions: spec.and_then(|it| it.lease_transitions).unwrap_or(0),
    }
}

/// The same failure every two seconds is one line.
fn tell_once(told: &mut Option<String>, error: &Error) {
    let said = error.to_string();
    if told.as_ref() != Some(&said) {
        tracing::warn!("{said}");
        *told = Some(said);
    }
}
