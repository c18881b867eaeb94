//! From the images of pods to digests, through this registry: what a pod will get is what the
//! cache would serve it.

use std::{sync::Arc, time::Duration};

use kuboard_admission::{Digests, Name, Puller, Resolved, Unresolved};
use kuboard_api::{Rules, Target};
use kuboard_oci::{Digest, ImageReference, Manifest, Platform, Reference, RepositoryName};
use kuboard_rt::{BoxFuture, Clock};
use kuboard_scan::{
    engine::Repositories,
    source::{Contents, Document, SourceError, SourceErrorKind},
};
use parking_lot::Mutex;

use super::memory::Recent;

/// Names that are remembered.
const MAX_NAMES: usize = 50_000;
/// How long a tag is answered from memory: no longer than the cache itself would.
const TAG_TTL: Duration = Duration::from_secs(30);

/// Which of this registry's repositories an image name means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Name of the upstream's rule; empty for hosted repositories.
    pub(crate) registry: String,
    pub(crate) repository: RepositoryName,
}

/// Where images are looked up.
#[derive(Clone)]
pub(crate) struct Places {
    pub(crate) rules: Arc<Rules>,
    /// Names of this registry, in lower case, with ports.
    pub(crate) own: Vec<String>,
}

impl Places {
    /// The repository that an image name means; `None` if no rule knows its registry.
    pub(crate) fn of(&self, image: &ImageReference) -> Option<Place> {
        let target = match self.own.contains(&image.registry) {
            true => self.rules.target(None, Some(&image.registry), &image.repository),
            false => self.rules.target(Some(&image.registry), None, &image.repository),
        };
        match target {
            Target::Upstream { registry, repository, .. } => Some(Place { registry, repository }),
            Target::Hosted { repository, .. } => {
                Some(Place { registry: String::new(), repository })
            }
            Target::UnknownNamespace { .. } => None,
        }
    }
}

/// Looks images up through a registry.
pub(crate) struct RegistryDigests {
    pub(crate) places: Places,
    pub(crate) repositories: Arc<dyn Repositories>,
    /// `(os, architecture)` of the nodes.
    pub(crate) platforms: Vec<(String, String)>,
    pub(crate) clock: Arc<dyn Clock>,
    known: Mutex<Recent<ImageReference, Arc<Resolved>>>,
}

impl RegistryDigests {
    pub(crate) fn new(
        places: Places,
        repositories: Arc<dyn Repositories>,
        platforms: Vec<(String, String)>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let known = Mutex::new(Recent::new(MAX_NAMES));
        Self { places, repositories, platforms, clock, known }
    }

    async fn look(&self, image: &ImageReference) -> Result<Resolved, Unresolved> {
        let place = self.places.of(image).ok_or_else(|| {
            Unresolved::Refused(format!(
                "no rule knows the registry {}; hint: add [[upstream]] name = \"{}\"",
                image.registry, image.registry
            ))
        })?;
        let contents = self.repositories.contents(&place.registry, &place.repository);
        let contents = contents.map_err(unresolved)?;
        let document = manifest(&*contents, image).await?;
        let digest = document.digest;
        let manifests = self.manifests_of(&document)?;
        Ok(Resolved { digest, manifests: manifests.into() })
    }

    /// The image manifests behind a document, for the platforms of the nodes.
    fn manifests_of(&self, document: &Document) -> Result<Vec<Digest>, Unresolved> {
        let read = Manifest::parse(&document.bytes, Some(&document.media_type));
        let read = read.map_err(|error| Unresolved::Refused(error.to_string()))?;
        if !read.is_index() {
            return Ok(vec![document.digest]);
        }
        let wanted = |platform: &Platform| {
            self.platforms.iter().any(|(os, architecture)| {
                platform.os == *os && platform.architecture == *architecture
            })
        };
        let children = read.manifests.iter();
        let mut found: Vec<Digest> = children
            .filter(|child| child.platform.as_ref().is_none_or(wanted))
            .map(|child| child.digest)
            .collect();
        found.dedup();
        Ok(found)
    }
}

async fn manifest(contents: &dyn Contents, image: &ImageReference) -> Result<Document, Unresolved> {
    let reference = match (&image.digest, &image.tag) {
        (Some(digest), _) => Reference::Digest(*digest),
        (None, Some(tag)) => Reference::Tag(tag.clone()),
        (None, None) => {
            "latest".parse().map_err(|_| Unresolved::Refused("\"latest\" is no tag".to_owned()))?
        }
    };
    contents.manifest(Some(&reference)).await.map_err(unresolved)
}

fn unresolved(error: SourceError) -> Unresolved {
    let SourceError { kind, message } = error;
    match kind {
        SourceErrorKind::NotFound => Unresolved::NotFound(message),
        SourceErrorKind::Unreachable => Unresolved::Unreachable(message),
        _ => Unresolved::Refused(message),
    }
}

impl Digests for RegistryDigests {
    fn name(&self, image: &ImageReference) -> Name {
        let written = Name::of(image);
        match self.places.of(image) {
            Some(place) => Name {
                registry: place.registry,
                repository: place.repository.to_string(),
                tag: written.tag,
            },
            None => written,
        }
    }

    fn known(&self, image: &ImageReference) -> Option<Arc<Resolved>> {
        let now_ms = self.clock.now_ms();
        let known = self.known.lock();
        let (found, at_ms) = known.get(image)?;
        let is_fresh =
            image.digest.is_some() || now_ms.abs_diff(*at_ms) < TAG_TTL.as_millis() as u64;
        is_fresh.then(|| found.clone())
    }

    fn resolve<'a>(
        &'a self,
        image: &'a ImageReference,
        _puller: &'a Puller,
    ) -> BoxFuture<'a, Result<Arc<Resolved>, Unresolved>> {
        Box::pin(async move {
            let found = Arc::new(self.look(image).await?);
            let now_ms = self.clock.now_ms();
            self.known.lock().put(image.clone(), found.clone(), now_ms);
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kuboard_api::{Config, Rules};

    use super::Places;

    #[test]
    fn images_of_pods_mean_repositories_of_this_registry() {
        let text = "[[upstream]]\nname = \"harbor.test\"\nhosts = [\"registry.internal\"]\n";
        let config = Config::parse(text).unwrap();
        let places = Places {
            rules: Arc::new(Rules::new(&config).unwrap()),
            own: vec!["localhost:5000".to_owned(), "registry.internal".to_owned()],
        };
        let check = |image: &str, want: Option<(&str, &str)>| {
            let place = places.of(&image.parse().unwrap());
            let got = place.as_ref().map(|it| (it.registry.as_str(), it.repository.as_str()));
            assert_eq!(got, want, "{image}");
        };
        check("nginx", Some(("docker.io", "library/nginx")));
        check("ghcr.io/a/b:1", Some(("ghcr.io", "a/b")));
        check("localhost:5000/team/app", Some(("", "team/app")));
        check("localhost:5000/docker.io/nginx", Some(("docker.io", "library/nginx")));
        check("registry.internal/team/app", Some(("harbor.test", "team/app")));
        check("unknown.test/a/b", None);
        check("localhost:5001/team/app", None);
    }
}
