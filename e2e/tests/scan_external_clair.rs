//! A real Clair 4 in the place of the own scanner: what passes is judged by it, it reads layers by
//! tokens of this registry, and what it can't say now is said later and never taken for "nothing".

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::packed::{self, advisories, application};
use e2e::service::{BOUND, FORMS, Form, Ground, Receiver, end_of_log, wait_found};
use kuboard_testkit::clair::Clair;
use kuboard_testkit::feeds::{Feeds, Osv, Score};
use kuboard_testkit::{FakeUpstream, Kuboard, On, RegistryClient, tool};
use serde_json::Value;

const USER: &str = "alice";
const PASSWORD: &str = "correct horse";

/// What Clair finds in [`application`]: critical, high, medium, low. It takes no advisories on
/// Debian's packages from OSV, and does not read Node's.
const COUNTS: [u32; 4] = [1, 0, 1, 0];
/// The same on the second day.
const LATER: [u32; 4] = [2, 0, 1, 0];

/// `kuboard up` with that Clair, closed to strangers.
fn service(ground: &Ground, clair: &Clair, more: &str) -> Result<Kuboard> {
    start(ground, clair, more, None)
}

fn start(
    ground: &Ground,
    clair: &Clair,
    more: &str,
    upstream: Option<&FakeUpstream>,
) -> Result<Kuboard> {
    let users = ground.at("htpasswd");
    let mut command = tool::command("htpasswd")?;
    tool::output(command.args(["-B", "-b", "-c"]).arg(&users).args([USER, PASSWORD]))?;
    let address = format!("127.0.0.1:{}", tool::free_port()?);
    let settings = format!(
        "[access]\nanonymous = \"none\"\nhtpasswd = {users:?}\n[scan]\nengine = \"clair\"\n\
         [scan.clair]\nurl = {:?}\nregistryUrl = \"http://{address}\"\n{more}",
        clair.url(),
    );
    let mut builder = ground.builder().config(&settings).listen(&address);
    if let Some(upstream) = upstream {
        builder = builder.upstream("up.test", &upstream.url());
    }
    builder.start()
}

fn login(kuboard: &Kuboard) -> RegistryClient {
    RegistryClient::with_login(kuboard.address(), USER, PASSWORD)
}

/// The advisories of a second day: one more on Django.
fn second_day() -> Feeds {
    let mut feeds = advisories();
    let late = Osv::new("PyPI", "GHSA-made-late-0001", "django").alias("CVE-2090-2099");
    feeds.osv(late.fixed("9.0.0").score(Score::Critical).modified(60));
    feeds
}

/// Pulled and pushed images are judged by Clair, told of, and judged anew when its advisories
/// change.
#[test]
fn what_passes_is_judged_by_clair() -> Result<()> {
    FORMS.into_iter().try_for_each(|form| judged(form).with_context(|| format!("{form:?}")))
}

fn judged(form: Form) -> Result<()> {
    let ground = Ground::new(form, &advisories())?;
    let mut clair = Clair::start(&advisories())?;
    let upstream = FakeUpstream::start()?;
    let receiver = Receiver::start()?;
    fs::write(ground.at("secret"), "not-a-secret")?;
    let pulled = packed::image(1, &application()?)?;
    upstream.put("team/app", "v1", &pulled);
    let told = receiver.settings(&ground.at("secret"));
    let kuboard = start(&ground, &clair, &told, Some(&upstream))?;
    let client = login(&kuboard);
    client.pull("up.test/team/app", "v1")?;
    wait_found(&kuboard, "up.test", COUNTS).with_context(|| clair.log())?;
    // It read the layers through this registry, which had them.
    let blobs = On::blobs().method("GET");
    ensure!(upstream.count(&blobs) == pulled.blobs.len(), "{:#?}", upstream.requests());

    let mut layers = application()?;
    layers.push(vec![packed::file("srv/note", "another image")]);
    let pushed = packed::image(2, &layers)?;
    client.push("team/other", "v1", &pushed)?;
    wait_found(&kuboard, "hosted", COUNTS)?;
    let opened = |ids: &[&str]| -> BTreeSet<(String, String, String)> {
        let names = ["up.test/team/app:v1", "team/other:v1"];
        let each = |id: &&str| names.map(|name| (name.into(), "opened".into(), (*id).into()));
        ids.iter().flat_map(each).collect()
    };
    let first = ["CVE-2090-2001", "CVE-2090-2003"];
    receiver.wait_told(&opened(&first), BOUND).context(end_of_log(&kuboard))?;
    same_api(&kuboard, &clair, &pushed.digest.to_string())?;

    let before = kuboard.metric("scan_database_generation", &[])?;
    ensure!(before >= 1.0, "no generation of advisories");
    clair.kill()?;
    clair.revive(&second_day())?;
    wait_found(&kuboard, "up.test", LATER).context("the second day")?;
    wait_found(&kuboard, "hosted", LATER).context("the second day")?;
    receiver.wait_told(&opened(&["CVE-2090-2099"]), BOUND)?;
    ensure!(kuboard.metric("scan_database_generation", &[])? > before);
    ensure!(upstream.count(&blobs) == pulled.blobs.len(), "{:#?}", upstream.requests());
    Ok(())
}

/// Clair's API at our address is Clair's own.
fn same_api(kuboard: &Kuboard, clair: &Clair, digest: &str) -> Result<()> {
    for path in [
        "/indexer/api/v1/index_state".to_owned(),
        format!("/indexer/api/v1/index_report/{digest}"),
        format!("/matcher/api/v1/vulnerability_report/{digest}"),
        format!("/matcher/api/v1/vulnerability_report/sha256:{}", "0".repeat(64)),
    ] {
        let (ours, theirs) = (kuboard.get(&path)?, clair.get(&path)?);
        ensure!(ours.status == theirs.status, "{path}: {} {}", ours.status, theirs.status);
        let [ours, theirs]: [Value; 2] = [ours.json()?, theirs.json()?];
        ensure!(ours == theirs, "{path}: {ours:#} {theirs:#}");
    }
    // The own reports are nobody's to be taken for Clair's.
    ensure!(kuboard.get("/api/v1/metadata")?.status == 404, "Harbor's API is answered");
    Ok(())
}

/// While Clair is away jobs fail, and are tried until it is back; no image passes for sound.
#[test]
fn an_absent_clair_is_waited_for() -> Result<()> {
    let ground = Ground::new(Form::Sqlite, &advisories())?;
    let mut clair = Clair::start(&advisories())?;
    clair.kill()?;
    let receiver = Receiver::start()?;
    fs::write(ground.at("secret"), "not-a-secret")?;
    let upstream = FakeUpstream::start()?;
    let mut layers = application()?;
    layers.push(vec![packed::file("srv/note", "another image")]);
    upstream.put("team/other", "v1", &packed::image(2, &layers)?);
    let told = receiver.settings(&ground.at("secret"));
    let kuboard = start(&ground, &clair, &told, Some(&upstream))?;
    let image = packed::image(1, &application()?)?;
    let client = login(&kuboard);
    client.push("team/app", "v1", &image)?;
    client.pull("up.test/team/other", "v1")?;
    let failed = || kuboard.metric("scan_jobs_total", &["kind=\"scan\"", "result=\"failed\""]);
    tool::wait_until("the job's failure", BOUND, || Ok(failed()? >= 1.0))?;
    let done = kuboard.metric("scan_jobs_total", &["kind=\"scan\"", "result=\"done\""])?;
    ensure!(done == 0.0, "a job is done without a report");
    ensure!(receiver.told().is_empty() && receiver.delivered().is_empty(), "something was told");
    ensure!(kuboard.get("/readyz")?.status == 200, "the registry is not ready");
    let report = kuboard.get(&format!("/matcher/api/v1/vulnerability_report/{}", image.digest))?;
    ensure!(report.status == 502, "{}", report.status);
    clair.revive(&second_day())?;
    wait_found(&kuboard, "up.test", LATER).with_context(|| clair.log())?;
    wait_found(&kuboard, "hosted", LATER).with_context(|| clair.log())
}

/// An image that Clair can't read is set aside with Clair's reason; others are judged.
#[test]
fn what_clair_cannot_read_is_set_aside() -> Result<()> {
    let ground = Ground::new(Form::Sqlite, &advisories())?;
    let clair = Clair::start(&advisories())?;
    let kuboard = service(&ground, &clair, "")?;
    let whole = packed::layer(&application()?[0])?;
    let half = kuboard_testkit::image::Blob::new(whole[..whole.len() / 2].to_vec());
    let client = login(&kuboard);
    client.push("team/broken", "v1", &packed::of_blobs(7, vec![half])?)?;
    client.push("team/app", "v1", &packed::image(1, &application()?)?)?;
    wait_found(&kuboard, "hosted", COUNTS)?;
    let failed = || kuboard.metric("scan_jobs_total", &["kind=\"scan\"", "result=\"failed\""]);
    tool::wait_until("the broken image's failure", BOUND, || Ok(failed()? >= 1.0))?;
    ensure!(kuboard.process.log().contains("clair"), "{}", end_of_log(&kuboard));
    Ok(())
}
