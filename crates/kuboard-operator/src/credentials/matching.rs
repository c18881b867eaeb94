//! Keys of docker's configuration as kubelet reads them: `[scheme://]host[:port][/path]`.
//!
//! Labels of the host may hold `*`, which crosses no dot; the port must be the same, a missing one
//! included; the path is a plain prefix, so `quay.io/team` answers for `quay.io/team2/app` too.
//! Docker Hub is `docker.io`, and `index.docker.io` answers for it only if nothing else does.

/// A key, read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Without its scheme, as kubelet sorts it.
    text: String,
    host: String,
    port: String,
    /// With its leading slash; empty for a whole registry.
    path: String,
}

/// The key that `docker login` writes for Docker Hub.
const HUB_LOGIN: &str = "index.docker.io";
const HUB: &str = "docker.io";

impl Key {
    /// Reads a key; `None` for what kubelet leaves out because it is no address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Key> {
        let rest =
            text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        // Kubelet reads it as a URL, whose query says nothing about an image.
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (host, port) = split_port(authority)?;
        let fits = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}%".contains(&byte);
        if host.is_empty() || !authority.bytes().all(fits) {
            return None;
        }
        // The version of docker's API stands before the path.
        let path = match path.get(..4) {
            Some("/v1/" | "/v2/") => path.get(3..).unwrap_or_default(),
            _ => path,
        };
        let path = if path == "/" { "" } else { path };
        Some(Key {
            text: format!("{authority}{path}"),
            host: host.to_owned(),
            port: port.to_owned(),
            path: path.to_owned(),
        })
    }

    /// As kubelet sorts it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True if it answers for the repository of the registry (`host[:port]`).
    #[must_use]
    pub fn matches(&self, registry: &str, repository: &str) -> bool {
        let Some((host, port)) = split_port(registry) else { return false };
        let below = match self.path.strip_prefix('/') {
            Some(path) => repository.starts_with(path),
            None => true,
        };
        below && self.port == port && same_labels(&self.host, host)
    }

    /// True if it is the key of last resort for Docker Hub's images.
    #[must_use]
    pub fn is_hub_login(&self, registry: &str) -> bool {
        registry == HUB && self.text == HUB_LOGIN
    }
}

fn same_labels(pattern: &str, host: &str) -> bool {
    let (mut own, mut asked) = (pattern.split('.'), host.split('.'));
    loop {
        match (own.next(), asked.next()) {
            (None, None) => return true,
            (Some(pattern), Some(label)) if wildcard(pattern, label) => {}
            _ => return false,
        }
    }
}

/// Splits `host:port`, minding the colons of an address in brackets; `None` for what is neither.
fn split_port(authority: &str) -> Option<(&str, &str)> {
    let host_end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    match rest.strip_prefix(':') {
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()).then_some((host, port)),
        None => rest.is_empty().then_some((host, "")),
    }
}

/// `*` stands for any characters. Runs in the product of both lengths.
fn wildcard(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(key: &str, image: &str, expected: bool) {
        let (registry, repository) = image.split_once('/').unwrap();
        let matched = Key::parse(key).is_some_and(|key| key.matches(registry, repository));
        assert_eq!(matched, expected, "{key} for {image}");
    }

    #[test]
    fn keys_match_as_kubelet_matches_them() {
        check("quay.io", "quay.io/team/app", true);
        check("https://quay.io", "quay.io/team/app", true);
        check("https://quay.io/v2/", "quay.io/team/app", true);
        check("https://quay.io/v1/", "quay.io/team/app", true);
        check("https://quay.io/v1", "quay.io/team/app", false);
        check("quay.io/", "quay.io/team/app", true);
        check("quay.io/team", "quay.io/team/app", true);
        check("quay.io/team", "quay.io/team2/app", true);
        check("quay.io/team/", "quay.io/team2/app", false);
        check("quay.io/v2/team", "quay.io/team/app", true);
        check("quay.io/team/app", "quay.io/team", false);
        check("quay.io:443", "quay.io/app", false);
        check("quay.io", "quay.io:443/app", false);
        check("quay.io:5000", "quay.io:5000/app", true);
        check("Quay.io", "quay.io/app", false);
        check("*.quay.io", "a.quay.io/app", true);
        check("*.quay.io", "quay.io/app", false);
        check("*.quay.io", "a.b.quay.io/app", false);
        check("*.*.quay.io", "a.b.quay.io/app", true);
        check("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com/a", true);
        check("pre*post.io", "pre-x-post.io/a", true);
        check("pre*post.io", "prepost.io/a", true);
        check("pre*post.io", "prost.io/a", false);
        check("*", "localhost/a", true);
        check("*:5000", "localhost:5000/a", true);
        check("quay.io:*", "quay.io:5000/a", false);
        check("quay.io.evil", "quay.io/a", false);
        check("evilquay.io", "quay.io/a", false);
        check("[::1]:5000", "[::1]:5000/a", true);
        check("quay.io/*", "quay.io/team/app", false);
        check("quay.io?x=/", "quay.io/team/app", true);
        check("docker.io", "docker.io/library/alpine", true);
        check("index.docker.io", "docker.io/library/alpine", false);
    }

    #[test]
    fn what_is_no_address_is_left_out() {
        for text in ["", "/", "https://", "a b", "quay.io:port", "%zz", "[::1", "{x}"] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
        assert!(Key::parse("https://index.docker.io/v1/").unwrap().is_hub_login("docker.io"));
        assert!(!Key::parse("index.docker.io/x").unwrap().is_hub_login("docker.io"));
        assert!(!Key::parse("index.docker.io").unwrap().is_hub_login("quay.io"));
    }

    proptest! {
        #[test]
        fn a_wildcard_is_what_its_parts_say(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| slow(rest, &text[at..])),
                    Some((byte, rest)) => text.first() == Some(byte) && slow(rest, &text[1..]),
                }
            }
            prop_assert_eq!(wildcard(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_text_is_too_strange_to_read(text in any::<String>(), registry in any::<String>()) {
            if let Some(key) = Key::parse(&text) {
                let _ = key.matches(&registry, &text);
            }
        }
    }
}
