//! What a person names to be scanned.

use std::path::{Path, PathBuf};

use kuboard_oci::{Digest, ImageReference};

use super::containerd::CONTAINERD_CONTENT;

/// What is to be scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An image in a registry.
    Registry(ImageReference),
    /// What `docker save` wrote; an image in it by name.
    DockerArchive(PathBuf, Option<String>),
    /// An OCI layout in a tar file; an image in it by tag or digest.
    OciArchive(PathBuf, Option<String>),
    /// An OCI layout in a folder; an image in it by tag or digest.
    OciLayout(PathBuf, Option<String>),
    /// The root folder of a system.
    Folder(PathBuf),
    /// A bill of materials.
    Sbom(PathBuf),
    /// An image in a content store of containerd.
    Containerd(PathBuf, Digest),
}

/// It is none of these.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(String);

impl Target {
    /// Reads `docker-archive:FILE[:NAME]`, `oci-archive:FILE[:TAG]`, `oci:FOLDER[:TAG]`,
    /// `dir:FOLDER`, `sbom:FILE`, `containerd:[STORE@]DIGEST`, an existing path, or an image's
    /// name.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some((kind, rest)) = text.split_once(':') {
            let named = |make: fn(PathBuf, Option<String>) -> Self| {
                let (path, name) = split_name(rest);
                make(path, name)
            };
            match kind {
                "docker-archive" => return Ok(named(Self::DockerArchive)),
                "oci-archive" => return Ok(named(Self::OciArchive)),
                "oci" | "oci-dir" => return Ok(named(Self::OciLayout)),
                "dir" => return Ok(Self::Folder(rest.into())),
                "sbom" => return Ok(Self::Sbom(rest.into())),
                "containerd" => return containerd(rest),
                _ => {}
            }
        }
        let path = Path::new(text);
        if path.exists() {
            return existing(path);
        }
        if text.starts_with(['/', '.']) {
            return Err(TargetError(format!("{text} does not exist")));
        }
        text.parse().map(Self::Registry).map_err(|error| {
            TargetError(format!("{text:?} is no file here and no image's name: {error}"))
        })
    }
}

/// The longest prefix that exists is the path; what follows its colon is a name.
fn split_name(text: &str) -> (PathBuf, Option<String>) {
    let mut end = text.len();
    loop {
        if Path::new(&text[..end]).exists() {
            let name = text.get(end + 1..).filter(|name| !name.is_empty());
            return (text[..end].into(), name.map(str::to_owned));
        }
        match text[..end].rfind([':', '@']) {
            Some(colon) => end = colon,
            None => return (text.into(), None),
        }
    }
}

fn containerd(text: &str) -> Result<Target, TargetError> {
    let (store, digest) = match text.split_once('@') {
        Some((store, digest)) => (PathBuf::from(store), digest),
        None => (PathBuf::from(CONTAINERD_CONTENT), text),
    };
    let digest = digest.parse().map_err(|_| {
        TargetError("an image in containerd is named by its digest: sha256:…".to_owned())
    })?;
    Ok(Target::Containerd(store, digest))
}

fn existing(path: &Path) -> Result<Target, TargetError> {
    if path.is_dir() {
        return Ok(match path.join("oci-layout").exists() {
            true => Target::OciLayout(path.to_owned(), None),
            false => Target::Folder(path.to_owned()),
        });
    }
    let mut head = [0; 64];
    let read =
        std::fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut head));
    let head =
        &head[..read.map_err(|error| TargetError(format!("{}: {error}", path.display())))?];
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    if matches!(text.first(), Some(b'{' | b'<')) {
        return Ok(Target::Sbom(path.to_owned()));
    }
    // Docker's archives since version 25 are layouts too, with manifest.json for older readers:
    // both readings are right, and this one knows the names that docker was asked for.
    let temporary = std::env::temp_dir();
    let tar = super::archive::TarFile::open(path, &temporary)
        .map_err(|error| TargetError(format!("{}: {error}", path.display())))?;
    if tar.has("manifest.json") {
        Ok(Target::DockerArchive(path.to_owned(), None))
    } else if tar.has("index.json") {
        Ok(Target::OciArchive(path.to_owned(), None))
    } else {
        Err(TargetError(format!(
            "{} is an archive without manifest.json or index.json: no image; hint: unpack it and \
             scan it with dir:FOLDER",
            path.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn targets_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a:b");
        std::fs::create_dir(&root).unwrap();
        let layout = folder.path().join("layout");
        std::fs::create_dir(&layout).unwrap();
        std::fs::write(layout.join("oci-layout"), "{}").unwrap();
        let sbom = folder.path().join("sbom");
        std::fs::write(&sbom, " {\"bomFormat\": 1}").unwrap();
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, expected) in [
            (root.display().to_string(), Target::Folder(root.clone())),
            (format!("dir:{}", root.display()), Target::Folder(root.clone())),
            (layout.display().to_string(), Target::OciLayout(layout.clone(), None)),
            (format!("oci:{}", root.display()), Target::OciLayout(root.clone(), None)),
            (format!("oci:{}:1.2", root.display()), Target::OciLayout(root, Some("1.2".into()))),
            (sbom.display().to_string(), Target::Sbom(sbom)),
            ("alpine:3.20".into(), Target::Registry("alpine:3.20".parse().unwrap())),
            (
                format!("containerd:/store@{digest}"),
                Target::Containerd("/store".into(), digest.parse().unwrap()),
            ),
        ] {
            assert_eq!(Target::parse(&text), Ok(expected), "{text}");
        }
        for (text, reason) in [
            ("./missing", "does not exist"),
            ("Bad Name", "no image's name"),
            ("containerd:alpine", "by its digest"),
        ] {
            let error = Target::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
