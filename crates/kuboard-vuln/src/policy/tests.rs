use super::{Policy, Rule, RuleError, RuleText, Verdict, verdict};
use crate::matching::tests::finding;
use crate::{
    DatabaseStamp, Ecosystem, Finding, ImageIdentity, Outcome, Package, Problem, Report, Severity,
    Suppressed, Suppression,
};

const DAY: i64 = 86_400_000;

fn rule(text: &serde_json::Value) -> Result<Rule, RuleError> {
    serde_json::from_value::<RuleText>(text.clone()).unwrap().try_into()
}

fn curl() -> Finding {
    let mut curl = finding("CVE-2024-1", Package::new(Ecosystem::Npm, "@a/curl", "1.0.0"), "npm");
    curl.path = "usr/lib/app/package.json".to_owned();
    curl.aliases = vec!["GHSA-aaaa".to_owned()];
    curl.severity = Severity::High;
    curl
}

#[test]
fn rules_apply() {
    for (text, want) in [
        (serde_json::json!({"id": "CVE-2024-1"}), true),
        (serde_json::json!({"id": "cve-2024-*"}), true),
        (serde_json::json!({"id": "ghsa-aaaa"}), true),
        (serde_json::json!({"id": "CVE-2024-11"}), false),
        (serde_json::json!({"package": "@a/*"}), true),
        (serde_json::json!({"package": "curl"}), false),
        (serde_json::json!({"path": "usr/lib/**"}), true),
        (serde_json::json!({"path": "usr/lib/*"}), false),
        (serde_json::json!({"namespaces": ["go", "npm"]}), true),
        (serde_json::json!({"namespaces": ["go"]}), false),
        (serde_json::json!({"id": "CVE-2024-1", "package": "wget"}), false),
        (serde_json::json!({"id": "CVE-2024-1", "expires": "1970-01-09"}), false),
        (serde_json::json!({"id": "CVE-2024-1", "expires": "1970-01-10"}), true),
        (serde_json::json!({"id": "CVE-2024-1", "expires": "1970-01-10T00:00:00Z"}), false),
        (serde_json::json!({"id": "CVE-2024-1", "expires": "1970-01-10T00:00:00.001Z"}), true),
    ] {
        let mut text = text;
        text["reason"] = "because".into();
        assert_eq!(rule(&text).unwrap().applies(&curl(), 9 * DAY), want, "{text}");
    }
}

#[test]
fn bad_rules_are_refused() {
    for (text, want) in [
        (serde_json::json!({"id": "CVE-1"}), "no reason"),
        (serde_json::json!({"id": "CVE-1", "reason": " "}), "no reason"),
        (serde_json::json!({"reason": "x"}), "no condition"),
        (serde_json::json!({"id": "[", "reason": "x"}), "cannot be read"),
        (serde_json::json!({"id": "a", "reason": "x", "expires": "soon"}), "is no time"),
    ] {
        let err = rule(&text).unwrap_err().to_string();
        assert!(err.contains(want), "{text}: {err}");
    }
    assert!(serde_json::from_str::<RuleText>(r#"{"idd": "x", "reason": "x"}"#).is_err());
}

fn report(findings: Vec<Finding>, suppressed: Vec<Suppressed>, outcome: Outcome) -> Report {
    Report {
        schema: 1,
        image: ImageIdentity::default(),
        outcome,
        distribution: None,
        end_of_life: None,
        layers: Vec::new(),
        packages: Vec::new(),
        findings,
        suppressed,
        database: DatabaseStamp::default(),
        scanned_ms: 0,
    }
}

fn partial() -> Outcome {
    let why = "cut short".to_owned();
    Outcome::Partial { problems: vec![Problem { path: "a".to_owned(), by: String::new(), why }] }
}

#[test]
fn verdicts() {
    let high = Policy { threshold: Some(Severity::High), ..Policy::default() };
    let critical = Policy { threshold: Some(Severity::Critical), ..Policy::default() };
    let unfixed = Policy { ignore_unfixed: true, ..high.clone() };
    let partly = Policy { accept_partial: true, ..high.clone() };
    let unknown = Policy { threshold: Some(Severity::Unknown), ..Policy::default() };
    let ruled = Policy {
        rules: vec![rule(&serde_json::json!({"id": "CVE-2024-1", "reason": "x"})).unwrap()],
        ..high.clone()
    };
    let none = Policy::default();
    let mut fixed = curl();
    fixed.fixed_in = vec!["1.0.1".to_owned()];
    let unrated = Finding { severity: Severity::Unknown, ..curl() };
    let gone = |suppression| vec![Suppressed { finding: curl(), suppression }];
    let rule = |end| gone(Suppression::Rule { reason: "x".to_owned(), expires_ms: end });
    let unsupported = Outcome::Unsupported { reason: "no packages".to_owned() };
    let complete = || Outcome::Complete;
    for (line, (report, policy, want)) in [
        (report(vec![], vec![], complete()), &high, "pass"),
        (report(vec![curl()], vec![], complete()), &high, "reached"),
        (report(vec![curl()], vec![], complete()), &critical, "pass"),
        (report(vec![curl()], vec![], complete()), &none, "pass"),
        (report(vec![curl()], vec![], complete()), &unfixed, "pass"),
        (report(vec![fixed], vec![], complete()), &unfixed, "reached"),
        (report(vec![curl()], vec![], complete()), &ruled, "pass"),
        (report(vec![unrated.clone()], vec![], complete()), &high, "pass"),
        (report(vec![unrated], vec![], complete()), &unknown, "reached"),
        (report(vec![curl()], vec![], partial()), &high, "reached"),
        (report(vec![], vec![], partial()), &high, "a: cut short"),
        (report(vec![], vec![], partial()), &none, "a: cut short"),
        (report(vec![], vec![], partial()), &partly, "pass"),
        (report(vec![], vec![], unsupported.clone()), &partly, "no packages"),
        (report(vec![], vec![], unsupported), &none, "no packages"),
        (report(vec![], rule(None), complete()), &high, "pass"),
        (report(vec![], rule(Some(9)), complete()), &high, "pass"),
        (report(vec![], rule(Some(8)), complete()), &high, "reached"),
        (report(vec![], gone(Suppression::Unfixed), complete()), &high, "reached"),
        (report(vec![], gone(Suppression::Unfixed), complete()), &unfixed, "pass"),
        (report(vec![], gone(Suppression::OwnedByPackage), complete()), &high, "pass"),
    ]
    .into_iter()
    .enumerate()
    {
        let got = match verdict(&report, policy, 8) {
            Verdict::Pass => "pass".to_owned(),
            Verdict::Reached { findings } => {
                assert_eq!(findings.len(), 1);
                "reached".to_owned()
            }
            Verdict::NotKnown { why } => why,
        };
        assert_eq!(got, want, "case {line}");
    }
}
