//! The definitions of the chart on a real API server: it takes them without a word, takes the
//! objects of the documentation unchanged, and says what is wrong with others.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use kuboard_testkit::cluster::{Cluster, Level};

const POLICY: &str = r#"apiVersion: kuboard.cn/v1alpha1
kind: ImageScanPolicy
metadata:
  name: production-scan
spec:
  severityThreshold: HIGH
  excludeRegistries:
    - "*.internal.corp"
  schedule: "0 */6 * * *"
"#;

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

const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// An object of a kind with a spec in YAML's flow style.
fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: kuboard.cn/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn exemption(more: &str) -> String {
    let spec = format!("{{reason: known, expiresAt: '2026-12-31T00:00:00Z', {more}}}");
    object("ImageExemption", "a", &spec)
}

fn report(name: &str, more: &str) -> String {
    let spec = format!(
        "{{digest: 'sha256:{DIGEST}', names: ['docker.io/library/redis:7'], outcome: Complete, \
         summary: {{critical: 2}}, scannedAt: '2026-11-23T01:00:00Z'{more}}}"
    );
    object("ImageReport", name, &spec)
}

fn definitions() -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/kuboard/crds");
    let mut texts = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        texts.push(fs::read_to_string(entry?.path())?);
    }
    ensure!(texts.len() == 6, "{} definitions", texts.len());
    Ok(texts.join("---\n"))
}

fn started() -> Result<Cluster> {
    let cluster = Cluster::start(Level::ApiServer)?;
    let apply = ["apply", "--server-side", "-f", "-"];
    let said = cluster.admin().accepted(&apply, &definitions()?)?;
    ensure!(said.lines().count() == 6 && !said.contains("Warning"), "{said}");
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    // The endpoints of new kinds come a moment after their condition.
    cluster.wait("the kinds to be served", || {
        let kinds = cluster.get_json("/apis/kuboard.cn/v1alpha1")?;
        Ok(kinds["resources"].as_array().is_some_and(|it| it.len() == 12))
    })?;
    Ok(cluster)
}

#[test]
fn an_api_server_takes_the_kinds_and_says_what_is_wrong() -> Result<()> {
    let cluster = started()?;
    documented_objects_are_taken_unchanged(&cluster)?;
    what_is_right_is_taken(&cluster)?;
    what_is_wrong_is_refused_with_its_reason(&cluster)?;
    the_largest_objects_are_taken(&cluster)?;
    conditions_are_owned_by_who_applied_them(&cluster)
}

fn documented_objects_are_taken_unchanged(cluster: &Cluster) -> Result<()> {
    cluster.apply(POLICY)?;
    cluster.apply(FEDERATION)?;
    let policy = cluster.admin().json(&["get", "isp", "production-scan"])?;
    let keys: Vec<&str> =
        policy["spec"].as_object().into_iter().flatten().map(|it| it.0.as_str()).collect();
    ensure!(keys == ["excludeRegistries", "schedule", "severityThreshold"], "{policy}");
    let list = cluster.kubectl(&["get", "isp"])?;
    ensure!(list.starts_with("NAME") && list.contains("THRESHOLD"), "{list}");
    ensure!(list.contains("HIGH") && list.contains("0 */6 * * *"), "{list}");
    let found = |selector: &str| {
        cluster.kubectl(&["get", "isp", "-o", "name", "--field-selector", selector])
    };
    ensure!(found("spec.severityThreshold=HIGH")?.contains("production-scan"));
    ensure!(found("spec.severityThreshold=LOW")?.is_empty());
    let list = cluster.kubectl(&["get", "regfed"])?;
    ensure!(list.contains("us-west") && list.contains("latestTimestamp"), "{list}");
    let explained = cluster.kubectl(&["explain", "isp.spec.gracePeriod"])?;
    ensure!(explained.contains("0s switches it off"), "{explained}");
    Ok(())
}

fn what_is_right_is_taken(cluster: &Cluster) -> Result<()> {
    let policies = [
        "{}",
        "{severityThreshold: low, schedule: '@daily', timeZone: Asia/Shanghai}",
        "{severityThreshold: Critical, mode: Warn, onUnscanned: Deny, onError: Allow}",
        "{maxWait: 90s, gracePeriod: 1h30m, allowRunning: false, onlyExploited: true, minEpss: 0.1}",
        "{minEpss: 1, excludeRegistries: ['*.corp', '*'], images: ['docker.io/**:v*']}",
        "{namespaceSelector: {matchLabels: {team: a}, matchExpressions: [{key: b, operator: Exists}, \
         {key: c, operator: In, values: [d]}]}}",
        "{schedule: '  0 0 1,15 * mon-fri  ', suspended: true, ignoreUnfixed: true}",
    ];
    for spec in policies {
        cluster.apply(&object("ClusterImageScanPolicy", "a", spec))?;
    }
    for text in [
        exemption("vulnerabilities: [CVE-2026-1, 'GHSA-*'], owner: team-a"),
        exemption("images: ['docker.io/library/*:7']"),
        exemption("packages: [openssl]"),
        report(&format!("sha256-{DIGEST}"), ""),
        report(
            &format!("sha256-{DIGEST}"),
            ", findings: [{id: CVE-2026-1, package: zlib, installed: '1', fixed: '2', severity: \
             CRITICAL, exploited: true, epss: 0.97, firstSeen: '2026-11-22T00:00:00Z'}]",
        ),
        object("RegistryCredential", "a", "{registries: [quay.io], secretRef: {name: quay}}"),
        object("RegistryCredential", "b", "{registries: ['*'], provider: {kind: Ecr}}"),
        object(
            "RegistryFederation",
            "b",
            "{members: [{name: a, endpoint: 'http://10.0.0.1:5000/x'}]}",
        ),
    ] {
        cluster.apply(&text)?;
    }
    let list = cluster.kubectl(&["get", "imagereports"])?;
    ensure!(list.contains("docker.io/library/redis:7") && list.contains("Complete"), "{list}");
    let all = cluster.kubectl(&["get", "kuboard", "-o", "name"])?;
    ensure!(all.lines().count() == 8, "{all}");
    Ok(())
}

fn what_is_wrong_is_refused_with_its_reason(cluster: &Cluster) -> Result<()> {
    let mut wrong = Vec::new();
    for (text, expected) in wrong_policies().into_iter().chain(other_wrong_objects()) {
        let create = ["create", "--dry-run=server", "-f", "-"];
        let answered = cluster.admin().ask(&create, Some(&text))?;
        if answered.success || !answered.stderr.contains(expected) {
            let said = answered.stdout + &answered.stderr;
            wrong.push(format!("{text}expected {expected:?}: {said}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Policies, and words of what the server says of them.
fn wrong_policies() -> Vec<(String, &'static str)> {
    let policy = |spec: &str| object("ImageScanPolicy", "bad", spec);
    let selector = |one: &str| {
        let spec = format!("{{namespaceSelector: {{matchExpressions: [{one}]}}}}");
        object("ClusterImageScanPolicy", "bad", &spec)
    };
    vec![
        (policy("{severityThreshold: HIHG}"), "write LOW, MEDIUM, HIGH or CRITICAL"),
        (policy("{severityThreshold: ''}"), "spec.severityThreshold"),
        (policy("{schedule: 0 */6 * *}"), "a schedule has five fields"),
        (policy("{schedule: '@ often'}"), "a schedule has five fields"),
        (policy("{timeZone: UTC}"), "a timeZone needs a schedule"),
        (policy("{mode: enforce}"), "\"Enforce\", \"Warn\", \"Audit\""),
        (policy("{onUnscanned: Reject}"), "spec.onUnscanned: Unsupported value"),
        (policy("{onError: Wait}"), "spec.onError: Unsupported value"),
        (policy("{maxWait: '5'}"), "write a duration such as 30s"),
        (policy("{maxWait: 5}"), "spec.maxWait"),
        (policy("{gracePeriod: 2w}"), "write a duration such as 30s"),
        (policy("{minEpss: 1.5}"), "should be less than or equal to 1"),
        (policy("{minEpss: high}"), "spec.minEpss"),
        (policy("{excludeRegistries: [a, '*']}"), "excluding all registries leaves nothing"),
        (policy("{excludeRegistries: ['**']}"), "excluding all registries leaves nothing"),
        (policy("{excludeRegistries: ['']}"), "spec.excludeRegistries[0]"),
        (policy("{excludeRegistries: quay.io}"), "spec.excludeRegistries"),
        (policy("{namespaceSelector: {}}"), "is for kind ClusterImageScanPolicy"),
        (policy("{severityTreshold: HIGH}"), "unknown field \"spec.severityTreshold\""),
        (policy("{suspended: 'yes'}"), "spec.suspended"),
        (POLICY.replace("spec:", "specs:"), "unknown field \"specs\""),
        (selector("{key: a, operator: In}"), "In and NotIn need values"),
        (selector("{key: a, operator: Exists, values: [b]}"), "Exists and DoesNotExist have none"),
        (selector("{key: a, operator: Has}"), "Unsupported value: \"Has\""),
    ]
}

/// Objects of other kinds.
fn other_wrong_objects() -> Vec<(String, &'static str)> {
    let member =
        |text: &str| object("RegistryFederation", "bad", &format!("{{members: [{text}]}}"));
    let credential = |spec: &str| object("RegistryCredential", "bad", spec);
    vec![
        (object("ImageExemption", "bad", "{reason: a, images: [b]}"), "spec.expiresAt: Required"),
        (
            object("ImageExemption", "bad", "{expiresAt: '2026-12-31T00:00:00Z', images: [b]}"),
            "spec.reason: Required",
        ),
        (
            object("ImageExemption", "bad", "{reason: a, expiresAt: tomorrow, images: [b]}"),
            "spec.expiresAt",
        ),
        (exemption(""), "name images, vulnerabilities or packages"),
        (exemption("images: []"), "name images, vulnerabilities or packages"),
        (exemption("images: [a]").replace("known", "'  '"), "say why"),
        (report("redis", ""), "a report has the name of its digest"),
        (
            report(&format!("sha256-{DIGEST}"), "").replace("'sha256:0", "'sha256:1"),
            "the name of its digest",
        ),
        (report(&format!("sha256-{DIGEST}"), "").replace("'sha256:0", "'sha256:g"), "spec.digest"),
        (report(&format!("sha256-{DIGEST}"), "").replace("Complete", "Clean"), "spec.outcome"),
        (credential("{registries: [quay.io]}"), "name either a secretRef or a provider"),
        (
            credential("{registries: [a], secretRef: {name: b}, provider: {kind: Ecr}}"),
            "name either a secretRef or a provider",
        ),
        (credential("{registries: [], secretRef: {name: b}}"), "spec.registries"),
        (credential("{registries: [a], provider: {kind: Gcr}}"), "spec.provider.kind"),
        (
            member("{name: a, endpoint: 'https://a'}, {name: a, endpoint: 'https://b'}"),
            "Duplicate value",
        ),
        (member("{name: a, endpoint: 'ftp://a'}"), "write https://host"),
        (member("{name: a, endpoint: 'https://me:you@a'}"), "do not belong here"),
        (member("{name: a, endpoint: a.example.com}"), "write https://host"),
        (
            member("{name: a, endpoint: 'https://a', syncInterval: 59}"),
            "greater than or equal to 60",
        ),
        (
            member("{name: a, endpoint: 'https://a', syncInterval: 90000}"),
            "less than or equal to 86400",
        ),
        (member("{name: A, endpoint: 'https://a'}"), "spec.members[0].name"),
        (member(""), "spec.members"),
        (FEDERATION.replace("latestTimestamp", "newest"), "spec.conflictResolution"),
    ]
}

/// The cost of rules was bounded by the server when it took the definitions; objects as large as
/// the bounds allow are judged within it.
fn the_largest_objects_are_taken(cluster: &Cluster) -> Result<()> {
    let globs: Vec<String> = (0..1000).map(|n| format!("'*.{n:0>500}'")).collect();
    let spec = format!("{{excludeRegistries: [{0}]}}", globs.join(", "));
    let create = ["create", "-f", "-"];
    cluster.admin().accepted(&create, &object("ImageScanPolicy", "large", &spec))?;
    let members: Vec<String> =
        (0..50).map(|n| format!("{{name: m{n}, endpoint: 'https://{n}.{:0>400}'}}", "a")).collect();
    let spec = format!("{{members: [{}]}}", members.join(", "));
    cluster.admin().accepted(&create, &object("RegistryFederation", "large", &spec))?;
    Ok(())
}

fn conditions_are_owned_by_who_applied_them(cluster: &Cluster) -> Result<()> {
    let apply = |manager: &str, kind: &str| {
        let status = format!(
            "status: {{conditions: [{{type: {kind}, status: 'True', reason: Valid, message: '', \
             lastTransitionTime: '2026-11-23T01:00:00Z'}}]}}"
        );
        let text = format!(
            "apiVersion: kuboard.cn/v1alpha1\nkind: ImageScanPolicy\nmetadata: {{name: \
             production-scan}}\n{status}\n"
        );
        let manager = format!("--field-manager={manager}");
        let arguments = ["apply", "--server-side", "--subresource=status", &manager, "-f", "-"];
        cluster.admin().accepted(&arguments, &text)
    };
    apply("one", "Ready")?;
    apply("two", "Enforcing")?;
    let policy = cluster.admin().json(&["get", "isp", "production-scan"])?;
    let conditions = policy["status"]["conditions"].as_array().map_or(0, Vec::len);
    ensure!(conditions == 2, "{policy}");
    // A status says nothing about what is wanted.
    ensure!(policy["metadata"]["generation"] == 1, "{policy}");
    ensure!(cluster.kubectl(&["get", "isp", "production-scan"])?.contains("True"));
    Ok(())
}
