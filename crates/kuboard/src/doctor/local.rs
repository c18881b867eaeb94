//! This machine: the settings, the data folder, the catalogue, the advisories, the scan queue, and
//! containerd where it runs.

use std::{fs, path::Path};

use anyhow::Context;
use kuboard_api::Config;
use kuboard_catalog::{Catalog, JobState};
use kuboard_feeds::database::Generations;
use kuboard_rt::Tasks;
use kuboard_vuln::Advisories as _;

use super::{
    containerd::{self, NodeFile},
    finding::{Diagnosis, Finding},
};
use crate::{boot, cli::Place, scanning::advisories_dir};

/// Advisories older than this make reports that miss what is new.
const ADVISORIES_MS: i64 = 48 * 3_600_000;
/// A scan that waits longer does not get its turn.
const QUEUE_MS: i64 = 15 * 60_000;
/// Share of a file system that must be free, in percent.
const FREE_PERCENT: u64 = 5;
/// Files of a node that are read.
const MAX_FILE: u64 = 1 << 20;

/// Looks at this machine.
pub(crate) async fn look(place: &Place, now_ms: i64, diagnosis: &mut Diagnosis) {
    let config = match boot::config(place) {
        Ok(config) => config,
        Err(error) => {
            diagnosis.add([Finding::problem("config", "configuration")
                .symptom("kuboard does not start")
                .evidence(format!("{error:#}"))
                .cause("the configuration file can't be used")
                .fix("kuboard config check")]);
            return;
        }
    };
    diagnosis.looked("configuration");
    space(&config, diagnosis);
    match catalogue(&config).await {
        Ok(Some(catalog)) => {
            diagnosis.looked("catalogue");
            queue(&catalog, now_ms, diagnosis).await;
        }
        Ok(None) => {}
        Err(error) => diagnosis.add([Finding::problem("scan.database", "catalogue")
            .symptom("nothing can be pushed, scans do not run")
            .evidence(format!("{error:#}"))
            .cause("the catalogue's database can't be reached or read")
            .fix("check catalog.url; psql \"$URL\" -c 'select 1'; kuboard fsck for a damaged SQLite file")]),
    }
    advisories(&config, now_ms, diagnosis);
    certificates(&config, now_ms, diagnosis);
    node(Path::new("/etc/containerd/config.toml"), diagnosis);
}

async fn catalogue(config: &Config) -> anyhow::Result<Option<Catalog>> {
    if !config.data_dir.exists() {
        return Ok(None);
    }
    let stores = boot::Stores::open(config, boot::Use::Look, Tasks::default()).await?;
    let catalog = stores.catalog.clone();
    catalog.ping().await.context("it does not answer")?;
    Ok(Some(catalog))
}

fn space(config: &Config, diagnosis: &mut Diagnosis) {
    if !config.data_dir.exists() {
        return;
    }
    let dir = config.data_dir.display();
    let space = fs4::available_space(&config.data_dir)
        .and_then(|free| Ok((free, fs4::total_space(&config.data_dir)?)));
    let (free, total) = match space {
        Ok(space) => space,
        Err(error) => return diagnosis.blind("free space", error),
    };
    diagnosis.looked("free space");
    if total > 0 && free.saturating_mul(100) / total < FREE_PERCENT {
        diagnosis.add([Finding::problem("storage.full", format!("data folder {dir}"))
            .symptom("pushes are refused; pulls go on, but nothing is cached")
            .evidence(format!(
                "{} of {} are free",
                crate::output::bytes(free),
                crate::output::bytes(total)
            ))
            .cause("the file system of the data folder is full")
            .fix("lower cache.cacheSizeGB, make the volume larger, or kuboard cache rm what is not needed")]);
    }
}

async fn queue(catalog: &Catalog, now_ms: i64, diagnosis: &mut Diagnosis) {
    let depths = match catalog.queue_depths().await {
        Ok(depths) => depths,
        Err(error) => return diagnosis.blind("scan queue", error),
    };
    diagnosis.looked("scan queue");
    for depth in depths {
        let oldest = now_ms - depth.oldest_ms;
        if depth.state == JobState::Waiting && depth.count > 0 && oldest > QUEUE_MS {
            diagnosis.add([Finding::problem("scan.queue", format!("queue of {}", depth.kind))
                .symptom("new images get no report")
                .evidence(format!(
                    "{} jobs wait, the oldest for {} minutes",
                    depth.count,
                    oldest / 60_000
                ))
                .cause("no scan-worker takes jobs: none runs, they can't reach the catalogue, or they are too few")
                .fix("kubectl get pods -n kuboard -l app.kubernetes.io/component=scan-worker; kuboard jobs ls")]);
        }
        if depth.state == JobState::Failed && depth.count > 0 {
            let last = catalog.jobs(JobState::Failed, &depth.kind, 1).await.unwrap_or_default();
            let why = last.first().map(|job| job.reason.clone()).unwrap_or_default();
            diagnosis.add([Finding::warning("scan.failed", format!("queue of {}", depth.kind))
                .symptom("some images have no report")
                .evidence(format!("{} jobs were given up; the last one: {why}", depth.count))
                .cause("these scans failed again and again")
                .fix("kuboard jobs ls --state failed; kuboard jobs retry ID")]);
        }
    }
}

fn advisories(config: &Config, now_ms: i64, diagnosis: &mut Diagnosis) {
    let folder = advisories_dir(config);
    if !config.scan.enable || !folder.exists() {
        return;
    }
    let problem = |code, evidence: String| {
        Finding::problem(code, format!("advisories in {}", folder.display())).evidence(evidence)
    };
    let current = Generations::open(&folder).and_then(|all| all.current());
    let database = match current {
        Ok(Some(database)) => database,
        Ok(None) => {
            diagnosis.add([problem("advisories.none", "there is no database".to_owned())
                .symptom("reports list packages and no vulnerabilities")
                .cause("no advisories were fetched yet")
                .fix("kuboard db update; without a network: kuboard db import FILE")]);
            return;
        }
        Err(error) => {
            diagnosis.add([problem("advisories.damaged", error.to_string())
                .symptom("nothing is matched")
                .cause("the advisory database can't be read")
                .fix("kuboard db update --full")]);
            return;
        }
    };
    diagnosis.looked("advisories");
    let age = now_ms - database.stamp().built_ms;
    if age > ADVISORIES_MS {
        diagnosis.add([problem(
            "advisories.old",
            format!("they are {} hours old", age / 3_600_000),
        )
        .symptom("vulnerabilities of the last days are not found")
        .cause("feeds can't be reached, or updates are off")
        .fix("kuboard db status; kuboard db update; advisories.mirror for a mirror of the feeds")]);
    }
}

fn certificates(config: &Config, now_ms: i64, diagnosis: &mut Diagnosis) {
    let Some(file) = &config.server.tls.cert else { return };
    let subject = format!("certificate {}", file.display());
    let end = fs::read(file).map(|pem| super::certificates::end_ms(&pem));
    let left = match end {
        Ok(Some(end)) => end - now_ms,
        Ok(None) => {
            diagnosis.add([Finding::problem("certificate.unreadable", subject)
                .symptom("the listener does not start")
                .evidence("the file holds no certificate")
                .cause("server.tls.cert names another file")
                .fix("openssl x509 -in FILE -noout -dates")]);
            return;
        }
        Err(error) => return diagnosis.blind("certificate of the listener", error),
    };
    diagnosis.looked("certificate of the listener");
    if left < 14 * 86_400_000 {
        diagnosis.add([Finding::warning("certificate.expires", subject)
            .symptom("soon clients refuse to connect")
            .evidence(format!("it ends in {} hours", left / 3_600_000))
            .cause("whoever renews it did not")
            .fix("renew it: the file is read again by itself; or let server.tls.mode = \"acme\" do it")]);
    }
}

/// containerd of this machine, if there is one.
fn node(path: &Path, diagnosis: &mut Diagnosis) {
    let read = |path: &Path| -> std::io::Result<NodeFile> {
        if fs::metadata(path)?.len() > MAX_FILE {
            return Err(std::io::Error::other("it is larger than 1 MiB"));
        }
        Ok(NodeFile { path: path.to_owned(), text: fs::read_to_string(path)? })
    };
    let file = match read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return diagnosis.blind("containerd", error),
    };
    diagnosis.looked("containerd");
    let (findings, folders) = containerd::config(&file);
    diagnosis.add(findings);
    for folder in folders {
        for registry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = registry.path().join("hosts.toml");
            match read(&path) {
                Ok(file) => diagnosis.add(containerd::hosts(&file)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => diagnosis.blind(&path.display().to_string(), error),
            }
        }
    }
}
