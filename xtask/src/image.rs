//! `cargo xtask image`: the container image. Nothing but the binary, the libraries that it is linked
//! with, the authorities of the Web, time zones, and an entry for each Debian package that these come
//! from, so that scanners see what is in it. No shell, no root.
//!
//! Leaves in the output folder `kuboard.oci.tar` (the image, for podman, skopeo, ctr), `layout` (the
//! same as an OCI layout with the bill of materials as a referrer of the image) and
//! `kuboard.sbom.json`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::run::{self, Command};
use crate::tools;

/// Debian packages beside those of the libraries.
const PACKAGES: &[&str] = &["base-files", "ca-certificates", "tzdata"];

/// Who runs it. Distroless images call this user `nonroot`.
const USER: &str = "65532:65532";

/// What of the packages nobody reads in a container without a shell.
const UNWANTED: &[&str] = &[
    "bin",
    "sbin",
    "usr/bin",
    "usr/sbin",
    "usr/games",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/common-licenses",
    "usr/share/base-files",
    "usr/share/dict",
    "usr/share/misc",
    "usr/share/pixmaps",
    "usr/share/doc-base",
    "usr/share/zoneinfo/right",
    "usr/share/zoneinfo/posix",
    "usr/share/ca-certificates",
    "usr/src",
    "usr/include",
    "usr/local",
    "etc/ca-certificates",
    "etc/default",
    "etc/profile.d",
    "etc/skel",
    "etc/update-motd.d",
    "etc/dpkg",
    "etc/ld.so.conf.d",
    "var",
    "home",
    "root",
    "boot",
    "mnt",
    "media",
    "opt",
    "srv",
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// The program to put into it, instead of one that is built with a list of its crates inside.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where the image goes.
    #[arg(long, value_name = "DIR", default_value = "target/image")]
    output: PathBuf,
    /// Its name in the archive.
    #[arg(long, value_name = "NAME", default_value = concat!("kuboard/kuboard:", env!("CARGO_PKG_VERSION")))]
    name: String,
}

/// Builds it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let output = run::root().join(&arguments.output);
    fs::create_dir_all(&output)?;
    let output = output.canonicalize()?;
    let binary = match &arguments.binary {
        Some(file) => file.canonicalize().with_context(|| format!("{}", file.display()))?,
        None => built()?,
    };
    let work = Work(output.join("work"));
    work.remove()?;
    let rootfs = work.0.join("rootfs");
    fs::create_dir_all(&rootfs)?;
    let packages = root_filesystem(&binary, &rootfs, &work.0)?;
    let moment = moment();
    let layout = output.join("layout");
    if layout.exists() {
        fs::remove_dir_all(&layout)?;
    }
    commit(&work.0, &rootfs, &layout, &arguments.name, moment)?;
    let archive = output.join("kuboard.oci.tar");
    pack(&layout, &archive, moment)?;
    let sbom = output.join("kuboard.sbom.json");
    Command::new(&binary)
        .args(["sbom", "--quiet", "--no-cache", "--format", "cyclonedx", "--output"])
        .arg(&sbom)
        .arg(format!("oci:{}", layout.display()))
        .run()?;
    let image = attach(&layout, &sbom)?;
    println!("{} of {}", image, packages.into_iter().collect::<Vec<_>>().join(" "));
    println!("{}", archive.display());
    Ok(())
}

/// The release build, with the list of crates that the bill of materials reads.
fn built() -> Result<PathBuf> {
    Command::cargo()
        .args(["auditable", "build", "--release", "-p", "kuboard"])
        .envs(tools::environment()?)
        .run()
        .context("hint: cargo xtask tools installs cargo-auditable")?;
    Ok(run::root().join("target/release/kuboard").canonicalize()?)
}

/// Files that go when the work is done, however it ends.
struct Work(PathBuf);

impl Work {
    fn remove(&self) -> Result<()> {
        if self.0.exists() {
            fs::remove_dir_all(&self.0)?;
        }
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("xtask: {}: {error:#}", self.0.display());
        }
    }
}

/// Seconds since 1970 of the commit that is built, so that the same source gives the same image.
fn moment() -> u64 {
    let read = |text: &str| text.trim().parse().ok();
    let told = std::env::var_os("SOURCE_DATE_EPOCH").and_then(|text| read(text.to_str()?));
    let commit = || Command::new("git").args(["log", "-1", "--format=%ct"]).read().ok();
    told.or_else(|| commit().and_then(|text| read(&text))).unwrap_or_default()
}

/// Fills `rootfs`; the packages that went into it.
fn root_filesystem(binary: &Path, rootfs: &Path, work: &Path) -> Result<BTreeSet<String>> {
    let mut packages = libraries(binary)?;
    packages.extend(PACKAGES.iter().map(|name| (*name).to_owned()));
    let mut files = Vec::new();
    for package in &packages {
        let file = package_file(package)?;
        Command::new("dpkg-deb").arg("-x").arg(&file).arg(rootfs).run()?;
        files.push(file);
    }
    let bundle = authorities(rootfs)?;
    for path in UNWANTED {
        let path = rootfs.join(path);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&path)?,
            Ok(_) => fs::remove_file(&path)?,
            Err(_) => {}
        }
    }
    copyrights_only(&rootfs.join("usr/share/doc"))?;
    for folder in fs::read_dir(rootfs.join("usr/lib"))?.flatten() {
        // Conversions of character sets, which nothing asks for.
        let _absent = fs::remove_dir_all(folder.path().join("gconv"));
    }
    // Newer Debian has everything below usr.
    for name in ["lib", "lib64"] {
        let (old, new) = (rootfs.join(name), rootfs.join("usr").join(name));
        if !old.exists() && new.exists() {
            symlink(format!("usr/{name}"), old)?;
        }
    }
    put(rootfs, "etc/ssl/certs/ca-certificates.crt", &bundle)?;
    let (uid, gid) = USER.split_once(':').unwrap_or_default();
    let passwd = format!(
        "root:x:0:0:root:/root:/sbin/nologin\n\
         kuboard:x:{uid}:{gid}:kuboard:/var/lib/kuboard:/sbin/nologin\n"
    );
    put(rootfs, "etc/passwd", &passwd)?;
    put(rootfs, "etc/group", &format!("root:x:0:\nkuboard:x:{gid}:\n"))?;
    put(rootfs, "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")?;
    for file in &files {
        note_package(file, rootfs)?;
    }
    for folder in ["usr/local/bin", "proc", "sys", "dev", "run", "tmp"] {
        fs::create_dir_all(rootfs.join(folder))?;
    }
    fs::copy(binary, rootfs.join("usr/local/bin/kuboard"))?;
    Command::new("chmod").args(["-R", "a+rX,go-w"]).arg(rootfs).run()?;
    Command::new("chmod").arg("1777").arg(rootfs.join("tmp")).run()?;
    Command::new("chmod").arg("0755").arg(rootfs.join("usr/local/bin/kuboard")).run()?;
    fs::create_dir_all(work.join("data"))?;
    Ok(packages)
}

fn put(rootfs: &Path, path: &str, text: &str) -> Result<()> {
    let file = rootfs.join(path);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}

/// The packages of the libraries that the program is linked with; none if it is linked statically.
fn libraries(binary: &Path) -> Result<BTreeSet<String>> {
    let Ok(listed) = Command::new("ldd").arg(binary).read() else { return Ok(BTreeSet::new()) };
    let mut packages = BTreeSet::new();
    for line in listed.lines() {
        let Some(path) = library(line) else { continue };
        let path = Path::new(path).canonicalize().with_context(|| format!("library {path}"))?;
        packages.insert(owner(&path)?);
    }
    Ok(packages)
}

/// The path in a line of ldd: `libc.so.6 => /lib/…/libc.so.6 (0x…)` or `/lib64/ld-linux… (0x…)`.
fn library(line: &str) -> Option<&str> {
    let line = line.trim();
    let path = line.split_once("=> ").map_or(line, |(_, path)| path);
    path.starts_with('/').then(|| path.split(' ').next().unwrap_or(path))
}

/// The package that brought a file. dpkg knows it by one of two names where /lib is in /usr.
fn owner(path: &Path) -> Result<String> {
    let path = path.display().to_string();
    let bare = path.strip_prefix("/usr").unwrap_or(&path).to_owned();
    for name in [&path, &bare] {
        if let Ok(told) = Command::new("dpkg").args(["-S", name]).read()
            && let Some((package, _)) = told.split_once(':')
        {
            return Ok(package.to_owned());
        }
    }
    bail!("no Debian package has {path}; hint: build the image on Debian")
}

/// The package's file, fetched; what was fetched before serves where there is no network.
fn package_file(package: &str) -> Result<PathBuf> {
    let kept = tools::folder()?.join("image-packages").join(package);
    let fresh = kept.with_extension("new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir_all(&fresh)?;
    let download = || {
        Command::new("apt-get")
            .args(["download", "-qq", "-oAPT::Sandbox::User=", package])
            .directory(&fresh)
    };
    let fetched = download().run().or_else(|_| {
        tools::as_root("apt-get").args(["update", "-qq"]).run()?;
        download().run()
    });
    match fetched {
        Ok(()) => {
            if kept.exists() {
                fs::remove_dir_all(&kept)?;
            }
            fs::rename(&fresh, &kept)?;
        }
        Err(error) => {
            fs::remove_dir_all(&fresh)?;
            ensure!(kept.exists(), "{error:#}; hint: the first image needs the Debian mirror");
        }
    }
    let file = fs::read_dir(&kept)?.flatten().map(|entry| entry.path()).next();
    file.with_context(|| format!("apt-get download left no package {package}"))
}

/// All authorities in one file, as `update-ca-certificates` writes it.
fn authorities(rootfs: &Path) -> Result<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(rootfs.join("usr/share/ca-certificates/mozilla"))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let mut bundle = String::new();
    for file in &files {
        bundle.push_str(fs::read_to_string(file)?.trim_end());
        bundle.push('\n');
    }
    ensure!(bundle.matches("BEGIN CERTIFICATE").count() > 50, "ca-certificates has hardly any");
    Ok(bundle)
}

/// Licences must stay with what they are for.
fn copyrights_only(docs: &Path) -> Result<()> {
    for package in fs::read_dir(docs)?.flatten() {
        if !package.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(package.path())?.flatten() {
            if entry.file_name() == "copyright" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Where images without a package manager note what they are made of.
fn note_package(file: &Path, rootfs: &Path) -> Result<()> {
    let control = Command::new("dpkg-deb").arg("-f").arg(file).read()?;
    let name = control.lines().find_map(|line| line.strip_prefix("Package: "));
    let name = name.with_context(|| format!("{} has no name", file.display()))?;
    put(rootfs, &format!("var/lib/dpkg/status.d/{name}"), &control)?;
    let sums = Command::new("dpkg-deb").arg("-I").arg(file).arg("md5sums").read()?;
    put(rootfs, &format!("var/lib/dpkg/status.d/{name}.md5sums"), &sums)
}

/// Makes an image of the files, as an OCI layout.
fn commit(work: &Path, rootfs: &Path, layout: &Path, name: &str, moment: u64) -> Result<()> {
    let storage = (work.join("storage"), work.join("run"));
    let buildah = || {
        Command::new("buildah")
            .env("BUILDAH_ISOLATION", "chroot")
            .arg("--root")
            .arg(&storage.0)
            .arg("--runroot")
            .arg(&storage.1)
            .args(["--storage-driver", "vfs"])
    };
    let container = buildah().args(["from", "scratch"]).read()?;
    let container = container.trim();
    let copy = |from: &Path, to: &str, owner: &str| {
        buildah().args(["copy", "--quiet", "--chown", owner, container]).arg(from).arg(to).read()
    };
    copy(rootfs, "/", "0:0")?;
    copy(&work.join("data"), "/var/lib/kuboard", USER)?;
    let revision = Command::new("git").args(["rev-parse", "HEAD"]).read().unwrap_or_default();
    let mut config = buildah()
        .args(["config", "--os", "linux", "--user", USER])
        .args(["--entrypoint", r#"["/usr/local/bin/kuboard"]"#, "--cmd", ""])
        .args([
            "--env",
            "PATH=/usr/local/bin",
            "--workingdir",
            "/var/lib/kuboard",
            "--port",
            "5000/tcp",
        ]);
    let labels = [
        ("title", "kuboard"),
        ("description", "Fast, safe and visible image delivery for Kubernetes"),
        ("licenses", "Apache-2.0"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("revision", revision.trim()),
    ];
    for (key, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        config = config.args(["--label", &format!("org.opencontainers.image.{key}={value}")]);
    }
    config.arg(container).run()?;
    buildah()
        .args(["commit", "--quiet", "--format", "oci", "--disable-compression=false"])
        .args(["--timestamp", &moment.to_string()])
        .arg(container)
        .arg(format!("oci:{}:{name}", layout.display()))
        .read()?;
    buildah().args(["rm", container]).read()?;
    name_for_containerd(layout, name)
}

/// containerd takes the name of an imported image from an annotation of its own, in full.
fn name_for_containerd(layout: &Path, name: &str) -> Result<()> {
    let file = layout.join("index.json");
    let mut index: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    index["manifests"][0]["annotations"]["io.containerd.image.name"] = json!(full_name(name));
    Ok(fs::write(&file, index.to_string())?)
}

/// With the registry that nodes read into a name without one.
fn full_name(name: &str) -> String {
    let first = name.split('/').next().unwrap_or_default();
    let is_host = name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if is_host { name.to_owned() } else { format!("docker.io/{name}") }
}

fn pack(layout: &Path, archive: &Path, moment: u64) -> Result<()> {
    Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .args([&format!("--mtime=@{moment}"), "-C"])
        .arg(layout)
        .arg("-cf")
        .arg(archive)
        .args(["oci-layout", "index.json", "blobs"])
        .run()
}

/// Adds the bill of materials to the layout, as an artifact whose subject is the image; gives the
/// image's digest.
fn attach(layout: &Path, sbom: &Path) -> Result<String> {
    const TYPE: &str = "application/vnd.cyclonedx+json";
    let file = layout.join("index.json");
    let mut index: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    let image = index["manifests"][0].clone();
    let bill = blob(layout, &fs::read(sbom)?, TYPE)?;
    let empty = blob(layout, b"{}", "application/vnd.oci.empty.v1+json")?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "artifactType": TYPE,
        "config": empty,
        "layers": [bill],
        "subject": {
            "mediaType": image["mediaType"], "digest": image["digest"], "size": image["size"],
        },
    });
    let mut referrer = blob(layout, manifest.to_string().as_bytes(), manifest_type)?;
    referrer["artifactType"] = json!(TYPE);
    let manifests = index["manifests"].as_array_mut().context("the layout has no image")?;
    manifests.push(referrer);
    fs::write(&file, index.to_string())?;
    Ok(image["digest"].as_str().unwrap_or_default().to_owned())
}

/// Writes a blob; its descriptor.
fn blob(layout: &Path, bytes: &[u8], media_type: &str) -> Result<Value> {
    let folder = layout.join("blobs/sha256");
    let draft = folder.join("draft");
    fs::write(&draft, bytes)?;
    let told = Command::new("sha256sum").arg(&draft).read()?;
    let hex = told.split(' ').next().unwrap_or_default();
    ensure!(hex.len() == 64, "sha256sum told {told}");
    fs::rename(&draft, folder.join(hex))?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()}))
}

#[cfg(test)]
mod tests {
    use super::{full_name, library};

    #[test]
    fn names_are_told_in_full() {
        let check = |name: &str, full: &str| assert_eq!(full_name(name), full);
        check("kuboard/kuboard:1", "docker.io/kuboard/kuboard:1");
        check("registry.example.com/kuboard:1", "registry.example.com/kuboard:1");
        check("localhost/kuboard", "localhost/kuboard");
        check("mirror:5000/kuboard", "mirror:5000/kuboard");
    }

    #[test]
    fn lines_of_ldd_are_read() {
        let check = |line: &str, expected: Option<&str>| assert_eq!(library(line), expected);
        check("\tlinux-vdso.so.1 (0x00007ffe)", None);
        check(
            "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0)",
            Some("/lib/x86_64-linux-gnu/libc.so.6"),
        );
        check("\t/lib64/ld-linux-x86-64.so.2 (0x0)", Some("/lib64/ld-linux-x86-64.so.2"));
        check("\tstatically linked", None);
        check("\tlibx.so => not found", None);
    }
}
