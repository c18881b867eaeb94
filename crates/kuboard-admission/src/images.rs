//! One name for every image, however a pod writes it: what policies are held against, and what is
//! looked up.
//!
//! Pure. What no container runtime would accept either is an error, never a guess.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
};

use kuboard_oci::{Digest, ImageReference, ImageReferenceError};

/// Docker Hub's one name.
const HUB: &str = "docker.io";
/// Its other names: those of its API, which serve the same repositories.
const HUB_ALIASES: &[&str] =
    &["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
/// Longest text that is read as an image; names end at 255 bytes, tags at 128, digests at 135.
const MAX_BYTES: usize = 1024;

/// What an image is called when policies look at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Host in lower case, with its port unless that is 443; empty for images that are hosted
    /// here.
    pub registry: String,
    /// The repository.
    pub repository: String,
    /// The tag; `None` if a digest says which image it is, because a tag beside a digest is
    /// checked by nobody.
    pub tag: Option<String>,
}

impl Name {
    /// The name of an image as it is written.
    #[must_use]
    pub fn of(image: &ImageReference) -> Self {
        let tag = match (&image.digest, &image.tag) {
            (Some(_), _) => None,
            (None, Some(tag)) => Some(tag.to_string()),
            (None, None) => Some("latest".to_owned()),
        };
        Self {
            registry: image.registry.to_ascii_lowercase(),
            repository: image.repository.to_string(),
            tag,
        }
    }
}

/// Reads an image as a pod writes it and brings it into its one form: Docker Hub's aliases, the
/// default port, addresses and capitals in hosts.
///
/// # Errors
/// No container runtime would take it.
pub fn normalised(written: &str) -> Result<ImageReference, ImageReferenceError> {
    if written.len() > MAX_BYTES {
        let length = written.len();
        return Err(kuboard_oci::NameError::TooLong { length }.into());
    }
    // To a runtime this is the id of an image that it has, whatever repository it came from.
    if written.parse::<Digest>().is_ok() {
        return Err(ImageReferenceError::Identifier);
    }
    let mut image: ImageReference = written.parse()?;
    let registry = plain_port(&image.registry);
    let host = without_default_port(&registry);
    let host = one_address(host).unwrap_or_else(|| host.to_owned());
    image.registry = match host.as_str() {
        alias if HUB_ALIASES.contains(&alias) => HUB.to_owned(),
        _ => host,
    };
    if image.registry == HUB && !image.repository.as_str().contains('/') {
        image.repository = format!("library/{}", image.repository).parse()?;
    }
    Ok(image)
}

/// The host without port 443, unless that port is all that tells it from a name.
fn without_default_port(registry: &str) -> &str {
    match registry.strip_suffix(":443") {
        Some(host) if host.contains(['.', '[']) || host == "localhost" => host,
        _ => registry,
    }
}

/// The port without the zeros before it, with which it is the same port.
fn plain_port(registry: &str) -> Cow<'_, str> {
    match registry.rsplit_once(':') {
        Some((host, port))
            if port.starts_with('0') && port.bytes().all(|it| it.is_ascii_digit()) =>
        {
            Cow::Owned(format!("{host}:{}", port.trim_start_matches('0')))
        }
        _ => Cow::Borrowed(registry),
    }
}

/// The one way to write an address that has several, with its port.
fn one_address(host: &str) -> Option<String> {
    let (address, port) = host.strip_prefix('[')?.split_once(']')?;
    let address: Ipv6Addr = address.parse().ok()?;
    Some(match address.to_ipv4_mapped() {
        Some(mapped) => format!("{}{port}", Ipv4Addr::from(mapped.octets())),
        None => format!("[{address}]{port}"),
    })
}

/// The image as written, without a digest that it may already have, with this one.
#[must_use]
pub fn pinned(written: &str, digest: &kuboard_oci::Digest) -> String {
    let named = written.split_once('@').map_or(written, |(named, _)| named);
    format!("{named}@{digest}")
}

#[cfg(test)]
mod tests {
    use super::{Name, normalised};

    #[test]
    fn one_name_for_each_image() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let check = |written: &str, want: Option<&str>| {
            let got = normalised(written).ok().map(|image| image.to_string());
            assert_eq!(got.as_deref(), want, "{written:?}");
        };
        for hub in [
            "nginx",
            "library/nginx",
            "docker.io/nginx",
            "docker.io/library/nginx",
            "index.docker.io/nginx",
            "index.docker.io/library/nginx",
            "registry-1.docker.io/library/nginx",
            "registry.hub.docker.com/library/nginx",
            "DOCKER.IO/nginx",
            "Docker.io/library/nginx",
            "docker.io:443/library/nginx",
            "registry-1.docker.io:443/nginx",
            "INDEX.docker.IO:443/nginx",
            "docker.io:0443/library/nginx",
        ] {
            check(hub, Some("docker.io/library/nginx"));
            check(&format!("{hub}:1.25"), Some("docker.io/library/nginx:1.25"));
            let with = format!("docker.io/library/nginx:1@{digest}");
            check(&format!("{hub}:1@{digest}"), Some(&with));
        }
        check("ghcr.io:443/a/b", Some("ghcr.io/a/b"));
        check("ghcr.io:5000/a/b", Some("ghcr.io:5000/a/b"));
        check("MY:443/x", Some("my:443/x"));
        check("localhost:443/x", Some("localhost/x"));
        check("ghcr.io:05000/a/b", Some("ghcr.io:5000/a/b"));
        check("[::1]:5000/a", Some("[::1]:5000/a"));
        check("[::1]:0443/a", Some("[::1]/a"));
        check("[0:0:0:0:0:0:0:1]:5000/a", Some("[::1]:5000/a"));
        check("[::ffff:10.0.0.1]:5000/a", Some("10.0.0.1:5000/a"));
        check("[2001:DB8::1]/a", Some("[2001:db8::1]/a"));
        check("localhost/a", Some("localhost/a"));
        for wrong in [
            "",
            " ",
            " nginx",
            "nginx ",
            "nginx\n",
            "docker.io./library/nginx",
            "docker.io:/nginx",
            "docker.io:0/nginx",
            "docker.io:99999/nginx",
            "https://docker.io/nginx",
            "nginx:",
            "nginx@",
            "nginx@sha256:abc",
            "NGINX",
            "docker.io/Nginx",
            "docker.io/library//nginx",
            "docker.io/library/../nginx",
            "exämple.org/nginx",
            "докер.рф/nginx",
            "[::1/nginx",
            "[nonsense]/nginx",
            "a/b:c/d",
            "nginx:tag:tag",
            &"a".repeat(64),
            &"b/".repeat(4000),
            &format!("nginx@{digest}@{digest}"),
            &format!("nginx@{}", digest.to_uppercase()),
            &format!("nginx@{}", digest.replace('a', "A")),
            "nginx@md5:d41d8cd98f00b204e9800998ecf8427e",
            &digest,
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn names_have_a_tag_unless_a_digest_says_more() {
        let check = |written: &str, want: (&str, &str, Option<&str>)| {
            let name = Name::of(&normalised(written).unwrap());
            let got = (name.registry.as_str(), name.repository.as_str(), name.tag.as_deref());
            assert_eq!(got, want, "{written}");
        };
        check("nginx", ("docker.io", "library/nginx", Some("latest")));
        check("Q.io/a:1", ("q.io", "a", Some("1")));
        check("MYHOST/a:1", ("myhost", "a", Some("1")));
        let digest = format!("sha256:{}", "0".repeat(64));
        check(&format!("q.io/a:1@{digest}"), ("q.io", "a", None));
    }
}
