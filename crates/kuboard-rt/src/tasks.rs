//! Tasks that come and go while a role runs (a connection, a download, a renewal): each is
//! named, counted and waited for. Nothing else in the workspace may spawn.

use crate::Shutdown;
use futures_util::FutureExt;
use std::any::Any;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A growing and shrinking set of tasks. Cheap to clone; all clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stop: CancellationToken,
    /// Raised when the grace period is over.
    kill: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// A set of its own that is told to stop when `parent` is.
    pub fn under(parent: &Shutdown) -> Self {
        Self(Arc::new(Inner { stop: parent.token().child_token(), ..Inner::default() }))
    }

    /// Runs `task` until it ends. A panic is logged under `name` and ends only that task.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let kill = self.0.kill.clone();
        let span = tracing::debug_span!("task", name);
        let task = async move {
            let task = AssertUnwindSafe(task).catch_unwind();
            match kill.run_until_cancelled(task).await {
                Some(Ok(())) => {}
                Some(Err(panic)) => {
                    tracing::error!(task = name, "panicked: {}", panic_message(&*panic));
                }
                None => tracing::debug!(task = name, "dropped after the grace period"),
            }
        };
        self.0.tracker.spawn(task.instrument(span));
    }

    /// Runs `work` on the pool of blocking threads. A blocking call cannot be interrupted, so
    /// it must be bounded by itself.
    ///
    /// # Errors
    /// When `work` panics or the runtime is going away.
    pub async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.0.tracker.spawn_blocking(work).await.map_err(|err| match err.try_into_panic() {
            Ok(panic) => io::Error::other(format!("{name} panicked: {}", panic_message(&*panic))),
            Err(err) => io::Error::other(format!("{name} did not run: {err}")),
        })
    }

    /// What a task of this set waits on to learn that it should end.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown::new(self.0.stop.clone())
    }

    /// How many tasks run now.
    pub fn running(&self) -> usize {
        self.0.tracker.len()
    }

    /// Tells all tasks to stop and waits until they have; those that still run after `grace`
    /// are dropped.
    pub async fn drain(&self, grace: Duration) {
        self.0.stop.cancel();
        self.0.tracker.close();
        if tokio::time::timeout(grace, self.0.tracker.wait()).await.is_err() {
            tracing::warn!(
                running = self.running(),
                ?grace,
                "tasks still running after the grace period; dropping them"
            );
            self.0.kill.cancel();
            // Dropping is quick, but a blocking call may take its time: do not wait for ever.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.0.tracker.wait()).await;
        }
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn drain_waits_for_tasks_that_heed_the_stop() {
        let tasks = Tasks::default();
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let (stop, done) = (tasks.shutdown(), done.clone());
            tasks.spawn("waits", async move {
                stop.begun().await;
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        tasks.drain(Duration::from_secs(60)).await;
        assert_eq!((done.load(Ordering::SeqCst), tasks.running()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn drain_drops_what_outstays_the_grace() {
        let tasks = Tasks::default();
        tasks.spawn("stuck", std::future::pending());
        tasks.drain(Duration::from_secs(5)).await;
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_only() {
        let tasks = Tasks::default();
        tasks.spawn("bad", async { panic!("no disk") });
        let (tell, told) = tokio::sync::oneshot::channel();
        tasks.spawn("good", async move {
            let _ = tell.send(7);
        });
        assert_eq!(told.await, Ok(7));
        tasks.drain(Duration::from_secs(60)).await;
    }

    #[tokio::test]
    async fn a_blocking_panic_is_an_error() {
        let tasks = Tasks::default();
        assert_eq!(tasks.blocking("adds", || 1 + 1).await.unwrap(), 2);
        let err = tasks.blocking("reads", || panic!("bad sector")).await.unwrap_err();
        assert_eq!(err.to_string(), "reads panicked: bad sector");
    }

    #[tokio::test]
    async fn a_child_set_stops_with_its_parent_and_not_the_other_way() {
        let parent = Tasks::default();
        let child = Tasks::under(&parent.shutdown());
        let other = Tasks::under(&parent.shutdown());
        child.drain(Duration::ZERO).await;
        assert!(child.shutdown().is_begun() && !parent.shutdown().is_begun());
        parent.drain(Duration::ZERO).await;
        assert!(other.shutdown().is_begun());
    }
}
