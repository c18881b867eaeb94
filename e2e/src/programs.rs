//! Real registry clients, each run with files of its own, so that nothing of the person who runs
//! the tests (logins, caches, policies) is used or changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use kuboard_oci::Digest;
use kuboard_testkit::tool;
use tempfile::TempDir;

/// The clients of one test and the folder that they work in.
pub struct Programs {
    folder: TempDir,
}

impl Programs {
    /// With an empty folder.
    pub fn new() -> Result<Programs> {
        let programs = Programs { folder: tool::folder("clients")? };
        // podman and buildah insist on the file that they are told to use.
        std::fs::write(programs.at("auth.json"), r#"{"auths": {}}"#)?;
        Ok(programs)
    }

    /// A path in the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = tool::command(program)?;
        command
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("DOCKER_CONFIG", self.at("docker"))
            .env("REGISTRY_AUTH_FILE", self.at("auth.json"))
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("TMPDIR", self.folder.path());
        Ok(command)
    }

    /// `skopeo ARGUMENTS`.
    pub fn skopeo(&self, arguments: &[&str]) -> Result<String> {
        tool::output(self.command("skopeo")?.arg("--insecure-policy").args(arguments))
    }

    /// `skopeo copy`, all platforms, digests kept, plain HTTP on both sides.
    pub fn skopeo_copy(&self, from: &str, to: &str) -> Result<()> {
        self.skopeo(&[
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            from,
            to,
        ])
        .map(drop)
    }

    /// `crane ARGUMENTS`; it speaks plain HTTP to loopback of its own accord.
    pub fn crane(&self, arguments: &[&str]) -> Result<String> {
        self.crane_trusting(None, arguments)
    }

    /// `crane ARGUMENTS`, trusting the authority in this file.
    pub fn crane_trusting(&self, ca: Option<&Path>, arguments: &[&str]) -> Result<String> {
        let mut command = self.command("crane")?;
        if let Some(ca) = ca {
            command.env("SSL_CERT_FILE", ca);
        }
        Ok(tool::output(command.args(arguments))?.trim().to_owned())
    }

    /// The digest that `crane digest` reads from the registry.
    pub fn crane_digest(&self, image: &str) -> Result<Digest> {
        Ok(self.crane(&["digest", image])?.parse()?)
    }

    /// `podman ARGUMENTS` with an image store of its own.
    pub fn podman(&self, arguments: &[&str]) -> Result<String> {
        self.with_store("podman", arguments)
    }

    /// `buildah ARGUMENTS` with the same image store.
    pub fn buildah(&self, arguments: &[&str]) -> Result<String> {
        self.with_store("buildah", arguments)
    }

    fn with_store(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let policy = self.at("policy.json");
        std::fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
        let mut command = self.command(program)?;
        command
            .arg("--root")
            .arg(self.at("storage"))
            .arg("--runroot")
            .arg(self.at("run"))
            .args(["--storage-driver", "overlay"])
            .args(arguments);
        Ok(tool::output(&mut command)?.trim().to_owned())
    }

    /// `curl --silent --show-error ARGUMENTS`.
    pub fn curl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command("curl")?;
        tool::output(command.args(["--silent", "--show-error", "--max-time", "60"]).args(arguments))
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // podman mounts the folder of its layers onto itself and may leave it so when it fails;
        // a folder that is not mounted is what we want.
        let unmounted = tool::command("umount").and_then(|mut umount| {
            tool::output(umount.args(["--quiet", "--lazy"]).arg(self.at("storage/overlay")))
        });
        let _ = unmounted;
    }
}
