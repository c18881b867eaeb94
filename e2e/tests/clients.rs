//! Real clients pull a real multi-platform image of more than 500 MB through the proxy, from a
//! registry that asks for tokens, and push it to a hosted repository: the digests that go in come
//! out, and every byte crosses the upstream once.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::figure;
use e2e::programs::Programs;
use kuboard_oci::{Digest, Manifest};
use kuboard_testkit::containerd::Containerd;
use kuboard_testkit::debian::DebianImage;
use kuboard_testkit::distribution::DistributionRegistry;
use kuboard_testkit::token::TokenIssuer;
use kuboard_testkit::{Kuboard, tool};
use serde_json::json;

const USER: &str = "puller";
const PASSWORD: &str = "a-long-secret";

/// The upstream with its token service, the product before it, and the clients.
struct Road {
    image: DebianImage,
    upstream: DistributionRegistry,
    kuboard: Kuboard,
    programs: Programs,
    started: Instant,
    // Ends last: the upstream's tokens come from it.
    _issuer: TokenIssuer,
}

impl Road {
    fn build() -> Result<Road> {
        let image = DebianImage::get()?;
        let issuer = TokenIssuer::start(USER, PASSWORD)?;
        let upstream = DistributionRegistry::builder()
            .storage(&image.registry_storage())
            .read_only()
            .token(&issuer)
            .start()?;
        let secret = upstream.folder().join("password");
        std::fs::write(&secret, format!("{PASSWORD}\n"))?;
        let kuboard = Kuboard::builder()
            .upstream("up.test", &upstream.url())
            .config(&format!("trustedRealms = [\"{}\"]", issuer.address()))
            .config(&format!(
                "[upstream.credentials]\nkind = \"basic\"\nuser = \"{USER}\"\npasswordFile = {:?}",
                secret
            ))
            .start()?;
        let programs = Programs::new()?;
        let started = Instant::now();
        Ok(Road { image, upstream, kuboard, programs, started, _issuer: issuer })
    }

    /// The image as the proxy names it, without a transport.
    fn proxied(&self) -> String {
        format!(
            "{}/up.test/{}:{}",
            self.kuboard.address(),
            DebianImage::REPOSITORY,
            DebianImage::TAG
        )
    }

    /// A hosted repository for one client.
    fn hosted(&self, client: &str) -> String {
        format!("{}/hosted/{client}:{}", self.kuboard.address(), DebianImage::TAG)
    }

    /// Digest of the index that the product serves in a repository.
    fn served(&self, repository: &str) -> Result<Digest> {
        let (bytes, _) = self.kuboard.client().manifest(repository, DebianImage::TAG)?;
        Ok(Digest::sha256(&bytes))
    }

    /// Digest of the configuration of the amd64 image in a repository.
    fn config(&self, repository: &str, reference: &str) -> Result<Digest> {
        let (bytes, kind) = self.kuboard.client().manifest(repository, reference)?;
        let manifest = Manifest::parse(&bytes, Some(&kind))?;
        let amd64 = manifest.children().find(|child| {
            child.platform.as_ref().is_some_and(|platform| platform.architecture == "amd64")
        });
        if let Some(child) = amd64 {
            return self.config(repository, &child.digest.to_string());
        }
        Ok(manifest.config.context("an image without a configuration")?.digest)
    }

    /// The whole image must lie in the hosted repository, and nothing crossed the upstream twice.
    fn check(&self, client: &str, expected_blob_bytes: u64) -> Result<()> {
        let seconds = self.started.elapsed().as_secs_f64();
        ensure!(self.served(&format!("up.test/{}", DebianImage::REPOSITORY))? == self.image.digest);
        let upstream_bytes = self.upstream.bytes("/blobs/");
        figure(json!({
            "client": client,
            "imageBytes": expected_blob_bytes,
            "upstreamBlobBytes": upstream_bytes,
            "pullAndPushSeconds": (seconds * 10.0).round() / 10.0,
        }))?;
        ensure!(
            upstream_bytes == expected_blob_bytes,
            "{client}: {upstream_bytes} bytes from the upstream for {expected_blob_bytes}"
        );
        Ok(())
    }

    fn check_hosted(&self, client: &str) -> Result<()> {
        let repository = format!("hosted/{client}");
        ensure!(self.served(&repository)? == self.image.digest, "{client} changed the digest");
        let pulled = self.kuboard.client().pull(&repository, DebianImage::TAG)?;
        ensure!(pulled.digest == self.image.digest);
        Ok(())
    }

    /// Bytes of all blobs of both platforms; shared layers count once.
    fn all_blob_bytes(&self) -> Result<u64> {
        blob_bytes(&self.image, None)
    }
}

/// Bytes of the different blobs in the layout that the index reaches, or one platform of it.
fn blob_bytes(image: &DebianImage, architecture: Option<&str>) -> Result<u64> {
    let read =
        |digest: &Digest| std::fs::read(image.layout().join("blobs/sha256").join(digest.hex()));
    let index = Manifest::parse(&read(&image.digest)?, None)?;
    let mut sizes = std::collections::BTreeMap::new();
    for child in index.children() {
        let named = child.platform.as_ref().map(|platform| platform.architecture.as_str());
        if architecture.is_some() && named != architecture {
            continue;
        }
        let manifest = Manifest::parse(&read(&child.digest)?, None)?;
        sizes.extend(manifest.blobs().map(|blob| (blob.digest, blob.size)));
    }
    Ok(sizes.values().sum())
}

#[test]
fn skopeo() -> Result<()> {
    let road = Road::build()?;
    let layout = format!("oci:{}:copy", road.programs.at("layout").display());
    road.programs.skopeo_copy(&format!("docker://{}", road.proxied()), &layout)?;
    road.programs.skopeo_copy(&layout, &format!("docker://{}", road.hosted("skopeo")))?;
    road.check("skopeo", road.all_blob_bytes()?)?;
    road.check_hosted("skopeo")
}

#[test]
fn crane() -> Result<()> {
    let road = Road::build()?;
    let layout = road.programs.at("layout").display().to_string();
    road.programs.crane(&["pull", "--format=oci", &road.proxied(), &layout])?;
    road.programs.crane(&["push", "--index", &layout, &road.hosted("crane")])?;
    // Its layout is itself an index around ours: what it pushed is checked by what it copies.
    road.programs.crane(&["copy", &road.proxied(), &road.hosted("crane-copy")])?;
    ensure!(road.programs.crane_digest(&road.hosted("crane-copy"))? == road.image.digest);
    road.check("crane", road.all_blob_bytes()?)?;
    road.check_hosted("crane-copy")
}

#[test]
fn containerd() -> Result<()> {
    let road = Road::build()?;
    let containerd = Containerd::start()?;
    let upstream_name = format!("up.test/{}:{}", DebianImage::REPOSITORY, DebianImage::TAG);
    containerd.mirror("up.test", &format!("http://{}", road.kuboard.address()))?;
    let hosts = containerd.hosts().display().to_string();
    let ctr = |arguments: &[&str]| tool::output(&mut containerd.ctr(arguments)?);
    ctr(&["images", "pull", "--all-platforms", "--hosts-dir", &hosts, &upstream_name])?;
    let listed = ctr(&["images", "ls"])?;
    ensure!(listed.contains(&road.image.digest.to_string()), "{listed}");
    let hosted = road.hosted("containerd");
    ctr(&["images", "tag", &upstream_name, &hosted])?;
    ctr(&["images", "push", "--plain-http", &hosted])?;
    road.check("containerd", road.all_blob_bytes()?)?;
    road.check_hosted("containerd")
}

/// podman unpacks what it pulls and may compress anew what it pushes; the image's identity, the
/// digest of its configuration, must stay.
#[test]
fn podman() -> Result<()> {
    let road = Road::build()?;
    let proxied = road.proxied();
    let id = road.programs.podman(&[
        "pull",
        "--quiet",
        "--tls-verify=false",
        "--signature-policy",
        &road.programs.at("policy.json").display().to_string(),
        &proxied,
    ])?;
    let config = road.config(&format!("up.test/{}", DebianImage::REPOSITORY), DebianImage::TAG)?;
    ensure!(id == config.hex(), "podman has {id}, the image is {config}");
    let digests = road.programs.podman(&["image", "inspect", "--format={{.RepoDigests}}", &id])?;
    ensure!(digests.contains(&road.image.digest.to_string()), "{digests}");
    let digest_file = road.programs.at("pushed").display().to_string();
    let hosted = road.hosted("podman");
    road.programs.podman(&[
        "push",
        "--quiet",
        "--tls-verify=false",
        "--digestfile",
        &digest_file,
        &id,
        &format!("docker://{hosted}"),
    ])?;
    let pushed = std::fs::read_to_string(&digest_file)?.trim().parse::<Digest>()?;
    ensure!(road.served("hosted/podman")? == pushed);
    ensure!(road.config("hosted/podman", DebianImage::TAG)? == config);
    ensure!(road.kuboard.client().pull("hosted/podman", DebianImage::TAG)?.digest == pushed);
    road.check("podman", blob_bytes(&road.image, Some("amd64"))?)
}

/// buildah makes a list of both platforms as they lie in the registry and pushes all of it.
#[test]
fn buildah() -> Result<()> {
    let road = Road::build()?;
    let proxied = format!("docker://{}", road.proxied());
    let hosted = format!("docker://{}", road.hosted("buildah"));
    road.programs.buildah(&["manifest", "create", "both"])?;
    road.programs.buildah(&["manifest", "add", "--tls-verify=false", "--all", "both", &proxied])?;
    road.programs.buildah(&[
        "manifest",
        "push",
        "--tls-verify=false",
        "--all",
        "--signature-policy",
        &road.programs.at("policy.json").display().to_string(),
        "both",
        &hosted,
    ])?;
    let client = road.kuboard.client();
    let children = |repository: &str| -> Result<Vec<Digest>> {
        let (bytes, kind) = client.manifest(repository, DebianImage::TAG)?;
        let index = Manifest::parse(&bytes, Some(&kind))?;
        let mut digests: Vec<Digest> = index.children().map(|child| child.digest).collect();
        digests.sort();
        Ok(digests)
    };
    let upstream = children(&format!("up.test/{}", DebianImage::REPOSITORY))?;
    ensure!(children("hosted/buildah")? == upstream, "the platforms' digests changed");
    client.pull("hosted/buildah", DebianImage::TAG)?;
    road.check("buildah", road.all_blob_bytes()?)
}
