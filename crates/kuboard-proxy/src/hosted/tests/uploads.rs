//! Uploads: every way in, and every way to get it wrong.

use std::time::Duration;

use super::{
    Bench,
    script::{check, run},
};

#[tokio::test]
async fn in_one_piece() {
    check(
        r#"
        GET /v2/a/blobs/{hello} => 404 BLOB_UNKNOWN
        POST /v2/a/blobs/uploads/?digest={hello} "hello" => 201 docker-content-digest={hello} location=/v2/a/blobs/{hello}
        GET @ => 200 "hello" docker-content-digest={hello} content-length=5
        HEAD @ => 200 "" content-length=5 docker-content-digest={hello}

        POST /v2/a/blobs/uploads/ => 202 range=0-0
        PUT @?digest={there} "there" => 201 docker-content-digest={there}
        GET @ => 200 "there"

        POST /v2/a/blobs/uploads/?digest={} => 201 docker-content-digest={}
        GET @ => 200 "" content-length=0
        HEAD @ => 200 content-length=0
        "#,
    )
    .await;
}

#[tokio::test]
async fn sha512_is_as_good() {
    check(
        r#"
        POST /v2/a/blobs/uploads/?digest={512:hello} "hello" => 201 docker-content-digest={512:hello}
        GET @ => 200 "hello" docker-content-digest={512:hello}
        GET /v2/a/blobs/{hello} => 404 BLOB_UNKNOWN

        POST /v2/a/blobs/uploads/ => 202
        PUT @?digest={512:late} "late" => 201 docker-content-digest={512:late}

        POST /v2/a/blobs/uploads/ => 202
        PATCH @ "in " => 202 range=0-2
        PATCH @ "pieces" => 202 range=0-8
        PUT @?digest={512:in pieces} => 201 docker-content-digest={512:in pieces}
        GET @ => 200 "in pieces"

        POST /v2/a/blobs/uploads/?digest-algorithm=sha512 => 202
        PATCH @ "said" => 202
        PUT @?digest={512:said} => 201
        POST /v2/a/blobs/uploads/?digest-algorithm=sha512 => 202
        PUT @?digest={other} "other" => 201 docker-content-digest={other}
        POST /v2/a/blobs/uploads/?digest-algorithm=md5 => 400 DIGEST_INVALID
        "#,
    )
    .await;
}

#[tokio::test]
async fn in_chunks_and_as_a_stream() {
    check(
        r#"
        POST /v2/a/blobs/uploads/ => 202 range=0-0
        GET @ => 204 range=0-0
        PATCH @ [content-range: 0-4] [content-length: 5] "hello" => 202 range=0-4
        GET @ => 204 range=0-4
        PATCH @ [content-range: bytes 5-10/11] " world" => 202 range=0-10
        PUT @?digest={hello world} => 201
        GET @ => 200 "hello world"

        POST /v2/a/blobs/uploads/ => 202
        PATCH @ [content-range: 0-4] "hello" => 202
        PUT @?digest={hello there} [content-range: 5-10] " there" => 201
        GET @ => 200 "hello there"

        POST /v2/a/blobs/uploads/ => 202
        PATCH @ "a " => 202 range=0-1
        PATCH @ "stream" => 202 range=0-7
        PUT @?digest={a stream} [content-length: 0] [content-range: 0-7] => 201
        GET @ => 200 "a stream"
        "#,
    )
    .await;
}

#[tokio::test]
async fn out_of_order_is_416_and_recoverable() {
    check(
        r#"
        POST /v2/a/blobs/uploads/ => 202
        PATCH @ [content-range: 5-9] "world" => 416 BLOB_UPLOAD_INVALID range=0-0
        PATCH @ [content-range: 0-4] "hello" => 202 range=0-4
        PATCH @ [content-range: 0-4] "hello" => 416 range=0-4
        PATCH @ [content-range: 6-9] "orld" => 416 range=0-4
        PUT @?digest={helloworld} [content-range: 4-9] "oworld" => 416 range=0-4
        GET @ => 204 range=0-4
        PUT @?digest={helloworld} [content-range: 5-9] "world" => 201
        GET @ => 200 "helloworld"
        "#,
    )
    .await;
}

#[tokio::test]
async fn lengths_that_lie_are_refused() {
    check(
        r#"
        POST /v2/a/blobs/uploads/?digest={hello} [content-length: 9] "hello" => 400 SIZE_INVALID
        POST /v2/a/blobs/uploads/?digest={hello} [content-length: 3] "hello" => 400 SIZE_INVALID
        HEAD /v2/a/blobs/{hello} => 404

        POST /v2/a/blobs/uploads/ => 202
        PATCH @ [content-range: 0-4] [content-length: 3] "hel" => 400 SIZE_INVALID
        GET @ => 204 range=0-0
        PATCH @ [content-range: 0-9] "hello" => 400 SIZE_INVALID
        GET @ => 204 range=0-4
        PATCH @ [content-range: 5-7] "world" => 400 SIZE_INVALID
        GET @ => 204 range=0-4
        PATCH @ [content-range: 9-5] "x" => 400 BLOB_UPLOAD_INVALID
        PATCH @ [content-range: five] "x" => 400 BLOB_UPLOAD_INVALID
        PATCH @ [content-length: many] "x" => 400 BLOB_UPLOAD_INVALID
        PUT @?digest={hello} => 201
        "#,
    )
    .await;
}

#[tokio::test]
async fn wrong_digests_store_nothing() {
    check(
        r#"
        POST /v2/a/blobs/uploads/?digest={hello} "hallo" => 400 DIGEST_INVALID
        HEAD /v2/a/blobs/{hello} => 404
        HEAD /v2/a/blobs/{hallo} => 404
        POST /v2/a/blobs/uploads/?digest=sha256:12 "hello" => 400 DIGEST_INVALID
        POST /v2/a/blobs/uploads/?digest=md5:12 "hello" => 400 DIGEST_INVALID

        POST /v2/a/blobs/uploads/ => 202
        PATCH @ "hallo" => 202
        PUT @ => 400 DIGEST_INVALID
        PUT @?digest=nonsense => 400 DIGEST_INVALID
        GET @ => 204 range=0-4
        PUT @?digest={hello} => 400 DIGEST_INVALID
        GET @ => 404 BLOB_UPLOAD_UNKNOWN
        HEAD /v2/a/blobs/{hello} => 404
        GET /v2/a/tags/list => 404 NAME_UNKNOWN
        "#,
    )
    .await;
}

#[tokio::test]
async fn cancelled_unknown_and_foreign_sessions() {
    let bench = Bench::new().await;
    let location = run(
        &bench,
        r#"
        POST /v2/a/blobs/uploads/ => 202
        PATCH @ "hello" => 202
        DELETE @ => 204
        GET @ => 404 BLOB_UPLOAD_UNKNOWN
        PATCH @ "hello" => 404 BLOB_UPLOAD_UNKNOWN
        PUT @?digest={hello} "hello" => 404 BLOB_UPLOAD_UNKNOWN
        DELETE @ => 404 BLOB_UPLOAD_UNKNOWN
        GET /v2/a/blobs/uploads/not-ours => 404 BLOB_UPLOAD_UNKNOWN
        GET /v2/a/blobs/uploads/0123 => 404 BLOB_UPLOAD_UNKNOWN
        POST /v2/a/blobs/uploads/ => 202
        "#,
    )
    .await;
    let foreign = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(bench.ask("GET", &foreign, &[], b"").await.status, 404);
    assert_eq!(bench.ask("PATCH", &foreign, &[], b"x").await.status, 404);
    assert_eq!(bench.ask("DELETE", &foreign, &[], b"").await.status, 404);
    assert_eq!(bench.ask("GET", &location, &[], b"").await.status, 204);
}

#[tokio::test]
async fn sessions_survive_a_restart() {
    let bench = Bench::new().await;
    let location = run(
        &bench,
        r#"
        POST /v2/a/blobs/uploads/ => 202
        PATCH @ "hello" => 202 range=0-4
        "#,
    )
    .await;
    let bench = bench.restart().await;
    assert_eq!(bench.ask("GET", &location, &[], b"").await.header("range"), "0-4");
    let foreign = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(bench.ask("GET", &foreign, &[], b"").await.status, 404);
    let answer = bench.ask("PATCH", &location, &[("content-range", "5-9")], b"world").await;
    assert_eq!(answer.status, 202);
    let digest = kuboard_oci::Digest::sha256(b"helloworld");
    let bench = bench.restart().await;
    let answer = bench.ask("PUT", &format!("{location}?digest={digest}"), &[], b"").await;
    assert_eq!(answer.status, 201);
    let answer = bench.ask("GET", &format!("/v2/a/blobs/{digest}"), &[], b"").await;
    assert_eq!(answer.body, "helloworld");
}

#[tokio::test]
async fn many_resting_sessions_can_all_go_on() {
    let bench = Bench::new().await;
    let mut locations = Vec::new();
    for n in 0..300 {
        let location = run(&bench, "POST /v2/a/blobs/uploads/ => 202").await;
        let body = n.to_string();
        assert_eq!(bench.ask("PATCH", &location, &[], body.as_bytes()).await.status, 202);
        locations.push((location, body));
    }
    for (location, body) in locations {
        let digest = kuboard_oci::Digest::sha256(body.as_bytes());
        let answer = bench.ask("PUT", &format!("{location}?digest={digest}"), &[], b"").await;
        assert_eq!(answer.status, 201);
    }
}

#[tokio::test]
async fn old_sessions_are_swept_and_younger_ones_are_not() {
    let bench = Bench::new().await;
    // The spool keeps the file system's time, which is about now.
    use kuboard_rt::Clock;
    bench.clock.set(kuboard_rt::SystemClock.now_ms());
    let location = run(&bench, "POST /v2/a/blobs/uploads/ => 202\nPATCH @ \"hello\" => 202").await;
    assert_eq!(bench.collect().await.uploads, 0);
    bench.clock.advance(Duration::from_secs(23 * 3600));
    assert_eq!(bench.collect().await.uploads, 0);
    assert_eq!(bench.ask("GET", &location, &[], b"").await.header("range"), "0-4");
    bench.clock.advance(Duration::from_secs(2 * 3600));
    assert_eq!(bench.collect().await.uploads, 1);
    assert_eq!(bench.ask("GET", &location, &[], b"").await.code(), "BLOB_UPLOAD_UNKNOWN");
}
