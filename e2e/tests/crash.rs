//! Fifty times `kill -9` while images are pushed and caches are filled: what was acknowledged is
//! there afterwards, and nothing that is visible is wrong.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::figure;
use kuboard_testkit::{FakeUpstream, Fault, Image, Kuboard, On, RegistryClient, tool};
use serde_json::json;

const KILLS: u64 = 50;
const PUSHERS: u64 = 4;
const PULLERS: u64 = 4;
const LAYERS: &[usize] = &[300_000, 40_000];

/// What the clients were told and saw, over all lives of the server.
#[derive(Default)]
struct Ledger {
    /// Images whose push was acknowledged, with their tag.
    acknowledged: Mutex<Vec<(String, Image)>>,
    /// Whole pulls through the proxy.
    pulls: AtomicU64,
    /// Pushes and pulls that a kill cut off.
    cut: AtomicU64,
}

/// Pushes and pulls until told to stop; errors are the kill's doing.
fn load(address: &str, life: u64, sources: &[Image], ledger: &Ledger, stop: &AtomicBool) {
    std::thread::scope(|scope| {
        for pusher in 0..PUSHERS {
            scope.spawn(move || {
                let client = RegistryClient::new(address);
                let mut number = 0;
                while !stop.load(Ordering::SeqCst) {
                    let seed = 1_000_000 + life * 10_000 + pusher * 1_000 + number;
                    number += 1;
                    let Ok(image) = Image::oci(seed, LAYERS) else { return };
                    let tag = format!("v{seed}");
                    if client.push("team/crash", &tag, &image).is_err() {
                        ledger.cut.fetch_add(1, Ordering::SeqCst);
                    } else if let Ok(mut list) = ledger.acknowledged.lock() {
                        list.push((tag, image));
                    }
                }
            });
        }
        for puller in 0..PULLERS {
            scope.spawn(move || {
                let client = RegistryClient::new(address);
                for turn in 0.. {
                    let number = (life * 7 + puller * 11 + turn) as usize % sources.len();
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    match client.pull("up.test/team/app", &format!("v{number}")) {
                        Ok(_) => ledger.pulls.fetch_add(1, Ordering::SeqCst),
                        Err(_) => ledger.cut.fetch_add(1, Ordering::SeqCst),
                    };
                }
            });
        }
    });
}

#[test]
fn fifty_kills_lose_nothing() -> Result<()> {
    let upstream = FakeUpstream::start()?;
    let mut sources = Vec::new();
    for number in 0..150 {
        let image = Image::oci(number, &[400_000])?;
        upstream.put("team/app", &format!("v{number}"), &image);
        sources.push(image);
    }
    // Slow, so that most kills meet fills under way.
    let slow = Fault::Drip { piece: 32 << 10, pause: Duration::from_millis(5) };
    upstream.fault(On::blobs(), slow, None);
    let folder = tool::folder("crash")?;
    let data = folder.path().join("data");
    let start = || Kuboard::builder().upstream("up.test", &upstream.url()).data_dir(&data).start();
    let ledger = Ledger::default();
    for life in 0..KILLS {
        let mut kuboard = start().with_context(|| format!("start after {life} kills"))?;
        let address = kuboard.address().to_owned();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            scope.spawn(|| load(&address, life, &sources, &ledger, &stop));
            // A spread of moments, each early enough to be in the middle of something.
            std::thread::sleep(Duration::from_millis(60 + life * 37 % 400));
            // Nothing new is begun now; what is under way is cut off by the kill, not by this.
            stop.store(true, Ordering::SeqCst);
            kuboard.kill9()
        })?;
    }
    verify(&data, &ledger)?;
    // And once more with a server on it: everything acknowledged can be pulled, byte for byte.
    let kuboard = start()?;
    let acknowledged = ledger.acknowledged.into_inner().context("a pusher panicked")?;
    for (tag, image) in &acknowledged {
        let pulled = kuboard.client().pull("team/crash", tag)?;
        ensure!(
            pulled.digest == image.digest,
            "{tag} was {} and is {}",
            image.digest,
            pulled.digest
        );
    }
    upstream.heal();
    for (number, image) in sources.iter().enumerate() {
        let pulled = kuboard.client().pull("up.test/team/app", &format!("v{number}"))?;
        ensure!(pulled.digest == image.digest);
    }
    ensure!(acknowledged.len() > 50, "only {} pushes were acknowledged", acknowledged.len());
    Ok(())
}

fn verify(data: &std::path::Path, ledger: &Ledger) -> Result<()> {
    let (report, status) = Kuboard::json(&["fsck"], data)?;
    figure(json!({
        "figure": "kill -9 under load, then fsck",
        "kills": KILLS,
        "acknowledgedPushes": ledger.acknowledged.lock().map_or(0, |list| list.len()),
        "wholePulls": ledger.pulls.load(Ordering::SeqCst),
        "requestsCutOff": ledger.cut.load(Ordering::SeqCst),
        "blobsChecked": report["checkedBlobs"],
        "corrupt": report["corrupt"].as_array().map_or(0, Vec::len),
        "missing": report["missing"].as_array().map_or(0, Vec::len),
        "foreign": report["foreign"].as_array().map_or(0, Vec::len),
    }))?;
    ensure!(status.success(), "fsck: {status}: {report:#}");
    ensure!(report["corrupt"] == json!([]) && report["missing"] == json!([]), "{report:#}");
    ensure!(report["foreign"] == json!([]), "{report:#}");
    Ok(())
}
