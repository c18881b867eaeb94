//! A real Kubernetes of one node on loopback: etcd, the API server, the controllers, the scheduler,
//! and a kubelet over a containerd of its own.
//!
//! [`Level`] says how much of it a test needs; the API server alone is ready in seconds. Clusters
//! share nothing, so that several test programs may each run one. The control plane needs no
//! rights; a node needs root. Its processes live in namespaces of their own, which end with the
//! program that started them: neither a mount, nor a container, nor a network device is left.
//!
//! What a node has not: there is no kube-proxy and no DNS. A pod reaches other pods and the machine
//! by address, and of all Services only `kubernetes.default`: the API server listens on that very
//! address. A webhook is named by its URL, or by a Service whose pods answer: the API server asks
//! their addresses (aggregator routing), not the Service's.

mod control_plane;
mod files;
mod isolation;
mod keeper;
mod kubectl;
mod network;
mod node;
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::image::Image;
use crate::process::Process;
use crate::server::lock;
use crate::tool;

pub use kubectl::{Answered, Kubectl};
pub use program::{busybox, busybox_with, program};

use files::Files;
use keeper::Keeper;
use network::{Network, Ranges};
use node::Node;

/// How long a component may take until it answers; a machine that builds beside it is slow.
const START: Duration = Duration::from_secs(180);

/// How long a component may take to end when it is asked to.
const END: Duration = Duration::from_secs(90);

/// What the names of folders that vanish start with.
const FOLDER: &str = "cluster";

/// The name of the only node. It is its address too, since a kubelet takes no loopback address
/// that it is not named by.
pub const NODE: &str = "127.0.0.1";

/// How much of a cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// etcd and the API server. Nothing acts: no ServiceAccount comes with a namespace (pods need
    /// none here), nothing is scheduled or collected, a deleted namespace stays.
    ApiServer,
    /// The controllers and the scheduler too. Pods come to be, and wait.
    ControlPlane,
    /// A node too. Pods run.
    Node,
}

/// A process of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The store.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The node's container runtime.
    Containerd,
    /// The node's agent.
    Kubelet,
}

impl Component {
    /// In the order of their start.
    pub const ALL: [Component; 6] = [
        Component::Etcd,
        Component::ApiServer,
        Component::ControllerManager,
        Component::Scheduler,
        Component::Containerd,
        Component::Kubelet,
    ];

    /// Its program.
    pub fn name(self) -> &'static str {
        match self {
            Component::Etcd => "etcd",
            Component::ApiServer => "kube-apiserver",
            Component::ControllerManager => "kube-controller-manager",
            Component::Scheduler => "kube-scheduler",
            Component::Containerd => "containerd",
            Component::Kubelet => "kubelet",
        }
    }

    fn level(self) -> Level {
        match self {
            Component::Etcd | Component::ApiServer => Level::ApiServer,
            Component::ControllerManager | Component::Scheduler => Level::ControlPlane,
            Component::Containerd | Component::Kubelet => Level::Node,
        }
    }
}

/// What the cluster shall be like; `start` runs it.
#[derive(Debug)]
pub struct Builder {
    level: Level,
    flags: Vec<(Component, String)>,
    users: Vec<(String, Vec<String>)>,
    kubelet: Value,
    folder: Option<PathBuf>,
}

impl Builder {
    /// One more flag of a Kubernetes component, for example `--feature-gates=A=true`. Given last,
    /// so it overrules what the testkit says.
    pub fn flag(mut self, component: Component, flag: impl Into<String>) -> Builder {
        self.flags.push((component, flag.into()));
        self
    }

    /// A user that the API server knows by a token, in these groups. It may nothing until a
    /// RoleBinding says so. See [`Cluster::user`].
    pub fn user(mut self, name: &str, groups: &[&str]) -> Builder {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        self.users.push((name.to_owned(), groups));
        self
    }

    /// Sets these keys of the kubelet's configuration (`KubeletConfiguration`).
    pub fn kubelet_config(mut self, keys: Value) -> Builder {
        if let (Some(to), Value::Object(from)) = (self.kubelet.as_object_mut(), keys) {
            to.extend(from);
        }
        self
    }

    /// Keeps everything in this folder, emptied first, instead of one that vanishes.
    pub fn folder(mut self, folder: &Path) -> Builder {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Starts it and waits until it is ready: the API server answers, and the node, if there is
    /// one, takes pods.
    pub fn start(self) -> Result<Cluster> {
        let (temporary, path) = match &self.folder {
            Some(named) => {
                if named.exists() {
                    fs::remove_dir_all(named)?;
                }
                fs::create_dir_all(named)?;
                (None, named.canonicalize()?)
            }
            None => {
                let folder = tool::folder(FOLDER)?;
                let path = folder.path().to_owned();
                files::sweep(&path, FOLDER)?;
                (Some(folder), path)
            }
        };
        let network = match self.level {
            Level::Node => Some(Network::reserve()?),
            _ => None,
        };
        let ranges = network.as_ref().map_or(Ranges::NOWHERE, Network::ranges);
        let files = Files::write(&path, self.level, ranges, &self.users)?;
        let node = network.map(|network| Node::prepare(&files, network, &self.kubelet));
        let node = node.transpose()?;
        let cluster = Cluster {
            level: self.level,
            flags: self.flags,
            running: Mutex::default(),
            keeper: Keeper::new()?,
            node,
            files: Arc::new(files),
            _folder: temporary,
        };
        let log = |error: anyhow::Error| error.context("start a cluster");
        cluster.start_all().map_err(log)?;
        Ok(cluster)
    }
}

/// The running cluster. Dropping it ends everything that it started.
pub struct Cluster {
    level: Level,
    flags: Vec<(Component, String)>,
    // The order matters: processes end before the thread that keeps them, the namespaces of the
    // node after its processes, the folder last.
    running: Mutex<BTreeMap<Component, Process>>,
    keeper: Keeper,
    node: Option<Node>,
    files: Arc<Files>,
    _folder: Option<TempDir>,
}

impl Cluster {
    /// A cluster to be described further.
    pub fn builder(level: Level) -> Builder {
        Builder { level, flags: Vec::new(), users: Vec::new(), kubelet: json!({}), folder: None }
    }

    /// Starts one that needs no description.
    pub fn start(level: Level) -> Result<Cluster> {
        Cluster::builder(level).start()
    }

    /// The cluster of this level that all tests of this program share, started at the first call
    /// and ended with the program. Tests on it must keep to namespaces of their own.
    pub fn shared(level: Level) -> Result<&'static Cluster> {
        static SHARED: [OnceLock<Result<Cluster, String>>; 3] = [const { OnceLock::new() }; 3];
        let started = SHARED[level as usize]
            .get_or_init(|| Cluster::start(level).map_err(|error| format!("{error:#}")));
        started.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    fn start_all(&self) -> Result<()> {
        self.start_component(Component::Etcd)?;
        self.start_component(Component::ApiServer)?;
        let later = [Component::ControllerManager, Component::Scheduler, Component::Containerd];
        let later: Vec<Component> = later.into_iter().filter(|it| self.has(*it)).collect();
        // Side by side: each is slow to start and none waits for another.
        std::thread::scope(|scope| {
            let started: Vec<_> =
                later.iter().map(|it| scope.spawn(|| self.start_component(*it))).collect();
            started
                .into_iter()
                .try_for_each(|it| it.join().map_err(|_| anyhow::anyhow!("a start panicked"))?)
        })?;
        if let Some(node) = &self.node {
            node.import(node::PAUSE, &program(&["sleep", "1000000000"])?)?;
            self.start_component(Component::Kubelet)?;
            self.wait_node_ready()?;
        }
        Ok(())
    }

    /// Whether this component belongs to a cluster of this level.
    pub fn has(&self, component: Component) -> bool {
        component.level() <= self.level
    }

    /// Starts a component that was stopped, and waits until it answers.
    pub fn start_component(&self, component: Component) -> Result<()> {
        ensure!(self.has(component), "the cluster has no {}", component.name());
        ensure!(!self.is_running(component), "{} runs already", component.name());
        let mut command = self.command_of(component)?;
        let flags = self.flags.iter().filter(|(to, _)| *to == component);
        command.args(flags.map(|(_, flag)| flag));
        let log = self.log_file(component);
        let start = move || Process::start(component.name(), &mut command, &log);
        let mut process = match (&self.node, component.level()) {
            (Some(node), Level::Node) => node.run(start)?,
            _ => self.keeper.run(start)?,
        };
        process.wait_ready(START, || {
            std::thread::sleep(Duration::from_millis(50));
            self.answers(component)
        })?;
        lock(&self.running).insert(component, process);
        Ok(())
    }

    fn command_of(&self, component: Component) -> Result<std::process::Command> {
        match (&self.node, component) {
            (_, Component::Etcd) => control_plane::etcd(&self.files),
            (_, Component::ApiServer) => control_plane::api_server(&self.files),
            (_, Component::ControllerManager) => control_plane::controller_manager(&self.files),
            (_, Component::Scheduler) => control_plane::scheduler(&self.files),
            (Some(node), Component::Containerd) => node.containerd(),
            (Some(node), Component::Kubelet) => node.kubelet(),
            (None, _) => bail!("the cluster has no node"),
        }
    }

    fn answers(&self, component: Component) -> Result<bool> {
        match (&self.node, component) {
            (_, Component::Etcd) => control_plane::etcd_answers(&self.files),
            (_, Component::ApiServer) => Ok(self.get("/readyz").is_ok()),
            (_, Component::ControllerManager) => {
                control_plane::is_healthy(self.files.ports.controller_manager)
            }
            (_, Component::Scheduler) => control_plane::is_healthy(self.files.ports.scheduler),
            (Some(node), Component::Containerd) => node.containerd_answers(),
            (Some(node), Component::Kubelet) => node.kubelet_answers(),
            (None, _) => bail!("the cluster has no node"),
        }
    }

    /// Asks a component to end (SIGTERM) and waits for it.
    pub fn stop_component(&self, component: Component) -> Result<()> {
        self.take(component)?.terminate(END).map(drop)
    }

    /// `kill -9` of a component.
    pub fn kill_component(&self, component: Component) -> Result<()> {
        self.take(component)?.kill9()
    }

    fn take(&self, component: Component) -> Result<Process> {
        let taken = lock(&self.running).remove(&component);
        taken.with_context(|| format!("{} does not run", component.name()))
    }

    /// Whether it was started and neither stopped nor ended by itself.
    pub fn is_running(&self, component: Component) -> bool {
        let mut running = lock(&self.running);
        running.get_mut(&component).is_some_and(|it| matches!(it.ended(), Ok(None)))
    }

    /// A component's process id; None if it does not run.
    pub fn process_id(&self, component: Component) -> Option<u32> {
        lock(&self.running).get(&component).map(Process::id)
    }

    /// Where a component's output goes; it is appended to by each start.
    pub fn log_file(&self, component: Component) -> PathBuf {
        self.files.at(&format!("{}.log", component.name()))
    }

    /// The folder of everything; a user of the cluster may keep files in it too.
    pub fn folder(&self) -> &Path {
        self.files.folder()
    }

    /// Where the API server is: on loopback, or with a node on the address of its own Service, which
    /// pods reach too.
    pub fn url(&self) -> String {
        self.files.url()
    }

    /// The authority that signed the API server's certificate, PEM.
    pub fn authority(&self) -> PathBuf {
        self.files.at("ca.pem")
    }

    /// A kubeconfig that may everything (`system:masters`).
    pub fn kubeconfig(&self) -> PathBuf {
        self.files.kubeconfig(files::ADMIN)
    }

    /// The kubeconfig of a user of [`Builder::user`].
    pub fn kubeconfig_of(&self, user: &str) -> Result<PathBuf> {
        let file = self.files.kubeconfig(user);
        ensure!(file.exists(), "the cluster was not told of a user {user}");
        Ok(file)
    }

    /// The bearer token of a user of [`Builder::user`].
    pub fn token_of(&self, user: &str) -> Result<String> {
        self.files.token(user)
    }

    /// kubectl of somebody who may everything.
    pub fn admin(&self) -> Kubectl {
        Kubectl::new(self.folder(), self.kubeconfig())
    }

    /// kubectl of a user of [`Builder::user`].
    pub fn user(&self, name: &str) -> Result<Kubectl> {
        Ok(Kubectl::new(self.folder(), self.kubeconfig_of(name)?))
    }

    /// `kubectl ARGUMENTS` as admin; what it prints. Any failure is an error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.admin().run(arguments)
    }

    /// `kubectl apply` of a text of YAML documents, as admin.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.admin().apply(yaml)
    }

    /// GET of a path of the API server as admin; the body. Much quicker than kubectl.
    pub fn get(&self, path: &str) -> Result<String> {
        control_plane::get(&self.files, path)
    }

    /// The same, read as JSON.
    pub fn get_json(&self, path: &str) -> Result<Value> {
        let body = self.get(path)?;
        serde_json::from_str(&body).with_context(|| format!("{path} is no JSON: {body}"))
    }

    /// Asks every so often until it is so; an error after some minutes. An error of `ready` counts
    /// as a no and is told at the end.
    pub fn wait(&self, what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        let mut last = None;
        let waited = tool::wait_until(what, START, || {
            std::thread::sleep(Duration::from_millis(200));
            let answer = ready();
            last = None;
            answer.or_else(|error| {
                last = Some(error);
                Ok(false)
            })
        });
        waited.map_err(|late| match last {
            Some(error) => error.context(late),
            None => late,
        })
    }

    /// Waits until the node says that it is ready and takes pods.
    pub fn wait_node_ready(&self) -> Result<()> {
        self.wait("the node to be ready", || {
            let node = self.get_json(&format!("/api/v1/nodes/{NODE}"))?;
            Ok(is_ready(&node) && node["spec"]["taints"].is_null())
        })
        .with_context(|| self.tail(Component::Kubelet))
    }

    /// Waits until the pod runs and is ready; an error tells its state and its events.
    pub fn wait_pod_ready(&self, namespace: &str, name: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let waited = self.wait(&format!("the pod {name}"), || Ok(is_ready(&self.get_json(&path)?)));
        waited.with_context(|| {
            let told = self.kubectl(&["describe", "pod", "-n", namespace, name]);
            told.unwrap_or_else(|error| format!("{error:#}"))
        })
    }

    fn tail(&self, component: Component) -> String {
        let log = fs::read(self.log_file(component)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn node(&self) -> Result<&Node> {
        self.node.as_ref().context("the cluster has no node; hint: Level::Node")
    }

    /// Lets the node pull images of `registry` (`registry.test` or `registry.test:5000`) from the
    /// server at `url`, by a `hosts.toml`. Registries on loopback need none.
    pub fn mirror(&self, registry: &str, url: &str) -> Result<()> {
        self.node()?.mirror(registry, url)
    }

    /// The node's `certs.d`, where containerd looks for `hosts.toml` at each pull.
    pub fn certs_d(&self) -> Result<PathBuf> {
        Ok(self.node()?.certs_d())
    }

    /// A folder whose manifests the kubelet runs as static pods.
    pub fn static_pods(&self) -> Result<PathBuf> {
        Ok(self.node()?.static_pods())
    }

    /// Gives the node an image, so that a pod with `imagePullPolicy: Never` can run it.
    pub fn import(&self, name: &str, image: &Image) -> Result<()> {
        self.node()?.import(name, image)
    }

    /// `ctr ARGUMENTS` against the node's containerd, in the namespace that the kubelet uses.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String> {
        self.node()?.ctr(arguments)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // From the kubelet back to the store, so that nobody complains of the next one's absence.
        let mut running = std::mem::take(&mut *lock(&self.running));
        for component in Component::ALL.iter().rev() {
            drop(running.remove(component));
        }
    }
}

/// Whether an object has the condition Ready.
fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
    conditions.is_some_and(|conditions| conditions.iter().any(ready))
}

#[cfg(test)]
mod tests {
    use super::{Cluster, Component, Level};

    #[test]
    fn the_api_server_takes_objects_and_knows_its_users() {
        let cluster = Cluster::builder(Level::ApiServer).user("ada", &["dev"]).start().unwrap();
        let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"},
            "spec": {"containers": [{"name": "c", "image": "example.test/app:1"}]}}"#;
        cluster.apply(pod).unwrap();
        let listed = cluster.get_json("/api/v1/namespaces/default/pods").unwrap();
        assert_eq!(listed["items"][0]["metadata"]["name"], "one");
        let who = cluster.user("ada").unwrap().run(&["auth", "whoami", "-o", "json"]).unwrap();
        assert!(who.contains("ada") && who.contains("dev"), "{who}");
        let refused = cluster.user("ada").unwrap().ask(&["get", "pods"], None).unwrap();
        assert!(!refused.success && refused.stderr.contains("Forbidden"), "{refused:?}");
        cluster.kill_component(Component::ApiServer).unwrap();
        assert!(cluster.get("/readyz").is_err());
        cluster.start_component(Component::ApiServer).unwrap();
        assert!(cluster.kubectl(&["get", "pod", "one"]).is_ok());
    }
}
