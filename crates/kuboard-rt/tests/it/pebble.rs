//! Pebble, the small ACME authority of the Let's Encrypt project, run for one test. It looks
//! at our proofs for real: it resolves names with a DNS server of ours and connects to our
//! listeners.

use crate::server::{Client, MOMENT, tls_connect};
use kuboard_rt::Tasks;
use rcgen::{CertificateParams, KeyPair};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

pub(crate) struct Pebble {
    /// The directory, for the ACME client.
    pub(crate) directory_url: String,
    /// Signs the TLS of the directory.
    pub(crate) ca_file: PathBuf,
    management: SocketAddr,
    log_file: PathBuf,
    _process: Child,
}

impl Pebble {
    /// Starts Pebble, which looks for http-01 at port `http` and for tls-alpn-01 at port `tls`
    /// of whatever name it is given; all names lead to 127.0.0.1.
    pub(crate) async fn start(dir: &Path, http: u16, tls: u16, tasks: &Tasks) -> Self {
        let program = tool("pebble");
        let (listen, management) = (free_port(), free_port());
        let (ca_file, key_file) = (dir.join("directory.pem"), dir.join("directory.key"));
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(&ca_file, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let config = serde_json::json!({"pebble": {
            "listenAddress": listen,
            "managementListenAddress": management,
            "certificate": ca_file,
            "privateKey": key_file,
            "httpPort": http,
            "tlsPort": tls,
            "keyAlgorithm": "ecdsa",
            "retryAfter": {"authz": 1, "order": 1},
        }});
        let config_file = dir.join("pebble.json");
        std::fs::write(&config_file, config.to_string()).unwrap();
        let log_file = dir.join("pebble.log");
        let log = std::fs::File::create(&log_file).unwrap();
        let process = Command::new(program)
            .arg("-config")
            .arg(&config_file)
            .arg("-dnsserver")
            .arg(answer_names(tasks).await.to_string())
            .env("PEBBLE_VA_NOSLEEP", "1")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let directory_url = format!("https://{listen}/dir");
        let pebble = Self { directory_url, ca_file, management, log_file, _process: process };
        while pebble.ask(tasks, "/roots/0").await.is_none() {
            tokio::time::sleep(MOMENT).await;
        }
        pebble
    }

    /// What Pebble said so far, for the message of a failed test.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log_file).unwrap()
    }

    /// The root that Pebble signs certificates with, as PEM.
    pub(crate) async fn root(&self, tasks: &Tasks) -> String {
        self.ask(tasks, "/roots/0").await.unwrap()
    }

    async fn ask(&self, tasks: &Tasks, path: &str) -> Option<String> {
        let ca = std::fs::read_to_string(&self.ca_file).unwrap();
        let connected = tls_connect(self.management, "127.0.0.1", &ca, b"http/1.1").await.ok()?;
        let body = Client::http1(connected.stream, tasks).await.get(path).await.1;
        String::from_utf8(body.to_vec()).ok()
    }
}

/// Where a program that the tests need lies. They fail without it: a test that skips itself
/// tells nobody that it never ran.
fn tool(name: &str) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
    let var = |name: &str| std::env::var(name).ok().map(PathBuf::from);
    let folder = var("KUBOARD_TOOLS")
        .or_else(|| Some(var("HOME")?.join(".cache/kuboard/tools")))
        .unwrap_or_default()
        .join("bin");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing; hint: `cargo xtask test` installs it, or: GOBIN={} go install \
         github.com/letsencrypt/pebble/v2/cmd/pebble@latest",
        path.display(),
        folder.display(),
    );
    path
}

/// A port that was free just now.
fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A DNS server (over TCP, as Pebble asks) that knows one answer: 127.0.0.1 to questions for an
/// IPv4 address.
async fn answer_names(tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let answering = async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut question = vec![0; client.read_u16().await.unwrap().into()];
            client.read_exact(&mut question).await.unwrap();
            let answer = name_answer(&question);
            client.write_u16(answer.len() as u16).await.unwrap();
            client.write_all(&answer).await.unwrap();
        }
    };
    let stop = tasks.shutdown();
    tasks.spawn("dns", async move {
        tokio::select! {
            () = stop.begun() => {}
            () = answering => {}
        }
    });
    addr
}

fn name_answer(packet: &[u8]) -> Vec<u8> {
    const A: u16 = 1;
    // A header of 12 bytes, then the name as labels up to an empty one, type and class.
    let name = packet[12..].iter().position(|byte| *byte == 0).unwrap();
    let question = &packet[12..12 + name + 5];
    let asks_a = question[name + 1..name + 3] == A.to_be_bytes();
    let mut answer = packet[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, asks_a.into(), 0, 0, 0, 0]);
    answer.extend(question);
    if asks_a {
        // The name of the question, A, IN, a minute, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}
