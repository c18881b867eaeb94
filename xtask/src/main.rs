//! The project's chores as commands: `cargo xtask check`, `test`, `tools`, `cluster`, `codegen`,
//! `bench`, `fuzz`. Nothing here is shipped; nothing shipped depends on it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

mod cluster;
mod codegen;
mod fuzz;
mod image;
#[cfg(test)]
mod layers;
mod run;
mod stages;
mod tools;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::run::Command;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Formatting, lints, the layer table and generated references; no servers, no network.
    Check,
    /// Install what the tests need, then run all of them and print `N passed, N failed`.
    Test {
        /// Seconds given to each fuzz target.
        #[arg(long, default_value_t = 5)]
        fuzz_seconds: u64,
        /// Run only the stages whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Install the programs that the tests run beside the product, and nothing else.
    Tools {
        /// Also the scanners that the measurements compare with; they take long to build.
        #[arg(long)]
        bench: bool,
    },
    /// A real Kubernetes on loopback to work against: `cargo xtask cluster up`, `down`, `status`.
    Cluster(cluster::Arguments),
    /// Build the container image into target/image.
    Image(image::Arguments),
    /// Write the generated references under docs/, or with --check fail when they are stale.
    Codegen {
        /// Compare instead of writing.
        #[arg(long)]
        check: bool,
    },
    /// Run a side-by-side measurement: `cargo xtask bench registry`.
    Bench {
        /// The measurement's name and its own arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run every fuzz target for a bounded time.
    Fuzz {
        /// Seconds given to each target.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Run only the targets whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
}

fn main() -> ExitCode {
    match act(Arguments::parse().chore) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(chore: Chore) -> anyhow::Result<bool> {
    match chore {
        Chore::Check => stages::check(),
        Chore::Test { fuzz_seconds, only } => stages::test(fuzz_seconds, only.as_deref()),
        Chore::Tools { bench: false } => tools::install().map(|()| true),
        Chore::Tools { bench: true } => tools::install_peers().map(|()| true),
        Chore::Cluster(arguments) => cluster::run(&arguments).map(|()| true),
        Chore::Image(arguments) => image::run(&arguments).map(|()| true),
        Chore::Codegen { check } => codegen::run(check).map(|()| true),
        Chore::Bench { arguments } => bench(arguments).map(|()| true),
        Chore::Fuzz { seconds, only } => fuzz::run(seconds, only.as_deref()).map(|_| true),
    }
}

fn bench(arguments: Vec<OsString>) -> anyhow::Result<()> {
    match arguments.first().and_then(|subject| subject.to_str()) {
        Some("scan" | "accuracy") => tools::install_peers()?,
        _ => tools::install()?,
    }
    Command::cargo().args(["build", "--release", "-p", "kuboard"]).run()?;
    Command::cargo()
        .args(["run", "--release", "-p", "bench", "--"])
        .args(arguments)
        .envs(tools::environment()?)
        .env("KUBOARD_BIN", run::root().join("target/release/kuboard"))
        .run()
}
