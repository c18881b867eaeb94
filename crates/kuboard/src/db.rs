//! `kuboard db`: the advisories that scans use.

use std::{
    fs,
    io::{self, BufRead, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use kuboard_feeds::{
    database::{self, Database, Generations},
    fetch::{FeedOutcome, FeedState, Updater, UpdaterConfig},
};
use kuboard_oci::ImageReference;
use kuboard_rt::{Clock, SystemClock, Tasks};
use kuboard_scan::artifact;
use kuboard_vuln::{
    Advisories,
    version::{Scheme, compare_line},
};

use crate::{
    boot,
    cli::{ArtifactRegistry, DbArgs, DbOrder, Format},
    open::{Reach, reference_of, registry},
    output, scan,
};

/// A database is some hundred MiB.
const MAX_BYTES: u64 = 4 << 30;
/// Lines of `kuboard db compare` are two versions.
const MAX_LINE: u64 = 64 << 10;

/// `kuboard db`.
pub(crate) fn run(args: &DbArgs) -> anyhow::Result<ExitCode> {
    if let DbOrder::Compare { scheme } = &args.order {
        return compare(scheme.parse()?);
    }
    let folder = scan::folder_of(&args.place, args.db_dir.as_deref(), None)?;
    let generations = Generations::open(&folder)?;
    match &args.order {
        DbOrder::Update { .. } => update(args, &folder, generations),
        DbOrder::Status => status(args.output, &folder, &generations),
        DbOrder::Lookup { id } => lookup(args.output, &*current(&generations)?, id),
        DbOrder::Export { file } => {
            let database = current(&generations)?;
            let mut to = tempfile::NamedTempFile::new_in(parent(file))
                .with_context(|| file.display().to_string())?;
            database::export(&database, &mut to)?;
            to.as_file().sync_all()?;
            to.persist(file).with_context(|| file.display().to_string())?;
            let size = fs::metadata(file)?.len();
            output::note(&format!("{}: {}", file.display(), output::bytes(size)));
            Ok(ExitCode::SUCCESS)
        }
        DbOrder::Import { file, force } => {
            let from = fs::File::open(file).with_context(|| file.display().to_string())?;
            let database = generations.import(from, MAX_BYTES, *force)?;
            told(&database);
            Ok(ExitCode::SUCCESS)
        }
        DbOrder::Push { reference, registry, key } => {
            let database = current(&generations)?;
            let key = key.as_deref().map(fs::read).transpose().context("the key can't be read")?;
            let digest = boot::block_on(push(&database, reference, registry, key))?;
            output::line(&digest);
            Ok(ExitCode::SUCCESS)
        }
        DbOrder::Pull { reference, registry, key, force } => {
            let key = key.as_deref().map(fs::read).transpose().context("the key can't be read")?;
            let bundle = boot::block_on(pull(reference, registry, key, &folder))?;
            let database = generations.import(bundle, MAX_BYTES, *force)?;
            told(&database);
            Ok(ExitCode::SUCCESS)
        }
        DbOrder::Compare { .. } => Ok(ExitCode::SUCCESS),
    }
}

fn parent(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn current(generations: &Generations) -> anyhow::Result<Arc<Database>> {
    generations.current()?.with_context(|| {
        format!(
            "no advisories in {}; hint: `kuboard db update` fetches them",
            generations.folder().display()
        )
    })
}

fn told(database: &Database) {
    output::note(&format!(
        "generation {} with {} advisories is in use",
        database.generation(),
        database.len()
    ));
}

fn update(args: &DbArgs, folder: &Path, generations: Generations) -> anyhow::Result<ExitCode> {
    let DbOrder::Update { feeds, mirror, full, ca_file } = &args.order else {
        return Ok(ExitCode::SUCCESS);
    };
    let settings = boot::config(&args.place)?.advisories;
    let ca_file = ca_file.as_ref().or(settings.ca_file.as_ref());
    let authority = ca_file.map(fs::read).transpose().context("the certificate can't be read")?;
    let config = UpdaterConfig {
        folder: folder.to_owned(),
        feeds: if feeds.is_empty() { settings.feeds } else { feeds.clone() },
        mirror: mirror.clone().or(settings.mirror),
        authority,
    };
    let tasks = Tasks::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let updater = Updater::new(config, Arc::new(generations), clock, tasks)?;
    let spinner = output::spinner("asking the feeds");
    let report = boot::block_on(updater.update(*full))?;
    spinner.finish_and_clear();
    let failed =
        report.feeds.values().filter(|one| matches!(one, FeedOutcome::Failed { .. })).count();
    match args.output {
        Format::Json => output::json(&report)?,
        Format::Table => {
            let rows: Vec<Vec<String>> = report
                .feeds
                .iter()
                .map(|(name, outcome)| {
                    let said = match outcome {
                        FeedOutcome::Unchanged => "unchanged".to_owned(),
                        FeedOutcome::Updated { read, skipped, incremental } => {
                            let how = if *incremental { "changes" } else { "all" };
                            format!("{read} read ({how}), {skipped} skipped")
                        }
                        FeedOutcome::Failed { why } => format!("FAILED: {why}"),
                    };
                    vec![name.clone(), said]
                })
                .collect();
            output::table(&["FEED", "OUTCOME"], &rows);
            match report.generation {
                Some(generation) => output::note(&format!("generation {generation} is in use")),
                None => output::note("the database stays as it is"),
            }
        }
    }
    if failed > 0 {
        bail!("{failed} feeds failed; what they last said stays in use");
    }
    Ok(ExitCode::SUCCESS)
}

fn status(format: Format, folder: &Path, generations: &Generations) -> anyhow::Result<ExitCode> {
    let database = generations.current()?;
    let states = Updater::states(folder);
    if format == Format::Json {
        let database = database.as_ref().map(|database| {
            serde_json::json!({
                "generation": database.generation(),
                "builtMs": database.stamp().built_ms,
                "checksum": database.stamp().checksum,
                "advisories": database.len(),
                "packages": database.packages(),
                "cves": database.cve_count(),
                "bytes": database.file_len(),
                "namespaces": database.namespaces().collect::<Vec<_>>(),
                "sources": database.sources(),
            })
        });
        output::json(&serde_json::json!({
            "folder": folder, "database": database, "feeds": states,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    match &database {
        None => output::line("no database; hint: `kuboard db update` fetches the advisories"),
        Some(database) => {
            output::line(&format!(
                "generation {}, built {}, {} advisories for {} packages, {}",
                database.generation(),
                time(database.stamp().built_ms),
                database.len(),
                database.packages(),
                output::bytes(database.file_len()),
            ));
            let namespaces: Vec<&str> = database.namespaces().collect();
            output::line(&format!("covers {}", namespaces.join(", ")));
        }
    }
    let sources = database.as_ref().map(|database| database.sources()).unwrap_or_default();
    let rows: Vec<Vec<String>> = kuboard_feeds::fetch::FEEDS
        .iter()
        .map(|feed| {
            let state = states.get(feed.name).cloned().unwrap_or_default();
            let held: u64 = sources
                .iter()
                .filter(|source| feed.sources.contains(&source.name.as_str()))
                .map(|source| source.advisories)
                .sum();
            vec![feed.name.to_owned(), feed.covers.to_owned(), held.to_string(), health(&state)]
        })
        .collect();
    output::table(&["FEED", "COVERS", "ADVISORIES", "STATE"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn health(state: &FeedState) -> String {
    if state.asked_ms == 0 {
        return "never asked".to_owned();
    }
    if state.error.is_empty() {
        return format!("good at {}", time(state.good_ms));
    }
    format!("good at {}, since then: {}", time(state.good_ms), state.error)
}

fn time(ms: i64) -> String {
    if ms == 0 {
        return "never".to_owned();
    }
    let Ok(time) = jiff::Timestamp::from_millisecond(ms) else { return "never".to_owned() };
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn lookup(format: Format, database: &Database, id: &str) -> anyhow::Result<ExitCode> {
    let found = database.find(id);
    if found.is_empty() {
        bail!("no advisory on {id} in generation {}", database.generation());
    }
    if format == Format::Json {
        output::json(&serde_json::json!({
            "advisories": found,
            "scores": database.scores(id),
            "epss": database.epss(id),
            "knownExploited": database.known_exploited(id),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for advisory in &found {
        for affected in &advisory.affected {
            let fixed: Vec<&str> = affected
                .ranges
                .iter()
                .filter_map(|range| match &range.until {
                    kuboard_vuln::Bound::Fixed(version) => Some(version.as_str()),
                    _ => None,
                })
                .collect();
            rows.push(vec![
                advisory.source.clone(),
                advisory.id.clone(),
                affected.namespace.clone(),
                affected.package.clone(),
                format!("{:?}", affected.status),
                fixed.join(", "),
            ]);
        }
    }
    if let Some(text) = found.iter().map(|one| &one.summary).find(|text| !text.is_empty()) {
        output::line(&text.chars().filter(|c| !c.is_control()).collect::<String>());
    }
    for score in database.scores(id) {
        output::line(&format!("{}: {}", score.source, score.value));
    }
    if let Some(epss) = database.epss(id) {
        let percent = f64::from(epss.probability) / 1000.0;
        output::line(&format!("EPSS: {percent:.2} % in 30 days"));
    }
    if let Some(day) = database.known_exploited(id) {
        output::line(&format!("known to be exploited (CISA, {day})"));
    }
    output::table(&["SOURCE", "ADVISORY", "NAMESPACE", "PACKAGE", "STATUS", "FIXED IN"], &rows);
    Ok(ExitCode::SUCCESS)
}

async fn push(
    database: &Database,
    reference: &str,
    reach: &ArtifactRegistry,
    key: Option<Vec<u8>>,
) -> anyhow::Result<String> {
    let image: ImageReference = reference.parse()?;
    let upstream = registry(&image.registry, reach_of(reach)).await?;
    let mut bundle = Vec::new();
    database::export(database, &mut bundle)?;
    let target = artifact::Place { upstream, repository: image.repository.clone() };
    let tag = reference_of(&image)?;
    let stamp = database.stamp();
    let digest = artifact::push(&target, &tag, bundle.into(), &stamp, key.as_deref()).await?;
    Ok(digest.to_string())
}

async fn pull(
    reference: &str,
    reach: &ArtifactRegistry,
    key: Option<Vec<u8>>,
    folder: &Path,
) -> anyhow::Result<fs::File> {
    let image: ImageReference = reference.parse()?;
    let upstream = registry(&image.registry, reach_of(reach)).await?;
    let source = artifact::Place { upstream, repository: image.repository.clone() };
    artifact::pull(&source, &reference_of(&image)?, key.as_deref(), folder).await
}

fn reach_of(registry: &ArtifactRegistry) -> Reach<'_> {
    Reach {
        plain_http: registry.plain_http,
        insecure_skip_verify: false,
        ca_file: registry.registry_ca.as_deref(),
        docker_config: registry.docker_config.as_deref(),
    }
}

/// Reads `a<TAB>b` lines, answers each at once.
fn compare(scheme: Scheme) -> anyhow::Result<ExitCode> {
    let mut input = io::stdin().lock();
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut input, MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let answer = match std::str::from_utf8(&line) {
            Ok(text) => compare_line(scheme, text.trim_end_matches(['\n', '\r'])),
            Err(_) => "error",
        };
        writeln!(output, "{answer}")?;
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}
