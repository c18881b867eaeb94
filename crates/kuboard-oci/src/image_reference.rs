//! Image references as people write them, `alpine` or `ghcr.io/team/app:1@sha256:…`, with the
//! defaults of Docker filled in.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::{
    digest::Digest,
    error::ImageReferenceError,
    reference::{RepositoryName, Tag},
    text::serde_as_text,
};

/// The registry of references that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Docker Hub's name of old.
const LEGACY_REGISTRY: &str = "index.docker.io";
/// Docker Hub's namespace for names of one component.
const OFFICIAL: &str = "library/";
/// Longest host name in the domain name system.
const MAX_HOST_BYTES: usize = 253;

/// An image in a registry: `[registry/]repository[:tag][@digest]`.
///
/// `Display` writes the full form, and reading that gives the same value again.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct ImageReference {
    /// `host[:port]`; `docker.io` if the text names none. Lower case, but for a host that is only
    /// told from a name by its capitals (`MYHOST/app`), which stays as written.
    pub registry: String,
    /// The repository, with `library/` added where Docker Hub means it.
    pub repository: RepositoryName,
    /// The tag if one is written; none is not filled in with `latest`.
    pub tag: Option<Tag>,
    /// The digest if one is written; it goes before the tag.
    pub digest: Option<Digest>,
}

impl FromStr for ImageReference {
    type Err = ImageReferenceError;

    /// # Errors
    /// See [`ImageReferenceError`].
    fn from_str(text: &str) -> Result<Self, ImageReferenceError> {
        if text.contains("://") {
            return Err(ImageReferenceError::Scheme);
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ImageReferenceError::Identifier);
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse()?)),
            None => (text, None),
        };
        let (registry, path) = match named.split_once('/') {
            Some((host, path)) if is_host_like(host) => (checked_host(host)?, path),
            _ => (DEFAULT_REGISTRY.to_owned(), named),
        };
        let (name, tag) = match path.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag.parse()?)),
            None => (path, None),
        };
        let repository = if registry == DEFAULT_REGISTRY && !name.is_empty() && !name.contains('/')
        {
            // Checked on its own first, so that an error points into what was written.
            name.parse::<RepositoryName>()?;
            format!("{OFFICIAL}{name}").parse()?
        } else {
            name.parse()?
        };
        Ok(ImageReference { registry, repository, tag, digest })
    }
}

/// Whether the part before the first `/` is a host rather than the begin of a name.
fn is_host_like(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

/// Checks `host[:port]` and brings it into the form in which references are compared.
fn checked_host(written: &str) -> Result<String, ImageReferenceError> {
    let (host, port) = split_port(written).ok_or(ImageReferenceError::Host)?;
    let host_fits = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.len() <= MAX_HOST_BYTES && host.split('.').all(is_host_label),
    };
    if !host_fits || port.is_some_and(|port| !is_port(port)) {
        return Err(ImageReferenceError::Host);
    }
    let lower = written.to_ascii_lowercase();
    Ok(match lower.as_str() {
        LEGACY_REGISTRY => DEFAULT_REGISTRY.to_owned(),
        same if is_host_like(same) => lower,
        _ => written.to_owned(),
    })
}

/// Splits `host:port`, minding the colons of a bracketed address.
fn split_port(written: &str) -> Option<(&str, Option<&str>)> {
    let host_end = match written.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => written.find(':').unwrap_or(written.len()),
    };
    let (host, rest) = written.split_at(host_end);
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port))),
        None => rest.is_empty().then_some((host, None)),
    }
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|number| number > 0)
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

serde_as_text!(ImageReference);
