//! Names of the properties by which our CycloneDX documents carry what the form has no field for.

pub(super) const PATH: &str = "kuboard:path";
pub(super) const LAYER: &str = "kuboard:layer:digest";
pub(super) const DIFF_ID: &str = "kuboard:layer:diff-id";
pub(super) const INDEXER: &str = "kuboard:indexer";
pub(super) const OWNED: &str = "kuboard:owned-by-package";
pub(super) const ROLE: &str = "kuboard:role";
pub(super) const REPOSITORY: &str = "kuboard:repository";
pub(super) const IMAGE: &str = "kuboard:image:name";
pub(super) const REGISTRY: &str = "kuboard:image:registry";
pub(super) const IMAGE_REPOSITORY: &str = "kuboard:image:repository";
pub(super) const TAG: &str = "kuboard:image:tag";
pub(super) const CONFIG: &str = "kuboard:image:config";
pub(super) const PLATFORM: &str = "kuboard:image:platform";
pub(super) const IMAGE_LAYER: &str = "kuboard:image:layer";
pub(super) const CODENAME: &str = "kuboard:distribution:codename";
pub(super) const CPE: &str = "kuboard:distribution:cpe";
pub(super) const ID_LIKE: &str = "kuboard:distribution:id-like";
pub(super) const NAME: &str = "kuboard:distribution:name";
pub(super) const VARIANT: &str = "kuboard:distribution:variant";
pub(super) const VERSION: &str = "kuboard:distribution:version";
pub(super) const OUTCOME: &str = "kuboard:outcome";
pub(super) const PROBLEM: &str = "kuboard:problem";
