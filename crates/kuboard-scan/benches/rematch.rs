//! What it costs to match inventories again: in memory, out of the catalogue with everything kept,
//! and after a small update. `cargo xtask bench scan --only rematch` gives the advisories.
//!
//! The inventories are drawn from what the project's test images hold.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kuboard_catalog::Catalog;
use kuboard_feeds::{
    Sink,
    database::{Builder, Database, Generations},
};
use kuboard_oci::{Digest, RepositoryName};
use kuboard_rt::{Clock, SystemClock, Tasks};
use kuboard_scan::{
    engine::{Engine, EngineMetrics, EngineParts, Exclusions, Passing, Repositories},
    index::Indexers,
    inspect::Inspector,
    inventories::NoInventories,
    source::{Contents, SourceError},
};
use kuboard_testkit::rootfs;
use kuboard_vuln::{
    Advisory, Affected, Bound, Distribution, Ecosystem, ImageIdentity, ImageInventory, Package,
    PlacedPackage, Qualifiers, Range, Status,
    matching::{MatchOptions, match_image},
};
use serde_json::{Value, json};

/// Test images whose packages the inventories are drawn from.
const SOURCES: [&str; 4] = ["almalinux-sqlite", "python-app", "go-app", "rust-app"];
/// One package in so many is one of theirs.
const KNOWN: usize = 5;
/// Inventories in memory at a time.
const CHUNK: usize = 500;
/// One image in so many holds the package that the update is about.
const RARE: usize = 100;
/// CPU seconds that 10,000 inventories of 200 packages may take.
const MOST_SECONDS: f64 = 1.0;
/// Milliseconds from new advisories to the last report that they concern.
const MOST_DELTA_MS: f64 = 100.0;

struct Arguments {
    advisories: PathBuf,
    images: usize,
    packages: usize,
}

impl Arguments {
    fn read() -> Result<Self> {
        let all: Vec<String> = std::env::args().collect();
        let value = |name: &str| {
            let at = all.iter().position(|one| one == name);
            at.and_then(|at| all.get(at + 1)).with_context(|| format!("no {name}"))
        };
        Ok(Self {
            advisories: value("--advisories")?.into(),
            images: value("--images")?.parse()?,
            packages: value("--packages")?.parse()?,
        })
    }
}

fn main() -> Result<()> {
    let given = Arguments::read()?;
    let generations = Generations::open(&given.advisories)?;
    let database = generations.current()?.context("no advisories")?;
    let pool = pool()?;
    let mut figures = vec![in_memory(&given, &database, &pool)?];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    figures.extend(runtime.block_on(stored(&given, &database, &pool))?);
    println!("{}", json!({ "figures": figures }));
    Ok(())
}

fn figure(name: String, unit: &str, value: f64, most: Option<f64>) -> Value {
    json!({"name": name, "unit": unit, "value": value, "most": most})
}

/// What the test images hold.
fn pool() -> Result<Vec<Package>> {
    let mut pool = Vec::new();
    for name in SOURCES {
        for package in rootfs::image(name)?.packages() {
            let ecosystem = match package.kind.as_str() {
                "rpm" => Ecosystem::Rpm,
                "pypi" => Ecosystem::Pypi,
                "golang" => Ecosystem::Golang,
                "cargo" => Ecosystem::Cargo,
                _ => continue,
            };
            pool.push(Package::new(ecosystem, &package.name, &package.version));
        }
    }
    ensure!(!pool.is_empty(), "the test images hold no packages");
    Ok(pool)
}

/// The inventory of that number: packages drawn from the pool, as many as a usual image has with
/// advisories on them, and for the rest ones that nobody knows.
fn inventory(number: usize, pool: &[Package], packages: usize) -> ImageInventory {
    let mut state = number as u64 + 1;
    let mut draw = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0)
    };
    let placed = |package: Package| PlacedPackage {
        package,
        path: "usr/lib/somewhere".to_owned(),
        by: "bench".to_owned(),
        layer: 0,
        owned: false,
    };
    let mut all: Vec<PlacedPackage> = Vec::with_capacity(packages);
    all.extend((0..packages / KNOWN).map(|_| placed(pool[draw() % pool.len()].clone())));
    while all.len() + 1 < packages {
        let name = format!("unknown-{}", draw() % 5000);
        all.push(placed(Package::new(Ecosystem::Pypi, &name, "1.0.0")));
    }
    let rare = format!("rare-{}", number % RARE);
    all.push(placed(Package::new(Ecosystem::Pypi, &rare, "1.0.0")));
    let distribution = Distribution {
        id: "almalinux".to_owned(),
        version_id: "9.5".to_owned(),
        name: "AlmaLinux".to_owned(),
        ..Distribution::default()
    };
    ImageInventory { packages: all, distribution: Some(distribution), ..ImageInventory::default() }
}

/// Matching alone, on one thread.
fn in_memory(given: &Arguments, database: &Database, pool: &[Package]) -> Result<Value> {
    let (mut seconds, mut findings) = (0.0, 0);
    for start in (0..given.images).step_by(CHUNK) {
        let end = given.images.min(start + CHUNK);
        let chunk: Vec<ImageInventory> =
            (start..end).map(|number| inventory(number, pool, given.packages)).collect();
        let before = thread_seconds()?;
        for inventory in &chunk {
            let matches = match_image(inventory, database, &MatchOptions::default(), 0);
            findings += matches.findings.len();
        }
        seconds += thread_seconds()? - before;
    }
    let name = format!(
        "re-match in memory, {} x {}, {} findings each",
        given.images,
        given.packages,
        findings / given.images.max(1)
    );
    let share = (given.images * given.packages) as f64 / (10_000.0 * 200.0);
    Ok(figure(name, "s", seconds, Some(MOST_SECONDS * share)))
}

/// Out of the catalogue and into it: all images, then those that an update concerns.
async fn stored(
    given: &Arguments,
    database: &Arc<Database>,
    pool: &[Package],
) -> Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let tasks = Tasks::default();
    let engine = engine(folder.path(), &tasks).await?;
    for number in 0..given.images {
        let image = Digest::sha256(&number.to_le_bytes());
        let identity = ImageIdentity {
            name: format!("bench/image:{number}"),
            digest: Some(image),
            ..ImageIdentity::default()
        };
        let inventory = inventory(number, pool, given.packages);
        engine.keep_inventory(&image, &identity, &inventory).await?;
    }
    let worker = engine.clone();
    let stop = tasks.shutdown();
    tasks.spawn("worker", async move {
        // It ends with the process.
        let _ended = worker.work("bench".to_owned(), stop).await;
    });
    let (before, started) = (process_seconds()?, Instant::now());
    let asked = engine.advisories_changed(database.clone()).await?;
    ensure!(asked == given.images, "{asked} of {} are matched again", given.images);
    idle(&engine).await?;
    let cost = process_seconds()? - before;
    let wall = started.elapsed().as_secs_f64();
    let next = updated(folder.path(), database)?;
    let started = Instant::now();
    let concerned = engine.advisories_changed(next).await?;
    idle(&engine).await?;
    let delta = started.elapsed().as_secs_f64() * 1000.0;
    let whole = format!("re-match of {asked} stored, reports and findings kept ({wall:.1} s)");
    let part = format!("update that concerns {concerned} of {} images", given.images);
    Ok(vec![figure(whole, "s", cost, None), figure(part, "ms", delta, Some(MOST_DELTA_MS))])
}

/// The next generation: one more advisory, on a package that few images hold.
fn updated(folder: &Path, previous: &Arc<Database>) -> Result<Arc<Database>> {
    let mut builder = Builder::new(folder, Some(previous.clone()))?;
    builder.carry(&|_| true)?;
    builder.source("osv:pypi", 1_700_000_000_000, "print");
    let fixed = Bound::Fixed("2.0.0".to_owned());
    builder.advisory(Advisory {
        source: "osv:pypi".to_owned(),
        id: "CVE-2090-0001".to_owned(),
        affected: vec![Affected {
            namespace: "pypi".to_owned(),
            ecosystem: Ecosystem::Pypi,
            package: "rare-0".to_owned(),
            by_source: false,
            status: Status::Fixed,
            ranges: vec![Range { introduced: None, until: fixed }],
            versions: Vec::new(),
            qualifiers: Qualifiers::default(),
            severities: Vec::new(),
            symbols: Vec::new(),
        }],
        ..Advisory::default()
    });
    let generation = previous.generation() + 1;
    let file = folder.join("next.kbdb");
    builder.finish(&file, generation, 1_700_000_000_000)?;
    Ok(Database::open(&file)?)
}

/// Waits until no job waits or runs.
async fn idle(engine: &Engine) -> Result<()> {
    while !engine.catalog().queue_depths().await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

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

async fn engine(folder: &Path, tasks: &Tasks) -> Result<Arc<Engine>> {
    let catalog = Catalog::open_file(&folder.join("catalog.db")).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let inspector = Inspector {
        indexers: Indexers::all(),
        settings: Arc::default(),
        inventories: Arc::new(NoInventories),
        tasks: tasks.clone(),
        parallel: 1,
    };
    let (passing, _heard) = Passing::new(inspector.clone(), tasks.clone());
    let parts = EngineParts {
        catalog,
        inspector,
        scanner: None,
        repositories: Arc::new(NoRepositories),
        exclusions: Exclusions::default(),
        receivers: vec!["somebody".to_owned()],
        clock,
        tasks: tasks.clone(),
        metrics: EngineMetrics::new(&prometheus::Registry::new())?,
    };
    Ok(Engine::new(parts, passing))
}

/// CPU seconds of this thread.
fn thread_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: u64 = text.split(' ').next().context("no figures")?.parse()?;
    Ok(nanoseconds as f64 / 1e9)
}

/// CPU seconds of this process, to a hundredth.
fn process_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(") ").context("unknown form of /proc/self/stat")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    let ticks: Vec<u64> = ticks.collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}
