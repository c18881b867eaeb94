//! Side-by-side measurements: `cargo xtask bench registry` runs ours and its yardsticks in turn on
//! this machine, prints a table with the targets, and keeps the figures under `bench/results`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

mod accuracy;
mod admission;
mod blobs;
mod coalescing;
mod contender;
mod first_byte;
mod floors;
mod idle;
mod machine;
mod manifests;
mod memory;
mod p2p_sim;
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
    /// The scanner against Trivy, Grype, osv-scanner and Clair: what one scan costs; and the scan
    /// engine as a service.
    Scan {
        /// One image and fewer rounds.
        #[arg(long)]
        quick: bool,
        /// Rounds of each measurement, the scanners in turn.
        #[arg(long)]
        rounds: Option<usize>,
        /// Only images (or `second`, `passing`, `warm`, `rematch`) whose name contains this; may be
        /// given several times.
        #[arg(long)]
        only: Vec<String>,
    },
    /// The scanner against the ecosystems' own tools and its peers: who finds what.
    Accuracy {
        /// Only images whose name contains this; may be given several times.
        #[arg(long)]
        only: Vec<String>,
    },
    /// Reviews of pods: what they cost, and how much memory the facts of images take.
    Admission {
        /// A tenth of the images and reviews.
        #[arg(long)]
        quick: bool,
    },
    /// Verdicts on a million random worlds beside a second opinion in another language.
    VerdictOracle {
        /// A tenth of the worlds.
        #[arg(long)]
        quick: bool,
    },
    /// Block distribution between nodes, in the simulator.
    P2pSim {
        /// Sizes of the cluster; may be given several times.
        #[arg(long, default_values_t = [100, 1000, 5000])]
        nodes: Vec<usize>,
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
        Subject::Admission { quick } => admission::run(&Plan::new(quick, None, Vec::new())),
        Subject::VerdictOracle { quick } => admission::oracle(&Plan::new(quick, None, Vec::new())),
        Subject::P2pSim { nodes } => p2p_sim::run_all(&nodes),
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
