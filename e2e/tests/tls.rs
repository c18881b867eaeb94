//! TLS as real clients see it: certificates from files with a change under way, the self-made
//! authority, and ACME against a real authority on loopback.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::figure;
use e2e::programs::Programs;
use kuboard_testkit::certificate::Authority;
use kuboard_testkit::distribution::DistributionRegistry;
use kuboard_testkit::pebble::Pebble;
use kuboard_testkit::{Image, Kuboard, RegistryClient, tool};
use serde_json::json;

/// A round trip of a small image by crane, which trusts only the authority in `ca`.
fn round_trip(programs: &Programs, address: &str, ca: &std::path::Path) -> Result<()> {
    let image = Image::multi_platform(1, &[50_000])?;
    let layout = programs.at("layout");
    // crane pushes the one image that a layout holds.
    let child = &image.children[0];
    child.write_layout(&layout, "v1")?;
    let name = format!("{address}/team/app:v1");
    let layout = layout.display().to_string();
    programs.crane_trusting(Some(ca), &["push", &layout, &name])?;
    let digest = programs.crane_trusting(Some(ca), &["digest", &name])?;
    ensure!(digest == child.digest.to_string(), "{digest}");
    // crane checks the digests of what it pulls.
    let pulled = programs.at("pulled").display().to_string();
    programs.crane_trusting(Some(ca), &["pull", "--format=oci", &name, &pulled])?;
    ensure!(programs.crane(&["digest", &name]).is_err(), "trusted by somebody who should not");
    Ok(())
}

/// The version of HTTP that curl and the server agree on, for this host and authority.
fn http_version(programs: &Programs, url: &str, ca: &std::path::Path) -> Result<String> {
    let ca = ca.display().to_string();
    programs.curl(&["--cacert", &ca, "-o", "/dev/null", "-w", "%{http_version} %{http_code}", url])
}

#[test]
fn certificates_from_files_are_exchanged_while_it_runs() -> Result<()> {
    let programs = Programs::new()?;
    let authority = Authority::new(&programs.at("pki"))?;
    let certificate = authority.issue("server", &["127.0.0.1", "localhost"])?;
    let kuboard = Kuboard::builder()
        .config("[server.tls]\nmode = \"files\"")
        .config(&format!("cert = {:?}", certificate.certificate_file()))
        .config(&format!("key = {:?}", certificate.key_file()))
        .tls()
        .start()?;
    round_trip(&programs, kuboard.address(), &authority.file())?;
    let url = format!("https://{}/v2/", kuboard.address());
    ensure!(http_version(&programs, &url, &authority.file())? == "2 200");

    // Another authority takes over; the files change, the process does not.
    let other = Authority::new(&programs.at("other-pki"))?;
    let fresh = other.issue("server", &["127.0.0.1", "localhost"])?;
    std::fs::copy(fresh.certificate_file(), certificate.certificate_file())?;
    std::fs::copy(fresh.key_file(), certificate.key_file())?;
    tool::wait_until("the new certificate", Duration::from_secs(60), || {
        Ok(http_version(&programs, &url, &other.file()).is_ok())
    })?;
    figure(json!({"figure": "TLS from files", "http": 2, "hotReload": true}))
}

#[test]
fn the_self_made_authority_is_enough_for_real_clients() -> Result<()> {
    let programs = Programs::new()?;
    let kuboard = Kuboard::builder().config("[server.tls]\nmode = \"selfMade\"").tls().start()?;
    let ca = kuboard.data_dir().join("tls/ca.pem");
    round_trip(&programs, kuboard.address(), &ca)?;
    let key = std::fs::metadata(kuboard.data_dir().join("tls/ca-key.pem"));
    if let Ok(key) = key {
        use std::os::unix::fs::PermissionsExt;
        ensure!(key.permissions().mode() & 0o077 == 0, "others may read the authority's key");
    }
    Ok(())
}

fn acme(challenge: &str) -> Result<()> {
    let programs = Programs::new()?;
    let (plain, tls) = (tool::free_port()?, tool::free_port()?);
    let pebble = Pebble::start(plain, tls, Duration::from_secs(30 * 24 * 3600))?;
    let kuboard = Kuboard::builder()
        .config(&format!("[server]\nplainListen = \"127.0.0.1:{plain}\""))
        .config(&format!(
            "[server.tls]\nmode = \"acme\"\n[server.tls.acme]\ndirectory = {:?}\ncaFile = {:?}",
            pebble.directory(),
            pebble.ca_file()
        ))
        .config(&format!("domains = [\"localhost\"]\nchallenge = {challenge:?}"))
        .listen(&format!("127.0.0.1:{tls}"))
        .tls()
        .start()?;
    let root = programs.at("root.pem");
    std::fs::write(&root, pebble.root()?)?;
    let url = format!("https://localhost:{tls}/v2/");
    tool::wait_until("a certificate", Duration::from_secs(60), || {
        Ok(http_version(&programs, &url, &root).is_ok_and(|answer| answer == "2 200"))
    })?;
    round_trip(&programs, &format!("localhost:{tls}"), &root)?;
    drop(kuboard);
    figure(json!({"figure": "ACME certificate from Pebble", "challenge": challenge}))
}

#[test]
fn acme_by_http() -> Result<()> {
    acme("http-01")
}

#[test]
fn acme_by_tls_alpn() -> Result<()> {
    acme("tls-alpn-01")
}

/// An upstream with a certificate that only its own authority vouches for.
#[test]
fn an_upstream_over_tls_is_trusted_by_its_own_authority_only() -> Result<()> {
    let folder = tool::folder("pki")?;
    let authority = Authority::new(folder.path())?;
    let certificate = authority.issue("upstream", &["127.0.0.1"])?;
    let storage = folder.path().join("storage");
    let image = Image::oci(1, &[50_000])?;
    let plain = DistributionRegistry::builder().storage(&storage).start()?;
    RegistryClient::new(plain.address()).push("team/app", "v1", &image)?;
    drop(plain);
    let upstream = DistributionRegistry::builder().storage(&storage).tls(&certificate).start()?;
    let trusting = Kuboard::builder()
        .upstream("up.test", &upstream.url())
        .config(&format!("caFile = {:?}", authority.file()))
        .start()?;
    ensure!(trusting.client().pull("up.test/team/app", "v1")?.digest == image.digest);
    let wary = Kuboard::builder().upstream("up.test", &upstream.url()).start()?;
    let answer = wary.get("/v2/up.test/team/app/manifests/v1")?;
    ensure!(answer.status == 502, "{} {}", answer.status, answer.text());
    Ok(())
}
