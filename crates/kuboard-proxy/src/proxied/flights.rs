//! One question at a time: concurrent callers with the same key share one answer.
//!
//! The question runs as a task of its own, so that a caller who hangs up never cancels it for
//! the others.

use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc};

use kuboard_rt::Tasks;
use parking_lot::Mutex;
use tokio::sync::watch;

type Running<K, V> = HashMap<K, watch::Receiver<Option<V>>>;

/// The questions under way, by key.
pub(crate) struct Flights<K, V> {
    running: Arc<Mutex<Running<K, V>>>,
    tasks: Tasks,
    name: &'static str,
}

/// What [`Flights::board`] found.
pub(crate) enum Boarding<V> {
    /// This caller's question was started.
    Started(watch::Receiver<Option<V>>),
    /// Another caller's question was already under way.
    Joined(watch::Receiver<Option<V>>),
}

impl<K, V> Flights<K, V>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(name: &'static str, tasks: Tasks) -> Self {
        Self { running: Arc::default(), tasks, name }
    }

    /// Joins the question of `key`, starting it with `ask` if it is not under way.
    pub(crate) fn board<F>(&self, key: &K, ask: impl FnOnce() -> F) -> Boarding<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = self.running.lock();
        if let Some(receiver) = running.get(key) {
            return Boarding::Joined(receiver.clone());
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(key.clone(), receiver.clone());
        drop(running);
        let landing = Landing { running: self.running.clone(), key: key.clone() };
        let question = ask();
        self.tasks.spawn(self.name, async move {
            let answer = question.await;
            drop(landing);
            // Nobody may be waiting any more: the answer had its effect all the same.
            let _ = sender.send(Some(answer));
        });
        Boarding::Started(receiver)
    }

    /// Waits for the answer of `key`; `None` if the task was ended by shutdown.
    pub(crate) async fn ask<F>(&self, key: &K, ask: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (Boarding::Started(mut answer) | Boarding::Joined(mut answer)) = self.board(key, ask);
        answer.wait_for(Option::is_some).await.ok().and_then(|value| value.clone())
    }
}

/// Takes the key off the list when the question ends, however it ends.
struct Landing<K: Eq + Hash, V> {
    running: Arc<Mutex<Running<K, V>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn concurrent_callers_share_one_question() {
        let flights = Arc::new(Flights::<&str, usize>::new("test", Tasks::default()));
        let asked = Arc::new(AtomicUsize::new(0));
        let answers = futures_util::future::join_all((0..50).map(|_| {
            let (flights, asked) = (flights.clone(), asked.clone());
            async move {
                flights
                    .ask(&"key", || async move {
                        tokio::task::yield_now().await;
                        asked.fetch_add(1, Ordering::SeqCst) + 1
                    })
                    .await
            }
        }))
        .await;
        assert!(answers.iter().all(|answer| *answer == Some(1)), "{answers:?}");
        assert_eq!(flights.ask(&"key", || async { 7 }).await, Some(7), "a later call asks anew");
    }

    #[tokio::test]
    async fn a_caller_that_hangs_up_cancels_nothing() {
        let flights = Arc::new(Flights::<u8, u8>::new("test", Tasks::default()));
        let (release, gate) = tokio::sync::oneshot::channel::<()>();
        let boarding = flights.board(&1, || async move {
            let _ = gate.await;
            9
        });
        drop(boarding);
        let Boarding::Joined(mut answer) = flights.board(&1, || async { 0 }) else {
            panic!("the first question must still be under way");
        };
        let _ = release.send(());
        assert_eq!(*answer.wait_for(Option::is_some).await.unwrap(), Some(9));
    }
}
