//! Fields of a file that the schema does not know. An API server tells them itself (or drops
//! them); who reads a file must look.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use serde_yaml_ng::Value;

use crate::error::Problem;

static DEFINITIONS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(super::all);

/// A problem for each field below `spec` that the kind's schema does not know, and for each at the
/// top that no object has.
pub(crate) fn unknown_fields(kind: &str, object: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(definition) = DEFINITIONS.iter().find(|it| it.spec.names.kind == kind) else {
        return problems;
    };
    let schema = definition.spec.versions.first().and_then(|version| version.schema.as_ref());
    let Some(schema) = schema.and_then(|it| it.open_api_v3_schema.as_ref()) else {
        return problems;
    };
    let Value::Mapping(fields) = object else { return problems };
    for (name, value) in fields {
        let name = name.as_str().unwrap_or_default();
        match name {
            "apiVersion" | "kind" | "metadata" | "status" => {}
            "spec" => {
                if let Some(schema) = property(schema, "spec") {
                    walk(schema, value, "spec", &mut problems);
                }
            }
            name => {
                let known = ["apiVersion", "kind", "metadata", "spec"];
                problems.push(unknown(name.to_owned(), name, &known));
            }
        }
    }
    problems
}

fn property<'s>(schema: &'s JSONSchemaProps, name: &str) -> Option<&'s JSONSchemaProps> {
    schema.properties.as_ref()?.get(name)
}

fn walk(schema: &JSONSchemaProps, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    match value {
        Value::Mapping(fields) => {
            // An object without known fields is a map with any keys.
            let Some(properties) = &schema.properties else { return };
            for (name, value) in fields {
                let name = name.as_str().unwrap_or_default();
                let inner = format!("{path}.{name}");
                match properties.get(name) {
                    Some(schema) => walk(schema, value, &inner, problems),
                    None => {
                        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                        problems.push(unknown(inner, name, &known));
                    }
                }
            }
        }
        Value::Sequence(items) => {
            let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items else { return };
            for (number, item) in items.iter().enumerate() {
                walk(schema, item, &format!("{path}[{number}]"), problems);
            }
        }
        _ => {}
    }
}

fn unknown(key: String, name: &str, known: &[&str]) -> Problem {
    let near = known
        .iter()
        .filter(|_| name.len() < 64)
        .map(|it| (strsim::damerau_levenshtein(it, name), it))
        .filter(|(distance, it)| *distance <= 1 + it.len() / 5)
        .min_by_key(|(distance, _)| *distance);
    let hint = match near {
        Some((_, near)) => format!("did you mean {near}?"),
        None => format!("known are {}", known.join(", ")),
    };
    let key: String = key.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    Problem::at(key, "no such field").hint(hint)
}
