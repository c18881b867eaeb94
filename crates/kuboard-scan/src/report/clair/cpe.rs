//! CPE names: the older URI form (`cpe:/a:redhat:enterprise_linux:8::appstream`) to the formatted
//! string of CPE 2.3, which is the only one that Clair writes (NIST IR 7695).

/// The name in form 2.3; empty if it is none.
pub(super) fn normalised(name: &str) -> String {
    if name.len() > 1024 {
        return String::new();
    }
    if name.starts_with("cpe:2.3:") {
        return if is_formatted(name) { name.to_owned() } else { String::new() };
    }
    let lower = name.get(..5).map(str::to_ascii_lowercase);
    if lower.as_deref() != Some("cpe:/") {
        return String::new();
    }
    let Some(fields) = fields(name.get(5..).unwrap_or_default()) else { return String::new() };
    format!("cpe:2.3:{}", fields.join(":"))
}

/// A formatted string has eleven fields after its prefix; a colon in a field is escaped.
fn is_formatted(name: &str) -> bool {
    let mut colons = 0;
    let mut escaped = false;
    for c in name.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => colons += 1,
            c if c.is_whitespace() || c.is_control() => return false,
            _ => {}
        }
    }
    colons == 12 && !escaped
}

/// part, vendor, product, version, update, edition, language, and the four of the packed edition:
/// software edition, target software, target hardware, other.
fn fields(uri: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = uri.split(':').collect();
    if parts.len() > 7 {
        return None;
    }
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    if !matches!(part(0), "a" | "o" | "h" | "") {
        return None;
    }
    let mut out = Vec::with_capacity(11);
    out.push(if part(0).is_empty() { "*".to_owned() } else { part(0).to_owned() });
    for index in 1..5 {
        out.push(field(part(index))?);
    }
    let mut extra = ["*"; 4].map(str::to_owned);
    match part(5).strip_prefix('~') {
        Some(packed) => {
            let mut packed = packed.split('~');
            out.push(field(packed.next().unwrap_or_default())?);
            for (field_of, value) in extra.iter_mut().zip(packed) {
                *field_of = field(value)?;
            }
        }
        None => out.push(field(part(5))?),
    }
    out.push(field(part(6))?);
    out.extend(extra);
    Some(out)
}

/// One field: `%xx` is decoded, what is not a letter, a digit, `_`, `.` or `-` is escaped; `%01`
/// and `%02` are the wildcards.
fn field(text: &str) -> Option<String> {
    match text {
        "" => return Some("*".to_owned()),
        "-" => return Some("-".to_owned()),
        _ => {}
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = if c == '%' {
            let code: String = chars.by_ref().take(2).collect();
            match u8::from_str_radix(&code, 16).ok()? {
                1 => {
                    out.push('?');
                    continue;
                }
                2 => {
                    out.push('*');
                    continue;
                }
                byte => char::from(byte),
            }
        } else {
            c
        };
        match c {
            'a'..='z' | '0'..='9' | '_' | '.' | '-' => out.push(c),
            'A'..='Z' => out.push(c.to_ascii_lowercase()),
            c if c.is_ascii_graphic() => {
                out.push('\\');
                out.push(c);
            }
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::normalised;

    #[test]
    fn names_are_normalised() {
        for (name, want) in [
            (
                "cpe:/a:redhat:enterprise_linux:8::appstream",
                "cpe:2.3:a:redhat:enterprise_linux:8:*:appstream:*:*:*:*:*",
            ),
            ("cpe:/o:debian:debian_linux:12", "cpe:2.3:o:debian:debian_linux:12:*:*:*:*:*:*:*"),
            ("CPE:/o:a%2bb:c:-", "cpe:2.3:o:a\\+b:c:-:*:*:*:*:*:*:*"),
            (
                "cpe:/a:hp:insight:7.4.0.1570:-:~~online~win2003~x64~",
                "cpe:2.3:a:hp:insight:7.4.0.1570:-:*:*:online:win2003:x64:*",
            ),
            (
                "cpe:2.3:o:amazon:amazon_linux:2023:*:*:*:*:*:*:*",
                "cpe:2.3:o:amazon:amazon_linux:2023:*:*:*:*:*:*:*",
            ),
            ("cpe:2.3:o:amazon", ""),
            ("cpe:/x:y", ""),
            ("cpe:/a:b c", ""),
            ("rhel-9-for-x86_64-baseos-rpms", ""),
            ("", ""),
        ] {
            assert_eq!(normalised(name), want, "{name}");
        }
    }
}
