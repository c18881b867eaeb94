//! Images that do something when a kubelet starts them: Debian's static busybox and nothing else.

use std::fs;

use anyhow::{Context, Result};
use kuboard_oci::media_type;
use serde_json::json;

use crate::archive::Tar;
use crate::image::{Blob, Image};
use crate::tool;

/// Programs that get names of their own in `/bin`.
const APPLETS: &[&str] = &["cat", "echo", "httpd", "id", "ls", "nc", "sh", "sleep", "true", "wget"];

/// An image that runs these arguments of busybox, for example `["sleep", "3600"]`; the same
/// arguments give the same digest.
pub fn program(arguments: &[&str]) -> Result<Image> {
    let busybox = std::iter::once("/bin/busybox").chain(arguments.iter().copied());
    image(&busybox.map(str::to_owned).collect::<Vec<_>>(), "", Vec::new())
}

/// An image that sleeps for ever; another `label` gives another digest with the same layer.
pub fn busybox(label: &str) -> Result<Image> {
    busybox_with(label, Vec::new())
}

/// The same with one more layer, an archive, such as the files of a package database.
pub fn busybox_with(label: &str, archive: Vec<u8>) -> Result<Image> {
    let more = if archive.is_empty() { Vec::new() } else { vec![archive] };
    image(&["/bin/sleep".to_owned(), "1000000000".to_owned()], label, more)
}

fn image(command: &[String], label: &str, more: Vec<Vec<u8>>) -> Result<Image> {
    let binary = binary()?;
    let mut archive = Tar::new(Vec::with_capacity(binary.len() + 16_384));
    for folder in ["bin", "etc", "tmp"] {
        archive.folder(folder)?;
    }
    archive.file("bin/busybox", 0o755, &binary)?;
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    let archives = std::iter::once(archive.finish()?).chain(more);
    let layers: Vec<Blob> = archives.map(Blob::new).collect();
    let diff_ids: Vec<String> = layers.iter().map(|it| it.digest.to_string()).collect();
    let config = Blob::new(serde_json::to_vec(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": command, "Env": ["PATH=/bin"], "Labels": {"label": label}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))?);
    let describe = |kind: &str, blob: &Blob| json!({"mediaType": kind, "digest": blob.digest.to_string(), "size": blob.bytes.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": describe(media_type::OCI_CONFIG, &config),
        "layers": layers.iter().map(|it| describe(media_type::OCI_LAYER, it)).collect::<Vec<_>>(),
    });
    let blobs = std::iter::once(config).chain(layers).collect();
    Image::from_manifest(&manifest, media_type::OCI_MANIFEST, blobs, Vec::new())
}

/// Debian's busybox-static, which links to nothing.
fn binary() -> Result<Vec<u8>> {
    let file = tool::find("busybox")?;
    fs::read(&file).with_context(|| format!("read {}", file.display()))
}

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
