//! Texts and folders of policies, good and bad.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::{Folder, Scope, Threshold, load, parse};

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
        ("  mode: enforce\n", "p.yaml:6: spec.mode: not \"enforce\"\n  hint: did you mean Enforce?"),
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
    // All problems of all documents come at once.
    let both = format!("{}---\n{}", with("  schedule: x\n"), with("  severityThreshold: x\n"));
    assert_eq!(parse(Path::new("p"), &both).unwrap_err().problems().len(), 2);
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
