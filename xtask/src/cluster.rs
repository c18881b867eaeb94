//! `cargo xtask cluster up|down|status`: a real Kubernetes on loopback to work against by hand. The
//! cluster is the one of the tests; a program of `e2e` holds it.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};

use crate::run::{self, Command};
use crate::tools;

/// Arguments of `cargo xtask cluster`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    act: Act,
    /// Where the cluster keeps everything; clusters in different folders run side by side.
    #[arg(long, global = true, default_value = "target/cluster")]
    dir: PathBuf,
}

#[derive(Subcommand)]
enum Act {
    /// Start a cluster in the background, or find the one that runs, and print where it is.
    Up {
        /// How much of it.
        #[arg(long, value_enum, default_value = "node")]
        level: Level,
    },
    /// End it, and everything that runs in it.
    Down,
    /// Say whether it runs.
    Status,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    /// etcd and the API server.
    ApiServer,
    /// The controllers and the scheduler too.
    ControlPlane,
    /// A node too, which needs root.
    Node,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::ApiServer => "api-server",
            Level::ControlPlane => "control-plane",
            Level::Node => "node",
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = run::root().join(&arguments.dir);
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    if let Act::Up { .. } = arguments.act {
        tools::install_cluster()?;
    }
    let command = Command::cargo()
        .args(["run", "--quiet", "-p", "e2e", "--bin", "cluster", "--"])
        .envs(tools::environment()?);
    match arguments.act {
        Act::Up { level } => command.arg("up").arg(folder).arg(level.name()).run(),
        Act::Down => command.arg("down").arg(folder).run(),
        Act::Status => command.arg("status").arg(folder).run(),
    }
}
