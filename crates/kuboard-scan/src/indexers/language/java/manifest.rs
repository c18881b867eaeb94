//! `META-INF/MANIFEST.MF` and names of archives: who an archive is where Maven left nothing.

use super::groups;

/// The main section of a manifest: keys in lower case.
#[derive(Default, Debug)]
pub(super) struct Manifest(Vec<(String, String)>);

impl Manifest {
    pub(super) fn parse(text: &str) -> Self {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in text.lines() {
            if line.is_empty() {
                if fields.is_empty() {
                    continue;
                }
                break;
            }
            // Lines are cut after 72 bytes; they go on behind a space.
            if let Some(more) = line.strip_prefix(' ') {
                if let Some((_, value)) = fields.last_mut() {
                    value.push_str(more);
                }
            } else if let Some((key, value)) = line.split_once(':') {
                if fields.len() == 1000 {
                    break;
                }
                fields.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        Self(fields)
    }

    /// A field's value, if it says something.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(name, _)| name == key)?;
        let value = value.trim();
        let says =
            !value.is_empty() && !value.contains('$') && !value.eq_ignore_ascii_case("unknown");
        says.then_some(value)
    }

    /// The first of several fields that says something.
    fn first(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.get(key))
    }

    /// The OSGi name without directives.
    fn symbolic(&self) -> Option<&str> {
        self.get("bundle-symbolicname")?.split(';').next().map(str::trim)
    }

    /// The version, the most exact first.
    pub(super) fn version(&self) -> Option<&str> {
        let keys =
            ["plugin-version", "implementation-version", "specification-version", "bundle-version"];
        // What follows a space says how or when it was built.
        self.first(&keys)?.split_whitespace().next()
    }
}

/// Name and version in an archive's file name: `log4j-1.2-api-2.14.1.jar`.
pub(super) fn of_file(name: &str) -> (&str, Option<&str>) {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let mut split = None;
    for (at, _) in stem.match_indices('-') {
        let (before, after) = (stem.get(..at), stem.get(at + 1..));
        let (Some(before), Some(after)) = (before, after) else { continue };
        if !after.starts_with(|first: char| first.is_ascii_digit()) || before.is_empty() {
            continue;
        }
        match split {
            None => split = Some((before, after)),
            // `1.2-api-2.14.1`: the first number belongs to the name.
            Some((earlier, _)) => {
                let between = before.get(str::len(earlier) + 1..).unwrap_or_default();
                let last = between.rsplit('-').next().unwrap_or_default();
                let word = last.bytes().all(|byte| byte.is_ascii_alphabetic());
                if word && !is_qualifier(last) && after.contains('.') {
                    split = Some((before, after));
                }
            }
        }
    }
    match split {
        // `geronimo-interceptor-3.0-spec`: the number is of what it is an interface of.
        Some((_, version)) if version.ends_with("-spec") || version.ends_with("-api") => {
            (stem, None)
        }
        Some((name, version)) => (name, Some(version)),
        None => (stem, None),
    }
}

/// Words that versions have in them.
fn is_qualifier(word: &str) -> bool {
    let words = [
        "alpha",
        "beta",
        "rc",
        "cr",
        "m",
        "ga",
        "sp",
        "final",
        "release",
        "snapshot",
        "jre",
        "android",
        "b",
        "build",
        "incubating",
        "linux",
        "osx",
        "windows",
        "redhat",
        "jdk",
        "java",
        "pre",
        "dev",
        "preview",
        "milestone",
        "v",
        "r",
        "p",
        "patch",
        "jbossorg",
        "hadoop",
    ];
    words.iter().any(|other| word.eq_ignore_ascii_case(other))
}

/// Group, artifact and version of an archive that Maven left nothing in.
pub(super) struct Identity {
    pub(super) group: Option<String>,
    pub(super) artifact: String,
    pub(super) version: String,
}

/// Who an archive is, of its file name and its manifest.
pub(super) fn identity(file: &str, manifest: &Manifest) -> Option<Identity> {
    let (mut artifact, in_name) = of_file(file);
    // The name of a file that was renamed says little.
    if in_name.is_none() {
        let generic = ["app", "application", "main", "server", "service", "boot", "root", "target"];
        let better = manifest.first(&["short-name", "implementation-title"]);
        let better = better.filter(|title| !title.contains([' ', '.', ':']));
        if manifest.get("short-name").is_some() || generic.contains(&artifact) {
            artifact = better.unwrap_or(artifact);
        }
    }
    let stated = manifest.version();
    // A platform may follow the version in the name; the manifest then has it alone.
    let version = match (in_name, stated) {
        (Some(named), Some(stated))
            if named.strip_prefix(stated).is_some_and(|rest| rest.starts_with('-')) =>
        {
            stated
        }
        (Some(named), _) => named,
        (None, stated) => stated?,
    };
    let mut artifact = artifact.to_owned();
    // Tomcat's own archives have short names, its artifacts do not.
    if let Some(rest) = manifest.symbolic().and_then(|name| name.strip_prefix("org.apache.tomcat-"))
    {
        artifact = format!("tomcat-{rest}");
    }
    let group = group(&artifact, manifest);
    Some(Identity { group, artifact, version: version.to_owned() })
}

fn group(artifact: &str, manifest: &Manifest) -> Option<String> {
    if let Some(group) = manifest.get("group-id").or_else(|| groups::known(artifact)) {
        return Some(group.to_owned());
    }
    let guess = |key: Option<&str>| key.and_then(|name| guessed(name, artifact));
    guess(manifest.symbolic())
        .or_else(|| {
            manifest.get("implementation-vendor-id").filter(|id| is_domain(id)).map(str::to_owned)
        })
        .or_else(|| guess(manifest.get("automatic-module-name")))
        .or_else(|| guess(manifest.get("extension-name")))
}

/// Names that many projects share: none has its artifacts in them.
const UMBRELLAS: [&str; 7] = [
    "org.apache",
    "org.eclipse",
    "org.codehaus",
    "com.google",
    "com.sun",
    "com.github",
    "io.github",
];

/// The group in a dotted name that holds it and the artifact, or a part of it.
fn guessed(name: &str, artifact: &str) -> Option<String> {
    if !is_domain(name) {
        return None;
    }
    if let Some(group) = name.strip_suffix(artifact).and_then(|rest| rest.strip_suffix('.'))
        && group.contains('.')
        && !UMBRELLAS.contains(&group)
    {
        return Some(group.to_owned());
    }
    // `org.slf4j.api` and `slf4j-api`: up to the part that the artifact begins with.
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if name.get(..end)?.contains('.') && artifact.split(['-', '_']).next() == Some(part) {
            return name.get(..end).map(str::to_owned);
        }
        end += 1;
    }
    Some(name.to_owned())
}

/// `org.example.product`
fn is_domain(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let first = name.split('.').next().unwrap_or_default();
    name.len() <= 256
        && name.contains('.')
        && name.split('.').all(part)
        && (2..=8).contains(&first.len())
        && first.bytes().all(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names() {
        fn check(name: &str, artifact: &str, version: Option<&str>) {
            assert_eq!(of_file(name), (artifact, version), "{name}");
        }
        check("log4j-core-2.14.1.jar", "log4j-core", Some("2.14.1"));
        check("log4j-1.2-api-2.14.1.jar", "log4j-1.2-api", Some("2.14.1"));
        check("guava-31.1-jre.jar", "guava", Some("31.1-jre"));
        check("kafka_2.13-3.4.0.jar", "kafka_2.13", Some("3.4.0"));
        check("foo-1.0-beta-2.jar", "foo", Some("1.0-beta-2"));
        check("foo-1.0-2.3.jar", "foo", Some("1.0-2.3"));
        check("netty-4.1.94.Final-linux-x86_64.jar", "netty", Some("4.1.94.Final-linux-x86_64"));
        check("bcprov-jdk15on-1.70.jar", "bcprov-jdk15on", Some("1.70"));
        check("json-20230227.jar", "json", Some("20230227"));
        check("interceptor-3.0-spec.jar", "interceptor-3.0-spec", None);
        check("app.jar", "app", None);
        check("-1.jar", "-1", None);
        check("é-1é.jar", "é", Some("1é"));
        check("", "", None);
    }

    #[test]
    fn identities() {
        fn check(file: &str, manifest: &str, expected: &str) {
            let manifest = Manifest::parse(manifest);
            let found = identity(file, &manifest).map_or("-".to_owned(), |found| {
                format!("{}:{}:{}", found.group.unwrap_or_default(), found.artifact, found.version)
            });
            assert_eq!(found, expected, "{file}");
        }
        check(
            "spring-core-5.3.20.jar",
            "Implementation-Title: spring-core\n",
            "org.springframework:spring-core:5.3.20",
        );
        check("slf4j-api-1.7.36.jar", "Bundle-SymbolicName: slf4j.api\n", ":slf4j-api:1.7.36");
        check(
            "slf4j-api.jar",
            "Bundle-SymbolicName: org.slf4j.api;x:=y\nBundle-Version: 1.7.36\n",
            "org.slf4j:slf4j-api:1.7.36",
        );
        check(
            "jackson-databind-2.9.jar",
            "Bundle-SymbolicName: com.fasterxml.jackson.core.jackson-databind\n",
            "com.fasterxml.jackson.core:jackson-databind:2.9",
        );
        check(
            "thing-1.0.jar",
            "Bundle-SymbolicName: org.apache.thing\n",
            "org.apache.thing:thing:1.0",
        );
        check(
            "catalina.jar",
            "Bundle-SymbolicName: org.apache.tomcat-catalina\nImplementation-Version: 9.0.5\n",
            "org.apache.tomcat:tomcat-catalina:9.0.5",
        );
        check(
            "git.hpi",
            "Short-Name: git\nGroup-Id: org.jenkins-ci.plugins\nPlugin-Version: 4.1 (private)\n",
            "org.jenkins-ci.plugins:git:4.1",
        );
        check(
            "app.jar",
            "Implementation-Title: de\n mo\nImplementation-Version: 1.0\n\nName: x\n",
            ":demo:1.0",
        );
        check("app.jar", "Implementation-Title: demo\nImplementation-Version: ${version}\n", "-");
        check(
            "x-4.1.9.Final-linux-x86_64.jar",
            "Implementation-Version: 4.1.9.Final\n",
            ":x:4.1.9.Final",
        );
        check("x.jar", "", "-");
    }
}
