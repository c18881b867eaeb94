//! The operator in the product, on a real API server: the webhook by hand, its certificates lost,
//! the API server away, the product restarted.

use anyhow::{Result, ensure};
use e2e::guarded::{ARTICLE, CVE, Guarded, namespace, pod, says};
use kuboard_testkit::Kuboard;
use kuboard_testkit::cluster::{Component, Level};

const SECRET: &str = "/api/v1/namespaces/kuboard/secrets/kuboard-webhook-tls";
const WEBHOOK: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/kuboard-admission";

#[test]
fn the_webhook_is_kept() -> Result<()> {
    let mut guarded = Guarded::start(Level::ApiServer)?;
    guarded.cluster.apply(ARTICLE)?;
    let bad = guarded.image("hosted/bad:1");
    says(&guarded.wait_refused("default", &bad)?, &[CVE])?;
    by_hand(&guarded, &bad)?;
    certificates_lost(&guarded)?;
    api_server_away(&guarded, &bad)?;
    restarted(&mut guarded, &bad)
}

/// Break-glass needs nothing but a kubeconfig, and lasts until it is taken back.
fn by_hand(guarded: &Guarded, bad: &str) -> Result<()> {
    let status = guarded.command(&["admission", "status"])?;
    ensure!(status["armed"] == true && status["disarmed"].is_null(), "{status}");
    let mut disarm = Kuboard::command()?;
    disarm.args(["admission", "disarm", "--kubeconfig"]).arg(guarded.cluster.kubeconfig());
    let done = disarm.arg("--data-dir").arg(guarded.ground.data()).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    guarded.accepted(&pod("default", "meanwhile", bad))?;
    guarded.cluster.kubectl(&["delete", "pod", "meanwhile", "--force"])?;
    let armed = guarded.command(&["admission", "arm"])?;
    ensure!(armed["armed"] == true, "{armed}");
    guarded.wait_refused("default", bad)?;
    Ok(())
}

/// The Secret is gone: authority and certificate are made anew, and the API server is told.
fn certificates_lost(guarded: &Guarded) -> Result<()> {
    let bundle = || -> Result<_> {
        Ok(guarded.cluster.get_json(WEBHOOK)?["webhooks"][0]["clientConfig"]["caBundle"].clone())
    };
    let before = bundle()?;
    guarded.cluster.kubectl(&["delete", "-n", "kuboard", "secret", "kuboard-webhook-tls"])?;
    guarded.cluster.wait("another authority", || {
        Ok(guarded.cluster.get_json(SECRET).is_ok() && bundle()? != before)
    })?;
    guarded.cluster.apply(&namespace("closed", &[("kuboard.cn/enforce", "strict")]))?;
    let object = pod("closed", "good", &guarded.image("hosted/good:1")).to_string();
    guarded.cluster.wait("pods of a strict namespace", || {
        let asked = guarded
            .cluster
            .admin()
            .ask(&["create", "--dry-run=server", "-f", "-"], Some(&object))?;
        Ok(asked.success)
    })
}

/// What was known stays, and what is new arrives when the API server is back.
fn api_server_away(guarded: &Guarded, bad: &str) -> Result<()> {
    guarded.cluster.kill_component(Component::ApiServer)?;
    guarded.cluster.start_component(Component::ApiServer)?;
    says(&guarded.wait_refused("default", bad)?, &[CVE])?;
    guarded.cluster.apply(&ARTICLE.replace("HIGH", "CRITICAL"))?;
    let object = pod("default", "probe", bad).to_string();
    guarded.cluster.wait("the milder policy", || {
        let asked = guarded
            .cluster
            .admin()
            .ask(&["create", "--dry-run=server", "-f", "-"], Some(&object))?;
        Ok(asked.success)
    })?;
    guarded.cluster.apply(ARTICLE)?;
    guarded.wait_refused("default", bad)?;
    Ok(())
}

/// Another process takes over what the last one left: authority, lease, webhook.
fn restarted(guarded: &mut Guarded, bad: &str) -> Result<()> {
    let before = guarded.cluster.get_json(SECRET)?["data"].clone();
    drop(guarded.kuboard.take());
    guarded.start_product()?;
    says(&guarded.wait_refused("default", bad)?, &[CVE])?;
    ensure!(guarded.cluster.get_json(SECRET)?["data"] == before, "the certificates were replaced");
    guarded.cluster.wait("a leader", || Ok(guarded.metric("operator_leader", &[])? == 1.0))?;
    Ok(())
}
