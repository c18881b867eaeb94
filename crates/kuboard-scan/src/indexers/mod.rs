//! The indexers, one an ecosystem.

pub mod language;
pub mod os;

use crate::Indexer;

/// All indexers.
#[must_use]
pub fn all() -> Vec<Box<dyn Indexer>> {
    let mut all = os::all();
    all.extend(language::all());
    all
}

/// Whether a language indexer may find packages in a file of this path, so that it matters which
/// package of the distribution owns it. Paths have no leading slash.
#[must_use]
pub fn may_hold_language_packages(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    if matches!(name, "METADATA" | "PKG-INFO" | "package.json" | "installed.json" | "DESCRIPTION")
        || name.ends_with(".egg-info")
    {
        return true;
    }
    match name.rsplit_once('.') {
        Some((_, extension)) if !extension.is_empty() => {
            !path.starts_with("usr/share/doc/")
                && HOLDING.iter().any(|known| extension.eq_ignore_ascii_case(known))
        }
        _ => is_program(path),
    }
}

/// Extensions of files that hold packages.
const HOLDING: [&str; 17] = [
    "jar", "war", "ear", "par", "sar", "nar", "kar", "hpi", "jpi", "lpkg", "gemspec", "json", "so",
    "exe", "dll", "lock", "yaml",
];

/// Whether a program or library may lie there: Go and Rust say in them what they were built of.
fn is_program(path: &str) -> bool {
    [
        "bin/",
        "sbin/",
        "usr/bin/",
        "usr/sbin/",
        "usr/libexec/",
        "usr/lib/",
        "usr/local/",
        "opt/",
        "lib/",
    ]
    .iter()
    .any(|folder| path.starts_with(folder))
}
