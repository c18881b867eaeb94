//! `kuboard scan` and `kuboard sbom`: one look at one image. Exit codes: 0 all is well, 3 the
//! threshold is reached, 1 the scan failed or could not read all that the threshold asks about.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use kuboard_feeds::database::Generations;
use kuboard_rt::{Clock, SystemClock};
use kuboard_scan::{
    assemble::assemble,
    report::{self, Format, Language, WriteOptions},
};
use kuboard_vuln::{
    Advisories, Outcome, Report, Severity,
    matching::MatchOptions,
    policy::{Policy, Rule, RuleText, Verdict, verdict},
    vex,
};
use serde::Deserialize;

use crate::{
    boot,
    cli::{Place, SbomArgs, ScanArgs},
    open, output,
};

/// Rules and VEX documents are written by people.
const MAX_DOCUMENT: u64 = 64 << 20;
/// After so many days without an update, reports say so on the terminal.
const OLD_DAYS: i64 = 7;

/// `kuboard scan`.
pub(crate) fn run(args: &ScanArgs) -> anyhow::Result<ExitCode> {
    let format: Format = args.format.parse()?;
    let language = match args.lang.as_str() {
        "en" => Language::En,
        "zh" => Language::Zh,
        other => bail!("no page in the language {other:?}; hint: en or zh"),
    };
    let threshold = args.severity_threshold.as_deref().map(severity).transpose()?;
    let rules = args.ignore_file.as_deref().map(rules).transpose()?.unwrap_or_default();
    let vex = args.vex.iter().map(|path| vex_document(path)).collect::<Result<Vec<_>, _>>()?;
    let folder = database_folder(&args.place, args.db_dir.as_deref(), &args.subject)?;
    let database = Generations::open(&folder)?.current()?;
    let Some(database) = database else {
        bail!(
            "no advisories in {}; hint: `kuboard db update` fetches them, `kuboard db import FILE` \
             takes them from a file",
            folder.display()
        );
    };
    let (identity, inventory) = boot::block_on(open::inspect(&args.subject))?;
    let now_ms = SystemClock.now_ms();
    let days = (now_ms - database.stamp().built_ms) / 86_400_000;
    if days >= OLD_DAYS && !args.subject.quiet {
        output::note(&format!(
            "note: the advisories are {days} days old; hint: `kuboard db update` fetches new ones"
        ));
    }
    let image = identity.clone();
    let options = MatchOptions {
        image: Some(&image),
        vex: &vex,
        rules: &rules,
        ignore_unfixed: args.ignore_unfixed,
        namespace: None,
    };
    let report = assemble(identity, inventory, Some(&*database), &options, now_ms);
    write(&report, format, language, args.subject.output.as_deref())?;
    conclude(&report, threshold, args.ignore_unfixed, now_ms)
}

/// The exit code, and on the terminal why it is not 0.
fn conclude(
    report: &Report,
    threshold: Option<Severity>,
    ignore_unfixed: bool,
    now_ms: i64,
) -> anyhow::Result<ExitCode> {
    if let Outcome::Unsupported { reason } = &report.outcome {
        bail!("nothing can be said of {}: {reason}", report.image.name);
    }
    let Some(threshold) = threshold else { return Ok(ExitCode::SUCCESS) };
    let policy = Policy { threshold: Some(threshold), ignore_unfixed, ..Policy::default() };
    match verdict(report, &policy, now_ms) {
        Verdict::Pass => Ok(ExitCode::SUCCESS),
        Verdict::Reached { findings } => {
            output::note(&format!(
                "{} findings reach the threshold {}",
                findings.len(),
                format!("{threshold:?}").to_uppercase()
            ));
            Ok(ExitCode::from(3))
        }
        Verdict::NotKnown { why } => bail!("no finding reaches the threshold, but {why}"),
    }
}

/// `kuboard sbom`.
pub(crate) fn sbom(args: &SbomArgs) -> anyhow::Result<ExitCode> {
    let format = match args.format.as_str() {
        "cyclonedx" => Format::CycloneDx,
        "spdx" => Format::Spdx,
        "json" => Format::Json,
        other => bail!("no bill of materials is called {other:?}; hint: cyclonedx, spdx or json"),
    };
    let (identity, inventory) = boot::block_on(open::inspect(&args.subject))?;
    let problems = inventory.problems.clone();
    let options = MatchOptions::default();
    let mut report = assemble(identity, inventory, None, &options, SystemClock.now_ms());
    report.outcome = match problems.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial { problems },
    };
    if let Outcome::Partial { problems } = &report.outcome {
        output::note(&format!("note: partly read, {} problems", problems.len()));
        for problem in problems.iter().take(10) {
            output::note(&format!("  {} ({}): {}", problem.path, problem.by, problem.why));
        }
    }
    write(&report, format, Language::En, args.subject.output.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

fn write(
    report: &Report,
    format: Format,
    language: Language,
    to: Option<&Path>,
) -> anyhow::Result<()> {
    let terminal = to.is_none() && io::stdout().is_terminal();
    let options = WriteOptions {
        width: terminal.then(output::terminal_width).flatten(),
        color: terminal && std::env::var_os("NO_COLOR").is_none(),
        now_ms: SystemClock.now_ms(),
        tool_version: env!("CARGO_PKG_VERSION"),
        lang: language,
    };
    match to {
        None => match report::write(report, format, &options, &mut io::stdout().lock()) {
            // A reader that went away (`| head`) is no failure of the command.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        },
        Some(path) => {
            let file = fs::File::create(path).with_context(|| path.display().to_string())?;
            let mut file = io::BufWriter::new(file);
            report::write(report, format, &options, &mut file)?;
            file.flush().with_context(|| path.display().to_string())
        }
    }
}

/// The folder of the advisories: as said, else that of a server's data here, else the cache's.
pub(crate) fn database_folder(
    place: &Place,
    chosen: Option<&Path>,
    subject: &crate::cli::Subject,
) -> anyhow::Result<PathBuf> {
    folder_of(place, chosen, subject.cache_dir.as_deref())
}

/// See [`database_folder`].
pub(crate) fn folder_of(
    place: &Place,
    chosen: Option<&Path>,
    cache_dir: Option<&Path>,
) -> anyhow::Result<PathBuf> {
    if let Some(chosen) = chosen {
        return Ok(chosen.to_owned());
    }
    let config = boot::config(place)?;
    if let Some(dir) = &config.advisories.dir {
        return Ok(dir.clone());
    }
    let served = config.data_dir.join("advisories");
    if place.data_dir.is_some() || place.config.is_some() || served.exists() {
        return Ok(served);
    }
    Ok(open::cache_dir(cache_dir)?.join("advisories"))
}

pub(crate) fn severity(text: &str) -> anyhow::Result<Severity> {
    Ok(match text.to_ascii_uppercase().as_str() {
        "UNKNOWN" => Severity::Unknown,
        "NEGLIGIBLE" => Severity::Negligible,
        "LOW" => Severity::Low,
        "MEDIUM" => Severity::Medium,
        "HIGH" => Severity::High,
        "CRITICAL" => Severity::Critical,
        _ => bail!("{text:?} is no severity; hint: LOW, MEDIUM, HIGH or CRITICAL"),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    ignore: Vec<RuleText>,
}

fn rules(path: &Path) -> anyhow::Result<Vec<Rule>> {
    let text = String::from_utf8(read(path)?).with_context(|| path.display().to_string())?;
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    let file: RuleFile = if is_toml {
        toml::from_str(&text).with_context(|| path.display().to_string())?
    } else {
        serde_yaml_ng::from_str(&text).with_context(|| path.display().to_string())?
    };
    file.ignore
        .into_iter()
        .map(|rule| Rule::try_from(rule).with_context(|| path.display().to_string()))
        .collect()
}

fn vex_document(path: &Path) -> anyhow::Result<vex::Document> {
    vex::parse(&read(path)?).with_context(|| path.display().to_string())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let size = fs::metadata(path).with_context(|| path.display().to_string())?.len();
    anyhow::ensure!(size <= MAX_DOCUMENT, "{} has {size} bytes", path.display());
    fs::read(path).with_context(|| path.display().to_string())
}
