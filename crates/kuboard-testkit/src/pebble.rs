//! Let's Encrypt's test server, an ACME authority on loopback.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tempfile::TempDir;

use crate::certificate::Authority;
use crate::process::Process;
use crate::tool;

/// The running authority. Dropping it ends it.
pub struct Pebble {
    port: u16,
    management_port: u16,
    authority: Authority,
    /// Its process.
    pub process: Process,
    _folder: TempDir,
}

impl Pebble {
    /// Starts an authority that validates HTTP-01 on `http_port` and TLS-ALPN-01 on `tls_port` of
    /// the names it is asked for, and signs for `validity`.
    pub fn start(http_port: u16, tls_port: u16, validity: Duration) -> Result<Pebble> {
        let folder = tool::folder("pebble")?;
        let authority = Authority::new(&folder.path().join("pki"))?;
        let own = authority.issue("pebble", &["localhost", "127.0.0.1"])?;
        let (port, management_port) = (tool::free_port()?, tool::free_port()?);
        let config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management_port}"),
            "certificate": own.certificate_file(),
            "privateKey": own.key_file(),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "domainBlocklist": [],
            "retryAfter": {"authz": 1, "order": 1},
            "profiles": {
                "default": {"description": "for tests", "validityPeriod": validity.as_secs()},
            },
        }});
        let file = folder.path().join("pebble.json");
        fs::write(&file, config.to_string())?;
        let mut command = tool::command("pebble")?;
        command
            .arg("-config")
            .arg(&file)
            // Its deliberate delays and refusals test clients, not us.
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .env("PEBBLE_AUTHZREUSE", "0");
        let mut process =
            Process::start("pebble", &mut command, &folder.path().join("pebble.log"))?;
        process.wait_ready(Duration::from_secs(10), || {
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        Ok(Pebble { port, management_port, authority, process, _folder: folder })
    }

    /// The directory's URL.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// What a client must trust to reach the directory, PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.authority.file()
    }

    /// The root that signs its certificates, PEM. It is another one at each start.
    pub fn root(&self) -> Result<String> {
        let mut command = tool::command("curl")?;
        command.args(["--silent", "--show-error", "--fail", "--cacert"]).arg(self.ca_file());
        command.arg(format!("https://localhost:{}/roots/0", self.management_port));
        tool::output(&mut command)
    }
}

#[cfg(test)]
mod tests {
    use super::Pebble;
    use crate::tool;
    use std::time::Duration;

    #[test]
    fn its_directory_and_its_root_can_be_had() {
        let pebble = Pebble::start(1, 2, Duration::from_secs(3600)).unwrap();
        let mut curl = tool::command("curl").unwrap();
        curl.args(["--silent", "--show-error", "--fail", "--cacert"]).arg(pebble.ca_file());
        let directory = tool::output(curl.arg(pebble.directory())).unwrap();
        assert!(directory.contains("newOrder"), "{directory}");
        assert!(pebble.root().unwrap().contains("BEGIN CERTIFICATE"));
    }
}
