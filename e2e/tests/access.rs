//! Who may do what, seen by real clients: htpasswd users, the token service, access keys, and the
//! refusal to stand open on an address that others can reach.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::programs::Programs;
use kuboard_testkit::http::Request;
use kuboard_testkit::kuboard::Builder;
use kuboard_testkit::upstream::{Login, TokenLogin};
use kuboard_testkit::{FakeUpstream, Image, Kuboard, RegistryClient, tool};

const USER: &str = "alice";
const PASSWORD: &str = "correct horse";

/// An htpasswd file with one user.
fn htpasswd(file: &Path) -> Result<()> {
    let mut command = tool::command("htpasswd")?;
    tool::output(command.args(["-B", "-b", "-c"]).arg(file).args([USER, PASSWORD])).map(drop)
}

fn closed(programs: &Programs, anonymous: &str) -> Result<Builder> {
    let users = programs.at("htpasswd");
    htpasswd(&users)?;
    let access = format!("[access]\nanonymous = {anonymous:?}\nhtpasswd = {users:?}");
    Ok(Kuboard::builder().config(&access).data_dir(&programs.at("data")))
}

#[test]
fn real_clients_log_in_and_strangers_stay_out() -> Result<()> {
    let programs = Programs::new()?;
    let kuboard = closed(&programs, "none")?.start()?;
    let address = kuboard.address();
    let image = Image::oci(1, &[50_000])?;
    let layout = programs.at("layout");
    image.write_layout(&layout, "v1")?;
    let layout = layout.display().to_string();
    let name = format!("{address}/team/app:v1");

    ensure!(programs.crane(&["push", &layout, &name]).is_err(), "a stranger pushed");
    let ping = Request::get("/v2/").send(address)?;
    ensure!(ping.status == 401, "{}", ping.status);
    let challenge = ping.headers.get("www-authenticate").context("no challenge")?;
    ensure!(challenge.starts_with("Bearer realm="), "{challenge}");

    let wrong = ["auth", "login", "--username", USER, "--password", "wrong", address];
    programs.crane(&wrong)?;
    ensure!(programs.crane(&["push", &layout, &name]).is_err(), "a wrong password pushed");
    programs.crane(&["auth", "login", "--username", USER, "--password", PASSWORD, address])?;
    programs.crane(&["push", &layout, &name])?;
    ensure!(programs.crane_digest(&name)? == image.digest);

    let login = |password: &str| {
        let user = ["login", "--tls-verify=false", "--username", USER, "--password", password];
        programs.skopeo(&[&user[..], &[address]].concat())
    };
    ensure!(login("wrong").is_err(), "skopeo logged in with a wrong password");
    login(PASSWORD)?;
    let copy = programs.at("copy").display().to_string();
    programs.skopeo_copy(&format!("docker://{name}"), &format!("dir:{copy}"))?;
    let stranger = kuboard.client().manifest("team/app", "v1");
    ensure!(stranger.is_err(), "a stranger pulled");
    Ok(())
}

#[test]
fn anonymous_may_pull_when_told_so() -> Result<()> {
    let programs = Programs::new()?;
    let kuboard = closed(&programs, "pull")?.start()?;
    let image = Image::oci(1, &[50_000])?;
    let alice = RegistryClient::with_login(kuboard.address(), USER, PASSWORD);
    alice.push("team/app", "v1", &image)?;
    let stranger = kuboard.client();
    ensure!(stranger.pull("team/app", "v1")?.digest == image.digest);
    ensure!(stranger.push("team/app", "v2", &image).is_err(), "a stranger pushed");
    Ok(())
}

/// A key reaches what its scopes name, and nothing else; removed, it reaches nothing.
#[test]
fn access_keys_are_scoped_and_can_be_taken_back() -> Result<()> {
    let programs = Programs::new()?;
    let kuboard = closed(&programs, "none")?.start()?;
    let key = |arguments: &[&str]| -> Result<serde_json::Value> {
        let (answer, status) = Kuboard::json(&[&["keys"], arguments].concat(), kuboard.data_dir())?;
        ensure!(status.success(), "keys {arguments:?}: {status}: {answer}");
        Ok(answer)
    };
    let made = key(&["create", "robot", "--scope", "team/**=pull,push"])?;
    let text = |name: &str| made[name].as_str().with_context(|| format!("no {name} in {made}"));
    let (id, secret) = (text("id")?, text("secret")?);
    let robot = |kuboard: &Kuboard| RegistryClient::with_login(kuboard.address(), "robot", secret);
    let image = Image::oci(1, &[50_000])?;
    robot(&kuboard).push("team/app", "v1", &image)?;
    ensure!(robot(&kuboard).pull("team/app", "v1")?.digest == image.digest);
    let elsewhere = robot(&kuboard).push("other/app", "v1", &image);
    ensure!(elsewhere.is_err(), "the key reached another team");
    ensure!(key(&["ls"])?.to_string().contains(id));
    let mut remove = Kuboard::command()?;
    remove.args(["keys", "rm", id, "--data-dir"]).arg(kuboard.data_dir());
    tool::output(&mut remove)?;
    // A running server may remember it for minutes; a new one never knew it.
    drop(kuboard);
    let kuboard = closed(&programs, "none")?.start()?;
    ensure!(robot(&kuboard).manifest("team/app", "v1").is_err(), "a removed key opens");
    Ok(())
}

#[test]
fn it_refuses_to_stand_open_where_others_reach_it() -> Result<()> {
    let refused = Kuboard::builder().listen("0.0.0.0:0").start();
    let reason = refused.err().context("it started open on every address")?.to_string();
    ensure!(reason.contains("hint"), "{reason}");
    let upstream = FakeUpstream::start()?;
    let image = Image::oci(1, &[50_000])?;
    upstream.put("team/app", "v1", &image);
    let told = Kuboard::builder().upstream("up.test", &upstream.url()).listen("0.0.0.0:0");
    let kuboard = told.argument("--anonymous").argument("pull").start()?;
    let stranger = RegistryClient::new(format!("127.0.0.1:{}", kuboard.port()));
    ensure!(stranger.pull("up.test/team/app", "v1")?.digest == image.digest);
    ensure!(stranger.push("team/app", "v1", &image).is_err(), "a stranger pushed");
    Ok(())
}

/// A private image that lies in the cache is given to those alone whom the upstream gives it to.
#[test]
fn recheck_asks_the_upstream_for_each_caller() -> Result<()> {
    let upstream = FakeUpstream::start()?;
    let image = Image::oci(1, &[50_000])?;
    upstream.put("team/app", "v1", &image);
    let user = Some((USER.to_owned(), PASSWORD.to_owned()));
    upstream.require(Login::Token(TokenLogin { user, ..TokenLogin::default() }));
    let folder = tool::folder("recheck")?;
    let secret = folder.path().join("password");
    std::fs::write(&secret, PASSWORD)?;
    let kuboard = Kuboard::builder()
        .upstream("up.test", &upstream.url())
        .config("visibility = \"recheck\"\n[upstream.credentials]\nkind = \"basic\"")
        .config(&format!("user = {USER:?}\npasswordFile = {secret:?}"))
        .start()?;
    let known = || RegistryClient::with_login(kuboard.address(), USER, PASSWORD);
    ensure!(known().pull("up.test/team/app", "v1")?.digest == image.digest);
    ensure!(kuboard.client().manifest("up.test/team/app", "v1").is_err(), "given to a stranger");
    let wrong = RegistryClient::with_login(kuboard.address(), USER, "wrong");
    ensure!(wrong.manifest("up.test/team/app", "v1").is_err(), "given to a wrong password");
    Ok(())
}
