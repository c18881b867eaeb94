//! Child processes in the workspace root: run, read the output, or echo it while counting.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A child process that starts in the workspace's root and whose failure names its command line.
pub(crate) struct Command(std::process::Command);

impl Command {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Command {
        let mut command = std::process::Command::new(program);
        command.current_dir(root());
        Command(command)
    }

    /// The cargo that runs us.
    pub(crate) fn cargo() -> Command {
        Command::new(env!("CARGO"))
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Command {
        self.0.arg(argument);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        self.0.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        self.0.env(name, value);
        self
    }

    pub(crate) fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Command {
        self.0.envs(variables);
        self
    }

    pub(crate) fn without_env(mut self, name: impl AsRef<OsStr>) -> Command {
        self.0.env_remove(name);
        self
    }

    pub(crate) fn directory(mut self, directory: impl AsRef<Path>) -> Command {
        self.0.current_dir(directory);
        self
    }

    /// Runs to the end; any status but success is an error.
    pub(crate) fn run(mut self) -> Result<()> {
        let status = self.0.status().with_context(|| format!("start {self}"))?;
        if !status.success() {
            bail!("{self}: {status}");
        }
        Ok(())
    }

    /// Standard output of a run that succeeded.
    pub(crate) fn read(mut self) -> Result<String> {
        let output = self.0.output().with_context(|| format!("start {self}"))?;
        if !output.status.success() {
            bail!("{self}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether it succeeded, and what it wrote to standard error.
    pub(crate) fn capture(mut self) -> Result<(bool, String)> {
        let output = self.0.output().with_context(|| format!("start {self}"))?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// Runs with its standard output passed on line by line and shown to `each`; true on success.
    pub(crate) fn watch(mut self, mut each: impl FnMut(&str)) -> Result<bool> {
        let mut child =
            self.0.stdout(Stdio::piped()).spawn().with_context(|| format!("start {self}"))?;
        let output = child.stdout.take().context("the child has no standard output")?;
        let mut lines = BufReader::new(output);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            std::io::stdout().write_all(&line)?;
            each(&String::from_utf8_lossy(&line));
            line.clear();
        }
        Ok(child.wait()?.success())
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.get_program().to_string_lossy())?;
        for argument in self.0.get_args() {
            write!(f, " {}", argument.to_string_lossy())?;
        }
        Ok(())
    }
}
