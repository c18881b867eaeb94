//! A disk small enough to be filled: a tmpfs of a fixed size, mounted for one test.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::tool;

/// The mounted disk. Dropping it unmounts it; what runs on it must have ended by then.
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts an empty disk of this many bytes. It needs root, or a sudo that asks nothing.
    pub fn mount(bytes: u64) -> Result<SmallDisk> {
        let folder = tool::folder("disk")?;
        let options = format!("size={bytes},mode=777");
        let mut mount = as_root("mount")?;
        mount.args(["-t", "tmpfs", "-o", &options, "kuboard-test"]).arg(folder.path());
        tool::output(&mut mount).context("hint: run the tests as root")?;
        Ok(SmallDisk { folder })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is about to end may still hold a file.
        let unmounted = as_root("umount")
            .and_then(|mut umount| tool::output(umount.arg("--lazy").arg(self.folder.path())));
        // Else the folder stays mounted and is not removed; nothing more can be done here.
        let _ = unmounted;
    }
}

fn as_root(program: &str) -> Result<Command> {
    // SAFETY: geteuid(2) only reads the caller's identity.
    if unsafe { libc::geteuid() } == 0 {
        return tool::command(program);
    }
    let mut sudo = tool::command("sudo")?;
    sudo.arg("-n").arg(tool::find(program)?);
    Ok(sudo)
}

#[cfg(test)]
mod tests {
    use super::SmallDisk;
    use std::fs;

    #[test]
    fn it_fills_up() {
        let disk = SmallDisk::mount(1 << 20).unwrap();
        fs::write(disk.path().join("fits"), vec![1; 500_000]).unwrap();
        let full = fs::write(disk.path().join("does-not"), vec![1; 2 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }
}
