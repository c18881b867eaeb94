//! Whether this process lives and whether it can do its work, told truthfully.

use crate::BoxFuture;
use futures_util::future::join_all;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A check that takes longer than this has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The health of a process. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    draining: AtomicBool,
    checks: RwLock<Vec<(&'static str, Check)>>,
}

impl Health {
    /// No checks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that readiness depends on. It says what is wrong, for the operator's eyes.
    pub fn register<F>(&self, name: &'static str, check: F)
    where
        F: Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
    {
        self.0.checks.write().push((name, Arc::new(check)));
    }

    /// True while the process can answer at all: the answer itself is the proof. Restarting
    /// would not mend a failed readiness check, so those do not count here.
    pub fn live(&self) -> bool {
        true
    }

    /// Runs all checks at once. Ready means that every outcome is `Ok`.
    pub async fn ready(&self) -> Vec<(&'static str, Result<(), String>)> {
        let checks = self.0.checks.read().clone();
        let mut outcomes = join_all(checks.into_iter().map(|(name, check)| async move {
            let outcome = tokio::time::timeout(CHECK_TIMEOUT, check())
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {CHECK_TIMEOUT:?}")));
            (name, outcome)
        }))
        .await;
        if self.is_draining() {
            outcomes.push(("draining", Err("the process is stopping".to_owned())));
        }
        outcomes
    }

    /// From now on not ready: the process finishes what it has and takes nothing new.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    /// Whether [`Health::set_draining`] was called.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readiness_is_the_sum_of_its_checks() {
        let health = Health::new();
        assert_eq!(health.ready().await, []);
        health.register("disk", || Box::pin(async { Ok(()) }));
        health.register("catalogue", || Box::pin(async { Err("locked".to_owned()) }));
        health.register("upstream", || Box::pin(std::future::pending()));
        health.set_draining();
        let said: Vec<_> =
            health.ready().await.into_iter().map(|(name, r)| (name, r.err())).collect();
        let expected = [
            ("disk", None),
            ("catalogue", Some("locked")),
            ("upstream", Some("no answer within 5s")),
            ("draining", Some("the process is stopping")),
        ];
        let expected: Vec<_> =
            expected.map(|(name, err)| (name, err.map(str::to_owned))).into_iter().collect();
        assert_eq!(said, expected);
        assert!(health.live());
    }
}
