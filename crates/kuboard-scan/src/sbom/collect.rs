//! What a document says, in the same words for all forms, and how it becomes an inventory.

use std::collections::{HashMap, HashSet};

use kuboard_oci::Digest;
use kuboard_vuln::{
    Distribution, ImageIdentity, ImageInventory, LayerReference, Package, PlacedPackage, Problem,
    Source,
};

use super::{
    properties as names,
    purl::{Meaning, PackageUrl, canonical_id},
    read::{MAX_COMPONENTS, SbomDocument, SbomFormat},
};

/// Problems that are kept; the last one says how many more there are.
const MAX_PROBLEMS: usize = 1000;
/// Layers that are told apart.
const MAX_LAYERS: usize = 1024;
/// The longest name, version or path.
const MAX_WORD: usize = 4096;
/// Licences of a package.
const MAX_LICENSES: usize = 64;
/// Repositories of a package.
const MAX_REPOSITORIES: usize = 64;
/// The name under which this reader reports.
const BY: &str = "sbom";

/// What kind of thing a component is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Kind {
    /// Software.
    #[default]
    Package,
    /// The image, or another one.
    Image,
    /// The distribution.
    OperatingSystem,
    /// A file, data, a device, …
    Other,
}

/// A component of any form.
#[derive(Clone, Debug, Default)]
pub(super) struct Component {
    pub kind: Kind,
    pub name: String,
    pub version: String,
    pub purl: String,
    /// Free text that may be the distribution's full name.
    pub about: String,
    pub licenses: Vec<String>,
    pub hash: Option<Digest>,
    pub properties: Vec<(String, String)>,
    /// The file that states it, if the form has a field for it.
    pub path: String,
}

impl Component {
    fn property(&self, names: &[&str]) -> Option<&str> {
        let mut found = names.iter().filter_map(|name| {
            self.properties.iter().find(|(key, value)| key == name && !value.is_empty())
        });
        found.next().map(|(_, value)| value.as_str())
    }
}

/// A document while it is being read.
#[derive(Default)]
pub(super) struct Collector {
    pub identity: ImageIdentity,
    inventory: ImageInventory,
    layers: HashMap<Digest, u32>,
    /// Distribution that a package's URL names; only used if the document has no other.
    hinted: Option<Distribution>,
    components: usize,
    more_problems: usize,
    pub too_many: bool,
}

impl Collector {
    /// Counts a component of any kind.
    pub(super) fn count(&mut self) -> Result<(), String> {
        self.components += 1;
        if self.components > MAX_COMPONENTS {
            self.too_many = true;
            return Err(format!("more than {MAX_COMPONENTS} components"));
        }
        Ok(())
    }

    pub(super) fn problem(&mut self, path: &str, why: String) {
        if self.inventory.problems.len() >= MAX_PROBLEMS {
            self.more_problems += 1;
            return;
        }
        let path: String = path.chars().take(256).collect();
        self.inventory.problems.push(Problem { path, by: BY.to_owned(), why });
    }

    /// The thing that the document is about.
    pub(super) fn subject(&mut self, component: &Component) {
        let identity = &mut self.identity;
        if identity.name.is_empty() {
            identity.name.clone_from(&component.name);
        }
        if identity.digest.is_none() {
            let stated = component.hash.or_else(|| component.version.parse().ok());
            identity.digest = stated.or_else(|| component.version.rsplit('@').next()?.parse().ok());
        }
        if let Some(url) = PackageUrl::parse(&component.purl)
            && matches!(url.meaning(""), Meaning::Image)
        {
            self.image_url(&url);
        }
        for (name, value) in &component.properties {
            self.image_property(name, value);
        }
    }

    fn image_url(&mut self, url: &PackageUrl) {
        let identity = &mut self.identity;
        if identity.digest.is_none() {
            identity.digest = url.version.parse().ok();
        }
        if identity.tag.is_empty() {
            identity.tag = url.qualifier("tag").unwrap_or_default().to_owned();
        }
        if let (true, Some(at)) = (identity.repository.is_empty(), url.qualifier("repository_url"))
        {
            let at = at.trim_start_matches("https://").trim_start_matches("http://");
            let (host, path) = at.split_once('/').unwrap_or((at, ""));
            let is_host = host.contains(['.', ':']) || host == "localhost";
            let (host, path) = if is_host { (host, path) } else { ("", at) };
            identity.registry = host.to_owned();
            identity.repository = if path.is_empty() { url.name.clone() } else { path.to_owned() };
        }
        if let (true, Some(arch)) = (identity.platform.is_empty(), url.qualifier("arch")) {
            identity.platform = format!("linux/{arch}");
        }
    }

    fn image_property(&mut self, name: &str, value: &str) {
        let identity = &mut self.identity;
        match name {
            names::IMAGE => identity.name = value.to_owned(),
            names::REGISTRY => identity.registry = value.to_owned(),
            names::IMAGE_REPOSITORY => identity.repository = value.to_owned(),
            names::TAG => identity.tag = value.to_owned(),
            names::PLATFORM => identity.platform = value.to_owned(),
            names::CONFIG | "aquasecurity:trivy:ImageID" => identity.config = value.parse().ok(),
            names::IMAGE_LAYER => {
                let mut words = value.split(' ');
                if let Some(Ok(digest)) = words.next().map(str::parse) {
                    self.layer(digest, words.next().and_then(|word| word.parse().ok()));
                }
            }
            _ => {}
        }
    }

    /// Our own documents say what was not read.
    pub(super) fn document_property(&mut self, name: &str, value: &str) {
        match name {
            names::PROBLEM => self.problem("", format!("partly read when it was made: {value}")),
            names::OUTCOME if value == "unsupported" => {
                self.problem("", "the image was not supported when this was made".to_owned());
            }
            _ => {}
        }
    }

    /// The number of a layer; those beyond the limit count as the lowest.
    fn layer(&mut self, digest: Digest, diff_id: Option<Digest>) -> u32 {
        if let Some(number) = self.layers.get(&digest) {
            return *number;
        }
        let Ok(number) = u32::try_from(self.inventory.layers.len()) else { return 0 };
        if self.inventory.layers.len() >= MAX_LAYERS {
            return 0;
        }
        self.layers.insert(digest, number);
        let layer = LayerReference { digest, diff_id, created_by: String::new(), size: 0 };
        self.inventory.layers.push(layer);
        number
    }

    /// Takes a component that was counted.
    pub(super) fn component(&mut self, mut component: Component) {
        match component.kind {
            Kind::Other | Kind::Image => return,
            Kind::OperatingSystem => return self.operating_system(&component),
            Kind::Package => {}
        }
        if component.purl.is_empty() {
            let name = std::mem::take(&mut component.name);
            return self.problem(&name, "has no package URL and can't be matched".to_owned());
        }
        let Some(url) = PackageUrl::parse(&component.purl) else {
            let name = std::mem::take(&mut component.name);
            return self.problem(&name, "its package URL can't be read".to_owned());
        };
        if self.hinted.is_none() {
            self.hinted = url.distribution();
        }
        match url.meaning(&component.name) {
            Meaning::Image | Meaning::Source => {}
            Meaning::Other => {
                let kind: String = url.kind.chars().take(32).collect();
                let why = format!("there are no advisories for packages of type {kind}");
                self.problem(&component.name, why);
            }
            Meaning::Package(package) => self.package(package, component),
        }
    }

    fn package(&mut self, mut package: Package, component: Component) {
        if package.version.is_empty() && !component.version.is_empty() {
            package.version.clone_from(&component.version);
        }
        let is_word = |word: &str| word.len() <= MAX_WORD && !word.chars().any(char::is_control);
        let known = !package.version.is_empty()
            && is_word(&package.version)
            && is_word(&package.name)
            && package.arch.as_deref().is_none_or(is_word);
        if !known {
            return self.problem(&package.name, "has no usable version".to_owned());
        }
        if package.source.is_none() {
            package.source = trivy_source(&package, &component);
        }
        if package.module.is_none() {
            let label = component.property(&["aquasecurity:trivy:Modularitylabel"]);
            package.module =
                label.map(|label| label.splitn(3, ':').take(2).collect::<Vec<_>>().join(":"));
        }
        package.role = component.property(&[names::ROLE]).map(str::to_owned);
        let repositories =
            component.properties.iter().filter(|(name, _)| name == names::REPOSITORY);
        package.repositories.extend(repositories.map(|(_, value)| value.clone()));
        package.repositories.truncate(MAX_REPOSITORIES);
        let path = component.property(&[
            names::PATH,
            "aquasecurity:trivy:FilePath",
            "syft:location:0:path",
        ]);
        let path = path.unwrap_or(&component.path).trim_start_matches('/').to_owned();
        let digest = component.property(&[names::LAYER, "aquasecurity:trivy:LayerDigest"]);
        let diff_id = component.property(&[
            names::DIFF_ID,
            "aquasecurity:trivy:LayerDiffID",
            "syft:location:0:layerID",
        ]);
        let diff_id: Option<Digest> = diff_id.and_then(|text| text.parse().ok());
        let digest = digest.and_then(|text| text.parse().ok()).or(diff_id);
        let layer = digest.map_or(0, |digest| self.layer(digest, diff_id));
        let owned = component.property(&[names::OWNED]) == Some("true");
        let by = component.property(&[names::INDEXER]).unwrap_or(BY).to_owned();
        package.licenses = component.licenses;
        package.licenses.truncate(MAX_LICENSES);
        self.inventory.packages.push(PlacedPackage { package, path, by, layer, owned });
    }

    fn operating_system(&mut self, component: &Component) {
        if component.name.is_empty() || self.inventory.distribution.is_some() {
            return;
        }
        let text = |names: &[&str]| component.property(names).unwrap_or_default().to_owned();
        let id_like = text(&[names::ID_LIKE, "syft:distro:idLike:0"]);
        let id = component.property(&["syft:distro:id"]).unwrap_or(&component.name);
        let version = match component.version.as_str() {
            "" => text(&["syft:distro:versionID"]),
            // `12 (bookworm)`
            version => version.split(' ').next().unwrap_or_default().to_owned(),
        };
        self.inventory.distribution = Some(Distribution {
            id: canonical_id(id, &version),
            version_id: version,
            version: text(&[names::VERSION]),
            codename: text(&[names::CODENAME, "syft:distro:versionCodename"]),
            name: text(&[names::NAME, "syft:distro:name"]),
            pretty_name: match component.about.as_str() {
                "" => text(&["syft:distro:prettyName"]),
                about => about.to_owned(),
            },
            cpe: text(&[names::CPE]),
            id_like: id_like.split_whitespace().take(16).map(str::to_owned).collect(),
            variant: text(&[names::VARIANT, "syft:distro:variantID"]),
        });
    }

    /// Packages whose licences are changed at the end.
    pub(super) fn packages(&mut self) -> &mut [PlacedPackage] {
        &mut self.inventory.packages
    }

    pub(super) fn finish(mut self, format: SbomFormat) -> SbomDocument {
        let mut inventory = self.inventory;
        if inventory.distribution.is_none() {
            inventory.distribution = self.hinted;
        }
        let packages = &mut inventory.packages;
        packages.sort_by(|one, other| {
            let key = |placed: &PlacedPackage| (placed.package.ecosystem, placed.layer);
            (key(one).0, &one.package.name, &one.package.version, &one.path)
                .cmp(&(key(other).0, &other.package.name, &other.package.version, &other.path))
                .then_with(|| key(one).1.cmp(&key(other).1))
        });
        let mut seen = HashSet::new();
        let keep: Vec<bool> = packages
            .iter()
            .map(|placed| seen.insert((placed.package.clone(), placed.path.clone())))
            .collect();
        let mut keep = keep.into_iter();
        packages.retain(|_| keep.next().unwrap_or(true));
        if self.more_problems > 0 {
            let why = format!("and {} more problems", self.more_problems);
            inventory.problems.push(Problem { path: String::new(), by: BY.to_owned(), why });
        }
        if packages.is_empty() && inventory.problems.is_empty() {
            let why = "the bill of materials names no packages".to_owned();
            inventory.problems.push(Problem { path: String::new(), by: BY.to_owned(), why });
        }
        if self.identity.platform == "linux/x86_64" {
            self.identity.platform = "linux/amd64".to_owned();
        }
        SbomDocument { identity: self.identity, inventory, format }
    }
}

/// Trivy states the source package in properties.
fn trivy_source(package: &Package, component: &Component) -> Option<Source> {
    let get = |name: &str| component.property(&[name]);
    let name = get("aquasecurity:trivy:SrcName")?.to_owned();
    let mut version = get("aquasecurity:trivy:SrcVersion")?.to_owned();
    if let Some(release) = get("aquasecurity:trivy:SrcRelease") {
        version = format!("{version}-{release}");
    }
    if let Some(epoch) = get("aquasecurity:trivy:SrcEpoch").filter(|epoch| *epoch != "0") {
        version = format!("{epoch}:{version}");
    }
    let differs = name != package.name || version != package.version;
    differs.then_some(Source { name, version })
}
