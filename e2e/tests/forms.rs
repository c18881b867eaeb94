//! The clustered form is the same product: with PostgreSQL and an S3 store it passes the same
//! suite, and two processes over them are one registry.

use anyhow::{Result, ensure};
use e2e::conformance::Suite;
use kuboard_testkit::kuboard::Builder;
use kuboard_testkit::object_store::ObjectServer;
use kuboard_testkit::postgres::Postgres;
use kuboard_testkit::{FakeUpstream, Image, Kuboard, tool};
use tempfile::TempDir;

/// The servers behind the product; either may be absent.
struct Form {
    postgres: Option<Postgres>,
    objects: Option<ObjectServer>,
    folder: TempDir,
}

impl Form {
    fn build(postgres: bool, objects: bool) -> Result<Form> {
        Ok(Form {
            postgres: if postgres { Some(Postgres::start()?) } else { None },
            objects: if objects { Some(ObjectServer::start()?) } else { None },
            folder: tool::folder("form")?,
        })
    }

    /// The lines of the configuration that name the servers.
    fn settings(&self) -> Result<String> {
        let mut settings = String::new();
        if let Some(postgres) = &self.postgres {
            settings.push_str(&format!("[catalog]\nurl = {:?}\n", postgres.database()?));
        }
        if let Some(objects) = &self.objects {
            let secret = self.folder.path().join("secret");
            std::fs::write(&secret, ObjectServer::SECRET_KEY)?;
            settings.push_str(&format!(
                "[storage]\nurl = \"s3://{}/registry\"\nendpoint = \"{}\"\nregion = \"{}\"\n\
                 accessKeyId = \"{}\"\nsecretAccessKeyFile = {secret:?}\nallowHttp = true\n",
                ObjectServer::BUCKET,
                objects.endpoint(),
                ObjectServer::REGION,
                ObjectServer::ACCESS_KEY,
            ));
        }
        Ok(settings)
    }
}

fn with(settings: &str) -> Builder {
    Kuboard::builder().config(settings)
}

/// The suite at both versions, then pushes and pulls, hosted and through the proxy, over a restart.
fn passes(name: &str, postgres: bool, objects: bool) -> Result<()> {
    let form = Form::build(postgres, objects)?;
    let settings = form.settings()?;
    let upstream = FakeUpstream::start()?;
    let cached = Image::multi_platform(1, &[3 << 20, 1000])?;
    upstream.put("team/app", "v1", &cached);
    let data = form.folder.path().join("data");
    let start = || with(&settings).upstream("up.test", &upstream.url()).data_dir(&data).start();
    let hosted = Image::multi_platform(3, &[20 << 20, 1000])?;
    let mut kuboard = start()?;
    for version in ["1.1", "dev"] {
        Suite::new(&format!("hosted, {name}"), version, kuboard.address()).run()?;
    }
    kuboard.client().push("team/app", "v1", &hosted)?;
    ensure!(kuboard.client().pull("team/app", "v1")?.digest == hosted.digest);
    ensure!(kuboard.client().pull("up.test/team/app", "v1")?.digest == cached.digest);
    let status = kuboard.terminate()?;
    ensure!(status.success(), "stop: {status}");
    let kuboard = start()?;
    ensure!(kuboard.client().pull("team/app", "v1")?.digest == hosted.digest);
    drop(upstream);
    ensure!(kuboard.client().pull("up.test/team/app", "v1")?.digest == cached.digest);
    Ok(())
}

#[test]
fn postgresql_and_disk() -> Result<()> {
    passes("PostgreSQL", true, false)
}

#[test]
fn sqlite_and_s3() -> Result<()> {
    passes("S3 (versitygw)", false, true)
}

#[test]
fn postgresql_and_s3() -> Result<()> {
    passes("PostgreSQL and S3 (versitygw)", true, true)
}

/// Two processes, one database, one bucket: what one took, the other gives.
#[test]
fn two_processes_are_one_registry() -> Result<()> {
    let form = Form::build(true, true)?;
    let settings = form.settings()?;
    let one = with(&settings).start()?;
    let two = with(&settings).start()?;
    let image = Image::multi_platform(5, &[2 << 20, 1000])?;
    one.client().push("team/app", "v1", &image)?;
    ensure!(two.client().pull("team/app", "v1")?.digest == image.digest);
    let newer = Image::multi_platform(7, &[1 << 20])?;
    two.client().push("team/app", "v1", &newer)?;
    ensure!(one.client().pull("team/app", "v1")?.digest == newer.digest);
    Ok(())
}
