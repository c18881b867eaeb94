//! Real images for the scanner's tests and measurements, made on the spot: the base systems here,
//! the applications on top of them in [`crate::apps`].
//!
//! Every image carries what the ecosystem's own tool says is in it ([`Package`]), so that an
//! inventory can be judged without asking another scanner. Layers and images are made once a
//! machine and kept in the fixtures folder outside the checkout; the first call takes minutes and
//! downloads from Debian, crates.io, PyPI, npm, Maven Central and the Go module proxy.

mod alpine;
mod apt;
mod debian;
mod image;
mod kept;
mod layer;
mod rpm;

use anyhow::{Context, Result};

use crate::apps;

pub use image::RealImage;
pub use layer::{Layer, Package};

pub(crate) use alpine::layer as alpine_layer;
pub(crate) use debian::{base_layer as debian_layer, distroless_layer};
pub(crate) use kept::home;
pub use kept::kept;
pub(crate) use rpm::almalinux_layer;

type Make = fn() -> Result<RealImage>;

/// Every image by its name.
const IMAGES: &[(&str, Make)] = &[
    ("debian", debian::bookworm),
    ("debian-stacks", debian::stacks),
    ("distroless", debian::distroless),
    ("alpine", alpine::image),
    ("alpine-usr", alpine::image_usr),
    ("almalinux-sqlite", rpm::almalinux_sqlite),
    ("almalinux-bdb", rpm::almalinux_bdb),
    ("almalinux-made", rpm::almalinux_made),
    ("ubi-bdb", rpm::ubi_bdb),
    ("sles-ndb", rpm::sles_ndb),
    ("fedora-sqlite", rpm::fedora_sqlite),
    ("go-app", apps::go::image),
    ("rust-app", apps::rust::image),
    ("python-app", apps::python::image),
    ("node-app", apps::node::image),
    ("java-app", apps::java::image),
];

/// The names that [`image`] knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    IMAGES.iter().map(|(name, _)| *name)
}

/// The image of this name from the cache, made first if it is not there.
///
/// - `debian`: bookworm's essential packages, apt, python3, openssl, curl, git, nginx-light: one
///   gzip layer of about 100 MB.
/// - `debian-stacks`: the same and a layer of Debian's own Python, Ruby, Node and Java libraries.
/// - `distroless`: packages described under `var/lib/dpkg/status.d`.
/// - `alpine`, `alpine-usr`: an apk database at the old and at the new path; no programs.
/// - `almalinux-*`, `ubi-bdb`, `sles-ndb`, `fedora-sqlite`: rpm databases of each format, without
///   the packages' files. `almalinux-made` was written by rpm itself, from packages built here.
/// - `go-app` (on distroless), `rust-app` (on distroless), `python-app` (on debian), `node-app`
///   (on alpine), `java-app` (on almalinux-sqlite): old versions with known vulnerabilities.
pub fn image(name: &str) -> Result<RealImage> {
    let found = IMAGES.iter().find(|(known, _)| *known == name);
    let (_, make) = found.with_context(|| format!("no image is called {name}"))?;
    make().with_context(|| format!("make the image {name}"))
}

/// The image with one more small layer (a Python package and some noise), which differs for each
/// `number`: what a rebuilt application on the same base looks like.
pub fn rebuilt(base: &RealImage, number: u32) -> Result<RealImage> {
    let layer = Layer::kept(&format!("rebuilt-{number}"), 1, |tree| {
        let metadata = tree.join("usr/lib/python3/dist-packages/rebuilt-1.0.dist-info/METADATA");
        layer::write(
            &metadata,
            format!("Metadata-Version: 2.1\nName: rebuilt\nVersion: 1.0.{number}\n").as_bytes(),
        )?;
        layer::write(
            &tree.join("srv/noise"),
            &crate::image::Blob::random(u64::from(number), 100_000).bytes,
        )?;
        Ok(vec![Package::new("pypi", "rebuilt", format!("1.0.{number}"))])
    })?;
    base.plus(&format!("{}-rebuilt-{number}", base.name), layer)
}
