//! A node's containerd: whether its configuration really looks into the folder of `hosts.toml`, and
//! whether those files mean what their author thought.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::finding::Finding;

/// The tables in which `config_path` may stand: of containerd 1.x, and of 2.x.
const PLUGINS: [&str; 2] = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"];

/// A file of the node.
pub(crate) struct NodeFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Judges `config.toml`; the folders that it looks for `hosts.toml` in.
pub(crate) fn config(file: &NodeFile) -> (Vec<Finding>, Vec<PathBuf>) {
    let subject = format!("containerd {}", file.path.display());
    let parsed: Table = match file.text.parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            let first = error.to_string();
            let finding = Finding::problem("containerd.config", subject)
                .symptom("containerd does not start, or runs with defaults")
                .evidence(first.lines().next().unwrap_or_default())
                .cause("the file is no TOML")
                .fix("containerd config default   # shows a good one");
            return (vec![finding], Vec::new());
        }
    };
    let version = parsed.get("version").and_then(Value::as_integer).unwrap_or(1);
    let mut findings = Vec::new();
    let mut folders = Vec::new();
    for plugin in PLUGINS {
        let registry =
            parsed.get("plugins").and_then(|it| it.get(plugin)).and_then(|it| it.get("registry"));
        let Some(registry) = registry else { continue };
        if (plugin == PLUGINS[0]) == (version >= 3) {
            findings.push(
                Finding::problem("containerd.config-version", subject.as_str())
                    .symptom("mirrors are not asked")
                    .evidence(format!("version = {version}, and a table of {plugin}"))
                    .cause("the table belongs to another version of the file, and containerd passes over it")
                    .fix(format!("write [plugins.'{}'.registry]", PLUGINS[usize::from(version >= 3)])),
            );
            continue;
        }
        let path = registry.get("config_path").and_then(Value::as_str).unwrap_or_default();
        let old = |key: &str| {
            registry.get(key).and_then(Value::as_table).is_some_and(|table| !table.is_empty())
        };
        let mixed = ["mirrors", "configs"].into_iter().find(|key| old(key));
        match (path, mixed) {
            ("", _) => {}
            (_, Some(key)) => findings.push(
                Finding::problem("containerd.config-path-mixed", subject.as_str())
                    .symptom("the CRI plugin does not load: no pod starts")
                    .evidence(format!("registry has config_path and registry.{key}"))
                    .cause("containerd refuses config_path beside mirrors or configs of old")
                    .fix(format!("remove registry.{key}; write a hosts.toml a registry instead")),
            ),
            (path, None) => folders.extend(path.split(':').map(PathBuf::from)),
        }
    }
    if folders.is_empty() && findings.is_empty() {
        findings.push(
            Finding::warning("containerd.no-config-path", subject)
                .symptom("the node asks every registry itself")
                .evidence("no config_path under registry")
                .cause("containerd is not told where mirrors are configured")
                .fix("set config_path = \"/etc/containerd/certs.d\" and restart containerd"),
        );
    }
    (findings, folders)
}

/// Judges one `hosts.toml`. `folder` is its folder's name: the registry it is for.
pub(crate) fn hosts(file: &NodeFile) -> Vec<Finding> {
    let subject = format!("containerd {}", file.path.display());
    let folder = file.path.parent().and_then(Path::file_name).unwrap_or_default();
    let parsed: Table = match file.text.parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            return vec![
                Finding::problem("containerd.hosts", subject)
                    .symptom(format!("pulls from {} fail", folder.display()))
                    .evidence(error.to_string().lines().next().unwrap_or_default())
                    .cause("the file is no TOML")
                    .fix("mend it; containerd reads it again at the next pull"),
            ];
        }
    };
    let mut findings = Vec::new();
    for (host, settings) in parsed.get("host").and_then(Value::as_table).into_iter().flatten() {
        if !host.contains("://") {
            findings.push(
                Finding::warning("containerd.hosts-scheme", subject.as_str())
                    .symptom("the mirror is asked by HTTPS")
                    .evidence(format!("host \"{host}\" has no scheme"))
                    .cause("without http:// containerd takes HTTPS, but for localhost")
                    .fix(format!("write [host.\"http://{host}\"] if that is what it speaks")),
            );
        }
        let known = ["pull", "resolve", "push"];
        let capabilities = settings.get("capabilities").and_then(Value::as_array);
        let words: Vec<&str> =
            capabilities.into_iter().flatten().filter_map(Value::as_str).collect();
        if let Some(word) = words.iter().find(|word| !known.contains(*word)) {
            findings.push(
                Finding::problem("containerd.hosts-capability", subject.as_str())
                    .symptom("containerd refuses the file")
                    .evidence(format!("capability \"{word}\""))
                    .cause("only pull, resolve and push are capabilities")
                    .fix("capabilities = [\"pull\", \"resolve\"]"),
            );
        } else if capabilities.is_some() && !words.contains(&"pull") {
            findings.push(
                Finding::problem("containerd.hosts-capability", subject.as_str())
                    .symptom(format!("{host} is never asked for images"))
                    .evidence(format!("capabilities = {words:?}"))
                    .cause("a mirror without the capability pull gives no content")
                    .fix("capabilities = [\"pull\", \"resolve\"]"),
            );
        }
        if let Some(ca) = settings.get("ca").and_then(Value::as_str)
            && !ca.starts_with('/')
        {
            findings.push(
                Finding::warning("containerd.hosts-ca", subject.as_str())
                    .symptom("the mirror's certificate is not trusted")
                    .evidence(format!("ca = \"{ca}\""))
                    .cause("a relative path is looked up in the folder of hosts.toml")
                    .fix("write the whole path"),
            );
        }
    }
    if parsed.contains_key("server") && !parsed.contains_key("host") && parsed.len() > 1 {
        findings.push(
            Finding::warning("containerd.hosts-flat", subject)
                .symptom("the settings are for the registry itself, not for a mirror")
                .evidence("server and settings, but no [host.\"…\"] table")
                .cause("mirrors stand in tables of their own")
                .fix("write [host.\"http://MIRROR\"] and its capabilities below it"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{NodeFile, config, hosts};

    fn file(path: &str, text: &str) -> NodeFile {
        NodeFile { path: path.into(), text: text.to_owned() }
    }

    #[test]
    fn configurations_are_judged() {
        let check = |text: &str, want: &[&str], folders: &[&str]| {
            let (findings, found) = config(&file("/etc/containerd/config.toml", text));
            let codes: Vec<_> = findings.iter().map(|it| it.code).collect();
            assert_eq!(codes, want, "{text}");
            let found: Vec<_> = found.iter().map(|it| it.display().to_string()).collect();
            assert_eq!(found, folders, "{text}");
        };
        let one = |version: u8, plugin: &str, rest: &str| {
            format!("version = {version}\n[plugins.\"{plugin}\".registry]\n{rest}")
        };
        let path = "config_path = \"/etc/containerd/certs.d\"\n";
        let (old, new) = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images");
        check(&one(2, old, path), &[], &["/etc/containerd/certs.d"]);
        check(&one(3, new, path), &[], &["/etc/containerd/certs.d"]);
        check(&one(3, new, "config_path = \"/a:/b\""), &[], &["/a", "/b"]);
        check(&one(3, old, path), &["containerd.config-version"], &[]);
        check(&one(2, new, path), &["containerd.config-version"], &[]);
        let mirrors = format!(
            "{path}[plugins.\"{old}\".registry.mirrors.\"docker.io\"]\nendpoint = [\"http://a\"]"
        );
        check(&one(2, old, &mirrors), &["containerd.config-path-mixed"], &[]);
        check("version = 2\n", &["containerd.no-config-path"], &[]);
        check("version = ", &["containerd.config"], &[]);
    }

    #[test]
    fn hosts_files_are_judged() {
        let check = |text: &str, want: &[&str]| {
            let found = hosts(&file("/etc/containerd/certs.d/docker.io/hosts.toml", text));
            let codes: Vec<_> = found.iter().map(|it| it.code).collect();
            assert_eq!(codes, want, "{text}");
        };
        check(
            "server = \"https://a\"\n[host.\"http://127.0.0.1:5000\"]\ncapabilities = [\"pull\", \"resolve\"]",
            &[],
        );
        check("[host.\"mirror:5000\"]", &["containerd.hosts-scheme"]);
        check(
            "[host.\"http://a\"]\ncapabilities = [\"resolve\"]",
            &["containerd.hosts-capability"],
        );
        check("[host.\"http://a\"]\ncapabilities = [\"read\"]", &["containerd.hosts-capability"]);
        check("[host.\"https://a\"]\nca = \"ca.crt\"", &["containerd.hosts-ca"]);
        check("server = \"https://a\"\ncapabilities = [\"pull\"]", &["containerd.hosts-flat"]);
        check("[host", &["containerd.hosts"]);
    }
}
