//! A real PostgreSQL for a test: its files in a folder of its own under the temporary folder, its
//! door a Unix socket in that folder, gone with the test however that ends.
//!
//! The server's keeper is a small shell that waits for the end of its standard input, which the
//! test holds open. So the server also ends when the test process is killed.

use std::{
    env, fs,
    io::Write as _,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::tool;

const HINT: &str = "hint: install PostgreSQL, for example apt-get install postgresql";

/// What stops the server when the test is gone. $1: pg_ctl, $2: the folder.
const KEEPER: &str = r#"trap "" INT HUP TERM
cat >/dev/null
"$1" -D "$2/data" -m immediate -s stop
rm -rf "$2""#;

/// A running server. Dropping it stops it.
pub struct Postgres {
    programs: PathBuf,
    /// Holds `data` (the cluster), `log` and the socket.
    folder: TempDir,
    user: Option<User>,
    keeper: Child,
    databases: AtomicU32,
}

/// Whom the server runs as, since it refuses to run as root.
#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// The server that all tests of this process share, started at the first call.
    pub fn shared() -> Result<&'static Postgres> {
        static SHARED: OnceLock<Result<Postgres, String>> = OnceLock::new();
        let started = SHARED.get_or_init(|| Postgres::start().map_err(|e| format!("{e:#}")));
        started.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// A server of one's own, ready for connections.
    pub fn start() -> Result<Postgres> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("kuboard-pg-").tempdir()?;
        let user = unprivileged()?;
        if let Some(User { uid, gid }) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        let command = |program: &str| command(&programs, program, folder.path(), user);
        let data = folder.path().join("data");
        // A linguistic order, as real servers have: only what asks for byte order gets it.
        let init = |locale: &[&str]| {
            let mut initdb = command("initdb");
            initdb.arg("-D").arg(&data).args(["-U", "kuboard", "-A", "trust", "-E", "UTF8"]);
            tool::output(initdb.arg("--no-sync").args(locale))
        };
        init(&["--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8"])
            .or_else(|_| init(&["--locale=C.UTF-8"]))
            .context(HINT)?;
        let mut settings = fs::File::options().append(true).open(data.join("postgresql.conf"))?;
        writeln!(settings, "listen_addresses = ''")?;
        writeln!(settings, "unix_socket_directories = '{}'", folder.path().display())?;
        writeln!(settings, "max_connections = 300")?;
        // Tests kill processes, not machines.
        writeln!(settings, "fsync = off")?;
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(programs.join("pg_ctl")).arg(folder.path());
        become_user(&mut keeper, user);
        let keeper = keeper
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Postgres { programs, folder, user, keeper, databases: AtomicU32::new(0) };
        server.resume()?;
        Ok(server)
    }

    /// The URL of a new, empty database.
    pub fn database(&self) -> Result<String> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres:///{name}?host={}&user=kuboard", self.folder.path().display()))
    }

    /// Runs statements in a database, as its superuser, and gives what `psql -At` prints.
    pub fn psql(&self, database: &str, statements: &str) -> Result<String> {
        let mut psql = self.command("psql");
        psql.arg("-h").arg(self.folder.path());
        psql.args(["-U", "kuboard", "-d", database, "-XAtq", "-v", "ON_ERROR_STOP=1"]);
        tool::output(psql.arg("-c").arg(statements))
    }

    /// Stops the server as a crash would, for what must survive that. See [`Postgres::resume`].
    pub fn crash(&self) -> Result<()> {
        self.control(&["-m", "immediate", "stop"])
    }

    /// Starts the server again after [`Postgres::crash`].
    pub fn resume(&self) -> Result<()> {
        let log = self.folder.path().join("log");
        let started = self.control(&["-w", "-t", "60", "-l", &log.to_string_lossy(), "start"]);
        started.with_context(|| fs::read_to_string(&log).unwrap_or_default())
    }

    /// Seconds of CPU that the server and all its processes used, ended ones too.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let file = self.folder.path().join("data/postmaster.pid");
        let text = fs::read_to_string(file)?;
        let keeper: u32 = text.lines().next().context("no pid")?.trim().parse()?;
        let mut ticks = 0;
        for entry in fs::read_dir("/proc")? {
            let Ok(id) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
            // A process may end meanwhile: then it counts with its parent's next reading.
            let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
            let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
            let fields: Vec<u64> =
                fields.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
            let parent = fields.get(1).copied().unwrap_or(0);
            // Own time of all; of ended children, what the first process waited for.
            let own: u64 = fields.iter().skip(11).take(2).sum();
            let ended: u64 = fields.iter().skip(13).take(2).sum();
            match (id == keeper, parent == u64::from(keeper)) {
                (true, _) => ticks += own + ended,
                (false, true) => ticks += own,
                (false, false) => {}
            }
        }
        // SAFETY: sysconf(3) reads a constant of the system.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Ok(ticks as f64 / per_second.max(1) as f64)
    }

    fn control(&self, arguments: &[&str]) -> Result<()> {
        let mut control = self.command("pg_ctl");
        control.arg("-s").arg("-D").arg(self.folder.path().join("data")).args(arguments);
        tool::output(&mut control).map(drop)
    }

    fn command(&self, program: &str) -> Command {
        command(&self.programs, program, self.folder.path(), self.user)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Killed by somebody else is as good.
        let _ = self.keeper.wait();
    }
}

fn command(programs: &Path, program: &str, folder: &Path, user: Option<User>) -> Command {
    let mut command = Command::new(programs.join(program));
    become_user(&mut command, user);
    // No setting of the person who runs the tests may reach the server or its clients.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

fn become_user(command: &mut Command, user: Option<User>) {
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
}

/// Where the server's programs are: Debian keeps those of each version apart and off the path.
fn programs() -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten() {
        let entry = entry?;
        let version = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        versions.push((version, entry.path().join("bin")));
    }
    versions.sort();
    let newest_first = versions.into_iter().rev().map(|(_, folder)| folder);
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = newest_first.chain(env::split_paths(&path));
    folders
        .find(|folder| ["initdb", "pg_ctl", "psql"].iter().all(|it| folder.join(it).is_file()))
        .with_context(|| format!("no PostgreSQL server is installed; {HINT}"))
}

/// None if this process is not root: then the server runs as we do.
fn unprivileged() -> Result<Option<User>> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    for name in ["postgres", "nobody"] {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name));
        let Some(line) = line else { continue };
        let fields: Vec<&str> = line.split(':').collect();
        ensure!(fields.len() > 3, "/etc/passwd has the odd line {line:?}");
        return Ok(Some(User { uid: fields[2].parse()?, gid: fields[3].parse()? }));
    }
    bail!("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
}
