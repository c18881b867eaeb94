//! TLS and the proxies of the environment.

use std::{process::Stdio, time::Duration};

use kuboard_registry::client::UpstreamConfig;
use kuboard_rt::{
    Clock as _, SystemClock, Tasks,
    http::{Body, Limits, Request, bind, handler_fn},
    tls::Certificates,
};
use tempfile::TempDir;

use crate::client_script::{
    MANIFEST, MANIFEST_TYPE, Scripted, Setup, expect, manifest, reference, repository, told,
};

/// A registry with a certificate of its own authority, whose file is `ca.pem` in the folder.
async fn secure_registry(dir: &TempDir, tasks: &Tasks) -> String {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let now_ms = SystemClock.now_ms();
    let certificates = Certificates::self_made(dir.path(), &names, now_ms).unwrap();
    let addr = "127.0.0.1:0".parse().unwrap();
    let bound = bind(addr, Some(certificates), Limits::default()).await.unwrap();
    let url = format!("https://{}", bound.local_addr().unwrap());
    let handler = handler_fn(|request: Request| async move {
        let response = http::Response::builder().header("content-type", MANIFEST_TYPE);
        if request.uri().path().starts_with("/v2/down/") {
            let plain = format!("http://127.0.0.1:1{}", request.uri().path());
            let moved = response.status(307).header("location", plain);
            return moved.body(Body::empty()).unwrap();
        }
        response.body(Body::full(MANIFEST)).unwrap()
    });
    let stop = tasks.shutdown();
    tasks.spawn("secure registry", async move {
        let _ = bound.serve(handler, stop, Duration::ZERO).await;
    });
    url
}

#[tokio::test]
async fn certificates_are_checked_against_the_system_and_the_configured_file() {
    let (dir, tasks) = (TempDir::new().unwrap(), Tasks::default());
    let url = secure_registry(&dir, &tasks).await;
    let ca = dir.path().join("ca.pem");
    type Change = Box<dyn FnOnce(&mut UpstreamConfig)>;
    let cases: [(&str, &str, Change, &str); 4] = [
        ("unknown", "team/app", Box::new(|_| ()), "unavailable"),
        ("known", "team/app", Box::new(|config| config.ca_file = Some(ca)), "ok"),
        ("any", "team/app", Box::new(|config| config.insecure_skip_verify = true), "ok"),
        ("downgrade", "down/app", Box::new(|c| c.insecure_skip_verify = true), "refused"),
    ];
    for (case, name, change, expected) in cases {
        let rig = Setup::new(&[&url]).configure(change).build();
        let outcome = rig.upstream.get_manifest(&repository(name), &reference("latest")).await;
        expect(case, &told(outcome, |_| String::new()), expected, "");
    }
    tasks.drain(Duration::from_secs(5)).await;
}

/// This test starts itself again with a proxy in the environment, which cannot be changed while
/// other tests run.
#[tokio::test]
async fn proxies_of_the_environment_are_used_but_for_this_machine() {
    const MARK: &str = "KUBOARD_TEST_LOCAL_REGISTRY";
    if let Some(local) = std::env::var_os(MARK) {
        let local = local.into_string().unwrap();
        for url in ["http://upstream.test", &local] {
            let rig = Setup::new(&[url]).build();
            let outcome =
                rig.upstream.head_manifest(&repository("team/app"), &reference("latest")).await;
            expect(url, &told(outcome, |_| String::new()), "ok", "");
        }
        return;
    }
    let proxy = Scripted::start(|_| manifest()).await;
    let local = Scripted::start(|_| manifest()).await;
    let this = std::env::current_exe().unwrap();
    let name = "client_network::proxies_of_the_environment_are_used_but_for_this_machine";
    let status = tokio::process::Command::new(this)
        .args(["--exact", name])
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .env("http_proxy", proxy.url())
        .env(MARK, local.url())
        .stdout(Stdio::null())
        .status()
        .await
        .unwrap();
    assert!(status.success());
    let asked: Vec<String> = proxy.log().into_iter().map(|seen| seen.path).collect();
    assert_eq!(asked, ["http://upstream.test/v2/team/app/manifests/latest"]);
    assert_eq!(local.hits(), 1);
}
