//! The main job on a real cluster: the article's policy is applied as it stands, and from then on
//! a pod with findings at or above the threshold is refused with its reasons, while others run on
//! the real kubelet, pulled through the product; also after restarts and when advisories change.

use anyhow::{Context, Result, ensure};
use e2e::guarded::{ARTICLE, CVE, Guarded, bad, namespace, opaque, pod, says};
use kuboard_testkit::cluster::Level;
use kuboard_testkit::feeds::Debian;
use kuboard_testkit::tool;

#[test]
fn the_articles_policy_guards_a_cluster() -> Result<()> {
    let mut guarded = Guarded::start(Level::Node)?;
    guarded.cluster.apply(ARTICLE)?;
    let bad_image = guarded.image("hosted/bad:1");
    let said = guarded.wait_refused("default", &bad_image)?;
    // Image, finding, fix, policy, and what to do.
    says(&said, &[&bad_image, CVE, "openssl", "3.0.10-1", "production-scan", "HIGH"])?;
    says(&said, &["ImageExemption"])?;
    let said = guarded.refused(&pod("default", "bad", &bad_image))?;
    says(&said, &[CVE])?;
    // A clean one runs, pulled through the product.
    let pulls = || guarded.metric("registry_pull_requests_total", &[]);
    let before = pulls()?;
    guarded.accepted(&pod("default", "good", &guarded.image("hosted/good:1")))?;
    guarded.cluster.wait_pod_ready("default", "good")?;
    ensure!(pulls()? > before, "the node did not pull through the product");
    // Its decisions are kept.
    let decisions = guarded.command(&["admission", "decisions", "--outcome", "deny"])?;
    let first = decisions.get(0).context("no decision")?;
    ensure!(
        first["pod"] == "bad"
            && first["policy"].as_str().is_some_and(|it| it.contains("production-scan")),
        "{first}"
    );
    // An exemption of the namespace lets it through, and says so.
    guarded.cluster.apply(&format!(
        "apiVersion: kuboard.cn/v1alpha1\nkind: ImageExemption\nmetadata: {{name: accepted}}\n\
         spec:\n  vulnerabilities: [{CVE}]\n  reason: the code is not reached\n  expiresAt: {}\n",
        in_days(30)?
    ))?;
    let object = pod("default", "exempted", &bad_image);
    guarded.cluster.wait("the exemption", || {
        let asked =
            guarded.cluster.admin().ask(&["create", "-f", "-"], Some(&object.to_string()))?;
        Ok(asked.success)
    })?;
    guarded.cluster.wait_pod_ready("default", "exempted")?;
    guarded.cluster.kubectl(&["delete", "imageexemption", "accepted"])?;
    // What runs may be started again, with a warning; elsewhere it is still refused.
    let object = pod("default", "again", &bad_image);
    let said = guarded.accepted(&object)?;
    says(&said, &["Warning", CVE])?;
    // It goes on after a restart of the product, by what it had stored.
    drop(guarded.kuboard.take());
    guarded.start_product()?;
    guarded.wait_armed()?;
    let said = guarded.accepted(&pod("default", "later", &bad_image))?;
    says(&said, &["Warning", CVE])?;
    guarded.cluster.apply(&namespace("other", &[]))?;
    guarded.cluster.apply(&in_namespace(ARTICLE, "other"))?;
    says(&guarded.wait_refused("other", &bad_image)?, &[CVE, "other/production-scan"])?;
    Ok(())
}

/// A policy of another namespace.
fn in_namespace(policy: &str, namespace: &str) -> String {
    let name = "  name: production-scan";
    policy.replace(name, &format!("{name}\n  namespace: {namespace}"))
}

/// Nothing is scanned yet: the pod waits for its scan, which is asked for, and is then judged.
#[test]
fn an_unscanned_image_waits_for_its_scan() -> Result<()> {
    let guarded = Guarded::start(Level::ApiServer)?;
    guarded.cluster.apply(ARTICLE)?;
    guarded.wait_refused("default", &guarded.image("hosted/bad:1"))?;
    let client = guarded.product()?.client();
    client.push("hosted/new", "1", &bad("new")?)?;
    let said = guarded.wait_refused("default", &guarded.image("hosted/new:1"))?;
    ensure!(said.contains(CVE) || said.contains("scan"), "{said}");
    guarded.wait_scanned("hosted/new:1")?;
    guarded.cluster.wait("the verdict", || {
        let object = pod("default", "new", &guarded.image("hosted/new:1")).to_string();
        let asked = guarded
            .cluster
            .admin()
            .ask(&["create", "--dry-run=server", "-f", "-"], Some(&object))?;
        Ok(!asked.success && asked.stderr.contains(CVE))
    })?;
    // Of an image without any package database nothing can be said; that is not "clean".
    client.push("hosted/opaque", "1", &opaque()?)?;
    let said = guarded.wait_refused("default", &guarded.image("hosted/opaque:1"))?;
    says(&said, &["hosted/opaque:1"])?;
    // What does not exist can't be resolved: it passes with a warning, but not where a namespace
    // is strict.
    let nothing = guarded.image("hosted/nothing:1");
    let said = guarded.accepted(&pod("default", "nothing", &nothing))?;
    says(&said, &["Warning", "hosted/nothing:1"])?;
    guarded.cluster.apply(&namespace("strict", &[("kuboard.cn/enforce", "strict")]))?;
    let strict =
        ARTICLE.replace("name: production-scan", "name: production-scan\n  namespace: strict");
    guarded.cluster.apply(&strict)?;
    guarded.wait_refused("strict", &nothing)?;
    Ok(())
}

/// New advisories don't stop what runs, and what is new waits out its grace only where the policy
/// grants one.
#[test]
fn new_advisories_leave_running_images_alone() -> Result<()> {
    let guarded = Guarded::start(Level::Node)?;
    let good = guarded.image("hosted/good:1");
    let policy = ARTICLE.replace("  schedule:", "  gracePeriod: 0s\n  schedule:");
    guarded.cluster.apply(&policy)?;
    guarded.wait_refused("default", &guarded.image("hosted/bad:1"))?;
    guarded.accepted(&pod("default", "runs", &good))?;
    guarded.cluster.wait_pod_ready("default", "runs")?;
    let mut feeds = e2e::guarded::advisories();
    feeds.debian("openssl", "CVE-2090-7002", &Debian::Fixed("3.0.11-1".to_owned()), "high");
    guarded.ground.advise(&feeds)?;
    // Elsewhere it is refused as soon as the advisories are matched.
    guarded.cluster.apply(&namespace("other", &[]))?;
    guarded.cluster.apply(&in_namespace(&policy, "other"))?;
    let said = guarded.wait_refused("other", &good)?;
    says(&said, &["CVE-2090-7002", "3.0.11-1"])?;
    // Where it runs, it may be started again.
    let said = guarded.accepted(&pod("default", "runs-too", &good))?;
    says(&said, &["Warning", "CVE-2090-7002"])?;
    let report = guarded.cluster.kubectl(&["get", "imagereports", "-o", "json"])?;
    ensure!(report.contains("CVE-2090-7002"), "{report}");
    Ok(())
}

/// The time so many days from now, as RFC 3339 writes it.
fn in_days(days: u64) -> Result<String> {
    let later = format!("{days} days");
    let mut date = tool::command("date")?;
    let made = tool::output(date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &later]))?;
    Ok(format!("{:?}", made.trim()))
}
