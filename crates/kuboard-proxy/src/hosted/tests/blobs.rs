//! Blobs: read whole and in part, mounted, deleted.

use bytes::Bytes;
use kuboard_oci::Digest;

use super::{
    Bench,
    script::{check, run},
};

#[tokio::test]
async fn ranges_and_conditions() {
    check(
        r#"
        POST /v2/a/blobs/uploads/?digest={0123456789} "0123456789" => 201
        GET @ [range: bytes=2-4] => 206 "234" content-range=bytes_2-4/10 content-length=3
        GET @ [range: bytes=-3] => 206 "789" content-range=bytes_7-9/10
        GET @ [range: bytes=8-99] => 206 "89" content-range=bytes_8-9/10
        GET @ [range: bytes=10-] => 416 RANGE_INVALID content-range=bytes_*/10
        GET @ [range: bytes=5-0] => 416 RANGE_INVALID
        GET @ [range: lines=5-9] => 200 "0123456789"
        GET @ [range: bytes=2-4] [if-range: "other"] => 200 "0123456789"
        GET @ [range: bytes=2-4] [if-range: "{0123456789}"] => 206 "234"
        GET @ [if-none-match: "{0123456789}"] => 304 ""
        GET @ [if-none-match: "other"] => 200 "0123456789"
        "#,
    )
    .await;
}

#[tokio::test]
async fn deleted_at_once_and_only_here() {
    check(
        r#"
        POST /v2/a/blobs/uploads/?digest={hello} "hello" => 201
        POST /v2/b/blobs/uploads/?digest={hello} "hello" => 201
        GET /v2/a/blobs/{hello} => 200
        DELETE /v2/a/blobs/{hello} => 202
        GET /v2/a/blobs/{hello} => 404 BLOB_UNKNOWN
        HEAD /v2/a/blobs/{hello} => 404
        DELETE /v2/a/blobs/{hello} => 404 BLOB_UNKNOWN
        GET /v2/b/blobs/{hello} => 200 "hello"
        DELETE /v2/c/blobs/{hello} => 404 BLOB_UNKNOWN
        POST /v2/a/blobs/uploads/?digest={hello} "hello" => 201
        GET /v2/a/blobs/{hello} => 200 "hello"
        "#,
    )
    .await;
}

#[tokio::test]
async fn mounts() {
    let mut bench = Bench::new().await;
    bench.mounts.unreadable = vec!["secret", "docker.io/secret"];
    for repository in ["docker.io/library/x", "docker.io/secret"] {
        let bytes = Bytes::from_static(b"cached");
        bench.mounts.cached.insert((repository, Digest::sha256(&bytes)), bytes);
    }
    let wrong = Bytes::from_static(b"not what it says");
    bench.mounts.cached.insert(("docker.io/library/x", Digest::sha256(b"liar")), wrong);
    run(
        &bench,
        r#"
        POST /v2/a/blobs/uploads/?digest={hello} "hello" => 201
        POST /v2/b/blobs/uploads/?mount={hello}&from=a => 201 docker-content-digest={hello} location=/v2/b/blobs/{hello}
        GET @ => 200 "hello"
        POST /v2/c/blobs/uploads/?mount={hello} => 201
        GET @ => 200 "hello"
        POST /v2/c/blobs/uploads/?mount={hello}&from=nowhere => 201

        POST /v2/b/blobs/uploads/?mount={missing}&from=a => 202 range=0-0
        PUT @?digest={missing} "missing" => 201
        POST /v2/b/blobs/uploads/?mount={absent} => 202
        POST /v2/b/blobs/uploads/?mount={absent}&from=NO/name => 202
        POST /v2/b/blobs/uploads/?mount=sha256:1&from=a => 400 DIGEST_INVALID

        POST /v2/secret/blobs/uploads/?digest={word} "word" => 201
        POST /v2/b/blobs/uploads/?mount={word}&from=secret => 202
        POST /v2/b/blobs/uploads/?mount={word} => 202
        HEAD /v2/b/blobs/{word} => 404

        POST /v2/b/blobs/uploads/?mount={cached}&from=docker.io/secret => 202
        POST /v2/b/blobs/uploads/?mount={liar}&from=docker.io/library/x => 202
        HEAD /v2/b/blobs/{liar} => 404
        POST /v2/b/blobs/uploads/?mount={cached}&from=docker.io/library/x => 201
        GET @ => 200 "cached"
        "#,
    )
    .await;
}

/// A push that died between listing and publishing leaves a listing without bytes.
#[tokio::test]
async fn listed_without_bytes_is_not_there() {
    let bench = Bench::new().await;
    let digest = Digest::sha256(b"hello");
    let kind = kuboard_catalog::Kind::Hosted;
    bench.catalog.put_blob("a", kind, &digest, 5, super::NOW + 900_000).await.unwrap();
    run(
        &bench,
        r#"
        HEAD /v2/a/blobs/{hello} => 404
        GET /v2/a/blobs/{hello} => 404 BLOB_UNKNOWN
        POST /v2/b/blobs/uploads/?mount={hello}&from=a => 202
        POST /v2/b/blobs/uploads/?mount={hello} => 202
        POST /v2/a/blobs/uploads/?digest={hello} "hello" => 201
        GET /v2/a/blobs/{hello} => 200 "hello"
        "#,
    )
    .await;
}

#[tokio::test]
async fn other_methods() {
    check(
        r#"
        PUT /v2/a/blobs/{hello} "hello" => 405 UNSUPPORTED allow=GET,_HEAD,_DELETE
        GET /v2/a/blobs/uploads/ => 405 UNSUPPORTED allow=POST
        POST /v2/a/manifests/latest => 405 UNSUPPORTED
        POST /v2/a/tags/list => 405 UNSUPPORTED
        "#,
    )
    .await;
}
