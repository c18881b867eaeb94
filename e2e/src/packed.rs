//! Small images whose packages are known because they were written down here, and the advisories
//! that concern them. None of it is true outside the tests.

use std::path::Path;

use anyhow::Result;
use kuboard_oci::{Digest, media_type};
use kuboard_testkit::Image;
use kuboard_testkit::archive::Tar;
use kuboard_testkit::feeds::{self, Debian, Feeds, Osv, Score};
use kuboard_testkit::image::Blob;
use serde_json::{Value, json};

/// The files of a layer: path and content.
pub type Files = Vec<(String, Vec<u8>)>;

/// An image for linux/amd64 of these layers, uncompressed. `number` sets it apart from others.
pub fn image(number: u64, layers: &[Files]) -> Result<Image> {
    let layers = layers.iter().map(layer).collect::<Result<Vec<_>>>()?;
    of_blobs(number, layers.into_iter().map(Blob::new).collect())
}

/// An image whose layers are these bytes, whatever they are.
pub fn of_blobs(number: u64, layers: Vec<Blob>) -> Result<Image> {
    let diff_ids: Vec<String> = layers.iter().map(|it| it.digest.to_string()).collect();
    let config = Blob::new(serde_json::to_vec(&json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"number": number.to_string()}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": describe(media_type::OCI_CONFIG, &config),
        "layers": layers.iter().map(|it| describe(media_type::OCI_LAYER, it)).collect::<Vec<_>>(),
    });
    let mut image = Image::oci(number, &[])?;
    image.blobs = std::iter::once(config).chain(layers).collect();
    become_manifest(&mut image, &manifest)?;
    Ok(image)
}

/// An index as BuildKit pushes it: images by their platform, each with an attestation that says
/// what it was built of.
pub fn attested_index(images: &[(&str, &Image)]) -> Result<Image> {
    let mut index = Image::index(Vec::new())?;
    let mut manifests = Vec::new();
    for (platform, image) in images {
        let (os, architecture) = platform.split_once('/').unwrap_or(("linux", platform));
        let mut one = image.descriptor();
        one["platform"] = json!({"os": os, "architecture": architecture});
        manifests.push(one);
        let attestation = attestation(image)?;
        let mut other = attestation.descriptor();
        other["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        other["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image.digest.to_string(),
        });
        manifests.push(other);
        index.children.extend([(*image).clone(), attestation]);
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests,
    });
    become_manifest(&mut index, &manifest)?;
    Ok(index)
}

fn attestation(image: &Image) -> Result<Image> {
    let statement = Blob::new(serde_json::to_vec(&json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": [{"digest": {"sha256": image.digest.hex()}}],
    }))?);
    let mut config = json!({
        "architecture": "unknown", "os": "unknown", "config": {},
    });
    config["rootfs"] = json!({"type": "layers", "diff_ids": [statement.digest.to_string()]});
    let config = Blob::new(serde_json::to_vec(&config)?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": describe(media_type::OCI_CONFIG, &config),
        "layers": [describe("application/vnd.in-toto+json", &statement)],
    });
    let mut attestation = Image::oci(0, &[])?;
    attestation.blobs = vec![config, statement];
    become_manifest(&mut attestation, &manifest)?;
    Ok(attestation)
}

fn describe(kind: &str, blob: &Blob) -> Value {
    json!({"mediaType": kind, "digest": blob.digest.to_string(), "size": blob.bytes.len()})
}

fn become_manifest(image: &mut Image, manifest: &Value) -> Result<()> {
    let bytes = serde_json::to_vec(manifest)?;
    image.digest = Digest::sha256(&bytes);
    image.manifest = bytes.into();
    Ok(())
}

/// A layer's archive with every folder that its files need.
pub fn layer(files: &Files) -> Result<Vec<u8>> {
    let mut archive = Tar::new(Vec::new());
    let mut made = std::collections::BTreeSet::new();
    for (path, content) in files {
        let slashes = path.char_indices().filter(|(_, letter)| *letter == '/');
        for (at, _) in slashes {
            if made.insert(&path[..at]) {
                archive.folder(&path[..at])?;
            }
        }
        archive.file(path, 0o644, content)?;
    }
    archive.finish()
}

/// Writes the files below a folder, as they are once the image runs.
pub fn unpack(layers: &[Files], folder: &Path) -> Result<()> {
    for (path, content) in layers.iter().flatten() {
        if let Some((above, name)) = path.rsplit_once("/.wh.") {
            std::fs::remove_dir_all(folder.join(above).join(name))?;
            continue;
        }
        let file = folder.join(path);
        std::fs::create_dir_all(file.parent().unwrap_or(folder))?;
        std::fs::write(file, content)?;
    }
    Ok(())
}

/// Debian 12 with these packages: name, version, source package.
pub fn debian(packages: &[(&str, &str, &str)]) -> Files {
    let mut status = String::new();
    for (name, version, source) in packages {
        status.push_str(&format!(
            "Package: {name}\nStatus: install ok installed\nPriority: optional\nSection: libs\n\
             Installed-Size: 1\nMaintainer: Nobody <nobody@example.com>\nArchitecture: amd64\n"
        ));
        if source != name {
            status.push_str(&format!("Source: {source}\n"));
        }
        status.push_str(&format!("Version: {version}\nDescription: made for a test\n\n"));
    }
    let release = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\n\
        VERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
    vec![file("etc/os-release", release), file("var/lib/dpkg/status", &status)]
}

/// A Python package, as pip installs it.
pub fn wheel(name: &str, version: &str) -> Files {
    let at = format!("usr/local/lib/python3.11/dist-packages/{name}-{version}.dist-info");
    let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText.\n");
    vec![file(&format!("{at}/METADATA"), &text), file(&format!("{at}/INSTALLER"), "pip\n")]
}

/// A Node package of the application `srv/app`.
pub fn node_module(name: &str, version: &str) -> Files {
    let manifest = json!({"name": name, "version": version, "license": "MIT"});
    vec![file(&format!("srv/app/node_modules/{name}/package.json"), &manifest.to_string())]
}

/// A Java archive that Maven built.
pub fn jar(group: &str, artifact: &str, version: &str) -> Result<Files> {
    let properties =
        format!("version={version}\ngroupId={group}\nartifactId={artifact}\n").into_bytes();
    let archive = feeds::zip(&[
        ("META-INF/MANIFEST.MF".to_owned(), b"Manifest-Version: 1.0\r\n\r\n".to_vec()),
        (format!("META-INF/maven/{group}/{artifact}/pom.properties"), properties),
    ])?;
    Ok(vec![(format!("srv/app/{artifact}-{version}.jar"), archive)])
}

/// A text file.
pub fn file(path: &str, text: &str) -> (String, Vec<u8>) {
    (path.to_owned(), text.as_bytes().to_vec())
}

/// Debian with packages of three languages, one of which a later layer takes away again.
pub fn application() -> Result<Vec<Files>> {
    let base = debian(&[
        ("bash", "5.2.15-2", "bash"),
        ("libssl3", "3.0.9-1", "openssl"),
        ("openssl", "3.0.9-1", "openssl"),
        ("zlib1g", "1:1.2.13.dfsg-1", "zlib"),
    ]);
    let mut languages = wheel("Django", "2.2");
    languages.extend(node_module("lodash", "4.17.15"));
    languages.extend(node_module("minimist", "1.2.0"));
    languages.extend(jar("org.apache.logging.log4j", "log4j-core", "2.14.1")?);
    Ok(vec![base, languages, vec![file("srv/app/node_modules/.wh.minimist", "")]])
}

/// A finding in short: id, package, fixed version, severity.
pub type Row = (&'static str, &'static str, &'static str, &'static str);

/// What a scan of [`application`] finds.
pub const FOUND: &[Row] = &[
    ("CVE-2090-1001", "libssl3", "3.0.10-1", "HIGH"),
    ("CVE-2090-1001", "openssl", "3.0.10-1", "HIGH"),
    ("CVE-2090-1002", "zlib1g", "", "LOW"),
    ("CVE-2090-2001", "django", "2.2.1", "MEDIUM"),
    ("CVE-2090-2002", "lodash", "4.17.21", "HIGH"),
    ("CVE-2090-2003", "org.apache.logging.log4j:log4j-core", "2.15.0", "CRITICAL"),
];

/// Advisories on packages of [`application`] and of the images of
/// [`kuboard_testkit::rootfs`], some of which must not match.
pub fn advisories() -> Feeds {
    let mut feeds = Feeds::default();
    let fixed = |version: &str| Debian::Fixed(version.to_owned());
    feeds.debian("openssl", "CVE-2090-1001", &fixed("3.0.10-1"), "high");
    feeds.debian("zlib", "CVE-2090-1002", &Debian::Open, "low");
    feeds.debian("bash", "CVE-2090-1003", &fixed("0"), "high");
    feeds.debian("openssl", "CVE-2090-1004", &fixed("3.0.1-1"), "high");
    feeds.debian("tzdata", "CVE-2090-1005", &fixed("2099a-0"), "medium");
    let osv = |ecosystem: &str, id: &str, package: &str, cve: &str| {
        Osv::new(ecosystem, id, package).alias(cve)
    };
    for advisory in [
        osv("PyPI", "GHSA-made-pypi-0001", "django", "CVE-2090-2001")
            .fixed("2.2.1")
            .score(Score::Medium),
        osv("npm", "GHSA-made-node-0001", "lodash", "CVE-2090-2002")
            .fixed("4.17.21")
            .score(Score::High),
        osv("npm", "GHSA-made-node-0002", "lodash", "CVE-2090-2012")
            .score(Score::Critical)
            .withdrawn(),
        osv("npm", "GHSA-made-node-0003", "lodash", "CVE-2090-2022").fixed("4.17.15"),
        osv("npm", "GHSA-made-node-0004", "minimist", "CVE-2090-2032")
            .fixed("1.2.6")
            .score(Score::Critical),
        osv("Maven", "GHSA-made-java-0001", "org.apache.logging.log4j:log4j-core", "CVE-2090-2003")
            .fixed("2.15.0")
            .score(Score::Critical),
        osv("Go", "GO-2090-0001", "golang.org/x/net", "CVE-2090-3001").fixed("0.7.0"),
        // What the program was built with is the replacement, which is newer.
        osv("Go", "GO-2090-0002", "golang.org/x/crypto", "CVE-2090-3011").fixed("0.0.5"),
        osv("crates.io", "RUSTSEC-2090-0001", "regex", "CVE-2090-3002")
            .fixed("1.5.5")
            .score(Score::High),
        osv("AlmaLinux:9", "ALSA-2090:0001", "apr-util-openssl", "CVE-2090-4001")
            .fixed("0:1.6.1-99.el9")
            .score(Score::High),
        osv("AlmaLinux:8", "ALSA-2090:0002", "apr-util-openssl", "CVE-2090-4002")
            .fixed("0:1.6.1-99.el8"),
    ] {
        feeds.osv(advisory);
    }
    feeds.alpine("v3.16", "busybox", "1.35.0-r18", "CVE-2090-5001");
    feeds.alpine("v3.16", "openssl", "1.1.1q-r0", "CVE-2090-5002");
    feeds.alpine("v3.17", "musl", "9-r0", "CVE-2090-5003");
    feeds
}
