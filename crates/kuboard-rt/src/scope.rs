//! The long-lived tasks of a role, which live and die together.
//!
//! The first task that fails stops the scope; a stopped scope waits for its tasks for a grace
//! period and then drops them.

use crate::Tasks;
use crate::tasks::panic_message;
use anyhow::{Context, anyhow};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Tells a task that it should end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    pub(crate) fn new(token: CancellationToken) -> Self {
        Self(token)
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.0
    }

    /// Completes once the stop has begun.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// Whether the stop has begun.
    pub fn is_begun(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// A named set of tasks that live and die together.
#[derive(Debug)]
pub struct Scope {
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    short_lived: Tasks,
}

impl Default for Scope {
    fn default() -> Self {
        let stop = CancellationToken::new();
        let short_lived = Tasks::under(&Shutdown(stop.clone()));
        Self { stop, tasks: JoinSet::new(), short_lived }
    }
}

impl Scope {
    /// Runs `task` under `name` until it ends or the scope is dropped. An error or a panic
    /// stops the whole scope.
    pub fn spawn<F, T>(&mut self, name: &'static str, task: F)
    where
        F: FnOnce(Shutdown) -> T,
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let task = task(self.shutdown());
        let task = async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(outcome) => outcome.context(name),
                Err(panic) => Err(anyhow!("{name}: panicked: {}", panic_message(&*panic))),
            }
        };
        self.tasks.spawn(task.instrument(tracing::info_span!("task", name)));
    }

    /// What tells everything in this scope to stop.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.stop.clone())
    }

    /// The scope's short-lived tasks: they stop and drain with the scope, but a failure among
    /// them does not end it.
    pub fn tasks(&self) -> Tasks {
        self.short_lived.clone()
    }

    /// Waits for `signal`, for the first failure or for the end of all tasks, then stops the
    /// rest and waits for them up to `grace`.
    ///
    /// # Errors
    /// The first failure, if there was one, even if it came while draining.
    pub async fn run(
        mut self,
        signal: impl Future<Output = ()>,
        grace: Duration,
    ) -> anyhow::Result<()> {
        tokio::pin!(signal);
        let mut outcome = loop {
            tokio::select! {
                () = &mut signal => break Ok(()),
                done = self.tasks.join_next() => match flatten(done) {
                    None => break Ok(()),
                    Some(Ok(())) => {}
                    Some(Err(err)) => break Err(err),
                },
            }
        };
        if let Err(err) = &outcome {
            tracing::error!("stopping: {err:#}");
        }
        self.stop.cancel();
        let deadline = Instant::now() + grace;
        let drained = tokio::time::timeout_at(deadline, async {
            while let Some(done) = flatten(self.tasks.join_next().await) {
                if let Err(err) = done {
                    tracing::error!("while stopping: {err:#}");
                    if outcome.is_ok() {
                        outcome = Err(err);
                    }
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                running = self.tasks.len(),
                ?grace,
                "tasks still running after the grace period; dropping them"
            );
            self.tasks.shutdown().await;
        }
        self.short_lived.drain(deadline.saturating_duration_since(Instant::now())).await;
        outcome
    }
}

fn flatten(
    done: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>,
) -> Option<anyhow::Result<()>> {
    done.map(|done| done.unwrap_or_else(|err| Err(err.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_signal_stops_and_awaits_everything() {
        let mut scope = Scope::default();
        let ended = Arc::new(AtomicUsize::new(0));
        for name in ["listener", "sweeper"] {
            let ended = ended.clone();
            scope.spawn(name, move |stop| async move {
                stop.begun().await;
                ended.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
        }
        let (tasks, also) = (scope.tasks(), ended.clone());
        let stop = tasks.shutdown();
        tasks.spawn("short", async move {
            stop.begun().await;
            also.fetch_add(1, Ordering::SeqCst);
        });
        scope.run(async {}, Duration::from_secs(60)).await.unwrap();
        assert_eq!(ended.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn the_first_failure_ends_the_role_and_is_named() {
        let mut scope = Scope::default();
        scope.spawn("waits", |stop| async move {
            stop.begun().await;
            Ok(())
        });
        scope.spawn("catalogue", |_| async { anyhow::bail!("disk full") });
        let err = scope.run(std::future::pending(), Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(format!("{err:#}"), "catalogue: disk full");
    }

    #[tokio::test]
    async fn a_panic_is_a_named_failure() {
        let mut scope = Scope::default();
        scope.spawn("index", |_| async { panic!("row {}", 3) });
        let err = scope.run(std::future::pending(), Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(format!("{err:#}"), "index: panicked: row 3");
    }

    #[tokio::test]
    async fn a_failure_while_stopping_is_not_swallowed() {
        let mut scope = Scope::default();
        scope.spawn("flush", |stop| async move {
            stop.begun().await;
            anyhow::bail!("not flushed")
        });
        let err = scope.run(async {}, Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(format!("{err:#}"), "flush: not flushed");
    }

    #[tokio::test(start_paused = true)]
    async fn what_outstays_the_grace_is_dropped() {
        let mut scope = Scope::default();
        scope.spawn("stuck", |_| std::future::pending());
        scope.tasks().spawn("also stuck", std::future::pending());
        scope.run(async {}, Duration::from_secs(5)).await.unwrap();
    }
}
