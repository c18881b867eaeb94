//! What a pull secret holds for a registry: whether it can be used, and if not, why. The secret
//! itself never leaves this file.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

/// What a Secret says of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Credentials for it.
    Credentials,
    /// Credentials for it whose time is over (milliseconds since 1970).
    Expired(i64),
    /// Others only; their hosts.
    OtherHosts(Vec<String>),
    /// Nothing that a kubelet takes, and why.
    WrongType(String),
    /// Something that can't be read, and why.
    Malformed(String),
}

/// The types that a kubelet takes, with the key of each.
const TYPES: [(&str, &str); 2] = [
    ("kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
    ("kubernetes.io/dockercfg", ".dockercfg"),
];

/// Looks what a Secret holds for `host` (`host[:port]`) and a repository there.
pub(crate) fn holds(secret: &Secret, host: &str, repository: &str, now_ms: i64) -> Holds {
    let kind = secret.type_.as_deref().unwrap_or("Opaque");
    let Some((_, key)) = TYPES.iter().find(|(name, _)| *name == kind) else {
        return Holds::WrongType(format!(
            "its type is {kind}; kubelets take {} or {} only",
            TYPES[0].0, TYPES[1].0
        ));
    };
    let Some(data) = secret.data.as_ref().and_then(|data| data.get(*key)) else {
        return Holds::Malformed(format!("it has no key {key}"));
    };
    let Ok(document) = serde_json::from_slice::<Value>(&data.0) else {
        return Holds::Malformed(format!("{key} is no JSON"));
    };
    let auths = if *key == ".dockercfg" { Some(&document) } else { document.get("auths") };
    let Some(auths) = auths.and_then(Value::as_object) else {
        return Holds::Malformed(format!("{key} has no \"auths\""));
    };
    let mut others = Vec::new();
    for (registry, entry) in auths {
        if !covers(registry, host, repository) {
            others.push(registry.clone());
            continue;
        }
        return match credentials(entry) {
            Err(why) => Holds::Malformed(format!("its entry {registry}: {why}")),
            Ok(password) => match expiry_ms(&password).filter(|end| *end <= now_ms) {
                Some(end) => Holds::Expired(end),
                None => Holds::Credentials,
            },
        };
    }
    Holds::OtherHosts(others)
}

/// Whether an entry's key covers a repository, as kubelets decide: scheme and a trailing `/v1/` or
/// `/v2/` do not count, `*` stands for a part of one label of the host, the port must be the same,
/// a path must be a prefix.
fn covers(key: &str, host: &str, repository: &str) -> bool {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let key_path = match key_path.trim_end_matches('/') {
        "v1" | "v2" => "",
        path => path,
    };
    let hub = |host: &str| matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    let (key_name, key_port) = split_port(key_host);
    let (name, port) = split_port(host);
    let same_host = (hub(key_name) && hub(name))
        || (key_port == port
            && key_name.split('.').count() == name.split('.').count()
            && key_name.split('.').zip(name.split('.')).all(|(glob, label)| matches(glob, label)));
    let inside = key_path.is_empty()
        || repository == key_path
        || repository.strip_prefix(key_path).is_some_and(|rest| rest.starts_with('/'));
    same_host && inside
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    }
}

/// `*` stands for any characters.
fn matches(glob: &str, text: &str) -> bool {
    match glob.split_once('*') {
        None => glob.eq_ignore_ascii_case(text),
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter_map(|start| rest.get(start..)).any(|rest| matches(after, rest))
        }),
    }
}

/// The password of an entry; the error says what is wrong without repeating it.
fn credentials(entry: &Value) -> Result<String, &'static str> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    if !text("username").is_empty() || !text("password").is_empty() {
        return Ok(text("password").to_owned());
    }
    if !text("identitytoken").is_empty() || !text("registrytoken").is_empty() {
        return Ok(text("registrytoken").to_owned());
    }
    let auth = text("auth");
    if auth.is_empty() {
        return Err("it has neither auth nor username and password");
    }
    let decoded = STANDARD.decode(auth.trim()).map_err(|_| "auth is no Base64")?;
    let decoded = String::from_utf8(decoded).map_err(|_| "auth holds no text")?;
    let (_, password) = decoded.split_once(':').ok_or("auth holds no user:password")?;
    Ok(password.trim_end_matches(['\n', '\0']).to_owned())
}

/// When a password that is a token ends: a JWT says so, and so does ECR's.
fn expiry_ms(password: &str) -> Option<i64> {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

    fn secret(kind: &str, key: &str, text: &str) -> Secret {
        Secret {
            type_: Some(kind.to_owned()),
            data: Some([(key.to_owned(), ByteString(text.as_bytes().to_vec()))].into()),
            ..Secret::default()
        }
    }

    #[test]
    fn secrets_are_told_apart() {
        let json = |text: &str| secret(TYPES[0].0, TYPES[0].1, text);
        let auth = |text: &str| STANDARD.encode(text);
        let check = |secret: &Secret, host: &str, want: &str| {
            let got = format!("{:?}", holds(secret, host, "team/app", 1_000_000));
            assert!(got.starts_with(want), "{host}: {got}, not {want}");
        };
        let good = json(&format!(r#"{{"auths":{{"r.test:5000":{{"auth":"{}"}}}}}}"#, auth("a:b")));
        check(&good, "r.test:5000", "Credentials");
        check(&good, "r.test", "OtherHosts([\"r.test:5000\"])");
        check(&good, "other.test:5000", "OtherHosts");
        let globs = json(r#"{"auths":{"https://*.r.test/team":{"username":"a","password":"b"}}}"#);
        check(&globs, "x.r.test", "Credentials");
        check(&globs, "y.x.r.test", "OtherHosts");
        let path = json(r#"{"auths":{"r.test/tea":{"username":"a","password":"b"}}}"#);
        check(&path, "r.test", "OtherHosts");
        let hub =
            json(r#"{"auths":{"https://index.docker.io/v1/":{"username":"a","password":"b"}}}"#);
        check(&hub, "docker.io", "Credentials");
        check(&secret("Opaque", "x", "{}"), "r.test", "WrongType");
        check(&secret(TYPES[0].0, "config.json", "{}"), "r.test", "Malformed");
        check(&json("not json"), "r.test", "Malformed");
        check(&json("{}"), "r.test", "Malformed");
        check(&json(r#"{"auths":{"r.test":{}}}"#), "r.test", "Malformed");
        check(&json(r#"{"auths":{"r.test":{"auth":"%"}}}"#), "r.test", "Malformed");
        let plain = auth("nocolon");
        check(
            &json(&format!(r#"{{"auths":{{"r.test":{{"auth":"{plain}"}}}}}}"#)),
            "r.test",
            "Malformed",
        );
        let token = |exp: i64| {
            use base64::engine::general_purpose::URL_SAFE_NO_PAD;
            format!("e30.{}.x", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#)))
        };
        for (exp, want) in [(1000, "Expired(1000000)"), (1001, "Credentials")] {
            let text = format!(
                r#"{{"auths":{{"r.test":{{"username":"u","password":"{}"}}}}}}"#,
                token(exp)
            );
            check(&json(&text), "r.test", want);
        }
        let old = secret(TYPES[1].0, TYPES[1].1, r#"{"r.test":{"username":"a","password":"b"}}"#);
        check(&old, "r.test", "Credentials");
    }
}
