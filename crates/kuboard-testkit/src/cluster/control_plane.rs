//! How the control plane's programs are started, and asked whether they are ready.

use std::process::Command;

use anyhow::Result;

use super::Level;
use super::files::{ADMIN, CONTROLLER_MANAGER, Files, SCHEDULER};
use crate::http::Request;
use crate::tool;

/// The program that all of Kubernetes is linked into; its first argument says what it shall be.
pub(super) fn kubernetes(program: &str) -> Result<Command> {
    let mut command = tool::command("kubernetes")?;
    command.arg(program);
    Ok(command)
}

fn flag(name: &str, value: impl AsRef<std::ffi::OsStr>) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from(format!("--{name}="));
    flag.push(value);
    flag
}

pub(super) fn etcd(files: &Files) -> Result<Command> {
    let mut command = kubernetes("etcd")?;
    command
        .arg(flag("data-dir", files.at("etcd")))
        .arg(flag("listen-client-url", format!("http://127.0.0.1:{}", files.ports.etcd)))
        .arg(flag("listen-peer-url", format!("http://127.0.0.1:{}", files.ports.etcd_peer)));
    Ok(command)
}

pub(super) fn etcd_answers(files: &Files) -> Result<bool> {
    let address = format!("127.0.0.1:{}", files.ports.etcd);
    Ok(Request::get("/health").send(&address).is_ok_and(|answer| answer.status == 200))
}

pub(super) fn api_server(files: &Files) -> Result<Command> {
    let mut command = kubernetes("kube-apiserver")?;
    let (address, port) = files.api_server();
    command
        .arg(flag("etcd-servers", format!("http://127.0.0.1:{}", files.ports.etcd)))
        .args([flag("bind-address", &address), flag("advertise-address", &address)])
        .arg(flag("secure-port", port.to_string()))
        .arg(flag("tls-cert-file", files.at("server.pem")))
        .arg(flag("tls-private-key-file", files.at("server-key.pem")))
        .arg(flag("cert-dir", files.folder()))
        .arg(flag("service-account-issuer", files.url()))
        .arg(flag("service-account-key-file", files.at("service-accounts.pub")))
        .arg(flag("service-account-signing-key-file", files.at("service-accounts.key")))
        .arg(flag("service-cluster-ip-range", files.ranges.services()))
        .arg(flag("token-auth-file", files.at("tokens.csv")))
        .args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"])
        // The kubelet is asked by the node's name, which is its address.
        .args(["--allow-privileged=true", "--kubelet-preferred-address-types=Hostname"])
        // Loopback is no address for endpoints, and nobody would route to them anyhow.
        .arg("--endpoint-reconciler-type=none")
        // Without kube-proxy a Service's address leads nowhere: its pods are asked instead.
        .arg("--enable-aggregator-routing=true");
    if files.level == Level::ApiServer {
        // Nobody makes the ServiceAccounts that it would ask for.
        command.arg("--disable-admission-plugins=ServiceAccount");
    }
    Ok(command)
}

pub(super) fn controller_manager(files: &Files) -> Result<Command> {
    let mut command = kubernetes("kube-controller-manager")?;
    let kubeconfig = files.kubeconfig(CONTROLLER_MANAGER);
    command
        .arg(flag("kubeconfig", &kubeconfig))
        .arg(flag("authentication-kubeconfig", &kubeconfig))
        .arg(flag("authorization-kubeconfig", &kubeconfig))
        .arg("--bind-address=127.0.0.1")
        .arg(flag("secure-port", files.ports.controller_manager.to_string()))
        .arg(flag("cert-dir", files.at("controller-manager")))
        .arg(flag("service-account-private-key-file", files.at("service-accounts.key")))
        .arg(flag("root-ca-file", files.at("ca.pem")))
        .args(["--use-service-account-credentials=true", "--leader-elect=false"]);
    Ok(command)
}

pub(super) fn scheduler(files: &Files) -> Result<Command> {
    let mut command = kubernetes("kube-scheduler")?;
    let kubeconfig = files.kubeconfig(SCHEDULER);
    command
        .arg(flag("kubeconfig", &kubeconfig))
        .arg(flag("authentication-kubeconfig", &kubeconfig))
        .arg(flag("authorization-kubeconfig", &kubeconfig))
        .arg("--bind-address=127.0.0.1")
        .arg(flag("secure-port", files.ports.scheduler.to_string()))
        .arg(flag("cert-dir", files.at("scheduler")))
        .arg("--leader-elect=false");
    Ok(command)
}

/// Whether a component with a self-signed certificate says that it is healthy.
pub(super) fn is_healthy(port: u16) -> Result<bool> {
    let url = format!("https://127.0.0.1:{port}/healthz");
    Ok(tool::output(curl()?.args(["--insecure", &url])).is_ok())
}

/// The body of a path of the API server.
pub(super) fn get(files: &Files, path: &str) -> Result<String> {
    let token = files.token(ADMIN)?;
    let mut command = curl()?;
    command
        .arg("--cacert")
        .arg(files.at("ca.pem"))
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .arg(format!("{}{path}", files.url()));
    tool::output(&mut command)
}

fn curl() -> Result<Command> {
    let mut command = tool::command("curl")?;
    // Nothing of the person who runs the tests: no configuration, no proxy.
    command.args(["--disable", "--noproxy", "*", "--silent", "--show-error", "--fail-with-body"]);
    command.args(["--max-time", "30"]);
    Ok(command)
}
