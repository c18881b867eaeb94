//! endoflife.date (`/api/v1/products/full`): when releases of distributions stop to get security
//! fixes without an extra contract (`eolFrom`).

use std::io::Read;

use serde::Deserialize;

use super::{ParseError, Summary, json, text};
use crate::Sink;

#[derive(Deserialize)]
struct Product {
    name: String,
    #[serde(default)]
    releases: Vec<Release>,
}

#[derive(Deserialize)]
struct Release {
    name: String,
    #[serde(rename = "eolFrom")]
    eol_from: Option<String>,
}

/// All products; those that are no distribution are passed over.
///
/// # Errors
/// If it is no such document, empty, cut off, or most of it is bad.
pub fn parse(input: impl Read, sink: &mut dyn Sink) -> Result<Summary, ParseError> {
    let mut summary = Summary::default();
    json::list(input, "endoflife.date", "result", &mut |key, raw| {
        if !key.is_empty() {
            return Ok(());
        }
        let product: Product = match serde_json::from_str(raw) {
            Ok(product) => product,
            Err(error) => {
                summary.skip("a product", error);
                return Ok(());
            }
        };
        for release in &product.releases {
            let day = release.eol_from.as_deref().and_then(text::day);
            match (namespace(&product.name, &release.name), day) {
                (Some(namespace), Some(day)) => {
                    summary.read(None);
                    sink.end_of_life(&namespace, &day);
                }
                _ => summary.ignored += 1,
            }
        }
        Ok(())
    })?;
    summary.judge_full()
}

fn namespace(product: &str, release: &str) -> Option<String> {
    let figures = release.starts_with(|first: char| first.is_ascii_digit())
        && release.len() <= 16
        && release.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !figures {
        return None;
    }
    let family = match product {
        "debian" | "ubuntu" | "fedora" | "sles" | "rhel" => product,
        "alpine" | "alpine-linux" => "alpine",
        "almalinux" => "alma",
        "rocky-linux" => "rocky",
        "oracle-linux" => "oracle",
        "amazon-linux" => "amazon",
        "opensuse" => "opensuse-leap",
        "cbl-mariner" => "mariner",
        "azure-linux" => "azurelinux",
        "photon" => "photon",
        _ => return None,
    };
    let major = release.split('.').next().unwrap_or_default();
    let release = match family {
        // Releases within a major one are not told apart.
        "rhel" | "alma" | "rocky" | "oracle" | "amazon" | "debian" if release.contains('.') => {
            // `amazon:2018.03` is the one of these with a name of two parts.
            return (release == "2018.03").then(|| format!("{family}:{major}"));
        }
        "photon" | "mariner" | "azurelinux" if !release.contains('.') => format!("{release}.0"),
        _ => release.to_owned(),
    };
    Some(format!("{family}:{release}"))
}

#[cfg(test)]
mod tests {
    use super::namespace;

    #[test]
    fn releases_are_namespaces() {
        for (product, release, want) in [
            ("ubuntu", "22.04", Some("ubuntu:22.04")),
            ("alpine-linux", "3.20", Some("alpine:3.20")),
            ("rhel", "9", Some("rhel:9")),
            ("rhel", "9.2", None),
            ("amazon-linux", "2023", Some("amazon:2023")),
            ("azure-linux", "3", Some("azurelinux:3.0")),
            ("opensuse", "15.6", Some("opensuse-leap:15.6")),
            ("sles", "15.5", Some("sles:15.5")),
            ("python", "3.12", None),
        ] {
            assert_eq!(namespace(product, release).as_deref(), want, "{product} {release}");
        }
    }
}
