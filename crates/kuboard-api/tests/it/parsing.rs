//! What is read, from the empty file to one that sets every key.

use std::time::Duration;

use kuboard_api::{Anonymous, Config, Seconds, TlsMode, UpstreamCredentials, Visibility};
use proptest::prelude::*;

#[test]
fn an_empty_file_is_the_default() {
    let config = Config::parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(config.anonymous(), Anonymous::Push);
    config.validate().unwrap();
}

#[test]
fn the_block_of_the_article_is_read_as_it_stands() {
    let check = |interval: &str| {
        let config = Config::parse(&format!(
            "[cache]\nenable = true\nstorageClass = \"ssd-retain\"\ncacheSizeGB = 200\n\
             peerDiscoveryInterval = {interval}\n"
        ))
        .unwrap();
        assert!(config.cache.enable);
        assert_eq!(config.cache.storage_class, "ssd-retain");
        assert_eq!(config.cache.cache_size_gb.bytes(), 200_000_000_000);
        assert_eq!(config.cache.peer_discovery_interval.duration(), Duration::from_secs(30));
    };
    check("30");
    check("\"30s\"");
    check("\"30\"");
}

#[test]
fn every_key_has_a_place() {
    let config = Config::parse(include_str!("every-key.toml")).unwrap();
    config.validate().unwrap();
    assert_eq!(config.server.tls.mode, TlsMode::Acme);
    assert_eq!(config.server.drain.duration(), Duration::from_secs(90));
    assert_eq!(config.gc.lease.duration(), Duration::from_secs(1800));
    assert_eq!(config.gc.untagged.duration(), Duration::from_secs(7 * 86_400));
    assert_eq!(config.cache.cache_size_gb.bytes(), 500_000_000);
    let rules = config.upstreams().unwrap();
    let rule = rules.iter().find(|rule| rule.name == "registry.example.com:5000").unwrap();
    assert_eq!(rule.visibility, Visibility::Recheck);
    assert!(
        matches!(&rule.credentials, UpstreamCredentials::Basic { user, .. } if user == "robot$pull")
    );
    assert!(rule.is_immutable("v1.2") && !rule.is_immutable("latest"));
    assert!(rule.admits("team/app") && !rule.admits("team/secret/app") && !rule.admits("other"));
}

/// A configuration is written as it is read, so that `config check` can print what holds.
#[test]
fn what_is_written_reads_the_same() {
    let config = Config::parse(include_str!("every-key.toml")).unwrap();
    let text = toml::to_string(&config).unwrap();
    let again = Config::parse(&text.replace("***", "hidden")).unwrap();
    assert_eq!(again.upstream, config.upstream);
    assert_eq!(again.server, config.server);
    assert!(!text.contains("pa55"), "the catalogue's password is shown: {text}");
    assert!(!format!("{config:?}").contains("pa55"));
}

#[test]
fn fields_of_built_in_rules_are_overridden_one_by_one() {
    let config = Config::parse(
        "[[upstream]]\nname = \"index.docker.io\"\ntagTtlSeconds = 5\nallow = [\"library/*\"]\n",
    )
    .unwrap();
    let rules = config.upstreams().unwrap();
    let rule = rules.iter().find(|rule| rule.name == "docker.io").unwrap();
    assert_eq!(rule.tag_ttl, Duration::from_secs(5));
    assert!(rule.admits("library/alpine") && !rule.admits("grafana/grafana"));
    assert!(
        rule.library_prefix && rule.aliases.iter().any(|alias| alias == "registry-1.docker.io")
    );
    let endpoints = rule.endpoints(&rule.name);
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].url.as_str(), "https://registry-1.docker.io/");
}

#[test]
fn mirrors_are_asked_only_where_they_are_named() {
    let hosts = |text: &str, name: &str| -> Vec<String> {
        let rules = Config::parse(text).unwrap().upstreams().unwrap();
        let rule = rules.iter().find(|rule| rule.name == name).unwrap();
        let mark = |mirror| if mirror { " mirror" } else { "" };
        rule.endpoints(name)
            .iter()
            .map(|end| format!("{}{}", end.url.host_str().unwrap(), mark(end.mirror)))
            .collect()
    };
    let everywhere = "[defaults]\nmirrors = \"cn\"\n";
    let not_here =
        "[defaults]\nmirrors = \"cn\"\n[[upstream]]\nname = \"quay.io\"\nmirrors = \"none\"\n";
    let own = "[[upstream]]\nname = \"docker.io\"\nendpoints = [\"https://mirror.example.com\"]\n\
               [defaults]\nmirrors = \"cn\"\n";
    let check = |text: &str, name: &str, expected: &[&str]| assert_eq!(hosts(text, name), expected);
    check("", "docker.io", &["registry-1.docker.io"]);
    check("", "quay.io", &["quay.io"]);
    check(everywhere, "docker.io", &["docker.m.daocloud.io mirror", "registry-1.docker.io"]);
    check(everywhere, "registry.k8s.io", &["k8s.m.daocloud.io mirror", "registry.k8s.io"]);
    check(everywhere, "cgr.dev", &["cgr.dev"]);
    check(not_here, "quay.io", &["quay.io"]);
    check(own, "docker.io", &["mirror.example.com"]);
    check(
        "[defaults]\nmirrors = \"google\"\n",
        "docker.io",
        &["mirror.gcr.io mirror", "registry-1.docker.io"],
    );
}

#[test]
fn who_may_push_without_credentials() {
    let check = |text: &str, expected: Anonymous, starts: bool| {
        let config = Config::parse(text).unwrap();
        assert_eq!(config.anonymous(), expected, "{text}");
        assert_eq!(config.validate().is_ok(), starts, "{text}");
    };
    check("", Anonymous::Push, true);
    check("[access]\nhtpasswd = \"users\"", Anonymous::None, true);
    check("[access]\nanonymous = \"pull\"", Anonymous::Pull, true);
    check("[access.kubernetes]\nenable = true", Anonymous::None, true);
    check(
        "[server]\nlisten = \"0.0.0.0:5000\"\n[access.kubernetes]\nenable = true",
        Anonymous::None,
        true,
    );
    check("[server]\nlisten = \"[::1]:5000\"", Anonymous::Push, true);
    check("[server]\nlisten = \"0.0.0.0:5000\"", Anonymous::None, false);
    check(
        "[server]\nlisten = \"0.0.0.0:5000\"\n[access]\nhtpasswd = \"users\"",
        Anonymous::None,
        true,
    );
    check(
        "[server]\nlisten = \"0.0.0.0:5000\"\n[access]\nanonymous = \"none\"",
        Anonymous::None,
        true,
    );
    check(
        "[server]\nlisten = \"[::]:5000\"\n[access]\nanonymous = \"push\"",
        Anonymous::Push,
        true,
    );
}

#[test]
fn only_the_upstreams_of_the_file_are_known_on_request() {
    let config =
        Config::parse("[defaults]\nbuiltInUpstreams = false\n[[upstream]]\nname = \"docker.io\"\n")
            .unwrap();
    let rules = config.upstreams().unwrap();
    assert_eq!(rules.len(), 1);
    assert!(rules[0].library_prefix, "a named built-in rule keeps what is built in");
}

#[test]
fn advice_names_what_may_not_be_meant() {
    let advice = |text: &str| -> Vec<String> {
        let config = Config::parse(text).unwrap();
        config.advice().into_iter().map(|advice| advice.message).collect()
    };
    assert!(advice("").is_empty());
    assert!(advice("[defaults]\nmirrors = \"cn\"").is_empty());
    let risky = "[[upstream]]\nname = \"r.example.com\"\nendpoints = [\"http://r.example.com\"]\n\
                 insecureSkipVerify = true\ncredentials = { kind = \"ecr\" }";
    assert_eq!(advice(risky).len(), 3);
    assert_eq!(advice("[server]\nexternalUrl = \"https://registry.example.com\"").len(), 1);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = Config::parse(&text);
    }

    #[test]
    fn durations_survive_their_own_spelling(seconds in 0_u64..1_000_000_000) {
        let span = Seconds::of(seconds);
        prop_assert_eq!(span.to_string().parse::<Seconds>().unwrap(), span);
    }
}
