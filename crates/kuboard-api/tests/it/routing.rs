//! Which registry a request means, as a table.

use kuboard_api::{Config, Rules, Target};
use kuboard_oci::RepositoryName;
use proptest::prelude::*;

const FILE: &str = r#"
[server]
externalUrl = "https://registry.own.example"

[[upstream]]
name = "registry.example.com:5000"
aliases = ["registry.example.com"]
hosts = ["registry.internal"]

[[upstream]]
name = "*.mirror.example.com"
endpoints = ["https://mirror.example.com/"]

[[upstream]]
name = "eu.mirror.example.com"

[[upstream]]
name = "harbor"
endpoints = ["http://harbor:8080"]

[[upstream]]
name = "artifacts.example.com"
aliases = ["*.artifacts.example.com"]
"#;

fn rules(text: &str) -> Rules {
    Rules::new(&Config::parse(text).unwrap()).unwrap()
}

/// A target in one line: `rule (registry) repository`, `hosted repository [| fallback]`, `unknown`.
fn say(rules: &Rules, target: Target) -> String {
    let upstream = |rule: usize, registry: String, repository: RepositoryName| {
        let rule = &rules.get(rule).unwrap().name;
        let member = if *rule == registry { String::new() } else { format!(" ({registry})") };
        format!("{rule}{member} {repository}")
    };
    match target {
        Target::Upstream { rule, registry, repository } => upstream(rule, registry, repository),
        Target::Hosted { repository, fallback } => {
            let behind = fallback
                .map(|back| format!(" | {}", upstream(back.rule, back.registry, back.repository)))
                .unwrap_or_default();
            format!("hosted {repository}{behind}")
        }
        Target::UnknownNamespace { name } => format!("unknown {name}"),
    }
}

fn check(ns: &str, host: &str, path: &str, expected: &str) {
    let rules = rules(FILE);
    let ns = (!ns.is_empty()).then_some(ns);
    let host = (!host.is_empty()).then_some(host);
    let target = rules.target(ns, host, &path.parse().unwrap());
    assert_eq!(say(&rules, target), expected, "ns {ns:?} host {host:?} path {path}");
}

#[test]
fn ns_names_the_registry() {
    check("docker.io", "", "library/alpine", "docker.io library/alpine");
    check("docker.io", "", "alpine", "docker.io library/alpine");
    check("docker.io", "", "grafana/grafana", "docker.io grafana/grafana");
    check("index.docker.io", "", "alpine", "docker.io library/alpine");
    check("registry-1.docker.io", "", "alpine", "docker.io library/alpine");
    check("Docker.IO.", "", "alpine", "docker.io library/alpine");
    check("docker.io:443", "", "alpine", "docker.io library/alpine");
    check("docker.io:80", "", "alpine", "unknown docker.io:80");
    check("ghcr.io", "", "org/app", "ghcr.io org/app");
    check("quay.io", "", "app", "quay.io app");
    check("registry.k8s.io", "", "pause", "registry.k8s.io pause");
    check("registry.example.com:5000", "", "team/app", "registry.example.com:5000 team/app");
    check("registry.example.com", "", "team/app", "registry.example.com:5000 team/app");
    check("registry.example.com:5001", "", "team/app", "unknown registry.example.com:5001");
    check("registry.internal", "", "team/app", "registry.example.com:5000 team/app");
    check("harbor", "", "team/app", "harbor team/app");
    // ns wins over everything else.
    check("ghcr.io", "registry.internal", "quay.io/app", "ghcr.io quay.io/app");
}

/// A closed world: what no rule knows is never an address.
#[test]
fn what_no_rule_knows_is_nobody() {
    check("169.254.169.254", "", "latest/meta-data", "unknown 169.254.169.254");
    check("localhost:6443", "", "api", "unknown localhost:6443");
    check("evil.example", "", "app", "unknown evil.example");
    check("docker.io@evil.example", "", "app", "unknown docker.io@evil.example");
    check("docker.io/evil", "", "app", "unknown docker.io/evil");
    check("*.pkg.dev", "", "app", "unknown *.pkg.dev");
    check("..", "", "app", "unknown ..");
    check(" ", "", "app", "unknown  ");
}

#[test]
fn a_family_covers_its_members_only() {
    check("us-docker.pkg.dev", "", "p/r/app", "*.pkg.dev (us-docker.pkg.dev) p/r/app");
    check("eu.gcr.io", "", "p/app", "*.gcr.io (eu.gcr.io) p/app");
    check("gcr.io", "", "p/app", "gcr.io p/app");
    check("k8s.gcr.io", "", "pause", "k8s.gcr.io pause");
    check("pkg.dev", "", "app", "unknown pkg.dev");
    check("a.b.pkg.dev", "", "app", "unknown a.b.pkg.dev");
    check(".pkg.dev", "", "app", "unknown .pkg.dev");
    check("a:1.pkg.dev", "", "app", "unknown a:1.pkg.dev");
    check("us.pkg.dev:8443", "", "app", "unknown us.pkg.dev:8443");
    check(
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "",
        "app",
        "*.dkr.ecr.*.amazonaws.com (123456789012.dkr.ecr.eu-west-1.amazonaws.com) app",
    );
    check(
        "registry.cn-hangzhou.aliyuncs.com",
        "",
        "n/app",
        "registry.*.aliyuncs.com (registry.cn-hangzhou.aliyuncs.com) n/app",
    );
    check("us.mirror.example.com", "", "app", "*.mirror.example.com (us.mirror.example.com) app");
    check("eu.mirror.example.com", "", "app", "eu.mirror.example.com app");
    check("team.artifacts.example.com", "", "app", "artifacts.example.com app");
}

#[test]
fn a_host_that_a_rule_claims_names_the_registry() {
    check("", "registry.internal", "team/app", "registry.example.com:5000 team/app");
    check("", "REGISTRY.internal:8080", "team/app", "registry.example.com:5000 team/app");
    check(
        "",
        "registry.internal",
        "docker.io/library/alpine",
        "registry.example.com:5000 docker.io/library/alpine",
    );
    check("", "docker.io", "team/app", "hosted team/app");
    check("", "localhost:5000", "team/app", "hosted team/app");
    check("", "[::1]:5000", "team/app", "hosted team/app");
}

#[test]
fn the_first_component_names_the_registry() {
    check("", "localhost:5000", "docker.io/library/alpine", "docker.io library/alpine");
    check("", "localhost:5000", "docker.io/alpine", "docker.io library/alpine");
    check("", "", "index.docker.io/alpine", "docker.io library/alpine");
    check("", "", "docker.io/library/library/alpine", "docker.io library/library/alpine");
    check("", "", "ghcr.io/org/app", "ghcr.io org/app");
    check("", "", "us-docker.pkg.dev/p/r/app", "*.pkg.dev (us-docker.pkg.dev) p/r/app");
    check("", "", "registry.example.com/team/app", "registry.example.com:5000 team/app");
    check("", "", "harbor/team/app", "harbor team/app");
    check("", "", "evil.example/app", "unknown evil.example");
    check("", "", "localhost/app", "unknown localhost");
    check("", "", "docker.io", "unknown docker.io");
}

#[test]
fn what_names_no_registry_is_hosted() {
    check("", "", "app", "hosted app");
    check("", "", "team/app", "hosted team/app");
    check("", "", "team/app.web", "hosted team/app.web");
    // Our own name is no other registry.
    check("registry.own.example", "", "team/app", "hosted team/app");
    check("registry.own.example", "", "docker.io/alpine", "docker.io library/alpine");
}

#[test]
fn the_default_upstream_stands_behind_hosted_names() {
    let rules = rules("[[upstream]]\nname = \"docker.io\"\ndefaultUpstream = true\n");
    let check = |path: &str, expected: &str| {
        assert_eq!(say(&rules, rules.target(None, None, &path.parse().unwrap())), expected);
    };
    check("alpine", "hosted alpine | docker.io library/alpine");
    check("team/app", "hosted team/app | docker.io team/app");
    check("quay.io/team/app", "quay.io team/app");
}

/// `library/` must not make a name that is longer than names may be.
#[test]
fn a_name_that_library_makes_too_long_is_nobodys() {
    let rules = rules("");
    let target = rules.target(Some("docker.io"), None, &"a".repeat(255).parse().unwrap());
    assert_eq!(say(&rules, target), "unknown docker.io");
}

proptest! {
    /// Whatever a client sends as ns, only names of rules come out.
    #[test]
    fn only_known_registries_come_out(ns in "\\PC{1,60}", path in "[a-z]{1,8}(/[a-z]{1,8}){0,2}") {
        let rules = rules(FILE);
        let path: RepositoryName = path.parse().unwrap();
        if let Target::Upstream { rule, registry, .. } = rules.target(Some(&ns), None, &path) {
            let known = rules.get(rule).unwrap();
            prop_assert!(known.name == registry || known.is_family());
            prop_assert!(registry.chars().all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c)));
        }
    }
}
