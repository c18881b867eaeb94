//! Texts and folders of policies, good and bad.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::{
    Admission, Exemption, Folder, MAX_AHEAD_MS, Mode, OnError, OnUnscanned, Policy, Requirement,
    Scope, Threshold, load, parse,
};
use crate::{
    crd::{ClusterImageScanPolicy, ImageExemption, ImageScanPolicy},
    desired::Desired,
};

/// 2026-11-23T00:00:00Z.
const NOW: i64 = 1_795_392_000_000;

const ARTICLE: &str = r#"apiVersion: kuboard.cn/v1alpha1
kind: ImageScanPolicy
metadata:
  name: production-scan
spec:
  severityThreshold: HIGH
  excludeRegistries:
    - "*.internal.corp"
  schedule: "0 */6 * * *"
"#;

fn read(text: &str) -> Folder {
    parse(Path::new("p.yaml"), text).unwrap_or_else(|error| panic!("{error}"))
}

/// A text that is refused with these words.
#[track_caller]
fn refused(text: &str, expected: &str) {
    match parse(Path::new("p.yaml"), text) {
        Ok(folder) => panic!("taken: {folder:?}"),
        Err(error) => {
            let shown = error.to_string();
            assert!(shown.contains(expected), "{expected:?} is not in: {shown}");
        }
    }
}

/// The usual policy with another spec.
fn with(spec: &str) -> String {
    let head = "apiVersion: kuboard.cn/v1alpha1\nkind: ImageScanPolicy\nmetadata:\n  name: a\n";
    format!("{head}spec:\n{spec}")
}

#[test]
fn the_usual_policy_is_read() {
    let folder = read(ARTICLE);
    let [loaded] = folder.policies.as_slice() else { panic!("{folder:?}") };
    let policy = &loaded.policy;
    assert_eq!((policy.scope, policy.name().as_str()), (Scope::Namespace, "production-scan"));
    assert_eq!(policy.threshold, Some(Threshold::High));
    assert_eq!(policy.schedule.as_ref().unwrap().to_string(), "0 */6 * * * UTC");
    assert!(!policy.suspended && !policy.ignore_unfixed);
    for (registry, covered) in [
        ("docker.io", true),
        ("", true),
        ("registry.internal.corp", false),
        ("registry.internal.corp:5000", false),
        ("a.b.internal.corp", false),
        ("internal.corp", true),
        ("internal.corp.evil.example", true),
    ] {
        assert_eq!(policy.covers(registry, "library/a", "1"), covered, "{registry}");
    }
}

#[test]
fn everything_a_policy_may_say() {
    let folder = read(
        "# first\n--- \napiVersion: kuboard.cn/v1alpha1\nkind: ClusterImageScanPolicy\n\
         metadata: {name: all, labels: {team: a}, annotations: {x: y}, uid: 7}\n\
         spec:\n  severityThreshold: low\n  ignoreUnfixed: true\n  images: ['docker.io/library/*', \
         'team/**:v*']\n  schedule: '@daily'\n  timeZone: Asia/Shanghai\n  suspended: true\n\
         status: {conditions: []}\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: b}\n\
         ---\napiVersion: kuboard.cn/v1alpha1\nkind: RegistryFederation\nspec: {}\n...\n",
    );
    let policy = &folder.policies[0].policy;
    assert_eq!((policy.scope, folder.policies[0].line), (Scope::Cluster, 3));
    assert_eq!(policy.metadata.labels["team"], "a");
    assert!(policy.suspended && policy.ignore_unfixed);
    assert!(policy.covers("docker.io", "library/redis", "7"));
    assert!(!policy.covers("docker.io", "team/redis", "7"));
    assert!(policy.covers("", "team/a/b", "v1") && !policy.covers("", "team/a/b", "latest"));
    let skipped: Vec<(usize, &str)> =
        folder.skipped.iter().map(|it| (it.line, it.what.as_str())).collect();
    let expected = [(15, "v1 ServiceAccount"), (19, "kuboard.cn/v1alpha1 RegistryFederation")];
    assert_eq!(skipped, expected);
    assert!(read("").policies.is_empty());
    assert!(read("# nothing\n---\n\n---\n%YAML 1.2\n---\n").policies.is_empty());
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (spec, expected) in [
        ("  schedule: 0 */6 * *\n", "p.yaml:6: spec.schedule: a schedule has five fields"),
        ("  schedule: 0 0 31 4 *\n", "never comes\n  hint: that month"),
        ("  suspended: false\n  schedule: 99 * * * *\n", "p.yaml:7: spec.schedule: minute"),
        ("  schedule: '@daily'\n  timeZone: CST6\n", "p.yaml:7: spec.timeZone: no time zone"),
        ("  schedule: 'x'\n  timeZone: '+8'\n", "p.yaml:7: spec.timeZone"),
        ("  timeZone: UTC\n", "a time zone of no schedule"),
        ("  severityThreshold: HIHG\n", "hint: did you mean HIGH?"),
        ("  severityThreshold: grave\n", "hint: write LOW"),
        ("  excludeRegistries:\n    - ok\n\n    - '[a'\n", "p.yaml:9: spec.excludeRegistries[1]"),
        ("  excludeRegistries: ['']\n", "not a pattern: \"\""),
        ("  images: ['a{b']\n", "spec.images[0]: not a pattern"),
        (
            "  severityTreshold: HIGH\n",
            "p.yaml:6: spec.severityTreshold: no such field\n  hint: did you mean severityThreshold?",
        ),
        (
            "  mode: enforce\n",
            "p.yaml:6: spec.mode: not \"enforce\"\n  hint: did you mean Enforce?",
        ),
        ("  mode: Block\n", "hint: write one of Enforce, Warn, Audit"),
        ("  onUnscanned: Reject\n", "hint: write one of Allow, Warn, Wait, Deny"),
        ("  onError: Wait\n", "spec.onError: not \"Wait\""),
        ("  maxWait: '5'\n", "spec.maxWait: not a duration: \"5\"\n  hint: write a duration"),
        ("  maxWait: 25h\n", "spec.maxWait: longer than 1d"),
        ("  gracePeriod: 2w\n", "spec.gracePeriod: not a duration"),
        ("  gracePeriod: 366d\n", "spec.gracePeriod: longer than 365d"),
        ("  gracePeriod: 99999999999999999999d\n", "spec.gracePeriod: not a duration"),
        ("  minEpss: 1.5\n", "p.yaml:6: spec.minEpss: not 1.5\n  hint: it is a probability"),
        ("  minEpss: -0.1\n", "spec.minEpss"),
        ("  minEpss: .nan\n", "spec.minEpss: not NaN"),
        ("  namespaceSelector: {}\n", "hint: remove it, or write kind: ClusterImageScanPolicy"),
        ("  excludeRegistries: [a, '**']\n", "spec.excludeRegistries[1]: excluding all registries"),
        ("  schedule: [1]\n", "p.yaml:6: "),
        ("  excludeRegistries: quay.io\n", "invalid type"),
        ("  schedule: 'a\n", "p.yaml:"),
    ] {
        refused(&with(spec), expected);
    }
    for (text, expected) in [
        ("kind: ImageScanPolicy\n", "p.yaml:1: apiVersion: not \"\""),
        ("apiVersion: v1\nkind: ImageScanPolicy\n", "hint: write apiVersion: kuboard.cn/v1alpha1"),
        ("apiVersion: kuboard.cn/v1\nkind: ImageScanPolicy\n", "not \"kuboard.cn/v1\""),
        (
            "apiVersion: kuboard.cn/v1alpha1\nkind: ImageScanPolcy\n",
            "did you mean ImageScanPolicy?",
        ),
        ("apiVersion: v1\nkind: List\nitems: []\n", "lists are not read"),
        ("foo: bar\n", "apiVersion or kind is missing"),
        ("- a\n- b\n", "p.yaml:1: "),
        ("\n\nnonsense", "p.yaml:3: "),
        ("a: b\n---\n\t- x\n", "p.yaml:3"),
    ] {
        refused(text, expected);
    }
    refused(&ARTICLE.replace("production-scan", "Production_Scan"), "p.yaml:4: metadata.name");
    refused(&ARTICLE.replace("  name:", "  nam:"), "missing field `name`");
    refused(
        &ARTICLE
            .replace("kind: Image", "kind: ClusterImage")
            .replace("  name", "  namespace: a\n  name"),
        "in no namespace",
    );
    refused(
        &format!("{ARTICLE}---\n{ARTICLE}"),
        "p.yaml:14: metadata.name: ImageScanPolicy production-scan stands in p.yaml:1 too",
    );
    // The same name in two namespaces is two policies.
    let other = ARTICLE.replace("  name:", "  namespace: b\n  name:");
    assert_eq!(read(&format!("{ARTICLE}---\n{other}")).policies.len(), 2);
    let misspelt = with("  schedul: '@daily'\n  mode: Block\n");
    assert_eq!(parse(Path::new("p"), &misspelt).unwrap_err().problems().len(), 2);
    // All problems of all documents come at once.
    let both = format!("{}---\n{}", with("  schedule: x\n"), with("  severityThreshold: x\n"));
    assert_eq!(parse(Path::new("p"), &both).unwrap_err().problems().len(), 2);
}

#[test]
fn what_a_policy_means_for_pods() {
    let admission = |spec: &str| {
        let text = with(spec).replace("kind: Image", "kind: ClusterImage");
        read(&text).policies.remove(0).policy.admission
    };
    assert_eq!(read(ARTICLE).policies[0].policy.admission, Admission::default());
    assert_eq!(admission("  severityThreshold: LOW\n").mode, Mode::Enforce);
    let said = admission(
        "  mode: Audit\n  onUnscanned: Deny\n  onError: Allow\n  maxWait: 1m30s\n  gracePeriod: 7d\n  \
         allowRunning: false\n  onlyExploited: true\n  minEpss: 0.12345\n  namespaceSelector:\n    \
         matchLabels: {team: a}\n    matchExpressions:\n    - {key: b, operator: NotIn, values: \
         [c]}\n    - {key: d, operator: DoesNotExist}\n",
    );
    let expected = Admission {
        mode: Mode::Audit,
        on_unscanned: OnUnscanned::Deny,
        on_error: OnError::Allow,
        max_wait_ms: 90_000,
        grace_ms: 7 * 86_400_000,
        allow_running: false,
        only_exploited: true,
        min_epss: 12_345,
        namespaces: said.namespaces.clone(),
    };
    assert_eq!(said, expected);
    assert_eq!(said.namespaces.labels["team"], "a");
    let requirements = [
        Requirement::NotIn("b".to_owned(), vec!["c".to_owned()]),
        Requirement::Absent("d".to_owned()),
    ];
    assert_eq!(said.namespaces.requirements, requirements);
    for (spec, grace_ms) in [("0s", 0), ("90m", 5_400_000), ("365d", 365 * 86_400_000)] {
        assert_eq!(admission(&format!("  gracePeriod: {spec}\n")).grace_ms, grace_ms);
    }
    for (spec, expected) in [
        ("{key: a, operator: Has}", "matchExpressions[0]: no such operator: \"Has\""),
        ("{key: a, operator: In}", "hint: write values: [a, b]"),
        ("{key: a, operator: Exists, values: [b]}", "Exists has no values"),
    ] {
        let spec = format!("  namespaceSelector:\n    matchExpressions:\n    - {spec}\n");
        refused(&with(&spec).replace("kind: Image", "kind: ClusterImage"), expected);
    }
    // The cluster's may leave out all registries: others may count on its name.
    let all = with("  excludeRegistries: ['*']\n").replace("kind: Image", "kind: ClusterImage");
    assert!(!read(&all).policies[0].policy.covers("docker.io", "a", "1"));
}

const EXEMPTION: &str = r#"apiVersion: kuboard.cn/v1alpha1
kind: ImageExemption
metadata:
  name: openssl
  namespace: shop
spec:
  images:
    - docker.io/library/**
  vulnerabilities: [CVE-2026-1234, "GHSA-*"]
  packages: ["lib*", golang.org/x/*]
  reason: " not reachable "
  owner: team-a
  expiresAt: 2026-12-23T00:00:00Z
"#;

fn exemption(text: &str) -> Exemption {
    read(text).exemptions.remove(0).exemption
}

#[test]
fn exemptions_forgive_what_they_name() {
    let it = exemption(EXEMPTION);
    assert_eq!((it.full_name().as_str(), it.reason.as_str()), ("shop/openssl", "not reachable"));
    assert_eq!((it.owner.as_str(), it.expires_ms), ("team-a", NOW + 30 * 86_400_000));
    assert!(!it.is_over(it.expires_ms - 1) && it.is_over(it.expires_ms));
    assert!(
        it.covers("docker.io", "library/redis", "7") && !it.covers("quay.io", "library/a", "7")
    );
    for (ids, package, forgiven) in [
        (&["CVE-2026-1234"][..], "libssl3", true),
        (&["cve-2026-1234"], "LIBSSL3", true),
        (&["CVE-2026-9", "GHSA-xx-yy"], "libssl3", true),
        (&["CVE-2026-12345"], "libssl3", false),
        (&["CVE-2026-1234"], "openssl", false),
        (&["CVE-2026-1234"], "golang.org/x/net/http2", true),
        (&[], "libssl3", false),
    ] {
        assert_eq!(it.forgives(ids.iter().copied(), package), forgiven, "{ids:?} {package}");
    }
    let any = exemption(
        &EXEMPTION.replace("  packages", "  owner: b # ").replace("  owner: team-a\n", ""),
    );
    assert!(any.forgives(["CVE-2026-1234"], "anything"));
    let unplaced = exemption(&EXEMPTION.replace("  namespace: shop\n", ""));
    assert_eq!((unplaced.full_name().as_str(), unplaced.namespace.as_str()), ("openssl", ""));
}

#[test]
fn what_is_wrong_with_an_exemption() {
    for (from, to, expected) in [
        ("  reason: \" not reachable \"\n", "", "missing field `reason`"),
        ("\" not reachable \"", "\"  \"", "p.yaml:11: spec.reason: no reason\n  hint: say why"),
        ("\" not reachable \"", &"x".repeat(1025), "spec.reason: longer than 1024 characters"),
        ("  expiresAt: 2026-12-23T00:00:00Z\n", "", "missing field `expiresAt`"),
        ("2026-12-23T00:00:00Z", "2026-12-23", "hint: write it as 2026-12-31T00:00:00Z"),
        ("2026-12-23T00:00:00Z", "soon", "p.yaml:13: spec.expiresAt: not a time: \"soon\""),
        ("CVE-2026-1234", "'[a'", "spec.vulnerabilities[0]: not a pattern: \"[a\""),
        ("golang.org/x/*", "''", "spec.packages[1]: not a pattern: \"\""),
        ("docker.io/library/**", "'a{b'", "p.yaml:8: spec.images[0]: not a pattern"),
        (
            "  owner:",
            "  onwer:",
            "p.yaml:12: spec.onwer: no such field\n  hint: did you mean owner?",
        ),
        ("name: openssl", "name: Open SSL", "metadata.name: not a name"),
        ("v1alpha1", "v1", "hint: write apiVersion: kuboard.cn/v1alpha1"),
        ("ImageExemption", "ImageExemtion", "hint: did you mean ImageExemption?"),
        ("ImageExemption", "ImageExemptionList", "lists are not read"),
    ] {
        let text = EXEMPTION.replace(from, to);
        assert_ne!(text, EXEMPTION, "{from}");
        refused(&text, expected);
    }
    let bare = "  reason: a\n  expiresAt: 2026-12-23T00:00:00Z\n";
    let head = EXEMPTION.split("  images").next().unwrap();
    refused(&format!("{head}{bare}"), "an exemption of everything\n  hint: name images");
    let long = format!("{head}{bare}  packages:\n{}", "    - a\n".repeat(501));
    refused(&long, "spec.packages: more than 500 entries");
    refused(
        &format!("{EXEMPTION}---\n{EXEMPTION}"),
        "p.yaml:18: metadata.name: ImageExemption shop/openssl stands in p.yaml:1 too",
    );
    // A policy of the same name is something else.
    let policy = with("  severityThreshold: HIGH\n").replace("name: a", "name: openssl");
    assert_eq!(read(&format!("{EXEMPTION}---\n{policy}")).policies.len(), 1);
}

#[test]
fn exemptions_end_within_ninety_days() {
    let it = exemption(EXEMPTION);
    let object: ImageExemption = serde_yaml_ng::from_str(EXEMPTION).unwrap();
    let check = |now_ms: i64, taken: bool| {
        let folder = Desired::from_folder(read(EXEMPTION), now_ms);
        assert_eq!(folder.is_ok(), taken, "{folder:?}");
        assert_eq!(Exemption::from_object(&object, now_ms).is_ok(), taken);
    };
    check(NOW, true);
    check(it.expires_ms + 1, true);
    check(it.expires_ms - MAX_AHEAD_MS, true);
    check(it.expires_ms - MAX_AHEAD_MS - 1, false);
    check(i64::MIN, false);
    check(i64::MAX, true);
    let shown = Desired::from_folder(read(EXEMPTION), NOW - MAX_AHEAD_MS).unwrap_err().to_string();
    let expected = "p.yaml:1: spec.expiresAt: more than 90 days ahead\n  hint: write \
                    2026-11-23T00:00:00Z or earlier, and renew it when that day comes";
    assert_eq!(shown, expected);
}

#[test]
fn objects_of_a_cluster_mean_the_same_as_files() {
    let object: ImageScanPolicy = serde_yaml_ng::from_str(ARTICLE).unwrap();
    let (of_object, of_file) = (Policy::from_object(&object).unwrap(), &read(ARTICLE).policies[0]);
    assert_eq!(format!("{of_object:?}"), format!("{:?}", of_file.policy));
    let mut object = object;
    object.spec.mode = Some("block".to_owned());
    object.spec.schedule = Some("99 * * * *".to_owned());
    let problems = Policy::from_object(&object).unwrap_err();
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 2);
    assert!(shown[0].starts_with("spec.schedule: minute"), "{shown:?}");
    assert_eq!(shown[1], "spec.mode: not \"block\"; hint: write one of Enforce, Warn, Audit");

    let text = ARTICLE.replace("ImageScan", "ClusterImageScan");
    let object: ClusterImageScanPolicy = serde_yaml_ng::from_str(&text).unwrap();
    let policy = Policy::from_cluster_object(&object).unwrap();
    assert_eq!((policy.scope, policy.name().as_str()), (Scope::Cluster, "production-scan"));

    let folder = read(&format!("{ARTICLE}---\n{EXEMPTION}"));
    let desired = Desired::from_folder(folder, NOW).unwrap();
    assert!(desired.synced && desired.namespaces.is_empty());
    assert_eq!((desired.policies.len(), desired.exemptions.len()), (1, 1));
}

#[test]
fn hostile_texts_are_bounded() {
    let bomb = format!("a: &a [x]\n{}", "b: [*a, *a, *a, *a, *a, *a]\n".repeat(3));
    refused(&bomb, "");
    let layers: String =
        (1..30).map(|n| format!("k{n}: &k{n} [*k{0}, *k{0}, *k{0}, *k{0}]\n", n - 1)).collect();
    refused(&format!("k0: &k0 [x]\n{layers}{ARTICLE}"), "");
    refused(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), "");
    refused(&"---\na: b\n".repeat(2000), "more than 1000 documents");
    refused(&" ".repeat(2 << 20), "larger than");
    refused(&with(&format!("  images:\n{}", "    - a\n".repeat(1001))), "more than 1000 patterns");
}

#[test]
fn folders_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    fs::write(place.join("b.yml"), ARTICLE.replace("production", "b")).unwrap();
    fs::write(place.join("a.yaml"), ARTICLE).unwrap();
    fs::write(place.join("README"), "not read").unwrap();
    fs::write(place.join(".hidden.yaml"), "not read").unwrap();
    // As Kubernetes mounts a ConfigMap.
    fs::create_dir(place.join("..data")).unwrap();
    fs::write(place.join("..data/c.yaml"), ARTICLE.replace("production", "c")).unwrap();
    std::os::unix::fs::symlink("..data/c.yaml", place.join("c.yaml")).unwrap();
    let names = |folder: Folder| -> Vec<String> {
        folder.policies.iter().map(|it| it.policy.name()).collect()
    };
    assert_eq!(names(load(place).unwrap()), ["production-scan", "b-scan", "c-scan"]);

    let check = |expected: &str| {
        let shown = load(place).unwrap_err().to_string();
        assert!(shown.contains(expected), "{shown}");
    };
    let bad = place.join("d.yaml");
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(outside.path(), &bad).unwrap();
    check("d.yaml: a link that leads out of its folder");
    fs::remove_file(&bad).unwrap();
    std::os::unix::fs::symlink("d.yaml", &bad).unwrap();
    check("d.yaml: can't be read");
    fs::remove_file(&bad).unwrap();
    fs::create_dir(&bad).unwrap();
    check("d.yaml: no file");
    fs::remove_dir(&bad).unwrap();
    fs::write(&bad, [0xff, 0xfe]).unwrap();
    check("not UTF-8");
    fs::write(&bad, ARTICLE).unwrap();
    check("a.yaml:1 too");
    fs::write(&bad, vec![b' '; 2 << 20]).unwrap();
    check("larger than");
    let missing = load(&place.join("missing")).unwrap_err().to_string();
    assert!(missing.contains("hint: scan.policies names a folder"), "{missing}");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(apiVersion|kind|spec|name|[a-z:\\-{}\\[\\]&*!|>'\"#% \n]){0,60}") {
        let _ = parse(Path::new("p.yaml"), &text);
        let _ = parse(Path::new("p.yaml"), &with(&text));
    }
}
