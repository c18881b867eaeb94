//! Which crate may use which: ARCHITECTURE.md's table of rooms, as a test over `cargo metadata`.
//!
//! A crate uses strictly lower floors, and of those only the named ones. Dev-dependencies are
//! free: a test may reach anything.

/// One row of the table: a crate, its floor, and the workspace crates that it may use.
pub(crate) struct Room {
    name: &'static str,
    floor: u8,
    may_use: &'static [&'static str],
}

const fn room(name: &'static str, floor: u8, may_use: &'static [&'static str]) -> Room {
    Room { name, floor, may_use }
}

/// `oci` and `rt` stand for the pure and the running ground that every engine and room rests on.
#[rustfmt::skip]
pub(crate) const ROOMS: &[Room] = &[
    room("kuboard-oci",        0, &[]),
    room("kuboard-rt",         0, &[]),
    room("kuboard-api",        1, &["oci"]),
    room("kuboard-vuln",       1, &["oci"]),
    room("kuboard-store",      2, &["oci", "rt"]),
    room("kuboard-catalog",    2, &["oci", "rt", "vuln"]),
    room("kuboard-registry",   2, &["oci", "rt"]),
    room("kuboard-sign",       2, &["oci"]),
    room("kuboard-feeds",      2, &["oci", "rt", "vuln"]),
    room("kuboard-p2p",        3, &["oci", "rt", "store"]),
    room("kuboard-scan",       3, &["oci", "rt", "catalog", "feeds", "registry", "store", "vuln"]),
    room("kuboard-proxy",      4, &["oci", "rt", "api", "p2p", "store", "registry", "catalog"]),
    room("kuboard-federation", 4, &["oci", "rt", "api", "registry", "catalog"]),
    room("kuboard-operator",   4, &["oci", "rt", "api", "vuln", "registry", "catalog"]),
    room("kuboard-admission",  4, &["oci", "rt", "api", "vuln", "sign", "registry", "catalog"]),
    room("kuboard-console",    4, &["oci", "rt", "api", "vuln", "catalog"]),
    room("kuboard-advisor",    4, &["oci", "rt", "vuln", "registry"]),
    room("kuboard",            5, &["*"]),
    room("kuboard-testkit",    6, &["oci"]),
    room("e2e",                7, &["oci", "testkit"]),
    room("bench",              7, &["oci", "p2p", "testkit"]),
    room("xtask",              7, &[]),
];

#[cfg(test)]
mod tests {
    use super::{ROOMS, Room};
    use crate::run::Command;
    use serde_json::{Value, json};

    fn find(name: &str) -> Option<&'static Room> {
        ROOMS.iter().find(|room| room.name == name)
    }

    fn allowed(from: &Room, to: &Room) -> bool {
        let short = to.name.strip_prefix("kuboard-").unwrap_or(to.name);
        to.floor < from.floor && from.may_use.iter().any(|named| *named == "*" || *named == short)
    }

    /// What is wrong with the workspace that `cargo metadata --no-deps` describes.
    fn offences(metadata: &Value) -> Vec<String> {
        let empty = Vec::new();
        let packages = metadata["packages"].as_array().unwrap_or(&empty);
        let mut wrong = Vec::new();
        for package in packages {
            let name = package["name"].as_str().unwrap_or_default();
            let Some(from) = find(name) else {
                wrong.push(format!("{name} has no row in xtask/src/layers.rs"));
                continue;
            };
            for dependency in package["dependencies"].as_array().unwrap_or(&empty) {
                let used = dependency["name"].as_str().unwrap_or_default();
                if dependency["kind"] == "dev" {
                    continue;
                }
                match find(used) {
                    Some(to) if !allowed(from, to) => wrong.push(format!(
                        "{name} (floor {}) must not use {used} (floor {})",
                        from.floor, to.floor
                    )),
                    _ => {}
                }
            }
        }
        wrong
    }

    #[test]
    fn dependencies_point_down() {
        let text = Command::cargo()
            .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
            .read()
            .unwrap();
        let wrong = offences(&serde_json::from_str(&text).unwrap());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn the_table_names_only_lower_floors() {
        for room in ROOMS {
            for used in room.may_use.iter().filter(|used| **used != "*") {
                let to = find(&format!("kuboard-{used}")).unwrap_or_else(|| panic!("{used}?"));
                assert!(to.floor < room.floor, "{} names {used}, which is not below", room.name);
            }
        }
    }

    #[test]
    fn an_upward_a_sideways_and_an_unnamed_edge_are_each_an_offence() {
        let check = |from: &str, to: &str, kind: Value, offended: bool| {
            let metadata = json!({"packages": [
                {"name": from, "dependencies": [{"name": to, "kind": kind}]}
            ]});
            assert_eq!(!offences(&metadata).is_empty(), offended, "{from} -> {to}");
        };
        check("kuboard-store", "kuboard-oci", Value::Null, false);
        check("kuboard", "kuboard-proxy", Value::Null, false);
        check("kuboard-store", "kuboard-proxy", Value::Null, true);
        check("kuboard-store", "kuboard-catalog", Value::Null, true);
        check("kuboard-federation", "kuboard-store", Value::Null, true);
        check("kuboard-store", "kuboard-testkit", json!("dev"), false);
        check("kuboard-store", "kuboard-testkit", json!("build"), true);
        check("kuboard-unknown", "kuboard-oci", Value::Null, true);
        check("kuboard-store", "bytes", Value::Null, false);
    }
}
