//! Server-side apply that writes only what is not so already.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use kuboard_api::names;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Error, OperatorMetrics, client::ask};

/// Applies an object under our name. True if it was written.
///
/// # Errors
/// It could not be read or written.
pub(crate) async fn apply<K>(
    api: &Api<K>,
    object: &K,
    metrics: Option<&OperatorMetrics>,
) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let name = object.name_any();
    let kind = K::kind(&());
    let what = format!("read {kind} {name}");
    let current = ask(&what, || api.get_opt(&name)).await?;
    if current.is_some_and(|current| is_so(&current, object)) {
        return Ok(false);
    }
    let params = PatchParams::apply(names::MANAGER).force();
    let what = format!("apply {kind} {name}");
    let patch = Patch::Apply(object);
    let outcome = ask(&what, || api.patch(&name, &params, &patch)).await;
    if let Some(metrics) = metrics {
        metrics.wrote(&kind, &outcome);
    }
    outcome.map(|_| true)
}

/// Removes an object. True if it was there.
///
/// # Errors
/// It could not be removed.
pub(crate) async fn remove<K>(api: &Api<K>, name: &str) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let what = format!("remove {} {name}", K::kind(&()));
    let params = DeleteParams::default();
    match ask(&what, || api.delete(name, &params)).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether everything that is wanted is there. What the API server or others added is no matter.
pub(crate) fn is_so(current: &impl Serialize, wanted: &impl Serialize) -> bool {
    match (serde_json::to_value(current), serde_json::to_value(wanted)) {
        (Ok(current), Ok(wanted)) => contains(&current, &wanted),
        _ => false,
    }
}

/// Objects may have more than is wanted; lists may not.
pub(crate) fn contains(have: &Value, want: &Value) -> bool {
    match (have, want) {
        (_, Value::Null) => true,
        (Value::Object(have), Value::Object(want)) => want.iter().all(|(key, want)| {
            // An empty list or map is left out by the API server.
            have.get(key).map_or_else(|| is_empty(want), |have| contains(have, want))
        }),
        (Value::Array(have), Value::Array(want)) => {
            have.len() == want.len()
                && have.iter().zip(want).all(|(have, want)| contains(have, want))
        }
        (have, want) => have == want,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::contains;

    #[test]
    fn what_is_so_is_not_written() {
        let check = |have: serde_json::Value, want: serde_json::Value, is_so: bool| {
            assert_eq!(contains(&have, &want), is_so, "{have} {want}");
        };
        check(json!({"a": 1, "b": 2}), json!({"a": 1}), true);
        check(json!({"a": 1}), json!({"a": 2}), false);
        check(json!({"a": 1}), json!({"b": 2}), false);
        check(json!({"a": 1}), json!({"b": null, "c": [], "d": {}}), true);
        check(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"c": 2}}), true);
        check(json!({"a": [1, 2]}), json!({"a": [1]}), false);
        check(json!({"a": [{"x": 1, "y": 2}]}), json!({"a": [{"x": 1}]}), true);
        check(json!({"a": [1]}), json!({"a": []}), false);
    }
}
