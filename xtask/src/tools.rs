//! The programs that the tests run beside the product, put in place on a machine that has only
//! Rust: Debian packages by apt-get, Go programs and cargo's helpers built from pinned versions.
//! The peers of the scanner's measurements are a set of their own: they take long to build and no
//! test runs them.
//!
//! What is built lands in `$KUBOARD_TOOLS/bin` (default `~/.cache/kuboard/tools/bin`), each with a
//! stamp that names its version, so that a second run builds nothing.

mod crates;
mod go;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::run::Command;

/// A program on the path, or a file, and the Debian package that brings it.
const PACKAGES: &[(&str, &str)] = &[
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("buildah", "buildah"),
    ("busybox", "busybox-static"),
    ("c++", "g++"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("curl", "curl"),
    ("dpkg-deb", "dpkg"),
    ("gzip", "gzip"),
    ("htpasswd", "apache2-utils"),
    ("initdb", "postgresql"),
    ("ip", "iproute2"),
    ("jar", "default-jdk-headless"),
    ("mount", "mount"),
    ("mvn", "maven"),
    ("nginx", "nginx-light"),
    ("npm", "npm"),
    ("openssl", "openssl"),
    ("pip3", "python3-pip"),
    ("podman", "podman"),
    ("rpm", "rpm"),
    ("rpmbuild", "rpm"),
    ("runc", "runc"),
    ("skopeo", "skopeo"),
    ("tar", "tar"),
    ("unshare", "util-linux"),
    ("wrk", "wrk"),
];

/// Where Debian hides programs that are not on an ordinary user's path.
const MORE_FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Free space that building all of it takes, in mebibytes: Go keeps more than 4 GB while it builds
/// the largest program, and what the tests build and write comes on top.
const SPACE: u64 = 12 * 1024;

/// Installs whatever is missing of what the tests need; does nothing when all is there.
pub(crate) fn install() -> Result<()> {
    let folder = prepare(go::TEST)?;
    promtool(&folder)?;
    crates::install(&folder)?;
    go::install_own(&folder, &go::CLUSTER)?;
    go::install(&folder, go::TEST)
}

/// What a Kubernetes cluster on loopback needs, and nothing else.
pub(crate) fn install_cluster() -> Result<()> {
    let folder = prepare(&[])?;
    go::install_own(&folder, &go::CLUSTER)
}

/// What the tests need, and the peers that `cargo xtask bench scan` and `bench accuracy` measure
/// against.
pub(crate) fn install_peers() -> Result<()> {
    install()?;
    let folder = folder()?;
    go::install(&folder, go::PEERS)?;
    go::install_own_peers(&folder)
}

/// The folder, with room for what must be built; the Debian packages are in place.
fn prepare(tools: &[go::GoTool]) -> Result<PathBuf> {
    let folder = folder()?;
    fs::create_dir_all(folder.join("bin"))?;
    fs::create_dir_all(folder.join("stamps"))?;
    if !go::is_complete(&folder, tools, &[go::CLUSTER])? {
        let free = free_mebibytes(&folder)?;
        ensure!(
            free >= SPACE,
            "{free} MiB are free where {} lies, and building the tests' programs takes {SPACE}; \
             hint: make room, or set KUBOARD_TOOLS to a folder on a larger disk",
            folder.display()
        );
    }
    debian_packages()?;
    Ok(folder)
}

/// Free space on the disk of a folder that exists.
fn free_mebibytes(folder: &Path) -> Result<u64> {
    let report = Command::new("df").args(["-P", "-m"]).arg(folder).read()?;
    let line = report.lines().nth(1).context("df printed no line")?;
    let field = line.split_whitespace().nth(3).context("df printed a short line")?;
    field.parse().with_context(|| format!("df says {field} MiB are free"))
}

/// What the tests must find in their environment to use the tools.
pub(crate) fn environment() -> Result<Vec<(OsString, OsString)>> {
    let path = env::join_paths(search_path()?)?;
    Ok(vec![("KUBOARD_TOOLS".into(), folder()?.into_os_string()), ("PATH".into(), path)])
}

/// Where programs that were built are kept.
pub(crate) fn folder() -> Result<PathBuf> {
    if let Some(named) = env::var_os("KUBOARD_TOOLS") {
        return Ok(PathBuf::from(named));
    }
    let home = env::var_os("HOME").context("HOME is not set; hint: set KUBOARD_TOOLS")?;
    Ok(Path::new(&home).join(".cache/kuboard/tools"))
}

fn search_path() -> Result<Vec<PathBuf>> {
    let folder = folder()?;
    let mut folders = vec![folder.join("bin"), go::own_toolchain(&folder).join("bin")];
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.extend(MORE_FOLDERS.iter().map(PathBuf::from));
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        let mut found: Vec<PathBuf> = versions.flatten().map(|v| v.path().join("bin")).collect();
        found.sort();
        folders.extend(found.into_iter().rev());
    }
    Ok(folders)
}

fn find(program: &str) -> Result<Option<PathBuf>> {
    Ok(search_path()?.into_iter().map(|folder| folder.join(program)).find(|file| is_program(file)))
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn debian_packages() -> Result<()> {
    let mut missing = Vec::new();
    for (program, package) in PACKAGES {
        if find(program)?.is_none() && !missing.contains(package) {
            missing.push(*package);
        }
    }
    if !missing.is_empty() {
        apt_install(&missing)?;
    }
    for (program, package) in PACKAGES {
        if find(program)?.is_none() {
            bail!("{program} is still missing after installing {package}");
        }
    }
    Ok(())
}

fn apt_install(packages: &[&str]) -> Result<()> {
    if find("apt-get")?.is_none() {
        bail!(
            "missing programs and no apt-get; hint: install what Debian calls {}",
            packages.join(", ")
        );
    }
    println!("installing {}", packages.join(" "));
    let services = NoServices::declare()?;
    as_root("apt-get").args(["update", "-qq"]).run()?;
    as_root("env")
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq"])
        .arg("--no-install-recommends")
        .args(packages)
        .run()?;
    drop(services);
    Ok(())
}

/// The program, as root.
pub(crate) fn as_root(program: &str) -> Command {
    if is_root() { Command::new(program) } else { Command::new("sudo").arg(program) }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").read().is_ok_and(|id| id.trim() == "0")
}

/// While it lives, packages must not start the services that they bring (Debian's policy-rc.d).
/// A machine that has such a policy of its own keeps it.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn declare() -> Result<NoServices> {
        if Path::new(POLICY).exists() {
            return Ok(NoServices { ours: false });
        }
        let script = env::temp_dir().join(format!("kuboard-policy-{}", std::process::id()));
        fs::write(&script, "#!/bin/sh\nexit 101\n")?;
        let placed = as_root("install").args(["-m", "755"]).arg(&script).arg(POLICY).run();
        fs::remove_file(&script)?;
        placed.map(|()| NoServices { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = as_root("rm").args(["-f", POLICY]).run()
        {
            eprintln!("xtask: {error:#}; hint: remove {POLICY} by hand");
        }
    }
}

/// promtool comes in the package of the Prometheus server, whose other parts nobody needs here:
/// the one file is taken out of the package.
fn promtool(folder: &Path) -> Result<()> {
    if find("promtool")?.is_some() {
        return Ok(());
    }
    println!("unpacking promtool");
    let work = folder.join("promtool");
    fs::create_dir_all(&work)?;
    let download = || {
        Command::new("apt-get")
            .args(["download", "-qq", "-oAPT::Sandbox::User=", "prometheus"])
            .directory(&work)
    };
    if download().run().is_err() {
        as_root("apt-get").args(["update", "-qq"]).run()?;
        download().run()?;
    }
    let package = fs::read_dir(&work)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .context("apt-get download left no package")?;
    Command::new("dpkg-deb").arg("-x").arg(&package).arg(work.join("tree")).run()?;
    fs::rename(work.join("tree/usr/bin/promtool"), folder.join("bin/promtool"))?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// Whether `binary` is there and was built from what `wanted` says.
fn is_stamped(folder: &Path, binary: &str, wanted: &str) -> bool {
    let stamped = fs::read_to_string(folder.join("stamps").join(binary)).unwrap_or_default();
    is_program(&folder.join("bin").join(binary)) && stamped == wanted
}

fn stamp(folder: &Path, binary: &str, wanted: &str) -> Result<()> {
    Ok(fs::write(folder.join("stamps").join(binary), wanted)?)
}

#[cfg(test)]
mod tests {
    use super::free_mebibytes;
    use crate::run::root;

    #[test]
    fn the_free_space_of_a_disk_is_a_number() {
        assert!(free_mebibytes(&root()).unwrap() > 0);
    }
}
