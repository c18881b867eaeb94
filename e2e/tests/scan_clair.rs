//! Clair's own client against our API: it cannot tell the difference.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::command::{Done, finish};
use e2e::packed::{self, FOUND, advisories, application};
use e2e::service::{FORMS, Form, Ground, end_of_log};
use kuboard_testkit::distribution::DistributionRegistry;
use kuboard_testkit::http::Request;
use kuboard_testkit::{Kuboard, RegistryClient, tool};
use serde_json::{Value, json};

const API: &str = "[scan.api]\nallowPrivateAddresses = true\n";

fn clairctl(ground: &Ground, arguments: &[&str]) -> Result<Done> {
    let mut command = tool::command("clairctl")?;
    command.args(arguments).current_dir(ground.at("")).env("HOME", ground.at(""));
    finish(&mut command)
}

/// Package and vulnerability of every finding, from Clair's report.
fn pairs(report: &Value) -> Result<BTreeSet<(String, String, String)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found =
        report["package_vulnerabilities"].as_object().context("no package_vulnerabilities")?;
    let mut pairs = BTreeSet::new();
    for (package, ids) in found {
        for id in ids.as_array().into_iter().flatten() {
            let vulnerability = &report["vulnerabilities"][text(id)];
            let name = text(&report["packages"][package]["name"]).to_lowercase();
            let fixed = text(&vulnerability["fixed_in_version"]);
            pairs.insert((text(&vulnerability["name"]), name, fixed));
        }
    }
    Ok(pairs)
}

fn wanted() -> BTreeSet<(String, String, String)> {
    let own = |text: &str| text.to_owned();
    FOUND.iter().map(|(id, package, fixed, _)| (own(id), own(package), own(fixed))).collect()
}

/// Images of another registry and of our own are reported to clairctl as Clair would.
#[test]
fn clairctl_reports_through_our_api() -> Result<()> {
    FORMS.into_iter().try_for_each(|form| reports(form).with_context(|| format!("{form:?}")))
}

fn reports(form: Form) -> Result<()> {
    let ground = Ground::new(form, &advisories())?;
    let kuboard = ground.builder().config(API).start()?;
    let registry = DistributionRegistry::start()?;
    let image = packed::image(1, &application()?)?;
    RegistryClient::new(registry.address()).push("team/app", "v1", &image)?;
    let mut layers = application()?;
    layers.push(vec![packed::file("srv/note", "another image")]);
    kuboard.client().push("team/other", "v1", &packed::image(2, &layers)?)?;
    let host = format!("http://{}", kuboard.address());
    for name in [
        format!("{}/team/app:v1", registry.address()),
        format!("{}/team/other:v1", kuboard.address()),
    ] {
        // Twice: the second time the index report is there.
        for _ in 0..2 {
            let report = ["report", "--host", &host, "--out", "json", &name];
            let done = clairctl(&ground, &report)?;
            ensure!(done.code == Some(0), "{name}: {done:?}\n{}", end_of_log(&kuboard));
            let report: Value = serde_json::from_str(&done.stdout).context(done.stdout)?;
            ensure!(pairs(&report)? == wanted(), "{name}: {:#?}", pairs(&report)?);
        }
        let done = clairctl(&ground, &["report", "--host", &host, &name])?;
        ensure!(done.code == Some(0), "{name}: {done:?}");
        for (id, package, fixed, _) in FOUND {
            let line = done.stdout.lines().find(|line| {
                line.contains(id) && line.to_lowercase().contains(&format!(" {package} "))
            });
            let line = line.with_context(|| format!("{id} of {package}: {}", done.stdout))?;
            let says = fixed.is_empty() || line.contains(&format!("(fixed: {fixed})"));
            ensure!(says && line.contains(" found "), "{line}");
        }
    }
    contract(&kuboard, &image.digest.to_string())?;
    let done = clairctl(&ground, &["delete", "--host", &host, &image.digest.to_string()])?;
    ensure!(done.code == Some(0), "{done:?}");
    let path = format!("/indexer/api/v1/index_report/{}", image.digest);
    ensure!(kuboard.get(&path)?.status == 404, "deleted, and still there");
    Ok(())
}

/// Where clients look at more than the body.
fn contract(kuboard: &Kuboard, digest: &str) -> Result<()> {
    let state = kuboard.get("/indexer/api/v1/index_state")?;
    let etag = state.headers.get("etag").context("no etag")?.to_owned();
    ensure!(state.json()?["state"].as_str().is_some_and(|it| etag.contains(it)), "{etag}");
    let path = format!("/indexer/api/v1/index_report/{digest}");
    let report = kuboard.get(&path)?;
    ensure!(report.status == 200 && report.json()?["success"] == true, "{}", report.text());
    ensure!(report.json()?["state"] == "IndexFinished", "{}", report.text());
    let again = Request::get(&path).header("If-None-Match", &etag).send(kuboard.address())?;
    ensure!(again.status == 304, "{}", again.status);
    let unknown = format!("sha256:{}", "0".repeat(64));
    for path in [
        format!("/indexer/api/v1/index_report/{unknown}"),
        format!("/matcher/api/v1/vulnerability_report/{unknown}"),
    ] {
        let answer = kuboard.get(&path)?;
        ensure!(answer.status == 404, "{path}: {}", answer.status);
        ensure!(answer.json()?["code"] == "not-found", "{path}: {}", answer.text());
    }
    let answer = kuboard.get(&format!("/matcher/api/v1/vulnerability_report/{digest}"))?;
    ensure!(answer.status == 200, "{}", answer.status);
    let kind = answer.headers.get("content-type").unwrap_or_default();
    ensure!(kind == "application/vnd.clair.index_report.v1+json", "{kind}");
    for body in ["{}", "[]", "no json", r#"{"hash": "sha256:00", "layers": []}"#] {
        let post = Request::new("POST", "/indexer/api/v1/index_report").body(body);
        let answer = post.header("Content-Type", "application/json").send(kuboard.address())?;
        ensure!(answer.status == 400, "{body}: {}", answer.status);
    }
    Ok(())
}

/// With a key, callers must sign, as clairctl does when its settings say so.
#[test]
fn the_key_is_asked_for() -> Result<()> {
    let ground = Ground::new(Form::Sqlite, &advisories())?;
    // Base64 of a text that says that it is for a test.
    let (key, other) = ("a2V5LWZvci10aGUtdGVzdC1vbmx5LTAwMDE=", "YW5vdGhlci1rZXktMDAwMi0wMDAy");
    fs::write(ground.at("psk"), key)?;
    let settings = format!("{API}pskFile = {:?}\nissuers = [\"clairctl\"]\n", ground.at("psk"));
    let kuboard = ground.builder().config(&settings).start()?;
    let registry = DistributionRegistry::start()?;
    let client = RegistryClient::new(registry.address());
    client.push("team/app", "v1", &packed::image(1, &application()?)?)?;
    let (host, name) =
        (format!("http://{}", kuboard.address()), format!("{}/team/app:v1", registry.address()));
    let report = ["report", "--host", &host, "--out", "json", &name];
    let config = |key: &str| -> Result<String> {
        let config = json!({
            "indexer": {"connstring": "unused"}, "matcher": {"connstring": "unused"},
            "auth": {"psk": {"key": key, "iss": ["clairctl"]}},
        });
        let file = ground.at("clair.json");
        fs::write(&file, config.to_string())?;
        Ok(file.display().to_string())
    };
    let done = clairctl(&ground, &report)?;
    ensure!(done.code == Some(1), "without a key: {done:?}");
    ensure!(kuboard.get("/indexer/api/v1/index_state")?.status == 401);
    let file = config(other)?;
    let done = clairctl(&ground, &[&["--config", &file][..], &report].concat())?;
    ensure!(done.code == Some(1), "with another key: {done:?}");
    let file = config(key)?;
    let done = clairctl(&ground, &[&["--config", &file][..], &report].concat())?;
    ensure!(done.code == Some(0), "{done:?}\n{}", end_of_log(&kuboard));
    let report: Value = serde_json::from_str(&done.stdout).context(done.stdout)?;
    ensure!(pairs(&report)? == wanted(), "{report:#}");
    Ok(())
}

/// Strangers do not send the indexer into networks that are not theirs.
#[test]
fn private_addresses_are_not_fetched_unasked() -> Result<()> {
    let ground = Ground::new(Form::Sqlite, &advisories())?;
    let kuboard = ground.builder().start()?;
    let registry = DistributionRegistry::start()?;
    let image = packed::image(1, &application()?)?;
    RegistryClient::new(registry.address()).push("team/app", "v1", &image)?;
    let before = registry.requests().len();
    let layer = &image.layers()[0].digest;
    let uri = format!("{}/v2/team/app/blobs/{layer}", registry.url());
    let manifest = json!({
        "hash": image.digest.to_string(),
        "layers": [{"hash": layer.to_string(), "uri": uri, "headers": {}}],
    });
    let post = Request::new("POST", "/indexer/api/v1/index_report").body(manifest.to_string());
    let answer = post.header("Content-Type", "application/json").send(kuboard.address())?;
    ensure!(answer.status >= 400, "{}: {}", answer.status, answer.text());
    ensure!(registry.requests().len() == before, "it was fetched all the same");
    Ok(())
}
