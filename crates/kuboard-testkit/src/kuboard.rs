//! The product's own binary, started as a user would start it.
//!
//! The binary is `$KUBOARD_BIN`, else the checkout's release build, else its debug build.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::RegistryClient;
use crate::http::Request;
use crate::process::Process;
use crate::tool;

/// How long a start may take: the store is listed and the catalogue migrated.
const START: Duration = Duration::from_secs(30);

/// How the binary shall be started; `start` does it.
#[derive(Default)]
pub struct Builder {
    config: String,
    data_dir: Option<PathBuf>,
    listen: Option<String>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    tls: bool,
}

impl Builder {
    /// Adds lines to the configuration file. Without any, no file is given.
    pub fn config(mut self, toml: &str) -> Builder {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// Adds a rule for the upstream `name` that is reached at `url`.
    pub fn upstream(self, name: &str, url: &str) -> Builder {
        self.config(&format!("[[upstream]]\nname = \"{name}\"\nendpoints = [\"{url}\"]"))
    }

    /// Keeps its data in this folder instead of one that vanishes; another start on the same
    /// folder is a restart.
    pub fn data_dir(mut self, folder: &Path) -> Builder {
        self.data_dir = Some(folder.to_owned());
        self
    }

    /// Listens here instead of on a free port of loopback.
    pub fn listen(mut self, address: &str) -> Builder {
        self.listen = Some(address.to_owned());
        self
    }

    /// One more argument of `kuboard up`.
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Builder {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// One more variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Builder {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Its configuration makes it speak TLS: being ready is judged by the open port alone.
    pub fn tls(mut self) -> Builder {
        self.tls = true;
        self
    }

    /// Starts `kuboard up` and waits until it says that it is ready.
    pub fn start(self) -> Result<Kuboard> {
        let folder = tool::folder("kuboard")?;
        let data_dir = self.data_dir.unwrap_or_else(|| folder.path().join("data"));
        let address_file = data_dir.join("address");
        if address_file.exists() {
            fs::remove_file(&address_file)?;
        }
        let mut command = Kuboard::command()?;
        command.arg("up").arg("--data-dir").arg(&data_dir);
        command.args(["--listen", self.listen.as_deref().unwrap_or("127.0.0.1:0")]);
        if !self.config.is_empty() {
            let file = folder.path().join("kuboard.toml");
            fs::write(&file, &self.config)?;
            command.arg("--config").arg(file);
        }
        command.args(&self.arguments).envs(self.environment).current_dir(folder.path());
        let log = folder.path().join("kuboard.log");
        let mut process = Process::start("kuboard", &mut command, &log)?;
        let mut address = String::new();
        process.wait_ready(START, || {
            address = fs::read_to_string(&address_file).unwrap_or_default().trim().to_owned();
            if address.is_empty() {
                return Ok(false);
            }
            if self.tls {
                return Ok(std::net::TcpStream::connect(&address).is_ok());
            }
            Ok(Request::get("/readyz").send(&address).is_ok_and(|answer| answer.status == 200))
        })?;
        Ok(Kuboard { address, data_dir, process, folder })
    }
}

/// The running product. Dropping it kills it and removes its folder.
pub struct Kuboard {
    address: String,
    data_dir: PathBuf,
    /// Its process, for signals and measurements.
    pub process: Process,
    folder: TempDir,
}

impl Kuboard {
    /// With no configuration, to be described further.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// With no configuration and these further arguments of `kuboard up`.
    pub fn start(arguments: &[&str]) -> Result<Kuboard> {
        arguments.iter().fold(Builder::default(), Builder::argument).start()
    }

    /// The binary, for one-shot commands.
    pub fn command() -> Result<Command> {
        Ok(Command::new(binary()?))
    }

    /// Runs a one-shot command (`fsck`, `cache`) on a data folder with `-o json`; its output and
    /// status.
    pub fn json(arguments: &[&str], data_dir: &Path) -> Result<(Value, ExitStatus)> {
        let mut command = Kuboard::command()?;
        command.args(arguments).arg("--data-dir").arg(data_dir).args(["-o", "json"]);
        let done = command.output()?;
        let text = String::from_utf8_lossy(&done.stdout);
        let value = serde_json::from_str(&text).with_context(|| {
            let error = String::from_utf8_lossy(&done.stderr);
            format!("{} printed no JSON: {text}{error}", tool::line(&command))
        })?;
        Ok((value, done.status))
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The port alone.
    pub fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap_or_default()
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The folder that vanishes with it, for files that the test hands to it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An anonymous client of it.
    pub fn client(&self) -> RegistryClient {
        RegistryClient::new(self.address())
    }

    /// GET this path.
    pub fn get(&self, target: &str) -> Result<crate::http::Answer> {
        Request::get(target).send(&self.address)
    }

    /// The sum of a metric over the series whose labels contain all of `labels`
    /// (`kind="blob"`, for example); 0 when there is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let answer = self.get("/metrics")?;
        if answer.status != 200 {
            bail!("/metrics answered {}", answer.status);
        }
        let text = answer.text();
        let series = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        series
            .filter_map(|line| line.rsplit(' ').next())
            .map(|value| value.parse::<f64>().context("a metric that is not a number"))
            .sum()
    }

    /// `kill -9`.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill9()
    }

    /// SIGTERM, and at most a minute for the drain.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate(Duration::from_secs(60))
    }
}

fn binary() -> Result<PathBuf> {
    if let Some(named) = env::var_os("KUBOARD_BIN") {
        return Ok(PathBuf::from(named));
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let found = ["release", "debug"].map(|build| target.join(build).join("kuboard"));
    let found = found.into_iter().find(|file| file.exists());
    found.context("kuboard is not built; hint: cargo build --release -p kuboard")
}
