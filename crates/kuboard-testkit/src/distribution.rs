//! The distribution project's registry (3.1.1) as a real upstream and as the yardstick: with or
//! without a login, as a store or as a pull-through cache, its traffic read from its own log.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certificate::Certificate;
use crate::http::Request;
use crate::process::Process;
use crate::token::{ISSUER, SERVICE, TokenIssuer};
use crate::tool;

/// What the registry shall be like; `start` runs it.
#[derive(Default)]
pub struct Builder {
    storage: Option<PathBuf>,
    read_only: bool,
    auth: Option<Value>,
    key_set: Option<Value>,
    proxy: Option<Value>,
    tls: Option<Value>,
}

impl Builder {
    /// Keeps its content in this folder instead of one that vanishes.
    pub fn storage(mut self, folder: &Path) -> Builder {
        self.storage = Some(folder.to_owned());
        self
    }

    /// Refuses pushes, so that several may share one folder.
    pub fn read_only(mut self) -> Builder {
        self.read_only = true;
        self
    }

    /// Lets in who has a token of this issuer.
    pub fn token(mut self, issuer: &TokenIssuer) -> Builder {
        self.auth = Some(json!({"realm": issuer.realm(), "service": SERVICE, "issuer": ISSUER}));
        self.key_set = Some(issuer.key_set().clone());
        self
    }

    /// Caches what it pulls from this URL, and stores nothing else.
    pub fn proxy(mut self, url: &str) -> Builder {
        self.proxy = Some(json!({"remoteurl": url}));
        self
    }

    /// Speaks TLS.
    pub fn tls(mut self, certificate: &Certificate) -> Builder {
        self.tls = Some(json!({
            "certificate": certificate.certificate_file(),
            "key": certificate.key_file(),
        }));
        self
    }

    /// Starts it on a free port of loopback and waits until it answers.
    pub fn start(self) -> Result<DistributionRegistry> {
        let folder = tool::folder("distribution")?;
        let storage = self.storage.unwrap_or_else(|| folder.path().join("storage"));
        let address = format!("127.0.0.1:{}", tool::free_port()?);
        let mut http = json!({"addr": address});
        let tls = self.tls.is_some();
        if let Some(certificate) = self.tls {
            http["tls"] = certificate;
        }
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": true}},
            "storage": {
                "filesystem": {"rootdirectory": storage},
                "delete": {"enabled": true},
                "maintenance": {
                    "uploadpurging": {"enabled": false},
                    "readonly": {"enabled": self.read_only},
                },
            },
            "http": http,
        });
        if let Some(proxy) = self.proxy {
            config["proxy"] = proxy;
        }
        if let (Some(mut token), Some(keys)) = (self.auth, self.key_set) {
            let file = folder.path().join("keys.json");
            fs::write(&file, keys.to_string())?;
            token["jwks"] = json!(file);
            config["auth"] = json!({"token": token});
        }
        // JSON is YAML.
        let file = folder.path().join("config.yml");
        fs::write(&file, config.to_string())?;
        let mut command = tool::command("registry")?;
        command.arg("serve").arg(&file).env("OTEL_TRACES_EXPORTER", "none");
        let mut process =
            Process::start("registry", &mut command, &folder.path().join("registry.log"))?;
        process.wait_ready(Duration::from_secs(20), || {
            // A TLS port answers plain HTTP too, with 400.
            Ok(Request::get("/v2/").send(&address).is_ok())
        })?;
        Ok(DistributionRegistry { address, tls, process, folder })
    }
}

/// The running registry. Dropping it ends it and removes its folder.
pub struct DistributionRegistry {
    address: String,
    tls: bool,
    /// Its process, for measurements.
    pub process: Process,
    folder: TempDir,
}

impl DistributionRegistry {
    /// An open registry with a storage of its own, to be described further.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// An open, empty registry.
    pub fn start() -> Result<DistributionRegistry> {
        Builder::default().start()
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http://host:port`, or `https` with a certificate.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// The folder that vanishes with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Every request that was answered: method, path with query, status, body bytes sent.
    pub fn requests(&self) -> Vec<Answered> {
        let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let log = self.process.log();
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| text(line, "msg").starts_with("response completed"))
            .map(|line| Answered {
                method: text(&line, "http.request.method"),
                target: text(&line, "http.request.uri"),
                status: line["http.response.status"].as_u64().unwrap_or_default(),
                bytes: line["http.response.written"].as_u64().unwrap_or_default(),
            })
            .collect()
    }

    /// Body bytes sent for GET requests whose path contains `part`.
    pub fn bytes(&self, part: &str) -> u64 {
        let fitting = |it: &Answered| it.method == "GET" && it.target.contains(part);
        self.requests().into_iter().filter(fitting).map(|it| it.bytes).sum()
    }
}

/// One line of the registry's log.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Status code.
    pub status: u64,
    /// Body bytes sent.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::DistributionRegistry;
    use crate::client::RegistryClient;
    use crate::http::Request;
    use crate::image::Image;
    use crate::token::TokenIssuer;

    #[test]
    fn it_takes_an_image_and_counts_what_it_gives() {
        let registry = DistributionRegistry::start().unwrap();
        let image = Image::oci(1, &[100_000]).unwrap();
        let client = RegistryClient::new(registry.address());
        client.push("team/app", "v1", &image).unwrap();
        assert_eq!(client.pull("team/app", "v1").unwrap().digest, image.digest);
        assert_eq!(registry.bytes("/blobs/"), image.blob_bytes());
    }

    #[test]
    fn it_asks_for_tokens_and_takes_those_of_the_issuer() {
        let issuer = TokenIssuer::start("user", "secret").unwrap();
        let registry = DistributionRegistry::builder().token(&issuer).start().unwrap();
        let refused = Request::get("/v2/").send(registry.address()).unwrap();
        assert_eq!(refused.status, 401);
        let image = Image::oci(1, &[100]).unwrap();
        let stranger = RegistryClient::new(registry.address());
        assert!(stranger.push("team/app", "v1", &image).is_err());
        let client = RegistryClient::with_login(registry.address(), "user", "secret");
        client.push("team/app", "v1", &image).unwrap();
        assert_eq!(client.pull("team/app", "v1").unwrap().digest, image.digest);
    }
}
