//! What an image of Red Hat says of the repositories it was built from. Its build puts
//! `content_sets` (names of repositories) and `labels.json` (the labels of the image, of which
//! `cpe` names the product and `name` the image) into a folder of their own.

use serde::Deserialize;

use super::draft::{Draft, is_word};
use crate::{Candidate, File, Found, Indexer, Want};

/// Bytes of such a file.
const MAX_FILE: u64 = 4 << 20;
/// Repositories of one file.
const MAX_REPOSITORIES: usize = 10_000;

/// Finds the repositories that an image of Red Hat was built from.
#[derive(Clone, Copy, Debug)]
pub struct ContentSets;

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    content_sets: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(default)]
    cpe: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

/// What a path holds, if it is of interest.
enum Kind {
    Manifest,
    Labels,
}

fn kind_of(path: &str) -> Option<Kind> {
    let rest = path
        .strip_prefix("root/buildinfo/")
        .or_else(|| path.strip_prefix("usr/share/buildinfo/"))?;
    match rest.split_once('/') {
        None if rest == "labels.json" => Some(Kind::Labels),
        None if rest == "content-sets.json" => Some(Kind::Manifest),
        Some(("content_manifests", name)) if name.ends_with(".json") && !name.contains('/') => {
            Some(Kind::Manifest)
        }
        Some((folder, "labels.json")) if folder.starts_with("Dockerfile-") => Some(Kind::Labels),
        _ => None,
    }
}

impl Indexer for ContentSets {
    fn name(&self) -> &'static str {
        "content-sets"
    }

    fn version(&self) -> u32 {
        1
    }

    fn wants(&self, candidate: &Candidate<'_>) -> Want {
        if kind_of(candidate.path).is_some() { Want::Now } else { Want::No }
    }

    fn read(&self, file: &File<'_>, found: &mut Found) {
        let mut draft = Draft::new(self.name(), file.path);
        let bytes = draft.bytes(file.content, MAX_FILE);
        let named = match kind_of(file.path) {
            Some(Kind::Manifest) => serde_json::from_slice::<Manifest>(&bytes)
                .map(|manifest| manifest.content_sets.unwrap_or_default()),
            // Some builds quote the values twice.
            Some(Kind::Labels) => serde_json::from_slice::<Labels>(&bytes).map(|labels| {
                let values = labels.cpe.into_iter().chain(labels.name);
                values.map(|value| value.trim_matches('"').to_owned()).collect()
            }),
            None => return,
        };
        match named {
            Ok(named) => {
                for name in named.into_iter().filter(|name| is_word(name)) {
                    if draft.record().repositories.len() >= MAX_REPOSITORIES {
                        draft.partly(format!("it names more than {MAX_REPOSITORIES} repositories"));
                        break;
                    }
                    draft.record().repositories.push(name);
                }
            }
            Err(error) => draft.partly(format!("it is not as expected: {error}")),
        }
        draft.store(found);
    }
}

#[cfg(test)]
mod tests {
    use super::ContentSets;
    use crate::indexers::os::tests::index;

    #[track_caller]
    fn check(path: &str, text: &str, repositories: Option<&[&str]>, problems: usize) {
        let found = index(&ContentSets, &[(path, text.as_bytes())]);
        let records: Vec<_> = found.files.iter().map(|file| &file.repositories).collect();
        match repositories {
            Some(repositories) => assert_eq!(records, [repositories]),
            None => assert!(records.is_empty()),
        }
        assert_eq!(found.problems.len(), problems, "{:?}", found.problems);
    }

    #[test]
    fn reads_manifests_and_labels() {
        let manifest = "{\"metadata\":{\"icm_version\":1},\"from_dnf_hint\":true,\
             \"content_sets\":[\"rhel-8-for-x86_64-baseos-rpms\",\"b\",\"\"]}";
        let sets: &[&str] = &["rhel-8-for-x86_64-baseos-rpms", "b"];
        for path in [
            "root/buildinfo/content_manifests/ubi8-container-8.7-1112.json",
            "root/buildinfo/content_manifests/content-sets.json",
            "usr/share/buildinfo/content-sets.json",
            "usr/share/buildinfo/content_manifests/a.json",
        ] {
            check(path, manifest, Some(sets), 0);
        }
        let labels = "{\"name\":\"\\\"rhel8/tool\\\"\",\"cpe\":\"cpe:/a:redhat:tool:1.16::el8\",\
             \"architecture\":\"x86_64\"}";
        let named: &[&str] = &["cpe:/a:redhat:tool:1.16::el8", "rhel8/tool"];
        check("root/buildinfo/labels.json", labels, Some(named), 0);
        check("usr/share/buildinfo/labels.json", labels, Some(named), 0);
        check("root/buildinfo/Dockerfile-tool-1-1/labels.json", labels, Some(named), 0);
        check("root/buildinfo/Dockerfile-tool-1-1", "FROM scratch", None, 0);
        check("usr/share/buildinfo/content_manifests/a/b.json", manifest, None, 0);
    }

    #[test]
    fn damage_is_reported() {
        let path = "root/buildinfo/content_manifests/a.json";
        check(path, "File replaced by another tool/a.json", Some(&[]), 1);
        check(path, "{\"content_sets\":null}", Some(&[]), 0);
        check(path, "{\"content_sets\":[1]}", Some(&[]), 1);
        let many = serde_json::json!({"content_sets": vec!["a"; 20_000]}).to_string();
        let found = index(&ContentSets, &[(path, many.as_bytes())]);
        assert_eq!(found.files[0].repositories.len(), 10_000);
        assert_eq!(found.problems.len(), 1);
    }
}
