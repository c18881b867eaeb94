//! Manifests: what is taken, what is refused, what is served.

use kuboard_oci::{Algorithm, Digest, MAX_MANIFEST_BYTES, media_type};
use serde_json::json;

use super::{Bench, blob, descriptor, digest_of, image, index};

#[tokio::test]
async fn served_verbatim_by_tag_and_digest() {
    for bench in [Bench::new().await, Bench::sharing().await] {
        bench.push_blob("a", b"{}").await;
        // Odd spacing, an unknown field: the bytes are the client's.
        let text = format!(
            "{{ \"schemaVersion\": 2,\n\"x\": [1.50],  \"mediaType\":\"{}\", \"config\": {}, \
             \"layers\": [] }}\n",
            media_type::OCI_MANIFEST,
            blob(media_type::OCI_CONFIG, "{}"),
        );
        let digest = Digest::sha256(text.as_bytes());
        let kind = [("content-type", media_type::OCI_MANIFEST)];
        let answer = bench.ask("PUT", "/v2/a/manifests/v1", &kind, text.as_bytes()).await;
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(answer.header("location"), format!("/v2/a/manifests/{digest}"));
        for reference in ["v1", "v1", &digest.to_string()] {
            let uri = format!("/v2/a/manifests/{reference}");
            let got = bench.ask("GET", &uri, &[], b"").await;
            assert_eq!((got.status, got.body.as_ref()), (200, text.as_bytes()));
            let head = bench.ask("HEAD", &uri, &[], b"").await;
            assert_eq!((head.status, head.body.len()), (200, 0));
            for answer in [&got, &head] {
                assert_eq!(answer.header("content-type"), media_type::OCI_MANIFEST);
                assert_eq!(answer.header("content-length"), text.len().to_string());
                assert_eq!(answer.header("docker-content-digest"), digest.to_string());
            }
            let etag = [("if-none-match", got.headers["etag"].to_str().unwrap())];
            assert_eq!(bench.ask("GET", &uri, &etag, b"").await.status, 304);
        }
    }
}

#[tokio::test]
async fn tags_move_and_go_at_once() {
    for bench in [Bench::new().await, Bench::sharing().await] {
        let one = bench.push_image("a", "v", &["one"]).await;
        let digest = |answer: super::Answer| answer.header("docker-content-digest");
        let get = async || bench.ask("GET", "/v2/a/manifests/v", &[], b"").await;
        assert_eq!(digest(get().await), one.to_string());
        let two = bench.push_image("a", "v", &["two"]).await;
        assert_eq!(digest(get().await), two.to_string());
        assert_eq!(bench.ask("DELETE", "/v2/a/manifests/v", &[], b"").await.status, 202);
        assert_eq!(get().await.code(), "MANIFEST_UNKNOWN");
        assert_eq!(bench.ask("DELETE", "/v2/a/manifests/v", &[], b"").await.status, 404);
        let uri = format!("/v2/a/manifests/{two}");
        assert_eq!(bench.head(&uri).await, 200);

        bench.push_image("a", "v", &["two"]).await;
        assert_eq!(get().await.status, 200);
        assert_eq!(bench.ask("DELETE", &uri, &[], b"").await.status, 202);
        assert_eq!(bench.head(&uri).await, 404);
        assert_eq!(get().await.code(), "MANIFEST_UNKNOWN");
        assert_eq!(bench.ask("DELETE", &uri, &[], b"").await.code(), "MANIFEST_UNKNOWN");
        // The manifest of the other image is untouched.
        assert_eq!(bench.head(&format!("/v2/a/manifests/{one}")).await, 200);
    }
}

#[tokio::test]
async fn sha512_and_tag_parameters() {
    let bench = Bench::new().await;
    bench.push_blob("a", b"{}").await;
    let bytes = serde_json::to_vec(&image(&[])).unwrap();
    let digest = Digest::of(Algorithm::Sha512, &bytes);
    let uri = format!("/v2/a/manifests/{digest}?tag=one&tag=two&tag=one");
    let kind = [("content-type", media_type::OCI_MANIFEST)];
    let answer = bench.ask("PUT", &uri, &kind, &bytes).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    assert_eq!(answer.header("oci-tag"), "one,two");
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    for tag in ["one", "two"] {
        let answer = bench.ask("GET", &format!("/v2/a/manifests/{tag}"), &[], b"").await;
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(answer.body, bytes);
    }
    // The same bytes under their other digest are another manifest.
    assert_eq!(bench.head(&format!("/v2/a/manifests/{}", Digest::sha256(&bytes))).await, 404);
    let check = async |query: &str, status: u16, code: &str| {
        let uri = format!("/v2/a/manifests/{digest}?{query}");
        let answer = bench.ask("PUT", &uri, &kind, &bytes).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{query}");
    };
    check("tag=-no", 400, "TAG_INVALID").await;
    check("tag=", 400, "TAG_INVALID").await;
    let many: Vec<String> = (0..100).map(|n| format!("tag=t{n}")).collect();
    check(&many.join("&"), 201, "").await;
}

#[tokio::test]
async fn refused_manifests() {
    let bench = Bench::new().await;
    bench.push_blob("a", b"{}").await;
    let good = serde_json::to_vec(&image(&[])).unwrap();
    let other = Digest::sha256(b"other");
    let long = vec![b' '; MAX_MANIFEST_BYTES + 1];
    let kind = media_type::OCI_MANIFEST;
    let by_other = other.to_string();
    let cases: [(&str, &str, &[u8], u16, &str); 9] = [
        (&by_other, kind, &good, 400, "DIGEST_INVALID"),
        ("sha256:bad", kind, &good, 400, "DIGEST_INVALID"),
        ("v", kind, b"", 400, "MANIFEST_INVALID"),
        ("v", kind, b"{", 400, "MANIFEST_INVALID"),
        ("v", media_type::OCI_INDEX, &good, 400, "MANIFEST_INVALID"),
        ("v", "text/html", &good, 400, "MANIFEST_INVALID"),
        ("v", media_type::DOCKER_SCHEMA1, &good, 400, "MANIFEST_INVALID"),
        ("v", kind, &long, 413, "MANIFEST_INVALID"),
        ("-v", kind, &good, 400, "TAG_INVALID"),
    ];
    for (reference, kind, bytes, status, code) in cases {
        let uri = format!("/v2/a/manifests/{reference}");
        let answer = bench.ask("PUT", &uri, &[("content-type", kind)], bytes).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{reference} {kind}");
    }
    let lying = [("content-type", kind), ("content-length", "7")];
    let answer = bench.ask("PUT", "/v2/a/manifests/v", &lying, &good).await;
    assert_eq!(answer.code(), "SIZE_INVALID");
    let lying = [("content-type", kind), ("content-length", "99999999")];
    let answer = bench.ask("PUT", "/v2/a/manifests/v", &lying, &good).await;
    assert_eq!(answer.status, 413);
    assert_eq!(bench.head("/v2/a/manifests/v").await, 404);
}

#[tokio::test]
async fn large_manifests_up_to_the_limit() {
    let bench = Bench::new().await;
    bench.push_blob("a", b"{}").await;
    let mut manifest = image(&[]);
    for n in 0..390 {
        manifest["annotations"][format!("n{n}")] = json!("A".repeat(10_000));
    }
    let answer = bench.push_manifest("a", "large", &manifest).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    let got = bench.ask("GET", "/v2/a/manifests/large", &[], b"").await;
    assert_eq!(Digest::sha256(&got.body), digest_of(&manifest));
}

#[tokio::test]
async fn everything_a_manifest_points_at_must_be_here() {
    let bench = Bench::new().await;
    bench.push_blob("a", b"{}").await;
    // Content of another repository does not count.
    bench.push_image("b", "v", &["layer"]).await;
    let manifest = image(&["layer", "absent"]);
    let answer = bench.push_manifest("a", "v", &manifest).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    let detail = &answer.json()["errors"][0]["detail"];
    let listed: Vec<_> = detail.as_array().unwrap().iter().map(|it| it["digest"].clone()).collect();
    assert!(listed.contains(&json!(Digest::sha256(b"absent"))), "{listed:?}");
    assert_eq!(bench.head("/v2/a/manifests/v").await, 404);
    assert_eq!(bench.head(&format!("/v2/a/manifests/{}", digest_of(&manifest))).await, 404);

    let child = image(&["layer"]);
    let answer = bench.push_manifest("a", "i", &index(&[&child])).await;
    assert_eq!(answer.code(), "MANIFEST_BLOB_UNKNOWN");
    bench.push_image("a", "v", &["layer"]).await;
    assert_eq!(bench.push_manifest("a", "i", &index(&[&child])).await.status, 201);
    // Of indexes in indexes, and of nothing at all.
    assert_eq!(bench.push_manifest("a", "ii", &index(&[&index(&[&child])])).await.status, 201);
    assert_eq!(bench.push_manifest("a", "empty", &index(&[])).await.status, 201);
}

#[tokio::test]
async fn layers_that_live_elsewhere_may_be_absent() {
    let bench = Bench::new().await;
    bench.push_blob("a", b"{}").await;
    let mut manifest = image(&["elsewhere", "foreign", "here"]);
    manifest["layers"][0]["urls"] = json!(["https://example.com/layer"]);
    manifest["layers"][1]["mediaType"] = json!(media_type::DOCKER_FOREIGN_LAYER);
    assert_eq!(bench.push_manifest("a", "v", &manifest).await.code(), "MANIFEST_BLOB_UNKNOWN");
    bench.push_blob("a", b"here").await;
    bench.push_blob("a", b"foreign").await;
    assert_eq!(bench.push_manifest("a", "v", &manifest).await.status, 201);
    // What was pushed all the same is kept as long as the manifest.
    bench.collect_later().await;
    assert_eq!(bench.head(&format!("/v2/a/blobs/{}", Digest::sha256(b"foreign"))).await, 200);
}

#[tokio::test]
async fn an_index_may_list_blobs() {
    let bench = Bench::new().await;
    let mut list = index(&[]);
    list["manifests"] = json!([blob("application/x-model", "weights")]);
    assert_eq!(bench.push_manifest("a", "v", &list).await.code(), "MANIFEST_BLOB_UNKNOWN");
    bench.push_blob("a", b"weights").await;
    assert_eq!(bench.push_manifest("a", "v", &list).await.status, 201);
    bench.collect_later().await;
    assert_eq!(bench.head(&format!("/v2/a/blobs/{}", Digest::sha256(b"weights"))).await, 200);
}

#[tokio::test]
async fn subjects_are_repeated_whether_they_exist_or_not() {
    let bench = Bench::new().await;
    bench.push_blob("a", b"{}").await;
    let mut manifest = image(&[]);
    let subject = image(&["nowhere"]);
    manifest["subject"] = descriptor(&subject);
    let answer = bench.push_manifest("a", "sig", &manifest).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("oci-subject"), digest_of(&subject).to_string());
}

/// Manifest bytes that the store lost are an error, never "not found".
#[tokio::test]
async fn lost_bytes_are_an_error() {
    let bench = Bench::new().await;
    let digest = bench.push_image("a", "v", &["layer"]).await;
    bench.store.remove(&digest).await.unwrap();
    let answer = bench.ask("GET", "/v2/a/manifests/v", &[], b"").await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "UNKNOWN"));
}

#[tokio::test]
async fn writes_void_what_memory_holds() {
    let bench = Bench::new().await;
    let repository = super::name("a");
    bench.push_image("a", "v", &["one"]).await;
    let tag: kuboard_oci::Tag = "v".parse().unwrap();
    let known = || bench.hosted.known.tag(&repository, &tag);
    assert_eq!(known(), None, "a write leaves nothing behind");
    bench.ask("GET", "/v2/a/manifests/v", &[], b"").await;
    assert!(known().is_some());
    bench.push_image("a", "v", &["two"]).await;
    assert_eq!(known(), None);
}
