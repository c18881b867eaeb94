//! Two Go programs: one of several modules, one of them replaced; and the same without symbols.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::rootfs::{Layer, Package, RealImage, distroless_layer};
use crate::tool;

/// Modules with entries in Go's vulnerability database at these versions, but for the replaced
/// one, whose replacement is what counts.
const MODULE: &str = "module example.com/shop

go 1.21

require (
	github.com/dgrijalva/jwt-go v3.2.0+incompatible
	github.com/gin-gonic/gin v1.6.3
	golang.org/x/crypto v0.0.0-20200622213623-75b288015ac9
	golang.org/x/net v0.1.0
	golang.org/x/text v0.3.5
	gopkg.in/yaml.v2 v2.2.2
)

replace golang.org/x/crypto => golang.org/x/crypto v0.1.0
";

const PROGRAM: &str = r#"package main

import (
	"fmt"
	"net/http"

	"github.com/dgrijalva/jwt-go"
	"github.com/gin-gonic/gin"
	"golang.org/x/crypto/ssh"
	"golang.org/x/net/html"
	"golang.org/x/text/language"
	"gopkg.in/yaml.v2"
)

func main() {
	var config map[string]string
	_ = yaml.Unmarshal([]byte("a: b"), &config)
	_, _ = ssh.ParsePrivateKey(nil)
	fmt.Println(jwt.New(jwt.SigningMethodHS256), language.Make("en"), html.EscapeString("<"))
	engine := gin.New()
	engine.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
	_ = engine.Run()
}
"#;

pub(crate) fn image() -> Result<RealImage> {
    let layer = Layer::kept("go-app", 1, fill)?;
    RealImage::kept("go-app", vec![distroless_layer()?, layer])
}

fn fill(tree: &Path) -> Result<Vec<Package>> {
    let source = tool::folder("go-app")?;
    fs::write(source.path().join("go.mod"), MODULE)?;
    fs::write(source.path().join("main.go"), PROGRAM)?;
    let program = tree.join("usr/local/bin/shop");
    build(source.path(), &program, "-buildid=")?;
    build(source.path(), &tree.join("usr/local/bin/shop-stripped"), "-s -w -buildid=")?;
    let report = tool::output(tool::command("go")?.args(["version", "-m"]).arg(&program))?;
    Ok(modules(&report))
}

fn build(source: &Path, to: &Path, link: &str) -> Result<()> {
    let mut command = tool::command("go")?;
    command
        .args(["build", "-trimpath", "-ldflags", link, "-o"])
        .arg(to)
        .arg(".")
        .current_dir(source)
        // The checksum database is one more host to reach; the versions are exact.
        .env("GOSUMDB", "off")
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0");
    tool::output(&mut command).map(drop)
}

/// What `go version -m` tells: the toolchain's library and the modules, a replaced one under the
/// name and version of its replacement.
fn modules(report: &str) -> Vec<Package> {
    let mut found = Vec::new();
    let toolchain = report.lines().next().and_then(|line| line.rsplit_once("go"));
    if let Some((_, version)) = toolchain {
        found.push(Package::new("golang", "stdlib", version.trim()));
    }
    for line in report.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            ["dep", name, version, ..] => found.push(Package::new("golang", name, version)),
            ["=>", name, version, ..] => {
                found.pop();
                found.push(Package::new("golang", name, version));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::modules;
    use crate::rootfs::Package;

    #[test]
    fn the_replacement_counts() {
        let report = "/app: go1.26.8\n\tpath\tx\n\tdep\ta.b/c\tv1.0.0\th1:x\n\tdep\td\tv1\n\t=>\te\tv2\th1:y\n\tbuild\tCGO_ENABLED=0\n";
        let expected = [("stdlib", "1.26.8"), ("a.b/c", "v1.0.0"), ("e", "v2")];
        let expected = expected.map(|(name, version)| Package::new("golang", name, version));
        assert_eq!(modules(report), expected);
    }
}
