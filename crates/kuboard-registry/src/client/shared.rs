//! What all requests to one upstream share, and how a question goes from endpoint to endpoint.

use std::{sync::Arc, time::Duration};

use kuboard_oci::RepositoryName;
use kuboard_rt::Clock;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    auth::{Authenticator, Errand, Who},
    config::UpstreamConfig,
    endpoint::{Endpoint, Healths, Order, Plan, Skip},
    error::{Failure, Shows, UpstreamError, UpstreamErrorKind, conclude},
    exchange::{Answer, Ask},
    metrics::Metrics,
    rate::RateLimit,
    transport::Transport,
};

/// The state of one upstream.
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) healths: Mutex<Healths>,
    pub(super) auth: Authenticator,
    pub(super) transport: Transport,
    pub(super) metrics: Metrics,
    pub(super) clock: Arc<dyn Clock>,
    /// As read, and when (monotonic).
    pub(super) rate: Mutex<Option<(RateLimit, Duration)>>,
    pub(super) lanes: Lanes,
}

/// Places for requests under way.
pub(super) struct Lanes {
    blobs: Arc<Semaphore>,
    small: Arc<Semaphore>,
    timeout: Duration,
    blob_timeout: Duration,
}

/// Which places a question takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lane {
    /// Held as long as the blob flows.
    Blobs,
    /// Held until the answer is read.
    Small,
}

impl Lanes {
    pub(super) fn new(config: &UpstreamConfig) -> Lanes {
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Lanes {
            blobs: places(config.concurrency),
            small: places((config.concurrency / 4).max(2)),
            timeout: config.queue_timeout,
            blob_timeout: config.blob_queue_timeout.unwrap_or(config.queue_timeout),
        }
    }

    async fn enter(&self, lane: Lane) -> Result<OwnedSemaphorePermit, Failure> {
        let (lane, timeout) = match lane {
            Lane::Blobs => (&self.blobs, self.blob_timeout),
            Lane::Small => (&self.small, self.timeout),
        };
        match tokio::time::timeout(timeout, Arc::clone(lane).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Failure::new(
                UpstreamErrorKind::Timeout,
                format!(
                    "no free place within {} s; hint: raise the upstream's concurrency",
                    timeout.as_secs_f32()
                ),
            )),
        }
    }
}

/// A kind of question: what is sent, and what is made of the answer.
pub(super) trait Operation: Sync {
    /// What is made of it.
    type Output: Send;
    /// Which places it takes.
    const LANE: Lane;

    /// Whom to ask first.
    fn order(&self) -> Order;

    /// The question.
    fn ask(&self) -> Ask;

    /// Another question, where the answer to the first shows that the endpoint cannot answer it.
    fn again(&self, _answer: &Answer) -> Option<Ask> {
        None
    }

    /// Whether [`read`](Operation::read) can use an answer that is neither 200 nor 206.
    fn takes(&self, _answer: &Answer) -> bool {
        false
    }

    /// Reads the answer.
    fn read(
        &self,
        answer: Answer,
        ground: Ground,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send;
}

/// What an answer is read on.
pub(super) struct Ground {
    pub(super) shared: Arc<Shared>,
    pub(super) endpoint: usize,
    pub(super) permit: Arc<OwnedSemaphorePermit>,
}

impl Shared {
    /// Asks the endpoints one after the other until one gives an answer that counts.
    pub(super) async fn run<O: Operation>(
        self: &Arc<Self>,
        repository: &RepositoryName,
        operation: &O,
        who: Who<'_>,
    ) -> Result<O::Output, UpstreamError> {
        let plan = self.plan(operation.order());
        let ask = operation.ask();
        let what = format!("{} {} of {repository}", ask.method, ask.tail);
        let mut errors = self.skipped(&plan, &what);
        if !plan.ask.is_empty() {
            let permit = self.lanes.enter(O::LANE).await;
            let permit = Arc::new(permit.map_err(|failure| failure.at(&self.name, &what))?);
            for endpoint in plan.ask.into_iter().filter_map(|index| self.endpoints.get(index)) {
                let ground = Ground {
                    shared: Arc::clone(self),
                    endpoint: endpoint.index,
                    permit: Arc::clone(&permit),
                };
                let errand = Errand { endpoint, repository, who };
                let failure = match self.attempt(errand, &ask, operation, ground).await {
                    Ok(output) => return Ok(output),
                    Err(failure) => failure,
                };
                // What a caller's own credentials bring about says nothing about us.
                if matches!(who, Who::Upstream) {
                    self.note(endpoint.index, &failure);
                }
                let last_word = endpoint.own && failure.kind.is_verdict();
                let error = failure.at(&self.name, &format!("{what} at {}", endpoint.authority()));
                tracing::debug!(error = &error as &dyn std::error::Error, "an endpoint failed");
                errors.push((endpoint.own, error));
                if last_word {
                    break;
                }
            }
        }
        Err(conclude(errors).unwrap_or_else(|| {
            let message = "no endpoint is the upstream itself; hint: add its own address after \
                           the mirrors, or name the endpoint in trustedRealms";
            Failure::new(UpstreamErrorKind::Refused, message).at(&self.name, &what)
        }))
    }

    async fn attempt<O: Operation>(
        &self,
        errand: Errand<'_>,
        ask: &Ask,
        operation: &O,
        ground: Ground,
    ) -> Result<O::Output, Failure> {
        let mut answer = self.exchange(errand, ask).await?;
        if let Some(other) = operation.again(&answer) {
            drop(answer);
            answer = self.exchange(errand, &other).await?;
        }
        if !operation.takes(&answer) {
            answer = self.checked(answer).await?;
        }
        operation.read(answer, ground).await
    }

    fn plan(&self, order: Order) -> Plan {
        let now = self.clock.monotonic();
        self.healths.lock().plan(&self.endpoints, order, now)
    }

    /// The errors of the endpoints that are not asked.
    fn skipped(&self, plan: &Plan, what: &str) -> Vec<(bool, UpstreamError)> {
        let error = |(index, skip, wait): &(usize, Skip, Duration)| {
            let endpoint = self.endpoints.get(*index)?;
            let seconds = wait.as_secs_f32().ceil();
            let failure = match skip {
                Skip::Throttled => Failure::new(
                    UpstreamErrorKind::Throttled { retry_after: Some(*wait) },
                    format!("it wants no requests for another {seconds} s"),
                ),
                Skip::Down => Failure::new(
                    UpstreamErrorKind::Unavailable,
                    format!("it failed several times and is not asked for another {seconds} s"),
                ),
            };
            let at = format!("{what} at {}", endpoint.authority());
            Some((endpoint.own, failure.at(&self.name, &at)))
        };
        plan.skipped.iter().filter_map(error).collect()
    }

    fn note(&self, endpoint: usize, failure: &Failure) {
        let now = self.clock.monotonic();
        match (failure.kind, failure.shows) {
            (UpstreamErrorKind::Throttled { retry_after }, _) => {
                let wait = self.healths.lock().throttled(endpoint, retry_after, now);
                tracing::info!(
                    upstream = &*self.name,
                    wait_s = wait.as_secs(),
                    "the upstream throttles us; leaving it alone"
                );
            }
            (_, Shows::Unwell) => self.healths.lock().failed(endpoint, now),
            (_, Shows::Wrong) => self.healths.lock().blamed(endpoint, now),
            (_, Shows::Nothing) => {}
        }
    }
}
