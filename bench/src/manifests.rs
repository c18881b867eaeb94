//! Manifest requests by tag: small answers on connections that stay open, hosted and pulled
//! through, open and with a login.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kuboard_oci::{challenge, media_type};
use kuboard_testkit::distribution::DistributionRegistry;
use kuboard_testkit::http::Request;
use kuboard_testkit::upstream::basic;
use kuboard_testkit::{Image, RegistryClient, tool};

use crate::contender::{Contender, Kind, PASSWORD, Setup, USER};
use crate::process;
use crate::registry::Context;
use crate::report::{Row, Target};
use crate::rounds::alternate;

const REPOSITORY: &str = "bench/small";
const TAG: &str = "v1";
/// Connections of the load generator.
const CONNECTIONS: u64 = 16;

/// One server and what is asked of it.
struct Case {
    label: &'static str,
    contender: Contender,
    repository: String,
    login: bool,
}

/// The image whose manifest is asked for.
pub(crate) fn image() -> Result<Image> {
    Image::oci(7, &[1000; 6])
}

pub(crate) fn run(context: &Context<'_>) -> Result<Vec<Row>> {
    let image = image()?;
    let upstream = DistributionRegistry::start()?;
    RegistryClient::new(upstream.address()).push(REPOSITORY, TAG, &image)?;
    let mut cases = Vec::new();
    for kind in &context.kinds {
        cases.push(hosted(*kind, &image, false)?);
        cases.push(proxied(*kind, &upstream.url(), &image, false)?);
        if *kind == Kind::Kuboard {
            cases.push(hosted(*kind, &image, true)?);
            cases.push(proxied(*kind, &upstream.url(), &image, true)?);
        }
    }
    let plan = context.plan;
    let series = alternate("manifest", plan.rounds, &mut cases, |case, _| {
        case.measure(plan.manifest_seconds)
    })?;
    let size = image.manifest.len();
    let what = |kind: &str| format!("manifest GET by tag, {kind}, {size} bytes");
    let mut rows = Vec::new();
    for (label, beside, text) in [
        ("hosted", "hosted", what("hosted")),
        ("hosted, login", "hosted", what("hosted, login + token + metrics")),
        ("proxied", "proxied", what("pulled through")),
        ("proxied, login", "proxied", what("pulled through, login + token + metrics")),
    ] {
        let mut cost = Row::new(text, "CPU us").floor(context.floors.request);
        let mut rate =
            Row::new(format!("  the same, {CONNECTIONS} connections"), "requests/s").gain();
        for (case, figures) in cases.iter().zip(&series) {
            let ours = case.contender.kind == Kind::Kuboard;
            if case.label == if ours { label } else { beside } {
                cost = cost.cell(case.contender.kind, figures[0].clone());
                rate = rate.cell(case.contender.kind, figures[1].clone());
            }
        }
        rows.extend([cost.target(Target::TimesLess(10.0)), rate]);
    }
    Ok(rows)
}

fn hosted(kind: Kind, image: &Image, login: bool) -> Result<Case> {
    let contender = kind.start(Setup { login, ..Setup::default() })?;
    let client = if login {
        RegistryClient::with_login(contender.address(), USER, PASSWORD)
    } else {
        RegistryClient::new(contender.address())
    };
    client.push(REPOSITORY, TAG, image)?;
    let label = if login { "hosted, login" } else { "hosted" };
    Ok(Case { label, contender, repository: REPOSITORY.to_owned(), login })
}

fn proxied(kind: Kind, upstream: &str, image: &Image, login: bool) -> Result<Case> {
    let contender = kind.start(Setup { upstream: Some(upstream), login, ..Setup::default() })?;
    let client = if login {
        RegistryClient::with_login(contender.address(), USER, PASSWORD)
    } else {
        RegistryClient::new(contender.address())
    };
    let repository = contender.proxied(REPOSITORY);
    let pulled = client.pull(&repository, TAG)?;
    ensure!(pulled.digest == image.digest, "{} served {}", kind.name(), pulled.digest);
    let label = if login { "proxied, login" } else { "proxied" };
    Ok(Case { label, contender, repository, login })
}

impl Case {
    /// CPU microseconds of the server for each request, and requests per second.
    fn measure(&self, seconds: u64) -> Result<[f64; 2]> {
        let address = self.contender.address();
        let token = self.login.then(|| token(address, &self.repository)).transpose()?;
        let url = format!("http://{address}/v2/{}/manifests/{TAG}", self.repository);
        let (load, cpu) = process::cpu(self.contender.process(), || match self.login {
            true => scraped(address, || load(&url, token.as_deref(), seconds)),
            false => load(&url, None, seconds),
        })?;
        Ok([cpu * 1e6 / load.requests as f64, load.rate])
    }
}

/// What a load generator reports.
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) rate: f64,
}

/// Asks for `url` over and over.
pub(crate) fn load(url: &str, token: Option<&str>, seconds: u64) -> Result<Load> {
    let mut wrk = tool::command("wrk")?;
    wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s")]);
    wrk.args(["-H", &format!("Accept: {}", media_type::OCI_MANIFEST)]);
    if let Some(token) = token {
        wrk.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    let text = tool::output(wrk.arg(url))?;
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("{url}:\n{text}");
    }
    let before = |mark: &str| {
        let at = text.find(mark)?;
        text[..at].split_whitespace().next_back()
    };
    let after = |mark: &str| {
        let at = text.find(mark)?;
        text[at + mark.len()..].split_whitespace().next()
    };
    let unknown = || format!("unknown report of wrk:\n{text}");
    Ok(Load {
        requests: before(" requests in").with_context(unknown)?.parse()?,
        rate: after("Requests/sec:").with_context(unknown)?.parse()?,
    })
}

/// Reads the metrics twice a second meanwhile, as a busy monitoring would.
fn scraped<T>(address: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scraper = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::SeqCst) {
                let answer = Request::get("/metrics").send(address)?;
                ensure!(answer.status == 200, "/metrics answered {}", answer.status);
                std::thread::sleep(Duration::from_millis(500));
            }
            Ok(())
        });
        let done = work();
        over.store(true, Ordering::SeqCst);
        scraper.join().map_err(|_| anyhow::anyhow!("the scraper panicked"))??;
        done
    })
}

/// A token for pulling, got as a client gets it: by the challenge.
fn token(address: &str, repository: &str) -> Result<String> {
    let refused = Request::get(format!("/v2/{repository}/manifests/{TAG}")).send(address)?;
    let header = refused.headers.get("www-authenticate").context("no challenge")?;
    let challenges = challenge::parse(header)?;
    let bearer = challenges.iter().find(|it| it.scheme == "bearer").context("no Bearer")?;
    let asked = |name: &str| bearer.get(name).with_context(|| format!("no {name} in {header}"));
    let realm = asked("realm")?;
    let (_, rest) = realm.split_once("://").context("a realm that is no URL")?;
    let path = &rest[rest.find('/').context("a realm without path")?..];
    let query = format!("service={}&scope={}", asked("service")?, asked("scope")?);
    let answer = Request::get(format!("{path}?{query}"))
        .header("Authorization", basic(USER, PASSWORD))
        .send(address)?;
    ensure!(answer.status == 200, "token: {} {}", answer.status, answer.text());
    let token = answer.json()?["token"].as_str().map(str::to_owned);
    token.context("an answer without token")
}
