//! The scan engine beside the registry: what is pulled through and pushed is reported without being
//! asked for, without a second download, and again when advisories change.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::packed::{self, advisories, application};
use e2e::programs::Programs;
use e2e::service::{BOUND, FORMS, Form, Ground, Mood, Receiver, end_of_log, wait_found};
use kuboard_testkit::feeds::{Feeds, Mirror, Osv, Score};
use kuboard_testkit::{FakeUpstream, Image, Kuboard, On, tool};

/// How many findings [`application`] has: critical, high, medium, low.
const COUNTS: [u32; 4] = [1, 3, 1, 1];

fn copy(programs: &Programs, kuboard: &Kuboard, name: &str, to: &str) -> Result<()> {
    let from = format!("docker://{}/{name}", kuboard.address());
    let to = format!("dir:{}", programs.at(to).display());
    programs.skopeo(&["copy", "--quiet", "--src-tls-verify=false", &from, &to]).map(drop)
}

/// A pull by a real client is reported, and every byte comes from the upstream once.
#[test]
fn what_is_pulled_is_reported() -> Result<()> {
    FORMS.into_iter().try_for_each(|form| pulled(form).with_context(|| format!("{form:?}")))
}

fn pulled(form: Form) -> Result<()> {
    let ground = Ground::new(form, &advisories())?;
    let upstream = FakeUpstream::start()?;
    let image = packed::image(1, &application()?)?;
    upstream.put("team/app", "v1", &image);
    let start = || ground.builder().upstream("up.test", &upstream.url()).start();
    let mut kuboard = start()?;
    let programs = Programs::new()?;
    copy(&programs, &kuboard, "up.test/team/app:v1", "out")?;
    wait_found(&kuboard, "up.test", COUNTS)?;
    let blobs = On::blobs().method("GET");
    ensure!(upstream.bytes(&blobs) == image.blob_bytes(), "{} bytes", upstream.bytes(&blobs));
    ensure!(upstream.count(&blobs) == image.blobs.len(), "{:#?}", upstream.requests());
    // Nor does a restart need any of it again, and its figures are those of before.
    ensure!(kuboard.terminate()?.success(), "{}", end_of_log(&kuboard));
    let kuboard = start()?;
    wait_found(&kuboard, "up.test", COUNTS).context("after a restart")?;
    copy(&programs, &kuboard, "up.test/team/app:v1", "again")?;
    ensure!(upstream.bytes(&blobs) == image.blob_bytes(), "{:#?}", upstream.requests());
    Ok(())
}

#[test]
fn what_is_pushed_is_reported() -> Result<()> {
    FORMS.into_iter().try_for_each(|form| pushed(form).with_context(|| format!("{form:?}")))
}

fn pushed(form: Form) -> Result<()> {
    let ground = Ground::new(form, &advisories())?;
    let kuboard = ground.builder().start()?;
    let image = packed::image(1, &application()?)?;
    let programs = Programs::new()?;
    image.write_layout(&ground.at("layout"), "v1")?;
    let from = format!("oci:{}:v1", ground.at("layout").display());
    let to = |tag: &str| format!("docker://{}/team/app:{tag}", kuboard.address());
    programs.skopeo_copy(&from, &to("v1"))?;
    wait_found(&kuboard, "hosted", COUNTS)?;
    // Another tag of the same image counts as an image of its own.
    programs.skopeo_copy(&from, &to("v2"))?;
    wait_found(&kuboard, "hosted", COUNTS.map(|count| 2 * count)).context("a second tag")?;
    // A tag that moves to a sound image takes its findings along.
    let sound = packed::image(2, &[packed::debian(&[("bash", "5.2.15-2", "bash")])])?;
    kuboard.client().push("team/app", "v2", &sound)?;
    wait_found(&kuboard, "hosted", COUNTS).context("a tag that moved")?;
    Ok(())
}

/// Whoever only looks at a manifest makes nobody download the layers.
#[test]
fn a_look_at_the_manifest_downloads_nothing() -> Result<()> {
    let ground = Ground::new(Form::Sqlite, &advisories())?;
    let upstream = FakeUpstream::start()?;
    upstream.put("team/app", "v1", &packed::image(1, &application()?)?);
    let kuboard = ground.builder().upstream("up.test", &upstream.url()).start()?;
    let name = format!("docker://{}/up.test/team/app:v1", kuboard.address());
    Programs::new()?.skopeo(&["inspect", "--raw", "--tls-verify=false", &name])?;
    let ended = || kuboard.metric("scan_jobs_total", &["kind=\"scan\"", "result=\"done\""]);
    tool::wait_until("the end of the job", BOUND, || Ok(ended()? >= 1.0))?;
    let blobs: Vec<_> =
        upstream.requests().into_iter().filter(|seen| seen.path.contains("/blobs/")).collect();
    ensure!(blobs.is_empty(), "{blobs:#?}");
    Ok(())
}

/// Of an index, what was pulled is reported; attestations and platforms that nobody wants are left
/// where they are.
#[test]
fn of_an_index_the_pulled_platform_is_reported() -> Result<()> {
    let ground = Ground::new(Form::Sqlite, &advisories())?;
    let upstream = FakeUpstream::start()?;
    let image = packed::image(1, &application()?)?;
    let mut other = application()?;
    other.push(packed::node_module("lodash", "1.0.0"));
    let other = packed::image(2, &other[1..])?;
    let index = packed::attested_index(&[("linux/amd64", &image), ("linux/s390x", &other)])?;
    upstream.put("team/app", "v1", &index);
    let kuboard = ground.builder().upstream("up.test", &upstream.url()).start()?;
    let programs = Programs::new()?;
    let from = format!("docker://{}/up.test/team/app:v1", kuboard.address());
    let to = format!("dir:{}", programs.at("out").display());
    let platform = ["--override-os", "linux", "--override-arch", "amd64"];
    let fixed = ["copy", "--quiet", "--src-tls-verify=false", &from, &to];
    programs.skopeo(&[&platform[..], &fixed].concat())?;
    wait_found(&kuboard, "up.test", COUNTS)?;
    let bytes = upstream.bytes(&On::blobs().method("GET"));
    ensure!(bytes == image.blob_bytes(), "{bytes} bytes for {}", image.blob_bytes());
    Ok(())
}

/// Registries that are excluded are served, and left alone.
#[test]
fn excluded_registries_are_left_alone() -> Result<()> {
    let ground = Ground::new(Form::Sqlite, &advisories())?;
    let upstream = FakeUpstream::start()?;
    upstream.put("team/app", "v1", &packed::image(1, &application()?)?);
    let mut layers = application()?;
    layers.push(vec![packed::file("srv/note", "another image")]);
    upstream.put("team/other", "v1", &packed::image(2, &layers)?);
    let kuboard = ground
        .builder()
        .config("[scan]\nexcludeRegistries = [\"*.internal.test\"]")
        .upstream("hub.internal.test", &upstream.url())
        .upstream("up.test", &upstream.url())
        .start()?;
    kuboard.client().pull("hub.internal.test/team/app", "v1")?;
    kuboard.client().pull("up.test/team/other", "v1")?;
    wait_found(&kuboard, "up.test", COUNTS)?;
    let excluded = ["registry=\"hub.internal.test\""];
    ensure!(kuboard.metric("scan_vulnerabilities_found", &excluded)? == 0.0);
    Ok(())
}

/// The service keeps its own advisories up to date out of a mirror, and says how old they are.
#[test]
fn it_fetches_its_advisories_itself() -> Result<()> {
    let mirror = Mirror::start(&advisories())?;
    let feeds = advisories().names();
    let settings = format!("[advisories]\nmirror = {:?}\nfeeds = {feeds:?}\n", mirror.url());
    let kuboard = Kuboard::builder().config(&settings).start()?;
    tool::wait_until("the advisories", BOUND, || {
        Ok(kuboard.metric("scan_database_generation", &[])? >= 1.0)
    })?;
    ensure!(kuboard.metric("scan_database_built_timestamp_seconds", &[])? > 1.0e9);
    kuboard.client().push("team/app", "v1", &packed::image(1, &application()?)?)?;
    wait_found(&kuboard, "hosted", COUNTS)
}

/// The advisories of a second day: one more on lodash, and the one on Django is corrected.
fn second_day() -> Feeds {
    let mut feeds = advisories();
    let late = Osv::new("npm", "GHSA-made-late-0001", "lodash").alias("CVE-2090-2099");
    feeds.osv(late.fixed("9.0.0").score(Score::Critical).modified(60));
    let django = Osv::new("PyPI", "GHSA-made-pypi-0001", "django").alias("CVE-2090-2001");
    feeds.osv(django.fixed("2.1").score(Score::Medium).modified(60));
    feeds
}

/// New advisories concern known images at once: nothing is read again, and the receiver is told.
#[test]
fn new_advisories_are_told() -> Result<()> {
    FORMS.into_iter().try_for_each(|form| told(form).with_context(|| format!("{form:?}")))
}

fn told(form: Form) -> Result<()> {
    const SECRET: &str = "not-a-secret";
    let ground = Ground::new(form, &advisories())?;
    let upstream = FakeUpstream::start()?;
    let mut receiver = Receiver::start()?;
    fs::write(ground.at("secret"), SECRET)?;
    let image = packed::image(1, &application()?)?;
    upstream.put("team/app", "v1", &image);
    let kuboard = ground
        .builder()
        .config(&receiver.settings(&ground.at("secret")))
        .upstream("up.test", &upstream.url())
        .start()?;
    let sound = packed::image(2, &[packed::debian(&[("bash", "5.2.15-2", "bash")])])?;
    kuboard.client().push("team/sound", "v1", &sound)?;
    let mut layers = application()?;
    layers.push(vec![packed::file("srv/note", "another image")]);
    kuboard.client().push("team/app", "v1", &packed::image(3, &layers)?)?;
    kuboard.client().pull("up.test/team/app", "v1")?;
    let told = |change: &str, ids: &[&str]| -> BTreeSet<(String, String, String)> {
        let names = ["team/app:v1", "up.test/team/app:v1"];
        let ids = ids.iter().map(|id| (*id).to_owned());
        let pairs = ids.flat_map(|id| names.map(|name| (name.to_owned(), id.clone())));
        pairs.map(|(name, id)| (name, change.to_owned(), id)).collect()
    };
    let first = ["CVE-2090-1001", "CVE-2090-2001", "CVE-2090-2002", "CVE-2090-2003"];
    receiver.wait_told(&told("opened", &first), BOUND).context(end_of_log(&kuboard))?;
    let before = upstream.requests().len();
    // Away while it happens, then failing, then well.
    receiver.kill();
    ground.advise(&second_day())?;
    wait_found(&kuboard, "up.test", [2, 3, 0, 1]).context("the second day")?;
    wait_found(&kuboard, "hosted", [2, 3, 0, 1]).context("the second day")?;
    receiver.be(Mood::Failing);
    receiver.revive()?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    receiver.be(Mood::Well);
    receiver.wait_told(&told("opened", &["CVE-2090-2099"]), BOUND)?;
    receiver.wait_told(&told("fixed", &["CVE-2090-2001"]), BOUND)?;
    ensure!(upstream.requests().len() == before, "{:#?}", &upstream.requests()[before..]);
    // Nothing was told that is not so, and nobody is bothered about the sound image.
    let all = receiver.told();
    let odd: Vec<_> = all.iter().filter(|(name, ..)| name.contains("sound")).collect();
    ensure!(odd.is_empty(), "{odd:#?}");
    let fixed: Vec<_> = all.iter().filter(|(_, change, _)| change == "fixed").collect();
    ensure!(fixed.len() == 2, "{fixed:#?}");
    receiver.check_signatures(SECRET)
}

/// The same image under several names, asked for at about the same time: each name is told of.
#[test]
fn an_image_is_told_under_all_its_names() -> Result<()> {
    let ground = Ground::new(Form::Sqlite, &advisories())?;
    let upstream = FakeUpstream::start()?;
    let receiver = Receiver::start()?;
    fs::write(ground.at("secret"), "not-a-secret")?;
    let image = packed::image(1, &application()?)?;
    upstream.put("team/app", "v1", &image);
    let kuboard = ground
        .builder()
        .config(&receiver.settings(&ground.at("secret")))
        .upstream("up.test", &upstream.url())
        .start()?;
    for name in ["team/one", "team/two", "team/three"] {
        kuboard.client().push(name, "v1", &image)?;
    }
    kuboard.client().pull("up.test/team/app", "v1")?;
    let names = ["team/one:v1", "team/two:v1", "team/three:v1", "up.test/team/app:v1"];
    let told = names.map(|name| (name.to_owned(), "opened".into(), "CVE-2090-2003".into()));
    receiver.wait_told(&BTreeSet::from(told), BOUND).context(end_of_log(&kuboard))?;
    wait_found(&kuboard, "hosted", COUNTS.map(|count| 3 * count))?;
    // What was asked for by its tag has no other name.
    let odd: Vec<_> = receiver.told().into_iter().filter(|(name, ..)| name.contains('@')).collect();
    ensure!(odd.is_empty(), "{odd:#?}");
    Ok(())
}

/// An image that can't be read is a failed job with its reason, and nothing else is disturbed.
#[test]
fn a_broken_image_disturbs_nothing() -> Result<()> {
    let ground = Ground::new(Form::Sqlite, &advisories())?;
    let kuboard = ground.builder().start()?;
    let whole = packed::layer(&application()?[0])?;
    let half = kuboard_testkit::image::Blob::new(whole[..whole.len() / 2].to_vec());
    kuboard.client().push("team/broken", "v1", &packed::of_blobs(7, vec![half])?)?;
    kuboard.client().push("team/noise", "v1", &Image::oci(8, &[200_000])?)?;
    kuboard.client().push("team/app", "v1", &packed::image(1, &application()?)?)?;
    // Of the broken one nothing is counted that was not read: its status file is whole.
    tool::wait_until("the application's findings", BOUND, || {
        let labels = ["severity=\"CRITICAL\"", "registry=\"hosted\""];
        Ok(kuboard.metric("scan_vulnerabilities_found", &labels)? >= 1.0)
    })?;
    let log = kuboard.process.log();
    ensure!(!log.contains("panicked"), "{log}");
    ensure!(kuboard.get("/readyz")?.status == 200);
    Ok(())
}
