//! Runs the targets of `fuzz/` for a bounded time. How they are built with the stable toolchain is
//! said in `fuzz/.cargo/config.toml`.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{self, Command};
use crate::stages::Counts;

/// Bytes of the largest generated input; the parsers' own limits are tested by table tests.
const MAX_INPUT: u32 = 16 * 1024;

/// Builds and runs the targets; a target that crashes counts as failed and leaves its input in
/// `fuzz/artifacts/`.
pub(crate) fn run(seconds: u64, only: Option<&str>) -> Result<Counts> {
    let folder = run::root().join("fuzz");
    let names: Vec<String> =
        targets()?.into_iter().filter(|name| only.is_none_or(|part| name.contains(part))).collect();
    if names.is_empty() {
        bail!("no fuzz target of that name in fuzz/Cargo.toml");
    }
    // A variable RUSTFLAGS would replace the folder's own flags, the coverage counters.
    Command::cargo()
        .args(["build", "--release", "--bins"])
        .without_env("RUSTFLAGS")
        .directory(&folder)
        .run()?;
    let programs = run::root().join("target/fuzz").join(host()?).join("release");
    let mut counts = Counts::default();
    for name in names {
        let corpus = folder.join("corpus").join(&name);
        let artifacts = folder.join("artifacts").join(&name);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&artifacts)?;
        println!("fuzzing {name} for {seconds} s");
        let mut fuzzing = Command::new(programs.join(&name))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={MAX_INPUT}"))
            .args(["-timeout=10", "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(&corpus);
        let dictionary = folder.join("dictionaries").join(format!("{name}.dict"));
        if dictionary.is_file() {
            fuzzing = fuzzing.arg(format!("-dict={}", dictionary.display()));
        }
        let seeds = folder.join("seeds").join(&name);
        if seeds.is_dir() {
            fuzzing = fuzzing.arg(seeds);
        }
        let (success, report) = fuzzing.capture()?;
        if success {
            let runs = report.lines().find(|it| it.contains("number_of_executed_units"));
            println!("  {}", runs.unwrap_or_default());
            counts.passed += 1;
        } else {
            eprintln!("{report}");
            counts.failed += 1;
        }
    }
    Ok(counts)
}

fn targets() -> Result<Vec<String>> {
    let text = Command::cargo()
        .args(["metadata", "--format-version=1", "--no-deps"])
        .args(["--manifest-path", "fuzz/Cargo.toml"])
        .read()?;
    let metadata: Value = serde_json::from_str(&text)?;
    let list = metadata["packages"][0]["targets"].as_array().context("fuzz/ has no targets")?;
    Ok(list
        .iter()
        .filter(|target| target["kind"][0] == "bin")
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect())
}

fn host() -> Result<String> {
    let text = Command::new("rustc").arg("-vV").read()?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}
