//! The roles by themselves, as a cluster runs them: a front before two caches that share a database
//! and a bucket is one registry, and stays one when a cache dies.

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::conformance::Suite;
use e2e::figure;
use kuboard_testkit::http::{Answer, Request};
use kuboard_testkit::image::Blob;
use kuboard_testkit::object_store::ObjectServer;
use kuboard_testkit::postgres::Postgres;
use kuboard_testkit::process::Process;
use kuboard_testkit::{FakeUpstream, Fault, Image, Kuboard, On, RegistryClient, tool};
use serde_json::json;
use tempfile::TempDir;

/// Bound on anything that a dead cache may delay.
const BOUND: Duration = Duration::from_secs(30);

/// Names enough for each of two caches to keep some of them.
const REPOSITORIES: u64 = 8;

/// One process: `kuboard serve --role ROLE`.
struct Server {
    role: &'static str,
    folder: PathBuf,
    address: String,
    process: Process,
}

impl Server {
    /// Starts with these settings in a folder of its own and waits until it listens.
    fn start(role: &'static str, folder: PathBuf, settings: &str) -> Result<Server> {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("kuboard.toml"), settings)?;
        let (process, address) = Server::launch(role, &folder, "127.0.0.1:0")?;
        Ok(Server { role, folder, address, process })
    }

    fn launch(role: &str, folder: &Path, listen: &str) -> Result<(Process, String)> {
        let data = folder.join("data");
        let file = data.join("address");
        if file.exists() {
            std::fs::remove_file(&file)?;
        }
        let mut command = Kuboard::command()?;
        command.args(["serve", "--role", role, "--listen", listen, "--data-dir"]).arg(&data);
        command.current_dir(folder);
        let mut process = Process::start(role, &mut command, &folder.join("log"))?;
        let mut address = String::new();
        process.wait_ready(BOUND, || {
            address = std::fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
            Ok(!address.is_empty() && TcpStream::connect(&address).is_ok())
        })?;
        Ok((process, address))
    }

    /// Starts again on the same folder and address.
    fn restart(&mut self) -> Result<()> {
        self.process.kill9()?;
        (self.process, _) = Server::launch(self.role, &self.folder, &self.address)?;
        Ok(())
    }

    fn client(&self) -> RegistryClient {
        RegistryClient::new(&self.address)
    }

    fn get(&self, path: &str) -> Result<Answer> {
        Request::get(path).send(&self.address)
    }
}

/// Two caches over one database and one bucket, and the front before them.
struct Cluster {
    front: Server,
    caches: Vec<Server>,
    upstream: FakeUpstream,
    _postgres: Postgres,
    _objects: ObjectServer,
    folder: TempDir,
}

impl Cluster {
    /// With these further lines in the settings of the caches and of the front.
    fn start(cache_settings: &str, front_settings: &str) -> Result<Cluster> {
        let folder = tool::folder("roles")?;
        let (postgres, objects) = (Postgres::start()?, ObjectServer::start()?);
        let upstream = FakeUpstream::start()?;
        let at = |name: &str| folder.path().join(name);
        let secret = at("secret");
        std::fs::write(&secret, ObjectServer::SECRET_KEY)?;
        let settings = format!(
            "[catalog]\nurl = {:?}\n[storage]\nurl = \"s3://{}/registry\"\nendpoint = \"{}\"\n\
             region = \"{}\"\naccessKeyId = \"{}\"\nsecretAccessKeyFile = {secret:?}\n\
             allowHttp = true\n[[upstream]]\nname = \"up.test\"\nendpoints = [\"{}\"]\n\
             {cache_settings}",
            postgres.database()?,
            ObjectServer::BUCKET,
            objects.endpoint(),
            ObjectServer::REGION,
            ObjectServer::ACCESS_KEY,
            upstream.url(),
        );
        let cache = |name: &str| Server::start("registry-cache", at(name), &settings);
        let caches = vec![cache("cache-0")?, cache("cache-1")?];
        let urls: Vec<String> =
            caches.iter().map(|cache| format!("http://{}", cache.address)).collect();
        let front_settings = format!("[proxy]\ncaches = {urls:?}\n{front_settings}");
        let front = Server::start("registry-proxy", at("front"), &front_settings)?;
        Ok(Cluster { front, caches, upstream, _postgres: postgres, _objects: objects, folder })
    }

    /// Pushes an image to each of several repositories through the front.
    fn fill(&self) -> Result<Vec<(String, Image)>> {
        let fill = |number| {
            let image = Image::multi_platform(10 * number, &[300_000, 1000])?;
            let repository = format!("team/app-{number}");
            self.front.client().push(&repository, "v1", &image)?;
            Ok((repository, image))
        };
        (1..=REPOSITORIES).map(fill).collect()
    }
}

fn pulls(client: &RegistryClient, images: &[(String, Image)]) -> Result<()> {
    for (repository, image) in images {
        let pulled = client.pull(repository, "v1").with_context(|| repository.clone())?;
        ensure!(pulled.digest == image.digest, "{repository} came as {}", pulled.digest);
    }
    Ok(())
}

/// Sends a piece of an upload; the address for the next piece.
fn patch(client: &RegistryClient, location: &str, from: usize, piece: &[u8]) -> Result<Answer> {
    let request = Request::new("PATCH", location)
        .header("Content-Type", "application/octet-stream")
        .header("Content-Range", format!("{from}-{}", from + piece.len() - 1))
        .body(piece);
    client.send(request)
}

fn location(answer: &Answer) -> Result<String> {
    Ok(answer.headers.get("location").context("no location")?.to_owned())
}

#[test]
fn a_front_and_two_caches_are_one_registry() -> Result<()> {
    let cluster = Cluster::start("", "")?;
    ensure!(cluster.front.get("/readyz")?.status == 200, "{}", cluster.front.process.log());
    let images = cluster.fill()?;
    pulls(&cluster.front.client(), &images)?;
    for cache in &cluster.caches {
        pulls(&cache.client(), &images)?;
    }
    let answer = Request::get("/v2/").header("X-Request-Id", "from-outside");
    let answer = answer.send(&cluster.front.address)?;
    ensure!(answer.headers.get("x-request-id") == Some("from-outside"));
    let catalog = cluster.front.get("/v2/_catalog")?.json()?;
    let named = catalog["repositories"].as_array().map_or(0, Vec::len);
    ensure!(named as u64 == REPOSITORIES, "{catalog}");
    ensure!(cluster.front.get("/v2/up.test/no/such/manifests/v1")?.status == 404);
    Ok(())
}

/// Every piece is a request of its own, and all of them must meet in one cache.
#[test]
fn an_upload_in_pieces_goes_through_the_front() -> Result<()> {
    let cluster = Cluster::start("", "")?;
    let client = cluster.front.client();
    for number in 0..REPOSITORIES {
        let repository = format!("team/pieces-{number}");
        let blob = Blob::random(number, 3_000_000);
        let mut place = client.begin_upload(&repository)?;
        for (index, piece) in blob.bytes.chunks(1_000_000).enumerate() {
            let answer = patch(&client, &place, index * 1_000_000, piece)?;
            ensure!(answer.status == 202, "piece {index}: {} {}", answer.status, answer.text());
            place = location(&answer)?;
        }
        let state = client.send(Request::get(&place))?;
        ensure!(state.status == 204 && state.headers.get("range") == Some("0-2999999"));
        let place = location(&state)?;
        let joint = if place.contains('?') { '&' } else { '?' };
        let put = Request::new("PUT", format!("{place}{joint}digest={}", blob.digest));
        let answer = client.send(put)?;
        ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
        let (length, digest) = client.blob(&repository, &blob.digest)?.digest()?;
        ensure!(length == 3_000_000 && digest == blob.digest);
    }
    Ok(())
}

/// An upload lies in the cache that took it: while that one is away it can't go on, and is neither
/// lost nor begun anew elsewhere.
#[test]
fn an_upload_waits_for_its_cache() -> Result<()> {
    let mut cluster = Cluster::start("", "")?;
    let client = cluster.front.client();
    let blob = Blob::random(1, 2_000_000);
    let (first, second) = blob.bytes.split_at(1_000_000);
    let place = client.begin_upload("team/app")?;
    let place = location(&patch(&client, &place, 0, first)?)?;
    let holds = |cache: &Server| -> Result<bool> {
        Ok(std::fs::read_dir(cache.folder.join("data/uploads"))?.next().is_some())
    };
    let holder = cluster.caches.iter().position(|it| holds(it).unwrap_or(false));
    let holder = holder.context("no cache holds the upload")?;
    cluster.caches[holder].process.kill9()?;
    let away = patch(&client, &place, first.len(), second)?;
    ensure!(away.status == 502 || away.status == 503, "{} {}", away.status, away.text());
    ensure!(away.headers.get("retry-after").is_some(), "no Retry-After");
    cluster.caches[holder].restart()?;
    let joint = if place.contains('?') { '&' } else { '?' };
    let put = Request::new("PUT", format!("{place}{joint}digest={}", blob.digest))
        .header("Content-Range", format!("{}-{}", first.len(), blob.bytes.len() - 1))
        .body(second);
    let answer = client.send(put)?;
    ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
    let (_, digest) = client.blob("team/app", &blob.digest)?.digest()?;
    ensure!(digest == blob.digest);
    Ok(())
}

#[test]
fn cold_pulls_through_the_front_cost_the_upstream_one() -> Result<()> {
    const CLIENTS: usize = 50;
    let cluster = Cluster::start("", "")?;
    let image = Image::multi_platform(1, &[6 << 20, 1 << 20])?;
    cluster.upstream.put("team/app", "v1", &image);
    // Slow enough that all clients come while the first one's download is under way.
    let slow = Fault::Drip { piece: 256 << 10, pause: Duration::from_millis(10) };
    cluster.upstream.fault(On::blobs().method("GET"), slow, None);
    let together = Barrier::new(CLIENTS);
    std::thread::scope(|scope| -> Result<()> {
        let pulling: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    together.wait();
                    cluster.front.client().pull("up.test/team/app", "v1")
                })
            })
            .collect();
        for thread in pulling {
            let pulled = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            ensure!(pulled.digest == image.digest);
        }
        Ok(())
    })?;
    let (came, size) = (cluster.upstream.bytes(&On::blobs()), image.blob_bytes());
    figure(json!({
        "figure": "upstream bytes of 50 concurrent cold pulls through a front and two caches",
        "kuboard": format!("{:.2}x", came as f64 / size as f64),
    }))?;
    ensure!(came == size, "{came} bytes of {size} came from the upstream");
    Ok(())
}

#[test]
fn hosted_content_outlives_a_cache() -> Result<()> {
    let mut cluster = Cluster::start("", "")?;
    let mut images = cluster.fill()?;
    for dead in [0, 1] {
        cluster.caches[dead].process.kill9()?;
        pulls(&cluster.front.client(), &images)?;
        images.extend(pushed_meanwhile(&cluster, dead as u64)?);
        ensure!(cluster.front.get("/readyz")?.status == 200, "one cache is enough");
        cluster.caches[dead].restart()?;
    }
    for cache in &mut cluster.caches {
        cache.process.kill9()?;
    }
    let paths = ["/v2/", "/v2/team/app-1/manifests/v1", "/v2/up.test/team/app/manifests/v1"];
    let push = Request::new("POST", "/v2/team/app-1/blobs/uploads/");
    for request in paths.into_iter().map(Request::get).chain([push]) {
        let asked = request.open(&cluster.front.address)?;
        ensure!(asked.elapsed() < BOUND, "{:?}", asked.elapsed());
        ensure!(asked.status == 502 || asked.status == 503, "{}", asked.status);
        ensure!(asked.headers.get("retry-after").is_some(), "no Retry-After");
    }
    ensure!(cluster.front.get("/readyz")?.status == 503, "ready without a cache");
    ensure!(cluster.front.get("/healthz")?.status == 200, "a restart would not help");
    cluster.caches[0].restart()?;
    pulls(&cluster.front.client(), &images)
}

/// Pushes while a cache is dead: whichever name is asked for, another cache takes it.
fn pushed_meanwhile(cluster: &Cluster, life: u64) -> Result<Vec<(String, Image)>> {
    let push = |number| {
        let image = Image::oci(1000 * (life + 1) + number, &[100_000])?;
        let repository = format!("meanwhile/app-{life}-{number}");
        cluster.front.client().push(&repository, "v1", &image)?;
        Ok((repository, image))
    };
    (0..REPOSITORIES).map(push).collect()
}

/// An upload may take longer than anything may be silent.
#[test]
fn a_slow_upload_is_no_dead_cache() -> Result<()> {
    let cluster = Cluster::start("", "[server.limits]\nidleTimeoutSeconds = 1\n")?;
    let blob = Blob::random(1, 100_000);
    let place = cluster.front.client().begin_upload("team/app")?;
    let joint = if place.contains('?') { '&' } else { '?' };
    let mut stream = TcpStream::connect(&cluster.front.address)?;
    stream.set_read_timeout(Some(BOUND))?;
    write!(
        stream,
        "PUT {place}{joint}digest={} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\
         Connection: close\r\n\r\n",
        blob.digest
    )?;
    for piece in blob.bytes.chunks(10_000) {
        stream.write_all(piece)?;
        std::thread::sleep(Duration::from_millis(300));
    }
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    Ok(())
}

/// A client that hangs up in the middle of an upload says nothing about the cache.
#[test]
fn a_client_that_hangs_up_is_not_held_against_the_cache() -> Result<()> {
    let cluster = Cluster::start("", "")?;
    let place = cluster.front.client().begin_upload("team/app")?;
    let mut stream = TcpStream::connect(&cluster.front.address)?;
    write!(stream, "PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nlittle")?;
    stream.flush()?;
    let arrived = |cache: &Server| -> Result<bool> {
        let files = std::fs::read_dir(cache.folder.join("data/uploads"))?;
        Ok(files.flatten().next().is_some())
    };
    tool::wait_until("the upload", BOUND, || {
        Ok(cluster.caches.iter().any(|cache| arrived(cache).unwrap_or(false)))
    })?;
    drop(stream);
    // Its place is free again once the front has noticed.
    tool::wait_until("the upload's release", BOUND, || {
        Ok(cluster.front.client().send(Request::get(&place))?.status == 204)
    })?;
    let log = cluster.front.process.log();
    ensure!(!log.contains("cache does not answer"), "{log}");
    Ok(())
}

/// A token that one cache signed is taken by the other, and a key of the shared catalogue by both.
#[test]
fn keys_and_tokens_are_good_at_every_cache() -> Result<()> {
    let folder = tool::folder("token-key")?;
    let shared = folder.path().join("token-key.pem");
    let access = format!("[access]\nanonymous = \"none\"\ntokenKey = {shared:?}\n");
    let cluster = Cluster::start(&access, "")?;
    let settings = cluster.folder.path().join("cache-0/kuboard.toml");
    let arguments = ["keys", "create", "robot", "--scope", "team/**=pull,push", "--config"];
    let settings = settings.display().to_string();
    let data = cluster.folder.path().join("cache-0/data");
    let (made, status) = Kuboard::json(&[&arguments[..], &[&settings]].concat(), &data)?;
    ensure!(status.success(), "{made}");
    let secret = made["secret"].as_str().context("no secret")?;
    for number in 0..REPOSITORIES {
        let image = Image::oci(number, &[10_000])?;
        let robot = RegistryClient::with_login(&cluster.front.address, "robot", secret);
        let repository = format!("team/app-{number}");
        robot.push(&repository, "v1", &image)?;
        ensure!(robot.pull(&repository, "v1")?.digest == image.digest);
        ensure!(robot.push(&format!("other/app-{number}"), "v1", &image).is_err());
        ensure!(cluster.front.client().pull(&repository, "v1").is_err(), "given to a stranger");
    }
    Ok(())
}

#[test]
fn the_suite_passes_through_the_front() -> Result<()> {
    let cluster = Cluster::start("", "")?;
    for version in ["1.1", "dev"] {
        let suite = Suite::new("hosted, front and two caches", version, &cluster.front.address);
        let counts = suite.run()?;
        ensure!(counts.passed > 500, "only {} cases ran", counts.passed);
    }
    Ok(())
}
