//! The engine on a catalogue of its own: what races, kills and other processes do to it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kuboard_catalog::{Catalog, ImageName, InventoryRow, NewJob};
use kuboard_oci::{Digest, RepositoryName};
use kuboard_rt::{Clock, Tasks};
use kuboard_vuln::{ImageIdentity, ImageInventory, Outcome, Problem, Report};
use prometheus::Registry;

use super::{
    Engine, EngineMetrics, EngineParts, Exclusions, Heard, Passing, REMATCH, Repositories, SCAN,
    ScanJob, results::tests::report,
};
use crate::{
    index::{Indexers, MACHINE, Settings},
    inspect::Inspector,
    inventories::{NoInventories, decode},
    source::{Contents, SourceError},
};

struct NoRepositories;

impl Repositories for NoRepositories {
    fn contents(
        &self,
        _: &str,
        repository: &RepositoryName,
    ) -> Result<Arc<dyn Contents>, SourceError> {
        Err(SourceError::invalid(format!("{repository} is not here")))
    }
}

struct Stopped;

impl Clock for Stopped {
    fn now_ms(&self) -> i64 {
        1_000_000
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

struct Ground {
    catalog: Catalog,
    _folder: tempfile::TempDir,
}

impl Ground {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open_file(&folder.path().join("catalog.db")).await.unwrap();
        Self { catalog, _folder: folder }
    }

    /// As another process would have it.
    fn engine(&self) -> (Arc<Engine>, Registry, Heard) {
        let tasks = Tasks::default();
        let inspector = Inspector {
            indexers: Indexers::all(),
            settings: Arc::new(Settings::default()),
            inventories: Arc::new(NoInventories),
            tasks: tasks.clone(),
            parallel: 1,
        };
        let (passing, heard) = Passing::new(inspector.clone(), tasks.clone());
        let registry = Registry::new();
        let parts = EngineParts {
            catalog: self.catalog.clone(),
            inspector,
            scanner: None,
            repositories: Arc::new(NoRepositories),
            exclusions: Exclusions::default(),
            receivers: vec!["one".to_owned()],
            clock: Arc::new(Stopped),
            tasks,
            metrics: EngineMetrics::new(&registry).unwrap(),
        };
        (Engine::new(parts, passing), registry, heard)
    }

    async fn name(&self, image: &Digest, at_ms: i64) {
        self.catalog.name_image(&name(), image, at_ms).await.unwrap();
    }

    /// `CVE-1 open`, by key.
    async fn findings(&self) -> Vec<String> {
        let rows = self.catalog.findings("docker.io/library/a:1").await.unwrap();
        let said = |key: &str| key.split(' ').next().unwrap_or_default().to_owned();
        rows.iter().map(|row| format!("{} {}", said(&row.key), row.state)).collect()
    }

    async fn events(&self) -> u64 {
        self.catalog.delivery_states().await.unwrap().iter().map(|(_, _, count)| count).sum()
    }
}

fn name() -> ImageName {
    ImageName { registry: "docker.io".into(), repository: "library/a".into(), tag: "1".into() }
}

fn found(image: &Digest, ids: &[&str], at_ms: i64) -> Report {
    let identity = ImageIdentity {
        name: "docker.io/library/a:1".into(),
        registry: "docker.io".into(),
        repository: "library/a".into(),
        tag: "1".into(),
        digest: Some(*image),
        ..ImageIdentity::default()
    };
    Report { image: identity, scanned_ms: at_ms, ..report(ids, Outcome::Complete) }
}

#[tokio::test]
async fn an_image_that_lost_its_tag_changes_no_findings_of_the_tag() {
    let ground = Ground::new().await;
    let (engine, _, _heard) = ground.engine();
    let [old, new] = [Digest::sha256(b"old"), Digest::sha256(b"new")];
    ground.name(&old, 1).await;
    engine.publish(&old, &found(&old, &["CVE-1"], 1)).await.unwrap();
    ground.name(&new, 2).await;
    engine.publish(&new, &found(&new, &["CVE-2"], 2)).await.unwrap();
    let now = ["CVE-1 fixed", "CVE-2 open"];
    assert_eq!(ground.findings().await, now);
    let events = ground.events().await;
    // The old image is matched again, as every update does.
    engine.publish(&old, &found(&old, &["CVE-1", "CVE-3"], 3)).await.unwrap();
    assert_eq!(ground.findings().await, now);
    assert_eq!(ground.events().await, events);
    let stored = engine.stored_report(&old).await.unwrap().unwrap();
    assert_eq!(stored.findings.len(), 2, "its own report is kept up to date");
    // The tag goes back.
    ground.name(&old, 4).await;
    engine.publish(&old, &found(&old, &["CVE-1"], 4)).await.unwrap();
    assert_eq!(ground.findings().await, ["CVE-1 reopened", "CVE-2 fixed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_publish_at_once_is_told_once() {
    let ground = Ground::new().await;
    let image = Digest::sha256(b"image");
    ground.name(&image, 1).await;
    let mut publishing = tokio::task::JoinSet::new();
    for at_ms in 1..=8 {
        let (engine, _, _) = ground.engine();
        let report = found(&image, &["CVE-1", "CVE-2"], at_ms);
        publishing.spawn(async move { engine.publish(&image, &report).await });
    }
    while let Some(published) = publishing.join_next().await {
        published.unwrap().unwrap();
    }
    assert_eq!(ground.findings().await, ["CVE-1 open", "CVE-2 open"]);
    assert_eq!(ground.events().await, 1);
}

#[tokio::test]
async fn a_first_report_without_findings_is_told() {
    let ground = Ground::new().await;
    let (engine, _, _heard) = ground.engine();
    let image = Digest::sha256(b"image");
    for at_ms in [1, 2] {
        engine.publish(&image, &found(&image, &[], at_ms)).await.unwrap();
        assert_eq!(ground.events().await, 1);
    }
}

#[tokio::test]
async fn one_unreadable_image_does_not_stop_the_others() {
    let ground = Ground::new().await;
    let (engine, _, _heard) = ground.engine();
    let images: Vec<Digest> =
        ["damaged", "of old indexers", "fine"].map(|name| Digest::sha256(name.as_bytes())).into();
    for (position, image) in images.iter().enumerate() {
        let name = ImageName { tag: format!("{position}"), ..name() };
        ground.catalog.name_image(&name, image, 1).await.unwrap();
    }
    let indexers = [engine.state(), "old".to_owned()];
    for (image, indexer) in images.iter().zip(indexers) {
        let row = InventoryRow { image: *image, indexer, body: vec![1], indexed_ms: 1 };
        ground.catalog.put_image_inventory(&row, []).await.unwrap();
    }
    let empty = ImageInventory::default();
    engine.keep_inventory(&images[2], &ImageIdentity::default(), &empty).await.unwrap();
    let payload = serde_json::json!({ "images": images, "generation": 0 }).to_string();
    engine.rematch_job(&payload).await.unwrap();
    assert!(engine.stored_report(&images[2]).await.unwrap().is_some());
    for (image, is_queued) in images.iter().zip([true, true, false]) {
        let job = ground.catalog.last_job(SCAN, &image.to_string()).await.unwrap();
        assert_eq!(job.is_some(), is_queued, "{image}");
    }
}

#[tokio::test]
async fn a_job_waits_for_its_advisories_to_come_to_this_process() {
    let ground = Ground::new().await;
    let (engine, _, _heard) = ground.engine();
    let payload = r#"{"images":[],"generation":3}"#.to_owned();
    assert!(engine.is_early(&payload));
    assert!(!engine.is_early(r#"{"images":[]}"#));
    let job = NewJob {
        kind: REMATCH.to_owned(),
        subject: "3 0".to_owned(),
        payload,
        priority: 60,
        run_after_ms: 0,
        max_attempts: 5,
    };
    ground.catalog.enqueue(&job, 1).await.unwrap();
    let taken = ground.catalog.lease_job(&[REMATCH], "w", i64::MAX, engine.now_ms()).await;
    let taken = taken.unwrap().unwrap();
    engine.run(&taken, "w", &Tasks::default().shutdown()).await;
    let row = ground.catalog.last_job(REMATCH, "3 0").await.unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.attempts), ("waiting", 0));
    assert!(row.run_after_ms > engine.now_ms());
    // A report of older advisories than all images were matched with is made once more.
    let image = Digest::sha256(b"late");
    ground.catalog.set_mark("rematched generation", "3").await.unwrap();
    engine.catch_up(&image, 3).await.unwrap();
    assert!(ground.catalog.last_job(REMATCH, &format!("3 {image}")).await.unwrap().is_none());
    engine.catch_up(&image, 2).await.unwrap();
    assert!(ground.catalog.last_job(REMATCH, &format!("3 {image}")).await.unwrap().is_some());
}

#[tokio::test]
async fn what_this_machine_could_not_read_is_not_kept_as_the_images() {
    let ground = Ground::new().await;
    let (engine, _, _heard) = ground.engine();
    let image = Digest::sha256(b"image");
    let problem = Problem { path: String::new(), by: MACHINE.into(), why: "disk full".into() };
    let inventory = ImageInventory { problems: vec![problem], ..ImageInventory::default() };
    engine.keep_inventory(&image, &ImageIdentity::default(), &inventory).await.unwrap();
    let job = ScanJob {
        registry: String::new(),
        repository: "team/a".into(),
        tag: "1".into(),
        image,
        fetch: true,
        layers: Vec::new(),
    };
    let error = engine.scan(&job).await.unwrap_err();
    assert!(error.to_string().contains("is not here"), "it was not read anew: {error}");
}

#[tokio::test]
async fn gauges_survive_a_restart() {
    let ground = Ground::new().await;
    let (engine, _, _heard) = ground.engine();
    let [old, new] = [Digest::sha256(b"old"), Digest::sha256(b"new")];
    ground.name(&old, 1).await;
    engine.publish(&old, &found(&old, &["CVE-1", "CVE-2"], 1)).await.unwrap();
    ground.name(&new, 2).await;
    engine.publish(&new, &found(&new, &["CVE-3"], 2)).await.unwrap();
    let (engine, registry, _heard) = ground.engine();
    let count = || {
        let families = registry.gather();
        let found = families.iter().find(|f| f.name() == "scan_vulnerabilities_found");
        found.map(|family| family.get_metric()[0].get_gauge().get_value())
    };
    assert_eq!(count(), None);
    engine.measure().await.unwrap();
    assert_eq!(count(), Some(1.0));
    engine.warm().await.unwrap();
    assert_eq!(count(), Some(1.0));
    engine.publish(&new, &found(&new, &["CVE-3", "CVE-4"], 3)).await.unwrap();
    assert_eq!(count(), Some(2.0));
}

#[tokio::test]
async fn a_tag_that_means_another_image_or_the_last_one_again_is_news() {
    let ground = Ground::new().await;
    let (engine, _, mut heard) = ground.engine();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::sha256(b"{}"), "size": 2,
        },
        "layers": [],
    });
    let manifest = Bytes::from(manifest.to_string());
    let [a, b] = [Digest::sha256(b"a"), Digest::sha256(b"b")];
    let mut see = |tag: &str, image: &Digest| {
        engine.passing.manifest(("r", "x", tag), image, "", &manifest);
        heard.images.try_recv().ok().map(|seen| seen.image)
    };
    for (tag, image, is_told) in [
        ("1", a, true),
        ("1", a, false),
        ("1", b, true),
        ("1", a, true),
        // The same pull by digest; another image by digest is one of its own.
        ("", a, false),
        ("", b, true),
        ("", a, false),
    ] {
        assert_eq!(see(tag, &image), is_told.then_some(image), "{tag} {image}");
    }
}

#[tokio::test]
async fn a_known_image_under_a_new_name_has_a_job_until_it_is_reported() {
    let ground = Ground::new().await;
    let (engine, _, mut heard) = ground.engine();
    let image = Digest::sha256(b"image");
    let empty = ImageInventory::default();
    engine.keep_inventory(&image, &ImageIdentity::default(), &empty).await.unwrap();
    engine.passing.tell(super::SeenImage {
        registry: "docker.io".into(),
        repository: "library/a".into(),
        tag: "1".into(),
        image,
        layers: Vec::new(),
    });
    let seen = heard.images.try_recv().unwrap();
    engine.heard(seen, &mut super::jobs::Awaited::default()).await.unwrap();
    assert!(ground.catalog.last_job(SCAN, &image.to_string()).await.unwrap().is_some());
    assert_eq!(ground.catalog.image_named(&name()).await.unwrap(), Some(image));
}

#[tokio::test]
async fn facts_know_what_a_later_advisory_brought() {
    let ground = Ground::new().await;
    let (engine, _, _heard) = ground.engine();
    let image = Digest::sha256(b"image");
    assert_eq!(engine.facts(&image).await.unwrap(), None);
    ground.name(&image, 1).await;
    // Before there are advisories nothing can be said: that was no scan.
    let reason = "there are no advisories".to_owned();
    let nothing = Report { outcome: Outcome::Unsupported { reason }, ..found(&image, &[], 5) };
    engine.publish(&image, &nothing).await.unwrap();
    let facts = engine.facts(&image).await.unwrap().unwrap();
    assert!(matches!(facts.known, kuboard_vuln::Known::Nothing(_)));
    engine.publish(&image, &found(&image, &["CVE-1"], 10)).await.unwrap();
    engine.publish(&image, &found(&image, &["CVE-1", "CVE-2"], 20)).await.unwrap();
    let seen = |facts: kuboard_vuln::ImageFacts| {
        let findings = facts.findings.iter().map(|fact| (fact.id.to_string(), fact.first_seen_ms));
        (facts.first_scanned_ms, facts.scanned_ms, findings.collect::<Vec<_>>())
    };
    let now = (10, 20, vec![("CVE-1".to_owned(), 10), ("CVE-2".to_owned(), 20)]);
    assert_eq!(seen(engine.facts(&image).await.unwrap().unwrap()), now);
    // A further name brings nothing new, whichever name the report is stored under.
    let other = ImageName { tag: "2".into(), ..name() };
    ground.catalog.name_image(&other, &image, 30).await.unwrap();
    let mut again = found(&image, &["CVE-1", "CVE-2"], 30);
    again.image.name = "docker.io/library/a:2".into();
    again.image.tag = "2".into();
    engine.publish(&image, &again).await.unwrap();
    let later = (10, 30, now.2);
    assert_eq!(seen(engine.facts(&image).await.unwrap().unwrap()), later);
}

#[tokio::test]
async fn a_pods_image_is_asked_for_before_all_others() {
    let ground = Ground::new().await;
    let (engine, _, _heard) = ground.engine();
    let [first, awaited] = [Digest::sha256(b"first"), Digest::sha256(b"awaited")];
    for (image, priority) in [(first, 50), (awaited, super::AWAITED)] {
        assert!(engine.ask_for(&name(), &image, priority).await.unwrap());
    }
    let job = ground.catalog.lease_job(&[SCAN], "w", i64::MAX, engine.now_ms()).await.unwrap();
    let job: ScanJob = serde_json::from_str(&job.unwrap().payload).unwrap();
    assert_eq!((job.image, job.fetch, job.tag.as_str()), (awaited, true, "1"));
    let names = ground.catalog.image_names(&awaited).await.unwrap();
    assert_eq!(names.iter().map(|named| &named.name).collect::<Vec<_>>(), [&name()]);
}

#[test]
fn bodies_that_claim_absurd_sizes_are_refused() {
    assert!(decode::<ImageInventory>(&[0x28, 0xb5, 0x2f, 0xfd, 0xe0]).is_err());
    assert!(decode::<ImageInventory>(b"").is_err());
}
