//! How a client names the upstream: by `Host`, also from behind an nginx set up as users are told
//! to, by `?ns=` as containerd does, or by the first part of the path. A name that no rule knows
//! is never dialled.

use anyhow::{Result, ensure};
use e2e::programs::Programs;
use kuboard_oci::media_type;
use kuboard_testkit::http::{Answer, Request};
use kuboard_testkit::nginx::Nginx;
use kuboard_testkit::{FakeUpstream, Image, Kuboard};

struct Scene {
    upstream: FakeUpstream,
    kuboard: Kuboard,
    image: Image,
}

impl Scene {
    fn build() -> Result<Scene> {
        let upstream = FakeUpstream::start()?;
        let image = Image::multi_platform(1, &[2 << 20])?;
        upstream.put("team/app", "v1", &image);
        let kuboard = Kuboard::builder()
            .upstream("up.test", &upstream.url())
            .config("hosts = [\"registry.internal\"]")
            .start()?;
        Ok(Scene { upstream, kuboard, image })
    }

    fn right(&self, answer: &Answer) -> Result<()> {
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        ensure!(answer.body == self.image.manifest.to_vec());
        Ok(())
    }
}

fn manifest(target: &str) -> Request {
    Request::get(target).header("Accept", media_type::ACCEPT_ALL)
}

#[test]
fn by_host_by_namespace_and_by_path() -> Result<()> {
    let scene = Scene::build()?;
    let address = scene.kuboard.address();
    let by_host = manifest("/v2/team/app/manifests/v1").header("Host", "registry.internal");
    scene.right(&by_host.send(address)?)?;
    let with_port = manifest("/v2/team/app/manifests/v1").header("Host", "registry.internal:80");
    scene.right(&with_port.send(address)?)?;
    let by_namespace = manifest("/v2/team/app/manifests/v1?ns=up.test").send(address)?;
    scene.right(&by_namespace)?;
    ensure!(by_namespace.headers.get("oci-namespace") == Some("up.test"));
    scene.right(&manifest("/v2/up.test/team/app/manifests/v1").send(address)?)?;
    Ok(())
}

#[test]
fn unknown_names_are_404_and_never_dialled() -> Result<()> {
    let scene = Scene::build()?;
    // Its own address as a namespace: whoever dials what a client names would reach it.
    let bait = FakeUpstream::start()?;
    bait.put("team/app", "v1", &scene.image);
    for namespace in [bait.address(), "no-such.example.com".into(), "..%2f..".into()] {
        let path = format!("/v2/team/app/manifests/v1?ns={namespace}");
        let answer = scene.kuboard.get(&path)?;
        ensure!(matches!(answer.status, 400 | 404), "{namespace}: {}", answer.status);
        ensure!(answer.json()?["errors"][0]["code"].is_string(), "{}", answer.text());
    }
    let path = format!("/v2/{}/team/app/manifests/v1", bait.address());
    let answer = scene.kuboard.get(&path)?;
    ensure!(matches!(answer.status, 400 | 404), "{}", answer.status);
    ensure!(bait.requests().is_empty(), "{:?}", bait.requests());
    Ok(())
}

/// The article's `location / { proxy_pass …; proxy_set_header Host $host; }`.
#[test]
fn behind_nginx_with_the_host_passed_on() -> Result<()> {
    let scene = Scene::build()?;
    let nginx = Nginx::in_front_of(scene.kuboard.address())?;
    let by_host = manifest("/v2/team/app/manifests/v1").header("Host", "registry.internal");
    scene.right(&by_host.send(nginx.address())?)?;
    let layer = &scene.image.children[0].layers()[0];
    let blob = Request::get(format!("/v2/team/app/blobs/{}", layer.digest));
    let blob = blob.header("Host", "registry.internal").send(nginx.address())?;
    ensure!(blob.status == 200 && blob.body == layer.bytes.to_vec());

    // Pulls by path and pushes of a real client work through it as well.
    let programs = Programs::new()?;
    let name = |repository: &str| format!("docker://{}/{repository}:v1", nginx.address());
    programs.skopeo_copy(&name("up.test/team/app"), &name("hosted/app"))?;
    let (bytes, _) = scene.kuboard.client().manifest("hosted/app", "v1")?;
    ensure!(bytes == scene.image.manifest.to_vec());
    ensure!(scene.upstream.requests().iter().all(|it| !it.path.contains("hosted")));
    Ok(())
}

/// Signatures and other referrers pass through, by the API and by cosign's tags.
#[test]
fn referrers_and_signature_tags_pass_through() -> Result<()> {
    let scene = Scene::build()?;
    let signature = Image::builder(9)
        .layers(&[100])
        .artifact_type("application/vnd.example.signature")
        .subject(&scene.image)
        .build()?;
    let cosign_tag = format!("sha256-{}.sig", scene.image.digest.hex());
    scene.upstream.put("team/app", &cosign_tag, &signature);
    let address = scene.kuboard.address();
    let path = format!("/v2/up.test/team/app/referrers/{}", scene.image.digest);
    let referrers = Request::get(path).send(address)?;
    ensure!(referrers.status == 200, "{}", referrers.status);
    ensure!(referrers.headers.get("content-type") == Some(media_type::OCI_INDEX));
    let found = &referrers.json()?["manifests"][0]["digest"];
    ensure!(*found == signature.digest.to_string(), "{found}");
    let tagged = manifest(&format!("/v2/up.test/team/app/manifests/{cosign_tag}")).send(address)?;
    ensure!(tagged.body == signature.manifest.to_vec());
    Ok(())
}
