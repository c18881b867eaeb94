//! What holds without us: a policy that the API server itself evaluates. It guards the labels of
//! namespaces by which they are taken out of admission or made to fail open.

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
        ValidatingAdmissionPolicySpec, Validation, Variable,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::api::ObjectMeta;
use kuboard_api::names;

use super::configuration::may_bypass;

/// The policy and its binding.
pub const FLOOR: &str = "kuboard-namespace-labels";

/// The policy.
#[must_use]
pub fn policy(owner: Option<&OwnerReference>) -> ValidatingAdmissionPolicy {
    let texts = |list: &[&str]| Some(list.iter().map(|it| (*it).to_owned()).collect());
    let rule = NamedRuleWithOperations {
        api_groups: texts(&[""]),
        api_versions: texts(&["v1"]),
        operations: texts(&["CREATE", "UPDATE"]),
        // Labels can be changed by the way of the subresources too.
        resources: texts(&["namespaces", "namespaces/status", "namespaces/finalize"]),
        ..NamedRuleWithOperations::default()
    };
    let variable = |name: &str, expression: String| Variable { name: name.to_owned(), expression };
    let forbidden = |expression: &str, message: String| Validation {
        expression: expression.to_owned(),
        message: Some(message),
        reason: Some("Forbidden".to_owned()),
        ..Validation::default()
    };
    let who = format!("only who may \"bypass\" the resource admission.{} can", names::GROUP);
    ValidatingAdmissionPolicy {
        metadata: metadata(owner),
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".to_owned()),
            match_constraints: Some(MatchResources {
                match_policy: Some("Equivalent".to_owned()),
                resource_rules: Some(vec![rule]),
                ..MatchResources::default()
            }),
            variables: Some(vec![
                variable("outBefore", label("oldObject", names::ADMISSION)),
                variable("outAfter", label("object", names::ADMISSION)),
                variable("strictBefore", label("oldObject", names::ENFORCE)),
                variable("strictAfter", label("object", names::ENFORCE)),
                variable("may", may_bypass()),
            ]),
            validations: Some(vec![
                forbidden(
                    "variables.outBefore == variables.outAfter || variables.may",
                    format!("{who} change the label {}", names::ADMISSION),
                ),
                forbidden(
                    &format!(
                        "variables.strictBefore != '{0}' || variables.strictAfter == '{0}' || \
                         variables.may",
                        names::STRICT
                    ),
                    format!("{who} take away the label {}={}", names::ENFORCE, names::STRICT),
                ),
            ]),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        ..ValidatingAdmissionPolicy::default()
    }
}

/// The binding that puts the policy into force.
#[must_use]
pub fn binding(owner: Option<&OwnerReference>) -> ValidatingAdmissionPolicyBinding {
    ValidatingAdmissionPolicyBinding {
        metadata: metadata(owner),
        spec: ValidatingAdmissionPolicyBindingSpec {
            policy_name: FLOOR.to_owned(),
            validation_actions: vec!["Deny".to_owned()],
            ..ValidatingAdmissionPolicyBindingSpec::default()
        },
    }
}

/// A label of an object that may not be there, as text; missing is empty.
fn label(object: &str, key: &str) -> String {
    format!(
        "{object} != null && has({object}.metadata.labels) && '{key}' in {object}.metadata.labels \
         ? {object}.metadata.labels['{key}'] : ''"
    )
}

fn metadata(owner: Option<&OwnerReference>) -> ObjectMeta {
    ObjectMeta {
        name: Some(FLOOR.to_owned()),
        labels: Some(
            [("app.kubernetes.io/managed-by".to_owned(), names::MANAGER.to_owned())].into(),
        ),
        owner_references: owner.map(|owner| vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}
