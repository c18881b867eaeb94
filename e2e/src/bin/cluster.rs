//! A cluster to work against by hand: `cargo xtask cluster up`, `status`, `down`.
//!
//! `up` starts this program a second time in the background, where it holds the cluster until
//! `down` asks it to end. Whatever kills it ends the cluster too.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kuboard_testkit::cluster::{Cluster, Component, Level};
use kuboard_testkit::tool;

/// How long a start or an end may take.
const BOUND: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["up", folder, level] => up(&State::of(folder), level),
        ["hold", folder, level] => hold(&State::of(folder), level),
        ["down", folder] => down(&State::of(folder)),
        ["status", folder] => status(&State::of(folder)),
        _ => Err(anyhow::anyhow!("usage: cluster up FOLDER LEVEL | down FOLDER | status FOLDER")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The files by which the commands and the holder know of each other.
struct State {
    folder: PathBuf,
}

impl State {
    fn of(folder: &str) -> State {
        State { folder: PathBuf::from(folder) }
    }

    /// Holds the cluster itself; made anew by each start.
    fn cluster(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    /// The holder's process id.
    fn holder(&self) -> PathBuf {
        self.folder.join("holder.pid")
    }

    /// What the holder prints.
    fn log(&self) -> PathBuf {
        self.folder.join("holder.log")
    }

    /// Written when the cluster is ready: where its kubeconfig is.
    fn ready(&self) -> PathBuf {
        self.folder.join("ready")
    }

    /// Asks the holder to end.
    fn end(&self) -> PathBuf {
        self.folder.join("end")
    }

    /// The holder's id while it lives. An id that was given to another process since does not
    /// count: only a holder names the folder.
    fn living(&self) -> Option<u32> {
        let id = fs::read_to_string(self.holder()).ok()?.trim().parse().ok()?;
        let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(&format!("hold\0{}\0", self.folder.display())).then_some(id)
    }
}

fn level(name: &str) -> Result<Level> {
    match name {
        "api-server" => Ok(Level::ApiServer),
        "control-plane" => Ok(Level::ControlPlane),
        "node" => Ok(Level::Node),
        _ => bail!("{name} is no level; hint: api-server, control-plane or node"),
    }
}

fn up(state: &State, name: &str) -> Result<()> {
    level(name)?;
    if state.living().is_none() {
        fs::create_dir_all(&state.folder)?;
        for file in [state.ready(), state.end()] {
            remove(&file)?;
        }
        let log = File::create(state.log())?;
        let mut holder = Command::new(env::current_exe()?)
            .arg("hold")
            .arg(&state.folder)
            .arg(name)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C at the terminal is not meant for it.
            .process_group(0)
            .spawn()?;
        fs::write(state.holder(), holder.id().to_string())?;
        tool::wait_until("the cluster", BOUND, || {
            if let Some(status) = holder.try_wait()? {
                bail!("it ended with {status}: {}", fs::read_to_string(state.log())?.trim());
            }
            Ok(state.ready().exists())
        })?;
    }
    let kubeconfig = fs::read_to_string(state.ready())
        .context("a cluster is being started there; hint: try again when it is ready")?;
    println!("export KUBECONFIG={}", kubeconfig.trim());
    Ok(())
}

/// Holds the cluster until it is asked to end.
fn hold(state: &State, name: &str) -> Result<()> {
    let cluster = Cluster::builder(level(name)?).folder(&state.cluster()).start()?;
    let ready = state.folder.join("ready.new");
    fs::write(&ready, cluster.kubeconfig().display().to_string())?;
    fs::rename(&ready, state.ready())?;
    while !state.end().exists() {
        for component in Component::ALL.into_iter().filter(|it| cluster.has(*it)) {
            if !cluster.is_running(component) {
                bail!("{} ended; see {}", component.name(), cluster.log_file(component).display());
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn down(state: &State) -> Result<()> {
    if state.living().is_none() {
        println!("no cluster runs there");
        return Ok(());
    }
    fs::write(state.end(), "")?;
    tool::wait_until("the cluster to end", BOUND, || Ok(state.living().is_none()))?;
    for file in [state.ready(), state.end(), state.holder()] {
        remove(&file)?;
    }
    Ok(())
}

fn status(state: &State) -> Result<()> {
    match (state.living(), fs::read_to_string(state.ready())) {
        (Some(id), Ok(kubeconfig)) => println!("running (process {id}): {}", kubeconfig.trim()),
        (Some(id), Err(_)) => println!("starting (process {id})"),
        (None, _) => println!("not running"),
    }
    Ok(())
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", file.display()))
        }
        _ => Ok(()),
    }
}
