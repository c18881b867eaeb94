//! What a docker `config.json` says, as a value: which entry answers for which image.
//!
//! Keys are matched as kubelet matches those of image pull secrets: the host label by label with
//! wildcards that do not cross a dot, the port exactly, the path as a prefix; the longest path
//! wins. Unlike kubelet a path ends at a `/`: `quay.io/team` does not answer for
//! `quay.io/team2`.

use std::{cmp::Reverse, collections::BTreeMap};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

use super::{Credential, Secret};

/// The names under which files and helpers know Docker Hub.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// What credential helpers are asked for Docker Hub.
const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";
/// The user name by which a helper or an `auth` says that its secret is a refresh token.
const IDENTITY_TOKEN_USER: &str = "<token>";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A parsed file.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    /// The longest path first.
    entries: Vec<(Key, Entry)>,
    helpers: Vec<(Key, String)>,
    store: Option<String>,
}

#[derive(Debug)]
enum Entry {
    Credential(Credential),
    /// An entry that is there but cannot be understood, and why.
    Broken(&'static str),
}

/// Where the credential of one image is to be had.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Found<'a> {
    /// A helper to ask first: its name, and the server to ask it for.
    pub(super) helper: Option<(&'a str, String)>,
    /// What the file itself holds.
    pub(super) entry: Option<Result<&'a Credential, &'static str>>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
    #[serde(rename = "registrytoken")]
    registry_token: String,
}

impl Keyring {
    /// Reads the file's JSON. Unknown members do not matter.
    pub(super) fn parse(bytes: &[u8]) -> Result<Keyring, serde_json::Error> {
        // A struct would also be read from a list; a list is not a configuration.
        let members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes)?;
        let file: File = serde_json::from_value(members.into())?;
        let mut entries: Vec<(Key, Entry)> = file
            .auths
            .into_iter()
            .filter_map(|(key, auth)| Some((Key::parse(&key)?, auth.read()?)))
            .collect();
        let mut helpers: Vec<(Key, String)> = file
            .helpers
            .into_iter()
            .filter_map(|(key, helper)| Some((Key::parse(&key)?, helper)))
            .collect();
        entries.sort_by_key(|(key, _)| key.rank());
        helpers.sort_by_key(|(key, _)| key.rank());
        Ok(Keyring { entries, helpers, store: Some(file.store).filter(|name| !name.is_empty()) })
    }

    /// What answers for a repository of a registry (`host[:port]`).
    pub(super) fn find(&self, registry: &str, repository: &str) -> Found<'_> {
        let image = Image::new(registry, repository);
        let own = self.helpers.iter().find(|(key, _)| key.matches(&image));
        let helper = own
            .map(|(_, name)| name.as_str())
            .or(self.store.as_deref())
            .map(|name| (name, server(registry)));
        let entry = self.entries.iter().find(|(key, _)| key.matches(&image));
        let entry = entry.map(|(_, entry)| match entry {
            Entry::Credential(credential) => Ok(credential),
            Entry::Broken(why) => Err(*why),
        });
        Found { helper, entry }
    }
}

/// What a helper is asked for.
fn server(registry: &str) -> String {
    if is_docker_hub(registry) { DOCKER_HUB_SERVER.to_owned() } else { registry.to_owned() }
}

fn is_docker_hub(host: &str) -> bool {
    DOCKER_HUB.iter().any(|known| known.eq_ignore_ascii_case(host))
}

/// The credential of a user name and a secret, as docker's files and helpers write them.
pub(super) fn credential(user: String, secret: String) -> Credential {
    if user == IDENTITY_TOKEN_USER {
        Credential::IdentityToken(secret.into())
    } else {
        Credential::Basic { user, password: secret.into() }
    }
}

impl Auth {
    /// `None` for the empty entries that `docker login` leaves beside a credential store.
    fn read(self) -> Option<Entry> {
        if !self.identity_token.is_empty() {
            let token = Secret::new(self.identity_token);
            return Some(Entry::Credential(Credential::IdentityToken(token)));
        }
        if !self.registry_token.is_empty() {
            let token = Secret::new(self.registry_token);
            return Some(Entry::Credential(Credential::Bearer(token)));
        }
        if !self.auth.is_empty() {
            return Some(decode(&self.auth));
        }
        (!self.username.is_empty())
            .then(|| Entry::Credential(credential(self.username, self.password)))
    }
}

fn decode(auth: &str) -> Entry {
    let Ok(bytes) = BASE64.decode(auth.trim_ascii()) else {
        return Entry::Broken("its \"auth\" is not base64");
    };
    let Ok(text) = String::from_utf8(bytes) else {
        return Entry::Broken("its \"auth\" is not text");
    };
    // Docker pads old secrets with zero bytes.
    match text.trim_end_matches('\0').split_once(':') {
        Some((user, secret)) if !user.is_empty() => {
            Entry::Credential(credential(user.to_owned(), secret.to_owned()))
        }
        _ => Entry::Broken("its \"auth\" does not hold user:password"),
    }
}

/// A key of the file, such as `*.example.com:5000/team`.
#[derive(Debug)]
struct Key {
    host: String,
    port: Option<String>,
    /// Without slashes at its ends.
    path: String,
}

impl Key {
    fn parse(key: &str) -> Option<Key> {
        let key = key.split_once("://").map_or(key, |(_, rest)| rest).to_ascii_lowercase();
        let (authority, path) = key.split_once('/').unwrap_or((&key, ""));
        let (host, port) = split_port(authority);
        if host.is_empty() {
            return None;
        }
        // Docker writes the API's version behind the host; it says nothing about the image.
        let path = path.trim_matches('/');
        let path = match path.split_once('/').unwrap_or((path, "")) {
            ("v1" | "v2", rest) => rest.trim_matches('/'),
            _ => path,
        };
        let host = if is_docker_hub(host) { "docker.io" } else { host };
        Some(Key { host: host.to_owned(), port: port.map(str::to_owned), path: path.to_owned() })
    }

    /// Sorts what is more telling before what is less: longer paths, then hosts without
    /// wildcards, then longer hosts.
    fn rank(&self) -> (Reverse<usize>, usize, Reverse<usize>) {
        (Reverse(self.path.len()), self.host.matches('*').count(), Reverse(self.host.len()))
    }

    fn matches(&self, image: &Image<'_>) -> bool {
        let mut own = self.host.split('.');
        let mut asked = image.host.split('.');
        let same_host = loop {
            match (own.next(), asked.next()) {
                (None, None) => break true,
                (Some(pattern), Some(label)) if wildcard(pattern, label) => {}
                _ => break false,
            }
        };
        let below = image
            .repository
            .strip_prefix(self.path.as_str())
            .is_some_and(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with('/'));
        same_host && self.port.as_deref() == image.port && below
    }
}

/// What is looked for.
struct Image<'a> {
    host: String,
    port: Option<&'a str>,
    repository: &'a str,
}

impl<'a> Image<'a> {
    fn new(registry: &'a str, repository: &'a str) -> Image<'a> {
        let (host, port) = split_port(registry);
        let host = if is_docker_hub(host) { "docker.io" } else { host };
        Image { host: host.to_ascii_lowercase(), port, repository }
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}

/// `*` stands for any characters, `?` for one. Runs in the product of both lengths.
fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(b) if *b == b'?' || *b == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Credential {
        Credential::Basic { user: user.to_owned(), password: Secret::new(password) }
    }

    /// Which key of a file with one entry a key answers for an image.
    #[track_caller]
    fn check(keys: &[&str], registry: &str, repository: &str, expected: Option<&str>) {
        let auths: serde_json::Map<String, serde_json::Value> = keys
            .iter()
            .map(|key| (key.to_string(), serde_json::json!({"username": key, "password": "x"})))
            .collect();
        let file = serde_json::json!({ "auths": auths }).to_string();
        let ring = Keyring::parse(file.as_bytes()).unwrap();
        let found = ring.find(registry, repository).entry;
        let expected = expected.map(|user| basic(user, "x"));
        assert_eq!(found, expected.as_ref().map(Ok), "{keys:?} for {registry}/{repository}");
    }

    #[test]
    fn keys_match_as_kubelet_matches_them() {
        let hub = "https://index.docker.io/v1/";
        check(&[hub], "docker.io", "library/alpine", Some(hub));
        check(&["docker.io"], "docker.io", "library/alpine", Some("docker.io"));
        check(&["registry-1.docker.io"], "docker.io", "a/b", Some("registry-1.docker.io"));
        check(&["quay.io"], "quay.io", "team/app", Some("quay.io"));
        check(&["quay.io"], "quay.io:443", "team/app", None);
        check(&["quay.io:5000"], "quay.io:5000", "team/app", Some("quay.io:5000"));
        check(&["https://quay.io/v2/"], "quay.io", "a", Some("https://quay.io/v2/"));
        check(&["*.example.com"], "reg.example.com", "a", Some("*.example.com"));
        check(&["*.example.com"], "a.reg.example.com", "a", None);
        check(&["*.example.com"], "example.com", "a", None);
        check(&["*"], "localhost", "a", Some("*"));
        check(&["reg*.io"], "registry.io", "a", Some("reg*.io"));
        check(&["Quay.IO"], "quay.io", "a", Some("Quay.IO"));
        check(&["evilquay.io"], "quay.io", "a", None);
        check(&["quay.io"], "quay.io.evil.com", "a", None);
    }

    #[test]
    fn the_longest_path_wins() {
        let keys = ["quay.io", "quay.io/team", "quay.io/team/app", "*.io/team/app/deep"];
        check(&keys, "quay.io", "other/app", Some("quay.io"));
        check(&keys, "quay.io", "team/thing", Some("quay.io/team"));
        check(&keys, "quay.io", "team/app", Some("quay.io/team/app"));
        check(&keys, "quay.io", "team/app/x", Some("quay.io/team/app"));
        check(&keys, "quay.io", "team/app/deep", Some("*.io/team/app/deep"));
        check(&keys, "quay.io", "team2/app", Some("quay.io"));
        check(&["quay.io/team"], "quay.io", "team2/app", None);
        check(&["*.io", "quay.io"], "quay.io", "a", Some("quay.io"));
    }

    #[test]
    fn entries_come_in_several_forms() {
        let cases = [
            (r#"{"auth":"dXNlcjpwYTpzcw=="}"#, Some(Ok(basic("user", "pa:ss")))),
            (r#"{"auth":"dXNlcjpwYTpzcw"}"#, Some(Ok(basic("user", "pa:ss")))),
            (r#"{"auth":"cm9ib3QkdGVhbStwdWxsOnM="}"#, Some(Ok(basic("robot$team+pull", "s")))),
            (r#"{"auth":"dXNlcjpwYXNzAAA="}"#, Some(Ok(basic("user", "pass")))),
            (r#"{"auth":"%%%"}"#, Some(Err("its \"auth\" is not base64"))),
            (r#"{"auth":"dXNlcg=="}"#, Some(Err("its \"auth\" does not hold user:password"))),
            (
                r#"{"auth":"MDAwOg==","identitytoken":"refresh"}"#,
                Some(Ok(Credential::IdentityToken(Secret::new("refresh")))),
            ),
            (
                r#"{"username":"<token>","password":"refresh"}"#,
                Some(Ok(Credential::IdentityToken(Secret::new("refresh")))),
            ),
            (r#"{"registrytoken":"jwt"}"#, Some(Ok(Credential::Bearer(Secret::new("jwt"))))),
            (r"{}", None),
            (r#"{"email":"a@b.c"}"#, None),
        ];
        for (entry, expected) in cases {
            let file = format!(r#"{{"auths":{{"reg.test":{entry}}},"psFormat":"x"}}"#);
            let ring = Keyring::parse(file.as_bytes()).unwrap();
            let found = ring.find("reg.test", "a").entry.map(|entry| entry.cloned());
            assert_eq!(found, expected, "{entry}");
        }
    }

    #[test]
    fn helpers_come_before_entries_and_own_helpers_before_the_store() {
        let file = br#"{"auths":{"reg.test":{"auth":"dTpw"}},
            "credHelpers":{"gcr.io":"gcloud","*.dkr.ecr.*.amazonaws.com":"ecr-login"},
            "credsStore":"desktop"}"#;
        let ring = Keyring::parse(file).unwrap();
        let helper = |registry: &str| ring.find(registry, "a/b").helper;
        assert_eq!(helper("gcr.io"), Some(("gcloud", "gcr.io".to_owned())));
        let ecr = "1.dkr.ecr.eu-west-1.amazonaws.com";
        assert_eq!(helper(ecr), Some(("ecr-login", ecr.to_owned())));
        assert_eq!(helper("docker.io"), Some(("desktop", DOCKER_HUB_SERVER.to_owned())));
        let own = ring.find("reg.test", "a");
        assert_eq!(own.helper, Some(("desktop", "reg.test".to_owned())));
        assert_eq!(own.entry, Some(Ok(&basic("u", "p"))));
    }

    #[test]
    fn a_file_that_is_not_json_is_an_error_and_an_empty_one_is_not() {
        assert!(Keyring::parse(b"{").is_err());
        assert!(Keyring::parse(b"[]").is_err());
        let none = Found { helper: None, entry: None };
        assert_eq!(Keyring::parse(b"{}").unwrap().find("a", "b"), none);
    }
}
