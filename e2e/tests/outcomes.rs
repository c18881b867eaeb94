//! What clients see when the upstream is dead, refuses, lies or is slow: cached content is served,
//! uncached content fails with the right status within a bound, and nothing wrong is ever kept.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use e2e::figure;
use kuboard_oci::media_type;
use kuboard_testkit::http::{Headers, Request};
use kuboard_testkit::image::Blob;
use kuboard_testkit::upstream::{Login, TokenLogin};
use kuboard_testkit::{FakeUpstream, Fault, Image, Kuboard, On, tool};
use serde_json::json;
use tempfile::TempDir;

/// Every answer, good or bad, must have come by then.
const BOUND: Duration = Duration::from_secs(20);

/// Short patience with the upstream, and tags that are looked up at every pull.
const SETTINGS: &str = "tagTtlSeconds = 0\nmaxStaleSeconds = 0\nnegativeTtlSeconds = 1\n\
                        connectTimeoutSeconds = 2\nreadTimeoutSeconds = 2";

struct Scene {
    upstream: FakeUpstream,
    kuboard: Kuboard,
    cached: Image,
    uncached: Image,
}

impl Scene {
    fn build() -> Result<Scene> {
        let upstream = FakeUpstream::start()?;
        let cached = Image::oci(1, &[100_000])?;
        let uncached = Image::oci(2, &[3 << 20])?;
        upstream.put("team/app", "cached", &cached);
        upstream.put("team/app", "new", &uncached);
        let kuboard =
            Kuboard::builder().upstream("up.test", &upstream.url()).config(SETTINGS).start()?;
        kuboard.client().pull("up.test/team/app", "cached")?;
        Ok(Scene { upstream, kuboard, cached, uncached })
    }

    /// What a client sees who asks for a manifest by tag.
    fn manifest(&self, tag: &str, expected: &Image) -> Result<String> {
        let get = Request::get(format!("/v2/up.test/team/app/manifests/{tag}"))
            .header("Accept", media_type::ACCEPT_ALL)
            .within(BOUND);
        Ok(match get.send(self.kuboard.address()) {
            Err(_) => "broken".to_owned(),
            Ok(answer) if answer.status != 200 => answer.status.to_string(),
            Ok(answer) if answer.body != expected.manifest.to_vec() => bail!("a wrong manifest"),
            Ok(answer) if answer.headers.get("warning").is_some() => "right, warned".to_owned(),
            Ok(_) => "right".to_owned(),
        })
    }

    /// What a client sees who asks for a blob.
    fn blob(&self, blob: &Blob) -> Result<String> {
        let get = Request::get(format!("/v2/up.test/team/app/blobs/{}", blob.digest)).within(BOUND);
        Ok(match get.send(self.kuboard.address()) {
            Err(_) => "broken".to_owned(),
            Ok(answer) if answer.status != 200 => answer.status.to_string(),
            Ok(answer) if answer.body != blob.bytes.to_vec() => bail!("a wrong blob as if whole"),
            Ok(_) => "right".to_owned(),
        })
    }
}

/// Expected outcomes; several where more than one is a right answer.
struct Expected {
    cached_tag: &'static [&'static str],
    new_tag: &'static [&'static str],
    new_blob: &'static [&'static str],
}

/// Spoils the upstream and compares what clients see; then heals it and waits for recovery.
fn check(
    name: &str,
    spoil: impl FnOnce(&mut Scene) -> Result<()>,
    expected: &Expected,
) -> Result<()> {
    recovers(name, &mut compare(name, spoil, expected)?)
}

fn compare(
    name: &str,
    spoil: impl FnOnce(&mut Scene) -> Result<()>,
    expected: &Expected,
) -> Result<Scene> {
    let mut scene = Scene::build()?;
    spoil(&mut scene)?;
    let mut slowest = Duration::ZERO;
    let mut timed = |outcome: &dyn Fn() -> Result<String>| -> Result<String> {
        let started = Instant::now();
        let outcome = outcome()?;
        slowest = slowest.max(started.elapsed());
        Ok(outcome)
    };
    let cached_tag = timed(&|| scene.manifest("cached", &scene.cached))?;
    let cached_blob = timed(&|| scene.blob(&scene.cached.layers()[0]))?;
    let new_tag = timed(&|| scene.manifest("new", &scene.uncached))?;
    let new_blob = timed(&|| scene.blob(&scene.uncached.layers()[0]))?;
    figure(json!({
        "outcome": name,
        "cachedTag": cached_tag,
        "cachedBlob": cached_blob,
        "newTag": new_tag,
        "newBlob": new_blob,
        "slowestSeconds": format!("{:.1}", slowest.as_secs_f64()),
    }))?;
    let fits = |seen: &str, allowed: &[&str]| allowed.contains(&seen);
    ensure!(fits(&cached_tag, expected.cached_tag), "{name}: cached tag: {cached_tag}");
    ensure!(cached_blob == "right", "{name}: cached blob: {cached_blob}");
    ensure!(fits(&new_tag, expected.new_tag), "{name}: new tag: {new_tag}");
    ensure!(fits(&new_blob, expected.new_blob), "{name}: new blob: {new_blob}");
    ensure!(slowest < BOUND, "{name}: an answer took {slowest:?}");
    Ok(scene)
}

/// Once the upstream behaves, everything is to be had and right: nothing wrong was kept, and no
/// refusal is remembered for long.
fn recovers(name: &str, scene: &mut Scene) -> Result<()> {
    scene.upstream.heal();
    scene.upstream.revive()?;
    tool::wait_until(&format!("{name}: recovery"), Duration::from_secs(60), || {
        let tag = scene.manifest("new", &scene.uncached)?;
        let blob = scene.blob(&scene.uncached.layers()[0])?;
        Ok(tag.starts_with("right") && blob == "right")
    })
}

/// The rows that were not as expected; all rows are tried.
#[derive(Default)]
struct Table(Vec<String>);

impl Table {
    fn row(&mut self, outcome: Result<()>) {
        self.0.extend(outcome.err().map(|error| format!("{error:#}")));
    }

    fn verdict(self) -> Result<()> {
        ensure!(self.0.is_empty(), "{}", self.0.join("\n"));
        Ok(())
    }
}

const WARNED: &[&str] = &["right, warned"];
const RIGHT: &[&str] = &["right"];

#[test]
fn dead_and_refusing_upstreams() -> Result<()> {
    let mut table = Table::default();
    let fails = |statuses| Expected { cached_tag: WARNED, new_tag: statuses, new_blob: statuses };
    table.row(check(
        "killed",
        |scene| {
            scene.upstream.kill();
            Ok(())
        },
        &fails(&["502", "503"]),
    ));
    let always = |fault: Fault| {
        move |scene: &mut Scene| {
            scene.upstream.fault(On::any(), fault, None);
            Ok(())
        }
    };
    table.row(check("429, wait a second", always(Fault::throttled(1)), &fails(&["429", "503"])));
    // Whoever is told to wait an hour may do so: no recovery is due.
    table.row(
        compare("429, wait an hour", always(Fault::throttled(3600)), &fails(&["429", "503"]))
            .map(drop),
    );
    table.row(check(
        "401 without a challenge",
        always(Fault::status(401)),
        &fails(&["403", "502"]),
    ));
    let mut challenge = Headers::default();
    challenge.add("WWW-Authenticate", "Basic realm=\"x\"");
    table.row(check(
        "401 again and again",
        always(Fault::Status(401, challenge)),
        &fails(&["403", "502"]),
    ));
    table.row(check("403", always(Fault::status(403)), &fails(&["403", "502"])));
    table.row(check("500", always(Fault::status(500)), &fails(&["502", "503"])));
    table.row(check("503", always(Fault::status(503)), &fails(&["502", "503"])));
    table.row(check("hangs up without an answer", always(Fault::Drop), &fails(&["502", "503"])));
    table.row(check(
        "accepts and says nothing",
        always(Fault::Delay(Duration::from_secs(120))),
        &fails(&["502", "503", "504"]),
    ));
    table.verdict()
}

#[test]
fn lying_upstreams() -> Result<()> {
    let always = |fault: Fault| {
        move |scene: &mut Scene| {
            scene.upstream.fault(On::any().method("GET"), fault, None);
            Ok(())
        }
    };
    let mut table = Table::default();
    // HEAD tells the truth, so that cached tags are found unchanged.
    const CACHED: &[&str] = &["right", "right, warned"];
    let lies = |new_blob| Expected { cached_tag: CACHED, new_tag: &["502"], new_blob };
    table.row(check("wrong bytes", always(Fault::WrongBytes), &lies(&["broken", "502"])));
    table.row(check(
        "cut at 100 bytes, always",
        always(Fault::Cut { after: 100 }),
        &lies(&["broken", "502"]),
    ));
    table.row(check(
        "10 bytes fewer than promised",
        always(Fault::Length(10)),
        &lies(&["broken", "502"]),
    ));
    table.row(check(
        "10 bytes more than promised",
        always(Fault::Length(-10)),
        &lies(&["broken", "502"]),
    ));
    table.row(check(
        "5 MiB too long",
        always(Fault::Oversize(5 << 20)),
        &lies(&["broken", "502", "right"]),
    ));
    table.row(check(
        "redirects in a circle",
        |scene| {
            let fault = Fault::redirect(scene.upstream.url());
            scene.upstream.fault(On::any(), fault, None);
            Ok(())
        },
        &Expected { cached_tag: WARNED, new_tag: &["502"], new_blob: &["502"] },
    ));
    table.verdict()
}

#[test]
fn clumsy_upstreams_still_serve() -> Result<()> {
    let mut table = Table::default();
    let right = Expected { cached_tag: RIGHT, new_tag: RIGHT, new_blob: RIGHT };
    let on_blobs = |fault: Fault, times: Option<u32>| {
        move |scene: &mut Scene| {
            scene.upstream.fault(On::blobs().method("GET"), fault, times);
            Ok(())
        }
    };
    table.row(check(
        "cut at 1 MiB, once",
        on_blobs(Fault::Cut { after: 1 << 20 }, Some(1)),
        &right,
    ));
    table.row(check(
        "cut at 1 MiB, twice",
        on_blobs(Fault::Cut { after: 1 << 20 }, Some(2)),
        &right,
    ));
    table.row(check(
        "cut once, then no ranges",
        |scene| {
            let get = || On::blobs().method("GET");
            scene.upstream.fault(get(), Fault::Cut { after: 1 << 20 }, Some(1));
            scene.upstream.fault(get(), Fault::NoRange, None);
            Ok(())
        },
        &right,
    ));
    let drip = Fault::Drip { piece: 64 << 10, pause: Duration::from_millis(50) };
    table.row(check("slow, but never silent for long", on_blobs(drip, None), &right));
    table.row(check(
        "late by a second",
        on_blobs(Fault::Delay(Duration::from_secs(1)), None),
        &right,
    ));
    table.row(check(
        "no Docker-Content-Digest",
        |scene| {
            let fault = Fault::Without("docker-content-digest".into());
            scene.upstream.fault(On::any(), fault, None);
            Ok(())
        },
        &right,
    ));
    table.verdict()
}

#[test]
fn a_redirect_to_a_blob_store_carries_no_credentials() -> Result<()> {
    let store = FakeUpstream::start_on("127.0.0.2:0")?;
    store.refuse_authorization();
    let login =
        TokenLogin { user: Some(("user".into(), "secret".into())), ..TokenLogin::default() };
    let guarded = Guarded::build(login)?;
    store.put("team/app", "v1", &guarded.image);
    guarded.upstream.fault(On::blobs(), Fault::redirect(store.url()), None);
    let pulled = guarded.kuboard.client().pull("up.test/team/app", "v1")?;
    ensure!(pulled.digest == guarded.image.digest);
    ensure!(store.count(&On::blobs()) > 0);
    let leaked = store.requests().into_iter().any(|it| it.headers.get("authorization").is_some());
    ensure!(!leaked, "the blob store saw our credentials");
    figure(json!({"outcome": "redirect to another host", "blobs": "right", "credentials": "kept"}))
}

#[test]
fn a_foreign_realm_sees_nothing() -> Result<()> {
    let thief = FakeUpstream::start_on("127.0.0.3:0")?;
    let login = TokenLogin {
        user: Some(("user".into(), "secret".into())),
        realm: Some(format!("{}/token", thief.url())),
        ..TokenLogin::default()
    };
    let guarded = Guarded::build(login)?;
    let answer = guarded.kuboard.get("/v2/up.test/team/app/manifests/v1")?;
    ensure!(matches!(answer.status, 403 | 502), "{} {}", answer.status, answer.text());
    ensure!(thief.requests().is_empty(), "{:?}", thief.requests());
    figure(json!({"outcome": "foreign realm", "newTag": answer.status, "credentials": "kept"}))
}

#[test]
fn a_missing_image_is_404_and_is_asked_for_once() -> Result<()> {
    let scene = Scene::build()?;
    let path = "/v2/up.test/team/app/manifests/none";
    scene.upstream.forget();
    for _ in 0..5 {
        let answer = scene.kuboard.get(path)?;
        ensure!(answer.status == 404, "{}", answer.status);
        ensure!(answer.json()?["errors"][0]["code"] == "MANIFEST_UNKNOWN", "{}", answer.text());
    }
    let asked = scene.upstream.count(&On::path("/manifests/none"));
    ensure!(asked <= 2, "the upstream was asked {asked} times");
    scene.upstream.put("team/app", "none", &scene.uncached);
    tool::wait_until("the new tag", Duration::from_secs(20), || {
        Ok(scene.kuboard.get(path)?.status == 200)
    })
}

/// An upstream that asks for tokens, and the product with a user's credentials for it.
struct Guarded {
    upstream: FakeUpstream,
    kuboard: Kuboard,
    image: Image,
    // Holds the password file, which may be read again.
    _folder: TempDir,
}

impl Guarded {
    fn build(login: TokenLogin) -> Result<Guarded> {
        let upstream = FakeUpstream::start()?;
        let image = Image::oci(1, &[100_000])?;
        upstream.put("team/app", "v1", &image);
        upstream.require(Login::Token(login));
        let folder = tool::folder("secret")?;
        let secret = folder.path().join("password");
        std::fs::write(&secret, "secret")?;
        let kuboard = Kuboard::builder()
            .upstream("up.test", &upstream.url())
            .config("[upstream.credentials]\nkind = \"basic\"\nuser = \"user\"")
            .config(&format!("passwordFile = {secret:?}"))
            .start()?;
        Ok(Guarded { upstream, kuboard, image, _folder: folder })
    }
}
