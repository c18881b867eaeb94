//! Package URLs, as far as a statement's product must be compared with a package or an image.

use crate::lookup::name_key;
use crate::{Ecosystem, Finding, ImageIdentity, Package};

/// `pkg:TYPE/NAMESPACE/NAME@VERSION?QUALIFIERS`, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Purl {
    kind: String,
    namespace: String,
    name: String,
    version: String,
    qualifiers: Vec<(String, String)>,
}

impl Purl {
    /// Reads one; `None` if the text is no package URL.
    #[must_use]
    pub fn parse(text: &str) -> Option<Purl> {
        if text.len() > 4096 {
            return None;
        }
        let rest = text.strip_prefix("pkg:")?.trim_start_matches('/');
        let rest = rest.split('#').next()?;
        let (rest, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
        let (rest, version) = match rest.rsplit_once('@') {
            // The scope of npm may be written plainly: `pkg:npm/@scope/name`.
            Some((before, version)) if !before.ends_with('/') && !version.contains('/') => {
                (before, version)
            }
            _ => (rest, ""),
        };
        let (kind, path) = rest.split_once('/')?;
        let path = path.trim_matches('/');
        let (namespace, name) = path.rsplit_once('/').unwrap_or(("", path));
        if kind.is_empty() || name.is_empty() {
            return None;
        }
        let qualifiers = qualifiers.split('&').filter_map(|pair| pair.split_once('='));
        Some(Purl {
            kind: kind.to_ascii_lowercase(),
            namespace: decoded(namespace)?,
            name: decoded(name)?,
            version: decoded(version)?,
            qualifiers: qualifiers
                .take(64)
                .map(|(key, value)| Some((key.to_ascii_lowercase(), decoded(value)?)))
                .collect::<Option<_>>()?,
        })
    }

    fn qualifier(&self, key: &str) -> Option<&str> {
        let mut found = self.qualifiers.iter().filter(|(name, _)| name == key);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Whether it means the package of the finding: type and name, and what else it states of
    /// version, architecture and distribution. The name of the source package is one too.
    #[must_use]
    pub fn is_package(&self, finding: &Finding) -> bool {
        let package = &finding.package;
        if self.kind != package.ecosystem.as_str() {
            return false;
        }
        let arch = self.qualifier("arch").filter(|arch| !matches!(*arch, "source" | "src"));
        if let (Some(wanted), Some(found)) = (arch, package.arch.as_deref())
            && wanted != found
        {
            return false;
        }
        if !package.ecosystem.is_os() {
            let name = self.full_name(package.ecosystem);
            return name_key(package.ecosystem, &name)
                == name_key(package.ecosystem, &package.name)
                && (self.version.is_empty() || same_version(&self.version, package));
        }
        let (source, source_version) = package.source_or_self();
        is_vendor(&self.namespace, &finding.namespace)
            && ((self.name == package.name && self.has_version(&package.version))
                || (self.name == source && self.has_version(source_version)))
    }

    fn full_name(&self, ecosystem: Ecosystem) -> String {
        match (ecosystem, self.namespace.as_str()) {
            (_, "") => self.name.clone(),
            (Ecosystem::Maven, group) => format!("{group}:{}", self.name),
            (_, namespace) => format!("{namespace}/{}", self.name),
        }
    }

    /// An rpm's epoch stands in a qualifier, or in front as in the package.
    fn has_version(&self, version: &str) -> bool {
        if self.version.is_empty() || self.version == version {
            return true;
        }
        let Some((epoch, rest)) = version.split_once(':') else { return false };
        self.version == rest && self.qualifier("epoch").is_none_or(|stated| stated == epoch)
    }

    /// Whether it is a `pkg:oci` (or `pkg:docker`) that means the image.
    pub(super) fn is_image(
        &self,
        image: &ImageIdentity,
        has_digest: &dyn Fn(&str) -> bool,
    ) -> bool {
        if !matches!(self.kind.as_str(), "oci" | "docker") {
            return false;
        }
        let last = image.repository.rsplit('/').next().unwrap_or_default();
        if !self.name.eq_ignore_ascii_case(last) && !has_digest(&self.version) {
            return false;
        }
        if self.version.starts_with("sha256:") && !has_digest(&self.version) {
            return false;
        }
        if self.kind == "docker"
            && !self.version.starts_with("sha256:")
            && !matches!(self.version.as_str(), "")
            && self.version != image.tag
        {
            return false;
        }
        let full = format!("{}/{}", image.registry, image.repository);
        let at = self.qualifier("repository_url").map(|url| {
            let url = url.trim_start_matches("https://").trim_start_matches("http://");
            url == full || url == image.registry || format!("{url}/{}", self.name) == full
        });
        let tagged = self.qualifier("tag").map(|tag| tag == image.tag);
        // A digest says all; a name alone is somebody else's image as well.
        has_digest(&self.version) || (at == Some(true) && tagged != Some(false))
    }
}

/// Go's purls have the `v` in front, inventories may not.
fn same_version(version: &str, package: &Package) -> bool {
    match package.ecosystem {
        Ecosystem::Golang => {
            version.trim_start_matches('v') == package.version.trim_start_matches('v')
        }
        _ => version == package.version,
    }
}

/// Whether the purl's namespace (`debian`, `redhat`) may mean the finding's (`debian:12`).
fn is_vendor(vendor: &str, namespace: &str) -> bool {
    let family = namespace.split(':').next().unwrap_or_default();
    let known: &[&str] = match family {
        "rhel" => &["redhat", "rhel", "centos"],
        "alma" => &["almalinux", "alma"],
        "rocky" => &["rocky", "rockylinux", "rocky-linux"],
        "oracle" => &["oracle", "oraclelinux", "ol"],
        "amazon" => &["amazon", "amzn", "amazonlinux"],
        "sles" => &["suse", "sles"],
        "opensuse-leap" | "opensuse-tumbleweed" => &["opensuse", "suse"],
        "mariner" | "azurelinux" => &["mariner", "azurelinux", "microsoft"],
        "ubuntu-pro" => &["ubuntu"],
        other => return vendor.is_empty() || vendor == other,
    };
    vendor.is_empty() || known.contains(&vendor)
}

/// Percent-decoding; `None` if the result is no UTF-8.
fn decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}
