//! Schemas, objects, and what is wrong with them.

use std::{collections::BTreeMap, fs, path::Path, sync::LazyLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kuboard_oci::Digest;
use proptest::{collection::vec, option, prelude::*};
use serde_json::Value;

use super::*;

const FEDERATION: &str = "apiVersion: kuboard.cn/v1alpha1
kind: RegistryFederation
metadata:
  name: global-registry
spec:
  members:
    - name: us-west
      endpoint: https://us.registry.example.com
      syncInterval: 3600
    - name: apac
      endpoint: https://apac.registry.example.com
      syncInterval: 1800
  conflictResolution: latestTimestamp
";

const CREDENTIAL: &str = "apiVersion: kuboard.cn/v1alpha1
kind: RegistryCredential
metadata: {name: quay, namespace: team}
spec:
  registries: [quay.io, '*.example.com:5000']
  secretRef: {name: quay-secret}
  allowedNamespaces: [shop, pay]
";

static DEFINITIONS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(all);

fn spec_of(kind: &str) -> &'static JSONSchemaProps {
    let definition = DEFINITIONS.iter().find(|it| it.spec.names.kind == kind).unwrap();
    &schema(definition).properties.as_ref().unwrap()["spec"]
}

fn schema(definition: &CustomResourceDefinition) -> &JSONSchemaProps {
    let version = &definition.spec.versions[0];
    version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap()
}

/// What an API server refuses of a schema, and what makes rules too expensive for it.
fn offences(path: &str, schema: &JSONSchemaProps, is_spec: bool, found: &mut Vec<String>) {
    let mut add = |what: &str| found.push(format!("{path}: {what}"));
    let kind = schema.type_.as_deref();
    if kind.is_none() {
        add("no type");
    }
    if schema.additional_properties.is_some() && schema.properties.is_some() {
        add("additionalProperties beside properties");
    }
    if schema.any_of.is_some() || schema.one_of.is_some() || schema.ref_path.is_some() {
        add("a choice between schemas");
    }
    if schema.unique_items.is_some() || schema.title.is_some() && path.contains('.') {
        add("uniqueItems or a title");
    }
    if let Some(format) = &schema.format
        && !["int64", "double", "date-time"].contains(&format.as_str())
    {
        add(&format!("format {format}, which no API server knows"));
    }
    if is_spec && schema.nullable.is_some() {
        add("nullable");
    }
    if is_spec && schema.default.is_some() {
        add("a default, which would be written into everybody's objects");
    }
    match kind {
        Some("array") if schema.max_items.is_none() => add("a list without a bound"),
        Some("object") if schema.properties.is_none() && schema.max_properties.is_none() => {
            add("a map without a bound");
        }
        Some("string")
            if is_spec
                && schema.max_length.is_none()
                && schema.enum_.is_none()
                && !path.contains("matchLabels") =>
        {
            add("a text without a bound");
        }
        _ => {}
    }
    for (name, inner) in schema.properties.iter().flatten() {
        offences(&format!("{path}.{name}"), inner, is_spec, found);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        offences(&format!("{path}[]"), item, is_spec, found);
    }
}

#[test]
fn every_schema_is_one_that_an_api_server_takes() {
    let mut found = Vec::new();
    for definition in all() {
        let kind = &definition.spec.names.kind;
        let version = &definition.spec.versions[0];
        let root = schema(&definition);
        let subresources = version.subresources.as_ref();
        assert!(subresources.is_some_and(|it| it.status.is_some()), "{kind} has a status");
        let columns = version.additional_printer_columns.as_deref().unwrap_or_default();
        assert!(columns.len() >= 3, "{kind} has columns");
        assert!(columns.iter().all(|it| it.json_path.starts_with('.')), "{kind}: {columns:?}");
        assert!(definition.spec.names.short_names.is_some(), "{kind} has a short name");
        assert!(!root.description.as_deref().unwrap_or_default().contains("Auto-generated"));
        assert_eq!(root.required.as_deref(), Some(&["spec".to_owned()][..]), "{kind}");
        for (name, inner) in root.properties.as_ref().unwrap() {
            offences(&format!("{kind}.{name}"), inner, name == "spec", &mut found);
        }
        let status = &root.properties.as_ref().unwrap()["status"].properties.as_ref().unwrap();
        let conditions = &status["conditions"];
        assert_eq!(conditions.x_kubernetes_list_type.as_deref(), Some("map"), "{kind}");
        assert_eq!(conditions.x_kubernetes_list_map_keys, Some(vec!["type".to_owned()]));
        assert!(status.contains_key("observedGeneration"), "{kind}");
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Every field has words for `kubectl explain`, without the marks of the language it is written in.
#[test]
fn every_field_is_explained() {
    fn look(path: &str, schema: &JSONSchemaProps, found: &mut Vec<String>) {
        for (name, inner) in schema.properties.iter().flatten() {
            let path = format!("{path}.{name}");
            if path.ends_with("conditions") {
                continue;
            }
            let text = inner.description.as_deref().unwrap_or_default();
            let is_bad = |mark: &str| text.contains(mark);
            if text.is_empty() || ["\n", "[`", "::", "`"].into_iter().any(is_bad) {
                found.push(format!("{path}: {text:?}"));
            }
            look(&path, inner, found);
            if let Some(JSONSchemaPropsOrArray::Schema(item)) = &inner.items {
                look(&path, item, found);
            }
        }
    }
    let mut found = Vec::new();
    for definition in all() {
        let spec = &schema(&definition).properties.as_ref().unwrap()["spec"];
        look(&definition.spec.names.kind, spec, &mut found);
        let status = &schema(&definition).properties.as_ref().unwrap()["status"];
        look(&definition.spec.names.kind, status, &mut found);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The files of the chart are these definitions; `cargo xtask codegen` writes them.
#[test]
fn the_chart_has_these_definitions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/kuboard/crds");
    for definition in all() {
        let file = folder.join(format!("{}.yaml", definition.spec.names.plural));
        let text = fs::read_to_string(&file).unwrap_or_default();
        let fresh = serde_yaml_ng::to_string(&definition).unwrap();
        assert!(
            text.ends_with(&fresh),
            "{} is stale; hint: cargo xtask codegen",
            definition.spec.names.plural
        );
    }
}

#[test]
fn definitions_are_written() {
    let manifests = manifests().unwrap();
    assert_eq!(manifests.matches("kind: CustomResourceDefinition").count(), 6);
    let page = reference_markdown();
    for definition in all() {
        assert!(page.contains(&format!("\n## {}\n", definition.spec.names.kind)));
    }
    assert!(page.contains("| `spec.members[].syncInterval` | integer, 60 to 86400 |"), "{page}");
    assert!(page.contains("| `spec.expiresAt` | time **required** |"), "{page}");
}

#[test]
fn a_federation_is_read_as_it_is_written() {
    let federation: RegistryFederation = serde_yaml_ng::from_str(FEDERATION).unwrap();
    assert_eq!(federation.check(), Ok(()));
    assert_eq!(federation.spec.members[1].sync_interval, Some(1800));
    let written = serde_yaml_ng::to_value(&federation).unwrap();
    let read: serde_yaml_ng::Value = serde_yaml_ng::from_str(FEDERATION).unwrap();
    assert_eq!(written, read, "nothing is added and nothing is lost");
    let check = |from: &str, to: &str, expected: &str| {
        let text = FEDERATION.replace(from, to);
        assert_ne!(text, FEDERATION);
        let federation: RegistryFederation = serde_yaml_ng::from_str(&text).unwrap();
        let problems = federation.check().unwrap_err();
        let shown = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(shown.contains(expected), "{expected:?} is not in {shown}");
    };
    check("name: apac", "name: us-west", "spec.members[1].name: \"us-west\" stands twice");
    check("1800", "59", "spec.members[1].syncInterval: not a number of seconds in the bounds");
    check("1800", "86401", "hint: write 60 to 86400");
    check("https://us", "ftp://us", "spec.members[0].endpoint: not an http or https URL");
    check("https://us", "https://me:you@us", "holds a user");
    check("latestTimestamp", "newest", "spec.conflictResolution");
    let none = RegistryFederation::new("a", RegistryFederationSpec::default());
    assert_eq!(none.check().unwrap_err().len(), 1);
}

#[test]
fn credentials_are_for_registries_and_namespaces() {
    let read = |text: &str| -> RegistryCredential { serde_yaml_ng::from_str(text).unwrap() };
    let credential = read(CREDENTIAL).check().unwrap();
    assert_eq!(credential.source, CredentialSource::Secret("quay-secret".to_owned()));
    for (host, is_for) in [
        ("quay.io", true),
        ("quay.io:443", false),
        ("a.example.com:5000", true),
        ("a.example.com", false),
        ("quay.io.evil.example", false),
    ] {
        assert_eq!(credential.is_for(host), is_for, "{host}");
    }
    for (namespace, allowed) in [("team", true), ("shop", true), ("other", false), ("", false)] {
        assert_eq!(credential.allows(namespace), allowed, "{namespace}");
    }
    let all = read(&CREDENTIAL.replace("[shop, pay]", "['*']")).check().unwrap();
    assert!(all.allows("other"));
    let ecr = CREDENTIAL
        .replace("secretRef: {name: quay-secret}", "provider: {kind: Ecr, region: cn-north-1}");
    let source = CredentialSource::Ecr { region: Some("cn-north-1".to_owned()) };
    assert_eq!(read(&ecr).check().unwrap().source, source);
    for (from, to, expected) in [
        ("  secretRef: {name: quay-secret}\n", "", "not exactly one of secretRef and provider"),
        ("secretRef:", "provider: {kind: Ecr}\n  secretRef:", "not exactly one"),
        ("secretRef: {name: quay-secret}", "provider: {kind: Gcr}", "spec.provider.kind"),
        ("[quay.io, '*.example.com:5000']", "[]", "no registry is named"),
        ("quay.io,", "'[a',", "spec.registries[0]: not a pattern"),
        ("[shop,", "[Shop,", "spec.allowedNamespaces[0]: not a namespace"),
    ] {
        let problems = read(&CREDENTIAL.replace(from, to)).check().unwrap_err();
        let shown = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(shown.contains(expected), "{expected:?} is not in {shown}");
    }
}

#[test]
fn reports_have_the_name_of_their_digest() {
    for algorithm in ["sha256", "sha512"] {
        let hex = "0123456789abcdef".repeat(if algorithm == "sha256" { 4 } else { 8 });
        let digest: Digest = format!("{algorithm}:{hex}").parse().unwrap();
        let name = report_name(&digest);
        assert_eq!(name, format!("{algorithm}-{hex}"));
        assert_eq!(report_digest(&name), Some(digest));
    }
    for name in ["", "sha256", "sha256-", "sha256-zz", "md5-0123", "a"] {
        assert_eq!(report_digest(name), None, "{name}");
    }
}

#[test]
fn conditions_tell_when_their_truth_changed() {
    let mut conditions = Vec::new();
    let mut check = |is_true, reason, generation, now_ms, changed: bool, since: &str| {
        let said = Said { kind: READY, is_true, reason, message: "words" };
        assert_eq!(set_condition(&mut conditions, said, Some(generation), now_ms), changed);
        let [condition] = conditions.as_slice() else { panic!("{conditions:?}") };
        let at = serde_json::to_value(&condition.last_transition_time).unwrap();
        assert_eq!(at, since, "{condition:?}");
        assert_eq!(condition.observed_generation, Some(generation));
    };
    check(Some(true), "Valid", 1, 1_000, true, "1970-01-01T00:00:01Z");
    check(Some(true), "Valid", 1, 9_000, false, "1970-01-01T00:00:01Z");
    check(Some(true), "Valid", 2, 9_000, true, "1970-01-01T00:00:01Z");
    check(Some(true), "Other", 2, 9_000, true, "1970-01-01T00:00:01Z");
    check(Some(false), "Invalid", 2, 9_999, true, "1970-01-01T00:00:09Z");
    check(None, "Unknown", 2, 20_000, true, "1970-01-01T00:00:20Z");
    let other = Said { kind: ENFORCING, is_true: Some(true), reason: "R", message: "" };
    assert!(set_condition(&mut conditions, other, None, i64::MAX));
    assert_eq!(conditions.len(), 2);
}

#[test]
fn unknown_fields_are_told_with_what_was_meant() {
    let check = |kind: &str, text: &str, expected: &[&str]| {
        let value = serde_yaml_ng::from_str(text).unwrap();
        let shown: Vec<String> =
            unknown_fields(kind, &value).iter().map(ToString::to_string).collect();
        assert_eq!(shown, expected);
    };
    let policy = "ImageScanPolicy";
    check(policy, "spec: {severityThreshold: HIGH, images: [a]}\nstatus: {a: b}", &[]);
    check(policy, "metadata: {uid: 7, managedFields: []}\nspec: {}", &[]);
    check(
        policy,
        "spec: {severityTreshold: HIGH}",
        &["spec.severityTreshold: no such field; hint: did you mean severityThreshold?"],
    );
    check(policy, "spce: {}", &["spce: no such field; hint: did you mean spec?"]);
    check(
        "ClusterImageScanPolicy",
        "spec: {namespaceSelector: {matchLabels: {any: thing}, matchExpressions: [{key: a, op: b}]}}",
        &["spec.namespaceSelector.matchExpressions[0].op: no such field; hint: known are key, \
           operator, values"],
    );
    check(
        "ImageExemption",
        "spec: {expires: soon}",
        &["spec.expires: no such field; hint: did you mean expiresAt?"],
    );
    check("Pod", "spec: {containers: []}", &[]);
    check(policy, "[1, 2]", &[]);
}

/// Texts whose JSON is up to six times as long as they are.
fn text(most: usize) -> impl Strategy<Value = String> {
    let repeated = (any::<char>(), 0..most).prop_map(|(one, count)| one.to_string().repeat(count));
    prop_oneof![repeated, "[a-z0-9./-]{0,40}"]
}

prop_compose! {
    fn finding()(
        id in text(200), package in text(400), installed in text(200),
        fixed in option::of(text(200)), epss in option::of(0.0..=1.0_f64), exploited: bool,
    ) -> ReportedFinding {
        let severity = "HIGH".to_owned();
        let first_seen = Some(time(1_700_000_000_000));
        ReportedFinding { id, package, installed, fixed, severity, first_seen, exploited, epss }
    }
}

prop_compose! {
    fn report()(
        one in finding(), copies in 0..400_usize, names in vec(text(700), 0..80),
        platforms in vec(text(80), 0..40), problem in option::of(text(900)),
    ) -> ImageReportSpec {
        ImageReportSpec {
            digest: format!("sha256:{}", "a".repeat(64)),
            names, platforms, problem,
            distribution: Some("d".repeat(300)),
            full_report: Some("u".repeat(3000)),
            outcome: "Partial".to_owned(),
            findings: vec![one; copies],
            ..ImageReportSpec::default()
        }
    }
}

/// Whether a value is within the bounds of a schema, as far as texts and lists go.
fn fits(schema: &JSONSchemaProps, value: &Value, path: &str) {
    let least = |bound: Option<i64>| usize::try_from(bound.unwrap_or(0)).unwrap();
    let most = |bound: Option<i64>| bound.map_or(usize::MAX, |it| usize::try_from(it).unwrap());
    match value {
        Value::String(text) => {
            let count = text.chars().count();
            let bounds = least(schema.min_length)..=most(schema.max_length);
            assert!(bounds.contains(&count), "{path}: {count} not in {bounds:?}");
        }
        Value::Array(items) => {
            assert!(items.len() <= most(schema.max_items), "{path}: {}", items.len());
            let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items else { return };
            items.iter().for_each(|value| fits(item, value, path));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let Some(properties) = &schema.properties else { continue };
                let inner =
                    properties.get(name).unwrap_or_else(|| panic!("{path}.{name} is unknown"));
                fits(inner, value, &format!("{path}.{name}"));
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_report_fits_whatever_was_found(mut report in report()) {
        let all = report.findings.len();
        let is_named = report.findings.first().is_some_and(|it| !it.id.is_empty());
        report.fit();
        let json = serde_json::to_value(&report).unwrap();
        prop_assert!(serde_json::to_vec(&report).unwrap().len() <= MAX_BYTES);
        fits(spec_of("ImageReport"), &json, "spec");
        // Of findings as large as they may be, so many have room at least.
        prop_assert!(!is_named || report.findings.len() >= all.min(15));
        let mut again = report.clone();
        again.fit();
        prop_assert_eq!(again, report);
    }

    #[test]
    fn specs_survive_being_written(
        severity in option::of("(?i)(low|medium|high|critical)"),
        lists in (vec("[a-z*.]{1,20}", 0..4), vec("[a-z*./:]{1,20}", 0..4)),
        flags: (bool, bool, bool),
        allow_running in option::of(any::<bool>()),
        mode in option::of("Enforce|Warn|Audit"),
        wait in option::of("[1-9][0-9]?[smhd]"),
        epss in option::of(0.0..=1.0_f64),
        labels in proptest::collection::btree_map("[a-z]{1,5}", "[a-z]{0,5}", 0..3),
        selected: bool,
    ) {
        let (exclude_registries, images) = lists;
        let (ignore_unfixed, suspended, only_exploited) = flags;
        let spec = ImageScanPolicySpec {
            severity_threshold: severity, ignore_unfixed, exclude_registries, images,
            schedule: Some("0 */6 * * *".to_owned()), time_zone: Some("Asia/Shanghai".to_owned()),
            suspended, mode, on_unscanned: Some("Wait".to_owned()), on_error: None,
            max_wait: wait.clone(), grace_period: wait, allow_running, only_exploited,
            min_epss: epss,
            namespace_selector: selected.then(|| LabelSelector {
                match_labels: labels,
                match_expressions: vec![LabelRequirement {
                    key: "k".to_owned(), operator: "Exists".to_owned(), values: Vec::new(),
                }],
            }),
        };
        let yaml = serde_yaml_ng::to_string(&spec).unwrap();
        prop_assert_eq!(&serde_yaml_ng::from_str::<ImageScanPolicySpec>(&yaml).unwrap(), &spec);
        let cluster = ClusterImageScanPolicy::new("a", ClusterImageScanPolicySpec(spec.clone()));
        let json = serde_json::to_value(&cluster).unwrap();
        prop_assert_eq!(&json["spec"], &serde_json::to_value(&spec).unwrap());
        fits(spec_of("ClusterImageScanPolicy"), &json["spec"], "spec");
        let yaml = serde_yaml_ng::to_value(&cluster).unwrap();
        prop_assert!(unknown_fields("ClusterImageScanPolicy", &yaml).is_empty());
        let read: ClusterImageScanPolicy = serde_json::from_value(json).unwrap();
        prop_assert_eq!(read, cluster);
    }
}

#[test]
fn empty_specs_write_nothing() {
    let written = |value: Value| value.as_object().cloned().unwrap_or_default().len();
    assert_eq!(written(serde_json::to_value(ImageScanPolicySpec::default()).unwrap()), 0);
    assert_eq!(written(serde_json::to_value(ImageScanPolicyStatus::default()).unwrap()), 0);
    let labels: BTreeMap<String, String> = BTreeMap::new();
    let selector = LabelSelector { match_labels: labels, match_expressions: Vec::new() };
    assert_eq!(written(serde_json::to_value(selector).unwrap()), 0);
}
