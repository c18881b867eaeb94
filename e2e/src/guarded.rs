//! A real cluster that the product guards: everything in one process beside it, the webhook armed,
//! two images in its registry of which one has findings.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kuboard_oci::Digest;
use kuboard_testkit::cluster::{Cluster, Level, busybox, busybox_with};
use kuboard_testkit::feeds::{Debian, Feeds};
use kuboard_testkit::{Image, Kuboard, tool};
use serde_json::{Value, json};

use crate::packed::{debian, layer};
use crate::service::{BOUND, Form, Ground, end_of_log};

/// The article's policy, word for word.
pub const ARTICLE: &str = r#"apiVersion: kuboard.cn/v1alpha1
kind: ImageScanPolicy
metadata:
  name: production-scan
spec:
  severityThreshold: HIGH
  excludeRegistries:
    - "*.internal.corp"
  schedule: "0 */6 * * *"
"#;

/// The finding of [`Guarded::bad`].
pub const CVE: &str = "CVE-2090-7001";

/// A cluster, and the product that guards it.
pub struct Guarded {
    /// The cluster.
    pub cluster: Cluster,
    /// The product.
    pub kuboard: Option<Kuboard>,
    /// What it stands on.
    pub ground: Ground,
    address: String,
    webhook: String,
    further: String,
}

/// Advisories: openssl below 3.0.10 has [`CVE`].
pub fn advisories() -> Feeds {
    let mut feeds = Feeds::default();
    feeds.debian("openssl", CVE, &Debian::Fixed("3.0.10-1".to_owned()), "high");
    feeds
}

impl Guarded {
    /// Starts both, waits until the webhook is armed, and pushes `hosted/good:1` and
    /// `hosted/bad:1`.
    pub fn start(level: Level) -> Result<Guarded> {
        Guarded::of(Cluster::start(level)?, "")
    }

    /// The same on a cluster that runs already, with further settings of the product.
    pub fn of(cluster: Cluster, further: &str) -> Result<Guarded> {
        let ground = Ground::new(Form::Sqlite, &advisories())?;
        let mut guarded = Guarded {
            cluster,
            kuboard: None,
            ground,
            address: format!("127.0.0.1:{}", tool::free_port()?),
            webhook: format!("127.0.0.1:{}", tool::free_port()?),
            further: further.to_owned(),
        };
        guarded.cluster.apply(&namespace("kuboard", &[]))?;
        guarded.start_product()?;
        guarded.wait_armed()?;
        let client = guarded.product()?.client();
        client.push("hosted/good", "1", &good()?)?;
        client.push("hosted/bad", "1", &bad("bad")?)?;
        guarded.wait_scanned("hosted/bad:1")?;
        guarded.wait_scanned("hosted/good:1")?;
        Ok(guarded)
    }

    /// Starts the product, on the same ground and at the same addresses each time.
    pub fn start_product(&mut self) -> Result<()> {
        let (kubeconfig, webhook) = (self.cluster.kubeconfig(), &self.webhook);
        let settings = format!(
            "[kubernetes]\nenable = true\nkubeconfig = {kubeconfig:?}\n[admission]\n\
             listen = {webhook:?}\nwebhookUrl = \"https://{webhook}\"\n{}",
            self.further
        );
        let builder = self.ground.builder().config(&settings).listen(&self.address);
        self.kuboard = Some(builder.start()?);
        Ok(())
    }

    /// The running product.
    pub fn product(&self) -> Result<&Kuboard> {
        self.kuboard.as_ref().context("the product does not run")
    }

    /// Waits until the API server asks the webhook.
    pub fn wait_armed(&self) -> Result<()> {
        let armed = self.cluster.wait("the webhook", || {
            let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/\
                        kuboard-admission";
            Ok(self.cluster.get_json(path)?["webhooks"].is_array())
        });
        armed.with_context(|| self.product().map(end_of_log).unwrap_or_default())
    }

    /// Waits until an image of the registry has a report.
    pub fn wait_scanned(&self, name: &str) -> Result<()> {
        let kuboard = self.product()?;
        let waited = tool::wait_until("the report", BOUND, || {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "1"));
            let (manifest, _) = kuboard.client().manifest(repository, tag)?;
            let digest = Digest::sha256(&manifest);
            let path = format!("/matcher/api/v1/vulnerability_report/{digest}");
            std::thread::sleep(Duration::from_millis(50));
            Ok(kuboard.get(&path)?.status == 200)
        });
        waited.with_context(|| format!("{name}: {}", end_of_log(kuboard)))
    }

    /// An image of its registry, as nodes name it.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Asks for an object and wants it refused; what the API server said.
    pub fn refused(&self, object: &Value) -> Result<String> {
        let said = self.cluster.admin().refused(&["create", "-f", "-"], &object.to_string());
        said.with_context(|| self.product().map(end_of_log).unwrap_or_default())
    }

    /// Asks for an object and wants it taken; what the API server said, warnings among it.
    pub fn accepted(&self, object: &Value) -> Result<String> {
        let said = self.cluster.admin().accepted(&["create", "-f", "-"], &object.to_string());
        said.with_context(|| self.product().map(end_of_log).unwrap_or_default())
    }

    /// Waits until a pod with this image is refused (without making it): policies arrive a moment
    /// after they were applied.
    pub fn wait_refused(&self, namespace: &str, image: &str) -> Result<String> {
        let object = pod(namespace, "probe", image).to_string();
        let mut said = String::new();
        let refused = self.cluster.wait("the refusal", || {
            let arguments = ["create", "--dry-run=server", "-f", "-"];
            let answer = self.cluster.admin().ask(&arguments, Some(&object))?;
            said = format!("{}{}", answer.stdout, answer.stderr);
            Ok(!answer.success)
        });
        refused.with_context(|| {
            format!("{said}\n{}", self.product().map(end_of_log).unwrap_or_default())
        })?;
        Ok(said)
    }

    /// A figure of the product's metrics.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        self.product()?.metric(name, labels)
    }

    /// Runs a command of the product with `-o json` on this cluster.
    pub fn command(&self, arguments: &[&str]) -> Result<Value> {
        let kubeconfig = self.cluster.kubeconfig();
        let mut command = Kuboard::command()?;
        command.args(arguments).arg("--data-dir").arg(self.ground.data());
        command.env("KUBECONFIG", kubeconfig).args(["-o", "json"]);
        let done = command.output()?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        serde_json::from_str(&text).with_context(|| {
            format!("{arguments:?}: {text}{}", String::from_utf8_lossy(&done.stderr))
        })
    }
}

/// An image without findings that a kubelet can run.
pub fn good() -> Result<Image> {
    busybox_with("good", layer(&debian(&[("openssl", "3.0.10-1", "openssl")]))?)
}

/// An image with [`CVE`] that a kubelet can run; another `label` is another image.
pub fn bad(label: &str) -> Result<Image> {
    busybox_with(label, layer(&debian(&[("openssl", "3.0.9-1", "openssl")]))?)
}

/// An image of which nothing can be said: it has no package database.
pub fn opaque() -> Result<Image> {
    busybox("opaque")
}

/// A namespace.
pub fn namespace(name: &str, labels: &[(&str, &str)]) -> String {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        .to_string()
}

/// A pod of one container.
pub fn pod(namespace: &str, name: &str, image: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": image}]}})
}

/// Wants all of these words in a text.
pub fn says(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "\"{word}\" is not in: {text}");
    }
    Ok(())
}

/// A moment so many days from now, as RFC 3339 writes it.
pub fn in_days(days: u32) -> Result<String> {
    // `date` knows calendars.
    let mut date = tool::command("date")?;
    date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("{days} days")]);
    Ok(tool::output(&mut date)?.trim().to_owned())
}
