//! Where tests find programs and keep files: the tool folder that `cargo xtask tools` fills, the
//! cache of expensive fixtures, and folders that vanish with the test.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// The program of this name, looked for in `$KUBOARD_TOOLS/bin` (default
/// `~/.cache/kuboard/tools/bin`), on the path, and where Debian keeps servers.
pub fn find(program: &str) -> Result<PathBuf> {
    let mut folders = Vec::new();
    folders.push(match env::var_os("KUBOARD_TOOLS") {
        Some(named) => PathBuf::from(named).join("bin"),
        None => cache()?.join("tools/bin"),
    });
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.into_iter().map(|folder| folder.join(program)).find(|file| {
        fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    });
    found.with_context(|| format!("{program} is not installed; hint: cargo xtask tools"))
}

/// A command for the program of this name; an error when it is not installed.
pub fn command(program: &str) -> Result<Command> {
    Ok(Command::new(find(program)?))
}

/// Runs to the end and gives standard output; an error carries what the program said.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("start {}", line(command)))?;
    if !done.status.success() {
        bail!(
            "{}: {}\n{}{}",
            line(command),
            done.status,
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Program and arguments, as a person would type them.
pub fn line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// What is expensive to make and the same for every run: `~/.cache/kuboard`, outside the checkout.
pub fn cache() -> Result<PathBuf> {
    let home = env::var_os("HOME").context("HOME is not set; hint: set HOME or KUBOARD_TOOLS")?;
    Ok(Path::new(&home).join(".cache/kuboard"))
}

/// A new folder under `target/tmp`, on the disk of the checkout (`/tmp` is memory on many
/// machines, and tests write gigabytes). It is removed when the value is dropped.
pub fn folder(name: &str) -> Result<TempDir> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp");
    fs::create_dir_all(&parent)?;
    let parent = parent.canonicalize()?;
    Ok(tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(parent)?)
}

/// Asks `ready` every few milliseconds until it is true; an error after `bound`.
pub fn wait_until(
    what: &str,
    bound: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    while !ready()? {
        if started.elapsed() > bound {
            bail!("{what}: not within {bound:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A port of loopback that nothing listens on now. Another process may take it before its use;
/// for servers that cannot say which port they were given.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

/// Seconds since 1970, for tokens that other programs check against their own clock.
#[expect(clippy::disallowed_methods, reason = "peers of the test read the same clock")]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
