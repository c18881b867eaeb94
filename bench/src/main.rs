//! Side-by-side measurements: `cargo xtask bench registry` runs ours and its yardsticks in turn on
//! this machine, prints a table with the targets, and keeps the figures under `bench/results`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

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
mod series;
mod tls;
mod wire;
mod yardstick;

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
}

fn main() -> ExitCode {
    let Subject::Registry { quick, rounds, only } = Arguments::parse().subject;
    match registry::run(&Plan::new(quick, rounds, only)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
