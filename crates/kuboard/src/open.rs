//! What the one-shot commands look at: images from registries, archives, layouts, folders.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use kuboard_oci::{ImageReference, Reference, Tag};
use kuboard_registry::{
    client::{Upstream, UpstreamConfig},
    credentials::{Chain, Credentials, DockerConfig},
};
use kuboard_rt::{Clock, SystemClock, Tasks};
use kuboard_scan::{
    index::{Indexers, Settings, index_folder},
    inspect::{Inspector, LayerStep},
    inventories::{FolderInventories, Inventories, NoInventories},
    merge::merge,
    sbom,
    source::{
        ArchiveContents, ContainerdContents, Contents, Image, LayoutContents, PlatformChoice,
        RegistryContents, Target, open_docker_archive, open_image,
    },
};
use kuboard_vuln::{ImageIdentity, ImageInventory, LayerReference};

use crate::{cli::Subject, output::LayerBars};

/// A bill of materials is read whole.
const MAX_SBOM: u64 = 256 << 20;

/// How a registry is reached.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) plain_http: bool,
    pub(crate) insecure_skip_verify: bool,
    pub(crate) ca_file: Option<&'a Path>,
    pub(crate) docker_config: Option<&'a Path>,
}

/// The folder for what is worth keeping between runs.
pub(crate) fn cache_dir(chosen: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(chosen) = chosen {
        return Ok(chosen.to_owned());
    }
    if let Some(cache) = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(cache).join("kuboard"));
    }
    let home = env::var_os("HOME").filter(|value| !value.is_empty());
    let home = home.context("HOME is not set; hint: name a folder with --cache-dir")?;
    Ok(PathBuf::from(home).join(".cache/kuboard"))
}

/// What the subject of a command is and contains.
pub(crate) async fn inspect(subject: &Subject) -> anyhow::Result<(ImageIdentity, ImageInventory)> {
    let target = Target::parse(&subject.target)?;
    let tasks = Tasks::default();
    let indexers = Indexers::all();
    let settings = Arc::new(Settings::default());
    let identity = ImageIdentity { name: subject.target.clone(), ..ImageIdentity::default() };
    match &target {
        Target::Sbom(path) => return read_sbom(path, identity),
        Target::Folder(path) => {
            let (root, indexers) = (path.clone(), indexers.clone());
            let reading = move || index_folder(&indexers, &settings, &root);
            let inventory = tasks.blocking("folder", reading).await?;
            let layer = LayerReference {
                digest: kuboard_oci::Digest::sha256(b""),
                diff_id: None,
                created_by: String::new(),
                size: 0,
            };
            let mut merged = merge(&[(layer, Arc::new(inventory))]);
            // A folder has no layers; the index of each package points nowhere then.
            merged.layers.clear();
            return Ok((identity, merged));
        }
        _ => {}
    }
    let platform = subject.platform.as_deref().map(PlatformChoice::parse).transpose()?;
    let image = open(&target, identity, subject, platform.as_ref()).await?;
    let inventories: Arc<dyn Inventories> = if subject.no_cache {
        Arc::new(NoInventories)
    } else {
        let folder = cache_dir(subject.cache_dir.as_deref())?.join("inventories");
        Arc::new(
            FolderInventories::open(&folder, &indexers.version())
                .with_context(|| format!("{} can't be used", folder.display()))?,
        )
    };
    let parallel = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(4);
    let inspector = Inspector { indexers, settings, inventories, tasks, parallel };
    let bars = LayerBars::new(subject.quiet, &image.layers);
    let progress = |layer: &LayerReference, step: LayerStep| bars.step(layer, step);
    let inventory = inspector.inspect(&image, &progress).await?;
    bars.finish();
    Ok((image.identity, inventory))
}

async fn open(
    target: &Target,
    identity: ImageIdentity,
    subject: &Subject,
    platform: Option<&PlatformChoice>,
) -> anyhow::Result<Image> {
    let spill = env::temp_dir();
    let (contents, reference): (Arc<dyn Contents>, Option<Reference>) = match target {
        Target::DockerArchive(path, name) => {
            return Ok(open_docker_archive(path, name.as_deref(), &spill)?);
        }
        Target::OciArchive(path, name) => {
            (Arc::new(ArchiveContents::open(path, &spill)?), named(name.as_deref())?)
        }
        Target::OciLayout(path, name) => {
            (Arc::new(LayoutContents::open(path)?), named(name.as_deref())?)
        }
        Target::Containerd(store, digest) => {
            (Arc::new(ContainerdContents::open(store)?), Some(Reference::Digest(*digest)))
        }
        Target::Registry(image) => {
            let reach = Reach {
                plain_http: subject.plain_http,
                insecure_skip_verify: subject.insecure_skip_verify,
                ca_file: subject.ca_file.as_deref(),
                docker_config: subject.docker_config.as_deref(),
            };
            let upstream = registry(&image.registry, reach).await?;
            let reference = reference_of(image)?;
            let identity = ImageIdentity {
                registry: image.registry.clone(),
                repository: image.repository.to_string(),
                tag: image.tag.as_ref().map(ToString::to_string).unwrap_or_default(),
                ..identity
            };
            let contents = RegistryContents { upstream, repository: image.repository.clone() };
            return Ok(open_image(Arc::new(contents), identity, Some(&reference), platform).await?);
        }
        Target::Folder(_) | Target::Sbom(_) => bail!("{} is no image", subject.target),
    };
    Ok(open_image(contents, identity, reference.as_ref(), platform).await?)
}

fn named(name: Option<&str>) -> anyhow::Result<Option<Reference>> {
    name.map(|name| name.parse::<Reference>().map_err(anyhow::Error::from)).transpose()
}

/// The tag or digest that an image's name means.
pub(crate) fn reference_of(image: &ImageReference) -> anyhow::Result<Reference> {
    Ok(match (&image.digest, &image.tag) {
        (Some(digest), _) => Reference::Digest(*digest),
        (None, Some(tag)) => Reference::Tag(tag.clone()),
        (None, None) => Reference::Tag("latest".parse::<Tag>()?),
    })
}

/// The client of a registry.
pub(crate) async fn registry(name: &str, reach: Reach<'_>) -> anyhow::Result<Upstream> {
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    let is_here = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    let scheme = if reach.plain_http || is_here { "http" } else { "https" };
    let address = if name == "docker.io" { "registry-1.docker.io" } else { name };
    let endpoint = url::Url::parse(&format!("{scheme}://{address}"))
        .with_context(|| format!("{name} is no registry"))?;
    let config = UpstreamConfig {
        ca_file: reach.ca_file.map(Path::to_owned),
        insecure_skip_verify: reach.insecure_skip_verify,
        ..UpstreamConfig::new(name, vec![endpoint])
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let file = reach.docker_config.map(Path::to_owned).or_else(|| {
        let folder = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".docker")));
        Some(folder?.join("config.json")).filter(|file| file.exists())
    });
    let credentials: Arc<dyn Credentials> = match file {
        Some(file) => Arc::new(DockerConfig::open(file, clock.clone()).await?),
        None => Arc::new(Chain::new(Vec::new())),
    };
    Ok(Upstream::with_clock(config, credentials, &prometheus::Registry::new(), clock)?)
}

fn read_sbom(
    path: &Path,
    identity: ImageIdentity,
) -> anyhow::Result<(ImageIdentity, ImageInventory)> {
    let size = fs::metadata(path).with_context(|| path.display().to_string())?.len();
    anyhow::ensure!(size <= MAX_SBOM, "{} has {size} bytes, more than {MAX_SBOM}", path.display());
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let document = sbom::read(&bytes).with_context(|| path.display().to_string())?;
    let mut known = document.identity;
    if known.name.is_empty() {
        known.name = identity.name;
    }
    Ok((known, document.inventory))
}
