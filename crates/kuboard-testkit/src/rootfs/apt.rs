//! Debian packages for a system of our own: which ones belong together is decided by apt, with
//! package lists and a status of our own, so that the machine's are neither needed nor changed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::tool;

/// A folder with package lists and downloaded packages.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Fetches the package lists.
    pub(super) fn new(folder: PathBuf) -> Result<Apt> {
        for part in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("status"), "")?;
        let apt = Apt { folder };
        apt.get(&["update"])?;
        Ok(apt)
    }

    /// From here on apt believes that what this dpkg status tells is installed.
    pub(super) fn installed(&self, status: &Path) -> Result<()> {
        fs::copy(status, self.folder.join("status"))?;
        Ok(())
    }

    /// Downloads these packages and all that they depend on; gives the files, sorted.
    pub(super) fn closure(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let archives = self.folder.join("cache/archives");
        for old in files(&archives)? {
            fs::remove_file(old)?;
        }
        let mut arguments = vec!["install", "--download-only", "--no-install-recommends", "-y"];
        arguments.extend(packages);
        self.get(&arguments)?;
        files(&archives)
    }

    /// Downloads these packages alone.
    pub(super) fn download(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let mut arguments = vec!["download"];
        arguments.extend(packages);
        self.get(&arguments)?;
        files(&self.folder.join("packages"))
    }

    fn get(&self, arguments: &[&str]) -> Result<()> {
        let mut command = tool::command("apt-get")?;
        for (name, value) in [
            ("Dir::State", self.folder.clone()),
            ("Dir::State::lists", self.folder.join("lists")),
            ("Dir::State::status", self.folder.join("status")),
            ("Dir::Cache", self.folder.join("cache")),
        ] {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        command
            .args(["-qq", "-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=true"])
            .args(["-o", "APT::Architecture=amd64", "-o", "APT::Architectures=amd64"])
            .args(["-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3"])
            // Packages of other archives that this machine happens to know are not Debian's.
            .args(["-o", "Dir::Etc::sourceparts=-"])
            .arg("-o")
            .arg(format!("Dir::Etc::sourcelist={}", self.sources()?.display()))
            .args(arguments)
            .current_dir(self.folder.join("packages"));
        tool::output(&mut command).map(drop)
    }

    /// Bookworm with its updates, whatever release this machine runs.
    fn sources(&self) -> Result<PathBuf> {
        let file = self.folder.join("sources.list");
        let lines = [
            "deb http://deb.debian.org/debian bookworm main\n",
            "deb http://deb.debian.org/debian bookworm-updates main\n",
        ];
        fs::write(&file, lines.concat())?;
        Ok(file)
    }
}

/// The packages in a folder, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "deb") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
