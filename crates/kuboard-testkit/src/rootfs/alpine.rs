//! An Alpine root that holds what a scanner looks at: the apk database of a real image and the
//! release files. The programs themselves are not there.

use std::path::Path;

use anyhow::Result;

use super::image::RealImage;
use super::layer::{Layer, Package, write};

const DATABASE: &str = include_str!("recorded/alpine-installed");

const RELEASE: &str = "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.16.2\n\
    PRETTY_NAME=\"Alpine Linux v3.16\"\nHOME_URL=\"https://alpinelinux.org/\"\n";

pub(super) fn image() -> Result<RealImage> {
    RealImage::kept("alpine", vec![layer()?])
}

pub(crate) fn layer() -> Result<Layer> {
    Layer::kept("alpine", 1, |tree| fill(tree, "lib/apk/db/installed"))
}

/// With the database where apk-tools 3 keeps it.
pub(super) fn image_usr() -> Result<RealImage> {
    let layer = Layer::kept("alpine-usr", 1, |tree| fill(tree, "usr/lib/apk/db/installed"))?;
    RealImage::kept("alpine-usr", vec![layer])
}

fn fill(tree: &Path, database: &str) -> Result<Vec<Package>> {
    write(&tree.join(database), DATABASE.as_bytes())?;
    write(&tree.join("etc/os-release"), RELEASE.as_bytes())?;
    write(&tree.join("etc/alpine-release"), b"3.16.2\n")?;
    let repositories = "https://dl-cdn.alpinelinux.org/alpine/v3.16/main\n\
        https://dl-cdn.alpinelinux.org/alpine/v3.16/community\n";
    write(&tree.join("etc/apk/repositories"), repositories.as_bytes())?;
    Ok(packages(DATABASE))
}

fn packages(database: &str) -> Vec<Package> {
    let paragraphs = database.split("\n\n");
    let value = |paragraph: &str, key: &str| {
        let mut lines = paragraph.lines();
        lines.find_map(|line| line.strip_prefix(key).map(str::to_owned))
    };
    paragraphs
        .filter_map(|it| Some(Package::new("apk", &value(it, "P:")?, value(it, "V:")?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{DATABASE, packages};

    #[test]
    fn the_recorded_database_lists_its_packages() {
        let found = packages(DATABASE);
        assert_eq!(found.len(), 14);
        assert!(found.iter().any(|it| it.name == "zlib" && it.version == "1.2.12-r3"));
    }
}
