//! Lists of tags and of referrers.

use kuboard_oci::{Digest, media_type};
use serde_json::{Value, json};

use super::{Bench, descriptor, digest_of, image, index};

#[tokio::test]
async fn tags_in_order_and_in_pages() {
    let bench = Bench::new().await;
    let missing = bench.ask("GET", "/v2/a/tags/list", &[], b"").await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "NAME_UNKNOWN"));
    for tag in ["b", "a", "B", "10", "9", "_"] {
        bench.push_image("a", tag, &["layer"]).await;
    }
    let check = async |query: &str, tags: &[&str], link: &str| {
        let answer = bench.ask("GET", &format!("/v2/a/tags/list{query}"), &[], b"").await;
        assert_eq!(answer.json(), json!({ "name": "a", "tags": tags }), "{query}");
        assert_eq!(answer.header("link"), link, "{query}");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    };
    check("", &["10", "9", "B", "_", "a", "b"], "").await;
    check("?n=2", &["10", "9"], "</v2/a/tags/list?n=2&last=9>; rel=\"next\"").await;
    check("?n=2&last=9", &["B", "_"], "</v2/a/tags/list?n=2&last=_>; rel=\"next\"").await;
    check("?n=2&last=_", &["a", "b"], "").await;
    check("?n=0", &[], "").await;
    check("?n=99999999999", &["10", "9", "B", "_", "a", "b"], "").await;
    check("?last=a", &["b"], "").await;
    check("?last=no-such-tag", &[], "").await;
    check("?last=zz", &[], "").await;
    for n in ["-1", "x", "1.5"] {
        let answer = bench.ask("GET", &format!("/v2/a/tags/list?n={n}"), &[], b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "PAGINATION_NUMBER_INVALID"));
    }
    for tag in ["b", "a", "B", "10", "9", "_"] {
        bench.ask("DELETE", &format!("/v2/a/manifests/{tag}"), &[], b"").await;
    }
    check("", &[], "").await;
}

async fn referrers(bench: &Bench, subject: &Digest, query: &str) -> (Vec<Value>, String) {
    let answer = bench.ask("GET", &format!("/v2/a/referrers/{subject}{query}"), &[], b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), media_type::OCI_INDEX);
    let body = answer.json();
    assert_eq!(
        (&body["mediaType"], &body["schemaVersion"]),
        (&json!(media_type::OCI_INDEX), &json!(2))
    );
    (body["manifests"].as_array().unwrap().clone(), answer.header("oci-filters-applied"))
}

fn about(subject: &Value, kind: Option<&str>) -> Value {
    let mut manifest = image(&[]);
    manifest["subject"] = descriptor(subject);
    if let Some(kind) = kind {
        manifest["artifactType"] = json!(kind);
        manifest["annotations"] = json!({ "by": kind });
    }
    manifest
}

#[tokio::test]
async fn referrers_of_all_kinds() {
    let bench = Bench::new().await;
    let subject = image(&["layer"]);
    let digest = digest_of(&subject);
    assert_eq!(referrers(&bench, &digest, "").await, (vec![], String::new()));

    bench.push_image("a", "v", &["layer"]).await;
    let (plain, signature) = (about(&subject, None), about(&subject, Some("x/sig")));
    let mut sealed = index(&[]);
    sealed["subject"] = descriptor(&subject);
    sealed["artifactType"] = json!("x/seal");
    for manifest in [&plain, &signature, &sealed] {
        let reference = digest_of(manifest).to_string();
        assert_eq!(bench.push_manifest("a", &reference, manifest).await.status, 201);
    }
    let entry = |manifest: &Value, kind: &str| {
        let mut entry = descriptor(manifest);
        entry["artifactType"] = json!(kind);
        if manifest["annotations"].is_object() {
            entry["annotations"] = manifest["annotations"].clone();
        }
        entry
    };
    let (listed, filters) = referrers(&bench, &digest, "").await;
    let expected = [
        entry(&plain, media_type::OCI_CONFIG),
        entry(&signature, "x/sig"),
        entry(&sealed, "x/seal"),
    ];
    assert_eq!((listed.len(), filters.as_str()), (3, ""));
    for entry in &expected {
        assert!(listed.contains(entry), "{entry} is not in {listed:?}");
    }
    let filtered = referrers(&bench, &digest, "?artifactType=x%2Fsig").await;
    assert_eq!(filtered, (vec![expected[1].clone()], "artifactType".to_owned()));
    let none = referrers(&bench, &digest, "?artifactType=x/none").await;
    assert_eq!(none, (vec![], "artifactType".to_owned()));
    // Another repository has its own.
    let other = bench.ask("GET", &format!("/v2/b/referrers/{digest}"), &[], b"").await;
    assert_eq!(other.json()["manifests"], json!([]));

    bench.ask("DELETE", &format!("/v2/a/manifests/{}", digest_of(&signature)), &[], b"").await;
    assert_eq!(referrers(&bench, &digest, "").await.0.len(), 2);
}

/// A client from before the referrers API keeps its own list under a tag.
#[tokio::test]
async fn the_fallback_tag_is_honoured() {
    let bench = Bench::new().await;
    let subject = image(&["layer"]);
    let digest = digest_of(&subject);
    bench.push_image("a", "v", &["layer"]).await;
    // One with a subject, which is listed anyway, and one without.
    let (with, mut without) = (about(&subject, Some("x/sig")), image(&[]));
    without["annotations"] = json!({ "old": "client" });
    for manifest in [&with, &without] {
        let reference = digest_of(manifest).to_string();
        assert_eq!(bench.push_manifest("a", &reference, manifest).await.status, 201);
    }
    let mut list = index(&[&with, &without]);
    list["manifests"][1]["artifactType"] = json!("x/old");
    let tag = kuboard_oci::referrers_tag(&digest);
    assert_eq!(bench.push_manifest("a", tag.as_str(), &list).await.status, 201);

    let digests = |listed: Vec<Value>| -> Vec<Value> {
        listed.into_iter().map(|entry| entry["digest"].clone()).collect()
    };
    let (listed, _) = referrers(&bench, &digest, "").await;
    assert_eq!(digests(listed), [json!(digest_of(&with)), json!(digest_of(&without))]);
    let (listed, _) = referrers(&bench, &digest, "?artifactType=x/old").await;
    assert_eq!(digests(listed), [json!(digest_of(&without))]);
    bench.ask("DELETE", &format!("/v2/a/manifests/{}", digest_of(&without)), &[], b"").await;
    let (listed, _) = referrers(&bench, &digest, "").await;
    assert_eq!(digests(listed), [json!(digest_of(&with))]);
}
