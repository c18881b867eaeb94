//! The command line as typed. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the command worked
//! and found what it looks for (`fsck`: a store that is not whole).

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use kuboard_api::Anonymous;

/// Fast, safe and visible image delivery for Kubernetes.
#[derive(Parser)]
#[command(name = "kuboard", version, about, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start everything in one process; needs no configuration
    Up(UpArgs),
    /// Start chosen roles, as a cluster does
    Serve(ServeArgs),
    /// Look into the cache and tend it
    Cache(CacheArgs),
    /// Access keys for robots, scoped to repositories and actions
    Keys(KeysArgs),
    /// Prove the stored content whole (exit code 3 if it is not)
    Fsck(FsckArgs),
    /// Check a configuration file, or show what it comes to
    Config(ConfigArgs),
    /// Print shell completions
    Completions(CompletionsArgs),
    /// Print reference pages
    #[command(hide = true)]
    Docs(DocsArgs),
}

/// Where the settings come from.
#[derive(Args, Clone, Default)]
pub(crate) struct Place {
    /// Configuration file (default: kuboard.toml in this folder if there is one)
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Folder of all data [default: kuboard-data]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Address to listen on [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// What callers without credentials may do: none, pull or push
    #[arg(long, value_name = "WHAT")]
    pub(crate) anonymous: Option<Anonymous>,
}

/// A part of Kuboard that can run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The front: takes requests and passes each to the cache that keeps its repository
    RegistryProxy,
    /// The registry itself: cache, hosted repositories, storage
    RegistryCache,
}

#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) up: UpArgs,
    /// Roles to run
    #[arg(long = "role", value_delimiter = ',', required = true, value_name = "ROLE")]
    pub(crate) roles: Vec<Role>,
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For machines
    Json,
}

#[derive(Args)]
pub(crate) struct CacheArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Output format
    #[arg(long, short, value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) order: CacheOrder,
}

#[derive(Subcommand)]
pub(crate) enum CacheOrder {
    /// List cached images, or blobs
    Ls {
        /// List blobs, largest first, instead of images
        #[arg(long)]
        blobs: bool,
    },
    /// Drop an image, a repository or a digest from the cache
    Rm {
        /// REPOSITORY, REPOSITORY:TAG or a digest
        target: String,
    },
    /// Show how full the cache is
    Stats,
    /// Keep an image whatever else must go
    Pin {
        /// REPOSITORY:TAG or a digest
        target: String,
    },
    /// Take a pin back
    Unpin {
        /// The name it was pinned by, or a digest
        target: String,
    },
}

#[derive(Args)]
pub(crate) struct KeysArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Output format
    #[arg(long, short, value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) order: KeysOrder,
}

#[derive(Subcommand)]
pub(crate) enum KeysOrder {
    /// Make a key; its secret is shown once
    Create {
        /// Whose key it is, for the list and the log
        owner: String,
        /// REPOSITORY-GLOB=ACTIONS, such as `team/**=pull,push`; may be given several times
        #[arg(long = "scope", required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Days until it expires; without it, never
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
    },
    /// List keys
    Ls,
    /// Remove a key
    Rm {
        /// The key's id
        id: String,
    },
}

#[derive(Args)]
pub(crate) struct FsckArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) order: ConfigOrder,
}

#[derive(Subcommand)]
pub(crate) enum ConfigOrder {
    /// Check a file and say what is wrong with it
    Check {
        /// The file to check [default: kuboard.toml]
        file: Option<PathBuf>,
        /// Output format
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
}

#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to complete for
    pub(crate) shell: clap_complete::Shell,
}

/// A generated page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Page {
    Configuration,
    Cli,
    Metrics,
}

#[derive(Args)]
pub(crate) struct DocsArgs {
    pub(crate) page: Page,
}
