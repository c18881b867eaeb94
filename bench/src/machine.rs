//! What the figures were measured on, and with what.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::contender::Kind;
use crate::plan::GIB;

/// Processor, kernel, cores, memory.
pub(crate) fn hardware() -> Value {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "cpu": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "kernel": kernel.trim(),
        "memoryGiB": memory(),
        "load": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
    })
}

/// The contenders' versions and the revision of this checkout.
pub(crate) fn versions(kinds: &[Kind]) -> Value {
    let mut versions = json!({"revision": revision(), "profile": profile()});
    for kind in [Kind::Kuboard, Kind::Distribution, Kind::Zot] {
        versions[kind.name()] = if kinds.contains(&kind) {
            json!(kind.version().unwrap_or_else(|error| format!("unknown: {error:#}")))
        } else {
            json!("not installed")
        };
    }
    versions
}

/// The checkout's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// How our binary was built, as far as its path tells.
fn profile() -> &'static str {
    let Ok(command) = kuboard_testkit::Kuboard::command() else { return "unknown" };
    let path = Path::new(command.get_program()).to_string_lossy().into_owned();
    match path.as_str() {
        path if path.contains("/release/") => "release",
        path if path.contains("/debug/") => "debug: figures of ours are meaningless",
        _ => "unknown",
    }
}

fn revision() -> String {
    let git = |arguments: &[&str]| {
        let done = Command::new("git").current_dir(root()).args(arguments).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    match git(&["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => head,
        _ => format!("{head} with changes"),
    }
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim());
    value.unwrap_or("unknown").to_owned()
}

fn memory() -> u64 {
    let text = field("/proc/meminfo", "MemTotal");
    let kilobytes: u64 = text.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0);
    (kilobytes * 1024).div_ceil(GIB)
}
