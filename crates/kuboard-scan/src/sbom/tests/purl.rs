use kuboard_vuln::{Distribution, Ecosystem, Package, Source};
use proptest::prelude::*;

use super::{Meaning, PackageUrl, purl};

fn distribution(id: &str, version: &str) -> Distribution {
    Distribution { id: id.to_owned(), version_id: version.to_owned(), ..Distribution::default() }
}

fn check_written(package: &Package, on: Option<(&str, &str)>, want: &str) {
    let on = on.map(|(id, version)| distribution(id, version));
    assert_eq!(purl(package, on.as_ref()), want);
    let url = PackageUrl::parse(want).unwrap();
    let mut bare = package.clone();
    bare.licenses.clear();
    assert_eq!(url.meaning(&package.name), Meaning::Package(bare), "{want}");
    if package.ecosystem.is_os() {
        assert_eq!(url.distribution(), on, "{want}");
    }
}

#[test]
fn packages_become_urls_and_back() {
    let plain = Package::new;
    check_written(
        &plain(Ecosystem::Npm, "@angular/core", "17.0.0"),
        None,
        "pkg:npm/%40angular/core@17.0.0",
    );
    check_written(&plain(Ecosystem::Npm, "JSONStream", "1.0.3"), None, "pkg:npm/JSONStream@1.0.3");
    check_written(
        &plain(Ecosystem::Maven, "org.apache.logging.log4j:log4j-core", "2.14.1"),
        None,
        "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1",
    );
    check_written(&plain(Ecosystem::Maven, "guava", "33"), None, "pkg:maven/guava@33");
    check_written(
        &plain(Ecosystem::Golang, "github.com/Azure/azure-sdk", "v1.0.0+incompatible"),
        None,
        "pkg:golang/github.com/Azure/azure-sdk@v1.0.0%2Bincompatible",
    );
    check_written(&plain(Ecosystem::Golang, "stdlib", "1.22.1"), None, "pkg:golang/stdlib@1.22.1");
    check_written(
        &plain(Ecosystem::Composer, "symfony/http-kernel", "v6.0"),
        None,
        "pkg:composer/symfony/http-kernel@v6.0",
    );
    check_written(&plain(Ecosystem::Pypi, "ruamel-yaml", "0.1"), None, "pkg:pypi/ruamel-yaml@0.1");
    let libstdc = Package {
        arch: Some("amd64".to_owned()),
        source: Some(Source { name: "gcc-12".to_owned(), version: "12.2.0-14".to_owned() }),
        ..plain(Ecosystem::Deb, "libstdc++6", "1:12.2.0-14")
    };
    check_written(
        &libstdc,
        Some(("debian", "12")),
        "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14",
    );
    let vim = Package {
        arch: Some("x86_64".to_owned()),
        source: Some(Source { name: "vim".to_owned(), version: "2:8.2-20.el9".to_owned() }),
        module: Some("perl:5.26".to_owned()),
        ..plain(Ecosystem::Rpm, "vim-common", "2:8.2-20.el9")
    };
    check_written(
        &vim,
        Some(("rhel", "9.4")),
        "pkg:rpm/redhat/vim-common@8.2-20.el9?arch=x86_64&distro=rhel-9.4&epoch=2&rpmmod=perl:5.26&upstream=vim-8.2-20.el9.src.rpm",
    );
    let musl =
        Package { arch: Some("x86_64".to_owned()), ..plain(Ecosystem::Apk, "musl", "1.2.5-r0") };
    check_written(
        &musl,
        Some(("alpine", "3.20.1")),
        "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20.1",
    );
    check_written(
        &plain(Ecosystem::Rpm, "zypper", "1.14-1"),
        Some(("opensuse-leap", "15.5")),
        "pkg:rpm/opensuse/zypper@1.14-1?distro=opensuse-leap-15.5",
    );
}

fn check_read(text: &str, stated: &str, name: &str, version: &str) {
    let Meaning::Package(package) = PackageUrl::parse(text).unwrap().meaning(stated) else {
        panic!("{text} is no package")
    };
    assert_eq!((package.name.as_str(), package.version.as_str()), (name, version), "{text}");
}

#[test]
fn urls_of_other_tools_are_read() {
    check_read("pkg:npm/@scope/name@1.0.0", "", "@scope/name", "1.0.0");
    check_read("PKG:NPM//foobar@12.3.1", "", "foobar", "12.3.1");
    check_read("pkg:pypi/Flask_SQLAlchemy@1", "", "flask-sqlalchemy", "1");
    check_read("pkg:golang/stdlib@v1.22.1", "", "stdlib", "1.22.1");
    check_read(
        "pkg:golang/github.com/cespare/xxhash@v2.1.0#v2",
        "",
        "github.com/cespare/xxhash/v2",
        "v2.1.0",
    );
    check_read("pkg:golang/a.org/b/c@1.0.0#d/e", "a.org/b/c/d/e", "a.org/b/c/d/e", "v1.0.0");
    check_read(
        "pkg:golang/google.golang.org/genproto@v0#googleapis/api",
        "",
        "google.golang.org/genproto",
        "v0",
    );
    check_read("pkg:deb/debian/zlib1g@1.2.13?arch=amd64&epoch=1", "", "zlib1g", "1:1.2.13");
    check_read("pkg:apk/alpine/r@4.3.1-r0", "R", "R", "4.3.1-r0");
    check_read("pkg:rpm/fedora/curl@7.50.3-1.fc25?epoch=0", "", "curl", "7.50.3-1.fc25");
}

#[test]
fn distributions_are_read() {
    for (text, id, version) in [
        ("pkg:deb/debian/curl@1?distro=jessie", "debian", "8"),
        ("pkg:deb/debian/curl@1?distro=debian-bookworm", "debian", "12"),
        ("pkg:deb/ubuntu/curl@1?distro=ubuntu-22.04", "ubuntu", "22.04"),
        ("pkg:apk/alpine/curl@1?distro=3.20.1", "alpine", "3.20.1"),
        ("pkg:rpm/redhat/curl@1?distro=redhat-9.4", "rhel", "9.4"),
        ("pkg:rpm/amazon/curl@1?distro=amazon-2023", "amzn", "2023"),
        ("pkg:rpm/opensuse/curl@1?distro=opensuse-15.5", "opensuse-leap", "15.5"),
        ("pkg:apk/wolfi/curl@1?distro=wolfi", "wolfi", ""),
    ] {
        let found = PackageUrl::parse(text).unwrap().distribution().unwrap();
        assert_eq!((found.id.as_str(), found.version_id.as_str()), (id, version), "{text}");
    }
    for text in
        ["pkg:deb/debian/curl@1", "pkg:npm/x@1?distro=debian-12", "pkg:deb/debian/a@1?distro=what"]
    {
        assert_eq!(PackageUrl::parse(text).unwrap().distribution(), None, "{text}");
    }
}

#[test]
fn what_is_no_package_is_told_apart() {
    for (text, want) in [
        ("pkg:oci/app@sha256:00?arch=amd64", Meaning::Image),
        ("pkg:docker/library/nginx@1", Meaning::Image),
        ("pkg:rpm/redhat/acl@1-1?arch=src", Meaning::Source),
        ("pkg:generic/openssl@3", Meaning::Other),
    ] {
        assert_eq!(PackageUrl::parse(text).unwrap().meaning(""), want, "{text}");
    }
    for text in [
        "",
        "pkg:",
        "pkg:npm",
        "pkg:npm/",
        "npm/a",
        "pkg:npm/%ff",
        "pkg:npm/a%0ab",
        "pkg:n m/a",
        "pkg:npm/%",
    ] {
        assert_eq!(PackageUrl::parse(text), None, "{text}");
    }
}

fn package() -> impl Strategy<Value = Package> {
    let word = "[a-z][a-z0-9+._~!/@#?%&= ü-]{0,12}";
    let version = "[0-9][a-z0-9+._~%@#?&-]{0,10}-[0-9]{1,2}";
    (0..12_usize, word, version, "[a-z0-9_]{1,6}", proptest::option::of((word, version)), 0..3_u32)
        .prop_map(|(kind, name, version, arch, source, epoch)| {
            let ecosystem = Ecosystem::ALL[kind];
            let name = match ecosystem {
                Ecosystem::Pypi => name.replace(['-', '_', '.'], ""),
                Ecosystem::Maven => format!("org.x:{}", name.replace(':', "")),
                Ecosystem::Npm => name.replace(['/', '@'], ""),
                Ecosystem::Golang => format!("x.org/{}", name.replace('/', "")),
                Ecosystem::Composer => format!("x/{}", name.replace('/', "")),
                _ => name,
            };
            let version = match (ecosystem, epoch) {
                (Ecosystem::Golang, _) => format!("v{version}"),
                (Ecosystem::Rpm | Ecosystem::Deb, 1..) => format!("{epoch}:{version}"),
                _ => version,
            };
            let mut package = Package::new(ecosystem, &name, &version);
            if ecosystem.is_os() {
                package.arch = Some(format!("a{arch}"));
                package.source =
                    source.map(|(name, version)| Source { name: name.replace('@', ""), version });
            }
            package
        })
}

proptest! {
    #[test]
    fn every_package_comes_back(package in package()) {
        let on = distribution("alpine", "3.20");
        let text = purl(&package, Some(&on));
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        let url = PackageUrl::parse(&text).expect(&text);
        prop_assert_eq!(url.meaning(""), Meaning::Package(package), "{}", text);
    }

    #[test]
    fn no_text_panics(text in "(pkg:)?[a-z@/%:?#&=0-9.+-]{0,40}") {
        if let Some(url) = PackageUrl::parse(&text) {
            let _ = (url.meaning(""), url.distribution());
        }
    }
}
