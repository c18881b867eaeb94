//! The OCI conformance suite: no failure hosted, at 1.1 and at dev, and none of the reading
//! categories through the proxy.

use anyhow::{Result, ensure};
use e2e::conformance::{Content, Suite};
use kuboard_testkit::Kuboard;

#[test]
fn hosted_1_1() -> Result<()> {
    let kuboard = Kuboard::start(&[])?;
    let counts = Suite::new("hosted", "1.1", kuboard.address()).run()?;
    ensure!(counts.passed > 500, "only {} cases ran", counts.passed);
    Ok(())
}

#[test]
fn hosted_dev() -> Result<()> {
    let kuboard = Kuboard::start(&[])?;
    let counts = Suite::new("hosted", "dev", kuboard.address()).run()?;
    ensure!(counts.passed > 500, "only {} cases ran", counts.passed);
    Ok(())
}

/// Another Kuboard is the upstream: the suite itself fills it, with everything that a registry may
/// hold, and then reads all of that through the proxy.
#[test]
fn proxied() -> Result<()> {
    const REPOSITORY: &str = "conformance/repo1";
    let upstream = Kuboard::start(&[])?;
    Suite::new("filling an upstream", "dev", upstream.address()).keeping().run()?;
    let content = Content::of(&upstream.client(), REPOSITORY)?;
    ensure!(content.manifests.len() > 20 && content.blobs.len() > 20, "{content:?}");
    let url = format!("http://{}", upstream.address());
    let kuboard = Kuboard::builder().upstream("up.test", &url).start()?;
    let proxied = format!("up.test/{REPOSITORY}");
    for version in ["1.1", "dev"] {
        let counts =
            Suite::new("proxied", version, kuboard.address()).reading(&proxied, &content).run()?;
        ensure!(counts.passed > 100, "only {} cases ran", counts.passed);
    }
    content.compare(&kuboard.client(), &proxied)
}
