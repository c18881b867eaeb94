//! apk's database of installed packages, `lib/apk/db/installed`: one letter, a colon and a value a
//! line, an empty line between packages.

use kuboard_vuln::{Ecosystem, Package};

use super::draft::{Draft, line, source};
use crate::{Candidate, File, Found, Indexer, MAX_READ, Want};

/// Finds packages of Alpine, Wolfi and others with apk.
#[derive(Clone, Copy, Debug)]
pub struct Apk;

impl Indexer for Apk {
    fn name(&self) -> &'static str {
        "apk"
    }

    fn version(&self) -> u32 {
        1
    }

    fn wants(&self, candidate: &Candidate<'_>) -> Want {
        match candidate.path {
            "lib/apk/db/installed" | "usr/lib/apk/db/installed" => Want::Now,
            _ => Want::No,
        }
    }

    fn read(&self, file: &File<'_>, found: &mut Found) {
        let mut draft = Draft::new(self.name(), file.path);
        let bytes = draft.bytes(file.content, MAX_READ);
        let mut block = Block::default();
        for text in bytes.split(|&byte| byte == b'\n') {
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            match text {
                [] => std::mem::take(&mut block).end(&mut draft),
                [b'P', b':', name @ ..] if block.name.is_some() => {
                    std::mem::take(&mut block).end(&mut draft);
                    block.field(b'P', name, &mut draft);
                }
                [letter, b':', value @ ..] => block.field(*letter, value, &mut draft),
                _ => draft.partly("a line is no field"),
            }
        }
        block.end(&mut draft);
        draft.store(found);
    }
}

/// The lines of one package.
#[derive(Default)]
struct Block {
    any: bool,
    name: Option<String>,
    version: Option<String>,
    arch: Option<String>,
    origin: Option<String>,
    license: Option<String>,
    folder: String,
}

impl Block {
    fn field(&mut self, letter: u8, value: &[u8], draft: &mut Draft) {
        self.any = true;
        let into = match letter {
            b'P' => &mut self.name,
            b'V' => &mut self.version,
            b'A' => &mut self.arch,
            b'o' => &mut self.origin,
            b'L' => &mut self.license,
            b'F' => {
                value_of(value).trim_end_matches('/').clone_into(&mut self.folder);
                return;
            }
            b'R' => {
                let name = value_of(value);
                if self.folder.is_empty() {
                    draft.owns(&name);
                } else if self.folder.len() + name.len() < 4096 {
                    draft.owns(&format!("{}/{name}", self.folder));
                }
                return;
            }
            _ => return,
        };
        *into = Some(value_of(value).into_owned());
    }

    fn end(self, draft: &mut Draft) {
        let (Some(name), Some(version)) = (&self.name, &self.version) else {
            if self.any {
                draft.partly("a package has no name or no version");
            }
            return;
        };
        let mut package = Package::new(Ecosystem::Apk, name, version);
        package.arch = self.arch.filter(|arch| !arch.is_empty());
        package.source = self.origin.and_then(|origin| source(&package, &origin, version));
        package.licenses.extend(self.license.as_deref().and_then(line));
        draft.package(package);
    }
}

fn value_of(value: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::Apk;
    use crate::indexers::os::tests::{index, lines, reasons, sample};
    use proptest::prelude::{ProptestConfig, any, proptest};

    const PATH: &str = "lib/apk/db/installed";

    #[track_caller]
    fn check(text: &str, packages: &[&str], owns: &[&str], problems: &[&str]) {
        let found = index(&Apk, &[(PATH, text.as_bytes())]);
        assert_eq!(lines(&found), packages);
        assert_eq!(found.files[0].owns, owns);
        assert_eq!(reasons(&found), problems);
    }

    #[test]
    fn reads_packages_and_their_files() {
        check(
            "C:Q1x\nP:libcrypto3\nV:3.1.4-r5\nA:x86_64\nL:Apache-2.0\no:openssl\n\
             F:lib\nR:libcrypto.so.3\na:0:0:755\nF:usr/bin\nR:openssl\nF:\nR:opt/x\n\n\
             P:openssl\nV:3.1.4-r5\nA:x86_64\no:openssl\nL:\n\n",
            &["libcrypto3|3.1.4-r5|x86_64|openssl 3.1.4-r5||Apache-2.0", "openssl|3.1.4-r5|x86_64"],
            &["usr/bin/openssl", "opt/x"],
            &[],
        );
    }

    #[test]
    fn survives_damage() {
        const NO_FIELD: &str = "partly read: a line is no field";
        check("", &[], &[], &[]);
        check("P:a\nV:1\n", &["a|1"], &[], &[]);
        check("P:a\nV:1\nP:b\nV:2", &["a|1", "b|2"], &[], &[]);
        check("P\nP:a\r\nV:1\r\n\r\n", &["a|1"], &[], &[NO_FIELD]);
        check("x\n\nP:a\nV:1", &["a|1"], &[], &[NO_FIELD]);
        check(
            "P:a\n\nP:b\nV:2",
            &["b|2"],
            &[],
            &["partly read: a package has no name or no version"],
        );
        check(
            "P:a\nV:\n",
            &[],
            &[],
            &["partly read: a package has no usable name, version or architecture"],
        );
    }

    #[test]
    fn reads_a_real_database() {
        let bytes = sample("alpine.installed.zst");
        let found = index(&Apk, &[(PATH, &bytes)]);
        insta::assert_snapshot!(lines(&found).join("\n"), @r"
        alpine-baselayout|3.4.3-r1|x86_64|||GPL-2.0-only
        alpine-baselayout-data|3.4.3-r1|x86_64|alpine-baselayout 3.4.3-r1||GPL-2.0-only
        alpine-keys|2.4-r1|x86_64|||MIT
        apk-tools|2.14.0-r0|x86_64|||GPL-2.0-only
        busybox|1.36.0-r9|x86_64|||GPL-2.0-only
        busybox-binsh|1.36.0-r9|x86_64|busybox 1.36.0-r9||GPL-2.0-only
        ca-certificates-bundle|20230506-r0|x86_64|ca-certificates 20230506-r0||MPL-2.0 AND MIT
        libc-utils|0.7.2-r5|x86_64|libc-dev 0.7.2-r5||BSD-2-Clause AND BSD-3-Clause
        libcrypto3|3.1.0-r4|x86_64|openssl 3.1.0-r4||Apache-2.0
        libssl3|3.1.0-r4|x86_64|openssl 3.1.0-r4||Apache-2.0
        musl|1.2.4-r0|x86_64|||MIT
        musl-utils|1.2.4-r0|x86_64|musl 1.2.4-r0||MIT AND BSD-2-Clause AND GPL-2.0-or-later
        scanelf|1.3.7-r1|x86_64|pax-utils 1.3.7-r1||GPL-2.0-only
        ssl_client|1.36.0-r9|x86_64|busybox 1.36.0-r9||GPL-2.0-only
        zlib|1.2.13-r1|x86_64|||Zlib
        ");
        assert_eq!(reasons(&found), Vec::<&str>::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(cuts in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..40)) {
            let mut bytes = sample("alpine.installed.zst");
            for (at, byte) in cuts {
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
            }
            index(&Apk, &[(PATH, &bytes)]);
        }
    }
}
