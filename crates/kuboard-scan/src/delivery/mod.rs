//! Events on their way to security systems and chat robots. What has to be told stands in the
//! catalogue's outbox; here it is taken from there under a lease, posted, and noted as delivered
//! only after the receiver said yes. So a kill at any moment loses nothing, and may tell something
//! twice: under the same id, by which receivers know repeats.
//!
//! Receivers do not wait for each other: each has a lane of its own with bounds on what is under
//! way and what waits. What finds its lane full is left to its lease and taken again later.

mod message;
mod post;
mod sign;
#[cfg(test)]
mod tests;
mod text;
mod verdict;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use kuboard_catalog::{Catalog, DeliveryRow};
use kuboard_rt::{BoxFuture, Clock, Shutdown, retry::Backoff};
use kuboard_vuln::Severity;
use prometheus::IntCounterVec;
use url::Url;

use self::{
    message::Told,
    post::Client,
    verdict::{Verdict, tries_before},
};

/// Who is told.
#[derive(Clone)]
pub struct Receiver {
    /// Name, as events are addressed to it.
    pub name: String,
    /// Where to post. It may hold a token, so it is never shown.
    pub url: Url,
    /// What signs messages: bytes, or `whsec_` and Base64 as in Standard Webhooks.
    pub secret: Option<Vec<u8>>,
    /// What is posted.
    pub template: Template,
    /// Language of messages to people.
    pub language: Language,
    /// The least severe change worth a message; `None`: all events.
    pub severity_threshold: Option<Severity>,
    /// PEM certificates that are trusted besides the system's.
    pub authority: Option<Vec<u8>>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        let mut shown = f.debug_struct("Receiver");
        shown.field("name", &self.name).field("host", &host);
        shown.field("template", &self.template).finish_non_exhaustive()
    }
}

/// The form of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// CloudEvents 1.0 in JSON, signed as Standard Webhooks say.
    CloudEvents,
    /// Slack's incoming webhooks.
    Slack,
    /// DingTalk robots.
    DingTalk,
    /// Feishu robots.
    Feishu,
    /// WeCom robots.
    WeCom,
}

impl Template {
    /// The language of those who read it, where none is chosen.
    #[must_use]
    pub fn language(self) -> Language {
        match self {
            Self::CloudEvents | Self::Slack => Language::English,
            Self::DingTalk | Self::Feishu | Self::WeCom => Language::Chinese,
        }
    }
}

/// A language of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Chinese.
    Chinese,
}

/// How patient delivery is; the defaults are for service.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Pauses between tries.
    pub backoff: Backoff,
    /// Time of one try.
    pub timeout: Duration,
    /// How often the outbox is looked into while it is empty.
    pub idle: Duration,
    /// How long taken events are this process's. More than `timeout`.
    pub lease: Duration,
    /// Tries before a receiver that is away or busy is given up for an event.
    pub tries: u32,
    /// Tries before an event that is refused is given up.
    pub refused_tries: u32,
}

impl Default for Pace {
    /// Fifteen tries in 35 to 70 minutes; three of what is refused.
    fn default() -> Self {
        Self {
            backoff: Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(600) },
            timeout: Duration::from_secs(10),
            idle: Duration::from_millis(500),
            lease: Duration::from_secs(60),
            tries: 15,
            refused_tries: 3,
        }
    }
}

/// What delivery is made of.
pub struct DeliveryParts {
    /// The outbox.
    pub catalog: Catalog,
    /// Who is told.
    pub receivers: Vec<Receiver>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// `source` of events: a URI reference that stands for this installation.
    pub source: String,
    /// Counts tries by `receiver` and `result`.
    pub tries: IntCounterVec,
    /// How patient.
    pub pace: Pace,
}

/// Events taken at a time.
const BATCH: u32 = 64;
/// Messages to one receiver at a time.
const AT_ONCE: usize = 8;
/// Events that wait for one receiver in memory.
const LANE: usize = 128;
/// Pause while a lane is full.
const FULL: Duration = Duration::from_millis(50);
/// How long a stop waits for answers.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Events for a receiver that is not configured are given up at this age. Before, another process
/// may know it.
const STRANGER_MS: i64 = 86_400_000;

/// Delivers until stop.
///
/// # Errors
/// The certificate of a receiver's authority can't be read; nothing later.
pub async fn run(parts: DeliveryParts, stop: Shutdown) -> anyhow::Result<()> {
    let mut clients: Vec<Client> = Vec::new();
    for (number, receiver) in parts.receivers.iter().enumerate() {
        // The system's certificates are read once for all who need no others.
        let alike = parts.receivers.iter().take(number);
        let same = alike.zip(&clients).find(|(it, _)| it.authority == receiver.authority);
        let client = match same {
            Some((_, client)) => client.clone(),
            None => Client::new(receiver, parts.pace.timeout)?,
        };
        clients.push(client);
    }
    let post_office = PostOffice { parts, clients };
    let mut lanes = Lanes::new(&post_office);
    let mut under_way: FuturesUnordered<BoxFuture<'_, Step>> = FuturesUnordered::new();
    under_way.push(Box::pin(post_office.take(Duration::ZERO)));
    loop {
        let step = tokio::select! {
            () = stop.begun() => break,
            step = under_way.next() => step,
        };
        match step {
            Some(Step::Sent(lane)) => lanes.ended(lane),
            Some(Step::Taken(rows, until_ms)) => {
                let was_full_batch = rows.len() >= BATCH as usize;
                let mut pause = post_office.parts.pace.idle;
                if was_full_batch {
                    pause = Duration::ZERO;
                }
                for row in rows {
                    match lanes.add(row, until_ms) {
                        Added::Waits => {}
                        Added::Full => pause = pause.max(FULL),
                        Added::Stranger(row) => {
                            under_way.push(Box::pin(post_office.stranger(row)));
                        }
                    }
                }
                under_way.push(Box::pin(post_office.take(pause)));
            }
            Some(Step::Settled) | None => {}
        }
        for (lane, row) in lanes.next(&post_office) {
            under_way.push(Box::pin(post_office.send(lane, row)));
        }
    }
    // Whoever is being told at the moment is not told again for a slow answer.
    let answers = async {
        while lanes.are_busy() {
            match under_way.next().await {
                Some(Step::Sent(lane)) => lanes.ended(lane),
                Some(_) => {}
                None => break,
            }
        }
    };
    if tokio::time::timeout(LAST_ANSWERS, answers).await.is_err() {
        tracing::debug!("answers not awaited; what they are about is told again");
    }
    Ok(())
}

enum Step {
    Taken(Vec<DeliveryRow>, i64),
    Sent(usize),
    Settled,
}

/// What is on its way to one receiver.
#[derive(Default)]
struct Lane {
    /// Events and when their lease is over.
    waiting: VecDeque<(DeliveryRow, i64)>,
    running: usize,
}

struct Lanes {
    lanes: Vec<Lane>,
    numbers: HashMap<String, usize>,
}

enum Added {
    Waits,
    Full,
    Stranger(DeliveryRow),
}

impl Lanes {
    fn new(office: &PostOffice) -> Self {
        let receivers = &office.parts.receivers;
        let numbers = receivers.iter().enumerate().map(|(n, it)| (it.name.clone(), n)).collect();
        Self { lanes: receivers.iter().map(|_| Lane::default()).collect(), numbers }
    }

    fn add(&mut self, row: DeliveryRow, until_ms: i64) -> Added {
        let number = self.numbers.get(&row.receiver);
        let Some(lane) = number.and_then(|number| self.lanes.get_mut(*number)) else {
            return Added::Stranger(row);
        };
        if lane.waiting.len() >= LANE {
            return Added::Full;
        }
        lane.waiting.push_back((row, until_ms));
        Added::Waits
    }

    /// What can be sent now.
    fn next(&mut self, office: &PostOffice) -> Vec<(usize, DeliveryRow)> {
        let mut rows = Vec::new();
        // What could not be answered within its lease is another's to send.
        let latest_ms = office.now_ms() + millis(office.parts.pace.timeout);
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            while lane.running < AT_ONCE
                && let Some((row, until_ms)) = lane.waiting.pop_front()
            {
                if until_ms >= latest_ms {
                    lane.running += 1;
                    rows.push((number, row));
                }
            }
        }
        rows
    }

    fn ended(&mut self, number: usize) {
        if let Some(lane) = self.lanes.get_mut(number) {
            lane.running = lane.running.saturating_sub(1);
        }
    }

    fn are_busy(&self) -> bool {
        self.lanes.iter().any(|lane| lane.running > 0)
    }
}

struct PostOffice {
    parts: DeliveryParts,
    clients: Vec<Client>,
}

impl PostOffice {
    fn now_ms(&self) -> i64 {
        self.parts.clock.now_ms()
    }

    async fn take(&self, pause: Duration) -> Step {
        tokio::time::sleep(pause).await;
        let now_ms = self.now_ms();
        let until_ms = now_ms + millis(self.parts.pace.lease);
        match self.parts.catalog.take_deliveries(BATCH, until_ms, now_ms).await {
            Ok(rows) => Step::Taken(rows, until_ms),
            Err(error) => {
                tracing::warn!(%error, "no events taken from the outbox");
                tokio::time::sleep(self.parts.pace.idle * 4).await;
                Step::Taken(Vec::new(), until_ms)
            }
        }
    }

    async fn send(&self, lane: usize, row: DeliveryRow) -> Step {
        let known = (self.parts.receivers.get(lane), self.clients.get(lane));
        if let (Some(receiver), Some(client)) = known {
            self.tell(receiver, client, &row).await;
        }
        Step::Sent(lane)
    }

    async fn tell(&self, receiver: &Receiver, client: &Client, row: &DeliveryRow) {
        let told = Told::read(row);
        if receiver.severity_threshold.is_some_and(|threshold| !told.reaches(threshold)) {
            return self.note(receiver, row, "below-threshold", Verdict::Delivered).await;
        }
        let outgoing = post::outgoing(receiver, &told, row, &self.parts.source, self.now_ms());
        let answer = client.post(outgoing, receiver.template, self.now_ms()).await;
        let verdict = verdict::verdict(&answer, tries_before(row), &self.parts.pace, &row.key);
        let result = match &verdict {
            Verdict::Delivered => "delivered",
            Verdict::Again { .. } => "retry",
            Verdict::Dead { .. } => "dead",
        };
        self.note(receiver, row, result, verdict).await;
    }

    /// Keeps what became of a try.
    async fn note(&self, receiver: &Receiver, row: &DeliveryRow, result: &str, verdict: Verdict) {
        self.parts.tries.with_label_values(&[&receiver.name, result]).inc();
        let (event, name) = (row.event, receiver.name.as_str());
        let catalog = &self.parts.catalog;
        let noted = match verdict {
            Verdict::Delivered => catalog.delivered(event, name).await,
            Verdict::Again { after, reason } => {
                tracing::debug!(receiver = name, event, reason, "event not delivered yet");
                let at_ms = self.now_ms().saturating_add(millis(after));
                catalog.not_delivered(event, name, &reason, Some(at_ms)).await
            }
            Verdict::Dead { reason } => {
                tracing::warn!(
                    receiver = name,
                    event,
                    reason,
                    "event given up; hint: kuboard events replay sends it again"
                );
                catalog.not_delivered(event, name, &reason, None).await
            }
        };
        if let Err(error) = noted {
            tracing::warn!(receiver = name, event, %error, "try not noted; it is told again");
        }
    }

    async fn stranger(&self, row: DeliveryRow) -> Step {
        let now_ms = self.now_ms();
        let is_old = now_ms.saturating_sub(row.created_ms) > STRANGER_MS;
        let again = (!is_old).then(|| now_ms + millis(self.parts.pace.backoff.cap));
        let reason = "no receiver has this name";
        let noted = self.parts.catalog.not_delivered(row.event, &row.receiver, reason, again).await;
        if let Err(error) = noted {
            tracing::debug!(receiver = %row.receiver, event = row.event, %error, "not noted");
        }
        Step::Settled
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
