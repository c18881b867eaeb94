//! The object store against a real S3 server: versitygw over a folder, on loopback.
//!
//! The test command installs it; where it is missing these tests fail, they are not skipped.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use kuboard_oci::{Algorithm, Digest};
use kuboard_rt::Tasks;
use kuboard_store::{
    BlobStore, ErrorKind, FsckOptions, ObjectConfig, ObjectStore, conformance, fsck,
    object_store_from,
};
use tempfile::TempDir;

use crate::place;

const BUCKET: &str = "kuboard";

struct Gateway {
    child: Child,
    port: u16,
    dir: TempDir,
}

fn binary() -> PathBuf {
    let tools = env::var_os("KUBOARD_TOOLS").map(PathBuf::from).or_else(|| {
        env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/kuboard/tools"))
    });
    let binary = tools.unwrap_or_default().join("bin/versitygw");
    let hint = "`cargo xtask test` installs it";
    assert!(binary.is_file(), "{} is missing\nhint: {hint}", binary.display());
    binary
}

impl Gateway {
    fn start() -> Gateway {
        Gateway::start_with(&[])
    }

    fn start_with(options: &[&str]) -> Gateway {
        let binary = binary();
        let dir = tempfile::tempdir().unwrap();
        // A folder of the root is a bucket.
        fs::create_dir_all(dir.path().join("root").join(BUCKET)).unwrap();
        fs::create_dir(dir.path().join("meta")).unwrap();
        // Somebody else may take the free port before the server does.
        for _ in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = port.local_addr().unwrap().port();
            let mut child = Command::new(&binary)
                .args(["--port", &format!("127.0.0.1:{port}"), "--quiet"])
                .args(["--access", "test", "--secret", "testsecret"])
                .args(options)
                // The sidecar keeps the metadata where the file system has no attributes.
                .arg("posix")
                .arg("--sidecar")
                .arg(dir.path().join("meta"))
                .arg(dir.path().join("root"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            for _ in 0..600 {
                if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                    return Gateway { child, port, dir };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("versitygw does not listen");
    }

    fn config(&self) -> ObjectConfig {
        ObjectConfig {
            url: format!("s3://{BUCKET}/some/prefix"),
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            access_key_id: Some("test".to_owned()),
            secret_access_key: Some("testsecret".to_owned()),
            allow_http: true,
            ..ObjectConfig::default()
        }
    }

    fn store(&self) -> ObjectStore {
        object_store_from(self.config(), Tasks::default()).unwrap()
    }
}

impl Gateway {
    /// Uploads that were begun and neither completed nor aborted.
    fn leftovers(&self) -> Vec<PathBuf> {
        let inside = |folder: &PathBuf| -> Vec<PathBuf> {
            // There is none before the first upload.
            let items = fs::read_dir(folder).into_iter().flatten();
            items.map(|item| item.unwrap().path()).collect()
        };
        // A folder an object, and in it a folder an upload.
        let root = self.dir.path().join("root").join(BUCKET).join(".sgwtmp/multipart");
        inside(&root).iter().flat_map(inside).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let gateway = Gateway::start();
    let (_dir, spool) = place();
    conformance::check(Arc::new(gateway.store()), &spool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_objects_lie_where_the_layout_says_and_are_checked() {
    let gateway = Gateway::start();
    let (_dir, spool) = place();
    let store = gateway.store();
    let bytes = conformance::sample(1, (9 << 20) + 1);
    let verified = conformance::verified(&spool, &bytes, Algorithm::Sha256).await.unwrap();
    let digest = verified.digest();
    store.publish(verified).await.unwrap();
    let hex = digest.hex();
    let blobs = gateway.dir.path().join("root").join(BUCKET).join("some/prefix/blobs");
    let path = blobs.join("sha256").join(&hex[..2]).join(&hex);
    assert_eq!(fs::read(&path).unwrap(), bytes, "all parts, in order");
    fs::write(blobs.join("stranger"), "x").unwrap();
    let mut damaged = bytes.to_vec();
    damaged[8 << 20] ^= 1;
    fs::write(&path, damaged).unwrap();
    let report = fsck(&store, FsckOptions::default(), |_| {}).await.unwrap();
    assert_eq!(report.foreign, ["stranger"]);
    assert_eq!(report.corrupt.iter().map(|p| p.digest).collect::<Vec<_>>(), [digest]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_s3_upload_leaves_no_parts() {
    // The second part is refused.
    let gateway = Gateway::start_with(&["--mp-max-parts", "1"]);
    let (_dir, spool) = place();
    let store = gateway.store();
    let bytes = conformance::sample(2, 40 << 20);
    let verified = conformance::verified(&spool, &bytes, Algorithm::Sha256).await.unwrap();
    let digest = verified.digest();
    let error = store.publish(verified).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Backend, "{error:?}");
    assert_eq!(store.stat(&digest).await.unwrap(), None);
    assert_eq!(gateway.leftovers(), [] as [PathBuf; 0]);
    assert_eq!(spool.names().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_upload_survives_its_caller() {
    let gateway = Gateway::start();
    let (_dir, spool) = place();
    let tasks = Tasks::default();
    let store = object_store_from(gateway.config(), tasks.clone()).unwrap();
    let bytes = conformance::sample(3, 20 << 20);
    let verified = conformance::verified(&spool, &bytes, Algorithm::Sha256).await.unwrap();
    let digest = verified.digest();
    drop(store.publish(verified));
    tasks.drain(Duration::from_secs(60)).await;
    assert_eq!(store.stat(&digest).await.unwrap(), Some(20 << 20));
    assert_eq!(gateway.leftovers(), [] as [PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_errors_are_errors_and_never_absence() {
    let gateway = Gateway::start();
    let digest = Digest::sha256(b"x");
    let wrong = ObjectConfig { secret_access_key: Some("wrong".into()), ..gateway.config() };
    let store = object_store_from(wrong, Tasks::default()).unwrap();
    let error = store.stat(&digest).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (&ErrorKind::Backend, false), "{error:?}");
    let (_dir, spool) = place();
    let verified =
        conformance::verified(&spool, &Bytes::from_static(b"x"), Algorithm::Sha256).await.unwrap();
    assert!(store.publish(verified).await.is_err());
    assert_eq!(spool.names().await.unwrap(), [], "the file is gone either way");
}
