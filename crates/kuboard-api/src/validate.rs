//! What a configuration may say: bounds of single values, what several keys say together, and
//! what is allowed but worth a word.

use std::path::PathBuf;

use crate::config::{AcmeChallenge, Anonymous, Config, ScanEngine, TlsMode, Visibility};
use crate::error::{ConfigError, Problem};
use crate::upstream::UpstreamCredentials;

impl Config {
    /// Checks everything, including what depends on the command line: call it when every value is
    /// final.
    ///
    /// # Errors
    /// Every problem there is, each with what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.refuse([self.value_problems(), self.start_problems()].concat())
    }

    /// Checks what no command line changes; part of parsing.
    pub(crate) fn check_values(&self) -> Result<(), ConfigError> {
        self.refuse(self.value_problems())
    }

    /// What callers without credentials may do, when the configuration leaves it open: everything
    /// on a loopback address without users, else nothing.
    pub fn anonymous(&self) -> Anonymous {
        self.access.anonymous.unwrap_or({
            let users = self.access.htpasswd.is_some() || self.access.kubernetes.enable;
            let open = self.server.listen.0.ip().is_loopback() && !users;
            if open { Anonymous::Push } else { Anonymous::None }
        })
    }

    /// File of the key that signs tokens.
    pub fn token_key(&self) -> PathBuf {
        self.access.token_key.clone().unwrap_or_else(|| self.data_dir.join("token-key.pem"))
    }

    /// What is allowed but may not be meant; for `config check` and the log at start.
    pub fn advice(&self) -> Vec<Problem> {
        let mut advice = Vec::new();
        let (rules, _) = self.resolve();
        let open = self.anonymous() != Anonymous::None;
        for rule in &rules {
            let key = format!("upstream \"{}\"", rule.name);
            let secret = rule.credentials != UpstreamCredentials::None;
            if secret && open && rule.visibility == Visibility::Public {
                advice.push(
                    Problem::at(&key, "whoever may pull here reads its private images too")
                        .hint("set visibility = \"authenticated\" or \"recheck\" if it has any"),
                );
            }
            if rule.insecure_skip_verify {
                advice.push(
                    Problem::at(&key, "its certificate is not checked").hint("set caFile instead"),
                );
            }
            let plain = rule.endpoints(&rule.name).iter().any(|end| end.url.scheme() == "http");
            if secret && plain {
                advice.push(
                    Problem::at(&key, "its credentials travel without TLS")
                        .hint("use an https:// endpoint, with caFile for a private authority"),
                );
            }
        }
        let behind_proxy =
            self.server.external_url.is_some() && self.server.listen.0.ip().is_loopback();
        if behind_proxy && self.access.anonymous.is_none() && open {
            advice.push(
                Problem::at("access.anonymous", "whoever reaches server.externalUrl may push")
                    .hint("set access.anonymous = \"pull\" and access.htpasswd"),
            );
        }
        advice
    }

    fn refuse(&self, problems: Vec<Problem>) -> Result<(), ConfigError> {
        if problems.is_empty() { Ok(()) } else { Err(self.origin.error(problems)) }
    }

    fn value_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check_server(&mut problems);
        self.check_tls(&mut problems);
        self.check_storage(&mut problems);
        self.check_scan(&mut problems);
        let mut positive = |key: &str, good: bool, hint: &str| {
            if !good {
                problems.push(Problem::at(key, format!("{key} must not be 0")).hint(hint));
            }
        };
        let size = self.cache.cache_size_gb.bytes() > 0;
        positive("cache.cacheSizeGB", size, "to keep nothing, write enable = false");
        positive(
            "cache.peerDiscoveryInterval",
            !self.cache.peer_discovery_interval.is_zero(),
            "30 is usual",
        );
        positive("scan.workers", self.scan.workers > 0, "2 is usual; enable = false scans nothing");
        positive(
            "advisories.updateMinutes",
            !self.advisories.update_interval.is_zero(),
            "60 is usual; update = false fetches nothing",
        );
        positive(
            "gc.leaseMinutes",
            !self.gc.lease.is_zero(),
            "pushes need time to finish; 15 is usual",
        );
        let defaults = &self.defaults;
        positive("defaults.concurrency", defaults.concurrency > 0, "16 is usual");
        positive(
            "defaults.connectTimeoutSeconds",
            !defaults.connect_timeout.is_zero(),
            "10 is usual",
        );
        positive("defaults.readTimeoutSeconds", !defaults.read_timeout.is_zero(), "30 is usual");
        let limits = &self.server.limits;
        positive("server.limits.maxConnections", limits.max_connections > 0, "8192 is usual");
        positive(
            "server.limits.headerTimeoutSeconds",
            !limits.header_timeout.is_zero(),
            "30 is usual",
        );
        positive("server.limits.idleTimeoutSeconds", !limits.idle_timeout.is_zero(), "60 is usual");
        problems.extend(self.resolve().1);
        problems
    }

    fn check_server(&self, problems: &mut Vec<Problem>) {
        if let Some(url) = &self.server.external_url
            && url.path() != "/"
        {
            problems.push(
                Problem::at("server.externalUrl", "the registry cannot live below a path")
                    .hint("clients ask for /v2/ at the root; write the URL without a path"),
            );
        }
        if self.data_dir.as_os_str().is_empty() {
            problems.push(
                Problem::at("dataDir", "dataDir is empty").hint("name a folder, for example \".\""),
            );
        }
    }

    fn check_tls(&self, problems: &mut Vec<Problem>) {
        let tls = &self.server.tls;
        let files = tls.cert.is_some() && tls.key.is_some();
        let any_file = tls.cert.is_some() || tls.key.is_some();
        if tls.mode == TlsMode::Files && !files {
            problems.push(
                Problem::at("server.tls.mode", "TLS from files needs both files")
                    .hint("add cert = \"chain.pem\" and key = \"key.pem\""),
            );
        } else if tls.mode != TlsMode::Files && any_file {
            problems.push(
                Problem::at(
                    "server.tls.mode",
                    format!("cert and key are not read with mode = \"{}\"", tls.mode),
                )
                .hint("write mode = \"files\", or remove them"),
            );
        }
        if tls.mode != TlsMode::Acme {
            return;
        }
        if tls.acme.domains.is_empty() {
            problems.push(
                Problem::at("server.tls.acme", "an ACME order without names")
                    .hint("add domains = [\"registry.example.com\"] to [server.tls.acme]"),
            );
        }
        if tls.acme.directory.is_none() {
            problems.push(
                Problem::at("server.tls.acme.directory", "an ACME account without a server")
                    .hint("remove the key for Let's Encrypt, or name a directory URL"),
            );
        }
        if tls.acme.challenge == AcmeChallenge::Http01 && self.server.plain_listen.is_none() {
            problems.push(
                Problem::at("server.tls.acme.challenge", "http-01 needs an address without TLS")
                    .hint("add plainListen = \"0.0.0.0:80\" to [server], or use \"tls-alpn-01\""),
            );
        }
    }

    fn check_scan(&self, problems: &mut Vec<Problem>) {
        let clair = &self.scan.clair;
        if self.scan.engine == ScanEngine::Clair
            && (clair.url.is_none() || clair.registry_url.is_none())
        {
            problems.push(
                Problem::at("scan.engine", "an external Clair without its address, or ours")
                    .hint("set url and registryUrl in [scan.clair]"),
            );
        }
        if self.scan.api.notifier_target.is_some() && self.scan.api.notifier_callback.is_none() {
            problems.push(
                Problem::at("scan.api.notifierTarget", "notifications need a way back")
                    .hint("set notifierCallback to this API's address as the target sees it"),
            );
        }
        let mut names = std::collections::BTreeSet::new();
        for (number, webhook) in self.webhook.iter().enumerate() {
            let key = format!("webhook[{number}]");
            if webhook.name.is_empty() || !names.insert(webhook.name.as_str()) {
                problems.push(
                    Problem::at(&key, "a webhook needs a name of its own").hint("add name = \"…\""),
                );
            }
            if webhook.url.is_some() == webhook.url_file.is_some() {
                problems.push(
                    Problem::at(&key, "a webhook needs one address")
                        .hint("add url = \"https://…\", or urlFile for one with a secret in it"),
                );
            }
            let known = ["unknown", "negligible", "low", "medium", "high", "critical"];
            let threshold = webhook.severity_threshold.as_deref().map(str::to_lowercase);
            if threshold.is_some_and(|threshold| !known.contains(&threshold.as_str())) {
                problems.push(
                    Problem::at(format!("{key}.severityThreshold"), "no such severity")
                        .hint("write LOW, MEDIUM, HIGH or CRITICAL"),
                );
            }
        }
    }

    fn check_storage(&self, problems: &mut Vec<Problem>) {
        if self.catalog.url_file.is_some() && !self.catalog.url.expose().is_empty() {
            problems.push(
                Problem::at("catalog.urlFile", "the catalogue has two addresses")
                    .hint("remove url, or urlFile"),
            );
        }
        let storage = &self.storage;
        let known = ["s3://", "gs://", "az://"];
        let url = storage.url.as_str();
        let bucket = known.iter().find_map(|scheme| url.strip_prefix(scheme));
        if !url.is_empty() && bucket.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
            problems.push(
                Problem::at("storage.url", format!("not an object store: \"{url}\"")).hint(
                    "write \"s3://bucket/prefix\", \"gs://bucket/prefix\" or \
                     \"az://container/prefix\"; for a folder leave it empty and set dataDir",
                ),
            );
        }
        let pair = (&storage.access_key_id, &storage.secret_access_key_file);
        if matches!(pair, (Some(_), None) | (None, Some(_))) {
            problems.push(
                Problem::at("storage", "half of an access key")
                    .hint("set accessKeyId and secretAccessKeyFile, or neither"),
            );
        }
        let plain = storage.endpoint.as_ref().is_some_and(|url| url.scheme() == "http");
        if plain && !storage.allow_http {
            problems.push(
                Problem::at("storage.endpoint", "the object store would be asked without TLS")
                    .hint("use https://, or allow it with allowHttp = true"),
            );
        }
    }

    /// What depends on the address, which a command line may change.
    fn start_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let server = &self.server;
        let listen = server.listen.0;
        let users = self.access.htpasswd.is_some() || self.access.kubernetes.enable;
        let said = self.access.anonymous.is_some() || users;
        if !listen.ip().is_loopback() && !said {
            problems.push(
                Problem::at(
                    "server.listen",
                    format!("{listen} can be reached from other machines, and nobody said who may push"),
                )
                .hint(
                    "set htpasswd = \"file\" in [access] (made with: htpasswd -cB file user), or say \
                     anonymous = \"pull\", \"push\" or \"none\" there, or listen on 127.0.0.1",
                ),
            );
        }
        if let Some(plain) = server.plain_listen {
            if plain.0 == listen && listen.port() != 0 {
                problems.push(
                    Problem::at("server.plainListen", "the same address as server.listen")
                        .hint("choose another port"),
                );
            }
            if server.tls.mode == TlsMode::Off {
                problems.push(
                    Problem::at("server.plainListen", "server.listen is without TLS already")
                        .hint("remove plainListen, or set server.tls.mode"),
                );
            }
        }
        problems
    }
}
