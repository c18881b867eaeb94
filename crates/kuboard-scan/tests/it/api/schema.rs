//! As much of JSON Schema as Clair's schemas need.
//!
//! Where Clair's program writes something else than its schemas say, the program counts, since
//! clients were made with it: a package's kind is written small, and a CPE that is not known is
//! an empty string. An update operation's kind, too, may be empty.

use serde_json::Value;

const SCHEMAS: &str = include_str!("../../data/api/clair.schemas.json");

/// Panics with all that is wrong with a document.
pub(crate) fn check(schema: &str, document: &Value) {
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap();
    let mut wrong = Vec::new();
    let file = format!("{schema}.schema.json");
    Checker { schemas: &schemas, wrong: &mut wrong }.value(
        &file,
        &schemas[&file],
        document,
        schema,
    );
    assert!(wrong.is_empty(), "{schema}: {wrong:#?}\n{document:#}");
}

struct Checker<'a> {
    schemas: &'a Value,
    wrong: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn value(&mut self, file: &str, schema: &Value, value: &Value, at: &str) {
        if let Some(target) = schema["$ref"].as_str() {
            let target = if target == "#" { file } else { target };
            if target != "cpe.schema.json" {
                self.value(target, &self.schemas[target], value, at);
            }
        }
        if let Some(kind) = schema["type"].as_str() {
            let fits = match kind {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("the schema has a {other}"),
            };
            if !fits {
                self.wrong.push(format!("{at}: {value} is no {kind}"));
            }
        }
        if let Some(allowed) = schema["enum"].as_array() {
            let upper = value.as_str().map(|text| Value::String(text.to_uppercase()));
            if !allowed.contains(value) && !upper.is_some_and(|upper| allowed.contains(&upper)) {
                self.wrong.push(format!("{at}: {value} is none of {allowed:?}"));
            }
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && let Some(hash) = pattern.strip_prefix("^sha256:[a-f0-9]{64}")
            && hash == "$"
        {
            let text = value.as_str().unwrap_or_default();
            if !text.starts_with("sha256:") || text.len() != 71 {
                self.wrong.push(format!("{at}: {text} is no digest"));
            }
        }
        for choice in ["anyOf"] {
            let Some(choices) = schema[choice].as_array() else { continue };
            let fits = choices.iter().any(|one| {
                let mut wrong = Vec::new();
                Checker { schemas: self.schemas, wrong: &mut wrong }.value(file, one, value, at);
                wrong.is_empty()
            });
            if !fits {
                self.wrong.push(format!("{at}: it fits no choice"));
            }
        }
        for (number, item) in value.as_array().into_iter().flatten().enumerate() {
            if schema["items"].is_object() {
                self.value(file, &schema["items"], item, &format!("{at}[{number}]"));
            }
        }
        self.object(file, schema, value, at);
    }

    fn object(&mut self, file: &str, schema: &Value, value: &Value, at: &str) {
        for name in schema["required"].as_array().into_iter().flatten() {
            if value.get(name.as_str().unwrap()).is_none() {
                self.wrong.push(format!("{at}: it has no {name}"));
            }
        }
        for (name, needed) in schema["dependentRequired"].as_object().into_iter().flatten() {
            for other in needed.as_array().unwrap() {
                let other = other.as_str().unwrap();
                if value.get(name).is_some() && value.get(other).is_none() {
                    self.wrong.push(format!("{at}: it has {name} and no {other}"));
                }
            }
        }
        for (name, field) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            let own = &schema["properties"][name];
            if own.is_object() {
                self.value(file, own, field, &at);
            } else if schema["additionalProperties"] == Value::Bool(false) {
                self.wrong.push(format!("{at}: there is no such field"));
            } else if schema["additionalProperties"].is_object() {
                self.value(file, &schema["additionalProperties"], field, &at);
            }
        }
    }
}
