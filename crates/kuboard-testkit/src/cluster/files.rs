//! The files of a cluster: who signs for the API server, who its users are, where everything
//! listens.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::rand;
use rcgen::KeyPair;
use serde_json::json;

use super::Level;
use super::network::Ranges;
use crate::certificate::Authority;

/// The user who may everything.
pub(super) const ADMIN: &str = "admin";
/// Users of the cluster's own parts, as RBAC's default roles know them.
pub(super) const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
pub(super) const SCHEDULER: &str = "system:kube-scheduler";

/// Ports of loopback.
pub(super) struct Ports {
    pub(super) etcd: u16,
    pub(super) etcd_peer: u16,
    pub(super) api_server: u16,
    pub(super) controller_manager: u16,
    pub(super) scheduler: u16,
    pub(super) kubelet: u16,
    pub(super) kubelet_health: u16,
}

impl Ports {
    /// Ports that nobody listens on now, below those that systems hand out by themselves: a server
    /// that is restarted needs the same one again.
    fn choose() -> Result<Ports> {
        let mut held = Vec::new();
        let mut numbers = Vec::new();
        for _ in 0..1000 {
            let port = 20_000 + u16::from_be_bytes(random()?) % 12_000;
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                held.push(listener);
                numbers.push(port);
            }
            if let [a, b, c, d, e, f, g] = numbers[..] {
                return Ok(Ports {
                    etcd: a,
                    etcd_peer: b,
                    api_server: c,
                    controller_manager: d,
                    scheduler: e,
                    kubelet: f,
                    kubelet_health: g,
                });
            }
        }
        anyhow::bail!("no free ports on loopback")
    }
}

/// The folder of a cluster.
pub(super) struct Files {
    folder: PathBuf,
    pub(super) ports: Ports,
    pub(super) level: Level,
    pub(super) ranges: Ranges,
}

impl Files {
    /// Writes certificates, keys, tokens and kubeconfigs into an empty folder.
    pub(super) fn write(
        folder: &Path,
        level: Level,
        ranges: Ranges,
        users: &[(String, Vec<String>)],
    ) -> Result<Files> {
        let files = Files { folder: folder.to_owned(), ports: Ports::choose()?, level, ranges };
        let authority = Authority::new(folder)?;
        let first = ranges.first_service();
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc", &first];
        authority.issue("server", &names)?;
        let key = KeyPair::generate()?;
        fs::write(files.at("service-accounts.key"), key.serialize_pem())?;
        fs::write(files.at("service-accounts.pub"), key.public_key_pem())?;
        let mut tokens = String::new();
        let own = [
            (ADMIN, "system:masters"),
            (CONTROLLER_MANAGER, ""),
            (SCHEDULER, ""),
            (&node_user(), "system:nodes"),
        ];
        let own = own.map(|(name, group)| (name.to_owned(), vec![group.to_owned()]));
        for (name, groups) in own.iter().chain(users) {
            let token = hex(&random::<16>()?);
            let groups = groups.join(",");
            ensure!(!groups.contains('"'), "a group with a quote: {groups}");
            tokens.push_str(&format!("{token},{name},{name},\"{groups}\"\n"));
            files.write_kubeconfig(name, &token)?;
        }
        fs::write(files.at("tokens.csv"), tokens)?;
        Ok(files)
    }

    /// A path in the folder.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Address and port of the API server. With a node it listens where its Service says, so that
    /// pods reach it as in any cluster, though nobody translates addresses.
    pub(super) fn api_server(&self) -> (String, u16) {
        match self.level {
            Level::Node => (self.ranges.first_service(), 443),
            _ => ("127.0.0.1".to_owned(), self.ports.api_server),
        }
    }

    pub(super) fn url(&self) -> String {
        let (address, port) = self.api_server();
        format!("https://{address}:{port}")
    }

    pub(super) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.at(&format!("{}.kubeconfig", user.replace([':', '/'], "-")))
    }

    fn write_kubeconfig(&self, user: &str, token: &str) -> Result<()> {
        // JSON is YAML.
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "test",
                "cluster": {"server": self.url(), "certificate-authority": self.at("ca.pem")},
            }],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        });
        Ok(fs::write(self.kubeconfig(user), serde_json::to_vec_pretty(&config)?)?)
    }

    pub(super) fn token(&self, user: &str) -> Result<String> {
        let tokens = fs::read_to_string(self.at("tokens.csv"))?;
        let found = tokens.lines().find_map(|line| {
            let mut fields = line.split(',');
            let token = fields.next()?;
            (fields.next()? == user).then(|| token.to_owned())
        });
        found.with_context(|| format!("the cluster was not told of a user {user}"))
    }
}

/// The file in a folder that names the process whose cluster it is.
const OWNER: &str = "owner.pid";

/// Marks the folder as this process's, and removes those beside it whose process is gone: a
/// cluster that a whole program shares is never dropped.
pub(super) fn sweep(folder: &Path, prefix: &str) -> Result<()> {
    fs::write(folder.join(OWNER), std::process::id().to_string())?;
    let parent = folder.parent().context("a folder without a parent")?;
    for entry in fs::read_dir(parent)?.flatten() {
        let owner = fs::read_to_string(entry.path().join(OWNER)).unwrap_or_default();
        if entry.file_name().to_string_lossy().starts_with(prefix)
            && owner.parse::<u32>().is_ok()
            && !Path::new("/proc").join(&owner).exists()
        {
            // Another program may be at it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// The kubelet's user, as the node authorizer wants it.
pub(super) fn node_user() -> String {
    format!("system:node:{}", super::NODE)
}

pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{OWNER, sweep};
    use crate::tool;
    use std::fs;

    #[test]
    fn folders_of_programs_that_are_gone_are_removed() {
        let parent = tool::folder("sweep").unwrap();
        let make = |name: &str, owner: Option<&str>| {
            let folder = parent.path().join(name);
            fs::create_dir(&folder).unwrap();
            if let Some(owner) = owner {
                fs::write(folder.join(OWNER), owner).unwrap();
            }
        };
        make("x-mine", None);
        make("x-gone", Some("4194999999"));
        make("x-living", Some("1"));
        make("x-starting", None);
        make("x-odd", Some("nobody"));
        make("y-gone", Some("4194999999"));
        sweep(&parent.path().join("x-mine"), "x-").unwrap();
        let left = |name: &str| parent.path().join(name).exists();
        for name in ["x-mine", "x-living", "x-starting", "x-odd", "y-gone"] {
            assert!(left(name), "{name}");
        }
        assert!(!left("x-gone"));
    }
}
