//! The reference page says everything, and only what is so.

use std::collections::BTreeSet;

use kuboard_api::Config;
use kuboard_api::reference::configuration_markdown;

#[test]
fn every_key_is_explained_and_tried() {
    let page = configuration_markdown();
    let tried: toml::Table = toml::from_str(include_str!("every-key.toml")).unwrap();
    let mut set = BTreeSet::new();
    keys(&toml::Value::Table(tried), "", &mut set);
    let mut table = String::new();
    let mut untried = Vec::new();
    for line in page.split("## Built-in upstreams").next().unwrap().lines() {
        if let Some(title) = line.strip_prefix("## ") {
            table = title.trim_matches(['`', '[', ']']).replace("Top of the file", "");
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let key = row.split('`').next().unwrap();
        let meaning = row.rsplit('|').nth(1).unwrap().trim();
        assert!(meaning.len() > 5, "{table}.{key} is not explained");
        let path = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        if !set.contains(&path) {
            untried.push(path);
        }
    }
    // These contradict other keys of the sample.
    assert_eq!(untried, ["server.tls.cert", "server.tls.key", "catalog.urlFile"]);
}

fn keys(value: &toml::Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                keys(value, &path, out);
                out.insert(path);
            }
        }
        toml::Value::Array(entries) => entries.iter().for_each(|entry| keys(entry, path, out)),
        _ => {}
    }
}

/// The examples of the page are read without complaint.
#[test]
fn examples_work() {
    let page = configuration_markdown();
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 2);
    for example in examples {
        Config::parse(example).unwrap();
    }
}
