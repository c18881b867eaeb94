//! The reference page of kuboard.toml, written from the schema itself.

use std::fmt::Write;

use crate::config::Config;
use crate::schema::{Described, Key, Shape};
use crate::upstream::built_in_rows;

const INTRODUCTION: &str = "\
# kuboard.toml

<!-- Generated from the schema in crates/kuboard-api. Change it there, then run `cargo xtask codegen`. -->

Kuboard needs no configuration file. `kuboard up --config FILE` reads one, `kuboard config check`
checks it; every key is optional, and an unknown key is refused with the line it stands on.

- A **duration** is a number in the unit of its key (`drainSeconds = 30`) or a text with units of
  its own (`\"30s\"`, `\"5m\"`, `\"1h30m\"`, `\"2d\"`).
- A **size** is in gigabytes of 10⁹ bytes and may have a fraction (`cacheSizeGB = 0.5`).
- A **path** is relative to the folder that Kuboard was started in.
- In **patterns**, `*` stands for a part of one path component and `**` for any number of
  components: `library/*`, `team/**`, `v*`.
- **Secrets** stand in files that the keys name, not in this file.

```toml
[cache]
enable = true
storageClass = \"ssd-retain\"
cacheSizeGB = 200
peerDiscoveryInterval = 30

[[upstream]]
name = \"registry.example.com\"
```
";

const UPSTREAMS: &str = "\
## Built-in upstreams

A request names its registry by `?ns=` (containerd), by a `Host` header that a rule claims with
`hosts`, or by the first component of its path (`localhost:5000/docker.io/library/alpine`). The
name must be known to a rule: of this table, or of the file. A name that no rule knows is answered
with 404 and never dialled. `docker.io` finds names of one component in `library/`.

Rules with `*` are families: `*` stands for one label, and each member is asked at its own name.

Mirrors are used only after `mirrors = \"cn\"` or `mirrors = \"google\"` in `[defaults]` or in an
`[[upstream]]`. They are run by third parties, who see what is pulled through them and decide which
digest a tag has; credentials are never sent to them. Where a mirror refuses or fails, the registry
itself is asked. Your own mirror is an endpoint:

```toml
[[upstream]]
name = \"docker.io\"
endpoints = [\"https://mirror.example.com\", \"https://registry-1.docker.io\"]
```

| Registry | Also known as | Mirrors |
|---|---|---|
";

/// The text of docs/reference/configuration.md.
pub fn configuration_markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    if let Shape::Table(about, keys) = Config::shape() {
        table(&mut page, "", about, &keys);
    }
    page.push('\n');
    page.push_str(UPSTREAMS);
    for (name, aliases, mirrors) in built_in_rows() {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {aliases} | {mirrors} |");
    }
    page
}

fn table(page: &mut String, header: &str, about: &str, keys: &[Key]) {
    let title =
        if header.is_empty() { "Top of the file".to_owned() } else { format!("`{header}`") };
    let _ = write!(page, "\n## {title}\n\n{}\n\n", sentence(about));
    page.push_str("| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
    for key in keys {
        let doc = sentence(&key.doc).replace('|', "\\|");
        match &key.shape {
            Shape::Value(words) => {
                let default =
                    key.default.as_ref().map_or("unset".to_owned(), |text| format!("`{text}`"));
                let _ = writeln!(page, "| `{}` | {words} | {default} | {doc} |", key.name);
            }
            Shape::Table(..) => {
                let _ = writeln!(page, "| `{}` | table | | {doc} |", key.name);
            }
            Shape::Tables(..) => {
                let _ = writeln!(page, "| `{}` | list of tables | none | {doc} |", key.name);
            }
        }
    }
    let path = header.trim_matches(['[', ']']);
    let below =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for key in keys {
        match &key.shape {
            Shape::Table(about, keys) => {
                table(page, &format!("[{}]", below(key.name)), about, keys)
            }
            Shape::Tables(about, keys) => {
                table(page, &format!("[[{}]]", below(key.name)), about, keys)
            }
            Shape::Value(_) => {}
        }
    }
}

/// A doc comment as one line.
fn sentence(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}
