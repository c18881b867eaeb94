//! The conformance suite of the OCI distribution specification (the redesign of 2026), run as the
//! program it is.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kuboard_oci::{Digest, Manifest, media_type};
use kuboard_testkit::http::Request;
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

    /// Only what reads, on content that is there: for a registry that takes no pushes. The suite
    /// compares no bytes then; [`Content::compare`] does.
    pub fn reading(self, repository: &str, content: &Content) -> Suite {
        let list = |digests: &BTreeSet<Digest>| {
            digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(" ")
        };
        self.keeping()
            .variable("OCI_API_PUSH", "false")
            // In this mode the suite looks for the header in an answer that it did not keep.
            .variable("OCI_API_BLOBS_DIGEST_HEADER", "false")
            .variable("OCI_API_MANIFESTS_DIGEST_HEADER", "false")
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
        // The printed report, since the files are not always written: reading without pushing
        // makes this version of the suite fall over after it has printed.
        let report = String::from_utf8_lossy(&output.stdout);
        let counts = Counts::read(&report)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        figure(json!({
            "suite": self.name,
            "passed": counts.passed,
            "failed": counts.failed,
            "skipped": counts.skipped,
            "disabled": counts.disabled,
        }))?;
        ensure!(
            counts.failed == 0,
            "{}: {} failed:\n{}",
            self.name,
            counts.failed,
            failures(&report)
        );
        Ok(counts)
    }
}

impl Counts {
    /// Reads the summary: lines of a name, dots, a colon and a number.
    fn read(report: &str) -> Result<Counts> {
        let number = |name: &str| -> Result<u64> {
            let found = report.lines().find_map(|line| {
                let (title, number) = line.trim().split_once(':')?;
                let number = number.trim().parse::<u64>().ok()?;
                (title.trim_end_matches('.') == name).then_some(number)
            });
            found.with_context(|| format!("the report does not count {name}"))
        };
        Ok(Counts {
            passed: number("Pass")?,
            failed: number("FAIL")? + number("Error")?,
            skipped: number("Skip")?,
            disabled: number("Disabled")?,
        })
    }
}

/// The lines of the printed report that tell of failures, with the reasons below them.
fn failures(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().collect();
    let telling = |line: &&str| {
        line.contains(": FAIL") || line.contains(": Error") || line.trim_start().starts_with("- ")
    };
    // After the cases come the configuration and the totals.
    let cases = lines.into_iter().take_while(|line| !line.starts_with("OCI Conformance Result"));
    cases.filter(telling).take(200).collect::<Vec<_>>().join("\n")
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
        let list = client.send(Request::get(list))?.json()?;
        let tags = list["tags"].as_array().context("no list of tags")?;
        let tags: Vec<String> =
            tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect();
        let mut content = Content { tags, ..Content::default() };
        for tag in content.tags.clone() {
            content.walk(client, repository, &tag)?;
        }
        Ok(content)
    }

    /// Reads everything from another repository: the bytes must be those of the digests, and the
    /// digests in the headers.
    pub fn compare(&self, client: &RegistryClient, repository: &str) -> Result<()> {
        let kinds = [("manifests", &self.manifests), ("blobs", &self.blobs)];
        for (kind, digest) in
            kinds.into_iter().flat_map(|(kind, all)| all.iter().map(move |it| (kind, it)))
        {
            let path = format!("/v2/{repository}/{kind}/{digest}");
            for method in ["HEAD", "GET"] {
                let request = Request::new(method, &path).header("Accept", media_type::ACCEPT_ALL);
                let answer = client.send(request)?;
                ensure!(answer.status == 200, "{method} {path}: {}", answer.status);
                let named = answer.headers.get("docker-content-digest");
                ensure!(named == Some(&digest.to_string()), "{method} {path} named {named:?}");
                if method == "GET" {
                    let came = Digest::of(digest.algorithm(), &answer.body);
                    ensure!(came == *digest, "{path} came as {came}");
                }
            }
        }
        Ok(())
    }

    fn walk(&mut self, client: &RegistryClient, repository: &str, reference: &str) -> Result<()> {
        let (bytes, kind) = client.manifest(repository, reference)?;
        // A tag may have been pushed under a sha512 digest; the registry alone knows.
        let head = Request::new("HEAD", format!("/v2/{repository}/manifests/{reference}"))
            .header("Accept", media_type::ACCEPT_ALL);
        let head = client.send(head)?;
        let named = head.headers.get("docker-content-digest").context("a manifest unnamed")?;
        let digest: Digest = named.parse()?;
        if !self.manifests.insert(digest) {
            return Ok(());
        }
        let manifest = Manifest::parse(&bytes, Some(&kind))?;
        for blob in manifest.blobs() {
            let head = format!("/v2/{repository}/blobs/{}", blob.digest);
            let head = Request::new("HEAD", head);
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
    fn the_summary_is_read() {
        let report = "\
OCI Conformance Test: FAIL
  OCI Conformance Test/ping: Pass
Totals:
  Disabled......................:          2
  Skip..........................:         16
  Pass..........................:        738
  FAIL..........................:         94
  Error.........................:          1
  Total.........................:        850
API conformance:
  Pass..........................:       Pass
";
        let expected = Counts { passed: 738, failed: 95, skipped: 16, disabled: 2 };
        assert_eq!(Counts::read(report).unwrap(), expected);
    }
}
