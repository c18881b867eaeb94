//! Names of documents that are the same for the same content: no randomness, no clock.

use kuboard_oci::{Algorithm, Digest, Hasher};
use kuboard_vuln::Report;

/// A UUID of version 8 (RFC 9562, 5.8): the SHA-256 of the image's name and digest, its packages,
/// its findings and the form.
pub(super) fn uuid(report: &Report, form: &str) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut add = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update(b"\0");
    };
    let image = &report.image;
    let digests = [&image.digest, &image.config].map(|one| one.as_ref().map(Digest::to_string));
    for text in ["kuboard bill of materials", form, &image.name, &image.platform] {
        add(text);
    }
    for digest in digests {
        add(&digest.unwrap_or_default());
    }
    for placed in &report.packages {
        let package = &placed.package;
        for text in [package.ecosystem.as_str(), &package.name, &package.version, &placed.path] {
            add(text);
        }
    }
    for finding in &report.findings {
        for text in [&finding.id, &finding.package.name, &finding.package.version, &finding.path] {
            add(text);
        }
    }
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(hasher.finish().bytes()) {
        *to = *from;
    }
    formatted(bytes)
}

fn formatted(bytes: [u8; 16]) -> String {
    let mut number = u128::from_be_bytes(bytes);
    number = number & !(0xf << 76) | 0x8 << 76;
    number = number & !(0x3 << 62) | 0x2 << 62;
    let hex = format!("{number:032x}");
    let mut out = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            out.push('-');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::formatted;

    #[test]
    fn version_and_variant_are_set() {
        assert_eq!(formatted([0xff; 16]), "ffffffff-ffff-8fff-bfff-ffffffffffff");
        assert_eq!(formatted([0; 16]), "00000000-0000-8000-8000-000000000000");
    }
}
