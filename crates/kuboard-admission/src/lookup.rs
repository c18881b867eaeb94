//! Lookups that many may want at once: whoever asks first starts one, all others listen to it. A
//! lookup goes on when nobody listens any more, so that the next one finds what it found.

use std::{hash::Hash, sync::Arc, time::Duration};

use kuboard_rt::Tasks;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::{sync::watch, time::Instant};

/// Lookups under way at once.
const MAX_LOOKUPS: usize = 1024;
/// A lookup is given up after so long.
const LONGEST: Duration = Duration::from_secs(30);

/// Lookups of one sort.
pub(crate) struct Lookups<K, V> {
    running: Arc<Mutex<FxHashMap<K, watch::Receiver<Option<V>>>>>,
    tasks: Tasks,
    name: &'static str,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The time is over; the lookup goes on.
    Late,
    /// Too many others.
    Full,
    /// The lookup ended without an answer.
    Broken,
}

impl<K, V> Lookups<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(name: &'static str, tasks: Tasks) -> Self {
        Self { running: Arc::default(), tasks, name }
    }

    /// What `look` finds for `key`, or what another one does who asked before. Must be called in a
    /// Tokio runtime.
    pub(crate) async fn ask<F>(
        &self,
        key: K,
        until: Instant,
        look: impl FnOnce() -> F,
    ) -> Result<V, Unanswered>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut answer = self.join(key, look)?;
        let heard = tokio::time::timeout_at(until, answer.wait_for(Option::is_some)).await;
        match heard {
            Err(_) => Err(Unanswered::Late),
            Ok(Err(_)) => Err(Unanswered::Broken),
            Ok(Ok(value)) => value.clone().ok_or(Unanswered::Broken),
        }
    }

    fn join<F>(
        &self,
        key: K,
        look: impl FnOnce() -> F,
    ) -> Result<watch::Receiver<Option<V>>, Unanswered>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = self.running.lock();
        if let Some(answer) = running.get(&key) {
            return Ok(answer.clone());
        }
        if running.len() >= MAX_LOOKUPS {
            return Err(Unanswered::Full);
        }
        let (tell, answer) = watch::channel(None);
        running.insert(key.clone(), answer.clone());
        let ended = Ended { running: self.running.clone(), key };
        let found = look();
        self.tasks.spawn(self.name, async move {
            let found = tokio::time::timeout(LONGEST, found).await;
            // Whoever comes from here on starts anew; whoever listens already is told.
            drop(ended);
            if let Ok(found) = found {
                tell.send_replace(Some(found));
            }
        });
        Ok(answer)
    }
}

/// Takes a lookup off the list when it ends, however it ends.
struct Ended<K: Eq + Hash, V> {
    running: Arc<Mutex<FxHashMap<K, watch::Receiver<Option<V>>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Ended<K, V> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn one_lookup_for_all_who_ask_at_once() {
        let lookups = Lookups::<u8, usize>::new("test", Tasks::default());
        let begun = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let begun = begun.clone();
            lookups.ask(1, soon(), move || async move {
                tokio::task::yield_now().await;
                begun.fetch_add(1, Ordering::SeqCst) + 1
            })
        };
        let all = join_all((0..100).map(|_| ask())).await;
        assert!(all.iter().all(|it| *it == Ok(1)), "{all:?}");
        assert_eq!(ask().await, Ok(2), "an answer is not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_late_leaves_and_the_lookup_goes_on() {
        let tasks = Tasks::default();
        let lookups = Lookups::<u8, u8>::new("test", tasks.clone());
        let (tell, told) = tokio::sync::oneshot::channel::<u8>();
        let first = lookups.ask(1, Instant::now() + Duration::from_secs(1), || async {
            told.await.unwrap_or_default()
        });
        assert_eq!(first.await, Err(Unanswered::Late));
        assert_eq!(tasks.running(), 1);
        let listening = lookups.ask(1, soon(), || async { unreachable!("it runs already") });
        let told = async { tell.send(7) };
        let (answer, _) = tokio::join!(listening, told);
        assert_eq!(answer, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn panics_and_hangs_end_and_leave_nothing() {
        let lookups = Lookups::<u8, u8>::new("test", Tasks::default());
        let panics = lookups.ask(1, soon(), || async { panic!("no") });
        assert_eq!(panics.await, Err(Unanswered::Broken));
        let hangs = lookups.ask(2, soon(), std::future::pending);
        assert_eq!(hangs.await, Err(Unanswered::Broken));
        assert!(lookups.running.lock().is_empty());
    }

    #[tokio::test]
    async fn their_number_is_bounded() {
        let lookups = Lookups::<usize, u8>::new("test", Tasks::default());
        for number in 0..MAX_LOOKUPS {
            assert!(lookups.join(number, std::future::pending).is_ok());
        }
        let one_more = lookups.join(MAX_LOOKUPS, std::future::pending);
        assert!(matches!(one_more, Err(Unanswered::Full)));
        assert!(lookups.join(0, std::future::pending).is_ok(), "who only listens costs nothing");
    }
}
