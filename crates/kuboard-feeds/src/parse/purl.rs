//! Package URLs, as far as rpm feeds use them.

use super::text;

/// The parts of `pkg:rpm/redhat/curl@7.76.1-14.el9?arch=x86_64&epoch=1`, percent-decoded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Purl {
    pub kind: String,
    pub name: String,
    /// Empty if none.
    pub version: String,
    qualifiers: Vec<(String, String)>,
}

impl Purl {
    pub(super) fn parse(purl: &str) -> Option<Self> {
        let rest = purl.strip_prefix("pkg:")?;
        if rest.len() > 4096 {
            return None;
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
        let (kind, rest) = rest.trim_start_matches('/').split_once('/')?;
        let (path, version) = match rest.rsplit_once('@') {
            Some((path, version)) => (path, version),
            None => (rest, ""),
        };
        let name = decode(path.rsplit('/').next().unwrap_or_default())?;
        let qualifiers = qualifiers
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| Some((key.to_ascii_lowercase(), decode(value)?)))
            .collect::<Option<Vec<_>>>()?;
        let version = decode(version)?;
        let sound = text::is_name(&name) && (version.is_empty() || text::is_name(&version));
        sound.then(|| Self { kind: kind.to_ascii_lowercase(), name, version, qualifiers })
    }

    /// The value of a qualifier, if it is there and not empty.
    pub(super) fn qualifier(&self, key: &str) -> Option<&str> {
        let value = self.qualifiers.iter().find(|(name, _)| name == key)?.1.as_str();
        (!value.is_empty()).then_some(value)
    }
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let figure = |byte: u8| char::from(byte).to_digit(16);
        let high = figure(bytes.next()?)?;
        let low = figure(bytes.next()?)?;
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::Purl;

    #[test]
    fn parts_are_decoded() {
        let purl = Purl::parse(
            "pkg:rpm/redhat/libstdc%2B%2B@8.5.0-1.module%2Bel8?arch=src&epoch=2&rpmmod=a:b:1:c",
        )
        .unwrap();
        assert_eq!((purl.kind.as_str(), purl.name.as_str()), ("rpm", "libstdc++"));
        assert_eq!(purl.version, "8.5.0-1.module+el8");
        assert_eq!(purl.qualifier("epoch"), Some("2"));
        assert_eq!(purl.qualifier("rpmmod"), Some("a:b:1:c"));
        for bad in
            ["rpm/x", "pkg:rpm", "pkg:rpm/redhat/%2", "pkg:rpm/redhat/%zz", "pkg:rpm/redhat/"]
        {
            assert_eq!(Purl::parse(bad), None, "{bad}");
        }
    }
}
