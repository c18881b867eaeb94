//! Indexing of a folder on disk as if it were the root of a layer. Links are not followed, other
//! file systems below it are, and only what an indexer wants is read.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use kuboard_oci::layer::{End, Entry, Interest, Kind, Summary, Visitor};
use kuboard_vuln::LayerInventory;
use libc::{O_NOFOLLOW, O_NONBLOCK};

use super::{ARCHIVE, Indexers, MACHINE, Settings, collect::Collector};

const PIECE: usize = 256 << 10;
/// Folders within folders.
const MAX_DEPTH: usize = 256;

/// Indexes a folder. What can't be read is a problem of the inventory. Indexers run in here: call
/// it off the async threads.
pub fn index_folder(indexers: &Indexers, settings: &Settings, root: &Path) -> LayerInventory {
    let mut walk = Walk {
        collector: Collector::new(indexers.clone(), settings.clone()),
        entries: 0,
        bytes: 0,
        max_entries: settings.limits.entries,
        max_file: settings.max_spill.max(settings.memory_per_file),
        device: fs::metadata(root).map_or(0, |metadata| metadata.dev()),
        buffer: vec![0; PIECE],
        problems: Vec::new(),
    };
    let end = walk.folder(root);
    let summary = Summary {
        diff_id: None,
        size: walk.bytes,
        compressed: walk.bytes,
        entries: walk.entries,
        compression: None,
        end,
    };
    let mut inventory = walk.collector.finish(&summary);
    inventory.problems.extend(walk.problems);
    inventory
}

struct Walk {
    collector: Collector,
    entries: u64,
    bytes: u64,
    max_entries: u64,
    /// Larger files are never held.
    max_file: u64,
    /// Where the root is.
    device: u64,
    buffer: Vec<u8>,
    problems: Vec<kuboard_vuln::Problem>,
}

impl Walk {
    fn folder(&mut self, root: &Path) -> End {
        let mut waiting: Vec<(PathBuf, String, usize)> = vec![(root.to_owned(), String::new(), 0)];
        while let Some((folder, name, depth)) = waiting.pop() {
            let most = usize::try_from(self.max_entries).unwrap_or(usize::MAX).saturating_add(1);
            let listed = fs::read_dir(&folder).and_then(|entries| {
                entries
                    .take(most)
                    .map(|entry| entry.map(|entry| entry.file_name()))
                    .collect::<Result<Vec<_>, _>>()
            });
            let mut names = match listed {
                Ok(names) => names,
                Err(error) => {
                    self.problem(&name, &format!("the folder can't be read: {error}"));
                    continue;
                }
            };
            names.sort();
            // Folders are taken from the end of the list: those of this one in their order.
            let mut below = Vec::new();
            for entry in names {
                self.entries += 1;
                if self.entries > self.max_entries {
                    let limit = self.max_entries;
                    return End::Limit(format!("it has more than {limit} entries"));
                }
                let text = entry.to_string_lossy();
                let path =
                    if name.is_empty() { text.into_owned() } else { format!("{name}/{text}") };
                if self.entry(&folder.join(&entry), &path) {
                    below.push((folder.join(&entry), path, depth + 1));
                }
            }
            if depth >= MAX_DEPTH && !below.is_empty() {
                self.problem(&name, "its folders are nested too deeply");
                continue;
            }
            waiting.extend(below.into_iter().rev());
        }
        End::Complete
    }

    /// True if it is a folder.
    fn entry(&mut self, from: &Path, path: &str) -> bool {
        let metadata = match fs::symlink_metadata(from) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.problem(path, &error.to_string());
                return false;
            }
        };
        let target = metadata.is_symlink().then(|| fs::read_link(from).ok()).flatten();
        let link = target.as_ref().map(|target| target.to_string_lossy().into_owned());
        let kind = if metadata.is_dir() {
            Kind::Directory
        } else if metadata.is_symlink() {
            Kind::Symlink
        } else if metadata.is_file() {
            Kind::File
        } else {
            Kind::Other(0)
        };
        let size = if metadata.is_file() { metadata.len() } else { 0 };
        let entry = Entry {
            path,
            kind,
            size,
            mode: metadata.permissions().mode() & 0o7777,
            link: link.as_deref(),
            sparse: false,
        };
        let wanted = self.collector.entry(&entry) == Interest::Read;
        if wanted && kind == Kind::File {
            self.content(from, path, size);
        }
        // What the kernel makes up is neither files nor finite.
        metadata.is_dir() && !(matches!(path, "proc" | "sys") && metadata.dev() != self.device)
    }

    /// Passes at most as many bytes as were announced: a file may change under us.
    fn content(&mut self, from: &Path, path: &str, size: u64) {
        // One that is too large to be held is looked at only for how it begins.
        let mut left = if size > self.max_file { size.min(PIECE as u64) } else { size };
        // It may have become something else since it was listed.
        let mut file =
            File::options().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(from).and_then(
                |file| match file.metadata()?.is_file() {
                    true => Ok(file),
                    false => Err(io::Error::other("it is no regular file any more")),
                },
            );
        if left == 0
            && let Err(error) = &file
        {
            self.problem(path, &format!("it can't be read: {error}"));
        }
        let mut failed = None;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let read = match &mut file {
                Ok(file) => file.read(&mut self.buffer[..want]),
                Err(error) => Err(std::io::Error::other(error.to_string())),
            };
            match read {
                Ok(read) if read > 0 => {
                    self.collector.content(&self.buffer[..read]);
                    self.bytes += read as u64;
                    left -= read as u64;
                }
                Ok(_) => failed = Some("it became shorter while it was read".to_owned()),
                Err(error) => failed = Some(format!("it can't be read: {error}")),
            }
            if failed.is_some() {
                // What indexers make of the rest that there is: the inventory says that it is cut.
                break;
            }
        }
        self.collector.end();
        if let Some(why) = failed {
            self.problem(path, &why);
        }
    }

    fn problem(&mut self, path: &str, why: &str) {
        if self.problems.len() < 1000 {
            let by = if path.is_empty() { MACHINE } else { ARCHIVE };
            self.problems.push(kuboard_vuln::Problem {
                path: path.to_owned(),
                by: by.to_owned(),
                why: why.to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use kuboard_vuln::LayerInventory;

    use super::index_folder;
    use crate::index::{Indexers, Settings};

    fn index(root: &Path) -> LayerInventory {
        index_folder(&Indexers::all(), &Settings::default(), root)
    }

    #[test]
    fn empty_files_and_what_is_no_file_are_no_problem() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["etc", "var/lib/dpkg", "proc"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for empty in ["var/lib/dpkg/status", "etc/os-release"] {
            fs::write(root.path().join(empty), "").unwrap();
        }
        std::os::unix::fs::symlink("/dev/zero", root.path().join("etc/zero")).unwrap();
        std::os::unix::fs::symlink("..", root.path().join("etc/up")).unwrap();
        let pipe = root.path().join("var/lib/dpkg/pipe");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        let sparse: Vec<_> =
            index(root.path()).problems.into_iter().filter(|p| p.why.contains("sparse")).collect();
        assert_eq!(sparse, []);
    }

    #[test]
    fn a_file_of_absurd_size_is_not_read_through() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("program");
        let file = fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut &file, b"\x7fELF").unwrap();
        file.set_len(1 << 42).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let problems = index(root.path()).problems;
        assert!(problems.iter().any(|p| p.path == "program"), "{problems:?}");
    }
}
