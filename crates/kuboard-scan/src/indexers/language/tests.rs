use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::Content;

/// `NAME VERSION [LICENCES] (ROLE), …, ! PROBLEM`.
pub(super) fn shown(parsed: &Parsed) -> String {
    let packages = parsed.packages.iter().map(|package| {
        let mut text = format!("{} {}", package.name, package.version);
        if !package.licenses.is_empty() {
            text += &format!(" [{}]", package.licenses.join(", "));
        }
        if let Some(role) = &package.role {
            text += &format!(" ({role})");
        }
        text
    });
    let problems = parsed.problems.iter().map(|why| format!("! {why}"));
    packages.chain(problems).collect::<Vec<_>>().join(", ")
}

pub(super) fn check_wants(wants: fn(&Candidate<'_>) -> bool, paths: &[(&str, bool)]) {
    for (path, wanted) in paths {
        let candidate = Candidate { path, size: 10_000, mode: 0o644 };
        assert_eq!(wants(&candidate), *wanted, "{path}");
    }
}

fn candidates() -> Vec<Candidate<'static>> {
    let paths = [
        "usr/bin/tool",
        "a/b.jar",
        "x-1.dist-info/METADATA",
        "node_modules/x/package.json",
        "app/package-lock.json",
        "app/yarn.lock",
        "app/pnpm-lock.yaml",
        "specifications/x-1.gemspec",
        "app/x.deps.json",
        "vendor/composer/installed.json",
        "usr/lib/R/library/x/DESCRIPTION",
        "etc/passwd",
        "a/b.class",
    ];
    paths.iter().map(|path| Candidate { path, size: 10_000, mode: 0o644 }).collect()
}

#[test]
fn each_kind_is_wanted_once() {
    let mut wanted: Vec<String> = Vec::new();
    for candidate in candidates() {
        let by: Vec<_> = all()
            .iter()
            .filter(|indexer| indexer.wants(&candidate) != Want::No)
            .map(|indexer| indexer.name())
            .collect();
        wanted.push(format!("{}: {}", candidate.path, by.join(" ")));
    }
    // What has no extension may be a program, by its first bytes.
    insta::assert_snapshot!(wanted.join("\n"), @r"
    usr/bin/tool: go rust
    a/b.jar: java
    x-1.dist-info/METADATA: go rust python
    node_modules/x/package.json: npm
    app/package-lock.json: npm-lock
    app/yarn.lock: go rust npm-lock
    app/pnpm-lock.yaml: go rust npm-lock
    specifications/x-1.gemspec: go rust gem
    app/x.deps.json: dotnet
    vendor/composer/installed.json: composer
    usr/lib/R/library/x/DESCRIPTION: go rust r
    etc/passwd: go rust
    a/b.class: 
    ");
}

/// Reads bytes under each path that an indexer wants.
fn read_as_everything(bytes: &[u8]) -> Found {
    struct Bytes<'a>(&'a [u8]);
    impl Content for Bytes<'_> {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
            self.0.read_at(offset, into)
        }
        fn in_memory(&self) -> Option<&[u8]> {
            None
        }
    }
    let mut found = Found::default();
    for candidate in candidates() {
        let file = File { path: candidate.path, mode: 0o644, content: &Bytes(bytes) };
        for indexer in all().iter().filter(|indexer| indexer.wants(&candidate) != Want::No) {
            let before = found.files.len();
            indexer.read(&file, &mut found);
            assert_eq!(found.files.len(), before + 1, "{}", indexer.name());
        }
    }
    found
}

/// Small files of every kind that the proptests damage.
static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut samples = super::java::tests::samples();
    samples.extend(super::go::tests::samples());
    samples.extend([
        b"Metadata-Version: 2.1\nName: a\nVersion: 1\nLicense: MIT\nClassifier: License :: X\n\ntext".to_vec(),
        br#"{"name":"a","version":"1.0.0","licenses":[{"type":"MIT"}],"packages":{"node_modules/b":{"version":"1.0.0"}},"libraries":{"a/1":{"type":"package"}}}"#.to_vec(),
        br#"[{"name":"a/b","version":"1"}]"#.to_vec(),
        b"# yarn lockfile v1\n\n\"@a/b@^1\", c@1:\n  version \"1.0.0\"\n  resolution: \"x@npm:1.0.0\"\n".to_vec(),
        b"lockfileVersion: '9.0'\nimporters:\n  .:\n    dependencies:\n      a:\n        version: 1.0.0\nsnapshots:\n  a@1.0.0:\n    dependencies:\n      a: 1.0.0\n".to_vec(),
        b"Gem::Specification.new do |s|\n  s.name = \"a\"\n  s.version = \"1\"\n  s.licenses = [\"MIT\".freeze]\nend\n".to_vec(),
        b"Package: a\nVersion: 1\nLicense: MIT\n".to_vec(),
    ]);
    samples
});

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn damaged_files_are_read(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = which.get(&SAMPLES).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_as_everything(&bytes);
    }
}

/// Files of real packages, as their installers left them.
#[test]
fn real_packages() {
    fn check(name: &str, path: &str, bytes: &[u8], expected: &str) {
        let indexer = all().into_iter().find(|indexer| indexer.name() == name).unwrap();
        let candidate = Candidate { path, size: 10_000, mode: 0o644 };
        assert_ne!(indexer.wants(&candidate), Want::No, "{path}");
        let mut found = Found::default();
        let content = bytes.to_vec();
        struct Bytes(Vec<u8>);
        impl Content for Bytes {
            fn size(&self) -> u64 {
                self.0.len() as u64
            }
            fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
                self.0.as_slice().read_at(offset, into)
            }
            fn in_memory(&self) -> Option<&[u8]> {
                Some(&self.0)
            }
        }
        indexer.read(&File { path, mode: 0o644, content: &Bytes(content) }, &mut found);
        let [record] = found.files.as_slice() else { panic!("{found:?}") };
        let problems = found.problems.into_iter().map(|problem| problem.why).collect();
        let parsed = Parsed { packages: record.packages.clone(), problems };
        assert_eq!(shown(&parsed), expected, "{path}");
        assert!(record.path == path && record.by == name);
    }
    macro_rules! sample {
        ($name:literal) => {
            include_bytes!(concat!("../../../tests/data/language/", $name))
        };
    }
    check(
        "python",
        "usr/lib/python3/site-packages/requests-2.31.0.dist-info/METADATA",
        sample!("requests.METADATA"),
        "requests 2.31.0 [Apache 2.0]",
    );
    check(
        "npm",
        "srv/node_modules/express/package.json",
        sample!("express.package.json"),
        "express 4.18.2 [MIT]",
    );
    check(
        "java",
        "opt/app/slf4j-api-1.7.36.jar",
        sample!("slf4j-api-1.7.36.jar"),
        "org.slf4j:slf4j-api 1.7.36",
    );
    check(
        "gem",
        "usr/lib/ruby/gems/3.1.0/specifications/net-imap-0.2.4.gemspec",
        sample!("net-imap-0.2.4.gemspec"),
        "net-imap 0.2.4 [Ruby, BSD-2-Clause]",
    );
    let locked = "debug 4.3.4 (lockfile), ms 2.0.0 (lockfile), ms 2.1.2 (lockfile)";
    let licensed =
        "debug 4.3.4 [MIT] (lockfile), ms 2.0.0 [MIT] (lockfile), ms 2.1.2 [MIT] (lockfile)";
    check("npm-lock", "app/package-lock.json", sample!("package-lock.json"), licensed);
    check("npm-lock", "app/pnpm-lock.yaml", sample!("pnpm-lock.yaml"), locked);
    // Yarn does not say that two of them are needed only to develop.
    let with_dev = "debug 4.3.4 (lockfile), is-number 6.0.0 (lockfile), is-odd 3.0.1 (lockfile), ms 2.0.0 (lockfile), ms 2.1.2 (lockfile)";
    check("npm-lock", "app/yarn.lock", sample!("yarn.lock"), with_dev);
    check("npm-lock", "app/yarn.lock", sample!("berry.yarn.lock"), with_dev);
    let section = super::go::tests::elf(sample!("hello.go.buildinfo"), Some(".go.buildinfo"));
    check(
        "go",
        "usr/bin/hello",
        &section,
        "example.org/hello v1.4.2 (main), github.com/google/uuid v1.5.0, github.com/pkg/errors v0.9.1, stdlib 1.26.8",
    );
    let section = super::go::tests::elf(sample!("audited.dep-v0"), Some(".dep-v0"));
    check("rust", "usr/bin/audited", &section, "audited 0.3.0 (main), itoa 1.0.10");
}
