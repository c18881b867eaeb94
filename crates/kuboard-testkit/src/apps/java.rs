//! Java archives from Maven Central: a Spring Boot jar with jars in it, and a war whose libraries
//! hold one more archive.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::rootfs::{Layer, Package, RealImage, almalinux_layer};
use crate::tool;

/// Group, artifact, version: what lies in `BOOT-INF/lib`, stored without compression as Spring
/// Boot does.
const BOOT: &[(&str, &str, &str)] = &[
    ("com.fasterxml.jackson.core", "jackson-core", "2.9.8"),
    ("com.fasterxml.jackson.core", "jackson-databind", "2.9.8"),
    ("org.apache.commons", "commons-lang3", "3.12.0"),
    ("org.apache.commons", "commons-text", "1.9"),
    ("org.apache.logging.log4j", "log4j-api", "2.14.1"),
    ("org.apache.logging.log4j", "log4j-core", "2.14.1"),
    ("org.springframework", "spring-beans", "5.3.17"),
    ("org.springframework", "spring-core", "5.3.17"),
    ("org.yaml", "snakeyaml", "1.29"),
];

/// What lies in `WEB-INF/lib` of the war.
const WAR: &[(&str, &str, &str)] = &[
    ("commons-collections", "commons-collections", "3.2.1"),
    ("org.apache.struts", "struts2-core", "2.5.10"),
];

/// What lies in an archive in `WEB-INF/lib`.
const INNER: &[(&str, &str, &str)] = &[("commons-fileupload", "commons-fileupload", "1.3")];

const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";

pub(crate) fn image() -> Result<RealImage> {
    let layer = Layer::kept("java-app", 1, fill)?;
    RealImage::kept("java-app", vec![almalinux_layer()?, layer])
}

fn fill(tree: &Path) -> Result<Vec<Package>> {
    let work = tool::folder("java-app")?;
    let work = work.path();
    let home = tree.join("opt/shop");
    fs::create_dir_all(&home)?;

    let boot = work.join("boot");
    fetch(BOOT, &boot.join("BOOT-INF/lib"))?;
    fs::create_dir_all(boot.join("BOOT-INF/classes"))?;
    fs::write(boot.join("BOOT-INF/classes/application.properties"), "server.port=8080\n")?;
    let manifest = work.join("manifest");
    fs::write(
        &manifest,
        "Main-Class: org.springframework.boot.loader.JarLauncher\nStart-Class: com.example.Shop\n\
         Spring-Boot-Lib: BOOT-INF/lib/\n",
    )?;
    jar(
        &boot,
        &home.join("shop.jar"),
        &["--no-compress", "--manifest", &manifest.to_string_lossy()],
    )?;

    let inner = work.join("inner");
    fetch(INNER, &inner.join("lib"))?;
    let war = work.join("war");
    fetch(WAR, &war.join("WEB-INF/lib"))?;
    fs::write(war.join("WEB-INF/web.xml"), "<web-app/>\n")?;
    jar(&inner, &war.join("WEB-INF/lib/bundle.jar"), &[])?;
    jar(&war, &home.join("shop.war"), &[])?;

    let all = [BOOT, WAR, INNER].concat();
    Ok(all
        .iter()
        .map(|(group, name, version)| Package::new("maven", &format!("{group}:{name}"), *version))
        .collect())
}

/// Downloads the artifacts alone into a folder.
fn fetch(artifacts: &[(&str, &str, &str)], to: &Path) -> Result<()> {
    let work = tool::folder("maven")?;
    let mut dependencies = String::new();
    for (group, artifact, version) in artifacts {
        dependencies.push_str(&format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        ));
    }
    let project = format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>com.example</groupId>\
         <artifactId>shop</artifactId><version>1.0</version><packaging>pom</packaging>\
         <dependencies>{dependencies}</dependencies></project>"
    );
    fs::write(work.path().join("pom.xml"), project)?;
    let mut maven = tool::command("mvn")?;
    maven
        .args(["--batch-mode", "--quiet", PLUGIN, "-DexcludeTransitive=true"])
        .arg(format!("-DoutputDirectory={}", to.display()))
        .current_dir(work.path());
    tool::output(&mut maven)?;
    let count = fs::read_dir(to)?.count();
    ensure!(count == artifacts.len(), "maven copied {count} of {} artifacts", artifacts.len());
    Ok(())
}

/// All of `folder` as an archive.
fn jar(folder: &Path, to: &Path, options: &[&str]) -> Result<()> {
    let mut command = tool::command("jar")?;
    command.arg("--create").arg("--file").arg(to).args(options).arg("-C").arg(folder).arg(".");
    tool::output(&mut command).map(drop)
}
