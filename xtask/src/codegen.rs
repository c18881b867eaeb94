//! The references under docs/ that are printed by the binary itself, so that they cannot drift.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::run::{self, Command};

/// A generated page and the arguments of `kuboard` that print it.
const PAGES: &[(&str, &[&str])] = &[
    ("docs/reference/configuration.md", &["docs", "configuration"]),
    ("docs/reference/metrics.md", &["docs", "metrics"]),
    ("docs/reference/cli.md", &["docs", "cli"]),
];

/// Writes every page, or with `check` fails when one differs from what is on disk.
pub(crate) fn run(check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (path, arguments) in PAGES {
        let fresh = Command::cargo()
            .args(["run", "--quiet", "-p", "kuboard", "--"])
            .args(*arguments)
            .read()
            .with_context(|| format!("print {path}"))?;
        let file = run::root().join(path);
        if fs::read_to_string(&file).is_ok_and(|present| present == fresh) {
            continue;
        }
        if check {
            stale.push(*path);
            continue;
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&file, fresh).with_context(|| format!("write {path}"))?;
        println!("wrote {path}");
    }
    if !stale.is_empty() {
        bail!("stale references: {}; hint: cargo xtask codegen", stale.join(", "));
    }
    Ok(())
}
