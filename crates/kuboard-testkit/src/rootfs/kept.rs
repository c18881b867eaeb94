//! Folders that are expensive to make and are kept between runs, next to the other fixtures.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tool;

/// Where everything made on the spot is kept: `~/.cache/kuboard/fixtures`.
pub(crate) fn home() -> Result<PathBuf> {
    let home = tool::cache()?.join("fixtures");
    fs::create_dir_all(&home)?;
    Ok(home)
}

/// The folder `name`, filled by `make` when it does not exist. `make` works in a folder beside it
/// that takes the name only when all went well; other processes that want the same one wait.
pub fn kept(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let home = home()?;
    let folder = home.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let guard = File::create(home.join(format!("{name}.lock")))?;
    guard.lock()?;
    if !folder.is_dir() {
        let work = tempfile::Builder::new().prefix("making-").tempdir_in(&home)?;
        let new = work.path().join("new");
        fs::create_dir(&new)?;
        make(&new).with_context(|| format!("make the fixture {name}"))?;
        fs::rename(&new, &folder)?;
    }
    Ok(folder)
}
