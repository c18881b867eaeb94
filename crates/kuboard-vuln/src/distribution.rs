//! The distribution that an image is made of.

use serde::{Deserialize, Serialize};

/// What `os-release`, or the files of older distributions, say. Empty strings where they say
/// nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Distribution {
    /// `ID`: `debian`, `alpine`, `rhel`, `almalinux`, `amzn`, `sles`, `wolfi`, …
    pub id: String,
    /// `VERSION_ID`: `12`, `3.20.1`, `9.4`.
    pub version_id: String,
    /// `VERSION`.
    pub version: String,
    /// `VERSION_CODENAME`: `bookworm`.
    pub codename: String,
    /// `NAME`.
    pub name: String,
    /// `PRETTY_NAME`.
    pub pretty_name: String,
    /// `CPE_NAME`.
    pub cpe: String,
    /// `ID_LIKE`, its words.
    pub id_like: Vec<String>,
    /// `VARIANT_ID`.
    pub variant: String,
}
