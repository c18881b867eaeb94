//! Clair's API: statuses, headers and documents that clairctl and Quay count on.

use std::{
    io::Read,
    sync::{Arc, atomic::Ordering},
};

use kuboard_oci::Digest;
use kuboard_scan::{
    api::{ClairApi, Settings},
    clair_engine::Psk,
};
use serde_json::{Value, json};

use super::{
    ground::{
        Got, Ground, Layers, advisory, ask, debian_layer, layer, manifest, node_layer, settings,
    },
    schema,
};

struct Clair {
    ground: Ground,
    layers: Arc<Layers>,
    /// Address of the layers, and of the API.
    source: String,
    base: String,
    digests: Vec<Digest>,
}

impl Clair {
    async fn new(settings: Settings) -> Self {
        let ground = Ground::new().await;
        let layers = Arc::new(Layers::default());
        let digests = vec![layers.add(&debian_layer()), layers.add(&node_layer())];
        let source = ground.serve(layers.handler()).await;
        let base = ground.serve(ClairApi::new(settings, ground.engine.clone()).unwrap()).await;
        Self { ground, layers, source, base, digests }
    }

    fn with_advisories(self) -> Self {
        let database = self.ground.database(
            None,
            1,
            &[
                advisory("debian", "CVE-2024-0001", "openssl", "high"),
                advisory("osv:npm", "CVE-2024-0002", "express", "critical"),
                advisory("debian", "CVE-2024-0003", "openssl", "unimportant"),
            ],
        );
        self.ground.engine.use_database(database);
        self
    }

    async fn ask(&self, what: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Got {
        let (method, path) = what.split_once(' ').unwrap();
        ask(&format!("{method} {}{path}", self.base), headers, body).await
    }

    async fn index(&self, name: &str) -> (Digest, Got) {
        let hash = Digest::sha256(name.as_bytes());
        let manifest = manifest(&self.source, &hash, &self.digests);
        let got = self.ask("POST /indexer/api/v1/index_report", &[], Some(&manifest)).await;
        (hash, got)
    }
}

/// What is asked: method and path, headers, a body; and the status that comes.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a Value>, u16);

impl Clair {
    /// Asks; errors must have the form of errors.
    async fn check(&self, cases: &[Case<'_>]) {
        for (what, headers, body, status) in cases {
            let got = self.ask(what, headers, *body).await;
            assert_eq!(got.status, *status, "{what} {headers:?} {body:?}");
            if got.status >= 400 && got.status != 412 {
                schema::check("error", &got.json());
                assert!(!got.header("clair-error").is_empty(), "{what}");
            }
        }
    }
}

/// What Quay's own schema asks of a report beside Clair's.
fn check_quay(report: &Value) {
    let fields = |kind: &str, names: &[&str]| {
        for (id, one) in report[kind].as_object().unwrap() {
            for name in names {
                assert!(one[name].is_string(), "{kind} {id} has no {name}");
            }
        }
    };
    fields("packages", &["id", "name", "version"]);
    let of_distributions = [
        "id",
        "did",
        "name",
        "version",
        "version_code_name",
        "version_id",
        "arch",
        "cpe",
        "pretty_name",
    ];
    fields("distributions", &of_distributions);
    for (id, package) in report["packages"].as_object().unwrap() {
        assert!(package.get("source").is_none_or(Value::is_object), "source of {id}");
    }
    for one in report["environments"].as_object().unwrap().values() {
        for environment in one.as_array().unwrap() {
            for name in ["package_db", "introduced_in", "distribution_id"] {
                assert!(environment[name].is_string(), "{name}");
            }
        }
    }
    if report.get("vulnerabilities").is_some() {
        let names = [
            "id",
            "updater",
            "name",
            "description",
            "links",
            "severity",
            "normalized_severity",
            "fixed_in_version",
        ];
        fields("vulnerabilities", &names);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_indexed_once_and_told_of_ever_after() {
    let clair = Clair::new(settings()).await;
    let (hash, got) = clair.index("image").await;
    assert_eq!(got.status, 201, "{}", got.json());
    let path = format!("/indexer/api/v1/index_report/{hash}");
    assert_eq!(got.header("location"), path);
    assert!(got.header("etag").len() > 2 && got.header("etag").starts_with('"'));
    let links: Vec<_> = got.headers.get_all("link").iter().map(|l| l.to_str().unwrap()).collect();
    let report = format!("/matcher/api/v1/vulnerability_report/{hash}");
    let rel = |path: &str, kind: &str| {
        format!("<{path}>; rel=\"https://projectquay.io/clair/v1/{kind}\"")
    };
    assert_eq!(links, [rel(&path, "index_report"), rel(&report, "vulnerability_report")]);
    let index = got.json();
    schema::check("index_report", &index);
    check_quay(&index);
    assert_eq!((&index["state"], &index["success"]), (&json!("IndexFinished"), &json!(true)));
    assert_eq!((index["err"].as_str(), &index["manifest_hash"]), (Some(""), &json!(hash)));
    let names: Vec<_> =
        index["packages"].as_object().unwrap().values().map(|one| one["name"].clone()).collect();
    for name in ["libssl3", "adduser", "express"] {
        assert!(names.contains(&json!(name)), "{names:?}");
    }
    let layers: Vec<String> = clair.digests.iter().map(ToString::to_string).collect();
    for environment in index["environments"].as_object().unwrap().values() {
        assert!(layers.iter().any(|layer| environment[0]["introduced_in"] == json!(layer)));
    }

    // The same image again, and another one of the same layers: nothing is fetched.
    let asked = clair.layers.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 2);
    assert_eq!(clair.index("image").await.1.json(), index);
    assert_eq!(clair.index("another").await.1.status, 201);
    assert_eq!(clair.layers.asked.load(Ordering::SeqCst), asked);

    let got = clair.ask(&format!("GET {path}"), &[], None).await;
    assert_eq!((got.status, got.json()), (200, index));
    assert_eq!(got.header("content-type"), "application/vnd.clair.index_report.v1+json");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_has_its_statuses() {
    let clair = Clair::new(settings()).await.with_advisories();
    let (hash, got) = clair.index("image").await;
    let tag = got.header("etag").to_owned();
    let tag = tag.as_str();
    let known = format!("/indexer/api/v1/index_report/{hash}");
    let escaped = known.replace(':', "%3A");
    let unknown = format!("/indexer/api/v1/index_report/{}", Digest::sha256(b"unknown"));
    let post = "POST /indexer/api/v1/index_report";
    let manifest = manifest(&clair.source, &hash, &clair.digests);
    let bogus = json!({"hash": hash, "layers": []});
    let none = json!({"hash": hash});
    let no_hash = json!({"layers": manifest["layers"]});
    let bad_hash = json!({"hash": "sha256:zz", "layers": manifest["layers"]});
    let state = "/indexer/api/v1/index_state";
    let report = format!("/matcher/api/v1/vulnerability_report/{hash}");
    let no_report = format!("/matcher/api/v1/vulnerability_report/{}", Digest::sha256(b"unknown"));
    let operation = "/matcher/api/v1/internal/update_operation";
    let uuid = "00000000-0000-4000-8000-000000000000";
    let same = ("if-none-match", tag);
    let cases: &[Case<'_>] = &[
        (post, &[same], Some(&manifest), 412),
        (post, &[("if-none-match", "\"x\"")], Some(&manifest), 201),
        (post, &[], Some(&bogus), 400),
        (post, &[], Some(&none), 400),
        (post, &[], Some(&no_hash), 400),
        (post, &[], Some(&bad_hash), 400),
        (post, &[], Some(&json!(7)), 400),
        (post, &[], None, 400),
        ("PUT /indexer/api/v1/index_report", &[], None, 405),
        ("GET /indexer/api/v1/index_report", &[], None, 405),
        (&format!("GET {known}"), &[same], None, 304),
        (&format!("GET {known}"), &[("accept", "text/html")], None, 415),
        (&format!("GET {known}"), &[("accept", "nonsense")], None, 400),
        (&format!("GET {known}"), &[("accept", "application/json")], None, 200),
        (&format!("GET {escaped}"), &[], None, 200),
        (&format!("GET {unknown}"), &[], None, 404),
        (&format!("POST {known}"), &[], None, 405),
        ("GET /indexer/api/v1/index_report/sha256:12", &[], None, 400),
        (&format!("GET {state}"), &[], None, 200),
        (&format!("GET {state}"), &[same], None, 304),
        (&format!("POST {state}"), &[], None, 405),
        (&format!("GET {state}"), &[("accept", "image/png")], None, 415),
        (&format!("GET {report}"), &[], None, 200),
        (&format!("GET {no_report}"), &[], None, 404),
        (&format!("POST {report}"), &[], None, 405),
        ("GET /matcher/api/v1/vulnerability_report/x", &[], None, 400),
        (&format!("GET {operation}"), &[], None, 200),
        (&format!("GET {operation}?kind=enrichment&latest=true"), &[], None, 200),
        (&format!("GET {operation}?kind=other"), &[], None, 400),
        (&format!("POST {operation}"), &[], None, 405),
        (&format!("DELETE {operation}/{uuid}"), &[], None, 200),
        (&format!("DELETE {operation}/x"), &[], None, 400),
        (&format!("GET {operation}/{uuid}"), &[], None, 405),
        ("GET /matcher/api/v1/internal/update_diff", &[], None, 400),
        ("GET /matcher/api/v1/internal/update_diff?cur=x", &[], None, 400),
        (&format!("GET /matcher/api/v1/internal/update_diff?cur={uuid}&prev=x"), &[], None, 400),
        (&format!("GET /matcher/api/v1/internal/update_diff?cur={uuid}"), &[], None, 404),
        (&format!("GET /notifier/api/v1/notification/{uuid}"), &[], None, 404),
        (&format!("DELETE /notifier/api/v1/notification/{uuid}"), &[], None, 404),
        ("GET /notifier/api/v1/notification/x", &[], None, 400),
        (&format!("GET /notifier/api/v1/notification/{uuid}?page_size=x"), &[], None, 400),
        (&format!("PUT /notifier/api/v1/notification/{uuid}"), &[], None, 405),
        ("GET /openapi/v1", &[], None, 200),
        ("GET /openapi/v1", &[("accept", "application/yaml")], None, 200),
        ("GET /openapi/v1", &[("accept", "text/html")], None, 415),
        ("POST /openapi/v1", &[], None, 405),
        ("GET /robots.txt", &[], None, 200),
        ("GET /indexer/api/v1/nothing", &[], None, 404),
    ];
    clair.check(cases).await;
}

#[test]
fn its_paths_are_known() {
    for path in
        ["/indexer/api/v1/index_report/x", "/matcher/api/v1/x", "/openapi/v1", "/robots.txt"]
    {
        assert!(ClairApi::serves(path), "{path}");
    }
    for path in ["/v2/", "/api/v1/scan", "/indexer", "/"] {
        assert!(!ClairApi::serves(path), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_made_of_todays_advisories() {
    let clair = Clair::new(settings()).await;
    let (hash, got) = clair.index("image").await;
    assert_eq!(got.status, 201);
    let report = format!("GET /matcher/api/v1/vulnerability_report/{hash}");
    let got = clair.ask(&report, &[], None).await;
    assert_eq!((got.status, got.body.len()), (202, 0));

    let clair = clair.with_advisories();
    let got = clair.ask(&report, &[], None).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.header("content-type"), "application/vnd.clair.index_report.v1+json");
    assert_eq!(got.header("cache-control"), "max-age=30");
    let document = got.json();
    schema::check("vulnerability_report", &document);
    check_quay(&document);
    assert_eq!(document["manifest_hash"], json!(hash));
    let mut found: Vec<_> = document["vulnerabilities"]
        .as_object()
        .unwrap()
        .values()
        .map(|one| {
            ["name", "normalized_severity", "fixed_in_version"]
                .map(|name| one[name].as_str().unwrap().to_owned())
        })
        .collect();
    found.sort();
    let fixed = "3.0.15-1~deb12u1".to_owned();
    let want = [
        ["CVE-2024-0001".to_owned(), "High".to_owned(), fixed.clone()],
        ["CVE-2024-0002".to_owned(), "Critical".to_owned(), "4.19.2".to_owned()],
        ["CVE-2024-0003".to_owned(), "Negligible".to_owned(), fixed],
    ];
    assert_eq!(found, want);
    for (package, ids) in document["package_vulnerabilities"].as_object().unwrap() {
        assert!(document["packages"][package].is_object(), "{package}");
        for id in ids.as_array().unwrap() {
            assert!(document["vulnerabilities"][id.as_str().unwrap()].is_object(), "{id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_complete_is_not_called_so() {
    let clair = Clair::new(settings()).await.with_advisories();
    let strange = layer(&[("etc/os-release", "ID=plan9\nVERSION_ID=4\n"), ("bin/x", "y")]);
    let digest = clair.layers.add(&strange);
    let hash = Digest::sha256(b"strange");
    let asked = manifest(&clair.source, &hash, &[digest]);
    let got = clair.ask("POST /indexer/api/v1/index_report", &[], Some(&asked)).await;
    assert_eq!(got.status, 201);
    let report = format!("GET /matcher/api/v1/vulnerability_report/{hash}");
    let got = clair.ask(&report, &[], None).await;
    assert_eq!((got.status, got.header("kuboard-outcome")), (200, "unsupported"));
    let document = got.json();
    schema::check("vulnerability_report", &document);
    let outcome = &document["enrichments"]["application/vnd.kuboard.outcome+json"][0];
    assert_eq!(outcome["outcome"], "unsupported");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_cannot_be_had_are_told() {
    let clair = Clair::new(settings()).await;
    let [debian, node] = clair.digests[..] else { panic!("two layers") };
    let no_tar = clair.layers.add(b"this is no archive, whatever else it is");
    let other = Digest::sha256(b"other bytes");
    clair.layers.add_as(&other.to_string(), b"bytes");
    let elsewhere = clair.ground.serve(clair.layers.handler()).await;
    let source = clair.source.as_str();
    let uri = |digest: &Digest| format!("{source}/v2/a/blobs/{digest}");
    let secret = json!({"Authorization": ["Bearer secret"]});
    let cases = [
        (no_tar, uri(&no_tar), &secret, 400, "failed to start scan"),
        (other, uri(&other), &secret, 500, "its bytes are those of"),
        (debian, uri(&debian), &json!({}), 500, "401"),
        (debian, uri(&debian), &json!({"Authorization": ["Bearer wrong"]}), 500, "401"),
        (debian, uri(&Digest::sha256(b"absent")), &secret, 500, "404"),
        (debian, "http://127.0.0.1:1/x".to_owned(), &secret, 500, "can't be reached"),
        (debian, "file:///etc/passwd".to_owned(), &secret, 500, "neither http nor https"),
        (debian, "no address".to_owned(), &secret, 400, "relative URL"),
        // To another host, without the credentials; where they are asked for, that is not enough.
        (
            debian,
            format!("{source}/r?to={elsewhere}/v2/a/blobs")
                .replace("/r?", &format!("/r/{debian}?")),
            &secret,
            500,
            "401",
        ),
        (debian, format!("{source}/r/{debian}?to={elsewhere}/open"), &secret, 201, ""),
        (node, format!("{source}/r/{node}?to={source}/v2/a"), &secret, 201, ""),
    ];
    for (digest, uri, headers, status, message) in cases {
        let hash = Digest::sha256(uri.as_bytes());
        let layers = json!([{"hash": digest, "uri": uri, "headers": headers}]);
        let asked = json!({"hash": hash, "layers": layers});
        let got = clair.ask("POST /indexer/api/v1/index_report", &[], Some(&asked)).await;
        let said = got.json()["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(got.status, status, "{uri}: {said}");
        assert!(said.contains(message) && !said.contains("secret"), "{uri}: {said}");
        let known = clair.ask(&format!("GET /indexer/api/v1/index_report/{hash}"), &[], None).await;
        assert_eq!(known.status == 200, status == 201, "{uri}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_refused_unless_allowed() {
    let clair = Clair::new(Settings { allow_private_addresses: false, ..settings() }).await;
    let (_, got) = clair.index("image").await;
    assert_eq!(got.status, 500);
    let said = got.json()["message"].as_str().unwrap().to_owned();
    assert!(said.contains("private network; hint: set scan.api.allowPrivateAddresses"), "{said}");
    assert_eq!(clair.layers.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_forgotten() {
    let clair = Clair::new(settings()).await;
    let (one, _) = clair.index("one").await;
    let (two, _) = clair.index("two").await;
    let unknown = Digest::sha256(b"unknown");
    let path = |digest: &Digest| format!("/indexer/api/v1/index_report/{digest}");
    let got = clair.ask(&format!("DELETE {}", path(&one)), &[], None).await;
    assert_eq!((got.status, got.body.len()), (204, 0));
    assert_eq!(clair.ask(&format!("DELETE {}", path(&one)), &[], None).await.status, 204);
    let list = json!([one, two, unknown]);
    let got = clair.ask("DELETE /indexer/api/v1/index_report", &[], Some(&list)).await;
    assert_eq!((got.status, got.json()), (200, json!([two])));
    for digest in [one, two] {
        assert_eq!(clair.ask(&format!("GET {}", path(&digest)), &[], None).await.status, 404);
    }
    let bad = json!(["x"]);
    let got = clair.ask("DELETE /indexer/api/v1/index_report", &[], Some(&bad)).await;
    assert_eq!(got.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for() {
    let key = b"a key that both know".to_vec();
    let guarded =
        Settings { psk: Some(key.clone()), issuers: vec!["quay".to_owned()], ..settings() };
    let clair = Clair::new(guarded).await;
    let now_ms = clair.ground.engine.now_ms();
    let bearer = |key: &[u8], issuer: &str| {
        format!("Bearer {}", Psk::new(key).sign(issuer, now_ms, 300).unwrap())
    };
    let state = "GET /indexer/api/v1/index_state";
    for (given, status) in [
        (String::new(), 401),
        (bearer(&key, "quay"), 200),
        (bearer(&key, "clair-intraservice"), 200),
        (bearer(&key, "someone"), 401),
        (bearer(b"another key", "quay"), 401),
    ] {
        let got = clair.ask(state, &[("authorization", &given)], None).await;
        assert_eq!(got.status, status, "{given}");
    }
    assert_eq!(clair.ask("GET /openapi/v1", &[], None).await.status, 401);
    assert_eq!(clair.ask("GET /robots.txt", &[], None).await.status, 200);
    let closed = Clair::new(Settings { open: false, ..settings() }).await;
    assert_eq!(closed.ask(state, &[], None).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_as_asked() {
    let clair = Clair::new(settings()).await;
    let (hash, got) = clair.index("image").await;
    let path = format!("GET /indexer/api/v1/index_report/{hash}");
    for (accept, encoding) in
        [("gzip", "gzip"), ("deflate", "deflate"), ("zstd, gzip", "zstd"), ("identity", "")]
    {
        let answer = clair.ask(&path, &[("accept-encoding", accept)], None).await;
        assert_eq!(answer.header("content-encoding"), encoding, "{accept}");
        let mut plain = Vec::new();
        let body = &answer.body[..];
        match encoding {
            "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut plain).unwrap(),
            "deflate" => flate2::read::ZlibDecoder::new(body).read_to_end(&mut plain).unwrap(),
            "zstd" => zstd::Decoder::new(body).unwrap().read_to_end(&mut plain).unwrap(),
            _ => (&mut &*body).read_to_end(&mut plain).unwrap(),
        };
        assert_eq!(plain, got.body, "{accept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_and_their_differences_are_listed() {
    let clair = Clair::new(settings()).await;
    let operation = "GET /matcher/api/v1/internal/update_operation";
    assert_eq!(clair.ask(operation, &[], None).await.json(), json!({}));
    let clair = clair.with_advisories();
    let got = clair.ask(operation, &[], None).await;
    let tag = got.header("etag").to_owned();
    schema::check("update_operations", &got.json());
    let first = got.json()["debian"][0]["ref"].as_str().unwrap().to_owned();
    assert_eq!(got.json()["debian"].as_array().unwrap().len(), 1);
    assert!(got.json()["nvd"].is_null());
    assert_eq!(clair.ask(operation, &[("if-none-match", &tag)], None).await.status, 304);
    let enrichment = format!("{operation}?kind=enrichment");
    let got = clair.ask(&enrichment, &[], None).await.json();
    assert_eq!(got["nvd"][0]["kind"], "enrichment");

    let diff = "GET /matcher/api/v1/internal/update_diff";
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        let mut names: Vec<_> = list.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let got = clair.ask(&format!("{diff}?cur={first}"), &[], None).await.json();
    schema::check("update_diff", &json!({"cur": got["cur"], "added": got["added"], "removed": []}));
    assert_eq!(names(&got["added"]), ["CVE-2024-0001", "CVE-2024-0003"]);
    assert_eq!(got["removed"], json!([]));

    let previous = clair.ground.engine.database().unwrap();
    let next = clair.ground.database(
        Some(&previous),
        2,
        &[
            advisory("debian", "CVE-2024-0001", "openssl", "low"),
            advisory("debian", "CVE-2024-0003", "openssl", "unimportant"),
            advisory("debian", "CVE-2024-0004", "zlib", "low"),
        ],
    );
    clair.ground.engine.use_database(next);
    let got = clair.ask(operation, &[], None).await.json();
    assert_eq!(got["debian"][1]["ref"], json!(first));
    let second = got["debian"][0]["ref"].as_str().unwrap().to_owned();
    let got = clair.ask(&format!("{diff}?cur={second}&prev={first}"), &[], None).await.json();
    assert_eq!(names(&got["added"]), ["CVE-2024-0001", "CVE-2024-0004"]);
    assert_eq!(names(&got["removed"]), ["CVE-2024-0001"]);
    assert_eq!((&got["prev"]["ref"], &got["cur"]["ref"]), (&json!(first), &json!(second)));
    let got = clair.ask(&format!("{diff}?cur={first}"), &[], None).await;
    assert_eq!(got.status, 404);
    let latest = clair.ask(&format!("{operation}?latest=true"), &[], None).await.json();
    assert_eq!(latest["debian"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_a_vulnerability_concerns_are_found() {
    let clair = Clair::new(settings()).await.with_advisories();
    let (hash, _) = clair.index("image").await;
    let operations = clair.ask("GET /matcher/api/v1/internal/update_operation", &[], None).await;
    let mut all = Vec::new();
    for source in ["debian", "osv:npm"] {
        let current = operations.json()[source][0]["ref"].as_str().unwrap().to_owned();
        let path = format!("GET /matcher/api/v1/internal/update_diff?cur={current}");
        let diff = clair.ask(&path, &[], None).await.json();
        all.extend(diff["added"].as_array().unwrap().clone());
    }
    let debian = json!({"did": "debian", "version_id": "12"});
    let foreign = |id: &str, package: &str, fixed: &str| {
        json!({
            "id": id, "name": id, "normalized_severity": "Low", "fixed_in_version": fixed,
            "package": {"name": package}, "distribution": debian, "links": null,
        })
    };
    all.push(foreign("later", "adduser", "4"));
    all.push(foreign("earlier", "adduser", "2"));
    all.push(foreign("elsewhere", "bash", "99"));
    all.push(json!({"id": "homeless", "name": "x", "package": {"name": "y"}}));
    let body = json!({"vulnerabilities": all});
    for path in ["affected_manifest", "affected_manifest/"] {
        let what = format!("POST /indexer/api/v1/internal/{path}");
        let got = clair.ask(&what, &[], Some(&body)).await;
        assert_eq!(got.status, 200);
        let got = got.json();
        let ids = got["vulnerable_manifests"][hash.to_string()].as_array().unwrap().clone();
        let names: Vec<_> = ids
            .iter()
            .map(|id| got["vulnerabilities"][id.as_str().unwrap()]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["CVE-2024-0002", "CVE-2024-0001", "later", "CVE-2024-0003"]);
    }
    let bad = json!({"vulnerabilities": 7});
    let what = "POST /indexer/api/v1/internal/affected_manifest/";
    assert_eq!(clair.ask(what, &[], Some(&bad)).await.status, 400);
    let none = json!({"vulnerabilities": null});
    let got = clair.ask(what, &[], Some(&none)).await.json();
    assert_eq!(got, json!({"vulnerabilities": {}, "vulnerable_manifests": {}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_at_once_are_sent_away() {
    let clair = Clair::new(Settings { index_requests: 1, ..settings() }).await;
    // A layer that does not come keeps the only place.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = format!("http://{}", listener.local_addr().unwrap());
    let hash = Digest::sha256(b"slow");
    let slow = manifest(&source, &hash, &[Digest::sha256(b"x")]);
    let post = "POST /indexer/api/v1/index_report";
    let waiting = clair.ask(post, &[], Some(&slow));
    let other = async {
        let (_socket, _) = listener.accept().await.unwrap();
        clair.index("image").await.1
    };
    let got = tokio::select! {
        _ = waiting => panic!("the layer never comes"),
        got = other => got,
    };
    assert_eq!((got.status, got.json()["code"].as_str()), (429, Some("too-many-requests")));
}
