//! A server's process: started with its output in a file, measured through `/proc`, ended when the
//! value is dropped.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::tool;

/// A child process of the test. Dropping it kills it and waits for its end. It also ends with the
/// thread that started it, so that a killed or interrupted test leaves nothing behind.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both outputs appended to the file `log`, in a process group of its
    /// own, so that a Ctrl-C at the terminal reaches the test first.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let output = File::options().create(true).append(true).open(log)?;
        // SAFETY: prctl(2) with integers is safe to call between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", tool::line(command)))?;
        Ok(Process { child, name: name.to_owned(), log: log.to_owned() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that holds what it printed.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until `ready` is true, or fails with the end of its log when it ends first or `bound`
    /// passes.
    pub fn wait_ready(
        &mut self,
        bound: Duration,
        mut ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                bail!("{} ended with {status}:\n{}", self.name, self.log_tail());
            }
            if ready()? {
                return Ok(());
            }
            if started.elapsed() > bound {
                bail!("{} is not ready after {bound:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `kill -9`, and waits for the end.
    pub fn kill9(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal, for example `libc::SIGHUP`.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let id = i32::try_from(self.child.id())?;
        // SAFETY: kill(2) takes two integers; the child is ours and not yet waited for, so that
        // its id cannot have been given to another process.
        if unsafe { libc::kill(id, signal) } != 0 {
            return Err(std::io::Error::last_os_error()).context(format!("signal {}", self.name));
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits at most `bound` for it.
    pub fn terminate(&mut self, bound: Duration) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if started.elapsed() > bound {
                bail!("{} did not end within {bound:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory now, in bytes.
    pub fn rss(&self) -> Result<u64> {
        self.status_kilobytes("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    pub fn peak_rss(&self) -> Result<u64> {
        self.status_kilobytes("VmHWM:")
    }

    /// Seconds of CPU that it used, user and system, all threads, ended ones too.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // The second field is the program's name in parentheses and may hold anything.
        let (_, fields) = text.rsplit_once(") ").context("unknown form of /proc/PID/stat")?;
        let mut ticks = fields.split(' ').skip(11).map(str::parse::<u64>);
        let mut next =
            || ticks.next().context("short /proc/PID/stat")?.map_err(anyhow::Error::from);
        let sum = next()? + next()?;
        // SAFETY: sysconf(3) reads a constant of the system.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Ok(sum as f64 / per_second.max(1) as f64)
    }

    fn status_kilobytes(&self, field: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.with_context(|| format!("no {field} in /proc/PID/status"))?.parse::<u64>()?
            * 1024)
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended and waited for is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
