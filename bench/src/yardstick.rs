//! The registries that ours is compared with, at their best: the settings of their official images
//! with no log of requests, which ours does not write either.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use kuboard_testkit::http::Request;
use kuboard_testkit::process::Process;
use kuboard_testkit::tool;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contender::Setup;

/// A running registry. Dropping it ends it.
pub(crate) struct Yardstick {
    pub(crate) address: String,
    pub(crate) process: Process,
    _folder: TempDir,
}

impl Yardstick {
    /// distribution 3.1.
    pub(crate) fn distribution(data: &Path, setup: Setup<'_>) -> Result<Yardstick> {
        let port = tool::free_port()?;
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {
                "filesystem": {"rootdirectory": data},
                "cache": {"blobdescriptor": "inmemory"},
                "maintenance": {"uploadpurging": {"enabled": false}},
            },
            "http": {"addr": format!("127.0.0.1:{port}")},
        });
        if let Some(certificate) = setup.tls {
            config["http"]["tls"] = json!({
                "certificate": certificate.certificate_file(), "key": certificate.key_file(),
            });
        }
        if let Some(upstream) = setup.upstream {
            config["proxy"] = json!({"remoteurl": upstream});
        }
        let mut command = tool::command("registry")?;
        command.env("OTEL_TRACES_EXPORTER", "none");
        start("distribution", command, &config, port)
    }

    /// zot 2.1. Written from its documentation; its program is not among the tools that this
    /// project installs.
    pub(crate) fn zot(data: &Path, setup: Setup<'_>) -> Result<Yardstick> {
        let port = tool::free_port()?;
        let mut config = json!({
            "distSpecVersion": "1.1.0",
            "storage": {"rootDirectory": data, "gc": false, "dedupe": false},
            "http": {"address": "127.0.0.1", "port": port.to_string()},
            "log": {"level": "error"},
        });
        if let Some(certificate) = setup.tls {
            config["http"]["tls"] = json!({
                "cert": certificate.certificate_file(), "key": certificate.key_file(),
            });
        }
        if let Some(upstream) = setup.upstream {
            config["extensions"] = json!({"sync": {"enable": true, "registries": [{
                "urls": [upstream], "onDemand": true, "tlsVerify": false,
                "content": [{"prefix": "**"}],
            }]}});
        }
        start("zot", tool::command("zot")?, &config, port)
    }
}

/// Both take `serve FILE`, and JSON for YAML.
fn start(name: &str, mut command: Command, config: &Value, port: u16) -> Result<Yardstick> {
    let folder = tool::folder(name)?;
    let file = folder.path().join("config.json");
    fs::write(&file, config.to_string())?;
    command.arg("serve").arg(&file);
    let address = format!("127.0.0.1:{port}");
    let log = folder.path().join("log");
    let mut process = Process::start(name, &mut command, &log)?;
    process
        .wait_ready(Duration::from_secs(30), || {
            // A TLS port answers plain HTTP too, with 400.
            Ok(Request::get("/v2/").send(&address).is_ok())
        })
        .with_context(|| format!("start {name}"))?;
    Ok(Yardstick { address, process, _folder: folder })
}
