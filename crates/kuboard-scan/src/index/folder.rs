//! Indexing of a folder on disk as if it were the root of a layer. Links are not followed, other
//! file systems below it are, and only what an indexer wants is read.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use kuboard_oci::layer::{End, Entry, Interest, Kind, Summary, Visitor};
use kuboard_vuln::LayerInventory;

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
    buffer: Vec<u8>,
    problems: Vec<kuboard_vuln::Problem>,
}

impl Walk {
    fn folder(&mut self, root: &Path) -> End {
        let mut waiting: Vec<(PathBuf, String, usize)> = vec![(root.to_owned(), String::new(), 0)];
        while let Some((folder, name, depth)) = waiting.pop() {
            let listed = fs::read_dir(&folder).and_then(|entries| {
                entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>()
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
                let path = if name.is_empty() { text.into_owned() } else { format!("{name}/{text}") };
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
            // Files of /proc have no length and no end.
            sparse: metadata.is_file() && metadata.len() == 0 && metadata.blocks() == 0,
        };
        let wanted = self.collector.entry(&entry) == Interest::Read && !entry.sparse;
        if wanted && kind == Kind::File {
            self.content(from, path, size);
        }
        metadata.is_dir()
    }

    /// Passes exactly as many bytes as were announced: a file may change under us.
    fn content(&mut self, from: &Path, path: &str, size: u64) {
        let mut left = size;
        let mut file = File::open(from);
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
                // The promised bytes, so that the indexer's view ends where it should.
                self.buffer.fill(0);
                while left > 0 {
                    let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                    self.collector.content(&self.buffer[..piece]);
                    left -= piece as u64;
                }
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
