//! A Rust program that carries its dependency list (cargo-auditable), and one that does not.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::rootfs::{Layer, Package, RealImage, distroless_layer};
use crate::tool;

/// Crates with entries in RustSec at these versions; none needs a procedural macro, which is no
/// part of the program.
const MANIFEST: &str = r#"[package]
name = "shop"
version = "0.3.1"
edition = "2021"

[workspace]

[dependencies]
regex = "=1.5.4"
smallvec = "=1.6.0"
time = "=0.1.43"
bytes = "=1.10.1"
idna = "=0.5.0"
"#;

const PROGRAM: &str = r#"fn main() {
    let words: smallvec::SmallVec<[&str; 4]> = "a b".split(' ').collect();
    let found = regex::Regex::new("a+").map(|it| it.is_match(words[0]));
    println!("{:?}", bytes::Bytes::from_static(b"shop"));
    println!("{:?} {:?}", found, idna::domain_to_ascii("shop.example"));
    println!("{}", time::now().tm_sec);
}
"#;

pub(crate) fn image() -> Result<RealImage> {
    let layer = Layer::kept("rust-app", 1, fill)?;
    RealImage::kept("rust-app", vec![distroless_layer()?, layer])
}

fn fill(tree: &Path) -> Result<Vec<Package>> {
    let source = tool::folder("rust-app")?;
    fs::write(source.path().join("Cargo.toml"), MANIFEST)?;
    fs::create_dir(source.path().join("src"))?;
    fs::write(source.path().join("src/main.rs"), PROGRAM)?;
    let programs = tree.join("usr/local/bin");
    fs::create_dir_all(&programs)?;
    for (arguments, name) in [(&["auditable", "build"][..], "shop"), (&["build"], "shop-silent")] {
        let target = source.path().join(name);
        let mut build = cargo(source.path(), arguments)?;
        tool::output(build.args(["--release", "--quiet", "--target-dir"]).arg(&target))?;
        fs::copy(target.join("release/shop"), programs.join(name))?;
    }
    let mut tree = cargo(source.path(), &["tree", "-e", "normal", "--prefix", "none"])?;
    Ok(crates(&tool::output(tree.args(["--format", "{p}"]))?))
}

/// Cargo for a project that has nothing to do with the one that this runs in.
fn cargo(source: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = tool::command("cargo")?;
    command.args(arguments).current_dir(source);
    let auditable = tool::find("cargo-auditable")?;
    let mut path = vec![auditable.parent().map(Path::to_owned).unwrap_or_default()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    command.env("PATH", std::env::join_paths(path)?);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && text != "CARGO_HOME"
            || text.starts_with("RUSTC")
            || text == "RUSTFLAGS"
        {
            command.env_remove(&name);
        }
    }
    Ok(command)
}

/// What `cargo tree` lists as `name vVERSION`, perhaps with a path or a mark behind it.
fn crates(tree: &str) -> Vec<Package> {
    let mut found: Vec<Package> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, version) = (words.next()?, words.next()?);
            Some(Package::new("cargo", name, version.strip_prefix('v')?))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::crates;
    use crate::rootfs::Package;

    #[test]
    fn each_crate_once() {
        let expected = [Package::new("cargo", "a", "1.0.0"), Package::new("cargo", "b", "0.2.0")];
        assert_eq!(crates("b v0.2.0 (/x/y)\na v1.0.0\na v1.0.0 (*)\n"), expected);
    }
}
