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
    /// Find known vulnerabilities in an image, archive, folder or bill of materials
    Scan(ScanArgs),
    /// Write the bill of materials of an image
    Sbom(SbomArgs),
    /// Fetch, look up and pass on the advisories that scans use
    Db(DbArgs),
    /// Events for webhooks: what waits, what was given up, and how to send it again
    Events(crate::events::EventsArgs),
    /// The scan queue: what waits, runs and failed
    Jobs(crate::events::JobsArgs),
    /// Check the policies of a folder
    Policies(crate::events::PoliciesArgs),
    /// The webhook that judges pods: whether it is armed, and what it decided
    Admission(crate::webhook::AdmissionArgs),
    /// Print the custom resource definitions, for kubectl apply --server-side -f -
    Crds,
    /// Look into the cache and tend it
    Cache(CacheArgs),
    /// Access keys for robots, scoped to repositories and actions
    Keys(KeysArgs),
    /// Prove the stored content whole (exit code 3 if it is not)
    Fsck(FsckArgs),
    /// Find out why pulls fail, scans wait or pods are refused
    Doctor(crate::doctor::DoctorArgs),
    /// Give kubelet the pod's own token for pulls; kubelet runs this
    CredentialProvider(crate::credential_provider::CredentialProviderArgs),
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
    /// Folder with policies as YAML files, for use without Kubernetes
    #[arg(long, value_name = "DIR")]
    pub(crate) policies: Option<PathBuf>,
}

/// What is looked at, and how it is reached.
#[derive(Args, Clone)]
pub(crate) struct Subject {
    /// Image name, archive, OCI layout, folder or SBOM; to be exact: docker-archive:FILE[:NAME],
    /// oci-archive:FILE[:TAG], oci:DIR[:TAG], dir:DIR, sbom:FILE, containerd:[STORE@]DIGEST
    pub(crate) target: String,
    /// Which platform of a multi-platform image [default: linux and this machine's processor]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// Ask the registry by HTTP; localhost and loopback addresses always are
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// Take any certificate of the registry
    #[arg(long)]
    pub(crate) insecure_skip_verify: bool,
    /// PEM file with the authority of the registry's certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// docker config.json with the registry's credentials [default: ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) docker_config: Option<PathBuf>,
    /// Where inventories of layers are kept between runs [default: ~/.cache/kuboard]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Read every layer, and keep nothing
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Show no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Write to a file instead of the standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) subject: Subject,
    /// table, json, sarif, cyclonedx, spdx, clair, harbor, junit or html
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub(crate) format: String,
    /// Exit with code 3 if a finding is at least that severe: LOW, MEDIUM, HIGH or CRITICAL
    #[arg(long, value_name = "SEVERITY")]
    pub(crate) severity_threshold: Option<String>,
    /// Leave out what no known version fixes
    #[arg(long)]
    pub(crate) ignore_unfixed: bool,
    /// File with ignore rules (TOML or YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) ignore_file: Option<PathBuf>,
    /// VEX document (OpenVEX or CSAF, JSON); may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) vex: Vec<PathBuf>,
    /// Folder of the advisory database [default: advisories in the data folder, else in the cache]
    #[arg(long, value_name = "DIR")]
    pub(crate) db_dir: Option<PathBuf>,
    /// Language of the HTML page: en or zh
    #[arg(long, default_value = "en", value_name = "LANGUAGE")]
    pub(crate) lang: String,
}

#[derive(Args)]
pub(crate) struct SbomArgs {
    #[command(flatten)]
    pub(crate) subject: Subject,
    /// cyclonedx, spdx or json
    #[arg(long, short, default_value = "cyclonedx", value_name = "FORMAT")]
    pub(crate) format: String,
}

#[derive(Args)]
pub(crate) struct DbArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Folder of the advisory database [default: advisories in the data folder, else in the cache]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) db_dir: Option<PathBuf>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) order: DbOrder,
}

#[derive(Subcommand)]
pub(crate) enum DbOrder {
    /// Ask the feeds for changes and compile a new database if there are any
    Update {
        /// Only these feeds
        #[arg(long = "feed", value_name = "FEED")]
        feeds: Vec<String>,
        /// Base address, or folder as file:///…, in place of the feeds' own
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Ask for everything as if nothing was known
        #[arg(long)]
        full: bool,
        /// PEM file with the authority of the mirror's certificate
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
    },
    /// Show what the database holds and how fresh it is
    Status,
    /// Show the advisories on a vulnerability
    Lookup {
        /// CVE-…, GHSA-… or the id of any source
        id: String,
    },
    /// Write the database to a file, for machines without a network
    Export {
        /// The file
        file: PathBuf,
    },
    /// Take a database from a file
    Import {
        /// The file
        file: PathBuf,
        /// Take it although it is older than the present one
        #[arg(long)]
        force: bool,
    },
    /// Put the database into a registry as an artifact
    Push {
        /// REGISTRY/REPOSITORY:TAG
        reference: String,
        #[command(flatten)]
        registry: ArtifactRegistry,
        /// Ed25519 private key (PKCS#8 PEM) that signs it
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Take the database from a registry
    Pull {
        /// REGISTRY/REPOSITORY:TAG
        reference: String,
        #[command(flatten)]
        registry: ArtifactRegistry,
        /// Ed25519 public key (PEM) that must have signed it
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Take it although it is older than the present one
        #[arg(long)]
        force: bool,
    },
    /// Compare versions: reads lines `a<TAB>b`, prints -1, 0, 1 or error for each
    Compare {
        /// dpkg, rpm, apk, pep440, npm, semver, go, maven, gem, nuget or composer
        scheme: String,
    },
}

/// How a registry with artifacts is reached.
#[derive(Args, Clone)]
pub(crate) struct ArtifactRegistry {
    /// Ask the registry by HTTP; localhost and loopback addresses always are
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// PEM file with the authority of the registry's certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) registry_ca: Option<PathBuf>,
    /// docker config.json with the registry's credentials [default: ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) docker_config: Option<PathBuf>,
}

/// A part of Kuboard that can run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The front: takes requests and passes each to the cache that keeps its repository
    RegistryProxy,
    /// The registry itself: cache, hosted repositories, storage
    RegistryCache,
    /// Advisories, schedules, events, and the APIs of Clair and Harbor
    ScanEngine,
    /// Takes scan jobs from the queue
    ScanWorker,
    /// Keeps policies, reports and the webhook in the Kubernetes API
    Operator,
    /// The webhook that judges pods
    Admission,
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
    /// The kinds of objects in a cluster
    Crds,
    /// Their definitions, as YAML for an API server
    CrdManifests,
}

#[derive(Args)]
pub(crate) struct DocsArgs {
    pub(crate) page: Page,
}
