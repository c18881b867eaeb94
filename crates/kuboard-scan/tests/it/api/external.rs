//! The client of an external Clair: against our own API, and against a scripted one that has moods.

use std::{collections::VecDeque, sync::Arc};

use kuboard_oci::{Digest, RepositoryName};
use kuboard_rt::{
    SystemClock,
    http::{Body, Request, Response, handler_fn},
};
use kuboard_scan::{
    api::{ClairApi, Settings},
    clair_engine::{ClairError, ClairImage, ClairSettings, ExternalClair, INTRASERVICE, report_of},
};
use kuboard_vuln::{Ecosystem, ImageIdentity, LayerReference, Outcome, Severity};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::ground::{Ground, Layers, advisory, debian_layer, node_layer, settings};

fn client(url: &str, registry: &str, psk: Option<&[u8]>) -> Arc<ExternalClair> {
    let settings = ClairSettings {
        url: url.parse().unwrap(),
        psk: psk.map(<[u8]>::to_vec),
        issuer: INTRASERVICE.to_owned(),
        registry_url: registry.parse().unwrap(),
        tries: 3,
    };
    let authorize = Arc::new(|_: &RepositoryName| Some("Bearer secret".to_owned()));
    ExternalClair::new(settings, authorize, Arc::new(SystemClock)).unwrap()
}

fn layer(digest: Digest) -> LayerReference {
    LayerReference { digest, diff_id: None, created_by: String::new(), size: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_report_is_as_ours() {
    let ground = Ground::new().await;
    let layers = Arc::new(Layers::default());
    let digests = [layers.add(&debian_layer()), layers.add(&node_layer())];
    let registry = ground.serve(layers.handler()).await;
    let key = &b"key"[..];
    let guarded =
        Settings { psk: Some(key.to_vec()), issuers: vec!["quay".to_owned()], ..settings() };
    let api = ClairApi::new(guarded, ground.engine.clone()).unwrap();
    let url = ground.serve(api).await;
    let mut rated = advisory("debian", "CVE-2024-0001", "openssl", "high");
    rated.severities.push(kuboard_vuln::SeverityScore {
        source: "nvd".to_owned(),
        rating: kuboard_vuln::Rating::CvssV3,
        value: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H".to_owned(),
    });
    let advisories = [rated, advisory("osv:npm", "CVE-2024-0002", "express", "critical")];
    ground.engine.use_database(ground.database(None, 1, &advisories));
    let identity = ImageIdentity { name: "a:1".to_owned(), ..ImageIdentity::default() };
    let references = digests.map(layer);
    let repository: RepositoryName = "docker.io/library/a".parse().unwrap();
    let image = ClairImage {
        identity: &identity,
        manifest: Digest::sha256(b"image"),
        repository: &repository,
        layers: &references,
    };
    let clair = client(&url, &registry, Some(key));
    let report = clair.report(&image).await.unwrap();
    let ours = ground.engine.report_now(&image.manifest).await.unwrap().unwrap();
    assert_eq!((&report.image.name, &report.outcome), (&"a:1".to_owned(), &Outcome::Complete));
    assert_eq!(report.packages.len(), ours.packages.len());
    for (one, other) in report.findings.iter().zip(&ours.findings) {
        assert_eq!((&one.id, one.severity, one.layer), (&other.id, other.severity, other.layer));
        assert_eq!(
            (&one.package.name, &one.package.version),
            (&other.package.name, &other.package.version)
        );
        assert_eq!((&one.fixed_in, one.status), (&other.fixed_in, other.status));
        assert_eq!((&one.source, &one.namespace), (&other.source, &other.namespace));
        assert_eq!((&one.details, one.published_ms), (&other.details, other.published_ms));
        assert_eq!(one.references, other.references);
    }
    assert_eq!(report.findings.len(), 2);
    assert!(report.findings[1].scores.iter().any(|score| score.value.starts_with("CVSS:3.1")));

    // Asked again: Clair says 412, and the report is the same.
    assert_eq!(clair.report(&image).await.unwrap().findings, report.findings);
    // Its store was wiped.
    ground.engine.catalog().forget_image(&image.manifest).await.unwrap();
    assert_eq!(clair.report(&image).await.unwrap().findings, report.findings);
    let stranger = client(&url, &registry, Some(b"another"));
    assert!(matches!(stranger.report(&image).await, Err(ClairError::Unauthorized)));
}

/// A Clair that says these statuses one after the other.
async fn moody(
    ground: &Ground,
    said: &[(u16, Value)],
) -> (Arc<ExternalClair>, Arc<Mutex<Vec<String>>>) {
    let said: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(said.iter().cloned().collect()));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    let handler = handler_fn(move |request: Request| {
        told.lock().push(format!("{} {}", request.method(), request.uri().path()));
        let (status, body) = said.lock().pop_front().unwrap_or((418, json!({})));
        async move {
            let mut response = Response::new(Body::full(body.to_string()));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert("retry-after", "0".parse().unwrap());
            response.headers_mut().insert("etag", "\"state\"".parse().unwrap());
            response
        }
    });
    let url = ground.serve(handler).await;
    (client(&url, "http://registry", None), heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn its_moods_are_borne() {
    let ground = Ground::new().await;
    let index = json!({"success": true, "state": "IndexFinished"});
    let failed = json!({"success": false, "state": "IndexError", "err": "no room"});
    let empty = json!({});
    let (busy, soon, fine) = ((429, empty.clone()), (202, empty.clone()), (200, empty.clone()));
    let done = (201, index.clone());
    let bad = (400, json!({"code": "bad-request", "message": "bogus manifest"}));
    // What it says; whether a report comes, and if not whether to try later; requests.
    let cases = [
        (vec![done.clone(), fine.clone()], Ok(()), 2),
        (vec![busy.clone(), busy.clone(), done.clone(), soon.clone(), fine.clone()], Ok(()), 5),
        (vec![(412, empty.clone()), fine.clone()], Ok(()), 2),
        (vec![done.clone(), (404, empty.clone()), done.clone(), (201, empty.clone())], Ok(()), 4),
        (vec![busy.clone(), busy.clone(), busy], Err(true), 3),
        (vec![done.clone(), soon.clone(), soon.clone(), soon], Err(true), 4),
        (vec![bad], Err(false), 1),
        (vec![(201, failed)], Err(true), 1),
        (vec![(500, json!({"message": "x"}))], Err(true), 1),
        (vec![(401, empty)], Err(false), 1),
        (vec![done.clone(), (200, json!([1]))], Err(false), 2),
        (vec![done, (200, json!("x"))], Err(false), 2),
    ];
    let identity = ImageIdentity::default();
    let layers = [layer(Digest::sha256(b"layer"))];
    let repository: RepositoryName = "a/b".parse().unwrap();
    for (said, outcome, requests) in cases {
        let (clair, heard) = moody(&ground, &said).await;
        let manifest = Digest::sha256(b"image");
        let image =
            ClairImage { identity: &identity, manifest, repository: &repository, layers: &layers };
        let got = clair.report(&image).await;
        let got = got.map(drop).map_err(|error| error.is_retryable());
        assert_eq!(got, outcome, "{said:?}");
        assert_eq!(heard.lock().len(), requests, "{said:?} {:?}", heard.lock());
    }
}

#[test]
fn a_foreign_report_is_read() {
    let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
    let package = |id: &str, name: &str| {
        json!({"id": id, "name": name, "version": "1.0", "kind": "binary", "source": null,
            "normalized_version": "", "cpe": ""})
    };
    let place = |db: &str, layer: &Digest| {
        json!([{"package_db": db, "introduced_in": layer, "distribution_id": "7",
            "repository_ids": null}])
    };
    let homeless = json!([{"package_db": "mystery:x", "introduced_in": two}]);
    let document = json!({
        "manifest_hash": one, "repository": null,
        "packages": {"1": package("1", "musl"), "2": package("2", "rails"), "3": package("3", "odd")},
        "distributions": {"7": {"id": "7", "did": "alpine", "name": "Alpine Linux",
            "version_id": "3.20.1", "cpe": ""}},
        "environments": {"1": place("lib/apk/db/installed", &one),
            "2": place("ruby:opt/app", &two), "3": homeless},
        "vulnerabilities": {
            "v": {"id": "v", "updater": "alpine-main-v3.20-updater", "name": "CVE-2025-1",
                "description": "text", "issued": "0001-01-01T00:00:00Z",
                "links": "https://a javascript:x https://a http://b", "severity": "",
                "normalized_severity": "Medium", "package": null, "fixed_in_version": "1.1-r0",
                "Self": {}, "range": {"[": "x"}},
            "w": {"id": "w", "updater": "osv/rubygems", "name": "GHSA-x",
                "links": "https://osv.dev/vulnerability/CVE-2024-7 https://osv.dev/vulnerability/GHSA-x",
                "Aliases": [{"space": "CVE", "name": "2024-7"}, {"space": "PYSEC", "name": "2024-8"}],
                "normalized_severity": "Nonsense", "issued": "2024-05-06T07:08:09Z",
                "fixed_in_version": "fixed=2.0%2B1&introduced=1"},
        },
        "package_vulnerabilities": {"1": ["v", "missing"], "2": ["w"], "9": ["v"]},
        "enrichments": {
            "message/vnd.clair.map.vulnerability; enricher=clair.epss schema=none":
                [{"v": [{"epss": 0.5, "percentile": 0.99}]}],
            "message/vnd.clair.map.vulnerability; enricher=clair.kev schema=none":
                [{"w": [{"date_added": "2024-01-02"}]}],
        },
        "PackageNotVulnerable": null,
    });
    let layers = [layer(one), layer(two)];
    let identity = ImageIdentity::default();
    let report = report_of(document.to_string().as_bytes(), &identity, &layers, 5).unwrap();
    assert!(matches!(&report.outcome, Outcome::Partial { problems } if problems.len() == 1));
    let [musl, rails] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((musl.package.ecosystem, musl.severity), (Ecosystem::Apk, Severity::Medium));
    assert_eq!((musl.namespace.as_str(), musl.layer), ("alpine:3.20", 0));
    assert_eq!(
        musl.references.iter().map(|one| one.url.as_str()).collect::<Vec<_>>(),
        ["https://a", "http://b"]
    );
    assert_eq!((musl.published_ms, musl.epss.unwrap().percentile), (None, 99_000));
    assert_eq!((rails.package.ecosystem, rails.severity), (Ecosystem::Gem, Severity::Unknown));
    assert_eq!((rails.id.as_str(), rails.advisory.as_str()), ("CVE-2024-7", "GHSA-x"));
    assert_eq!(
        (&rails.aliases[..], &rails.fixed_in[..]),
        (&["GHSA-x".to_owned(), "PYSEC-2024-8".to_owned()][..], &["2.0+1".to_owned()][..])
    );
    assert_eq!((rails.layer, rails.path.as_str()), (1, "opt/app"));
    assert_eq!(rails.known_exploited.as_deref(), Some("2024-01-02"));
    assert_eq!(rails.published_ms, Some(1_714_979_289_000));
    let none = report_of(b"{}", &identity, &layers, 5).unwrap();
    assert!(matches!(none.outcome, Outcome::Unsupported { .. }));
    assert!(report_of(b"[", &identity, &layers, 5).is_err());
}
