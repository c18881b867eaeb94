//! Namespaces for the processes and mounts of a node. A container outlives what started it, and
//! its mounts outlive it; in here both end with the first process, which ends with ours.
//!
//! The network is the machine's own: the kubelet must reach the API server on loopback. Pods have
//! networks of their own, and their devices vanish with them.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::keeper::Keeper;
use crate::process::Process;
use crate::tool;

/// What the first process does: gives the node its own copy of what programs keep at fixed paths,
/// then collects the ended processes that nobody else waits for. $1: the node's folder.
///
/// The kubelet insists on three settings of the kernel. It may write them into files that lie over
/// the real ones, so that the machine keeps its own.
const FIRST: &str = r#"set -e
mount --make-rshared /
for folder in /run/containerd /run/netns /var/lib/cni /var/log/containers; do
  mkdir -p "$folder"
  mount -t tmpfs -o mode=755 kuboard-test "$folder"
done
for setting in vm/overcommit_memory kernel/panic kernel/panic_on_oops; do
  mkdir -p "$1/sys/${setting%/*}"
  cat "/proc/sys/$setting" >"$1/sys/$setting"
  mount --bind "$1/sys/$setting" "/proc/sys/$setting"
done
: >"$1/isolated"
while :; do sleep 1000 & wait $!; done
"#;

/// The namespaces. Dropping the value ends every process in them.
pub(super) struct Isolation {
    // Before the keeper, which it is started from.
    _first: Process,
    keeper: Keeper,
    mounts: Arc<File>,
    // Last: a group can be removed when it is empty.
    _groups: Groups,
}

impl Isolation {
    /// Makes them, with a control group of this name. It needs root.
    pub(super) fn start(folder: &Path, group: &str) -> Result<Isolation> {
        let groups = Groups::create(group).context("hint: a node needs root")?;
        let keeper = Keeper::new()?;
        let mut unshare = tool::command("unshare")?;
        unshare
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "sh", "-c", FIRST, "sh"])
            .arg(folder);
        let log = folder.join("isolation.log");
        let mut first = keeper.run(move || Process::start("unshare", &mut unshare, &log))?;
        let made = folder.join("isolated");
        first.wait_ready(Duration::from_secs(30), || Ok(made.exists()))?;
        let open = |name: &str| File::open(format!("/proc/{}/ns/{name}", first.id()));
        let mounts = Arc::new(open("mnt")?);
        let processes = open("pid_for_children")?;
        // From now on what this thread starts is born in there.
        keeper.run(move || enter(&processes, libc::CLONE_NEWPID).map_err(anyhow::Error::from))?;
        Ok(Isolation { _first: first, keeper, mounts, _groups: groups })
    }

    /// Starts a process in there.
    pub(super) fn run(
        &self,
        start: impl FnOnce() -> Result<Process> + Send + 'static,
    ) -> Result<Process> {
        self.keeper.run(start)
    }

    /// Lets the command see the mounts of in there when it starts.
    pub(super) fn with_mounts(&self, command: &mut Command) {
        let mounts = self.mounts.clone();
        // SAFETY: setns(2) with an open descriptor is safe to call between fork and exec.
        unsafe {
            command.pre_exec(move || enter(&mounts, libc::CLONE_NEWNS));
        }
    }
}

fn enter(namespace: &File, kind: i32) -> std::io::Result<()> {
    // SAFETY: setns(2) takes an open descriptor and an integer.
    match unsafe { libc::setns(namespace.as_raw_fd(), kind) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

const GROUPS: &str = "/sys/fs/cgroup";

/// A control group of our own below the root of each hierarchy, so that kubelets do not fight.
struct Groups {
    folders: Vec<PathBuf>,
}

impl Groups {
    fn create(name: &str) -> Result<Groups> {
        let mut groups = Groups { folders: Vec::new() };
        for root in hierarchies()? {
            sweep(&root);
            let folder = root.join(name);
            fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
            // A new cpuset is empty, and nothing can run in it until it is told where.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(inherited) = fs::read(root.join(file))
                    && folder.join(file).exists()
                    && root.join("cpuset.cpu_exclusive").exists()
                {
                    fs::write(folder.join(file), inherited)?;
                }
            }
            groups.folders.push(folder);
        }
        Ok(groups)
    }
}

/// The roots of version 1's hierarchies, or the one of version 2.
fn hierarchies() -> Result<Vec<PathBuf>> {
    if Path::new(GROUPS).join("cgroup.controllers").exists() {
        return Ok(vec![PathBuf::from(GROUPS)]);
    }
    let mut roots = Vec::new();
    for entry in fs::read_dir(GROUPS)? {
        // Some are second names of others.
        let root = entry?.path().canonicalize()?;
        if root.join("cgroup.procs").exists() && !roots.contains(&root) {
            roots.push(root);
        }
    }
    Ok(roots)
}

/// What names start with; the id of the process that made it follows.
pub(super) const GROUP_PREFIX: &str = "kuboard-test-";

/// Removes what tests that were killed left behind.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(GROUP_PREFIX).and_then(|rest| rest.split('-').next());
        if let Some(maker) = maker
            && !Path::new("/proc").join(maker).exists()
        {
            remove(&entry.path());
        }
    }
}

/// Removes a group and the groups in it; true when it is gone.
fn remove(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

impl Drop for Groups {
    fn drop(&mut self) {
        // The kernel needs a moment to end what was in them. Those that stay are swept later.
        let gone = tool::wait_until("control groups", Duration::from_secs(20), || {
            self.folders.retain(|folder| !remove(folder));
            Ok(self.folders.is_empty())
        });
        let _ = gone;
    }
}
