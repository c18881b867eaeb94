//! From arguments to settings, and from settings to opened stores: whatever is wrong fails here,
//! before anything moves.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use kuboard_api::{CatalogUrl, Config};
use kuboard_catalog::Catalog;
use kuboard_proxy::{Admin, fsck::Subject};
use kuboard_rt::{Clock, SystemClock, Tasks};
use kuboard_store::{
    BlobStore, Cache, CacheConfig, DiskStore, ObjectConfig, Spool, object_store_from,
};

use crate::cli::Place;

/// The configuration file that is read when none is named.
const DEFAULT_FILE: &str = "kuboard.toml";

/// Every folder that a server ran on has this file.
const LOCK: &str = "lock";

/// What the stores are opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// To serve or change: nobody else may.
    Own,
    /// To look, beside a server that may be running.
    Look,
}

/// The settings as the file and the command line mean them together.
pub(crate) fn config(place: &Place) -> anyhow::Result<Config> {
    let file = match &place.config {
        Some(file) => Some(file.as_path()),
        None => Some(Path::new(DEFAULT_FILE)).filter(|file| file.exists()),
    };
    let mut config = match file {
        None => Config::default(),
        Some(file) => {
            let text = fs::read_to_string(file)
                .with_context(|| format!("{} can't be read", file.display()))?;
            Config::parse_file(&file.display().to_string(), &text)?
        }
    };
    if let Some(dir) = &place.data_dir {
        config.data_dir.clone_from(dir);
    }
    if let Some(file) = &config.catalog.url_file {
        config.catalog.url = catalog_url(file)?;
        config.catalog.url_file = None;
    }
    Ok(config)
}

/// The catalogue's URL out of a file of its own.
fn catalog_url(file: &Path) -> anyhow::Result<CatalogUrl> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("catalog.urlFile {} can't be read", file.display()))?;
    let refused = |fact: String| anyhow::anyhow!("catalog.urlFile {}: {fact}", file.display());
    text.trim().parse().map_err(refused)
}

/// Runs a command's asynchronous part.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?
        .block_on(work)
}

/// Blobs and catalogue, opened.
pub(crate) struct Stores {
    pub(crate) cache_store: Arc<dyn BlobStore>,
    pub(crate) hosted: Arc<dyn BlobStore>,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
    dir: PathBuf,
    /// Held while the folder is ours.
    _lock: Option<File>,
}

impl Stores {
    /// Opens the folder of the settings, and what else they name.
    pub(crate) async fn open(config: &Config, purpose: Use, tasks: Tasks) -> anyhow::Result<Self> {
        let dir = &config.data_dir;
        if purpose == Use::Look {
            require_folder(dir)?;
        }
        fs::create_dir_all(dir).with_context(|| format!("{} can't be made", dir.display()))?;
        let lock = match purpose {
            Use::Own => Some(lock(dir)?),
            Use::Look => None,
        };
        let cache_store: Arc<dyn BlobStore> = Arc::new(DiskStore::open(dir.join("cache"))?);
        let hosted: Arc<dyn BlobStore> = match config.storage.url.as_str() {
            "" => Arc::new(DiskStore::open(dir.join("hosted"))?),
            _ => Arc::new(object_store_from(object_config(config)?, tasks.clone())?),
        };
        let catalog = match config.catalog.url.expose() {
            "" => Catalog::open_file(&dir.join("catalog.db")).await?,
            url => Catalog::open(url).await?,
        };
        Ok(Self {
            cache_store,
            hosted,
            dir: dir.clone(),
            catalog,
            clock: Arc::new(SystemClock),
            tasks,
            _lock: lock,
        })
    }

    /// Where downloads and uploads under way are written, in this order.
    pub(crate) fn spools(&self) -> anyhow::Result<(Spool, Spool)> {
        let downloads = Spool::open(self.dir.join("downloads"))?;
        Ok((downloads, Spool::open(self.dir.join("uploads"))?))
    }

    /// The cache over its store.
    pub(crate) async fn cache(&self, config: &Config) -> anyhow::Result<Arc<Cache>> {
        let max_bytes = if config.cache.enable { config.cache.cache_size_gb.bytes() } else { 0 };
        let cache_config = CacheConfig::new(max_bytes, self.tasks.clone());
        let cache = Cache::open(self.cache_store.clone(), cache_config, self.clock.clone()).await?;
        Ok(Arc::new(cache))
    }

    /// What `fsck` looks at.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject { cache: &*self.cache_store, hosted: &*self.hosted, catalog: &self.catalog }
    }
}

/// The orders of an operator on a folder that no server runs on.
pub(crate) async fn offline(config: Config) -> anyhow::Result<Arc<Admin>> {
    require_data(&config)?;
    let stores = Stores::open(&config, Use::Own, Tasks::default()).await?;
    let cache = stores.cache(&config).await?;
    for pin in stores.catalog.pins().await.context("pins can't be read")? {
        cache.pin(&pin.digest);
    }
    Ok(Arc::new(Admin::offline(cache, stores.catalog.clone(), stores.clock.clone())))
}

fn require_folder(dir: &Path) -> anyhow::Result<()> {
    if !dir.exists() {
        bail!("{} does not exist; hint: name the data folder with --data-dir", dir.display());
    }
    Ok(())
}

/// Refuses a folder that no server ever ran on: of a mistyped one, nothing good can be said.
pub(crate) fn require_data(config: &Config) -> anyhow::Result<()> {
    let dir = &config.data_dir;
    require_folder(dir)?;
    let is_local = config.storage.url.is_empty() && config.catalog.url.expose().is_empty();
    if is_local && !dir.join(LOCK).exists() {
        bail!(
            "{} holds no data of kuboard; hint: name the data folder with --data-dir",
            dir.display()
        );
    }
    Ok(())
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("{} can't be opened", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "{} is in use by another kuboard; hint: stop it, or give this one --data-dir",
            dir.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} can't be locked", path.display()))
        }
    }
}

fn object_config(config: &Config) -> anyhow::Result<ObjectConfig> {
    let storage = &config.storage;
    let secret_access_key = match &storage.secret_access_key_file {
        None => None,
        Some(file) => {
            let secret = fs::read_to_string(file)
                .with_context(|| format!("storage.secretAccessKeyFile {}", file.display()))?;
            Some(secret.trim_end().to_owned())
        }
    };
    Ok(ObjectConfig {
        url: storage.url.clone(),
        endpoint: storage.endpoint.as_ref().map(ToString::to_string),
        region: storage.region.clone(),
        access_key_id: storage.access_key_id.clone(),
        secret_access_key,
        allow_http: storage.allow_http,
    })
}
