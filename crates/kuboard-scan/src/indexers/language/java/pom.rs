//! What Maven leaves in archives: `pom.properties` and `pom.xml` in
//! `META-INF/maven/GROUP/ARTIFACT/`.

use super::super::license;

/// How deep elements may be nested.
const MAX_DEPTH: usize = 64;

/// Coordinates of an artifact.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Pom {
    pub(super) group: String,
    pub(super) artifact: String,
    pub(super) version: String,
    pub(super) licenses: Vec<String>,
}

impl Pom {
    /// Whether it says everything, and nothing in it was left to be filled in.
    pub(super) fn is_complete(&self) -> bool {
        [&self.group, &self.artifact, &self.version].iter().all(|text| {
            !text.is_empty()
                && text.len() <= 256
                && !text.contains(['$', ':', '@'])
                && !text.contains(char::is_whitespace)
        })
    }

    /// Takes what it lacks from another one of the same folder.
    pub(super) fn complete(&mut self, other: Pom) {
        let unset = |text: &str| text.is_empty() || text.contains('$');
        for (mine, other) in [
            (&mut self.group, other.group),
            (&mut self.artifact, other.artifact),
            (&mut self.version, other.version),
        ] {
            if unset(mine) {
                *mine = other;
            }
        }
        if self.licenses.is_empty() {
            self.licenses = other.licenses;
        }
    }

    /// `pom.properties`: lines `KEY=VALUE`.
    pub(super) fn of_properties(text: &str) -> Self {
        let mut pom = Self::default();
        for line in text.lines().filter(|line| !line.starts_with(['#', '!'])) {
            let Some((key, value)) = line.split_once(['=', ':']) else { continue };
            let value = value.trim().to_owned();
            match key.trim() {
                "groupId" => pom.group = value,
                "artifactId" => pom.artifact = value,
                "version" => pom.version = value,
                _ => {}
            }
        }
        pom
    }

    /// `pom.xml`: what it says itself, else of its parent.
    pub(super) fn of_xml(text: &str) -> Self {
        let (mut own, mut parent) = (Self::default(), Self::default());
        texts(text, |path, text| {
            let text = text.trim();
            match path {
                ["project", "groupId"] => text.clone_into(&mut own.group),
                ["project", "artifactId"] => text.clone_into(&mut own.artifact),
                ["project", "version"] => text.clone_into(&mut own.version),
                ["project", "parent", "groupId"] => text.clone_into(&mut parent.group),
                ["project", "parent", "version"] => text.clone_into(&mut parent.version),
                ["project", "licenses", "license", "name"] if own.licenses.len() < 16 => {
                    own.licenses.extend(license(text));
                }
                _ => {}
            }
        });
        own.complete(parent);
        own
    }
}

/// Calls for each text with the names of the elements around it. Neither entities nor
/// definitions are followed.
fn texts(xml: &str, mut each: impl FnMut(&[&str], &str)) {
    let mut path: Vec<&str> = Vec::new();
    let mut rest = xml;
    while let Some((text, tag)) = rest.split_once('<') {
        if !text.trim().is_empty() {
            each(&path, text);
        }
        let end = if tag.starts_with("!--") {
            "-->"
        } else if tag.starts_with("![CDATA[") {
            "]]>"
        } else {
            ">"
        };
        let Some((tag, after)) = tag.split_once(end) else { return };
        rest = after;
        if let Some(text) = tag.strip_prefix("![CDATA[") {
            each(&path, text);
        } else if tag.starts_with(['!', '?']) || tag.ends_with('/') {
            continue;
        } else if tag.starts_with('/') {
            path.pop();
        } else {
            if path.len() == MAX_DEPTH {
                return;
            }
            path.push(tag.split_whitespace().next().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pom: &Pom, expected: &str) {
        let Pom { group, artifact, version, licenses } = pom;
        assert_eq!(format!("{group}:{artifact}:{version} {licenses:?}"), expected);
    }

    #[test]
    fn properties() {
        check(
            &Pom::of_properties(
                "#Created by\n#now\r\nversion=1.2\r\ngroupId = a.b\nartifactId=c\n",
            ),
            "a.b:c:1.2 []",
        );
        check(&Pom::of_properties(""), ":: []");
        assert!(!Pom::of_properties("version=${v}\ngroupId=a\nartifactId=c").is_complete());
    }

    #[test]
    fn xml() {
        check(
            &Pom::of_xml(
                "<?xml version=\"1.0\"?><!-- <version>9</version> --><project xmlns=\"x\"><parent><groupId>p</groupId><artifactId>q</artifactId><version>1.0</version></parent><artifactId>a</artifactId><licenses><license><name>MIT</name><url/></license></licenses><dependencies><dependency><groupId>z</groupId><version>3</version></dependency></dependencies></project>",
            ),
            "p:a:1.0 [\"MIT\"]",
        );
        check(
            &Pom::of_xml(
                "<project><groupId><![CDATA[g]]></groupId><version>${revision}</version><parent><version>2</version></parent></project>",
            ),
            "g::2 []",
        );
        check(&Pom::of_xml("<project><groupId>g"), ":: []");
        check(&Pom::of_xml(&"<a>".repeat(100_000)), ":: []");
        check(&Pom::of_xml("</a></b><project>"), ":: []");
    }
}
