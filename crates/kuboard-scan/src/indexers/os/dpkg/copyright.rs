//! Licences of a Debian package: `usr/share/doc/PACKAGE/copyright`.

use crate::indexers::os::draft::line;

/// Licences of one package.
const MAX_LICENSES: usize = 64;

/// The short names of a machine-readable copyright file (DEP 5), in its order. Of one that is
/// prose, the names of the licence texts that it refers to in `/usr/share/common-licenses`.
pub(super) fn licenses(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let mut licenses = Vec::new();
    let starts = |line: &str, field: &str| {
        line.get(..field.len()).is_some_and(|start| start.eq_ignore_ascii_case(field))
    };
    if starts(text, "Format:") || starts(text, "Format-Specification:") {
        for text in text.lines().filter(|text| starts(text, "License:")) {
            add(&mut licenses, &text["License:".len()..]);
        }
    } else {
        for after in text.split("/common-licenses/").skip(1) {
            let is_of_name = |c: char| c.is_ascii_alphanumeric() || "+.-_".contains(c);
            let end = after.find(|c| !is_of_name(c)).unwrap_or(after.len());
            add(&mut licenses, after[..end].trim_end_matches(['.', '-', '_']));
        }
    }
    licenses
}

fn add(licenses: &mut Vec<String>, name: &str) {
    if let Some(name) = line(name)
        && licenses.len() < MAX_LICENSES
        && !licenses.contains(&name)
    {
        licenses.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::licenses;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        assert_eq!(licenses(text.as_bytes()), want);
    }

    #[test]
    fn finds_names() {
        check("", &[]);
        check(
            "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
             \nFiles: *\nLicense: GPL-2+\n text\n\nFiles: b\nLicense: MIT or Artistic\n\n\
             license: GPL-2+\n",
            &["GPL-2+", "MIT or Artistic"],
        );
        check(
            "This is free. See `/usr/share/common-licenses/GPL-3'.\n\
             And /usr/share/common-licenses/LGPL-2.1. And /usr/share/common-licenses/GPL-3\n",
            &["GPL-3", "LGPL-2.1"],
        );
        check("License: MIT\n", &[]);
    }

    #[test]
    fn is_bounded() {
        let many: String = (0..1000).map(|n| format!("License: L{n}\n")).collect();
        assert_eq!(licenses(format!("Format: x\n{many}").as_bytes()).len(), 64);
    }
}
