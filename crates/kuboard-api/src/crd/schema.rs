//! What derived schemas still need before an API server takes them and people can read them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// An amount of time as text: `30s`, `5m`, `1h30m`, `7d`.
pub(super) const DURATION: (&str, &str) =
    (r"self.matches('^([0-9]{1,9}[smhd])+$')", "write a duration such as 30s, 5m, 24h or 7d");
/// A cron expression; whether its values make sense is said in the status.
pub(super) const CRON: (&str, &str) = (
    r"self.matches('^\\s*(@[a-z]+|[^\\s@]\\S*(\\s+\\S+){4})\\s*$')",
    "a schedule has five fields (minute, hour, day of the month, month, weekday), such as \
     0 */6 * * *, or is @hourly, @daily, @weekly, @monthly or @yearly",
);
/// `sha256-<hex>` of `sha256:<hex>`.
pub(super) const DIGEST: &str = "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$";

/// The value of `x-kubernetes-validations`.
pub(super) fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}

/// Makes optional fields of a struct fields that can be left out, rather than fields that can be
/// null, for which rules would need a case of their own; and unwraps the lines of descriptions.
pub(super) fn plain(schema: &mut Schema) {
    unwrap_lines(schema);
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for property in properties.values_mut().filter_map(Value::as_object_mut) {
        // An API server would write it into everybody's objects.
        property.remove("default");
        if let Some(Value::Array(types)) = property.get_mut("type") {
            types.retain(|it| it != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                property.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(either)) = property.get_mut("anyOf") {
            either.retain(|it| it.get("type").is_none_or(|it| it != "null"));
            if let [Value::Object(only)] = either.as_slice() {
                let only = only.clone();
                property.remove("anyOf");
                for (key, value) in only {
                    property.entry(key).or_insert(value);
                }
            }
        }
        if let Some(Value::String(text)) = property.get_mut("description") {
            *text = text.replace('\n', " ");
        }
    }
}

fn unwrap_lines(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

/// The conditions of a status: a list in which each type stands once, so that everybody who
/// applies it owns what is theirs.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What is the case, and since when.",
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024},
                "message": {"type": "string", "maxLength": 32768},
            },
        },
    })
}

/// A moment, as RFC 3339 writes it.
pub(super) struct Moment;

impl JsonSchema for Moment {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "maxLength": 64})
    }
}
