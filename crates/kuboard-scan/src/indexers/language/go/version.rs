//! Versions that a Go program does not state plainly: of its main module, of its toolchain.

/// The version of the standard library that a toolchain brings: `go1.22.3 X:boringcrypto` has
/// `1.22.3`, `devel go1.24-0a1b2c3d Mon Aug 5` has `1.24-0a1b2c3d`.
pub(super) fn of_toolchain(text: &str) -> Option<&str> {
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("go"))?;
    version.starts_with(|first: char| first.is_ascii_digit()).then_some(version)
}

/// The version of the main module: as stated, else as the linker was told to write it into a
/// variable, else a pseudo-version of the commit. None if nothing tells it.
pub(super) fn of_main(path: &str, stated: &str, settings: &[(&str, &str)]) -> Option<String> {
    if !stated.is_empty() && stated != "(devel)" {
        return Some(stated.to_owned());
    }
    let setting = |key: &str| {
        settings.iter().find(|(name, _)| *name == key).map(|(_, value)| unquoted(value))
    };
    if let Some(version) = setting("-ldflags").and_then(|flags| of_flags(path, &flags)) {
        return Some(version);
    }
    pseudo(&setting("vcs.revision")?, &setting("vcs.time")?)
}

/// The version among `-X VARIABLE=VALUE` flags of the linker. Variables of the main module come
/// before those of others.
fn of_flags(path: &str, flags: &str) -> Option<String> {
    let words = words(flags);
    let mut best: Option<(u8, String)> = None;
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let word = word.strip_prefix('-').map_or(word, |rest| rest.trim_start_matches('-'));
        let assignment = match word.strip_prefix('X') {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        let Some((variable, value)) = assignment.and_then(|text| text.split_once('=')) else {
            continue;
        };
        let Some((package, name)) = variable.rsplit_once('.') else { continue };
        if !names_a_version(name) {
            continue;
        }
        let Some(version) = plausible(value) else { continue };
        let inside = package == "main"
            || package
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let rank = if inside { 0 } else { 1 };
        if best.as_ref().is_none_or(|(other, _)| rank < *other) {
            best = Some((rank, version));
        }
    }
    best.map(|(_, version)| version)
}

/// Whether a variable is named like the version of the program, not like one of a part of it.
fn names_a_version(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let name = name.trim_start_matches('_');
    let stem = ["version", "ver", "tag"].iter().find_map(|end| name.strip_suffix(end));
    stem.is_some_and(|stem| {
        let parts = ["", "git", "app", "build", "release", "program", "current", "binary", "cli"];
        let stem = stem.trim_end_matches('_');
        parts.contains(&stem) || ["gitrelease", "buildgit", "gitbuild"].contains(&stem)
    })
}

/// `v1.2.3…` of `1.2.3…`, `v1.2.3…` or `app/v1.2.3…`.
fn plausible(value: &str) -> Option<String> {
    let value = value.rsplit('/').next().unwrap_or(value);
    let version = value.strip_prefix(['v', 'V']).unwrap_or(value);
    let core = version.split(['-', '+']).next().unwrap_or(version);
    let mut numbers = core.split('.');
    let good = numbers.clone().count() >= 3
        && numbers
            .by_ref()
            .take(3)
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        && version.len() <= 128
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+_~".contains(&byte));
    good.then(|| format!("v{version}"))
}

/// `v0.0.0-20240131235959-0a1b2c3d4e5f` of a commit and its time (RFC 3339, UTC).
fn pseudo(revision: &str, time: &str) -> Option<String> {
    let revision = revision.get(..12)?;
    let digits: String = time
        .strip_suffix('Z')?
        .chars()
        .filter(|letter| !matches!(letter, '-' | ':' | 'T'))
        .collect();
    let good = digits.len() == 14
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && revision.bytes().all(|byte| byte.is_ascii_alphanumeric());
    good.then(|| format!("v0.0.0-{digits}-{revision}"))
}

/// A value of a build setting: Go quotes it where it must.
fn unquoted(value: &str) -> String {
    if let Some(raw) = value.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        return raw.to_owned();
    }
    let Some(quoted) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(quoted.len());
    let mut letters = quoted.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(other) => text.push(other),
                None => {}
            },
            other => text.push(other),
        }
    }
    text
}

/// Words as Go's tools split flags: quotes, single or double, hold together what they enclose.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => word.get_or_insert_default().push(letter),
            None if letter == '"' || letter == '\'' => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if letter.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolchains() {
        fn check(text: &str, version: Option<&str>) {
            assert_eq!(of_toolchain(text), version, "{text}");
        }
        check("go1.22.3", Some("1.22.3"));
        check("go1.22rc1", Some("1.22rc1"));
        check("go1.20.12 X:boringcrypto", Some("1.20.12"));
        check("go1.21.13 (Red Hat 1.21.13-2.el9_4)", Some("1.21.13"));
        check("devel go1.24-0a1b2c3d Mon Aug 5 00:00:00 2024 +0000", Some("1.24-0a1b2c3d"));
        check("devel +b7a85e0003 Thu Jan 1", None);
        check("gopher", None);
        check("", None);
    }

    #[test]
    fn main_modules() {
        fn check(stated: &str, settings: &[(&str, &str)], version: Option<&str>) {
            let found = of_main("example.org/app", stated, settings);
            assert_eq!(found.as_deref(), version, "{stated} {settings:?}");
        }
        check("v1.2.3", &[], Some("v1.2.3"));
        check(
            "v1.2.4-0.20240101000000-abcdefabcdef+dirty",
            &[],
            Some("v1.2.4-0.20240101000000-abcdefabcdef+dirty"),
        );
        check("(devel)", &[], None);
        check("", &[], None);
        let flags = |flags| [("-ldflags", flags)];
        check("(devel)", &flags(r#""-s -w -X main.Version=v1.4.2""#), Some("v1.4.2"));
        check("(devel)", &flags(r#""-X main.version=1.4.2-rc.1+x -s""#), Some("v1.4.2-rc.1+x"));
        check("(devel)", &flags(r#""-X 'main.version=1.4.2 with words'""#), None);
        check(
            "(devel)",
            &flags(r#""-X=example.org/app/internal/info.gitVersion=app/v2.0.1""#),
            Some("v2.0.1"),
        );
        check(
            "(devel)",
            &flags(r#""-X \"other.org/lib.Version=9.9.9\" -X main.version=1.0.0""#),
            Some("v1.0.0"),
        );
        check("(devel)", &flags("`-X other.org/version.gitVersion=v1.22.3`"), Some("v1.22.3"));
        check("(devel)", &flags(r#""-X main.goVersion=1.22.3""#), None);
        check("(devel)", &flags(r#""-X main.Version=dev""#), None);
        check("(devel)", &flags(r#""-X main.Version""#), None);
        check("(devel)", &flags("-X"), None);
        check(
            "(devel)",
            &[("vcs.revision", "0a1b2c3d4e5f60718293"), ("vcs.time", "2024-01-31T23:59:59Z")],
            Some("v0.0.0-20240131235959-0a1b2c3d4e5f"),
        );
        check("(devel)", &[("vcs.revision", "0a1b"), ("vcs.time", "2024-01-31T23:59:59Z")], None);
        check("(devel)", &[("vcs.revision", "ééééééééé"), ("vcs.time", "yesterday")], None);
    }
}
