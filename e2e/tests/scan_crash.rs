//! The scan engine killed at any moment: what was pushed is reported, what changed is told, and a
//! job outlives its worker.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::figure;
use e2e::packed::{self, advisories, application};
use e2e::service::{BOUND, FORMS, Form, Ground, Receiver, end_of_log};
use kuboard_testkit::feeds::{Feeds, Osv, Score};
use kuboard_testkit::{Image, RegistryClient, tool};
use serde_json::json;

const KILLS: u32 = 20;
/// Images that are pushed in one life at most.
const PUSHES: u64 = 6;
const SECRET: &str = "not-a-secret";
/// Deliveries that a kill cut off wait for their lease, those that failed for their pause.
const LAST_BOUND: Duration = Duration::from_secs(300);

/// The advisories after so many changes: each adds one on a package that every image has.
fn changed(changes: u32) -> Feeds {
    let mut feeds = advisories();
    for number in 1..=changes {
        let (id, cve) = (format!("GHSA-made-late-{number:04}"), late(number));
        let advisory = Osv::new("npm", &id, "lodash").alias(&cve).fixed("9.0.0");
        feeds.osv(advisory.score(Score::Low).modified(number * 60));
    }
    feeds
}

fn late(number: u32) -> String {
    format!("CVE-2091-{number:04}")
}

/// An image unlike any other, with a package that every change concerns.
fn small(number: u64) -> Result<Image> {
    let mut files = packed::node_module("lodash", "4.17.15");
    files.push(packed::file("srv/app/number", &number.to_string()));
    packed::image(number, &[files])
}

/// Pushes until told to stop; errors are the kill's doing.
fn push(address: &str, life: u32, acknowledged: &Mutex<Vec<String>>, stop: &AtomicBool) {
    let client = RegistryClient::new(address);
    for number in 0..PUSHES {
        let number = u64::from(life) * 100 + number;
        let Ok(image) = small(number) else { return };
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let tag = format!("v{number}");
        if client.push("team/crash", &tag, &image).is_ok()
            && let Ok(mut list) = acknowledged.lock()
        {
            list.push(tag);
        }
    }
}

/// Twenty kills while images come, advisories change and the receiver is away half of the time: in
/// the end it was told of every vulnerability of every image that was acknowledged.
#[test]
fn twenty_kills_lose_no_event() -> Result<()> {
    FORMS.into_iter().try_for_each(|form| kills(form).with_context(|| format!("{form:?}")))
}

fn kills(form: Form) -> Result<()> {
    let ground = Ground::new(form, &advisories())?;
    let mut receiver = Receiver::start()?;
    fs::write(ground.at("secret"), SECRET)?;
    let settings = receiver.settings(&ground.at("secret"));
    let start = || ground.builder().config(&settings).start();
    let acknowledged = Mutex::new(Vec::new());
    let mut changes = 0;
    for life in 0..KILLS {
        match life % 2 {
            0 => receiver.revive()?,
            _ => receiver.kill(),
        }
        let mut kuboard = start().with_context(|| format!("start after {life} kills"))?;
        let address = kuboard.address().to_owned();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            scope.spawn(|| push(&address, life, &acknowledged, &stop));
            if life % 3 == 1 {
                changes += 1;
                ground.advise(&changed(changes))?;
            }
            // A spread of moments, each in the middle of something.
            std::thread::sleep(Duration::from_millis(40 + u64::from(life) * 83 % 700));
            stop.store(true, Ordering::SeqCst);
            kuboard.kill9()
        })?;
    }
    receiver.revive()?;
    let kuboard = start()?;
    let tags = acknowledged.into_inner().context("a pusher panicked")?;
    ensure!(tags.len() > KILLS as usize, "only {} pushes were acknowledged", tags.len());
    let cves: Vec<String> = (1..=changes).map(late).chain(["CVE-2090-2002".to_owned()]).collect();
    let expected: BTreeSet<_> = tags
        .iter()
        .flat_map(|tag| cves.iter().map(move |cve| (tag, cve)))
        .map(|(tag, cve)| (format!("team/crash:{tag}"), "opened".to_owned(), cve.clone()))
        .collect();
    let told = receiver.wait_told(&expected, LAST_BOUND);
    let delivered = receiver.delivered();
    let ids: BTreeSet<String> =
        delivered.iter().map(|one| one.event["id"].as_str().unwrap_or_default().into()).collect();
    figure(json!({
        "figure": "kill -9 of the scan engine, events",
        "form": format!("{form:?}"),
        "kills": KILLS,
        "acknowledgedPushes": tags.len(),
        "changesOfAdvisories": changes,
        "expected": expected.len(),
        "delivered": delivered.len(),
        "ofThemRepeats": delivered.len() - ids.len(),
        "missing": expected.difference(&receiver.told()).count(),
    }))?;
    told.with_context(|| end_of_log(&kuboard))?;
    let odd: Vec<_> =
        receiver.told().into_iter().filter(|(_, change, _)| change != "opened").collect();
    ensure!(odd.is_empty(), "told of what did not happen: {odd:#?}");
    receiver.check_signatures(SECRET)
}

/// A worker that dies in the middle of a job: another takes it over when the lease is over.
#[test]
fn a_job_outlives_its_worker() -> Result<()> {
    let ground = Ground::new(Form::Postgres, &advisories())?;
    let cache = ground.serve("cache", "registry-cache,scan-engine", "")?;
    let image = packed::image(1, &application()?)?;
    RegistryClient::new(cache.address()).push("team/app", "v1", &image)?;
    let jobs = |state: &str| {
        let statement =
            format!("SELECT COUNT(*) FROM jobs WHERE kind = 'scan' AND state = '{state}'");
        Ok::<_, anyhow::Error>(ground.psql(&statement)?.parse::<u32>()?)
    };
    tool::wait_until("a job in the queue", BOUND, || Ok(jobs("waiting")? == 1))?;
    let settings = format!("[proxy]\ncaches = [\"http://{}\"]\n", cache.address());
    // The images are where nobody answers, so that the worker stays in the middle of its job.
    cache.process.signal(19)?;
    let mut first = ground.serve("worker-1", "scan-worker", &settings)?;
    tool::wait_until("a running job", BOUND, || Ok(jobs("running")? == 1))?;
    let worker = || ground.psql("SELECT worker FROM jobs WHERE kind = 'scan'");
    let killed = worker()?;
    first.process.kill9()?;
    cache.process.signal(18)?;
    ensure!(jobs("running")? == 1, "the job ended with nobody to do it");
    let second = ground.serve("worker-2", "scan-worker", &settings)?;
    tool::wait_until("the end of the job", BOUND, || {
        std::thread::sleep(Duration::from_millis(100));
        Ok(jobs("done")? == 1)
    })?;
    let took_over = worker()?;
    ensure!(took_over != killed || took_over.is_empty(), "{took_over} ended its job while dead");
    let reports = ground.psql("SELECT COUNT(*) FROM image_reports")?;
    ensure!(reports == "1", "{reports} reports");
    let text = second.get("/metrics")?.text();
    let found = text.lines().find(|line| {
        line.starts_with("scan_vulnerabilities_found{") && line.contains("\"CRITICAL\"")
    });
    ensure!(found.is_some_and(|line| line.ends_with(" 1")), "{found:?}");
    Ok(())
}

/// Any number of workers share the queue: each image is reported once.
#[test]
fn workers_share_the_queue() -> Result<()> {
    let ground = Ground::new(Form::Postgres, &advisories())?;
    let cache = ground.serve("cache", "registry-cache,scan-engine", "")?;
    let settings = format!("[proxy]\ncaches = [\"http://{}\"]\n", cache.address());
    let workers = (1..=3)
        .map(|number| ground.serve(&format!("worker-{number}"), "scan-worker", &settings))
        .collect::<Result<Vec<_>>>()?;
    let client = RegistryClient::new(cache.address());
    for number in 0..30 {
        client.push("team/app", &format!("v{number}"), &small(number)?)?;
    }
    tool::wait_until("the reports", BOUND, || {
        std::thread::sleep(Duration::from_millis(100));
        Ok(ground.psql("SELECT COUNT(*) FROM image_reports")? == "30")
    })?;
    let rest = ground.psql("SELECT COUNT(*) FROM jobs WHERE state = 'failed'")?;
    ensure!(rest == "0", "{rest} jobs failed");
    let mut done = 0.0;
    for worker in &workers {
        let text = worker.get("/metrics")?.text();
        let line = text.lines().find(|line| {
            line.starts_with("scan_jobs_total{")
                && line.contains("kind=\"scan\"")
                && line.contains("result=\"done\"")
        });
        let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        done += count.unwrap_or(0.0);
    }
    ensure!((30.0..=31.0).contains(&done), "{done} jobs for 30 images");
    Ok(())
}
