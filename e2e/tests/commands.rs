//! The command line as a user sees it: exit codes, what is printed where, and the orders that work
//! beside a running server and without one.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::programs::Programs;
use kuboard_oci::Digest;
use kuboard_testkit::http::Request;
use kuboard_testkit::{FakeUpstream, Fault, Image, Kuboard, On, RegistryClient, tool};
use serde_json::Value;

/// Bound on a command that ends by itself.
const BOUND: Duration = Duration::from_secs(60);

/// What a command that has ended left.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs `kuboard ARGUMENTS` in `folder`, which holds a configuration only if the test put one there.
fn run(folder: &Path, arguments: &[&str]) -> Result<Done> {
    run_command(Kuboard::command()?.args(arguments).current_dir(folder))
}

fn run_command(command: &mut Command) -> Result<Done> {
    let outputs = tool::folder("outputs")?;
    let at = |name: &str| outputs.path().join(name);
    command.stdin(Stdio::null());
    command.stdout(File::create(at("stdout"))?).stderr(File::create(at("stderr"))?);
    let mut child = command.spawn()?;
    let mut status = None;
    let ended = tool::wait_until(&tool::line(command), BOUND, || {
        status = child.try_wait()?;
        Ok(status.is_some())
    });
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    ended.with_context(|| fs::read_to_string(at("stderr")).unwrap_or_default())?;
    Ok(Done {
        code: status.and_then(|status| status.code()),
        stdout: fs::read_to_string(at("stdout"))?,
        stderr: fs::read_to_string(at("stderr"))?,
    })
}

/// Runs a command that must succeed and print JSON.
fn json(folder: &Path, arguments: &[&str]) -> Result<Value> {
    let done = run(folder, &[arguments, &["-o", "json"]].concat())?;
    ensure!(done.code == Some(0), "{arguments:?}: {done:?}");
    serde_json::from_str(&done.stdout).with_context(|| format!("{arguments:?}: {done:?}"))
}

/// Success speaks on standard output alone; an error on the other, so that pipes stay clean.
#[test]
fn exit_codes_and_outputs() -> Result<()> {
    let folder = tool::folder("commands")?;
    fs::create_dir(folder.path().join("empty"))?;
    let check = |arguments: &[&str], code: i32, says: &[&str]| -> Result<()> {
        let done = run(folder.path(), arguments)?;
        ensure!(done.code == Some(code), "{arguments:?}: {done:?}");
        let (said, silent) = match code {
            0 => (&done.stdout, &done.stderr),
            _ => (&done.stderr, &done.stdout),
        };
        ensure!(silent.is_empty(), "{arguments:?}: {done:?}");
        for word in says {
            ensure!(said.contains(word), "{arguments:?} does not say {word:?}: {done:?}");
        }
        Ok(())
    };
    check(&["--help"], 0, &["Usage: kuboard", "up", "serve", "cache", "fsck", "completions"])?;
    check(&["--version"], 0, &["kuboard "])?;
    check(&[], 2, &["Usage: kuboard"])?;
    check(&["fly"], 2, &["error:", "fly"])?;
    check(&["cache"], 2, &["Usage: kuboard cache"])?;
    check(&["up", "--nonsense"], 2, &["--nonsense"])?;
    check(&["up", "--listen", "nonsense"], 2, &["--listen"])?;
    check(&["up", "--anonymous", "all"], 2, &["none", "pull", "push"])?;
    check(&["serve"], 2, &["--role"])?;
    check(&["serve", "--role", "nonsense"], 2, &["registry-proxy", "registry-cache"])?;
    check(&["completions", "nonsense"], 2, &["bash"])?;
    check(&["serve", "--role", "registry-proxy"], 1, &["error:", "hint:", "[proxy] caches"])?;
    check(&["up", "--config", "none.toml"], 1, &["error:", "none.toml"])?;
    check(&["config", "check"], 1, &["error:", "kuboard.toml"])?;
    // What only looks makes nothing, and finds nothing whole where there is nothing.
    for arguments in [&["fsck"][..], &["cache", "ls"], &["cache", "stats"], &["keys", "ls"]] {
        check(arguments, 1, &["does not exist", "hint: name the data folder with --data-dir"])?;
    }
    for arguments in [&["fsck"][..], &["cache", "ls"], &["cache", "rm", "up.test/app"]] {
        let arguments = [arguments, &["--data-dir", "empty"]].concat();
        check(&arguments, 1, &["holds no data", "hint: name the data folder with --data-dir"])?;
    }
    let made: Vec<PathBuf> = [folder.path().to_owned(), folder.path().join("empty")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .collect();
    ensure!(made == [folder.path().join("empty")], "{made:?}");
    Ok(())
}

/// Starts that must be refused, with the reason and what to do.
#[test]
fn starts_that_are_refused() -> Result<()> {
    let kuboard = Kuboard::start(&[])?;
    let folder = tool::folder("refused")?;
    let data = kuboard.data_dir().display().to_string();
    let check = |arguments: &[&str], says: &[&str]| -> Result<()> {
        let done = run(folder.path(), &[&["up"], arguments].concat())?;
        ensure!(done.code == Some(1), "{arguments:?}: {done:?}");
        for word in [&["error:", "hint:"], says].concat() {
            ensure!(done.stderr.contains(word), "{arguments:?} does not say {word:?}: {done:?}");
        }
        Ok(())
    };
    check(&["--data-dir", &data, "--listen", "127.0.0.1:0"], &["in use", "--data-dir"])?;
    check(&["--listen", kuboard.address()], &[kuboard.address(), "--listen"])?;
    for open in ["0.0.0.0:0", "[::]:0"] {
        check(&["--listen", open], &[open, "anonymous", "htpasswd"])?;
    }
    // The refused ones did the running one no harm.
    ensure!(kuboard.get("/readyz")?.status == 200);
    let image = Image::oci(1, &[10_000])?;
    kuboard.client().push("team/app", "v1", &image)?;
    ensure!(kuboard.client().pull("team/app", "v1")?.digest == image.digest);
    Ok(())
}

/// Every help text, of every command, fits a terminal of a hundred columns, however wide this one.
#[test]
fn help_fits_a_hundred_columns() -> Result<()> {
    let folder = tool::folder("help")?;
    let mut left: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(path) = left.pop() {
        for flag in ["--help", "-h"] {
            let mut command = Kuboard::command()?;
            command.args(&path).arg(flag).env("COLUMNS", "300").current_dir(folder.path());
            let done = run_command(&mut command)?;
            ensure!(done.code == Some(0) && done.stderr.is_empty(), "{path:?}: {done:?}");
            for line in done.stdout.lines() {
                ensure!(line.chars().count() <= 100, "{path:?} {flag}: {line}");
                ensure!(line.trim_end() == line || line.trim().is_empty(), "{path:?}: {line:?}");
            }
            if flag == "-h" {
                left.extend(subcommands(&done.stdout).map(|name| [&path[..], &[name]].concat()));
            }
        }
        seen += 1;
    }
    ensure!(seen >= 17, "only {seen} commands were found");
    Ok(())
}

/// The names under `Commands:` in a help text.
fn subcommands(help: &str) -> impl Iterator<Item = String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty());
    let names = names.filter_map(|line| line.split_whitespace().next().map(str::to_owned));
    names.filter(|name| name != "help")
}

#[test]
fn completions_are_scripts() -> Result<()> {
    let folder = tool::folder("completions")?;
    let shells = [
        ("bash", "complete -F"),
        ("zsh", "#compdef kuboard"),
        ("fish", "complete -c kuboard"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ];
    for (shell, mark) in shells {
        let done = run(folder.path(), &["completions", shell])?;
        ensure!(done.code == Some(0) && done.stderr.is_empty(), "{shell}: {done:?}");
        for word in [mark, "fsck", "data-dir"] {
            ensure!(done.stdout.contains(word), "{shell}: no {word:?}");
        }
        fs::write(folder.path().join(shell), done.stdout)?;
    }
    let script = folder.path().join("bash");
    tool::output(tool::command("bash")?.arg("-n").arg(&script))?;
    // And it completes: what may follow `kuboard cache`.
    let complete = "source \"$0\"; COMP_WORDS=(kuboard cache p); COMP_CWORD=2; \
                    _kuboard kuboard p cache; echo \"${COMPREPLY[@]}\"";
    let words = tool::output(tool::command("bash")?.args(["-c", complete]).arg(&script))?;
    ensure!(words.split_whitespace().any(|word| word == "pin"), "{words:?}");
    Ok(())
}

#[test]
fn config_check_tells_where_and_what_to_do() -> Result<()> {
    let folder = tool::folder("config")?;
    let file = folder.path().join("some.toml");
    let check = |text: &str, line: u64, says: &[&str]| -> Result<()> {
        fs::write(&file, text)?;
        let done = run(folder.path(), &["config", "check", "some.toml"])?;
        ensure!(done.code == Some(1) && done.stdout.is_empty(), "{text}: {done:?}");
        let place = format!("some.toml:{line}:");
        for word in says.iter().copied().chain([place.as_str(), "hint:"]) {
            ensure!(done.stderr.contains(word), "{text}: no {word:?}: {done:?}");
        }
        let done = run(folder.path(), &["config", "check", "some.toml", "-o", "json"])?;
        let report: Value = serde_json::from_str(&done.stdout).with_context(|| text.to_owned())?;
        ensure!(done.code == Some(1) && report["ok"] == false, "{text}: {done:?}");
        let problem = &report["problems"][0];
        ensure!(problem["line"] == line && problem["hint"].is_string(), "{text}: {report:#}");
        // A start finds the same fault before anything moves.
        let done = run(folder.path(), &["up", "--config", "some.toml"])?;
        ensure!(done.code == Some(1) && done.stderr.contains(&place), "{text}: {done:?}");
        ensure!(!folder.path().join("kuboard-data").exists(), "{text}: it made its folder");
        Ok(())
    };
    check("[cache]\nenable = true\ncacheSizeGb = 5\n", 3, &["did you mean `cacheSizeGB`?"])?;
    check("[server]\nlisten = \"0.0.0.0:5000\"\n", 2, &["anonymous", "htpasswd"])?;
    check("[gc]\nleaseMinutes = \"soon\"\n", 2, &["gc.leaseMinutes", "\"soon\""])?;
    check("[access]\n\nanonymous = \"all\"\n", 3, &["none", "pull", "push"])?;
    let upstream = "[[upstream]]\nname = \"up.test\"\nendpoints = [\"ftp://up.test\"]\n";
    check(upstream, 3, &["upstream[0].endpoints", "https://host"])?;

    let good = format!("[cache]\ncacheSizeGB = 5\n{}", upstream.replace("ftp", "https"));
    fs::write(&file, good)?;
    let report = json(folder.path(), &["config", "check", "some.toml"])?;
    let upstreams = report["upstreams"].as_array().context("no upstreams")?;
    ensure!(report["ok"] == true && report["file"] == "some.toml", "{report:#}");
    ensure!(upstreams.contains(&"up.test".into()) && upstreams.contains(&"docker.io".into()));
    let done = run(folder.path(), &["config", "check", "some.toml"])?;
    ensure!(done.code == Some(0) && done.stdout.starts_with("some.toml: ok\n"), "{done:?}");
    // Without a name it is the file that a server started here would read.
    fs::rename(&file, folder.path().join("kuboard.toml"))?;
    let done = run(folder.path(), &["config", "check"])?;
    ensure!(done.code == Some(0), "{done:?}");
    Ok(())
}

/// A key made for a folder opens what its scopes name to a real client, and nothing else.
#[test]
fn keys_open_what_their_scopes_name() -> Result<()> {
    let programs = Programs::new()?;
    let data = programs.at("data");
    let start = || {
        let closed = Kuboard::builder().argument("--anonymous").argument("none");
        closed.data_dir(&data).start()
    };
    let mut kuboard = start()?;
    let folder = tool::folder("keys")?;
    let place = ["--data-dir", &data.display().to_string()];
    let keys = |arguments: &[&str]| run(folder.path(), &[&["keys"], arguments, &place].concat());
    let list = || json(folder.path(), &[&["keys", "ls"], &place[..]].concat());
    let refused = [
        (&["create", "robot", "--scope", "team/**"][..], "hint:"),
        (&["create", "robot", "--scope", "team/**=fly"], "hint:"),
        (&["rm", "nothing"], "hint: see `kuboard keys ls`"),
    ];
    for (arguments, says) in refused {
        let done = keys(arguments)?;
        ensure!(done.code == Some(1) && done.stderr.contains(says), "{arguments:?}: {done:?}");
    }
    ensure!(keys(&["create", "robot"])?.code == Some(2), "a key without scope");
    // The secret alone on standard output: `kuboard keys create … | crane auth login …`.
    let made = keys(&["create", "robot", "--scope", "team/**=pull,push", "--days", "7"])?;
    ensure!(made.code == Some(0) && made.stdout.lines().count() == 1, "{made:?}");
    let secret = made.stdout.trim();
    let left = list()?;
    let key = &left[0];
    ensure!(left.as_array().map(Vec::len) == Some(1) && key["owner"] == "robot", "{left:#}");
    ensure!(!left.to_string().contains(secret), "the list tells the secret");
    let week = 7 * 24 * 3600 * 1000;
    let (created, expires) = (key["createdMs"].as_i64(), key["expiresMs"].as_i64());
    ensure!(created.zip(expires).is_some_and(|(from, to)| to - from == week), "{left:#}");

    let address = kuboard.address().to_owned();
    let image = Image::oci(1, &[50_000])?;
    let layout = programs.at("layout");
    image.write_layout(&layout, "v1")?;
    let layout = layout.display().to_string();
    let push = |name: &str| programs.crane(&["push", &layout, &format!("{address}/{name}:v1")]);
    ensure!(push("team/app").is_err(), "a stranger pushed");
    programs.crane(&["auth", "login", "--username", "robot", "--password", secret, &address])?;
    push("team/app")?;
    ensure!(programs.crane_digest(&format!("{address}/team/app:v1"))? == image.digest);
    ensure!(push("other/app").is_err(), "the key reached another team");
    let delete = ["delete", &format!("{address}/team/app@{}", image.digest)];
    ensure!(programs.crane(&delete).is_err(), "the key deleted");

    let id = key["id"].as_str().context("no id")?;
    ensure!(keys(&["rm", id])?.code == Some(0));
    ensure!(list()? == serde_json::json!([]));
    // A running server may remember it for minutes; a new one never knew it.
    ensure!(kuboard.terminate()?.success());
    let kuboard = start()?;
    let late = RegistryClient::with_login(kuboard.address(), "robot", secret);
    ensure!(late.manifest("team/app", "v1").is_err(), "a removed key opens");
    Ok(())
}

/// The orders to a cache are the same with and without a server on the folder.
#[test]
fn the_cache_takes_orders_from_outside() -> Result<()> {
    let upstream = FakeUpstream::start()?;
    let images = [Image::multi_platform(1, &[200_000])?, Image::multi_platform(5, &[100_000])?];
    let folder = tool::folder("cache")?;
    let data = folder.path().join("data");
    let start = || Kuboard::builder().upstream("up.test", &upstream.url()).data_dir(&data).start();
    for (image, tag) in images.iter().zip(["v1", "v2"]) {
        upstream.put("team/app", tag, image);
    }
    let fill = |kuboard: &Kuboard| -> Result<()> {
        for (image, tag) in images.iter().zip(["v1", "v2"]) {
            let pulled = kuboard.client().pull("up.test/team/app", tag)?;
            ensure!(pulled.digest == image.digest);
        }
        let bytes = images.iter().map(Image::blob_bytes).sum::<u64>();
        tool::wait_until("the cached blobs", BOUND, || {
            Ok(kuboard.metric("registry_storage_used_bytes", &["area=\"cache\""])? >= bytes as f64)
        })
    };
    let mut kuboard = start()?;
    fill(&kuboard)?;
    orders(&data, &images).context("beside a running server")?;
    // What was dropped is fetched again, and only that.
    upstream.forget();
    fill(&kuboard)?;
    let fetched = upstream.bytes(&On::blobs());
    ensure!(fetched == images[0].blob_bytes(), "{fetched} of {}", images[0].blob_bytes());
    ensure!(kuboard.terminate()?.success());
    orders(&data, &images).context("without a server")?;
    let kuboard = start()?;
    let pulled = kuboard.client().pull("up.test/team/app", "v1")?;
    ensure!(pulled.digest == images[0].digest);
    Ok(())
}

/// Looks at a cache that holds both images, pins one, takes the pin back, and drops the first.
fn orders(data: &Path, images: &[Image; 2]) -> Result<()> {
    let folder = tool::folder("orders")?;
    let data = data.display().to_string();
    let cache = |arguments: &[&str]| {
        json(folder.path(), &[&["cache"], arguments, &["--data-dir", &data]].concat())
    };
    let list = cache(&["ls"])?;
    let mut listed: Vec<(&str, &str)> = Vec::new();
    for image in list.as_array().context("no list")? {
        ensure!(image["repository"] == "up.test/team/app" && image["pinned"] == false, "{list:#}");
        ensure!(image["cachedBytes"] == image["totalBytes"], "{list:#}");
        listed.push((text(image, "tag")?, text(image, "digest")?));
    }
    listed.sort_unstable();
    let digests = images.each_ref().map(|image| image.digest.to_string());
    ensure!(listed == [("v1", digests[0].as_str()), ("v2", digests[1].as_str())], "{list:#}");

    let blobs = cache(&["ls", "--blobs"])?;
    let blobs = blobs.as_array().context("no list")?;
    let sizes: Vec<u64> = blobs.iter().filter_map(|blob| blob["size"].as_u64()).collect();
    ensure!(sizes.len() == blobs.len() && sizes.is_sorted_by(|a, b| a >= b), "{blobs:#?}");
    for blob in images.iter().flat_map(Image::all_blobs) {
        let there = blobs.iter().any(|it| it["digest"] == blob.digest.to_string());
        ensure!(there, "{} is not listed", blob.digest);
    }
    let stats = cache(&["stats"])?;
    ensure!(stats["blobs"] == blobs.len() && stats["pinnedBlobs"] == 0, "{stats:#}");
    ensure!(stats["usedBytes"].as_u64() == Some(sizes.iter().sum()), "{stats:#}");

    let pinned = cache(&["pin", "up.test/team/app:v1"])?;
    ensure!(text_list(&pinned["digests"]).contains(&digests[0].as_str()), "{pinned:#}");
    let list = cache(&["ls"])?;
    let marks = list.as_array().context("no list")?.iter();
    for image in marks {
        ensure!(image["pinned"] == (image["tag"] == "v1"), "{list:#}");
    }
    ensure!(cache(&["stats"])?["pinnedBlobs"].as_u64() > Some(0));
    cache(&["unpin", "up.test/team/app:v1"])?;
    ensure!(cache(&["stats"])?["pinnedBlobs"] == 0);

    let removed = cache(&["rm", "up.test/team/app:v1"])?;
    ensure!(removed["bytes"].as_u64() >= Some(images[0].blob_bytes()), "{removed:#}");
    let list = cache(&["ls"])?;
    ensure!(list.as_array().map(Vec::len) == Some(1) && list[0]["tag"] == "v2", "{list:#}");
    for order in [["rm", "up.test/team/app:v1"], ["unpin", "up.test/team/app:v1"]] {
        let done = run(folder.path(), &[&["cache"], &order[..], &["--data-dir", &data]].concat())?;
        ensure!(done.code == Some(1) && done.stderr.contains("hint:"), "{order:?}: {done:?}");
    }
    for order in [&["ls"][..], &["ls", "--blobs"], &["stats"]] {
        let done = run(folder.path(), &[&["cache"], order, &["--data-dir", &data]].concat())?;
        ensure!(done.code == Some(0) && !done.stdout.is_empty(), "{order:?}: {done:?}");
    }
    Ok(())
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("no {name} in {value:#}"))
}

fn text_list(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// One bit of one stored blob: found, named, and told by the exit code.
#[test]
fn fsck_finds_what_is_not_whole() -> Result<()> {
    let upstream = FakeUpstream::start()?;
    let (cached, hosted) = (Image::oci(1, &[100_000])?, Image::oci(2, &[100_000])?);
    upstream.put("team/app", "v1", &cached);
    let folder = tool::folder("fsck")?;
    let data = folder.path().join("data");
    let builder = Kuboard::builder().upstream("up.test", &upstream.url()).data_dir(&data);
    let mut kuboard = builder.start()?;
    kuboard.client().push("team/app", "v1", &hosted)?;
    kuboard.client().pull("up.test/team/app", "v1")?;
    let fsck = |arguments: &[&str]| {
        let place = ["--data-dir", &data.display().to_string()];
        run(folder.path(), &[&["fsck"], arguments, &place].concat())
    };
    let whole = fsck(&[])?;
    ensure!(whole.code == Some(0) && whole.stdout.contains("\nwhole\n"), "running: {whole:?}");
    ensure!(kuboard.terminate()?.success());
    let whole = fsck(&[])?;
    ensure!(whole.code == Some(0) && whole.stdout.contains("\nwhole\n"), "stopped: {whole:?}");
    for (image, area) in [(&cached, "cache"), (&hosted, "hosted")] {
        let digest = image.layers()[0].digest;
        let file = find(&data.join(area), &digest)?;
        flip(&file)?;
        let told = fsck(&[])?;
        ensure!(told.code == Some(3) && told.stdout.contains("NOT whole"), "{area}: {told:?}");
        let named = |line: &str| line.starts_with("corrupt") && line.contains(&digest.to_string());
        ensure!(told.stdout.lines().any(named), "{area}: {told:?}");
        let told = fsck(&["-o", "json"])?;
        let report: Value = serde_json::from_str(&told.stdout)?;
        ensure!(told.code == Some(3), "{area}: {told:?}");
        let corrupt = text_list(&report["corrupt"]);
        ensure!(corrupt.len() == 1 && corrupt[0].contains(&digest.to_string()), "{report:#}");
        flip(&file)?;
        ensure!(fsck(&[])?.code == Some(0), "{area}: mended");
    }
    // And acknowledged content that is gone.
    let digest = hosted.layers()[0].digest;
    fs::remove_file(find(&data.join("hosted"), &digest)?)?;
    let told = fsck(&[])?;
    let named = |line: &str| line.starts_with("missing") && line.contains(&digest.to_string());
    ensure!(told.code == Some(3) && told.stdout.lines().any(named), "{told:?}");
    Ok(())
}

/// The file of a blob somewhere under `folder`.
fn find(folder: &Path, digest: &Digest) -> Result<PathBuf> {
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.file_name().is_some_and(|name| *name == *digest.hex()) {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("{digest} is not under {}", folder.display())
}

/// Flips one bit in the middle.
fn flip(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Not in place: the file is read only and may be mapped.
    fs::remove_file(file)?;
    Ok(fs::write(file, bytes)?)
}

/// A cold pull that runs while the stop is asked for is answered to its end, though the upstream is
/// slow, and what it brought is kept.
#[test]
fn a_stop_drains_a_slow_cold_pull() -> Result<()> {
    let upstream = FakeUpstream::start()?;
    let image = Image::oci(1, &[2 << 20])?;
    upstream.put("team/app", "v1", &image);
    let slow = Fault::Drip { piece: 64 << 10, pause: Duration::from_millis(60) };
    upstream.fault(On::blobs().method("GET"), slow, None);
    let folder = tool::folder("drain")?;
    let data = folder.path().join("data");
    let start = || Kuboard::builder().upstream("up.test", &upstream.url()).data_dir(&data).start();
    let mut kuboard = start()?;
    let layer = &image.layers()[0];
    let mut body = kuboard.client().blob("up.test/team/app", &layer.digest)?;
    let mut first = [0; 1000];
    body.read_exact(&mut first)?;
    kuboard.process.signal(15)?;
    // Nobody is sent here any more: it says so, or does not answer.
    tool::wait_until("the end of readiness", BOUND, || {
        Ok(kuboard.get("/readyz").map_or(true, |answer| answer.status == 503))
    })?;
    let mut rest = Vec::new();
    body.read_to_end(&mut rest)?;
    ensure!([&first[..], &rest].concat() == layer.bytes.to_vec(), "cut off");
    let mut status = None;
    tool::wait_until("the end of the process", BOUND, || {
        status = kuboard.process.ended()?;
        Ok(status.is_some())
    })?;
    ensure!(status.is_some_and(|status| status.success()), "{status:?}");
    let log = kuboard.process.log();
    ensure!(!log.contains("panicked") && log.contains("stopped"), "{log}");
    let fetched = upstream.bytes(&On::blobs());
    let kuboard = start()?;
    let (_, digest) = kuboard.client().blob("up.test/team/app", &layer.digest)?.digest()?;
    ensure!(digest == layer.digest);
    ensure!(upstream.bytes(&On::blobs()) == fetched, "the drained download was not kept");
    Ok(())
}

/// Health, and a name for each request: the caller's if it can stand in a log, else a new one.
#[test]
fn health_and_request_ids() -> Result<()> {
    let kuboard = Kuboard::start(&[])?;
    for path in ["/healthz", "/readyz"] {
        let answer = kuboard.get(path)?;
        ensure!(answer.status == 200 && !answer.body.is_empty(), "{path}: {}", answer.status);
    }
    let id = |given: Option<&str>, path: &str| -> Result<String> {
        let mut request = Request::get(path);
        if let Some(given) = given {
            request = request.header("X-Request-Id", given);
        }
        let answer = request.send(kuboard.address())?;
        let ids: Vec<&str> = answer
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id"))
            .map(|(_, value)| value)
            .collect();
        ensure!(ids.len() == 1, "{path}: {ids:?}");
        Ok(ids[0].to_owned())
    };
    for path in ["/v2/", "/v2/no/such/manifests/v1", "/nowhere", "/healthz"] {
        ensure!(id(Some("from-outside.1"), path)? == "from-outside.1", "{path}");
        let long = "x".repeat(1000);
        for harmful in ["two words", "<script>", long.as_str()] {
            let named = id(Some(harmful), path)?;
            ensure!(named != harmful && !named.is_empty(), "{path}: {named:?}");
        }
        ensure!(id(None, path)? != id(None, path)?, "{path}: the same twice");
    }
    Ok(())
}
