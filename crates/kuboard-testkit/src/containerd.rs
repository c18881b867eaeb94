//! A containerd of the test's own: private folders and socket, no CRI, registries described by a
//! `hosts.toml` folder. It needs root, as containerd does.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use crate::process::Process;
use crate::tool;

/// The running daemon. Dropping it ends it and removes its folders.
pub struct Containerd {
    /// Its process.
    pub process: Process,
    folder: TempDir,
}

impl Containerd {
    /// Starts it and waits until it answers.
    pub fn start() -> Result<Containerd> {
        let folder = tool::folder("containerd")?;
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("hosts"))?;
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("containerd.sock")
        );
        fs::write(at("config.toml"), config)?;
        let mut command = tool::command("containerd")?;
        command.arg("--config").arg(at("config.toml"));
        let process = Process::start("containerd", &mut command, &at("containerd.log"))?;
        let mut containerd = Containerd { process, folder };
        let mut version = containerd.ctr(&["version"])?;
        containerd
            .process
            .wait_ready(Duration::from_secs(30), || Ok(tool::output(&mut version).is_ok()))?;
        Ok(containerd)
    }

    /// `ctr` with these arguments, against this daemon.
    pub fn ctr(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = tool::command("ctr")?;
        command.arg("--address").arg(self.folder.path().join("containerd.sock")).args(arguments);
        Ok(command)
    }

    /// The folder for `--hosts-dir`.
    pub fn hosts(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    /// Lets `registry` be reached through a mirror at `url` alone, as a node's `hosts.toml` does.
    /// containerd then adds `?ns=registry` to its requests.
    pub fn mirror(&self, registry: &str, url: &str) -> Result<()> {
        let home = self.hosts().join(registry);
        fs::create_dir_all(&home)?;
        let text = format!("[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        Ok(fs::write(home.join("hosts.toml"), text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Containerd;
    use crate::image::Image;
    use crate::tool;
    use crate::upstream::FakeUpstream;

    #[test]
    fn it_pulls_through_a_mirror_and_says_for_whom() {
        let upstream = FakeUpstream::start().unwrap();
        let image = Image::oci(1, &[10_000]).unwrap();
        upstream.put("team/app", "v1", &image);
        let containerd = Containerd::start().unwrap();
        containerd.mirror("example.test", &upstream.url()).unwrap();
        let hosts = containerd.hosts().display().to_string();
        let mut pull = containerd
            .ctr(&["images", "pull", "--hosts-dir", &hosts, "example.test/team/app:v1"])
            .unwrap();
        tool::output(&mut pull).unwrap();
        let listed = tool::output(&mut containerd.ctr(&["images", "ls"]).unwrap()).unwrap();
        assert!(listed.contains(&image.digest.to_string()), "{listed}");
        let blobs: Vec<_> =
            upstream.requests().into_iter().filter(|it| it.path.contains("/blobs/")).collect();
        assert_eq!(blobs.len(), 2);
        assert!(blobs.iter().all(|seen| seen.query == "ns=example.test"), "{blobs:?}");
    }
}
