//! One-shot commands of the product, run as a user runs them, in a folder that has everything they
//! read and keep, so that nothing of the person who runs the tests is used.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kuboard_testkit::feeds::Feeds;
use kuboard_testkit::{Kuboard, tool};
use serde_json::Value;
use tempfile::TempDir;

/// Bound on a command that ends by itself.
const BOUND: Duration = Duration::from_secs(120);

/// What a command that has ended left.
#[derive(Debug)]
pub struct Done {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs to the end, with an empty standard input.
pub fn finish(command: &mut Command) -> Result<Done> {
    let outputs = tool::folder("outputs")?;
    let at = |name: &str| outputs.path().join(name);
    command.stdin(Stdio::null());
    command.stdout(File::create(at("stdout"))?).stderr(File::create(at("stderr"))?);
    let mut child = command.spawn()?;
    let mut status = None;
    let ended = tool::wait_until(&tool::line(command), BOUND, || {
        status = child.try_wait()?;
        Ok(status.is_some())
    });
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    ended.with_context(|| fs::read_to_string(at("stderr")).unwrap_or_default())?;
    let read = |name: &str| Ok::<_, anyhow::Error>(fs::read(at(name))?);
    Ok(Done {
        code: status.and_then(|status| status.code()),
        stdout: String::from_utf8_lossy(&read("stdout")?).into_owned(),
        stderr: String::from_utf8_lossy(&read("stderr")?).into_owned(),
    })
}

/// One finding, in short: id, package, fixed versions, severity.
pub type Found = BTreeSet<(String, String, String, String)>;

/// The same from a table of the test.
pub fn found(table: &[(&str, &str, &str, &str)]) -> Found {
    let own = |text: &str| text.to_owned();
    table.iter().map(|(a, b, c, d)| (own(a), own(b), own(c), own(d))).collect()
}

/// The findings of a report in the product's own JSON.
pub fn findings(report: &Value) -> Result<Found> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = report["findings"].as_array().with_context(|| format!("no findings: {report}"))?;
    let found: Found = list
        .iter()
        .map(|one| {
            let fixed: Vec<String> =
                one["fixed_in"].as_array().into_iter().flatten().map(text).collect();
            let name = text(&one["package"]["name"]).to_lowercase();
            (text(&one["id"]), name, fixed.join(" "), text(&one["severity"]))
        })
        .collect();
    ensure!(found.len() == list.len(), "a finding is listed twice: {list:#?}");
    Ok(found)
}

/// A place to scan from: a database, a cache, a home.
pub struct Desk {
    folder: TempDir,
}

impl Desk {
    /// Without a database.
    pub fn empty() -> Result<Desk> {
        Ok(Desk { folder: tool::folder("desk")? })
    }

    /// With a database compiled of these feeds.
    pub fn with(feeds: &Feeds) -> Result<Desk> {
        let desk = Desk::empty()?;
        desk.update(feeds)?;
        Ok(desk)
    }

    /// A path in its folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub fn path(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    /// Where its database is.
    pub fn database(&self) -> PathBuf {
        self.at("advisories")
    }

    /// Compiles these feeds by `kuboard db update`, out of a folder.
    pub fn update(&self, feeds: &Feeds) -> Result<()> {
        let mirror = self.at("mirror");
        feeds.write(&mirror)?;
        update(&self.database(), &mirror, feeds)
    }

    /// `kuboard ARGUMENTS`, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Kuboard::command()?;
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("XDG_CACHE_HOME", self.at("cache"))
            .env("DOCKER_CONFIG", self.at("docker"))
            .env("TMPDIR", self.folder.path());
        Ok(command)
    }

    /// `kuboard ARGUMENTS`.
    pub fn run(&self, arguments: &[&str]) -> Result<Done> {
        finish(&mut self.command(arguments)?)
    }

    /// `kuboard db ARGUMENTS` on its database.
    pub fn db(&self, arguments: &[&str]) -> Result<Done> {
        self.run(&[&["db", "--db-dir", &self.path("advisories")], arguments].concat())
    }

    /// `kuboard db ARGUMENTS -o json`, which must succeed.
    pub fn db_json(&self, arguments: &[&str]) -> Result<Value> {
        let done = self.db(&[arguments, &["-o", "json"]].concat())?;
        ensure!(done.code == Some(0), "{arguments:?}: {done:?}");
        serde_json::from_str(&done.stdout).with_context(|| format!("{arguments:?}: {done:?}"))
    }

    /// `kuboard scan ARGUMENTS` with its database.
    pub fn scan(&self, arguments: &[&str]) -> Result<Done> {
        let fixed = ["scan", "--quiet", "--db-dir", &self.path("advisories")];
        self.run(&[&fixed, arguments].concat())
    }

    /// `kuboard scan ARGUMENTS --format json`, which must succeed.
    pub fn report(&self, arguments: &[&str]) -> Result<Value> {
        let done = self.scan(&[arguments, &["--format", "json"]].concat())?;
        ensure!(done.code == Some(0), "{arguments:?}: {done:?}");
        serde_json::from_str(&done.stdout).with_context(|| format!("{arguments:?}: {done:?}"))
    }

    /// The scan must find exactly this; the report.
    pub fn check(&self, arguments: &[&str], table: &[(&str, &str, &str, &str)]) -> Result<Value> {
        let report = self.report(arguments)?;
        let (seen, wanted) = (findings(&report)?, found(table));
        let more: Vec<_> = seen.difference(&wanted).collect();
        let less: Vec<_> = wanted.difference(&seen).collect();
        ensure!(seen == wanted, "{arguments:?}: too much {more:#?}, missing {less:#?}");
        Ok(report)
    }
}

/// `kuboard db update` of the database in one folder from a mirror in another.
pub fn update(database: &Path, mirror: &Path, feeds: &Feeds) -> Result<()> {
    let mut command = Kuboard::command()?;
    command.args(["db", "update", "--db-dir"]).arg(database);
    command.arg("--mirror").arg(format!("file://{}", mirror.display()));
    command.args(feeds.names().iter().flat_map(|name| ["--feed", name]));
    let done = finish(&mut command)?;
    ensure!(done.code == Some(0), "{done:?}");
    Ok(())
}
