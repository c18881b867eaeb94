//! Lockfiles of yarn: blocks of a line of patterns and indented fields.

use super::super::Parsed;
use super::locked;

/// Packages of a lockfile of yarn 1 (`version "1.0.0"`) or later (`version: 1.0.0`).
pub(super) fn parse(text: &str) -> Parsed {
    let mut name: Option<&str> = None;
    let packages = text.lines().filter_map(|line| {
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        if !line.starts_with(' ') {
            name = line.trim_end().strip_suffix(':').and_then(name_of);
            return None;
        }
        let field = line.strip_prefix("  ").filter(|field| !field.starts_with(' '))?;
        if let Some(resolution) = field.strip_prefix("resolution:") {
            // What was taken, where the pattern gives it another name.
            let resolved = resolution.trim().trim_matches('"');
            let (of, version) = split(resolved)?;
            let version = version.strip_prefix("npm:")?;
            // Patches and bindings follow the version.
            let version = version.split(['#', ':']).next().unwrap_or(version);
            name = None;
            return locked(of, version);
        }
        None.or_else(|| {
            // Yarn 1 has no `resolution`.
            let version = field.strip_prefix("version ")?;
            locked(name.take()?, version.trim().trim_matches('"'))
        })
    });
    let parsed = Parsed::bounded(packages);
    if parsed.packages.is_empty() && !text.contains("yarn lockfile") && !text.contains("__metadata")
    {
        return Parsed::failed("it is not a lockfile of yarn");
    }
    parsed
}

/// The name of the first pattern: `"@a/b@^1.0.0", "@a/b@^1.1.0"`; of `x@npm:b@1` it is `b`.
fn name_of(patterns: &str) -> Option<&str> {
    let first = patterns.split(", ").next()?.trim().trim_matches('"');
    let (name, range) = split(first)?;
    let local = ["file:", "link:", "portal:", "workspace:"];
    if local.iter().any(|protocol| range.starts_with(protocol)) {
        return None;
    }
    match range.strip_prefix("npm:").and_then(split) {
        Some((other, _)) => Some(other),
        None => Some(name),
    }
}

/// Name and the rest of `NAME@REST`, where the name may begin with `@`.
pub(super) fn split(text: &str) -> Option<(&str, &str)> {
    let scope = usize::from(text.starts_with('@'));
    let at = text.get(scope..)?.find('@')? + scope;
    Some((text.get(..at)?, text.get(at + 1..)?)).filter(|(name, _)| !name.is_empty())
}
