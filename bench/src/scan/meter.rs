//! What one process costs, from start to end, as the kernel counts it.
//!
//! The kernel counts the memory of whoever starts a process as its own until it becomes another
//! program. The measuring process holds whole feeds; so it starts itself afresh (`bench meter`),
//! which starts the program.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::plan::MIB;

/// The cost of a process and all that it waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system time in seconds.
    pub(crate) cpu: f64,
    /// From start to end in seconds.
    pub(crate) wall: f64,
    /// Largest resident memory in MiB.
    pub(crate) peak: f64,
}

/// Runs `command` with nothing on standard input; what it prints goes to `output`. A status other
/// than those in `accepted` is an error that carries what it wrote to standard error.
pub(crate) fn measure(command: &Command, output: &Path, accepted: &[i32]) -> Result<Usage> {
    let figures = output.with_extension("usage");
    let mut meter = Command::new(std::env::current_exe()?);
    meter.arg("meter").arg(&figures).arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => meter.env(name, value),
            None => meter.env_remove(name),
        };
    }
    let errors = output.with_extension("errors");
    let status = meter
        .stdin(Stdio::null())
        .stdout(fs::File::create(output)?)
        .stderr(fs::File::create(&errors)?)
        .status()?;
    ensure!(status.success(), "the meter failed: {}", fs::read_to_string(&errors)?);
    let figures: Value = serde_json::from_slice(&fs::read(&figures)?)?;
    let number = |name: &str| figures[name].as_f64().with_context(|| format!("no {name}"));
    let code = number("status")? as i32;
    if !accepted.contains(&code) {
        let said = fs::read_to_string(&errors)?;
        let line = kuboard_testkit::tool::line(command);
        bail!("{line}: status {code}\n{}", said.trim_end());
    }
    Ok(Usage { cpu: number("cpu")?, wall: number("wall")?, peak: number("peak")? })
}

/// `bench meter FILE -- PROGRAM [ARGUMENT...]`: runs the program and writes its cost to the file.
pub(crate) fn run(file: &Path, line: &[OsString]) -> Result<()> {
    let (program, arguments) = line.split_first().context("no program is named")?;
    let started = Instant::now();
    let child = Command::new(program).args(arguments).spawn().context("start the program")?;
    let mut status = 0;
    // SAFETY: rusage is plain numbers; all zeros are a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let id = libc::pid_t::try_from(child.id())?;
    // SAFETY: wait4(2) writes one int and one rusage, which the pointers name.
    let waited = unsafe { libc::wait4(id, &raw mut status, 0, &raw mut usage) };
    let wall = started.elapsed().as_secs_f64();
    ensure!(waited == id, "wait4: {}", std::io::Error::last_os_error());
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let figures = json!({
        "status": code, "wall": wall, "cpu": seconds(usage.ru_utime) + seconds(usage.ru_stime),
        "peak": usage.ru_maxrss as f64 * 1024.0 / MIB as f64,
    });
    Ok(fs::write(file, figures.to_string())?)
}

#[cfg(test)]
mod tests {
    use super::run;
    use std::ffi::OsString;

    #[test]
    fn status_time_and_memory_are_counted() {
        let folder = kuboard_testkit::tool::folder("meter").unwrap();
        let file = folder.path().join("x");
        let line = ["sh", "-c", "exit 3"].map(OsString::from);
        run(&file, &line).unwrap();
        let figures: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(figures["status"], 3);
        assert!(figures["peak"].as_f64().unwrap() > 0.1);
    }
}
