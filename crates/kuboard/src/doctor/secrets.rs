//! What a pull secret holds for an image, in the doctor's words. How a kubelet reads it stands in
//! the operator's `credentials`; what it holds never leaves this file.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use k8s_openapi::api::core::v1::Secret;
use kuboard_oci::ImageReference;
use kuboard_operator::credentials::{Entry, PullSecret, SecretFault};
use kuboard_registry::credentials::Credential;
use serde_json::Value;

/// What a Secret says of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Credentials for it.
    Credentials,
    /// Credentials for it whose time is over (milliseconds since 1970).
    Expired(i64),
    /// Others only; their addresses.
    OtherHosts(Vec<String>),
    /// Nothing that a kubelet takes, and why.
    WrongType(String),
    /// Something that can't be used, and why.
    Malformed(String),
}

/// A type that only a RegistryCredential may name.
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";

/// Looks what a Secret holds for an image.
pub(crate) fn holds(secret: &Secret, image: &ImageReference, now_ms: i64) -> Holds {
    let kind = secret.type_.as_deref().unwrap_or("Opaque");
    let empty = std::collections::BTreeMap::new();
    let read = match kind {
        BASIC_AUTH => Err(SecretFault::Type(kind.to_owned())),
        kind => PullSecret::read(kind, secret.data.as_ref().unwrap_or(&empty)),
    };
    let read = match read {
        Ok(read) => read,
        Err(fault @ SecretFault::Type(_)) => return Holds::WrongType(fault.to_string()),
        Err(fault) => return Holds::Malformed(fault.to_string()),
    };
    let (registry, repository) = (image.registry.as_str(), image.repository.as_str());
    let found = read.entries_for(registry, repository).next();
    match found.or_else(|| read.hub_login(registry)) {
        None => Holds::OtherHosts(read.addresses().into_iter().map(ToOwned::to_owned).collect()),
        Some((_, Entry::Basic(Credential::Basic { password, .. }))) => {
            match expiry_ms(password.expose()).filter(|end| *end <= now_ms) {
                Some(end) => Holds::Expired(end),
                None => Holds::Credentials,
            }
        }
        Some((key, Entry::Basic(_) | Entry::Token(_))) => Holds::Malformed(format!(
            "its entry {} holds a token of a form that kubelets do not use",
            key.as_str()
        )),
        Some((key, Entry::Empty)) => {
            Holds::Malformed(format!("its entry {} is empty", key.as_str()))
        }
    }
}

/// When a password that is a token ends: a JWT says so, and so does ECR's.
fn expiry_ms(password: &str) -> Option<i64> {
    let seconds = |bytes: Vec<u8>, key: &str| {
        serde_json::from_slice::<Value>(&bytes).ok()?.get(key)?.as_i64()
    };
    let jwt = || {
        let payload = password.split('.').nth(1)?;
        seconds(URL_SAFE_NO_PAD.decode(payload).ok()?, "exp")
    };
    let ecr = || seconds(STANDARD.decode(password).ok()?, "expiration");
    jwt().or_else(ecr)?.checked_mul(1000)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{ByteString, api::core::v1::Secret};

    use super::*;

    const CONFIG: (&str, &str) = ("kubernetes.io/dockerconfigjson", ".dockerconfigjson");

    fn secret((kind, key): (&str, &str), text: &str) -> Secret {
        Secret {
            type_: Some(kind.to_owned()),
            data: Some([(key.to_owned(), ByteString(text.as_bytes().to_vec()))].into()),
            ..Secret::default()
        }
    }

    #[test]
    fn secrets_are_told_apart() {
        let check = |secret: &Secret, host: &str, want: &str| {
            let image: ImageReference = format!("{host}/team/app:1").parse().unwrap();
            let got = format!("{:?}", holds(secret, &image, 1_000_000));
            assert!(got.starts_with(want), "{host}: {got}, not {want}");
        };
        let user = |host: &str, password: &str| {
            let text =
                format!(r#"{{"auths":{{"{host}":{{"username":"u","password":"{password}"}}}}}}"#);
            secret(CONFIG, &text)
        };
        check(&user("r.test:5000", "p"), "r.test:5000", "Credentials");
        check(&user("r.test:5000", "p"), "r.test", "OtherHosts([\"r.test:5000\"])");
        check(&user("https://*.r.test/team", "p"), "x.r.test", "Credentials");
        check(&user("https://*.r.test/team", "p"), "y.x.r.test", "OtherHosts");
        // Kubelets take the path for a plain prefix.
        check(&user("r.test/tea", "p"), "r.test", "Credentials");
        check(&user("r.test/other", "p"), "r.test", "OtherHosts");
        check(&user("https://index.docker.io/v1/", "p"), "docker.io", "Credentials");
        check(&secret(CONFIG, "{}"), "r.test", "OtherHosts([])");
        check(&secret(("Opaque", "x"), "{}"), "r.test", "WrongType");
        check(&secret((BASIC_AUTH, "username"), "u"), "r.test", "WrongType");
        check(&secret((CONFIG.0, "config.json"), "{}"), "r.test", "Malformed");
        check(&secret(CONFIG, "not json"), "r.test", "Malformed");
        check(&secret(CONFIG, r#"{"auths":{"r.test":{}}}"#), "r.test", "Malformed");
        check(&secret(CONFIG, r#"{"auths":{"r.test":{"auth":"%"}}}"#), "r.test", "Malformed");
        check(
            &secret(CONFIG, r#"{"auths":{"r.test":{"identitytoken":"t"}}}"#),
            "r.test",
            "Malformed",
        );
        for (exp, want) in [(1000, "Expired(1000000)"), (1001, "Credentials")] {
            let token = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#));
            check(&user("r.test", &format!("e30.{token}.x")), "r.test", want);
        }
        let old = secret(
            ("kubernetes.io/dockercfg", ".dockercfg"),
            r#"{"r.test":{"username":"a","password":"b"}}"#,
        );
        check(&old, "r.test", "Credentials");
    }
}
