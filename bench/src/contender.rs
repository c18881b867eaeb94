//! The servers that are compared, started alike: same content, same certificate, same upstream.

use std::path::Path;

use anyhow::Result;
use kuboard_testkit::certificate::Certificate;
use kuboard_testkit::process::Process;
use kuboard_testkit::{Kuboard, tool};
use tempfile::TempDir;

use crate::yardstick::Yardstick;

/// The user of a registry with a login.
pub(crate) const USER: &str = "bench";
/// The password of `USER`.
pub(crate) const PASSWORD: &str = "bench-password";
/// A line for that user as `htpasswd -B` writes it.
const HTPASSWD: &str = "bench:$2y$05$GQ7209o1eT6cj7Qa/Ns9wuBvBRlhzp8pwFpeJ4/hJzWp8z7Lu0VZK\n";
/// Our name for the upstream.
const UPSTREAM: &str = "up.test";

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kuboard,
    Distribution,
    Zot,
}

/// What it shall be like.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup<'a> {
    /// Keeps its content here; None in a folder that vanishes.
    pub(crate) data: Option<&'a Path>,
    /// Speaks TLS with this certificate.
    pub(crate) tls: Option<&'a Certificate>,
    /// Caches what it pulls from this URL.
    pub(crate) upstream: Option<&'a str>,
    /// Lets in users of an htpasswd file only. Ours alone.
    pub(crate) login: bool,
}

/// A running server. Dropping it ends it.
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    server: Server,
    // After the server, so that it ends before its files go.
    _files: TempDir,
}

enum Server {
    Kuboard(Kuboard),
    Yardstick(Yardstick),
}

impl Kind {
    /// Those that are here: ours and distribution always, zot if it is installed.
    pub(crate) fn all() -> Vec<Kind> {
        let mut kinds = vec![Kind::Kuboard, Kind::Distribution];
        if tool::find("zot").is_ok() {
            kinds.push(Kind::Zot);
        }
        kinds
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Kuboard => "kuboard",
            Kind::Distribution => "distribution",
            Kind::Zot => "zot",
        }
    }

    /// What its program says of itself.
    pub(crate) fn version(self) -> Result<String> {
        let mut command = match self {
            Kind::Kuboard => Kuboard::command()?,
            Kind::Distribution => tool::command("registry")?,
            Kind::Zot => tool::command("zot")?,
        };
        let done = command.arg("--version").output()?;
        // zot answers on its error stream.
        let text = [done.stdout, done.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or("says nothing");
        // Go programs begin with the path that they were called by.
        let program = command.get_program().to_string_lossy();
        Ok(line.trim_start_matches(program.as_ref()).trim().to_owned())
    }

    /// Starts one.
    pub(crate) fn start(self, setup: Setup<'_>) -> Result<Contender> {
        let files = tool::folder("contender")?;
        let own = files.path().join("data");
        let data = setup.data.unwrap_or(&own);
        let server = match self {
            Kind::Kuboard => Server::Kuboard(start_kuboard(data, setup, files.path())?),
            Kind::Distribution => Server::Yardstick(Yardstick::distribution(data, setup)?),
            Kind::Zot => Server::Yardstick(Yardstick::zot(data, setup)?),
        };
        Ok(Contender { kind: self, server, _files: files })
    }
}

impl Contender {
    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        match &self.server {
            Server::Kuboard(it) => it.address(),
            Server::Yardstick(it) => &it.address,
        }
    }

    pub(crate) fn process(&self) -> &Process {
        match &self.server {
            Server::Kuboard(it) => &it.process,
            Server::Yardstick(it) => &it.process,
        }
    }

    /// How clients name the upstream's repository `name`.
    pub(crate) fn proxied(&self, name: &str) -> String {
        match self.kind {
            Kind::Kuboard => format!("{UPSTREAM}/{name}"),
            Kind::Distribution | Kind::Zot => name.to_owned(),
        }
    }
}

fn start_kuboard(data: &Path, setup: Setup<'_>, files: &Path) -> Result<Kuboard> {
    let mut builder = Kuboard::builder().data_dir(data);
    if let Some(certificate) = setup.tls {
        let (file, key) = (certificate.certificate_file(), certificate.key_file());
        builder = builder
            .config(&format!("[server.tls]\nmode = \"files\"\ncert = {file:?}\nkey = {key:?}"))
            .tls();
    }
    if setup.login {
        let file = files.join("htpasswd");
        std::fs::write(&file, HTPASSWD)?;
        builder = builder.config(&format!("[access]\nhtpasswd = {file:?}"));
    }
    if let Some(upstream) = setup.upstream {
        builder = builder.upstream(UPSTREAM, upstream);
    }
    builder.start()
}
