//! Programs built by `cargo install` from crates.io.

use std::path::Path;

use anyhow::Result;

use super::{is_stamped, stamp};
use crate::run::Command;

/// Crate (whose program has the same name) and version.
const CRATES: &[(&str, &str)] = &[("cargo-auditable", "0.7.1")];

pub(super) fn install(folder: &Path) -> Result<()> {
    for (name, version) in CRATES {
        let wanted = format!("{name}@{version}");
        if is_stamped(folder, name, &wanted) {
            continue;
        }
        println!("building {wanted}");
        Command::cargo()
            .args(["install", "--quiet", "--locked", "--force", name, "--version", version])
            .arg("--root")
            .arg(folder)
            .run()?;
        stamp(folder, name, &wanted)?;
    }
    Ok(())
}
