//! Where Amazon's repositories are: a list of mirrors says where, an index there says which file.

use quick_xml::events::Event;
use url::Url;

/// The releases: namespace, name of the document under a mirror, list of mirrors.
pub(super) const RELEASES: [(&str, &str, &str); 2] = [
    (
        "amazon:2",
        "amazon-2-updateinfo.xml.gz",
        "https://cdn.amazonlinux.com/2/core/latest/x86_64/mirror.list",
    ),
    (
        "amazon:2023",
        "amazon-2023-updateinfo.xml.gz",
        "https://cdn.amazonlinux.com/al2023/core/mirrors/latest/x86_64/mirror.list",
    ),
];

/// Mirrors that are tried.
const MAX_MIRRORS: usize = 5;

/// The addresses in a list of mirrors, one a line, with a slash at the end.
pub(super) fn mirrors(list: &[u8]) -> Vec<Url> {
    let text = String::from_utf8_lossy(list);
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let urls =
        lines.filter_map(|line| Url::parse(&format!("{}/", line.trim_end_matches('/'))).ok());
    urls.filter(|url| url.scheme() == "https" && url.host().is_some()).take(MAX_MIRRORS).collect()
}

/// The file that `repomd.xml` names for `updateinfo`, a relative path.
pub(super) fn updateinfo(index: &[u8]) -> Option<String> {
    let mut reader = quick_xml::Reader::from_reader(index);
    let mut buffer = Vec::new();
    let mut inside = false;
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer).ok()? {
            Event::Start(tag) if tag.local_name().as_ref() == "data" => {
                let kind = tag.try_get_attribute("type").ok()??;
                inside = kind.value.as_ref() == "updateinfo";
            }
            Event::End(tag) if tag.local_name().as_ref() == "data" => inside = false,
            Event::Start(tag) | Event::Empty(tag)
                if inside && tag.local_name().as_ref() == "location" =>
            {
                let path = tag.try_get_attribute("href").ok()??;
                let path = path.value.into_owned();
                return is_plain(&path).then_some(path);
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

fn is_plain(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./+~".contains(&byte);
    path.len() <= 512
        && path.bytes().all(plain)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::{mirrors, updateinfo};

    #[test]
    fn lists_name_mirrors() {
        let list = b"# of today\nhttps://cdn.test/2/core/2.0/x86_64/abc\n\
                     https://two.test/x/\nhttp://plain.test/\nnonsense\n";
        let found: Vec<String> = mirrors(list).into_iter().map(String::from).collect();
        assert_eq!(found, ["https://cdn.test/2/core/2.0/x86_64/abc/", "https://two.test/x/"]);
        assert!(mirrors(b"<html>").is_empty() && mirrors(&[0xff; 100]).is_empty());
        assert_eq!(mirrors("https://a.test\n".repeat(1000).as_bytes()).len(), 5);
    }

    #[test]
    fn indexes_name_the_file() {
        let index = |href: &str| {
            format!(
                r#"<?xml version="1.0"?><repomd xmlns="http://linux.duke.edu/metadata/repo">
                <data type="primary"><location href="repodata/primary.xml.gz"/></data>
                <data type="updateinfo"><checksum type="sha256">0</checksum>
                <location href="{href}"/></data></repomd>"#
            )
        };
        let found = |href: &str| updateinfo(index(href).as_bytes());
        let sound = "repodata/abc-updateinfo.xml.gz";
        assert_eq!(found(sound).as_deref(), Some(sound));
        for bad in ["../x", "/etc/passwd", "https://else.test/x", "a//b", ""] {
            assert_eq!(found(bad), None, "{bad}");
        }
        for bad in ["", "<html>", "<data type=", "<repomd><data><location/></data></repomd>"] {
            assert_eq!(updateinfo(bad.as_bytes()), None, "{bad}");
        }
    }
}
