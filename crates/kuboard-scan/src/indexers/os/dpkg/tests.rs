//! Whole files through the door.

use proptest::prelude::{ProptestConfig, any, proptest};

use super::Dpkg;
use crate::{
    Candidate, Indexer, Want,
    indexers::os::tests::{index, lines, reasons, sample},
};

const STATUS: &str = "var/lib/dpkg/status";

#[track_caller]
fn check(files: &[(&str, &str)], packages: &[&str]) {
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
    let found = index(&Dpkg, &files);
    assert_eq!(lines(&found), packages);
    assert_eq!(reasons(&found), Vec::<&str>::new());
}

#[track_caller]
fn check_owned(path: &str, text: &str, owned: &[&str]) {
    let found = index(&Dpkg, &[(path, text.as_bytes())]);
    let owns: Vec<_> = found.files.iter().flat_map(|file| &file.owns).collect();
    assert_eq!(owns, owned);
    assert_eq!(found.files.len(), usize::from(!owned.is_empty()));
}

#[test]
fn only_packages_that_are_there_count() {
    for (status, there) in [
        ("install ok installed", true),
        ("hold ok installed", true),
        ("deinstall ok installed", true),
        ("install ok unpacked", true),
        ("install reinstreq half-configured", true),
        ("install ok triggers-awaited", true),
        ("install ok triggers-pending", true),
        ("install ok half-installed", false),
        ("deinstall ok config-files", false),
        ("purge ok not-installed", false),
        ("installed", false),
    ] {
        let text = format!("Package: a\nStatus: {status}\nVersion: 1\n");
        check(&[(STATUS, &text)], if there { &["a|1"] } else { &[] });
    }
    check(&[(STATUS, "Package: a\nVersion: 1\n")], &[]);
    check(&[("var/lib/dpkg/status.d/a", "Package: a\nVersion: 1\n")], &["a|1"]);
}

#[test]
fn sources_are_read() {
    for (field, want) in [
        ("", "a|1.0+b1|amd64"),
        ("Source: b\n", "a|1.0+b1|amd64|b 1.0+b1"),
        ("Source: a (1.0)\n", "a|1.0+b1|amd64|a 1.0"),
        ("source:b (2:1.0-1)\n", "a|1.0+b1|amd64|b 2:1.0-1"),
        ("Source: a\n", "a|1.0+b1|amd64"),
        ("Source: (\n", "a|1.0+b1|amd64"),
    ] {
        let status = "Status: install ok installed\nArchitecture: amd64\n";
        let text = format!("Package: a\n{status}{field}Version: 1.0+b1\n");
        check(&[(STATUS, &text)], &[want]);
    }
}

#[test]
fn damage_loses_no_neighbours() {
    let text = "Package: a\nStatus: install ok installed\nVersion: 1\nPackage: b\r\n\
                Status: install ok installed\r\nVersion: 2\r\n\r\n\0\u{fffd}:\nPackage\n\n\
                Package: c\nStatus: install ok installed\nDescription: x\n Package: d\n\
                \tVersion: 9\nVersion: 3";
    check(&[(STATUS, text)], &["a|1", "b|2", "c|3"]);
}

#[test]
fn licences_come_from_copyright_files() {
    check(
        &[
            (STATUS, "Package: a\nStatus: install ok installed\nVersion: 1\n"),
            ("usr/share/doc/a/copyright", "Format: 1\nLicense: MIT\n"),
            ("usr/share/doc/b/copyright", "Format: 1\nLicense: GPL-2\n"),
        ],
        &["a|1||||MIT"],
    );
}

#[test]
fn files_are_owned() {
    check_owned(
        "var/lib/dpkg/info/a:amd64.list",
        "/.\n/usr\n/usr/bin\n/usr/bin/tool\n/usr/share\n/usr/share/doc\n/usr/share/doc/a\n\
         /usr/share/java/a.jar\n/bin/b\n",
        &["usr/bin/tool", "usr/share/java/a.jar", "usr/bin/b", "bin/b"],
    );
    check_owned("var/lib/dpkg/info/a.list", "/.\n/usr\n", &[]);
    check_owned("var/lib/dpkg/info/a.md5sums", "0123  usr/bin/tool\n", &[]);
    check_owned("var/lib/dpkg/status.d/a.md5sums", "0123  usr/bin/tool\nx\n", &["usr/bin/tool"]);
}

#[test]
fn wants_what_it_reads() {
    let want = |path: &str, size| Dpkg.wants(&Candidate { path, size, mode: 0o644 });
    assert!(want(STATUS, 1 << 30) == Want::AtEnd);
    assert!(want("var/lib/dpkg/status-old", 1) == Want::No);
    assert!(want("var/lib/dpkg/status.d/a/b", 1) == Want::No);
    assert!(want("usr/share/doc/a/copyright", 9) == Want::AtEnd);
    assert!(want("usr/share/doc/a/copyright", 1 << 20) == Want::No);
    assert!(want("usr/share/doc/a/b/copyright", 9) == Want::No);
    assert!(want("var/lib/chisel/manifest.wall", 9) == Want::Now);
    assert!(want("var/lib/dpkg/info/a.postinst", 9) == Want::No);
}

#[test]
fn reads_a_real_status() {
    let found = index(&Dpkg, &[(STATUS, &sample("debian.status.zst"))]);
    insta::assert_snapshot!(lines(&found).join("\n"), @r"
    postgresql-client|11+200+deb10u5|all|postgresql-common 200+deb10u5
    postgresql-client-11|11.22-0+deb10u2|amd64|postgresql-11 11.22-0+deb10u2
    postgresql-client-common|200+deb10u5|all|postgresql-common 200+deb10u5
    accountsservice|22.08.8-6|amd64
    acl|2.3.1-3|amd64
    adduser|3.131|all
    admin-session|2023.06.26.c543406313-00|amd64
    attr|1:2.5.1-4|amd64
    libacl1|2.3.1-3|amd64|acl 2.3.1-3
    util-linux-extra|2.38.1-5+b1|amd64|util-linux 2.38.1-5
    ");
    assert_eq!(reasons(&found), Vec::<&str>::new());
}

#[test]
fn reads_a_real_manifest_of_chisel() {
    let found = index(&Dpkg, &[("var/lib/chisel/manifest.wall", &sample("openssl.wall"))]);
    insta::assert_snapshot!(lines(&found).join("\n"), @r"
    base-files|13ubuntu10.2|amd64
    libc6|2.39-0ubuntu8.4|amd64
    libssl3t64|3.0.13-0ubuntu3.5|amd64
    openssl|3.0.13-0ubuntu3.5|amd64
    ");
    insta::assert_snapshot!(found.files[0].owns.join("\n"), @r"
    usr/bin/c_rehash
    usr/bin/openssl
    usr/lib/ssl/certs
    usr/lib/ssl/private
    usr/lib/x86_64-linux-gnu/engines-3/afalg.so
    usr/lib/x86_64-linux-gnu/engines-3/loader_attic.so
    usr/lib/x86_64-linux-gnu/engines-3/padlock.so
    usr/lib/x86_64-linux-gnu/libmemusage.so
    usr/lib/x86_64-linux-gnu/libpcprofile.so
    usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so
    ");
    assert_eq!(reasons(&found), Vec::<&str>::new());
}

#[test]
fn a_damaged_manifest_is_partly_read() {
    let check = |bytes: &[u8], packages: &[&str], why: &str| {
        let found = index(&Dpkg, &[("rocks/manifest.wall", bytes)]);
        assert_eq!(lines(&found), packages);
        assert!(reasons(&found).iter().any(|reason| reason.contains(why)), "{found:?}");
    };
    let wall = |text: &str| zstd::encode_all(text.as_bytes(), 3).unwrap();
    let header = "{\"jsonwall\":\"1.0\",\"count\":3}\n";
    let package = "{\"kind\":\"package\",\"name\":\"a\",\"version\":\"1\"}\n";
    check(b"", &[], "no manifest");
    check(b"{}", &[], "decompressed");
    check(&wall("{\"jsonwall\":\"2.0\"}\n"), &[], "no manifest");
    check(&wall(&format!("{header}nothing\n{package}")), &["a|1"], "no JSON object");
    let mut cut = wall(&format!("{header}{}", package.repeat(40_000)));
    cut.truncate(cut.len() - 5);
    let found = index(&Dpkg, &[("manifest.wall", &cut)]);
    assert!(reasons(&found)[0].contains("decompressed"), "{:?}", reasons(&found));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn never_panics(cuts in proptest::collection::vec((any::<u32>(), any::<u8>()), 0..40)) {
        for (path, name) in [(STATUS, "debian.status.zst"), ("manifest.wall", "openssl.wall")] {
            let mut bytes = sample(name);
            for &(at, byte) in &cuts {
                let at = at as usize % bytes.len();
                bytes[at] = byte;
            }
            index(&Dpkg, &[(path, &bytes)]);
        }
    }
}
