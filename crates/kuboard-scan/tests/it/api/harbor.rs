//! Harbor's API: what can be done, a scan from request to report, and what is refused.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kuboard_oci::Digest;
use kuboard_rt::Tasks;
use kuboard_scan::api::{HarborApi, Settings};
use serde_json::{Value, json};

use super::ground::{
    Got, Ground, Layers, advisory, ask, debian_layer, engine, node_layer, settings,
};

const REPORT: &str = "application/vnd.security.vulnerability.report; version=1.1";
const SBOM: &str = "application/vnd.security.sbom.report+json; version=1.0";

struct Registry {
    base: String,
    image: Digest,
}

/// A registry with an image.
async fn registry(ground: &Ground) -> Registry {
    let layers = Arc::new(Layers::default());
    let blobs = [debian_layer(), node_layer()];
    let diff_ids: Vec<Digest> = blobs
        .iter()
        .map(|blob| {
            let mut plain = Vec::new();
            std::io::copy(&mut flate2::read::GzDecoder::new(&blob[..]), &mut plain).unwrap();
            Digest::sha256(&plain)
        })
        .collect();
    let config = json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string();
    let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": layers.add(bytes), "size": bytes.len()});
    let of_layer = |blob: &Vec<u8>| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", blob);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": blobs.iter().map(of_layer).collect::<Vec<_>>(),
    })
    .to_string();
    let image = layers.add(manifest.as_bytes());
    Registry { base: ground.serve(layers.handler()).await, image }
}

fn request(registry: &Registry, authorization: &str) -> Value {
    json!({
        "registry": {"url": registry.base, "authorization": authorization},
        "artifact": {
            "repository": "library/a", "digest": registry.image, "tag": "1",
            "mime_type": "application/vnd.oci.image.manifest.v1+json",
        },
    })
}

async fn report(base: &str, id: &str, accept: &str) -> Got {
    let what = format!("GET {base}/api/v1/scan/{id}/report");
    ask(&what, &[("accept", accept)], None).await
}

/// Runs a worker until the report is there.
async fn finished(api: &Arc<HarborApi>, base: &str, id: &str) -> Got {
    let tasks = Tasks::default();
    let working = api.clone().work(tasks.shutdown());
    tasks.spawn("worker", async move { working.await.unwrap() });
    let got = loop {
        let got = report(base, id, REPORT).await;
        if got.status != 302 {
            break got;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    tasks.drain(std::time::Duration::from_secs(60)).await;
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn harbor_gets_its_report() {
    let ground = Ground::new().await;
    let registry = registry(&ground).await;
    let api = HarborApi::new(&settings(), "1.2.3", ground.engine.clone()).unwrap();
    let base = ground.serve(api.clone()).await;
    let database = ground.database(
        None,
        1,
        &[
            advisory("debian", "CVE-2024-0001", "openssl", "high"),
            advisory("osv:npm", "CVE-2024-0002", "express", "critical"),
        ],
    );
    ground.engine.use_database(database);

    let metadata = ask(&format!("GET {base}/api/v1/metadata"), &[], None).await;
    assert_eq!(metadata.status, 200);
    let metadata = metadata.json();
    assert_eq!(metadata["scanner"]["version"], "1.2.3");
    let consumed = &metadata["capabilities"][0]["consumes_mime_types"];
    let docker = json!("application/vnd.docker.distribution.manifest.v2+json");
    assert!(consumed.as_array().unwrap().contains(&docker));
    assert_eq!(metadata["capabilities"][1]["type"], "sbom");

    let scan = format!("POST {base}/api/v1/scan");
    let asked = request(&registry, "Bearer secret");
    let accepted = ask(&scan, &[], Some(&asked)).await;
    assert_eq!(accepted.status, 202);
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(ask(&scan, &[], Some(&asked)).await.json()["id"], json!(id), "one job");
    let pending = report(&base, &id, REPORT).await;
    assert_eq!((pending.status, pending.header("refresh-after")), (302, "5"));
    assert_eq!(pending.header("location"), format!("/api/v1/scan/{id}/report"));

    let got = finished(&api, &base, &id).await;
    assert_eq!((got.status, got.header("content-type")), (200, REPORT));
    let document = got.json();
    let artifact = json!({
        "repository": "library/a", "digest": registry.image, "tag": "1",
    });
    assert_eq!((&document["artifact"], &document["severity"]), (&artifact, &json!("Critical")));
    let found: Vec<_> = document["vulnerabilities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["id"].as_str().unwrap(), one["package"].as_str().unwrap()))
        .collect();
    assert_eq!(found, [("CVE-2024-0002", "express"), ("CVE-2024-0001", "libssl3")]);

    let old = "application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0";
    assert_eq!(report(&base, &id, old).await.header("content-type"), old);
    let sbom = report(&base, &id, SBOM).await;
    assert_eq!((sbom.status, &sbom.json()["media_type"]), (200, &json!("application/spdx+json")));
    let what = format!(
        "GET {base}/api/v1/scan/{id}/report?sbom_media_type=application%2Fvnd.cyclonedx%2Bjson"
    );
    let sbom = ask(&what, &[("accept", SBOM)], None).await.json();
    assert_eq!(sbom["sbom"]["bomFormat"], "CycloneDX");
    assert_eq!(report(&base, &id, "text/html").await.status, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_outlives_the_process_that_took_it() {
    let ground = Ground::new().await;
    let registry = registry(&ground).await;
    let guarded = Settings { psk: Some(b"key".to_vec()), ..settings() };
    let key = STANDARD.encode(b"key");
    let api = HarborApi::new(&guarded, "1", ground.engine.clone()).unwrap();
    let base = ground.serve(api).await;
    let asked = request(&registry, "Basic dTpw");
    let post = format!("POST {base}/api/v1/scan");
    assert_eq!(ask(&post, &[], Some(&asked)).await.status, 401);
    let got = ask(&post, &[("x-scanneradapter-api-key", &key)], Some(&asked)).await;
    assert_eq!(got.status, 202);
    let id = got.json()["id"].as_str().unwrap().to_owned();
    let job = ground.engine.catalog().last_job("harbor-scan", &id).await.unwrap().unwrap();
    assert!(!job.payload.contains("dTpw"), "{}", job.payload);

    let other = engine(ground.folder.path()).await;
    let database = ground.database(None, 1, &[advisory("debian", "CVE-1", "openssl", "high")]);
    other.use_database(database);
    let api = HarborApi::new(&Settings { psk: Some(b"key".to_vec()), ..settings() }, "1", other);
    let api = api.unwrap();
    let tasks = Tasks::default();
    let working = api.clone().work(tasks.shutdown());
    tasks.spawn("worker", async move { working.await.unwrap() });
    let base = ground.serve(api).await;
    let what = format!("GET {base}/api/v1/scan/{id}/report");
    let bearer = format!("Bearer {key}");
    let got = loop {
        let got = ask(&what, &[("authorization", &bearer), ("accept", REPORT)], None).await;
        if got.status != 302 {
            break got;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!((got.status, &got.json()["severity"]), (200, &json!("High")));
    tasks.drain(std::time::Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_scanned_is_told() {
    let ground = Ground::new().await;
    let registry = registry(&ground).await;
    let api = HarborApi::new(&settings(), "1", ground.engine.clone()).unwrap();
    let base = ground.serve(api.clone()).await;
    let scan = format!("POST {base}/api/v1/scan");
    let good = request(&registry, "Bearer secret");
    let with = |pointer: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    };
    for (asked, status) in [
        (json!({}), 400),
        (json!([]), 400),
        (with("/registry/url", json!("no address")), 422),
        (with("/registry/url", json!("ftp://host")), 422),
        (with("/artifact/repository", json!("../x")), 422),
        (with("/artifact/digest", json!("sha256:1")), 422),
        (with("/registry/authorization", json!("whatever")), 422),
    ] {
        let got = ask(&scan, &[], Some(&asked)).await;
        assert_eq!(got.status, status, "{asked}");
        assert!(got.json()["error"]["message"].is_string());
    }
    assert_eq!(report(&base, "unknown", REPORT).await.status, 404);
    assert_eq!(ask(&format!("GET {base}/api/v1/scan/x"), &[], None).await.status, 404);
    assert_eq!(ask(&format!("PUT {base}/api/v1/scan"), &[], None).await.status, 405);

    let refused = request(&registry, "Bearer wrong");
    let id = ask(&scan, &[], Some(&refused)).await.json()["id"].as_str().unwrap().to_owned();
    let got = finished(&api, &base, &id).await;
    assert_eq!(got.status, 500);
    let said = got.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(said.contains("401") && !said.contains("wrong"), "{said}");
    for path in ["/api/v1/metadata", "/api/v1/scan", "/api/v1/scan/x/report"] {
        assert!(HarborApi::serves(path), "{path}");
    }
    assert!(!HarborApi::serves("/api/v1/other"));
}
