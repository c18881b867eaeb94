//! `kuboard`: fast, safe and visible image delivery for Kubernetes, in one binary.
//!
//! What each command does is in `cli.rs`; what a server is made of in `boot.rs` and `serve.rs`.

mod access;
mod admission;
mod boot;
mod cache;
mod cli;
mod cluster;
mod config;
mod control;
mod credential_provider;
mod db;
mod docs;
mod doctor;
mod events;
mod external_clair;
mod fsck;
mod keys;
mod open;
mod output;
mod scan;
mod scanning;
mod serve;
mod tls;
mod webhook;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

fn main() -> ExitCode {
    kuboard_rt::process::tune_allocator();
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Up(args) => serve::up(&args),
        Command::Serve(args) => serve::serve(&args),
        Command::Scan(args) => scan::run(&args),
        Command::Sbom(args) => scan::sbom(&args),
        Command::Db(args) => db::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Jobs(args) => events::jobs(&args),
        Command::Policies(args) => events::policies(&args),
        Command::Admission(args) => webhook::run(&args),
        Command::Crds => docs::crds(),
        Command::Cache(args) => cache::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Fsck(args) => fsck::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::CredentialProvider(args) => credential_provider::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Completions(args) => docs::completions(&args),
        Command::Docs(args) => docs::run(&args),
    };
    done.unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::FAILURE
    })
}
