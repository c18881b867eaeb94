//! What a server's process costs, read from `/proc`, and the CPU clock of one of our own threads.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use kuboard_testkit::process::Process;

use crate::plan::MIB;

/// How often memory is looked at.
const PERIOD: Duration = Duration::from_millis(20);

/// Resident memory of a process over some time, in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// The most that was seen by looking (`VmRSS`).
    pub(crate) most: f64,
    /// The most that was its own and not pages of files (`RssAnon`).
    pub(crate) most_own: f64,
    /// The kernel's own record of the most (`VmHWM`), since the process began.
    pub(crate) peak: f64,
}

/// Looks at the memory of `process` while `work` runs.
pub(crate) fn watched<T>(
    process: &Process,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Memory)> {
    let id = process.id();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| -> Result<Memory> {
            let mut memory = Memory::default();
            loop {
                let last = over.load(Ordering::SeqCst);
                let status = fs::read_to_string(format!("/proc/{id}/status"))?;
                memory.most = memory.most.max(field(&status, "VmRSS:")?);
                memory.most_own = memory.most_own.max(field(&status, "RssAnon:")?);
                memory.peak = field(&status, "VmHWM:")?;
                if last {
                    return Ok(memory);
                }
                std::thread::sleep(PERIOD);
            }
        });
        let done = work();
        over.store(true, Ordering::SeqCst);
        let memory = watcher.join().map_err(|_| anyhow::anyhow!("the memory watcher ended"))?;
        Ok((done?, memory?))
    })
}

/// A field of `/proc/PID/status` that is in kB, as MiB.
fn field(status: &str, name: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: f64 = number.with_context(|| format!("no {name} in /proc"))?.parse()?;
    Ok(kilobytes * 1024.0 / MIB as f64)
}

/// CPU seconds of a process while `work` runs, with what it does right after included.
pub(crate) fn cpu<T>(process: &Process, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let before = process.cpu_seconds()?;
    let done = work()?;
    // Tasks that end after the last byte was sent belong to the work.
    std::thread::sleep(Duration::from_millis(50));
    Ok((done, process.cpu_seconds()? - before))
}

/// Lets the disk finish what earlier rounds have left to it.
pub(crate) fn settle_disk() {
    // SAFETY: sync(2) takes and gives nothing.
    unsafe { libc::sync() };
}

/// CPU seconds that the calling thread has used.
pub(crate) fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec, which `time` is.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
