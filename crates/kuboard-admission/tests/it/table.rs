//! The table of ways past admission, at the handler.

use std::{collections::BTreeMap, fmt::Write as _, sync::atomic::Ordering};

use kuboard_admission::{Settings, Unresolved};
use kuboard_api::desired::Namespace;
use kuboard_oci::Digest;
use kuboard_vuln::{Known, Severity};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::ground::{Ground, fact, facts};

const REGISTRY: &str = "registry.test";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    policies: String,
    exemptions: Vec<Exempted>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exempted {
    namespace: String,
    name: String,
    images: Vec<String>,
    vulnerabilities: Vec<String>,
    ends: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    name: String,
    namespace: String,
    expect: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    group: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    user: String,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    garbage: bool,
    #[serde(default)]
    padding: usize,
    /// A real API server never asks this.
    #[serde(default, rename = "handler")]
    _handler: bool,
    #[serde(default)]
    object: Option<Value>,
    #[serde(default)]
    old: Option<Value>,
}

fn digest(of: &str) -> Digest {
    Digest::sha256(of.as_bytes())
}

fn filled(text: &str) -> String {
    let vulnerable = digest("vulnerable");
    let index = digest("vulnerable index");
    text.replace("{registry}", REGISTRY)
        .replace("{hub}", "vulnerable")
        .replace("{vulnerable.index}", &index.to_string())
        .replace("{vulnerable.manifest}", &vulnerable.to_string())
        .replace("{multi.index}", &digest("multi index").to_string())
        .replace("{clean}", &digest("clean").to_string())
        .replace("{zero}", &format!("sha256:{}", "0".repeat(64)))
        .replace("{hex}", &"0123456789abcdef".repeat(4))
}

/// The placeholders of an object, and its repetitions, filled in.
fn expanded(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(filled(text)),
        Value::Array(items) => items.iter().flat_map(repeated).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), expanded(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

fn repeated(item: &Value) -> Vec<Value> {
    let inner = item.as_str().and_then(|it| it.strip_prefix("{repeat ")?.strip_suffix('}'));
    let Some((number, image)) = inner.and_then(|it| it.split_once(' ')) else {
        return vec![expanded(item)];
    };
    let container = |n| json!({"name": format!("r{n}"), "image": filled(image)});
    (0..number.parse::<usize>().unwrap()).map(container).collect()
}

fn world(table: &Table) -> Ground {
    let ground = Ground::new(Settings::default());
    let mut policies = table.policies.clone();
    for it in &table.exemptions {
        let ends = if it.ends == "past" { "2026-11-22T23:59:59Z" } else { "2026-12-22T00:00:00Z" };
        let spec = json!({
            "images": it.images, "vulnerabilities": it.vulnerabilities, "reason": "test",
            "expiresAt": ends,
        });
        let exemption = json!({
            "apiVersion": "kuboard.cn/v1alpha1", "kind": "ImageExemption",
            "metadata": {"name": it.name, "namespace": it.namespace}, "spec": spec,
        });
        let _ = write!(policies, "\n---\n{exemption}\n");
    }
    let namespaces = table.namespaces.iter();
    let known = |(name, labels): (&String, &BTreeMap<String, String>)| {
        (name.clone(), Namespace { labels: labels.clone() })
    };
    ground.want(&policies, namespaces.map(known).collect());
    let put = |name: &str, index: &str, manifests: &[&str]| {
        let manifests: Vec<Digest> = manifests.iter().map(|it| digest(it)).collect();
        for registry in [REGISTRY, "trusted.test", "trusted.test:5000", "trusted.test.evil"] {
            ground.world.put(&format!("{registry}/{name}"), digest(index), &manifests);
        }
    };
    put("team/vulnerable:1", "vulnerable index", &["vulnerable"]);
    put("team/clean:1", "clean", &["clean"]);
    put("team/multi:1", "multi index", &["clean", "vulnerable"]);
    put("team/unscanned:1", "unscanned", &["unscanned"]);
    put("team/partly:1", "partly", &["partly"]);
    for name in [
        "docker.io/library/vulnerable:1",
        "docker.io/library/vulnerable:latest",
        "nottrusted.test/team/vulnerable:1",
        "registry.test/trusted.test/vulnerable:1",
    ] {
        ground.world.put(name, digest("vulnerable index"), &[digest("vulnerable")]);
    }
    let gone = Unresolved::NotFound("no such image".to_owned());
    ground.world.images.lock().insert(format!("{REGISTRY}/team/gone:1"), Err(gone));
    let critical = facts(vec![fact("CVE-2026-0001", Severity::Critical)]);
    ground.facts.put(&digest("vulnerable"), &critical);
    ground.facts.put(&digest("clean"), &facts(vec![fact("CVE-2026-0002", Severity::Low)]));
    let mut partly = facts(Vec::new());
    partly.known = Known::Part("a layer is encrypted".into());
    ground.facts.put(&digest("partly"), &partly);
    ground
}

fn question(case: &Case) -> Vec<u8> {
    let kind = case.kind.as_deref().unwrap_or("Pod");
    let (username, groups) = match case.user.as_str() {
        "node" => ("system:node:n1", vec!["system:nodes"]),
        _ => ("alice", vec!["system:authenticated"]),
    };
    let completed = |object: &Value| {
        let mut object = expanded(object);
        if object["metadata"].is_null() {
            object["metadata"] = json!({});
        }
        if case.padding > 0 {
            object["metadata"]["annotations"] = json!({"padding": "x".repeat(case.padding)});
        }
        object
    };
    let review = json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {
                "group": case.group, "version": case.version.as_deref().unwrap_or("v1"),
                "kind": kind,
            },
            "subResource": case.sub_resource,
            "name": "x",
            "namespace": case.namespace,
            "operation": case.operation.as_deref().unwrap_or("CREATE"),
            "userInfo": {"username": username, "groups": groups},
            "object": case.object.as_ref().map(completed),
            "oldObject": case.old.as_ref().map(completed),
            "dryRun": case.dry_run,
        },
    });
    // As the API server writes it: the uid before the objects.
    let request = review["request"].clone();
    let mut text = format!(
        "{{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1\",\"request\":{{\"uid\":{}",
        request["uid"]
    );
    for (key, value) in request.as_object().unwrap() {
        if key != "uid" && !value.is_null() {
            let _ = write!(text, ",\"{key}\":{value}");
        }
    }
    let mut bytes = (text + "}}").into_bytes();
    if case.garbage {
        let at = bytes.len() - 40;
        bytes[at] = 0xff;
    }
    bytes
}

async fn check(ground: &Ground, case: &Case) -> Result<(), String> {
    let is_pod = case.kind.as_deref().unwrap_or("Pod") == "Pod" && case.group.is_empty();
    let path = if is_pod { "/admission/validate" } else { "/admission/warn" };
    let (status, text) = ground.post(path, question(case)).await;
    if status != 200 {
        return Err(format!("{status}: {text}"));
    }
    let answer: Value = serde_json::from_str(&text).map_err(|fault| fault.to_string())?;
    let response = &answer["response"];
    if response["uid"] != "705ab4f5-6393-11e8-b7cc-42010a800002" {
        return Err(format!("the answer is to another question: {text}"));
    }
    let warnings: Vec<&str> = response["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|it| !it.starts_with("kuboard.cn/probe="))
        .collect();
    let message = response["status"]["message"].as_str().unwrap_or_default();
    let got = match (response["allowed"].as_bool(), response["status"]["code"].as_u64()) {
        (Some(true), _) if warnings.is_empty() => "allow",
        (Some(true), _) => "warn",
        (Some(false), Some(403)) => "deny",
        (Some(false), Some(400)) => "reject",
        _ => "nonsense",
    };
    let said = format!("{message} {}", warnings.join(" "));
    if got != case.expect || !said.contains(&case.why) {
        return Err(format!("got {got}: {text}"));
    }
    if said.chars().any(|it| it.is_control()) || warnings.iter().any(|it| it.len() > 256) {
        return Err(format!("not fit for a terminal: {said:?}"));
    }
    Ok(())
}

#[tokio::test]
async fn nothing_gets_past() {
    let text = include_str!("../cases/bypass.yaml");
    let table: Table = serde_yaml_ng::from_str(text).unwrap();
    assert!(table.cases.len() >= 60);
    let mut wrong = String::new();
    // Once with everything known, and once with every name asked for.
    for cold in [false, true] {
        for case in &table.cases {
            // A world of its own: what one question leaves behind must not help another.
            let ground = world(&table);
            ground.world.cold.store(cold, Ordering::SeqCst);
            if let Err(fault) = check(&ground, case).await {
                let _ = writeln!(wrong, "{} (cold: {cold}): {fault}", case.name);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
