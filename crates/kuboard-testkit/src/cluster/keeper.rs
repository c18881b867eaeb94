//! The thread that processes are started from. A process ends with the thread that started it
//! ([`Process`](crate::process::Process)); a cluster that several tests share must outlive the
//! thread of the first of them, and end with the program.

use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};

type Job = Box<dyn FnOnce() + Send>;

/// The thread. Dropping it ends it, and with it what was started from it.
pub(super) struct Keeper {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn new() -> Result<Keeper> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(move || queue.into_iter().for_each(|job| job()))?;
        Ok(Keeper { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Does this on the thread, and waits for it.
    pub(super) fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = mpsc::channel();
        let job = Box::new(move || drop(answer.send(act())));
        let jobs = self.jobs.as_ref().context("the cluster has ended")?;
        jobs.send(job).ok().context("the cluster's thread has ended")?;
        answered.recv().context("the cluster's thread has ended")?
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic was told when it happened.
            let _ = thread.join();
        }
    }
}
