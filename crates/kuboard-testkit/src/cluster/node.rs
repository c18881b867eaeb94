//! The node: containerd and the kubelet, with folders, sockets, control groups and a network of
//! their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::NODE;
use super::control_plane::kubernetes;
use super::files::{Files, node_user};
use super::isolation::{GROUP_PREFIX, Isolation};
use super::network::Network;
use crate::http::Request;
use crate::image::Image;
use crate::process::Process;
use crate::tool;

/// The image that holds a pod's namespaces.
pub(super) const PAUSE: &str = "pause.test/pause:1";

/// Where packages put the network plugins.
const PLUGINS: &[&str] = &["/usr/lib/cni", "/opt/cni/bin"];

pub(super) struct Node {
    isolation: Isolation,
    _network: Network,
    folder: PathBuf,
    kubelet_kubeconfig: PathBuf,
    health_port: u16,
}

impl Node {
    /// Writes its configuration and makes its namespaces; nothing of it runs yet.
    pub(super) fn prepare(files: &Files, network: Network, kubelet: &Value) -> Result<Node> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let group = format!("{GROUP_PREFIX}{}-{number}", std::process::id());
        let folder = files.at("node");
        for name in ["certs.d", "cni", "manifests", "pods-log", "kubelet"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let plugins = PLUGINS.iter().map(Path::new).find(|it| it.join("ptp").exists());
        let plugins = plugins.context(
            "no network plugins are installed; hint: apt-get install containernetworking-plugins",
        )?;
        fs::write(folder.join("containerd.toml"), containerd_config(&folder, plugins))?;
        let pods = network_config(&folder, &network.ranges().pods());
        fs::write(folder.join("cni/10-test.conflist"), pods.to_string())?;
        let mut config = kubelet_config(&folder, files, &group);
        if let (Some(to), Some(from)) = (config.as_object_mut(), kubelet.as_object()) {
            to.extend(from.clone());
        }
        fs::write(folder.join("kubelet.json"), serde_json::to_vec_pretty(&config)?)?;
        Ok(Node {
            isolation: Isolation::start(&folder, &group)?,
            _network: network,
            kubelet_kubeconfig: files.kubeconfig(&node_user()),
            health_port: files.ports.kubelet_health,
            folder,
        })
    }

    /// Starts a process that [`Node::containerd`] or [`Node::kubelet`] describes.
    pub(super) fn run(
        &self,
        start: impl FnOnce() -> Result<Process> + Send + 'static,
    ) -> Result<Process> {
        self.isolation.run(start)
    }

    pub(super) fn containerd(&self) -> Result<Command> {
        let mut command = tool::command("containerd")?;
        command.arg("--config").arg(self.folder.join("containerd.toml"));
        self.isolation.with_mounts(&mut command);
        Ok(command)
    }

    pub(super) fn containerd_answers(&self) -> Result<bool> {
        Ok(self.ctr(&["version"]).is_ok())
    }

    pub(super) fn kubelet(&self) -> Result<Command> {
        let mut command = kubernetes("kubelet")?;
        let mut flag = |name: &str, value: &Path| {
            command.arg(format!("--{name}={}", value.display()));
        };
        flag("config", &self.folder.join("kubelet.json"));
        flag("kubeconfig", &self.kubelet_kubeconfig);
        flag("root-dir", &self.folder.join("kubelet"));
        flag("cert-dir", &self.folder.join("kubelet/pki"));
        command.arg(format!("--hostname-override={NODE}"));
        self.isolation.with_mounts(&mut command);
        Ok(command)
    }

    pub(super) fn kubelet_answers(&self) -> Result<bool> {
        let address = format!("127.0.0.1:{}", self.health_port);
        Ok(Request::get("/healthz").send(&address).is_ok_and(|answer| answer.status == 200))
    }

    pub(super) fn certs_d(&self) -> PathBuf {
        self.folder.join("certs.d")
    }

    pub(super) fn static_pods(&self) -> PathBuf {
        self.folder.join("manifests")
    }

    pub(super) fn mirror(&self, registry: &str, url: &str) -> Result<()> {
        let home = self.certs_d().join(registry);
        fs::create_dir_all(&home)?;
        let text = format!("[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        Ok(fs::write(home.join("hosts.toml"), text)?)
    }

    pub(super) fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut command = tool::command("ctr")?;
        command.arg("--address").arg(self.folder.join("containerd.sock"));
        tool::output(command.args(["--namespace", "k8s.io"]).args(arguments))
    }

    pub(super) fn import(&self, name: &str, image: &Image) -> Result<()> {
        let file = tempfile::Builder::new().suffix(".tar").tempfile_in(&self.folder)?;
        image.write_docker_archive(file.path(), name)?;
        self.ctr(&["images", "import", &file.path().display().to_string()]).map(drop)
    }
}

fn containerd_config(folder: &Path, plugins: &Path) -> String {
    let at = |name: &str| folder.join(name);
    format!(
        "version = 2\nroot = {:?}\nstate = {:?}\n\
         disabled_plugins = [\"io.containerd.internal.v1.opt\"]\n\
         [grpc]\naddress = {:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
         sandbox_image = {PAUSE:?}\n\
         restrict_oom_score_adj = true\n\
         stream_server_address = \"127.0.0.1\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {plugins:?}\nconf_dir = {:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = {:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
         runtime_type = \"io.containerd.runc.v2\"\n",
        at("containerd"),
        at("containerd-state"),
        at("containerd.sock"),
        at("cni"),
        at("certs.d"),
    )
}

/// Each pod gets a wire to the machine: no bridge, so that no device stays when the pods are gone.
fn network_config(folder: &Path, subnet: &str) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "test",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": folder.join("addresses"),
                "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

fn kubelet_config(folder: &Path, files: &Files, group: &str) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": files.ports.kubelet,
        "readOnlyPort": 0,
        "healthzPort": files.ports.kubelet_health,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": format!("unix://{}", folder.join("containerd.sock").display()),
        "staticPodPath": folder.join("manifests"),
        "fileCheckFrequency": "1s",
        "podLogsDir": folder.join("pods-log"),
        "volumePluginDir": folder.join("volume-plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{group}"),
        "enforceNodeAllocatable": [],
        // Machines with the older control groups or with swap are good enough for tests.
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "serializeImagePulls": false,
        // A nearly full disk shall not empty the node.
        "evictionHard": {
            "memory.available": "1Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
    })
}
