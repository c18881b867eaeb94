//! nginx in front of the product, configured as users are told to.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use crate::process::Process;
use crate::tool;

/// The running proxy. Dropping it ends it.
pub struct Nginx {
    address: String,
    /// Its process.
    pub process: Process,
    _folder: TempDir,
}

impl Nginx {
    /// Passes every request on to `address`, with the `Host` that the client named.
    pub fn in_front_of(address: &str) -> Result<Nginx> {
        let folder = tool::folder("nginx")?;
        let own = format!("127.0.0.1:{}", tool::free_port()?);
        let at = |name: &str| folder.path().join(name).display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {};\n", at(kind)))
            .concat();
        // SAFETY: geteuid(2) only reads the caller's identity.
        let root = unsafe { libc::geteuid() } == 0;
        // A worker of another user could not enter our folder.
        let user = if root { "user root;" } else { "" };
        let config = format!(
            "daemon off;\n{user}\nworker_processes 1;\npid {};\nerror_log stderr;\n\
             events {{}}\n\
             http {{\n  access_log off;\n{temporary}\
             \x20 server {{\n    listen {own};\n    client_max_body_size 0;\n\
             \x20   location / {{\n      proxy_pass http://{address};\n\
             \x20     proxy_set_header Host $host;\n    }}\n  }}\n}}\n",
            at("pid")
        );
        fs::write(folder.path().join("nginx.conf"), config)?;
        let mut command = tool::command("nginx")?;
        command.args(["-p"]).arg(folder.path()).args(["-e", "stderr", "-c", &at("nginx.conf")]);
        let mut process = Process::start("nginx", &mut command, &folder.path().join("nginx.log"))?;
        process.wait_ready(Duration::from_secs(10), || {
            Ok(std::net::TcpStream::connect(&own).is_ok())
        })?;
        Ok(Nginx { address: own, process, _folder: folder })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

#[cfg(test)]
mod tests {
    use super::Nginx;
    use crate::http::Request;
    use crate::upstream::FakeUpstream;

    #[test]
    fn it_passes_the_host_on() {
        let upstream = FakeUpstream::start().unwrap();
        let nginx = Nginx::in_front_of(&upstream.address()).unwrap();
        let request = Request::get("/v2/").header("Host", "registry.internal");
        assert_eq!(request.send(nginx.address()).unwrap().status, 200);
        let seen = upstream.requests();
        assert_eq!(seen[0].headers.get("host"), Some("registry.internal"));
    }
}
