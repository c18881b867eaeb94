//! Several endpoints, sound and unsound ones, limits of theirs and of ours.

use std::time::Duration;

use futures_util::StreamExt as _;
use kuboard_oci::Digest;
use kuboard_registry::client::{RateLimit, Upstream, UpstreamConfig};
use tokio::net::TcpListener;

use crate::client_script::{
    Reply, Rig, Scripted, Seen, Setup, expect, manifest, reference, repository, told,
};

const BLOB: &[u8] = b"0123456789";

async fn head(upstream: &Upstream) -> String {
    let outcome = upstream.head_manifest(&repository("team/app"), &reference("latest")).await;
    told(outcome, |_| String::new())
}

/// An address where nobody listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// What a mirror and the upstream answer, what comes of it, and whether the upstream was asked.
async fn check(mirror: u16, own: u16, expected: &str, own_asked: bool) {
    let answer =
        |status| move |_: &Seen| if status == 200 { manifest() } else { Reply::new(status) };
    let mirror_server = Scripted::start(answer(mirror)).await;
    let own_server = Scripted::start(answer(own)).await;
    let rig = Setup::new(&[&mirror_server.url(), &own_server.url()]).build();
    expect(&format!("{mirror} {own}"), &head(&rig.upstream).await, expected, "");
    assert_eq!((mirror_server.hits(), own_server.hits() > 0), (1, own_asked), "{mirror} {own}");
}

#[tokio::test]
async fn mirrors_may_fail_in_any_way() {
    check(200, 500, "ok", false).await;
    for status in [404, 401, 403, 429, 500, 503, 504, 400] {
        check(status, 200, "ok", true).await;
    }
    check(404, 404, "not_found", true).await;
    check(500, 404, "not_found", true).await;
    check(404, 500, "unavailable", true).await;
    check(404, 429, "throttled", true).await;
    check(403, 401, "unauthorized", true).await;
    check(500, 403, "denied", true).await;
}

#[tokio::test]
async fn a_mirror_with_wrong_bytes_is_passed_over() {
    let mirror = Scripted::start(|_| Reply::ok("{}")).await;
    let server = Scripted::start(|_| manifest()).await;
    let rig = Setup::new(&[&mirror.url(), &server.url()]).build();
    let wanted = reference(&crate::client_script::manifest_digest().to_string());
    for asked in 1..3 {
        let outcome = rig.upstream.get_manifest(&repository("team/app"), &wanted).await;
        expect("good bytes", &told(outcome, |_| String::new()), "ok", "");
        assert_eq!((mirror.hits(), server.hits()), (1, asked), "and is not asked first again");
    }
}

#[tokio::test]
async fn lists_are_asked_of_the_upstream_first() {
    let mirror = Scripted::start(|_| Reply::ok(r#"{"manifests":[]}"#)).await;
    let server = Scripted::start(|seen| match seen.path.contains("broken") {
        true => Reply::new(503),
        false => Reply::ok(r#"{"manifests":[{}]}"#),
    })
    .await;
    let rig = Setup::new(&[&mirror.url(), &server.url()]).build();
    let lists = async |name: &str| {
        let referrers = rig.upstream.referrers(&repository(name), &Digest::sha256(b""), None).await;
        let tags = rig.upstream.tags(&repository(name), "").await;
        (referrers.unwrap(), tags.unwrap().0)
    };
    let own = r#"{"manifests":[{}]}"#;
    assert_eq!(lists("team/app").await, (own.into(), own.into()));
    assert_eq!(mirror.hits(), 0);
    let second = r#"{"manifests":[]}"#;
    assert_eq!(lists("broken").await, (second.into(), second.into()));
}

#[tokio::test]
async fn a_mirror_may_keep_repositories_in_a_project() {
    let mirror = Scripted::start(|seen| match (seen.path.as_str(), seen.authorization()) {
        ("/v2/hub/team/app/manifests/latest", "Bearer t") => manifest(),
        ("/token?scope=repository%3Ahub%2Fteam%2Fapp%3Apull", _) => Reply::ok(r#"{"token":"t"}"#),
        _ => Reply::unauthorized(format!(
            "Bearer realm=\"http://{}/token\"",
            seen.header("host").unwrap()
        )),
    })
    .await;
    let rig = Setup::new(&[&format!("{}/v2/hub", mirror.url())]).build();
    expect("project", &head(&rig.upstream).await, "ok", "");
}

#[tokio::test]
async fn a_dead_upstream_is_left_alone_and_found_again() {
    let address = nowhere().await;
    let Rig { upstream, clock, metrics: _ } = &Setup::new(&[&address]).build();
    for _ in 0..3 {
        expect("refused", &head(upstream).await, "unavailable", "cannot be reached");
        clock.advance(Duration::from_millis(300));
    }
    expect("left alone", &head(upstream).await, "unavailable", "failed several times");
    clock.advance(Duration::from_millis(3700));
    expect("asked again", &head(upstream).await, "unavailable", "cannot be reached");
    expect("left alone", &head(upstream).await, "unavailable", "not asked for another 8 s");
}

#[tokio::test]
async fn errors_of_single_requests_do_not_count_against_an_endpoint() {
    let server = Scripted::start(|seen| match seen.path.contains("other") {
        true => manifest(),
        false => Reply::new(500),
    })
    .await;
    let rig = Setup::new(&[&server.url()]).build();
    for _ in 0..5 {
        expect("broken", &head(&rig.upstream).await, "unavailable", "500");
    }
    let outcome = rig.upstream.head_manifest(&repository("other"), &reference("latest")).await;
    expect("sound", &told(outcome, |_| String::new()), "ok", "");
}

#[tokio::test]
async fn a_throttling_upstream_is_left_alone_as_long_as_it_says() {
    let cases = [
        (Some("20"), 20),
        (Some("Sun, 06 Nov 1994 08:50:07 GMT"), 30),
        (None, 60),
        (Some("999999"), 900),
    ];
    for (retry_after, wait) in cases {
        let server = Scripted::start(move |seen| match seen.path.contains("first") {
            true => retry_after
                .map_or(Reply::new(429), |after| Reply::new(429).with("Retry-After", after)),
            false => manifest(),
        })
        .await;
        let Rig { upstream, clock, .. } = &Setup::new(&[&server.url()]).build();
        let first =
            upstream.head_manifest(&repository("first"), &reference("latest")).await.unwrap_err();
        let told_us = retry_after.is_some();
        assert_eq!(first.retry_after().is_some(), told_us && first.is_retryable());
        clock.advance(Duration::from_secs(wait - 1));
        expect("cooling", &head(upstream).await, "throttled", "another 1 s");
        assert_eq!(server.hits(), 1);
        clock.advance(Duration::from_secs(1));
        expect("again", &head(upstream).await, "ok", "");
    }
}

#[tokio::test]
async fn the_rate_limit_is_read_and_grows_back() {
    let server = Scripted::start(|_| {
        manifest().with("RateLimit-Limit", "100;w=21600").with("RateLimit-Remaining", "5;w=21600")
    })
    .await;
    let rig = Setup::new(&[&server.url()]).build();
    assert_eq!(rig.upstream.rate_limit(), None);
    head(&rig.upstream).await;
    let seen = RateLimit { limit: 100, remaining: 5, window_s: 21600 };
    assert_eq!(rig.upstream.rate_limit(), Some(seen));
    assert!(seen.is_low());
    let name = "registry_proxy_upstream_ratelimit_remaining{upstream=\"upstream.test\"}";
    assert_eq!(rig.metric(name), 5);
    rig.clock.advance(Duration::from_secs(21600 / 10));
    assert_eq!(rig.upstream.rate_limit().map(|rate| rate.is_low()), Some(false));
}

#[tokio::test]
async fn downloads_hold_places_that_small_requests_do_not_need() {
    let server = Scripted::start(|seen| match seen.path.contains("/blobs/") {
        true => Reply::ok(BLOB),
        false => manifest(),
    })
    .await;
    let rig = Setup::new(&[&server.url()])
        .configure(|config| {
            config.concurrency = 2;
            config.queue_timeout = Duration::from_millis(50);
        })
        .build();
    let (name, digest) = (repository("team/app"), Digest::sha256(BLOB));
    let blob = || rig.upstream.get_blob(&name, &digest, 0, None);
    let (first, mut second) = (blob().await.unwrap(), blob().await.unwrap());
    expect("full", &told(blob().await, |_| String::new()), "timeout", "no free place");
    expect("small", &head(&rig.upstream).await, "ok", "");
    drop(first);
    let third = blob().await.unwrap();
    while second.stream.next().await.is_some() {}
    let fourth = blob().await.unwrap();
    expect("full again", &told(blob().await, |_| String::new()), "timeout", "no free place");
    drop((second, third, fourth));
}

/// After a mirror's first blob went wrong, the next is asked elsewhere.
async fn check_wrong_blob(case: &str, first: fn(&Seen) -> Reply, blame: bool) {
    let mirror = Scripted::start(first).await;
    let server = Scripted::start(|_| Reply::ok(BLOB)).await;
    let setup = Setup::new(&[&mirror.url(), &server.url()]);
    let rig = setup.impatient_if(case == "stuck").build();
    let (name, digest) = (repository("team/app"), Digest::sha256(BLOB));
    for (mirror_hits, own_hits) in [(1, 0), (1, 1), (1, 2)] {
        let mut blob = rig.upstream.get_blob(&name, &digest, 0, None).await.unwrap();
        while blob.stream.next().await.is_some() {}
        if blame && own_hits == 0 {
            rig.upstream.blame(blob.source);
        }
        assert_eq!((mirror.hits(), server.hits()), (mirror_hits, own_hits), "{case}");
    }
}

#[tokio::test]
async fn a_mirror_whose_blobs_break_or_lie_is_passed_over() {
    check_wrong_blob("cut", |_| Reply::ok(BLOB).promise(20), false).await;
    check_wrong_blob("stuck", |_| Reply::ok(BLOB).promise(20).stall(), false).await;
    check_wrong_blob("other bytes", |_| Reply::ok("wrong bytes"), true).await;
}

#[tokio::test]
async fn endpoints_are_counted_by_status_and_kind_of_failure() {
    let server = Scripted::start(|_| Reply::new(503)).await;
    let rig = Setup::new(&[&nowhere().await, &server.url()]).build();
    head(&rig.upstream).await;
    for code in ["unavailable", "503"] {
        let sample = format!(
            "registry_proxy_upstream_requests_total{{code=\"{code}\",upstream=\"upstream.test\"}}"
        );
        assert_eq!(rig.metric(&sample), 1, "{code}");
    }
}

#[tokio::test]
async fn an_upstream_may_be_made_again_under_its_name() {
    let server = Scripted::start(|_| manifest()).await;
    let first = Setup::new(&[&server.url()]).build();
    head(&first.upstream).await;
    let mut config = Setup::new(&[&server.url()]).config;
    config.name = "other.test".to_owned();
    for name in ["upstream.test", "other.test"] {
        config.name = name.to_owned();
        let none = Setup::new(&[&server.url()]).credentials;
        let made = Upstream::new(config.clone(), none, &first.metrics).unwrap();
        expect(name, &head(&made).await, "ok", "");
        let sample =
            format!("registry_proxy_upstream_requests_total{{code=\"200\",upstream=\"{name}\"}}");
        assert_eq!(first.metric(&sample), 1);
    }
}

#[tokio::test]
async fn configurations_that_cannot_be() {
    type Case = (fn(&mut UpstreamConfig), &'static str);
    let cases: [Case; 6] = [
        (|config| config.endpoints.clear(), "has no endpoint"),
        (|config| config.endpoints[0].set_query(Some("x")), "number 1"),
        (|config| config.concurrency = 0, "concurrency"),
        (|config| config.trusted_realms = vec!["a/b".into()], "\"a/b\""),
        (|config| config.ca_file = Some("/no/such/file".into()), "/no/such/file"),
        (|config| config.ca_file = Some("/dev/null".into()), "/dev/null"),
    ];
    for (change, part) in cases {
        let setup = Setup::new(&["http://127.0.0.1:1"]).configure(change);
        let metrics = prometheus::Registry::new();
        let error = Upstream::new(setup.config, setup.credentials, &metrics).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}
