//! Side-by-side measurements: `cargo xtask bench registry` runs ours and its yardsticks in turn on
//! this machine, prints a table with the targets, and keeps the figures under `bench/results`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

mod accuracy;
mod blobs;
mod coalescing;
mod contender;
mod first_byte;
mod floors;
mod idle;
mod machine;
mod manifests;
mod memory;
mod payload;
mod plan;
mod process;
mod pushes;
mod registry;
mod relay;
mod report;
mod rounds;
mod scan;
mod series;
mod tls;
mod wire;
mod yardstick;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::plan::Plan;

#[derive(Parser)]
#[command(name = "bench", about = "Side-by-side measurements of Kuboard and its peers")]
struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(clap::Subcommand)]
enum Subject {
    /// The registry against distribution 3.1.1, and zot 2.1 where it is installed.
    Registry {
        /// A tenth of the bytes and fewer rounds: shows that everything runs, figures are rough.
        #[arg(long)]
        quick: bool,
        /// Rounds of each measurement, the contenders in turn.
        #[arg(long)]
        rounds: Option<usize>,
        /// Only measures whose name contains this; may be given several times.
        #[arg(long)]
        only: Vec<String>,
    },
    /// The scanner against Trivy, Grype and osv-scanner: what one scan costs.
    Scan {
        /// One image and fewer rounds.
        #[arg(long)]
        quick: bool,
        /// Rounds of each measurement, the scanners in turn.
        #[arg(long)]
        rounds: Option<usize>,
        /// Only images (or `second`) whose name contains this; may be given several times.
        #[arg(long)]
        only: Vec<String>,
    },
    /// The scanner against the ecosystems' own tools and its peers: who finds what.
    Accuracy {
        /// Only images whose name contains this; may be given several times.
        #[arg(long)]
        only: Vec<String>,
    },
    /// Runs a program and writes what it cost to a file; the other commands use it.
    #[command(hide = true)]
    Meter {
        file: PathBuf,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        line: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().subject {
        Subject::Registry { quick, rounds, only } => registry::run(&Plan::new(quick, rounds, only)),
        Subject::Scan { quick, rounds, only } => scan::run(&Plan::new(quick, rounds, only)),
        Subject::Accuracy { only } => accuracy::run(&Plan::new(false, Some(1), only)),
        Subject::Meter { file, line } => scan::meter(&file, &line),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
