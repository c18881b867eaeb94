//! The conformance suite of the OCI distribution specification (the redesign of 2026), run as the
//! program it is.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use kuboard_oci::{Digest, Manifest};
use kuboard_testkit::{RegistryClient, tool};
use serde_json::json;

use crate::figure;

/// A run of the suite against one registry.
pub struct Suite {
    name: String,
    variables: Vec<(String, String)>,
}

/// How many cases had which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Cases that the registry passed.
    pub passed: u64,
    /// Cases that the registry failed, errors of the suite itself among them.
    pub failed: u64,
    /// Cases that the registry has no answer for (allowed by the specification).
    pub skipped: u64,
    /// Cases that the configuration of the run left out.
    pub disabled: u64,
}

impl Suite {
    /// All categories at this version (`1.1` or `dev`) against a registry on loopback.
    pub fn new(name: &str, version: &str, address: &str) -> Suite {
        let suite = Suite { name: format!("conformance {version} {name}"), variables: Vec::new() };
        suite
            .variable("OCI_REGISTRY", address)
            .variable("OCI_TLS", "disabled")
            .variable("OCI_VERSION", version)
    }

    /// One variable of the suite's environment.
    pub fn variable(mut self, name: &str, value: &str) -> Suite {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Nothing is deleted, so that the content stays for another run.
    pub fn keeping(self) -> Suite {
        self.variable("OCI_API_BLOBS_DELETE", "false")
            .variable("OCI_API_MANIFESTS_DELETE", "false")
            .variable("OCI_API_TAGS_DELETE", "false")
    }

    /// Only what reads, on content that is there: for a registry that takes no pushes.
    pub fn reading(self, repository: &str, content: &Content) -> Suite {
        let list = |digests: &BTreeSet<Digest>| {
            digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(" ")
        };
        self.keeping()
            .variable("OCI_API_PUSH", "false")
            .variable("OCI_REPO1", repository)
            .variable("OCI_REPO2", repository)
            .variable("OCI_RO_DATA_TAGS", &content.tags.join(" "))
            .variable("OCI_RO_DATA_MANIFESTS", &list(&content.manifests))
            .variable("OCI_RO_DATA_BLOBS", &list(&content.blobs))
            .variable("OCI_RO_DATA_REFERRERS", &list(&content.manifests))
    }

    /// Runs it, notes the counts, and names the failures in the error if there are any.
    pub fn run(self) -> Result<Counts> {
        let folder = tool::folder("conformance")?;
        let mut command = tool::command("conformance")?;
        command
            .current_dir(folder.path())
            .env("OCI_RESULTS_DIR", folder.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        // Its status says only that not all was passed, which skipped cases also bring about.
        let output = command.output()?;
        let report = fs::read_to_string(folder.path().join("junit.xml"))
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let counts = Counts::read(&report)?;
        figure(json!({
            "suite": self.name,
            "passed": counts.passed,
            "failed": counts.failed,
            "skipped": counts.skipped,
            "disabled": counts.disabled,
        }))?;
        anyhow::ensure!(
            counts.failed == 0,
            "{}: {} failed:\n{}",
            self.name,
            counts.failed,
            failures(&String::from_utf8_lossy(&output.stdout))
        );
        Ok(counts)
    }
}

impl Counts {
    /// Reads the attributes of the report's root element.
    fn read(report: &str) -> Result<Counts> {
        let (root, _) = report.split_once('>').context("an empty report")?;
        let attribute = |name: &str| -> Result<u64> {
            let (_, value) = root.split_once(&format!(" {name}=\"")).unwrap_or(("", "0\""));
            let (value, _) = value.split_once('"').context("a torn attribute")?;
            Ok(value.parse()?)
        };
        let failed = attribute("failures")? + attribute("errors")?;
        let (skipped, disabled) = (attribute("skipped")?, attribute("disabled")?);
        let passed = attribute("tests")?.saturating_sub(failed + skipped + disabled);
        Ok(Counts { passed, failed, skipped, disabled })
    }
}

/// The lines of the printed report that tell of failures, with the reasons below them.
fn failures(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().collect();
    let telling = |line: &&str| {
        line.contains(": FAIL") || line.contains(": Error") || line.trim_start().starts_with("- ")
    };
    lines.into_iter().filter(telling).take(200).collect::<Vec<_>>().join("\n")
}

/// What a repository holds.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Its tags.
    pub tags: Vec<String>,
    /// Digests of the manifests that the tags reach.
    pub manifests: BTreeSet<Digest>,
    /// Digests of the blobs that these name.
    pub blobs: BTreeSet<Digest>,
}

impl Content {
    /// Walks a repository from its tags.
    pub fn of(client: &RegistryClient, repository: &str) -> Result<Content> {
        let list = format!("/v2/{repository}/tags/list");
        let list = client.send(kuboard_testkit::http::Request::get(list))?.json()?;
        let tags = list["tags"].as_array().context("no list of tags")?;
        let tags: Vec<String> =
            tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect();
        let mut content = Content { tags, ..Content::default() };
        for tag in content.tags.clone() {
            content.walk(client, repository, &tag)?;
        }
        Ok(content)
    }

    fn walk(&mut self, client: &RegistryClient, repository: &str, reference: &str) -> Result<()> {
        let (bytes, kind) = client.manifest(repository, reference)?;
        let digest = match reference.parse::<Digest>() {
            Ok(named) => named,
            Err(_) => Digest::sha256(&bytes),
        };
        if !self.manifests.insert(digest) {
            return Ok(());
        }
        let manifest = Manifest::parse(&bytes, Some(&kind))?;
        for blob in manifest.blobs() {
            let head = format!("/v2/{repository}/blobs/{}", blob.digest);
            let head = kuboard_testkit::http::Request::new("HEAD", head);
            // A layer that may not be distributed is named but not there.
            if client.send(head)?.status == 200 {
                self.blobs.insert(blob.digest);
            }
        }
        for child in manifest.children() {
            self.walk(client, repository, &child.digest.to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn the_reports_root_is_read() {
        let report = r#"<testsuites time="3.6" tests="850" failures="94" errors="1" skipped="16" disabled="2">
            <testsuite tests="1">"#;
        let expected = Counts { passed: 737, failed: 95, skipped: 16, disabled: 2 };
        assert_eq!(Counts::read(report).unwrap(), expected);
    }
}
