//! A Python application: wheels that pip installed, on Debian.

use std::path::Path;

use anyhow::Result;

use crate::rootfs::{Layer, Package, RealImage, debian_layer};
use crate::tool;

/// Name and version; those of the first lines have entries in PyPI's advisory database.
const PACKAGES: &[(&str, &str)] = &[
    ("Django", "2.2"),
    ("Jinja2", "2.10"),
    ("Pillow", "9.3.0"),
    ("requests", "2.19.1"),
    ("urllib3", "1.23"),
    ("certifi", "2018.4.16"),
    ("chardet", "3.0.4"),
    ("idna", "2.7"),
    ("MarkupSafe", "2.1.5"),
    ("pytz", "2018.9"),
    ("sqlparse", "0.2.4"),
];

pub(crate) fn image() -> Result<RealImage> {
    let layer = Layer::kept("python-app", 1, fill)?;
    RealImage::kept("python-app", vec![debian_layer()?, layer])
}

fn fill(tree: &Path) -> Result<Vec<Package>> {
    let mut install = tool::command("pip3")?;
    install
        .args(["install", "--quiet", "--no-compile", "--no-deps", "--only-binary=:all:"])
        // As on bookworm, whatever Python this machine has.
        .args(["--python-version=3.11", "--platform=manylinux2014_x86_64", "--target"])
        .arg(tree.join("usr/local/lib/python3.11/dist-packages"))
        .args(PACKAGES.iter().map(|(name, version)| format!("{name}=={version}")))
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    tool::output(&mut install)?;
    Ok(PACKAGES.iter().map(|(name, version)| Package::new("pypi", name, *version)).collect())
}
