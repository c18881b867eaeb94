//! A real S3 server on loopback: versitygw over a folder.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use crate::process::Process;
use crate::tool;

/// The running server, with one empty bucket. Dropping it ends it and removes the folder.
pub struct ObjectServer {
    port: u16,
    /// Its process.
    pub process: Process,
    folder: TempDir,
}

impl ObjectServer {
    /// The bucket that is there.
    pub const BUCKET: &'static str = "kuboard";
    /// The access key id that it takes.
    pub const ACCESS_KEY: &'static str = "test-access";
    /// The secret of that key.
    pub const SECRET_KEY: &'static str = "test-secret-key";
    /// The region that it signs for.
    pub const REGION: &'static str = "us-east-1";

    /// Starts on a free port of loopback and waits until it listens.
    pub fn start() -> Result<ObjectServer> {
        let folder = tool::folder("s3")?;
        let root = folder.path().join("root");
        fs::create_dir_all(root.join(Self::BUCKET))?;
        // Beside the objects, since not every file system has extended attributes.
        let sidecar = folder.path().join("metadata");
        fs::create_dir_all(&sidecar)?;
        let port = tool::free_port()?;
        let mut command = tool::command("versitygw")?;
        command
            .args(["--port", &format!("127.0.0.1:{port}"), "--region", Self::REGION, "--quiet"])
            .args(["posix", "--sidecar"])
            .arg(&sidecar)
            .arg(&root)
            .env("ROOT_ACCESS_KEY", Self::ACCESS_KEY)
            .env("ROOT_SECRET_KEY", Self::SECRET_KEY);
        let mut process =
            Process::start("versitygw", &mut command, &folder.path().join("versitygw.log"))?;
        process.wait_ready(Duration::from_secs(20), || {
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        Ok(ObjectServer { port, process, folder })
    }

    /// `http://host:port`, without the bucket.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The folder that holds the bucket's objects as files.
    pub fn bucket_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("root").join(Self::BUCKET)
    }
}

#[cfg(test)]
mod tests {
    use super::ObjectServer;
    use crate::tool;
    use kuboard_oci::Digest;

    #[test]
    fn it_keeps_an_object_in_its_bucket() {
        let server = ObjectServer::start().unwrap();
        let mut put = tool::command("curl").unwrap();
        put.args(["--silent", "--show-error", "--fail", "-X", "PUT", "--data-binary", "hello"])
            .args(["--user", &format!("{}:{}", ObjectServer::ACCESS_KEY, ObjectServer::SECRET_KEY)])
            .args(["--aws-sigv4", &format!("aws:amz:{}:s3", ObjectServer::REGION)])
            // Older curls do not send it of their own.
            .args([
                "--header",
                &format!("x-amz-content-sha256: {}", Digest::sha256(b"hello").hex()),
            ])
            .arg(format!("{}/{}/folder/object", server.endpoint(), ObjectServer::BUCKET));
        tool::output(&mut put).unwrap();
        let kept = std::fs::read(server.bucket_folder().join("folder/object")).unwrap();
        assert_eq!(kept, b"hello");
    }
}
