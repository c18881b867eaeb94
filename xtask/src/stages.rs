//! `cargo xtask check` and `cargo xtask test`: named stages, each timed, all counted into one
//! last line.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use crate::run::{self, Command};
use crate::{codegen, fuzz, tools};

/// Tests that ran, by outcome.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// What is right or wrong without running the product: seconds when nothing changed.
pub(crate) fn check() -> Result<bool> {
    let mut report = Report::default();
    report.stage("format", || chore(Command::cargo().args(["fmt", "--all", "--", "--check"])));
    report.stage("clippy", || {
        chore(
            Command::cargo()
                .args(["clippy", "--quiet", "--workspace", "--all-targets"])
                .args(["--", "-D", "warnings"]),
        )
    });
    report.stage("layers", || cargo_test(Command::cargo().args(["test", "-q", "-p", "xtask"])));
    report.stage("references", || codegen::run(true).map(|()| Counts { passed: 1, failed: 0 }));
    Ok(report.finish())
}

/// Everything, on a machine that has only Rust. The tools come first; a later stage's failure
/// does not keep the next from running.
pub(crate) fn test(fuzz_seconds: u64, only: Option<&str>) -> Result<bool> {
    let started = Instant::now();
    tools::install()?;
    let mut report = Report::default();
    report.took("tools", started.elapsed(), Counts::default());
    let environment = tools::environment()?;
    let figures = run::root().join("target/figures.jsonl");
    remove(&figures)?;
    report.only = only.map(str::to_owned);
    report.stage("workspace tests", || {
        cargo_test(
            Command::cargo()
                .args(["test", "--workspace", "--exclude", "e2e", "--no-fail-fast"])
                .envs(environment.iter().cloned()),
        )
    });
    report.stage("references", || codegen::run(true).map(|()| Counts { passed: 1, failed: 0 }));
    report.stage("fuzz", || fuzz::run(fuzz_seconds, None));
    report.stage("end to end: build", || {
        Command::cargo().args(["build", "--profile", "e2e", "-p", "kuboard"]).run()?;
        Ok(Counts::default())
    });
    let end_to_end = |target: &[&str]| {
        let mut counts = cargo_test(
            Command::cargo()
                .args(["test", "-p", "e2e", "--no-fail-fast"])
                .args(target)
                // Two at a time: each starts servers of its own, and some count seconds of CPU.
                .args(["--", "--test-threads", "2"])
                .envs(environment.iter().cloned())
                .env("KUBOARD_BIN", run::root().join("target/e2e/kuboard"))
                .env("KUBOARD_FIGURES", &figures),
        )?;
        counts += suites(&fs::read_to_string(&figures).unwrap_or_default());
        Ok(counts)
    };
    report.stage("end to end: run", || end_to_end(&[]));
    print_figures(&fs::read_to_string(&figures).unwrap_or_default());
    println!("  crates in the tree of kuboard: {}", crates()?);
    Ok(report.finish())
}

/// How many crates, ours among them, are compiled into the binary.
fn crates() -> Result<usize> {
    let tree = Command::cargo()
        .args(["tree", "-p", "kuboard", "-e", "normal", "--prefix", "none", "--no-dedupe"])
        .args(["--format", "{p}"])
        .read()?;
    Ok(tree.lines().map(str::trim).collect::<BTreeSet<_>>().len())
}

fn remove(file: &PathBuf) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// A command that is one check: passed when it succeeds.
fn chore(command: Command) -> Result<Counts> {
    command.run().map(|()| Counts { passed: 1, failed: 0 })
}

/// Runs `cargo test` and sums its result lines; a failure that no line tells (it did not compile)
/// counts as one.
fn cargo_test(command: Command) -> Result<Counts> {
    let mut counts = Counts::default();
    let success = command.watch(|line| counts += test_result(line).unwrap_or_default())?;
    if !success && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

/// Reads `test result: ok. 7 passed; 0 failed; 1 ignored; …`. An ignored test is a failed one:
/// nothing here is allowed not to run.
fn test_result(line: &str) -> Option<Counts> {
    let (_, tail) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in tail.split(';') {
        let Some((number, what)) = part.trim().split_once(' ') else { continue };
        match what {
            "passed" => counts.passed += number.parse::<u64>().ok()?,
            "failed" | "ignored" => counts.failed += number.parse::<u64>().ok()?,
            _ => {}
        }
    }
    Some(counts)
}

/// The cases of suites that are not Rust tests, as the end-to-end tests noted them: lines
/// `{"suite": NAME, "passed": N, "failed": N}` among the figures.
fn suites(figures: &str) -> Counts {
    let mut counts = Counts::default();
    for line in figures.lines() {
        let Ok(Value::Object(figure)) = serde_json::from_str(line) else { continue };
        if figure.contains_key("suite") {
            let number = |name: &str| figure.get(name).and_then(Value::as_u64).unwrap_or(0);
            counts += Counts { passed: number("passed"), failed: number("failed") };
        }
    }
    counts
}

fn print_figures(figures: &str) {
    if figures.is_empty() {
        return;
    }
    println!("\nfigures");
    for line in figures.lines() {
        match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(figure)) => {
                let text: Vec<String> = figure
                    .iter()
                    .map(|(name, value)| match value {
                        Value::String(text) => format!("{name}={text}"),
                        other => format!("{name}={other}"),
                    })
                    .collect();
                println!("  {}", text.join("  "));
            }
            _ => println!("  {line}"),
        }
    }
}

/// The stages that ran, with their durations.
#[derive(Default)]
struct Report {
    only: Option<String>,
    stages: Vec<(String, Duration, Counts)>,
}

impl Report {
    fn stage(&mut self, name: &str, act: impl FnOnce() -> Result<Counts>) {
        if self.only.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
            return;
        }
        println!("\n== {name}");
        let started = Instant::now();
        let counts = act().unwrap_or_else(|error| {
            eprintln!("xtask: {name}: {error:#}");
            Counts { passed: 0, failed: 1 }
        });
        self.took(name, started.elapsed(), counts);
    }

    fn took(&mut self, name: &str, time: Duration, counts: Counts) {
        self.stages.push((name.to_owned(), time, counts));
    }

    /// Prints the table and the last line; true when nothing failed.
    fn finish(self) -> bool {
        let mut total = Counts::default();
        println!();
        for (name, time, counts) in &self.stages {
            println!(
                "{name:<18} {:>7.1} s  {:>6} passed  {:>4} failed",
                time.as_secs_f64(),
                counts.passed,
                counts.failed
            );
            total += *counts;
        }
        println!("{} passed, {} failed", total.passed, total.failed);
        total.failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, suites, test_result};

    #[test]
    fn result_lines_are_summed_and_other_lines_are_not() {
        let check = |line: &str, expected: Option<(u64, u64)>| {
            let expected = expected.map(|(passed, failed)| Counts { passed, failed });
            assert_eq!(test_result(line), expected, "{line}");
        };
        check(
            "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s\n",
            Some((7, 0)),
        );
        check("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured", Some((3, 2)));
        check("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured", Some((3, 1)));
        check("test tests::prints ... ok", None);
        check("running 3 tests", None);
    }

    #[test]
    fn suites_count_and_figures_do_not() {
        let lines = "{\"suite\":\"a\",\"passed\":5,\"failed\":1}\n{\"figure\":\"b\",\"value\":9}\nrubbish\n";
        assert_eq!(suites(lines), Counts { passed: 5, failed: 1 });
    }
}
