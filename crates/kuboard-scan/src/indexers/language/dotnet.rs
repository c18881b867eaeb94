//! .NET packages: `*.deps.json` beside programs and in the folders of shared frameworks.

use kuboard_vuln::Ecosystem;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::{MAX_PACKAGES, Parsed, package};
use crate::Candidate;

/// Dependency manifests.
#[must_use]
pub(super) fn wants(candidate: &Candidate<'_>) -> bool {
    candidate.name().ends_with(".deps.json")
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    libraries: Libraries,
}

#[derive(Deserialize)]
struct Library {
    #[serde(default, rename = "type")]
    kind: String,
}

/// Keys and kinds in the file's order.
#[derive(Default)]
struct Libraries(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Libraries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Libraries;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of libraries")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Libraries, A::Error> {
                let mut libraries = Vec::new();
                while let Some((key, library)) = map.next_entry::<String, Library>()? {
                    if libraries.len() <= MAX_PACKAGES {
                        libraries.push((key, library.kind));
                    }
                }
                Ok(Libraries(libraries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Libraries that came as packages, the runtime among them where a program brings its own.
/// Projects and plain references are no packages of anybody.
#[must_use]
pub fn parse(_path: &str, bytes: &[u8]) -> Parsed {
    let manifest = match serde_json::from_slice::<Manifest>(super::without_mark(bytes)) {
        Ok(manifest) => manifest,
        Err(error) => return Parsed::failed(format!("it is not a dependency manifest: {error}")),
    };
    Parsed::bounded(manifest.libraries.0.iter().filter_map(|(key, kind)| {
        if !matches!(kind.as_str(), "package" | "runtimepack") {
            return None;
        }
        let (name, version) = key.rsplit_once('/')?;
        package(Ecosystem::Nuget, name.strip_prefix("runtimepack.").unwrap_or(name), version)
    }))
}

#[cfg(test)]
mod tests {
    use super::{super::tests, *};

    #[test]
    fn manifests() {
        fn check(text: &str, expected: &str) {
            assert_eq!(tests::shown(&parse("", text.as_bytes())), expected, "{text}");
        }
        check(
            r#"{"runtimeTarget":{"name":".NETCoreApp,Version=v8.0"},"targets":{},"libraries":{
                "App/1.0.0":{"type":"project","serviceable":false,"sha512":""},
                "Newtonsoft.Json/13.0.1":{"type":"package","serviceable":true},
                "runtimepack.Microsoft.NETCore.App.Runtime.linux-x64/8.0.1":{"type":"runtimepack"},
                "Some.Reference/1.0.0.0":{"type":"reference"},
                "None":{"type":"package"}}}"#,
            "Newtonsoft.Json 13.0.1, Microsoft.NETCore.App.Runtime.linux-x64 8.0.1",
        );
        check("\u{feff}{}", "");
        assert_eq!(parse("", b"{\"libraries\":[]}").problems.len(), 1);
        assert_eq!(parse("", &b"[".repeat(1 << 20)).problems.len(), 1);
    }
}
