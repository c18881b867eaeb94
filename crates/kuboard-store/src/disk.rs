//! Blobs as plain files: `blobs/<algorithm>/<first two digits>/<digits>`.
//!
//! A blob arrives by a rename from a spool on the same file system, after its bytes were synced;
//! then the folder is synced, and before that the folders above it if they are new. Nothing here
//! ever opens a published file for writing: it is mapped by readers, and a file that becomes
//! shorter under a map kills the process. Files leave by unlink only, which readers survive.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use kuboard_oci::{Algorithm, Digest};
use kuboard_rt::{BoxFuture, Mapping};
use parking_lot::Mutex;

use crate::{
    Blob, BlobStore, Content, Entry, Error, ErrorKind, Found, Result, Verified, blocking,
    mappings::Mappings, spool,
};

/// A store of blobs in a folder. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct DiskStore {
    inner: Arc<Inner>,
}

struct Inner {
    /// The folder `blobs`.
    root: PathBuf,
    mappings: Mappings,
    /// Folders whose own entries are known to be on disk.
    durable: Mutex<HashSet<PathBuf>>,
}

impl DiskStore {
    /// Opens the store in `dir`, making the folder when it is missing.
    pub fn open(dir: impl AsRef<Path>) -> Result<DiskStore> {
        let root = dir.as_ref().join("blobs");
        fs::create_dir_all(&root)
            .map_err(|e| Error::io(format!("making blob folder {}", root.display()), e))?;
        let (mappings, durable) = (Mappings::default(), Mutex::default());
        Ok(DiskStore { inner: Arc::new(Inner { root, mappings, durable }) })
    }

    /// Where the file of a blob lies, if it is there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.inner.path(digest)
    }
}

impl BlobStore for DiskStore {
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>>> {
        let (path, digest) = (self.inner.path(digest), *digest);
        Box::pin(blocking("looking for a blob", move || match fs::metadata(path) {
            Ok(meta) => Ok(meta.is_file().then_some(meta.len())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::io(format!("looking for {digest}"), error)),
        }))
    }

    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Blob>>> {
        let digest = *digest;
        let epoch = match self.inner.mappings.get(&digest) {
            Ok(mapping) => return Box::pin(async move { Ok(Some(mapped(digest, mapping))) }),
            Err(epoch) => epoch,
        };
        let inner = self.inner.clone();
        Box::pin(blocking("opening a blob", move || {
            let Some(file) = inner.open_file(&digest)? else { return Ok(None) };
            let doing = |e| Error::io(format!("opening {digest}"), e);
            if file.metadata().map_err(doing)?.len() == 0 {
                // There is no map of nothing.
                let content = Content::Memory(Bytes::new());
                return Ok(Some(Blob { digest, size: 0, content }));
            }
            let mapping = Mapping::from_file(file).map_err(doing)?;
            Ok(Some(mapped(digest, inner.mappings.keep(&digest, mapping, epoch))))
        }))
    }

    fn publish(&self, verified: Verified) -> BoxFuture<'_, Result<()>> {
        let inner = self.inner.clone();
        Box::pin(blocking("publishing a blob", move || inner.publish(verified)))
    }

    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool>> {
        let (inner, digest) = (self.inner.clone(), *digest);
        Box::pin(blocking("removing a blob", move || {
            let removed = fs::remove_file(inner.path(&digest));
            // After the unlink, so that nobody can bring the map back.
            inner.mappings.forget(&digest);
            match removed {
                Ok(()) => Ok(true),
                Err(error) if is_absent(&error) => Ok(false),
                Err(error) => Err(Error::io(format!("removing {digest}"), error)),
            }
        }))
    }

    fn walk(&self) -> BoxStream<'_, Result<Found>> {
        let root = self.inner.root.clone();
        // Depth first, one folder at a time off the async threads; the stream's reader sets the
        // pace and never holds more than one folder's names.
        stream::try_unfold(vec![PathBuf::new()], move |mut left| {
            let root = root.clone();
            async move {
                let Some(folder) = left.pop() else { return Ok(None) };
                let (found, folders) =
                    blocking("listing blobs", move || list_folder(&root, &folder)).await?;
                left.extend(folders);
                Ok(Some((stream::iter(found.into_iter().map(Ok)), left)))
            }
        })
        .try_flatten()
        .boxed()
    }

    fn in_use(&self, digest: &Digest) -> bool {
        self.inner.mappings.in_use(digest)
    }

    fn describe(&self) -> String {
        format!("folder {}", self.inner.root.display())
    }
}

impl Inner {
    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(place(digest))
    }

    fn open_file(&self, digest: &Digest) -> Result<Option<File>> {
        match File::open(self.path(digest)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::io(format!("opening {digest}"), error)),
        }
    }

    /// Renames over what may be there: the bytes are the same, unless what is there was damaged,
    /// and then this heals it. Readers of the old file keep it.
    fn publish(&self, verified: Verified) -> Result<()> {
        let digest = verified.digest();
        let doing = |e| Error::io(format!("publishing {digest}"), e);
        let target = self.path(&digest);
        let folder = target.parent().unwrap_or(&self.root);
        self.make_durable(folder).map_err(doing)?;
        if let Err(error) = fs::rename(verified.path(), &target) {
            if error.kind() == io::ErrorKind::CrossesDevices {
                let hint = "hint: put the spool folder on the file system of the blobs";
                let text = format!("publishing {digest}: it was written elsewhere\n{hint}");
                return Err(Error::new(ErrorKind::Invalid, text));
            }
            return Err(doing(error));
        }
        verified.moved();
        self.mappings.forget(&digest);
        sync_folder(folder).map_err(doing)
    }

    /// Makes `folder` and the ones between it and the root, and syncs the entry of each. Done once
    /// a folder and process: an earlier process may have died between making and syncing.
    fn make_durable(&self, folder: &Path) -> io::Result<()> {
        if self.durable.lock().contains(folder) {
            return Ok(());
        }
        fs::create_dir_all(folder)?;
        let above = folder.ancestors().skip(1).take_while(|above| above.starts_with(&self.root));
        for above in above.chain(self.root.parent()) {
            sync_folder(above)?;
        }
        self.durable.lock().insert(folder.to_owned());
        Ok(())
    }
}

fn mapped(digest: Digest, mapping: Arc<Mapping>) -> Blob {
    Blob { digest, size: mapping.len(), content: Content::Mapped(mapping) }
}

fn place(digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    [digest.algorithm().as_str(), &hex[..2], &hex].iter().collect()
}

/// The digest that a file name means, if its folder or its length tell the algorithm.
fn named(name: &str, folder: &Path) -> Option<Digest> {
    let first = folder.iter().next().and_then(|first| first.to_str());
    let algorithm = first.and_then(|first| first.parse::<Algorithm>().ok()).or_else(|| {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.len() * 2 == name.len())
    })?;
    format!("{algorithm}:{name}").parse().ok()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// What lies in `folder` (relative to `root`), and the folders in it. What vanishes meanwhile is
/// left out.
fn list_folder(root: &Path, folder: &Path) -> Result<(Vec<Found>, Vec<PathBuf>)> {
    let full = root.join(folder);
    let doing = |e| Error::io(format!("listing {}", full.display()), e);
    let (mut found, mut folders) = (Vec::new(), Vec::new());
    let items = match fs::read_dir(&full) {
        Ok(items) => items,
        Err(error) if is_absent(&error) => return Ok((found, folders)),
        Err(error) => return Err(doing(error)),
    };
    for item in items {
        let item = item.map_err(doing)?;
        let meta = match item.metadata() {
            Ok(meta) => meta,
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(doing(error)),
        };
        let relative = folder.join(item.file_name());
        if meta.is_dir() {
            folders.push(relative);
            continue;
        }
        let size = meta.len();
        let digest = item.file_name().to_str().and_then(|name| named(name, folder));
        let path = relative.display().to_string();
        found.push(match digest.filter(|_| meta.is_file()) {
            Some(digest) if place(&digest) == relative => {
                Found::Blob(Entry { digest, size, modified_ms: spool::modified_ms(&meta) })
            }
            Some(digest) => Found::Misplaced { path, digest, size },
            None => Found::Foreign { path, size },
        });
    }
    Ok((found, folders))
}
