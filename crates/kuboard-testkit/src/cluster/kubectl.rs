//! kubectl as somebody, with nothing of the person who runs the tests.

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::control_plane::kubernetes;
use crate::tool;

/// kubectl with one kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    home: PathBuf,
    kubeconfig: PathBuf,
}

/// What a run left.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Whether it ended with 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Kubectl {
    pub(super) fn new(home: &Path, kubeconfig: PathBuf) -> Kubectl {
        Kubectl { home: home.to_owned(), kubeconfig }
    }

    /// The kubeconfig that it uses.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `kubectl ARGUMENTS`, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = kubernetes("kubectl")?;
        command.args(arguments);
        self.at_home(&mut command);
        Ok(command)
    }

    /// `helm ARGUMENTS`, ready to run, against the same cluster as the same user.
    pub fn helm(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = kubernetes("helm")?;
        command.args(arguments);
        self.at_home(&mut command);
        Ok(command)
    }

    fn at_home(&self, command: &mut Command) {
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .env("KUBECACHEDIR", self.home.join("kubectl"))
            .env("KUBERC", "off")
            .env("NO_PROXY", "*")
            .env("HELM_CACHE_HOME", self.home.join("helm/cache"))
            .env("HELM_CONFIG_HOME", self.home.join("helm/config"))
            .env("HELM_DATA_HOME", self.home.join("helm/data"))
            .stdin(Stdio::null());
    }

    /// `kubectl ARGUMENTS`; what it prints. Any failure is an error with what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        tool::output(&mut self.command(arguments)?)
    }

    /// `kubectl ARGUMENTS -o json`, read.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl printed no JSON: {text}"))
    }

    /// `kubectl ARGUMENTS` with this standard input, however it ends.
    pub fn ask(&self, arguments: &[&str], input: Option<&str>) -> Result<Answered> {
        let mut command = self.command(arguments)?;
        if let Some(text) = input {
            let mut file = tempfile::tempfile()?;
            file.write_all(text.as_bytes())?;
            file.rewind()?;
            command.stdin(file);
        }
        let done = command.output()?;
        Ok(Answered {
            success: done.status.success(),
            stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        })
    }

    /// `kubectl apply` of a text of YAML (or JSON) documents; what it prints.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.accepted(&["apply", "-f", "-"], yaml)
    }

    /// `kubectl ARGUMENTS` with this standard input, which must succeed; what it prints, warnings
    /// too.
    pub fn accepted(&self, arguments: &[&str], input: &str) -> Result<String> {
        let done = self.ask(arguments, Some(input))?;
        if !done.success {
            bail!("kubectl {}: {}{}", arguments.join(" "), done.stdout, done.stderr);
        }
        Ok(done.stdout + &done.stderr)
    }

    /// `kubectl ARGUMENTS` with this standard input, which must fail; what it said.
    pub fn refused(&self, arguments: &[&str], input: &str) -> Result<String> {
        let done = self.ask(arguments, Some(input))?;
        if done.success {
            bail!("kubectl {} was not refused: {}", arguments.join(" "), done.stdout);
        }
        Ok(done.stderr)
    }
}
