//! Secrets that hold credentials of registries, read as kubelet reads them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use k8s_openapi::ByteString;
use kuboard_registry::credentials::{Credential, Secret};
use serde::Deserialize;

use super::matching::Key;

/// Type of Secrets with a docker `config.json`.
pub(crate) const DOCKER_CONFIG_JSON: &str = "kubernetes.io/dockerconfigjson";
/// Type of Secrets with the older `.dockercfg`.
pub(crate) const DOCKERCFG: &str = "kubernetes.io/dockercfg";
/// Type of Secrets with a user and a password; RegistryCredentials may name them, pods not.
pub(crate) const BASIC_AUTH: &str = "kubernetes.io/basic-auth";
/// Entries read of one Secret.
const MAX_ENTRIES: usize = 1_000;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A Secret with credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSecret {
    entries: Vec<(Key, Entry)>,
    /// Of a Secret with a user and a password: what it holds for any registry.
    any: Option<Credential>,
    /// Keys that are no addresses, which kubelet leaves out.
    pub ignored: Vec<String>,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A user and a password.
    Basic(Credential),
    /// A token of another form, which kubelet does not use.
    Token(Credential),
    /// Nothing: the name of a registry without a secret.
    Empty,
}

/// Why a Secret is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    /// It is of another type.
    #[error(
        "its type is {0}, which kubelet passes over; hint: kubectl create secret docker-registry \
         makes one of type kubernetes.io/dockerconfigjson (the type of a Secret cannot be changed)"
    )]
    Type(String),
    /// It has not the key that its type asks for, or the key is empty.
    #[error(
        "it has no {0}, so kubelet passes over it; hint: kubectl create secret docker-registry"
    )]
    Missing(&'static str),
    /// It is not JSON of that form.
    #[error(
        "{key}, line {line}: not a docker configuration, so kubelet refuses to pull anything for \
         the pod; hint: {{\"auths\": {{\"registry.example.com\": {{\"auth\": \"…\"}}}}}} is one"
    )]
    Form {
        /// The key.
        key: &'static str,
        /// Where.
        line: usize,
    },
    /// An `auth` is not what it must be.
    #[error(
        "the entry {entry}: {why}, so kubelet refuses to pull anything for the pod; hint: auth is \
         the base64 of user:password"
    )]
    Auth {
        /// The entry's key.
        entry: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl SecretFault {
    /// True if kubelet pulls nothing for a pod that names it; otherwise it goes on without it.
    #[must_use]
    pub fn stops_kubelet(&self) -> bool {
        matches!(self, Self::Form { .. } | Self::Auth { .. })
    }
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

type Members = serde_json::Map<String, serde_json::Value>;

impl PullSecret {
    /// Reads a Secret's type and data.
    ///
    /// # Errors
    /// It is of no use; the text says why and what to do, and tells nothing of its content.
    pub fn read(kind: &str, data: &BTreeMap<String, ByteString>) -> Result<Self, SecretFault> {
        let bytes = |key: &'static str| {
            let found = data.get(key).filter(|bytes| !bytes.0.is_empty());
            found.map(|bytes| bytes.0.as_slice()).ok_or(SecretFault::Missing(key))
        };
        match kind {
            DOCKER_CONFIG_JSON => {
                const KEY: &str = ".dockerconfigjson";
                let mut file: Members = members(KEY, bytes(KEY)?)?;
                match file.remove("auths") {
                    Some(serde_json::Value::Object(auths)) => Self::of(KEY, auths),
                    None | Some(serde_json::Value::Null) => Self::of(KEY, Members::new()),
                    Some(_) => Err(SecretFault::Form { key: KEY, line: 1 }),
                }
            }
            DOCKERCFG => {
                const KEY: &str = ".dockercfg";
                Self::of(KEY, members(KEY, bytes(KEY)?)?)
            }
            BASIC_AUTH => {
                let text = |key| {
                    let lossless = String::from_utf8(bytes(key)?.to_vec());
                    lossless.map_err(|_| SecretFault::Missing(key))
                };
                let (user, password) = (text("username")?, Secret::new(text("password")?));
                let any = Some(Credential::Basic { user, password });
                Ok(Self { entries: Vec::new(), any, ignored: Vec::new() })
            }
            other => Err(SecretFault::Type(other.to_owned())),
        }
    }

    fn of(key: &'static str, auths: Members) -> Result<Self, SecretFault> {
        let mut entries = Vec::new();
        let mut ignored = Vec::new();
        for (text, value) in auths.into_iter().take(MAX_ENTRIES) {
            let auth: Auth = match value {
                serde_json::Value::Null => Auth::default(),
                value => {
                    serde_json::from_value(value).map_err(|_| SecretFault::Form { key, line: 1 })?
                }
            };
            let entry =
                entry(auth).map_err(|why| SecretFault::Auth { entry: text.clone(), why })?;
            match Key::parse(&text) {
                Some(key) => entries.push((key, entry)),
                None => ignored.push(text),
            }
        }
        Ok(Self { entries, any: None, ignored })
    }

    /// The entries that answer for a repository, in no order.
    pub fn entries_for<'a, 'b: 'a>(
        &'b self,
        registry: &'a str,
        repository: &'a str,
    ) -> impl Iterator<Item = (&'b Key, &'b Entry)> + 'a {
        self.entries
            .iter()
            .filter(move |(key, _)| key.matches(registry, repository))
            .map(|(key, entry)| (key, entry))
    }

    /// The entry that `docker login` writes for Docker Hub, used where no other answers.
    #[must_use]
    pub fn hub_login(&self, registry: &str) -> Option<(&Key, &Entry)> {
        let found = self.entries.iter().find(|(key, _)| key.is_hub_login(registry));
        found.map(|(key, entry)| (key, entry))
    }

    /// Addresses that it has entries for, for people.
    #[must_use]
    pub fn addresses(&self) -> Vec<&str> {
        self.entries.iter().map(|(key, _)| key.as_str()).collect()
    }

    /// What it holds for a repository when Kuboard itself asks the registry: the longest key, tokens
    /// included, with that key.
    #[must_use]
    pub fn best(&self, registry: &str, repository: &str) -> Option<(&str, &Credential)> {
        if let Some(any) = &self.any {
            return Some(("", any));
        }
        let answers = |key: &Key| key.matches(registry, repository) || key.is_hub_login(registry);
        self.entries
            .iter()
            .filter(|(key, _)| answers(key))
            .filter_map(|(key, entry)| match entry {
                Entry::Basic(credential) | Entry::Token(credential) => {
                    Some((key.as_str(), credential))
                }
                Entry::Empty => None,
            })
            .max_by_key(|(key, _)| (key.len(), *key))
    }
}

fn members(key: &'static str, bytes: &[u8]) -> Result<Members, SecretFault> {
    // Only the place: the parser's own text may quote what it found.
    serde_json::from_slice(bytes).map_err(|error| SecretFault::Form { key, line: error.line() })
}

fn entry(auth: Auth) -> Result<Entry, &'static str> {
    if !auth.auth.is_empty() {
        let bytes = BASE64.decode(auth.auth.trim_ascii()).map_err(|_| "its auth is not base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "its auth is not text")?;
        let (user, password) = text.split_once(':').ok_or("its auth has no colon")?;
        let password = password.trim_end_matches('\0');
        return Ok(basic(user.to_owned(), password.to_owned(), auth.identity_token));
    }
    if !auth.identity_token.is_empty() {
        let token = Secret::new(auth.identity_token);
        return Ok(Entry::Token(Credential::IdentityToken(token)));
    }
    if !auth.registry_token.is_empty() {
        return Ok(Entry::Token(Credential::Bearer(Secret::new(auth.registry_token))));
    }
    if auth.username.is_empty() && auth.password.is_empty() {
        return Ok(Entry::Empty);
    }
    Ok(basic(auth.username, auth.password, String::new()))
}

/// Beside an identity token docker writes a user and a zero as password.
fn basic(user: String, password: String, identity_token: String) -> Entry {
    if !identity_token.is_empty() {
        return Entry::Token(Credential::IdentityToken(Secret::new(identity_token)));
    }
    if user.is_empty() && password.is_empty() {
        return Entry::Empty;
    }
    Entry::Basic(Credential::Basic { user, password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, key: &str, text: &str) -> Result<PullSecret, SecretFault> {
        let data = [(key.to_owned(), ByteString(text.as_bytes().to_vec()))].into();
        PullSecret::read(kind, &data)
    }

    /// What it says of `reg.test/app`: `user:password`, or the fault's text.
    fn check(kind: &str, key: &str, text: &str, expected: &str) {
        let said = match read(kind, key, text) {
            Err(fault) => fault.to_string(),
            Ok(secret) => match secret.best("reg.test", "app") {
                None => "nothing".to_owned(),
                Some((_, Credential::Basic { user, password })) => {
                    format!("{user}:{}", password.expose())
                }
                Some((_, Credential::IdentityToken(token))) => {
                    format!("identity {}", token.expose())
                }
                Some((_, Credential::Bearer(token))) => format!("bearer {}", token.expose()),
            },
        };
        assert!(said.contains(expected), "{kind} {text}: {said}");
    }

    #[test]
    fn secrets_of_all_shapes_are_read_or_named() {
        let json = |text: &str, expected: &str| {
            check(DOCKER_CONFIG_JSON, ".dockerconfigjson", text, expected);
        };
        json(r#"{"auths":{"reg.test":{"auth":"dTpw"}}}"#, "u:p");
        json(r#"{"auths":{"reg.test":{"auth":"dTpwOnE="}}}"#, "u:p:q");
        json(r#"{"auths":{"reg.test":{"username":"u","password":"p"}}}"#, "u:p");
        json(r#"{"auths":{"reg.test":{"username":"x","password":"y","auth":"dTpw"}}}"#, "u:p");
        json(r#"{"auths":{"reg.test":{"identitytoken":"t"}}}"#, "identity t");
        json(r#"{"auths":{"reg.test":{"auth":"dTo=","identitytoken":"t"}}}"#, "identity t");
        json(r#"{"auths":{"reg.test":{"registrytoken":"t"}}}"#, "bearer t");
        json(r#"{"auths":{"reg.test":{}}}"#, "nothing");
        json(r#"{"auths":{"reg.test":null}}"#, "nothing");
        json(r#"{"auths":{"other.test":{"auth":"dTpw"}}}"#, "nothing");
        json(r#"{"auths":{"reg.test":{"auth":"dTpw"},"reg.test/app":{"auth":"YTpi"}}}"#, "a:b");
        json("{}", "nothing");
        json(r#"{"auths":null}"#, "nothing");
        json("", "has no .dockerconfigjson");
        json("{\n{", "line 2: not a docker configuration");
        json("[]", "not a docker configuration");
        json(r#"{"auths":[]}"#, "not a docker configuration");
        json(r#"{"auths":{"reg.test":"dTpw"}}"#, "not a docker configuration");
        json(r#"{"auths":{"reg.test":{"auth":"%"}}}"#, "entry reg.test: its auth is not base64");
        json(r#"{"auths":{"reg.test":{"auth":"dXA="}}}"#, "entry reg.test: its auth has no colon");
        check(DOCKERCFG, ".dockercfg", r#"{"reg.test":{"auth":"dTpw"}}"#, "u:p");
        check(
            DOCKERCFG,
            ".dockerconfigjson",
            r#"{"reg.test":{"auth":"dTpw"}}"#,
            "has no .dockercfg",
        );
        check("Opaque", ".dockerconfigjson", "{}", "its type is Opaque");
        check(BASIC_AUTH, "username", "u", "has no password");
    }

    #[test]
    fn a_user_and_a_password_answer_for_any_registry() {
        let field = |key: &str, text: &str| (key.to_owned(), ByteString(text.as_bytes().to_vec()));
        let data = [field("username", "u"), field("password", "p")].into();
        let secret = PullSecret::read(BASIC_AUTH, &data).unwrap();
        let expected = Credential::Basic { user: "u".to_owned(), password: Secret::new("p") };
        assert_eq!(secret.best("any.test", "a"), Some(("", &expected)));
    }

    #[test]
    fn kubelet_stops_at_what_it_cannot_parse_and_passes_over_the_rest() {
        let check = |kind: &str, text: &str, stops: bool| {
            let fault = read(kind, ".dockerconfigjson", text).unwrap_err();
            assert_eq!(fault.stops_kubelet(), stops, "{fault}");
        };
        check(DOCKER_CONFIG_JSON, "{", true);
        check(DOCKER_CONFIG_JSON, r#"{"auths":{"a":{"auth":"%"}}}"#, true);
        check(DOCKER_CONFIG_JSON, "", false);
        check("Opaque", "{}", false);
    }

    #[test]
    fn no_fault_tells_a_secret() {
        for text in
            [r#"{"auths":{"a":{"auth":"c2VjcmV0"}}}"#, r#"{"auths":{"a":"secret"}}"#, "secret"]
        {
            let fault = read(DOCKER_CONFIG_JSON, ".dockerconfigjson", text).unwrap_err();
            let told = format!("{fault} {fault:?}");
            assert!(!told.contains("secret") || told.contains("create secret"), "{told}");
            assert!(!told.contains("c2VjcmV0"), "{told}");
        }
    }
}
